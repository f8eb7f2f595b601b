# The paper's recipe, stage 1b: both heads, scores are maxima over locations,
# the visual classifier sees the mean, first labels by the untrained heads.
_base_ = ['../localizer_small.py']
max_epochs = 4
load_from = _base_.run_dir + '/ablation_paper-pretrain/epoch_4.pth'
model = dict(
    flip_test=False,
    heatmap_filter=None,
    appearance_head=None,
    localization_head=dict(pooling='max'),
    cluster_head=dict(visual_pooling='mean'))
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = _base_.param_scheduler
param_scheduler[1].T_max = max_epochs
custom_hooks = _base_.custom_hooks[:5]
custom_hooks.pop(3)
custom_hooks[3].update(initial=None, begin=0, recluster=False)
