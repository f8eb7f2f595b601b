"""Tests of visual self-supervision."""
import math

import pytest
import torch
import torch.nn.functional as F
from mmengine.dist import all_reduce

from avdet_mm.models.heads import VisualContrastHead


def make_head(**kwargs):
    torch.manual_seed(0)
    return VisualContrastHead(in_channels=4, **kwargs)


def loss_of(head, one, other):
    return head.loss(one, other)['loss_visual_contrast']


def test_embedding():
    head = make_head(hidden_channels=6, embed_channels=5)
    maps = torch.randn(3, 4, 2, 7)
    embedded = head(maps)
    assert embedded.shape == (3, 5) and embedded.dtype == torch.float32
    torch.testing.assert_close(embedded.norm(dim=1), torch.ones(3))
    # Of the mean over locations alone.
    torch.testing.assert_close(head(maps.flip(3)), embedded)
    torch.testing.assert_close(head(maps.mean((2, 3), True)), embedded)


def test_loss_against_loops():
    head = make_head(temperature=0.3, loss_weight=2.)
    one, other = F.normalize(torch.randn(2, 5, 3).double(), dim=2)
    total = 0.
    for a, b in ((one, other), (other, one)):
        for i in range(5):
            near = math.exp(a[i] @ b[i] / 0.3)
            rest = sum(
                math.exp(a[i] @ x / 0.3) for x in (*a[:i], *a[i + 1:], *b))
            total -= math.log(near / rest)
    assert loss_of(head, one, other).item() == pytest.approx(2 * total / 10)


def test_loss_of_equal_and_of_perfect_views():
    head = make_head(loss_weight=1.)
    same = torch.eye(4)[:1].expand(4, 4)
    assert loss_of(head, same, same).item() == pytest.approx(math.log(7))
    own = torch.eye(4)
    # Six others at cosine 0, temperature 0.2.
    assert loss_of(head, own, own).item() == pytest.approx(
        math.log(math.exp(5) + 6) - 5)


def test_whole_view_without_jitter_is_the_frame_or_its_mirror_image():
    head = make_head(min_side=1., jitter=0.)
    frame = torch.randn(16, 3, 8, 6)
    view = head.other_view(frame)
    kept = [torch.allclose(a, b, atol=1e-4) for a, b in zip(view, frame)]
    mirrored = [
        torch.allclose(a, b.flip(2), atol=1e-4) for a, b in zip(view, frame)
    ]
    assert all(a != b for a, b in zip(kept, mirrored))
    assert 0 < sum(kept) < 16


def test_view_is_a_part_of_the_frame():
    head = make_head(min_side=0.5, jitter=0.)
    x = torch.linspace(-1, 1, 64).expand(64, 64)
    # Values are the places that a view's pixels come from.
    frame = torch.stack([x, x.t(), 0 * x]).expand(50, 3, 64, 64)
    view = head.other_view(frame)
    assert view.shape == frame.shape
    assert view.abs().max() <= 1 + 1e-5
    sides = []
    for i in (0, 1):
        values = view[:, i]
        sides.append((values.amax((1, 2)) - values.amin((1, 2))) / 2)
    torch.testing.assert_close(sides[0], sides[1], atol=2e-2, rtol=0)
    assert 0.48 < sides[0].min() < 0.6 and 0.9 < sides[0].max() <= 1
    # Both halves of the frame are seen, in x and in y.
    middles = view[:, :2].mean((2, 3))
    assert (middles.amin(0) < -0.1).all() and (middles.amax(0) > 0.1).all()


def test_jitter():
    head = make_head(min_side=1., jitter=0.4)
    view = head.other_view(torch.ones(500, 3, 2, 2))
    values = view[:, :, 0, 0]
    torch.testing.assert_close(view, values[..., None, None].expand_as(view))
    assert .6**2 - .4 <= values.min() < 0.4
    assert 1.8 < values.max() <= 1.4**2 + .4
    # Channels have factors of their own.
    assert (values[:, 0] - values[:, 1]).abs().mean() > 0.1


def test_views_are_those_of_the_seed():
    head, frame = make_head(), torch.randn(2, 3, 8, 8)
    torch.manual_seed(3)
    view = head.other_view(frame)
    assert not torch.equal(head.other_view(frame), view)
    torch.manual_seed(3)
    assert torch.equal(head.other_view(frame), view)


@pytest.mark.parametrize('kwargs, message', [
    (dict(temperature=0.), 'temperature must be > 0'),
    (dict(min_side=0.), '0 < min_side <= 1'),
    (dict(min_side=1.1), '0 < min_side <= 1'),
    (dict(jitter=1.), '0 <= jitter < 1'),
])
def test_wrong_settings(kwargs, message):
    with pytest.raises(ValueError, match=message):
        make_head(**kwargs)


def loss_and_gradient(start, stop):
    torch.manual_seed(0)
    one, other = torch.randn(2, 6, 4).double()
    weight = torch.randn(4, 3).double().requires_grad_()
    one, other = (
        F.normalize(x[start:stop] @ weight, dim=1) for x in (one, other))
    loss = loss_of(make_head(), one, other)
    loss.backward()
    all_reduce(weight.grad, 'mean')
    return loss.item(), weight.grad


def loss_of_half():
    rank = torch.distributed.get_rank()
    return loss_and_gradient(3 * rank, 3 * rank + 3)


def test_two_processes_equal_one(gloo):
    loss, gradient = loss_and_gradient(0, 6)
    for part, part_gradient in gloo(loss_of_half):
        assert part == pytest.approx(loss, rel=1e-9)
        torch.testing.assert_close(part_gradient, gradient)
