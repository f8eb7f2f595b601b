"""Tests of the pipeline after loading: geometry, gain, packing."""
import numpy as np
import pytest
import torch
from mmengine.dataset import Compose

from avdet_mm.datasets.transforms import (
    CenterSquareCrop,
    PackAudioVisualInputs,
    RandomAudioGain,
)
from avdet_mm.structures import AudioVisualDataSample

TRAIN = [
    dict(type='mmdet.Resize', scale=(100000, 256), keep_ratio=True),
    dict(type='mmdet.RandomCrop', crop_size=(224, 224), crop_type='absolute'),
    dict(type='mmdet.RandomFlip', prob=0.5),
]
TEST = [
    dict(type='mmdet.Resize', scale=(100000, 256), keep_ratio=True),
    dict(type='avdet_mm.CenterSquareCrop', size=224),
]


def sample(h, w, mark):
    """Black frame with a white square of 6 pixels around a point (x, y)."""
    image = np.zeros((h, w, 3), np.uint8)
    x, y = mark
    image[y - 3:y + 3, x - 3:x + 3] = 255
    return dict(
        img=image,
        img_shape=(h, w),
        ori_shape=(h, w),
        homography_matrix=np.eye(3, dtype=np.float32))


@pytest.mark.parametrize('h, w', [(240, 427), (360, 270), (100, 100)])
@pytest.mark.parametrize('pipeline', [TRAIN, TEST])
def test_homography_follows_a_marked_point(h, w, pipeline):
    transforms = Compose(pipeline)
    flips = seen = 0
    for seed in range(12):
        np.random.seed(seed)
        mark = (w // 2 + 5, h // 2 - 7)
        results = transforms(sample(h, w, mark))
        assert results['img'].shape == (224, 224, 3)
        assert tuple(results['img_shape']) == (224, 224)
        assert results['ori_shape'] == (h, w)
        flips += results.get('flip', False)
        weight = results['img'][..., 0].astype(float)
        x, y, z = results['homography_matrix'] @ (*mark, 1)
        assert z == 1
        if not 20 < min(x, y) <= max(x, y) < 204:
            continue  # cropped away, at least in part
        seen += 1
        center = np.arange(224) + 0.5
        found = np.array([(weight.sum(0) * center).sum(),
                          (weight.sum(1) * center).sum()]) / weight.sum()
        assert np.abs(found - (x, y)).max() < 0.1
    assert seen >= 6
    assert pipeline is TEST or 0 < flips < 12


def test_box_round_trip():
    np.random.seed(1)
    results = Compose(TRAIN)(sample(240, 427, (200, 100)))
    matrix = results['homography_matrix']
    box = np.array([[180., 90., 1.], [220., 120., 1.]])
    there = box @ matrix.T
    back = there @ np.linalg.inv(matrix).T
    np.testing.assert_allclose(back, box, atol=1e-3)


def test_photometric_distortion_keeps_type_and_geometry():
    np.random.seed(0)
    results = sample(64, 64, (30, 30))
    results = Compose([dict(type='mmdet.PhotoMetricDistortion')])(results)
    assert results['img'].shape == (64, 64, 3)
    assert (results['homography_matrix'] == np.eye(3)).all()
    packed = PackAudioVisualInputs()(
        dict(results, waveform=np.zeros(10, np.float32)))
    assert packed['inputs']['frame'].dtype == torch.uint8
    wild = np.array([-7.2, 99.6, 300.], np.float32).reshape(1, 1, 3)
    packed = PackAudioVisualInputs()(
        dict(results, img=wild, waveform=np.zeros(10, np.float32)))
    assert packed['inputs']['frame'].flatten().tolist() == [0, 100, 255]


def test_center_crop_of_a_small_frame():
    with pytest.raises(ValueError, match='resize'):
        CenterSquareCrop(224)(sample(200, 300, (100, 100)))


def test_audio_gain():
    wave = np.linspace(-1, 1, 100, dtype=np.float32)
    np.random.seed(0)
    factors = []
    for _ in range(50):
        louder = RandomAudioGain((0.5, 1.5))(dict(waveform=wave))['waveform']
        assert louder.dtype == np.float32 and np.abs(louder).max() <= 1
        factors.append(louder[60] / wave[60])
    assert 0.5 <= min(factors) < 0.6 and 1.4 < max(factors) <= 1.5
    with pytest.raises(ValueError, match='positive'):
        RandomAudioGain((0., 1.))


def test_pack():
    results = dict(
        sample(48, 64, (30, 20)),
        clip_id='a',
        sample_idx=3,
        time=0.5,
        video_path='a.mp4',
        gt_label=2,
        waveform=np.zeros(24000, np.float32),
        eval_instances=dict(
            bboxes=np.array([[1, 2, 30, 40]], np.float32),
            labels=np.array([2]),
            sounding=np.array([True])))
    results['img'] = results['img'][:, ::-1]  # as after a flip
    packed = PackAudioVisualInputs()(results)
    frame, audio = packed['inputs']['frame'], packed['inputs']['audio']
    assert frame.shape == (3, 48, 64) and frame.dtype == torch.uint8
    assert audio.shape == (24000, ) and audio.dtype == torch.float32
    data_sample = packed['data_samples']
    assert isinstance(data_sample, AudioVisualDataSample)
    meta = data_sample.metainfo
    assert set(meta) == {
        'clip_id', 'sample_idx', 'time', 'ori_shape', 'img_shape',
        'homography_matrix', 'video_path', 'gt_label'
    }
    assert data_sample.gt_instances.bboxes.tolist() == [[1, 2, 30, 40]]
    assert data_sample.gt_instances.labels.dtype == torch.int64
    assert data_sample.gt_instances.sounding.dtype == torch.bool
    del results['eval_instances'], results['gt_label']
    unlabeled = PackAudioVisualInputs()(results)['data_samples']
    assert 'gt_instances' not in unlabeled and 'gt_label' not in unlabeled
