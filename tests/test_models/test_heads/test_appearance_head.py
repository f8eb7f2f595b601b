"""Tests of the appearance head."""
import math

import pytest
import torch

from avdet_mm.models.heads import AppearanceHead


def make_head(**kwargs):
    torch.manual_seed(0)
    return AppearanceHead(num_clusters=3, in_channels=4, **kwargs)


def head_of(weight):
    """A head whose logits are the looks times a weight per cluster."""
    head = AppearanceHead(len(weight), 2, hidden_channels=1)
    head.mlp[-1].weight.data = torch.tensor(weight).view(-1, 1, 1, 1)
    head.mlp[-1].bias.data.zero_()
    return head


def test_shapes_and_no_gradient_to_the_localizer():
    head = make_head(hidden_channels=5)
    features = torch.randn(2, 4, 6, 8, requires_grad=True)
    looks = head(features)
    assert looks.shape == (2, 5, 6, 8)
    loss = head.loss(looks, torch.rand(2, 3, 4), torch.tensor([0, 2]))
    loss['loss_appearance'].backward()
    assert features.grad is None
    assert all(p.grad.abs().sum() > 0 for p in head.parameters())


def test_heatmap_is_that_of_the_cluster():
    head = make_head().eval()
    features = torch.randn(3, 4, 2, 2)
    logits = head.mlp(features)
    assert logits.shape == (3, 3, 2, 2)
    # Mean 0, top 4: from 2.4 on, looks alone decide.
    heatmaps = torch.tensor([[4., 2.4], [-7.6, 1.2]]).expand(3, 2, 2)
    maps = head.predict(head(features), heatmaps, torch.tensor([1, 0, 2]))
    assert maps.dtype == torch.float32
    near = torch.tensor([[1., 1.], [0., .5]])
    for i, k in enumerate((1, 0, 2)):
        torch.testing.assert_close(maps[i],
                                   near / (1 + (-logits[i, k]).exp()))


@pytest.mark.parametrize('reach', [0., 1.1])
def test_wrong_reach(reach):
    with pytest.raises(ValueError, match='reach must lie in'):
        make_head(reach=reach)


def test_low_precision():
    head = make_head()
    looks = torch.rand(2, 64, 3, 3)
    with torch.autocast('cpu', torch.bfloat16):
        low = head.logits(looks.to(torch.bfloat16), torch.tensor([2, 0]))
    assert low.dtype == torch.float32
    torch.testing.assert_close(
        low, head.logits(looks, torch.tensor([2, 0])), atol=0.03, rtol=0.02)


def test_loss_in_closed_form():
    # Mean 2, top 8: the targets are 1 for 8, 0.5 for 5, 0 below the mean.
    heatmap = torch.tensor([[[8., 5., -3., -2.]]])
    head, looks = head_of([9., 2.]), torch.tensor([[[[.5, 1., 0., -.5]]]])
    loss = head.loss(looks, heatmap, torch.tensor([1]))

    def entropy(logit, target):
        p = 1 / (1 + math.exp(-logit))
        return -(target * math.log(p) + (1 - target) * math.log(1 - p))

    expected = (entropy(1, 1) + entropy(2, 0.5) + entropy(0, 0) +
                entropy(-1, 0)) / 4
    assert loss['loss_appearance'].item() == pytest.approx(expected, rel=1e-5)
    # The same, whatever the scale of the heatmap.
    again = head.loss(looks, heatmap * 7 + 3, torch.tensor([1]))
    torch.testing.assert_close(loss, again)


def test_heatmaps_of_other_sizes():
    # Finer ones are averaged, coarser ones interpolated.
    head, label = head_of([1.]), torch.tensor([0])
    looks = torch.zeros(1, 1, 2, 2).requires_grad_()
    fine = torch.zeros(1, 4, 4)
    fine[:, :2, :2] = 1.
    head.loss(looks, fine, label)['loss_appearance'].backward()
    torch.testing.assert_close(
        looks.grad[0, 0], torch.tensor([[-.125, .125], [.125, .125]]))
    looks = torch.zeros(1, 1, 1, 4).requires_grad_()
    coarse = torch.tensor([[[1., 0.]]])
    head.loss(looks, coarse, label)['loss_appearance'].backward()
    # Targets 1 and 0, interpolated: 1, 0.75, 0.25, 0.
    torch.testing.assert_close(
        looks.grad[0, 0, 0], torch.tensor([-.125, -.0625, .0625, .125]))


def test_clips_without_a_label_and_constant_heatmaps():
    head = make_head()
    looks = torch.randn(3, 64, 2, 2, requires_grad=True)
    heatmaps = torch.rand(3, 2, 2)
    labels = torch.tensor([1, -1, 0])
    loss = head.loss(looks, heatmaps, labels)['loss_appearance']
    known = [0, 2]
    expected = head.loss(looks[known], heatmaps[known],
                         labels[known])['loss_appearance']
    torch.testing.assert_close(loss, expected)
    none = head.loss(looks, heatmaps, torch.full((3, ), -1))
    assert none['loss_appearance'].item() == 0
    none['loss_appearance'].backward()
    assert looks.grad.abs().sum() == 0
    flat = head.loss(looks, torch.ones(3, 2, 2), labels)
    assert torch.isfinite(flat['loss_appearance'])


def test_place_follows_looks_where_heatmaps_are_blurred():
    """Blurred targets become sharp when looks say what belongs together."""
    torch.manual_seed(0)
    head = AppearanceHead(num_clusters=2, in_channels=3)
    # One object of 3 x 3 per map; what is around it changes.
    features = torch.randn(200, 3, 12, 12)
    blurred = torch.zeros(200, 12, 12)
    truth = torch.zeros(200, 12, 12, dtype=torch.bool)
    labels = torch.arange(200) % 2
    for i, (y, x) in enumerate(torch.randint(2, 7, (200, 2)).tolist()):
        # The looks of cluster 0 are rare in clips of cluster 1.
        features[i, :, y:y + 3, x:x + 3] = 4. if labels[i] else -4.
        truth[i, y:y + 3, x:x + 3] = True
        blurred[i, y - 2:y + 5, x - 2:x + 5] = 1.
    optimizer = torch.optim.Adam(head.parameters(), lr=0.01)
    for _ in range(60):
        loss = head.loss(head(features), blurred, labels)['loss_appearance']
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    maps = head.eval().predict(head(features), blurred, labels)
    assert maps[truth].min() > 0.8
    assert maps[~truth].mean() < 0.4
    # Elsewhere it knows no better than how often the blur reaches.
    assert maps[(blurred == 1) & ~truth].mean() < 0.5
