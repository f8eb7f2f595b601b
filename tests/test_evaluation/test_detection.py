import functools
import sys

import numpy as np
import pytest
import torch
from mmcv.ops import batched_nms, nms
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from avdet_mm.evaluation.functional import box_iou, detection_ap
from avdet_mm.evaluation.functional import detection as detection_module
from avdet_mm.evaluation.functional.detection import (
    BACKENDS,
    IOU_THRS,
    DetectionEvaluator,
    ground_truth_arrays,
    groupwise_nms,
)


def coco(num_images, objects, classes=('a', 'b'), first_id=1):
    """objects: (image, class id, xyxy box)."""
    return dict(
        images=[dict(id=i, width=100, height=100) for i in range(num_images)],
        categories=[
            dict(id=i, name=c) for i, c in enumerate(classes, first_id)
        ],
        annotations=[
            dict(
                id=n,
                image_id=image,
                category_id=cat,
                iscrowd=0,
                area=(b[2] - b[0]) * (b[3] - b[1]),
                bbox=[b[0], b[1], b[2] - b[0], b[3] - b[1]],
            )
            for n, (image, cat, b) in enumerate(objects, 1)
        ],
    )


def detection(image, *rows):
    """rows: (class id, score, xyxy box)."""
    return [
        dict(
            image_id=image,
            category_id=cat,
            score=score,
            bbox=[b[0], b[1], b[2] - b[0], b[3] - b[1]],
        )
        for cat, score, b in rows
    ]


def random_case(seed, num_classes=4):
    rng = np.random.default_rng(seed)
    objects, detections = [], []
    for image in range(30):
        rows = []
        for _ in range(rng.integers(0, 4)):
            low = rng.uniform(0, 60, 2)
            box = np.concatenate([low, low + rng.uniform(8, 40, 2)])
            cat = int(rng.integers(1, num_classes + 1))
            objects.append((image, cat, box.tolist()))
            for _ in range(rng.integers(0, 3)):
                guess = (
                    cat
                    if rng.random() < 0.7
                    else int(rng.integers(1, num_classes + 1))
                )
                rows.append((guess, rng.random(), box + rng.normal(0, 4, 4)))
        for _ in range(rng.integers(0, 3)):
            low = rng.uniform(0, 60, 2)
            rows.append(
                (
                    int(rng.integers(1, num_classes + 1)),
                    rng.random(),
                    np.concatenate([low, low + 20]),
                )
            )
        detections += detection(image, *rows)
    names = [f'class{i}' for i in range(num_classes)]
    return coco(30, objects, names), detections


def stock(gt, detections):
    """pycocotools' own summary: AP and AP50."""
    rows = [dict(d) for d in detections]
    api = COCO()
    api.dataset = gt
    api.createIndex()
    evaluator = COCOeval(api, api.loadRes(rows), 'bbox')
    evaluator.evaluate()
    evaluator.accumulate()
    evaluator.summarize()
    return evaluator.stats[:2]


@pytest.mark.parametrize('seed', range(3))
def test_equals_pycocotools(seed):
    gt, detections = random_case(seed)
    result = detection_ap(gt, detections)
    ap, ap50 = stock(gt, detections)
    assert 0 < ap < ap50 < result['AP30'] <= 1
    assert result['AP'] == pytest.approx(ap, abs=1e-9)
    assert result['AP50'] == pytest.approx(ap50, abs=1e-9)
    per_class = result['per_class'].values()
    for key in ('AP30', 'AP50', 'AP'):
        assert result[key] == pytest.approx(
            np.mean([row[key] for row in per_class])
        )

    merged = dict(
        gt,
        categories=[dict(id=1, name='object')],
        annotations=[dict(a, category_id=1) for a in gt['annotations']],
    )
    rows = [dict(d, category_id=1) for d in detections]
    ap, ap50 = stock(merged, rows)
    assert result['agnostic_AP'] == pytest.approx(ap, abs=1e-9)
    assert result['agnostic_AP50'] == pytest.approx(ap50, abs=1e-9)
    again = detection_ap(gt, detections, class_aware=False)
    assert again == {k: v for k, v in result.items() if 'agnostic' in k}


def test_ap30_by_hand():
    # IoU 0.4: counts at 0.3 only.
    gt = coco(1, [(0, 1, [0, 0, 10, 10])], ['a'])
    result = detection_ap(gt, detection(0, (1, 0.9, [0, 0, 10, 4])))
    assert result['AP30'] == pytest.approx(1)
    assert result['AP50'] == result['AP'] == 0
    # Exactly 0.3 counts.
    result = detection_ap(gt, detection(0, (1, 0.9, [0, 0, 10, 3])))
    assert result['AP30'] == pytest.approx(1)


def test_recall_points_by_hand():
    # One of two objects found: precision 1 at the 51 recalls 0 ... 0.5.
    gt = coco(2, [(0, 1, [0, 0, 10, 10]), (1, 1, [0, 0, 10, 10])], ['a'])
    result = detection_ap(gt, detection(0, (1, 0.9, [0, 0, 10, 10])))
    for key in ('AP30', 'AP50', 'AP', 'agnostic_AP'):
        assert result[key] == pytest.approx(51 / 101)


def test_class_agnostic_by_hand():
    # Both boxes right, both classes wrong: 0 with, 1 without classes.
    gt = coco(1, [(0, 1, [0, 0, 10, 10]), (0, 2, [50, 50, 90, 90])])
    det = detection(0, (2, 0.9, [0, 0, 10, 10]), (-1, 0.8, [50, 50, 90, 90]))
    result = detection_ap(gt, det)
    assert result['AP30'] == 0
    assert result['agnostic_AP30'] == pytest.approx(1)
    assert result['agnostic_AP'] == pytest.approx(1)
    # The same object twice, in two classes: one is a false positive, and
    # here it comes before the second object: precision 1, 1/2, 2/3.
    det = detection(
        0,
        (1, 0.9, [0, 0, 10, 10]),
        (2, 0.8, [0, 0, 10, 10]),
        (2, 0.7, [50, 50, 90, 90]),
    )
    result = detection_ap(gt, det)
    assert result['agnostic_AP50'] == pytest.approx((51 + 50 * 2 / 3) / 101)
    # Class-aware: class a is perfect; class b has precision 1/2.
    assert result['AP50'] == pytest.approx(0.75)
    # One list per image: with max_dets = 1 only the first one is left.
    result = detection_ap(gt, det, max_dets=1)
    assert result['agnostic_AP50'] == pytest.approx(51 / 101)


def test_only_classes_with_ground_truth():
    gt = coco(1, [(0, 2, [0, 0, 10, 10])], ['a', 'b', 'c'])
    det = detection(0, (2, 0.5, [0, 0, 10, 10]), (1, 0.9, [0, 0, 10, 10]))
    result = detection_ap(gt, det)
    assert result['AP50'] == pytest.approx(1)
    assert np.isnan(result['per_class']['a']['AP50'])
    assert result['per_class']['b']['AP'] == pytest.approx(1)


def test_category_ids_from_zero_and_out_of_order():
    gt = coco(1, [(0, 0, [0, 0, 10, 10])], ['a', 'b'], first_id=0)
    gt['categories'].reverse()
    gt['annotations'][0]['id'] = 0  # pycocotools would miss the match
    result = detection_ap(gt, detection(0, (0, 0.5, [0, 0, 10, 10])))
    assert result['AP'] == pytest.approx(1)
    assert result['per_class']['a']['AP'] == pytest.approx(1)


def test_crowd_is_ignored():
    gt = coco(1, [(0, 1, [0, 0, 10, 10]), (0, 1, [50, 50, 90, 90])], ['a'])
    gt['annotations'][1]['iscrowd'] = 1
    det = detection(0, (1, 0.5, [0, 0, 10, 10]), (1, 0.9, [55, 55, 80, 80]))
    assert detection_ap(gt, det)['AP'] == pytest.approx(1)


def test_nothing_predicted_and_nothing_to_find():
    gt = coco(2, [(0, 1, [0, 0, 10, 10])])
    result = detection_ap(gt, [])
    assert result['AP30'] == result['agnostic_AP'] == 0
    assert np.isnan(result['per_class']['b']['AP'])
    empty = coco(2, [])
    for det in ([], detection(0, (1, 0.5, [0, 0, 9, 9]))):
        result = detection_ap(empty, det)
        assert np.isnan(result['AP']) and np.isnan(result['agnostic_AP50'])


def hard_case(seed):
    """Few values, so that scores and IoUs are often equal; all corners."""
    rng = np.random.default_rng(seed)
    num_images, num_classes = rng.integers(1, 10), rng.integers(1, 6)
    on_grid, single = rng.random() < 0.6, rng.random() < 0.5
    levels = int(rng.choice([2, 5, 1000]))
    most_gts, most_dets = rng.integers(0, 6), rng.choice([0, 3, 8, 25])
    crowds = rng.choice([0, 0.3, 0.6])

    def box():
        if on_grid:
            b = np.append(rng.integers(0, 3, 2), rng.integers(1, 4, 2)) * 5.0
        else:
            b = np.append(rng.uniform(0, 12, 2), rng.uniform(3, 15, 2))
        if rng.random() < 0.03:
            b[2] = 0
        elif rng.random() < 0.02:
            b[2:] = 2e5  # larger than COCO's largest range of areas
        return (b.astype(np.float32) if single else b).tolist()

    images = rng.permutation(3 * num_images)[:num_images].tolist()
    cats = (rng.permutation(num_classes) + rng.integers(0, 2)).tolist()
    gts, dets = [], []
    for image in images:
        here = len(gts)
        for _ in range(rng.integers(0, most_gts + 1)):
            gts.append(
                dict(
                    image_id=image,
                    bbox=box(),
                    category_id=int(rng.choice([*cats] * 3 + [99])),
                    iscrowd=int(rng.random() < crowds),
                )
            )
        for _ in range(rng.integers(0, most_dets + 1)):
            det = dict(
                image_id=image,
                bbox=box(),
                score=float(rng.integers(0, levels) / levels),
                category_id=int(rng.choice([*cats, -1, 77])),
            )
            if len(gts) > here and rng.random() < 0.5:
                near = gts[rng.integers(here, len(gts))]
                det['category_id'] = near['category_id']
                if rng.random() < 0.5:
                    det['bbox'] = near['bbox']
            dets.append(det)
    gt = dict(
        images=[dict(id=i) for i in images],
        categories=[dict(id=c, name=f'class{c}') for c in cats],
        annotations=[gts[i] for i in rng.permutation(len(gts))],
    )
    dets = [dets[i] for i in rng.permutation(len(dets))]
    return gt, dets, int(rng.choice([1, 2, 3, 100, 10**6]))


@functools.lru_cache(maxsize=None)
def direct(seed, agnostic):
    """Precision by pycocotools alone, (11, 101, classes)."""
    gt, dets, max_dets = hard_case(seed)
    cats = [1] if agnostic else sorted(c['id'] for c in gt['categories'])
    apis = []
    for rows in (gt['annotations'], dets):
        apis.append(COCO())
        apis[-1].dataset = dict(
            images=gt['images'],
            categories=[dict(id=c) for c in cats],
            annotations=[
                dict(
                    row,
                    id=i,
                    iscrowd=row.get('iscrowd', 0),
                    area=row['bbox'][2] * row['bbox'][3],
                    category_id=1 if agnostic else row['category_id'],
                )
                for i, row in enumerate(rows, 1)
            ],
        )
        apis[-1].createIndex()
    evaluator = COCOeval(*apis, 'bbox')
    evaluator.params.catIds = cats
    evaluator.params.iouThrs = IOU_THRS
    evaluator.params.maxDets = [max_dets]
    evaluator.params.areaRng = [[0, 1e10]]
    evaluator.params.areaRngLbl = ['all']
    evaluator.evaluate()
    evaluator.accumulate()
    return evaluator.eval['precision'][:, :, :, 0, 0]


def same(table, result, prefix=''):
    """Check that figures are the means of a table."""
    valid = table[0, 0] > -1
    means = table[:, :, valid].mean(axis=1)
    expected = [means[0], means[1], means[1:]]
    for key, values in zip(('AP30', 'AP50', 'AP'), expected):
        value = result[prefix + key]
        if not valid.any():
            assert np.isnan(value)
        else:
            assert value == pytest.approx(values.mean(), abs=1e-12)


@pytest.mark.parametrize('backend', BACKENDS)
def test_all_backends_equal_pycocotools(backend):
    if backend == 'faster_coco_eval':
        pytest.importorskip(backend)
    seen = 0
    for seed in range(300):
        gt, dets, max_dets = hard_case(seed)
        result = detection_ap(gt, dets, max_dets=max_dets, backend=backend)
        table = direct(seed, agnostic=True)
        same(table, result, 'agnostic_')
        if table[0, 0, 0] > -1:
            curve = np.array(result['agnostic_pr50'])
            assert np.abs(curve - table[1, :, 0]).max() < 1e-12
        table = direct(seed, agnostic=False)
        same(table, result)
        cats = sorted(gt['categories'], key=lambda c: c['id'])
        assert list(result['per_class']) == [c['name'] for c in cats]
        for c, (name, figures) in enumerate(result['per_class'].items()):
            same(table[:, :, c : c + 1], figures)
            assert (name in result['pr50']) == (table[0, 0, c] > -1)
            if name in result['pr50']:
                curve = np.array(result['pr50'][name])
                assert np.abs(curve - table[1, :, c]).max() < 1e-12
                seen += 0.001 < curve.mean() < 0.999
    assert seen > 150  # cases that are neither empty nor perfect


def test_numpy_equals_pycocotools_to_the_last_bit():
    for seed in range(100):
        gt, dets, max_dets = hard_case(1000 + seed)
        ours, theirs = (
            detection_ap(gt, dets, max_dets=max_dets, backend=b)
            for b in ('numpy', 'pycocotools')
        )
        np.testing.assert_equal(ours, theirs)


def test_chunks_do_not_matter(monkeypatch):
    gt, dets = random_case(5)
    whole = detection_ap(gt, dets)
    monkeypatch.setattr(detection_module, '_CHUNK', 7)
    np.testing.assert_equal(detection_ap(gt, dets), whole)


@pytest.mark.parametrize('backend', BACKENDS)
def test_ties(backend):
    if backend == 'faster_coco_eval':
        pytest.importorskip(backend)
    # IoU 1/3 with both: the later one is taken, and then the second
    # detection has nothing left.
    boxes = [[0, 0, 10, 10], [10, 0, 20, 10]]
    det = detection(0, (1, 0.9, [5, 0, 15, 10]), (1, 0.8, boxes[1]))
    for objects, expected in ((boxes, 51 / 101), (boxes[::-1], 1)):
        gt = coco(1, [(0, 1, box) for box in objects], ['a'])
        result = detection_ap(gt, det, backend=backend)
        assert result['AP30'] == pytest.approx(expected)
    # Equal scores: in the order of image ids, whatever that of the lists.
    gt = coco(2, [(0, 1, [0, 0, 10, 10])], ['a'])
    gt['images'].reverse()
    hit = detection(0, (1, 0.5, [0, 0, 10, 10]))
    miss = detection(1, (1, 0.5, [0, 0, 10, 10]))
    result = detection_ap(gt, miss + hit, backend=backend)
    assert result['AP'] == pytest.approx(1)
    # Within an image, in the order of the list.
    far = detection(0, (1, 0.5, [50, 50, 60, 60]))
    result = detection_ap(gt, far + hit, backend=backend)
    assert result['AP'] == pytest.approx(0.5)


@pytest.mark.parametrize('backend', BACKENDS)
def test_crowd_takes_any_number_and_comes_second(backend):
    if backend == 'faster_coco_eval':
        pytest.importorskip(backend)
    gt = coco(1, [(0, 1, [0, 0, 40, 40]), (0, 1, [0, 0, 10, 10])], ['a'])
    gt['annotations'][0]['iscrowd'] = 1
    # Two inside of the crowd are ignored; the third has IoU 0.4 with the
    # object, which is preferred to the crowd while it is good enough.
    det = detection(
        0,
        (1, 0.9, [20, 20, 30, 30]),
        (1, 0.8, [20, 0, 30, 10]),
        (1, 0.7, [0, 0, 4, 10]),
    )
    result = detection_ap(gt, det, backend=backend)
    assert result['AP30'] == pytest.approx(1)
    assert result['AP50'] == 0


def test_more_classes_than_anyone_predicts():
    names = [f'class{i}' for i in range(400)]
    gt = coco(2, [(0, 7, [0, 0, 9, 9]), (1, 400, [0, 0, 9, 9])], names)
    det = detection(0, (7, 0.3, [0, 0, 9, 9]))
    result = detection_ap(gt, det)
    assert result['AP'] == pytest.approx(0.5)
    assert list(result['pr50']) == ['class6', 'class399']
    assert result['pr50']['class399'] == [0] * 101
    assert result['pr50']['class6'] == pytest.approx([1] * 101)


def test_one_evaluator_for_several_labelings():
    gt, dets = random_case(3)
    index = np.array([a['image_id'] for a in gt['annotations']])
    evaluator = DetectionEvaluator(
        index,
        np.array([a['bbox'] for a in gt['annotations']]),
        np.zeros(len(index), bool),
        np.array([d['image_id'] for d in dets]),
        np.array([d['bbox'] for d in dets]),
        np.array([d['score'] for d in dets]),
        num_images=30,
    )
    gt_classes = np.array([a['category_id'] - 1 for a in gt['annotations']])
    for shift in range(3):
        moved = [(d['category_id'] + shift) % 4 for d in dets]
        table = evaluator.precision(np.array(moved), gt_classes, 4)
        again = detection_ap(
            gt, [dict(d, category_id=c + 1) for d, c in zip(dets, moved)]
        )
        assert table[1:].mean() == pytest.approx(again['AP'], abs=1e-12)
        assert again['AP'] > 0


def test_assigned_objects():
    evaluator = DetectionEvaluator(
        np.array([1, 0, 1]),
        np.array([[0, 0, 10, 10], [0, 0, 10, 10], [4, 0, 10, 10.0]]),
        np.array([False, False, True]),
        np.array([1, 0, 1, 1, 0]),
        np.array(
            [
                [1, 0, 10, 10],
                [0, 0, 10, 5],
                [4, 0, 10, 10],
                [0, 0, 10, 10],
                [0, 0, 10, 4.9],
            ]
        ),
        np.array([0.1, 0.2, 0.3, 0.4, 0.5]),
        num_images=2,
    )
    # The third is nearest to the crowd, but IoU 6/14 is too little for the
    # object; the second has exactly 0.5.
    assert evaluator.assigned().tolist() == [0, 1, -1, 0, -1]
    assert evaluator.assigned(0.4).tolist() == [0, 1, 0, 0, 1]


def test_found_objects_by_hand():
    evaluator = DetectionEvaluator(
        np.array([1, 0, 1, 1, 0]),
        np.array(
            [
                [0, 0, 10, 10],
                [0, 0, 10, 10],
                [20, 0, 10, 10],
                [40, 0, 10, 10],
                [60, 0, 10, 10.0],
            ]
        ),
        np.array([False, False, False, True, False]),
        np.array([1, 1, 0, 1]),
        np.array(
            [
                [0, 0, 10, 10],
                [0, 0, 10, 4],
                [0, 0, 10, 5],
                [40, 0, 10, 10.0],
            ]
        ),
        np.array([0.1, 0.2, 0.3, 0.9]),
        num_images=2,
    )
    gt_classes = np.array([1, 0, 1, 1, -1])
    # A crowd does not count, nor does what has no class.
    found, counts = evaluator.found(np.array([1, 1, 0, 1]), gt_classes, 2)
    assert counts.tolist() == [True, True, True, False, False]
    assert found.shape == (11, 5)
    # At IoU 0.3 the better one of two takes the object, of 0.4; it is found
    # by the other one above. The second object has exactly 0.5.
    assert found[:, 0].all()
    assert found[:, 1].tolist() == [True, True] + 9 * [False]
    assert not found[:, 2:].any()
    # Of another class, left out, or beyond the best one of an image.
    for classes in ([0, 0, 0, 0], [-1, 0, 0, 1]):
        found, _ = evaluator.found(np.array(classes), gt_classes, 2)
        assert not found[:, 0].any() and found[1, 1]
    evaluator.max_dets = 1
    found, counts = evaluator.found(np.zeros(4, int), np.zeros(5, int), 1)
    assert counts.tolist() == [True, True, True, False, True]
    assert found[1].tolist() == [False, True, False, False, False]


@pytest.mark.parametrize('max_dets', [1, 100])
def test_found_objects_are_those_of_pycocotools(max_dets):
    gt, dets = random_case(5)
    truth = ground_truth_arrays(gt)
    evaluator = DetectionEvaluator(
        truth['images'],
        truth['boxes'],
        truth['crowd'],
        np.array([d['image_id'] for d in dets]),
        np.array([d['bbox'] for d in dets]),
        np.array([d['score'] for d in dets]),
        num_images=30,
        max_dets=max_dets,
    )
    classes = np.array([d['category_id'] - 1 for d in dets])
    found, counts = evaluator.found(classes, truth['classes'], 4)
    assert counts.all() and 0 < found[6].sum() < found[1].sum() < len(counts)
    api = COCO()
    api.dataset = gt
    api.createIndex()
    reference = COCOeval(api, api.loadRes([dict(d) for d in dets]), 'bbox')
    reference.params.iouThrs = IOU_THRS
    reference.params.maxDets = [max_dets]
    reference.params.areaRng = [[0, 1e10]]
    reference.params.areaRngLbl = ['all']
    reference.evaluate()
    theirs = np.zeros_like(found)
    for image in filter(None, reference.evalImgs):
        theirs[:, np.array(image['gtIds'], int) - 1] = image['gtMatches'] > 0
    assert (found == theirs).all()


def test_what_sounds():
    gt = coco(2, [(0, 1, [0, 0, 9, 9]), (1, 1, [0, 0, 9, 9])])
    assert ground_truth_arrays(gt)['sounding'] is None
    gt['annotations'][0]['sounding'] = 1
    assert ground_truth_arrays(gt)['sounding'] is None
    gt['annotations'][1]['sounding'] = False
    sounding = ground_truth_arrays(gt)['sounding']
    assert sounding.dtype == bool and sounding.tolist() == [True, False]


def test_backend_errors(monkeypatch):
    with pytest.raises(ValueError, match='choose one of numpy'):
        detection_ap(coco(1, []), [], backend='coco')
    monkeypatch.setitem(sys.modules, 'faster_coco_eval', None)
    with pytest.raises(ImportError, match='pip install faster-coco-eval'):
        detection_ap(coco(1, []), [], backend='faster_coco_eval')


def nms_case(seed):
    rng = np.random.default_rng(seed)
    num = int(rng.integers(0, 60))
    scale = 5.0 if seed % 2 else 1
    low = rng.uniform(0, 20, (num, 2)) // scale * scale
    size = rng.uniform(0, 20, (num, 2)) // scale * scale
    boxes = np.concatenate([low, low + size], axis=1).astype(np.float32)
    scores = rng.permutation(num).astype(np.float32)
    groups = rng.integers(0, rng.integers(1, 7), num)
    return boxes, scores, groups, float(rng.choice([0, 0.3, 0.5, 0.7]))


def test_nms_equals_mmcv():
    removed = 0
    for seed in range(200):
        boxes, scores, groups, thr = nms_case(seed)
        keep = groupwise_nms(boxes, scores, groups, thr)
        expected = np.zeros(len(boxes), dtype=bool)
        for group in np.unique(groups):
            rows = np.flatnonzero(groups == group)
            kept = nms(
                torch.from_numpy(boxes[rows]),
                torch.from_numpy(scores[rows]),
                thr,
            )[1]
            expected[rows[kept.numpy()]] = True
        assert keep.tolist() == expected.tolist()
        if scores.size and seed % 2:  # whole numbers stay exact there
            kept = batched_nms(
                *map(torch.from_numpy, (boxes, scores, groups)),
                dict(type='nms', iou_threshold=thr),
            )[1]
            assert sorted(kept.tolist()) == np.flatnonzero(keep).tolist()
        removed += (~keep).sum()
    assert removed > 1000


def test_nms_by_hand(monkeypatch):
    # The first removes the second, which then cannot remove the third.
    boxes = np.array([[0, 0, 10, 10], [2, 0, 12, 10], [5, 0, 15, 10]])
    for order in ([0, 1, 2], [1, 2, 0]):
        scores, groups = np.array([0.9, 0.8, 0.7]), np.zeros(3, int)
        keep = groupwise_nms(boxes[order], scores[order], groups, 0.5)
        assert keep.tolist() == [(True, False, True)[i] for i in order]
    # Exactly the threshold stays, and other groups do not matter.
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 10]])
    groups = np.array([3, 3, 10**9])
    assert groupwise_nms(boxes, np.ones(3), groups, 0.5).all()
    # Of equal scores the first is better.
    groups = np.zeros(3, int)
    keep = groupwise_nms(boxes, np.ones(3), groups, 0.5)
    assert keep.tolist() == [True, True, False]
    case = nms_case(3)
    whole = groupwise_nms(*case)
    monkeypatch.setattr(detection_module, '_CHUNK', 5)
    assert groupwise_nms(*case).tolist() == whole.tolist()


def test_unknown_image():
    with pytest.raises(ValueError, match='another data set'):
        detection_ap(coco(1, []), detection(7, (1, 0.5, [0, 0, 9, 9])))


def test_box_iou():
    iou = box_iou(
        [[0, 0, 10, 10], [5, 5, 5, 5]],
        [[0, 0, 10, 10], [5, 0, 15, 10], [5, 5, 5, 5]],
    )
    assert iou == pytest.approx(np.array([[1, 1 / 3, 0], [0, 0, 0]]))
    assert box_iou(np.zeros((0, 4)), [[0, 0, 1, 1]]).shape == (0, 1)
