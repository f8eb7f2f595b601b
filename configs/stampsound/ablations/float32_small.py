# Single precision instead of bfloat16.
_base_ = ['../localizer_small.py']
# No self-boxes for a detector.
custom_hooks = _base_.custom_hooks[:5]
optim_wrapper = dict(type='OptimWrapper')
