# Objects that Sound (Arandjelovic and Zisserman) on the demo's clips.
_base_ = ['./_base_/demo.py', './_base_/avol-net_small.py']
model = dict(
    type='avdet_mm.ObjectsThatSound',
    visual_channels=_base_.channels,
    audio_channels=_base_.channels)
