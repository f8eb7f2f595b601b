"""Heatmaps to self-boxes (Sec. 3.2, Eq. 5)."""
from typing import List, Sequence, Tuple, Union

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from avdet_mm.registry import TASK_UTILS


@TASK_UTILS.register_module()
class HeatmapBoxExtractor:
    """Threshold a heatmap and box its largest connected component.

    The map is upsampled to the network input (bilinear), thresholded
    strictly above a mix of its own maximum and mean, and the tight box of
    the largest 8-connected component is returned.

    Which of the two beta weighs is lost from the paper's Eq. 5. Its text
    ("a smaller value makes the heatmaps more focused") fits
    ``beta_on='mean'``: threshold = (1 - beta) * max + beta * mean.

    Args:
        beta (float | Sequence[float]): Fixed, or a range from which each
            heatmap draws. Defaults to 0.7, the paper's main result.
        beta_on (str): ``'mean'`` or ``'max'``, the side that beta weighs.
            Defaults to ``'mean'``.
        multi (bool): Return every component of at least ``min_area`` times
            the largest one's area instead of the largest alone.
            Defaults to False.
        min_area (float): Defaults to 0.05.
    """

    def __init__(self,
                 beta: Union[float, Sequence[float]] = 0.7,
                 beta_on: str = 'mean',
                 multi: bool = False,
                 min_area: float = 0.05) -> None:
        if beta_on not in ('mean', 'max'):
            raise ValueError(
                f"beta_on must be 'mean' or 'max', got {beta_on!r}.")
        ends = [beta] if isinstance(beta, (int, float)) else list(beta)
        if len(ends) not in (1, 2) or not 0 <= ends[0] <= ends[-1] <= 1:
            raise ValueError('beta must be a number in [0, 1] or a range of '
                             f'two such numbers, ascending, got {beta}.')
        self.beta_range = (float(ends[0]), float(ends[-1]))
        self.beta_on = beta_on
        self.multi = multi
        self.min_area = min_area

    @torch.no_grad()
    def __call__(self, heatmaps: Tensor,
                 size: Tuple[int, int]) -> List[Tuple[Tensor, Tensor]]:
        """Extract boxes from a batch of heatmaps.

        Args:
            heatmaps (Tensor): (B, h, w).
            size (tuple[int, int]): Height and width of the network input in
                pixels, of which the boxes are given.

        Returns:
            list[tuple[Tensor, Tensor]]: For each map the boxes (n, 4),
            xyxy, x2 and y2 exclusive, largest component first, and the
            largest value of the (upsampled) map in each, (n,). A constant
            map gives none.
        """
        fine = F.interpolate(
            heatmaps[:, None].float(), size, mode='bilinear',
            align_corners=False)[:, 0]
        thresholds = self.thresholds(fine)
        # Rounding lifts half of a constant map above its own mean.
        low, high = heatmaps.amin(dim=(1, 2)), heatmaps.amax(dim=(1, 2))
        flat = high - low <= 1e-6 * torch.maximum(low.abs(), high.abs())
        thresholds = thresholds.masked_fill(flat, torch.inf)
        masks = (fine > thresholds[:, None, None]).to(torch.uint8)
        fine, masks = fine.cpu().numpy(), masks.cpu().numpy()
        return [self._boxes(m, f) for m, f in zip(masks, fine)]

    def thresholds(self, heatmaps: Tensor) -> Tensor:
        """Eq. 5 for each map: (B, H, W) to (B,)."""
        low, high = self.beta_range
        peak = heatmaps.amax(dim=(1, 2))
        mean = heatmaps.mean(dim=(1, 2))
        beta = low if low == high else torch.empty_like(peak).uniform_(
            low, high)
        weight = beta if self.beta_on == 'max' else 1 - beta
        return weight * peak + (1 - weight) * mean

    def _boxes(self, mask: np.ndarray,
               heatmap: np.ndarray) -> Tuple[Tensor, Tensor]:
        count, components, stats, _ = cv2.connectedComponentsWithStats(
            mask, connectivity=8)
        # Component 0 is the background.
        area = stats[1:, cv2.CC_STAT_AREA]
        order = 1 + np.argsort(-area, kind='stable')
        if self.multi:
            order = order[area[order - 1] >= self.min_area * area.max(
                initial=0)]
        else:
            order = order[:1]
        boxes = np.zeros((len(order), 4), np.float32)
        scores = np.zeros(len(order), np.float32)
        for i, c in enumerate(order):
            x, y, w, h = stats[c, :4]
            boxes[i] = x, y, x + w, y + h
            inside = components[y:y + h, x:x + w] == c
            scores[i] = heatmap[y:y + h, x:x + w][inside].max()
        return torch.from_numpy(boxes), torch.from_numpy(scores)


def boxes_to_original(boxes: Tensor, homography: np.ndarray,
                      ori_shape: Tuple[int, int]) -> Tensor:
    """Map boxes from the network input back to the original frame.

    Args:
        boxes (Tensor): (n, 4) xyxy in input pixels.
        homography (np.ndarray): (3, 3), original to input pixels; scalings,
            shifts and flips only.
        ori_shape (tuple[int, int]): Height and width of the original frame,
            to which the boxes are clipped.

    Returns:
        Tensor: (n, 4) xyxy in original pixels.
    """
    inverse = torch.from_numpy(
        np.linalg.inv(np.asarray(homography, np.float64))).to(boxes.device)
    corners = boxes.double().view(-1, 2, 2)
    corners = corners @ inverse[:2, :2].T + inverse[:2, 2]
    low, high = corners.amin(dim=1), corners.amax(dim=1)
    limit = corners.new_tensor([ori_shape[1], ori_shape[0]])
    low, high = low.clamp(min=0).min(limit), high.clamp(min=0).min(limit)
    return torch.cat([low, high], dim=1).to(boxes.dtype)
