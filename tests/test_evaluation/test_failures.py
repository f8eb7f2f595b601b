"""Kinds of failure, on boxes laid by hand."""
import numpy as np
import pytest

from avdet_mm.evaluation.functional import (
    classify_detections,
    count_failures,
)

# Two objects of 10 x 10, 2 apart, and one of 10 x 40 far away.
OBJECTS = [[0, 0, 10, 10], [12, 0, 22, 10], [60, 0, 100, 10]]
CLASSES = [0, 1, 2]


def classify(*detections, **kwargs):
    """Detections are (box, score, class)."""
    boxes, scores, labels = zip(*detections) if detections else ([], [], [])
    return classify_detections(boxes, scores, labels, OBJECTS, CLASSES,
                               **kwargs)


@pytest.mark.parametrize('box, label, kind, objects', [
    ([0, 0, 10, 10], 0, 'correct', [0]),
    # IoU exactly 0.5 counts.
    ([0, 0, 10, 5], 0, 'correct', [0]),
    ([0, 0, 10, 5], 1, 'misnamed', [0]),
    ([0, 0, 10, 10], -1, 'misnamed', [0]),
    # Inside, IoU 0.4.
    ([0, 0, 10, 4], 0, 'part', [0]),
    ([0, 0, 10, 4], 1, 'part', [0]),
    # 80 % of it inside, IoU 40 / 110; then 78 %.
    ([0, 5, 8, 11.25], 0, 'part', [0]),
    ([0, 5, 8, 11.4], 0, 'background', []),
    # Both objects, IoU 100 / 220 with each; half of each; less of one.
    ([0, 0, 22, 10], 0, 'grouped', [0, 1]),
    ([0, 0, 17, 10], 2, 'misnamed', [0]),
    ([5, 0, 17, 10], 0, 'grouped', [0, 1]),
    ([5.1, 0, 17, 10], 0, 'background', []),
    ([30, 0, 40, 10], 0, 'background', []),
    # The larger IoU decides what it is about.
    ([5, 0, 5, 10], 0, 'background', []),
])
def test_kinds(box, label, kind, objects):
    out = classify((box, 0.5, label))
    assert out['kinds'] == [kind] and out['objects'] == [objects]


def test_each_object_is_found_once_and_by_the_best_score():
    out = classify(([0, 0, 10, 9], 0.3, 0), ([0, 0, 10, 6], 0.9, 0),
                   ([12, 0, 22, 10], 0.1, 1))
    assert out['kinds'] == ['duplicate', 'correct', 'correct']
    assert out['objects'] == [[0], [0], [1]]
    assert out['missed'] == [2]


def test_two_objects_of_a_class_at_the_same_place():
    boxes = [[0, 0, 10, 10], [0, 0, 10, 9]]
    out = classify_detections(boxes, [0.5, 0.6], [3, 3], boxes, [3, 3])
    # The one that scores more takes the one it fits best.
    assert out == dict(
        kinds=['correct', 'correct'], objects=[[0], [1]], missed=[])


def test_missed_are_those_that_no_box_fits():
    # Misnamed ones are not; grouped ones and parts are.
    out = classify(([60, 0, 100, 10], 0.9, 0), ([0, 0, 22, 10], 0.8, 0))
    assert out['kinds'] == ['misnamed', 'grouped']
    assert out['missed'] == [0, 1]


def test_thresholds():
    box = [0, 0, 10, 4]
    assert classify((box, 1, 0), iou_thr=0.4)['kinds'] == ['correct']
    assert classify((box, 1, 0), part_thr=1.1)['kinds'] == ['background']
    grouped = [5, 0, 17, 10]
    assert classify((grouped, 1, 0), cover_thr=0.6)['kinds'] == ['background']


def test_nothing_there():
    assert classify() == dict(kinds=[], objects=[], missed=[0, 1, 2])
    out = classify_detections([[0, 0, 1, 1]], [1.], [0], np.zeros((0, 4)), [])
    assert out == dict(kinds=['background'], objects=[[]], missed=[])


def test_counts():
    images = [
        classify(([0, 0, 10, 10], 0.9, 0), ([30, 0, 40, 10], 0.8, 0)),
        classify(([30, 0, 40, 10], 0.8, 0)),
    ]
    assert count_failures(images) == dict(
        correct=1, duplicate=0, misnamed=0, part=0, grouped=0, background=2,
        missed=5)
    assert set(count_failures([]).values()) == {0}
