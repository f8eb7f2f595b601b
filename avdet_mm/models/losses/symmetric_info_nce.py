"""The noise-contrastive loss of Eq. 1."""
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

    Shape:
        - scores: (B, B); entry (i, j) scores frame i with sound j, the
          temperature already applied. The diagonal holds the true pairs.
        - Output: scalar.
    """

    def forward(self, scores: Tensor) -> Tensor:
        if scores.dim() != 2 or scores.size(0) != scores.size(1):
            raise ValueError('scores must be square, frames by sounds; got '
                             f'{tuple(scores.shape)}.')
        target = torch.arange(scores.size(0), device=scores.device)
        return 0.5 * (
            F.cross_entropy(scores, target) +
            F.cross_entropy(scores.t(), target))
