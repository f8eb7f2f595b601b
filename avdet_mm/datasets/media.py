"""Reading frames and windows of sound from media files, and writing them.

Times are in seconds from the start of the clip; images are (h, w, 3) uint8
BGR; waveforms are mono float32 in [-1, 1].
"""
import ctypes
import errno
import itertools
import os
import stat
from contextlib import contextmanager
from fractions import Fraction
from functools import lru_cache
from typing import Iterator, List, NamedTuple, Optional, Tuple

import av
import mmcv
import mmengine.fileio as fileio
import numpy as np
import soundfile
from av.video.reformatter import VideoReformatter

_opened = itertools.count(1)
# Videos after which freed memory goes back to the system.
_TRIM_EVERY = 500
# Encoders pad and cut a little; more than this (s) is a fault.
TOLERANCE = 0.25
# Sound is decoded from a little before the window, so that neither the
# decoder's nor the resampler's start is heard in it.
_PREROLL = 0.1
# Seconds before the wanted frame in which every frame is decoded; before,
# those that others are predicted from are enough.
_ALL_FRAMES = 0.5


class BrokenClipError(RuntimeError):
    """A clip that cannot be used.

    Args:
        path (str): The file at fault; or, alone, the whole message.
        reason (str, optional): What is wrong, without figures or names, so
            that equal faults count as one.
        detail (str, optional): Figures or the decoder's own message.
    """

    def __init__(self,
                 path: str,
                 reason: Optional[str] = None,
                 detail: Optional[str] = None) -> None:
        message = path if reason is None else f'{path}: {reason}'
        super().__init__(f'{message} ({detail})' if detail else message)
        self.path = path
        self.reason = reason
        self.detail = detail


def check_file(path: str) -> None:
    """Make sure that a path is a file with content, without opening it."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BrokenClipError(path, 'missing file') from error
    except PermissionError as error:
        raise BrokenClipError(path, 'permission denied') from error
    except (OSError, ValueError) as error:
        loop = getattr(error, 'errno', None) == errno.ELOOP
        raise BrokenClipError(
            path, 'loop of links' if loop else 'impossible file name',
            str(error)) from error
    # Opening a pipe would wait for somebody to write to it.
    if not stat.S_ISREG(status.st_mode):
        raise BrokenClipError(path, 'not a regular file')
    if not status.st_size:
        raise BrokenClipError(path, 'empty file')


def _give_memory_back(opened: int) -> None:
    """Return memory to the system after every so many videos (glibc).

    FFmpeg frees all that it takes, but the holes that it leaves are not used
    again as they are: the memory of a worker would grow by 7 kB a video.

    Args:
        opened (int): Number of videos so far.
    """
    if opened % _TRIM_EVERY == 0:
        trim = getattr(ctypes.CDLL(None), 'malloc_trim', None)
        if trim is not None:
            trim(0)


@contextmanager
def open_video(path: str) -> Iterator[av.container.InputContainer]:
    """Open a file with a video and an audio stream for decoding.

    Args:
        path (str): A local media file.

    Yields:
        av.container.InputContainer: The open container; its decoders use
        one thread, since loader workers run in parallel already.

    Raises:
        BrokenClipError: If the file is missing, unreadable or without one
            of the streams, or if decoding in the body fails.
    """
    check_file(path)
    _give_memory_back(next(_opened))
    try:
        # With the protocol named, a colon in a name cannot select another.
        with av.open(f'file:{path}', metadata_errors='replace') as container:
            for kind in ('video', 'audio'):
                streams = getattr(container.streams, kind)
                if not streams:
                    raise BrokenClipError(path, f'no {kind} stream')
                if streams[0].codec_context is None:
                    raise BrokenClipError(path, f'unknown {kind} codec')
                streams[0].codec_context.thread_count = 1
            yield container
    except av.error.FFmpegError as error:
        # Seeking may fail with EPERM, which has nothing to do with this.
        reason = 'permission denied' if error.errno == errno.EACCES else \
            'cannot be decoded'
        raise BrokenClipError(path, reason, str(error)) from error


def _path(container: av.container.InputContainer) -> str:
    """Path that a container was opened with."""
    return container.name[len('file:'):]


def clip_start(container: av.container.InputContainer) -> float:
    """Time stamp (s) at which the clip starts."""
    return (container.start_time or 0) / av.time_base


def video_duration(container: av.container.InputContainer) -> float:
    """Seconds that picture and sound both cover, by the file's header."""
    ends = []
    for stream in (container.streams.video[0], container.streams.audio[0]):
        if stream.duration:
            start = stream.start_time or 0
            ends.append(
                float((start + stream.duration) * stream.time_base) -
                clip_start(container))
    if not ends and container.duration:
        ends.append(container.duration / av.time_base)
    if not ends:
        raise BrokenClipError(_path(container), 'unknown duration')
    return min(ends)


def decode_frame(container: av.container.InputContainer,
                 time: float) -> Tuple[np.ndarray, float]:
    """Decode the frame that is shown at a time.

    Args:
        container (av.container.InputContainer): From :func:`open_video`.
        time (float): Time in seconds.

    Returns:
        tuple: The image and the time at which its display starts.
    """
    stream = container.streams.video[0]
    wanted = clip_start(container) + time + 1e-4
    for every_from in (wanted - _ALL_FRAMES, -np.inf):
        shown = None
        for frame in _decode_from(container, stream, wanted, 0., every_from):
            if frame.time is None:
                continue
            if shown is not None and frame.time > wanted:
                break
            shown = frame
        # Otherwise it may be one of those that were left out.
        if shown is not None and shown.time >= every_from:
            break
    if shown is None:
        raise BrokenClipError(
            _path(container), 'no frame can be decoded', f'at {time:.2f} s')
    return (upright(shown.to_ndarray(format='bgr24'), shown),
            max(shown.time - clip_start(container), 0.))


def _decode_from(container: av.container.InputContainer,
                 stream: av.stream.Stream,
                 wanted: float,
                 preroll: float,
                 every_from: float = -np.inf) -> Iterator[av.frame.Frame]:
    """Decode a stream from a time stamp on, or from before.

    Args:
        container (av.container.InputContainer): From :func:`open_video`.
        stream (av.stream.Stream): Its stream.
        wanted (float): Time stamp (s) that the first frame must not be
            later than, if the stream has such a frame.
        preroll (float): Seconds before it at which to start, if possible.
        every_from (float): Time stamp (s) before which frames that no other
            frame needs are left out. Defaults to none.

    Yields:
        av.frame.Frame: The decoded frames.
    """
    start = clip_start(container)
    # Some formats seek to a later frame than they are asked for, even at the
    # very start; their clips start later than 0, which is the last resort.
    times = [wanted - back for back in (preroll, 1., 4., 16.)]
    for time in [t for t in times if t > start] + [start, min(start, 0.)]:
        container.seek(int(time / stream.time_base), stream=stream)
        frames = _decode(container, stream, every_from)
        first = next(frames, None)
        if first is not None and first.time is not None and \
                first.time <= wanted:
            break
    if first is not None:
        yield first
        yield from frames


def _decode(container: av.container.InputContainer, stream: av.stream.Stream,
            every_from: float) -> Iterator[av.frame.Frame]:
    """Decode from where the container is; see :func:`_decode_from`."""
    if every_from == -np.inf:
        yield from container.decode(stream)
        return
    for packet in container.demux(stream):
        early = packet.pts is not None and \
            packet.pts * packet.time_base < every_from
        stream.codec_context.skip_frame = 'NONREF' if early else 'DEFAULT'
        yield from packet.decode()


def upright(image: np.ndarray, frame: av.VideoFrame) -> np.ndarray:
    """Turn an image as its frame is to be displayed.

    Phones write how they were held beside the picture, not into it.
    """
    turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image


def upright_size(frame: av.VideoFrame) -> Tuple[int, int]:
    """Height and width of a frame as it is to be displayed."""
    size = frame.height, frame.width
    return size[::-1] if round(frame.rotation / 90) % 2 else size


def decode_audio(container: av.container.InputContainer, start: float,
                 duration: float, sample_rate: int) -> np.ndarray:
    """Decode a window of sound.

    Args:
        container (av.container.InputContainer): From :func:`open_video`.
        start (float): Start of the window in seconds.
        duration (float): Length of the window in seconds.
        sample_rate (int): Samples per second of the result.

    Returns:
        np.ndarray: (T,) float32 with T = ``duration * sample_rate``, or less
        where the file's sound ends sooner. Where it starts later than the
        clip, silence comes first.

    Raises:
        BrokenClipError: If the format of the sound changes on the way, or
            samples are not finite.
    """
    stream = container.streams.audio[0]
    wanted = clip_start(container) + start
    resampler = av.AudioResampler(format='fltp', rate=sample_rate)
    pieces: List[np.ndarray] = []
    first = end = None
    try:
        for frame in _decode_from(container, stream, wanted, _PREROLL):
            if first is None:
                first = end = clip_start(container) if frame.time is None \
                    else frame.time
            pieces += [f.to_ndarray() for f in resampler.resample(frame)]
            end += frame.samples / frame.sample_rate
            if end > wanted + duration + _PREROLL:
                break
        if not pieces:
            return np.zeros(0, np.float32)
        pieces += [f.to_ndarray() for f in resampler.resample(None)]
        wave = _mono(_path(container), np.concatenate(pieces, axis=1).T)
    except av.error.FFmpegError:  # some of them are ValueErrors
        raise
    except ValueError as error:
        path = _path(container)
        raise BrokenClipError(path, 'sound changes its format',
                              str(error)) from error
    begin = round((wanted - first) * sample_rate)
    length = round(duration * sample_rate)
    if begin < 0:
        wave = np.pad(wave, (min(-begin, length), 0))
    return np.clip(wave[max(begin, 0):][:length], -1, 1)


def _mono(path: str, wave: np.ndarray) -> np.ndarray:
    """Mean of the channels of (T, channels) float32, which must be finite."""
    wave = wave.mean(axis=1, dtype=np.float32)
    if not np.isfinite(wave).all():
        raise BrokenClipError(path, 'sound not finite')
    return wave


class DecodedClip(NamedTuple):
    """A whole clip in memory.

    Attributes:
        frames (np.ndarray): (n, h, w, 3) uint8 BGR.
        times (np.ndarray): (n,) seconds at which their display starts.
        waveform (np.ndarray): (T,) int16.
        duration (float): Seconds that picture and sound both cover.
    """
    frames: np.ndarray
    times: np.ndarray
    waveform: np.ndarray
    duration: float


@lru_cache(maxsize=None)
def cached_clip(path: str, sample_rate: int) -> DecodedClip:
    """Decode a video whole, once in the life of the process.

    Args:
        path (str): A local media file.
        sample_rate (int): Samples per second of the waveform.

    Returns:
        DecodedClip: The clip; not to be changed.
    """
    with open_video(path) as container:
        duration = video_duration(container)
        wave = decode_audio(container, 0., duration, sample_rate)
        container.seek(0)
        frames = [
            f for f in container.decode(container.streams.video[0])
            if f.time is not None
        ]
        if not frames:
            raise BrokenClipError(path, 'no frame can be decoded')
        times = np.array([f.time for f in frames]) - clip_start(container)
        # One converter for all: each frame's own would be set up anew.
        convert = VideoReformatter()
        return DecodedClip(
            np.stack([
                upright(convert.reformat(f, format='bgr24').to_ndarray(), f)
                for f in frames
            ]),
            times.clip(min=0), np.round(wave * 32767).astype(np.int16),
            duration)


def read_image(path: str) -> np.ndarray:
    """Read an image, (h, w, 3) uint8 BGR.

    Raises:
        BrokenClipError: If the file is missing or no image.
    """
    try:
        image = mmcv.imfrombytes(fileio.get(path), flag='color')
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BrokenClipError(path, 'missing file') from error
    except PermissionError as error:
        raise BrokenClipError(path, 'permission denied') from error
    except IsADirectoryError as error:
        raise BrokenClipError(path, 'not a regular file') from error
    if image is None:
        raise BrokenClipError(path, 'no readable image')
    return image


@contextmanager
def open_audio(path: str) -> Iterator[soundfile.SoundFile]:
    """Open an audio file (flac, wav, ogg, ...) with soundfile.

    Raises:
        BrokenClipError: If the file is missing or unreadable, or if decoding
            in the body fails.
    """
    check_file(path)
    try:
        with soundfile.SoundFile(path) as file:
            yield file
    except soundfile.SoundFileError as error:
        raise BrokenClipError(path, 'cannot be decoded', str(error)) from error


def read_audio(file: soundfile.SoundFile, start: float, duration: float,
               sample_rate: int) -> np.ndarray:
    """Read a window of sound.

    Args:
        file (soundfile.SoundFile): From :func:`open_audio`.
        start (float): Start of the window in seconds.
        duration (float): Length of the window in seconds.
        sample_rate (int): Samples per second of the result.

    Returns:
        np.ndarray: (T,) float32 with T = ``duration * sample_rate``, or less
        where the file ends sooner.
    """
    source = file.samplerate
    preroll = 0. if source == sample_rate else min(start, _PREROLL)
    first = round((start - preroll) * source)
    length = round(duration * source)
    if source != sample_rate:
        length += round((preroll + _PREROLL) * source)
    file.seek(min(first, file.frames))
    wave = _mono(file.name,
                 file.read(length, dtype='float32', always_2d=True))
    if source != sample_rate and wave.size:
        resampler = av.AudioResampler(format='fltp', rate=sample_rate)
        frame = av.AudioFrame.from_ndarray(
            wave[None], format='fltp', layout='mono')
        frame.sample_rate = source
        pieces = resampler.resample(frame) + resampler.resample(None)
        wave = np.concatenate([p.to_ndarray()[0] for p in pieces])
    begin = round((start - first / source) * sample_rate)
    return np.clip(wave[begin:begin + round(duration * sample_rate)], -1, 1)


def write_media(path: str,
                frames: Optional[np.ndarray] = None,
                waveform: Optional[np.ndarray] = None,
                fps: int = 8,
                sample_rate: int = 24000) -> None:
    """Write a media file, by default H.264 and AAC in the mp4 format.

    Args:
        path (str): File to write; its extension selects the container.
        frames (np.ndarray, optional): (n, h, w, 3) uint8 BGR, h and w even.
            Without it the file has no video stream.
        waveform (np.ndarray, optional): (T,) float32 in [-1, 1], mono.
            Without it the file has no audio stream.
        fps (int): Frames per second. Defaults to 8.
        sample_rate (int): Samples per second. Defaults to 24000.
    """
    with av.open(path, 'w') as container:
        if frames is not None:
            video = container.add_stream('libx264', rate=fps)
            video.height, video.width = frames.shape[1:3]
            video.pix_fmt = 'yuv420p'
            video.gop_size = 4
            video.max_b_frames = 0
            video.thread_count = 1
            video.options = dict(preset='ultrafast', crf='20')
        if waveform is not None:
            audio = container.add_stream('aac', rate=sample_rate)
            audio.layout = 'mono'
            audio.bit_rate = 64000
            audio.options = dict(aac_coder='fast')
        if frames is not None:
            for i, image in enumerate(frames):
                frame = av.VideoFrame.from_ndarray(image, format='bgr24')
                frame.pts, frame.time_base = i, Fraction(1, fps)
                container.mux(video.encode(frame))
            container.mux(video.encode())
        if waveform is not None:
            frame = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(waveform, np.float32)[None],
                format='fltp',
                layout='mono')
            frame.sample_rate = sample_rate
            frame.pts, frame.time_base = 0, Fraction(1, sample_rate)
            container.mux(audio.encode(frame))
            container.mux(audio.encode())
