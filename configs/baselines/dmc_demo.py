# Deep multimodal clustering (Hu et al.) on the demo's clips. It learns which
# sounds and frames belong together, but not where: of its two clusters one is
# a strip of the border, the other the rest, and that it picks. Neither smaller
# receptive fields, nor the localizer's pre-trained encoder, nor other starts
# and numbers of clusters changed that in trials.
_base_ = ['./_base_/demo.py', './_base_/avol-net_small.py']
model = dict(
    type='avdet_mm.DMC',
    visual_channels=_base_.channels,
    audio_channels=_base_.channels)
