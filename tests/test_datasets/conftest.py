"""Media files for the tests of data sets and transforms."""
import numpy as np
import pytest

from avdet_mm.testing import write_media


@pytest.fixture(scope='session')
def signal():
    """Five seconds of smooth noise at 24 kHz, (120000,) float32."""
    noise = np.random.default_rng(0).standard_normal(120000)
    smooth = np.convolve(noise, np.hanning(40) / 8, 'same')
    return (0.2 * smooth).astype(np.float32)


@pytest.fixture(scope='session')
def counting():
    """Forty frames (40, 48, 64, 3); frame i has the gray value 6 * i."""
    values = 6 * np.arange(40, dtype=np.uint8)
    return np.broadcast_to(values[:, None, None, None],
                           (40, 48, 64, 3)).copy()


@pytest.fixture(scope='session')
def video(tmp_path_factory, signal, counting):
    """Path of a video of 5 s at 8 fps with the signal as its sound."""
    path = str(tmp_path_factory.mktemp('media') / 'clip.mp4')
    write_media(path, counting, signal)
    return path
