"""Transforms of the waveform."""
from typing import Tuple

import numpy as np
from mmcv.transforms import BaseTransform

from avdet_mm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class RandomAudioGain(BaseTransform):
    """Scale the waveform by a random factor.

    The amplitude jitter of "Objects that Sound" (ECCV 2018).

    Required and modified keys:

    - waveform (T,) float32 in [-1, 1]

    Args:
        gain_range (tuple[float]): Range of the uniformly drawn factor.
            Defaults to (0.9, 1.1).
    """

    def __init__(self, gain_range: Tuple[float, float] = (0.9, 1.1)) -> None:
        low, high = gain_range
        if not 0 < low <= high:
            raise ValueError('gain_range must be two positive numbers in '
                             f'ascending order, got {gain_range}.')
        self.gain_range = (low, high)

    def transform(self, results: dict) -> dict:
        """Scale the waveform.

        Args:
            results (dict): Sample with ``waveform``.

        Returns:
            dict: The sample with a louder or softer ``waveform``.
        """
        gain = np.float32(np.random.uniform(*self.gain_range))
        results['waveform'] = np.clip(results['waveform'] * gain, -1, 1)
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(gain_range={self.gain_range})'
