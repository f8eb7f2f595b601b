# Stage 1b on the demo's clips: both heads, max pooling, self-labels by
# Sinkhorn-Knopp; then stage 2: the COCO json of self-labels.
_base_ = ['./pretrain_demo.py']
demo_dir = '{{$AVDET_DEMO_DIR:work_dirs/demo}}'
load_from = demo_dir + '/pretrain/epoch_6.pth'
num_clusters = 8
model = dict(
    localization_head=dict(pooling='max'),
    cluster_head=dict(
        type='avdet_mm.SKClusterHead',
        num_clusters=num_clusters,
        visual_channels={{_base_.channels}},
        audio_channels={{_base_.channels}},
        hidden_channels=128,
        visual_pooling='max'))
train_cfg = dict(max_epochs=7)
param_scheduler = [
    dict(
        type='CosineAnnealingLR',
        T_max=7,
        eta_min=1e-5,
        convert_to_iter_based=True),
]
export_pipeline = [
    dict(type='avdet_mm.LoadClip', frame_time='middle', cache=True),
    dict(
        type='avdet_mm.ExportFrame',
        out_dir=demo_dir + '/self_labels_images'),
    dict(
        type='mmdet.Resize',
        scale=(100000, {{_base_.label_size}}),
        keep_ratio=True),
    dict(type='avdet_mm.PackAudioVisualInputs'),
]
custom_hooks = [
    dict(type='avdet_mm.EpochSeedHook'),
    dict(
        type='avdet_mm.SelfLabelHook',
        dataloader={{_base_.label_dataloader}},
        num_updates=8,
        power=2.),
    dict(
        type='avdet_mm.PseudoLabelHook',
        dataloader=dict(
            batch_size=64,
            num_workers=0,
            persistent_workers=False,
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='pseudo_collate'),
            dataset=dict(
                type='avdet_mm.AudioVisualDataset',
                ann_file='train.json',
                data_root={{_base_.data_root}},
                pipeline=export_pipeline,
                test_mode=True)),
        out_file=demo_dir + '/self_labels.json',
        dump_file=demo_dir + '/localizer_predictions.pkl'),
]
val_evaluator = [
    dict(type='avdet_mm.LocalizationMetric'),
    dict(type='avdet_mm.ClusterMetric')
]
# On the test clips also the self-boxes as detections, without classes.
test_evaluator = val_evaluator + [
    dict(type='avdet_mm.MatchedCocoMetric', class_aware=False)
]
