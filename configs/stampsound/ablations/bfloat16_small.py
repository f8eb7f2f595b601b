# Forward passes in bfloat16, for processors with AMX.
_base_ = ['../localizer_small.py']
# No self-boxes for a detector.
custom_hooks = _base_.custom_hooks[:5]
optim_wrapper = dict(type='avdet_mm.BFloat16OptimWrapper')
