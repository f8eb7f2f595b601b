"""Tests of opening and decoding odd files."""
import itertools
import os
import struct

import av
import numpy as np
import pytest
import soundfile

from avdet_mm.datasets import BrokenClipError
from avdet_mm.datasets.media import (
    cached_clip,
    decode_audio,
    decode_frame,
    open_audio,
    open_video,
    read_audio,
    read_image,
)
from avdet_mm.testing import write_media


def write_turned(path, degrees):
    """A mp4 to be shown turned clockwise, red where its top left is."""
    frames = np.zeros((8, 48, 64, 3), np.uint8)
    frames[:, :16, :16] = (0, 0, 255)
    write_media(path, frames, np.zeros(24000, np.float32))
    a, b, c, d = {
        90: (0, 1, -1, 0),
        180: (-1, 0, 0, -1),
        270: (0, -1, 1, 0)
    }[degrees]
    with open(path, 'r+b') as file:
        # The matrix of the track's header, in 16.16 fixed point.
        file.seek(file.read().find(b'tkhd') + 44)
        file.write(struct.pack('>9i', a << 16, b << 16, 0, c << 16, d << 16,
                               0, 0, 0, 1 << 30))


@pytest.mark.parametrize('degrees, shape, corner', [
    (90, (64, 48, 3), (0, -1)),
    (180, (48, 64, 3), (-1, -1)),
    (270, (64, 48, 3), (-1, 0)),
])
def test_turned_video_is_upright(tmp_path, degrees, shape, corner):
    path = str(tmp_path / 'a.mp4')
    write_turned(path, degrees)
    with open_video(path) as container:
        image, _ = decode_frame(container, 0.5)
    for found in (image, cached_clip(path, 24000).frames[4]):
        assert found.shape == shape and found.flags['C_CONTIGUOUS']
        for y in (0, -1):
            for x in (0, -1):
                red = found[y, x].tolist()[2] > 200
                assert red == ((y, x) == corner)


def test_sound_that_starts_late(tmp_path, counting, signal):
    path = str(tmp_path / 'a.mkv')
    with av.open(path, 'w') as container:
        video = container.add_stream('libx264', rate=8)
        video.height, video.width = 48, 64
        audio = container.add_stream('pcm_s16le', rate=24000, layout='mono')
        for i, image in enumerate(counting):
            frame = av.VideoFrame.from_ndarray(image, format='bgr24')
            frame.pts = i
            container.mux(video.encode(frame))
        frame = av.AudioFrame.from_ndarray(
            (signal[None, :96000] * 32767).astype(np.int16), layout='mono')
        frame.sample_rate, frame.pts = 24000, 24000
        container.mux(audio.encode(frame))
        container.mux(video.encode())
        container.mux(audio.encode())
    with open_video(path) as container:
        wave = decode_audio(container, 0., 2., 24000)
        assert wave.shape == (48000, )
        assert not wave[:23990].any()
        assert np.allclose(wave[24010:], signal[10:24000], atol=2e-4)
        wave = decode_audio(container, 0.25, 0.5, 24000)
        assert wave.shape == (12000, ) and not wave.any()
        wave = decode_audio(container, 2., 1., 24000)
        assert np.allclose(wave, signal[24000:48000], atol=2e-4)


@pytest.mark.parametrize('name', [
    '-i.mp4', 'a b.mp4', 'ü;"\'%20.mp4', 'clip: 1.mp4', 'http:x.mp4',
    'a\nb.mp4', 'a?b#c.mp4', '\udcff.mp4'
])
def test_names(tmp_path, monkeypatch, video, name):
    monkeypatch.chdir(tmp_path)
    os.link(video, name)
    with open_video(name) as container:
        assert decode_frame(container, 0.)[0].shape == (48, 64, 3)


@pytest.mark.parametrize('opened', [open_video, open_audio])
@pytest.mark.parametrize('kind, reason', [
    ('gone', 'missing file'),
    ('file/a', 'missing file'),
    ('dangling', 'missing file'),
    ('loop', 'loop of links'),
    ('folder', 'not a regular file'),
    ('pipe', 'not a regular file'),
    ('empty', 'empty file'),
    ('a\0b', 'impossible file name'),
    ('x' * 300, 'impossible file name'),
])
def test_what_is_no_file(tmp_path, opened, kind, reason):
    (tmp_path / 'file').write_text('text')
    os.symlink('gone', tmp_path / 'dangling')
    os.symlink('loop', tmp_path / 'loop')
    (tmp_path / 'folder').mkdir()
    os.mkfifo(tmp_path / 'pipe')
    (tmp_path / 'empty').touch()
    with pytest.raises(BrokenClipError) as caught:
        with opened(str(tmp_path / kind)):
            pass
    assert caught.value.reason == reason


def test_files_that_may_not_be_read(tmp_path, video, monkeypatch):
    path = tmp_path / 'a.png'
    path.write_bytes(b'x')

    def refuse(*args, **kwargs):
        raise av.error.PermissionError(13, 'Permission denied')

    monkeypatch.setattr('av.open', refuse)
    monkeypatch.setattr('avdet_mm.datasets.media.fileio.get', refuse)
    for read in (lambda: open_video(video).__enter__(),
                 lambda: read_image(str(path))):
        with pytest.raises(BrokenClipError) as caught:
            read()
        assert caught.value.reason == 'permission denied'
    monkeypatch.setattr('os.stat', refuse)
    with pytest.raises(BrokenClipError, match='permission denied'):
        open_audio(video).__enter__()


def test_images_that_are_none(tmp_path):
    for path, reason in ((tmp_path, 'not a regular file'),
                         (tmp_path / 'a.png', 'missing file')):
        with pytest.raises(BrokenClipError) as caught:
            read_image(str(path))
        assert caught.value.reason == reason


def test_frames_that_are_skipped_do_not_matter(tmp_path, monkeypatch):
    path = str(tmp_path / 'a.mp4')
    rng = np.random.default_rng(0)
    # 40 frames at 20 fps, nothing for four seconds, 40 more.
    stamps = [*range(40), *range(120, 160)]
    with av.open(path, 'w') as container:
        video = container.add_stream('libx264', rate=20)
        video.height, video.width, video.gop_size = 48, 64, 250
        video.options = dict(bf='3', sc_threshold='0')
        audio = container.add_stream('aac', rate=24000, layout='mono')
        for stamp in stamps:
            frame = av.VideoFrame.from_ndarray(
                rng.integers(0, 256, (48, 64, 3), np.uint8), format='bgr24')
            frame.pts = stamp
            container.mux(video.encode(frame))
        container.mux(video.encode())
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 8 * 24000), np.float32), 'fltp', 'mono')
        frame.sample_rate, frame.pts = 24000, 0
        container.mux(audio.encode(frame))
        container.mux(audio.encode())
    with av.open(path) as container:
        frames = {
            round(f.time * 20): f.to_ndarray(format='bgr24')
            for f in container.decode(video=0)
        }
    assert sorted(frames) == stamps
    skipped = []
    with open_video(path) as container:
        decoded = container.streams.video[0].codec_context
        for time in np.arange(0.025, 8, 0.1):
            image, found = decode_frame(container, time)
            expected = max(s for s in stamps if s <= 20 * time)
            assert round(found * 20) == expected
            assert (image == frames[expected]).all()
            skipped.append(decoded.skip_frame)
    # Later decoding is not left with frames missing.
    assert set(map(str, skipped)) == {'DEFAULT'}


def test_formats_that_seek_too_far(tmp_path, counting, signal):
    # A transport stream has no index: seeking lands where it happens to.
    path = str(tmp_path / 'a.ts')
    with av.open(path, 'w', format='mpegts') as container:
        video = container.add_stream('libx264', rate=8)
        video.height, video.width, video.gop_size = 48, 64, 16
        audio = container.add_stream('aac', rate=48000, layout='mono')
        wave = np.interp(
            np.arange(240000) / 48000, np.arange(120000) / 24000, signal)
        sound = av.AudioFrame.from_ndarray(
            wave[None].astype(np.float32), 'fltp', 'mono')
        sound.sample_rate, sound.pts = 48000, 0
        packets = []
        for i, image in enumerate(counting):
            frame = av.VideoFrame.from_ndarray(image, format='bgr24')
            frame.pts = i
            packets += video.encode(frame)
        packets += video.encode() + audio.encode(sound) + audio.encode()
        container.mux(
            sorted((p for p in packets if p.dts is not None),
                   key=lambda p: p.dts * p.time_base))
    with open_video(path) as container:
        late = 0
        stream = container.streams.video[0]
        for time in np.arange(0.06, 4.9, 0.21):
            image, found = decode_frame(container, time)
            # The clip starts a little before its first frame.
            assert -0.2 < found - np.floor(time * 8) / 8 <= 0.13
            assert found <= time + 1e-3 or found < 0.13
            assert abs(image.mean() / 6 - 8 * found) < 1.1
            start = max(time - 0.5, 0.)
            window = decode_audio(container, start, 0.3, 24000)
            expected = signal[round(start * 24000):][:7200]
            lags = [
                np.corrcoef(window[600:-600], expected[600 + k:-600 + k])[0, 1]
                for k in range(-599, 600, 8)
            ]
            assert max(lags) > 0.9
            container.seek(
                int((time + 1.4) / stream.time_base), stream=stream)
            first = next(container.decode(stream), None)
            late += first is None or first.time > time + 1.4
        assert late  # or this has tested nothing


def test_sound_that_is_not_finite(tmp_path):
    wave = np.zeros(24000, np.float32)
    wave[12000] = np.nan
    path = str(tmp_path / 'a.wav')
    soundfile.write(path, wave, 24000, subtype='FLOAT')
    with open_audio(path) as file:
        assert not read_audio(file, 0., 0.4, 24000).any()
        with pytest.raises(BrokenClipError, match='sound not finite'):
            read_audio(file, 0., 1., 24000)


def test_memory_is_given_back_now_and_then(video, monkeypatch):
    calls = []

    class Library:

        @staticmethod
        def malloc_trim(pad):
            calls.append(pad)

    monkeypatch.setattr('ctypes.CDLL', lambda name: Library)
    monkeypatch.setattr('avdet_mm.datasets.media._opened', itertools.count(1))
    monkeypatch.setattr('avdet_mm.datasets.media._TRIM_EVERY', 3)
    for _ in range(7):
        with open_video(video):
            pass
    assert calls == [0, 0]
