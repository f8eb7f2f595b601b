"""avdet_mm: object detectors learned from unlabeled video.

Importing the package checks the versions of PyTorch and the OpenMMLab
packages, and makes MMEngine's checkpoints loadable with ``weights_only=True``.
"""
from .utils.compat import allow_checkpoint_types, check_environment
from .version import __version__

check_environment()
allow_checkpoint_types()

from . import registry  # noqa: E402  (needs MMEngine, which is checked first)

__all__ = ['__version__', 'registry']
