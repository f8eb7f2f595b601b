"""Detection AP after clusters have been matched to classes (Sec. 4.3)."""

import json
from typing import Dict, List, Optional, Sequence

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger

from avdet_mm.models.task_modules import ClusterMatcher
from avdet_mm.registry import METRICS
from avdet_mm.utils import atomic_write, dump_json

from ..functional.detection import (
    IOU_THRS,
    DetectionEvaluator,
    check_backend,
    ground_truth_arrays,
    groupwise_nms,
    image_indices,
    summarize_classes,
    summarize_precision,
)
from .ground_truth import (
    gt_instances_of,
    img_id_of,
    load_coco_json,
    names_of_labels,
)

# Which detections enter the confusion, and how near an object must be.
CONFUSION_SCORE, CONFUSION_IOU = 0.3, 0.5


def _array(value, dtype: type) -> np.ndarray:
    """A copy, small and in memory, of a tensor or anything else."""
    if hasattr(value, 'cpu'):
        value = value.cpu().numpy()
    return np.array(value, dtype=dtype)


def _no_nan(figures: Dict[str, float]) -> Dict[str, Optional[float]]:
    """Figures with None for nan, which json does not know."""
    return {k: None if np.isnan(v) else v for k, v in figures.items()}


@METRICS.register_module()
class MatchedCocoMetric(BaseMetric):
    """AP30, AP50 and AP50:95 of detections whose labels are clusters.

    Labels are turned into classes by the matchings that
    ``tools/match_clusters.py`` fitted on training clips, such as all of the
    paper's Table 5, in one run; nothing is fitted here. Detections of
    unmatched clusters, and of clusters that stand for a class which the
    ground truth does not name, play no part in the class-aware figures.
    Where a matching gives one class to several clusters, their detections
    of one object are duplicates, which non-maximum suppression within that
    class removes (inferred: the paper does not say). The class-agnostic
    figures (prefix ``agnostic_``) ignore labels, so all detections take
    part in them, without that suppression. See
    :class:`~avdet_mm.evaluation.functional.detection.DetectionEvaluator`
    for the protocol.

    It serves stock MMDetection detectors on a stock ``mmdet.CocoDataset``
    as well as localizers and baselines on clip tables. MMDetection's own
    ``CocoMetric`` cannot be used: it raises if there are more clusters than
    classes, and has no AP30.

    Args:
        ann_file (str, optional): COCO json with the ground truth; samples
            then need ``img_id``. Without it, ground truth is taken from the
            samples' ``gt_instances``, in original pixels, and class names
            from the data set's meta info. Defaults to None.
        matching (str, optional): Json written by
            :class:`~avdet_mm.models.task_modules.ClusterMatcher`. Without
            it labels are classes already, numbered as ``mmdet.CocoDataset``
            numbers them. Defaults to None.
        class_aware (bool): Whether to compute the class-aware figures too;
            off for methods whose boxes have no class. Defaults to True.
        max_dets (int): Most detections per image (and class) that count.
            Defaults to 100.
        nms_iou (float, optional): Largest IoU that two detections of one
            class may have where several clusters share that class; None
            keeps all. Defaults to 0.5 (ours), the threshold of the
            detectors' own suppression.
        backend (str): ``'numpy'``, ``'pycocotools'`` or
            ``'faster_coco_eval'``: equal results, see
            ``DetectionEvaluator``. Defaults to 'numpy', which is by far the
            fastest.
        classwise (bool): Whether ``AP50/<class>`` are among the metrics,
            of the first matching. Defaults to False.
        outfile_prefix (str, optional): Detections are written to
            ``{outfile_prefix}.bbox.json`` as COCO results whose
            ``category_id`` is the cluster (the ground truth's category
            where there is no matching), and ground truth that came from
            samples to ``{outfile_prefix}.gt.json``. Defaults to None, no
            files.
        recall_score_thr (float): Least score of the detections that count
            for recall: among the 100 best of an image, most of them
            doubtful, nearly everything is found. Defaults to 0.3 (ours),
            as for the confusion.
        collect_device (str): Defaults to 'cpu'.
        prefix (str, optional): Defaults to None, which means 'coco'.

    Attributes:
        details (dict, optional): After an evaluation, on rank 0, what
            reports need, ready for json (None for nan): ``ann_file,
            protocol, num_images, num_objects`` (by class, without crowds),
            ``outfile_prefix``; ``matchings``, name -> ``AP30, AP50, AP,
            clusters`` (every cluster -> class or None), ``per_class`` and
            ``pr50`` (101 precisions at IoU 0.5 of each class with ground
            truth), with the name ``labels`` and no clusters where there is
            no matching; ``agnostic``; and
            ``confusion``, how many detections of score >= 0.3 of each
            cluster have their largest IoU, if >= 0.5, with an object of
            each class (else ``background``); None if not class-aware; and
            ``recall``: ``score_thr``, ``iou_thr``, and for ``class_aware``
            (None if it is off) and ``agnostic`` of the objects that are
            ``sounding`` and ``silent`` how many there are (``objects``),
            how many were ``found``, and their share, ``recall50``; None
            where the metrics have none.

    Raises:
        FileNotFoundError: If ``ann_file`` or ``matching`` does not exist.
        ValueError: If ``matching`` is given but ``class_aware`` is off, or
            an argument has no such value.
        ImportError: If the backend's package is not installed.

    The metrics are ``AP30, AP50, AP`` of the first matching of the json,
    ``<name>_AP30, <name>_AP50, <name>_AP`` of each other one, and
    ``agnostic_AP30, agnostic_AP50, agnostic_AP``. Means are over the classes
    with ground truth; nan if there is none.

    Where the ground truth says of every object whether it sounds
    (``sounding`` of COCO annotations or of ``gt_instances``), and some are
    silent: ``recall50_sounding, recall50_silent``, the share of each that
    is found, and ``agnostic_recall50_sounding, agnostic_recall50_silent``,
    labels ignored. An object is found if a detection of its class, by the
    first matching, with a score of at least ``recall_score_thr`` is matched
    to it at IoU 0.5 as for AP50: each detection finds one object at most,
    and ``max_dets`` of an image (and class) take part.

    Example:
        >>> test_evaluator = dict(
        ...     type='avdet_mm.MatchedCocoMetric',
        ...     ann_file='work_dirs/demo/data/test_coco.json',
        ...     matching='work_dirs/demo/matching.json')
    """

    default_prefix = 'coco'

    def __init__(
        self,
        ann_file: Optional[str] = None,
        matching: Optional[str] = None,
        class_aware: bool = True,
        max_dets: int = 100,
        nms_iou: Optional[float] = 0.5,
        backend: str = 'numpy',
        classwise: bool = False,
        outfile_prefix: Optional[str] = None,
        recall_score_thr: float = CONFUSION_SCORE,
        collect_device: str = 'cpu',
        prefix: Optional[str] = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        if matching is not None and not class_aware:
            raise ValueError(
                '`matching` gives boxes a class, but '
                '`class_aware=False` asks for figures without '
                'classes; leave one of them out.'
            )
        if nms_iou is not None and not 0 <= nms_iou <= 1:
            raise ValueError(
                f'nms_iou={nms_iou} is no IoU: give a number from 0 to 1, or '
                'None to keep all detections.'
            )
        if not 0 <= recall_score_thr <= 1:
            raise ValueError(
                f'recall_score_thr={recall_score_thr} is no score: give a '
                'number from 0 to 1.'
            )
        check_backend(backend)
        self.matchers: Dict[str, ClusterMatcher] = {}
        if matching is not None:
            self.matchers = ClusterMatcher.from_json(matching)
        self.class_aware = class_aware
        self.max_dets = max_dets
        self.nms_iou = nms_iou
        self.backend = backend
        self.classwise = classwise
        self.outfile_prefix = outfile_prefix
        self.recall_score_thr = recall_score_thr
        self.details: Optional[dict] = None
        self.ann_file = ann_file
        self.ground_truth: Optional[dict] = None
        if ann_file is not None:
            self.ground_truth = load_coco_json(
                ann_file, ('images', 'categories')
            )

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keep predictions, and ground truth if there is no ``ann_file``.

        Args:
            data_batch (dict): Not looked at.
            data_samples (Sequence[dict]): Outputs of the model as dicts,
                with ``pred_instances`` in original pixels.

        Raises:
            KeyError: If a sample lacks what is needed; says what.
        """
        for sample in data_samples:
            pred = sample['pred_instances']
            result = dict(
                bboxes=_array(pred['bboxes'], np.float32).reshape(-1, 4),
                scores=_array(pred['scores'], np.float32),
                labels=_array(pred['labels'], np.int64),
            )
            if self.ground_truth is not None:
                result['image_id'] = img_id_of(sample, self.ann_file)
            else:
                gt = gt_instances_of(sample)
                result['gt'] = dict(
                    bboxes=_array(gt['bboxes'], np.float32).reshape(-1, 4),
                    labels=_array(gt['labels'], np.int64),
                )
                if 'sounding' in gt:
                    result['gt']['sounding'] = _array(gt['sounding'], bool)
                if self.outfile_prefix is not None:
                    result['image'] = self._image_info(sample)
            self.results.append(result)

    @staticmethod
    def _image_info(sample: dict) -> dict:
        """What the json of the ground truth tells about an image."""
        info = {}
        if sample.get('clip_id') is not None:
            info['clip_id'] = sample['clip_id']
        if sample.get('img_path') is not None:
            info['file_name'] = sample['img_path']
        if sample.get('ori_shape') is not None:
            info['height'], info['width'] = map(int, sample['ori_shape'][:2])
        return info

    def _collected_ground_truth(self, results: List[dict]) -> dict:
        """Ground truth from the samples, as the content of a COCO json."""
        classes = (self.dataset_meta or {}).get('classes') or []
        if self.class_aware:
            classes = self._class_names()
        annotations = []
        for image_id, result in enumerate(results):
            result['image_id'] = image_id
            boxes = _xywh(result['gt']['bboxes']).tolist()
            first = len(annotations)
            for box, label in zip(boxes, result['gt']['labels'].tolist()):
                annotations.append(
                    dict(
                        id=len(annotations) + 1,
                        image_id=image_id,
                        category_id=label,
                        bbox=box,
                        area=box[2] * box[3],
                        iscrowd=0,
                    )
                )
            if 'sounding' in result['gt']:
                sounding = result['gt']['sounding'].tolist()
                for ann, sounds in zip(annotations[first:], sounding):
                    ann['sounding'] = sounds
        return dict(
            images=[
                dict(id=i, **result.get('image', {}))
                for i, result in enumerate(results)
            ],
            annotations=annotations,
            categories=[dict(id=i, name=c) for i, c in enumerate(classes)],
        )

    def _class_names(self) -> Sequence[str]:
        classes = (self.dataset_meta or {}).get('classes')
        if not classes:
            raise ValueError(
                'The data set names no `classes` in its meta info; name them '
                'there, or set `class_aware=False`.'
            )
        return classes

    def _classes_of_labels(
        self, ground_truth: dict, categories: List[dict]
    ) -> Dict[str, np.ndarray]:
        """What labels mean, by matching.

        Returns:
            dict[str, np.ndarray]: Name of the matching -> (K,) int64 index
            into the categories, -1 for none, for every label.
        """
        index = {c['name']: i for i, c in enumerate(categories)}
        if self.matchers:
            names = list(next(iter(self.matchers.values())).classes)
        else:
            names = names_of_labels(
                [c['name'] for c in ground_truth['categories']],
                self._class_names(),
            )
        ids = np.array([index.get(n, -1) for n in names], dtype=np.int64)
        if not (ids >= 0).any():
            source = 'The matching' if self.matchers else 'The data set'
            known = names if self.matchers else list(self._class_names())
            raise ValueError(
                f'{source} and the ground truth have no class in common: '
                f'{known} against {list(index)}. Is the annotation file '
                'from elsewhere'
                + (
                    '?'
                    if self.matchers
                    else ', or should a `matching` be given?'
                )
            )
        if not self.matchers:
            return dict(labels=ids)
        # The -1 at the end is what an unmatched cluster picks.
        return {
            name: np.append(ids, -1)[matcher.matching]
            for name, matcher in self.matchers.items()
        }

    def compute_metrics(self, results: List[dict]) -> Dict[str, float]:
        """Match labels and compute all figures.

        Args:
            results (list[dict]): What :meth:`process` kept, of all ranks.

        Returns:
            dict[str, float]: See the class.

        Raises:
            ValueError: If matching, predictions and ground truth do not
                belong together.
        """
        logger = MMLogger.get_current_instance()
        ground_truth = self.ground_truth
        if ground_truth is None:
            ground_truth = self._collected_ground_truth(results)
        elif len(results) < len(ground_truth['images']):
            logger.warning(
                '%d of the %d images in %s were not shown to the model; '
                'their objects count as missed.',
                len(ground_truth['images']) - len(results),
                len(ground_truth['images']),
                self.ann_file,
            )
        truth = ground_truth_arrays(ground_truth)
        names = [c['name'] for c in truth['categories']]
        images = np.repeat(
            image_indices(
                truth['image_ids'], [r['image_id'] for r in results]
            ),
            [len(r['scores']) for r in results],
        )
        boxes, scores, labels = (
            np.concatenate([empty, *(r[key] for r in results)])
            for key, empty in (
                ('bboxes', np.zeros((0, 4), np.float32)),
                ('scores', np.zeros(0, np.float32)),
                ('labels', np.zeros(0, np.int64)),
            )
        )
        evaluator = DetectionEvaluator(
            truth['images'],
            truth['boxes'],
            truth['crowd'],
            images,
            _xywh(boxes),
            scores,
            num_images=len(truth['image_ids']),
            max_dets=self.max_dets,
            backend=self.backend,
        )
        meanings = {}
        if self.class_aware:
            meanings = self._classes_of_labels(
                ground_truth, truth['categories']
            )
            self._check_labels(labels, meanings)
        if self.outfile_prefix is not None:
            self._write_files(results, ground_truth, meanings, truth)

        counted = truth['classes'][(truth['classes'] >= 0) & ~truth['crowd']]
        num_objects = np.bincount(counted, minlength=len(names)).tolist()
        self.details = dict(
            ann_file=self.ann_file,
            protocol=dict(
                iou_thrs=[round(t, 2) for t in IOU_THRS.tolist()],
                max_dets=self.max_dets,
                backend=self.backend,
                nms_iou=self.nms_iou,
            ),
            num_images=len(truth['image_ids']),
            num_objects=dict(zip(names, num_objects)),
            outfile_prefix=self.outfile_prefix,
            matchings={},
            confusion=None,
            recall=None,
        )
        metrics = {}
        first_classes = None
        for name, meaning in meanings.items():
            classes, removed = self._relabel(
                meaning, boxes, scores, labels, images, len(names)
            )
            precision = evaluator.precision(
                classes, truth['classes'], len(names)
            )
            figures = summarize_precision(precision)
            per_class, curves = summarize_classes(precision, names)
            clusters = {}
            if self.matchers:
                clusters = {
                    cluster: names[c] if c >= 0 else None
                    for cluster, c in zip(
                        self._label_names(meaning, names), meaning
                    )
                }
            self.details['matchings'][name] = dict(
                _no_nan(figures),
                clusters=clusters,
                per_class={c: _no_nan(row) for c, row in per_class.items()},
                pr50=curves,
            )
            logger.info(
                '%s: AP30 %.4f, AP50 %.4f, AP50:95 %.4f; %d detections, of '
                'which %d have no class in the ground truth and count '
                'class-agnostically only, and %d were suppressed.',
                name,
                *figures.values(),
                len(labels),
                (classes < 0).sum() - removed,
                removed,
            )
            if metrics:
                figures = {f'{name}_{k}': v for k, v in figures.items()}
                metrics.update(figures)
                continue
            metrics.update(figures)
            first_classes = classes
            logger.info(self._table(per_class, clusters))
            if self.classwise:
                metrics.update(
                    {f'AP50/{c}': per_class[c]['AP50'] for c in curves}
                )

        precision = evaluator.precision()
        figures = summarize_precision(precision)
        metrics.update({f'agnostic_{k}': v for k, v in figures.items()})
        self.details['agnostic'] = dict(
            _no_nan(figures), pr50=precision[1, :, 0].tolist()
        )
        if np.isnan(figures['AP50']):
            self.details['agnostic']['pr50'] = None
            logger.warning('There is no ground truth at all, so AP is nan.')
        if truth['sounding'] is not None and not truth['sounding'].all():
            metrics.update(
                self._recall(evaluator, scores, first_classes, truth)
            )
        if self.class_aware:
            meaning = next(iter(meanings.values()))
            self.details['confusion'] = _confusion(
                evaluator.assigned(CONFUSION_IOU),
                scores,
                labels,
                truth['classes'],
                self._label_names(meaning, names),
                names,
            )
        logger.info(
            'Protocol: AP at IoU 0.3, 0.5 and the mean over 0.5 ... 0.95 '
            '(COCO, 101 recalls), over the %d of %d classes with ground '
            'truth; %d images, %d detections, at most %d per image and class '
            '(class-agnostic: per image); nms_iou=%s within classes that '
            'clusters share; backend %s.',
            np.count_nonzero(num_objects),
            len(names),
            len(truth['image_ids']),
            len(labels),
            self.max_dets,
            self.nms_iou,
            self.backend,
        )
        return metrics

    def _recall(
        self,
        evaluator: DetectionEvaluator,
        scores: np.ndarray,
        classes: Optional[np.ndarray],
        truth: dict,
    ) -> Dict[str, float]:
        """Recall of the objects that sound and of those that do not.

        Args:
            evaluator (DetectionEvaluator): With all boxes.
            scores (np.ndarray): (N,) float32.
            classes (np.ndarray, optional): (N,) of the detections, by the
                first matching; None if not class-aware.
            truth (dict): Of :func:`ground_truth_arrays`, with ``sounding``.

        Returns:
            dict[str, float]: The metrics; ``details`` are filled.
        """
        logger = MMLogger.get_current_instance()
        gt_classes = truth['classes']
        one, gt_one = np.zeros(len(scores), int), np.zeros_like(gt_classes)
        labelings = dict(
            class_aware=(classes, gt_classes, len(truth['categories'])),
            agnostic=(one, gt_one, 1),
        )
        details = dict(
            score_thr=self.recall_score_thr, iou_thr=float(IOU_THRS[1])
        )
        metrics = {}
        for kind, (labels, gt_labels, num_classes) in labelings.items():
            if labels is None:
                details[kind] = None
                continue
            labels = np.where(scores >= self.recall_score_thr, labels, -1)
            found, counts = evaluator.found(labels, gt_labels, num_classes)
            details[kind] = {}
            for group, members in (
                ('sounding', truth['sounding']),
                ('silent', ~truth['sounding']),
            ):
                objects = int((members & counts).sum())
                hits = int(found[1, members].sum())
                share = hits / objects if objects else float('nan')
                details[kind][group] = dict(
                    _no_nan(dict(recall50=share)), found=hits, objects=objects
                )
                prefix = 'agnostic_' if kind == 'agnostic' else ''
                name = f'{prefix}recall50_{group}'
                metrics[name] = share
                logger.info(
                    '%s %.4f: %d of %d objects are found with a score of at '
                    'least %g.',
                    name,
                    share,
                    hits,
                    objects,
                    self.recall_score_thr,
                )
        self.details['recall'] = details
        return metrics

    def _check_labels(
        self, labels: np.ndarray, meanings: Dict[str, np.ndarray]
    ) -> None:
        """Labels must be what the matchings, or the classes, know."""
        if self.matchers:
            # Raises with words of its own.
            next(iter(self.matchers.values())).map(labels)
        elif labels.size and labels.max() >= len(meanings['labels']):
            raise ValueError(
                f'Label {labels.max()} was predicted, but only '
                f'{len(meanings["labels"])} classes are known. If labels are '
                'clusters, this metric needs a `matching`.'
            )

    def _relabel(
        self,
        meaning: np.ndarray,
        boxes: np.ndarray,
        scores: np.ndarray,
        labels: np.ndarray,
        images: np.ndarray,
        num_classes: int,
    ) -> tuple:
        """Class of each detection, -1 for none, and how many were removed."""
        # The -1 at the end is what label -1 picks.
        classes = np.append(meaning, -1)[labels]
        if self.nms_iou is None or not self.matchers:
            return classes, 0
        clusters = np.bincount(meaning[meaning >= 0], minlength=num_classes)
        shared = np.flatnonzero(np.append(clusters > 1, False)[classes])
        keep = groupwise_nms(
            boxes[shared],
            scores[shared],
            images[shared] * num_classes + classes[shared],
            self.nms_iou,
        )
        classes[shared[~keep]] = -1
        return classes, int((~keep).sum())

    def _label_names(self, meaning: np.ndarray, names: List[str]) -> List[str]:
        """Names of clusters, or of classes where there is no matching."""
        if self.matchers:
            return [f'cluster_{k}' for k in range(len(meaning))]
        return [names[c] for c in meaning]

    def _write_files(
        self,
        results: List[dict],
        ground_truth: dict,
        meanings: Dict[str, np.ndarray],
        truth: dict,
    ) -> None:
        """COCO results, and the ground truth if it came from samples."""
        if self.ann_file is None:
            dump_json(ground_truth, f'{self.outfile_prefix}.gt.json')
        ids = None
        if not self.matchers and self.class_aware:
            # The -1 at the end is what label -1 picks.
            ids = [truth['categories'][c]['id'] for c in meanings['labels']]
            ids.append(-1)
        with atomic_write(f'{self.outfile_prefix}.bbox.json') as file:
            # Image by image: a million dicts would take a gigabyte.
            file.write('[')
            separator = ''
            for result in results:
                rows = [
                    dict(
                        image_id=result['image_id'],
                        bbox=box,
                        score=score,
                        category_id=label if ids is None else ids[label],
                    )
                    for box, score, label in zip(
                        _xywh(result['bboxes']).tolist(),
                        result['scores'].tolist(),
                        result['labels'].tolist(),
                    )
                ]
                if rows:
                    file.write(separator + json.dumps(rows)[1:-1])
                    separator = ', '
            file.write(']')

    @staticmethod
    def _table(
        per_class: Dict[str, dict], clusters: Dict[str, Optional[str]]
    ) -> str:
        """Per-class figures as lines of text."""
        by_class: Dict[Optional[str], List[str]] = {}
        for k, name in enumerate(clusters.values()):
            by_class.setdefault(name, []).append(str(k))
        width = max(len('class'), *map(len, per_class))
        lines = [f'{"class":<{width}}  AP30   AP50   AP     clusters']
        for name, row in per_class.items():
            figures = '  '.join(
                f'{row[k]:5.3f}' for k in ('AP30', 'AP50', 'AP')
            )
            matched = ', '.join(by_class.get(name, [])) or '-'
            lines.append(f'{name:<{width}}  {figures}  {matched}')
        return '\n' + '\n'.join(lines)


def _xywh(boxes: np.ndarray) -> np.ndarray:
    """float64 ``xywh`` of (n, 4) ``xyxy``."""
    boxes = boxes.astype(np.float64)
    boxes[:, 2:] -= boxes[:, :2]
    return boxes


def _confusion(
    assigned: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    gt_classes: np.ndarray,
    clusters: List[str],
    classes: List[str],
) -> dict:
    """Clusters of confident detections against classes of their objects."""
    width = len(classes) + 1
    some = (scores >= CONFUSION_SCORE) & (labels >= 0)
    # The last column is the background's, which both -1 pick.
    columns = np.append(gt_classes, -1)[assigned[some]]
    columns[columns < 0] = width - 1
    counts = np.bincount(
        labels[some] * width + columns, minlength=len(clusters) * width
    )
    return dict(
        clusters=clusters,
        classes=[*classes, 'background'],
        counts=counts.reshape(-1, width).tolist(),
        score_thr=CONFUSION_SCORE,
        iou_thr=CONFUSION_IOU,
    )
