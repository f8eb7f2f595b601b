"""From loaded clips to normalized tensors on the model's device."""
from .audio_visual_data_preprocessor import AudioVisualDataPreprocessor

__all__ = ['AudioVisualDataPreprocessor']
