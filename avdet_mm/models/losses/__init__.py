"""Losses of the localizer."""
from .symmetric_info_nce import SymmetricInfoNCE

__all__ = ['SymmetricInfoNCE']
