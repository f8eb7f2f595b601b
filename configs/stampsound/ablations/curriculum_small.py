# The contrast begins with the half of each batch whose frames and sounds find
# each other best, and has all pairs from epoch 4 on.
_base_ = ['../localizer_small.py']
# No self-boxes for a detector.
custom_hooks = _base_.custom_hooks[:5] + [
    dict(type='avdet_mm.ConfidenceCurriculumHook', end_epoch=4)
]
