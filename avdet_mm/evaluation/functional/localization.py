"""Sound localization as the public evaluators measure it (Table 2).

A map of values is laid over the frame on a grid of 224 x 224 pixels,
binarized, and compared with a map of the ground-truth boxes. Three
evaluators are in use, and they differ in every step, so their figures must
not be compared with each other:

* DSOL (Hu et al., NeurIPS 2020): values above a share of the map's maximum.
* LVS (Chen et al., CVPR 2021): the upper half of the pixels.
* EZ-VSL (Mo and Morgado, ECCV 2022): the upper half, upsampled otherwise and
  with the middle value included.

Their traps: a rule that predicts half of the frame makes no sense of a map
of zeros and ones (EZ-VSL's takes the whole frame where fewer than half are
ones: refused here); and where all values are equal, both LVS and EZ-VSL would
take the whole frame even of a map of zeros, which predicts nothing (here, as
with DSOL, it is the whole frame if the value is positive, else nothing).
"""

from typing import Dict, NamedTuple, Optional, Sequence, Tuple, Union

import cv2
import numpy as np
import torch
import torch.nn.functional as F

# Pixels of the grid, along both sides.
GRID = 224
# Thresholds of the success rate: 0, 0.05, ..., 1, rounded as theirs.
IOU_THRESHOLDS = np.array([0.05 * i for i in range(21)])
# A pixel of the map of an absent class is silent up to this value (DSOL).
SILENT = 0.2


class Protocol(NamedTuple):
    """How an evaluator scores a data set.

    Attributes:
        evaluator (str): ``'dsol'``, ``'lvs'`` or ``'ez_vsl'``.
        figures (dict): Name to what it is: the share of frames of at least
            this IoU, ``'auc'``, ``'mean'`` or ``'nsa'``.
        consensus (bool): Whether boxes are votes of annotators: a pixel in
            two boxes or more counts 1, in one box 0.5.
        num_classes (int, optional): Only frames with objects of this many
            classes are taken; 2 stands for more too.
    """

    evaluator: str
    figures: Dict[str, Union[float, str]]
    consensus: bool = False
    num_classes: Optional[int] = None

    @property
    def empty_counts(self) -> bool:
        """Whether frames without a box count (IoU 0) or are left out."""
        return self.evaluator != 'dsol'


_LVS = dict(ciou50=0.5, auc='auc')
_EZ_VSL = dict(ap50=0.5, mean_ciou='mean', auc='auc')
PROTOCOLS = {
    'dsol_single': Protocol('dsol', dict(iou50=0.5, auc='auc'), num_classes=1),
    'dsol_multi': Protocol(
        # 0.05 * 6, which is a little more than 0.3.
        'dsol',
        dict(ciou30=IOU_THRESHOLDS[6], nsa='nsa'),
        num_classes=2,
    ),
    'lvs_vggss': Protocol('lvs', _LVS),
    'lvs_flickr': Protocol('lvs', _LVS, consensus=True),
    'ez_vsl_vggss': Protocol('ez_vsl', _EZ_VSL),
    'ez_vsl_flickr': Protocol('ez_vsl', _EZ_VSL, consensus=True),
}


# --------------------------------------------------------------------------
# Boxes and maps on the grid
# --------------------------------------------------------------------------
def grid_boxes(
    boxes: np.ndarray, img_shape: Sequence[float]
) -> Tuple[np.ndarray, np.ndarray]:
    """Boxes in pixels of the grid.

    Published files have damaged boxes: such as end before they begin, or
    with coordinates far outside of the frame.

    Args:
        boxes (np.ndarray): (n, 4) ``xyxy``, in pixels of the frame.
        img_shape (Sequence[float]): Height and width of the frame; (1, 1)
            for boxes in shares of the frame.

    Returns:
        tuple: (m, 4) float64, clipped to the frame; and (n,) bool, those
        that have an area then and are in it.
    """
    height, width = img_shape[:2]
    scale = GRID / np.array([width, height] * 2, dtype=np.float64)
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4) * scale
    boxes = boxes.clip(0, GRID)
    kept = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    return boxes[kept], kept


def box_map(boxes: np.ndarray, consensus: bool = False) -> np.ndarray:
    """Union of ground-truth boxes, or the agreement of annotators.

    All evaluators cut the fractions of box corners off, so a box can be too
    small to leave a mark.

    Args:
        boxes (np.ndarray): (n, 4) ``xyxy`` in pixels of the grid, from
            :func:`grid_boxes`.
        consensus (bool): Sum of the boxes / 2, at most 1. Defaults to
            False, the union.

    Returns:
        np.ndarray: (224, 224) float32 in [0, 1].
    """
    votes = np.zeros((GRID, GRID), dtype=np.float32)
    for x1, y1, x2, y2 in np.asarray(boxes).astype(np.int64).tolist():
        votes[y1:y2, x1:x2] += 1
    return np.minimum(votes / 2 if consensus else votes, 1)


def pseudo_heatmap(boxes: np.ndarray) -> np.ndarray:
    """Union of predicted boxes, the paper's pseudo-heatmap (Sec. 4.4).

    How its boxes are rounded is not published: a box takes all pixels that
    it touches, so none vanishes.

    Args:
        boxes (np.ndarray): (n, 4) ``xyxy`` in pixels of the grid, from
            :func:`grid_boxes`.

    Returns:
        np.ndarray: (224, 224) float32, zeros and ones.
    """
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    # Not the next pixel for the rounding of a coordinate.
    low = np.floor(boxes[:, :2] + 1e-6)
    high = np.ceil(boxes[:, 2:] - 1e-6)
    return box_map(np.concatenate([low, high], axis=1))


def covers_frame(
    homography: np.ndarray, img_shape: Sequence[int], ori_shape: Sequence[int]
) -> bool:
    """Whether the network saw the whole frame, resized and no more.

    Args:
        homography (np.ndarray): (3, 3), original to input pixels.
        img_shape (Sequence[int]): Height and width of the network's input.
        ori_shape (Sequence[int]): Height and width of the original frame.

    Returns:
        bool: True if it maps frame to input to 0.01 pixels.
    """
    size = [ori_shape[1], ori_shape[0], 1.0]
    corners = np.array([[0, 0, 1.0], [size[0], 0, 1], size])
    wanted = np.array([[0, 0], [img_shape[1], 0], img_shape[1::-1]])
    mapped = corners @ np.asarray(homography, dtype=np.float64).T
    return bool(np.abs(mapped[:, :2] / mapped[:, 2:] - wanted).max() < 0.01)


def grid_map(
    heatmap: np.ndarray,
    homography: np.ndarray,
    img_shape: Sequence[int],
    ori_shape: Sequence[int],
    align_corners: bool = False,
) -> Tuple[np.ndarray, Optional[np.ndarray]]:
    """Lay a heatmap over the grid, bilinearly.

    If the network's input is the resized frame, this is what the evaluators
    do: ``cv2.resize``, or ``F.interpolate`` with ``align_corners``.
    Otherwise (a crop, a mirror image) the grid's pixels are looked up where
    they are in the input.

    Args:
        heatmap (np.ndarray): (h, w), over the network's input.
        homography (np.ndarray): (3, 3), original to input pixels.
        img_shape (Sequence[int]): Height and width of the network's input.
        ori_shape (Sequence[int]): Height and width of the original frame.
        align_corners (bool): Whether the centers of a map's outermost cells
            lie on the centers of the outermost pixels (EZ-VSL), or its
            borders on the frame's (the others). Defaults to False.

    Returns:
        tuple: (224, 224) float32; and (224, 224) bool, what the network
        saw, or None if that is everything. What it did not see has the
        lowest value of what it saw.
    """
    heatmap = np.ascontiguousarray(heatmap, dtype=np.float32)
    if covers_frame(homography, img_shape, ori_shape):
        if heatmap.min() == heatmap.max():
            # What interpolation makes of it differs by its rounding.
            return np.full((GRID, GRID), heatmap.max()), None
        if not align_corners:
            return cv2.resize(heatmap, (GRID, GRID)), None
        fine = F.interpolate(
            torch.from_numpy(heatmap)[None, None],
            size=(GRID, GRID),
            mode='bilinear',
            align_corners=True,
        )
        return fine[0, 0].numpy(), None
    centers = (np.arange(GRID) + 0.5) / GRID
    x, y = np.meshgrid(centers * ori_shape[1], centers * ori_shape[0])
    points = np.stack([x, y, np.ones_like(x)], axis=-1)
    points = points @ np.asarray(homography, dtype=np.float64).T
    # Shares of the input's width and height.
    places = points[..., :2] / points[..., 2:] / np.array(img_shape[1::-1])
    seen = ((places >= 0) & (places <= 1)).all(axis=-1)
    if align_corners:
        places = (places * GRID - 0.5) / (GRID - 1)
    fine = F.grid_sample(
        torch.from_numpy(heatmap)[None, None],
        torch.from_numpy(2 * places - 1).float()[None],
        mode='bilinear',
        padding_mode='border',
        align_corners=align_corners,
    )[0, 0].numpy()
    if heatmap.min() == heatmap.max():
        fine[:] = heatmap.max()
    elif seen.any():
        fine[~seen] = fine[seen].min()
    return fine, seen


# --------------------------------------------------------------------------
# Binarization
# --------------------------------------------------------------------------
def dsol_mask(values: np.ndarray, thr: float) -> np.ndarray:
    """DSOL: values above a share of the maximum.

    Made for maps of at least 0: nothing is above if the maximum is not
    positive.

    Args:
        values (np.ndarray): (h, w).
        thr (float): The share.

    Returns:
        np.ndarray: (h, w) bool.
    """
    return values > thr * values.max()


def lvs_mask(values: np.ndarray) -> np.ndarray:
    """LVS: values above the middle one of the sorted values.

    Its code marks by 1 what is above and removes what is below 1, so pixels
    of the maximum stay even where more than half have it.

    Args:
        values (np.ndarray): (h, w).

    Returns:
        np.ndarray: (h, w) bool.
    """
    low, high = values.min(), values.max()
    if low == high:
        return np.full(values.shape, high > 0)
    # In this order, for its rounding.
    scaled = 1 - (high - values) / (high - low)
    return (scaled > _middle(scaled)) | (scaled >= 1)


def ez_vsl_mask(values: np.ndarray) -> np.ndarray:
    """EZ-VSL: values of at least the middle one of the sorted values.

    Args:
        values (np.ndarray): (h, w), no map of zeros and ones.

    Returns:
        np.ndarray: (h, w) bool.

    Raises:
        ValueError: If the map is binary.
    """
    low, high = values.min(), values.max()
    if low == high:
        return np.full(values.shape, high > 0)
    if low == 0 and high == 1 and np.isin(values, (0, 1)).all():
        raise ValueError(
            'EZ-VSL takes all pixels of at least the median value; of a map '
            'of zeros and ones that is the whole frame, wherever the ones '
            'are. Give it heatmaps, or use the protocols of DSOL or LVS for '
            'boxes.'
        )
    scaled = (values - low) / (high - low)
    return scaled >= _middle(scaled)


def _middle(values: np.ndarray) -> np.floating:
    """The value in the middle of the sorted values."""
    middle = values.size // 2
    return np.partition(values, middle, axis=None)[middle]


def binarize(
    values: np.ndarray,
    evaluator: str,
    thr: float,
    seen: Optional[np.ndarray] = None,
) -> np.ndarray:
    """What an evaluator takes for predicted.

    Args:
        values (np.ndarray): (h, w).
        evaluator (str): ``'dsol'``, ``'lvs'`` or ``'ez_vsl'``.
        thr (float): For DSOL, share of the maximum.
        seen (np.ndarray, optional): (h, w) bool, all others are not
            predicted. Defaults to None, all are.

    Returns:
        np.ndarray: (h, w) bool.
    """
    if evaluator == 'dsol':
        mask = dsol_mask(values, thr)
    else:
        mask = dict(lvs=lvs_mask, ez_vsl=ez_vsl_mask)[evaluator](values)
    return mask if seen is None else mask & seen


# --------------------------------------------------------------------------
# Measures
# --------------------------------------------------------------------------
def weighted_iou(mask: np.ndarray, truth: np.ndarray) -> float:
    """Consensus IoU: sum(M G) / (sum(G) + sum(M [G = 0])).

    For a binary ground truth, intersection over union.

    Args:
        mask (np.ndarray): (h, w) bool, M.
        truth (np.ndarray): (h, w) in [0, 1], G.

    Returns:
        float: In [0, 1]; 0 if both are empty.
    """
    total = truth.sum(dtype=np.float64) + (mask & (truth == 0)).sum()
    return float(truth[mask].sum(dtype=np.float64) / total) if total else 0.0


def class_iou(
    masks: Dict[str, np.ndarray], truths: Dict[str, np.ndarray]
) -> float:
    """Class-aware cIoU of a frame (DSOL).

    Args:
        masks (dict[str, np.ndarray]): Class to (h, w) bool; those of classes
            that are not in the frame play no part.
        truths (dict[str, np.ndarray]): Class that is in the frame to (h, w)
            in [0, 1]; at least one.

    Returns:
        float: Mean over the classes in the frame; IoU 0 for one that has no
        mask.
    """
    ious = [
        weighted_iou(masks[name], truth) if name in masks else 0.0
        for name, truth in truths.items()
    ]
    return float(np.mean(ious))


def silent_share(values: np.ndarray) -> float:
    """Share of silent pixels, for NSA (DSOL).

    Args:
        values (np.ndarray): (h, w), map of a class that is not in the frame.

    Returns:
        float: Share of pixels of at most 0.2, a value and no share of the
        maximum: for maps in [0, 1].
    """
    return float((values <= SILENT).mean())


def success_rates(ious: Sequence[float]) -> np.ndarray:
    """Share of frames of at least each IoU of ``IOU_THRESHOLDS``.

    Args:
        ious (Sequence[float]): (n,).

    Returns:
        np.ndarray: (21,) float64; nan without frames.
    """
    ious = np.asarray(ious, dtype=np.float64)
    if not ious.size:
        return np.full(len(IOU_THRESHOLDS), np.nan)
    return (ious[None] >= IOU_THRESHOLDS[:, None]).mean(axis=1)


def success_auc(rates: np.ndarray) -> float:
    """Area under the success rates, by trapezoids.

    Args:
        rates (np.ndarray): (21,), from :func:`success_rates`.

    Returns:
        float: In [0, 1].
    """
    return float(
        ((rates[1:] + rates[:-1]) / 2 * np.diff(IOU_THRESHOLDS)).sum()
    )


def protocol_figures(
    protocol: Protocol, ious: Sequence[float], silent: Sequence[float] = ()
) -> Dict[str, float]:
    """The figures that a protocol reports.

    Args:
        protocol (Protocol): One of ``PROTOCOLS``.
        ious (Sequence[float]): (n,) of the frames that it takes.
        silent (Sequence[float]): Mean :func:`silent_share` of the maps of
            absent classes, of the frames that have some.

    Returns:
        dict[str, float]: In [0, 1]; nan without frames.
    """
    ious = np.asarray(ious, dtype=np.float64)
    named = dict(
        auc=success_auc(success_rates(ious)),
        mean=float(ious.mean()) if ious.size else np.nan,
        nsa=float(np.mean(silent)) if len(silent) else np.nan,
    )
    return {
        name: named[what]
        if isinstance(what, str)
        else float((ious >= what).mean())
        if ious.size
        else np.nan
        for name, what in protocol.figures.items()
    }
