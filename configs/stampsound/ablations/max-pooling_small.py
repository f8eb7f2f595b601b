# The maximum over locations from the first step, without annealing.
_base_ = ['../localizer_small.py']
# No self-boxes for a detector.
custom_hooks = _base_.custom_hooks[:5]
model = dict(localization_head=dict(pooling='max'))
custom_hooks.pop(3)
