"""High-level functions behind hooks and tools."""
from .pseudo_labels import generate_pseudo_labels
from .publish_detector import publish_detector
from .self_training import detect, label_dataloader, next_labels

__all__ = [
    'detect', 'generate_pseudo_labels', 'label_dataloader', 'next_labels',
    'publish_detector'
]
