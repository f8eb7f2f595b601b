# Deep multimodal clustering (Hu et al.) on AudioSet-Instruments.
_base_ = ['./_base_/resnet18_audioset.py']
work_dir = '{{$AVDET_WORK_DIRS:work_dirs}}/dmc_audioset'
model = dict(
    type='avdet_mm.DMC',
    visual_channels=_base_.channels,
    audio_channels=_base_.channels,
    # Of the methods that DSOL trains, this one starts from nothing.
    visual_backbone=dict(init_cfg=None))
