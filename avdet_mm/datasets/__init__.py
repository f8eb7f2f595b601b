"""Data sets, transforms and loader functions."""
from .audio_visual_dataset import AudioVisualDataset
from .media import BrokenClipError
from .transforms import *  # noqa: F401, F403
from .worker_init import seed_worker

__all__ = ['AudioVisualDataset', 'BrokenClipError', 'seed_worker']
