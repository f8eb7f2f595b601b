"""Tests of self-boxes from hand-made heatmaps."""
import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmdet.datasets.transforms import RandomCrop, RandomFlip, Resize

from avdet_mm.datasets.transforms import CenterSquareCrop
from avdet_mm.models.task_modules import HeatmapBoxExtractor
from avdet_mm.models.task_modules.heatmap_box_extractor import (
    boxes_to_original,
)


def extract(rows, size=None, **kwargs):
    """Boxes and scores of one map, given as rows; no upsampling."""
    heatmap = torch.tensor(rows, dtype=torch.float32)[None]
    boxes, scores = HeatmapBoxExtractor(**kwargs)(
        heatmap, size or tuple(heatmap.shape[1:]))[0]
    assert boxes.dtype == scores.dtype == torch.float32
    return boxes.tolist(), scores.tolist()


def blank(*cells, height=8, width=10):
    rows = np.zeros((height, width), np.float32)
    for y, x, value in cells:
        rows[y, x] = value
    return rows.tolist()


def test_last_row_and_column_belong_to_the_box():
    cells = [(y, x, 1.) for y in (2, 3, 4) for x in (5, 6)]
    assert extract(blank(*cells)) == ([[5, 2, 7, 5]], [1])


def test_single_pixel_and_corners():
    assert extract(blank((0, 0, 1.)))[0] == [[0, 0, 1, 1]]
    assert extract(blank((7, 9, 1.)))[0] == [[9, 7, 10, 8]]


def test_diagonal_cells_are_connected():
    assert extract(blank((1, 1, 1.), (2, 2, 1.), (3, 1, 1.)))[0] == [[
        1, 1, 3, 4
    ]]
    # A gap of one cell separates.
    boxes, _ = extract(blank((1, 1, 1.), (3, 3, 1.)), multi=True)
    assert sorted(boxes) == [[1, 1, 2, 2], [3, 3, 4, 4]]


def test_largest_area_wins_not_the_highest_peak():
    # A long thin diagonal (large box, 3 cells), a 2 x 2 block, a high peak.
    heatmap = blank((0, 0, .8), (1, 1, .8), (2, 2, .8), (5, 4, .7),
                    (5, 5, .75), (6, 4, .7), (6, 5, .7), (0, 9, 1.))
    boxes, scores = extract(heatmap, beta=0.5)
    assert boxes == [[4, 5, 6, 7]]
    assert scores == pytest.approx([0.75])


def test_multi_orders_by_area():
    heatmap = blank((0, 9, 1.), (2, 2, .8), (2, 3, .8), (2, 4, .7),
                    (5, 6, .9), (6, 6, .95))
    boxes, scores = extract(heatmap, beta=0.5, multi=True)
    assert boxes == [[2, 2, 5, 3], [6, 5, 7, 7], [9, 0, 10, 1]]
    assert scores == pytest.approx([0.8, 0.95, 1.])


@pytest.mark.parametrize('min_area, count', [(0.05, 3), (0.34, 2), (0.66, 2),
                                             (0.67, 1), (1., 1)])
def test_multi_leaves_out_small_components(min_area, count):
    heatmap = blank((0, 0, 1.), (0, 1, 1.), (0, 2, 1.), (4, 4, 1.),
                    (4, 5, 1.), (7, 9, 1.))
    boxes, _ = extract(heatmap, multi=True, min_area=min_area)
    assert boxes == [[0, 0, 3, 1], [4, 4, 6, 5], [9, 7, 10, 8]][:count]


def test_a_box_has_the_scores_of_its_own_component():
    # The highest pixel lies in the tight box, but in another component.
    heatmap = blank(*((y, 1, .6) for y in range(1, 6)),
                    *((5, x, .6) for x in range(2, 6)), (2, 4, 1.))
    boxes, scores = extract(heatmap, beta=0.5, multi=True)
    assert boxes == [[1, 1, 6, 6], [4, 2, 5, 3]]
    assert scores == pytest.approx([0.6, 1.])


@pytest.mark.parametrize('multi', [False, True])
@pytest.mark.parametrize('shape, size', [((14, 14), (224, 224)),
                                         ((3, 5), (100, 37)),
                                         ((9, 9), (9, 9))])
def test_constant_maps_have_no_box(multi, shape, size):
    # Sums and interpolated values of equal numbers round to unequal ones.
    values = torch.linspace(-1, 1, 41)
    heatmaps = values[:, None, None].expand(-1, *shape)
    for beta_on in ('mean', 'max'):
        extractor = HeatmapBoxExtractor(beta_on=beta_on, multi=multi)
        for boxes, scores in extractor(heatmaps, size):
            assert boxes.shape == (0, 4)
            assert scores.shape == (0, )


def test_weak_contrast_is_no_constant_map():
    heatmap = 0.9 + 1e-3 * torch.tensor(blank((3, 4, 1.)))
    boxes, _ = HeatmapBoxExtractor()(heatmap[None], (8, 10))[0]
    assert boxes.tolist() == [[4, 3, 5, 4]]


@pytest.mark.parametrize('beta, beta_on, expected', [
    (0.75, 'mean', 0.25 * 8 + 0.75 * 2),
    (0.75, 'max', 0.75 * 8 + 0.25 * 2),
    (0., 'mean', 8.),
    (1., 'mean', 2.),
    (0., 'max', 2.),
    (1., 'max', 8.),
])
def test_threshold_mixes_maximum_and_mean(beta, beta_on, expected):
    heatmaps = torch.tensor([[[8., 1.], [-2., 1.]], [[16., 2.], [-4., 2.]]])
    extractor = HeatmapBoxExtractor(beta, beta_on)
    assert extractor.thresholds(heatmaps).tolist() == [
        expected, 2 * expected
    ]


def test_threshold_is_strict():
    # The mean is exactly 0.5.
    heatmap = [[1., 0., 0.5, 0.], [1., 0.5, 0.5, 0.5]]
    assert extract(heatmap, beta=1., beta_on='mean')[0] == [[0, 0, 1, 2]]
    assert extract(heatmap, beta=0., beta_on='mean') == ([], [])


def test_smaller_beta_focuses():
    y, x = np.mgrid[:14, :14]
    heatmap = np.exp(-((y - 6)**2 + (x - 8)**2) / 20).tolist()
    areas = []
    for beta in (0.5, 0.7, 0.9):
        (x1, y1, x2, y2), = extract(heatmap, (224, 224), beta=beta)[0]
        areas.append((x2 - x1) * (y2 - y1))
    assert areas[0] < areas[1] < areas[2]


@pytest.mark.parametrize('beta_on', ['mean', 'max'])
def test_range_of_beta(beta_on):
    heatmaps = torch.tensor([[[8., 0.], [0., 0.]]]).repeat(500, 1, 1)
    extractor = HeatmapBoxExtractor((0.7, 0.9), beta_on)
    torch.manual_seed(0)
    thresholds = extractor.thresholds(heatmaps)
    weight = (thresholds - 2) / 6  # of the maximum
    beta = weight if beta_on == 'max' else 1 - weight
    assert 0.7 - 1e-6 <= beta.min() < 0.71
    assert 0.89 < beta.max() <= 0.9 + 1e-6
    assert beta.mean() == pytest.approx(0.8, abs=0.01)
    torch.manual_seed(0)
    assert torch.equal(extractor.thresholds(heatmaps), thresholds)


def test_upsampled_before_thresholding():
    # One cell of 16 pixels: bilinear interpolation makes it a hat of slope
    # 1 / 16, whose highest pixels are half a pixel from its top.
    heatmap = torch.zeros(1, 14, 14)
    heatmap[0, 5, 9] = 1.
    hat = [
        np.clip(1 - np.abs(np.arange(224) + 0.5 - (16 * c + 8)) / 16, 0, 1)
        for c in (5, 9)
    ]
    fine = hat[0][:, None] * hat[1]
    peak, mean = fine.max(), fine.mean()
    assert peak == (31 / 32)**2
    for beta in (0.3, 0.7, 0.9):
        threshold = (1 - beta) * peak + beta * mean
        ys, xs = np.where(fine > threshold)
        boxes, scores = HeatmapBoxExtractor(beta)(heatmap, (224, 224))[0]
        assert boxes.tolist() == [[
            xs.min(), ys.min(), xs.max() + 1, ys.max() + 1
        ]]
        assert scores.item() == pytest.approx(peak)
        # Symmetric about the center of the cell.
        assert (boxes[0, :2] + boxes[0, 2:]).tolist() == [2 * 152, 2 * 88]
    # A threshold of the coarse maximum would be above every pixel.
    boxes, _ = HeatmapBoxExtractor(0.96, 'max')(heatmap, (224, 224))[0]
    assert len(boxes) == 1


def test_inputs_need_not_be_square():
    heatmap = torch.zeros(1, 4, 8)
    heatmap[0, 3, 0] = 1.
    boxes, _ = HeatmapBoxExtractor(0.9)(heatmap, (64, 128))[0]
    x1, y1, x2, y2 = boxes[0].tolist()
    assert (x1, y2) == (0, 64)
    assert x2 < 32 and y1 > 32


def test_maps_of_a_batch_are_independent():
    generator = torch.Generator().manual_seed(0)
    heatmaps = torch.rand(5, 7, 7, generator=generator)
    heatmaps[1] = 0.3
    heatmaps[3] *= 100
    extractor = HeatmapBoxExtractor(multi=True)
    together = extractor(heatmaps, (56, 56))
    assert len(together) == 5
    for i in range(5):
        alone, = extractor(heatmaps[i:i + 1], (56, 56))
        assert torch.equal(together[i][0], alone[0])
        assert torch.equal(together[i][1], alone[1])
    scaled = extractor(0.5 * heatmaps - 3, (56, 56))
    for (a, _), (b, _) in zip(together, scaled):
        assert torch.equal(a, b)


@pytest.mark.parametrize('kwargs, message', [
    (dict(beta_on='median'), 'beta_on'),
    (dict(beta=1.2), 'beta'),
    (dict(beta=-0.1), 'beta'),
    (dict(beta=(0.9, 0.7)), 'beta'),
    (dict(beta=(0.5, 0.6, 0.7)), 'beta'),
    (dict(beta=(0.5, 1.5)), 'beta'),
    (dict(beta=()), 'beta'),
])
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        HeatmapBoxExtractor(**kwargs)


# Boxes in original pixels


def test_shift_scale_and_flip_by_hand():
    # x' = 100 - 2 (x - 10), y' = 2 (y - 20)
    homography = np.array([[-2, 0, 120], [0, 2, -40], [0, 0, 1]], np.float32)
    boxes = torch.tensor([[20., 4., 60., 44.], [0., 0., 100., 10.]])
    result = boxes_to_original(boxes, homography, (200, 300))
    assert result.tolist() == [[30, 22, 50, 42], [10, 20, 60, 25]]
    assert result.dtype == torch.float32


def test_clipped_to_the_frame():
    homography = np.array([[1, 0, 10], [0, 1, 5], [0, 0, 1]], np.float32)
    boxes = torch.tensor([[0., 0., 200., 100.], [15., 10., 20., 20.]])
    result = boxes_to_original(boxes, homography, (50, 80))
    assert result.tolist() == [[0, 0, 80, 50], [5, 5, 10, 15]]


def test_no_boxes():
    result = boxes_to_original(torch.zeros(0, 4), np.eye(3), (5, 5))
    assert result.shape == (0, 4)


def transform(steps, image):
    return Compose(steps)(
        dict(
            img=image,
            img_shape=image.shape[:2],
            ori_shape=image.shape[:2],
            homography_matrix=np.eye(3, dtype=np.float32)))


FLIP = RandomFlip(prob=1.)
DOUBLE = Resize(scale_factor=2., interpolation='nearest')
CROP = RandomCrop(crop_size=(60, 70), crop_type='absolute')


@pytest.mark.parametrize('steps', [
    [],
    [FLIP],
    [DOUBLE],
    [CROP],
    [CenterSquareCrop(60)],
    [DOUBLE, FLIP],
    [FLIP, CROP, DOUBLE],
    [DOUBLE, CenterSquareCrop(100), FLIP],
])
def test_round_trip_through_transforms(steps):
    # A rectangle is drawn, the frame transformed, the rectangle found again
    # in the pixels, and its box mapped back: exactly the box that was drawn.
    np.random.seed(1)
    image = np.zeros((80, 90, 3), np.uint8)
    x1, y1, x2, y2 = 33, 31, 47, 44
    image[y1:y2, x1:x2] = 255
    results = transform(steps, image)
    heatmap = torch.from_numpy(results['img'][..., 0] / 255)[None].float()
    boxes, _ = HeatmapBoxExtractor()(heatmap, results['img'].shape[:2])[0]
    if steps:
        assert boxes.tolist() != [[x1, y1, x2, y2]]
    original = boxes_to_original(boxes, results['homography_matrix'],
                                 results['ori_shape'])
    assert original.tolist() == [[x1, y1, x2, y2]]


def test_round_trip_through_any_scale():
    np.random.seed(2)
    image = np.zeros((120, 160, 3), np.uint8)
    image[40:70, 60:100] = 255
    steps = [
        Resize(scale=(100000, 108), keep_ratio=True),
        RandomCrop(crop_size=(96, 96), crop_type='absolute'), FLIP
    ]
    results = transform(steps, image)
    assert results['img'].shape == (96, 96, 3)
    heatmap = torch.from_numpy(results['img'][..., 0] / 255)[None].float()
    boxes, _ = HeatmapBoxExtractor()(heatmap, (96, 96))[0]
    original = boxes_to_original(boxes, results['homography_matrix'],
                                 results['ori_shape'])
    # To a pixel of the smaller image.
    np.testing.assert_allclose(original, [[60, 40, 100, 70]], atol=120 / 108)
