"""Localizers: frame and sound in, heatmap, self-box and cluster out."""
from .audio_visual_localizer import AudioVisualLocalizer

__all__ = ['AudioVisualLocalizer']
