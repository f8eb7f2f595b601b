"""Detection AP after clusters have been matched to classes."""

from typing import Dict, List, Optional, Sequence, Tuple

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.fileio import load
from mmengine.logging import MMLogger

from avdet_mm.models.task_modules import ClusterMatcher
from avdet_mm.registry import METRICS

from ..functional import detection_ap


def _array(value) -> np.ndarray:
    """A tensor or anything else as an array."""
    return value.cpu().numpy() if hasattr(value, 'cpu') else np.asarray(value)


@METRICS.register_module()
class MatchedCocoMetric(BaseMetric):
    """AP30, AP50 and AP50:95 of detections whose labels are clusters.

    Labels are turned into classes by the matching that
    ``tools/match_clusters.py`` fitted on training clips; nothing is fitted
    here. Detections of unmatched clusters, and of clusters that stand for
    a class which the ground truth does not name, play no part in the
    class-aware figures. The class-agnostic figures (prefix ``agnostic_``)
    ignore labels, so all detections take part in them. See
    :func:`~avdet_mm.evaluation.functional.detection_ap`.

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
        collect_device (str): Defaults to 'cpu'.
        prefix (str, optional): Defaults to None, which means 'coco'.

    Raises:
        FileNotFoundError: If ``ann_file`` or ``matching`` does not exist.
        ValueError: If ``matching`` is given but ``class_aware`` is off.

    The metrics are ``AP30, AP50, AP, agnostic_AP30, agnostic_AP50,
    agnostic_AP``; nan if there is no ground truth.

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
        self.matcher: Optional[ClusterMatcher] = None
        if matching is not None:
            self.matcher = ClusterMatcher.from_json(matching)
        self.class_aware = class_aware
        self.max_dets = max_dets
        self.ann_file = ann_file
        self.ground_truth: Optional[dict] = None
        if ann_file is not None:
            self.ground_truth = load(ann_file)
            missing = {'images', 'categories'} - set(self.ground_truth)
            if missing:
                raise ValueError(
                    f'{ann_file} is not a COCO json: it lacks '
                    f'{" and ".join(sorted(missing))}.'
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
            result = {
                key: _array(pred[key])
                for key in ('bboxes', 'scores', 'labels')
            }
            if self.ground_truth is not None:
                if 'img_id' not in sample:
                    raise KeyError(
                        'A sample has no `img_id`, so it cannot be found in '
                        f'{self.ann_file}. Leave `ann_file` out to take '
                        'ground truth from the clip table.'
                    )
                result['image_id'] = sample['img_id']
            else:
                if 'gt_instances' not in sample:
                    raise KeyError(
                        'A sample has no `gt_instances`: give its clip '
                        '`instances` in the clip table, or give this metric '
                        'an `ann_file`.'
                    )
                gt = sample['gt_instances']
                result['gt'] = {
                    key: _array(gt[key]) for key in ('bboxes', 'labels')
                }
            self.results.append(result)

    def _collected_ground_truth(self, results: List[dict]) -> dict:
        """Ground truth from the samples, as the content of a COCO json."""
        classes = self._class_names() if self.class_aware else []
        annotations = []
        for image_id, result in enumerate(results):
            result['image_id'] = image_id
            boxes = result['gt']['bboxes'].astype(np.float64).reshape(-1, 4)
            boxes[:, 2:] -= boxes[:, :2]
            for box, label in zip(boxes, result['gt']['labels']):
                annotations.append(
                    dict(
                        image_id=image_id,
                        bbox=box.tolist(),
                        category_id=int(label),
                    )
                )
        return dict(
            images=[dict(id=i) for i in range(len(results))],
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

    def _category_of_label(
        self, ground_truth: dict
    ) -> Tuple[np.ndarray, List[str]]:
        """Category id of every class that a label can mean, -1 for none.

        Returns:
            tuple: (C,) int64 category ids, and the C names.
        """
        by_name = {c['name']: c['id'] for c in ground_truth['categories']}
        if self.matcher is not None:
            names = list(self.matcher.classes)
        else:
            # mmdet.CocoDataset numbers classes in the order of the json,
            # whatever their order in its meta info.
            wanted = set(self._class_names())
            names = [n for n in by_name if n in wanted]
        ids = np.array([by_name.get(n, -1) for n in names], dtype=np.int64)
        if not (ids >= 0).any():
            source = 'The matching' if self.matcher else 'The data set'
            known = names if self.matcher else list(self._class_names())
            raise ValueError(
                f'{source} and the ground truth have no class in common: '
                f'{known} against {list(by_name)}. Is the annotation file '
                'from elsewhere'
                + (
                    '?'
                    if self.matcher
                    else ', or should a `matching` be given?'
                )
            )
        return ids, names

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

        if self.class_aware:
            ids, names = self._category_of_label(ground_truth)
            dropped = total = 0
            for result in results:
                labels = result['labels']
                if self.matcher is not None:
                    labels = self.matcher.map(labels)
                elif labels.size and labels.max() >= len(ids):
                    raise ValueError(
                        f'Label {labels.max()} was predicted, but only '
                        f'{len(ids)} classes are known. If labels are '
                        'clusters, this metric needs a `matching`.'
                    )
                # The -1 at the end is what label -1 picks.
                result['category_ids'] = np.append(ids, -1)[labels]
                dropped += (result['category_ids'] < 0).sum()
                total += len(labels)
            if dropped:
                logger.info(
                    '%d of %d detections have no class in the ground truth '
                    'and count class-agnostically only.',
                    dropped,
                    total,
                )

        detections = [row for r in results for row in self._rows(r)]
        metrics = detection_ap(
            ground_truth,
            detections,
            class_aware=self.class_aware,
            max_dets=self.max_dets,
        )
        per_class = metrics.pop('per_class', {})
        if per_class:
            logger.info(self._table(per_class))
        if not ground_truth.get('annotations'):
            logger.warning('There is no ground truth at all, so AP is nan.')
        return metrics

    @staticmethod
    def _rows(result: dict) -> List[dict]:
        """Predictions of one image as COCO results."""
        boxes = result['bboxes'].astype(np.float64).reshape(-1, 4)
        boxes[:, 2:] -= boxes[:, :2]
        scores = result['scores'].astype(np.float64)
        cats = result.get('category_ids', np.full(len(boxes), -1))
        return [
            dict(
                image_id=result['image_id'],
                bbox=box,
                score=score,
                category_id=cat,
            )
            for box, score, cat in zip(
                boxes.tolist(), scores.tolist(), cats.tolist()
            )
        ]

    def _table(self, per_class: Dict[str, dict]) -> str:
        """Per-class figures as lines of text."""
        clusters = {}
        if self.matcher is not None:
            for k, c in enumerate(self.matcher.matching):
                if c >= 0:
                    clusters.setdefault(self.matcher.classes[c], []).append(
                        str(k)
                    )
        width = max(len('class'), *map(len, per_class))
        lines = [f'{"class":<{width}}  AP30   AP50   AP     clusters']
        for name, row in per_class.items():
            figures = '  '.join(
                f'{row[k]:5.3f}' for k in ('AP30', 'AP50', 'AP')
            )
            matched = ', '.join(clusters.get(name, [])) or '-'
            lines.append(f'{name:<{width}}  {figures}  {matched}')
        return '\n' + '\n'.join(lines)
