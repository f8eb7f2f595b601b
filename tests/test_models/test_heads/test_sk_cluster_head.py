"""Tests of the cluster head."""
import math

import pytest
import torch
import torch.nn as nn

from avdet_mm.models.heads import SKClusterHead


def make_head(**kwargs):
    return SKClusterHead(
        **dict(
            dict(
                num_clusters=5,
                visual_channels=6,
                audio_channels=3,
                hidden_channels=7), **kwargs))


@pytest.mark.parametrize('pooling', ['mean', 'max', 'attention'])
@pytest.mark.parametrize('norm_cfg', [None, dict(type='BN')])
def test_shapes(pooling, norm_cfg):
    head = make_head(visual_pooling=pooling, norm_cfg=norm_cfg)
    visual, audio = head(torch.randn(4, 6, 3, 2), torch.randn(4, 3))
    assert visual.shape == audio.shape == (4, 5)
    assert visual.dtype == audio.dtype == torch.float32


@pytest.mark.parametrize('pooling', ['mean', 'max'])
def test_pooled_before_the_mlp(pooling):
    head = make_head(visual_pooling=pooling, norm_cfg=None)
    visual_map, vector = torch.randn(4, 6, 3, 2), torch.randn(4, 3)
    pooled = torch.tensor([[
        max(c.flatten().tolist()) if pooling == 'max' else
        sum(c.flatten().tolist()) / 6 for c in frame
    ] for frame in visual_map])
    results = head(visual_map, vector)
    for x, mlp, result in ((pooled, head.visual_mlp, results[0]),
                           (vector, head.audio_mlp, results[1])):
        first, last = mlp[0], mlp[-1]
        hidden = (x @ first.weight.flatten(1).T + first.bias).clamp(min=0)
        expected = hidden @ last.weight.flatten(1).T + last.bias
        torch.testing.assert_close(result, expected)


def test_attention():
    head = make_head(visual_pooling='attention', norm_cfg=None)
    visual_map, vector = torch.randn(4, 6, 3, 2), torch.randn(4, 3)
    mean = make_head(norm_cfg=None)
    mean.load_state_dict(head.state_dict(), strict=False)
    # Before anything is learned.
    torch.testing.assert_close(
        head(visual_map, vector), mean(visual_map, vector))
    head.attention.weight.data[:, 2] = 3.
    weights = (3 * visual_map[:, 2]).exp()
    pooled = (weights[:, None] * visual_map).sum((2, 3)) / weights.sum(
        (1, 2))[:, None]
    torch.testing.assert_close(
        head(visual_map, vector)[0],
        mean(pooled[..., None, None], vector)[0])


def test_dropout_before_the_last_layer():
    head = make_head(dropout=0.3)
    for mlp in (head.visual_mlp, head.audio_mlp):
        assert isinstance(mlp[-2], nn.Dropout) and mlp[-2].p == 0.3
    assert not any(isinstance(m, nn.Dropout) for m in make_head().modules())


def test_loss_of_equal_logits():
    losses = make_head().loss(
        torch.zeros(3, 5), torch.zeros(3, 5), torch.tensor([0, 4, 2]))
    assert {k: v.item() for k, v in losses.items()} == pytest.approx({
        'loss_cluster_visual': math.log(5) / 2,
        'loss_cluster_audio': math.log(5) / 2
    })


def test_sum_is_equation_2():
    visual, audio = torch.randn(4, 5), torch.randn(4, 5)
    labels = [3, 0, -1, 1]
    losses = make_head().loss(visual, audio, torch.tensor(labels))
    # Mean over labeled clips of the mean of both modalities' -log p.
    expected = 0.
    for v, a, y in zip(visual.double(), audio.double(), labels):
        if y >= 0:
            for logits in (v, a):
                p = logits.exp() / logits.exp().sum()
                expected -= 0.5 * math.log(p[y]) / 3
    assert sum(losses.values()).item() == pytest.approx(expected, rel=1e-5)
    one, = make_head().loss(visual, visual, torch.tensor(labels)).keys() - {
        'loss_cluster_audio'
    }
    assert one == 'loss_cluster_visual'


def test_unlabeled_clips_do_not_count():
    logits = torch.randn(4, 5, requires_grad=True)
    labels = torch.tensor([2, -1, 4, -1])
    losses = make_head().loss(logits, logits.detach(), labels)
    part = make_head().loss(logits[[0, 2]], logits[[0, 2]], labels[[0, 2]])
    for name, value in losses.items():
        torch.testing.assert_close(value, part[name])
    losses['loss_cluster_visual'].backward()
    assert (logits.grad[[1, 3]] == 0).all()
    assert (logits.grad[[0, 2]] != 0).all()


def test_batch_without_any_label():
    logits = torch.randn(3, 5, requires_grad=True)
    losses = make_head().loss(logits, logits, torch.full((3, ), -1))
    assert [v.item() for v in losses.values()] == [0, 0]
    sum(losses.values()).backward()
    assert (logits.grad == 0).all()


@pytest.mark.parametrize('kwargs, message', [
    (dict(num_clusters=1), 'num_clusters'),
    (dict(visual_pooling='avg'), 'visual_pooling'),
])
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        make_head(**kwargs)
