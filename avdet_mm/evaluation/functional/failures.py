"""What went wrong with detections: the kinds of failure of the paper.

Sec. 5 and App. A.2 of the paper name grouped instances, missing instances,
parts of objects, wrong objects and wrong classes, without figures. The
definitions here are ours.
"""

from typing import Dict, List, Optional, Sequence

import numpy as np

from .detection import box_iou

KINDS = (
    'correct',
    'duplicate',
    'misnamed',
    'grouped',
    'part',
    'background',
)


def classify_detections(
    boxes: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    gt_boxes: np.ndarray,
    gt_labels: np.ndarray,
    iou_thr: float = 0.5,
    part_thr: float = 0.8,
    cover_thr: float = 0.5,
) -> Dict[str, list]:
    """Say of every detection of an image what it is, and which objects miss.

    Detections are looked at from the highest score to the lowest. Each gets
    the first of these kinds that applies:

    - ``correct``: IoU >= ``iou_thr`` with an object of its class that no
      detection before it has found (of several the one with the largest
      IoU, which is found by it);
    - ``duplicate``: IoU >= ``iou_thr`` with an object of its class, but all
      of those were found before;
    - ``misnamed``: IoU >= ``iou_thr`` with an object of another class;
    - ``grouped``: it covers at least ``cover_thr`` of the area of each of
      two objects or more;
    - ``part``: at least ``part_thr`` of its own area lies within one object;
      the IoU with that is then below ``iou_thr``;
    - ``background``: none of these.

    An object is ``missed`` if no detection reaches IoU >= ``iou_thr`` with
    it, whatever its class. So objects that were grouped or found in part
    are missed as well; misnamed ones are not.

    Args:
        boxes (np.ndarray): (n, 4) ``xyxy`` in pixels.
        scores (np.ndarray): (n,).
        labels (np.ndarray): (n,) classes as integers, -1 for none; such a
            detection is of another class than every object.
        gt_boxes (np.ndarray): (m, 4) ``xyxy`` in pixels, not empty.
        gt_labels (np.ndarray): (m,) classes, 0 or more.
        iou_thr (float): Defaults to 0.5.
        part_thr (float): Defaults to 0.8.
        cover_thr (float): Defaults to 0.5.

    Returns:
        dict: ``kinds``, one word per detection in the order given;
        ``objects``, the objects it is about for each detection, a list of
        indices (two or more of ``grouped``, none of ``background``);
        ``missed``, indices of objects.
    """
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    gt_boxes = np.asarray(gt_boxes, dtype=np.float64).reshape(-1, 4)
    labels, gt_labels = np.asarray(labels), np.asarray(gt_labels)
    iou = box_iou(boxes, gt_boxes)
    inter = _intersection(boxes, gt_boxes)
    areas = (boxes[:, 2:] - boxes[:, :2]).clip(0).prod(axis=1)
    gt_areas = (gt_boxes[:, 2:] - gt_boxes[:, :2]).clip(0).prod(axis=1)
    found = np.zeros(len(gt_boxes), dtype=bool)
    kinds: List[Optional[str]] = [None] * len(boxes)
    objects: List[List[int]] = [[] for _ in kinds]
    for i in np.argsort(-np.asarray(scores), kind='stable').tolist():
        hit = iou[i] >= iou_thr
        same = hit & (gt_labels == labels[i])
        covered = inter[i] >= cover_thr * gt_areas
        if (same & ~found).any():
            kinds[i], among = 'correct', same & ~found
        elif same.any():
            kinds[i], among = 'duplicate', same
        elif hit.any():
            kinds[i], among = 'misnamed', hit
        elif covered.sum() > 1:
            kinds[i], objects[i] = 'grouped', np.flatnonzero(covered).tolist()
            continue
        elif len(gt_boxes) and inter[i].max() >= part_thr * areas[i] > 0:
            j = int(inter[i].argmax())
            kinds[i], objects[i] = 'part', [j]
            continue
        else:
            kinds[i] = 'background'
            continue
        j = int(np.where(among, iou[i], -1).argmax())
        objects[i] = [j]
        found[j] |= kinds[i] == 'correct'
    missed = ~(iou >= iou_thr).any(axis=0)
    return dict(
        kinds=kinds,
        objects=objects,
        missed=np.flatnonzero(missed).tolist(),
    )


def count_failures(images: Sequence[Dict[str, list]]) -> Dict[str, int]:
    """Numbers of each kind over many images.

    Args:
        images (Sequence[dict]): Outputs of :func:`classify_detections`.

    Returns:
        dict: All of ``KINDS`` and ``missed``.
    """
    counts = dict.fromkeys((*KINDS, 'missed'), 0)
    for image in images:
        for kind in image['kinds']:
            counts[kind] += 1
        counts['missed'] += len(image['missed'])
    return counts


def _intersection(boxes: np.ndarray, gt_boxes: np.ndarray) -> np.ndarray:
    """Areas of the intersections of all pairs, (n, m)."""
    low = np.maximum(boxes[:, None, :2], gt_boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], gt_boxes[None, :, 2:])
    return (high - low).clip(0).prod(axis=-1)
