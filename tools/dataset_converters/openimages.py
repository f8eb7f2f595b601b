"""Make a COCO json from the boxes of OpenImages and the images at hand.

For evaluating detectors on images (Sec. 4.1 and 4.4). OpenImages
(Kuznetsova et al., IJCV 2020) publishes a csv of boxes for each split
(validation-annotations-bbox.csv, ..., oidv6-train-annotations-bbox.csv).
Classes:
  instruments  the 15 test labels of Table A.3
  general      the 11 test labels of Table A.1
  FILE         a text file with one name of class-descriptions-boxable.csv
               per line, or a json like avdet_mm/datasets/label_maps/
               openimages_general.json; both need --descriptions, unless the
               json tells the ids

What the paper does not say, and what is done here: every box of the classes
is taken, also of depictions and of objects seen from inside; groups become
crowds, which pycocotools neither demands nor punishes; images without a box
of the classes are left out. The split is that of the csv; the paper does not
name it (validation and test are the usual ones for evaluation). OpenImages
has boxes only of classes that were confirmed to be in an image, so a correct
detection of another class may count as a false positive.

Boxes are annotated for the pixels as they are stored ("Rotated images in
Open Images", 2018). MMDetection turns images as their EXIF tag tells, so the
boxes of such images are turned too.

Example:
    python tools/dataset_converters/openimages.py \\
        validation-annotations-bbox.csv --images data/openimages/validation \\
        --classes instruments --out data/openimages/validation.json
"""
import argparse
import csv
import os
import os.path as osp
import sys
from collections import Counter
from typing import (
    Callable,
    Dict,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Set,
    Tuple,
)

from PIL import Image, UnidentifiedImageError
from rich.progress import track

from avdet_mm.datasets.clip_table import coverage, print_coverage
from avdet_mm.datasets.coco import to_coco
from avdet_mm.datasets.conversion import (
    IMAGE_SUFFIXES,
    clean_boxes,
    read_csv,
    read_json,
    to_pixels,
)
from avdet_mm.datasets.media import BrokenClipError
from avdet_mm.datasets.metainfo import LabelMap, load_label_map
from avdet_mm.utils import dump_json, file_sha256

CLASSES = {
    'instruments': 'openimages_instruments',
    'general': 'openimages_general',
}
COLUMNS = ('ImageID', 'LabelName', 'XMin', 'YMin', 'XMax', 'YMax')
FLAGS = {
    'IsGroupOf': 'group_of',
    'IsDepiction': 'depictions',
    'IsInside': 'inside',
}
TREATMENTS = ('keep', 'crowd', 'drop')
EXIF_ORIENTATION = 0x0112
# From stored to displayed coordinates, as shares of the sides.
TURNS: Dict[int, Callable[[float, float], Tuple[float, float]]] = {
    2: lambda x, y: (1 - x, y),
    3: lambda x, y: (1 - x, 1 - y),
    4: lambda x, y: (x, 1 - y),
    5: lambda x, y: (y, x),
    6: lambda x, y: (1 - y, x),
    7: lambda x, y: (1 - y, 1 - x),
    8: lambda x, y: (y, 1 - x),
}


class Box(NamedTuple):
    """A box; coordinates are shares of the sides."""
    label: str
    bbox: List[float]
    crowd: bool


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('annotations', help='csv of boxes of one split')
    parser.add_argument(
        '--images',
        required=True,
        help='folder of <image id>.jpg; subfolders are searched too')
    parser.add_argument(
        '--out',
        required=True,
        help='COCO json to write; its file names are relative to --images')
    parser.add_argument(
        '--classes',
        default='instruments',
        help='instruments (the default), general, or a file')
    parser.add_argument(
        '--descriptions',
        help='class-descriptions-boxable.csv: ids of the classes')
    parser.add_argument(
        '--hierarchy',
        help='bbox_labels_600_hierarchy.json: boxes of the classes below a '
        'class (by "Subcategory", not "Part") become boxes of it, of the '
        'nearest one if it is below several. Without it a class has its own '
        'boxes only: Bird has those of birds of no listed kind')
    for name, default, what in (
        ('--group-of', 'crowd', 'boxes around several objects'),
        ('--depictions', 'keep', 'boxes of drawings, toys and the like'),
        ('--inside', 'keep', 'boxes of objects seen from inside')):
        parser.add_argument(
            name,
            choices=TREATMENTS,
            default=default,
            help=f'what to do with {what} (default: {default}); flags of -1 '
            'are unknown and taken for 0')
    parser.add_argument(
        '--keep-empty',
        action='store_true',
        help='add images of the split that have boxes of other classes only')
    return parser.parse_args()


def load_classes(name: str) -> LabelMap:
    """Classes by name, or from a file.

    Args:
        name (str): A key of ``CLASSES``, a json or a text file.

    Returns:
        LabelMap: Its ``mapping`` has names of OpenImages as keys.

    Raises:
        FileNotFoundError, ValueError: If there is no such file, or it has
            no class.
    """
    if name in CLASSES or name.endswith('.json'):
        return load_label_map(CLASSES.get(name, name))
    if not osp.isfile(name):
        raise FileNotFoundError(f'There are no classes or file {name!r}; '
                                f'known are {", ".join(CLASSES)}.')
    names = tuple(dict.fromkeys(','.join(c) for _, c in read_csv(name)))
    if not names:
        raise ValueError(f'{name} names no class.')
    return LabelMap(names, {}, {}, {}, '')


def class_ids(classes: LabelMap,
              descriptions: Optional[str]) -> Dict[str, List[str]]:
    """Names of classes by the ids of OpenImages.

    Args:
        classes (LabelMap): From :func:`load_classes`.
        descriptions (str, optional): class-descriptions-boxable.csv.

    Returns:
        dict[str, list[str]]: Id to a list of one name.

    Raises:
        ValueError: If the id of a class is not known, or the two sources
            disagree.
    """
    mapping = classes.mapping or dict(zip(classes.classes, classes.classes))
    # Lists of different years differ in upper and lower case.
    lower = {name.lower(): name for name in mapping}
    lower.update({k.lower(): v for k, v in classes.aliases.items()})
    spellings = dict(classes.aliases, **dict(zip(mapping, mapping)))
    ids = {
        key: name
        for key, name in spellings.items()
        if key.startswith('/') and name in mapping
    }
    known = set(ids.values())
    if descriptions is not None:
        for line, cells in read_csv(descriptions):
            if len(cells) != 2:
                raise ValueError(f'{descriptions}, line {line} has '
                                 f'{len(cells)} columns; expected are id '
                                 'and name.')
            key, name = cells[0], lower.get(cells[1].lower())
            if ids.get(key, name) != name:
                raise ValueError(f'{descriptions}, line {line} calls {key} '
                                 f'{cells[1]!r}, but it is {ids[key]!r}.')
            if name in mapping and name not in known:
                ids[key] = name
    lacking = mapping.keys() - ids.values()
    if lacking:
        raise ValueError(
            f'The id of {min(lacking)!r} is not known; ' +
            (f'{descriptions} does not list it.' if descriptions else
             'give --descriptions class-descriptions-boxable.csv.'))
    return {key: [mapping[name]] for key, name in ids.items()}


def add_descendants(ids: Dict[str, List[str]],
                    path: str) -> Dict[str, List[str]]:
    """Add the ids below the classes.

    Args:
        ids (dict[str, list[str]]): From :func:`class_ids`.
        path (str): The json of the hierarchy: ``LabelName`` and
            ``Subcategory``, a list of the same.

    Returns:
        dict[str, list[str]]: Id to names; more than one where it is below
        several of the classes on different ways.

    Raises:
        ValueError: If the file is something else, or has none of the ids.
    """
    tree = read_json(path)
    if not isinstance(tree, dict) or 'LabelName' not in tree:
        raise ValueError(f'{path} is no hierarchy of OpenImages, a json with '
                         '"LabelName" and "Subcategory".')
    known: Dict[str, List[str]] = {}
    queue: List[Tuple[dict, List[str]]] = [(tree, [])]
    while queue:
        node, names = queue.pop()
        names = ids.get(node['LabelName'], names)
        found = known.setdefault(node['LabelName'], [])
        found += [n for n in names if n not in found]
        queue += [(child, names) for child in node.get('Subcategory', ())]
    if known.keys().isdisjoint(ids):
        raise ValueError(f'{path} has none of the classes.')
    return dict(ids, **{key: names for key, names in known.items() if names})


def read_boxes(path: str, ids: Dict[str, List[str]],
               treatment: Dict[str, str]
               ) -> Tuple[Dict[str, List[Box]], Set[str], Counter]:
    """Read the csv of boxes, of any size, line by line.

    Args:
        path (str): The csv; columns are found by their names, others are
            left out, flags may lack.
        ids (dict[str, list[str]]): Ids to names of classes.
        treatment (dict[str, str]): Names of flags to one of ``TREATMENTS``.

    Returns:
        tuple: Boxes by image id, in the order of the file (none where all
        were dropped); ids of the other images; and how many boxes were
        dropped, by reason.

    Raises:
        ValueError: If a column lacks, or a line of a class is damaged.
    """
    boxes: Dict[str, List[Box]] = {}
    images: Set[str] = set()
    dropped: Counter = Counter()
    with open(path, encoding='utf-8-sig', newline='') as file:
        reader = csv.reader(file)
        header = [c.strip() for c in next(reader, [])]
        lacking = [c for c in COLUMNS if c not in header]
        if lacking:
            raise ValueError(
                f'{path} has no column {", ".join(lacking)}; expected is a '
                'csv of boxes of OpenImages, which begins with '
                'ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax.')
        image_at, label_at, *box_at = map(header.index, COLUMNS)
        flags_at = [(header.index(c), treatment[c]) for c in FLAGS
                    if c in header]
        for cells in reader:
            if not cells:
                continue
            try:
                names = ids.get(cells[label_at])
                images.add(cells[image_at])
                if names is None:
                    continue
                corners = [float(cells[i]) for i in box_at]
                what = {t for i, t in flags_at if int(cells[i]) == 1}
            except (IndexError, ValueError) as error:
                raise ValueError(
                    f'{path}, line {reader.line_num}: '
                    f'{",".join(cells)[:100]!r} is no box.') from error
            kept = boxes.setdefault(cells[image_at], [])
            bbox, = clean_boxes([corners])
            if bbox is None:
                dropped['empty'] += 1
            elif 'drop' in what:
                dropped['by flag'] += 1
            else:
                kept += [Box(name, bbox, 'crowd' in what) for name in names]
    return boxes, images - boxes.keys(), dropped


def find_images(folder: str, wanted: Callable[[str], bool]) -> Dict[str, str]:
    """Images in a folder and below by their names without extension.

    Args:
        folder (str): The folder.
        wanted (Callable): Whether an image id is of interest.

    Returns:
        dict[str, str]: Id to path relative to the folder, the first in
        alphabetical order.

    Raises:
        FileNotFoundError: If there is no such folder.
    """
    if not osp.isdir(folder):
        raise FileNotFoundError(f'There is no folder {folder!r}.')
    found: Dict[str, str] = {}
    for root, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            stem, suffix = osp.splitext(name)
            if suffix.lower() in IMAGE_SUFFIXES and wanted(stem):
                path = osp.relpath(osp.join(root, name), folder)
                found.setdefault(stem, path)
    return found


def read_size(path: str) -> Tuple[int, int, int]:
    """Size and orientation of an image, which is decoded in part.

    Args:
        path (str): The image.

    Returns:
        tuple: Height and width as stored, and the EXIF orientation, 1 to 8.

    Raises:
        BrokenClipError: If it cannot be read to its end.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            orientation = image.getexif().get(EXIF_ORIENTATION, 1)
            # A JPEG is decoded at an eighth of its size.
            image.draft('RGB', (1, 1))
            image.load()
    except UnidentifiedImageError as error:
        raise BrokenClipError(path, 'no readable image') from error
    except (OSError, SyntaxError) as error:  # the latter from broken PNGs
        raise BrokenClipError(path, 'cannot be decoded', str(error)) from error
    return height, width, orientation if orientation in TURNS else 1


def coco_image(folder: str, path: str, boxes: Sequence[Box]) -> dict:
    """An image with its boxes in pixels as displayed.

    Args:
        folder (str): Folder of the images.
        path (str): Path of the image relative to it.
        boxes (Sequence[Box]): Boxes as stored.

    Returns:
        dict: As :func:`to_coco` takes it, with ``turned`` if the image is
        displayed otherwise than it is stored.

    Raises:
        BrokenClipError: If the image cannot be read.
    """
    height, width, orientation = read_size(osp.join(folder, path))
    if orientation >= 5:
        height, width = width, height
    instances = []
    for box in boxes:
        bbox = box.bbox
        if orientation != 1:
            xs, ys = zip(*(TURNS[orientation](x, y)
                           for x, y in (bbox[:2], bbox[2:])))
            bbox = [min(xs), min(ys), max(xs), max(ys)]
        instances.append(
            dict(
                bbox=to_pixels(bbox, height, width),
                label=box.label,
                iscrowd=int(box.crowd)))
    image = dict(
        file_name=path.replace(os.sep, '/'),
        height=height,
        width=width,
        instances=instances)
    return image if orientation == 1 else dict(image, turned=True)


def convert(images: Dict[str, str], boxes: Dict[str, List[Box]], folder: str,
            reasons: Dict[str, str]) -> Iterator[Tuple[str, dict]]:
    """Images that can be read, by id; for others the reason is noted."""
    for image_id in track(sorted(images), 'Reading images'):
        try:
            yield image_id, coco_image(folder, images[image_id],
                                       boxes.get(image_id, ()))
        except BrokenClipError as error:
            reasons[image_id] = error.reason


def main() -> None:
    """Run the tool."""
    args = parse_args()
    classes = load_classes(args.classes)
    ids = class_ids(classes, args.descriptions)
    if args.hierarchy:
        ids = add_descendants(ids, args.hierarchy)
    treatment = {flag: getattr(args, name) for flag, name in FLAGS.items()}
    boxes, others, dropped = read_boxes(args.annotations, ids, treatment)
    annotated = {i: [b.label for b in found] for i, found in boxes.items()}
    if args.keep_empty:
        annotated.update((i, []) for i in others)
    else:
        annotated = {i: labels for i, labels in annotated.items() if labels}
    if not annotated:
        raise ValueError(f'{args.annotations} has no box of the classes.')
    paths = find_images(
        args.images, lambda i: i in annotated or i in boxes or i in others)
    reasons: Dict[str, str] = {}
    found = dict(
        convert({i: p
                 for i, p in paths.items() if i in annotated}, boxes,
                args.images, reasons))
    report = coverage(annotated, found, reasons)
    if not found:
        raise ValueError(
            f'None of the {len(annotated)} images of {args.annotations} can '
            f'be used. Looked for e.g. {min(annotated) + ".jpg"!r}; '
            f'{args.images} has {len(paths)} images of the csv.' +
            ''.join(f' {n}: {r}.' for r, n in report['left_out'].items()))
    coco = to_coco(
        found.values(), classes.classes,
        dict(
            description=f'OpenImages, {len(classes.classes)} classes',
            annotation_file=osp.basename(args.annotations),
            annotation_sha256=file_sha256(args.annotations),
            split_hash=report['split_hash'],
            **treatment))
    drawn = Counter(label for i in found for label in annotated[i])
    report = dict(
        coco['info'],
        boxes=len(coco['annotations']),
        crowds=sum(a['iscrowd'] for a in coco['annotations']),
        boxes_dropped=dict(dropped),
        images_on_disk_without_class=len(paths.keys() - annotated.keys()),
        images_turned=sum('turned' in image for image in found.values()),
        boxes_per_class={name: drawn[name] for name in classes.classes},
        **report)
    dump_json(coco, args.out)
    dump_json(report, f'{osp.splitext(args.out)[0]}_coverage.json', indent=1)
    print_coverage(report)
    print(f'boxes: {report["boxes"]}, of them {report["crowds"]} crowds; '
          f'dropped: {sum(dropped.values())}. '
          f'{report["images_on_disk_without_class"]} images on disk have no '
          f'box of the classes. {report["images_turned"]} are turned.')


if __name__ == '__main__':
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(f'error: {error}')
