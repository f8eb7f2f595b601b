# The visual classifier sees a mean with learned weights of locations.
_base_ = ['../localizer_small.py']
# No self-boxes for a detector.
custom_hooks = _base_.custom_hooks[:5]
model = dict(cluster_head=dict(visual_pooling='attention'))
