"""From loaded clips to normalized tensors on the model's device."""
from .audio_visual_data_preprocessor import AudioVisualDataPreprocessor
from .self_label_det_data_preprocessor import SelfLabelDetDataPreprocessor
from .waveform_data_preprocessor import WaveformDataPreprocessor

__all__ = [
    'AudioVisualDataPreprocessor', 'SelfLabelDetDataPreprocessor',
    'WaveformDataPreprocessor'
]
