# DSOL on the demo's clips, stage 2: which objects of the dictionary sound, and
# where. At the end, the clusters that it hears in the training clips, for
# tools/match_clusters.py. The original mixes solo clips where it has no
# others (MUSIC), so that something is silent; these show silent objects.
_base_ = ['./_base_/demo.py', './_base_/avol-net_small.py']
demo_dir = '{{$AVDET_DEMO_DIR:work_dirs/demo}}'
load_from = demo_dir + '/dsol-stage1/epoch_3.pth'
num_clusters = 8
max_epochs = 3
model = dict(
    type='avdet_mm.DSOLStageTwo',
    num_clusters=num_clusters,
    visual_channels=_base_.channels,
    audio_channels=_base_.channels)
train_cfg = dict(max_epochs=max_epochs)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, end=50),
    dict(
        type='CosineAnnealingLR',
        T_max=max_epochs,
        eta_min=2e-5,
        convert_to_iter_based=True),
]
export_pipeline = [
    dict(type='avdet_mm.LoadClip', frame_time='middle', cache=True),
    dict(
        type='avdet_mm.ExportFrame',
        out_dir=demo_dir + '/dsol-stage2/self_labels_images'),
    dict(
        type='mmdet.Resize',
        scale=(100000, _base_.label_size),
        keep_ratio=True),
    dict(type='avdet_mm.PackAudioVisualInputs'),
]
custom_hooks = [
    *_base_.custom_hooks,
    dict(
        type='avdet_mm.PseudoLabelHook',
        dataloader=dict(
            batch_size=64,
            num_workers=0,
            persistent_workers=False,
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='pseudo_collate'),
            dataset=dict(
                pipeline=export_pipeline,
                test_mode=True,
                **_base_.train_dataset)),
        out_file=demo_dir + '/dsol-stage2/self_labels.json'),
]
# The maps of clusters need a matching to classes:
#   --cfg-options test_evaluator.1.matching=matching.json
test_evaluator = [
    *_base_.test_evaluator,
    dict(type='avdet_mm.ClusterMetric'),
]
