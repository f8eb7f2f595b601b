"""Make a clip table with boxes from VGG-SS and the clips at hand.

VGG-SS (Chen et al., CVPR 2021: vggss.json) has boxes of what sounds in the
middle of 5158 test clips of VGGSound. The table evaluates heatmaps and
self-boxes (``avdet_mm.LocalizationMetric``). Clips are found by name, as by
tools/dataset_converters/vggsound.py; pairs of an image and a sound file
(frames/<clip>.jpg, audio/<clip>.wav) are clips too.

Boxes are clipped to the image. Some are damaged in the published file (18 of
5941: no area, or a coordinate of -2.9e16) and are dropped. A clip whose boxes
all are (2 of them) stays in the table without boxes: LocalizationMetric
leaves it out and says so, the field's own evaluation counts it as a failure.

Example:
    python tools/dataset_converters/vggss.py vggss.json \\
        --clips data/vggsound --out data/vggss.json
"""
import argparse
import sys
from numbers import Real
from typing import Dict, List, NamedTuple, Tuple

from rich.progress import track

from avdet_mm.datasets.clip_table import youtube_key
from avdet_mm.datasets.conversion import (
    MediaIndex,
    annotated_row,
    clean_boxes,
    converter_parser,
    find_media,
    read_json,
    to_pixels,
    write_result,
)
from avdet_mm.datasets.media import BrokenClipError

# Clips are 10 s long and annotated in the middle; a file that ends sooner
# has its middle elsewhere.
TIME = 5.0


class Entry(NamedTuple):
    """An entry of the annotation file; boxes are xyxy in [0, 1]."""
    key: Tuple[str, int]
    label: str
    boxes: List[List[float]]
    num_damaged: int


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    return converter_parser(__doc__, 'vggss.json').parse_args()


def read_annotations(path: str) -> Dict[str, Entry]:
    """Read vggss.json.

    Args:
        path (str): The file, a list of ``file``, ``class`` and ``bbox``:
            x1, y1, x2, y2 as shares of the image.

    Returns:
        dict[str, Entry]: Clip to entry, in the order of the file.

    Raises:
        ValueError: If an entry is not of this form, or a clip has two.
    """
    content = read_json(path)
    if not isinstance(content, list):
        raise ValueError(f'{path} is not VGG-SS: expected is a list of '
                         'entries with file, class and bbox.')
    entries: Dict[str, Entry] = {}
    for number, item in enumerate(content):
        try:
            name, label, boxes = item['file'], item['class'], item['bbox']
            key = youtube_key(name)
            good = key is not None and isinstance(label, str) and all(
                len(b) == 4 and all(isinstance(x, Real) for x in b)
                for b in boxes)
        except (KeyError, TypeError):
            good = False
        if not good:
            raise ValueError(
                f'{path}, entry {number}: expected are file (<YouTube id>_'
                f'<start>), class and bbox (lists of 4 numbers), not '
                f'{str(item)[:200]}')
        if name in entries:
            raise ValueError(f'{path} has two entries for {name!r}.')
        clean = [b for b in clean_boxes(boxes) if b is not None]
        entries[name] = Entry(key, label, clean, len(boxes) - len(clean))
    return entries


def main() -> None:
    """Run the tool."""
    args = parse_args()
    entries = read_annotations(args.annotations)
    clips = find_media(args.clips, args.out, stills=True)
    index = MediaIndex(clips, youtube_key)
    rows, reasons = {}, {}
    for name, entry in track(
            entries.items(), 'Reading headers', transient=True):
        try:
            row = annotated_row(index.find(entry.key), args.out, TIME)
        except BrokenClipError as error:
            reasons[name] = error.reason
            continue
        size = row['height'], row['width']
        rows[name] = dict(
            row,
            label=entry.label,
            instances=[
                dict(bbox=to_pixels(b, *size), label=entry.label)
                for b in entry.boxes
            ])
    write_result(
        args, rows, {n: [e.label] for n, e in entries.items()}, reasons,
        clips,
        dict(
            classes=sorted({e.label for e in entries.values()}),
            source='VGG-SS'),
        dict(
            boxes=sum(len(e.boxes) for e in entries.values()),
            damaged_boxes=sum(e.num_damaged for e in entries.values()),
            clips_without_box=sum(not e.boxes for e in entries.values()),
            boxes_found=sum(len(r['instances']) for r in rows.values())))


if __name__ == '__main__':
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(f'error: {error}')
