"""Tests of the contrastive loss."""
import math

import pytest
import torch

from avdet_mm.models.losses import SymmetricInfoNCE


@pytest.mark.parametrize('size', [1, 2, 7])
@pytest.mark.parametrize('value', [0., -3.5, 80.])
def test_equal_scores(size, value):
    loss = SymmetricInfoNCE()(torch.full((size, size), value))
    assert loss.shape == ()
    assert loss.item() == pytest.approx(math.log(size), abs=1e-5)


@pytest.mark.parametrize('size', [2, 5])
def test_diagonal_scores(size):
    loss = SymmetricInfoNCE()(3 * torch.eye(size).double())
    assert loss.item() == pytest.approx(
        math.log(math.exp(3) + size - 1) - 3, rel=1e-9)


def test_clear_cut_scores():
    assert SymmetricInfoNCE()(100 * torch.eye(4)).item() < 1e-6
    assert SymmetricInfoNCE()(-100 * torch.eye(4)).item() == pytest.approx(
        100 + math.log(3))


def test_both_directions():
    # Frame 0 scores 5 with both sounds; frame 1 scores 0.
    scores = torch.tensor([[5., 5.], [0., 0.]]).double()
    frame_to_sound = math.log(2)
    sound_to_frame = 0.5 * (math.log(1 + math.exp(-5)) +
                            math.log(1 + math.exp(5)))
    expected = (frame_to_sound + sound_to_frame) / 2
    loss = SymmetricInfoNCE()
    assert loss(scores).item() == pytest.approx(expected, rel=1e-9)
    assert loss(scores.T).item() == pytest.approx(expected, rel=1e-9)


def test_gradient():
    scores = torch.randn(4, 4).double().requires_grad_()
    SymmetricInfoNCE()(scores).backward()
    s = scores.detach()
    rows = s.exp() / s.exp().sum(1, keepdim=True)
    columns = s.exp() / s.exp().sum(0, keepdim=True)
    torch.testing.assert_close(scores.grad,
                               (rows + columns - 2 * torch.eye(4)) / 8)


@pytest.mark.parametrize('shape', [(3, 4), (3, ), (2, 2, 2)])
def test_scores_must_be_square(shape):
    with pytest.raises(ValueError, match='square'):
        SymmetricInfoNCE()(torch.zeros(shape))


def losses_of_pairs(scores):
    target = torch.arange(len(scores))
    return torch.stack([
        0.5 * (
            torch.nn.functional.cross_entropy(scores[i], target[i]) +
            torch.nn.functional.cross_entropy(scores[:, i], target[i]))
        for i in range(len(scores))
    ])


@pytest.mark.parametrize('share, count', [(1., 5), (0.99, 5), (0.5, 3),
                                          (0.4, 2), (0.01, 1)])
def test_most_confident_pairs(share, count):
    torch.manual_seed(0)
    scores = torch.randn(5, 5).double()
    expected = losses_of_pairs(scores).sort().values[:count].mean()
    torch.testing.assert_close(SymmetricInfoNCE(share)(scores), expected)


def test_pairs_left_out_are_negatives_still():
    scores = torch.tensor([[4., 0.], [3., -1.]]).double().requires_grad_()
    SymmetricInfoNCE(0.5)(scores).backward()
    # Of the first pair alone, whose row and column it is.
    assert scores.grad[1, 1] == 0
    assert scores.grad[1, 0] > 0 and scores.grad[0, 1] > 0


@pytest.mark.parametrize('share', [0., -1., 1.5])
def test_wrong_share(share):
    with pytest.raises(ValueError, match=r'share must lie in \(0, 1\]'):
        SymmetricInfoNCE(share)
