"""Make a clip table from Flickr-SoundNet's boxes and the clips at hand.

Flickr-SoundNet (Senocak et al., CVPR 2018) has boxes by three annotators for
each image; its usual test list is flickr_test.csv (249 clips, Chen et al.,
CVPR 2021). The table evaluates heatmaps and self-boxes. Clips on disk are
pairs frames/<id>.jpg and audio/<id>.wav in any folder layout (the frame is
the middle of the sound), or videos <id>.mp4, or prepared ones (the frame is
the middle of the clip).

The boxes of all annotators are in the table, each with ``annotator``; metrics
on consensus maps count them as votes (a pixel in two boxes counts 1, in one
box 0.5). Boxes that are clipped away or have no area are dropped and counted.
The data set has no classes: every box is an 'object'.

Form of <id>.xml, as the field's evaluations read it: the elements below the
root have <bbox> elements, each with one element of another kind and then
xmin, ymin, xmax, ymax for an image of 256x256 pixels. Boxes of the same
element below the root are taken for one annotator's; if only one element has
boxes, the element before xmin tells. The files are not public: this has been
tested on made-up ones.

Example:
    python tools/dataset_converters/flickr_soundnet.py flickr_test.csv \\
        --boxes Flickr-SoundNet/Annotations --clips Flickr-SoundNet \\
        --out data/flickr_soundnet.json
"""
import argparse
import os.path as osp
import sys
import xml.etree.ElementTree as ET
from typing import List, NamedTuple

from rich.progress import track

from avdet_mm.datasets.clip_table import safe_clip_id
from avdet_mm.datasets.conversion import (
    MediaIndex,
    annotated_row,
    clean_boxes,
    converter_parser,
    find_media,
    read_csv,
    to_pixels,
    write_result,
)
from avdet_mm.datasets.media import BrokenClipError

LABEL = 'object'
# Side of the images that the boxes are given for.
SIDE = 256


class Box(NamedTuple):
    """A box, x1, y1, x2, y2 as shares of the image."""
    annotator: str
    box: List[float]


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = converter_parser(
        __doc__, 'flickr_test.csv; only its first column, the id, is read')
    parser.add_argument(
        '--boxes', required=True, help='folder with the files <id>.xml')
    return parser.parse_args()


def read_ids(path: str) -> List[str]:
    """Ids of the clips.

    Args:
        path (str): A csv file; the id is in the first column.

    Returns:
        list[str]: Ids in the order of the file, each once.

    Raises:
        ValueError: If an id cannot be a file name, with its line.
    """
    ids = {}
    for line, cells in read_csv(path):
        if not safe_clip_id(cells[0]):
            raise ValueError(
                f'{path}, line {line}: {cells[0]!r} is not an id.')
        ids[cells[0]] = True
    return list(ids)


def read_boxes(path: str) -> List[Box]:
    """Boxes of a file, as they are there.

    Args:
        path (str): An xml file.

    Returns:
        list[Box]: Boxes of all annotators.

    Raises:
        BrokenClipError: If there is no such file, it cannot be read, or has
            no box.
    """
    try:
        root = ET.parse(path).getroot()
    except FileNotFoundError as error:
        raise BrokenClipError(path, 'no annotation file') from error
    except (ET.ParseError, OSError, ValueError) as error:
        raise BrokenClipError(path, 'annotation file cannot be read',
                              str(error)) from error
    groups = [found for child in root if (found := child.findall('bbox'))]
    boxes = []
    for number, group in enumerate(groups):
        for bbox in group:
            try:
                first, *corners = [e.text for e in bbox]
                x1, y1, x2, y2 = (float(x) / SIDE for x in corners)
            except (TypeError, ValueError) as error:
                raise BrokenClipError(path, 'annotation file cannot be read',
                                      str(error)) from error
            annotator = number if len(groups) > 1 else (first or '').strip()
            boxes.append(Box(str(annotator), [x1, y1, x2, y2]))
    if not boxes:
        raise BrokenClipError(path, 'no box in the annotation file')
    return boxes


def main() -> None:
    """Run the tool."""
    args = parse_args()
    ids = read_ids(args.annotations)
    if not osp.isdir(args.boxes):
        raise FileNotFoundError(f'There is no folder {args.boxes!r}.')
    clips = find_media(args.clips, args.out, stills=True)
    wanted = set(ids)
    index = MediaIndex(clips, lambda name: name if name in wanted else None)
    rows, reasons = {}, {}
    num_boxes = num_damaged = 0
    for name in track(ids, 'Reading headers', transient=True):
        try:
            boxes = read_boxes(osp.join(args.boxes, f'{name}.xml'))
            row = annotated_row(index.find(name), args.out, None)
        except BrokenClipError as error:
            reasons[name] = error.reason
            continue
        size = row['height'], row['width']
        clean = clean_boxes([b.box for b in boxes])
        rows[name] = dict(
            row,
            instances=[
                dict(
                    bbox=to_pixels(box, *size),
                    label=LABEL,
                    annotator=b.annotator) for b, box in zip(boxes, clean)
                if box is not None
            ])
        num_boxes += len(rows[name]['instances'])
        num_damaged += clean.count(None)
    write_result(
        args, rows, {n: [LABEL] for n in ids}, reasons, clips,
        dict(classes=[LABEL], source='Flickr-SoundNet'),
        dict(boxes_found=num_boxes, damaged_boxes=num_damaged))


if __name__ == '__main__':
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(f'error: {error}')
