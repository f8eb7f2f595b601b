# Attention (Senocak et al.) on AudioSet-Instruments.
_base_ = ['./_base_/resnet18_audioset.py']
work_dir = '{{$AVDET_WORK_DIRS:work_dirs}}/attention_audioset'
model = dict(
    type='avdet_mm.AttentionLocalizer',
    visual_channels=_base_.channels,
    audio_channels=_base_.channels)
