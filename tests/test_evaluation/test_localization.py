import math

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from avdet_mm.evaluation.functional import (
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

WHOLE = (np.diag([224 / 320, 224 / 240, 1]), (224, 224), (240, 320))

# Rows of vggss.json, x1, y1, x2, y2: sound, several boxes, and damaged ones.
VGGSS = [
    [[0.403125, 0.253125, 0.6, 0.75]],
    [[0.45, 0.190625, 0.584375, 0.47812499999999997]],
    [
        [0.771875, 0.478125, 0.9937499999999999, 0.74375],
        [0.4625, 0.00625, 0.55, 0.19375],
        [0.634375, 0.003125, 0.725, 0.140625],
    ],
    [
        [0.503125, 0.403125, 0.6468750000000001, 0.6625000000000001],
        [0.253125, 0.065625, 0.375, 0.259375],
        [0.00625, 0.015625, 0.00625, 0.015625],
    ],
    [[0.26875, 1.0, 0.753125, 1.0]],
    [
        [0.534375, 0.3375, -2.8823037615171176e16, 0.909375],
        [0.51875, 0.315625, 0.796875, 0.8625],
    ],
    [
        [0.384375, 0.859375, 0.696875, -2.8823037615171176e16],
        [0.05, 0.35625, 0.753125, 0.98125],
    ],
    [
        [0.0, 0.53125, 0.0, 0.9875],
        [0.1125, 0.3125, 0.31875, 0.96875],
        [0.571875, 0.3375, 0.828125, 0.9812500000000001],
    ],
    [[0.396875, 0.6625, -2.8823037615171176e16, 0.984375]],
    [[1.0, 0.0, 1.0, 1.0], [0.009375, 0.20625, 0.49375, 0.9624999999999999]],
]
# Boxes of audioset_box.json, x, y, w, h.
AUDIOSET = [
    [0.2546875, 0.4583333333333333, 0.1046875, 0.17777777777777778],
    [0.2734375, 0.3111111111111111, 0.284375, 0.55],
    [0.0125, 0.0, 0.8015625, 0.9972222222222222],
    [0.3875, 0.7666666666666667, 0.209375, 0.19166666666666668],
]


def random_boxes(rng, number):
    """Boxes (n, 4) in shares of the frame, some beyond its border."""
    low = rng.uniform(-0.1, 0.9, (number, 2))
    return np.concatenate([low, low + rng.uniform(0.05, 0.8, (number, 2))], 1)


def votes(boxes):
    """How many boxes hold each pixel, (224, 224)."""
    y, x = np.mgrid[:224, :224]
    counts = np.zeros((224, 224))
    for box in boxes:
        x1, y1, x2, y2 = (math.trunc(224 * min(max(v, 0), 1)) for v in box)
        counts += (y >= y1) * (y < y2) * (x >= x1) * (x < x2)
    return counts


def direct_iou(predicted, truth):
    """Weighted IoU, step by step."""
    predicted = np.asarray(predicted, float)
    false = np.where(truth == 0, predicted, 0).sum()
    return (predicted * truth).sum() / (truth.sum() + false)


def direct_auc(ious):
    rates = [sum(v >= 0.05 * i for v in ious) / len(ious) for i in range(21)]
    return rates, sum((a + b) / 2 * 0.05 for a, b in zip(rates, rates[1:]))


def direct_upper_half(values, strict):
    """Top half of a float32 map after scaling it to [0, 1]."""
    low, high = values.min(), values.max()
    if strict:  # LVS turns the map upside down twice
        turned = -values
        scaled = 1 - (turned - turned.min()) / (turned.max() - turned.min())
    else:
        scaled = (values - low) / (high - low)
    middle = np.sort(scaled, axis=None)[224 * 224 // 2]
    return scaled > middle if strict else scaled >= middle


def upsample(coarse, how):
    if how == 'cv2':
        return cv2.resize(coarse, dsize=(224, 224))
    return F.interpolate(
        torch.from_numpy(coarse)[None, None],
        size=(224, 224),
        mode='bilinear',
        align_corners=True,
    ).numpy()[0, 0]


# --------------------------------------------------------------------------
# Against direct implementations: 200 pairs of map and boxes each
# --------------------------------------------------------------------------
@pytest.mark.parametrize('name', list(PROTOCOLS))
def test_equals_direct_implementation(name):
    protocol = PROTOCOLS[name]
    rng = np.random.default_rng(list(PROTOCOLS).index(name))
    ours, direct = [], []
    for _ in range(200):
        coarse = rng.normal(0.2, 1, (14, 14)).astype(np.float32)
        boxes = random_boxes(rng, rng.integers(1, 5))
        if name == 'dsol_multi':
            classes = rng.integers(0, 3, len(boxes))
            maps = rng.random((3, 14, 14), dtype=np.float32)
            truths, masks, ious = {}, {}, []
            for c in sorted(set(classes.tolist())):
                fine, _ = grid_map(maps[c], *WHOLE)
                masks[c] = binarize(fine, 'dsol', 0.5)
                kept, _ = grid_boxes(boxes[classes == c], (1, 1))
                truths[c] = box_map(kept)
                fine = upsample(maps[c], 'cv2')
                truth = np.minimum(votes(boxes[classes == c]), 1)
                ious.append(direct_iou(fine > 0.5 * fine.max(), truth))
            ours.append(class_iou(masks, truths))
            direct.append(sum(ious) / len(ious))
            continue

        fine, seen = grid_map(
            coarse, *WHOLE, align_corners=protocol.evaluator == 'ez_vsl'
        )
        assert seen is None
        mask = binarize(fine, protocol.evaluator, 0.1)
        kept, _ = grid_boxes(boxes, (1, 1))
        ours.append(weighted_iou(mask, box_map(kept, protocol.consensus)))

        counts = votes(boxes)
        if protocol.consensus:
            truth = np.minimum(counts / 2, 1)
        else:
            truth = np.minimum(counts, 1)
        if protocol.evaluator == 'ez_vsl':
            mask = direct_upper_half(upsample(coarse, 'torch'), strict=False)
        elif protocol.evaluator == 'lvs':
            mask = direct_upper_half(upsample(coarse, 'cv2'), strict=True)
        else:
            fine = upsample(coarse, 'cv2')
            mask = fine > 0.1 * np.max(fine)
        direct.append(direct_iou(mask, truth))
    np.testing.assert_allclose(ours, direct, rtol=0, atol=1e-12)
    assert len({round(v, 6) for v in ours}) > 150
    rates, auc = direct_auc(direct)
    np.testing.assert_array_equal(success_rates(ours), rates)
    figures = protocol_figures(protocol, ours)
    if 'auc' in figures:
        assert figures['auc'] == pytest.approx(auc, abs=1e-12)
    for key, index in dict(iou50=10, ciou50=10, ap50=10, ciou30=6).items():
        assert figures.get(key, rates[index]) == rates[index]
    if 'mean_ciou' in figures:
        assert figures['mean_ciou'] == pytest.approx(sum(direct) / 200)


@pytest.mark.parametrize('boxes', VGGSS)
def test_published_boxes(boxes):
    kept, good = grid_boxes(boxes, (1, 1))
    damaged = [
        not (min(b) >= 0 and max(b) <= 1 and b[0] < b[2] and b[1] < b[3])
        for b in boxes
    ]
    assert good.tolist() == [not d for d in damaged]
    truth = box_map(kept)
    counts = votes(boxes)
    np.testing.assert_array_equal(truth, counts > 0)
    whole = np.ones((224, 224), bool)
    # Nothing is left of some frames: whatever is predicted is wrong.
    assert weighted_iou(whole, truth) == (counts > 0).sum() / 224**2
    assert weighted_iou(~whole, truth) == 0


def test_published_boxes_of_audioset():
    boxes = np.array(AUDIOSET)
    boxes[:, 2:] += boxes[:, :2]
    areas = [box_map(b[None]).sum() for b in grid_boxes(boxes, (1, 1))[0]]
    # 57..80 x 102..142, 61..124 x 69..192, 2..182 x 0..223, 86..133 x 171..214
    assert areas == [23 * 40, 63 * 123, 180 * 223, 47 * 43]


# --------------------------------------------------------------------------
# By hand
# --------------------------------------------------------------------------
def test_weighted_iou_by_hand():
    truth = np.array([[1, 0.5], [0, 0]])
    mask = np.array([[True, True], [True, False]])
    assert weighted_iou(mask, truth) == 1.5 / (1.5 + 1)
    assert weighted_iou(mask, np.zeros((2, 2))) == 0
    assert weighted_iou(~mask & mask, truth) == 0
    assert weighted_iou(~mask & mask, np.zeros((2, 2))) == 0


def test_boxes_on_the_grid():
    frame = (100, 200)
    boxes = [[50, 25, 150, 75], [-10, -10, 5, 5], [199, 0, 300, 50]]
    grid, kept = grid_boxes(boxes, frame)
    assert kept.all()
    np.testing.assert_allclose(
        grid,
        [[56, 56, 168, 168], [0, 0, 5.6, 11.2], [222.88, 0, 224, 112]],
        atol=1e-9,
    )
    assert box_map(grid[:1]).sum() == 112 * 112
    # Corners lose their fractions: a narrow box can vanish.
    assert box_map(grid[1:2]).sum() == 5 * 11
    assert box_map([[3.2, 0, 3.9, 50]]).sum() == 0
    # A predicted one cannot.
    assert pseudo_heatmap([[3.2, 0, 3.9, 50]]).sum() == 50
    assert pseudo_heatmap(grid[1:2]).sum() == 6 * 12
    assert pseudo_heatmap([[2.9999999999, 0, 4.0000000001, 50]]).sum() == 50
    assert pseudo_heatmap(np.zeros((0, 4))).sum() == 0
    # nan, no area, outside.
    bad = [[np.nan, 0, 9, 9], [5, 5, 5, 9], [9, 0, 5, 9], [300, 0, 400, 9]]
    assert not grid_boxes(bad, frame)[1].any()


def test_consensus_of_annotators():
    boxes = [[0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 5, 5]]
    truth = box_map(boxes, consensus=True)
    assert truth[7, 3] == 0.5 and truth[2, 7] == 1 and truth[2, 2] == 1
    assert truth.sum() == 50 + 0.5 * 50
    assert box_map(boxes).sum() == 100


def test_dsol_rule():
    values = np.array([[1.0, 0.1], [0.05, 0.2]])
    mask = [[True, False], [False, True]]
    assert binarize(values, 'dsol', 0.1).tolist() == mask
    assert not binarize(np.zeros((2, 2)), 'dsol', 0.1).any()
    assert binarize(np.ones((2, 2)), 'dsol', 0.1).all()
    # Any threshold below 1 leaves a binary map as it is.
    binary = np.array([[1.0, 0.0]])
    for thr in (0.0, 0.1, 0.99):
        assert binarize(binary, 'dsol', thr).tolist() == [[True, False]]


def test_upper_half():
    values = np.array([[4.0, 1.0], [2.0, 3.0]])
    # Sorted: 1 2 3 4; the one in the middle is 3.
    strict = [[True, False], [False, False]]
    lax = [[True, False], [False, True]]
    assert binarize(values, 'lvs', None).tolist() == strict
    assert binarize(values, 'ez_vsl', None).tolist() == lax


@pytest.mark.parametrize('share', [0.1, 0.5, 0.9])
def test_binary_maps(share):
    values = np.zeros((10, 10), np.float32)
    values.ravel()[: int(100 * share)] = 1
    # LVS leaves boxes as they are, of whatever size.
    np.testing.assert_array_equal(binarize(values, 'lvs', None), values > 0)
    # EZ-VSL would take the whole frame for the smaller ones.
    with pytest.raises(ValueError, match='zeros and ones'):
        binarize(values, 'ez_vsl', None)


@pytest.mark.parametrize('evaluator', ['dsol', 'lvs', 'ez_vsl'])
def test_constant_maps(evaluator):
    # Interpolation leaves differences of rounding between such values.
    for value in (0.3, -0.3):
        flat = np.full((7, 7), value)
        fine, _ = grid_map(flat, *WHOLE, evaluator == 'ez_vsl')
        mask = binarize(fine, evaluator, 0.1)
        assert (mask == (value > 0)).all()
    for value in (1.0, 0.3):
        assert binarize(np.full((4, 4), value), evaluator, 0.1).all()
    for value in (0.0, -0.3):
        assert not binarize(np.full((4, 4), value), evaluator, 0.1).any()


def test_class_iou_and_silence():
    half = np.zeros((2, 2))
    half[0] = 1
    mask = half > 0
    truths = dict(bell=half, drum=1 - half)
    assert class_iou(dict(bell=mask, drum=mask, harp=~mask), truths) == 0.5
    assert class_iou(dict(bell=mask), truths) == 0.5
    assert silent_share(np.array([[0.2, 0.21], [0.0, 1.0]])) == 0.5


def test_success_and_figures():
    ious = [0.05, 0.5, 0.29, 1.0]
    rates = success_rates(ious)
    assert rates[[0, 1, 2, 6, 10, 11, 20]].tolist() == [
        1,
        1,
        0.75,
        0.5,
        0.5,
        0.25,
        0.25,
    ]
    figures = protocol_figures(PROTOCOLS['dsol_multi'], ious, [0.5, 1])
    assert figures == dict(ciou30=0.5, nsa=0.75)
    figures = protocol_figures(PROTOCOLS['ez_vsl_vggss'], ious)
    assert figures['ap50'] == 0.5 and figures['mean_ciou'] == 0.46
    # Areas: one step of 1 and (1 + 3/4) / 2, and so on, each 0.05 wide.
    assert figures['auc'] == pytest.approx(
        0.05 * (1 + 0.875 + 3 * 0.75 + 0.625 + 4 * 0.5 + 0.375 + 9 * 0.25)
    )
    empty = protocol_figures(PROTOCOLS['dsol_multi'], [])
    assert all(math.isnan(v) for v in empty.values())
    assert np.isnan(success_rates([])).all()


# --------------------------------------------------------------------------
# Crops and mirror images
# --------------------------------------------------------------------------
@pytest.mark.parametrize('align_corners', [False, True])
def test_warp_agrees_with_resize(align_corners):
    coarse = np.random.default_rng(0).random((7, 7), dtype=np.float32)
    plain, seen = grid_map(coarse, *WHOLE, align_corners=align_corners)
    assert seen is None
    # The mirror image of the map, seen through a mirror.
    mirror = np.array([[-224 / 320, 0, 224], [0, 224 / 240, 0], [0, 0, 1]])
    warped, seen = grid_map(
        coarse[:, ::-1], mirror, *WHOLE[1:], align_corners=align_corners
    )
    assert seen.all()
    np.testing.assert_allclose(warped, plain, atol=1e-5)


def test_what_a_crop_does_not_see_is_not_predicted():
    # The right half of the frame, 100 x 200, at its own size.
    shift = np.array([[1, 0, -100], [0, 1, 0], [0, 0, 1.0]])
    values, seen = grid_map(
        np.full((5, 5), 0.7), shift, (100, 100), (100, 200)
    )
    assert not seen[:, :112].any() and seen[:, 112:].all()
    for evaluator in ('dsol', 'lvs', 'ez_vsl'):
        mask = binarize(values, evaluator, 0.1, seen)
        np.testing.assert_array_equal(mask, seen)
    # Half of the frame is unseen and counts as lowest, so what was seen, but
    # for the lowest of it, is the upper half.
    slope = np.broadcast_to(5 - np.arange(5.0), (5, 5))
    values, seen = grid_map(slope, shift, (100, 100), (100, 200))
    for evaluator in ('lvs', 'ez_vsl'):
        mask = binarize(values, evaluator, None, seen)
        assert mask[:, 112:200].all() and not mask[:, :112].any()
    # A crop in the upper left corner is a pure scaling, but not the frame.
    _, seen = grid_map(np.ones((5, 5)), np.eye(3), (50, 200), (100, 200))
    assert seen[:112].all() and not seen[112:].any()
    # A gradient is where it was in the frame.
    ramp = np.broadcast_to(np.arange(10.0) + 0.5, (10, 10)).astype(np.float32)
    values, seen = grid_map(ramp, shift, (100, 100), (100, 200))
    columns = (np.arange(224) + 0.5) / 224 * 200 - 100
    inner = slice(125, 210)
    np.testing.assert_allclose(
        values[50, inner], columns[inner] / 10, atol=1e-4
    )
