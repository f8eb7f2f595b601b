# The paper's recipe, stage 1a: localization alone, scores are means over
# locations. Four of the eight epochs.
_base_ = ['../localizer_small.py']
max_epochs = 4
model = dict(
    cluster_head=None,
    appearance_head=None,
    flip_test=False,
    heatmap_filter=None)
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = _base_.param_scheduler
param_scheduler[1].T_max = max_epochs
custom_hooks = _base_.custom_hooks[:3]
val_evaluator = [dict(type='avdet_mm.LocalizationMetric')]
test_evaluator = val_evaluator
