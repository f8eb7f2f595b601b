"""Files: written in one step, whole or not at all, and their checksums."""
import hashlib
import json
import os
import os.path as osp
from contextlib import contextmanager
from typing import IO, Any, Iterator


@contextmanager
def atomic_write(path: str, mode: str = 'w') -> Iterator[IO]:
    """Open a file for writing that appears under its name when complete.

    Folders are made as needed. If the body raises, or the process is killed,
    a file that was there before stays as it was.

    Args:
        path (str): File to write.
        mode (str): ``'w'`` (UTF-8 text) or ``'wb'``. Defaults to ``'w'``.

    Yields:
        IO: The file, under a temporary name beside its final one.
    """
    os.makedirs(osp.dirname(path) or '.', exist_ok=True)
    part = f'{path}.part{os.getpid()}'
    encoding = None if 'b' in mode else 'utf-8'
    try:
        with open(part, mode, encoding=encoding) as file:
            yield file
        os.replace(part, path)
    finally:
        if osp.lexists(part):
            os.remove(part)


def dump_json(data: Any, path: str, indent: int = None) -> None:
    """Write a json file atomically.

    Args:
        data (Any): What json can hold; NaN and infinity are refused, since
            they are no json.
        path (str): File to write.
        indent (int, optional): Spaces per level. Defaults to None, one line.

    Raises:
        ValueError: If ``data`` holds NaN or infinity.
    """
    with atomic_write(path) as file:
        json.dump(data, file, indent=indent, allow_nan=False)


def file_sha256(path: str) -> str:
    """Checksum of a file.

    Args:
        path (str): The file.

    Returns:
        str: Hexadecimal SHA-256 of its bytes.
    """
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        for block in iter(lambda: file.read(1 << 20), b''):
            digest.update(block)
    return digest.hexdigest()
