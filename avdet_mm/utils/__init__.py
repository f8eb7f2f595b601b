"""Helpers that need no model: environment check, files."""
from .compat import allow_checkpoint_types, check_environment
from .fileio import atomic_write, dump_json, file_sha256

__all__ = [
    'allow_checkpoint_types', 'atomic_write', 'check_environment',
    'dump_json', 'file_sha256'
]
