"""Self-training rounds: a detector's boxes become the next labels.

Beyond the paper, whose detector is trained once. Self-boxes are noisy one by
one and name what is heard alone; a detector that was trained on all of them
averages their noise, and finds silent instances too.
"""
import copy
import datetime
from typing import Dict, List, Optional, Tuple

import mmengine.fileio as fileio
import numpy as np
import torch
from mmengine.config import Config, ConfigDict
from mmengine.dist import gather_object, is_main_process
from torch.nn import Module
from torch.utils.data import DataLoader

from avdet_mm.engine.utils import unwrap
from avdet_mm.evaluation.functional import box_iou
from avdet_mm.utils.progress import Progress
from avdet_mm.version import __version__

from .publish_detector import num_classes_in

# Boxes that overlap more show the same object.
SAME_IOU = 0.5
# Pixels; mmdet.CocoDataset leaves out boxes with a shorter side.
MIN_SIDE = 1.
Detections = Dict[str, np.ndarray]


def next_labels(labels: dict,
                detections: Dict[int, Detections],
                anchor_thr: float = 0.05,
                score_thr: float = 0.8,
                max_boxes: Optional[int] = None,
                info: Optional[dict] = None) -> dict:
    """Labels of the next round, by a rule of ours.

    Of each image:

    1. The clip's own cluster, what is heard, is that of its self-box. The
       best detection of that cluster, if its score is at least
       ``anchor_thr``, replaces the self-box (several, if it has several);
       otherwise they stay. The threshold is low, since the sound has said
       already that there is such an object.
    2. Detections of any cluster with a score of at least ``score_thr`` are
       added, best first, unless their IoU with a box that the image has by
       now is above 0.5, whatever its cluster: mostly silent instances,
       which the self-labels call background. They are marked with
       ``added`` and decided anew in every round.

    An image without a self-box (constant heatmap) has no own cluster and
    can only have boxes added. Detections with a side below one pixel do not
    count, since training would leave them out.

    Args:
        labels (dict): COCO json of :func:`generate_pseudo_labels`, or of an
            earlier round. It is not changed.
        detections (dict[int, dict]): By image id, ``bboxes`` (n, 4) ``xyxy``
            in pixels, ``scores`` (n,) and ``labels`` (n,), integers, places
            among the json's categories; of every image.
        anchor_thr (float): Least score of what replaces a self-box.
            Defaults to 0.05.
        score_thr (float): Least score of what is added. Defaults to 0.8.
        max_boxes (int, optional): None are added to an image that has so
            many boxes. Defaults to None, no limit.
        info (dict, optional): Provenance to add to the json's ``info``.

    Returns:
        dict: A json of the same layout with the same images and categories.
        ``score`` is the detector's where the box is its own. ``info`` has
        ``round`` (from 1), ``thresholds``, ``counts``: ``images``,
        ``replaced`` and ``kept`` (images by what became of their
        self-boxes), ``without_self_box`` (images), ``added`` (boxes) and
        ``annotations``; and ``previous``, the ``info`` of ``labels``.

    Raises:
        ValueError: If detections and labels do not belong together, an
            image has self-boxes of several clusters, or a threshold is
            none.
    """
    for name, value in (('anchor_thr', anchor_thr), ('score_thr', score_thr)):
        if not 0 <= value <= 1:
            raise ValueError(f'{name}={value} is no score; give a number '
                             'from 0 to 1.')
    if max_boxes is not None and max_boxes < 1:
        raise ValueError(f'max_boxes={max_boxes} leaves no box; give a '
                         'positive number, or None for no limit.')
    _check_images(labels, detections)
    own = _self_boxes(labels)
    category_ids = np.array([c['id'] for c in labels['categories']])
    counts = dict(
        images=len(labels['images']),
        replaced=0,
        kept=0,
        without_self_box=0,
        added=0)
    annotations: List[dict] = []
    for image in labels['images']:
        found = _sorted_detections(detections[image['id']], image['id'],
                                   category_ids)
        boxes = own.get(image['id'], [])
        if boxes:
            boxes, replaced = _anchor(boxes, found, anchor_thr)
            counts['replaced' if replaced else 'kept'] += 1
        else:
            counts['without_self_box'] += 1
        extra = _additions(boxes, found, score_thr, max_boxes)
        counts['added'] += len(extra)
        for box in boxes + extra:
            annotations.append(
                dict(box, id=len(annotations) + 1, image_id=image['id']))
    counts['annotations'] = len(annotations)
    previous = labels.get('info', {})
    return dict(
        info=dict(
            description='Labels by self-training',
            generator=f'avdet_mm {__version__}',
            date_created=datetime.datetime.now().isoformat('T', 'seconds'),
            round=previous.get('round', 0) + 1,
            thresholds=dict(
                anchor_thr=anchor_thr,
                score_thr=score_thr,
                max_boxes=max_boxes),
            counts=counts,
            **(info or {}),
            previous=previous),
        images=labels['images'],
        annotations=annotations,
        categories=labels['categories'])


def _check_images(labels: dict, detections: Dict[int, Detections]) -> None:
    """Refuse labels that are none, and detections of other images."""
    if not {'images', 'annotations', 'categories'} <= set(labels):
        raise ValueError(
            'The labels are no COCO json with images, annotations and '
            'categories; give what PseudoLabelHook or '
            'tools/generate_pseudo_labels.py wrote.')
    images = {image['id'] for image in labels['images']}
    for wrong, what in ((images - set(detections), 'have no detections'),
                        (set(detections) - images,
                         'have detections, but are not in the labels')):
        if wrong:
            raise ValueError(
                f'{len(wrong)} images {what} (such as {min(wrong)}); run the '
                f'detector on the {len(images)} images of these labels.')


def _self_boxes(labels: dict) -> Dict[int, List[dict]]:
    """Annotations of what is heard, by image, best first."""
    own: Dict[int, List[dict]] = {}
    for ann in labels['annotations']:
        if not ann.get('added', False):
            own.setdefault(ann['image_id'], []).append(ann)
    for image_id, boxes in own.items():
        if len({ann['category_id'] for ann in boxes}) > 1:
            raise ValueError(
                f'Image {image_id} has self-boxes of several clusters, but '
                'self-training takes one cluster per clip to be heard; give '
                'labels of PseudoLabelHook or of an earlier round.')
        boxes.sort(key=lambda ann: -ann.get('score', 0.))
    return own


def _sorted_detections(found: Detections, image_id: int,
                       category_ids: np.ndarray) -> Detections:
    """Detections that can be labels, best first.

    Returns:
        dict: ``bboxes`` (n, 4) and ``scores`` (n,), float64, and
        ``category_ids`` (n,).
    """
    labels = np.asarray(found['labels'], np.int64)
    if ((labels < 0) | (labels >= len(category_ids))).any():
        raise ValueError(
            f'Image {image_id} has detections of class {labels.max()}, but '
            f'the labels have {len(category_ids)} categories; the detector '
            'was trained on others.')
    boxes = np.asarray(found['bboxes'], np.float64).reshape(-1, 4)
    scores = np.asarray(found['scores'], np.float64)
    usable = np.flatnonzero(
        (boxes[:, 2:] - boxes[:, :2] >= MIN_SIDE).all(axis=1))
    order = usable[np.argsort(-scores[usable], kind='stable')]
    return dict(
        bboxes=boxes[order],
        scores=scores[order],
        category_ids=category_ids[labels[order]])


def _annotation(found: Detections, index: int) -> dict:
    """A detection as an annotation, but for its ids."""
    x1, y1, x2, y2 = found['bboxes'][index].tolist()
    return dict(
        iscrowd=0,
        score=float(found['scores'][index]),
        category_id=int(found['category_ids'][index]),
        bbox=[x1, y1, x2 - x1, y2 - y1],
        area=(x2 - x1) * (y2 - y1))


def _anchor(boxes: List[dict], found: Detections,
            threshold: float) -> Tuple[List[dict], bool]:
    """What stands for the clip's sound, and whether a detection does."""
    right = np.flatnonzero(
        (found['category_ids'] == boxes[0]['category_id'])
        & (found['scores'] >= threshold))
    if not len(right):
        return boxes, False
    # How sure the cluster is does not depend on the box: it stays.
    return [dict(boxes[0], **_annotation(found, right[0]))], True


def _additions(boxes: List[dict], found: Detections, threshold: float,
               max_boxes: Optional[int]) -> List[dict]:
    """Confident detections of objects that have no box yet."""
    extra: List[dict] = []
    taken = [_xyxy(ann) for ann in boxes]
    for i in np.flatnonzero(found['scores'] >= threshold):
        if max_boxes is not None and len(taken) >= max_boxes:
            break
        box = found['bboxes'][i]
        if not taken or box_iou(box, np.array(taken)).max() <= SAME_IOU:
            taken.append(box)
            extra.append(dict(_annotation(found, i), added=True))
    return extra


def _xyxy(ann: dict) -> np.ndarray:
    """Corners of the box of an annotation, (4,)."""
    x, y, width, height = ann['bbox']
    return np.array([x, y, x + width, y + height])


def label_dataloader(cfg: Config, ann_file: str,
                     categories: List[str]) -> ConfigDict:
    """Images of a json of labels, prepared as the config tests.

    Args:
        cfg (Config): Of a detector: its test data loader and pipeline, and
            the folder that file names of its training images are relative
            to.
        ann_file (str): The json.
        categories (list[str]): Names of the json's categories.

    Returns:
        ConfigDict: Config of a data loader. All images take part, also
        those without a box.

    Raises:
        ValueError: If the detector was not made for these categories or is
            not trained on a json.
    """
    sizes = num_classes_in(cfg.model.to_dict())
    if sizes != {len(categories)}:
        raise ValueError(
            f'{ann_file} has {len(categories)} categories, but num_classes '
            f'in the model of the config is {sorted(sizes) or None}; give '
            'the config and the labels of one training.')
    train_set = cfg.train_dataloader.dataset
    if 'data_prefix' not in train_set:
        raise ValueError(
            f'The config trains on a {train_set.get("type")} without a '
            'data_prefix, so it is not known where the images of '
            f'{ann_file} are; give the config of a detector that is trained '
            'on a json of self-labels.')
    classes = train_set.get('metainfo', {}).get('classes')
    if classes is not None and set(classes) != set(categories):
        raise ValueError(
            f'{ann_file} has the categories {", ".join(categories[:4])}, '
            f'..., but the config trains on {", ".join(classes[:4])}, ...; '
            'give the config and the labels of one training.')
    dataloader = copy.deepcopy(cfg.test_dataloader)
    dataloader.dataset = ConfigDict(
        type='mmdet.CocoDataset',
        data_root=train_set.get('data_root', ''),
        ann_file=ann_file,
        data_prefix=train_set.data_prefix,
        metainfo=dict(classes=tuple(categories)),
        test_mode=True,
        pipeline=dataloader.dataset.pipeline)
    return dataloader


@torch.no_grad()
def detect(model: Module,
           dataloader: DataLoader,
           min_score: float = 0.) -> Dict[int, Detections]:
    """Detections on all images of a data loader.

    Args:
        model (nn.Module): A detector of MMDetection, wrapped or not.
        dataloader (DataLoader): On an ``mmdet.CocoDataset`` in test mode;
            several ranks have a share each.
        min_score (float): Detections below are left out. Defaults to 0.

    Returns:
        dict[int, dict]: As :func:`next_labels` takes them; empty on other
        ranks than the main process.

    Raises:
        FileNotFoundError: If images are missing.
    """
    _check_files(dataloader.dataset)
    model = unwrap(model)
    training = model.training
    model.eval()
    mine: Dict[int, Detections] = {}
    with Progress(len(dataloader), 'batches', is_main_process()) as progress:
        for batch in dataloader:
            for sample in model.test_step(batch):
                found = sample.pred_instances
                found = found[found.scores >= min_score].numpy()
                mine[sample.img_id] = dict(
                    bboxes=found.bboxes,
                    scores=found.scores,
                    labels=found.labels)
            progress.update(1)
    model.train(training)
    parts = gather_object(mine)
    if not is_main_process():
        return {}
    return {key: found for part in parts for key, found in part.items()}


def _check_files(dataset) -> None:
    """Refuse a data set whose images are not all there."""
    paths = [dataset.get_data_info(i)['img_path']
             for i in range(len(dataset))]
    missing = [path for path in paths if not fileio.exists(path)]
    if missing:
        raise FileNotFoundError(
            f'{len(missing)} of the {len(paths)} images of '
            f'{dataset.ann_file} are missing, such as {missing[0]}; '
            'train_dataloader.dataset.data_prefix of the config has to name '
            'the folder that their names are relative to.')
