"""Make a clip table from VGGSound's annotations and the clips at hand.

VGGSound (Chen et al., ICASSP 2020) is a list of YouTube videos, of which many
are gone. The table has those that are on disk, in the order of the
annotation file, with their classes as ``label``. Clips are found by name:
<YouTube id>_<start>.mp4, with or without leading zeros, or
<id>_<start>_<end>.mp4, in any folder layout.

The classes in the table are all classes of the subset, also those without a
clip: 'all' in alphabetical order, the others in the order of the paper's
Tables A.3 and A.1.

Example:
    python tools/dataset_converters/vggsound.py vggsound.csv \\
        --clips data/vggsound --split train --subset mappable \\
        --out data/vggsound_train_mappable.json
"""
import argparse
import os.path as osp
import sys
from typing import Dict, List, NamedTuple, Tuple

from avdet_mm.datasets.clip_table import youtube_key
from avdet_mm.datasets.conversion import (
    MediaIndex,
    converter_parser,
    find_media,
    read_csv,
    write_result,
)
from avdet_mm.datasets.media import BrokenClipError
from avdet_mm.datasets.metainfo import load_label_map

SUBSETS = {
    'all': 'vggsound',
    'instruments': 'vggsound_instruments',
    'mappable': 'vggsound_mappable',
    'representative': 'vggsound_representative',
    'general': 'vggsound_general',
}


class Entry(NamedTuple):
    """A line of the annotation file."""
    youtube_id: str
    start: int
    label: str
    split: str


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = converter_parser(
        __doc__, 'vggsound.csv (YouTube id, start, class, split), or test.csv '
        '(file name, class)')
    parser.add_argument(
        '--split',
        choices=('train', 'test', 'all'),
        default='all',
        help='clips of this split only (default: all)')
    parser.add_argument(
        '--subset',
        default='all',
        help='clips of these classes only: instruments (50), mappable (39), '
        'representative (15), general (11), all (309, the default), or a '
        'text file with one class name per line')
    parser.add_argument(
        '--label-map',
        help='label the clips with what this label map makes of their '
        'classes, e.g. vggsound_groups (15 test labels for the 39 mappable '
        'classes) or the path of a json; every class of the subset has to be '
        'in it')
    return parser.parse_args()


def subset_classes(subset: str) -> Tuple[str, ...]:
    """Classes of a subset.

    Args:
        subset (str): One of ``SUBSETS``, or a file of class names.

    Returns:
        tuple[str]: Names as in VGGSound.

    Raises:
        FileNotFoundError, ValueError: If there is no such subset or file, or
            a name in the file is no class.
    """
    everything = load_label_map('vggsound')
    if subset in SUBSETS:
        found = load_label_map(SUBSETS[subset])
        return tuple(found.mapping) or found.classes
    try:
        with open(subset, encoding='utf-8-sig') as file:
            names = [line.strip() for line in file if line.strip()]
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f'There is no subset or file {subset!r}; the subsets are '
            f'{", ".join(SUBSETS)}.') from error
    names = [everything.aliases.get(name, name) for name in names]
    for name in names:
        if name not in everything.classes:
            raise ValueError(f'{subset} names {name!r}, which is none of the '
                             '309 classes of VGGSound.')
    if not names:
        raise ValueError(f'{subset} names no class.')
    return tuple(dict.fromkeys(names))


def read_annotations(path: str) -> List[Entry]:
    """Read vggsound.csv or test.csv.

    Args:
        path (str): The file. It has no header; classes with commas are
            quoted.

    Returns:
        list[Entry]: In the order of the file.

    Raises:
        ValueError: If a line is damaged, with its number.
    """
    known = load_label_map('vggsound')
    entries = []
    for line, cells in read_csv(path):
        where = f'{path}, line {line}'
        if len(cells) == 2:
            (name, label), split = cells, 'test'
            key = None if '/' in name else youtube_key(name)
        elif len(cells) == 4:
            if not cells[1].isdecimal():
                raise ValueError(f'{where}: the start {cells[1]!r} is not a '
                                 'number of seconds.')
            name, label, split = cells[0], *cells[2:]
            key = youtube_key(f'{name}_{cells[1]}') if len(
                name) == 11 else None
        else:
            raise ValueError(
                f'{where} has {len(cells)} columns; expected are 4 (YouTube '
                'id, start, class, split) or 2 (file name, class). Classes '
                'with commas have to be quoted.')
        if key is None:
            raise ValueError(f'{where}: {name!r} is not the name of a '
                             'YouTube clip.')
        label = known.aliases.get(label, label)
        if label not in known.classes:
            raise ValueError(f'{where}: {label!r} is none of the 309 classes '
                             'of VGGSound.')
        if split not in ('train', 'test'):
            raise ValueError(f'{where}: the split is {split!r}; expected is '
                             'train or test.')
        entries.append(Entry(*key, label, split))
    return entries


def main() -> None:
    """Run the tool."""
    args = parse_args()
    classes = subset_classes(args.subset)
    labels = dict(zip(classes, classes))
    if args.label_map:
        label_map = load_label_map(args.label_map)
        lacking = [c for c in classes if c not in label_map.mapping]
        if lacking:
            raise ValueError(
                f'The label map {args.label_map} does not say what '
                f'{lacking[0]!r} is ({len(lacking)} classes lack); choose a '
                '--subset that it covers.')
        labels = {c: label_map.mapping[c] for c in classes}
        classes = label_map.classes

    clips = find_media(args.clips, args.out)
    index = MediaIndex(clips, youtube_key)
    first: Dict[str, Entry] = {}
    annotated: Dict[str, List[str]] = {}
    rows, reasons = {}, {}
    repeated = contradicting = 0
    for entry in read_annotations(args.annotations):
        name = f'{entry.youtube_id}_{entry.start:06d}'
        if name in first:
            repeated += 1
            contradicting += first[name] != entry
            continue
        first[name] = entry
        if entry.label not in labels or args.split not in ('all',
                                                           entry.split):
            continue
        annotated[name] = [labels[entry.label]]
        try:
            row = index.find((entry.youtube_id, entry.start))
            rows[name] = dict(row, label=labels[entry.label])
        except BrokenClipError as error:
            reasons[name] = error.reason
    write_result(
        args, rows, annotated, reasons, clips,
        dict(
            classes=classes,
            source='VGGSound',
            split=args.split,
            subset=osp.basename(args.subset),
            label_map=osp.basename(args.label_map or '') or None),
        dict(repeated_lines=repeated, contradicting_lines=contradicting))


if __name__ == '__main__':
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(f'error: {error}')
