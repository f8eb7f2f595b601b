"""Heatmaps that end where the colors of their frames do (ours)."""
from typing import List, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from avdet_mm.registry import TASK_UTILS


@TASK_UTILS.register_module()
class GuidedFilter:
    """The guided filter of He, Sun and Tang (TPAMI 2013), with colors.

    A cell of a heatmap has seen much more of the frame than it covers, so a
    map is blurred, alike in all directions, and the boxes of long objects
    become too square. In each window the upsampled map is replaced by what
    a linear function of the colors can say of it; a pixel gets the mean of
    all windows that it is in.

    Args:
        radius (float): Of the square windows, a share of the frame's
            shorter side. Defaults to 1/6.
        eps (float): Smaller follows weaker edges; in units of the variance
            of normalized frames, whose deviation is about 1.
            Defaults to 2e-3.
        stride (int): Pixels of the frame per cell of the result.
            Defaults to 2.
    """

    def __init__(self,
                 radius: float = 1 / 6,
                 eps: float = 2e-3,
                 stride: int = 2) -> None:
        if not (0 < radius < 1 and eps > 0 and stride >= 1):
            raise ValueError(
                'GuidedFilter needs 0 < radius < 1, eps > 0 and stride >= 1, '
                f'got {radius}, {eps} and {stride}.')
        self.radius, self.eps, self.stride = radius, eps, stride

    def __call__(self,
                 heatmaps: Tensor,
                 frames: Tensor,
                 size: Optional[Tuple[int, int]] = None) -> Tensor:
        """Filter heatmaps.

        Args:
            heatmaps (Tensor): (B, h, w).
            frames (Tensor): (B, C, H, W), normalized.
            size (tuple[int, int], optional): Height and width of the
                result. Defaults to None: H / stride and W / stride, rounded
                up.

        Returns:
            Tensor: (B, *size) float32.
        """
        if size is None:
            size = tuple(-(-side // self.stride) for side in frames.shape[2:])
        with torch.autocast(frames.device.type, enabled=False):
            guide = F.interpolate(frames.float(), size, mode='area')
            maps = F.interpolate(
                heatmaps.float()[:, None],
                size,
                mode='bilinear',
                align_corners=False)
            return self._filter(guide, maps)[:, 0]

    def _filter(self, guide: Tensor, maps: Tensor) -> Tensor:
        radius = max(1, round(self.radius * min(guide.shape[2:])))
        channels = guide.split(1, dim=1)
        number = len(channels)

        def mean(*parts: Tensor) -> Tensor:
            return _window_means(torch.cat(parts, dim=1), radius)

        means = mean(guide, maps)
        centers = means.split(1, dim=1)
        # With the colors and with the map.
        products = mean(*(channels[i] * x for i in range(number)
                          for x in (*channels[i:], maps))).split(1, dim=1)
        products = iter(products)
        matrix = [[None] * number for _ in range(number)]
        vector = []
        for i in range(number):
            for j in range(i, number):
                matrix[i][j] = matrix[j][i] = (
                    next(products) - centers[i] * centers[j])
            matrix[i][i] = matrix[i][i] + self.eps
            vector.append(next(products) - centers[i] * centers[-1])
        slopes = torch.cat(_solve(matrix, vector), dim=1)
        offset = centers[-1] - (slopes * means[:, :-1]).sum(1, keepdim=True)
        slopes = mean(slopes, offset)
        return (slopes[:, :-1] * guide).sum(1, keepdim=True) + slopes[:, -1:]


def _window_means(x: Tensor, radius: int) -> Tensor:
    """Means over square windows, at borders over what is inside."""
    side = 2 * radius + 1
    x = F.avg_pool2d(x, (side, 1), 1, (radius, 0), count_include_pad=False)
    return F.avg_pool2d(x, (1, side), 1, (0, radius), count_include_pad=False)


def _solve(matrix: List[List[Tensor]], vector: List[Tensor]) -> List[Tensor]:
    """Gaussian elimination in every pixel, for positive definite matrices.

    Several times faster than one call of LAPACK per pixel.
    """
    number = len(vector)
    rows = [[*row, value] for row, value in zip(matrix, vector)]
    for i in range(number):
        for j in range(i + 1, number):
            factor = rows[j][i] / rows[i][i]
            for k in range(i, number + 1):
                rows[j][k] = rows[j][k] - factor * rows[i][k]
    found: List[Tensor] = []
    for i in reversed(range(number)):
        value = rows[i][-1]
        for k, known in zip(range(number - 1, i, -1), found):
            value = value - rows[i][k] * known
        found.append(value / rows[i][i])
    return found[::-1]
