"""Data structures that models, metrics and visualizers exchange."""
from .audio_visual_data_sample import AudioVisualDataSample

__all__ = ['AudioVisualDataSample']
