"""Checking clips: one verdict for each, before training meets them.

``tools/check_clips.py`` runs :func:`check_clips` and writes a report that
``AudioVisualDataset(filter_cfg=dict(report=...))`` reads: a table with one
row per clip, the names of what is wrong with it (:data:`FAULTS`), remarks
(:data:`REMARKS`) that reject nothing, and what was measured.
"""
import hashlib
import json
import math
import os
import os.path as osp
from collections import Counter
from contextlib import closing
from functools import partial
from typing import Any, Dict, Iterable, Iterator, List, Optional, Tuple

import cv2
import numpy as np
from mmengine.utils import is_abs

from avdet_mm.utils.job_pool import Died, run_local
from avdet_mm.utils.progress import Progress

from .clip_duplicates import Duplicates, find_duplicates
from .clip_measure import LEVELS, SILENCE, measure_clip
from .clip_table import (
    REPORT_TYPE,
    dump_clip_table,
    expand_frames,
    folder_rows,
    iter_clip_table,
    safe_clip_id,
)
from .media import TOLERANCE, BrokenClipError

GOOD = 'good'
# What a clip can be rejected for, in the order of the checks: of several
# faults, the first is the verdict.
FAULTS: Dict[str, str] = {
    'bad row': 'the row of the table has no video_path, or no frames with '
    'audio_path',
    'unsafe clip id': 'the id is no text, or no safe file name',
    'duplicate clip id': 'an earlier row has the same id',
    'missing file': 'a file is not there, or a link leads nowhere',
    'loop of links': 'links lead to each other',
    'impossible file name': 'no file can have this path',
    'permission denied': 'a file may not be read',
    'not a regular file': 'the path is a folder, pipe or device',
    'empty file': 'a file has no bytes',
    'decoder crashed': 'the process that read the clip was killed',
    'took too long': 'reading the clip did not end in time',
    'unexpected error': 'anything else; the detail says what',
    'cannot be decoded': 'no media file, or its header is damaged',
    'no video stream': 'there is no picture',
    'no audio stream': 'there is no sound',
    'unknown video codec': 'there is no decoder for the picture',
    'unknown audio codec': 'there is no decoder for the sound',
    'unknown duration': 'the header does not tell how long the clip is',
    'no frame can be decoded': 'the picture is damaged from its start on',
    'no readable image': 'a prepared frame is no image',
    'too short': 'it is shorter than the window of sound for training',
    'picture ends too early': 'frames at the end are missing',
    'sound ends too early': 'sound at the end is missing',
    'sound changes its format': 'sample rate or channels change on the way',
    'damaged in the middle': 'bytes are wrong or missing on the way',
    'sound not finite': 'samples are not numbers, or infinite',
    'silent': 'nothing can be heard',
    'black': 'nothing can be seen most of the time',
    'still': 'the picture hardly changes, or a slide show',
    'duplicate': 'picture and sound of an earlier clip',
}
# Those that can be kept: such clips can be loaded.
SOFT_FAULTS = ('damaged in the middle', 'silent', 'black', 'still',
               'duplicate')
# What is told and rejects nothing.
REMARKS: Dict[str, str] = {
    'clipped': 'the sound is overdriven',
    'partly silent': 'nothing can be heard for a part of the time',
    'partly black': 'nothing can be seen for a part of the time',
    'damaged at the start': 'the decoder has to find its way in',
}
# Limits: default, and what it is the limit of.
THRESHOLDS: Dict[str, Tuple[float, str]] = dict(
    audio_duration=(1., 'least length of a clip in seconds'),
    silence=(20 * math.log10(SILENCE), 'level in dB of full scale below '
             'which sound is silent'),
    max_black=(0.5, 'largest share of the time with a black picture'),
    min_motion=(0.015, 'least median change of the small gray picture '
                'within 0.2 s, in levels of 255'),
    max_damage=(0., 'most places at which the decoder may fail'),
    max_clipped=(0.01, 'share of samples at full scale above which sound '
                 'counts as clipped'),
    max_silent=(0.5, 'share of silent time above which a clip counts as '
                'partly silent'),
    max_picture_bits=(10., 'most bits of 64 by which pictures of duplicates '
                      'differ'),
    max_sound_difference=(1.7, 'largest difference in dB of coarse '
                          'spectrograms of duplicates'))


# Changes when other things are measured.
_FORMAT = 1


def default_thresholds(**changes: float) -> Dict[str, float]:
    """All limits.

    Args:
        **changes (float): Limits other than those of :data:`THRESHOLDS`.

    Returns:
        dict[str, float]: Name to limit.

    Raises:
        ValueError: If there is no such limit.
    """
    unknown = sorted(changes.keys() - THRESHOLDS.keys())
    if unknown:
        raise ValueError(f'There is no threshold {unknown[0]!r}; there are '
                         f'{", ".join(THRESHOLDS)}.')
    return {
        name: float(changes.get(name, default))
        for name, (default, _) in THRESHOLDS.items()
    }


# --------------------------------------------------------------------------
# Judging
# --------------------------------------------------------------------------
def judge(found: dict,
          thresholds: Dict[str, float]) -> Tuple[List[str], List[str]]:
    """Faults and remarks of a measured clip.

    Args:
        found (dict): Of :func:`measure_clip`.
        thresholds (dict[str, float]): Of :func:`default_thresholds`.

    Returns:
        tuple: Names of faults, in the order of :data:`FAULTS`, and of
        remarks.
    """
    least = thresholds['audio_duration'] - 1e-3
    faults = {'too short': found['duration'] < least}
    remarks = {}
    if 'motion' in found:
        end = found['duration'] - TOLERANCE
        level = -math.inf if found['level'] is None else found['level']
        if found['sound_end'] >= end:
            faults['too short'] |= found['sound_end'] < least
        faults.update({
            'picture ends too early':
            found['picture_end'] < end,
            'sound ends too early':
            found['sound_end'] < end,
            'damaged in the middle':
            found['damage'] > thresholds['max_damage'],
            'sound not finite':
            not found['finite'],
            'silent':
            level < thresholds['silence'],
            'black':
            found['black_share'] > thresholds['max_black'],
            'still':
            found['motion'] is not None
            and found['motion'] < thresholds['min_motion'],
        })
        remarks = {
            'clipped':
            found['clipped_share'] > thresholds['max_clipped'],
            'partly silent':
            found['silent_share'] > thresholds['max_silent'],
            'partly black':
            found['black_share'] > 0,
            'damaged at the start':
            found['early_damage'] > 0,
        }
    return ([name for name in FAULTS if faults.get(name)],
            [name for name in REMARKS if remarks.get(name)])


def inspect_clip(row: dict,
                 level: str = 'decode',
                 thresholds: Optional[Dict[str, float]] = None) -> dict:
    """Check one clip; what is wrong with it is the result.

    Args:
        row (dict): As for :func:`measure_clip`.
        level (str): ``'probe'`` or ``'decode'``. Defaults to ``'decode'``.
        thresholds (dict[str, float], optional): Limits that differ from
            those of :data:`THRESHOLDS`.

    Returns:
        dict: ``verdict``, the first of ``faults`` or ``'good'``;
        ``faults``, ``remarks`` (names), ``detail`` of what could not be
        read, and what :func:`measure_clip` found.
    """
    limits = default_thresholds(**(thresholds or {}))
    try:
        return _judged(measure_clip(row, level), limits)
    except BrokenClipError as error:
        return _rejected(error.reason, error.detail)


def _judged(found: dict, limits: Dict[str, float]) -> dict:
    """Result for a clip that was measured."""
    faults, remarks = judge(found, limits)
    return dict(
        verdict=faults[0] if faults else GOOD,
        faults=faults,
        remarks=remarks,
        **found)


def _rejected(fault: str, detail: Optional[str]) -> dict:
    """Result for a clip that could not be measured."""
    result = dict(verdict=fault, faults=[fault], remarks=[])
    if detail:
        result['detail'] = detail
    return result


# --------------------------------------------------------------------------
# A run
# --------------------------------------------------------------------------
def _read_rows(source: str,
               data_root: Optional[str] = None) -> Tuple[dict, Iterator[Any]]:
    """Metainfo and rows of a clip table or a folder, with joined paths."""
    if osp.isdir(source):
        return {}, (
            dict(row, video_path=osp.join(source, row['video_path']))
            for row in folder_rows(source))
    if not osp.exists(source):
        raise FileNotFoundError(f'There is no {source!r}; expected is a '
                                'folder of videos or a clip table.')
    if not source.lower().endswith('.json'):
        raise ValueError(f'{source!r} is neither a folder nor a .json; '
                         'expected is a folder of videos or a clip table.')
    metainfo, rows = iter_clip_table(source)
    folder = data_root or osp.dirname(source)
    return metainfo, (_joined(row, folder) for row in rows)


def _joined(row: Any, folder: str) -> dict:
    """What is needed of a row of a table; without media if it is bad."""

    def join(path: Any) -> str:
        if not isinstance(path, str) or not path:
            raise TypeError
        return path if is_abs(path) else osp.join(folder, path)

    def number(value: Any) -> float:
        if not math.isfinite(float(value)):
            raise ValueError
        return float(value)

    row = row if isinstance(row, dict) else {}
    needed = {
        key: row[key]
        for key in ('clip_id', 'label') if row.get(key) is not None
    }
    try:
        if row.get('duration') is not None:
            needed['duration'] = number(row['duration'])
        if 'video_path' in row:
            return dict(needed, video_path=join(row['video_path']))
        frames = [
            dict(path=join(f['path']), time=number(f['time']))
            for f in expand_frames(row['frames'])
        ]
        # Without frames there is nothing to look at.
        frames[0]
        return dict(
            needed, frames=frames, audio_path=join(row['audio_path']))
    except (TypeError, ValueError, KeyError, IndexError, AttributeError):
        return needed


def _name(row: dict) -> str:
    """Id of a row in the report."""
    clip_id = row.get('clip_id')
    return clip_id if isinstance(clip_id, str) else repr(clip_id)


def _key(row: dict, level: str) -> str:
    """Name of a row and its files as they are now."""
    paths = [row.get('video_path', row.get('audio_path'))]
    paths += [f['path'] for f in row.get('frames', [])[::8]]
    needed = {k: v for k, v in row.items() if k != 'label'}
    state: List[Any] = [_FORMAT, level, needed]
    for path in paths:
        try:
            status = os.stat(path)
            state.append((status.st_size, status.st_mtime_ns))
        except (OSError, ValueError):
            state.append(None)
    return hashlib.sha256(json.dumps(state).encode()).hexdigest()[:24]


def _attempt(job: Tuple[int, dict], level: str) -> dict:
    """Measure a clip in a worker; it must not raise."""
    cv2.setNumThreads(1)
    try:
        found = measure_clip(job[1], level)
    except BrokenClipError as error:
        return _rejected(error.reason, error.detail)
    # Whatever a decoder comes up with must not end the run.
    except Exception as error:
        return _rejected('unexpected error',
                         f'{type(error).__name__}: {error}')
    if 'fingerprint' in found:
        found['fingerprint'] = [x.tobytes().hex()
                                for x in found['fingerprint']]
    return found


class _Measured:
    """File of what was measured of each clip, in the order of finishing.

    A run that was interrupted goes on from there, and one with other
    thresholds need not decode anything.

    Args:
        path (str): The file. What a killed process left unfinished at its
            end is cut off.
    """

    def __init__(self, path: str) -> None:
        os.makedirs(osp.dirname(path) or '.', exist_ok=True)
        self.file = open(path, 'a+b')
        self.places: Dict[str, int] = {}
        self.file.seek(0)
        place = 0
        for line in self.file:
            if not line.endswith(b'\n'):
                break
            self.places[line[:24].decode('ascii', 'replace')] = place
            place += len(line)
        self.file.truncate(place)
        self.file.seek(place)

    def add(self, key: str, found: dict) -> None:
        """Note what was found."""
        self.places[key] = self.file.seek(0, os.SEEK_END)
        self.file.write(f'{key} {json.dumps(found)}\n'.encode())
        self.file.flush()

    def get(self, key: str) -> dict:
        """What was found."""
        self.file.seek(self.places[key])
        return json.loads(self.file.readline()[25:])

    def close(self) -> None:
        """Close the file."""
        self.file.close()


def check_clips(source: str,
                out: str,
                level: str = 'decode',
                thresholds: Optional[Dict[str, float]] = None,
                data_root: Optional[str] = None,
                workers: Optional[int] = None,
                timeout: float = 600.,
                progress: bool = False) -> dict:
    """Check all clips of a collection and write a report.

    Beside the report, ``<out>.measured`` keeps what was measured: a run that
    was ended in any way goes on from there, unchanged clips are not decoded
    again, and other thresholds need no decoding.

    Args:
        source (str): A folder of videos, or a clip table.
        out (str): The json to write, a table of ``clip_id``, ``verdict``
            (the first fault or ``'good'``), ``faults``, ``remarks``,
            ``detail`` or ``duplicate_of`` where they apply, and what
            :func:`measure_clip` found.
        level (str): ``'probe'`` or ``'decode'``. Defaults to ``'decode'``.
        thresholds (dict[str, float], optional): Limits that differ from
            those of :data:`THRESHOLDS`.
        data_root (str, optional): Folder that the table's paths are relative
            to. Defaults to None, that of the table.
        workers (int, optional): Number of processes. Defaults to None, as
            many as there are CPU cores.
        timeout (float): Seconds after which a clip is given up.
            Defaults to 600.
        progress (bool): Whether to show how far it is. Defaults to False.

    Returns:
        dict: The report's metainfo: settings, ``clips``, ``good``,
        ``verdicts`` and ``remarks`` (name to count), ``examples`` (verdict
        to ids), ``per_class`` (label to ``[good, all]``), and
        ``pairs_skipped`` of the search for duplicates.

    Raises:
        ValueError, TypeError, FileNotFoundError: If an argument or the
            source is wrong.
    """
    if level not in LEVELS:
        raise ValueError(f'level must be one of {LEVELS}, got {level!r}.')
    limits = default_thresholds(**(thresholds or {}))
    with closing(_Measured(f'{out}.measured')) as measured:
        keys, listed = _measure_all(source, data_root, level, measured,
                                    workers, timeout, progress)
        if not keys:
            raise ValueError(f'There are no clips in {source!r}.')
        results = partial(_results, keys, listed, measured, limits)
        originals, skipped = _search(results(), limits)
        names = [_name(row) for row in _read_rows(source, data_root)[1]]
        info = dict(
            source=osp.relpath(source, osp.dirname(out) or '.'),
            level=level,
            thresholds=limits,
            pairs_skipped=skipped)

        def report() -> Iterator[dict]:
            for i, result in enumerate(results()):
                result.pop('fingerprint', None)
                if i in originals:
                    result['faults'].append('duplicate')
                    result['verdict'] = result['faults'][0]
                    result['duplicate_of'] = names[originals[i]]
                yield dict(clip_id=names[i], **result)

        labels = (row.get('label') for row in _read_rows(source, data_root)[1])
        info.update(_summary(report(), labels))
        dump_clip_table(report(), out, info, kind=REPORT_TYPE)
    return info


def _measure_all(
        source: str, data_root: Optional[str], level: str,
        measured: _Measured, workers: Optional[int], timeout: float,
        progress: bool) -> Tuple[List[str], Dict[int, dict]]:
    """Measure what is not measured yet.

    Returns:
        tuple: A key of each row in ``measured``, and the results for rows
        that have none there.
    """
    keys: List[str] = []
    listed: Dict[int, dict] = {}
    seen = set()
    for i, row in enumerate(_read_rows(source, data_root)[1]):
        clip_id = row.get('clip_id')
        keys.append('')
        if not safe_clip_id(clip_id):
            listed[i] = _rejected('unsafe clip id', repr(clip_id))
        elif clip_id in seen:
            listed[i] = _rejected('duplicate clip id', '')
        elif not row.keys() & {'video_path', 'frames'}:
            listed[i] = _rejected('bad row', '')
        else:
            keys[i] = _key(row, level)
        if isinstance(clip_id, str):
            seen.add(clip_id)

    def jobs() -> Iterator[Tuple[int, dict]]:
        for i, row in enumerate(_read_rows(source, data_root)[1]):
            if keys[i] and keys[i] not in measured.places:
                yield i, row

    todo = sum(key != '' and key not in measured.places for key in keys)
    failed = 0
    runs = run_local(partial(_attempt, level=level), jobs(), workers, timeout)
    with closing(runs), Progress(todo, show=progress) as shown:
        for done in runs:
            if done is None:
                shown.update(note=shown.note)
                continue
            i, found = done.job[0], done.result
            if isinstance(found, Died):
                # Not noted: the next run tries again.
                listed[i] = _rejected(
                    'took too long' if found.timeout else 'decoder crashed',
                    found.detail)
                keys[i] = ''
            else:
                measured.add(keys[i], found)
            failed += isinstance(found, Died) or 'faults' in found
            shown.update(1, f'{failed} unreadable' if failed else '')
    return keys, listed


def _results(keys: List[str], listed: Dict[int, dict], measured: _Measured,
             limits: Dict[str, float]) -> Iterator[dict]:
    """Results of all clips but for duplicates, in the order of the table."""
    for i, key in enumerate(keys):
        found = measured.get(key) if key else listed[i]
        if 'faults' in found:
            # A copy, since the caller may change it.
            yield dict(found, faults=list(found['faults']))
        else:
            yield _judged(found, limits)


def _search(results: Iterable[dict],
            limits: Dict[str, float]) -> Tuple[Dict[int, int], int]:
    """Find duplicates.

    Returns:
        tuple: Positions of copies to those of originals, and the number of
        pairs that were not compared.
    """
    places, durations, good = [], [], []
    prints: Tuple[bytearray, bytearray] = bytearray(), bytearray()
    for i, result in enumerate(results):
        if 'fingerprint' not in result:
            continue
        places.append(i)
        durations.append(result['duration'])
        good.append(not result['faults'])
        for found, text in zip(prints, result['fingerprint']):
            found += bytes.fromhex(text)
    n = len(places)
    found = find_duplicates(
        np.frombuffer(prints[0], '<u8').reshape(n, -1),
        np.frombuffer(prints[1], np.uint8).reshape(n, -1),
        np.array(durations), np.array(good, bool),
        limits['max_picture_bits'],
        limits['max_sound_difference']) if n else Duplicates({}, 0, 0)
    return {places[a]: places[b]
            for a, b in found.original.items()}, found.skipped


def _summary(results: Iterable[dict], labels: Iterable[Any]) -> dict:
    """Counts and examples."""
    verdicts: Counter = Counter()
    remarks: Counter = Counter()
    examples: Dict[str, List[str]] = {}
    per_class: Dict[str, List[int]] = {}
    for result, label in zip(results, labels):
        verdict = result['verdict']
        verdicts[verdict] += 1
        remarks.update(result['remarks'])
        some = examples.setdefault(verdict, [])
        if len(some) < 3:
            some.append(result['clip_id'])
        if isinstance(label, str):
            count = per_class.setdefault(label, [0, 0])
            count[0] += verdict == GOOD
            count[1] += 1
    order = [GOOD, *FAULTS, *sorted(verdicts.keys() - FAULTS.keys() - {GOOD})]
    return dict(
        clips=sum(verdicts.values()),
        good=verdicts[GOOD],
        verdicts={v: verdicts[v] for v in order if verdicts[v]},
        remarks={r: remarks[r] for r in REMARKS if remarks[r]},
        examples=examples,
        per_class=dict(sorted(per_class.items())))


def print_report(info: dict, out: str) -> None:
    """Print what :func:`check_clips` found.

    Args:
        info (dict): Its result.
        out (str): Path of the report.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table
    console = Console()
    if info['per_class']:
        table = Table('class', 'good', 'all')
        for label, (good, count) in info['per_class'].items():
            table.add_row(escape(label), str(good), str(count))
        console.print(table)
    table = Table('verdict', 'clips', 'for example')
    for verdict, count in info['verdicts'].items():
        names = ', '.join(map(repr, info['examples'][verdict]))
        table.add_row(verdict, str(count), escape(names))
    console.print(table)
    lines = [f'{info["good"]} of {info["clips"]} clips are good '
             f'({info["good"] / info["clips"]:.1%}).']
    if info['remarks']:
        remarks = '; '.join(f'{r}: {n}' for r, n in info['remarks'].items())
        lines.append(f'Remarks, which reject nothing: {remarks}.')
    if info['pairs_skipped']:
        lines.append(f'{info["pairs_skipped"]} pairs of clips that look alike '
                     'were not compared; more of them may be duplicates.')
    lines.append('To train on the good ones, write into the config of the '
                 f'data set: filter_cfg=dict(report={osp.abspath(out)!r})')
    kept = [v for v in info['verdicts'] if v in SOFT_FAULTS]
    if kept:
        lines.append(f'Kept all the same with, e.g., keep=[{kept[0]!r}] '
                     'in it.')
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
