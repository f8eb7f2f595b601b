"""Tests of the data preprocessor, the log-mel above all."""
import numpy as np
import pytest
import torch
from mmengine.dataset import default_collate, pseudo_collate

from avdet_mm.models.data_preprocessors import AudioVisualDataPreprocessor
from avdet_mm.structures import AudioVisualDataSample


def mel_filters(n_mels, n_fft, sample_rate):
    """HTK triangles, (n_fft // 2 + 1, n_mels) float64."""
    bins = np.linspace(0, sample_rate / 2, n_fft // 2 + 1)
    top = 2595 * np.log10(1 + sample_rate / 2 / 700)
    edges = 700 * (10**(np.linspace(0, top, n_mels + 2) / 2595) - 1)
    filters = np.zeros((len(bins), n_mels))
    for m in range(n_mels):
        low, center, high = edges[m:m + 3]
        for i, f in enumerate(bins):
            if low < f <= center:
                filters[i, m] = (f - low) / (center - low)
            elif center < f < high:
                filters[i, m] = (high - f) / (high - center)
    return filters


def log_mel(wave, sample_rate=24000, n_fft=1024, win=480, hop=240,
            n_mels=257, floor=1e-6):
    """The documented transform, frame by frame in float64."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(win) / win)
    filters = mel_filters(n_mels, n_fft, sample_rate)
    frames = []
    k = 0
    while k * hop + win <= len(wave):
        part = wave[k * hop:k * hop + win] * window
        power = np.abs(np.fft.rfft(part, n_fft))**2
        frames.append(np.log(power @ filters + floor))
        k += 1
    return np.stack(frames, axis=1)


def batch(frames, waves):
    return dict(
        inputs=dict(frame=list(frames), audio=list(waves)),
        data_samples=['sample'] * len(frames))


@pytest.mark.parametrize('kwargs', [
    dict(),
    dict(win=960, hop=480, n_mels=64),
    dict(sample_rate=16000, n_fft=512, win=320, hop=160, n_mels=40,
         floor=1e-10),
])
def test_log_mel_against_numpy(kwargs):
    rng = np.random.default_rng(0)
    wave = np.stack([
        rng.uniform(-1, 1, 24000),
        0.5 * np.sin(2 * np.pi * 1000 * np.arange(24000) / 24000)
    ]).astype(np.float32)
    names = dict(win='win_length', hop='hop_length', floor='log_floor')
    preprocessor = AudioVisualDataPreprocessor(
        **{names.get(k, k): v
           for k, v in kwargs.items()})
    expected = np.stack([log_mel(w.astype(np.float64), **kwargs)
                         for w in wave])
    result = preprocessor.log_mel(torch.from_numpy(wave))
    assert result.shape == (2, 1, *expected.shape[1:])
    assert result.dtype == torch.float32
    # Single precision against double: relative to the energies.
    np.testing.assert_allclose(
        np.exp(result[:, 0].numpy()), np.exp(expected), rtol=2e-3, atol=2e-6)
    loud = expected > -5
    np.testing.assert_allclose(
        result[:, 0].numpy()[loud], expected[loud], atol=2e-3)


def test_log_mel_is_float32_within_autocast():
    wave = torch.rand(2, 24000, generator=torch.Generator().manual_seed(0))
    preprocessor = AudioVisualDataPreprocessor()
    expected = preprocessor.log_mel(wave)
    with torch.autocast('cpu', torch.bfloat16):
        result = preprocessor.log_mel(wave)
    assert torch.equal(result, expected)


def test_default_geometry():
    preprocessor = AudioVisualDataPreprocessor()
    assert preprocessor.log_mel(torch.zeros(3, 24000)).shape == (3, 1, 257,
                                                                 99)


@pytest.mark.parametrize('samples, frames', [(480, 1), (719, 1), (720, 2),
                                             (23999, 98), (24000, 99)])
def test_number_of_frames(samples, frames):
    preprocessor = AudioVisualDataPreprocessor(n_mels=8)
    assert preprocessor.log_mel(torch.zeros(1, samples)).shape == (1, 1, 8,
                                                                   frames)


def test_frame_sees_its_own_samples_only():
    preprocessor = AudioVisualDataPreprocessor(n_mels=8)
    wave = torch.zeros(1, 2400)
    wave[0, 1000] = 1.  # inside the frames 3 (720..1199) and 4 (960..1439)
    energy = preprocessor.log_mel(wave)[0, 0].exp() - 1e-6
    heard = (energy.amax(dim=0) > 1e-4).nonzero().flatten()
    assert heard.tolist() == [3, 4]


def test_silence_stays_finite():
    result = AudioVisualDataPreprocessor().log_mel(torch.zeros(1, 24000))
    np.testing.assert_allclose(result.numpy(), np.log(1e-6), rtol=1e-6)


@pytest.mark.parametrize('to_rgb', [True, False])
def test_frames_are_normalized(to_rgb):
    rng = np.random.default_rng(1)
    frames = rng.integers(0, 256, (2, 3, 5, 7), np.uint8)
    preprocessor = AudioVisualDataPreprocessor(
        mean=(10, 20, 30), std=(1, 2, 4), bgr_to_rgb=to_rgb, n_mels=4)
    out = preprocessor(batch(torch.from_numpy(frames), torch.zeros(2, 480)))
    expected = frames.astype(np.float64)
    if to_rgb:
        expected = expected[:, ::-1]
    expected = (expected - np.array([10, 20, 30])[:, None, None]) / np.array(
        [1, 2, 4])[:, None, None]
    assert out['inputs']['frame'].dtype == torch.float32
    np.testing.assert_allclose(out['inputs']['frame'], expected, rtol=1e-6)
    assert out['data_samples'] == ['sample', 'sample']
    assert set(out) == {'inputs', 'data_samples'}


def test_audio_is_normalized_when_measured():
    wave = torch.from_numpy(
        np.random.default_rng(0).uniform(-1, 1, (2, 960)).astype(np.float32))
    data = batch(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), wave)
    raw = AudioVisualDataPreprocessor(n_mels=4)
    normalized = AudioVisualDataPreprocessor(
        n_mels=4, audio_mean=-2., audio_std=4.)
    plain = raw.log_mel(wave)
    # Not measured: bit by bit what log_mel gives.
    assert torch.equal(raw(data)['inputs']['audio'], plain)
    torch.testing.assert_close(
        normalized(data)['inputs']['audio'], (plain + 2) / 4)


@pytest.mark.parametrize('kwargs, expected', [({}, True),
                                              (dict(non_blocking=False),
                                               False)])
def test_copies_do_not_block(kwargs, expected, monkeypatch):
    seen = []
    to = torch.Tensor.to

    def spy(tensor, *args, **kwargs):
        seen.append(kwargs.get('non_blocking'))
        return to(tensor, *args, **kwargs)

    preprocessor = AudioVisualDataPreprocessor(n_mels=4, **kwargs)
    data = batch(torch.zeros(1, 3, 4, 4, dtype=torch.uint8), torch.zeros(
        1, 480))
    monkeypatch.setattr(torch.Tensor, 'to', spy)
    preprocessor(data)
    assert seen[:2] == [expected] * 2


def test_statistics_travel_in_the_state_dict():
    source = AudioVisualDataPreprocessor(audio_mean=-2.5, audio_std=3.5)
    state = source.state_dict()
    assert {k: float(v)
            for k, v in state.items()} == dict(
                audio_mean=-2.5, audio_std=3.5)
    target = AudioVisualDataPreprocessor(n_mels=64, win_length=960)
    assert target.audio_std == 0
    target.load_state_dict(state)
    assert (float(target.audio_mean), float(target.audio_std)) == (-2.5, 3.5)


@pytest.mark.parametrize('collate', [pseudo_collate, default_collate])
def test_stacked_or_not(collate):
    rng = np.random.default_rng(2)
    frames = torch.from_numpy(rng.integers(0, 256, (3, 3, 4, 4), np.uint8))
    waves = torch.from_numpy(rng.uniform(-1, 1, (3, 960)).astype(np.float32))
    preprocessor = AudioVisualDataPreprocessor(n_mels=4)
    data = collate([
        dict(
            inputs=dict(frame=frame, audio=wave),
            data_samples=AudioVisualDataSample(metainfo=dict(sample_idx=i)))
        for i, (frame, wave) in enumerate(zip(frames, waves))
    ])
    kept = frames.clone(), waves.clone()
    out = preprocessor(data)
    expected = preprocessor(batch(frames, waves))['inputs']
    for key in ('frame', 'audio'):
        assert torch.equal(out['inputs'][key], expected[key])
    assert [s.sample_idx for s in out['data_samples']] == [0, 1, 2]
    # Normalizing in place touches neither input.
    assert torch.equal(frames, kept[0]) and torch.equal(waves, kept[1])


def test_batches_without_samples():
    data = dict(
        inputs=dict(
            frame=[torch.zeros(3, 4, 4, dtype=torch.uint8)],
            audio=[torch.zeros(480)]))
    assert AudioVisualDataPreprocessor(n_mels=4)(data)['data_samples'] is None


@pytest.mark.parametrize('frames, waves, message', [
    ([(3, 4, 4), (3, 4, 6)], [480, 480], 'frames .* differ in size'),
    ([(3, 4, 4), (3, 4, 4)], [480, 720], 'waveforms .* differ in size'),
])
def test_differing_sizes(frames, waves, message):
    data = batch([torch.zeros(s, dtype=torch.uint8) for s in frames],
                 [torch.zeros(n) for n in waves])
    with pytest.raises(ValueError, match=message):
        AudioVisualDataPreprocessor(n_mels=4)(data)


@pytest.mark.parametrize('kwargs', [dict(audio_mean=0.), dict(audio_std=1.)])
def test_half_of_the_statistics(kwargs):
    with pytest.raises(ValueError, match='audio_mean and audio_std'):
        AudioVisualDataPreprocessor(**kwargs)
