"""Tests of DSOL's two stages."""
import math

import pytest
import torch
from mmengine.registry import init_default_scope
from mmengine.runner.checkpoint import load_state_dict

from avdet_mm.models.baselines import DSOL, DSOLStageTwo, ObjectsThatSound
from avdet_mm.registry import MODELS
from avdet_mm.structures import AudioVisualDataSample

K = 3
LOG2 = math.log(2)


def build(name='DSOL', **kwargs):
    """A model of a few thousand parameters."""
    init_default_scope('avdet_mm')
    backbone = dict(type='avdet_mm.AVOLNet', base_channels=4)
    return MODELS.build(
        dict(
            dict(
                type=f'avdet_mm.{name}',
                num_clusters=K,
                visual_backbone=dict(pooled_stages=(0, 1), **backbone),
                audio_backbone=dict(in_channels=1, **backbone),
                visual_channels=32,
                audio_channels=32,
                embed_channels=8), **kwargs))


def inputs(size=4):
    generator = torch.Generator().manual_seed(0)
    return dict(
        frame=torch.randn(size, 3, 32, 32, generator=generator),
        audio=torch.randn(size, 1, 16, 20, generator=generator))


def samples(*indices):
    return [AudioVisualDataSample(metainfo=dict(sample_idx=i))
            for i in indices]


def fixed_map(monkeypatch, values):
    """Let location maps be given."""
    monkeypatch.setattr(ObjectsThatSound, 'heatmaps',
                        lambda self, outs: values)


def fixed_features(monkeypatch, visual, audio):
    """Let the features of the backbones be given."""
    monkeypatch.setattr(ObjectsThatSound, 'extract_feat',
                        lambda self, frame, sound: (visual, audio))


def test_localization_is_that_of_objects_that_sound():
    model = build()
    outs = model(**dict(inputs=inputs()))
    assert outs['features'].shape == (4, 32, 4, 4)
    torch.testing.assert_close(
        model.loss(outs, samples(0, 1, 2, 3)),
        model.correspondence_loss(outs['visual'], outs['audio']))


def test_logits_of_pooled_features(monkeypatch):
    model = build(visual_channels=2, audio_channels=2)
    visual = torch.tensor([[[[1., 3.]], [[0., 2.]]]])
    audio = torch.tensor([[5., 7.]])
    fixed_features(monkeypatch, visual, audio)
    with torch.no_grad():
        for layer in (model.visual_classifier, model.audio_classifier):
            layer.weight.copy_(torch.tensor([[1., 0.], [0., 1.], [1., 1.]]))
            layer.bias.copy_(torch.tensor([0., 0., -9.]))
    outs = model.encode(None, None)
    assert outs['visual_logits'].tolist() == [[2, 1, -6]]
    assert outs['audio_logits'].tolist() == [[5, 7, 3]]
    labels, scores = model.classify(outs)
    assert labels.tolist() == [1]
    expected = 1 / (1 + math.exp(-2) + math.exp(-4))
    assert scores.item() == pytest.approx(expected)


def test_object_features_by_hand(monkeypatch):
    model = build(mask_threshold=0.4)
    location = torch.zeros(3, 4, 5)
    location[0, 1, 1] = 0.5
    location[0, 3, 4] = 0.4  # not above
    location[1, 0, 0] = 0.9  # at the border
    fixed_map(monkeypatch, location)
    # One channel says where: 2^(5 row + column), another is 1.
    where = 2.**torch.arange(20).view(4, 5)
    features = torch.stack([where, torch.ones(4, 5)]).expand(3, 2, 4, 5)
    found = model.object_features(dict(features=features)) * 20
    cells = [(1, 1), (0, 1), (2, 1), (1, 0), (1, 2)]
    corner = [(0, 0), (0, 1), (1, 0)]
    assert found.tolist() == [
        [sum(2**(5 * y + x) for y, x in cells), 5],
        [sum(2**(5 * y + x) for y, x in corner), 3],
        [0, 0],
    ]


def test_cross_entropy_of_both_classifiers():
    model = build()
    model.classifying = True
    outs = dict(
        visual_logits=torch.tensor([[0., 0., 0.], [0., LOG2, 0.]]),
        audio_logits=torch.tensor([[LOG2, 0., 0.], [0., 0., 0.]]))
    with pytest.raises(RuntimeError, match='DSOLClusterHook'):
        model.loss(outs, samples(0, 2))
    model.self_labels = torch.tensor([0, 0, 1])
    losses = model.loss(outs, samples(0, 2))
    assert set(losses) == {'loss_visual', 'loss_audio'}
    log3, half = math.log(3), math.log(4 / 2)
    assert losses['loss_visual'].item() == pytest.approx((log3 + half) / 2)
    assert losses['loss_audio'].item() == pytest.approx((half + log3) / 2)
    # By sample_idx, whatever the place in the batch.
    other = model.loss(outs, samples(1, 0))
    assert other['loss_visual'].item() == pytest.approx(
        (log3 + math.log(4)) / 2)


def stage_two(**kwargs):
    """One clip of 1 x 2 locations and two channels; K entries."""
    model = build(
        'DSOLStageTwo', visual_channels=2, audio_channels=2, **kwargs)
    model.dictionary.copy_(torch.tensor([[1., 0.], [0., 1.], [1., 1.]]))
    with torch.no_grad():
        model.audio_classifier.weight.zero_()
        model.audio_classifier.bias.copy_(torch.tensor([LOG2, 0., 0.]))
    return model


VISUAL = torch.tensor([[[[1., 3.]], [[0., 2.]]]])
LOCATION = torch.tensor([[[0.5, 0.25]]])


class FixedBackbone(torch.nn.Module):

    def forward(self, audio):
        return [torch.ones(1, 2, 2, 2)]


def prepared(monkeypatch, **kwargs):
    model = stage_two(scale=2., **kwargs)
    with torch.no_grad():
        model.offset.fill_(1.)
    model.fixed_audio_backbone = FixedBackbone()
    fixed_map(monkeypatch, LOCATION)
    fixed_features(monkeypatch, VISUAL, torch.ones(1, 2))
    return model, model.encode(torch.zeros(1), None)


# 2 <V_u, D_k> + 1 of three entries at two locations.
LIKENESS = torch.tensor([[[3., 7.], [1., 5.], [3., 11.]]])


def test_kl_matching_by_hand(monkeypatch):
    model, outs = prepared(monkeypatch, temperature=0.5)
    sounding = LIKENESS * LOCATION[:, 0][:, None]
    torch.testing.assert_close(
        outs['visual_logits'],
        torch.tensor([[(1.5 + 1.75) / 2, (0.5 + 1.25) / 2,
                       (1.5 + 2.75) / 2]]))
    torch.testing.assert_close(outs['class_heatmaps'][:, :, 0],
                               (3 * sounding).softmax(dim=1))
    assert outs['class_heatmaps'].shape == (1, K, 1, 2)
    # Shares 4 : 1 : 1, the exponents doubled by the temperature.
    heard = torch.tensor([4., 1., 1.]) / 6
    seen = outs['visual_logits'].softmax(dim=1)[0]
    expected = (heard * (heard / seen).log()).sum() / K
    monkeypatch.setattr(
        model, 'correspondence_loss', lambda visual, audio: dict(
            loss_correspondence=torch.tensor(0.8)))
    losses = model.loss(outs, samples(0))
    torch.testing.assert_close(losses['loss_matching'], expected)
    assert losses['loss_correspondence'].item() == pytest.approx(0.4)


def test_bce_matching_by_hand(monkeypatch):
    model, outs = prepared(monkeypatch, matching='bce', loc_weight=1.)
    seen = LIKENESS.sigmoid()
    torch.testing.assert_close(outs['class_heatmaps'][:, :, 0],
                               seen * LOCATION[:, 0][:, None])
    pooled = seen.mean(dim=2)[0]
    torch.testing.assert_close(outs['visual_logits'][0].sigmoid(), pooled)
    heard = torch.tensor([0.5, 0.25, 0.25])
    expected = -(heard * pooled.log() +
                 (1 - heard) * (1 - pooled).log()).mean()
    monkeypatch.setattr(
        model, 'correspondence_loss', lambda visual, audio: dict(
            loss_correspondence=torch.tensor(0.8)))
    losses = model.loss(outs, samples(0))
    torch.testing.assert_close(losses['loss_matching'], expected)
    assert losses['loss_correspondence'].item() == pytest.approx(0.8)


def test_predictions():
    model = build('DSOLStageTwo').eval()
    clips = samples(0, 1)
    for sample in clips:
        sample.set_metainfo(
            dict(ori_shape=(32, 32), homography_matrix=torch.eye(3).numpy()))
    found = model(inputs(2), clips, mode='predict')
    outs = model(inputs(2))
    for i, sample in enumerate(found):
        torch.testing.assert_close(sample.heatmap, model.heatmaps(outs)[i])
        assert sample.class_heatmaps.shape == (K, 4, 4)
        assert sample.visual_logits.shape == (K, )
        assert sample.audio_logits.shape == (K, )
        assert (sample.pred_instances.labels ==
                sample.audio_logits.argmax()).all()


@pytest.mark.parametrize('load', [
    load_state_dict,
    lambda model, state: model.load_state_dict(state, strict=False)
])
def test_stage_two_starts_from_stage_one(load):
    first, second = build(), build('DSOLStageTwo')
    first.dictionary.normal_()
    first.eval(), second.eval()
    load(second, first.state_dict())
    for one, two in ((first.audio_backbone, second.audio_backbone),
                     (first.audio_backbone, second.fixed_audio_backbone),
                     (first.audio_classifier, second.audio_classifier)):
        for name, value in one.state_dict().items():
            assert torch.equal(two.state_dict()[name], value), name
    assert torch.equal(second.dictionary, first.dictionary)
    torch.testing.assert_close(
        second(inputs())['audio_logits'], first(inputs())['audio_logits'])
    # A checkpoint of stage 2 has its own.
    with torch.no_grad():
        for value in second.audio_backbone.parameters():
            value.add_(1)
    third = build('DSOLStageTwo')
    load(third, second.state_dict())
    for name, value in second.state_dict().items():
        assert torch.equal(third.state_dict()[name], value), name


def test_what_is_heard_is_fixed():
    model = build('DSOLStageTwo')
    model.dictionary.normal_()
    model.train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    optimizer = torch.optim.SGD(
        [p for p in model.parameters() if p.requires_grad], lr=1.)
    outs = model(inputs())
    sum(v for k, v in model.loss(outs, None).items()
        if k.startswith('loss')).backward()
    # Every weight that is trained has a gradient.
    missing = [k for k, v in model.named_parameters()
               if v.requires_grad and v.grad is None]
    assert missing == []
    optimizer.step()
    for name, value in model.state_dict().items():
        fixed = name.startswith(
            ('fixed', 'audio_classifier', 'dictionary', 'data_pre'))
        assert torch.equal(value, before[name]) == fixed, name


@pytest.mark.parametrize('kwargs, message', [
    (dict(num_clusters=1), 'at least 2'),
    (dict(mask_threshold=1.), 'mask_threshold'),
])
def test_errors(kwargs, message):
    with pytest.raises(ValueError, match=message):
        build(**kwargs)


@pytest.mark.parametrize('kwargs, message', [
    (dict(matching='l2'), 'matching'),
    (dict(temperature=0.), 'temperature'),
    (dict(loc_weight=-1.), 'loc_weight'),
])
def test_errors_of_stage_two(kwargs, message):
    with pytest.raises(ValueError, match=message):
        build('DSOLStageTwo', **kwargs)
    assert issubclass(DSOLStageTwo, DSOL)
