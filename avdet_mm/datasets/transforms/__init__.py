"""Transforms of one sample: loading, visual, audio, formatting."""
from .audio import RandomAudioGain
from .formatting import PackAudioVisualInputs
from .loading import LoadClip
from .visual import CenterSquareCrop

__all__ = [
    'CenterSquareCrop', 'LoadClip', 'PackAudioVisualInputs', 'RandomAudioGain'
]
