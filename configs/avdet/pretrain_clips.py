# Stage 1a, localization alone, of the small localizer on any clip table:
#   AVDET_CLIPS=data/mine/clips.json python tools/train.py \
#       configs/avdet/pretrain_clips.py
_base_ = [
    './_base_/runtime.py', './_base_/avol-net_small.py', './_base_/clips.py'
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=20)
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.01),
    paramwise_cfg=dict(custom_keys=dict(log_scale=dict(decay_mult=0.))))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, end=50)
]
custom_hooks = [
    dict(type='avdet_mm.EpochSeedHook'),
    dict(type='avdet_mm.LogMelStatsHook'),
    dict(type='avdet_mm.PlateauHook', patience=300),
]
