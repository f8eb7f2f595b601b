"""Tests of deep multimodal clustering."""
import math

import pytest
import torch
from mmengine.dataset import pseudo_collate

from avdet_mm.models.baselines.dmc import soft_kmeans
from avdet_mm.registry import MODELS
from tests.toy import ToyClips, model_cfg

PARTS = ('data_preprocessor', 'visual_backbone', 'audio_backbone')


def build(**kwargs):
    torch.manual_seed(0)
    toy = model_cfg()
    return MODELS.build(
        dict(
            dict(
                type='avdet_mm.DMC',
                visual_channels=32,
                audio_channels=32,
                embed_channels=8,
                **{k: toy[k] for k in PARTS}), **kwargs))


def batch_of(model, indices, image_size=32):
    dataset = ToyClips(image_size=image_size)
    return model.data_preprocessor(
        pseudo_collate([dataset[i] for i in indices]))


def test_one_iteration_of_kmeans():
    # Centers start at points 0 and 2 of four: at 0 and 1.
    points = torch.tensor([[[0.], [0.5], [1.], [3.]]])
    centers, assignment = soft_kmeans(points, 2, 1, sharpness=2.)
    first = [1 / (1 + math.exp(-2)), 0.5, 1 / (1 + math.exp(2)),
             1 / (1 + math.exp(2))]
    torch.testing.assert_close(
        assignment, torch.tensor([[first, [1 - x for x in first]]]))
    expected = [
        sum(w * p for w, p in zip(weights, (0, 0.5, 1, 3))) / sum(weights)
        for weights in (first, [1 - x for x in first])
    ]
    torch.testing.assert_close(centers[0, :, 0], torch.tensor(expected))


@pytest.mark.parametrize('number, clusters, starts', [(4, 2, [0, 2]),
                                                      (5, 2, [0, 2]),
                                                      (8, 3, [0, 2, 4]),
                                                      (3, 3, [0, 1, 2])])
def test_centers_start_evenly(number, clusters, starts):
    points = 100. * torch.eye(number)[None]
    # All points that start no center are equally far from all centers.
    _, assignment = soft_kmeans(points, clusters, 1)
    for k, start in enumerate(starts):
        assert assignment[0, k, start] == 1
    rest = [i for i in range(number) if i not in starts]
    torch.testing.assert_close(
        assignment[0, :, rest],
        torch.full((clusters, len(rest)), 1 / clusters))


def test_kmeans_finds_groups():
    torch.manual_seed(0)
    groups = torch.tensor([0, 1, 1, 0, 1, 0, 0, 1])
    points = torch.tensor([[0., 0.], [4., 3.]])[groups]
    points = (points + 0.1 * torch.randn(8, 2))[None].requires_grad_()
    centers, assignment = soft_kmeans(points, 2)
    torch.testing.assert_close(assignment[0, 1], groups.float())
    for k in range(2):
        torch.testing.assert_close(centers[0, k],
                                   points[0, groups == k].mean(dim=0))
    centers.square().sum().backward()
    assert torch.isfinite(points.grad).all()


def test_gradients_of_kmeans():
    torch.manual_seed(0)
    points = torch.randn(2, 7, 3, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x: soft_kmeans(x, 2, 3, 4.), points)
    # Where all points are the same, all distances are 0.
    points = torch.ones(1, 6, 3, requires_grad=True)
    centers, assignment = soft_kmeans(points, 2)
    assert torch.equal(assignment, torch.full((1, 2, 6), 0.5))
    (centers.sum() + assignment.square().sum()).backward()
    torch.testing.assert_close(points.grad, torch.full((1, 6, 3), 1 / 3))


def test_shapes():
    model = build(visual_clusters=3)
    outs = model(batch_of(model, [0, 1], image_size=48)['inputs'])
    assert {k: tuple(v.shape) for k, v in outs.items()} == dict(
        centers=(2, 3, 8), assignment=(2, 3, 6, 6), audio=(2, 8))
    torch.testing.assert_close(outs['assignment'].sum(1), torch.ones(2, 6, 6))
    # A location of the map is the same location of the frame.
    model.eval()
    inputs = batch_of(model, [0, 1], image_size=48)['inputs']
    visual, _ = model.extract_feat(**inputs)
    points = model.visual_fc(visual.permute(0, 2, 3, 1))
    _, expected = soft_kmeans(points.flatten(1, 2), 3)
    torch.testing.assert_close(
        model(inputs)['assignment'][:, :, 1, 4], expected[:, :, 10])


# Centers of two frames; distances to the sounds (0, 0) and (6, 8).
CENTERS = torch.tensor([[[3., 4.], [0., 1.]], [[6., 8.], [6., 6.]]])
AUDIO = torch.tensor([[0., 0.], [6., 8.]])


def test_loss():
    losses = build().loss(dict(centers=CENTERS, audio=AUDIO), [])
    # Own sounds: min(5, 1) and min(0, 2). The others': min(5, sqrt(85)) and
    # min(10, sqrt(72)), both beyond the margin of 5.
    assert losses['loss_pairs'].item() == pytest.approx(0.5 / 4)
    assert losses['accuracy'].item() == 1
    losses = build(margin=8.).loss(dict(centers=CENTERS, audio=AUDIO), [])
    assert losses['loss_pairs'].item() == pytest.approx(0.5 * (1 + 9) / 4)


def test_heatmap_is_of_the_closest_cluster():
    assignment = torch.rand(2, 2, 3, 4)
    maps = build().heatmaps(
        dict(centers=CENTERS, audio=AUDIO, assignment=assignment))
    assert torch.equal(maps[0], assignment[0, 1])
    assert torch.equal(maps[1], assignment[1, 0])


def test_every_parameter_learns():
    model = build()
    losses = model(**batch_of(model, [0, 1, 2, 3]), mode='loss')
    model.parse_losses(losses)[0].backward()
    for name, p in model.named_parameters():
        assert p.grad is not None and torch.isfinite(p.grad).all(), name
        if 'fc' in name:
            assert p.grad.abs().max() > 0, name


def test_silent_and_equal_clips_stay_finite():
    model = build()
    data = pseudo_collate([ToyClips()[0]] * 4)
    data['inputs']['audio'] = [torch.zeros(2000)] * 4
    data['inputs']['frame'] = [torch.zeros(3, 32, 32, dtype=torch.uint8)] * 4
    losses = model(**model.data_preprocessor(data), mode='loss')
    losses['loss_pairs'].backward()
    for name, p in model.named_parameters():
        assert torch.isfinite(p.grad).all(), name


@pytest.mark.parametrize('image_size', [33, 50])
def test_predict(image_size):
    model = build().eval()
    data = batch_of(model, [0, 1], image_size=image_size)
    with torch.no_grad():
        samples = model(**data, mode='predict')
    for sample in samples:
        assert 0 <= sample.heatmap.min() <= sample.heatmap.max() <= 1
        boxes = sample.pred_instances.bboxes
        assert (boxes >= 0).all() and (boxes <= image_size).all()


def test_wrong_arguments():
    with pytest.raises(ValueError, match='visual_clusters must be at least 2'):
        build(visual_clusters=1)
    for name in ('num_iters', 'sharpness', 'margin'):
        with pytest.raises(ValueError, match=f'{name} must be above 0'):
            build(**{name: 0})
    with pytest.raises(ValueError, match='1 locations cannot start 2'):
        soft_kmeans(torch.zeros(1, 1, 4), 2)
    model = build().eval()
    with pytest.raises(ValueError, match='batch_size must be at least 2'):
        model(**batch_of(model, [0]), mode='loss')
