"""Tests of StampSound's composition; most of them on a tiny pack."""
import json
import os
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import soundfile
from PIL import Image
from pycocotools.coco import COCO

from avdet_mm.datasets import AudioVisualDataset, stampsound
from avdet_mm.datasets.clip_table import load_clip_table
from avdet_mm.datasets.stampsound import (
    PRESETS,
    Preset,
    clip_digests,
    load_listing,
    make_clip,
    make_pack,
    preset_classes,
    split_checksums,
    verify_pack,
    write_stampsound,
)
from tests.stampsound_pack import (
    CLASSES,
    REAL_PACK,
    WITH_ALT,
    ellipse,
    make_tiny_pack,
)

SIZE = 64
SMALL = PRESETS['small']
FULL = PRESETS['full']
# Digests that no platform and no version may change.
DIGESTS = dict(
    pixels='4d8f5b18422c5fc3a9e1c1bf27de0c80d2e50e9499f0a51fc3731d6be0de8032',
    boxes='2fe5d573823309ba715ba2d0ea18ab20edefadef6cd10ca54a24b0896539b7ae')


@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
    """A tiny pack: its folder, its list and the list's path."""
    root = tmp_path_factory.mktemp('pack')
    path = make_tiny_pack(root)
    return str(root), load_listing(path), path


@pytest.fixture(scope='module')
def clips(tiny):
    """Composed clips of each preset and split."""
    return {
        (name, split): [
            make_clip(*tiny[:2], preset, 3, split, i, SIZE)
            for i in range(number)
        ]
        for name, preset, number in (('small', SMALL, 12), ('full', FULL, 24))
        for split in ('train', 'test', 'alt')
    }


def write(tiny, out_dir, **kwargs):
    args = dict(num_train=5, num_test=3, num_alt=2, image_size=SIZE,
                workers=0, listing=tiny[2])
    return write_stampsound(tiny[0], str(out_dir), **dict(args, **kwargs))


def contents(folder):
    """Content of all files below a folder."""
    folder = Path(folder)
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in folder.rglob('*') if p.is_file()
    }


# --------------------------------------------------------------------------
# Ingredients
# --------------------------------------------------------------------------
def test_the_benchmarks_own_list():
    listing = load_listing()
    assert len(listing['classes']) == 40
    assert len(preset_classes(SMALL, listing)) == 10
    assert preset_classes(FULL, listing) == sorted(listing['classes'])
    with_alt = [n for n, e in listing['classes'].items() if e['alt']]
    assert len(with_alt) == 11
    for kind, sizes in (('distractors', (91, 30)), ('backgrounds', (25, 8))):
        train, test = (set(listing[kind][s]) for s in ('train', 'test'))
        assert (len(train), len(test)) == sizes
        assert not train & test
    # All that is listed is used, and nothing twice.
    used = [
        p for e in listing['classes'].values()
        for p in [e['photo'], e['sound'], *e['alt']]
    ]
    used += [
        p for kind in ('distractors', 'backgrounds')
        for paths in listing[kind].values() for p in paths
    ]
    assert sorted(used) == sorted(listing['files'])
    for path, entry in listing['files'].items():
        assert len(entry['sha256']) == 64
        assert path[0] != '/' and entry['origin'].startswith('usr/share/')


def test_sets_of_full_size_are_balanced():
    num_classes = dict(small=(10, 10, 4), full=(40, 40, 11))
    for name, preset in PRESETS.items():
        for number, classes in zip(preset[-3:], num_classes[name]):
            assert number % classes == 0


def test_preset_needs_its_classes(tiny):
    with pytest.raises(ValueError, match='lacks the classes unicorn'):
        preset_classes(SMALL._replace(classes=('hen', 'unicorn')), tiny[1])


def test_listing_without_checksum(tiny, tmp_path):
    listing = json.loads(json.dumps(tiny[1]))
    del listing['files']['stamps/hen_alt.png']
    path = tmp_path / 'listing.json'
    path.write_text(json.dumps(listing))
    with pytest.raises(ValueError, match='1 files without .* stamps/hen_alt'):
        load_listing(str(path))


def test_wrong_and_missing_ingredients(tmp_path):
    listing = load_listing(make_tiny_pack(tmp_path))
    verify_pack(str(tmp_path), listing)
    photo = tmp_path / 'stamps/hen.png'
    photo.write_bytes(photo.read_bytes() + b'\n')
    message = '1 of 39 ingredients .* not those .*: stamps/hen.png'
    with pytest.raises(ValueError, match=message):
        verify_pack(str(tmp_path), listing)
    photo.unlink()
    (tmp_path / 'stamps/cat.ogg').unlink()
    with pytest.raises(
            FileNotFoundError,
            match='2 of 39 ingredients are missing .*cat.ogg, stamps/hen.png'):
        verify_pack(str(tmp_path), listing)
    with pytest.raises(FileNotFoundError, match='no folder .*--from-debian'):
        verify_pack(str(tmp_path / 'other'), listing)


def test_pack_from_debian(tmp_path):
    debian, pack = tmp_path / 'root', tmp_path / 'pack'
    listing = load_listing(make_tiny_pack(debian / 'usr'))
    large = np.random.default_rng(0).integers(
        0, 256, (900, 1300, 3), dtype=np.uint8)
    cv2.imwrite(str(debian / 'usr/backgrounds/0.png'), large)
    make_pack(str(pack), str(debian), listing)
    assert set(contents(pack)) == set(listing['files'])
    path = 'stamps/hen.png'
    assert (pack / path).read_bytes() == (debian / 'usr' / path).read_bytes()
    with Image.open(pack / 'backgrounds/0.png') as image:
        assert image.format == 'JPEG'
        assert image.size == (640, 443)
    (debian / 'usr/stamps/hen.png').unlink()
    with pytest.raises(FileNotFoundError, match='1 of 39 .*usr/stamps/hen'):
        make_pack(str(pack), str(debian), listing)


def test_useless_ingredients(tmp_path):
    path = str(tmp_path / 'a.png')
    cv2.imwrite(path, np.zeros((20, 20, 3), np.uint8))
    with pytest.raises(ValueError, match='no image with 8 bits and alpha'):
        stampsound._photo(path, 128)
    path = str(tmp_path / 'b.png')
    cv2.imwrite(path, np.full((20, 20, 4), 127, np.uint8))
    with pytest.raises(ValueError, match='no opaque pixel'):
        stampsound._photo(path, 128)
    path = str(tmp_path / 'c.wav')
    soundfile.write(path, np.zeros(8000), 8000)
    with pytest.raises(ValueError, match='c.wav is silent'):
        stampsound._recording(path)
    path = str(tmp_path / 'd.jpg')
    (tmp_path / 'd.jpg').write_bytes(b'no image')
    with pytest.raises(ValueError, match='d.jpg is no readable image'):
        stampsound._background_photo(path)


# --------------------------------------------------------------------------
# Arithmetic
# --------------------------------------------------------------------------
def test_resize_keeps_constants_and_averages():
    flat = np.full((37, 23, 3), 201, np.uint8)
    for size in ((9, 80), (37, 23), (200, 5)):
        assert (stampsound._resize(flat, *size) == 201).all()
    image = np.zeros((4, 4, 1), np.uint8)
    image[:, 2:] = 200
    # Halved by a triangle over 4 pixels: 1/8, 3/8, 3/8, 1/8; at the left
    # border the weights 3/7, 3/7, 1/7 are left.
    assert stampsound._resize(image, 4, 2)[0, :, 0].tolist() == [29, 171]
    same = np.random.default_rng(0).integers(0, 256, (9, 7, 4), np.uint8)
    assert (stampsound._resize(same, 9, 7) == same).all()


def test_resize_is_close_to_that_of_pillow():
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    for h, w in ((30, 33), (90, 200)):
        expected = Image.fromarray(image).resize((w, h), Image.BILINEAR)
        found = stampsound._resize(image, h, w).astype(int)
        assert np.abs(found - np.asarray(expected)).max() <= 1


def test_turn():
    image = np.zeros((20, 40, 4), np.uint8)
    image[:, :, 1:] = 255
    for degrees in (-30, 10, 15):
        angle = np.deg2rad(degrees)
        c, s = (round(65536 * f(angle)) for f in (np.cos, np.sin))
        turned = stampsound._turn(image, c, s)
        y1, x1, y2, x2 = stampsound._extent(turned[..., 3] >= 128)
        c, s = np.cos(angle), abs(np.sin(angle))
        # Corners are less than half covered by their last pixel.
        assert x2 - x1 == pytest.approx(40 * c + 20 * s, abs=2)
        assert y2 - y1 == pytest.approx(20 * c + 40 * s, abs=2)
        assert int(turned[..., 3].sum()) == pytest.approx(
            255 * 800, rel=5e-3)
        assert (turned[..., :3] <= turned[..., 3:]).all()
    # A quarter turn moves pixels, or averages neighbors.
    bar = np.zeros((3, 3, 4), np.uint8)
    bar[0] = 200
    turned = stampsound._turn(bar, 0, 65536)[..., 3]
    assert turned.shape == (6, 6)
    assert int(turned.sum()) == pytest.approx(600, abs=4)
    assert np.count_nonzero(turned.any(0)) < np.count_nonzero(turned.any(1))


def test_paste_blends_and_crops():
    frame = np.full((4, 4, 3), 100, np.uint8)
    layer = np.zeros((3, 3, 4), np.uint8)
    layer[1, 1] = (30, 20, 10, 51)
    layer[2, 2] = (255, 0, 255, 255)
    stampsound._paste(frame, layer, -1, 0)
    # 100 * (1 - 51 / 255) + color
    assert frame[1, 0].tolist() == [110, 100, 90]
    assert frame[2, 1].tolist() == [255, 0, 255]
    frame[1, 0] = frame[2, 1] = 100
    assert (frame == 100).all()
    stampsound._paste(frame, layer, 2, 2)
    assert frame[3, 3].tolist() == [110, 100, 90]


# --------------------------------------------------------------------------
# Composition
# --------------------------------------------------------------------------
def test_clips_depend_on_their_arguments_only(tiny, clips):
    again = make_clip(*tiny[:2], FULL, 3, 'test', 5, SIZE)
    assert clip_digests(again) == clip_digests(clips['full', 'test'][5])
    stampsound._photo.cache_clear()
    different = [
        make_clip(*tiny[:2], FULL, 4, 'test', 5, SIZE),
        make_clip(*tiny[:2], FULL, 3, 'train', 5, SIZE),
        make_clip(*tiny[:2], FULL, 3, 'test', 6, SIZE),
    ]
    digests = [clip_digests(c) for c in different + [again]]
    for kind in ('pixels', 'boxes', 'sound'):
        assert len({d[kind] for d in digests}) == 4


def test_pictures_are_the_same_everywhere(clips):
    """These values hold on any platform and with any versions."""
    digests = [clip_digests(c) for c in clips['full', 'test'][:6]]
    found = split_checksums(digests)
    assert {k: found[k] for k in ('pixels', 'boxes')} == DIGESTS


def test_shapes(clips):
    clip = clips['small', 'train'][0]
    assert clip['frames'].shape == (16, SIZE, SIZE, 3)
    assert clip['frames'].dtype == np.uint8
    assert clip['samples'].shape == (48000, )
    assert clip['samples'].dtype == np.int16


def test_boxes_are_exact(tiny, tmp_path, monkeypatch):
    """Of flat colors, alpha and box can be seen in the frame itself."""
    white, black = tmp_path / 'white.png', tmp_path / 'black.png'
    shape = np.full((50, 40, 4), 255, np.uint8)
    shape[..., 3] = ellipse(50, 40)
    cv2.imwrite(str(white), shape)
    cv2.imwrite(str(black), np.zeros((80, 80, 3), np.uint8))
    listing = dict(
        tiny[1],
        classes=dict(a=dict(photo='white.png', sound='hen.ogg', alt=[])),
        backgrounds=dict(train=['black.png']),
        distractors=dict(train=[]))
    (tmp_path / 'hen.ogg').symlink_to(Path(tiny[0]) / 'stamps/hen.ogg')
    preset = Preset(None, (0.3, 0.7), 0, 0, 0, 0)
    sides = []
    for i in range(12):
        clip = make_clip(str(tmp_path), listing, preset, 0, 'train', i, 96)
        frame = clip['frames'][8].astype(int).sum(2)
        below = np.bincount(frame.ravel()).argmax()
        full = frame.max()
        assert full - below > 300
        # The blend is rounded per channel, hence the 3.
        ys, xs = np.nonzero((frame - below) * 255 >=
                            (full - below) * 128 - 3 * 255 / 2)
        thing, = clip['objects']
        box = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
        assert thing['bbox'] == box
        assert thing['visible'] == 1
        sides.append(max(box[2] - box[0], box[3] - box[1]) / 96)
        # It moves, and stays inside.
        for other in clip['frames'][[0, 15]]:
            edges = other.astype(int).sum(2)
            inner = (edges[1:-1, 1:-1] - below > 200).sum()
            assert inner == pytest.approx(
                (frame - below > 200).sum(), rel=0.02)
    assert 0.3 - 0.02 <= min(sides) < 0.4 and 0.6 < max(sides) <= 0.72


def test_boxes_and_visible_shares_of_many(tiny, monkeypatch):
    """Alpha of each thing, pasted apart, gives its box and what is seen."""
    seen = []
    arrange = stampsound._arrange

    def spy(*args):
        seen.append(arrange(*args))
        return seen[-1]

    monkeypatch.setattr(stampsound, '_arrange', spy)
    for i in range(8):
        clip = make_clip(*tiny[:2], FULL, 1, 'test', i, SIZE)
        layers, corners, _, _ = seen[-1]
        masks = []
        for layer, (x, y) in zip(layers, corners[stampsound.EVAL_FRAME]):
            canvas = np.zeros((SIZE * 3, SIZE * 3), np.uint8)
            h, w = layer.image.shape[:2]
            canvas[SIZE + y:SIZE + y + h,
                   SIZE + x:SIZE + x + w] = layer.image[..., 3]
            masks.append(canvas >= 128)
        for j, (thing, mask) in enumerate(zip(clip['objects'], masks)):
            y, x = np.nonzero(mask)
            assert thing['bbox'] == [
                x.min() - SIZE, y.min() - SIZE, x.max() + 1 - SIZE,
                y.max() + 1 - SIZE
            ]
            hidden = np.any(masks[j + 1:], axis=0) if masks[j + 1:] else False
            assert thing['visible'] == pytest.approx(
                np.count_nonzero(mask & ~np.array(hidden)) / mask.sum())
            assert thing['visible'] >= stampsound.MIN_VISIBLE


def test_objects(clips):
    for (name, split), found in clips.items():
        low, high = PRESETS[name].side
        counts = Counter()
        for clip in found:
            things = clip['objects']
            classes = [o['label'] for o in things if o['label']]
            sounding = [o for o in things if o['sounding']]
            assert [o['label'] for o in sounding] == [clip['label']]
            assert len(set(classes)) == len(classes)
            assert len(set(o['photo'] for o in things)) == len(things)
            extra = len(things) - len(classes)
            assert extra <= PRESETS[name].distractors
            counts[len(classes), extra] += 1
            for o in things:
                x1, y1, x2, y2 = o['bbox']
                assert 0 <= x1 < x2 <= SIZE and 0 <= y1 < y2 <= SIZE
                side = max(x2 - x1, y2 - y1)
                assert low * SIZE - 2 <= side <= high * SIZE + 2
        # One alone is rare.
        wanted = {1} if split == 'train' else {2, 3}
        assert {n for n, _ in counts} - {1} == wanted - {1}
        if split == 'train':
            assert {n for n, _ in counts} == {1}
        assert {n for _, n in counts
                } == set(range(PRESETS[name].distractors + 1))
        # Not always behind, not always in front.
        if name == 'full' and split != 'train':
            places = Counter(
                [o['sounding'] for o in c['objects']].index(True)
                for c in found)
            assert len(places) > 3


def test_splits_share_no_photographs_that_they_must_not(tiny, clips):
    listing = tiny[1]
    alt = {p for e in listing['classes'].values() for p in e['alt']}
    seen = {split: Counter() for split in ('train', 'test', 'alt')}
    for (_, split), found in clips.items():
        for clip in found:
            seen[split][clip['background']] += 1
            for o in clip['objects']:
                seen[split][o['photo']] += 1
                if o['label']:
                    assert (o['photo'] in alt) == (split == 'alt')
    assert not seen['train'].keys() & seen['alt'].keys()
    assert not any('thing' in p or 'background' in p
                   for p in seen['train'].keys() & seen['test'].keys())
    assert {p for p in seen['alt'] if '_alt' in p} == alt


def test_classes_are_balanced(clips):
    for (name, split), found in clips.items():
        classes = set(CLASSES if name == 'full' else SMALL.classes)
        if split == 'alt':
            classes &= set(WITH_ALT)
        whole = len(found) // len(classes) * len(classes)
        counts = Counter(c['label'] for c in found[:whole])
        assert counts == {n: whole // len(classes) for n in classes}
        # In a new order each time.
        if split == 'alt':
            orders = {
                tuple(c['label'] for c in found[i:i + len(classes)])
                for i in range(0, whole, len(classes))
            }
            assert len(orders) > 2


def test_clips_move(clips):
    for clip in clips['small', 'train'][:8]:
        first, last = clip['frames'][[0, -1]]
        assert (first != last).any(2).mean() > 0.02


# --------------------------------------------------------------------------
# Sound
# --------------------------------------------------------------------------
def test_sound_has_the_stated_noise_and_level(tiny, clips, monkeypatch):
    found = [c for c in clips['full', 'train'] if c['off_screen'] is None]
    assert len(found) < 24
    snrs = []
    monkeypatch.setattr(stampsound, '_noise', lambda slope, rng: np.ones(1))
    for i, clip in enumerate(clips['full', 'train']):
        if clip['off_screen'] is not None:
            assert clip['off_screen'] != clip['label']
            continue
        noisy = clip['samples'] / 32767
        clean = make_clip(*tiny[:2], FULL, 3, 'train', i, SIZE)
        clean = clean['samples'] / 32767
        clean -= clean.mean()
        clean *= (noisy @ clean) / (clean @ clean)
        snr = 10 * np.log10(
            np.square(clean).sum() / np.square(noisy - clean).sum())
        # Noise is a little like the sound by chance.
        assert snr == pytest.approx(clip['snr'], abs=0.3)
        snrs.append(snr)
        assert -26.1 < 20 * np.log10(noisy.std()) < -15.9
        assert np.abs(noisy).max() <= 0.981
    assert 4.7 < min(snrs) < 9 and 16 < max(snrs) < 20.3


def test_only_training_clips_sound_off_screen(clips):
    for (_, split), found in clips.items():
        count = sum(c['off_screen'] is not None for c in found)
        assert 0 < count < 12 if split == 'train' else count == 0


def test_recording_loses_its_pauses(tmp_path):
    rate = 8000
    wave = np.zeros(4 * rate)
    wave[rate:2 * rate] = wave[3 * rate:3 * rate + rate // 2] = 0.5
    path = str(tmp_path / 'a.wav')
    soundfile.write(path, wave, rate)
    found, found_rate = stampsound._recording(path)
    assert found_rate == rate
    # 1.5 s of sound and 4 times 120 ms beside it
    assert len(found) / rate == pytest.approx(1.98)
    assert set(np.unique(found)) == {0, 8192}


def test_excerpt_keeps_pitch_within_bounds_and_is_never_silent(tmp_path):
    rate = 16000
    t = np.arange(rate // 2) / rate
    path = str(tmp_path / 'a.wav')
    soundfile.write(path, 0.5 * np.sin(2 * np.pi * 1000 * t), rate)
    pitches = []
    for i in range(20):
        wave = stampsound._excerpt(path, np.random.default_rng(i))
        assert wave.shape == (48000, )
        assert np.abs(wave).max() == pytest.approx(8192, rel=0.2)
        pitches.append(np.abs(np.fft.rfft(wave)).argmax() / 2)
        energy = [np.square(wave[a:a + 24000]).sum() for a in (0, 24000)]
        assert min(energy) / sum(energy) > 0.09
    assert 915 < min(pitches) < 960 and 1040 < max(pitches) < 1085


def test_no_second_of_an_excerpt_is_next_to_silent(tmp_path):
    rate = 16000
    wave = 0.02 * np.sin(2 * np.pi * 1000 * np.arange(2 * rate) / rate)
    wave[:rate] *= 25
    path = str(tmp_path / 'a.wav')
    soundfile.write(path, wave, rate)
    for i in range(20):
        wave = stampsound._excerpt(path, np.random.default_rng(i))
        half = np.square(wave).reshape(4, -1).sum(1)
        for j in range(3):
            assert half[j:j + 2].sum() > 0.095 * half.sum()


def test_noise_has_its_slope():
    noise = stampsound._noise(1., np.random.default_rng(0))
    power = np.square(np.abs(np.fft.rfft(noise)))
    # Equal power per octave (48000 samples: half a Hz per line).
    octaves = [power[2 * f:4 * f].sum() for f in (400, 800, 1600, 3200)]
    assert max(octaves) / min(octaves) < 1.2


# --------------------------------------------------------------------------
# Files
# --------------------------------------------------------------------------
@pytest.fixture(scope='module')
def written(tiny, tmp_path_factory):
    """A small set in both formats, and its checksums."""
    root = tmp_path_factory.mktemp('written')
    checksums = {s: write(tiny, root / s, style=s) for s in ('mp4', 'frames')}
    return root, checksums


def test_files(written):
    root, _ = written
    tables = {f'{s}{e}' for s in ('train', 'test', 'alt')
              for e in ('.json', '_coco.json')}
    ids = [f'train_{i:06d}' for i in range(5)]
    ids += [f'test_{i:06d}' for i in range(3)]
    ids += [f'alt_{i:06d}' for i in range(2)]
    assert set(contents(root / 'mp4')) == tables | {
        f'{folder}/{i}.{ext}' for i in ids
        for folder, ext in (('videos', 'mp4'), ('images', 'jpg'))
    }
    assert set(contents(root / 'frames')) == tables | {
        f'audio/{i}.flac' for i in ids
    } | {f'frames/{i}/{ms}.jpg' for i in ids for ms in (0, 500, 1000, 1500)}


def test_checksums_do_not_depend_on_the_format(written):
    _, checksums = written
    assert checksums['mp4'] == checksums['frames']
    assert set(checksums['mp4']) == {'train', 'test', 'alt'}


def test_tables(written, tiny):
    root, checksums = written
    metainfo, rows = load_clip_table(str(root / 'frames/test.json'))
    assert metainfo['classes'] == sorted(SMALL.classes)
    assert metainfo['split'] == 'test'
    assert metainfo['stampsound']['seed'] == 0
    assert metainfo['checksums'] == checksums['frames']['test']
    clips = [make_clip(*tiny[:2], SMALL, 0, 'test', i, SIZE)
             for i in range(3)]
    assert metainfo['checksums'] == split_checksums(
        [clip_digests(c) for c in clips])
    for i, (row, clip) in enumerate(zip(rows, clips)):
        assert row == dict(
            clip_id=f'test_{i:06d}',
            frames=dict(dir=f'frames/test_{i:06d}', ms=[0, 500, 1000, 1500]),
            audio_path=f'audio/test_{i:06d}.flac',
            duration=2.0,
            time=1.0,
            height=SIZE,
            width=SIZE,
            label=clip['label'],
            instances=[
                dict(
                    bbox=o['bbox'],
                    label=o['label'],
                    sounding=o['sounding'],
                    visible=round(o['visible'], 3)) for o in clip['objects']
                if o['label']
            ])
        folder = root / 'frames'
        samples, rate = soundfile.read(
            folder / row['audio_path'], dtype='int16')
        assert rate == 24000 and (samples == clip['samples']).all()
        image = cv2.imread(str(folder / row['frames']['dir'] / '500.jpg'))
        error = np.abs(image.astype(int) - clip['frames'][4])
        assert error.mean() < 8


@pytest.mark.parametrize('style', ['mp4', 'frames'])
def test_data_set_reads_them(written, tiny, style):
    dataset = AudioVisualDataset(
        ann_file=str(written[0] / style / 'test.json'),
        check='decode',
        test_mode=True,
        pipeline=[dict(type='avdet_mm.LoadClip', frame_time='middle')])
    assert len(dataset) == 3
    for i in range(3):
        clip = make_clip(*tiny[:2], SMALL, 0, 'test', i, SIZE)
        results = dataset[i]
        assert results['time'] == 1.0
        assert results['waveform'].shape == (24000, )
        expected = clip['samples'][12000:36000] / 32767
        assert np.corrcoef(results['waveform'], expected)[0, 1] > 0.95
        error = np.abs(results['img'].astype(int) - clip['frames'][8])
        assert error.mean() < 10
        truth = results['eval_instances']
        assert truth['sounding'].sum() == 1
        assert dataset.metainfo['classes'][truth['labels'][
            truth['sounding']][0]] == clip['label']


@pytest.mark.parametrize('style', ['mp4', 'frames'])
def test_coco_reads_them(written, style, capsys):
    folder = written[0] / style
    coco = COCO(str(folder / 'test_coco.json'))
    _, rows = load_clip_table(str(folder / 'test.json'))
    assert [c['name'] for c in coco.loadCats(coco.getCatIds())] == sorted(
        SMALL.classes)
    assert len(coco.imgs) == 3
    for row, image in zip(rows, coco.loadImgs(sorted(coco.imgs))):
        assert image['clip_id'] == row['clip_id']
        shape = cv2.imread(str(folder / image['file_name'])).shape
        assert shape == (SIZE, SIZE, 3)
        annotations = coco.loadAnns(coco.getAnnIds(image['id']))
        assert [a['sounding'] for a in annotations
                ] == [x['sounding'] for x in row['instances']]
        x, y, w, h = annotations[0]['bbox']
        assert [x, y, x + w, y + h] == row['instances'][0]['bbox']


def test_number_of_workers_changes_nothing(written, tiny, tmp_path,
                                           monkeypatch):
    monkeypatch.setattr(stampsound, '_CHUNK', 2)
    write(tiny, tmp_path, workers=2, style='frames')
    assert contents(tmp_path) == contents(written[0] / 'frames')


def test_stopped_run_is_completed(written, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(stampsound, '_CHUNK', 2)
    done = []

    def fail(*args, **kwargs):
        done.append(kwargs['index'])
        if len(done) == 4:
            raise KeyboardInterrupt
        return make_clip(*args, **kwargs)

    monkeypatch.setattr(stampsound, 'make_clip', fail)
    with pytest.raises(KeyboardInterrupt):
        write(tiny, tmp_path)
    assert not os.path.exists(tmp_path / 'train.json')
    write(tiny, tmp_path)
    # The first two clips were not made again, the third was.
    assert done == [0, 1, 2, 3, 2, 3, 4, 0, 1, 2, 0, 1]
    assert contents(tmp_path) == contents(written[0] / 'mp4')
    # Finished: nothing is done, not even the ingredients are looked at.
    checksums = write_stampsound(
        'nowhere', str(tmp_path), num_train=5, num_test=3, num_alt=2,
        image_size=SIZE, listing=tiny[2])
    assert checksums == written[1]['mp4']
    assert len(done) == 12


@pytest.mark.parametrize('started', [True, False])
def test_other_settings_need_another_folder(tiny, tmp_path, monkeypatch,
                                            started):
    numbers = dict(num_train=1, num_test=0, num_alt=0)
    if started:
        monkeypatch.setattr(stampsound, '_run', lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            write(tiny, tmp_path, **numbers)
    else:
        write(tiny, tmp_path, **numbers)
        assert not (tmp_path / 'test.json').exists()
    with pytest.raises(ValueError, match='other settings.*another folder'):
        write(tiny, tmp_path, seed=1, **numbers)


@pytest.mark.parametrize('wrong, message', [
    (dict(preset='huge'), 'preset must be one of'),
    (dict(style='avi'), 'style one of'),
    (dict(image_size=65), 'must be even'),
    (dict(seed=-1), 'seed must not be negative'),
])
def test_wrong_arguments(tiny, tmp_path, wrong, message):
    with pytest.raises(ValueError, match=message):
        write(tiny, tmp_path / 'out', **wrong)
    assert not (tmp_path / 'out').exists()


def test_unseen_photographs_are_needed(tiny, tmp_path):
    listing = json.loads(json.dumps(tiny[1]))
    for entry in listing['classes'].values():
        entry['alt'] = []
    path = tmp_path / 'listing.json'
    path.write_text(json.dumps(listing))
    with pytest.raises(ValueError, match='set num_alt=0'):
        write(tiny[:2] + (str(path), ), tmp_path / 'out')


# --------------------------------------------------------------------------
# The benchmark itself
# --------------------------------------------------------------------------
@pytest.mark.skipif(
    not REAL_PACK.is_dir(), reason='needs ../shared/data/stampsound')
def test_real_pack():
    listing = load_listing()
    verify_pack(str(REAL_PACK), listing)
    clips = [
        make_clip(str(REAL_PACK), listing, preset, 0, split, 0)
        for preset in (SMALL, FULL) for split in ('train', 'test', 'alt')
    ]
    assert split_checksums([clip_digests(c) for c in clips]) == dict(
        pixels='b7e2156b01cd6fdffde2d9f15d866d5d'
        'f68e28c5c26df3c8676934d41670db7c',
        boxes='07d11b05046227b64be73904c4c02403'
        '6782de4e9874ef95f53b05b5efcff7b5',
        sound='0ec4489cc9dac38ec349bc752aa274d0'
        '1dcbf109b22aae376477c651908856f6')
