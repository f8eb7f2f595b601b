# Objects that Sound (Arandjelovic and Zisserman) on AudioSet-Instruments.
_base_ = ['./_base_/resnet18_audioset.py']
work_dir = '{{$AVDET_WORK_DIRS:work_dirs}}/objects-that-sound_audioset'
model = dict(
    type='avdet_mm.ObjectsThatSound',
    visual_channels=_base_.channels,
    audio_channels=_base_.channels)
