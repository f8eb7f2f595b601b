"""Tests of the procedural clips."""
import json
from collections import Counter

import av
import cv2
import numpy as np
import pytest

from avdet_mm.testing import CLASSES, make_clip, write_procedural_clips
from avdet_mm.testing.procedural import _kinds, _sound, _timbre


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
    for other in ((1, 'train', 5), (0, 'test', 5), (0, 'train', 6),
                  (0, 'solo', 5)):
        assert (make_clip(*other)['frames'] != first['frames']).any()


@pytest.mark.parametrize('split', ['train', 'test', 'solo'])
def test_contents_and_tight_boxes(split):
    for index in range(25):
        clip = make_clip(2, split, index, image_size=96)
        objects = clip['objects']
        sounding = [o for o in objects if o['sounding']]
        labeled = [o for o in objects if o['label']]
        assert len(sounding) == 1
        assert sounding[0]['label'] == clip['label']
        if split in ('train', 'solo'):
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


def test_duets_sound_twice():
    sounding = Counter()
    for index in range(40):
        clip = make_clip(2, 'duet', index, image_size=64)
        objects = clip['objects']
        labels = [o['label'] for o in objects if o['label']]
        pair = [o['label'] for o in objects if o['sounding']]
        assert clip['label'] is None
        # All of different classes: the class tells whether it sounds.
        assert len(pair) == 2 and 2 <= len(labels) <= 3
        assert len(set(labels)) == len(labels)
        assert len(objects) - len(labels) <= 1
        sounding.update(pair)
    assert len(sounding) == len(CLASSES)
    # Two classes are enough.
    pair = make_clip(0, 'duet', 0, image_size=64, num_classes=2)['objects']
    assert sum(o['sounding'] for o in pair) == 2


def test_neither_sound_of_a_duet_hides_the_other(monkeypatch):
    for seed in range(20):
        names = np.random.default_rng(seed).choice(list(CLASSES), 2, False)
        waves = []

        def keep(*args):
            waves.append(_timbre(*args))
            return waves[-1].copy()

        monkeypatch.setattr('avdet_mm.testing.procedural._timbre', keep)
        mix = _sound(list(names), 39000, np.random.default_rng(100 + seed))
        assert np.abs(mix).max() <= 0.98
        levels = [np.dot(mix, w) / np.dot(w, w) for w in waves]
        # Amplitudes are within 3 dB (1.41) of each other, but for what the
        # sounds and the noise share by chance.
        assert 0.6 < levels[0] / levels[1] < 1.7
        waves.clear()


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
        wave = _sound([name], 39000, np.random.default_rng(seed))
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


def test_duets_come_beside_the_other_clips(data_root, tmp_path):
    root = tmp_path / 'data'
    write_procedural_clips(str(root), 2, 1, seed=3, workers=0)
    assert not (root / 'duet.json').exists()
    tables = {n: (root / n).read_bytes() for n in ('train.json', 'test.json')}
    (root / 'train/000001.mp4').unlink()
    write_procedural_clips(str(root), 2, 1, seed=3, workers=0, num_duet=3)
    # The others are left alone.
    assert not (root / 'train/000001.mp4').exists()
    assert tables == {n: (root / n).read_bytes() for n in tables}
    table = json.loads((root / 'duet.json').read_text())
    coco = json.loads((root / 'duet_coco.json').read_text())
    assert table['metainfo']['classes'] == list(CLASSES)
    assert len(coco['images']) == 3
    for i, row in enumerate(table['data_list']):
        assert row['clip_id'] == f'duet_{i:06d}' and 'label' not in row
        assert sum(x['sounding'] for x in row['instances']) == 2
        image = cv2.imread(
            str(root / 'duet_images' / f'{row["clip_id"]}.png'))
        assert image.shape == (108, 108, 3)
    assert sum(a['sounding'] for a in coco['annotations']) == 6
    # Solos are made beside those.
    write_procedural_clips(
        str(root), 2, 1, seed=3, workers=0, num_duet=3, num_solo=2)
    table = json.loads((root / 'solo.json').read_text())
    assert [r['clip_id'] for r in table['data_list']
            ] == ['solo_000000', 'solo_000001']
    assert all(r['label'] == r['instances'][0]['label']
               for r in table['data_list'])
    # A second time there is nothing to do; other duets are made alone.
    (root / 'duet/000000.mp4').unlink()
    write_procedural_clips(str(root), 2, 1, seed=3, workers=0, num_duet=3)
    assert not (root / 'duet/000000.mp4').exists()
    write_procedural_clips(str(root), 2, 1, seed=3, workers=0, num_duet=1)
    assert (root / 'duet/000000.mp4').exists()
    assert not (root / 'train/000001.mp4').exists()


def test_clips_of_version_3_have_not_changed():
    # Sums of all pixels; rounding of other processors may move single ones.
    sums = {
        split: int(make_clip(0, split, 0)['frames'].sum(dtype=np.int64))
        for split in ('train', 'test')
    }
    assert sums == pytest.approx(dict(train=42488787, test=83848172), rel=1e-4)


def test_bad_arguments(tmp_path):
    with pytest.raises(ValueError, match='even'):
        write_procedural_clips(str(tmp_path), image_size=107)
    with pytest.raises(ValueError, match='num_classes'):
        write_procedural_clips(str(tmp_path), num_classes=9)
    assert not list(tmp_path.iterdir())
