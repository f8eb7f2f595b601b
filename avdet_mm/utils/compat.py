"""Checks of the environment that avdet_mm is imported into.

The OpenMMLab packages exist twice, official and as maintained ``onedl-*``
forks with the same import names. Both are accepted: only a version below the
minimum is an error, one above the tested range is a warning.
"""
import importlib.metadata
import importlib.util
import re
import warnings
from pathlib import Path
from pickle import UnpicklingError
from typing import Callable, NamedTuple, Optional, Sequence, Tuple


class Package(NamedTuple):
    """A package that avdet_mm needs and does not install.

    Args:
        name (str): Name to import.
        minimum (str): Oldest accepted version.
        tested (str): Newest tested version.
        distributions (tuple[str]): Names that it is distributed under.
    """
    name: str
    minimum: str
    tested: str
    distributions: Tuple[str, ...]


PACKAGES = (
    Package('torch', '2.0.0', '2.13.0', ('torch', )),
    Package('torchaudio', '2.0.0', '2.11.0', ('torchaudio', )),
    Package('mmengine', '0.10.0', '0.10.12', ('onedl-mmengine', 'mmengine')),
    Package('mmcv', '2.0.0', '2.3.6', ('onedl-mmcv', 'mmcv', 'mmcv-lite')),
    Package('mmdet', '3.3.0', '3.5.1', ('onedl-mmdetection', 'mmdet')),
)
CURE = ('`make setup` in a clone of avdet_mm installs a tested set of '
        'packages, or install it yourself: ')


def find_version(package: Package) -> Optional[str]:
    """Finds the version of a package without importing it.

    The package's own ``version.py`` comes first: after one distribution was
    installed over another of the same import name, it tells which one is in
    place.

    Args:
        package (Package): The package to look for.

    Returns:
        str or None: Its version, None where it is not installed.
    """
    spec = importlib.util.find_spec(package.name)
    if spec is None or spec.origin is None:  # a bare folder has no origin
        return None
    version_file = Path(spec.origin).with_name('version.py')
    if version_file.is_file():
        match = re.search(r"^__version__\s*=\s*['\"]([^'\"]+)",
                          version_file.read_text(encoding='utf-8'),
                          re.MULTILINE)
        if match:
            return match.group(1)
    for distribution in package.distributions:
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def release(version: str) -> Tuple[int, ...]:
    """Returns the numbers of a version: ``(2, 13, 0)`` for '2.13.0+cpu'."""
    numbers = re.match(r'\d+(\.\d+)*', version)
    return tuple(int(n) for n in numbers.group().split('.')) \
        if numbers else (0, )


def check_environment(
        packages: Sequence[Package] = PACKAGES,
        find: Callable[[Package], Optional[str]] = find_version) -> None:
    """Checks that the packages which avdet_mm builds on can be used.

    Args:
        packages (Sequence[Package]): What to check. Defaults to PACKAGES.
        find (Callable): Returns the version of a package, or None. Defaults
            to :func:`find_version`.

    Raises:
        ImportError: A package is missing or older than its minimum.

    Warns:
        UserWarning: A package is of a newer minor version than was tested.
    """
    newer = []
    for package in packages:
        version = find(package)
        wanted = ' or '.join(
            f'`pip install "{name}>={package.minimum}"`'
            for name in package.distributions if name != 'mmcv-lite')
        if version is None:
            raise ImportError(
                f'avdet_mm needs {package.name} >= {package.minimum}, which '
                f'is not installed. {CURE}{wanted}.')
        if release(version) < release(package.minimum):
            raise ImportError(
                f'avdet_mm needs {package.name} >= {package.minimum}, but '
                f'{version} is installed. {CURE}{wanted}.')
        if release(version)[:2] > release(package.tested)[:2]:
            newer.append(f'{package.name} {version} '
                         f'(tested up to {package.tested})')
    if newer:
        warnings.warn(
            'avdet_mm was not tested with ' + ', '.join(newer) +
            '. It goes on; should something fail, install a tested version.',
            stacklevel=2)


def history_buffer_method(owner: type, name: str) -> Callable:
    """Stands in for ``getattr`` while a checkpoint is loaded.

    A ``HistoryBuffer`` stores references to its own methods, written as calls
    of ``getattr``. Allowing the real one would open every attribute of every
    object to the file that is loaded; this one knows that single use.

    Args:
        owner (type): The HistoryBuffer class.
        name (str): Name of one of its public methods.

    Returns:
        Callable: The method.

    Raises:
        UnpicklingError: Anything else is asked for.
    """
    from mmengine.logging.history_buffer import HistoryBuffer
    if owner is not HistoryBuffer or name.startswith('_'):
        raise UnpicklingError(
            f'The checkpoint asks for the attribute {name!r} of {owner!r}; '
            'only methods of HistoryBuffer may be looked up in a safe load.')
    return getattr(owner, name)


def allow_checkpoint_types() -> None:
    """Lets ``torch.load(weights_only=True)`` read MMEngine's checkpoints.

    Since version 2.6 this is PyTorch's default. MMEngine stores its training
    log as ``HistoryBuffer`` objects, which hold numpy arrays; without this,
    ``--resume`` fails with the official MMEngine. Only these data types are
    allowed, and none of them runs code from the file.
    """
    import numpy as np
    import torch
    from mmengine.logging.history_buffer import HistoryBuffer
    if release(torch.__version__) < (2, 6):
        return
    # Entries are (object, name) pairs: MMEngine forks allow some bare types
    # for the time of one load and take them away again afterwards.
    allowed = [
        (HistoryBuffer, 'mmengine.logging.history_buffer.HistoryBuffer'),
        (history_buffer_method, 'builtins.getattr'),
        (np.ndarray, 'numpy.ndarray'),
        (np.dtype, 'numpy.dtype'),
    ]
    for code in '?bBhHiIlLqQefd':
        dtype = type(np.dtype(code))
        allowed.append((dtype, f'{dtype.__module__}.{dtype.__qualname__}'))
    # numpy 1 and numpy 2 write different module names for the same functions
    for function in (np.empty(0).__reduce__()[0], np.int64().__reduce__()[0]):
        for core in ('core', '_core'):
            allowed.append(
                (function, f'numpy.{core}.multiarray.{function.__name__}'))
    torch.serialization.add_safe_globals(allowed)
