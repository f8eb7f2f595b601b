"""Average precision with and without classes (Tables 1, 3, 5 and 6)."""

import contextlib
import io
from typing import Dict, Iterator, List, Optional, Sequence, Tuple

import numpy as np

# Index 0 is AP30; the rest are COCO's own ten, so index 1 is AP50.
IOU_THRS = np.array([0.3, *np.linspace(0.5, 0.95, 10)])
RECALL_THRS = np.linspace(0, 1, 101)
BACKENDS = ('numpy', 'pycocotools', 'faster_coco_eval')

# Boxes of other areas are ignored, as by COCOeval with the range 'all'.
_MAX_AREA = 1e10
# A bit for each of IOU_THRS.
_ALL_BITS = np.uint16((1 << len(IOU_THRS)) - 1)
# Pairs of boxes that are compared at once; fits into a processor's cache.
_CHUNK = 1 << 17


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


def _row_pairs(
    first: np.ndarray, count: np.ndarray
) -> Iterator[Tuple[np.ndarray, np.ndarray]]:
    """Pairs (i, j) with first[i] <= j < first[i] + count[i], in chunks.

    Yields:
        tuple: Two int64 arrays of equal length, ordered by i, then j.
    """
    ends = np.cumsum(count)
    start = 0
    while start < len(count):
        done = ends[start - 1] if start else 0
        stop = int(np.searchsorted(ends, done + _CHUNK, side='right'))
        stop = max(stop, start + 1)
        some = count[start:stop]
        i = np.repeat(np.arange(start, stop), some)
        # Position in the row, plus where the row begins.
        shift = first[start:stop] - (ends[start:stop] - some - done)
        yield i, np.arange(len(i)) + np.repeat(shift, some)
        start = stop


def _rank_in_group(keys: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """How many of the same key come before each entry.

    Returns:
        tuple: Order that sorts the keys (stable), and the rank of each entry
        in that order.
    """
    order = np.argsort(keys, kind='stable')
    ordered = keys[order]
    new = np.ones(len(keys), dtype=bool)
    new[1:] = ordered[1:] != ordered[:-1]
    starts = np.flatnonzero(new)
    sizes = np.diff(np.append(starts, len(keys)))
    return order, np.arange(len(keys)) - np.repeat(starts, sizes)


def _rounds(ranks: np.ndarray) -> Iterator[np.ndarray]:
    """Entries of rank 0, of rank 1 and so on, each in its order."""
    order = np.argsort(ranks, kind='stable')
    stops = np.cumsum(np.bincount(ranks)) if len(ranks) else []
    start = 0
    for stop in stops:
        yield order[start:stop]
        start = stop


def groupwise_nms(
    boxes: np.ndarray,
    scores: np.ndarray,
    groups: np.ndarray,
    iou_threshold: float,
) -> np.ndarray:
    """Non-maximum suppression within each group, all groups at once.

    The same boxes are kept as by ``mmcv.ops.nms`` on each group: a box goes
    when its IoU with a better one that stays is *greater* than the
    threshold, in single precision. ``mmcv.ops.batched_nms`` is no choice
    here, as it shifts groups apart in single precision, which leaves no
    digits for millions of groups, or loops over them.

    Args:
        boxes (np.ndarray): (N, 4) float32 ``xyxy``.
        scores (np.ndarray): (N,); of equal ones the first is better.
        groups (np.ndarray): (N,) integers, such as a number for each image
            and class.
        iou_threshold (float): Largest IoU that two kept boxes may have.

    Returns:
        np.ndarray: (N,) bool, whether a box is kept.
    """
    boxes = np.asarray(boxes, dtype=np.float32).reshape(-1, 4)
    by_score = np.argsort(-np.asarray(scores), kind='stable')
    order, rank = _rank_in_group(np.asarray(groups)[by_score])
    order = by_score[order]
    num = len(order)
    # How many of the same group follow a box.
    ends = np.append(np.flatnonzero(rank == 0)[1:], num)
    sizes = np.diff(np.append(0, ends)) if num else np.zeros(0, int)
    following = np.repeat(ends, sizes) - np.arange(num) - 1 if num else rank
    x1, y1, x2, y2 = np.ascontiguousarray(boxes[order].T)
    area = (x2 - x1) * (y2 - y1)
    better, worse = [], []
    for i, j in _row_pairs(np.arange(1, num + 1), following):
        width = np.minimum(x2[i], x2[j]) - np.maximum(x1[i], x1[j])
        height = np.minimum(y2[i], y2[j]) - np.maximum(y1[i], y1[j])
        near = np.flatnonzero((width > 0) & (height > 0))
        i, j = i[near], j[near]
        inter = width[near] * height[near]
        iou = inter / (area[i] + area[j] - inter)
        hit = iou > np.float32(iou_threshold)
        better.append(i[hit])
        worse.append(j[hit])
    keep = np.ones(num, dtype=bool)
    if better:
        better, worse = np.concatenate(better), np.concatenate(worse)
        # When it is a box's turn, all better ones of its group had theirs.
        for turn in _rounds(rank[better]):
            keep[worse[turn[keep[better[turn]]]]] = False
    result = np.empty(num, dtype=bool)
    result[order] = keep
    return result


class DetectionEvaluator:
    """Precision of one set of boxes under any number of labelings.

    COCO's protocol: detections are matched greedily, in the order of their
    scores, to the unmatched ground truth of the same image and class with
    the largest IoU; at most ``max_dets`` of each image and class count; and
    precision is made monotonous and read at 101 recalls. Ground truth that
    is a crowd is ignored, with the detections that are matched to it, of
    which there can be many.

    Backends give equal results:

    - ``'numpy'``: ours, the default because it is the only one for large
      evaluations. IoUs do not depend on labels: pairs of a detection and an
      object of one image with IoU >= 0.3 are found once, and another
      labeling only selects among them. All images and classes are matched
      at once, all thresholds as bits of one number. Every sum, tie and
      rounding is as in pycocotools, so results are equal to the last bit.
    - ``'pycocotools'``: the reference; its time grows with images x classes.
    - ``'faster_coco_eval'``: pycocotools' protocol in C++, an optional
      package.

    Args:
        gt_images (np.ndarray): (M,) int64 index of each object's image.
            Images are in the order of their ids, which breaks ties of
            scores.
        gt_boxes (np.ndarray): (M, 4) ``xywh``.
        gt_crowd (np.ndarray): (M,) bool.
        images (np.ndarray): (N,) int64 index of each detection's image.
        boxes (np.ndarray): (N, 4) ``xywh``.
        scores (np.ndarray): (N,).
        num_images (int): Number of images.
        max_dets (int): Most detections per image (and class) that count.
            Defaults to 100.
        backend (str): One of the three above. Defaults to 'numpy'.

    Raises:
        ValueError: If the backend is unknown.
        ImportError: If the backend's package is not installed.
    """

    def __init__(
        self,
        gt_images: np.ndarray,
        gt_boxes: np.ndarray,
        gt_crowd: np.ndarray,
        images: np.ndarray,
        boxes: np.ndarray,
        scores: np.ndarray,
        num_images: int,
        max_dets: int = 100,
        backend: str = 'numpy',
    ) -> None:
        check_backend(backend)
        self.backend = backend
        self.max_dets = max_dets
        self.num_images = num_images
        # COCOeval goes through images, sorts each one's detections by score,
        # and then those of all images, always keeping the order of equals.
        scores = np.asarray(scores, dtype=np.float64).reshape(-1)
        order = np.argsort(images, kind='stable')
        order = order[np.argsort(-scores[order], kind='stable')]
        self._order = order
        self._images = np.asarray(images, dtype=np.int64)[order]
        self._boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)[order]
        self._scores = scores[order]
        order = np.argsort(gt_images, kind='stable')
        self._gt_order = order
        self._gt_images = np.asarray(gt_images, dtype=np.int64)[order]
        self._gt_boxes = np.asarray(gt_boxes, dtype=np.float64)
        self._gt_boxes = self._gt_boxes.reshape(-1, 4)[order]
        self._gt_crowd = np.asarray(gt_crowd, dtype=bool)[order]
        self._outside, gt_outside = (
            (b[:, 2] * b[:, 3] < 0) | (b[:, 2] * b[:, 3] > _MAX_AREA)
            for b in (self._boxes, self._gt_boxes)
        )
        self._gt_ignored = self._gt_crowd | gt_outside
        self._pairs: Optional[tuple] = None

    @property
    def pairs(self) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Detections, objects and IoUs of pairs with IoU >= 0.3.

        Sorted by detection, then by what a detection prefers: objects that
        count before ignored ones, large IoUs, and of equal IoUs the last.
        """
        if self._pairs is None:
            self._pairs = self._find_pairs()
        return self._pairs

    def _find_pairs(self) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
        count = np.bincount(self._gt_images, minlength=self.num_images)
        first = np.cumsum(count) - count
        # Columns: left, top, right, bottom, area.
        x1, y1, x2, y2, area = _columns(self._boxes)
        gx1, gy1, gx2, gy2, gt_area = _columns(self._gt_boxes)
        found = [(np.zeros(0, int), np.zeros(0, int), np.zeros(0))]
        for i, j in _row_pairs(first[self._images], count[self._images]):
            width = np.minimum(x2[i], gx2[j]) - np.maximum(x1[i], gx1[j])
            height = np.minimum(y2[i], gy2[j]) - np.maximum(y1[i], gy1[j])
            near = np.flatnonzero((width > 0) & (height > 0))
            i, j = i[near], j[near]
            inter = width[near] * height[near]
            # In the order of pycocotools, which rounds the same way then.
            union = area[i] + gt_area[j] - inter
            union = np.where(self._gt_crowd[j], area[i], union)
            iou = inter / union
            hit = iou >= IOU_THRS[0]
            found.append((i[hit], j[hit], iou[hit]))
        dets, gts, ious = (np.concatenate(x) for x in zip(*found))
        order = np.lexsort((-gts, -ious, self._gt_ignored[gts], dets))
        return dets[order], gts[order], ious[order]

    def precision(
        self,
        classes: Optional[np.ndarray] = None,
        gt_classes: Optional[np.ndarray] = None,
        num_classes: int = 1,
    ) -> np.ndarray:
        """Precision at all IoU thresholds and recalls.

        Args:
            classes (np.ndarray, optional): (N,) class of each detection, in
                the order in which they were given; -1 leaves it out.
                Defaults to None: all are of class 0, as for class-agnostic
                figures.
            gt_classes (np.ndarray, optional): (M,) the same of the objects.
            num_classes (int): C. Defaults to 1.

        Returns:
            np.ndarray: (11, 101, C) float64, by threshold (:data:`IOU_THRS`)
            and recall (:data:`RECALL_THRS`); nan for a class without ground
            truth.
        """
        if classes is None:
            classes = np.zeros(len(self._order), dtype=np.int64)
            gt_classes = np.zeros(len(self._gt_order), dtype=np.int64)
        classes = np.asarray(classes, dtype=np.int64)[self._order]
        gt_classes = np.asarray(gt_classes, dtype=np.int64)[self._gt_order]
        if self.backend == 'numpy':
            return self._precision(classes, gt_classes, num_classes)
        return self._reference(classes, gt_classes, num_classes)

    def assigned(self, min_iou: float = 0.5) -> np.ndarray:
        """The object of each detection, whatever their classes.

        Args:
            min_iou (float): Defaults to 0.5; at least 0.3.

        Returns:
            np.ndarray: (N,) int64, in the order in which boxes were given,
            the object that counts and has the largest IoU, or -1. Several
            detections can have the same one.
        """
        dets, gts, ious = self.pairs
        dets, first = np.unique(dets, return_index=True)
        gts, ious = gts[first], ious[first]
        near = (ious >= min_iou) & ~self._gt_ignored[gts]
        result = np.full(len(self._order), -1, dtype=np.int64)
        result[self._order[dets[near]]] = self._gt_order[gts[near]]
        return result

    def found(
        self,
        classes: np.ndarray,
        gt_classes: np.ndarray,
        num_classes: int,
    ) -> Tuple[np.ndarray, np.ndarray]:
        """Which objects are found, by the matching of :meth:`precision`.

        By numpy, whatever the backend.

        Args:
            classes (np.ndarray): (N,) class of each detection, in the order
                in which they were given; -1 leaves it out.
            gt_classes (np.ndarray): (M,) the same of the objects.
            num_classes (int): C.

        Returns:
            tuple: (11, M) bool, whether an object has a detection, by
            threshold (:data:`IOU_THRS`); and (M,) bool, whether it counts:
            it has a class, and is neither a crowd nor of an ignored size.
        """
        classes = np.asarray(classes, dtype=np.int64)[self._order]
        gt_classes = np.asarray(gt_classes, dtype=np.int64)[self._gt_order]
        classes = self._capped(classes, num_classes)
        free = self._match(classes, gt_classes, num_classes)[2]
        bits = np.arange(len(IOU_THRS), dtype=np.uint16)[:, None]
        found = np.empty((len(IOU_THRS), len(free)), dtype=bool)
        found[:, self._gt_order] = (free >> bits) & 1 == 0
        counts = np.empty(len(free), dtype=bool)
        counts[self._gt_order] = (gt_classes >= 0) & ~self._gt_ignored
        return found & counts, counts

    def _precision(
        self, classes: np.ndarray, gt_classes: np.ndarray, num_classes: int
    ) -> np.ndarray:
        """:meth:`precision` by numpy; everything is sorted by now."""
        classes = self._capped(classes, num_classes)
        left, ignored, _ = self._match(classes, gt_classes, num_classes)
        # Unmatched detections that are ignored for their size.
        ignored |= np.where(self._outside, left, np.uint16(0))
        true = ~(left | ignored) & _ALL_BITS

        counts = (gt_classes >= 0) & ~self._gt_ignored
        num_gts = np.bincount(gt_classes[counts], minlength=num_classes)
        order = np.argsort(classes, kind='stable')
        stops = np.searchsorted(classes[order], np.arange(num_classes + 1))
        shape = len(IOU_THRS), len(RECALL_THRS), num_classes
        precision = np.full(shape, np.nan)
        for c in np.flatnonzero(num_gts):
            rows = order[stops[c] : stops[c + 1]]
            precision[:, :, c] = _interpolated(
                true[rows], ignored[rows], num_gts[c]
            )
        return precision

    def _capped(self, classes: np.ndarray, num_classes: int) -> np.ndarray:
        """Classes, -1 beyond ``max_dets`` of one image and class."""
        some = np.flatnonzero(classes >= 0)
        num = np.bincount(self._images[some], minlength=1)
        if num.max() <= self.max_dets:
            return classes
        some = some[num[self._images[some]] > self.max_dets]
        order, rank = _rank_in_group(
            self._images[some] * num_classes + classes[some]
        )
        classes = classes.copy()
        classes[some[order[rank >= self.max_dets]]] = -1
        return classes

    def _match(
        self, classes: np.ndarray, gt_classes: np.ndarray, num_classes: int
    ) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Greedy matching at all thresholds.

        Returns:
            tuple: (N,) uint16 bits of the thresholds at which a detection
            is unmatched, and of those at which it is ignored; and (M,) of
            those at which an object is unmatched (a crowd always is).
        """
        dets, gts, ious = self.pairs
        # What has no class may match too; nobody looks at it later.
        same = np.flatnonzero(classes[dets] == gt_classes[gts])
        dets, gts = dets[same], gts[same]
        # Thresholds ascend, so those that are reached are the lowest bits.
        reached = np.searchsorted(
            np.minimum(IOU_THRS, 1 - 1e-10), ious[same], side='right'
        )
        reached = ((1 << reached) - 1).astype(np.uint16)
        gt_free = np.full(len(gt_classes), _ALL_BITS)
        gt_once = np.where(self._gt_crowd, np.uint16(0), _ALL_BITS)
        gt_ignored = np.where(self._gt_ignored, _ALL_BITS, np.uint16(0))
        left = np.full(len(classes), _ALL_BITS)
        ignored = np.zeros(len(classes), dtype=np.uint16)
        # One pair of each image and class at a time: no box occurs twice.
        order, rank = _rank_in_group(
            self._gt_images[gts] * num_classes + gt_classes[gts]
        )
        for turn in _rounds(rank):
            turn = order[turn]
            det, gt = dets[turn], gts[turn]
            match = reached[turn] & left[det] & gt_free[gt]
            left[det] &= ~match
            gt_free[gt] &= ~(match & gt_once[gt])
            ignored[det] |= match & gt_ignored[gt]
        return left, ignored, gt_free

    def _reference(
        self, classes: np.ndarray, gt_classes: np.ndarray, num_classes: int
    ) -> np.ndarray:
        """:meth:`precision` by one of the two packages."""

        def rows(order, images, classes, boxes, **fields):
            # In the order in which boxes were given. Ids start at 1: a match
            # with id 0 is taken for no match.
            back = np.argsort(order)
            columns = dict(
                image_id=images, category_id=classes, bbox=boxes, **fields
            )
            values = [column[back].tolist() for column in columns.values()]
            annotations = []
            for row in zip(*values):
                ann = dict(zip(columns, row), id=len(annotations) + 1)
                ann['area'] = ann['bbox'][2] * ann['bbox'][3]
                if ann['category_id'] >= 0:
                    annotations.append(ann)
            return annotations

        gts = rows(
            self._gt_order,
            self._gt_images,
            gt_classes,
            self._gt_boxes,
            iscrowd=self._gt_crowd.astype(int),
        )
        dets = rows(
            self._order,
            self._images,
            classes,
            self._boxes,
            score=self._scores,
            iscrowd=np.zeros(len(classes), dtype=int),
        )
        coco, coco_eval = _package(self.backend)
        tables = []
        with contextlib.redirect_stdout(io.StringIO()):
            for annotations in (gts, dets):
                table = coco()
                table.dataset = dict(
                    images=[dict(id=i) for i in range(self.num_images)],
                    annotations=annotations,
                    categories=[
                        dict(id=c, name=str(c)) for c in range(num_classes)
                    ],
                )
                table.createIndex()
                tables.append(table)
            evaluator = coco_eval(*tables, 'bbox')
            evaluator.params.catIds = list(range(num_classes))
            evaluator.params.iouThrs = IOU_THRS
            evaluator.params.maxDets = [self.max_dets]
            evaluator.params.areaRng = [[0, _MAX_AREA]]
            evaluator.params.areaRngLbl = ['all']
            evaluator.evaluate()
            evaluator.accumulate()
        precision = evaluator.eval['precision'][:, :, :, 0, 0]
        return np.where(precision > -1, precision, np.nan)


def _columns(boxes: np.ndarray) -> Tuple[np.ndarray, ...]:
    """Left, top, right, bottom and area of (n, 4) ``xywh`` boxes."""
    x, y, width, height = np.ascontiguousarray(boxes.T)
    return x, y, x + width, y + height, width * height


def _interpolated(
    true: np.ndarray, ignored: np.ndarray, num_gts: int
) -> np.ndarray:
    """Precision of one class, (11, 101), at the recalls.

    Only true positives are looked at: recall changes there alone, and what
    the envelope takes is always the precision at one of them.

    Args:
        true (np.ndarray): (n,) uint16 bits, by descending score, of the
            thresholds at which a detection is a true positive.
        ignored (np.ndarray): (n,) the same where it does not count.
        num_gts (int): Objects of the class.
    """
    result = np.zeros((len(IOU_THRS), len(RECALL_THRS)))
    hits = np.flatnonzero(true)
    true = true[hits]
    skipped = ignored.any()
    for t in range(len(IOU_THRS)):
        bit = np.uint16(1 << t)
        where = hits[(true & bit) > 0]
        seen = where + 1
        if skipped:
            seen = seen - np.cumsum((ignored & bit) > 0)[where]
        found = np.arange(1, len(where) + 1)
        precision = found / (seen + np.spacing(1))
        precision = np.maximum.accumulate(precision[::-1])[::-1]
        at = np.searchsorted(found / num_gts, RECALL_THRS, side='left')
        reached = at < len(where)
        result[t, reached] = precision[at[reached]]
    return result


def _package(backend: str) -> tuple:
    """Classes of the data and of the evaluation of a package."""
    if backend == 'pycocotools':
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        return COCO, COCOeval
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError as error:
        raise ImportError(
            "backend='faster_coco_eval' needs an optional package: run `pip "
            "install faster-coco-eval`, or choose backend='numpy'."
        ) from error
    return COCO, COCOeval_faster


def check_backend(backend: str) -> None:
    """Refuse a backend that cannot be used.

    Args:
        backend (str): One of :data:`BACKENDS`.

    Raises:
        ValueError: If there is no such backend.
        ImportError: If its package is not installed.
    """
    if backend not in BACKENDS:
        raise ValueError(
            f'backend={backend!r} is unknown; choose one of '
            f'{", ".join(BACKENDS)}.'
        )
    if backend != 'numpy':
        _package(backend)


def _mean(values: np.ndarray) -> float:
    """Mean over what is not nan; nan if nothing is left."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else float('nan')


def _summary(by_class: np.ndarray, prefix: str = '') -> Dict[str, float]:
    """Figures of the mean precision over recalls, (11, C)."""
    return {
        f'{prefix}AP30': _mean(by_class[0]),
        f'{prefix}AP50': _mean(by_class[1]),
        f'{prefix}AP': _mean(by_class[1:]),
    }


def summarize_precision(
    precision: np.ndarray, prefix: str = ''
) -> Dict[str, float]:
    """Figures of a table of :meth:`DetectionEvaluator.precision`.

    Args:
        precision (np.ndarray): (11, 101, C), nan for a class without ground
            truth.
        prefix (str): Of the keys. Defaults to ''.

    Returns:
        dict[str, float]: ``AP30, AP50, AP`` in [0, 1], means over the classes
        with ground truth; nan if there is none.
    """
    return _summary(precision.mean(axis=1), prefix)


def summarize_classes(
    precision: np.ndarray, names: Sequence[str]
) -> Tuple[Dict[str, Dict[str, float]], Dict[str, List[float]]]:
    """Figures and curves of each class.

    Args:
        precision (np.ndarray): (11, 101, C).
        names (Sequence[str]): The C classes.

    Returns:
        tuple: Class -> dict of ``AP30, AP50, AP``, nan without ground truth;
        and class -> 101 precisions at IoU 0.5, only with ground truth.
    """
    figures, curves = {}, {}
    by_class = precision.mean(axis=1)
    for c, name in enumerate(names):
        figures[name] = _summary(by_class[:, c : c + 1])
        if not np.isnan(precision[1, 0, c]):
            curves[name] = precision[1, :, c].tolist()
    return figures, curves


def ground_truth_arrays(ground_truth: dict) -> dict:
    """Columns of a COCO json.

    Args:
        ground_truth (dict): ``images``, ``annotations`` (``bbox`` is
            ``xywh``) and ``categories``.

    Returns:
        dict: ``image_ids``, id -> index in the order of ids; ``categories``,
        sorted by id; and of the M objects ``images`` (M,) int64 index,
        ``boxes`` (M, 4) float64 ``xywh``, ``classes`` (M,) int64 index into
        the categories, -1 for none of them, ``crowd`` (M,) bool and
        ``sounding`` (M,) bool, None unless all of them say it.
    """
    ids = sorted({image['id'] for image in ground_truth['images']})
    image_ids = {key: i for i, key in enumerate(ids)}
    categories = sorted(ground_truth['categories'], key=lambda c: c['id'])
    index = {c['id']: i for i, c in enumerate(categories)}
    # As by pycocotools, objects of unknown images do not take part.
    anns = [
        ann
        for ann in ground_truth.get('annotations', [])
        if ann['image_id'] in image_ids
    ]
    sounding = None
    if all('sounding' in ann for ann in anns):
        sounding = np.array([bool(ann['sounding']) for ann in anns], bool)
    return dict(
        image_ids=image_ids,
        categories=categories,
        images=np.array([image_ids[a['image_id']] for a in anns], np.int64),
        boxes=np.array([a['bbox'] for a in anns], np.float64).reshape(-1, 4),
        classes=np.array(
            [index.get(a['category_id'], -1) for a in anns], np.int64
        ),
        crowd=np.array([bool(a.get('iscrowd', 0)) for a in anns], bool),
        sounding=sounding,
    )


def image_indices(
    image_ids: Dict[object, int], of_detections: Sequence
) -> np.ndarray:
    """Index of the image of each detection.

    Args:
        image_ids (dict): Id -> index, of :func:`ground_truth_arrays`.
        of_detections (Sequence): Image ids.

    Returns:
        np.ndarray: int64 indices.

    Raises:
        ValueError: If the ground truth does not have an image.
    """
    unknown = set(of_detections) - set(image_ids)
    if unknown:
        raise ValueError(
            f'{len(unknown)} image ids of the detections are not in the '
            f'ground truth (such as {min(unknown, key=str)!r}): the '
            'annotation file belongs to another data set.'
        )
    return np.array([image_ids[i] for i in of_detections], dtype=np.int64)


def detection_ap(
    ground_truth: dict,
    detections: Sequence[dict],
    class_aware: bool = True,
    max_dets: int = 100,
    backend: str = 'numpy',
) -> dict:
    """AP30, AP50 and AP50:95, class-aware and class-agnostic.

    COCO's 101-point average precision; see :class:`DetectionEvaluator`,
    which takes arrays, for millions of boxes and for several labelings.

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
        backend (str): ``'numpy'``, ``'pycocotools'`` or
            ``'faster_coco_eval'``, with equal results. Defaults to 'numpy'.

    Returns:
        dict: ``AP30, AP50, AP, agnostic_AP30, agnostic_AP50, agnostic_AP``
        in [0, 1]; ``per_class``, category name -> dict of ``AP30, AP50,
        AP``; and the curves, 101 precisions at IoU 0.5 for recall 0, 0.01
        ... 1: ``agnostic_pr50``, a list, and ``pr50``, category name -> list.
        What has no ground truth is nan, or absent from ``pr50``. Without
        ``class_aware`` only the ``agnostic_`` ones.

    Raises:
        ValueError: If a detection belongs to an image that the ground truth
            does not have, or the backend is unknown.
        ImportError: If the backend's package is not installed.
    """
    truth = ground_truth_arrays(ground_truth)
    evaluator = DetectionEvaluator(
        truth['images'],
        truth['boxes'],
        truth['crowd'],
        image_indices(
            truth['image_ids'], [det['image_id'] for det in detections]
        ),
        np.array([det['bbox'] for det in detections]).reshape(-1, 4),
        np.array([det['score'] for det in detections]),
        num_images=len(truth['image_ids']),
        max_dets=max_dets,
        backend=backend,
    )
    precision = evaluator.precision()
    result = summarize_precision(precision, prefix='agnostic_')
    result['agnostic_pr50'] = precision[1, :, 0].tolist()
    if not class_aware:
        return result

    index = {c['id']: i for i, c in enumerate(truth['categories'])}
    classes = [index.get(det.get('category_id', -1), -1) for det in detections]
    precision = evaluator.precision(
        np.array(classes, dtype=np.int64), truth['classes'], len(index)
    )
    result.update(summarize_precision(precision))
    result['per_class'], result['pr50'] = summarize_classes(
        precision, [c['name'] for c in truth['categories']]
    )
    return result
