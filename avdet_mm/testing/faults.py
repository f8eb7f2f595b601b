"""Broken and odd media files of many kinds, for tests.

:func:`write_fault_corpus` fills a folder with one file of each kind; a
:class:`Kind` says what has to become of it. What cannot be used is to be
named; what is merely odd is to be kept.
"""
import os
import os.path as osp
import struct
from fractions import Fraction
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

import av
import cv2
import numpy as np

from .procedural import FPS, SAMPLE_RATE

SECONDS = 2.
SIZE = 48, 64


class Kind(NamedTuple):
    """A kind of input.

    Attributes:
        name (str): Its name.
        file (str): Path in the corpus.
        verdict (str): Of ``check_clips``.
        prepared (str): Of ``prepare_clips``: ``'good'`` if it is to be kept.
        loads (bool): Whether training can load the clip, even though it may
            not be worth it.
        build (Callable): Writes the file; arguments are its path and a seed.
        remark (str, optional): Of ``check_clips``.
    """
    name: str
    file: str
    verdict: str
    prepared: str
    loads: bool
    build: Callable[[str, int], None]
    remark: Optional[str] = None


# --------------------------------------------------------------------------
# Good material
# --------------------------------------------------------------------------
def make_frames(seed: int,
                count: int = round(SECONDS * FPS),
                size: Tuple[int, int] = SIZE) -> np.ndarray:
    """Frames of a moving texture.

    Args:
        seed (int): Of the texture.
        count (int): Number of frames. Defaults to 16.
        size (tuple[int]): Height and width. Defaults to (48, 64).

    Returns:
        np.ndarray: (count, h, w, 3) uint8 BGR.
    """
    rng = np.random.default_rng([seed, 0])
    image = cv2.resize(
        rng.uniform(20, 235, (5, 5, 3)).astype(np.float32),
        (size[1], size[0]),
        interpolation=cv2.INTER_CUBIC).clip(20, 235).astype(np.uint8)
    return np.stack([np.roll(image, 2 * i, axis=1) for i in range(count)])


def make_sound(seed: int,
               seconds: float = SECONDS,
               rate: int = SAMPLE_RATE) -> np.ndarray:
    """Sound of four tones that come and go.

    Args:
        seed (int): Of the tones.
        seconds (float): Its length. Defaults to 2.
        rate (int): Samples per second. Defaults to 24000.

    Returns:
        np.ndarray: (T,) float32 in [-0.4, 0.4].
    """
    rng = np.random.default_rng([seed, 1])
    t = np.arange(round(seconds * rate)) / rate
    wave = sum(
        np.sin(2 * np.pi * f * t) * np.sin(2 * np.pi * g * t + p)
        for f, g, p in zip(
            rng.uniform(200, 3400, 4), rng.uniform(0.2, 2, 4),
            rng.uniform(0, 6, 4)))
    return (0.1 * wave).astype(np.float32)


def write_clip(path: str,
               frames: Optional[np.ndarray] = None,
               sound: Optional[np.ndarray] = None,
               video: str = 'libx264',
               audio: str = 'aac',
               pixels: str = 'yuv420p',
               rate: int = SAMPLE_RATE,
               times: Optional[List[float]] = None,
               late: float = 0.,
               start: float = 0.,
               container: Optional[str] = None,
               options: Optional[Dict[str, str]] = None,
               cover: Optional[np.ndarray] = None) -> None:
    """Write a media file in nearly any way.

    Args:
        path (str): The file.
        frames (np.ndarray, optional): (n, h, w, 3) uint8 BGR.
        sound (np.ndarray, optional): (T,) or (channels, T) float32; 1, 2 or
            6 channels.
        video (str): Encoder of the picture. Defaults to ``'libx264'``.
        audio (str): Encoder of the sound. Defaults to ``'aac'``.
        pixels (str): Format of the pixels. Defaults to ``'yuv420p'``.
        rate (int): Samples per second. Defaults to 24000.
        times (list[float], optional): When each frame is shown (s). Defaults
            to None, 8 frames per second.
        late (float): Seconds by which the sound starts later. Defaults to 0.
        start (float): Time stamp (s) of the start. Defaults to 0.
        container (str, optional): Format of the file. Defaults to None, by
            its extension.
        options (dict[str, str], optional): Of the container.
        cover (np.ndarray, optional): A picture for a second video stream.
    """
    with av.open(path, 'w', format=container, options=options or {}) as out:
        streams: Dict[str, Any] = {}
        if frames is not None:
            stream = out.add_stream(video, rate=FPS)
            stream.height, stream.width = frames.shape[1:3]
            stream.pix_fmt = pixels
            stream.thread_count = 1
            steady = video == 'mpeg4' or path.endswith('.avi')
            stream.codec_context.time_base = Fraction(
                1, FPS if steady else 1000)
            if video == 'libx264':
                stream.gop_size = 4
                stream.options = dict(preset='ultrafast', crf='20')
            elif video == 'libx265':
                stream.options = {
                    'preset': 'ultrafast',
                    'x265-params': 'log-level=none:pools=1:frame-threads=1'
                }
            elif video.startswith('libvpx'):
                stream.options = {'deadline': 'realtime', 'cpu-used': '8'}
            streams['video'] = stream
        if cover is not None:
            streams['cover'] = out.add_stream('mjpeg', rate=1)
            streams['cover'].height, streams['cover'].width = cover.shape[:2]
            streams['cover'].pix_fmt = 'yuvj420p'
        if sound is not None:
            sound = np.atleast_2d(np.ascontiguousarray(sound, np.float32))
            layout = {1: 'mono', 2: 'stereo', 6: '5.1'}[len(sound)]
            streams['audio'] = out.add_stream(audio, rate=rate)
            streams['audio'].layout = layout
        for i, image in enumerate(() if frames is None else frames):
            at = i / FPS if times is None else times[i]
            frame = av.VideoFrame.from_ndarray(image, format='bgr24')
            base = streams['video'].codec_context.time_base
            frame = frame.reformat(format=pixels)
            frame.pts, frame.time_base = round((start + at) / base), base
            out.mux(streams['video'].encode(frame))
        if frames is not None:
            out.mux(streams['video'].encode())
        if cover is not None:
            frame = av.VideoFrame.from_ndarray(cover, format='bgr24')
            frame.pts, frame.time_base = 0, Fraction(1, 1)
            out.mux(streams['cover'].encode(frame.reformat(format='yuvj420p')))
            out.mux(streams['cover'].encode())
        if sound is not None:
            _write_sound(out, streams['audio'], sound, rate, layout,
                         start + late)


def _write_sound(out: av.container.OutputContainer,
                 stream: av.audio.stream.AudioStream, sound: np.ndarray,
                 rate: int, layout: str, start: float) -> None:
    """Encode sound."""
    frame = av.AudioFrame.from_ndarray(sound, format='fltp', layout=layout)
    frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
    frame.pts = round(start * rate)
    resampler = av.AudioResampler(
        format=stream.format.name,
        layout=layout,
        rate=rate,
        frame_size=stream.codec_context.frame_size)
    for piece in resampler.resample(frame) + resampler.resample(None):
        out.mux(stream.encode(piece))
    out.mux(stream.encode())


# --------------------------------------------------------------------------
# Ways to go wrong
# --------------------------------------------------------------------------
def _clip(**changes: Any) -> Callable[[str, int], None]:
    """A clip that differs from a good one."""

    def build(path: str, seed: int) -> None:
        given = dict(frames=make_frames(seed), sound=make_sound(seed))
        for name, value in changes.items():
            given[name] = value(seed) if callable(value) else value
        write_clip(path, **given)

    return build


def _changed(change: Callable[[bytes], bytes],
             good: Callable[[str, int], None] = _clip(),
             suffix: str = '.mp4') -> Callable[[str, int], None]:
    """A good clip whose bytes are changed afterwards."""

    def build(path: str, seed: int) -> None:
        part = f'{path}.tmp{suffix}'
        good(part, seed)
        with open(part, 'rb') as file:
            content = file.read()
        os.remove(part)
        with open(path, 'wb') as file:
            file.write(change(content))

    return build


def _content(content: bytes) -> Callable[[str, int], None]:
    """Any bytes."""

    def build(path: str, seed: int) -> None:
        with open(path, 'wb') as file:
            file.write(content)

    return build


def _noise(count: int) -> bytes:
    return np.random.default_rng(7).bytes(count)


def _spoil_middle(content: bytes) -> bytes:
    """Overwrite a twentieth of the file behind its header."""
    start = content.index(b'mdat')
    start += (len(content) - start) // 2
    length = len(content) // 20
    return content[:start] + _noise(length) + content[start + length:]


def _turn(content: bytes) -> bytes:
    """Write a turn by 90 degrees into the first track's header."""
    matrix = struct.pack('>9i', 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    start = content.index(b'tkhd') + 4 + 40
    return content[:start] + matrix + content[start + 36:]


def _without_duration(path: str, seed: int) -> None:
    """A stream that was recorded live."""
    _clip(
        video='libvpx-vp9', audio='libopus', rate=48000,
        sound=lambda s: make_sound(s, rate=48000),
        container='webm', options=dict(live='1'))(path, seed)


def _two_formats(path: str, seed: int) -> None:
    """Sound whose sample rate changes, as in recorded broadcasts."""
    parts = []
    for i, (rate, channels) in enumerate([(24000, 1), (48000, 2)]):
        part = f'{path}.{i}.ts'
        write_clip(
            part,
            make_frames(seed + 50 * i),
            np.tile(make_sound(seed, rate=rate), (channels, 1)),
            rate=rate,
            audio='mp2',
            start=i * SECONDS)
        with open(part, 'rb') as file:
            parts.append(file.read())
        os.remove(part)
    with open(path, 'wb') as file:
        file.write(b''.join(parts))


def _link(target: str) -> Callable[[str, int], None]:
    """A symbolic link."""

    def build(path: str, seed: int) -> None:
        os.symlink(target, path)

    return build


def _pipe(path: str, seed: int) -> None:
    os.mkfifo(path)


def _forbidden(path: str, seed: int) -> None:
    _clip()(path, seed)
    os.chmod(path, 0)


def _stereo(seed: int, sign: float = -1.) -> np.ndarray:
    wave = make_sound(seed)
    return np.stack([wave, sign * wave])


def _with_nan(seed: int) -> np.ndarray:
    wave = make_sound(seed)
    wave[20000:20100] = np.nan
    return wave


def _faint_after(seed: int) -> np.ndarray:
    wave = make_sound(seed)
    wave[len(wave) // 3:] = 0
    return wave


_PLAYLIST = (b'#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\ngood_0.mp4\n'
             b'#EXT-X-ENDLIST\n')
_FAST = dict(options=dict(movflags='faststart'))
_MIDDLE = 'damaged in the middle'
_EARLY = 'picture ends too early'
_UNREADABLE = 'cannot be decoded'
_GOOD_48K = dict(sound=lambda s: make_sound(s, rate=48000), rate=48000)


def _kinds() -> List[Kind]:
    """All kinds."""
    kinds: List[Kind] = []

    def good(name: str, file: str, build: Callable[[str, int], None],
             remark: Optional[str] = None) -> None:
        kinds.append(Kind(name, file, 'good', 'good', True, build, remark))

    def poor(name: str, file: str, verdict: str,
             build: Callable[[str, int], None]) -> None:
        """Can be loaded, but is not worth it."""
        kinds.append(Kind(name, file, verdict, 'good', True, build))

    def bad(name: str, file: str, verdict: str,
            build: Callable[[str, int], None],
            prepared: Optional[str] = None) -> None:
        kinds.append(
            Kind(name, file, verdict, prepared or verdict, False, build))

    for i in range(3):
        good(f'good clip {i}', f'good_{i}.mp4', _clip())

    # Odd, but good.
    good('5.1 sound', 'surround.mp4',
         _clip(sound=lambda s: np.stack([make_sound(s + i)
                                         for i in range(6)])))
    good('sound of 8 kHz', '8khz.mp4',
         _clip(sound=lambda s: make_sound(s, rate=8000), rate=8000))
    good('sound of 96 kHz', '96khz.mp4',
         _clip(sound=lambda s: make_sound(s, rate=96000), rate=96000))
    good('16-bit sound', 'pcm.mov', _clip(audio='pcm_s16le'))
    good('8-bit sound', 'pcm8.avi',
         _clip(video='mjpeg', pixels='yuvj420p', audio='pcm_u8'))
    good('variable frame rate', 'variable.mp4',
         _clip(times=list(np.cumsum([0, .04, .3, .02, .1, .1, .2, .05, .25,
                                     .1, .1, .04, .2, .2, .05, .15]))))
    good('rotated video', 'rotated.mp4', _changed(_turn))
    good('odd dimensions', 'odd.mp4',
         _clip(frames=lambda s: make_frames(s, size=(75, 101)),
               pixels='yuv444p'))
    good('odd dimensions in mjpeg', 'odd.avi',
         _clip(frames=lambda s: make_frames(s, size=(75, 101)),
               video='mjpeg', pixels='yuvj420p', audio='pcm_s16le'))
    good('10 bits', 'ten_bits.mp4',
         _clip(video='libx264', pixels='yuv420p10le'))
    good('yuv 4:2:2', '422.mp4', _clip(pixels='yuv422p'))
    good('shorter sound', 'short_sound.mp4',
         _clip(sound=lambda s: make_sound(s, 1.4)))
    good('longer sound', 'long_sound.mp4',
         _clip(sound=lambda s: make_sound(s, 3.)))
    good('sound starts late', 'late.mp4',
         _clip(sound=lambda s: make_sound(s, 1.4), late=0.6))
    good('negative pts', 'negative.mp4',
         _clip(start=-0.5, options=dict(avoid_negative_ts='disabled')))
    good('starts at 90 s', 'offset.ts', _clip(start=90.))
    good('webm named mp4', 'webm.mp4',
         _clip(video='libvpx-vp9', audio='libopus', container='webm',
               **_GOOD_48K))
    good('mp4 named webm', 'mp4.webm', _clip(container='mp4'))
    good('HEVC', 'hevc.mp4', _clip(video='libx265'))
    good('VP8', 'vp8.webm',
         _clip(video='libvpx', audio='libopus', **_GOOD_48K))
    good('MPEG-4 and MP3', 'divx.avi',
         _clip(video='mpeg4', audio='libmp3lame'))
    good('FFV1 and FLAC', 'lossless.mkv', _clip(video='ffv1', audio='flac'))
    good('two video streams', 'cover.mp4',
         _clip(cover=lambda s: make_frames(s + 90, 1, (96, 96))[0]))
    good('garbage at the end', 'tail.mp4',
         _changed(lambda x: x + _noise(3000)))
    good('overdriven sound', 'clipped.mkv',
         _clip(sound=lambda s: np.clip(20 * make_sound(s), -1, 1),
               audio='pcm_s16le'), 'clipped')
    good('mostly silent', 'faint.mkv',
         _clip(sound=_faint_after, audio='pcm_s16le'), 'partly silent')
    good('space in name', 'with space .mp4', _clip())
    good('unicode name', 'Ünï 犬 🐕.mp4', _clip())
    good('leading dash', '-i.mp4', _clip())
    good('newline in name', 'two\nlines.mp4', _clip())
    good('name like a protocol', 'concat:a|b.mp4', _clip())
    good('quotes and signs in name', '"\'%20#?&;$(x)`.mp4', _clip())
    good('non-UTF-8 name', os.fsdecode(b'caf\xe9.mp4'), _clip())
    good('very long name', 'n' * 246 + '.mp4', _clip())
    good('capital extension', 'CAPITAL.MP4', _clip())
    good('same name in a folder', 'sub/good_0.mp4', _clip())
    good('comma in name', 'a,b.mp4', _clip())

    # Loads, but is not worth it.
    poor('silent', 'silent.mp4', 'silent',
         _clip(sound=np.zeros(48000, np.float32)))
    poor('opposite channels', 'opposite.mkv', 'silent',
         _clip(sound=_stereo, audio='pcm_s16le'))
    poor('black picture', 'black.mp4', 'black',
         _clip(frames=np.zeros((16, *SIZE, 3), np.uint8)))
    poor('still picture', 'still.mp4', 'still',
         _clip(frames=lambda s: np.tile(make_frames(s, 1), (16, 1, 1, 1))))
    poor('slide show', 'slides.mp4', 'still',
         _clip(frames=lambda s: np.repeat(make_frames(s)[::8], 8, axis=0)))
    poor('1-frame video', 'one_frame.mkv', 'still',
         _clip(frames=lambda s: make_frames(s, 1)))
    poor('duplicate', 'twin.mkv', 'duplicate',
         lambda path, seed: write_clip(
             path, make_frames(0), make_sound(0), video='mpeg4'))
    poor('link to a clip', 'link.mp4', 'duplicate', _link('good_1.mp4'))

    # Cannot be used.
    bad('zero bytes', 'zero.mp4', 'empty file', _content(b''))
    bad('truncated header', 'header.mp4', _UNREADABLE,
        _changed(lambda x: x[:30]))
    bad('truncated, index at the end', 'cut_end.mp4', _UNREADABLE,
        _changed(lambda x: x[:len(x) * 6 // 10]))
    bad('truncated, index at the front', 'cut_front.mp4', _EARLY,
        _changed(lambda x: x[:len(x) * 7 // 10], _clip(**_FAST)))
    bad('truncated mkv', 'cut.mkv', _EARLY,
        _changed(lambda x: x[:len(x) * 6 // 10], suffix='.mkv'))
    bad('garbage in the middle', 'spoiled.mp4', _MIDDLE,
        _changed(_spoil_middle, _clip(**_FAST)))
    bad('text file', 'text.mp4', _UNREADABLE,
        _content(b'This is no video.\n' * 20))
    bad('web page', 'page.mp4', _UNREADABLE,
        _content(b'<!DOCTYPE html><html>Video unavailable</html>'))
    bad('random bytes', 'random.mp4', _UNREADABLE, _content(_noise(5000)))
    bad('all zero', 'zeros.mp4', _UNREADABLE, _content(bytes(5000)))
    bad('playlist', 'playlist.mp4', _UNREADABLE, _content(_PLAYLIST))
    bad('image', 'image.mp4', 'no audio stream',
        _content(cv2.imencode('.png', make_frames(99, 1)[0])[1].tobytes()))
    bad('no audio stream', 'mute.mp4', 'no audio stream', _clip(sound=None))
    bad('no video stream', 'blind.mp4', 'no video stream', _clip(frames=None))
    bad('unknown video codec', 'codec.mp4', 'unknown video codec',
        _changed(lambda x: x.replace(b'avc1', b'zzzz')))
    bad('unknown audio codec', 'mystery.mkv', 'unknown audio codec',
        _changed(lambda x: x.replace(b'A_AAC', b'A_ZZZ'), suffix='.mkv'))
    bad('1-frame video in mp4', 'one_frame.mp4', 'too short',
        _clip(frames=lambda s: make_frames(s, 1)), 'good')
    bad('too short', 'short.mp4', 'too short',
        _clip(frames=lambda s: make_frames(s, 4),
              sound=lambda s: make_sound(s, 0.5)), 'good')
    poor('sound ends early', 'deaf.mkv', 'sound ends too early',
         _clip(frames=lambda s: make_frames(s, 32)))
    bad('sound changes its format', 'formats.ts', 'sound changes its format',
        _two_formats)
    bad('NaN in the sound', 'nan.mkv', 'sound not finite',
        _clip(sound=_with_nan, audio='pcm_f32le'))
    bad('no duration', 'live.webm', 'unknown duration', _without_duration,
        'good')
    bad('symlink loop', 'loop.mp4', 'loop of links', _link('loop.mp4'))
    bad('dangling link', 'dangling.mp4', 'missing file', _link('gone.mp4'))
    bad('pipe', 'pipe.mp4', 'not a regular file', _pipe)
    bad('permission denied', 'secret.mp4', 'permission denied', _forbidden)
    return kinds


KINDS: Dict[str, Kind] = {kind.name: kind for kind in _kinds()}


def cannot_be_built(kind: Kind) -> Optional[str]:
    """Why a kind cannot be built on this machine, None if it can."""
    if kind.build is _forbidden and os.geteuid() == 0:
        return 'root may read everything'
    return None


def write_fault_corpus(folder: str) -> Dict[str, Kind]:
    """Write a file of each kind.

    Beside them lie a folder whose name looks like a video's, and a link to
    it: no clips at all.

    Args:
        folder (str): A new folder.

    Returns:
        dict[str, Kind]: The kinds that were written, by name; those that
        :func:`cannot_be_built` are left out.
    """
    written = {}
    for seed, kind in enumerate(KINDS.values()):
        if cannot_be_built(kind) is None:
            path = osp.join(folder, kind.file)
            os.makedirs(osp.dirname(path), exist_ok=True)
            kind.build(path, seed)
            written[kind.name] = kind
    os.mkdir(osp.join(folder, 'folder.mp4'))
    os.symlink('..', osp.join(folder, 'folder.mp4', 'up.mp4'))
    return written
