"""Data set of audio-visual clips."""
import logging
import os.path as osp
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from json import JSONDecodeError
from typing import Any, List, Optional

import mmengine
import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.fileio import exists, join_path
from mmengine.logging import print_log
from mmengine.utils import is_abs

from avdet_mm.registry import DATASETS

from .media import (
    BrokenClipError,
    decode_audio,
    open_audio,
    open_video,
    read_audio,
    read_image,
    video_duration,
)

CHECKS = (None, 'exists', 'probe', 'decode')
# Root mean square below which sound counts as silent: -80 dB of full scale.
SILENCE = 1e-4


@DATASETS.register_module()
class AudioVisualDataset(BaseDataset):
    """Clips of a clip table.

    The table is a json in MMEngine's format: ``metainfo`` (``dataset_type``
    ``'avdet_mm.clips'``; ``classes`` where clips have labels) and
    ``data_list``, of rows with

    - ``clip_id`` (str), unique: self-labels are stored under it;
    - ``video_path``, or ``frames`` (list of dicts with ``path`` and
      ``time``) and ``audio_path``; relative to ``data_root`` or else to the
      table's folder;
    - ``duration`` (s), ``time`` (s) of the evaluated frame (both optional);
    - ``label`` and ``instances`` (dicts of ``bbox`` [x1, y1, x2, y2] in
      original pixels, ``label``, ``sounding``; all optional): ground truth
      for evaluation, no part of training.

    Parsed rows have ``gt_label`` (class index) for ``label``, and
    ``eval_instances`` for ``instances``: ``bboxes`` (m, 4) float32,
    ``labels`` (m,) int64, ``sounding`` (m,) bool.

    Missing and broken clips are counted, reported once and left out before
    training starts. None is replaced by another clip later: what fails in
    the pipeline raises.

    Args:
        ann_file (str): The clip table.
        check (str, optional): What is checked of each clip: ``'exists'``,
            its files; ``'probe'``, also their headers (both streams, at
            least ``audio_duration`` long); ``'decode'``, also that they can
            be decoded to the end and are not silent (slow: decodes
            everything); None, nothing. Defaults to ``'exists'``.
        audio_duration (float): Least duration in seconds.
            Defaults to 1.0.
        max_bad_share (float): Share of clips that may be left out before an
            error is raised. Defaults to 0.2.
        **kwargs: Of :class:`mmengine.dataset.BaseDataset`.

    Raises:
        TypeError, ValueError: If ``ann_file`` is no clip table, or too many
            clips are bad.
    """

    METAINFO: dict = dict(dataset_type='avdet_mm.clips')

    def __init__(self,
                 ann_file: str,
                 check: Optional[str] = 'exists',
                 audio_duration: float = 1.0,
                 max_bad_share: float = 0.2,
                 **kwargs: Any) -> None:
        if check not in CHECKS:
            raise ValueError(f'check must be one of {CHECKS}, got {check!r}.')
        self.check = check
        self.audio_duration = audio_duration
        self.max_bad_share = max_bad_share
        kwargs.setdefault('data_prefix', {})
        super().__init__(ann_file=ann_file, max_refetch=0, **kwargs)

    @property
    def clip_ids(self) -> List[str]:
        """Ids of all clips, in the order of ``sample_idx``."""
        return [self.get_data_info(i)['clip_id'] for i in range(len(self))]

    def load_data_list(self) -> List[dict]:
        """Load and parse the clip table.

        Returns:
            list[dict]: Parsed rows.
        """
        table = self._load_table()
        for key, value in table['metainfo'].items():
            self._metainfo.setdefault(key, value)
        rows = [self.parse_data_info(raw) for raw in table['data_list']]
        seen = set()
        for row in rows:
            if row['clip_id'] in seen:
                raise ValueError(
                    f'{self.ann_file} has two clips with the clip_id '
                    f'{row["clip_id"]!r}; give each clip its own.')
            seen.add(row['clip_id'])
        return rows

    def _load_table(self) -> dict:
        """Load the file and make sure that it is a clip table."""
        wanted = ('expected is a clip table, a json with "metainfo" and '
                  '"data_list"')
        try:
            table = mmengine.load(self.ann_file, file_format='json')
        except (JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f'{self.ann_file} is no valid json '
                             f'({error}); {wanted}.') from error
        if not isinstance(table, dict):
            raise TypeError(f'{self.ann_file} holds a {type(table).__name__};'
                            f' {wanted}.')
        if 'images' in table or 'annotations' in table:
            raise ValueError(
                f'{self.ann_file} looks like a COCO json (it has "images" or '
                f'"annotations"); {wanted}. COCO files are for '
                'mmdet.CocoDataset.')
        if not (isinstance(table.get('metainfo'), dict)
                and isinstance(table.get('data_list'), list)):
            raise ValueError(f'{self.ann_file} has the keys '
                             f'{sorted(table)[:8]}; {wanted}.')
        kind = table['metainfo'].get('dataset_type',
                                     self.METAINFO['dataset_type'])
        if kind != self.METAINFO['dataset_type']:
            raise ValueError(
                f'{self.ann_file} is a data set of type {kind!r}, but '
                f'expected is {self.METAINFO["dataset_type"]!r}.')
        return table

    def parse_data_info(self, raw_data_info: dict) -> dict:
        """Parse a row: join paths, map labels to class indices.

        Args:
            raw_data_info (dict): Row of the clip table.

        Returns:
            dict: Parsed row.
        """
        raw = raw_data_info
        if not isinstance(raw, dict) or not isinstance(
                raw.get('clip_id'), str):
            raise ValueError(f'A row of {self.ann_file} has no "clip_id" '
                             f'(a string): {str(raw)[:200]}')
        row = dict(clip_id=raw['clip_id'])
        where = f'Clip {raw["clip_id"]!r} of {self.ann_file}'
        if 'video_path' in raw:
            row['video_path'] = self._join(raw['video_path'])
        elif raw.get('frames') and 'audio_path' in raw:
            row['frames'] = [
                dict(path=self._join(f['path']), time=f['time'])
                for f in raw['frames']
            ]
            row['audio_path'] = self._join(raw['audio_path'])
        else:
            raise ValueError(f'{where} has neither "video_path" nor "frames" '
                             'with "audio_path".')
        for key in ('duration', 'time'):
            if raw.get(key) is not None:
                row[key] = float(raw[key])
        if raw.get('label') is not None:
            row['gt_label'] = self._class_index(raw['label'], where)
        if raw.get('instances') is not None:
            found = raw['instances']
            boxes = np.array([x['bbox'] for x in found], np.float32)
            boxes = boxes.reshape(len(found), 4)
            if (boxes[:, 2:] <= boxes[:, :2]).any():
                raise ValueError(f'{where} has an empty box; boxes are '
                                 '[x1, y1, x2, y2] with x1 < x2, y1 < y2.')
            row['eval_instances'] = dict(
                bboxes=boxes,
                labels=np.array(
                    [self._class_index(x['label'], where) for x in found],
                    np.int64),
                sounding=np.array(
                    [bool(x.get('sounding', True)) for x in found], bool))
        return row

    def _join(self, path: str) -> str:
        """Path of a media file from its entry in the table."""
        root = self.data_root or osp.dirname(self.ann_file)
        return path if is_abs(path) or not root else join_path(root, path)

    def _class_index(self, label: str, where: str) -> int:
        """Index of a class name."""
        classes = self._metainfo.get('classes')
        if classes is None:
            raise ValueError(
                f'{where} has the label {label!r}, but the classes are not '
                'known; list them as metainfo "classes".')
        if label not in classes:
            raise ValueError(
                f'{where} has the label {label!r}, which is none of the '
                f'{len(classes)} classes ({", ".join(classes[:8])}'
                f'{", ..." if len(classes) > 8 else ""}).')
        return list(classes).index(label)

    def filter_data(self) -> List[dict]:
        """Leave out missing and broken clips, as ``check`` says.

        Returns:
            list[dict]: Rows of the good clips.
        """
        if self.check is None:
            return self.data_list
        with ThreadPoolExecutor() as pool:
            reasons = list(pool.map(self._fault, self.data_list))
        good = [row for row, r in zip(self.data_list, reasons) if r is None]
        bad = defaultdict(list)
        for row, reason in zip(self.data_list, reasons):
            if reason is not None:
                bad[reason].append(row['clip_id'])
        num_bad = len(self.data_list) - len(good)
        summary = '; '.join(
            f'{reason}: {len(ids)} (e.g. {", ".join(ids[:3])})'
            for reason, ids in sorted(bad.items()))
        if not good:
            raise ValueError(
                f'No clip of {self.ann_file} can be used. ' +
                (f'{summary}. Paths are relative to '
                 f'{self.data_root or "the folder of the table"!r}.'
                 if summary else 'The table is empty.'))
        if num_bad:
            message = (f'{num_bad} of {len(self.data_list)} clips of '
                       f'{self.ann_file} cannot be used. {summary}.')
            if num_bad > self.max_bad_share * len(self.data_list):
                raise ValueError(
                    f'{message} That is more than max_bad_share='
                    f'{self.max_bad_share:g}; repair the clips, or raise '
                    'max_bad_share to go on without them.')
            print_log(message, 'current', logging.WARNING)
        return good

    def _fault(self, row: dict) -> Optional[str]:
        """What is wrong with a clip, None if nothing is."""
        try:
            if self.check == 'exists':
                paths = [f['path'] for f in row.get('frames', [])]
                paths.append(row.get('video_path', row.get('audio_path')))
                return None if all(map(exists, paths)) else 'missing file'
            check_clip(row, self.audio_duration, self.check == 'decode')
        except BrokenClipError as error:
            return error.reason
        return None

    def prepare_data(self, idx: int) -> dict:
        """Get a sample through the pipeline.

        Args:
            idx (int): Index of the clip.

        Returns:
            dict: What the pipeline returns.

        Raises:
            RuntimeError: If the pipeline returns None.
        """
        data = super().prepare_data(idx)
        if data is None:
            clip_id = self.get_data_info(idx)['clip_id']
            raise RuntimeError(
                f'The pipeline returned nothing for clip {clip_id!r}; clips '
                'are never replaced by others here, so remove the transform '
                'that drops samples.')
        return data


def check_clip(row: dict, audio_duration: float, decode: bool) -> None:
    """Check the files of a clip.

    Args:
        row (dict): Parsed row of a clip table.
        audio_duration (float): Least duration in seconds.
        decode (bool): Whether to decode everything, not only read headers.

    Raises:
        BrokenClipError: If a file is missing, unreadable, too short, ends
            too early or is silent.
    """

    def check_length(path: str, seconds: float) -> None:
        if seconds < audio_duration - 1e-5:
            raise BrokenClipError(path, f'shorter than {audio_duration:g} s',
                                  f'{seconds:.2f} s')

    def check_sound(path: str, wave: np.ndarray, rate: int,
                    seconds: float) -> None:
        # Encoders pad and cut a little; a quarter of a second is a fault.
        if len(wave) / rate < seconds - 0.25:
            raise BrokenClipError(path, 'sound ends too early')
        check_length(path, len(wave) / rate)
        if np.sqrt(np.mean(np.square(wave))) < SILENCE:
            raise BrokenClipError(path, 'silent')

    if 'video_path' in row:
        path = row['video_path']
        with open_video(path) as container:
            seconds = min(
                video_duration(container), row.get('duration', np.inf))
            check_length(path, seconds)
            if not decode:
                return
            rate = container.streams.audio[0].sample_rate
            wave = decode_audio(container, 0, seconds, rate)
            check_sound(path, wave, rate, seconds)
            container.seek(0)
            stream = container.streams.video[0]
            frames = sum(1 for _ in container.decode(stream))
            if not frames or frames < 0.9 * stream.frames:
                raise BrokenClipError(path, 'picture ends too early')
        return
    for frame in row['frames']:
        if decode:
            read_image(frame['path'])
        elif not exists(frame['path']):
            raise BrokenClipError(frame['path'], 'missing file')
    path = row['audio_path']
    with open_audio(path) as file:
        seconds = file.frames / file.samplerate
        check_length(path, seconds)
        if decode:
            wave = read_audio(file, 0, seconds, file.samplerate)
            check_sound(path, wave, file.samplerate, seconds)
