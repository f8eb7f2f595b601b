"""Heatmaps by what each place looks like (ours)."""
from typing import Dict

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
    looks of the object is expected to be high, other things are not.

    No gradient leaves the head, so the localizer is the same without it.

    Args:
        num_clusters (int): K.
        in_channels (int): Of the features.
        hidden_channels (int): Of the MLP. Defaults to 64.
        norm_cfg (dict): Norm in the MLP. Defaults to BN.
    """

    def __init__(self,
                 num_clusters: int,
                 in_channels: int,
                 hidden_channels: int = 64,
                 norm_cfg: dict = dict(type='BN'),
                 init_cfg: dict = None) -> None:
        super().__init__(init_cfg)
        self.mlp = pointwise_mlp(in_channels, hidden_channels, num_clusters,
                                 norm_cfg)

    def forward(self, features: Tensor) -> Tensor:
        """Logits of each place for each cluster.

        Args:
            features (Tensor): (B, in_channels, h, w).

        Returns:
            Tensor: (B, K, h, w) float32.
        """
        return self.mlp(features.detach()).float()

    @staticmethod
    def predict(logits: Tensor, labels: Tensor) -> Tensor:
        """Heatmaps of the clips' clusters.

        Args:
            logits (Tensor): (B, K, h, w).
            labels (Tensor): (B,) int64.

        Returns:
            Tensor: (B, h, w) float32 in [0, 1].
        """
        return _of_cluster(logits, labels).sigmoid()

    @staticmethod
    def loss(logits: Tensor, heatmaps: Tensor,
             labels: Tensor) -> Dict[str, Tensor]:
        """Cross entropy with each heatmap, from its mean (0) to its top (1).

        Args:
            logits (Tensor): (B, K, h, w).
            heatmaps (Tensor): (B, h', w') of the localizer, any size.
            labels (Tensor): (B,) int64; -1 marks a clip without a label,
                which is left out of the mean.

        Returns:
            dict: ``loss_appearance``.
        """
        heatmaps = heatmaps.detach().float()[:, None]
        low = heatmaps.mean(dim=(2, 3), keepdim=True)
        high = heatmaps.amax(dim=(2, 3), keepdim=True)
        targets = ((heatmaps - low) / (high - low).clamp(min=1e-6)).clamp(0, 1)
        size = logits.shape[2:]
        if targets.shape[2:] != size:
            fewer = targets.shape[2] > size[0]
            targets = F.interpolate(
                targets,
                size,
                mode='area' if fewer else 'bilinear',
                align_corners=None if fewer else False)
        known = labels != IGNORE_LABEL
        losses = F.binary_cross_entropy_with_logits(
            _of_cluster(logits, labels.clamp(min=0)),
            targets[:, 0],
            reduction='none').mean(dim=(1, 2))
        # A batch without any label has zero loss, not 0 / 0.
        return dict(
            loss_appearance=(losses * known).sum() / known.sum().clamp(min=1))


def _of_cluster(logits: Tensor, labels: Tensor) -> Tensor:
    """(B, h, w) of (B, K, h, w)."""
    index = labels.view(-1, 1, 1, 1).expand(-1, 1, *logits.shape[2:])
    return logits.gather(1, index)[:, 0]
