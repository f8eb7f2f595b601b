# The visual encoder sees 61 pixels around a location instead of 93, and the
# best 6 % of the locations are pooled in the end: with the maximum, heatmaps
# of so narrow a view shrink to parts.
_base_ = ['../localizer_small.py']
model = dict(visual_backbone=dict(kernel_sizes=(3, 3, 3, 1)))
# No self-boxes for a detector.
custom_hooks = _base_.custom_hooks[:5]
custom_hooks[3].update(end_epoch=4, end=0.06, final=0.06)
