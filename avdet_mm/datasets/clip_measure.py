"""Measuring a clip: one pass of decoding tells all that is checked."""
import math
import os
from typing import Any, Dict, List, Optional, Tuple

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

from .clip_duplicates import (
    SIDE,
    Fingerprint,
    band_energy,
    hash_pictures,
    sound_levels,
)
from .media import (
    TOLERANCE,
    BrokenClipError,
    check_file,
    clip_start,
    open_audio,
    open_video,
    read_image,
    upright_size,
    video_duration,
)

LEVELS = ('probe', 'decode')
# Root mean square below which sound counts as silent: -80 dB of full scale.
SILENCE = 1e-4
# Samples of at least this size are at full scale.
_FULL_SCALE = 0.999
# Seconds between the pictures that are looked at, and most of them.
_STEP = 0.2
_MOST_PICTURES = 256
# Frames that are farther apart than pictures are compared with the next one,
# up to this distance (s): a slide show has most of them equal.
_FARTHEST = 1.
# A picture is black if 98 % of its pixels are darker than this.
_DARK = 20
_DARK_SHARE = 0.98
# Blocks per second in which sound is measured.
_BLOCKS = 20


class _Sound:
    """Measures sound while it is decoded.

    Args:
        rate (int): Samples per second.
    """

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self.block = max(rate // _BLOCKS, 1)
        self.pieces: List[np.ndarray] = []
        self.waiting = self.samples = self.clipped = 0
        self.finite = True
        self.rest = np.zeros(0, np.float32)
        self.sum = self.squares = 0.
        self.levels: List[np.ndarray] = []
        self.energy: List[np.ndarray] = []

    def add(self, piece: np.ndarray) -> None:
        """Measure samples, (channels, n) of any type."""
        self.pieces.append(piece)
        self.waiting += piece.shape[1]
        # As many at a time as fit into the processor's cache.
        if self.waiting >= self.rate:
            self._measure()

    def _measure(self) -> None:
        wave = np.concatenate(self.pieces, axis=1)
        self.pieces, self.waiting = [], 0
        if wave.dtype.kind != 'f':
            scale = float(2**(8 * wave.itemsize - 1))
            zero = scale if wave.dtype.kind == 'u' else 0.
            wave = (wave.astype(np.float32) - zero) / scale
        elif wave.dtype != np.float32:
            wave = wave.astype(np.float32)
        if not np.isfinite(wave).all():
            self.finite = False
            wave = np.nan_to_num(wave, posinf=0., neginf=0.)
        full = np.abs(wave) >= _FULL_SCALE
        self.clipped += int(np.count_nonzero(full.any(axis=0)))
        # As the loader hears it: the mean of the channels.
        mono = wave.mean(axis=0)
        self.samples += len(mono)
        exact = mono.astype(np.float64)
        self.sum += float(exact.sum())
        self.squares += float(np.dot(exact, exact))
        mono = np.concatenate([self.rest, mono])
        count = len(mono) // self.block
        blocks = mono[:count * self.block].reshape(count, self.block)
        self.rest = mono[count * self.block:]
        self.levels.append(np.square(blocks).mean(axis=1))
        self.energy.append(band_energy(blocks, self.rate))

    def finish(self) -> None:
        """Measure what is left."""
        if self.pieces:
            self._measure()

    def level(self) -> float:
        """Root mean square without the mean, in dB of full scale."""
        if not self.samples:
            return -math.inf
        mean = self.sum / self.samples
        power = self.squares / self.samples - mean**2
        return 10 * math.log10(power) if power > 0 else -math.inf


class _Track(_Sound):
    """Sound of a video, with its time stamps.

    Args:
        frame (av.AudioFrame): The first one.
        at (float): Its time in seconds.
    """

    def __init__(self, frame: av.AudioFrame, at: float) -> None:
        super().__init__(frame.sample_rate)
        self.kind = self._kind(frame)
        self.late = self.end = at
        self.shift = 0.

    def _kind(self, frame: av.AudioFrame) -> Tuple[int, str, str]:
        return frame.sample_rate, frame.layout.name, frame.format.name

    def take(self, frame: av.AudioFrame, at: Optional[float],
             path: str) -> None:
        """Measure the next frame, heard from ``at`` (s) on."""
        if self._kind(frame) != self.kind:
            raise BrokenClipError(path, 'sound changes its format',
                                  f'{self.kind} to {self._kind(frame)}')
        at = self.end if at is None else at
        # Time stamps that jump: what was between them is missing.
        told = self.late + (self.samples + self.waiting) / self.rate
        self.shift = max(self.shift, abs(at - told))
        self.end = at + frame.samples / self.rate
        wave = frame.to_ndarray()
        if not frame.format.is_planar:
            wave = wave.reshape(-1, frame.layout.nb_channels).T
        self.add(wave)


class _Picture:
    """Looks at small gray pictures at equal distances in time.

    Args:
        duration (float): Expected length in seconds.
        tick (float): Unit of time stamps in seconds.
    """

    def __init__(self, duration: float, tick: float) -> None:
        self.step = max(min(_STEP, duration / 16), duration / _MOST_PICTURES)
        self.tick = tick
        self.convert = VideoReformatter()
        self.grays: List[np.ndarray] = []
        self.shown: Optional[av.VideoFrame] = None
        self.frames = 0
        self.last = self.gap = self.end = 0.

    def take(self, frame: av.VideoFrame, at: float) -> None:
        """Look at the next frame, shown from ``at`` (s) on."""
        if self.shown is not None:
            self._look(at)
        self.shown = frame
        self.frames += 1
        self.gap = max(self.gap, at - self.last)
        self.last = max(at, self.last)
        self.end = max(self.end, at + (frame.duration or 0) * self.tick)

    def _look(self, until: float) -> None:
        """Look at the shown frame at all steps before a time."""
        missing = min(math.ceil(until / self.step - 1e-3),
                      2 * _MOST_PICTURES) - len(self.grays)
        if missing > 0:
            gray = self.convert.reformat(
                self.shown,
                width=SIDE,
                height=SIDE,
                format='gray',
                interpolation='AREA').to_ndarray()
            self.grays += [gray] * missing

    def finish(self, duration: float) -> None:
        """Show the last frame until the end.

        In a slide show it may stay as long as others did, and a single
        picture stays.
        """
        stays = duration if self.frames == 1 else self.last + self.gap
        self.end = max(self.end, min(stays, duration))
        self._look(min(self.end, duration))
        if not self.grays:
            self._look(self.step)


def _look_at(grays: np.ndarray, times: np.ndarray, spacing: float) -> dict:
    """Motion and darkness of small gray pictures.

    Args:
        grays (np.ndarray): (n, 32, 32) uint8.
        times (np.ndarray): (n,) seconds.
        spacing (float): Seconds between the frames of the clip.

    Returns:
        dict: ``motion``, median over pairs of neighboring pictures of the
        mean absolute difference, in levels of 255 (the median, since the
        noise of key frames and the cuts of a slide show are no motion); and
        ``black_share``.
    """
    # Within a quarter of the clip there must be a pair.
    lag = min(spacing, _FARTHEST, (times[-1] - times[0]) / 4)
    later = np.searchsorted(times, times + lag - 1e-6)
    later = np.maximum(later, np.arange(len(times)) + 1)
    first = np.flatnonzero(later < len(times))
    change = np.abs(grays[first].astype(np.int16) - grays[later[first]])
    motion = np.median(change.mean(axis=(1, 2))) if len(first) else 0.
    dark = (grays < _DARK).mean(axis=(1, 2)) >= _DARK_SHARE
    return dict(
        motion=round(float(motion), 3),
        black_share=round(float(dark.mean()), 3))


def _hear(sound: _Sound, late: float = 0.) -> dict:
    """Level, clipping and silence.

    Args:
        sound (_Sound): Finished.
        late (float): Seconds of the clip before the sound starts.

    Returns:
        dict: ``level`` (dB of full scale, None for digital silence),
        ``clipped_share``, ``silent_share``, ``sample_rate``.
    """
    level = sound.level()
    levels = np.concatenate(sound.levels or [np.zeros(0, np.float32)])
    before = round(max(late, 0.) * _BLOCKS)
    silent = before + int(np.count_nonzero(levels < SILENCE**2))
    return dict(
        sample_rate=sound.rate,
        level=round(level, 1) if math.isfinite(level) else None,
        clipped_share=round(sound.clipped / max(sound.samples, 1), 5),
        silent_share=round(silent / max(before + len(levels), 1), 3))


def _measure_video(row: dict, level: str) -> dict:
    """Measure a video; see :func:`measure_clip`."""
    path = row['video_path']
    with open_video(path) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        duration = min(
            video_duration(container), row.get('duration', math.inf))
        found: Dict[str, Any] = dict(
            duration=round(duration, 3),
            height=video.codec_context.height,
            width=video.codec_context.width,
            fps=round(float(video.average_rate or 0), 3),
            sample_rate=audio.codec_context.sample_rate)
        if level == 'probe':
            return found
        # Without this, decoders guess what damaged parts looked like.
        for stream in (video, audio):
            stream.codec_context.options = dict(err_detect='explode')
        return _decode(container, path, duration, found)


def _decode(container: av.container.InputContainer, path: str,
            duration: float, found: dict) -> dict:
    """Decode a video once, all of it, and measure it on the way."""
    streams = container.streams.video[0], container.streams.audio[0]
    origin = clip_start(container)
    picture = _Picture(duration, float(streams[0].time_base))
    sound: Optional[_Track] = None
    damage = early = 0
    packets = container.demux(streams)
    while True:
        packet = None
        try:
            packet = next(packets, None)
            if packet is None:
                break
            frames, spoiled = packet.decode(), packet.is_corrupt
        except av.error.FFmpegError:
            frames, spoiled = [], True
        seen = packet is None or packet.stream.type == 'video'
        if spoiled and (picture.frames if seen else sound):
            damage += 1
        elif spoiled:
            early += 1
        if packet is None:
            # The file cannot be read on.
            break
        for frame in frames:
            at = None if frame.time is None else frame.time - origin
            if not seen:
                sound = sound or _Track(frame, at or 0.)
                sound.take(frame, at, path)
            elif at is not None:
                picture.take(frame, at)
    if picture.shown is None:
        raise BrokenClipError(path, 'no frame can be decoded')
    picture.finish(duration)
    found['height'], found['width'] = upright_size(picture.shown)
    shift = 0. if sound is None else sound.shift
    found.update(
        frames=picture.frames,
        picture_end=picture.end,
        sound_end=0. if sound is None else sound.end,
        damage=damage + (shift > TOLERANCE),
        early_damage=early)
    return _describe(found, np.stack(picture.grays),
                     np.arange(len(picture.grays)) * picture.step,
                     sound or _Sound(1), 0. if sound is None else sound.late)


def _describe(found: dict, grays: np.ndarray, times: np.ndarray,
              sound: _Sound, late: float = 0.) -> dict:
    """Add what picture and sound are like."""
    sound.finish()
    found['finite'] = sound.finite
    spacing = found['duration'] / found['frames']
    found.update(_look_at(grays, times, spacing))
    found.update(_hear(sound, late))
    for key in ('picture_end', 'sound_end'):
        found[key] = round(found[key], 3)
    energy = np.concatenate(sound.energy) if sound.energy else np.zeros(
        (0, 1))
    found['fingerprint'] = Fingerprint(
        hash_pictures(grays), sound_levels(energy))
    return found


def _measure_files(row: dict, level: str) -> dict:
    """Measure prepared frames and their sound; see :func:`measure_clip`."""
    frames, path = row['frames'], row['audio_path']
    for frame in frames:
        check_file(frame['path'])
    with open_audio(path) as file:
        seconds = file.frames / file.samplerate
        found: Dict[str, Any] = dict(
            duration=round(min(seconds, row.get('duration', math.inf)), 3),
            frames=len(frames),
            sample_rate=file.samplerate)
        if level == 'probe':
            return found
        sound = _Sound(file.samplerate)
        end, damage = 0, 0
        while True:
            try:
                wave = file.read(
                    file.samplerate, dtype='float32', always_2d=True)
            except RuntimeError:
                damage += 1
                break
            if not len(wave):
                break
            sound.add(wave.T)
            end += len(wave)
    grays = np.zeros((len(frames), SIDE, SIDE), np.uint8)
    for i, frame in enumerate(frames):
        if _is_cut(frame['path']):
            raise BrokenClipError(frame['path'], 'no readable image',
                                  'its end is missing')
        image = read_image(frame['path'])
        if i == 0:
            found['height'], found['width'] = image.shape[:2]
        small = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        grays[i] = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY)
    found.update(
        picture_end=found['duration'],
        sound_end=end / found['sample_rate'],
        damage=damage,
        early_damage=0)
    times = np.array([f['time'] for f in frames], float)
    found = _describe(found, grays, times, sound)
    if len(frames) == 1:
        # There may have been more in the video.
        found['motion'] = None
    return found


def _is_cut(path: str) -> bool:
    """Whether the end of a JPEG file is missing; not all decoders say."""
    with open(path, 'rb') as file:
        if file.read(2) != b'\xff\xd8':
            return False
        file.seek(-min(os.path.getsize(path), 64), os.SEEK_END)
        return b'\xff\xd9' not in file.read()


def measure_clip(row: dict, level: str = 'decode') -> dict:
    """Measure a clip.

    Args:
        row (dict): As :class:`AudioVisualDataset` parses it: ``video_path``,
            or ``frames`` and ``audio_path``; ``duration`` (s), optional.
        level (str): ``'probe'``, what headers tell; or ``'decode'``, also
            what is seen and heard. Defaults to ``'decode'``.

    Returns:
        dict: ``duration`` (s) that picture and sound both cover, ``height``
        and ``width`` (px, as displayed), ``fps``, ``frames``,
        ``sample_rate`` (Hz); and, decoded, ``picture_end`` and
        ``sound_end`` (s), ``damage`` and ``early_damage`` (places),
        ``finite``, ``motion``, ``black_share``, ``level`` (dB),
        ``clipped_share``, ``silent_share`` and ``fingerprint``.

    Raises:
        BrokenClipError: If the clip cannot be measured.
        ValueError: If there is no such level.
    """
    if level not in LEVELS:
        raise ValueError(f'level must be one of {LEVELS}, got {level!r}.')
    if 'video_path' in row:
        return _measure_video(row, level)
    return _measure_files(row, level)
