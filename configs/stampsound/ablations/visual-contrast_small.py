# Visual self-supervision on the same frames is added.
_base_ = ['../localizer_small.py']
# No self-boxes for a detector.
custom_hooks = _base_.custom_hooks[:5]
model = dict(
    visual_contrast_head=dict(
        type='avdet_mm.VisualContrastHead', in_channels=256))
