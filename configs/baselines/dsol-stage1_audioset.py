# DSOL (Hu et al., NeurIPS 2020) on AudioSet-Instruments, stage 1:
# localization and classification of clusters, in turn. The original, and the
# paper, train it on videos with one instrument (audioset.py --single).
_base_ = ['./_base_/resnet18_audioset.py']
work_dir = '{{$AVDET_WORK_DIRS:work_dirs}}/dsol-stage1_audioset'
num_clusters = 13
init_epochs = 10
class_epochs = 3
# Ends with classification. How often is ours.
max_epochs = init_epochs + 9 * (class_epochs + 1) + class_epochs
model = dict(
    type='avdet_mm.DSOL',
    num_clusters=num_clusters,
    visual_channels=_base_.channels,
    audio_channels=_base_.channels)
train_cfg = dict(max_epochs=max_epochs)
optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys=dict(classifier=dict(lr_mult=10.))))
# What an epoch does not train has no gradient.
find_unused_parameters = True
custom_hooks = [
    *_base_.custom_hooks,
    dict(
        type='avdet_mm.DSOLClusterHook',
        dataloader=_base_.label_dataloader,
        init_epochs=init_epochs,
        class_epochs=class_epochs),
]
# It has one map for all classes of objects.
test_evaluator = [
    *_base_.test_evaluator,
    dict(type='avdet_mm.ClusterMetric'),
]
