# Other clips of the same self-label are no negatives.
_base_ = ['../localizer_small.py']
# No self-boxes for a detector.
custom_hooks = _base_.custom_hooks[:5]
model = dict(localization_head=dict(same_cluster_negatives=False))
