# The first self-labels come from the untrained heads, as in the paper.
_base_ = ['../localizer_small.py']
# No self-boxes for a detector.
custom_hooks = _base_.custom_hooks[:5]
custom_hooks[4].update(initial=None, begin=0, recluster=False)
