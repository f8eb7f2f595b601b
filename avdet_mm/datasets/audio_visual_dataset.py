"""Data set of audio-visual clips."""
import json
import logging
import os
import os.path as osp
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from math import inf
from typing import (
    Any,
    Dict,
    Iterable,
    Iterator,
    List,
    Optional,
    Sequence,
    Tuple,
    Union,
)

import numpy as np
from mmengine.dataset import BaseDataset, force_full_init
from mmengine.fileio import join_path
from mmengine.logging import print_log
from mmengine.utils import is_abs

from avdet_mm.registry import DATASETS

from .clip_check import FAULTS, inspect_clip
from .clip_table import (
    DATASET_TYPE,
    PackedRows,
    expand_frames,
    iter_lines,
    read_faults,
)

CHECKS = (None, 'exists', 'probe', 'decode')
# Why a clip is left out that the report does not know.
NOT_CHECKED = 'not checked'


@DATASETS.register_module()
class AudioVisualDataset(BaseDataset):
    """Clips of a clip table.

    The table is a json in MMEngine's format: ``metainfo`` (``dataset_type``
    ``'avdet_mm.clips'``; ``classes`` where clips have labels) and
    ``data_list``, of rows with

    - ``clip_id`` (str), unique: self-labels are stored under it;
    - ``video_path``; or ``audio_path`` and ``frames``, a list of dicts with
      ``path`` and ``time`` (s), or in short ``dict(dir=..., ms=[...])`` for
      the files ``<dir>/<ms>.jpg``; relative to ``data_root`` or else to the
      table's folder;
    - ``duration`` (s), ``time`` (s) of the evaluated frame (both optional);
    - ``label`` and ``instances`` (dicts of ``bbox`` [x1, y1, x2, y2] in
      original pixels, ``label``, ``sounding``; all optional): ground truth
      for evaluation, no part of training.

    Parsed rows have ``gt_label`` (class index) for ``label``, and
    ``eval_instances`` for ``instances``: ``bboxes`` (m, 4) float32,
    ``labels`` (m,) int64, ``sounding`` (m,) bool.

    Rows are kept as json in one array, which loader workers share, and parsed
    when they are asked for: a million clips need a few hundred megabytes.

    Missing and broken clips are counted, reported once and left out before
    training starts. None is replaced by another clip later: what fails in
    the pipeline raises.

    Args:
        ann_file (str): The clip table.
        check (str, optional): What is checked of each clip: ``'exists'``,
            its files; ``'probe'``, also their headers (both streams, at
            least ``audio_duration`` long); ``'decode'``, all that
            ``tools/check_clips.py`` checks but for duplicates (slow: decodes
            everything in this process); None, nothing.
            Defaults to ``'exists'``.
        filter_cfg (dict, optional): ``report``, the json of
            ``tools/check_clips.py`` (relative to ``data_root`` if that is
            given): clips that it rejects, or does not know, are left out;
            and ``keep``, list of faults that do not matter here.
            Defaults to None.
        audio_duration (float): Least duration in seconds.
            Defaults to 1.0.
        max_bad_share (float): Share of clips that may be left out before an
            error is raised. Defaults to 0.2.
        **kwargs: Of :class:`mmengine.dataset.BaseDataset`.

    Raises:
        TypeError, ValueError: If ``ann_file`` is no clip table, or too many
            clips are bad.
    """

    METAINFO: dict = dict(dataset_type=DATASET_TYPE)

    def __init__(self,
                 ann_file: str,
                 check: Optional[str] = 'exists',
                 filter_cfg: Optional[dict] = None,
                 audio_duration: float = 1.0,
                 max_bad_share: float = 0.2,
                 **kwargs: Any) -> None:
        if check not in CHECKS:
            raise ValueError(f'check must be one of {CHECKS}, got {check!r}.')
        if set(filter_cfg or ()) - {'report', 'keep'}:
            raise ValueError(
                'filter_cfg is dict(report=<json of tools/check_clips.py>, '
                f'keep=[<fault>, ...]), got {filter_cfg}.')
        self._kept = set((filter_cfg or {}).get('keep', ()))
        unknown = sorted(self._kept - FAULTS.keys() - {NOT_CHECKED})
        if unknown:
            raise ValueError(f'filter_cfg keeps {unknown[0]!r}, which is no '
                             'fault; `python tools/check_clips.py --help` '
                             'lists them.')
        self.check = check
        self.audio_duration = audio_duration
        self.max_bad_share = max_bad_share
        kwargs.setdefault('data_prefix', {})
        super().__init__(
            ann_file=ann_file, filter_cfg=filter_cfg, max_refetch=0, **kwargs)

    @property
    def clip_ids(self) -> List[str]:
        """Ids of all clips, in the order of ``sample_idx``."""
        return [row['clip_id'] for row in self._rows]

    @property
    def _rows(self) -> PackedRows:
        """The rows as they are in the table."""
        if self.serialize_data:
            return PackedRows(self.data_bytes, self.data_address)
        return self.data_list

    def load_data_list(self) -> PackedRows:
        """Load and check the clip table.

        Returns:
            PackedRows: Rows as they are in the table.
        """
        metainfo, lines = iter_lines(self.ann_file)
        for key, value in metainfo.items():
            self._metainfo.setdefault(key, value)
        classes = self._metainfo.get('classes')
        self._class_indices = None if classes is None else {
            name: i
            for i, name in enumerate(classes)
        }
        return PackedRows.from_lines(self._checked(lines))

    def _checked(self, lines: Iterable[bytes]) -> Iterator[bytes]:
        """Pass on the json of rows while checking them."""
        seen = set()
        for line in lines:
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ValueError(f'{self.ann_file} has a row that is no '
                                 f'valid json ({error}).') from error
            clip_id = row.get('clip_id') if isinstance(row, dict) else None
            if not isinstance(clip_id, str):
                raise ValueError(f'A row of {self.ann_file} has no "clip_id" '
                                 f'(a string): {str(row)[:200]}')
            if clip_id in seen:
                raise ValueError(
                    f'{self.ann_file} has two clips with the clip_id '
                    f'{clip_id!r}; give each clip its own.')
            seen.add(clip_id)
            if not ('video_path' in row or
                    (row.get('frames') and 'audio_path' in row)):
                raise ValueError(
                    f'Clip {clip_id!r} of {self.ann_file} has neither '
                    '"video_path" nor "frames" with "audio_path".')
            for key in ('time', 'duration'):
                value = row.get(key)
                if value is not None and not (
                        isinstance(value, (int, float)) and 0 <= value < inf):
                    raise ValueError(
                        f'Clip {clip_id!r} of {self.ann_file} has the {key} '
                        f'{value!r}; it is a number of seconds.')
            self._ground_truth(row)
            yield line

    def parse_data_info(self, raw_data_info: dict) -> dict:
        """Parse a row: join paths, map labels to class indices.

        Args:
            raw_data_info (dict): Row of the clip table.

        Returns:
            dict: Parsed row.
        """
        raw = raw_data_info
        row = dict(clip_id=raw['clip_id'], **self._ground_truth(raw))
        if 'video_path' in raw:
            row['video_path'] = self._join(raw['video_path'])
        else:
            frames = raw['frames']
            if isinstance(frames, dict):
                row['frames'] = expand_frames(
                    dict(frames, dir=self._join(frames['dir'])))
            else:
                row['frames'] = [
                    dict(f, path=self._join(f['path'])) for f in frames
                ]
            row['audio_path'] = self._join(raw['audio_path'])
        for key in ('duration', 'time'):
            if raw.get(key) is not None:
                row[key] = float(raw[key])
        return row

    def _ground_truth(self, raw: dict) -> dict:
        """Label and boxes of a row, checked, with class indices."""
        parsed: Dict[str, Any] = {}
        where = f'Clip {raw["clip_id"]!r} of {self.ann_file}'
        if raw.get('label') is not None:
            parsed['gt_label'] = self._class_index(raw['label'], where)
        if raw.get('instances') is not None:
            found = raw['instances']
            boxes = np.array([x['bbox'] for x in found], np.float32)
            boxes = boxes.reshape(len(found), 4)
            if not (boxes[:, 2:] > boxes[:, :2]).all():
                raise ValueError(f'{where} has an empty box; boxes are '
                                 '[x1, y1, x2, y2] with x1 < x2, y1 < y2.')
            parsed['eval_instances'] = dict(
                bboxes=boxes,
                labels=np.array(
                    [self._class_index(x['label'], where) for x in found],
                    np.int64),
                sounding=np.array(
                    [bool(x.get('sounding', True)) for x in found], bool))
        return parsed

    @force_full_init
    def get_data_info(self, idx: int) -> dict:
        """Get the parsed row of a clip.

        Args:
            idx (int): Index of the clip.

        Returns:
            dict: The row, with ``sample_idx``.
        """
        row = self.parse_data_info(self._rows[idx])
        row['sample_idx'] = idx % len(self)
        return row

    def _serialize_data(self) -> Tuple[np.ndarray, np.ndarray]:
        """The rows are packed already."""
        rows, self.data_list = self.data_list, []
        return rows.data, rows.ends

    def _get_unserialized_subset(
            self, indices: Union[Sequence[int], int]) -> PackedRows:
        """Some of the rows: the first, the last (negative), or a list."""
        everything = range(len(self.data_list))
        if isinstance(indices, int):
            indices = everything[:indices] if indices >= 0 else \
                everything[indices:]
        return self.data_list.take(indices)

    def _join(self, path: str) -> str:
        """Path of a media file from its entry in the table."""
        root = self.data_root or osp.dirname(self.ann_file)
        return path if is_abs(path) or not root else join_path(root, path)

    def _class_index(self, label: str, where: str) -> int:
        """Index of a class name."""
        if self._class_indices is None:
            raise ValueError(
                f'{where} has the label {label!r}, but the classes are not '
                'known; list them as metainfo "classes".')
        if label not in self._class_indices:
            classes = list(self._class_indices)
            raise ValueError(
                f'{where} has the label {label!r}, which is none of the '
                f'{len(classes)} classes ({", ".join(classes[:8])}'
                f'{", ..." if len(classes) > 8 else ""}).')
        return self._class_indices[label]

    def filter_data(self) -> PackedRows:
        """Leave out bad clips, as ``check`` and ``filter_cfg`` say.

        Returns:
            PackedRows: Rows of the good clips.
        """
        rows = self.data_list
        reasons = self._reported_faults(rows)
        if self.check is not None:
            todo = [i for i in range(len(rows)) if i not in reasons]
            chunks = [todo[i:i + 256] for i in range(0, len(todo), 256)]

            def faults(chunk: List[int]) -> List[Tuple[int, str]]:
                found = ((i, self._fault(self.parse_data_info(rows[i])))
                         for i in chunk)
                return [(i, reason) for i, reason in found if reason]

            with ThreadPoolExecutor() as pool:
                for found in pool.map(faults, chunks):
                    reasons.update(found)
        self._say(rows, reasons)
        if not reasons:
            return rows
        return rows.take([i for i in range(len(rows)) if i not in reasons])

    def _reported_faults(self, rows: PackedRows) -> Dict[int, str]:
        """Positions of the clips that the report rejects, with reasons."""
        report = (self.filter_cfg or {}).get('report')
        if report is None:
            return {}
        if self.data_root and not is_abs(report):
            report = join_path(self.data_root, report)
        faults = dict(read_faults(report))
        reasons = {}
        for i, row in enumerate(rows):
            found = faults.get(row['clip_id'], (NOT_CHECKED, ))
            found = [fault for fault in found if fault not in self._kept]
            if found:
                reasons[i] = found[0]
        return reasons

    def _say(self, rows: PackedRows, reasons: Dict[int, str]) -> None:
        """Report how many clips are left out and why; stop at too many."""
        bad = defaultdict(list)
        for i, reason in sorted(reasons.items()):
            bad[reason].append(i)
        summary = '; '.join(
            f'{reason}: {len(places)} (e.g. ' +
            ', '.join(rows[i]['clip_id'] for i in places[:3]) + ')'
            for reason, places in sorted(bad.items()))
        if len(reasons) == len(rows):
            raise ValueError(
                f'No clip of {self.ann_file} can be used. ' +
                (f'{summary}. Paths are relative to '
                 f'{self.data_root or "the folder of the table"!r}.'
                 if summary else 'The table is empty.'))
        message = (f'{len(reasons)} of {len(rows)} clips of {self.ann_file} '
                   f'cannot be used. {summary}.')
        if len(reasons) > self.max_bad_share * len(rows):
            raise ValueError(
                f'{message} That is more than max_bad_share='
                f'{self.max_bad_share:g}; repair the clips, or raise '
                'max_bad_share to go on without them.')
        if reasons:
            print_log(message, 'current', logging.WARNING)
        elif self.check is not None or self.filter_cfg:
            print_log(
                f'{self.ann_file}: all {len(rows)} clips can be used.',
                'current')

    def _fault(self, row: dict) -> Optional[str]:
        """What is wrong with a clip, None if nothing is."""
        if self.check == 'exists':
            return None if files_exist(row) else 'missing file'
        found = inspect_clip(row, self.check,
                             dict(audio_duration=self.audio_duration))
        return next((f for f in found['faults'] if f not in self._kept), None)

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


def files_exist(row: dict) -> bool:
    """Whether all media files of a clip are there.

    Args:
        row (dict): Parsed row of a clip table.

    Returns:
        bool: True if they are.
    """
    if 'video_path' in row:
        return osp.exists(row['video_path'])
    # Frames of a clip lie in one folder as a rule: look once for all.
    names: Dict[str, set] = {}
    for frame in row['frames']:
        folder, name = osp.split(frame['path'])
        if folder not in names:
            if not osp.isdir(folder or '.'):
                return False
            names[folder] = set(os.listdir(folder or '.'))
        if name not in names[folder]:
            return False
    return osp.exists(row['audio_path'])
