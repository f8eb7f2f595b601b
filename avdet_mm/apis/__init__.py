"""High-level functions behind hooks and tools."""
from .pseudo_labels import generate_pseudo_labels

__all__ = ['generate_pseudo_labels']
