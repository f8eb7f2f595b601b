# The mean over locations to the end.
_base_ = ['../localizer_small.py']
# No self-boxes for a detector.
custom_hooks = _base_.custom_hooks[:5]
custom_hooks.pop(3)
