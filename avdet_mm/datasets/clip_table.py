"""Clip tables: reading, writing, matching with what is on disk.

A clip table is a json in MMEngine's format, ``metainfo`` and ``data_list``
(the keys of its rows: :class:`AudioVisualDataset`). :func:`dump_clip_table`
writes one row per line, so that a million of them can be read without
holding them all as Python objects.
"""
import hashlib
import json
import os
import os.path as osp
import re
from array import array
from collections import Counter
from itertools import chain
from typing import (
    Any,
    Dict,
    Iterable,
    Iterator,
    List,
    Optional,
    Sequence,
    Tuple,
)

import mmengine.fileio as fileio
import numpy as np
from mmengine.utils import is_abs

from avdet_mm.utils.fileio import atomic_write

DATASET_TYPE = 'avdet_mm.clips'
REPORT_TYPE = 'avdet_mm.clip_report'
VIDEO_SUFFIXES = ('.mp4', '.mkv', '.webm', '.mov', '.avi', '.m4v', '.flv',
                  '.mpg', '.mpeg', '.ts', '.wmv', '.3gp', '.ogv')
_WANTED = 'expected is a clip table, a json with "metainfo" and "data_list"'
_YOUTUBE = re.compile(r'([\w-]{11})_(\d+)(?:_(\d+))?', re.ASCII)


def dump_clip_table(rows: Iterable[dict],
                    path: str,
                    metainfo: Optional[dict] = None,
                    kind: str = DATASET_TYPE) -> None:
    """Write a clip table atomically, one row per line.

    Args:
        rows (Iterable[dict]): Rows of the table.
        path (str): The json to write.
        metainfo (dict, optional): Its metainfo but for ``dataset_type``.
        kind (str): The ``dataset_type``. Defaults to that of clip tables.
    """
    metainfo = dict(metainfo or {}, dataset_type=kind)
    with atomic_write(path) as file:
        file.write(f'{{"metainfo": {_dumps(metainfo)}, "data_list": [')
        separator = '\n'
        for row in rows:
            file.write(separator + _dumps(row))
            separator = ',\n'
        file.write('\n]}\n')


def _dumps(data: Any) -> str:
    return json.dumps(data, allow_nan=False)


def iter_clip_table(path: str,
                    kind: str = DATASET_TYPE) -> Tuple[dict, Iterator[dict]]:
    """Read a clip table row by row.

    A table of :func:`dump_clip_table` is read line by line; any other json
    is read whole first.

    Args:
        path (str): The table; any path that MMEngine can read.
        kind (str): The ``dataset_type`` that is expected. Defaults to that
            of clip tables.

    Returns:
        tuple: The metainfo, and an iterator over the rows as they are in
        the file.

    Raises:
        TypeError, ValueError: If the file is no clip table. From the
            iterator too, when a later line is damaged.
    """
    metainfo, lines = iter_lines(path, kind)
    return metainfo, (_loads(line, path) for line in lines)


def iter_lines(path: str,
               kind: str = DATASET_TYPE) -> Tuple[dict, Iterator[bytes]]:
    """:func:`iter_clip_table` with rows that are not parsed yet.

    Args:
        path (str): The table.
        kind (str): The ``dataset_type`` that is expected.

    Returns:
        tuple: The metainfo, and an iterator over the json of the rows.
    """
    lines = _lines(path)
    head = next(lines, b'').replace(b'\xef\xbb\xbf', b'').strip()
    if head.startswith(b'{"metainfo"') and head.endswith(b'['):
        table = _check(_loads(head + b']}', path), path, kind)
        return table['metainfo'], _rows(lines, path)
    lines.close()
    table = _check(_loads(fileio.get(path), path), path, kind)
    rows = (json.dumps(row).encode() for row in table['data_list'])
    return table['metainfo'], rows


def _lines(path: str) -> Iterator[bytes]:
    """Lines of a file of any of MMEngine's storage backends."""
    with fileio.get_local_path(path) as local, open(local, 'rb') as file:
        yield from file


def _rows(lines: Iterable[bytes], path: str) -> Iterator[bytes]:
    """Rows of a table that has one per line."""
    for line in lines:
        line = line.strip()
        if line == b']}':
            return
        yield line.rstrip(b',')
    raise ValueError(f'{path} ends in the middle; write it again.')


def _loads(content: bytes, path: str) -> Any:
    try:
        return json.loads(content.decode('utf-8-sig'))
    except ValueError as error:
        raise ValueError(
            f'{path} is no valid json ({error}); {_WANTED}.') from error


def _check(table: Any, path: str, wanted: str) -> dict:
    """Make sure that a json is a clip table."""
    if not isinstance(table, dict):
        raise TypeError(
            f'{path} holds a {type(table).__name__}; {_WANTED}.')
    if 'images' in table or 'annotations' in table:
        raise ValueError(
            f'{path} looks like a COCO json (it has "images" or '
            f'"annotations"); {_WANTED}. COCO files are for '
            'mmdet.CocoDataset.')
    if not (isinstance(table.get('metainfo'), dict)
            and isinstance(table.get('data_list'), list)):
        raise ValueError(
            f'{path} has the keys {sorted(table)[:8]}; {_WANTED}.')
    kind = table['metainfo'].get('dataset_type', wanted)
    if kind != wanted:
        raise ValueError(f'{path} is a data set of type {kind!r}, but '
                         f'expected is {wanted!r}.')
    return table


class PackedRows(Sequence):
    """Rows as json in one array, for millions of them.

    Reading a row parses it. Loader workers share the arrays with the process
    that started them, where lists of dicts would be copied bit by bit.

    Args:
        data (np.ndarray): (n,) uint8, the json of all rows.
        ends (np.ndarray): (m,) int64, where each row ends.
    """

    def __init__(self, data: np.ndarray, ends: np.ndarray) -> None:
        self.data = data
        self.ends = ends

    @classmethod
    def from_lines(cls, lines: Iterable[bytes]) -> 'PackedRows':
        """Pack the json of rows."""
        data, ends = bytearray(), array('q')
        for line in lines:
            data += line
            ends.append(len(data))
        return cls(
            np.frombuffer(data, np.uint8),
            np.frombuffer(ends, np.int64) if ends else np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> dict:
        if not -len(self) <= index < len(self):
            raise IndexError(f'There are {len(self)} rows, but the row '
                             f'{index} was asked for.')
        index %= len(self)
        start = self.ends[index - 1] if index else 0
        return json.loads(self.data[start:self.ends[index]].tobytes())

    def take(self, indices: Sequence[int]) -> 'PackedRows':
        """Some of the rows, in the given order."""
        indices = np.asarray(indices, np.int64)
        starts = np.concatenate([[0], self.ends[:-1]])[indices]
        ends = self.ends[indices]
        pieces = [self.data[a:b] for a, b in zip(starts, ends)]
        return PackedRows(
            np.concatenate(pieces) if pieces else np.zeros(0, np.uint8),
            np.cumsum(ends - starts))


def load_clip_table(path: str) -> Tuple[dict, List[dict]]:
    """Read a clip table whole; see :func:`iter_clip_table`.

    Args:
        path (str): The table.

    Returns:
        tuple: The metainfo and the list of rows.
    """
    metainfo, rows = iter_clip_table(path)
    return metainfo, list(rows)


def read_faults(report: str) -> Iterator[Tuple[str, Tuple[str, ...]]]:
    """Read what ``tools/check_clips.py`` found.

    Args:
        report (str): Its json.

    Yields:
        tuple: Clip id, and the names of what is wrong with the clip.
    """
    _, rows = iter_clip_table(report, REPORT_TYPE)
    for row in rows:
        yield row['clip_id'], tuple(row['faults'])


def expand_frames(frames: Any) -> List[dict]:
    """Prepared frames as a list.

    Args:
        frames (list[dict] | dict): Of ``path`` and ``time`` (s); or, short,
            ``dict(dir=..., ms=[...])`` for the files ``<dir>/<ms>.jpg``.

    Returns:
        list[dict]: Of ``path`` and ``time`` (s).
    """
    if isinstance(frames, dict):
        return [
            dict(path=f'{frames["dir"]}/{ms}.jpg', time=ms / 1000)
            for ms in frames['ms']
        ]
    return frames


def rebase_row(row: dict, table: str, new_table: str) -> dict:
    """A row for a table in another folder: its paths follow.

    Args:
        row (dict): A row of ``table``.
        table (str): Path of the table that it is from.
        new_table (str): Path of the table that it goes to.

    Returns:
        dict: A new row; relative paths are relative to the new table.
    """
    # Behind a link to a folder, '..' leads elsewhere than its name says.
    source, target = (
        osp.realpath(osp.dirname(file)) for file in (table, new_table))

    def move(path: str) -> str:
        if is_abs(path):
            return path
        return osp.relpath(osp.join(source, path), target)

    row = dict(row)
    for key in ('video_path', 'audio_path'):
        if key in row:
            row[key] = move(row[key])
    frames = row.get('frames')
    if isinstance(frames, dict):
        row['frames'] = dict(frames, dir=move(frames['dir']))
    elif frames is not None:
        row['frames'] = [dict(f, path=move(f['path'])) for f in frames]
    return row


def split_hash(clip_ids: Iterable[str]) -> str:
    """Name of a set of clips: equal if and only if the clips are.

    Results on what is left of a YouTube data set can be compared only where
    these hashes are equal.

    Args:
        clip_ids (Iterable[str]): Ids in any order.

    Returns:
        str: First 16 hexadecimal digits of the SHA-256 of the sorted ids,
        one per line.
    """
    text = '\n'.join(sorted(set(clip_ids)))
    return hashlib.sha256(
        text.encode('utf-8', 'surrogatepass')).hexdigest()[:16]


def safe_clip_id(clip_id: Any) -> bool:
    """Whether a clip id is a file name that cannot leave its folder.

    Args:
        clip_id (Any): The id.

    Returns:
        bool: True for a non-empty string of at most 200 bytes of UTF-8
        without separators and control characters, other than ``.`` and
        ``..``.
    """
    if not isinstance(clip_id, str) or clip_id in ('', '.', '..'):
        return False
    if re.search(r'[/\\\x00-\x1f\x7f]', clip_id):
        return False
    try:
        return len(clip_id.encode('utf-8')) <= 200
    except UnicodeEncodeError:
        return False


def clip_ids_of(paths: List[str]) -> List[str]:
    """Ids of videos, from their paths.

    The id is the file's name without extension, so that published
    annotations find their clips in any folder layout. Names that more than
    one file has, or that are no safe file names, get a part of the hash of
    their path.

    Args:
        paths (list[str]): Paths relative to the collection's folder.

    Returns:
        list[str]: Distinct ids, one for each path. A path's id depends on
        no other path, but for equal names.
    """
    stems = [osp.splitext(osp.basename(p))[0] for p in paths]
    count = Counter(stems)
    ids = []
    for path, stem in zip(paths, stems):
        if count[stem] > 1 or not safe_clip_id(stem):
            digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:8]
            clean = re.sub(r'[^\w .+-]', '_', stem, flags=re.ASCII)
            stem = f'{clean[:100]}-{digest}'
        ids.append(stem)
    return ids


def list_videos(folder: str) -> List[str]:
    """Video files in a folder and below, by their extensions.

    Links to folders are not followed (they may form loops).

    Args:
        folder (str): The folder.

    Returns:
        list[str]: Sorted paths relative to it.
    """
    if not osp.isdir(folder):
        raise FileNotFoundError(f'There is no folder {folder!r}.')
    found = []
    for root, _, names in os.walk(folder):
        found += [
            osp.relpath(osp.join(root, n), folder) for n in names
            if osp.splitext(n)[1].lower() in VIDEO_SUFFIXES
        ]
    return sorted(found)


def folder_rows(folder: str) -> List[dict]:
    """Rows of a folder of videos.

    Args:
        folder (str): The folder.

    Returns:
        list[dict]: ``clip_id`` (:func:`clip_ids_of`) and ``video_path``,
        relative to the folder, of all that :func:`list_videos` finds.
    """
    paths = list_videos(folder)
    return [
        dict(clip_id=i, video_path=p)
        for i, p in zip(clip_ids_of(paths), paths)
    ]


def find_clips(source: str, new_table: str) -> Dict[str, dict]:
    """What is on disk: rows with media keys only, by clip id.

    Args:
        source (str): A folder of videos, or a clip table (as
            ``tools/prepare_clips.py`` writes it).
        new_table (str): The table that the rows will go to; paths will be
            relative to its folder.

    Returns:
        dict[str, dict]: Clip id to row, with ``video_path``, or ``frames``
        and ``audio_path``; and ``duration``, ``height`` and ``width`` where
        the table has them. Ground truth that the table has is left out.
    """
    if osp.isdir(source):
        table = osp.join(source, 'table.json')
        rows: Iterable[dict] = folder_rows(source)
    else:
        table = source
        _, rows = iter_clip_table(source)
    keys = ('clip_id', 'video_path', 'frames', 'audio_path', 'duration',
            'height', 'width')
    return {
        row['clip_id']: rebase_row({k: row[k]
                                    for k in keys if k in row}, table,
                                   new_table)
        for row in rows
    }


def youtube_key(name: str) -> Optional[Tuple[str, int]]:
    """YouTube id and start of a clip, from its id or file name.

    Understands ``<id>_<start>``, with or without leading zeros, and
    ``<id>_<start>_<end>``, in seconds or (clips of 500 and more) in
    milliseconds. Ids have 11 characters and may hold ``_`` and ``-``.

    Args:
        name (str): Id or file name.

    Returns:
        tuple, optional: (id, start in seconds); None if the name is not of
        this kind.
    """
    match = _YOUTUBE.fullmatch(osp.splitext(osp.basename(name))[0])
    if match is None:
        return None
    start, end = int(match[2]), match[3]
    if end is not None and int(end) - start >= 500:
        start //= 1000
    return match[1], start


def coverage(annotated: Dict[str, Iterable[str]],
             found: Iterable[str],
             reasons: Optional[Dict[str, str]] = None) -> dict:
    """How much of a published data set is at hand.

    Args:
        annotated (dict[str, Iterable[str]]): Id to class names, of all
            entries of the annotation file (of the chosen split and subset).
        found (Iterable[str]): Ids of those that went into the result.
        reasons (dict[str, str], optional): Id to why it did not;
            ``'missing'`` where nothing is said.

    Returns:
        dict: ``annotated``, ``found`` (counts), ``share``, ``split_hash``
        of the found ids, ``left_out`` (reason to count), ``per_class``
        (name to ``annotated`` and ``found``) and ``left_out_ids`` (reason
        to sorted ids).
    """
    found = set(found)
    unknown = found - annotated.keys()
    if unknown:
        raise ValueError(f'Found but not annotated: {sorted(unknown)[:3]}.')
    names = {i: set(labels) for i, labels in annotated.items()}
    total = Counter(chain.from_iterable(names.values()))
    here = Counter(chain.from_iterable(names[i] for i in found))
    left_out: Dict[str, List[str]] = {}
    for i in sorted(annotated.keys() - found):
        left_out.setdefault((reasons or {}).get(i, 'missing'), []).append(i)
    return dict(
        annotated=len(annotated),
        found=len(found),
        share=len(found) / len(annotated) if annotated else 0.,
        split_hash=split_hash(found),
        left_out={r: len(ids) for r, ids in sorted(left_out.items())},
        per_class={
            n: dict(annotated=total[n], found=here[n]) for n in sorted(total)
        },
        left_out_ids=left_out)


def print_coverage(report: dict, per_class: bool = True) -> None:
    """Print what :func:`coverage` found.

    Args:
        report (dict): Its result.
        per_class (bool): Whether to print the table of classes.
            Defaults to True.
    """
    from rich.console import Console
    from rich.table import Table
    console = Console()
    if per_class and report['per_class']:
        table = Table('class', 'annotated', 'found', 'share')
        for name, n in report['per_class'].items():
            table.add_row(name, str(n['annotated']), str(n['found']),
                          f'{n["found"] / n["annotated"]:.0%}')
        console.print(table)
    left_out = '; '.join(f'{n} {r}' for r, n in report['left_out'].items())
    console.print(
        f'{report["found"]} of {report["annotated"]} found '
        f'({report["share"]:.1%})' +
        (f', left out: {left_out}' if left_out else '') +
        f'. Split hash {report["split_hash"]}',
        markup=False, highlight=False, soft_wrap=True)
