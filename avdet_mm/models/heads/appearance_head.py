"""Heatmaps by what each place looks like (ours)."""
from typing import Dict, Tuple

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor

from avdet_mm.registry import MODELS

from .mlp import pointwise_mlp
from .sk_cluster_head import IGNORE_LABEL


@MODELS.register_module()
class AppearanceHead(BaseModule):
    """Learns from a localizer's heatmaps which looks belong to a cluster.

    A heatmap is blurred: its cells have seen far more of the frame than they
    cover, so what lies beside an object is in it, too. But what lies beside
    an object changes from clip to clip, and the object does not. This head
    sees early features, which know little more than the place itself, and
    learns the heatmaps of all clips of a cluster from them: what has the
    looks of the object is expected to be high, other things are not. Things
    elsewhere that look alike are left to the heatmap: the result is zero
    where that is below its mean.

    No gradient leaves the head, so the localizer is the same without it.

    Args:
        num_clusters (int): K.
        in_channels (int): Of the features.
        hidden_channels (int): Of the MLP. Defaults to 64.
        reach (float): From this share of the way between the heatmap's mean
            and its top on, looks alone decide. Defaults to 0.6.
        norm_cfg (dict): Norm in the MLP. Defaults to BN.
    """

    def __init__(self,
                 num_clusters: int,
                 in_channels: int,
                 hidden_channels: int = 64,
                 reach: float = 0.6,
                 norm_cfg: dict = dict(type='BN'),
                 init_cfg: dict = None) -> None:
        super().__init__(init_cfg)
        if not 0 < reach <= 1:
            raise ValueError(f'reach must lie in (0, 1], got {reach}.')
        self.reach = reach
        self.mlp = pointwise_mlp(in_channels, hidden_channels, num_clusters,
                                 norm_cfg)

    def forward(self, features: Tensor) -> Tensor:
        """Looks of each place, all layers but the last.

        The last, which is linear, is computed for one cluster per clip.

        Args:
            features (Tensor): (B, in_channels, h, w).

        Returns:
            Tensor: (B, hidden_channels, h, w).
        """
        return self.mlp[:-1](features.detach())

    def logits(self, looks: Tensor, labels: Tensor) -> Tensor:
        """Logits of the clips' clusters.

        Args:
            looks (Tensor): (B, hidden_channels, h, w), of :meth:`forward`.
            labels (Tensor): (B,) int64.

        Returns:
            Tensor: (B, h, w) float32.
        """
        layer = self.mlp[-1]
        weight, bias = layer.weight[labels].flatten(1), layer.bias[labels]
        logits = torch.einsum('bchw,bc->bhw', looks, weight.to(looks.dtype))
        return logits.float() + bias.float()[:, None, None]

    def predict(self, looks: Tensor, heatmaps: Tensor,
                labels: Tensor) -> Tensor:
        """Heatmaps by looks, near the localizer's.

        Args:
            looks (Tensor): (B, hidden_channels, h, w), of :meth:`forward`.
            heatmaps (Tensor): (B, h', w') of the localizer, any size.
            labels (Tensor): (B,) int64.

        Returns:
            Tensor: (B, h, w) float32 in [0, 1].
        """
        near = _relative(heatmaps, looks.shape[2:]) / self.reach
        return self.logits(looks, labels).sigmoid() * near.clamp(max=1)

    def loss(self, looks: Tensor, heatmaps: Tensor,
             labels: Tensor) -> Dict[str, Tensor]:
        """Cross entropy with each heatmap, from its mean (0) to its top (1).

        Args:
            looks (Tensor): (B, hidden_channels, h, w), of :meth:`forward`.
            heatmaps (Tensor): (B, h', w') of the localizer, any size.
            labels (Tensor): (B,) int64; -1 marks a clip without a label,
                which is left out of the mean.

        Returns:
            dict: ``loss_appearance``.
        """
        known = labels != IGNORE_LABEL
        losses = F.binary_cross_entropy_with_logits(
            self.logits(looks, labels.clamp(min=0)),
            _relative(heatmaps.detach(), looks.shape[2:]),
            reduction='none').mean(dim=(1, 2))
        # A batch without any label has zero loss, not 0 / 0.
        return dict(
            loss_appearance=(losses * known).sum() / known.sum().clamp(min=1))


def _relative(heatmaps: Tensor, size: Tuple[int, int]) -> Tensor:
    """Heatmaps from their mean (0) to their top (1), in another size."""
    heatmaps = heatmaps.float()[:, None]
    low = heatmaps.mean(dim=(2, 3), keepdim=True)
    high = heatmaps.amax(dim=(2, 3), keepdim=True)
    maps = ((heatmaps - low) / (high - low).clamp(min=1e-6)).clamp(0, 1)
    mode = 'area' if maps.shape[2] > size[0] else 'bilinear'
    return F.interpolate(maps, size, mode=mode)[:, 0]
