# The localizer on StampSound, preset small (docs/stampsound.md): half-width
# encoders, small frames, minutes on two CPU cores; then the COCO json of
# self-labels.
#
# Beyond the paper, each with its row in configs/tables/stampsound_small.py
# (docs/results.md has those that have been run): the first self-labels come
# from statistics of the sounds, so both heads are trained from the first
# epoch on, and when the heads take over, sounds are clustered again by their
# embeddings; pooling goes in small steps from the mean to the best locations;
# the visual classifier sees the maximum over locations; a third head learns
# from the heatmaps what each cluster's object looks like and sharpens them by
# that; and when boxes are drawn, heatmaps are averaged over a frame and its
# mirror image, and follow its colors. ablations/paper-*.py is the paper's
# recipe.
#
# AVDET_SEED is the seed, AVDET_STAMPSOUND the folder of the data.
_base_ = [
    '../avdet/_base_/runtime.py', '../avdet/_base_/avol-net_small.py'
]
data_root = '{{$AVDET_STAMPSOUND:data}}/stampsound_small/'
run_dir = ('{{$AVDET_WORK_DIRS:work_dirs}}/stampsound_small/'
           'seed{{$AVDET_SEED:0}}')
randomness = dict(seed=int('{{$AVDET_SEED:0}}'))
num_clusters = 10
channels = 256
audio_channels = 128
model = dict(
    flip_test=True,
    heatmap_filter=dict(type='avdet_mm.GuidedFilter'),
    keep_embeddings=True,  # For RetrievalMetric.
    visual_backbone=dict(base_channels=32, out_indices=(1, 3)),
    # The paper's; tools/analysis_tools/choose_beta.py: docs/results.md.
    box_extractor=dict(beta=0.7),
    localization_head=dict(
        visual_channels=channels, audio_channels=audio_channels),
    cluster_head=dict(
        type='avdet_mm.SKClusterHead',
        num_clusters=num_clusters,
        visual_channels=channels,
        audio_channels=audio_channels,
        hidden_channels=128,
        visual_pooling='max'),
    appearance_head=dict(type='avdet_mm.AppearanceHead', in_channels=64))

frame_size = 108
crop_size = 96
train_pipeline = [
    dict(type='avdet_mm.LoadClip', frame_time='random'),
    dict(type='mmdet.Resize', scale=(100000, frame_size), keep_ratio=True),
    dict(
        type='mmdet.RandomCrop',
        crop_size=(crop_size, crop_size),
        crop_type='absolute'),
    dict(type='mmdet.RandomFlip', prob=0.5),
    dict(type='avdet_mm.RandomAudioGain'),
    dict(type='avdet_mm.PackAudioVisualInputs'),
]
# Whole frames: the encoder is fully convolutional.
test_pipeline = [
    dict(type='avdet_mm.LoadClip', frame_time='middle'),
    dict(type='mmdet.Resize', scale=(100000, crop_size), keep_ratio=True),
    dict(type='avdet_mm.PackAudioVisualInputs'),
]
train_dataset = dict(
    type='avdet_mm.AudioVisualDataset',
    ann_file='train.json',
    data_root=data_root)
loader = dict(
    batch_size=64,
    num_workers=1,
    persistent_workers=False,
    worker_init_fn=dict(type='avdet_mm.seed_worker'),
    collate_fn=dict(type='pseudo_collate'))
train_dataloader = dict(
    loader,
    batch_size=32,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(train_dataset, pipeline=train_pipeline))
# All training clips in a fixed order.
label_dataloader = dict(
    loader,
    sampler=dict(type='DefaultSampler', shuffle=False, round_up=False),
    dataset=dict(train_dataset, pipeline=test_pipeline, test_mode=True))
# On some training clips. The ground truth is only printed; nothing is chosen
# by it.
val_dataloader = dict(
    loader,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        train_dataset, pipeline=test_pipeline, test_mode=True, indices=500))
test_dataloader = dict(
    loader,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        train_dataset,
        ann_file='test.json',
        pipeline=test_pipeline,
        test_mode=True))

max_epochs = 8
train_cfg = dict(
    type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-3, weight_decay=0.01),
    paramwise_cfg=dict(custom_keys=dict(log_scale=dict(decay_mult=0.))))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.02, by_epoch=False, end=50),
    dict(
        type='CosineAnnealingLR',
        T_max=max_epochs,
        eta_min=2e-5,
        convert_to_iter_based=True),
]
custom_hooks = [
    dict(type='avdet_mm.EpochSeedHook'),
    dict(type='avdet_mm.LogMelStatsHook'),
    dict(type='avdet_mm.PlateauHook', patience=500),
    dict(type='avdet_mm.AnnealedPoolingHook', begin=1, end_epoch=6),
    dict(
        type='avdet_mm.SelfLabelHook',
        dataloader=label_dataloader,
        source='memory',
        initial=dict(type='avdet_mm.AudioStatisticsClusters'),
        begin=2,
        recluster=True,
        num_updates=6,
        power=1.),
    dict(
        type='avdet_mm.PseudoLabelHook',
        dataloader=label_dataloader,
        out_file=run_dir + '/self_labels.json',
        dump_file=run_dir + '/localizer_predictions.pkl'),
]
val_evaluator = [
    dict(type='avdet_mm.LocalizationMetric'),
    dict(type='avdet_mm.ClusterMetric'),
]
# Self-boxes of the test clips count as detections, without classes.
test_evaluator = val_evaluator + [
    dict(type='avdet_mm.RetrievalMetric'),
    dict(
        type='avdet_mm.SoundLocalizationMetric',
        protocols=['dsol_single', 'lvs_vggss', 'ez_vsl_vggss'],
        single_thr=0.5),
    dict(type='avdet_mm.MatchedCocoMetric', class_aware=False),
]
