"""The noise-contrastive loss of Eq. 1."""
import math

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from avdet_mm.registry import MODELS


@MODELS.register_module()
class SymmetricInfoNCE(nn.Module):
    """Eq. 1: mean of both directions' cross entropies over a batch.

    Each frame has to pick its sound among all sounds of the batch and each
    sound its frame among all frames.

    Args:
        share (float): Only this share of the pairs counts, those of the
            smallest loss: the most confident to correspond (ours), see
            :class:`ConfidenceCurriculumHook`. Defaults to 1, all pairs.

    Shape:
        - scores: (B, B); entry (i, j) scores frame i with sound j, the
          temperature already applied. The diagonal holds the true pairs.
        - Output: scalar.
    """

    def __init__(self, share: float = 1.) -> None:
        super().__init__()
        self.set_share(share)

    def set_share(self, share: float) -> None:
        """Choose which share of the pairs counts, in (0, 1]."""
        if not 0 < share <= 1:
            raise ValueError(f'share must lie in (0, 1], got {share}.')
        self.share = share

    def forward(self, scores: Tensor) -> Tensor:
        if scores.dim() != 2 or scores.size(0) != scores.size(1):
            raise ValueError('scores must be square, frames by sounds; got '
                             f'{tuple(scores.shape)}.')
        target = torch.arange(scores.size(0), device=scores.device)
        losses = 0.5 * (
            F.cross_entropy(scores, target, reduction='none') +
            F.cross_entropy(scores.t(), target, reduction='none'))
        if self.share < 1:
            count = math.ceil(self.share * len(losses))
            losses = losses.topk(count, largest=False, sorted=False).values
        return losses.mean()
