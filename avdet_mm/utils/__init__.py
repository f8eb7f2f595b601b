"""Helpers that need no model: the environment check."""
from .compat import allow_checkpoint_types, check_environment

__all__ = ['allow_checkpoint_types', 'check_environment']
