import json

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.structures import InstanceData

from avdet_mm.evaluation.metrics import (
    ClusterMetric,
    LocalizationMetric,
    MatchedCocoMetric,
)
from avdet_mm.models.task_modules import ClusterMatcher
from avdet_mm.structures import AudioVisualDataSample

BOX, OTHER = [0.0, 0.0, 10.0, 10.0], [50.0, 50.0, 90.0, 90.0]


def instances(boxes, labels, **fields):
    return InstanceData(
        bboxes=torch.tensor(boxes).view(-1, 4),
        labels=torch.tensor(labels, dtype=torch.long),
        **{k: torch.tensor(v) for k, v in fields.items()},
    )


def sample(pred=None, gt=None, **meta):
    result = AudioVisualDataSample(
        metainfo={k: v for k, v in meta.items() if k != 'fields'}
    )
    if pred is not None:
        result.pred_instances = pred
    if gt is not None:
        result.gt_instances = gt
    for key, value in meta.get('fields', {}).items():
        setattr(result, key, torch.as_tensor(value))
    return result


def evaluate(metric, samples, classes=None):
    evaluator = Evaluator([metric])
    evaluator.dataset_meta = dict(classes=classes)
    for item in samples:
        evaluator.process([item])
    return evaluator.evaluate(len(samples))


@pytest.fixture
def gt_file(tmp_path):
    path = tmp_path / 'test_coco.json'
    path.write_text(
        json.dumps(
            dict(
                images=[dict(id=0), dict(id=1)],
                categories=[dict(id=1, name='bell'), dict(id=2, name='drum')],
                annotations=[
                    dict(id=1, image_id=0, category_id=1, bbox=[0, 0, 10, 10]),
                    dict(
                        id=2, image_id=1, category_id=2, bbox=[50, 50, 40, 40]
                    ),
                ],
            )
        )
    )
    return str(path)


def matching_file(tmp_path, matching, classes):
    matcher = ClusterMatcher()
    matcher.matching = np.array(matching)
    matcher.contingency = np.zeros((len(matching), len(classes)), int)
    matcher.to_json(str(tmp_path / 'matching.json'), classes)
    return str(tmp_path / 'matching.json')


def detections(labels):
    """Both objects exactly found, image 1 first."""
    return [
        sample(instances([OTHER], [labels[1]], scores=[0.7]), img_id=1),
        sample(instances([BOX], [labels[0]], scores=[0.9]), img_id=0),
    ]


def test_more_clusters_than_classes(tmp_path, gt_file):
    path = matching_file(tmp_path, [-1, 1, -1, -1, 0], ['bell', 'drum'])
    metric = MatchedCocoMetric(gt_file, path)
    result = evaluate(metric, detections([4, 1]), [f'c{i}' for i in range(5)])
    assert set(result) == {
        f'coco/{p}{k}'
        for p in ('', 'agnostic_')
        for k in ('AP30', 'AP50', 'AP')
    }
    assert all(v == pytest.approx(1) for v in result.values())
    # An unmatched cluster counts class-agnostically only.
    result = evaluate(metric, detections([4, 2]))
    assert result['coco/AP'] == pytest.approx(0.5)
    assert result['coco/agnostic_AP'] == pytest.approx(1)


def test_fewer_clusters_than_classes(tmp_path, gt_file):
    path = matching_file(tmp_path, [1], ['bell', 'drum'])
    result = evaluate(MatchedCocoMetric(gt_file, path), detections([0, 0]))
    # The drum comes after a false one (1/2), the bell has no cluster (0).
    assert result['coco/AP50'] == pytest.approx(0.25)
    assert result['coco/agnostic_AP50'] == pytest.approx(1)


def test_class_without_test_objects_is_dropped(tmp_path, gt_file):
    path = matching_file(tmp_path, [0, 1, 2], ['horn', 'drum', 'bell'])
    result = evaluate(MatchedCocoMetric(gt_file, path), detections([2, 0]))
    assert result['coco/AP50'] == pytest.approx(0.5)


def test_matching_is_not_fitted_on_the_test_set(tmp_path, gt_file):
    # Swapped classes stay swapped, although the swap would be easy to see.
    path = matching_file(tmp_path, [1, 0], ['bell', 'drum'])
    result = evaluate(MatchedCocoMetric(gt_file, path), detections([0, 1]))
    assert result['coco/AP30'] == 0
    assert result['coco/agnostic_AP30'] == pytest.approx(1)


def test_labels_that_are_classes(gt_file):
    metric = MatchedCocoMetric(gt_file)
    # As in mmdet.CocoDataset, the order of the json is the one that counts.
    result = evaluate(metric, detections([0, 1]), ['drum', 'bell'])
    assert result['coco/AP'] == pytest.approx(1)
    with pytest.raises(ValueError, match='needs a `matching`'):
        evaluate(metric, detections([0, 5]), ['bell', 'drum'])
    with pytest.raises(ValueError, match='no class in common'):
        evaluate(metric, detections([0, 1]), ['cluster_0', 'cluster_1'])


def test_no_predictions(tmp_path, gt_file):
    path = matching_file(tmp_path, [0, 1], ['bell', 'drum'])
    none = instances([], [], scores=[])
    for samples in (
        [sample(none, img_id=i) for i in (0, 1)],
        [sample(none, img_id=0)],
    ):
        result = evaluate(MatchedCocoMetric(gt_file, path), samples)
        assert set(result.values()) == {0}


def test_errors(tmp_path, gt_file):
    with pytest.raises(FileNotFoundError, match='match_clusters.py'):
        MatchedCocoMetric(gt_file, str(tmp_path / 'none.json'))
    with pytest.raises(ValueError, match='not a COCO json'):
        path = matching_file(tmp_path, [0], ['bell'])
        MatchedCocoMetric(path)
    with pytest.raises(ValueError, match='leave one of them out'):
        MatchedCocoMetric(gt_file, path, class_aware=False)
    with pytest.raises(ValueError, match='no class in common'):
        path = matching_file(tmp_path, [0, 1], ['cat', 'dog'])
        evaluate(MatchedCocoMetric(gt_file, path), detections([0, 1]))
    with pytest.raises(ValueError, match='another model'):
        path = matching_file(tmp_path, [0, 1], ['bell', 'drum'])
        evaluate(MatchedCocoMetric(gt_file, path), detections([0, 2]))
    pred = instances([BOX], [0], scores=[1.0])
    with pytest.raises(KeyError, match='img_id'):
        evaluate(MatchedCocoMetric(gt_file), [sample(pred)])
    with pytest.raises(KeyError, match='gt_instances'):
        evaluate(MatchedCocoMetric(), [sample(pred)])
    with pytest.raises(ValueError, match='another data set'):
        evaluate(
            MatchedCocoMetric(gt_file, class_aware=False),
            [sample(pred, img_id=9)],
        )


def test_ground_truth_of_the_clip_table(tmp_path):
    gts = [
        instances([BOX, OTHER], [1, 0]),
        instances([], []),
        instances([OTHER], [0]),
    ]
    preds = [instances([BOX], [0], scores=[1.0]) for _ in gts]
    samples = [sample(p, g) for p, g in zip(preds, gts)]
    agnostic = evaluate(MatchedCocoMetric(class_aware=False), samples)
    # Equal scores keep their order: hit, miss, miss; a third is found.
    expected = 34 / 101
    assert agnostic['coco/agnostic_AP50'] == pytest.approx(expected)
    assert not [k for k in agnostic if 'agnostic' not in k]
    path = matching_file(tmp_path, [1], ['bell', 'drum'])
    result = evaluate(
        MatchedCocoMetric(matching=path), samples, ['bell', 'drum']
    )
    assert result['coco/AP50'] == pytest.approx(0.5)
    assert {k: v for k, v in result.items() if k in agnostic} == agnostic
    with pytest.raises(ValueError, match='names no `classes`'):
        evaluate(MatchedCocoMetric(), samples)


def clip(visual, audio, **meta):
    return sample(
        fields=dict(visual_logits=visual, audio_logits=audio), **meta
    )


def test_cluster_metric():
    samples = [
        clip([9.0, 0, 0], [9.0, 0, 0], gt_label=0),
        clip([9.0, 0, 0], [0.0, 9, 0], gt_label=0),  # a tie: the first one
        clip([0.0, 0, 1], [0.0, 9, 0], gt_label=1),  # the surer one wins
        clip([0.0, 9, 0], [0.0, 9, 0], gt_label=1),
        clip([0.0, 0, 9], [0.0, 0, 9]),
    ]
    result = evaluate(ClusterMetric(), samples)
    assert result['cluster/nmi'] == pytest.approx(1)
    assert result['cluster/purity'] == 1
    assert result['cluster/hungarian_accuracy'] == 1
    # visual 0 0 2 1; audio 0 1 1 1
    assert result['cluster/nmi_visual'] == pytest.approx(0.8)
    entropy = -(np.log(1 / 4) / 4 + np.log(3 / 4) * 3 / 4)
    mutual = entropy - np.log(2) / 2
    assert result['cluster/nmi_audio'] == pytest.approx(
        2 * mutual / (entropy + np.log(2))
    )
    assert result['cluster/entropy'] == pytest.approx(np.log(2) / np.log(3))
    assert result['cluster/left_out'] == 1


def test_cluster_metric_without_labels_or_logits():
    result = evaluate(ClusterMetric(), [clip([1.0, 0], [1.0, 0])])
    assert np.isnan(result['cluster/nmi'])
    assert result['cluster/left_out'] == 1
    with pytest.raises(KeyError, match='cluster head'):
        evaluate(ClusterMetric(), [sample(gt_label=0)])


def localized(heatmap, pred, gt, sounding, homography, img_shape=(32, 32)):
    return sample(
        instances(pred, [0] * len(pred), scores=[1.0] * len(pred)),
        instances(gt, [0] * len(gt), sounding=sounding),
        fields=dict(heatmap=heatmap),
        homography_matrix=np.array(homography, np.float32),
        img_shape=img_shape,
    )


@pytest.mark.parametrize('flip', [False, True])
def test_pointing_goes_back_to_original_pixels(flip):
    # Frame 100 x 50 (w x h) scaled by 1/2, cropped from (10, 5) to 32 x 16.
    matrix = np.array([[0.5, 0, -10], [0, 0.5, -5], [0, 0, 1]])
    if flip:
        matrix = np.array([[-1, 0, 32], [0, 1, 0], [0, 0, 1]]) @ matrix
    heatmap = torch.zeros(2, 4)
    heatmap[1, 3] = 1
    # The peak of the upsampled map lies around (28, 12) of the input.
    x = 32 - 28 if flip else 28
    center = np.array([2 * (x + 10), 2 * (12 + 5)])
    near = [*(center - 4.0), *(center + 4.0)]
    far = [0.0, 0.0, 8.0, 8.0]
    for gt, sounding, expected in (
        ([near], [True], 1),
        ([far], [True], 0),
        ([far, near], [True, True], 1),
        ([far, near], [True, False], 0),
    ):
        result = evaluate(
            LocalizationMetric(),
            [localized(heatmap, [], gt, sounding, matrix, (16, 32))],
        )
        assert result['loc/pointing'] == expected
        assert result['loc/mean_iou'] == 0


def test_localization_iou():
    eye, heatmap = np.eye(3), torch.zeros(4, 4)
    samples = [
        localized(heatmap, [BOX, OTHER], [OTHER], [True], eye),  # best: 1
        localized(heatmap, [[0.0, 0, 10, 4]], [BOX], [True], eye),  # 0.4
        localized(heatmap, [BOX], [BOX, OTHER], [False, True], eye),  # 0
        localized(heatmap, [], [OTHER], [True], eye),  # no box: 0
        localized(heatmap, [BOX], [BOX], [False], eye),  # left out
        sample(instances([BOX], [0], scores=[1.0])),  # left out
    ]
    result = evaluate(LocalizationMetric(), samples)
    assert result['loc/iou50'] == 1 / 4
    assert result['loc/mean_iou'] == pytest.approx(1.4 / 4)
    assert result['loc/left_out'] == 2
    # A flat map points to the first pixel, inside of BOX only.
    assert result['loc/pointing'] == 1 / 4


def test_localization_without_heatmap_or_ground_truth():
    box = instances([BOX], [0], scores=[1.0])
    result = evaluate(LocalizationMetric(), [sample(box, box)])
    assert result == {'loc/iou50': 1, 'loc/mean_iou': 1, 'loc/left_out': 0}
    result = evaluate(LocalizationMetric(), [sample(box)])
    assert np.isnan(result['loc/iou50']) and result['loc/left_out'] == 1
