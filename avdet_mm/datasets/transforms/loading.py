"""From a row of the clip table to a frame and a window of sound."""
from typing import Callable, Optional

import numpy as np
from mmcv.transforms import BaseTransform

from avdet_mm.registry import TRANSFORMS

from ..media import (
    BrokenClipError,
    cached_clip,
    decode_audio,
    decode_frame,
    open_audio,
    open_video,
    read_audio,
    read_image,
    video_duration,
)

FRAME_TIMES = ('random', 'middle')


@TRANSFORMS.register_module()
class LoadClip(BaseTransform):
    """Load a frame and the sound around it (Sec. 3.1).

    The clip is a video, or a list of prepared frames and an audio file. The
    window of sound is centered on the frame's time and shifted inside the
    clip at its ends, so its length is always the same.

    Required keys:

    - video_path; or frames (list of dicts with ``path`` and ``time``) and
      audio_path
    - duration (s, optional; else from the file's header)
    - time (s, optional), the evaluated frame's, used by ``'middle'``

    Added or modified keys:

    - img (h, w, 3) uint8 BGR, img_shape, ori_shape (h, w)
    - img_path, with prepared frames
    - time (s) of the frame
    - waveform (T,) float32 in [-1, 1], sample_rate
    - homography_matrix (3, 3) float32, original to current pixels: identity

    Args:
        sample_rate (int): Samples per second. Defaults to 24000.
        audio_duration (float): Length of the window in seconds; T is
            ``sample_rate * audio_duration``. Defaults to 1.0.
        frame_time (str): ``'random'``, any time of the clip, for training;
            or ``'middle'``, the table's ``time`` or else the middle, for
            evaluation. Defaults to ``'random'``.
        cache (bool): Keep every decoded video in memory, for sets that fit
            there; with ``num_workers=0``, since workers do not share it.
            Defaults to False.

    Raises:
        BrokenClipError: If the clip cannot be loaded, with file and reason.
    """

    def __init__(self,
                 sample_rate: int = 24000,
                 audio_duration: float = 1.0,
                 frame_time: str = 'random',
                 cache: bool = False) -> None:
        if frame_time not in FRAME_TIMES:
            raise ValueError(f'frame_time must be one of {FRAME_TIMES}, '
                             f'got {frame_time!r}.')
        self.sample_rate = sample_rate
        self.audio_duration = audio_duration
        self.frame_time = frame_time
        self.cache = cache

    def transform(self, results: dict) -> dict:
        """Load the frame and the sound.

        Args:
            results (dict): A row of the clip table.

        Returns:
            dict: The row with the keys listed above.
        """
        if 'video_path' in results:
            self._load_video(results)
        else:
            self._load_files(results)
        results['img_shape'] = results['img'].shape[:2]
        results['ori_shape'] = results['img'].shape[:2]
        results['sample_rate'] = self.sample_rate
        results['homography_matrix'] = np.eye(3, dtype=np.float32)
        return results

    def _load_video(self, results: dict) -> None:
        """Load from one media file."""
        path = results['video_path']
        if self.cache:
            self._load_cached(results)
            return
        with open_video(path) as container:
            # The header tells the truth where a table's figure is rounded.
            duration = min(
                video_duration(container), results.get('duration', np.inf))
            time = self._pick_time(duration, results.get('time'))
            results['img'], results['time'] = decode_frame(container, time)
            results['waveform'] = self._window(
                path, results['time'], duration,
                lambda start: decode_audio(container, start, self.
                                           audio_duration, self.sample_rate))

    def _load_cached(self, results: dict) -> None:
        """Load from a media file that is decoded only once."""
        path, rate = results['video_path'], self.sample_rate
        clip = cached_clip(path, rate)
        duration = min(clip.duration, results.get('duration', np.inf))
        time = self._pick_time(duration, results.get('time'))
        shown = np.searchsorted(clip.times, time + 1e-4, side='right') - 1
        results['img'] = clip.frames[max(shown, 0)]
        results['time'] = float(clip.times[max(shown, 0)])

        def read(start: float) -> np.ndarray:
            begin = round(start * rate)
            end = begin + round(self.audio_duration * rate)
            return clip.waveform[begin:end].astype(np.float32) / 32767

        results['waveform'] = self._window(path, results['time'], duration,
                                           read)

    def _load_files(self, results: dict) -> None:
        """Load from a prepared frame and an audio file."""
        frames = results['frames']
        if self.frame_time == 'random':
            frame = frames[np.random.randint(len(frames))]
        else:
            time = results.get('time')
            if time is None:
                time = (frames[0]['time'] + frames[-1]['time']) / 2
            frame = min(frames, key=lambda f: abs(f['time'] - time))
        results['img'] = read_image(frame['path'])
        results['img_path'] = frame['path']
        results['time'] = frame['time']
        path = results['audio_path']
        with open_audio(path) as file:
            results['waveform'] = self._window(
                path, frame['time'], file.frames / file.samplerate,
                lambda start: read_audio(file, start, self.audio_duration, self
                                         .sample_rate))

    def _pick_time(self, duration: float, time: Optional[float]) -> float:
        """Choose the time (s) of the frame."""
        if self.frame_time == 'random':
            return np.random.uniform(0, duration)
        return duration / 2 if time is None else time

    def _window(self, path: str, time: float, duration: float,
                read: Callable[[float], np.ndarray]) -> np.ndarray:
        """Read the window of sound around a time, inside the clip."""
        length = round(self.audio_duration * self.sample_rate)
        last = duration - self.audio_duration
        if last < -0.5 / self.sample_rate:
            raise BrokenClipError(
                path, 'too short',
                f'{duration:.2f} s, but audio_duration is '
                f'{self.audio_duration:g} s')
        start = float(np.clip(time - self.audio_duration / 2, 0, max(last, 0)))
        wave = read(start)
        if len(wave) < length and start > 0:
            # The sound ends before the clip does: shift once more.
            missing = (length - len(wave)) / self.sample_rate
            wave = read(max(start - missing, 0.))
        if len(wave) < length:
            raise BrokenClipError(
                path, 'sound too short',
                f'{len(wave)} of {length} samples can be decoded')
        return wave
