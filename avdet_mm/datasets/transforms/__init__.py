"""Transforms of one sample: loading, visual, audio, formatting."""
from .audio import RandomAudioGain
from .export_frame import ExportFrame
from .formatting import PackAudioVisualInputs
from .loading import LoadClip
from .proposals import SelectiveSearchProposals
from .visual import CenterSquareCrop

__all__ = [
    'CenterSquareCrop', 'ExportFrame', 'LoadClip', 'PackAudioVisualInputs',
    'RandomAudioGain', 'SelectiveSearchProposals'
]
