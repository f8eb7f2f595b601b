# Baseline without training: one centered box per test clip. Its side is that
# of which most training clips' best box of this kind has an IoU of 0.5.
_base_ = ['./localizer_full.py']
model = dict(_delete_=True, type='avdet_mm.CenterBox', side=0.58)
train_dataloader = None
train_cfg = None
optim_wrapper = None
param_scheduler = None
custom_hooks = None
val_dataloader = None
val_cfg = None
val_evaluator = None
test_evaluator = [
    dict(type='avdet_mm.LocalizationMetric'),
    dict(type='avdet_mm.MatchedCocoMetric', class_aware=False)
]
