"""What the converters of public annotations share.

A converter joins an annotation file with the media at hand: entries whose
media are there become rows of a clip table, all others are counted with the
reason why not.
"""
import argparse
import csv
import json
import os
import os.path as osp
from collections import defaultdict
from itertools import product
from typing import (
    Any,
    Callable,
    Dict,
    Hashable,
    Iterator,
    List,
    Optional,
    Sequence,
    Tuple,
)

from avdet_mm.utils.fileio import dump_json, file_sha256

from .clip_size import clip_duration, frame_size
from .clip_table import (
    coverage,
    dump_clip_table,
    expand_frames,
    find_clips,
    print_coverage,
)
from .media import BrokenClipError

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.webp')
AUDIO_SUFFIXES = ('.wav', '.flac', '.mp3', '.ogg', '.opus')
# Seconds between an annotated moment and the frame that stands for it.
MAX_SHIFT = 0.5
# Boxes narrower or lower than this share of the image are no boxes.
MIN_SIDE = 1e-4


def converter_parser(doc: str, annotations: str) -> argparse.ArgumentParser:
    """A parser with the arguments that every converter has.

    Args:
        doc (str): Shown by ``--help``.
        annotations (str): What the annotation file is.

    Returns:
        argparse.ArgumentParser: To add more arguments to.
    """
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('annotations', help=annotations)
    parser.add_argument(
        '--clips',
        required=True,
        help='what is on disk: a folder of videos (searched with all its '
        'subfolders), the output folder of tools/prepare_clips.py, or a clip '
        'table')
    parser.add_argument(
        '--out',
        required=True,
        help='clip table (json) to write; <its name>_coverage.json goes '
        'beside it')
    return parser


def read_csv(path: str, **kwargs: Any) -> Iterator[Tuple[int, List[str]]]:
    """Read a csv file; a byte-order mark and empty lines are left out.

    Args:
        path (str): The file.
        **kwargs: Of ``csv.reader``.

    Yields:
        tuple: Number of the line (from 1) and its cells, stripped.

    Raises:
        ValueError: If the file is no UTF-8 text or no csv.
    """
    with open(path, encoding='utf-8-sig', newline='') as file:
        reader = csv.reader(file, **kwargs)
        try:
            for cells in reader:
                if any(cells):
                    yield reader.line_num, [c.strip() for c in cells]
        except (UnicodeDecodeError, csv.Error) as error:
            raise ValueError(
                f'{path} cannot be read behind line {reader.line_num} as a '
                f'csv file in UTF-8: {error}.') from error


def read_json(path: str) -> Any:
    """Read a json file.

    Raises:
        ValueError: If it is no json.
    """
    with open(path, encoding='utf-8-sig') as file:
        try:
            return json.load(file)
        except ValueError as error:
            raise ValueError(f'{path} is no valid json ({error}).') from error


def find_media(source: str,
               new_table: str,
               stills: bool = False) -> List[dict]:
    """Rows with the media keys of everything on disk.

    Args:
        source (str): Folder of videos, output folder of
            ``tools/prepare_clips.py``, or clip table.
        new_table (str): The table that the rows will go to; its folder is
            made.
        stills (bool): Whether a folder's images and sound files of equal
            names are clips too: of one frame, in the middle of the sound.
            Defaults to False.

    Returns:
        list[dict]: Rows; see :func:`find_clips`.

    Raises:
        FileNotFoundError: If there is no ``source``.
        ValueError: If ``new_table`` would replace ``source``.
    """
    if not osp.exists(source):
        raise FileNotFoundError(f'There is no folder or file {source!r}.')
    # Rows have paths like ../videos/x.mp4, which need the folder.
    os.makedirs(osp.dirname(new_table) or '.', exist_ok=True)
    prepared = osp.join(source, 'clips.json')
    if osp.isfile(prepared):
        source = prepared
    if osp.exists(new_table) and osp.samefile(source, new_table):
        raise ValueError(f'--out would replace the clips in {source}; choose '
                         'another file.')
    # In links to folders, '..' leads elsewhere than it seems.
    source, new_table = osp.realpath(source), _real_folder(new_table)
    clips = list(find_clips(source, new_table).values())
    if stills and osp.isdir(source):
        taken = {_stem(row['video_path']) for row in clips}
        clips += (row for row in _find_stills(source, new_table)
                  if row['clip_id'] not in taken)
    return clips


def _real_folder(path: str) -> str:
    """A path whose folders are no links."""
    return osp.join(osp.realpath(osp.dirname(path)), osp.basename(path))


def relative_path(path: str, file: str) -> str:
    """Path as a file in another folder has to write it.

    Args:
        path (str): A path.
        file (str): The file that will name it.

    Returns:
        str: Relative to the folder of ``file``, of which links to folders
        are followed.
    """
    return osp.relpath(_real_folder(path), osp.dirname(_real_folder(file)))


def _stem(path: str) -> str:
    return osp.splitext(osp.basename(path))[0]


def _find_stills(folder: str, new_table: str) -> Iterator[dict]:
    """Rows of images with sound files of the same name."""
    images, sounds = defaultdict(list), defaultdict(list)
    for root, _, names in sorted(os.walk(folder)):
        for name in sorted(names):
            stem, suffix = osp.splitext(name)
            for found, suffixes in ((images, IMAGE_SUFFIXES), (sounds,
                                                               AUDIO_SUFFIXES)):
                if suffix.lower() in suffixes:
                    found[stem].append(
                        relative_path(osp.join(root, name), new_table))
    for stem in images:
        for image, sound in product(images[stem], sounds.get(stem, ())):
            yield dict(
                clip_id=stem, frames=[dict(path=image)], audio_path=sound)


class MediaIndex:
    """Rows by what annotations call them.

    Args:
        clips (list[dict]): From :func:`find_media`.
        key (Callable): From a clip's name (its id or, for a video, its file
            name without extension) to what annotations call it, or None.
    """

    def __init__(self, clips: List[dict],
                 key: Callable[[str], Optional[Hashable]]) -> None:
        self._rows: Dict[Hashable, List[dict]] = defaultdict(list)
        for row in clips:
            name = key(row['clip_id'])
            if name is None and 'video_path' in row:
                name = key(_stem(row['video_path']))
            if name is not None:
                self._rows[name].append(row)

    def find(self, name: Hashable) -> dict:
        """The row of a clip.

        Args:
            name (Hashable): What annotations call it.

        Returns:
            dict: The row.

        Raises:
            BrokenClipError: If there is not exactly one.
        """
        rows = self._rows.get(name, ())
        if len(rows) != 1:
            raise BrokenClipError(
                str(name), 'several files' if rows else 'missing')
        return rows[0]


def annotated_row(row: dict, table: str, time: Optional[float]) -> dict:
    """A clip's row with the annotated moment and the size of its frames.

    Args:
        row (dict): From :func:`find_media`.
        table (str): The table that it goes to.
        time (float, optional): Seconds from the clip's start; None, its
            middle. A still is always in the middle.

    Returns:
        dict: The row with ``time``, ``height`` and ``width``.

    Raises:
        BrokenClipError: If the media cannot be read, or have no frame within
            half a second of the moment.
    """
    height, width = frame_size(row, table)
    frames = expand_frames(row.get('frames', ()))
    still = len(frames) == 1 and 'time' not in frames[0]
    duration = None
    if time is None or still or not frames:
        duration = clip_duration(row, table)
    if time is None or still:
        time = round(duration / 2, 3)
    if still:
        row = dict(row, frames=[dict(frames[0], time=time)])
    elif frames:
        shift = min(abs(f['time'] - time) for f in frames)
    else:
        shift = max(time - duration, 0.)
    if not still and shift > MAX_SHIFT + 1e-6:
        raise BrokenClipError(
            row.get('video_path', row['clip_id']),
            'no frame at the annotated time',
            f'{time:.2f} s; the nearest is {shift:.2f} s away')
    return dict(row, time=time, height=height, width=width)


def clean_boxes(
        boxes: Sequence[Sequence[float]]) -> List[Optional[List[float]]]:
    """Clip boxes to the image.

    Args:
        boxes (Sequence): (n, 4) x1, y1, x2, y2 as shares of the image.

    Returns:
        list: The boxes in [0, 1]; None for those with nothing left.
    """
    clipped = [[min(max(x, 0.), 1.) for x in box] for box in boxes]
    return [
        box if min(box[2] - box[0], box[3] - box[1]) > MIN_SIDE else None
        for box in clipped
    ]


def to_pixels(box: Sequence[float], height: int, width: int) -> List[float]:
    """A box in pixels from one in shares of the image, to 0.001 pixels."""
    return [
        round(x * side, 3)
        for x, side in zip(box, (width, height, width, height))
    ]


def write_result(args: argparse.Namespace,
                 rows: Dict[str, dict],
                 annotated: Dict[str, Sequence[str]],
                 reasons: Dict[str, str],
                 clips: List[dict],
                 metainfo: dict,
                 counts: Optional[dict] = None) -> dict:
    """Write the table and the coverage report, and print the report.

    Args:
        args (argparse.Namespace): Of a :func:`converter_parser`.
        rows (dict[str, dict]): Name of an entry to row.
        annotated (dict[str, Sequence[str]]): Name of every entry to classes.
        reasons (dict[str, str]): Name to why there is no row for it.
        clips (list[dict]): What is on disk.
        metainfo (dict): Of the table: ``classes``, ``source``, ...
        counts (dict, optional): More figures for the report.

    Returns:
        dict: The report.

    Raises:
        ValueError: If there is no row.
    """
    report = coverage(annotated, rows, reasons)
    if not rows:
        raise ValueError(_nothing_found(args, annotated, report, clips))
    origin = dict(
        annotation_file=osp.basename(args.annotations),
        annotation_sha256=file_sha256(args.annotations))
    report = dict(origin, **(counts or {}), **report)
    metainfo = dict(metainfo, **origin, split_hash=report['split_hash'])
    dump_clip_table(rows.values(), args.out, metainfo)
    dump_json(report, f'{osp.splitext(args.out)[0]}_coverage.json', indent=1)
    print_coverage(report)
    for name, number in (counts or {}).items():
        print(f'{name.replace("_", " ")}: {number}')
    return report


def _nothing_found(args: argparse.Namespace, annotated: Dict[str, Any],
                   report: dict, clips: List[dict]) -> str:
    """Why there is no row."""
    if not annotated:
        return (f'{args.annotations} has no entry of the split, subset or '
                'kind asked for.')
    wanted = next(iter(annotated))
    here = f'e.g. {clips[0]["clip_id"]!r}' if clips else 'none'
    others = {r: n for r, n in report['left_out'].items() if r != 'missing'}
    return (f'None of the {len(annotated)} entries of {args.annotations} can '
            f'be used with {args.clips}. Looked for e.g. {wanted!r}; there '
            f'are {len(clips)} clips, {here}.' +
            ''.join(f' {n}: {r}.' for r, n in others.items()))
