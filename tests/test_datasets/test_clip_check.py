import json
import os
import re
import signal
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import soundfile

import avdet_mm.datasets.clip_check as clip_check
from avdet_mm.datasets import media
from avdet_mm.datasets.clip_check import (
    FAULTS,
    REMARKS,
    SOFT_FAULTS,
    THRESHOLDS,
    check_clips,
    default_thresholds,
    inspect_clip,
    judge,
    print_report,
)
from avdet_mm.datasets.clip_duplicates import (
    find_duplicates,
    hash_pictures,
    picture_distance,
    sound_distance,
    sound_levels,
)
from avdet_mm.datasets.clip_measure import measure_clip
from avdet_mm.datasets.clip_table import (
    REPORT_TYPE,
    dump_clip_table,
    iter_clip_table,
    read_faults,
)
from avdet_mm.testing.faults import make_frames, make_sound, write_clip


def read(path):
    return list(iter_clip_table(str(path), REPORT_TYPE)[1])


def measured(tmp_path, frames=None, sound=None, name='clip.mkv', **kwargs):
    path = str(tmp_path / name)
    write_clip(
        path,
        make_frames(0) if frames is None else frames,
        make_sound(0) if sound is None else sound,
        audio='pcm_f32le',
        **kwargs)
    return measure_clip(dict(video_path=path))


# --------------------------------------------------------------------------
# Measures
# --------------------------------------------------------------------------
@pytest.mark.parametrize('amplitude, level', [(1., -3.01), (0.1, -23.01),
                                              (1e-4, -83.01)])
def test_level_of_a_sine(tmp_path, amplitude, level):
    t = np.arange(48000) / 24000
    sine = amplitude * np.sin(2 * np.pi * 440 * t)
    found = measured(tmp_path, sound=sine)
    assert found['level'] == pytest.approx(level, abs=0.06)
    # An offset is not heard.
    found = measured(tmp_path, sound=sine * 0.5 + 0.25)
    assert found['level'] == pytest.approx(level - 6.02, abs=0.06)


def test_clipping_and_silence_are_shares(tmp_path):
    sound = make_sound(0)
    sound[:12000] = 0
    sound[12000:16800] = 1
    found = measured(tmp_path, sound=sound)
    assert found['silent_share'] == 0.25
    assert found['clipped_share'] == pytest.approx(0.1, abs=1e-4)
    # Sound that starts half a second late is silent for that long.
    found = measured(tmp_path, sound=make_sound(0, 1.5), late=0.5)
    assert found['silent_share'] == 0.25


def test_digital_silence_has_no_level(tmp_path):
    found = measured(tmp_path, sound=np.zeros(48000))
    assert found['level'] is None
    assert found['silent_share'] == 1


def test_motion_is_the_median_change(tmp_path):
    # Every frame is 4 levels brighter; full range survives in FFV1.
    values = 40 + 4 * np.arange(16, dtype=np.uint8)
    frames = np.broadcast_to(values[:, None, None, None], (16, 48, 64, 3))
    found = measured(tmp_path, frames.copy(), video='ffv1', pixels='gray')
    assert found['motion'] == 4
    assert found['black_share'] == 0
    # One cut between two stills is no motion.
    frames = np.repeat(frames[[0, 15]], 8, axis=0)
    found = measured(tmp_path, frames, video='ffv1', pixels='gray')
    assert found['motion'] == 0


def test_black_share(tmp_path):
    frames = make_frames(0)
    frames[12:] = 0
    frames[12:, 20, 20] = 255
    found = measured(tmp_path, frames, video='ffv1', pixels='gray')
    assert found['black_share'] == 0.25


def test_slow_video_of_real_motion_is_not_still(tmp_path):
    found = measured(
        tmp_path,
        make_frames(0, 8)[::-1],
        make_sound(0, 8.),
        times=list(range(8)))
    assert found['frames'] == 8
    assert found['motion'] > 5
    # A slide show that has one frame per slide.
    found = measured(
        tmp_path,
        make_frames(0, 3),
        make_sound(0, 9.),
        times=[0, 3, 6])
    assert judge(found, default_thresholds())[0] == ['still']


def test_probe_decodes_nothing(tmp_path, monkeypatch):
    path = str(tmp_path / 'clip.mp4')
    write_clip(path, make_frames(0), np.zeros(48000))
    assert inspect_clip(dict(video_path=path), 'probe') == dict(
        verdict='good', faults=[], remarks=[], duration=2., height=48,
        width=64, fps=8., sample_rate=24000)
    assert inspect_clip(dict(video_path=path))['verdict'] == 'silent'
    row = dict(video_path=path, duration=0.9)
    assert inspect_clip(row, 'probe')['verdict'] == 'too short'
    assert inspect_clip(row, 'probe', dict(audio_duration=0.9))[
        'verdict'] == 'good'
    with pytest.raises(ValueError, match="level must be .* got 'exists'"):
        inspect_clip(row, 'exists')
    with pytest.raises(ValueError, match="no threshold 'loud'"):
        inspect_clip(row, thresholds=dict(loud=1))


# --------------------------------------------------------------------------
# Prepared clips
# --------------------------------------------------------------------------
@pytest.fixture
def prepared(tmp_path):
    frames = []
    for i, image in enumerate(make_frames(0, 4, (96, 128))):
        path = str(tmp_path / f'{500 * i}.jpg')
        cv2.imwrite(path, image)
        frames.append(dict(path=path, time=i / 2))
    audio = str(tmp_path / 'sound.flac')
    soundfile.write(audio, make_sound(0), 24000)
    return dict(frames=frames, audio_path=audio)


def test_prepared_clip(prepared):
    for level in ('probe', 'decode'):
        assert inspect_clip(prepared, level)['verdict'] == 'good'
    found = measure_clip(prepared)
    assert (found['height'], found['width']) == (96, 128)
    assert found['duration'] == found['sound_end'] == 2
    # One frame for the clip is no still video.
    prepared['frames'] = prepared['frames'][:1]
    assert inspect_clip(prepared)['verdict'] == 'good'


@pytest.mark.parametrize('change, verdict, level', [
    (lambda x: None, 'missing file', 'probe'),
    (lambda x: b'', 'empty file', 'probe'),
    (lambda x: x[:-20], 'no readable image', 'decode'),
    (lambda x: b'no image' * 50, 'no readable image', 'decode'),
])
def test_damaged_frame(prepared, change, verdict, level):
    path = Path(prepared['frames'][2]['path'])
    content = change(path.read_bytes())
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert inspect_clip(prepared, level)['verdict'] == verdict
    other = dict(probe='decode', decode='probe')[level]
    assert inspect_clip(prepared, other)['verdict'] == (
        verdict if other == 'decode' else 'good')


@pytest.mark.parametrize('change, verdicts', [
    (lambda x: x[:len(x) // 2], {'sound ends too early',
                                 'damaged in the middle'}),
    (lambda x: x[:len(x) // 2] + bytes(2000) + x[len(x) // 2 + 2000:],
     {'damaged in the middle', 'sound ends too early'}),
    (lambda x: x[:10], {'cannot be decoded'}),
])
def test_damaged_flac(prepared, change, verdicts):
    path = Path(prepared['audio_path'])
    path.write_bytes(change(path.read_bytes()))
    assert inspect_clip(prepared)['verdict'] in verdicts


# --------------------------------------------------------------------------
# Names
# --------------------------------------------------------------------------
def test_all_reasons_of_the_loader_have_a_meaning():
    text = Path(media.__file__).read_text()
    reasons = set(
        re.findall(r"BrokenClipError\(\s*[\w.()]+,\s*'([^']+)'", text))
    reasons |= {f'no {kind} stream' for kind in ('video', 'audio')}
    assert {'missing file', 'cannot be decoded', 'empty file'} <= reasons
    assert reasons <= FAULTS.keys()
    assert set(SOFT_FAULTS) <= FAULTS.keys()
    assert not FAULTS.keys() & REMARKS.keys()


def test_judge_puts_the_first_fault_first():
    found = dict(
        duration=0.8, sound_end=0.8, picture_end=0.2, damage=1, finite=True,
        level=None, black_share=0.6, motion=0., clipped_share=0.02,
        silent_share=1., early_damage=1)
    faults, remarks = judge(found, default_thresholds())
    assert faults == ['too short', 'picture ends too early',
                      'damaged in the middle', 'silent', 'black', 'still']
    assert remarks == ['clipped', 'partly silent', 'partly black',
                       'damaged at the start']
    lenient = default_thresholds(
        audio_duration=0.5, max_damage=1, max_black=1, min_motion=0,
        max_clipped=1)
    assert judge(found, lenient) == (['picture ends too early', 'silent'],
                                     remarks[1:])
    assert default_thresholds().keys() == THRESHOLDS.keys()


# --------------------------------------------------------------------------
# Duplicates
# --------------------------------------------------------------------------
def random_prints(n, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.integers(0, 2**63, (n, 8), dtype=np.uint64),
            rng.integers(0, 241, (n, 96), dtype=np.uint8), np.full(n, 10.))


def test_copies_are_found_among_many():
    picture, sound, duration = random_prints(5000)
    copies = np.arange(4000, 4100)
    sources = np.arange(100)
    picture[copies] = picture[sources] ^ np.uint64(1 << 40)
    picture[copies[:50], 3] ^= np.uint64(1)
    sound[copies] = np.clip(sound[sources].astype(int) + 8, 0, 240)
    found = find_duplicates(picture, sound, duration)
    assert found.original == dict(zip(copies.tolist(), sources.tolist()))
    assert found.skipped == 0
    assert found.compared < 5000


def test_picture_sound_and_length_must_agree():
    picture, sound, duration = random_prints(4)
    picture[:], sound[:] = picture[0], sound[0]
    # Another stretch of a static scene; another picture with the same
    # music; a longer cut.
    sound[1] = random_prints(1, 9)[1]
    picture[2, 1:] = random_prints(1, 9)[0][0, 1:]
    duration[3] = 11
    assert find_duplicates(picture, sound, duration).original == {}
    duration[3] = 10.4
    assert find_duplicates(picture, sound, duration).original == {3: 0}


def test_the_first_good_clip_is_the_original():
    picture, sound, duration = random_prints(4)
    picture[:], sound[:] = picture[0], sound[0]
    good = np.array([False, False, True, True])
    assert find_duplicates(picture, sound, duration,
                           good).original == {0: 2, 1: 2, 3: 2}


def test_crowds_are_compared_in_part_and_that_is_said():
    picture, sound, duration = random_prints(1000)
    picture[:], sound[:] = picture[0], sound[0]
    found = find_duplicates(picture, sound, duration)
    assert found.original[1] == 0
    assert len(found.original) == 1000 - len(set(range(1000)) -
                                             found.original.keys())
    assert len(found.original) >= 990
    assert found.skipped > 0


def test_empty_collection_has_no_duplicates():
    picture, sound, duration = random_prints(0)
    assert find_duplicates(picture, sound, duration).original == {}


def test_fingerprints_survive_noise_and_loudness_but_not_other_content():
    rng = np.random.default_rng(0)
    pictures = [make_frames(i, 16, (32, 32))[..., 1] for i in range(2)]
    noisy = pictures[0] + rng.normal(0, 4, pictures[0].shape)
    a, b, c = (hash_pictures(x)[None] for x in (*pictures, noisy))
    assert picture_distance(a, c)[0] < 6
    assert picture_distance(a, b)[0] > 20
    energy = rng.uniform(1, 100, (40, 12))
    a, b, c = (sound_levels(x)[None]
               for x in (energy, energy[::-1] * np.geomspace(1, 50, 12),
                         0.01 * energy))
    assert sound_distance(a, c)[0] == 0
    assert sound_distance(a, b)[0] > 3


# --------------------------------------------------------------------------
# Runs
# --------------------------------------------------------------------------
@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / 'in'
    folder.mkdir()
    for i in range(4):
        write_clip(str(folder / f'{i}.mp4'), make_frames(i), make_sound(i))
    return folder


def test_report_has_a_row_per_clip(folder, tmp_path, capsys):
    write_clip(
        str(folder / '9.mkv'), make_frames(1), make_sound(1), video='mpeg4')
    out = tmp_path / 'out' / 'check.json'
    info = check_clips(str(folder), str(out), workers=2)
    metainfo, rows = iter_clip_table(str(out), REPORT_TYPE)
    rows = {row['clip_id']: row for row in rows}
    assert list(rows) == ['0', '1', '2', '3', '9']
    assert metainfo == dict(info, dataset_type=REPORT_TYPE)
    assert info['verdicts'] == dict(good=4, duplicate=1)
    assert info['examples'] == dict(good=['0', '1', '2'], duplicate=['9'])
    assert info['source'] == '../in'
    assert info['thresholds'] == default_thresholds()
    assert rows['9']['duplicate_of'] == '1'
    assert rows['9']['faults'] == ['duplicate']
    assert 'fingerprint' not in rows['0']
    assert dict(read_faults(str(out)))['9'] == ('duplicate', )
    print_report(info, str(out))
    text = capsys.readouterr().out
    assert '4 of 5 clips are good (80.0%).' in text
    assert "keep=['duplicate']" in text
    assert f'filter_cfg=dict(report={str(out)!r})' in text


def test_a_run_goes_on_where_it_was(folder, tmp_path, monkeypatch):
    out = tmp_path / 'check.json'
    check_clips(str(folder), str(out), workers=1)
    first = out.read_bytes()
    store = tmp_path / 'check.json.measured'
    lines = store.read_bytes().splitlines(keepends=True)
    assert len(lines) == 4
    # A run that was killed while it wrote the third line.
    store.write_bytes(b''.join(lines[:2]) + lines[2][:30])
    calls = tmp_path / 'calls'
    calls.mkdir()
    original = clip_check.measure_clip

    def spy(row, level):
        (calls / row['clip_id']).touch()
        return original(row, level)

    monkeypatch.setattr(clip_check, 'measure_clip', spy)
    out.unlink()
    check_clips(str(folder), str(out), workers=1)
    assert out.read_bytes() == first
    assert sorted(os.listdir(calls)) == ['2', '3']

    # Other thresholds decode nothing; a changed file is looked at again.
    (calls / '3').unlink()
    (calls / '2').unlink()
    write_clip(str(folder / '2.mp4'), make_frames(7), np.zeros(48000))
    info = check_clips(
        str(folder), str(out), thresholds=dict(min_motion=200), workers=1)
    assert info['verdicts'] == dict(silent=1, still=3)
    assert os.listdir(calls) == ['2']
    # Headers are another matter.
    info = check_clips(str(folder), str(out), 'probe', workers=1)
    assert info['verdicts'] == dict(good=4)


def test_a_crash_or_hang_costs_one_clip(folder, tmp_path, monkeypatch):
    original = clip_check.measure_clip

    def measure(row, level):
        if row['clip_id'] == '0':
            os.kill(os.getpid(), signal.SIGKILL)
        if row['clip_id'] == '1':
            time.sleep(60)
        if row['clip_id'] == '2':
            raise KeyError('codec')
        return original(row, level)

    monkeypatch.setattr(clip_check, 'measure_clip', measure)
    out = tmp_path / 'check.json'
    info = check_clips(str(folder), str(out), workers=2, timeout=1.)
    rows = read(out)
    assert [row['verdict'] for row in rows] == [
        'decoder crashed', 'took too long', 'unexpected error', 'good'
    ]
    assert [row.get('detail') for row in rows] == [
        'SIGKILL', 'more than 1 s', "KeyError: 'codec'", None
    ]
    assert info['good'] == 1
    # Both are tried again.
    monkeypatch.undo()
    check_clips(str(folder), str(out), workers=2)
    assert [row['verdict'] for row in read(out)] == [
        'good', 'good', 'unexpected error', 'good'
    ]


def test_counts_by_class(folder, tmp_path):
    write_clip(str(folder / 'mute.mp4'), make_frames(8))
    rows = [
        dict(clip_id=f'c{i}', video_path=f'{name}.mp4', label=label)
        for i, (name, label) in enumerate([('0', 'dog'), ('1', 'cat'),
                                           ('2', 'dog'), ('mute', 'dog')])
    ]
    table = tmp_path / 'tables' / 'table.json'
    dump_clip_table(rows, str(table))
    out = str(tmp_path / 'check.json')
    info = check_clips(
        str(table), out, data_root=str(folder), workers=1)
    assert info['per_class'] == dict(cat=[1, 1], dog=[2, 3])
    assert info['verdicts'] == {'good': 3, 'no audio stream': 1}


def test_wrong_sources(tmp_path):
    out = str(tmp_path / 'out' / 'check.json')
    with pytest.raises(FileNotFoundError, match='expected is a folder'):
        check_clips(str(tmp_path / 'gone'), out)
    (tmp_path / 'list.txt').write_text('a.mp4')
    with pytest.raises(ValueError, match='neither a folder nor a .json'):
        check_clips(str(tmp_path / 'list.txt'), out)
    (tmp_path / 'empty').mkdir()
    with pytest.raises(ValueError, match='There are no clips'):
        check_clips(str(tmp_path / 'empty'), out)
    (tmp_path / 'coco.json').write_text(json.dumps(dict(images=[])))
    with pytest.raises(ValueError, match='looks like a COCO json'):
        check_clips(str(tmp_path / 'coco.json'), out)
    with pytest.raises(ValueError, match='level must be'):
        check_clips(str(tmp_path), out, 'all')
    assert not os.path.exists(out)
