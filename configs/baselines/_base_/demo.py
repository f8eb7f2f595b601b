# The demo's clips for the heatmap baselines of the paper's Table 2: the same
# clips, loaders, optimizer and length as configs/avdet/pretrain_demo.py.
_base_ = [
    '../../avdet/_base_/runtime.py',
    '../../avdet/_base_/procedural_clips.py',
]
max_epochs = 6
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs)
val_dataloader = None
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-3, weight_decay=0.01))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, end=50),
    dict(
        type='CosineAnnealingLR',
        T_max=max_epochs,
        eta_min=2e-5,
        convert_to_iter_based=True),
]
custom_hooks = [
    dict(type='avdet_mm.EpochSeedHook'),
    dict(type='avdet_mm.LogMelStatsHook'),
]
# DSOL has thresholds for each data set, shares of a map's maximum. Half of it,
# its value for synthetic mixtures, suits maps with a background well above
# zero, as cosines have; the lower ones of MUSIC suit probabilities. Both are
# measured, lest the choice decides who is better.
map_thr = 0.5
test_evaluator = [
    dict(type='avdet_mm.LocalizationMetric'),
    dict(
        type='avdet_mm.SoundLocalizationMetric',
        protocols=['dsol_single', 'dsol_multi'],
        single_thr=map_thr,
        multi_thr=map_thr),
    dict(
        type='avdet_mm.SoundLocalizationMetric',
        protocols=['dsol_single', 'dsol_multi'],
        single_thr=0.1,
        multi_thr=0.2,
        prefix='ssl_music'),
]
