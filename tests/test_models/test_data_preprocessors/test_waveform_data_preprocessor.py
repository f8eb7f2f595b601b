"""Tests of the data preprocessor that leaves waveforms alone.

What it shares with the one of log-mels is tested there.
"""
import numpy as np
import pytest
import torch
from mmengine.dataset import default_collate, pseudo_collate

from avdet_mm.models.data_preprocessors import WaveformDataPreprocessor


@pytest.mark.parametrize('collate', [pseudo_collate, default_collate])
def test_frames_are_normalized_and_waveforms_kept(collate):
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (3, 3, 5, 7), np.uint8)
    waves = torch.from_numpy(rng.uniform(-1, 1, (3, 90)).astype(np.float32))
    preprocessor = WaveformDataPreprocessor((10, 20, 30), (1, 2, 4))
    out = preprocessor(
        collate([
            dict(inputs=dict(frame=torch.from_numpy(f), audio=w))
            for f, w in zip(frames, waves)
        ]))
    assert set(out) == {'inputs', 'data_samples'}
    assert torch.equal(out['inputs']['audio'], waves)
    expected = frames[:, ::-1].astype(np.float64)
    for channel, (mean, std) in enumerate([(10, 1), (20, 2), (30, 4)]):
        np.testing.assert_allclose(
            out['inputs']['frame'][:, channel],
            (expected[:, channel] - mean) / std,
            rtol=1e-6)
    assert not preprocessor.state_dict()


def test_differing_waveforms():
    data = dict(
        inputs=dict(
            frame=[torch.zeros(3, 4, 4, dtype=torch.uint8)] * 2,
            audio=[torch.zeros(480), torch.zeros(720)]))
    with pytest.raises(ValueError, match='waveforms .* differ in size'):
        WaveformDataPreprocessor()(data)
