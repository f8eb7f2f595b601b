"""Tests of loading frames and windows of sound."""
import pickle

import cv2
import numpy as np
import pytest
import soundfile

from avdet_mm.datasets import BrokenClipError
from avdet_mm.datasets.transforms import LoadClip
from avdet_mm.testing import write_media


def similarity(a, b):
    """Normalized correlation without shift."""
    return float((a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum()))


@pytest.mark.parametrize('time', [0, 0.3, 0.5, 2.5, 4.4, 4.5, 4.9])
def test_window_of_video_is_centered_and_inside(video, signal, time):
    results = LoadClip(frame_time='middle')(
        dict(video_path=video, duration=5.0, time=time))
    shown = np.floor(time * 8 + 1e-6) / 8
    assert results['time'] == pytest.approx(shown)
    assert abs(results['img'].mean() / 6 - 8 * shown) < 1
    assert results['img'].shape == (48, 64, 3)
    assert results['img'].dtype == np.uint8
    assert results['img_shape'] == results['ori_shape'] == (48, 64)
    wave = results['waveform']
    assert wave.shape == (24000, ) and wave.dtype == np.float32
    start = round(np.clip(shown - 0.5, 0, 4) * 24000)
    assert similarity(wave, signal[start:start + 24000]) > 0.98
    assert results['sample_rate'] == 24000
    assert (results['homography_matrix'] == np.eye(3)).all()
    assert results['homography_matrix'].dtype == np.float32


@pytest.mark.parametrize('time', [0, 0.3, 2.5, 4.9])
def test_cache_loads_the_same(video, time):
    row = dict(video_path=video, duration=5.0, time=time)
    expected = LoadClip(frame_time='middle')(dict(row))
    load = LoadClip(frame_time='middle', cache=True)
    for _ in range(2):
        results = load(dict(row))
        assert (results['img'] == expected['img']).all()
        assert results['time'] == expected['time']
        wave = results['waveform']
        assert wave.shape == (24000, ) and wave.dtype == np.float32
        assert similarity(wave, expected['waveform']) > 0.999


def test_cache_decodes_once(video, monkeypatch):
    load = LoadClip(frame_time='random', cache=True)
    load(dict(video_path=video))
    monkeypatch.setattr('av.open', None)
    load(dict(video_path=video))
    with pytest.raises(TypeError):
        LoadClip()(dict(video_path=video))


def test_middle_without_a_table(video):
    results = LoadClip(frame_time='middle')(dict(video_path=video))
    assert results['time'] == 2.5


def test_random_times_cover_the_clip_and_follow_the_seed(video):
    load = LoadClip(frame_time='random')

    def times(seed):
        np.random.seed(seed)
        return [load(dict(video_path=video))['time'] for _ in range(30)]

    assert times(0) == times(0) != times(1)
    assert min(times(0)) < 0.8 and max(times(0)) > 4.2


@pytest.mark.parametrize('rate', [16000, 44100])
@pytest.mark.parametrize('duration', [1.0, 0.96])
def test_other_rates_and_lengths(video, signal, rate, duration):
    load = LoadClip(rate, duration, frame_time='middle')
    for time in (0, 2.5, 4.9):
        wave = load(dict(video_path=video, time=time))['waveform']
        assert wave.shape == (round(rate * duration), )
        start = np.clip(np.floor(time * 8) / 8 - duration / 2, 0, 5 - duration)
        reference = np.interp(
            start + np.arange(len(wave)) / rate,
            np.arange(len(signal)) / 24000, signal)
        assert similarity(wave, reference) > 0.97


@pytest.fixture(scope='module')
def frames_clip(tmp_path_factory, signal):
    """Prepared frames and a 44.1 kHz stereo flac."""
    root = tmp_path_factory.mktemp('frames')
    frames = []
    for i in range(5):
        path = str(root / f'{i}.png')
        cv2.imwrite(path, np.full((40, 60, 3), 20 * i, np.uint8))
        frames.append(dict(path=path, time=i + 0.5))
    at = np.arange(5 * 44100) / 44100
    mono = np.interp(at, np.arange(len(signal)) / 24000, signal)
    noise = 0.1 * np.random.default_rng(1).standard_normal(len(mono))
    path = str(root / 'sound.flac')
    soundfile.write(path, np.stack([mono + noise, mono - noise], 1), 44100)
    return dict(frames=frames, audio_path=path)


@pytest.mark.parametrize('time, index', [(0.1, 0), (1.4, 1), (None, 2),
                                         (9., 4)])
def test_frames_and_stereo_flac(frames_clip, signal, time, index):
    results = LoadClip(frame_time='middle')(dict(frames_clip, time=time))
    assert (results['img'] == 20 * index).all()
    assert results['time'] == index + 0.5
    assert results['img_path'] == frames_clip['frames'][index]['path']
    wave = results['waveform']
    assert wave.shape == (24000, ) and wave.dtype == np.float32
    start = 24000 * index
    assert similarity(wave, signal[start:start + 24000]) > 0.98


def test_random_frame_of_a_list(frames_clip):
    np.random.seed(0)
    times = {LoadClip()(dict(frames_clip))['time'] for _ in range(40)}
    assert times == {0.5, 1.5, 2.5, 3.5, 4.5}


def test_sound_that_ends_before_the_picture(tmp_path, signal, counting):
    path = str(tmp_path / 'a.mp4')
    write_media(path, counting, signal[:60000])  # 2.5 of 5 s
    results = LoadClip(frame_time='middle')(
        dict(video_path=path, duration=5.0, time=4.))
    assert similarity(results['waveform'], signal[36000:60000]) > 0.97


def broken(tmp_path, kind, signal, counting):
    """Make a broken clip; returns its row and the expected reason."""
    path = str(tmp_path / f'{kind}.mp4')
    if kind == 'missing':
        return dict(video_path=path), 'missing file'
    if kind == 'no sound':
        write_media(path, counting)
        return dict(video_path=path), 'no audio stream'
    if kind == 'no picture':
        write_media(path, None, signal)
        return dict(video_path=path), 'no video stream'
    if kind == 'short':
        write_media(path, counting[:5], signal[:15000])
        return dict(video_path=path), 'too short'
    if kind == 'no flac':
        cv2.imwrite(f'{path}.png', np.zeros((8, 8, 3), np.uint8))
        return dict(
            frames=[dict(path=f'{path}.png', time=0.)],
            audio_path=path), 'missing file'
    if kind == 'no image':
        soundfile.write(f'{path}.wav', signal, 24000)
        with open(path, 'w') as file:
            file.write('no image')
        return dict(
            frames=[dict(path=path, time=0.)],
            audio_path=f'{path}.wav'), 'no readable image'
    write_media(path, counting, signal)
    with open(path, 'rb') as file:
        data = file.read()
    with open(path, 'wb') as file:
        file.write(data[:len(data) // 2] if kind == 'truncated' else b'mp4!')
    return dict(video_path=path), 'cannot be decoded'


@pytest.mark.parametrize('kind', [
    'missing', 'no sound', 'no picture', 'short', 'no flac', 'no image',
    'truncated', 'no video'
])
def test_broken_clips_raise_with_file_and_reason(tmp_path, signal, counting,
                                                 kind):
    row, reason = broken(tmp_path, kind, signal, counting)
    with pytest.raises(BrokenClipError, match=reason) as caught:
        LoadClip(frame_time='middle')(row)
    assert caught.value.reason == reason
    assert str(tmp_path) in str(caught.value)
    again = pickle.loads(pickle.dumps(caught.value))  # through loader workers
    assert str(again) == str(caught.value) and again.reason == reason


def test_bad_frame_time():
    with pytest.raises(ValueError, match='random'):
        LoadClip(frame_time='start')
