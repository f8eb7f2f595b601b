"""PCL: a detector from labels of images (Tang et al., TPAMI 2018).

The weakly supervised baseline of the paper's Table 1. Multiple instance
learning (WSDDN) finds proposals that explain the image's classes; refined
classifiers (OICR, then PCL) learn from the best proposals of the one before.
Facts that the papers leave open follow the authors' public code.
"""

from typing import Dict, List, Optional, Tuple

import torch
import torch.nn.functional as F
from mmdet.models.layers import multiclass_nms
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox2roi, bbox_overlaps
from mmengine.model import BaseModule
from mmengine.structures import InstanceData
from torch import Tensor, nn

from avdet_mm.registry import MODELS, TASK_UTILS

_CENTERS = ('oicr', 'pcl')
_MIN_PROB = 1e-6
Centers = Tuple[Tensor, Tensor, Tensor]


def mil_loss(scores: Tensor, present: Tensor) -> Tensor:
    """Binary cross-entropy of an image's classes, mean over the classes.

    Args:
        scores (Tensor): (n, C) scores of proposals; their sum is the image's.
        present (Tensor): (p,) int64, the classes in the image.

    Returns:
        Tensor: The loss, a scalar.
    """
    image = scores.sum(0).clamp(_MIN_PROB, 1 - _MIN_PROB)
    target = torch.zeros_like(image)
    target[present] = 1
    return -torch.where(target > 0, image.log(), (1 - image).log()).mean()


def oicr_centers(boxes: Tensor, scores: Tensor, present: Tensor) -> Centers:
    """The best proposal of every class in the image.

    A proposal stands for one class only, the first that takes it.

    Args:
        boxes (Tensor): (n, 4) proposals, ``xyxy``.
        scores (Tensor): (n, C).
        present (Tensor): (p,) int64, the classes in the image.

    Returns:
        tuple: Boxes (p, 4), classes (p,) int64 and scores (p,) of the
        centers.
    """
    scores = scores.clone()
    picked, values = [], []
    for label in present:
        values.append(scores[:, label].max())
        picked.append(scores[:, label].argmax())
        scores[picked[-1]] = 0
    if not picked:
        return boxes[:0], present, scores[:0, 0]
    return boxes[torch.stack(picked)], present, torch.stack(values)


def top_scores(scores: Tensor, num_groups: int = 3) -> Tensor:
    """Indices of the scores in the highest group of a k-means.

    Lloyd's algorithm from evenly spaced centers between the smallest and the
    largest score, so that nothing is random.

    Args:
        scores (Tensor): (n,), n >= 1.
        num_groups (int): Number of groups. Defaults to 3.

    Returns:
        Tensor: (m,) int64, m >= 1, ascending.
    """
    low, high = scores.min(), scores.max()
    share = torch.linspace(0, 1, num_groups, device=scores.device)
    means = low + (high - low) * share
    group = None
    while True:
        # Of equally close groups the higher one, which is never empty.
        distance = (scores[:, None] - means).abs().flip(1)
        new = num_groups - 1 - distance.argmin(1)
        if group is not None and torch.equal(new, group):
            return (group == num_groups - 1).nonzero()[:, 0]
        group = new
        member = F.one_hot(group, num_groups).to(scores)
        count = member.sum(0)
        means = torch.where(count > 0, scores @ member / count, means)


def pcl_centers(
    boxes: Tensor,
    scores: Tensor,
    present: Tensor,
    iou: float = 0.4,
    max_centers: int = 5,
) -> Centers:
    """Centers of proposal clusters: several objects of a class are possible.

    Of the proposals with the highest scores of a class
    (:func:`top_scores`), the one that overlaps most others becomes a
    center and takes these along; this repeats until no more than
    ``max_centers`` are left, as in the authors' code. The best score of
    those that a center has taken is its own. Chosen proposals are not
    available to later classes.

    Args:
        boxes (Tensor): (n, 4) proposals, ``xyxy``.
        scores (Tensor): (n, C).
        present (Tensor): (p,) int64, the classes in the image.
        iou (float): Proposals above it are neighbors. Defaults to 0.4.
        max_centers (int): Most centers of a class. Defaults to 5.

    Returns:
        tuple: Boxes (m, 4), classes (m,) int64 and scores (m,) of the
        centers.
    """
    free = torch.ones(len(boxes), dtype=torch.bool, device=boxes.device)
    found = [(boxes[:0], present[:0], scores[:0, 0])]
    for label in present:
        index = free.nonzero()[:, 0]
        if not len(index):
            break
        index = index[top_scores(scores[index, label])]
        graph = bbox_overlaps(boxes[index], boxes[index]) > iou
        graph.fill_diagonal_(True)
        left = torch.ones_like(graph[0])
        picked, values = [], []
        while not picked or left.sum() > max_centers:
            degree = (graph & left).sum(1) * left
            picked.append(degree.argmax())
            near = graph[picked[-1]] & left
            values.append(scores[index[near], label].max())
            left = left & ~near
        values = torch.stack(values)
        values, order = values.topk(min(len(values), max_centers))
        index = index[torch.stack(picked)[order]]
        free[index] = False
        found.append((boxes[index], label.expand(len(index)), values))
    return tuple(torch.cat(parts) for parts in zip(*found))


def assign_proposals(
    boxes: Tensor,
    centers: Centers,
    background: int,
    fg_iou: float = 0.5,
    ignore_iou: float = 0.1,
) -> Tuple[Tensor, Tensor, Tensor]:
    """Give every proposal the class of the center that it overlaps most.

    Args:
        boxes (Tensor): (n, 4) proposals, ``xyxy``.
        centers (tuple): What one of the functions above returned.
        background (int): Label of proposals below ``fg_iou``.
        fg_iou (float): Defaults to 0.5.
        ignore_iou (float): Proposals below have weight 0. Defaults to 0.1.

    Returns:
        tuple: (n,) int64 labels; (n,) weights, the score of the closest
        center; (n,) int64 indices of the closest centers, -1 for
        background.
    """
    center_boxes, center_labels, center_scores = centers
    if not len(center_boxes):
        labels = torch.full_like(boxes[:, 0], background, dtype=torch.long)
        weights = torch.zeros_like(boxes[:, 0])
        return labels, weights, torch.full_like(labels, -1)
    overlap, closest = bbox_overlaps(boxes, center_boxes).max(1)
    weights = center_scores[closest] * (overlap >= ignore_iou)
    is_fg = overlap >= fg_iou
    labels = torch.where(
        is_fg, center_labels[closest], torch.full_like(closest, background)
    )
    return labels, weights, torch.where(is_fg, closest, -1)


def oicr_loss(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Weighted cross-entropy, mean over proposals.

    Args:
        logits (Tensor): (n, C + 1).
        labels (Tensor): (n,) int64.
        weights (Tensor): (n,).

    Returns:
        Tensor: The loss, a scalar.
    """
    return (F.cross_entropy(logits, labels, reduction='none') * weights).mean()


def pcl_loss(
    logits: Tensor, labels: Tensor, weights: Tensor, clusters: Tensor
) -> Tensor:
    """Proposals of a center as one bag, those of the background one by one.

    A bag costs minus the sum of its weights times the logarithm of its mean
    probability; the sum is divided by the number of proposals.

    Args:
        logits (Tensor): (n, C + 1).
        labels (Tensor): (n,) int64.
        weights (Tensor): (n,).
        clusters (Tensor): (n,) int64, -1 for background.

    Returns:
        Tensor: The loss, a scalar.
    """
    entropy = F.cross_entropy(logits, labels, reduction='none')
    loss = (entropy * weights)[clusters < 0].sum()
    for cluster in clusters[clusters >= 0].unique():
        bag = clusters == cluster
        mean = (-entropy[bag]).exp().mean().clamp(min=_MIN_PROB)
        loss = loss - weights[bag].sum() * mean.log()
    return loss / len(labels)


@MODELS.register_module()
class PCLRoIHead(BaseModule):
    """RoI head that learns to detect from the classes of images.

    It goes into a stock ``mmdet.FastRCNN``, on proposals of
    :class:`SelectiveSearchProposals`. Of ``gt_instances`` only the set of
    ``labels`` is read, never a box. Two layers shared by all outputs, then:

    - multiple instance learning: softmax over proposals times softmax over
      classes; their sum over proposals is the image's score (``loss_mil``);
    - refinements with C + 1 classes: each learns from the centers that the
      output before chooses (``loss_refine0``, ...);
    - a Fast R-CNN branch, class and box, that learns from the last
      refinement.

    The score of a box is the mean of the refinements, averaged with that of
    the Fast R-CNN branch. The authors' testing on several scales is left
    out: MMDetection has none for detectors with given proposals.

    Args:
        num_classes (int): Number of classes C.
        in_channels (int): Channels of the feature map.
        bbox_roi_extractor (dict): Config of ``mmdet.SingleRoIExtractor``
            with one level. (The authors' RoIPool has no version for CPUs in
            MMCV; the configs take RoIAlign.)
        fc_channels (int): Width of the two shared layers. Defaults to 1024,
            MMDetection's; the authors' VGG16 has 4096.
        num_refinements (int): At least 1. Defaults to 3.
        centers (str): ``'oicr'``, the best proposal of a class, or
            ``'pcl'``, graph centers and bags. Defaults to ``'oicr'``, with
            which the authors' code now trains in spite of its name.
        fg_iou (float): IoU from which on a proposal shares the class of its
            center. Defaults to 0.5.
        ignore_iou (float): IoU below which it is ignored. Defaults to 0.1.
        first_weight (float): Weight of the first refinement, whose centers
            have the small scores of the MIL output. Defaults to 3.
        with_fast_rcnn (bool): Whether to add the Fast R-CNN branch, which
            the authors' code has and their paper has not.
            Defaults to True.
        train_cfg (dict, optional): Not used; MMDetection passes it.
        test_cfg (dict, optional): ``score_thr``, ``nms`` and
            ``max_per_img``, as of MMDetection's heads. Needed to predict.
        init_cfg (dict, optional): Defaults to None: outputs start from
            normal distributions as in the authors' code, with 0.001 for
            boxes and 0.01 for all others.

    Raises:
        ValueError: If ``centers`` is unknown or ``num_refinements`` below 1.
    """

    with_bbox = True
    with_mask = False
    with_shared_head = False

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        bbox_roi_extractor: dict,
        fc_channels: int = 1024,
        num_refinements: int = 3,
        centers: str = 'oicr',
        fg_iou: float = 0.5,
        ignore_iou: float = 0.1,
        first_weight: float = 3.0,
        with_fast_rcnn: bool = True,
        train_cfg: Optional[dict] = None,
        test_cfg: Optional[dict] = None,
        init_cfg: Optional[dict] = None,
    ) -> None:
        if centers not in _CENTERS:
            raise ValueError(
                f'`centers` must be one of {_CENTERS}, got {centers!r}.'
            )
        if num_refinements < 1:
            raise ValueError(
                '`num_refinements` must be at least 1: detections are '
                f'scored by them; got {num_refinements}.'
            )
        super().__init__(init_cfg)
        self.num_classes = num_classes
        self.centers = centers
        self.fg_iou = fg_iou
        self.ignore_iou = ignore_iou
        self.first_weight = first_weight
        self.test_cfg = test_cfg
        self.bbox_roi_extractor = MODELS.build(bbox_roi_extractor)
        area = self.bbox_roi_extractor.roi_layers[0].output_size
        self.shared = nn.Sequential(
            nn.Flatten(),
            nn.Linear(in_channels * area[0] * area[1], fc_channels),
            nn.ReLU(inplace=True),
            nn.Linear(fc_channels, fc_channels),
            nn.ReLU(inplace=True),
        )

        def output(channels: int, std: float = 0.01) -> nn.Linear:
            layer = nn.Linear(fc_channels, channels)
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)
            return layer

        self.mil_proposal = output(num_classes)
        self.mil_class = output(num_classes)
        self.refine = nn.ModuleList(
            output(num_classes + 1) for _ in range(num_refinements)
        )
        self.with_fast_rcnn = with_fast_rcnn
        if with_fast_rcnn:
            self.fast_class = output(num_classes + 1)
            self.fast_box = output(4 * num_classes, std=0.001)
            self.bbox_coder = TASK_UTILS.build(
                dict(
                    type='mmdet.DeltaXYWHBBoxCoder',
                    target_stds=[0.1, 0.1, 0.2, 0.2],
                )
            )

    def forward(
        self,
        x: Tuple[Tensor],
        proposals: List[InstanceData],
        data_samples: Optional[List[DetDataSample]] = None,
    ) -> List[Dict[str, Tensor]]:
        """Outputs for the proposals of every image.

        Args:
            x (tuple[Tensor]): One feature map (B, in_channels, h, w).
            proposals (list[InstanceData]): B times ``bboxes`` (n, 4).
            data_samples (list[DetDataSample], optional): Not looked at.

        Returns:
            list[dict[str, Tensor]]: For every image ``mil`` (n, C) scores,
            ``refine`` (R, n, C + 1) logits, and, with the Fast R-CNN branch,
            ``fast_class`` (n, C + 1) logits and ``fast_box`` (n, 4 * C).
        """
        rois = bbox2roi([p.bboxes for p in proposals])
        pooled = self.bbox_roi_extractor(
            x[: self.bbox_roi_extractor.num_inputs], rois
        )
        outputs = []
        for feats in self.shared(pooled).split([len(p) for p in proposals]):
            out = dict(
                mil=self.mil_proposal(feats).float().softmax(0)
                * self.mil_class(feats).float().softmax(1),
                refine=torch.stack([f(feats).float() for f in self.refine]),
            )
            if self.with_fast_rcnn:
                out['fast_class'] = self.fast_class(feats).float()
                out['fast_box'] = self.fast_box(feats).float()
            outputs.append(out)
        return outputs

    def loss(
        self,
        x: Tuple[Tensor],
        proposals: List[InstanceData],
        data_samples: List[DetDataSample],
    ) -> Dict[str, Tensor]:
        """Losses, each the mean over the images.

        Args:
            x (tuple[Tensor]): One feature map (B, in_channels, h, w).
            proposals (list[InstanceData]): B times ``bboxes`` (n, 4).
            data_samples (list[DetDataSample]): B samples, of which the
                ``labels`` of ``gt_instances`` are read.

        Returns:
            dict[str, Tensor]: ``loss_mil``, ``loss_refine0``, ..., and with
            the Fast R-CNN branch ``loss_cls`` and ``loss_bbox``.

        Raises:
            ValueError: If an image has no proposals.
        """
        if not all(len(p) for p in proposals):
            raise ValueError(
                'An image has no proposals to choose from; '
                'avdet_mm.SelectiveSearchProposals finds some in any image.'
            )
        losses = [
            self._image_losses(
                out, p.bboxes, sample.gt_instances.labels.unique()
            )
            for out, p, sample in zip(
                self(x, proposals), proposals, data_samples
            )
        ]
        return {
            key: torch.stack([image[key] for image in losses]).mean()
            for key in losses[0]
        }

    def _image_losses(
        self, out: Dict[str, Tensor], boxes: Tensor, present: Tensor
    ) -> Dict[str, Tensor]:
        """Losses of one image."""
        losses = dict(loss_mil=mil_loss(out['mil'], present))
        scores = out['mil'].detach()
        find = oicr_centers if self.centers == 'oicr' else pcl_centers
        for i, logits in enumerate(out['refine']):
            labels, weights, clusters = self._assign(
                boxes, find(boxes, scores, present)
            )
            if self.centers == 'oicr':
                loss = oicr_loss(logits, labels, weights)
            else:
                loss = pcl_loss(logits, labels, weights, clusters)
            losses[f'loss_refine{i}'] = loss * (
                self.first_weight if i == 0 else 1
            )
            scores = logits.detach().softmax(1)[:, :-1]
        if self.with_fast_rcnn:
            # One center per class, whatever the refinements have.
            centers = oicr_centers(boxes, scores, present)
            labels, weights, closest = self._assign(boxes, centers)
            losses['loss_cls'] = oicr_loss(out['fast_class'], labels, weights)
            fg = (closest >= 0).nonzero()[:, 0]
            deltas = out['fast_box'].view(len(boxes), -1, 4)[fg, labels[fg]]
            targets = self.bbox_coder.encode(
                boxes[fg], centers[0][closest[fg]]
            )
            loss = F.smooth_l1_loss(deltas, targets, reduction='none').sum(1)
            losses['loss_bbox'] = (loss * weights[fg]).sum() / len(boxes)
        return losses

    def _assign(
        self, boxes: Tensor, centers: Centers
    ) -> Tuple[Tensor, Tensor, Tensor]:
        return assign_proposals(
            boxes, centers, self.num_classes, self.fg_iou, self.ignore_iou
        )

    def predict(
        self,
        x: Tuple[Tensor],
        proposals: List[InstanceData],
        data_samples: List[DetDataSample],
        rescale: bool = False,
    ) -> List[InstanceData]:
        """Score the proposals and keep the best ones.

        Args:
            x (tuple[Tensor]): One feature map (B, in_channels, h, w).
            proposals (list[InstanceData]): B times ``bboxes`` (n, 4).
            data_samples (list[DetDataSample]): B samples with ``img_shape``
                and ``scale_factor`` in the meta info.
            rescale (bool): Whether boxes are to be in original pixels.
                Defaults to False.

        Returns:
            list[InstanceData]: B times ``bboxes`` (m, 4) ``xyxy``,
            ``scores`` (m,) and ``labels`` (m,) int64.
        """
        results = []
        for out, p, sample in zip(self(x, proposals), proposals, data_samples):
            scores = out['refine'].softmax(2).mean(0)
            boxes = p.bboxes
            if self.with_fast_rcnn:
                scores = (scores + out['fast_class'].softmax(1)) / 2
                boxes = self.bbox_coder.decode(
                    boxes, out['fast_box'], max_shape=sample.img_shape
                )
            if rescale:
                scale = boxes.new_tensor(sample.scale_factor)
                boxes = boxes / scale.repeat(boxes.shape[1] // 2)
            found, labels = multiclass_nms(
                boxes,
                scores,
                self.test_cfg['score_thr'],
                self.test_cfg['nms'],
                self.test_cfg['max_per_img'],
            )
            results.append(
                InstanceData(
                    bboxes=found[:, :4], scores=found[:, 4], labels=labels
                )
            )
        return results
