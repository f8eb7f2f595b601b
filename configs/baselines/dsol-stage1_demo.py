# DSOL (Hu et al., NeurIPS 2020) on the demo's clips, stage 1: localization
# and classification of clusters, in turn. Its first epochs, of localization
# alone, are those of objects-that-sound_demo.py: the same loss and networks.
_base_ = ['./_base_/demo.py', './_base_/avol-net_small.py']
demo_dir = '{{$AVDET_DEMO_DIR:work_dirs/demo}}'
load_from = demo_dir + '/objects-that-sound/epoch_6.pth'
num_clusters = 8
init_epochs = 0
# Then an epoch of localization, and again one of classification.
class_epochs = 1
max_epochs = 3
model = dict(
    type='avdet_mm.DSOL',
    num_clusters=num_clusters,
    visual_channels=_base_.channels,
    audio_channels=_base_.channels)
train_cfg = dict(max_epochs=max_epochs)
# The classifiers start anew and have ten times the rate, as in the original.
optim_wrapper = dict(
    optimizer=dict(lr=1e-3),
    paramwise_cfg=dict(custom_keys=dict(classifier=dict(lr_mult=10.))))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, end=50),
    dict(
        type='CosineAnnealingLR',
        T_max=max_epochs,
        eta_min=2e-5,
        convert_to_iter_based=True),
]
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
