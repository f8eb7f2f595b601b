"""Preparing clips: from videos to small frames, sound and a clip table.

What a run leaves in its folder:

- ``frames/<clip>/<ms>.jpg``, upright frames with their display time in
  milliseconds since the start of the clip, and ``audio/<clip>.flac``;
- ``clips.json``, a clip table in the order of the source;
- ``prepare_report.json``: the settings, and what became of every source.

While it runs, ``.prepare`` holds a line of json for each finished source.
Workers write into ``.prepare/tmp`` only; the parent process moves a finished
source into place and then notes it. So a run can be killed at any moment, and
the next one goes on from there.

Each source has a place in [0, 2**32) by the hash of its clip id, and a run
locks the bytes of a file that its share of the places stands for. Runs with
disjoint shares go side by side, others are refused, and whichever ends last
writes the tables.
"""
import csv
import errno
import fcntl
import filecmp
import hashlib
import json
import math
import os
import os.path as osp
import re
import shutil
import time
from collections import Counter
from contextlib import closing, suppress
from typing import (
    Any,
    Dict,
    Iterable,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Tuple,
)

import cv2

from avdet_mm.utils.fileio import atomic_write, dump_json
from avdet_mm.utils.job_pool import LAUNCHERS, Died, run_local, run_ray
from avdet_mm.utils.progress import Progress

from .clip_table import (
    VIDEO_SUFFIXES,
    clip_ids_of,
    dump_clip_table,
    folder_rows,
    iter_clip_table,
    safe_clip_id,
    split_hash,
)
from .media import BrokenClipError
from .prepare_source import (
    LEAST_SEGMENT,
    OutputError,
    prepare_source,
    writing,
)

GOOD = 'good'
# Verdicts that the list alone decides, anew in every run.
_LISTED = ('unsafe clip id', 'duplicate clip id', 'no video path', 'bad row')
# Keys of a row that describe its media; all others are carried over.
_MEDIA_KEYS = ('clip_id', 'video_path', 'frames', 'audio_path', 'duration',
               'height', 'width')
_PLACES = 2**32


# --------------------------------------------------------------------------
# What there is to prepare
# --------------------------------------------------------------------------
class _Source(NamedTuple):
    """A video of the source.

    Attributes:
        path (str): As the source names it.
        file (str): Where it is.
        clip_id (str): Its id.
        row (dict): What is carried over to the table.
        end (float): Seconds after which the video is cut, or None.
        fault (tuple): Verdict and detail where the list decides it.
        stat (tuple): Size in bytes and time (ns) of the last change, None
            and None for a file that is not there.
    """
    path: Any
    file: str
    clip_id: Any
    row: dict
    end: Optional[float]
    fault: Optional[Tuple[str, str]]
    stat: Tuple[Optional[int], Optional[int]]

    @property
    def time(self) -> Any:
        """Time whose frame is needed, in seconds or ``'middle'``."""
        if self.row.get('time') is None and self.row.get('instances'):
            return 'middle'
        return self.row.get('time')

    @property
    def digest(self) -> str:
        """Hexadecimal digits: the first 8 are the place among the shards."""
        return hashlib.sha256(self.clip_id.encode('utf-8')).hexdigest()[:24]

    def key(self) -> dict:
        """What a record must say to be of this source as it is now."""
        return dict(
            path=self.path,
            clip_id=self.clip_id,
            size=self.stat[0],
            mtime_ns=self.stat[1],
            time=self.time,
            end=self.end)


def _list_sources(source: str,
                  segment: Optional[float]) -> Tuple[dict, List[_Source]]:
    """Read a folder, a list or a clip table.

    Returns:
        tuple: Metainfo for the new table, and the sources.
    """
    metainfo: dict = {}
    folder = osp.dirname(source)
    if osp.isdir(source):
        folder = source
        rows: Iterable[dict] = folder_rows(source)
    elif not osp.exists(source):
        raise FileNotFoundError(f'There is no {source!r}; SOURCE is a folder '
                                'of videos, a list of them or a clip table.')
    elif source.lower().endswith(VIDEO_SUFFIXES):
        raise ValueError(f'{source!r} is a video; SOURCE is a folder of '
                         'videos, a list of them or a clip table.')
    elif source.lower().endswith('.json'):
        metainfo, rows = iter_clip_table(source)
        metainfo = {
            k: v
            for k, v in metainfo.items()
            if k not in ('dataset_type', 'prepared')
        }
    else:
        rows = _read_list(source)

    sources, seen = [], set()
    suffix = '' if segment is None else '_000000'
    for row in rows:
        found = _parse_source(row, folder, suffix)
        if found.fault is None and found.clip_id in seen:
            found = found._replace(
                fault=('duplicate clip id', repr(found.clip_id)))
        elif found.fault is None:
            seen.add(found.clip_id)
        sources.append(found)
    if not sources:
        raise ValueError(f'There are no videos in {source!r}; files with '
                         f'these endings count: {" ".join(VIDEO_SUFFIXES)}.')
    return metainfo, sources


def _read_list(path: str) -> List[dict]:
    """Rows of a csv file or of a text file with one path per line."""
    # Names of files need not be UTF-8; they stay what they are.
    with open(
            path, encoding='utf-8-sig', errors='surrogateescape',
            newline='') as file:
        if not path.lower().endswith('.csv'):
            lines = [x.rstrip('\r') for x in file.read().split('\n')]
            rows: List[dict] = [dict(path=x) for x in lines if x]
        else:
            reader = csv.DictReader(file)
            try:
                if 'path' not in (reader.fieldnames or ()):
                    raise ValueError(
                        f'{path} has no column "path" in its first line; '
                        'there may also be "clip_id" and "label".')
                rows = list(reader)
            except csv.Error as error:
                raise ValueError(
                    f'{path} is no valid csv file: {error}.') from error
    paths = [row['path'] or '' for row in rows]
    return [
        dict(
            clip_id=(row.get('clip_id') or '').strip() or clip_id,
            video_path=row['path'],
            **dict(label=row['label'].strip()) if row.get('label') else {})
        for row, clip_id in zip(rows, clip_ids_of(paths))
    ]


def _parse_source(row: Any, folder: str, suffix: str) -> _Source:
    """Check a row of a list or table and look at its file."""
    if not isinstance(row, dict):
        row = {}
    path, clip_id = row.get('video_path'), row.get('clip_id')
    end = row.get('duration')
    carried = {k: v for k, v in row.items() if k not in _MEDIA_KEYS}
    fault, file = None, ''
    if not safe_clip_id(clip_id) or not safe_clip_id(clip_id + suffix):
        fault = 'unsafe clip id', repr(clip_id)
    elif not isinstance(path, str) or not path:
        fault = 'no video path', f'clip {clip_id!r}'
    else:
        file = osp.abspath(osp.join(folder, path))
        wrong = _wrong_annotation(carried, end)
        fault = ('bad row', wrong) if wrong else None
    stat: Tuple[Optional[int], Optional[int]] = None, None
    if fault is None:
        try:
            status = os.stat(file)
            stat = status.st_size, status.st_mtime_ns
        except (OSError, ValueError):
            pass
    return _Source(path, file, clip_id, carried, end, fault, stat)


def _wrong_annotation(row: dict, end: Any) -> Optional[str]:
    """What is wrong with the times, labels and boxes of a row."""
    for name, value in (('time', row.get('time')), ('duration', end)):
        if value is not None and not (isinstance(value, (int, float))
                                      and 0 <= value < math.inf):
            return f'{name} {value!r}'
    try:
        json.dumps(row, allow_nan=False)
        found = row.get('instances') or ()
        boxes = [list(map(float, x['bbox'])) for x in found]
        labels = [x.get('label') for x in (row, *found)]
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        return f'{type(error).__name__}: {error}'
    if not all(
            len(b) == 4 and b[0] < b[2] and b[1] < b[3] for b in boxes):
        return 'a "bbox" that is not [x1, y1, x2, y2] with x1 < x2, y1 < y2'
    if not all(x is None or isinstance(x, str) for x in labels):
        return 'a "label" that is no string'
    return None


# --------------------------------------------------------------------------
# What is done
# --------------------------------------------------------------------------
def _attempt(arguments: dict) -> dict:
    """Prepare a source; what is wrong with it is the result.

    Args:
        arguments (dict): Of :func:`prepare_source`.

    Returns:
        dict: ``verdict``, with the result of :func:`prepare_source` if it is
        ``'good'``, otherwise ``detail``; or ``stop``, why no source at all
        can be prepared.
    """
    cv2.setNumThreads(1)
    try:
        return dict(verdict=GOOD, **prepare_source(**arguments))
    except OutputError as error:
        return dict(stop=str(error))
    except BrokenClipError as error:
        return dict(verdict=error.reason, detail=error.detail or '')
    # Whatever a decoder comes up with must not end the run.
    except Exception as error:
        return dict(
            verdict='unexpected error',
            detail=f'{type(error).__name__}: {error}')


class _State:
    """The output folder: what is finished, and whose turn it is.

    Args:
        out_dir (str): The folder.
        settings (dict): What decides on the content of the files.
        shard (tuple): Number of the shard and how many there are.

    Raises:
        RuntimeError: If another run has the same sources.
        ValueError: If the folder holds something else.
    """

    def __init__(self, out_dir: str, settings: dict,
                 shard: Tuple[int, int]) -> None:
        self.out_dir = out_dir
        self.folder = osp.join(out_dir, '.prepare')
        self.table = osp.join(out_dir, 'clips.json')
        self.report = osp.join(out_dir, 'prepare_report.json')
        self.settings = settings
        self.token = os.urandom(4).hex()
        i, n = shard
        self.places = range(_PLACES * i // n, _PLACES * (i + 1) // n)
        self.log_path = osp.join(self.folder, f'{i}-of-{n}.jsonl')
        self.lock = self._enter()
        try:
            if not self._lock(self.places.start, len(self.places)):
                raise RuntimeError(
                    f'Another run is preparing clips in {out_dir!r}; wait '
                    'for it, or give each run its own --shard.')
            report = self._read_report()
            self._check_settings(report)
            for name in ('frames', 'audio', '.prepare/tmp'):
                os.makedirs(osp.join(out_dir, name), exist_ok=True)
            self._clean()
            self.records = self._load(report)
            self.log = os.open(self.log_path,
                               os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            self._unlock(_PLACES, 1)
        except BaseException:
            with suppress(OSError):
                if os.listdir(self.folder) == ['lock']:
                    shutil.rmtree(self.folder)
            os.close(self.lock)
            raise

    def _enter(self) -> int:
        """Open the lock file and wait for the gate.

        It is held for moments, at the start of a run and at its end. The
        file may be removed while we wait.
        """
        path = osp.join(self.folder, 'lock')
        while True:
            os.makedirs(self.folder, exist_ok=True)
            try:
                lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            except FileNotFoundError:
                continue
            fcntl.lockf(lock, fcntl.LOCK_EX, 1, _PLACES)
            with suppress(FileNotFoundError):
                if os.stat(path).st_ino == os.fstat(lock).st_ino:
                    return lock
            os.close(lock)

    def _lock(self, start: int, length: int) -> bool:
        """Lock some places, if nobody else has one of them."""
        try:
            fcntl.lockf(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB, length,
                        start)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                return False
            raise
        return True

    def _unlock(self, start: int, length: int) -> None:
        fcntl.lockf(self.lock, fcntl.LOCK_UN, length, start)

    def _read_report(self) -> Optional[dict]:
        """The report of the run before, if one was completed."""
        if not osp.exists(self.report):
            return None
        try:
            with open(self.report, encoding='utf-8') as file:
                return json.load(file)
        except ValueError as error:
            raise ValueError(f'{self.report!r} is damaged ({error}); delete '
                             'its folder to begin anew.') from error

    def _check_settings(self, report: Optional[dict]) -> None:
        """Make sure that the folder is new or has the same settings."""
        path = osp.join(self.folder, 'settings.json')
        if report is not None:
            before = report['info']['settings']
        elif osp.exists(path):
            with open(path, encoding='utf-8') as file:
                before = json.load(file)
        elif osp.exists(self.table):
            raise ValueError(f'{self.table!r} is there, but was not written '
                             'here; choose another output folder.')
        else:
            dump_json(self.settings, path)
            return
        for key, value in self.settings.items():
            if before.get(key) != value:
                raise ValueError(
                    f'{self.out_dir!r} was prepared with {key} '
                    f'{before.get(key)!r}, now it is {value!r}; choose '
                    'another output folder, or the same settings, or delete '
                    'this folder to begin anew.')

    def _clean(self) -> None:
        """Remove what killed runs left half done.

        Nobody else works on our places.
        """
        tmp = osp.join(self.folder, 'tmp')
        for name in os.listdir(tmp):
            match = re.fullmatch('([0-9a-f]{24})-[0-9a-f]{8}', name)
            if match and self.has(match[1]):
                shutil.rmtree(osp.join(tmp, name), ignore_errors=True)
        if osp.exists(self.log_path):
            with open(self.log_path, 'rb+') as file:
                file.truncate(file.read().rfind(b'\n') + 1)

    def _load(self, report: Optional[dict]) -> Dict[str, dict]:
        """Finished sources by clip id, from the report and all logs."""
        records = {
            record['clip_id']: record
            for record in (report or {}).get('sources', ())
            if record['verdict'] not in _LISTED
        }
        lines = []
        for name in os.listdir(self.folder):
            if name.endswith('.jsonl'):
                with open(osp.join(self.folder, name), 'rb') as file:
                    # Another run may be writing the last line.
                    lines += [x for x in file if x.endswith(b'\n')]
        logged = map(json.loads, lines)
        for record in sorted(logged, key=lambda r: r['when']):
            del record['when']
            records[record['clip_id']] = record
        return records

    def place_for(self, source: _Source) -> str:
        """Temporary folder for a source."""
        return osp.join(self.folder, 'tmp', f'{source.digest}-{self.token}')

    def has(self, digest: str) -> bool:
        """Whether a source is one of this run's."""
        return int(digest[:8], 16) in self.places

    def complete(self, record: dict) -> bool:
        """Whether all files of a finished source are there."""
        for clip in record.get('clips', ()):
            frames, audio = self._files(clip['clip_id'])
            names = {f'{ms}.jpg' for ms in clip['ms']}
            if not (osp.exists(audio) and osp.isdir(frames)
                    and names == set(os.listdir(frames))):
                return False
        return True

    def _files(self, clip_id: str) -> Tuple[str, str]:
        return (osp.join(self.out_dir, 'frames', clip_id),
                osp.join(self.out_dir, 'audio', f'{clip_id}.flac'))

    def finish(self, source: _Source, result: dict) -> None:
        """Move a source's files into place and note the result."""
        folder = self.place_for(source)
        with writing():
            self.remove(self.records.pop(source.clip_id, {}))
            self.remove(result)
            for clip in result.get('clips', ()):
                frames, audio = self._files(clip['clip_id'])
                new = osp.join(folder, clip['clip_id'])
                os.rename(new, frames)
                os.rename(f'{new}.flac', audio)
            record = dict(source.key(), **result)
            if 'detail' in record:
                # Tables hold no paths of this machine.
                record['detail'] = record['detail'].replace(
                    source.file, source.path)
            if source.row:
                record['row'] = source.row
            line = json.dumps(dict(record, when=time.time_ns())) + '\n'
            data = line.encode('ascii')
            if os.write(self.log, data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.records[source.clip_id] = record
        shutil.rmtree(folder, ignore_errors=True)

    def remove(self, record: dict) -> None:
        """Remove the files of a finished source."""
        for clip in record.get('clips', ()):
            if not safe_clip_id(clip['clip_id']):
                continue
            frames, audio = self._files(clip['clip_id'])
            if osp.lexists(frames):
                shutil.rmtree(frames)
            if osp.lexists(audio):
                os.remove(audio)

    def close(self) -> None:
        """Let other runs in."""
        os.close(self.log)
        os.close(self.lock)

    def merge(self, metainfo: dict, sources: List[_Source]) -> Optional[dict]:
        """Write the tables, if nobody is working and all is done.

        Returns:
            dict, optional: The report's ``info``.
        """
        fcntl.lockf(self.lock, fcntl.LOCK_EX, 1, _PLACES)
        if not self._lock(0, _PLACES):
            return None
        self.records = self._load(self._read_report())
        records, ids, paths = [], set(), set()
        for source in sources:
            if isinstance(source.path, str):
                paths.add(source.path)
            if source.fault is not None:
                verdict, detail = source.fault
                record = dict(
                    source.key(), verdict=verdict, detail=detail)
            elif not _is_current(self.records.get(source.clip_id), source):
                return None
            else:
                ids.add(source.clip_id)
                record = dict(self.records[source.clip_id])
                record.pop('row', None)
                if source.row:
                    record['row'] = source.row
            records.append(record)
        # What was prepared stays when its video is deleted to save space.
        for clip_id, record in self.records.items():
            if clip_id in ids or record['verdict'] != GOOD:
                continue
            if record['path'] in paths:
                self.remove(record)
            else:
                records.append(record)
        info = self._write_tables(metainfo, records)
        for name in os.listdir(self.folder):
            path = osp.join(self.folder, name)
            if name == 'tmp':
                shutil.rmtree(path, ignore_errors=True)
            elif name != 'lock':
                os.remove(path)
        os.remove(osp.join(self.folder, 'lock'))
        with suppress(OSError):
            os.rmdir(self.folder)
        return info

    def _write_tables(self, metainfo: dict, records: List[dict]) -> dict:
        """Write clip table and report where they are not so already."""
        counts = Counter(r['verdict'] for r in records)
        info = dict(
            settings=self.settings,
            sources=len(records),
            clips=sum(len(r.get('clips', ())) for r in records),
            counts=dict(sorted(counts.items())))
        rows = [row for record in records for row in _rows(record)]
        metainfo = dict(metainfo)
        used = {row['label'] for row in rows if row.get('label') is not None}
        used.update(x['label'] for row in rows
                    for x in row.get('instances') or () if 'label' in x)
        classes = metainfo.get('classes', [])
        if used or classes:
            metainfo['classes'] = [*classes, *sorted(used - set(classes))]
        if 'split_hash' in metainfo:
            metainfo['split_hash'] = split_hash(r['clip_id'] for r in rows)
        metainfo['prepared'] = {
            k: v
            for k, v in self.settings.items() if k != 'source'
        }
        new = osp.join(self.folder, 'new.json')
        dump_clip_table(rows, new, metainfo)
        _replace(new, self.table)
        with atomic_write(new) as file:
            file.write(f'{{"info": {json.dumps(info)}, "sources": [')
            for i, record in enumerate(records):
                file.write((',\n' if i else '\n') + json.dumps(record))
            file.write('\n]}\n')
        _replace(new, self.report)
        return info


def _replace(new: str, path: str) -> None:
    """Move a file over another, unless they are equal."""
    if osp.exists(path) and filecmp.cmp(new, path, shallow=False):
        os.remove(new)
    else:
        os.replace(new, path)


def _is_current(record: Optional[dict], source: _Source) -> bool:
    """Whether a record is of a source as it is now.

    That of a prepared video also counts when the video is gone.
    """
    if record is None:
        return False
    key = source.key()
    if source.stat[0] is None and record['verdict'] == GOOD:
        del key['size'], key['mtime_ns']
    return all(record.get(name) == value for name, value in key.items())


def _rows(record: dict) -> Iterator[dict]:
    """Rows of the new clip table for a source."""
    for clip in record.get('clips', ()):
        clip_id = clip['clip_id']
        row = dict(
            clip_id=clip_id,
            frames=dict(dir=f'frames/{clip_id}', ms=clip['ms']),
            audio_path=f'audio/{clip_id}.flac',
            duration=clip['duration'],
            height=clip['height'],
            width=clip['width'],
            **record.get('row', {}))
        if 'time' in clip:
            row['time'] = clip['time']
        else:
            row.pop('time', None)
            row.pop('instances', None)
        if row.get('instances'):
            x = clip['width'] / record['shown'][1]
            y = clip['height'] / record['shown'][0]
            row['instances'] = [
                dict(
                    instance,
                    bbox=[
                        round(float(a) * b, 3)
                        for a, b in zip(instance['bbox'], (x, y, x, y))
                    ]) for instance in row['instances']
            ]
        yield row


# --------------------------------------------------------------------------
# A run
# --------------------------------------------------------------------------
def prepare_clips(source: str,
                  out_dir: str,
                  fps: float = 2.,
                  short_side: int = 256,
                  quality: int = 90,
                  sample_rate: int = 24000,
                  segment: Optional[float] = None,
                  workers: Optional[int] = None,
                  shard: Tuple[int, int] = (0, 1),
                  launcher: str = 'local',
                  ray_address: Optional[str] = None,
                  timeout: float = 600.,
                  retry_failed: bool = False,
                  progress: bool = False) -> dict:
    """Prepare clips: small frames, sound and a clip table.

    A run that was ended in any way goes on where it was when it is started
    again. In a finished folder only new and changed videos are prepared;
    clips stay when their videos are deleted.

    Args:
        source (str): A folder of videos, searched with those below it; a
            list, either a text file with one path per line or a csv file
            with the column ``path`` and, optionally, ``clip_id`` and
            ``label``; or a clip table (.json) of videos, whose other keys
            are carried over, with boxes in pixels of the new frames. Paths
            are relative to the list's folder.
        out_dir (str): Folder for the result. With ``'ray'`` all machines
            must have it, and the videos, under the same path.
        fps (float): Frames per second. Defaults to 2.
        short_side (int): Length in pixels that the shorter side of frames is
            reduced to; smaller frames keep their size. Defaults to 256.
        quality (int): Quality of the JPEG files, 1 to 100. Defaults to 90.
        sample_rate (int): Samples per second of the sound.
            Defaults to 24000.
        segment (float, optional): Seconds of the consecutive clips that
            videos are cut into, at least 1. Defaults to None, one clip per
            video.
        workers (int, optional): Number of processes. Defaults to None, as
            many as there are CPU cores.
        shard (tuple[int, int]): (i, n): prepare the i-th of n parts of the
            sources, ``0 <= i < n``. The run that ends last writes the table.
            Defaults to (0, 1), everything.
        launcher (str): ``'local'`` or ``'ray'``. Defaults to ``'local'``.
        ray_address (str, optional): Address of a Ray cluster, e.g.
            ``'auto'``. Defaults to None, a local one.
        timeout (float): Seconds after which a video is given up.
            Defaults to 600.
        retry_failed (bool): Whether to try videos again that failed before
            and have not changed. Defaults to False.
        progress (bool): Whether to show how far it is. Defaults to False.

    Returns:
        dict: ``prepared``, number of sources that this run went through;
        ``info`` of the report, or None as long as other shards are to be
        done; and ``failed``, verdict to the paths of this run's and earlier
        failures among the sources.

    Raises:
        ValueError, FileNotFoundError: If an argument or the source is wrong.
        RuntimeError: If another run has the same sources, or the folder
            cannot be written.
        ImportError: If Ray is asked for and missing.
    """
    i, n = shard
    checks = [
        (0 < fps <= 1000, f'fps must be in (0, 1000], got {fps}'),
        (short_side >= 1, f'short_side must be positive, got {short_side}'),
        (1 <= quality <= 100, f'quality must be in 1..100, got {quality}'),
        (sample_rate >= 1000, f'sample_rate is in Hz, got {sample_rate}'),
        (segment is None or segment >= LEAST_SEGMENT,
         f'segment must be at least {LEAST_SEGMENT:g} s, got {segment}'),
        (workers is None or workers >= 1,
         f'workers must be positive, got {workers}'),
        (0 <= i < n, f'shard i/n needs 0 <= i < n, got {i}/{n}'),
        (launcher in LAUNCHERS,
         f'launcher must be one of {LAUNCHERS}, got {launcher!r}'),
        (timeout > 0, f'timeout must be positive, got {timeout}'),
    ]
    for good, message in checks:
        if not good:
            raise ValueError(f'{message}.')
    out_dir = osp.abspath(out_dir)
    files = dict(
        fps=fps,
        short_side=short_side,
        quality=quality,
        sample_rate=sample_rate,
        segment=segment)
    settings = dict(
        files,
        source=osp.relpath(osp.realpath(source), osp.realpath(out_dir)))
    metainfo, sources = _list_sources(source, segment)
    try:
        with closing(_State(out_dir, settings, shard)) as state:
            todo = {
                x.clip_id: x
                for x in sources
                if x.fault is None and state.has(x.digest)
                and not _is_done(state, x, retry_failed)
            }
            jobs = (
                dict(
                    files,
                    file=x.file,
                    clip_id=x.clip_id,
                    folder=state.place_for(x),
                    time=x.time,
                    duration=x.end) for x in todo.values())
            if launcher == 'ray':
                results = run_ray(_attempt, jobs, workers, timeout,
                                  ray_address)
            else:
                results = run_local(_attempt, jobs, workers, timeout)
            num_failed = 0
            with closing(results), Progress(
                    len(todo), 'videos', progress) as shown:
                for done in results:
                    if done is not None:
                        result = _verdict(done.result)
                        state.finish(todo[done.job['clip_id']], result)
                        num_failed += result['verdict'] != GOOD
                    shown.update(done is not None, f'{num_failed} failed'
                                 if num_failed else '')
            info = state.merge(metainfo, sources)
            failed: Dict[str, List[str]] = {}
            for x in sources:
                if x.fault is not None:
                    failed.setdefault(x.fault[0], []).append(x.path)
                elif x.clip_id in state.records:
                    verdict = state.records[x.clip_id]['verdict']
                    if verdict != GOOD:
                        failed.setdefault(verdict, []).append(x.path)
    except (OSError, OutputError) as error:
        raise RuntimeError(
            f'Cannot write to {out_dir!r}: {error}. What is finished is kept; '
            'the same command goes on from there.') from error
    return dict(prepared=len(todo), info=info, failed=failed)


def _verdict(result: Any) -> dict:
    """Result of :func:`_attempt`, or of its end."""
    if isinstance(result, Died):
        verdict = 'took too long' if result.timeout else 'decoder crashed'
        return dict(verdict=verdict, detail=result.detail)
    if 'stop' in result:
        raise OutputError(result['stop'])
    return result


def _is_done(state: _State, source: _Source, retry_failed: bool) -> bool:
    """Whether nothing is to be done for a source."""
    record = state.records.get(source.clip_id)
    if not _is_current(record, source):
        return False
    if record['verdict'] != GOOD:
        return not retry_failed
    # Without its video, a clip cannot be made again.
    return source.stat[0] is None or state.complete(record)
