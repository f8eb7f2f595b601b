"""Data that is made, not downloaded: for tests and the demo."""
from avdet_mm.datasets.media import write_media

from .procedural import CLASSES, make_clip, write_procedural_clips

__all__ = ['CLASSES', 'make_clip', 'write_media', 'write_procedural_clips']
