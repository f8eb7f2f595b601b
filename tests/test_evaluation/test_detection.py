import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from avdet_mm.evaluation.functional import box_iou, detection_ap


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
