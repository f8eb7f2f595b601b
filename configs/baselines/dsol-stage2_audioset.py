# DSOL on AudioSet-Instruments, stage 2: which objects of the dictionary
# sound, and where. The original trains it on videos with several instruments;
# no mixtures are made. At the end, the clusters that it hears in the training
# clips, for tools/match_clusters.py.
_base_ = ['./_base_/resnet18_audioset.py']
work_root = '{{$AVDET_WORK_DIRS:work_dirs}}'
work_dir = work_root + '/dsol-stage2_audioset'
load_from = work_root + '/dsol-stage1_audioset/epoch_49.pth'
num_clusters = 13
model = dict(
    type='avdet_mm.DSOLStageTwo',
    num_clusters=num_clusters,
    visual_channels=_base_.channels,
    audio_channels=_base_.channels,
    matching='bce',
    temperature=0.7,
    # In the authors' code from epoch 50 on; here from the start.
    loc_weight=1.)
custom_hooks = [
    *_base_.custom_hooks,
    dict(
        type='avdet_mm.PseudoLabelHook',
        dataloader=_base_.pseudo_label_dataloader,
        out_file=work_dir + '/self_labels.json'),
]
# The maps of clusters need a matching to classes:
#   --cfg-options test_evaluator.1.matching=matching.json
test_evaluator = [
    *_base_.test_evaluator,
    dict(type='avdet_mm.ClusterMetric'),
]
