# Annealing ends at 6 % of the locations instead of one.
_base_ = ['../localizer_small.py']
# No self-boxes for a detector.
custom_hooks = _base_.custom_hooks[:5]
custom_hooks[3].update(end_epoch=4, end=0.06, final=0.06)
