"""Make a clip table from DSOL's boxes on AudioSet and the clips at hand.

DSOL (Hu et al., NeurIPS 2020: audioset_box.json) has boxes of instruments in
4503 frames of 566 videos of AudioSet's balanced training split: the test set
of the paper on AudioSet (Sec. 4, Tables 1 and 2). Each frame becomes a row,
<clip>@<second>, with the middle of that second as its ``time``.

The file says neither where in its video a clip starts nor what its category
numbers mean (their names: label map dsol_audioset). So clips are found by the
YouTube id in their names, <id>.mp4 or <id>_<start>.mp4. Of a video with
several clips on disk none is taken, unless --segments tells the start.

Frames with objects of one class are the single-source test set, frames with
more the multi-source one; this stands in for DSOL's own lists, which are not
published. 30 frames have no box; they stay in the table with 'all'.
LocalizationMetric leaves them out, as DSOL does; with --coco, detections on
them count as false.

DSOL annotated what sounds: silent instruments in view have no box, which
lowers the precision of a detector that sees them.

Example:
    python tools/dataset_converters/dsol_audioset.py audioset_box.json \\
        --clips data/audioset_prepared --out data/dsol_multi.json \\
        --objects multi
"""
import argparse
import os.path as osp
import re
import sys
from typing import Callable, Dict, Hashable, List, NamedTuple, Optional, Tuple

from rich.progress import track

from avdet_mm.datasets.clip_table import expand_frames, youtube_key
from avdet_mm.datasets.coco import to_coco
from avdet_mm.datasets.conversion import (
    MediaIndex,
    annotated_row,
    clean_boxes,
    converter_parser,
    find_media,
    read_csv,
    read_json,
    relative_path,
    to_pixels,
    write_result,
)
from avdet_mm.datasets.media import BrokenClipError
from avdet_mm.datasets.metainfo import load_label_map
from avdet_mm.utils import dump_json

_KEY = re.compile(r'([\w-]{11})/(\d+)')
_NAME = re.compile(r'Y?([\w-]{11})(?:_[\d._]+)?')


class Entry(NamedTuple):
    """An annotated frame; boxes are xyxy in [0, 1]."""
    youtube_id: str
    second: int
    boxes: List[List[float]]
    labels: List[str]
    num_damaged: int


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = converter_parser(__doc__, 'audioset_box.json')
    parser.add_argument(
        '--objects',
        choices=('single', 'multi', 'all'),
        default='all',
        help='frames with objects of exactly one class, of more than one, '
        'or all frames (the default)')
    parser.add_argument(
        '--segments',
        help="AudioSet's balanced_train_segments.csv; then clips have to be "
        'named <id>_<start>, and only those with the right start are taken')
    parser.add_argument(
        '--coco',
        help='also write the frames as COCO json, for detectors; needs '
        'prepared clips, whose frames are image files')
    return parser.parse_args()


def read_annotations(path: str) -> Dict[str, Entry]:
    """Read audioset_box.json.

    Args:
        path (str): The file, a dict of <YouTube id>/<second> to ``bbox``: a
            list of ``category`` and ``normbox``, x, y, w, h as shares of
            the image.

    Returns:
        dict[str, Entry]: Key to entry, in the order of the file.

    Raises:
        ValueError: If an entry is not of this form.
    """
    classes = load_label_map('dsol_audioset').classes
    content = read_json(path)
    if not isinstance(content, dict):
        raise ValueError(f'{path} is not audioset_box.json: expected is a '
                         'dict of <YouTube id>/<second> to boxes.')
    entries = {}
    for key, item in content.items():
        match = _KEY.fullmatch(key)
        try:
            corners = []
            for x, y, w, h in (b['normbox'] for b in item['bbox']):
                corners.append((x, y, x + w, y + h))
            numbers = [b['category'] for b in item['bbox']]
            good = match and all(n in range(len(classes)) for n in numbers)
            boxes = clean_boxes(corners)
        except (KeyError, TypeError, ValueError):
            good = False
        if not good:
            raise ValueError(
                f'{path}, entry {key!r}: expected are <YouTube id>/<second> '
                'and a bbox, a list of category (0 to 12) and normbox '
                f'(x, y, w, h), not {str(item)[:200]}')
        kept = [i for i, b in enumerate(boxes) if b is not None]
        entries[key] = Entry(match[1], int(match[2]),
                             [boxes[i] for i in kept],
                             [classes[numbers[i]] for i in kept],
                             len(boxes) - len(kept))
    return entries


def read_starts(path: str) -> Dict[str, int]:
    """Starts of AudioSet's clips.

    Args:
        path (str): A csv of segments: YouTube id, start, end, labels.

    Returns:
        dict[str, int]: YouTube id to start in whole seconds.

    Raises:
        ValueError: If a line is damaged, with its number.
    """
    starts = {}
    for line, cells in read_csv(path, skipinitialspace=True):
        if cells[0].startswith('#'):
            continue
        try:
            starts[cells[0]] = int(float(cells[1]))
        except (IndexError, ValueError) as error:
            raise ValueError(f'{path}, line {line}: expected are a YouTube '
                             'id and a start in seconds.') from error
    return starts


def clip_key(
    starts: Optional[Dict[str, int]]
) -> Callable[[str], Optional[Hashable]]:
    """From a clip's name to its YouTube id.

    Args:
        starts (dict[str, int], optional): If given, names with another
            start stand for no clip.

    Returns:
        Callable: Name to YouTube id or None.
    """

    def any_start(name: str) -> Optional[str]:
        match = _NAME.fullmatch(name)
        return match[1] if match else None

    def right_start(name: str) -> Optional[str]:
        youtube_id, start = youtube_key(name) or (None, None)
        return youtube_id if starts.get(youtube_id, -1) == start else None

    return any_start if starts is None else right_start


def wanted(entry: Entry, objects: str) -> bool:
    """Whether a frame is in the chosen part."""
    num_classes = len(set(entry.labels))
    return objects == 'all' or (num_classes > 1 if objects == 'multi' else
                                num_classes == 1)


def coco_images(rows: List[dict], table: str, coco: str) -> List[dict]:
    """Images with boxes, as ``to_coco`` takes them.

    Args:
        rows (list[dict]): Of the table.
        table (str): Path of the table.
        coco (str): Path of the COCO json.

    Returns:
        list[dict]: One for each row; file names are relative to the json.

    Raises:
        ValueError: If a row is of a video.
    """
    images = []
    for row in rows:
        if 'video_path' in row:
            raise ValueError(
                '--coco needs image files, but --clips has videos. Prepare '
                'them first with tools/prepare_clips.py.')
        frame = min(
            expand_frames(row['frames']),
            key=lambda f: abs(f['time'] - row['time']))
        path = osp.join(osp.dirname(table), frame['path'])
        images.append(
            dict(
                file_name=relative_path(path, coco),
                height=row['height'],
                width=row['width'],
                clip_id=row['clip_id'],
                time=frame['time'],
                instances=row['instances']))
    return images


def main() -> None:
    """Run the tool."""
    args = parse_args()
    classes = load_label_map('dsol_audioset').classes
    entries = {
        name: entry
        for name, entry in read_annotations(args.annotations).items()
        if wanted(entry, args.objects)
    }
    starts = read_starts(args.segments) if args.segments else None
    clips = find_media(args.clips, args.out)
    index = MediaIndex(clips, clip_key(starts))
    sizes: Dict[str, Tuple[int, int]] = {}
    rows, reasons = {}, {}
    for name, entry in track(
            entries.items(), 'Reading headers', transient=True):
        try:
            row = index.find(entry.youtube_id)
            clip_id = row['clip_id']
            if clip_id in sizes:
                height, width = sizes[clip_id]
                row = dict(row, height=height, width=width)
            row = annotated_row(row, args.out, entry.second + 0.5)
        except BrokenClipError as error:
            reasons[name] = error.reason
            continue
        size = sizes[clip_id] = row['height'], row['width']
        row['clip_id'] = f'{clip_id}@{entry.second}'
        row['instances'] = [
            dict(bbox=to_pixels(b, *size), label=label)
            for b, label in zip(entry.boxes, entry.labels)
        ]
        if len(set(entry.labels)) == 1:
            row['label'] = entry.labels[0]
        rows[name] = row
    report = dict(
        boxes=sum(len(e.boxes) for e in entries.values()),
        damaged_boxes=sum(e.num_damaged for e in entries.values()),
        frames_without_box=sum(not e.boxes for e in entries.values()),
        boxes_found=sum(len(r['instances']) for r in rows.values()))
    images = coco_images(list(rows.values()), args.out,
                         args.coco) if args.coco else None
    write_result(
        args, rows, {n: e.labels for n, e in entries.items()}, reasons, clips,
        dict(classes=classes, source='DSOL AudioSet', objects=args.objects),
        report)
    if args.coco:
        dump_json(
            to_coco(images, classes,
                    dict(source='DSOL AudioSet', objects=args.objects)),
            args.coco)


if __name__ == '__main__':
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(f'error: {error}')
