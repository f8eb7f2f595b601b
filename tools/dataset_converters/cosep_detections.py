"""Make ground truth from the detections of CoSep's instrument detector.

The paper evaluates on VGGSound and AudioSet with boxes of the detector of
CoSep (Gao and Grauman, ICCV 2019) as pseudo ground truth. CoSep's
getDetectionResults.py writes a file for each video, <clip>.npy: (n, 7) of
frame (1 to 80, at 8 frames per second), class (1 to 15), confidence, x1, y1,
x2, y2 in pixels. This tool cleans them as CoSep's getTopDetections.py does
(its thresholds are the defaults; those of the paper are not known, it says
"high confidence"):

1. boxes of a confidence above --score-thr;
2. in each frame, none that overlaps a better one by more than --max-overlap;
3. of each video, the --max-classes classes with the most confident boxes;
4. only videos with --min-boxes to --max-boxes boxes in all frames.

Of the frames that still have boxes, the one nearest to the middle of the
clip becomes ground truth, or --frames-per-clip of them, spread evenly. Which
frames the paper takes is not known. Clips with prepared frames give prepared
frames; of videos, the frames are written to <out>_images.

A detector does not hear: the boxes are of all instruments that are visible,
whether they sound or not.

Example:
    python tools/dataset_converters/cosep_detections.py detection_results \\
        --clips data/vggsound_test --frame-size same \\
        --out data/vggsound_test_cosep.json

It writes data/vggsound_test_cosep.json, a clip table with "instances",
data/vggsound_test_cosep_coco.json, the same for detectors (file names are
relative to its folder), and data/vggsound_test_cosep_coverage.json.
"""
import argparse
import hashlib
import os
import os.path as osp
import re
import sys
from collections import Counter
from typing import Dict, List, NamedTuple, Optional, Set, Tuple

import numpy as np
from rich.progress import track

from avdet_mm.datasets.clip_size import frame_size
from avdet_mm.datasets.clip_table import youtube_key
from avdet_mm.datasets.conversion import (
    MediaIndex,
    converter_parser,
    find_media,
)
from avdet_mm.datasets.frame_boxes import (
    LabeledFrame,
    keep_best,
    pick_times,
    prepared_frames,
    save_frame,
    write_labeled_frames,
)
from avdet_mm.datasets.media import BrokenClipError, decode_frame, open_video
from avdet_mm.datasets.metainfo import load_label_map
from avdet_mm.utils import file_sha256

FPS = 8
NUM_FRAMES = 80


class Detections(NamedTuple):
    """Detections of a video.

    Attributes:
        frames (np.ndarray): (n, ) int, from 1.
        labels (np.ndarray): (n, ) int, from 0.
        scores (np.ndarray): (n, ).
        boxes (np.ndarray): (n, 4) x1, y1, x2, y2.
    """
    frames: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray

    def select(self, index: np.ndarray) -> 'Detections':
        """Some of the detections."""
        return Detections(*(values[index] for values in self))


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = converter_parser(__doc__, 'folder of <clip>.npy')
    parser.add_argument(
        '--frame-size',
        required=True,
        help='size of the images that the detector saw, which the files do '
        'not tell: WIDTHxHEIGHT; short=N for frames resized to a short side '
        'of N pixels; or same, as the clips on disk')
    parser.add_argument(
        '--score-thr', type=float, default=0.9, help='default: 0.9')
    parser.add_argument(
        '--max-overlap',
        type=float,
        default=0.7,
        help='intersection over union, of boxes of any classes '
        '(default: 0.7)')
    parser.add_argument(
        '--max-classes', type=int, default=2, help='default: 2')
    parser.add_argument(
        '--min-boxes', type=int, default=60, help='default: 60')
    parser.add_argument(
        '--max-boxes', type=int, default=300, help='default: 300')
    parser.add_argument(
        '--frames-per-clip', type=int, default=1, help='default: 1')
    return parser.parse_args()


def parse_frame_size(text: str) -> Tuple[Optional[int], Optional[int]]:
    """Read the option ``--frame-size``.

    Args:
        text (str): ``'320x240'``, ``'short=256'`` or ``'same'``.

    Returns:
        tuple: Width and height; None and the short side; or None, None.

    Raises:
        ValueError: If it is something else.
    """
    if text == 'same':
        return None, None
    match = re.fullmatch(r'(?:([1-9]\d*)x|short=)([1-9]\d*)', text)
    if match is None:
        raise ValueError(f'--frame-size is WIDTHxHEIGHT, short=N or same, '
                         f'not {text!r}.')
    return match[1] and int(match[1]), int(match[2])


def read_detections(path: str, num_classes: int) -> Detections:
    """Read the file of a video.

    Args:
        path (str): The .npy file.
        num_classes (int): Classes of the detector.

    Returns:
        Detections: What is in it.

    Raises:
        BrokenClipError: If it is something else.
    """
    try:
        table = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise BrokenClipError(path, 'unreadable detections',
                              str(error)) from error
    if (not isinstance(table, np.ndarray) or table.ndim != 2
            or table.shape[1] != 7 or table.dtype.kind not in 'fiu'):
        raise BrokenClipError(path, 'no detections of CoSep',
                              'expected is an array of 7 columns')
    table = table.astype(np.float64)
    frames, labels = table[:, 0], table[:, 1]
    if not (np.isfinite(table).all() and (frames >= 1).all() and
            (frames <= NUM_FRAMES).all() and (labels >= 1).all() and
            (labels <= num_classes).all()):
        raise BrokenClipError(
            path, 'no detections of CoSep',
            f'frames have to be 1 to {NUM_FRAMES}, classes 1 to {num_classes}')
    return Detections(
        frames.astype(int),
        labels.astype(int) - 1, table[:, 2], table[:, 3:])


def clean(found: Detections, score_thr: float, max_overlap: float,
          max_classes: int) -> Detections:
    """Keep what is likely to be right.

    Args:
        found (Detections): Of one video.
        score_thr (float): Confidence that boxes have to exceed.
        max_overlap (float): See :func:`keep_best`.
        max_classes (int): Number of classes to keep.

    Returns:
        Detections: The kept ones, in the same order.
    """
    found = found.select((found.scores > score_thr)
                         & (found.boxes[:, 2:] > found.boxes[:, :2]).all(1))
    keep = np.zeros(len(found.frames), bool)
    for frame in np.unique(found.frames):
        at, = np.nonzero(found.frames == frame)
        keep[at] = keep_best(found.boxes[at], found.scores[at], max_overlap)
    found = found.select(keep)
    best = {
        label: found.scores[found.labels == label].max()
        for label in np.unique(found.labels)
    }
    # Of equally confident classes CoSep prefers the later one.
    ranked = sorted(best, key=lambda label: (best[label], label))
    return found.select(np.isin(found.labels, ranked[-max_classes:]))


def rescale(found: Detections, seen: Tuple[Optional[int], Optional[int]],
            height: int, width: int, name: str) -> Detections:
    """Detections in pixels of the clip on disk.

    Args:
        found (Detections): In pixels of the images that the detector saw.
        seen (tuple): Their size, from :func:`parse_frame_size`.
        height (int): Of the clip on disk.
        width (int): Of the clip on disk.
        name (str): Of the file of detections.

    Returns:
        Detections: Those that are a pixel wide and high.

    Raises:
        ValueError: If boxes are outside of the image.
    """
    boxes = found.boxes
    if seen[0] is not None:
        scale = np.array([width / seen[0], height / seen[1]] * 2)
    else:
        scale = np.ones(4) * (min(height, width) / seen[1] if seen[1] else 1)
    size = np.array([width, height] * 2)
    outside = (boxes * scale - size).max()
    if outside > max(1.5, 0.01 * max(size)) or (boxes < -1.5).any():
        raise ValueError(
            f'{name} has boxes up to {boxes[:, 2].max():.0f}, '
            f'{boxes[:, 3].max():.0f}, which is outside of the image (the '
            f'clip has {width} x {height} pixels). --frame-size has to be '
            'the size of the images that the detector saw.')
    found = found._replace(boxes=(boxes * scale).clip(0, size))
    sides = found.boxes[:, 2:] - found.boxes[:, :2]
    return found.select((sides >= 1).all(axis=1))


def label_frames(row: dict, found: Detections, names: Tuple[str, ...],
                 out: str, height: int, width: int,
                 number: int) -> List[LabeledFrame]:
    """Choose frames of a clip and give them their boxes.

    Args:
        row (dict): The clip on disk.
        found (Detections): In pixels of the clip.
        names (tuple[str]): Class names.
        out (str): The table to write.
        height (int): Of the clip's frames.
        width (int): Of the clip's frames.
        number (int): Frames to choose.

    Returns:
        list[LabeledFrame]: The frames, in ascending order of time.

    Raises:
        BrokenClipError: If a frame cannot be decoded, or none of those that
            are there has boxes.
    """
    labeled = set(found.frames.tolist())
    prepared = prepared_frames(row)
    at = {time: round(time * FPS) + 1 for time in prepared} or {
        (frame - 1) / FPS: frame
        for frame in labeled
    }
    times = [time for time, frame in at.items() if frame in labeled]
    if not times:
        raise BrokenClipError(row['clip_id'], 'no frame with boxes on disk')
    result = []
    for time in pick_times(times, NUM_FRAMES / FPS, number):
        if prepared:
            path = prepared[time]
        else:
            video = osp.join(osp.dirname(out), row['video_path'])
            with open_video(video) as container:
                image, _ = decode_frame(container, time)
            path = save_frame(image, out, row, time)
        result.append(
            LabeledFrame(row, time, path, height, width, [
                dict(
                    bbox=[round(x, 2) for x in found.boxes[i].tolist()],
                    label=names[found.labels[i]],
                    score=round(float(found.scores[i]), 4))
                for i in np.flatnonzero(found.frames == at[time])
            ]))
    return result


class ClipIndex:
    """Clips on disk by their name or, in other spelling, by YouTube id."""

    def __init__(self, clips: List[dict]) -> None:
        self._by_name = MediaIndex(clips, str)
        self._by_youtube = MediaIndex(clips, youtube_key)

    def find(self, name: str) -> dict:
        """The row of a clip; raises BrokenClipError if there is not one."""
        try:
            return self._by_name.find(name)
        except BrokenClipError:
            if youtube_key(name) is None:
                raise
            return self._by_youtube.find(youtube_key(name))


def folder_sha256(folder: str, names: List[str]) -> str:
    """Hexadecimal SHA-256 of the names and hashes of files."""
    digest = hashlib.sha256()
    for name in names:
        digest.update(f'{name} {file_sha256(osp.join(folder, name))}\n'.encode(
            'utf-8', 'surrogateescape'))
    return digest.hexdigest()


def main() -> None:
    """Run the tool."""
    args = parse_args()
    if args.frames_per_clip < 1 or args.max_classes < 1:
        raise ValueError('--frames-per-clip and --max-classes have to be 1 '
                         'or more.')
    seen = parse_frame_size(args.frame_size)
    detector = load_label_map('cosep').classes
    files = sorted(n for n in os.listdir(args.annotations)
                   if n.endswith('.npy'))
    if not files:
        raise ValueError(f'{args.annotations} has no .npy file.')
    clips = find_media(args.clips, args.out)
    index = ClipIndex(clips)
    annotated: Dict[str, List[str]] = {}
    frames: List[LabeledFrame] = []
    reasons: Dict[str, str] = {}
    boxes_of_clips: Dict[str, int] = {}
    taken: Set[str] = set()
    for file in track(files, 'Cleaning detections'):
        name = file[:-len('.npy')]
        annotated[name] = []
        try:
            found = clean(
                read_detections(
                    osp.join(args.annotations, file), len(detector)),
                args.score_thr, args.max_overlap, args.max_classes)
            annotated[name] = [detector[i] for i in np.unique(found.labels)]
            if not found.frames.size:
                raise BrokenClipError(file, 'no confident box')
            if found.frames.size < args.min_boxes:
                raise BrokenClipError(file, 'too few boxes')
            if found.frames.size > args.max_boxes:
                raise BrokenClipError(file, 'too many boxes')
            row = index.find(name)
            if row['clip_id'] in taken:
                raise BrokenClipError(file, 'the clip of another file')
            height, width = frame_size(row, args.out)
            found = rescale(found, seen, height, width, file)
            frames += label_frames(row, found, detector, args.out, height,
                                   width, args.frames_per_clip)
            taken.add(row['clip_id'])
            boxes_of_clips[name] = found.frames.size
        except BrokenClipError as error:
            reasons[name] = error.reason
    if not frames:
        counts = Counter(reasons.values())
        raise ValueError(
            f'None of the {len(files)} files of {args.annotations} gives '
            'ground truth: ' +
            '; '.join(f'{n} {r}' for r, n in sorted(counts.items())) +
            f'. Looked for clips such as {next(iter(annotated))!r}; there are '
            f'{len(clips)}' +
            (f', e.g. {clips[0]["clip_id"]!r}.' if clips else '.'))
    # The test labels of the paper are the same 15 classes in another order.
    write_labeled_frames(
        args.out, frames,
        load_label_map('vggsound_representative').classes, annotated,
        boxes_of_clips, reasons,
        dict(
            source="Detections of CoSep's detector",
            annotation_file=osp.basename(osp.abspath(args.annotations)),
            annotation_sha256=folder_sha256(args.annotations, files),
            frame_size=args.frame_size,
            score_thr=args.score_thr,
            max_overlap=args.max_overlap,
            max_classes=args.max_classes,
            min_boxes=args.min_boxes,
            max_boxes=args.max_boxes),
        dict(boxes_in_all_frames=sum(boxes_of_clips.values())))


if __name__ == '__main__':
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(f'error: {error}')
