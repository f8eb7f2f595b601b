"""Tests of Sound of Pixels."""
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import init_default_scope
from scipy import signal

from avdet_mm.models.baselines import SoundOfPixels, SoundUNet
from avdet_mm.registry import MODELS
from tests.toy import ToyClips, loader_cfg, make_runner, scalars


def model_cfg(**kwargs):
    """A model of a few thousand parameters, for 2000 samples."""
    return dict(
        dict(
            type='avdet_mm.SoundOfPixels',
            visual_backbone=dict(
                type='avdet_mm.AVOLNet',
                base_channels=4,
                pooled_stages=(0, 1)),
            audio_backbone=dict(
                type='avdet_mm.SoundUNet',
                out_channels=3,
                base_channels=2,
                num_levels=3),
            visual_channels=32,
            n_fft=126,
            hop_length=64,
            num_bins=16), **kwargs)


def build(**kwargs):
    init_default_scope('avdet_mm')
    torch.manual_seed(0)
    return MODELS.build(model_cfg(**kwargs))


def magnitudes(model, values):
    """Spectra whose magnitudes are constant over frequency.

    Args:
        values: (B, T) complex.
    """
    values = torch.as_tensor(values, dtype=torch.complex64)
    return values[:, None].expand(-1, model.n_fft // 2 + 1, -1).contiguous()


def test_spectrum_against_scipy():
    model = build()
    wave = np.random.default_rng(0).uniform(-1, 1, (2, 2000))
    window = signal.get_window('hann', 126)
    padded = np.pad(wave, ((0, 0), (63, 63)), mode='reflect')
    frames = np.stack([padded[:, i:i + 126] for i in range(0, 2001, 64)], 2)
    expected = np.fft.rfft(frames * window[:, None], axis=1)
    result = model.spectrum(torch.from_numpy(wave).float())
    assert result.shape == (2, 64, 32) and result.dtype == torch.complex64
    np.testing.assert_allclose(result.numpy(), expected, atol=2e-5)


def test_size_of_the_public_code():
    model = build(n_fft=1022, hop_length=256, num_bins=256)
    spectrum = model.spectrum(torch.zeros(1, 65535))
    assert spectrum.shape == (1, 512, 256)
    assert model.magnitude(spectrum).shape == (1, 256, 256)


def test_logarithmic_axis_against_numpy():
    model = build()
    # As the public code's sampling grid: from -1 to 1, over 64 bins.
    grid = (21**np.linspace(0, 1, 16) - 11) / 10
    place = (grid + 1) / 2 * 63
    linear = np.random.default_rng(0).uniform(0, 1, (64, 5))
    expected = np.stack([
        np.interp(place, np.arange(64), column) for column in linear.T
    ], 1)
    result = model.magnitude(torch.from_numpy(linear).to(torch.complex64))
    np.testing.assert_allclose(result.numpy(), expected, atol=1e-5)
    # Its ends are those of the linear axis; steps grow 20 ** (1 / 15)-fold.
    np.testing.assert_allclose(result[[0, -1]], linear[[0, -1]], atol=1e-5)
    steps = np.diff(place)
    np.testing.assert_allclose(steps[1:] / steps[:-1], 21**(1 / 15))


@pytest.mark.parametrize('index', [2, 9, 14])
def test_pure_tone_is_at_its_place(index):
    model = build(n_fft=510, num_bins=16)
    bins = 255 * (21**(index / 15) - 1) / 20
    tone = 0.5 * np.sin(2 * np.pi * bins / 510 * np.arange(4000))
    magnitude = model.magnitude(
        model.spectrum(torch.from_numpy(tone).float()[None]))[0]
    assert (magnitude[:, 5:-5].argmax(0) == index).all()
    # Half the sum of the window times the amplitude, less what lies between
    # the bins (at most 15 %) and between their interpolated values.
    peak = magnitude[index, 30]
    assert 0.7 * 0.25 * 255 < peak <= 0.25 * 255 * 1.001


def test_mixtures_and_targets_of_masks():
    model = build()
    # Three clips, four frames; phases matter to the mixture alone.
    spectrum = magnitudes(model, [[4, 2, 1, 0], [2, 2, 3, 0], [-2, 2j, 1, 0]])
    mixture, targets = model.mix(spectrum)
    assert mixture.shape == (3, 16, 4) and targets.shape == (3, 2, 16, 4)
    # Clip i with clip i - 1, each halved.
    expected = torch.tensor([
        [1., 2**0.5, 1, 0],
        [3, 2, 2, 0],
        [0, 2**0.5, 2, 0],
    ])
    torch.testing.assert_close(mixture[:, 7], expected, atol=1e-6, rtol=1e-6)
    # Own magnitudes [2, 1, .5, 0], [1, 1, 1.5, 0] and [1, 1, .5, 0].
    own = torch.tensor([[1., 1, 0, 0], [0, 0, 1, 0], [1, 1, 0, 0]])
    # Those of the clip before: the third's, the first's, the second's.
    other = torch.tensor([[1., 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0]])
    assert (targets[:, 0] == own[:, None]).all()
    assert (targets[:, 1] == other[:, None]).all()


def test_three_sounds_are_mixed():
    model = build(num_mix=3)
    spectrum = magnitudes(model, [[3.], [6], [9], [12]])
    mixture, targets = model.mix(spectrum)
    torch.testing.assert_close(mixture[:, 0, 0],
                               torch.tensor([8., 7, 6, 9]))
    # Of 1, 4, 3 (sum 8); 2, 1, 4 (7); 3, 2, 1 (6); 4, 3, 2 (9).
    assert targets[:, :, 0, 0].tolist() == [[0, 0, 0], [0, 0, 1], [0, 0, 0],
                                            [0, 0, 0]]


def test_synthesizer_is_the_formula():
    model = build()
    visual = torch.rand(2, 3, 5)
    sound = torch.randn(2, 3, 4, 6)
    with torch.no_grad():
        model.scale.copy_(torch.tensor([1., -2, 0.5]))
        model.bias.fill_(0.25)
    result = model.synthesize(visual, sound)
    assert result.shape == (2, 5, 4, 6)
    for n in range(5):
        expected = 0.25 + sum(
            model.scale[k].item() * visual[1, k, n] * sound[1, k]
            for k in range(3))
        torch.testing.assert_close(result[1, n], expected)


def constant_components(model, values):
    """Replace the U-Net by components that are constant over cells."""
    model.audio_backbone.forward = lambda x: (torch.tensor(values).view(
        1, -1, 1, 1).expand(len(x), -1, *x.shape[2:]), )


def test_weighted_loss_by_hand():
    model = build()
    constant_components(model, [2., -1, 0])
    with torch.no_grad():
        model.bias.fill_(0.5)
    # One frame in time. Mixture: 3 in both. Own: 2 and 1; other: 1 and 2.
    spectrum = magnitudes(model, [[4.], [2]])
    visual = torch.full((2, 3, 2, 2), -50.)
    visual[0, 0, 1, 0] = 50.  # clip 0: v = (1, 0, 0)
    visual[1, 1, 0, 1] = 50.  # clip 1: v = (0, 1, 0)
    loss = model.loss(dict(visual=visual, spectrum=spectrum))
    # Clip 0 is above half of 3, clip 1 is not: in both mixtures one term for
    # a logit of 2 + 0.5 and target 1, one for -1 + 0.5 and target 0.
    terms = np.log1p(np.exp(-2.5)), np.log1p(np.exp(-0.5))
    assert list(loss) == ['loss_mask']
    assert loss['loss_mask'].item() == pytest.approx(
        np.log(4) * np.mean(terms), rel=1e-5)


@pytest.mark.parametrize('factor, weight', [(0., 1e-3), (1e6, 10.)])
def test_weights_are_clamped(factor, weight):
    model = build()
    constant_components(model, [0., 0, 0])
    loss = model.loss(
        dict(
            visual=torch.zeros(2, 3, 2, 2),
            spectrum=magnitudes(model, [[factor], [factor]])))
    assert loss['loss_mask'].item() == pytest.approx(
        weight * np.log(2), rel=1e-4)


def test_location_with_the_right_component_gets_all_energy():
    model = build()
    with torch.no_grad():
        model.bias.fill_(np.log(3))
    spectrum = magnitudes(model, [[1., 2]])
    # Component 0 lets everything through, component 1 nothing, and
    # component 2 the second half of time alone: 4 / 5 of the energy.
    sound = torch.zeros(1, 3, 16, 2)
    sound[:, 0], sound[:, 1] = 40, -40
    sound[:, 2, :, 0], sound[:, 2, :, 1] = -40, 40
    model.audio_backbone.forward = lambda x: (sound, )
    visual = torch.full((1, 3, 2, 2), -50.)
    visual[0, 0, 0, 1] = 50
    visual[0, 1, 1, 0] = 50
    visual[0, 2, 1, 1] = 50
    heatmaps = model.heatmaps(dict(visual=visual, spectrum=spectrum))
    # Where no component is active, masks are 3/4 by the bias alone.
    torch.testing.assert_close(
        heatmaps, torch.tensor([[[0.5625, 1.], [0., 0.8]]]))
    # A louder sound gives the same shares.
    louder = model.heatmaps(dict(visual=visual, spectrum=10 * spectrum))
    torch.testing.assert_close(louder, heatmaps)


def test_own_sound_is_not_mixed_in_prediction():
    model = build().eval()
    frame, audio = torch.randn(3, 3, 32, 40), torch.randn(3, 2000)
    with torch.no_grad():
        model.visual_conv.weight.mul_(10)
        model.audio_backbone.ups[0].weight.mul_(1000)
        together = model.heatmaps(model(dict(frame=frame, audio=audio)))
        alone = model.heatmaps(
            model(dict(frame=frame[1:2], audio=audio[1:2])))
    assert together.shape == (3, 4, 5)
    assert together[1].max() > 0
    torch.testing.assert_close(together[1:2], alone, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('levels', [2, 3, 5])
@pytest.mark.parametrize('size', [(32, 32), (37, 45)])
def test_unet_keeps_the_size(levels, size):
    unet = SoundUNet(out_channels=7, base_channels=2, num_levels=levels)
    out, = unet(torch.randn(2, 1, *size))
    assert out.shape == (2, 7, *size)


def test_unet_by_hand():
    """Two levels, in eval mode: batch norms as initialized do nothing."""
    torch.manual_seed(0)
    unet = SoundUNet(out_channels=3, base_channels=2, num_levels=2).eval()
    x = torch.randn(1, 1, 8, 12)
    x0 = x / (1 + 1e-5)**0.5
    x1 = F.conv2d(x0, unet.downs[0].weight, stride=2, padding=1)
    x2 = F.conv2d(
        torch.where(x1 > 0, x1, 0.2 * x1),
        unet.downs[1].weight,
        stride=2,
        padding=1)
    up = F.interpolate(
        x2.clamp(min=0), (4, 6), mode='bilinear', align_corners=True)
    up = F.conv2d(up, unet.ups[1][0].weight, padding=1) / (1 + 1e-5)**0.5
    both = torch.cat([x1, up], dim=1).clamp(min=0)
    both = F.interpolate(both, (8, 12), mode='bilinear', align_corners=True)
    expected = F.conv2d(
        both, unet.ups[0].weight, unet.ups[0].bias, padding=1)
    torch.testing.assert_close(unet(x)[0], expected)


def test_components_are_those_of_log_magnitudes():
    model = build()
    model.audio_backbone.forward = lambda x: (x.repeat(1, 3, 1, 1), )
    magnitude = torch.rand(2, 16, 5) + 0.1
    torch.testing.assert_close(
        model.separate(magnitude)[:, 1], magnitude.log())


def test_unet_of_the_public_code():
    unet = SoundUNet()
    unet.init_weights()
    widths = [d[0].out_channels for d in unet.downs[1:-1]]
    assert [unet.downs[0].out_channels, *widths,
            unet.downs[-1].out_channels] == [64, 128, 256, 512, 512, 512, 512]
    convs = [m for m in unet.modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(convs) == 14
    for conv in convs:
        assert 0.0008 < conv.weight.std() < 0.0012
    # With its batch norms: one at the input, 5 on the way down, 6 up.
    norms = [m for m in unet.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert len(norms) == 12
    # Convolutions: 14.7 M of the way down and as many of the way up, ...
    down = 16 * (64 + 64 * 128 + 128 * 256 + 256 * 512 + 3 * 512 * 512)
    up = 9 * (512 * 512 + 2 * 1024 * 512 + 1024 * 256 + 512 * 128 +
              256 * 64 + 128 * 32) + 32
    factors = 2 * (1 + 128 + 256 + 3 * 512 + 3 * 512 + 256 + 128 + 64)
    assert sum(p.numel() for p in unet.parameters()) == down + up + factors


def test_small_spectrograms_are_refused():
    with pytest.raises(ValueError, match='32 x 31 cells .* fewer num_levels'):
        SoundUNet(base_channels=2, num_levels=5)(torch.randn(1, 1, 32, 31))
    with pytest.raises(ValueError, match='63 samples are too few'):
        build().spectrum(torch.zeros(1, 63))


def test_one_clip_cannot_be_mixed():
    model = build()
    inputs = dict(frame=torch.randn(1, 3, 32, 32), audio=torch.randn(1, 2000))
    with pytest.raises(ValueError, match='the batch has 1. Use a larger'):
        model(inputs, mode='loss')
    with pytest.raises(ValueError, match='num_mix must be at least 2'):
        build(num_mix=1)


def test_gradients_are_finite_and_reach_all_parameters():
    model = build()
    audio = torch.randn(4, 2000)
    audio[2:] = 0  # two silent clips, mixed with each other
    inputs = dict(frame=torch.randn(4, 3, 32, 32), audio=audio)
    loss = model(inputs, mode='loss')['loss_mask']
    loss.backward()
    assert torch.isfinite(loss)
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize('size', [(32, 32), (45, 61)])
def test_predict(size):
    model = build().eval()
    clips = ToyClips(2)
    data = [clips[0], clips[1]]
    for item in data:
        item['inputs']['frame'] = torch.randint(
            0, 256, (3, *size), dtype=torch.uint8)
        item['data_samples'].set_metainfo(
            dict(ori_shape=size, img_shape=size))
    batch = dict(
        inputs={
            key: [item['inputs'][key] for item in data]
            for key in ('frame', 'audio')
        },
        data_samples=[item['data_samples'] for item in data])
    samples = model.test_step(batch)
    for sample in samples:
        assert sample.heatmap.shape == (size[0] // 8, size[1] // 8)
        assert (sample.heatmap >= 0).all() and (sample.heatmap <= 1).all()
        boxes = sample.pred_instances.bboxes
        assert len(boxes) == len(sample.pred_instances.scores)
        assert (boxes[:, 2] <= size[1]).all() and (boxes >= 0).all()


def test_learns_which_frame_sounds_how(tmp_path):
    """Two kinds of clips, each with a color and a tone."""
    clips = ToyClips(16)
    time = torch.arange(2000) / 2000
    for i in range(16):
        clips.frames[i] = torch.tensor([200, 40, 40] if i %
                                       2 else [40, 40, 200],
                                       dtype=torch.uint8)[:, None, None]
        pitch = (700 if i % 2 else 150) + 5 * i
        clips.audio[i] = 0.5 * torch.sin(2 * torch.pi * pitch * time)
    torch.manual_seed(0)
    runner = make_runner(
        tmp_path,
        model_cfg(
            audio_backbone=dict(
                type='avdet_mm.SoundUNet',
                out_channels=3,
                base_channels=4,
                num_levels=3,
                init_cfg=dict(type='Kaiming', layer='Conv2d'))),
        clips,
        epochs=25,
        # In order, so that only sounds of different kinds are mixed.
        train_dataloader=loader_cfg(clips, batch_size=8),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-2)))
    runner.train()
    losses = list(scalars(tmp_path, 'loss').values())
    assert np.mean(losses[-5:]) < 0.3 * np.mean(losses[:5])
    # It has not learned to separate without looking.
    data = runner.model.data_preprocessor(
        next(iter(runner.train_dataloader)))['inputs']
    swapped = dict(data, frame=data['frame'].roll(1, dims=0))
    runner.model.eval()
    with torch.no_grad():
        right, wrong = (
            runner.model(x, mode='loss')['loss_mask'].item()
            for x in (data, swapped))
    assert right < 0.3 * wrong


def test_is_built_from_its_defaults():
    init_default_scope('avdet_mm')
    model = MODELS.build(
        dict(
            type='SoundOfPixels',
            visual_backbone=dict(type='AVOLNet'),
            audio_backbone=dict(type='SoundUNet', base_channels=2)))
    assert isinstance(model, SoundOfPixels)
    name = type(model.data_preprocessor).__name__
    assert name == 'WaveformDataPreprocessor'
    # Constants are not part of checkpoints.
    assert not {'window', 'lower', 'fraction'} & set(model.state_dict())
