"""Pictures of heatmaps, boxes and sounds."""

from .audio_visual_visualizer import AudioVisualVisualizer
from .drawing import draw_boxes, enlarge, heatmap_overlay, spectrogram_image

__all__ = [
    'AudioVisualVisualizer',
    'draw_boxes',
    'enlarge',
    'heatmap_overlay',
    'spectrogram_image',
]
