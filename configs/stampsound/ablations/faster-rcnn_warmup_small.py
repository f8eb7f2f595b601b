# Class-agnostic warm-up as in the paper (App. B), for the first epoch.
_base_ = ['../faster-rcnn_small.py']
model = dict(
    roi_head=dict(
        bbox_head=dict(
            reg_class_agnostic=True,
            loss_cls=dict(type='avdet_mm.ClassAgnosticWarmupLoss'))))
custom_hooks = _base_.custom_hooks + [
    dict(type='avdet_mm.ClassAgnosticWarmupHook', epochs=1)
]
