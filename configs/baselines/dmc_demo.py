# Deep multimodal clustering (Hu et al.) on the demo's clips. It learns which
# sounds and frames belong together, but not where: the cluster that it picks
# is mostly background. Probably because each location of these encoders sees
# 93 of a crop's 96 pixels, so that background tells as much as objects do.
_base_ = ['./_base_/demo.py', './_base_/avol-net_small.py']
model = dict(
    type='avdet_mm.DMC',
    visual_channels=_base_.channels,
    audio_channels=_base_.channels)
