"""Average precision with and without classes."""

import contextlib
import io
from typing import Dict, List, Sequence

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

# Index 0 is AP30; the rest are COCO's own ten, so index 1 is AP50.
IOU_THRS = np.array([0.3, *np.linspace(0.5, 0.95, 10)])


def box_iou(boxes1: np.ndarray, boxes2: np.ndarray) -> np.ndarray:
    """Intersection over union of all pairs of boxes.

    Args:
        boxes1 (np.ndarray): (n, 4) ``xyxy``.
        boxes2 (np.ndarray): (m, 4) ``xyxy``.

    Returns:
        np.ndarray: (n, m) float64; 0 where both boxes are empty.
    """
    boxes1 = np.asarray(boxes1, dtype=np.float64).reshape(-1, 1, 4)
    boxes2 = np.asarray(boxes2, dtype=np.float64).reshape(1, -1, 4)
    low = np.maximum(boxes1[..., :2], boxes2[..., :2])
    high = np.minimum(boxes1[..., 2:], boxes2[..., 2:])
    inter = (high - low).clip(0).prod(axis=-1)
    areas = [
        (b[..., 2:] - b[..., :2]).clip(0).prod(axis=-1)
        for b in (boxes1, boxes2)
    ]
    union = areas[0] + areas[1] - inter
    return np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)


def _coco(
    images: List[dict], annotations: List[dict], cat_ids: Sequence[int]
) -> COCO:
    coco = COCO()
    coco.dataset = dict(
        images=images,
        annotations=annotations,
        categories=[dict(id=i, name=str(i)) for i in cat_ids],
    )
    coco.createIndex()
    return coco


def _precision(
    images: List[dict],
    gts: List[dict],
    dets: List[dict],
    cat_ids: Sequence[int],
    max_dets: int,
) -> np.ndarray:
    """Mean precision over the 101 recall points, (11 IoU, classes).

    nan for a category without ground truth.
    """
    # Ids start at 1: pycocotools takes a match with id 0 for no match.
    gts = [dict(gt, id=i) for i, gt in enumerate(gts, 1)]
    dets = [dict(det, id=i, iscrowd=0) for i, det in enumerate(dets, 1)]
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator = COCOeval(
            _coco(images, gts, cat_ids), _coco(images, dets, cat_ids), 'bbox'
        )
        evaluator.params.catIds = list(cat_ids)
        evaluator.params.iouThrs = IOU_THRS
        evaluator.params.maxDets = [max_dets]
        evaluator.params.areaRng = [[0, 1e10]]
        evaluator.params.areaRngLbl = ['all']
        evaluator.evaluate()
        evaluator.accumulate()
    precision = evaluator.eval['precision'][:, :, :, 0, 0]
    return np.where(precision > -1, precision, np.nan).mean(axis=1)


def _mean(values: np.ndarray) -> float:
    """Mean over what is not nan; nan if nothing is left."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else float('nan')


def _summary(precision: np.ndarray, prefix: str = '') -> Dict[str, float]:
    return {
        f'{prefix}AP30': _mean(precision[0]),
        f'{prefix}AP50': _mean(precision[1]),
        f'{prefix}AP': _mean(precision[1:]),
    }


def detection_ap(
    ground_truth: dict,
    detections: Sequence[dict],
    class_aware: bool = True,
    max_dets: int = 100,
) -> dict:
    """AP30, AP50 and AP50:95, class-aware and class-agnostic.

    COCO's 101-point average precision, computed by pycocotools. Every
    figure is read from the precision table itself, because the summary of
    pycocotools knows thresholds from 0.5 upwards only.

    Class-aware AP is the mean over the categories that have ground truth;
    a detection without a class plays no part in it. For class-agnostic AP
    *all* ground truth and *all* detections are moved to one category before
    matching: one precision-recall curve, one list of at most ``max_dets``
    detections per image, and a second detection of the same object is a
    false positive whatever its class. (Leaving the categories and setting
    ``useCats=0`` would drop the detections whose category the ground truth
    does not know, such as those of unmatched clusters.)

    Args:
        ground_truth (dict): Content of a COCO json: ``images``,
            ``annotations`` (``bbox`` is ``xywh``) and ``categories``.
        detections (Sequence[dict]): COCO results, one dict per box with
            ``image_id``, ``bbox`` (``xywh``), ``score`` and, for class-aware
            figures, ``category_id``; -1 means no class.
        class_aware (bool): Whether to compute the class-aware figures too.
            Defaults to True.
        max_dets (int): Most detections per image (and class) that count.
            Defaults to 100.

    Returns:
        dict: ``AP30, AP50, AP, agnostic_AP30, agnostic_AP50, agnostic_AP``
        in [0, 1], and ``per_class``, category name -> dict of ``AP30, AP50,
        AP``. What has no ground truth is nan. Without ``class_aware`` only
        the ``agnostic_`` figures.

    Raises:
        ValueError: If a detection belongs to an image that the ground truth
            does not have.
    """
    images = [dict(id=image['id']) for image in ground_truth['images']]
    gts = []
    for ann in ground_truth.get('annotations', []):
        gts.append(
            dict(
                image_id=ann['image_id'],
                category_id=ann['category_id'],
                bbox=ann['bbox'],
                area=ann['bbox'][2] * ann['bbox'][3],
                iscrowd=ann.get('iscrowd', 0),
            )
        )

    known = {image['id'] for image in images}
    unknown = {det['image_id'] for det in detections} - known
    if unknown:
        raise ValueError(
            f'{len(unknown)} image ids of the detections are not in the '
            f'ground truth (such as {min(unknown, key=str)!r}): the '
            'annotation file belongs to another data set.'
        )
    dets = [
        dict(
            image_id=det['image_id'],
            category_id=det.get('category_id', -1),
            bbox=det['bbox'],
            area=det['bbox'][2] * det['bbox'][3],
            score=det['score'],
        )
        for det in detections
    ]

    merged = [
        [dict(item, category_id=1) for item in items] for items in (gts, dets)
    ]
    result = _summary(
        _precision(images, *merged, [1], max_dets), prefix='agnostic_'
    )
    if not class_aware:
        return result

    # In the order in which COCOeval keeps them.
    categories = sorted(ground_truth['categories'], key=lambda c: c['id'])
    cat_ids = [cat['id'] for cat in categories]
    dets = [det for det in dets if det['category_id'] in set(cat_ids)]
    precision = _precision(images, gts, dets, cat_ids, max_dets)
    result.update(_summary(precision))
    result['per_class'] = {
        cat['name']: _summary(precision[:, i : i + 1])
        for i, cat in enumerate(categories)
    }
    return result
