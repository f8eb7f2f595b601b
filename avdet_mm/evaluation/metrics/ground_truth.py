"""Where metrics have their ground truth from: a COCO json, or samples."""

from typing import Hashable, List, Sequence

from mmengine.fileio import load


def load_coco_json(path: str, needed: Sequence[str]) -> dict:
    """Read a COCO json.

    Args:
        path (str): The file.
        needed (Sequence[str]): Keys that it must have.

    Returns:
        dict: Its content.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it lacks a key.
    """
    content = load(path)
    missing = set(needed) - set(content)
    if missing:
        raise ValueError(
            f'{path} is not a COCO json: it lacks '
            f'{" and ".join(sorted(missing))}.'
        )
    return content


def img_id_of(sample: dict, ann_file: str) -> Hashable:
    """Image of a sample in a COCO json.

    Args:
        sample (dict): Output of a model.
        ann_file (str): The json, for the message.

    Returns:
        Hashable: The sample's ``img_id``.

    Raises:
        KeyError: If it has none.
    """
    if 'img_id' not in sample:
        raise KeyError(
            'A sample has no `img_id`, so it cannot be found in '
            f'{ann_file}. Leave `ann_file` out to take ground truth from the '
            'clip table.'
        )
    return sample['img_id']


def gt_instances_of(sample: dict) -> dict:
    """Ground truth that a sample carries.

    Args:
        sample (dict): Output of a model.

    Returns:
        dict: Its ``gt_instances``.

    Raises:
        KeyError: If it has none.
    """
    if 'gt_instances' not in sample:
        raise KeyError(
            'A sample has no `gt_instances`: give its clip `instances` in '
            'the clip table, or give this metric an `ann_file`.'
        )
    return sample['gt_instances']


def names_of_labels(
    categories: Sequence[str], classes: Sequence[str]
) -> List[str]:
    """Classes in the order in which ``mmdet.CocoDataset`` numbers them.

    That is the order of the json, whatever that of its meta info.

    Args:
        categories (Sequence[str]): Names in the json.
        classes (Sequence[str]): Those of the data set's meta info.

    Returns:
        list[str]: Name of each label.
    """
    wanted = set(classes)
    return [name for name in categories if name in wanted]
