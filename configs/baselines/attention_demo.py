# Attention (Senocak et al.) on the demo's clips.
_base_ = ['./_base_/demo.py', './_base_/avol-net_small.py']
model = dict(
    type='avdet_mm.AttentionLocalizer',
    visual_channels=_base_.channels,
    audio_channels=_base_.channels,
    # Ours: at the original's 1, attention hardly differs from the mean over
    # the frame, and features that are learned from scratch adapt to that.
    temperature=0.1)
