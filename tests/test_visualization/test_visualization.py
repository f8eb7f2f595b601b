import cv2
import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData

from avdet_mm.registry import VISUALIZERS
from avdet_mm.structures import AudioVisualDataSample
from avdet_mm.visualization import (
    draw_boxes,
    enlarge,
    heatmap_overlay,
    spectrogram_image,
)


def test_enlarge():
    image = np.zeros((100, 150, 3), np.uint8)
    big, factor = enlarge(image, 320)
    assert big.shape == (300, 450, 3) and factor == 3
    same, factor = enlarge(image, 50)
    assert same.shape == image.shape and factor == 1


def test_overlay_is_where_the_homography_says():
    image = np.full((60, 120, 3), 128, np.uint8)
    heatmap = torch.zeros(4, 4)
    heatmap[1, 2] = 1
    # Right half of the frame scaled by 2/3 to an input of 40 x 40.
    matrix = np.array([[2 / 3, 0, -40], [0, 2 / 3, 0], [0, 0, 1]])
    result = heatmap_overlay(image, heatmap, (40, 40), matrix)
    assert result.shape == image.shape and result.dtype == np.uint8
    assert (result[:, :59] == round(0.4 * 128)).all()  # not seen
    # Middle of the cell: (25, 15) in the input. Turbo ends in dark red.
    redness = result[..., 0].astype(int) - result[..., 2]
    y, x = np.unravel_index(
        np.where(np.arange(120) < 60, -999, redness).argmax(), (60, 120)
    )
    center = ((25 + 40) * 1.5, 15 * 1.5)
    assert abs(x - center[0]) < 10 and abs(y - center[1]) < 10
    # Scale only is the default; a flat map is no error.
    assert heatmap_overlay(image, np.zeros((3, 3))).shape == image.shape
    corner = torch.zeros(2, 2)
    corner[1, 1] = 1
    result = heatmap_overlay(image, corner)
    assert result[55, 115, 0] > result[5, 5, 0]


def test_draw_boxes():
    image = np.zeros((50, 50, 3), np.uint8)
    drawn = draw_boxes(image, [[10, 20, 30, 40]], (255, 0, 0), thickness=1)
    assert not image.any()
    assert drawn[20, 10].tolist() == drawn[39, 29].tolist() == [255, 0, 0]
    assert not drawn[40, 30].any() and not drawn[30, 20].any()
    boxes = [[0, 0, 9, 9], [45, 45, 60, 60]]
    drawn = draw_boxes(
        image, boxes, [(255, 0, 0), (0, 255, 0)], ['a long text', '']
    )
    assert drawn[..., 0].any() and drawn[49, 45, 1] == 255
    assert (draw_boxes(image, np.zeros((0, 4)), (9, 9, 9)) == image).all()


@pytest.mark.parametrize('samples', [1, 500, 24000])
def test_spectrogram(samples):
    t = np.arange(samples) / 24000
    picture = spectrogram_image(np.sin(2 * np.pi * 200 * t), 24000, (40, 100))
    assert picture.shape == (40, 100, 3) and picture.dtype == np.uint8
    if samples == 24000:  # A low tone is bright at the bottom.
        assert picture[30:].mean() > 2 * picture[:10].mean()
    assert spectrogram_image(np.zeros(samples), 24000).shape == (80, 320, 3)


def test_visualizer(tmp_path):
    visualizer = VISUALIZERS.build(
        dict(
            type='avdet_mm.AudioVisualVisualizer',
            name='test_audio_visual',
            vis_backends=[dict(type='LocalVisBackend')],
            save_dir=str(tmp_path),
        )
    )
    visualizer.dataset_meta = dict(classes=['bell', 'drum'])
    image = np.full((100, 160, 3), 90, np.uint8)
    sample = AudioVisualDataSample(
        metainfo=dict(
            img_shape=(50, 80), homography_matrix=np.diag([0.5, 0.5, 1])
        )
    )
    sample.heatmap = torch.rand(5, 8)
    sample.pred_instances = InstanceData(
        bboxes=torch.tensor([[10.0, 10, 40, 40], [50, 50, 90, 90]]),
        scores=torch.tensor([0.9, 0.1]),
        labels=torch.tensor([3, 0]),
    )
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor([[10.0, 10, 40, 40], [50, 50, 90, 90]]),
        labels=torch.tensor([1, 0]),
        sounding=torch.tensor([True, False]),
    )
    path = str(tmp_path / 'clip.png')
    visualizer.add_datasample('clip', image, sample, out_file=path)
    assert cv2.imread(path).shape == (300, 960, 3)
    both = visualizer.get_image()
    assert both.shape == (300, 960, 3)
    assert both[30, 75].tolist() == [46, 204, 64]  # sounding
    assert both[150, 200].tolist() == [190, 190, 190]  # silent
    visualizer.add_datasample(
        'clip', image, sample, draw_gt=False, pred_score_thr=0.5, step=7
    )
    assert visualizer.get_image().shape == (300, 480, 3)
    assert list(tmp_path.glob('**/clip_7.png'))
    visualizer.add_datasample('plain', image)
    assert visualizer.get_image().shape == (300, 480, 3)
    with pytest.raises(cv2.error):
        visualizer.add_datasample('x', image, out_file=f'{tmp_path}/a.what')
