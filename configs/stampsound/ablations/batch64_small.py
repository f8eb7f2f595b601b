# Twice the batch, at the same learning rate.
_base_ = ['../localizer_small.py']
# No self-boxes for a detector.
custom_hooks = _base_.custom_hooks[:5]
train_dataloader = dict(batch_size=64)
