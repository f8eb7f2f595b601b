"""Tests of the guided filter."""
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from avdet_mm.models.task_modules import GuidedFilter
from avdet_mm.registry import TASK_UTILS


def reference(heatmap, guide, radius, eps):
    """He et al., Eqs. 14-16, window by window, in double precision.

    ``heatmap`` (h, w), ``guide`` (h, w, C).
    """
    h, w, channels = guide.shape
    slopes = np.zeros((h, w, channels))
    offsets = np.zeros((h, w))

    def window(y, x):
        return (slice(max(y - radius, 0), y + radius + 1),
                slice(max(x - radius, 0), x + radius + 1))

    for y in range(h):
        for x in range(w):
            colors = guide[window(y, x)].reshape(-1, channels)
            values = heatmap[window(y, x)].ravel()
            covariance = np.cov(colors.T, bias=True).reshape(
                channels, channels)
            joint = (colors * values[:, None]).mean(0) - colors.mean(
                0) * values.mean()
            slopes[y, x] = np.linalg.solve(
                covariance + eps * np.eye(channels), joint)
            offsets[y, x] = values.mean() - slopes[y, x] @ colors.mean(0)
    return np.array([[
        slopes[window(y, x)].reshape(-1, channels).mean(0) @ guide[y, x] +
        offsets[window(y, x)].mean() for x in range(w)
    ] for y in range(h)])


@pytest.mark.parametrize('channels', [1, 3])
def test_equals_the_definition(channels):
    torch.manual_seed(0)
    maps, frames = torch.rand(2, 4, 3), torch.randn(2, channels, 18, 14)
    found = GuidedFilter(radius=0.3, eps=0.02)(maps, frames)
    assert found.shape == (2, 9, 7) and found.dtype == torch.float32
    guide = F.avg_pool2d(frames, 2)
    up = F.interpolate(maps[:, None], (9, 7), mode='bilinear')
    for i in range(2):
        expected = reference(up[i, 0].double().numpy(),
                             guide[i].permute(1, 2, 0).double().numpy(),
                             round(0.3 * 7), 0.02)
        np.testing.assert_allclose(found[i], expected, atol=1e-5)


def test_follows_the_edges_of_an_object():
    frame = torch.zeros(1, 3, 64, 64)
    frame[:, 1, 24:40, 8:56] = 2.  # Wide and low.
    y, x = torch.meshgrid(torch.arange(8.), torch.arange(8.), indexing='ij')
    blurred = torch.exp(-((y - 3.5)**2 + (x - 3.5)**2) / 8)[None]
    sharp = GuidedFilter(radius=0.25)(blurred, frame)[0]
    inside, above = sharp[15, 6:26], sharp[9, 6:26]
    assert inside.min() > above.max() + 0.1


def test_size_instead_of_stride():
    torch.manual_seed(0)
    maps, frames = torch.rand(2, 4, 3), torch.randn(2, 3, 16, 24)
    assert torch.equal(
        GuidedFilter(stride=2)(maps, frames, (4, 6)),
        GuidedFilter(stride=4)(maps, frames))


def test_constant_frames_and_maps():
    out = GuidedFilter()(torch.full((1, 3, 3), 0.3), torch.randn(1, 3, 24, 24))
    torch.testing.assert_close(out, torch.full((1, 12, 12), 0.3))
    # Without colors, means of means.
    out = GuidedFilter(stride=5)(torch.rand(1, 3, 3), torch.ones(1, 3, 24, 24))
    assert out.shape == (1, 5, 5) and torch.isfinite(out).all()


@pytest.mark.parametrize('kwargs', [
    dict(radius=0.), dict(radius=1.), dict(eps=0.), dict(stride=0)])
def test_wrong_arguments(kwargs):
    with pytest.raises(ValueError, match='GuidedFilter needs'):
        TASK_UTILS.build(dict(type='avdet_mm.GuidedFilter', **kwargs))
