import json

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from mmengine.structures import InstanceData

from avdet_mm.evaluation.functional import detection_ap
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


def matching_file(tmp_path, matching, classes, **others):
    matchers = []
    for name, to_class in dict(hungarian=matching, **others).items():
        matchers.append(ClusterMatcher(name.replace('shot', '-shot')))
        matchers[-1].matching = np.array(to_class)
        matchers[-1].contingency = np.zeros((len(to_class), len(classes)), int)
    path = str(tmp_path / 'matching.json')
    matchers[0].to_json(path, classes, others=matchers[1:])
    return path


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
    with pytest.raises(ValueError, match='None to keep all'):
        MatchedCocoMetric(gt_file, nms_iou=1.5)
    with pytest.raises(ValueError, match='from 0 to 1'):
        MatchedCocoMetric(gt_file, recall_score_thr=30)
    with pytest.raises(ValueError, match='choose one of numpy'):
        MatchedCocoMetric(gt_file, backend='coco')
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


def several(tmp_path, gt_file, **kwargs):
    """Three matchings of four clusters, and detections of all of them."""
    path = matching_file(
        tmp_path,
        [0, 1, -1, -1],
        ['bell', 'drum'],
        **{'majority': [0, 1, 0, 1], '10shot': [1, 1, 1, 0]},
    )
    samples = [
        sample(
            # The bell thrice: of two clusters, and elsewhere.
            instances(
                [BOX, [0.0, 0, 10, 9], [30.0, 0, 40, 10]],
                [2, 0, 0],
                scores=[0.9, 0.8, 0.2],
            ),
            img_id=0,
        ),
        sample(instances([OTHER], [3], scores=[0.95]), img_id=1),
    ]
    metric = MatchedCocoMetric(gt_file, path, **kwargs)
    return metric, evaluate(metric, samples)


def test_all_matchings_in_one_run(tmp_path, gt_file):
    metric, result = several(tmp_path, gt_file)
    assert set(result) == {
        f'coco/{p}{k}'
        for p in ('', 'majority_', '10-shot_', 'agnostic_')
        for k in ('AP30', 'AP50', 'AP')
    }
    # Hungarian: the bell's IoU is 0.9, the drum's cluster has no class.
    assert result['coco/AP50'] == pytest.approx(0.5)
    assert result['coco/AP'] == pytest.approx(0.45)
    # Majority: the best bell removes the second one of the same class.
    assert result['coco/majority_AP'] == pytest.approx(1)
    # 10-shot: bell and drum the wrong way round.
    assert result['coco/10-shot_AP30'] == 0
    # Drum, bell, the bell again: all found before.
    assert result['coco/agnostic_AP'] == pytest.approx(1)
    details = metric.details
    assert list(details['matchings']) == ['hungarian', 'majority', '10-shot']
    json.dumps(details, allow_nan=False)
    main = details['matchings']['hungarian']
    assert main['clusters'] == dict(
        cluster_0='bell', cluster_1='drum', cluster_2=None, cluster_3=None
    )
    assert main['AP50'] == result['coco/AP50']
    assert main['per_class']['bell']['AP'] == pytest.approx(0.9)
    assert main['per_class']['drum'] == dict(AP30=0, AP50=0, AP=0)
    assert main['pr50']['bell'] == pytest.approx([1] * 101)
    assert main['pr50']['drum'] == [0] * 101
    assert details['agnostic']['AP30'] == pytest.approx(1)
    assert details['agnostic']['pr50'] == pytest.approx([1] * 101)
    assert details['ann_file'] == gt_file
    assert details['num_images'] == 2
    assert details['num_objects'] == dict(bell=1, drum=1)
    assert details['outfile_prefix'] is None
    assert details['protocol'] == dict(
        iou_thrs=[0.3, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95],
        max_dets=100,
        backend='numpy',
        nms_iou=0.5,
    )
    # The detection of score 0.2 does not count, where the bell's do.
    confusion = details['confusion']
    assert confusion['clusters'] == [f'cluster_{k}' for k in range(4)]
    assert confusion['classes'] == ['bell', 'drum', 'background']
    assert confusion['counts'] == [[1, 0, 0], [0, 0, 0], [1, 0, 0], [0, 1, 0]]


def test_suppression_where_clusters_share_a_class(tmp_path, gt_file):
    gt = json.loads(open(gt_file).read())
    # A second bell in the image makes the false positive cost something.
    gt['annotations'].append(
        dict(id=3, image_id=0, category_id=1, bbox=[30, 0, 10, 10])
    )
    (tmp_path / 'gt.json').write_text(json.dumps(gt))
    found = {
        iou: several(tmp_path, str(tmp_path / 'gt.json'), nms_iou=iou)[1]
        for iou in (0.5, None, 0.95)
    }
    bell = dict.fromkeys(found, (51 + 50 * 2 / 3) / 101)
    bell[0.5] = 1
    for iou, result in found.items():
        expected = (bell[iou] + 1) / 2
        assert result['coco/majority_AP50'] == pytest.approx(expected)
        # One to one, and without classes: nothing is removed.
        assert result['coco/AP50'] == pytest.approx(0.5)
        assert result['coco/agnostic_AP50'] == pytest.approx(
            (67 + 34 * 3 / 4) / 101
        )


def test_no_suppression_within_a_single_cluster(tmp_path, gt_file):
    gt = json.loads(open(gt_file).read())
    for i, image, height in ((3, 0, 6), (4, 1, 10)):
        box = [0, 0, 10, height]
        gt['annotations'].append(
            dict(id=i, image_id=image, category_id=1, bbox=box)
        )
    (tmp_path / 'gt.json').write_text(json.dumps(gt))
    path = matching_file(tmp_path, [0, 1], ['bell', 'drum'], majority=[0, 0])
    pred = instances([BOX, [0.0, 0, 10, 6]], [0, 0], scores=[0.9, 0.8])
    metric = MatchedCocoMetric(str(tmp_path / 'gt.json'), path)
    other = instances([BOX], [0], scores=[0.7])
    result = evaluate(
        metric, [sample(pred, img_id=0), sample(other, img_id=1)]
    )
    # Both bells, whose IoU is 0.6, and that of the other image; no drum.
    assert result['coco/AP'] == pytest.approx(1 / 2)
    # When the drum's cluster may be a bell too, one of the first two goes.
    assert result['coco/majority_AP'] == pytest.approx(67 / 101 / 2)


@pytest.mark.parametrize('backend', ['pycocotools', 'faster_coco_eval'])
def test_backends_of_the_metric(backend, tmp_path, gt_file):
    pytest.importorskip(backend)
    metric, result = several(tmp_path, gt_file, backend=backend)
    assert metric.details['protocol']['backend'] == backend
    assert result == pytest.approx(several(tmp_path, gt_file)[1], abs=1e-12)


def test_classwise_metrics(tmp_path, gt_file):
    gt = json.loads(open(gt_file).read())
    gt['categories'].append(dict(id=3, name='horn'))
    (tmp_path / 'gt.json').write_text(json.dumps(gt))
    metric, result = several(
        tmp_path, str(tmp_path / 'gt.json'), classwise=True
    )
    assert result['coco/AP50/bell'] == pytest.approx(1)
    assert result['coco/AP50/drum'] == 0
    assert 'coco/AP50/horn' not in result
    # No mean has the horn in it, which is nowhere.
    assert result['coco/AP50'] == pytest.approx(0.5)
    main = metric.details['matchings']['hungarian']
    assert main['per_class']['horn'] == dict(AP30=None, AP50=None, AP=None)
    assert list(main['pr50']) == ['bell', 'drum']
    assert metric.details['num_objects'] == dict(bell=1, drum=1, horn=0)


def test_crowds_are_no_objects(tmp_path, gt_file):
    gt = json.loads(open(gt_file).read())
    gt['annotations'][1]['iscrowd'] = 1
    (tmp_path / 'gt.json').write_text(json.dumps(gt))
    metric, result = several(tmp_path, str(tmp_path / 'gt.json'))
    assert result['coco/majority_AP'] == pytest.approx(1)
    assert metric.details['num_objects'] == dict(bell=1, drum=0)
    assert metric.details['confusion']['counts'][3] == [0, 0, 1]


def test_files_of_detections(tmp_path, gt_file):
    prefix = str(tmp_path / 'out' / 'test')
    metric, result = several(tmp_path, gt_file, outfile_prefix=prefix)
    assert metric.details['outfile_prefix'] == prefix
    with open(f'{prefix}.bbox.json') as file:
        rows = json.load(file)
    assert rows[1] == dict(
        image_id=0,
        bbox=[0, 0, 10, 9],
        score=float(np.float32(0.8)),
        category_id=0,
    )
    assert [r['category_id'] for r in rows] == [2, 0, 0, 3]
    assert sorted(p.name for p in (tmp_path / 'out').iterdir()) == [
        'test.bbox.json'
    ]
    # They give the same figures again.
    with open(gt_file) as file:
        again = detection_ap(json.load(file), rows, class_aware=False)
    assert again['agnostic_AP'] == result['coco/agnostic_AP']


def test_files_without_matching(tmp_path, gt_file):
    prefix = str(tmp_path / 'test')
    metric = MatchedCocoMetric(gt_file, outfile_prefix=prefix)
    evaluate(metric, detections([0, 1]), ['bell', 'drum'])
    with open(f'{prefix}.bbox.json') as file:
        assert [r['category_id'] for r in json.load(file)] == [2, 1]
    labels = metric.details['matchings']['labels']
    assert labels['AP'] == pytest.approx(1) and labels['clusters'] == {}
    assert metric.details['confusion']['clusters'] == ['bell', 'drum']
    assert metric.details['confusion']['counts'] == [[1, 0, 0], [0, 1, 0]]


def test_files_of_ground_truth_from_samples(tmp_path):
    prefix = str(tmp_path / 'test')
    metric = MatchedCocoMetric(class_aware=False, outfile_prefix=prefix)
    samples = [
        sample(
            instances([BOX], [0], scores=[1.0]),
            instances([OTHER], [1]),
            clip_id='x',
            img_path='a/x.png',
            ori_shape=(90, 100),
        ),
        sample(instances([], [], scores=[]), instances([], [])),
    ]
    evaluate(metric, samples, ['bell', 'drum'])
    with open(f'{prefix}.gt.json') as file:
        gt = json.load(file)
    assert gt['images'] == [
        dict(id=0, clip_id='x', file_name='a/x.png', height=90, width=100),
        dict(id=1),
    ]
    assert gt['annotations'] == [
        dict(
            id=1,
            image_id=0,
            category_id=1,
            bbox=[50, 50, 40, 40],
            area=1600,
            iscrowd=0,
        )
    ]
    assert [c['name'] for c in gt['categories']] == ['bell', 'drum']
    with open(f'{prefix}.bbox.json') as file:
        assert [r['image_id'] for r in json.load(file)] == [0]
    assert metric.details['matchings'] == {}
    assert metric.details['confusion'] is None
    assert metric.details['num_objects'] == dict(bell=0, drum=1)
    json.dumps(metric.details, allow_nan=False)


# Two bells side by side and a drum, and a drum in an image of its own.
HEARD = [
    (0, 1, [0, 0, 10, 10], True),
    (0, 1, [20, 0, 10, 10], False),
    (0, 2, [40, 0, 10, 10], False),
    (1, 2, [50, 50, 40, 40], True),
]


def heard_file(tmp_path, objects=HEARD):
    """Ground truth that says of every object whether it sounds."""
    path = tmp_path / 'heard_coco.json'
    annotations = [
        dict(id=n, image_id=i, category_id=c, bbox=box, sounding=sounds)
        for n, (i, c, box, sounds) in enumerate(objects, 1)
    ]
    categories = [dict(id=1, name='bell'), dict(id=2, name='drum')]
    path.write_text(
        json.dumps(
            dict(
                images=[dict(id=0), dict(id=1)],
                categories=categories,
                annotations=annotations,
            )
        )
    )
    return str(path)


def heard_detections(bell=0, drum=1):
    """The first bell, the second as a drum, the drum doubtfully, or badly."""
    boxes = [[0.0, 0, 10, 10], [0.0, 0, 10, 9], [20.0, 0, 30, 10]]
    boxes += [[40.0, 0, 50, 10], [40.0, 0, 50, 4]]
    labels, scores = [bell, bell, drum, drum, drum], [0.9, 0.8, 0.3, 0.29, 0.4]
    return [
        sample(instances(boxes, labels, scores=scores), img_id=0),
        sample(instances([OTHER], [drum], scores=[0.5]), img_id=1),
    ]


RECALLS = {
    f'coco/{p}recall50_{g}'
    for p in ('', 'agnostic_')
    for g in ('sounding', 'silent')
}


def test_recall_of_silent_objects(tmp_path):
    path = matching_file(tmp_path, [1, 0], ['bell', 'drum'], majority=[0, 1])
    metric = MatchedCocoMetric(heard_file(tmp_path), path)
    result = evaluate(metric, heard_detections(1, 0))
    assert {k: v for k, v in result.items() if 'recall' in k} == {
        'coco/recall50_sounding': 1,
        'coco/recall50_silent': 0,
        'coco/agnostic_recall50_sounding': 1,
        'coco/agnostic_recall50_silent': 0.5,
    }
    sounding = dict(recall50=1, found=2, objects=2)
    assert metric.details['recall'] == dict(
        score_thr=0.3,
        iou_thr=0.5,
        class_aware=dict(
            sounding=sounding, silent=dict(recall50=0, found=0, objects=2)
        ),
        agnostic=dict(
            sounding=sounding, silent=dict(recall50=0.5, found=1, objects=2)
        ),
    )
    json.dumps(metric.details, allow_nan=False)
    # The other figures are those of the same file without the word.
    with open(heard_file(tmp_path)) as file:
        content = json.load(file)
    for ann in content['annotations']:
        del ann['sounding']
    (tmp_path / 'deaf.json').write_text(json.dumps(content))
    metric = MatchedCocoMetric(str(tmp_path / 'deaf.json'), path)
    deaf = evaluate(metric, heard_detections(1, 0))
    assert metric.details['recall'] is None
    assert set(result) - set(deaf) == RECALLS
    assert deaf == {k: result[k] for k in deaf}


def test_score_and_number_of_what_is_recalled(tmp_path):
    classes = ['bell', 'drum']

    def recall(**kwargs):
        metric = MatchedCocoMetric(heard_file(tmp_path), **kwargs)
        result = evaluate(metric, heard_detections(), classes)
        return [
            result.get(f'coco/{k}')
            for k in (
                'recall50_sounding',
                'recall50_silent',
                'agnostic_recall50_silent',
            )
        ]

    assert recall() == [1, 0, 0.5]
    assert recall(recall_score_thr=0.29) == [1, 0.5, 1]
    assert recall(recall_score_thr=0.6) == [0.5, 0, 0]
    # One box of each image, and of each class of it.
    assert recall(recall_score_thr=0, max_dets=1) == [1, 0, 0]
    assert recall(class_aware=False) == [None, None, 0.5]


def test_no_recall_without_silent_objects(tmp_path):
    path = heard_file(tmp_path, [(*x[:3], True) for x in HEARD])
    metric = MatchedCocoMetric(path)
    result = evaluate(metric, heard_detections(), ['bell', 'drum'])
    assert not RECALLS & set(result) and metric.details['recall'] is None
    path = heard_file(tmp_path, [(*x[:3], False) for x in HEARD])
    metric = MatchedCocoMetric(path)
    result = evaluate(metric, heard_detections(), ['bell', 'drum'])
    assert result['coco/recall50_silent'] == 0.5
    assert np.isnan(result['coco/recall50_sounding'])
    nothing = dict(recall50=None, found=0, objects=0)
    assert metric.details['recall']['agnostic']['sounding'] == nothing


def test_recall_of_the_clip_table(tmp_path):
    gts = [
        instances([BOX, OTHER], [0, 1], sounding=[True, False]),
        instances([], [], sounding=[]),
        instances([OTHER], [1], sounding=[True]),
    ]
    samples = [
        sample(instances([BOX], [0], scores=[1.0]), gt) for gt in gts[:2]
    ]
    samples.append(sample(instances([OTHER], [0], scores=[1.0]), gts[2]))
    prefix = str(tmp_path / 'test')
    result = evaluate(
        MatchedCocoMetric(outfile_prefix=prefix), samples, ['bell', 'drum']
    )
    assert [result[k] for k in sorted(RECALLS)] == [0, 1, 0, 0.5]
    with open(f'{prefix}.gt.json') as file:
        annotations = json.load(file)['annotations']
    assert [a['sounding'] for a in annotations] == [True, False, True]
    # Without classes there are no categories either.
    result = evaluate(MatchedCocoMetric(class_aware=False), samples)
    assert result['coco/agnostic_recall50_sounding'] == 1
    assert 'coco/recall50_sounding' not in result


def test_no_ground_truth_at_all(tmp_path):
    path = matching_file(tmp_path, [0, 1], ['bell', 'drum'], majority=[0, 0])
    metric = MatchedCocoMetric(matching=path)
    samples = [sample(instances([BOX], [0], scores=[1.0]), instances([], []))]
    result = evaluate(metric, samples, ['bell', 'drum'])
    assert len(result) == 9 and all(np.isnan(v) for v in result.values())
    assert metric.details['agnostic'] == dict(
        AP30=None, AP50=None, AP=None, pr50=None
    )
    assert metric.details['confusion']['counts'] == [[0, 0, 1], [0, 0, 0]]


def test_results_are_small_copies(gt_file):
    metric = MatchedCocoMetric(gt_file)
    boxes = torch.zeros(1000, 4, dtype=torch.float64)
    pred = InstanceData(
        bboxes=boxes[:2], scores=boxes[:2, 0], labels=boxes[:2, 0].long()
    )
    item = sample(pred, img_id=0)
    metric.process({}, [item.to_dict()])
    boxes += 1
    kept = metric.results[0]
    assert kept['bboxes'].dtype == kept['scores'].dtype == np.float32
    assert kept['bboxes'].base is None or kept['bboxes'].base.size == 8
    assert kept['bboxes'].max() == 0


def test_protocol_is_logged(tmp_path, gt_file, monkeypatch):
    lines = []
    monkeypatch.setattr(
        MMLogger, 'info', lambda self, text, *a: lines.append(text % a)
    )
    several(tmp_path, gt_file, nms_iou=0.4, max_dets=7)
    text = '\n'.join(lines)
    assert 'at most 7 per image' in text and 'nms_iou=0.4' in text
    assert 'majority: AP30 1.0000' in text and '1 were suppressed' in text
    row = next(line for line in text.splitlines() if line.startswith('bell'))
    assert row.split() == ['bell', '1.000', '1.000', '0.900', '0']


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
