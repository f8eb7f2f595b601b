"""Tests of the localization head."""
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.dist import all_reduce, get_rank

from avdet_mm.models.heads import ContrastiveLocalizationHead


def unit(*shape, seed=0):
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return F.normalize(x, dim=1)


def make_head(**kwargs):
    return ContrastiveLocalizationHead(
        **dict(
            dict(
                visual_channels=6,
                audio_channels=5,
                hidden_channels=7,
                embed_channels=4), **kwargs))


def loop_scores(visual, audio, pooling):
    """Scores pair by pair, location by location, in float64."""
    visual = visual.double().flatten(2).numpy()
    audio = audio.double().numpy()
    scores = np.zeros((len(visual), len(audio)))
    for i in range(len(visual)):
        for j in range(len(audio)):
            cosines = [
                float(sum(visual[i, c, u] * audio[j, c]
                          for c in range(audio.shape[1])))
                for u in range(visual.shape[2])
            ]
            if pooling == 'max':
                scores[i, j] = max(cosines)
            elif pooling == 'mean':
                scores[i, j] = sum(cosines) / len(cosines)
            else:
                k = max(1, round(pooling * len(cosines)))
                scores[i, j] = sum(sorted(cosines)[-k:]) / k
    return scores


@pytest.mark.parametrize('norm_cfg', [None, dict(type='BN')])
def test_embeddings_have_unit_norm(norm_cfg):
    head = make_head(norm_cfg=norm_cfg)
    visual, audio = head(torch.randn(3, 6, 5, 2), torch.randn(3, 5))
    assert visual.shape == (3, 4, 5, 2)
    assert audio.shape == (3, 4)
    torch.testing.assert_close(visual.norm(dim=1), torch.ones(3, 5, 2))
    torch.testing.assert_close(audio.norm(dim=1), torch.ones(3))


def test_channels_last_is_kept():
    head = make_head()
    visual_map, vector = torch.randn(3, 6, 5, 2), torch.randn(3, 5)
    visual, _ = head(visual_map, vector)
    assert visual.is_contiguous(memory_format=torch.channels_last)
    assert not visual.is_contiguous()
    again, _ = head(
        visual_map.contiguous(memory_format=torch.channels_last), vector)
    assert torch.equal(again, visual)


def test_default_widths():
    head = ContrastiveLocalizationHead()
    with torch.no_grad():
        visual, audio = head.eval()(
            torch.zeros(2, 512, 3, 3), torch.zeros(2, 512))
    assert visual.shape == (2, 1024, 3, 3)
    assert audio.shape == (2, 1024)
    assert head.pooling == 'max'


def test_locations_are_embedded_alone():
    head = make_head(norm_cfg=None)
    visual_map, vector = torch.randn(2, 6, 4, 3), torch.randn(2, 5)
    whole, audio = head(visual_map, vector)
    for y in range(4):
        for x in range(3):
            cell, _ = head(visual_map[:, :, y:y + 1, x:x + 1], vector)
            torch.testing.assert_close(cell[..., 0, 0], whole[..., y, x])
    # Two layers with a ReLU between them, then the L2 norm.
    first, _, last = head.audio_mlp
    w1, w2 = first.weight.flatten(1), last.weight.flatten(1)
    expected = (vector @ w1.T + first.bias).clamp(min=0) @ w2.T + last.bias
    expected = expected / expected.square().sum(1, keepdim=True).sqrt()
    torch.testing.assert_close(audio, expected)


def test_mlps_are_not_shared():
    head = make_head(visual_channels=5)
    names = {n for n, _ in head.named_parameters()}
    assert {n.split('.')[0] for n in names} == {
        'visual_mlp', 'audio_mlp', 'log_scale'
    }
    assert not torch.equal(head.visual_mlp[0].weight, head.audio_mlp[0].weight)


def test_heatmaps_are_cosines_of_matched_pairs():
    visual, audio = unit(3, 4, 5, 2), unit(3, 4, seed=1)
    heatmaps = ContrastiveLocalizationHead.heatmaps(visual, audio)
    assert heatmaps.shape == (3, 5, 2)
    for b in range(3):
        for y in range(5):
            for x in range(2):
                assert heatmaps[b, y, x].item() == pytest.approx(
                    float(visual[b, :, y, x].double() @ audio[b].double()),
                    abs=1e-6)


@pytest.mark.parametrize('pooling', ['max', 'mean', 0.5, 0.3, 0.01])
def test_scores_against_loops(pooling):
    visual, audio = unit(4, 6, 3, 5), unit(7, 6, seed=1)
    scores = make_head(pooling=pooling).scores(visual, audio)
    assert scores.shape == (4, 7)
    np.testing.assert_allclose(
        scores, loop_scores(visual, audio, pooling), atol=1e-6)


def test_mean_is_not_normalized_again():
    # Opposite locations: the mean vector is 0, so is every score.
    visual = torch.tensor([[1., -1.], [0., 0.]]).view(1, 2, 1, 2)
    audio = torch.tensor([[1., 0.]])
    assert make_head(pooling='mean').scores(visual, audio).item() == 0


def test_maximum_is_taken_for_every_pair():
    # Frame 0 shows both sound sources, frame 1 the second alone.
    a, b = torch.eye(2)
    visual = torch.stack([torch.stack([a, b], 1), torch.stack([b, b], 1)])
    scores = make_head().scores(visual.view(2, 2, 1, 2), torch.eye(2))
    # The maximum of frame 0's own map lies at the first location, where
    # sound 1 scores 0; its score there must not be used.
    assert scores.tolist() == [[1, 1], [0, 1]]


def test_smallest_share_is_the_maximum():
    visual, audio = unit(3, 4, 5, 5), unit(3, 4, seed=1)
    torch.testing.assert_close(
        make_head(pooling=0.001).scores(visual, audio),
        make_head(pooling='max').scores(visual, audio))


@pytest.mark.parametrize('pooling', ['max', 'mean', 0.25])
@pytest.mark.parametrize('batch_size', [1, 4])
def test_loss_at_chance(pooling, batch_size):
    head = make_head(pooling=pooling)
    visual = torch.zeros(batch_size, 4, 2, 2)
    visual[:, 0] = 1
    audio = torch.zeros(batch_size, 4)
    audio[:, 1] = 1  # every score is 0
    losses = head.loss(visual, audio)
    assert set(losses) == {'loss_loc', 'loc_chance', 'retrieval', 'scale'}
    assert losses['loss_loc'].item() == pytest.approx(math.log(batch_size))
    assert losses['loc_chance'].item() == pytest.approx(math.log(batch_size))


def test_loss_of_a_perfect_batch():
    head = make_head(embed_channels=5, temperature=0.5)
    visual = torch.zeros(5, 5, 2, 3)
    visual[:, :, 1, 2] = torch.eye(5)
    visual[:, :, 0, 0] = -torch.eye(5)
    losses = head.loss(visual, torch.eye(5))
    # Scores: 2 on the diagonal; elsewhere the best of several zeros.
    assert losses['loss_loc'].item() == pytest.approx(
        math.log(math.exp(2) + 4) - 2, rel=1e-5)
    assert losses['retrieval'] == 1
    assert losses['scale'].item() == pytest.approx(2)


def test_retrieval_counts_frames():
    visual = torch.eye(4)[[0, 0, 2, 3]].view(4, 4, 1, 1)
    # Frame 1 scores best with sound 0.
    assert make_head().loss(visual, torch.eye(4))['retrieval'] == 0.75


def test_only_losses_are_summed_by_mmengine():
    losses = make_head().loss(unit(3, 4, 2, 2), unit(3, 4, seed=1))
    assert [k for k in losses if 'loss' in k] == ['loss_loc']
    for name in ('loc_chance', 'retrieval', 'scale'):
        assert not losses[name].requires_grad


def test_temperature_is_learned_and_clamped():
    head = make_head(temperature=0.05)
    assert head.scale.item() == pytest.approx(20)
    assert head.log_scale.shape == ()
    # Two frames, scores s * eye(2): loss = log(1 + exp(-s)).
    head.log_scale.data.fill_(math.log(1.5))
    losses = head.loss(torch.eye(2).view(2, 2, 1, 1), torch.eye(2))
    losses['loss_loc'].backward()
    expected = -1.5 / (1 + math.exp(1.5))
    assert head.log_scale.grad.item() == pytest.approx(expected, rel=1e-5)
    head.log_scale.data.fill_(10.)
    assert head.scale == 100
    head.log_scale.data.fill_(math.log(99.))
    assert head.scale.item() == pytest.approx(99)


@pytest.mark.parametrize('pooling', ['avg', 0., 1., 1, -0.1, 1.5, None, True])
def test_bad_pooling(pooling):
    with pytest.raises(ValueError, match='pooling'):
        make_head(pooling=pooling)
    head = make_head(pooling='mean')
    with pytest.raises(ValueError, match='pooling'):
        head.set_pooling(pooling)
    assert head.pooling == 'mean'


@pytest.mark.parametrize('temperature', [0, -1., float('nan')])
def test_bad_temperature(temperature):
    with pytest.raises(ValueError, match='temperature'):
        make_head(temperature=temperature)


def loss_and_gradients(pooling, start, stop):
    """On a part of a batch of 6; gradients averaged over ranks, as by DDP."""
    torch.manual_seed(0)
    head = make_head(pooling=pooling, norm_cfg=None, temperature=0.3).double()
    maps = torch.randn(6, 6, 3, 3).double()
    vectors = torch.randn(6, 5).double()
    # The head normalizes in single precision; here precision matters.
    visual = F.normalize(head.visual_mlp(maps[start:stop]), dim=1)
    audio = F.normalize(
        head.audio_mlp(vectors[start:stop, :, None, None]).flatten(1), dim=1)
    losses = head.loss(visual, audio)
    losses['loss_loc'].backward()
    gradients = {}
    for name, p in head.named_parameters():
        all_reduce(p.grad, 'mean')
        gradients[name] = p.grad
    return {k: v.item() for k, v in losses.items()}, gradients


def loss_of_half(pooling):
    rank = torch.distributed.get_rank()
    return loss_and_gradients(pooling, 3 * rank, 3 * rank + 3)


@pytest.mark.parametrize('pooling', ['max', 'mean', 0.4])
def test_two_processes_equal_one(gloo, pooling):
    losses, gradients = loss_and_gradients(pooling, 0, 6)
    assert losses['loc_chance'] == pytest.approx(math.log(6))
    assert min(g.abs().max() for g in gradients.values()) > 1e-6
    for part, part_gradients in gloo(loss_of_half, pooling):
        assert part == pytest.approx(losses, rel=1e-9)
        assert part_gradients.keys() == gradients.keys()
        for name, g in part_gradients.items():
            torch.testing.assert_close(g, gradients[name], msg=name)


def test_scores_stay_in_single_precision():
    # At a scale of 100, the rounding of bfloat16 would be 0.4 in the logits.
    head = make_head(embed_channels=64, temperature=0.01)
    for pooling in ('max', 'mean', 0.4):
        head.set_pooling(pooling)
        maps, vectors = torch.randn(4, 6, 3, 3), torch.randn(4, 5)
        with torch.autocast('cpu', torch.bfloat16):
            hidden = head.visual_mlp(maps)
            visual, audio = head(maps, vectors)
            heatmaps = head.heatmaps(visual, audio)
            scores = head.scores(visual, audio)
            loss = head.loss(visual, audio)['loss_loc']
        assert hidden.dtype == torch.bfloat16  # autocast was on
        for x in (visual, audio, heatmaps, scores, loss):
            assert x.dtype == torch.float32
        assert torch.equal(heatmaps, head.heatmaps(visual, audio))
        assert torch.equal(scores, head.scores(visual, audio))
        torch.testing.assert_close(
            loss,
            head.loss(visual, audio)['loss_loc'])
        loss.backward()


def part_of_unequal_vectors(pooling, start, stop):
    """Loss and gradients of vectors whose lengths span four decades."""
    rng = torch.Generator().manual_seed(0)
    sizes = torch.logspace(-2, 2, 6).double()
    visual = torch.randn(6, 4, 3, 3, generator=rng).double()
    audio = torch.randn(6, 4, generator=rng).double()
    visual = (visual * sizes[:, None, None, None])[start:stop]
    audio = (audio * sizes.flip(0)[:, None])[start:stop]
    head = make_head(pooling=pooling, temperature=2.)
    loss = head.loss(visual.requires_grad_(),
                     audio.requires_grad_())['loss_loc']
    loss.backward()
    return loss.item(), visual.grad, audio.grad, head.log_scale.grad


def half_of_unequal_vectors(pooling):
    rank = torch.distributed.get_rank()
    return part_of_unequal_vectors(pooling, 3 * rank, 3 * rank + 3)


@pytest.mark.parametrize('pooling', ['max', 0.4])
def test_two_processes_with_unequal_vectors(gloo, pooling):
    loss, visual, audio, scale = part_of_unequal_vectors(pooling, 0, 6)
    parts = gloo(half_of_unequal_vectors, pooling)
    for part in parts:
        assert part[0] == pytest.approx(loss, rel=1e-9)
    # Each rank's gradient is that of the loss times the number of ranks,
    # which the averaging of DistributedDataParallel takes out.
    for i, whole in ((1, visual), (2, audio)):
        torch.testing.assert_close(torch.cat([p[i] for p in parts]) / 2, whole)
    torch.testing.assert_close(sum(p[3] for p in parts) / 2, scale)


def loss_without_same_cluster(start=0, stop=6):
    head = make_head(same_cluster_negatives=False, norm_cfg=None).double()
    visual = unit(6, 4, 2, 3, seed=1).double()[start:stop]
    audio = unit(6, 4, seed=2).double()[start:stop].requires_grad_()
    labels = torch.tensor([2, 0, 2, -1, -1, 2])[start:stop]
    loss = head.loss(visual, audio, labels)['loss_loc']
    loss.backward()
    return loss.item(), audio.grad


def half_without_same_cluster():
    rank = get_rank()
    return loss_without_same_cluster(3 * rank, 3 * rank + 3)


def test_pairs_of_one_cluster_are_no_negatives(gloo):
    visual, audio = unit(6, 4, 2, 3, seed=1), unit(6, 4, seed=2)
    scores = loop_scores(visual, audio, 'max') / 0.07
    # Clips 0, 2 and 5 share a cluster; 3 and 4 have none.
    terms = []
    for i in range(6):
        others = [
            j for j in range(6)
            if j == i or not {i, j} <= {0, 2, 5}
        ]
        for row in (scores[i], scores[:, i]):
            terms.append(
                math.log(sum(math.exp(row[j]) for j in others)) - row[i])
    loss, gradient = loss_without_same_cluster()
    assert loss == pytest.approx(sum(terms) / 12, rel=1e-6)
    assert gradient.isfinite().all()
    halves = gloo(half_without_same_cluster)
    assert halves[0][0] == pytest.approx(loss, rel=1e-9)
    torch.testing.assert_close(
        torch.cat([half[1] for half in halves]) / 2, gradient)


def test_all_pairs_of_one_cluster_leave_no_contrast():
    head = make_head(same_cluster_negatives=False)
    loss = head.loss(unit(3, 4, 2, 2), unit(3, 4), torch.zeros(3).long())
    assert loss['loss_loc'] == 0


def test_all_pairs_are_negatives_by_default():
    head, labels = make_head(), torch.zeros(3).long()
    args = unit(3, 4, 2, 2), unit(3, 4)
    assert (head.loss(*args, labels)['loss_loc'] == head.loss(
        *args)['loss_loc'])
