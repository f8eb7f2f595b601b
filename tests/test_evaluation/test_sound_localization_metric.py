import json
import math

import cv2
import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.structures import InstanceData

from avdet_mm.evaluation.metrics import SoundLocalizationMetric
from avdet_mm.models.task_modules import ClusterMatcher
from avdet_mm.registry import METRICS
from avdet_mm.structures import AudioVisualDataSample

CLASSES = ['bell', 'drum', 'harp']
# Quarters of a frame of 100 x 200: upper left, upper right, lower left.
UL, UR, LL = [0, 0, 100, 50], [100, 0, 200, 50], [0, 50, 100, 100]
ALL = [0, 0, 200, 100]


def instances(boxes, labels, **fields):
    return InstanceData(
        bboxes=torch.tensor(boxes, dtype=torch.float32).view(-1, 4),
        labels=torch.tensor(labels, dtype=torch.long),
        **{k: torch.tensor(v) for k, v in fields.items()},
    )


def sample(gt=(), labels=None, sounding=None, pred=None, **fields):
    """A frame that the network saw at 56 x 112."""
    meta = dict(
        ori_shape=(100, 200),
        img_shape=(56, 112),
        homography_matrix=np.diag([0.56, 0.56, 1]),
    )
    meta.update({k: fields.pop(k) for k in list(fields) if k in meta})
    if 'img_id' in fields:
        meta['img_id'] = fields.pop('img_id')
    result = AudioVisualDataSample(metainfo=meta)
    labels = [0] * len(gt) if labels is None else labels
    result.gt_instances = instances(
        gt, labels, **({} if sounding is None else dict(sounding=sounding))
    )
    if pred is not None:
        boxes, scores, classes = pred
        result.pred_instances = instances(boxes, classes, scores=scores)
    for key, value in fields.items():
        setattr(result, key, torch.as_tensor(value))
    return result


def evaluate(metric, samples, classes=CLASSES):
    evaluator = Evaluator([metric])
    evaluator.dataset_meta = dict(classes=classes)
    for item in samples:
        evaluator.process([item])
    return evaluator.evaluate(len(samples))


def matching_file(tmp_path, matching, classes=CLASSES):
    matcher = ClusterMatcher()
    matcher.matching = np.array(matching)
    matcher.contingency = np.zeros((len(matching), len(classes)), int)
    path = tmp_path / 'matching.json'
    matcher.to_json(str(path), classes)
    return str(path)


def quarter(*places):
    """(2, 2) map, 1 in some quarters."""
    values = torch.zeros(2, 2)
    for y, x in places:
        values[y, x] = 1
    return values


# --------------------------------------------------------------------------
# Heatmaps
# --------------------------------------------------------------------------
def test_all_protocols_equal_direct_computation():
    rng = np.random.default_rng(0)
    samples, ious = [], dict(dsol=[], lvs=[], flickr=[], ez=[], ez_flickr=[])
    for _ in range(40):
        # Sides are powers of 2, so shares of the frame are exact.
        coarse = rng.normal(0.3, 1, (6, 8)).astype(np.float32)
        low = rng.integers(0, (400, 200), (3, 2))
        boxes = np.concatenate([low, low + rng.integers(9, 300, (3, 2))], 1)
        samples.append(
            sample(
                boxes.tolist(),
                heatmap=coarse,
                ori_shape=(256, 512),
                img_shape=(96, 128),
                homography_matrix=np.diag([0.25, 0.375, 1]),
            )
        )
        count = np.zeros((224, 224))
        for box in boxes:
            x1, y1, x2, y2 = (
                int(224 * min(v / s, 1)) for v, s in zip(box, (512, 256) * 2)
            )
            count[y1:y2, x1:x2] += 1
        union, share = np.minimum(count, 1), np.minimum(count / 2, 1)
        fine = cv2.resize(coarse, (224, 224))
        other = torch.nn.functional.interpolate(
            torch.from_numpy(coarse)[None, None],
            (224, 224),
            mode='bilinear',
            align_corners=True,
        ).numpy()[0, 0]
        middle = [np.sort(f, axis=None)[25088] for f in (fine, other)]
        for key, mask, truth in (
            ('dsol', fine > 0.1 * fine.max(), union),
            ('lvs', fine > middle[0], union),
            ('flickr', fine > middle[0], share),
            ('ez', other >= middle[1], union),
            ('ez_flickr', other >= middle[1], share),
        ):
            total = truth.sum() + (mask * (truth == 0)).sum()
            ious[key].append((mask * truth).sum() / total)
    names = dict(
        dsol='dsol_single',
        lvs='lvs_vggss',
        flickr='lvs_flickr',
        ez='ez_vsl_vggss',
        ez_flickr='ez_vsl_flickr',
    )
    metric = SoundLocalizationMetric(list(names.values()))
    result = evaluate(metric, samples)
    assert len(result) == 2 * 3 + 3 * 2
    for key, name in names.items():
        values = np.array(ious[key])
        success = [(values >= 0.05 * i).mean() for i in range(21)]
        details = metric.details['protocols'][name]
        assert details['success'] == success
        assert details['num_frames'] == 40
        auc = sum((a + b) / 40 for a, b in zip(success, success[1:]))
        assert result[f'ssl/{name}_auc'] == pytest.approx(auc)
        if key.startswith('ez'):
            mean = result[f'ssl/{name}_mean_ciou']
            assert mean == pytest.approx(values.mean(), abs=1e-6)
            assert result[f'ssl/{name}_ap50'] == success[10]
        else:
            figure = 'iou50' if key == 'dsol' else 'ciou50'
            assert result[f'ssl/{name}_{figure}'] == success[10]
    json.dumps(metric.details, allow_nan=False)


def test_frames_of_each_protocol():
    heatmap = quarter((0, 0)) + 0.001
    samples = [
        sample([UL], heatmap=heatmap),
        sample([UL, UR], labels=[1, 1], heatmap=heatmap),
        sample([UL, UR], labels=[0, 1], heatmap=heatmap),
        sample([], heatmap=heatmap),
        # Only one of two objects sounds.
        sample(
            [UL, UR],
            labels=[0, 1],
            sounding=[True, False],
            heatmap=heatmap,
        ),
        sample([[9, 9, -2.88e16, 20]], heatmap=heatmap),
    ]
    metric = SoundLocalizationMetric(
        ['dsol_single', 'dsol_multi', 'lvs_vggss'], class_aware=False
    )
    result = evaluate(metric, samples)
    counts = {
        name: [d[k] for k in ('num_frames', 'num_empty', 'num_other')]
        for name, d in metric.details['protocols'].items()
    }
    assert counts == dict(
        dsol_single=[3, 2, 1], dsol_multi=[1, 2, 3], lvs_vggss=[6, 2, 0]
    )
    # The two without a box are IoU 0 for LVS.
    assert metric.details['protocols']['lvs_vggss']['success'][1] == 4 / 6
    assert result['ssl/dsol_single_iou50'] == 1
    assert math.isnan(result['ssl/dsol_multi_nsa'])


def test_no_frames():
    metric = SoundLocalizationMetric(['dsol_single', 'dsol_multi'])
    result = evaluate(metric, [sample([], heatmap=quarter((0, 0)))])
    assert all(math.isnan(v) for v in result.values())
    details = metric.details['protocols']['dsol_single']
    assert details['iou50'] is None and details['success'] is None


def test_crop_counts_as_not_predicted():
    # The network saw the right half; a constant map is all of that.
    shift = np.array([[1, 0, -100], [0, 1, 0], [0, 0, 1.0]])
    view = dict(img_shape=(100, 100), homography_matrix=shift)
    metric = SoundLocalizationMetric('dsol_single')
    ones = torch.ones(4, 4)
    evaluate(metric, [sample([ALL], heatmap=ones, **view)])
    success = metric.details['protocols']['dsol_single']['success']
    assert success == [1.0] * 11 + [0.0] * 10
    evaluate(metric, [sample([UR, [100, 50, 200, 100]], heatmap=ones, **view)])
    assert metric.details['protocols']['dsol_single']['success'][20] == 1


# --------------------------------------------------------------------------
# Class-aware
# --------------------------------------------------------------------------
def test_class_heatmaps_through_a_matching(tmp_path):
    # Clusters: harp, bell, bell, none.
    path = matching_file(tmp_path, [2, 0, 0, -1])
    maps = torch.stack(
        [
            quarter((1, 1)),
            0.4 * quarter((0, 0)),
            0.4 * quarter((0, 0)) + 0.5 * quarter((1, 0)),
            0.1 * quarter((0, 0)),
        ]
    )
    metric = SoundLocalizationMetric(
        'dsol_multi', matching=path, multi_thr=0.5
    )
    frame = sample([UL, UR], labels=[0, 1], class_heatmaps=maps)
    result = evaluate(metric, [frame])
    # The drum has no cluster: IoU 0. The bell's are two.
    fine = cv2.resize((maps[1] + maps[2]).numpy(), (224, 224))
    mask = fine > 0.5 * fine.max()
    hit = mask[:112, :112].sum()
    bell = hit / (112 * 112 + mask.sum() - hit)
    assert 0.2 < bell / 2 < 0.3
    success = metric.details['protocols']['dsol_multi']['success']
    assert sum(success) - 1 == math.floor(bell / 2 / 0.05)
    assert result['ssl/dsol_multi_ciou30'] == 0
    # Absent: the harp's cluster and the one without a class.
    harp = cv2.resize(maps[0].numpy(), (224, 224))
    silent = ((harp <= 0.2).mean() + 1) / 2
    assert result['ssl/dsol_multi_nsa'] == pytest.approx(silent)
    maps_from = metric.details['protocols']['dsol_multi']['class_maps']
    assert maps_from == 'heatmaps of the class'
    # Clusters of another model, and a matching to other classes.
    with pytest.raises(ValueError, match='matching` of this model'):
        evaluate(metric, [sample([UL, UR], [0, 1], class_heatmaps=maps[:3])])
    with pytest.raises(ValueError, match='no class in common'):
        evaluate(metric, [frame], classes=['x', 'y'])


def test_class_heatmaps_that_are_classes_already():
    maps = torch.stack([quarter((0, 0)), quarter((0, 1)), quarter((1, 1))])
    frame = sample([UL, UR], labels=[0, 1], class_heatmaps=maps)
    metric = SoundLocalizationMetric('dsol_multi', multi_thr=0.9)
    right = evaluate(metric, [frame])['ssl/dsol_multi_ciou30']
    # The classes swapped: nothing is right.
    frame = sample([UL, UR], labels=[1, 0], class_heatmaps=maps)
    assert right == 1
    assert evaluate(metric, [frame])['ssl/dsol_multi_ciou30'] == 0


def test_one_map_serves_every_class():
    # As DSOL's comparison: the map's union with either box.
    frame = sample([UL, UR], labels=[0, 1], heatmap=torch.ones(2, 2))
    metric = SoundLocalizationMetric('dsol_multi')
    result = evaluate(metric, [frame])
    details = metric.details['protocols']['dsol_multi']
    # A quarter each: mean 0.25.
    assert details['success'] == [1.0] * 6 + [0.0] * 15
    assert 'same map' in details['class_maps']
    assert details['nsa'] is None and math.isnan(result['ssl/dsol_multi_nsa'])


# --------------------------------------------------------------------------
# Boxes
# --------------------------------------------------------------------------
def test_boxes_above_the_threshold():
    pred = ([UL, UR, LL], [0.9, 0.4, 0.3], [2, 1, 0])
    frame = sample([UL, UR], labels=[0, 0], pred=pred)
    metric = SoundLocalizationMetric(
        ['dsol_single', 'lvs_vggss'], source='boxes', score_thr=0.3
    )
    assert list(evaluate(metric, [frame]).values()) == pytest.approx([1] * 4)
    # The third is a false positive: 2 / 3.
    metric = SoundLocalizationMetric(
        ['dsol_single', 'lvs_vggss'], source='boxes', score_thr=0.2
    )
    evaluate(metric, [frame])
    for details in metric.details['protocols'].values():
        assert details['success'] == [1.0] * 14 + [0.0] * 7
        assert details['rule'] == 'boxes of score > 0.2'
    assert metric.details['score_thr'] == 0.2


def test_no_boxes_is_iou_0():
    pred = (np.zeros((0, 4)).tolist(), np.zeros(0).tolist(), [])
    frame = sample([UL], pred=pred)
    metric = SoundLocalizationMetric(
        ['dsol_single', 'lvs_vggss', 'lvs_flickr'], source='boxes'
    )
    evaluate(metric, [frame])
    for details in metric.details['protocols'].values():
        assert details['success'] == [1.0] + [0.0] * 20


def test_class_aware_boxes(tmp_path):
    # Clusters 0 and 3 are drums, 1 is the bell, 2 nothing.
    path = matching_file(tmp_path, [1, 0, -1, 1])
    pred = ([UL, UR, LL, LL], [0.9] * 4, [1, 0, 2, 3])
    frame = sample([UL, UR], labels=[0, 1], pred=pred)
    metric = SoundLocalizationMetric(
        'dsol_multi', source='boxes', matching=path
    )
    result = evaluate(metric, [frame])
    # The bell is exact; of the drum's two boxes one is: (1 + 1/2) / 2.
    success = metric.details['protocols']['dsol_multi']['success']
    assert success == [1.0] * 16 + [0.0] * 5
    # The harp has no cluster and is not counted: no absent class.
    assert math.isnan(result['ssl/dsol_multi_nsa'])
    # Labels that are classes.
    pred = ([UL, UR, LL], [0.9] * 3, [0, 1, 2])
    metric = SoundLocalizationMetric('dsol_multi', source='boxes')
    result = evaluate(metric, [sample([UL, UR], [0, 1], pred=pred)])
    assert result['ssl/dsol_multi_ciou30'] == 1
    assert result['ssl/dsol_multi_nsa'] == 0.75
    # Boxes without classes: their union for each, 3/4 of the frame.
    metric = SoundLocalizationMetric(
        'dsol_multi', source='boxes', class_aware=False
    )
    evaluate(metric, [sample([UL, UR], [0, 1], pred=pred)])
    success = metric.details['protocols']['dsol_multi']['success']
    assert success == [1.0] * 7 + [0.0] * 14


def test_labels_that_are_clusters_need_a_matching():
    frame = sample([UL, UR], [0, 1], pred=([UL], [0.9], [7]))
    metric = SoundLocalizationMetric('dsol_multi', source='boxes')
    with pytest.raises(ValueError, match='needs the `matching`'):
        evaluate(metric, [frame])


# --------------------------------------------------------------------------
# Ground truth from a COCO json
# --------------------------------------------------------------------------
@pytest.fixture
def ann_file(tmp_path):
    path = tmp_path / 'coco.json'
    boxes = [
        (5, 0, UL, True),
        (5, 1, UR, False),
        (6, 0, UL, True),
        (6, 1, UR, True),
    ]
    path.write_text(
        json.dumps(
            dict(
                images=[dict(id=i, height=100, width=200) for i in (5, 6, 7)],
                categories=[
                    dict(id=c, name=name) for c, name in enumerate(CLASSES)
                ],
                annotations=[
                    dict(
                        id=n,
                        image_id=i,
                        category_id=c,
                        bbox=[x1, y1, x2 - x1, y2 - y1],
                        sounding=s,
                    )
                    for n, (i, c, (x1, y1, x2, y2), s) in enumerate(boxes)
                ],
            )
        )
    )
    return str(path)


def test_stock_detector(ann_file, tmp_path):
    metric = METRICS.build(
        dict(
            type='avdet_mm.SoundLocalizationMetric',
            protocols=['dsol_single', 'dsol_multi', 'lvs_vggss'],
            source='boxes',
            ann_file=ann_file,
            matching=matching_file(tmp_path, [1, 0]),
        )
    )
    pred = ([UL, UR], [0.9, 0.9], [1, 0])
    samples = [
        sample(pred=([UL], [0.9], [1]), img_id=5),
        sample(pred=pred, img_id=6),
        sample(pred=pred, img_id=7),
    ]
    result = evaluate(metric, samples, classes=['c0', 'c1'])
    assert result['ssl/dsol_single_iou50'] == 1
    assert result['ssl/dsol_multi_ciou30'] == 1
    assert result['ssl/lvs_vggss_ciou50'] == 2 / 3
    assert metric.details['ann_file'] == ann_file
    with pytest.raises(KeyError, match='has no image 9'):
        evaluate(metric, [sample(pred=pred, img_id=9)])
    with pytest.raises(KeyError, match='no `img_id`'):
        evaluate(metric, [sample(pred=pred)])


# --------------------------------------------------------------------------
# Errors
# --------------------------------------------------------------------------
def test_bad_arguments(tmp_path, ann_file):
    for protocols in (['dsol'], []):
        with pytest.raises(ValueError, match='protocols must be some of'):
            SoundLocalizationMetric(protocols)
    with pytest.raises(ValueError, match="source must be 'heatmap'"):
        SoundLocalizationMetric('dsol_single', source='box')
    with pytest.raises(ValueError, match='ez_vsl_vggss cannot be used'):
        SoundLocalizationMetric(['ez_vsl_vggss'], source='boxes')
    with pytest.raises(FileNotFoundError):
        SoundLocalizationMetric('dsol_multi', matching='none.json')
    path = tmp_path / 'table.json'
    path.write_text('{"images": []}')
    with pytest.raises(ValueError, match='lacks annotations and categories'):
        SoundLocalizationMetric('dsol_single', ann_file=str(path))


def test_samples_without_what_is_needed():
    metric = SoundLocalizationMetric('dsol_single')
    with pytest.raises(KeyError, match="source='boxes'"):
        evaluate(metric, [sample([UL])])
    frame = sample([UL], heatmap=quarter((0, 0)))
    del frame.gt_instances
    with pytest.raises(KeyError, match='gt_instances'):
        evaluate(metric, [frame])
    metric = SoundLocalizationMetric('ez_vsl_vggss')
    binary = torch.zeros(224, 224)
    binary[:9] = 1
    with pytest.raises(ValueError, match='zeros and ones'):
        evaluate(metric, [sample([UL], heatmap=binary)])
