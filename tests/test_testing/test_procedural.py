"""Tests of the procedural clips."""
import json
from collections import Counter

import av
import cv2
import numpy as np
import pytest

from avdet_mm.testing import CLASSES, make_clip, write_procedural_clips
from avdet_mm.testing.procedural import _kinds, _sound


@pytest.fixture(scope='module')
def data_root(tmp_path_factory):
    root = tmp_path_factory.mktemp('clips')
    write_procedural_clips(str(root), 6, 4, seed=3, workers=0)
    return root


def test_clips_depend_on_seed_split_and_number_only():
    first = make_clip(0, 'train', 5)
    again = make_clip(0, 'train', 5)
    assert first['frames'].shape == (13, 108, 108, 3)
    assert first['frames'].dtype == np.uint8
    assert first['waveform'].shape == (39000, )
    assert first['waveform'].dtype == np.float32
    assert np.abs(first['waveform']).max() <= 1
    assert (first['frames'] == again['frames']).all()
    assert (first['waveform'] == again['waveform']).all()
    for other in ((1, 'train', 5), (0, 'test', 5), (0, 'train', 6)):
        assert (make_clip(*other)['frames'] != first['frames']).any()


@pytest.mark.parametrize('split', ['train', 'test'])
def test_contents_and_tight_boxes(split):
    for index in range(25):
        clip = make_clip(2, split, index, image_size=96)
        objects = clip['objects']
        sounding = [o for o in objects if o['sounding']]
        labeled = [o for o in objects if o['label']]
        assert len(sounding) == 1
        assert sounding[0]['label'] == clip['label']
        if split == 'train':
            assert len(labeled) == 1 and len(objects) <= 3
        else:
            assert len(labeled) <= 3 and len(objects) - len(labeled) <= 1
        for o in objects:
            assert (o['label'] is None) == (o['kind'] not in CLASSES.values())
            ys, xs = np.where(o['mask'])
            extent = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
            # Exact to a pixel, and a little for sharp tips, whose last pixels
            # are covered by less than the quarter that the mask asks for.
            assert np.abs(np.subtract(extent, o['bbox'])).max() <= 1.5
            assert min(o['bbox']) >= 0 and max(o['bbox']) <= 96
        cover = sum(o['mask'].astype(int) for o in objects)
        assert (cover > 1).sum() <= 0.15 * (cover > 0).sum()


def test_no_single_cue_tells_classes_from_distractors():
    classes, distractors = _kinds(8)
    assert not set(classes.values()) & set(distractors)
    for cue in range(3):
        shares = []
        for kinds in (list(classes.values()), distractors):
            count = Counter(kind[cue] for kind in kinds)
            shares.append({k: n / len(kinds) for k, n in count.items()})
        assert shares[0].keys() == shares[1].keys()
        for value, share in shares[0].items():
            assert share == pytest.approx(shares[1][value])
    # Neither do sizes.
    sides = {True: [], False: []}
    for index in range(150):
        for o in make_clip(0, 'train', index)['objects']:
            x1, y1, x2, y2 = o['bbox']
            sides[o['sounding']].append(max(x2 - x1, y2 - y1))
    assert abs(np.mean(sides[True]) - np.mean(sides[False])) < 5


@pytest.mark.parametrize('name', list(CLASSES))
def test_every_window_of_sound_is_heard(name):
    for seed in range(5):
        wave = _sound(name, 39000, np.random.default_rng(seed))
        assert np.isfinite(wave).all() and np.abs(wave).max() <= 1
        for start in (0, 7000, 15000):
            assert wave[start:start + 24000].std() > 0.01


def test_files_tables_and_images(data_root):
    for split, number in (('train', 6), ('test', 4)):
        table = json.loads((data_root / f'{split}.json').read_text())
        coco = json.loads((data_root / f'{split}_coco.json').read_text())
        assert table['metainfo']['dataset_type'] == 'avdet_mm.clips'
        assert table['metainfo']['classes'] == list(CLASSES)
        assert [c['name'] for c in coco['categories']] == list(CLASSES)
        assert len(table['data_list']) == len(coco['images']) == number
        boxes = [i['bbox'] for r in table['data_list'] for i in r['instances']]
        assert len(coco['annotations']) == len(boxes)
        for (x1, y1, x2, y2), ann in zip(boxes, coco['annotations']):
            np.testing.assert_allclose(ann['bbox'],
                                       [x1, y1, x2 - x1, y2 - y1], 0, 0.011)
        for i, row in enumerate(table['data_list']):
            assert row['clip_id'] == f'{split}_{i:06d}'
            assert row['duration'] == 1.625 and row['time'] == 0.75
            assert sum(x['sounding'] for x in row['instances']) == 1
            with av.open(str(data_root / row['video_path'])) as container:
                assert container.streams.video[0].codec.name == 'h264'
                assert container.streams.audio[0].codec.name == 'aac'
                frames = list(container.decode(video=0))
            image = cv2.imread(
                str(data_root / f'{split}_images' / f'{row["clip_id"]}.png'))
            assert (image == frames[6].to_ndarray(format='bgr24')).all()
            drawn = make_clip(3, split, i)['frames'][6]
            assert np.abs(image.astype(float) - drawn).mean() < 8


def test_writing_is_reproducible_and_resumable(data_root, tmp_path):
    write_procedural_clips(str(tmp_path), 2, 1, seed=3, workers=1)
    for name in ('train/000001.mp4', 'test_images/test_000000.png'):
        assert (tmp_path / name).read_bytes() == (data_root /
                                                  name).read_bytes()
    video = tmp_path / 'train/000001.mp4'
    video.unlink()
    write_procedural_clips(str(tmp_path), 2, 1, seed=3, workers=0)
    assert not video.exists()  # the same settings: nothing to do
    write_procedural_clips(str(tmp_path), 2, 1, seed=4, workers=0)
    assert video.exists()


def test_bad_arguments(tmp_path):
    with pytest.raises(ValueError, match='even'):
        write_procedural_clips(str(tmp_path), image_size=107)
    with pytest.raises(ValueError, match='num_classes'):
        write_procedural_clips(str(tmp_path), num_classes=9)
    assert not list(tmp_path.iterdir())
