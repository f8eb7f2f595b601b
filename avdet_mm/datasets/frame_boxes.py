"""Ground truth from a detector: boxes in some frames of clips.

Shared by the converters of CoSep's detections and of any other detector's.
"""
import os.path as osp
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Sequence

import cv2
import numpy as np

from avdet_mm.utils.fileio import atomic_write, dump_json

from .clip_table import (
    coverage,
    dump_clip_table,
    expand_frames,
    print_coverage,
    safe_clip_id,
)
from .coco import to_coco
from .media import BrokenClipError


class LabeledFrame(NamedTuple):
    """A frame with its boxes.

    Attributes:
        row (dict): Media of the clip, from :func:`find_media`.
        time (float): Seconds from the clip's start.
        path (str): The image, relative to the table's folder.
        height (int): Of the frame in pixels.
        width (int): Of the frame in pixels.
        instances (list[dict]): ``bbox`` [x1, y1, x2, y2] in pixels,
            ``label`` and ``score``.
    """
    row: dict
    time: float
    path: str
    height: int
    width: int
    instances: List[dict]


def keep_best(boxes: np.ndarray, scores: np.ndarray,
              max_overlap: float) -> np.ndarray:
    """Leave out boxes that overlap a better one, of whichever class.

    Unlike in non-maximum suppression, a box that is left out itself still
    counts as a better one (CoSep, ``getTopDetections.py``).

    Args:
        boxes (np.ndarray): (n, 4) x1, y1, x2, y2.
        scores (np.ndarray): (n, ).
        max_overlap (float): Largest intersection over union.

    Returns:
        np.ndarray: (n, ) bool. Of equal scores the later one is better.
    """
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    both = (high - low).clip(min=0).prod(axis=2)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    union = area[:, None] + area[None] - both
    overlap = both / np.maximum(union, 1e-9)
    place = np.arange(len(boxes))
    better = (scores[None] > scores[:, None]) | (
        (scores[None] == scores[:, None]) & (place[None] > place[:, None]))
    return ~(better & (overlap > max_overlap)).any(axis=1)


def pick_times(times: Sequence[float], duration: float,
               number: int) -> List[float]:
    """Times spread over a clip: one is near the middle.

    Args:
        times (Sequence[float]): To choose from, in seconds.
        duration (float): Length of the clip in seconds.
        number (int): How many to choose.

    Returns:
        list[float]: In ascending order; all of them if there are fewer.
    """
    left = list(times)
    chosen = []
    for i in range(min(number, len(left))):
        wanted = duration * (i + 0.5) / number
        chosen.append(min(left, key=lambda t: (abs(t - wanted), t)))
        left.remove(chosen[-1])
    return sorted(chosen)


def prepared_frames(row: dict) -> Dict[float, str]:
    """Prepared frames of a clip: time (s) to path; none for a video."""
    return {f['time']: f['path'] for f in expand_frames(row.get('frames', ()))}


def save_frame(image: np.ndarray, out: str, row: dict, time: float) -> str:
    """Write a frame of a video beside a table, as a PNG.

    Args:
        image (np.ndarray): (h, w, 3) uint8 BGR.
        out (str): The table.
        row (dict): The clip's row.
        time (float): Seconds from the clip's start.

    Returns:
        str: Path relative to the table's folder:
        ``<table>_images/<clip>_<ms>.png``.

    Raises:
        BrokenClipError: If the clip's id cannot be a file name.
    """
    clip_id = row['clip_id']
    if not safe_clip_id(clip_id):
        raise BrokenClipError(repr(clip_id), 'unsafe clip id')
    folder = osp.basename(osp.splitext(out)[0]) + '_images'
    path = f'{folder}/{clip_id}_{round(time * 1000)}.png'
    _, data = cv2.imencode('.png', image)
    with atomic_write(osp.join(osp.dirname(out), path), 'wb') as file:
        file.write(data.tobytes())
    return path


def write_labeled_frames(out: str,
                         frames: Iterable[LabeledFrame],
                         classes: Sequence[str],
                         annotated: Dict[str, Sequence[str]],
                         found: Iterable[str],
                         reasons: Dict[str, str],
                         info: dict,
                         counts: Optional[Dict[str, Any]] = None) -> dict:
    """Write clip table, COCO json and coverage report; print the report.

    The table has a row for each frame. Where clips have several, their ids
    are ``<clip>@<ms>`` (the COCO json has the clip's own as ``clip_id``).

    Args:
        out (str): The table; ``<its name>_coco.json`` and
            ``<its name>_coverage.json`` go beside it.
        frames (Iterable[LabeledFrame]): The frames.
        classes (Sequence[str]): Class names.
        annotated (dict[str, Sequence[str]]): Name of every entry to classes.
        found (Iterable[str]): Names of those that have frames.
        reasons (dict[str, str]): Name of an entry to why it has none.
        info (dict): Where the boxes are from, for all three files.
        counts (dict, optional): More figures for the report.

    Returns:
        dict: The report.
    """
    frames = list(frames)
    report = coverage(annotated, found, reasons)
    info = dict(info, split_hash=report['split_hash'])
    several = len({f.row['clip_id'] for f in frames}) < len(frames)
    rows, images = [], []
    for frame in frames:
        clip_id = frame.row['clip_id']
        shared = dict(
            time=frame.time,
            height=frame.height,
            width=frame.width,
            instances=frame.instances)
        images.append(
            dict(file_name=frame.path, clip_id=clip_id, **shared))
        if several:
            clip_id = f'{clip_id}@{round(frame.time * 1000)}'
        rows.append(dict(frame.row, clip_id=clip_id, **shared))
    stem = osp.splitext(out)[0]
    coco = to_coco(images, classes, info)
    report = dict(
        info,
        frames=len(frames),
        boxes=len(coco['annotations']),
        **(counts or {}),
        **report)
    dump_json(coco, f'{stem}_coco.json')
    dump_json(report, f'{stem}_coverage.json', indent=1)
    dump_clip_table(rows, out, dict(info, classes=list(classes)))
    print_coverage(report)
    print(f'{report["boxes"]} boxes in {report["frames"]} frames.')
    return report
