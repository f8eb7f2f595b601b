"""Tests of Objects that Sound and of the pairs that baselines compare."""
import math

import pytest
import torch
from mmengine.dataset import pseudo_collate

from avdet_mm.models.baselines import ObjectsThatSound
from avdet_mm.models.baselines.pairs import contrastive_loss, other_clips
from avdet_mm.registry import MODELS
from tests.toy import ToyClips, model_cfg

PARTS = ('data_preprocessor', 'visual_backbone', 'audio_backbone')


def build(**kwargs):
    torch.manual_seed(0)
    toy = model_cfg()
    return MODELS.build(
        dict(
            type='avdet_mm.ObjectsThatSound',
            visual_channels=32,
            audio_channels=32,
            embed_channels=8,
            **{k: toy[k] for k in PARTS},
            **kwargs))


def batch_of(model, indices, image_size=32):
    dataset = ToyClips(image_size=image_size)
    return model.data_preprocessor(
        pseudo_collate([dataset[i] for i in indices]))


def test_other_clips():
    x = torch.arange(4.)[:, None].expand(4, 2)
    assert other_clips(x)[:, 0].tolist() == [3, 0, 1, 2]
    assert other_clips(x, 3)[:, 1].tolist() == [1, 2, 3, 0]
    with pytest.raises(ValueError, match='batch_size must be at least 5'):
        other_clips(x, 4)


def test_contrastive_loss():
    matching = torch.tensor([1., 4.], requires_grad=True)
    other = torch.tensor([3., 6.], requires_grad=True)
    losses = contrastive_loss(matching, other, margin=5.)
    # 0.5 * (1 + 16 + (5 - 3)^2 + 0) / 4
    assert losses['loss_pairs'].item() == pytest.approx(21 / 8)
    assert losses['accuracy'].item() == 1
    assert losses['distance'].item() == 2.5
    losses['loss_pairs'].backward()
    assert matching.grad.tolist() == [0.25, 1.]
    assert other.grad.tolist() == [-0.5, 0.]
    assert contrastive_loss(other, matching, 5.)['accuracy'].item() == 0
    swapped = contrastive_loss(matching, other.flip(0), 5.)
    assert swapped['accuracy'].item() == 0.5


def test_embeddings():
    model = build()
    inputs = batch_of(model, [0, 1, 2], image_size=48)['inputs']
    outs = model(inputs)
    assert {k: tuple(v.shape) for k, v in outs.items()} == dict(
        visual=(3, 8, 6, 6), audio=(3, 8))
    wide = torch.randn(2, 1, 64, 48)
    model.eval()
    visual, audio = model.extract_feat(inputs['frame'][:2], wide)
    feature_map, = model.audio_backbone(wide)
    assert feature_map.shape == (2, 32, 4, 3)
    # The maximum over locations, where other localizers average.
    assert torch.equal(audio, feature_map.flatten(2).max(2).values)
    assert visual.shape == (2, 32, 6, 6)
    # Nothing is normalized: twice the output layer, twice the embedding.
    outs = model.embed(visual, audio)
    for layer in (model.visual_embedding[-1], model.audio_embedding[-1]):
        layer.weight.data *= 2
        layer.bias.data *= 2
    for name, value in model.embed(visual, audio).items():
        torch.testing.assert_close(value, 2 * outs[name])


# Frames of two locations. Sound 0 says what the second location of frame 0
# shows, sound 1 the first of frame 1.
VISUAL = torch.tensor([[[0., 2.], [1., 1.]], [[3., 0.], [0., -1.]]])[:, :,
                                                                     None]
AUDIO = torch.tensor([[1., 0.], [0., 1.]])


def test_loss_and_map():
    model = build()
    model.weight.data.fill_(2.)
    model.bias.data.fill_(-1.)
    outs = dict(visual=VISUAL, audio=AUDIO)
    # <v, a> of matching pairs: (0, 2), (0, -1); of others: (1, 1), (3, 0).
    logits = torch.tensor([[[-1., 3.]], [[-1., -3.]]])
    assert torch.equal(model.logits(VISUAL, AUDIO), logits)
    torch.testing.assert_close(model.heatmaps(outs), 1 / (1 + (-logits).exp()))
    losses = model.loss(outs, [])
    assert set(losses) == {'loss_correspondence', 'accuracy'}
    # Maxima: 3 and -1 of pairs that match, 1 and 5 of those that do not.
    expected = -(
        math.log(1 / (1 + math.exp(-3))) + math.log(1 / (1 + math.e)) +
        math.log(1 - 1 / (1 + math.exp(-1))) +
        math.log(1 - 1 / (1 + math.exp(-5)))) / 4
    assert losses['loss_correspondence'].item() == pytest.approx(
        expected, rel=1e-5)
    assert losses['accuracy'].item() == 0.5


def test_nothing_learned_costs_log_2():
    model = build()
    losses = model.loss(
        dict(visual=torch.zeros(4, 8, 3, 3), audio=torch.randn(4, 8)), [])
    assert losses['loss_correspondence'].item() == pytest.approx(math.log(2))


def test_several_negatives_weigh_as_much_as_the_pair():
    torch.manual_seed(1)
    visual, audio = torch.randn(4, 8, 3, 3), torch.randn(4, 8)
    model = build(num_negatives=3)
    scores = torch.stack([
        model.logits(v.expand(4, -1, -1, -1), audio).amax(dim=(1, 2))
        for v in visual
    ]).sigmoid()
    match = torch.eye(4, dtype=torch.bool)
    expected = -0.5 * (
        scores[match].log().mean() + (1 - scores[~match]).log().mean())
    torch.testing.assert_close(
        model.correspondence_loss(visual, audio)['loss_correspondence'],
        expected)


def test_every_parameter_learns():
    model = build()
    losses = model(**batch_of(model, [0, 1, 2, 3]), mode='loss')
    model.parse_losses(losses)[0].backward()
    for name, p in model.named_parameters():
        assert p.grad is not None and torch.isfinite(p.grad).all(), name
        if 'conv' not in name:
            assert p.grad.abs().max() > 0, name


def test_it_learns_pairs():
    """A few steps on four clips tell the pairs apart."""
    model = build()
    data = batch_of(model, [0, 4, 8, 11])
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(40):
        losses = model(**data, mode='loss')
        optimizer.zero_grad()
        losses['loss_correspondence'].backward()
        optimizer.step()
    assert losses['loss_correspondence'] < 0.2
    assert losses['accuracy'] == 1


@pytest.mark.parametrize('image_size', [33, 50])
def test_predict(image_size):
    model = build().eval()
    data = batch_of(model, [0, 1], image_size=image_size)
    with torch.no_grad():
        samples = model(**data, mode='predict')
    for sample in samples:
        assert 0 < sample.heatmap.min() <= sample.heatmap.max() < 1
        boxes = sample.pred_instances.bboxes
        assert (boxes >= 0).all() and (boxes <= image_size).all()
        assert sample.pred_instances.labels.tolist() == [0] * len(boxes)
        assert 'visual_logits' not in sample


def test_wrong_arguments():
    with pytest.raises(ValueError, match='num_negatives'):
        build(num_negatives=0)
    model = build(num_negatives=2)
    with pytest.raises(ValueError, match='batch_size must be at least 3'):
        model(**batch_of(model, [0, 1]), mode='loss')
    with pytest.raises(ValueError, match='mode'):
        model(**batch_of(model, [0, 1]), mode='train')
    assert isinstance(model, ObjectsThatSound)
