"""Localizers: frame and sound in, heatmap, self-box and cluster out."""
from .audio_visual_localizer import AudioVisualLocalizer
from .base_localizer import BaseLocalizer

__all__ = ['AudioVisualLocalizer', 'BaseLocalizer']
