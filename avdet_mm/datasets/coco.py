"""COCO jsons from images with boxes."""
from typing import Iterable, Optional, Sequence

# Keys of an image that are no part of its entry in the json.
_BOXES = 'instances'


def to_coco(images: Iterable[dict],
            classes: Sequence[str],
            info: Optional[dict] = None) -> dict:
    """Build a COCO json, to be written with :func:`dump_json`.

    Args:
        images (Iterable[dict]): Of ``file_name``, ``height``, ``width``, any
            other keys that are to be kept (``clip_id``, ``time``), and
            ``instances``: dicts of ``bbox`` [x1, y1, x2, y2] in pixels,
            ``label`` (a class name), ``iscrowd`` (optional), and any other
            keys that are to be kept (``score``, ``sounding``).
        classes (Sequence[str]): Class names; category ids are their places.
        info (dict, optional): The json's ``info``.

    Returns:
        dict: With ``info``, ``images``, ``annotations`` and ``categories``;
        image ids count from 0, annotation ids from 1 (pycocotools takes
        0 for no match).

    Raises:
        ValueError: If a box is empty or a label is none of the classes.
    """
    index = {name: i for i, name in enumerate(classes)}
    entries, annotations = [], []
    for image in images:
        entry = {k: v for k, v in image.items() if k != _BOXES}
        entry['id'] = len(entries)
        for instance in image[_BOXES]:
            annotation = dict(instance)
            label = annotation.pop('label')
            if label not in index:
                raise ValueError(f'{image["file_name"]} has a box of '
                                 f'{label!r}, which is none of the classes.')
            x1, y1, x2, y2 = annotation.pop('bbox')
            w, h = x2 - x1, y2 - y1
            if not (w > 0 and h > 0):
                raise ValueError(f'{image["file_name"]} has an empty box, '
                                 f'{[x1, y1, x2, y2]}.')
            annotations.append(
                dict(
                    dict(iscrowd=0),
                    **annotation,
                    id=len(annotations) + 1,
                    image_id=entry['id'],
                    category_id=index[label],
                    bbox=[x1, y1, w, h],
                    area=w * h))
        entries.append(entry)
    return dict(
        info=info or {},
        images=entries,
        annotations=annotations,
        categories=[dict(id=i, name=name) for i, name in enumerate(classes)])
