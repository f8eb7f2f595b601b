# Annealing begins when frames find their sound three times as often as by
# guessing, instead of after one epoch.
_base_ = ['../localizer_small.py']
# No self-boxes for a detector.
custom_hooks = _base_.custom_hooks[:5]
custom_hooks[3].update(begin=0, end_epoch=5, retrieval=3.)
