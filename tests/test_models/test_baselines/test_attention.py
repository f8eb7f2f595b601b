"""Tests of the attention baseline."""
import math

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from mmengine.dataset import pseudo_collate

from avdet_mm.registry import MODELS
from tests.toy import ToyClips, model_cfg

PARTS = ('data_preprocessor', 'visual_backbone', 'audio_backbone')


def build(channels=32, **kwargs):
    torch.manual_seed(0)
    toy = model_cfg()
    return MODELS.build(
        dict(
            type='avdet_mm.AttentionLocalizer',
            visual_channels=channels,
            audio_channels=channels,
            **{k: toy[k] for k in PARTS},
            **kwargs))


def plain(**kwargs):
    """Of two channels, with layers that change nothing."""
    model = build(2, **kwargs)
    model.audio_fc = model.visual_fc = nn.Identity()
    return model


def batch_of(model, indices, image_size=32):
    dataset = ToyClips(image_size=image_size)
    return model.data_preprocessor(
        pseudo_collate([dataset[i] for i in indices]))


# Two frames of two locations, which show (2, 0), (0, 3) and (-1, 0), (0, 1).
VISUAL = torch.tensor([[[2., 0.], [0., 3.]], [[-1., 0.], [0., 1.]]])[:, :,
                                                                     None]
AUDIO = torch.tensor([[5., 0.], [1., 0.]])


@pytest.mark.parametrize('relu, temperature, weights', [
    (True, 1., [(math.e, 1), (1, 1)]),
    (False, 1., [(math.e, 1), (1 / math.e, 1)]),
    (False, 0.5, [(math.e**2, 1), (math.e**-2, 1)]),
])
def test_attention(relu, temperature, weights):
    model = plain(relu=relu, temperature=temperature)
    attention, attended = model.attend(VISUAL, AUDIO)
    # Cosines are (1, 0) and (-1, 0): the sound is normalized for them.
    expected = torch.tensor(weights)
    expected = expected / expected.sum(1, keepdim=True)
    torch.testing.assert_close(attention, expected[:, None])
    # What is attended to is not normalized.
    torch.testing.assert_close(
        attended,
        torch.stack([
            torch.stack([2 * expected[0, 0], 3 * expected[0, 1]]),
            torch.stack([-expected[1, 0], expected[1, 1]])
        ]))


def test_layers():
    model = build()
    names = [[type(x).__name__ for x in m]
             for m in (model.audio_fc, model.visual_fc)]
    assert names == [['Linear', 'ReLU', 'Linear'],
                     ['ReLU', 'Linear', 'ReLU', 'Linear']]
    data = batch_of(model, [0, 1, 2])
    outs = model(data['inputs'])
    assert {k: tuple(v.shape) for k, v in outs.items()} == dict(
        visual=(3, 32, 4, 4),
        audio=(3, 32),
        attention=(3, 4, 4),
        attended=(3, 32))
    assert torch.allclose(outs['attention'].sum(dim=(1, 2)), torch.ones(3))


SOUNDS = torch.tensor([[5., 0.], [0., 1.]])


def distances():
    """Of frames to their own and to the other sound, without the model."""
    own, other = [], []
    for i in range(2):
        for j, found in ((i, own), (1 - i, other)):
            # Each sound attends to the frame itself.
            weights = F.cosine_similarity(VISUAL[i, :, 0], SOUNDS[j, :, None],
                                          0).softmax(0)
            found.append((VISUAL[i, :, 0] @ weights - SOUNDS[j]).norm())
    return own, other


def losses_of(model):
    attention, attended = model.attend(VISUAL, SOUNDS)
    return model.loss(
        dict(
            visual=VISUAL,
            audio=SOUNDS,
            attention=attention,
            attended=attended), [])


def test_loss_of_the_original():
    losses = losses_of(plain(relu=False))
    own, other = distances()
    expected = 0.
    for plus, minus in zip(own, other):
        soft = torch.stack([plus, minus]).softmax(0)
        expected += (soft[0]**2 + (soft[1] - 1)**2).item() / 4
    assert losses['loss_pairs'].item() == pytest.approx(expected, rel=1e-4)
    # 3.6 against 1.3, 0.4 against 5.3: one of two is closer.
    assert [x < y for x, y in zip(own, other)] == [False, True]
    assert losses['accuracy'].item() == 0.5
    assert losses['distance'].item() == pytest.approx(
        sum(own).item() / 2, rel=1e-4)


def test_nothing_learned_costs_a_quarter():
    model = plain()
    audio = torch.ones(2, 2)
    attention, attended = model.attend(VISUAL, audio)
    losses = model.loss(
        dict(
            visual=VISUAL,
            audio=audio,
            attention=attention,
            attended=attended), [])
    assert losses['loss_pairs'].item() == pytest.approx(0.25)


def test_contrastive_loss_of_dsol():
    losses = losses_of(plain(relu=False, margin=10.))
    expected = sum(
        x**2 + (10 - y)**2 for x, y in zip(*distances())).item() / 8
    assert losses['loss_pairs'].item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize('kwargs', [{}, dict(relu=False, margin=10.)])
def test_every_parameter_learns(kwargs):
    model = build(**kwargs)
    losses = model(**batch_of(model, [0, 1, 2, 3]), mode='loss')
    model.parse_losses(losses)[0].backward()
    for name, p in model.named_parameters():
        assert p.grad is not None and torch.isfinite(p.grad).all(), name
        if 'fc' in name:
            assert p.grad.abs().max() > 0, name


def test_heatmaps_are_stretched():
    model = build()
    attention = torch.tensor([[[0.2, 0.1], [0.4, 0.3]],
                              [[0.25, 0.25], [0.25, 0.25]]])
    torch.testing.assert_close(
        model.heatmaps(dict(attention=attention)),
        torch.tensor([[[1 / 3, 0.], [1., 2 / 3]], [[0., 0.], [0., 0.]]]))


@pytest.mark.parametrize('image_size', [33, 50])
def test_predict(image_size):
    model = build().eval()
    data = batch_of(model, [0, 1], image_size=image_size)
    with torch.no_grad():
        samples = model(**data, mode='predict')
    for sample in samples:
        assert (sample.heatmap.min(), sample.heatmap.max()) == (0, 1)
        boxes = sample.pred_instances.bboxes
        assert (boxes >= 0).all() and (boxes <= image_size).all()


def test_silent_and_equal_clips_stay_finite():
    model = build()
    data = pseudo_collate([ToyClips()[0]] * 4)
    data['inputs']['audio'] = [torch.zeros(2000)] * 4
    losses = model(**model.data_preprocessor(data), mode='loss')
    assert losses['loss_pairs'].item() == pytest.approx(0.25)
    losses['loss_pairs'].backward()
    for name, p in model.named_parameters():
        assert torch.isfinite(p.grad).all(), name


def test_wrong_arguments():
    for name in ('temperature', 'margin'):
        with pytest.raises(ValueError, match=f'{name} must be above 0'):
            build(**{name: 0.})
    model = build().eval()
    with pytest.raises(ValueError, match='batch_size must be at least 2'):
        model(**batch_of(model, [0]), mode='loss')
