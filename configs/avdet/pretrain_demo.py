# Stage 1a on the demo's clips: localization alone. Two epochs of average
# pooling (the paper's pre-training), then, ours, a pooled share of locations
# that shrinks from half to one.
_base_ = [
    './_base_/runtime.py', './_base_/avol-net_small.py',
    './_base_/procedural_clips.py'
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=6, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-3, weight_decay=0.01),
    paramwise_cfg=dict(custom_keys=dict(log_scale=dict(decay_mult=0.))))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, end=50),
    dict(
        type='CosineAnnealingLR',
        T_max=6,
        eta_min=2e-5,
        convert_to_iter_based=True),
]
custom_hooks = [
    dict(type='avdet_mm.EpochSeedHook'),
    dict(type='avdet_mm.LogMelStatsHook'),
    dict(type='avdet_mm.PlateauHook', patience=90),
    dict(type='avdet_mm.AnnealedPoolingHook', begin=2, end_epoch=6),
]
val_evaluator = [dict(type='avdet_mm.LocalizationMetric')]
test_evaluator = val_evaluator
