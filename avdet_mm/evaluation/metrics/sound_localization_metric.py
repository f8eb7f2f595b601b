"""Table 2: heatmaps and boxes by the protocols of sound localization."""

from typing import Dict, Hashable, List, NamedTuple, Optional, Sequence, Union

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger

from avdet_mm.models.task_modules import ClusterMatcher
from avdet_mm.registry import METRICS

from ..functional import (
    PROTOCOLS,
    binarize,
    box_map,
    class_iou,
    grid_boxes,
    grid_map,
    protocol_figures,
    pseudo_heatmap,
    silent_share,
    success_rates,
    weighted_iou,
)
from .ground_truth import (
    gt_instances_of,
    img_id_of,
    load_coco_json,
    names_of_labels,
)

_RULES = dict(
    dsol='map > {:g} of its maximum',
    lvs='map > its middle value',
    ez_vsl='map >= its middle value',
)
_CLASS_MAPS = dict(
    labels='boxes of the class',
    class_heatmaps='heatmaps of the class',
    shared='the same map for every class in the frame',
)


def _array(value: Union[torch.Tensor, np.ndarray]) -> np.ndarray:
    """A tensor of any device and type, or an array, as an array."""
    value = torch.as_tensor(value).cpu()
    return (value.float() if value.is_floating_point() else value).numpy()


class _Truth(NamedTuple):
    """Ground truth of a frame.

    Attributes:
        boxes (np.ndarray): (n, 4) in pixels of the grid.
        classes (list): n names, or numbers where there are no names.
        ori_shape (tuple[int, int]): Height and width of the frame.
    """

    boxes: np.ndarray
    classes: List[Hashable]
    ori_shape: Sequence[int]

    def maps(self) -> Dict[Hashable, np.ndarray]:
        """Map of each class that is in the frame."""
        classes = np.array(self.classes, dtype=object)
        return {
            name: box_map(self.boxes[classes == name])
            for name in dict.fromkeys(self.classes)
        }


@METRICS.register_module()
class SoundLocalizationMetric(BaseMetric):
    """Success rates and AUC of heatmaps, as published evaluators compute them.

    =================  =================================  =================
    protocol           frames                             figures
    =================  =================================  =================
    ``dsol_single``    with objects of one class          ``iou50, auc``
    ``dsol_multi``     with objects of several classes    ``ciou30, nsa``
    ``lvs_vggss``      all                                ``ciou50, auc``
    ``lvs_flickr``     all; boxes are annotators' votes   ``ciou50, auc``
    ``ez_vsl_vggss``   all                                ``ap50,
                                                          mean_ciou, auc``
    ``ez_vsl_flickr``  all; boxes are annotators' votes   likewise
    =================  =================================  =================

    Their rules: :mod:`avdet_mm.evaluation.functional.localization`. A frame
    without a box (of a sounding object) is left out by DSOL's and counts as
    IoU 0 by the others. The rules differ, so compare figures of one protocol
    only.

    Heatmaps are brought to the original frame first; what the network did
    not see of it counts as not predicted. Boxes become a map of ones (inside
    of boxes with a score above ``score_thr``) and zeros: the paper's
    pseudo-heatmaps (Sec. 4.4), for DSOL's protocols and LVS's.

    Where ``dsol_multi`` has the map of a class from: boxes with the class's
    labels; the sample's ``class_heatmaps``, of which those of a class are
    summed; or else the sample's one map, which then serves every class in
    the frame, as DSOL's own comparison has it (compare_ciou_class.py). NSA,
    the mean share of silent pixels (at most 0.2) in maps of classes that are
    not in the frame, is nan with one map. With heatmaps these are the maps
    of all clusters that stand for no class in the frame, one by one; they
    have to be in [0, 1].

    Args:
        protocols (Sequence[str]): Which of the above.
        source (str): ``'heatmap'`` or ``'boxes'``. Defaults to 'heatmap'.
        score_thr (float): Score above which a box counts. The paper's is
            lost; ours is MMDetection's for showing detections. Defaults to
            0.3.
        single_thr (float): For ``dsol_single``, share of the map's maximum.
            DSOL has one for each data set: 0.1 for MUSIC, 0.5 for synthetic
            mixtures, 0.2 for duets, and 0.0001 in an older script that reads
            AudioSet's files; which was used there is not published. Defaults
            to 0.1.
        multi_thr (float): For ``dsol_multi``. Defaults to 0.2.
        ann_file (str, optional): COCO json with the ground truth; samples
            then need ``img_id``. Annotations that have ``sounding`` false
            are left out. Without it, ground truth is the samples'
            ``gt_instances``, of which the sounding ones. Defaults to None.
        matching (str, optional): Json of tools/match_clusters.py, of which
            the first matching turns labels, or the places of
            ``class_heatmaps``, into classes. Without it they are classes
            already. Defaults to None.
        class_aware (bool): Whether labels or ``class_heatmaps`` tell
            classes apart; if not, ``dsol_multi`` uses one map for all.
            Defaults to True.
        collect_device (str): Defaults to 'cpu'.
        prefix (str, optional): Defaults to None, which means 'ssl'.

    Raises:
        FileNotFoundError: If ``ann_file`` or ``matching`` does not exist.
        ValueError: If a protocol is unknown or cannot be used with boxes, or
            ``source`` is.

    Attributes:
        details (dict): After evaluation: ``source``, ``score_thr``,
            ``ann_file``, ``matching`` and ``protocols``, name to its
            figures, thresholds, ``success`` (share of frames of IoU 0, 0.05,
            ..., 1), ``num_frames`` that were taken, ``num_empty`` without a
            box and ``num_other``, left out for their number of classes.

    Example:
        >>> test_evaluator = dict(
        ...     type='avdet_mm.SoundLocalizationMetric',
        ...     protocols=['dsol_single', 'dsol_multi'])
    """

    default_prefix = 'ssl'

    def __init__(
        self,
        protocols: Sequence[str],
        source: str = 'heatmap',
        score_thr: float = 0.3,
        single_thr: float = 0.1,
        multi_thr: float = 0.2,
        ann_file: Optional[str] = None,
        matching: Optional[str] = None,
        class_aware: bool = True,
        collect_device: str = 'cpu',
        prefix: Optional[str] = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        if isinstance(protocols, str):
            protocols = [protocols]
        unknown = [name for name in protocols if name not in PROTOCOLS]
        if unknown or not protocols:
            raise ValueError(
                f'protocols must be some of {", ".join(PROTOCOLS)}, got '
                f'{", ".join(map(repr, unknown)) or "none"}.'
            )
        if source not in ('heatmap', 'boxes'):
            raise ValueError(
                f"source must be 'heatmap' or 'boxes', got {source!r}."
            )
        refused = [
            name for name in protocols if PROTOCOLS[name].evaluator == 'ez_vsl'
        ]
        if source == 'boxes' and refused:
            raise ValueError(
                f'{", ".join(refused)} cannot be used with boxes: of a map '
                'of zeros and ones, EZ-VSL takes the whole frame. Use '
                'protocols of DSOL or LVS.'
            )
        self.protocols = list(dict.fromkeys(protocols))
        self.source = source
        self.score_thr = score_thr
        self.thrs = dict(dsol_single=single_thr, dsol_multi=multi_thr)
        self.matching = matching
        self.matcher: Optional[ClusterMatcher] = None
        if matching is not None:
            self.matcher = next(
                iter(ClusterMatcher.from_json(matching).values())
            )
        self.class_aware = class_aware
        self.ann_file = ann_file
        self.truths: Optional[Dict[int, _Truth]] = None
        self.categories: List[str] = []
        if ann_file is not None:
            self._load_truths(ann_file)
        self.details: dict = {}

    # ----------------------------------------------------------------------
    # Ground truth and classes
    # ----------------------------------------------------------------------
    def _load_truths(self, ann_file: str) -> None:
        """Read a COCO json."""
        content = load_coco_json(
            ann_file, ('images', 'annotations', 'categories')
        )
        names = {c['id']: c['name'] for c in content['categories']}
        self.categories = list(names.values())
        found = {image['id']: [] for image in content['images']}
        for ann in content['annotations']:
            if ann.get('sounding', True):
                found[ann['image_id']].append(ann)
        self.truths = {}
        for image in content['images']:
            anns = found[image['id']]
            boxes = np.array([a['bbox'] for a in anns], dtype=np.float64)
            boxes = boxes.reshape(-1, 4)
            boxes[:, 2:] += boxes[:, :2]
            self.truths[image['id']] = self._truth(
                boxes,
                [names[a['category_id']] for a in anns],
                (image['height'], image['width']),
            )

    @staticmethod
    def _truth(
        boxes: np.ndarray, classes: Sequence, ori_shape: Sequence[int]
    ) -> _Truth:
        boxes, kept = grid_boxes(boxes, ori_shape)
        return _Truth(
            boxes, [c for c, k in zip(classes, kept) if k], ori_shape
        )

    def _truth_of(self, sample: dict) -> _Truth:
        """Ground truth of a sample."""
        if self.truths is not None:
            img_id = img_id_of(sample, self.ann_file)
            if img_id not in self.truths:
                raise KeyError(
                    f'{self.ann_file} has no image {img_id!r}: it belongs to '
                    'another data set.'
                )
            return self.truths[img_id]
        gt = gt_instances_of(sample)
        boxes, labels = _array(gt['bboxes']), _array(gt['labels'])
        if 'sounding' in gt:
            sounding = _array(gt['sounding']).astype(bool)
            boxes, labels = boxes[sounding], labels[sounding]
        names = (self.dataset_meta or {}).get('classes')
        classes = [names[i] if names else int(i) for i in labels]
        return self._truth(boxes, classes, sample['ori_shape'])

    def _names(self) -> List[Optional[str]]:
        """Class of every label that can be predicted, None for no class."""
        known = list((self.dataset_meta or {}).get('classes') or ())
        if self.matcher is not None:
            # The None at the end is what -1 picks.
            classes = [*self.matcher.classes, None]
            names = [classes[c] for c in self.matcher.matching]
            known = self.categories or known
        elif self.categories:
            names = names_of_labels(self.categories, known)
        else:
            names = known
        if not set(names) & set(known) - {None}:
            raise ValueError(
                'Predictions and ground truth have no class in common: '
                f'{names} against {known}. Name the `classes` in the data '
                "set's meta info, give a `matching` for clusters, or set "
                '`class_aware=False` to use one map for all classes.'
            )
        return names

    # ----------------------------------------------------------------------
    # Predictions
    # ----------------------------------------------------------------------
    def _grid_map(
        self, heatmap: np.ndarray, sample: dict, evaluator: str
    ) -> tuple:
        return grid_map(
            heatmap,
            sample['homography_matrix'],
            sample['img_shape'],
            sample['ori_shape'],
            align_corners=evaluator == 'ez_vsl',
        )

    def _map(self, sample: dict, truth: _Truth, evaluator: str) -> tuple:
        """Values on the grid, and what was seen, without classes."""
        if self.source == 'boxes':
            return pseudo_heatmap(self._pred_boxes(sample, truth)[0]), None
        if sample.get('heatmap') is None:
            raise KeyError(
                'A sample has no `heatmap`: the model gives none. Set '
                "`source='boxes'` to measure its boxes."
            )
        return self._grid_map(_array(sample['heatmap']), sample, evaluator)

    def _pred_boxes(self, sample: dict, truth: _Truth) -> tuple:
        """Boxes (n, 4) on the grid and labels (n,) above the threshold."""
        pred = sample['pred_instances']
        kept = _array(pred['scores']) > self.score_thr
        boxes, valid = grid_boxes(
            _array(pred['bboxes'])[kept], truth.ori_shape
        )
        return boxes, _array(pred['labels'])[kept][valid]

    def _multi(self, sample: dict, truth: _Truth) -> dict:
        """Class-aware cIoU and silent share of a frame."""
        thr = self.thrs['dsol_multi']
        truths = truth.maps()
        silent = None
        if not self.class_aware or (
            self.source == 'heatmap' and sample.get('class_heatmaps') is None
        ):
            kind = 'shared'
            values, seen = self._map(sample, truth, 'dsol')
            mask = binarize(values, 'dsol', thr, seen)
            masks = dict.fromkeys(truths, mask)
        else:
            names = self._names()
            absent = []
            if self.source == 'boxes':
                kind = 'labels'
                boxes, labels = self._pred_boxes(sample, truth)
                self._check(labels.max(initial=-1) < len(names), names)
                found = np.array([*names, None], dtype=object)[labels]
                masks = {
                    name: pseudo_heatmap(boxes[found == name]) > 0
                    for name in set(names) - {None}
                }
                absent = [
                    silent_share(mask)
                    for name, mask in masks.items()
                    if name not in truths
                ]
            else:
                kind = 'class_heatmaps'
                maps = _array(sample['class_heatmaps'])
                self._check(len(maps) == len(names), names)
                masks = {}
                for name in truths:
                    own = [k for k, n in enumerate(names) if n == name]
                    if own:
                        values, seen = self._grid_map(
                            maps[own].sum(axis=0), sample, 'dsol'
                        )
                        masks[name] = binarize(values, 'dsol', thr, seen)
                for k, name in enumerate(names):
                    if name not in truths:
                        values, _ = self._grid_map(maps[k], sample, 'dsol')
                        absent.append(silent_share(values))
            silent = float(np.mean(absent)) if absent else None
        return dict(iou=class_iou(masks, truths), silent=silent, maps=kind)

    @staticmethod
    def _check(fits: bool, names: Sequence[Optional[str]]) -> None:
        if not fits:
            raise ValueError(
                f'The predictions do not fit the {len(names)} classes or '
                'clusters that are known. If they are clusters, this metric '
                'needs the `matching` of this model.'
            )

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Measure every frame by every protocol.

        Args:
            data_batch (dict): Not looked at.
            data_samples (Sequence[dict]): With ``heatmap`` (h, w) or
                ``class_heatmaps`` (K, h, w) over the network's input,
                ``img_shape`` and ``homography_matrix``, or with
                ``pred_instances`` in original pixels; with ``ori_shape``;
                and with ``gt_instances`` in original pixels or ``img_id``.

        Raises:
            KeyError: If a sample lacks what is needed; says what.
            ValueError: If predictions and classes do not fit.
        """
        for sample in data_samples:
            truth = self._truth_of(sample)
            number = min(len(set(truth.classes)), 2)
            result = {}
            for name in self.protocols:
                protocol = PROTOCOLS[name]
                wanted = protocol.num_classes
                if not number and not protocol.empty_counts:
                    result[name] = 'empty'
                elif not number:
                    result[name] = dict(iou=0.0, empty=True)
                elif wanted is not None and number != wanted:
                    result[name] = 'other'
                elif name == 'dsol_multi':
                    result[name] = self._multi(sample, truth)
                else:
                    values, seen = self._map(sample, truth, protocol.evaluator)
                    mask = binarize(
                        values, protocol.evaluator, self.thrs.get(name), seen
                    )
                    target = box_map(truth.boxes, protocol.consensus)
                    result[name] = dict(iou=weighted_iou(mask, target))
            self.results.append(result)

    def compute_metrics(self, results: List[dict]) -> Dict[str, float]:
        """Summarize by protocol.

        Args:
            results (list[dict]): What :meth:`process` kept, of all ranks.

        Returns:
            dict[str, float]: ``<protocol>_<figure>`` in [0, 1]; nan where a
            protocol has no frames.
        """
        logger = MMLogger.get_current_instance()
        metrics = {}
        self.details = dict(
            source=self.source,
            score_thr=self.score_thr if self.source == 'boxes' else None,
            ann_file=self.ann_file,
            matching=self.matching,
            protocols={},
        )
        for name in self.protocols:
            protocol = PROTOCOLS[name]
            found = [r[name] for r in results]
            taken = [f for f in found if isinstance(f, dict)]
            ious = [f['iou'] for f in taken]
            silent = [
                f['silent'] for f in taken if f.get('silent') is not None
            ]
            figures = protocol_figures(protocol, ious, silent)
            metrics.update({f'{name}_{k}': v for k, v in figures.items()})

            rule = _RULES[protocol.evaluator].format(self.thrs.get(name))
            if self.source == 'boxes':
                rule = f'boxes of score > {self.score_thr:g}'
            detail = self.details['protocols'][name] = dict(
                {k: v if v == v else None for k, v in figures.items()},
                rule=rule,
                map_thr=self.thrs.get(name),
                iou_thrs={
                    k: round(float(v), 2)
                    for k, v in protocol.figures.items()
                    if not isinstance(v, str)
                },
                success=success_rates(ious).tolist() if ious else None,
                num_frames=len(taken),
                num_empty=found.count('empty')
                + sum('empty' in f for f in taken),
                num_other=found.count('other'),
            )
            if name == 'dsol_multi':
                kinds = {f['maps'] for f in taken}
                detail['class_maps'] = ', '.join(
                    text for kind, text in _CLASS_MAPS.items() if kind in kinds
                )
            self._log(logger, name, figures, detail)
        return metrics

    @staticmethod
    def _log(
        logger: MMLogger, name: str, figures: Dict[str, float], detail: dict
    ) -> None:
        """One line with figures and what they depend on."""
        empty = (
            'counted as IoU 0' if PROTOCOLS[name].empty_counts else 'left out'
        )
        maps = detail.get('class_maps')
        logger.info(
            '%s: %s (%s%s; %d frames; %d without a box, %s; %d with another '
            'number of classes)',
            name,
            ', '.join(f'{k} {v:.4f}' for k, v in figures.items()),
            detail['rule'],
            f'; {maps}' if maps else '',
            detail['num_frames'],
            detail['num_empty'],
            empty,
            detail['num_other'],
        )
        if not detail['num_frames']:
            logger.warning(
                'No frame is one for %s, so its figures are nan.', name
            )
