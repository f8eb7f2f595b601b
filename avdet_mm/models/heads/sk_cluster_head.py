"""Category self-labelling: two classifiers, one set of labels (Eq. 2)."""
from typing import Dict, Optional, Tuple

import torch.nn as nn
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor

from avdet_mm.registry import MODELS

from ..task_modules.sinkhorn_knopp import mean_log_probs
from .mlp import pointwise_mlp

IGNORE_LABEL = -1


@MODELS.register_module()
class SKClusterHead(BaseModule):
    """Classify frame and sound into clusters.

    The labels are shared by both modalities; :class:`SelfLabelHook` assigns
    them by Sinkhorn-Knopp. One MLP per modality, logits neither normalized
    nor divided by a temperature.

    Args:
        num_clusters (int): K.
        visual_channels (int): Channels of the visual feature map.
        audio_channels (int): Channels of the audio vector.
        hidden_channels (int): Of the MLPs. The paper's value is lost; 512
            as in SeLaVi. Defaults to 512.
        visual_pooling (str): How the visual map becomes a vector before its
            MLP: ``'mean'`` (the paper), or, ours, for objects that cover a
            small part of the frame, ``'max'`` or ``'attention'``, a mean
            with weights that a 1 x 1 convolution learns; they start equal.
            Defaults to ``'mean'``.
        dropout (float): Before the last layer. Defaults to 0.
        norm_cfg (dict, optional): Norm in the MLPs. Defaults to BN.
    """

    def __init__(self,
                 num_clusters: int,
                 visual_channels: int = 512,
                 audio_channels: int = 512,
                 hidden_channels: int = 512,
                 visual_pooling: str = 'mean',
                 dropout: float = 0.,
                 norm_cfg: Optional[dict] = dict(type='BN'),
                 init_cfg: Optional[dict] = None) -> None:
        super().__init__(init_cfg)
        if num_clusters < 2:
            raise ValueError(f'num_clusters must be >= 2, got {num_clusters}.')
        if visual_pooling not in ('mean', 'max', 'attention'):
            raise ValueError("visual_pooling must be 'mean', 'max' or "
                             f"'attention', got {visual_pooling!r}.")
        self.num_clusters = num_clusters
        self.visual_pooling = visual_pooling
        self.visual_mlp = pointwise_mlp(visual_channels, hidden_channels,
                                        num_clusters, norm_cfg, dropout)
        self.audio_mlp = pointwise_mlp(audio_channels, hidden_channels,
                                       num_clusters, norm_cfg, dropout)
        if visual_pooling == 'attention':
            self.attention = nn.Conv2d(visual_channels, 1, 1)
            nn.init.zeros_(self.attention.weight)
            nn.init.zeros_(self.attention.bias)

    def forward(self, visual_map: Tensor,
                audio_vector: Tensor) -> Tuple[Tensor, Tensor]:
        """Cluster logits of both modalities.

        Args:
            visual_map (Tensor): (B, visual_channels, h, w).
            audio_vector (Tensor): (B, audio_channels).

        Returns:
            tuple[Tensor, Tensor]: (B, K) each.
        """
        return (self.visual_mlp(self._pool(visual_map)).flatten(1).float(),
                self.audio_mlp(audio_vector[..., None, None]).flatten(
                    1).float())

    def _pool(self, visual_map: Tensor) -> Tensor:
        """(B, C, 1, 1) of the whole map."""
        if self.visual_pooling == 'max':
            return visual_map.amax(dim=(2, 3), keepdim=True)
        if self.visual_pooling == 'mean':
            return visual_map.mean(dim=(2, 3), keepdim=True)
        weights = self.attention(visual_map).flatten(2).softmax(dim=2)
        pooled = visual_map.flatten(2) @ weights.transpose(1, 2)
        return pooled[..., None]

    @staticmethod
    def predict(visual_logits: Tensor,
                audio_logits: Tensor) -> Tuple[Tensor, Tensor]:
        """Eq. 6: the cluster that both classifiers together prefer.

        Args:
            visual_logits (Tensor): (B, K).
            audio_logits (Tensor): (B, K).

        Returns:
            tuple[Tensor, Tensor]: Labels (B,) int64, the arg max of the
            product of both posteriors, and its value (B,) float32 when the
            product is normalized.
        """
        posterior = (2 * mean_log_probs(visual_logits,
                                        audio_logits)).softmax(1)
        scores, labels = posterior.float().max(dim=1)
        return labels, scores

    def loss(self, visual_logits: Tensor, audio_logits: Tensor,
             labels: Tensor) -> Dict[str, Tensor]:
        """Eq. 2: cross entropy with the shared labels, mean of modalities.

        Args:
            visual_logits (Tensor): (B, K).
            audio_logits (Tensor): (B, K).
            labels (Tensor): (B,) int64; -1 marks a clip without a label,
                which is left out of the mean.

        Returns:
            dict: ``loss_cluster_visual`` and ``loss_cluster_audio``, each
            with its factor 1/2; their sum is Eq. 2.
        """
        losses = {}
        # A batch without any label has zero loss, not 0 / 0.
        count = (labels != IGNORE_LABEL).sum().clamp(min=1)
        for name, logits in (('visual', visual_logits), ('audio',
                                                         audio_logits)):
            total = F.cross_entropy(
                logits, labels, ignore_index=IGNORE_LABEL, reduction='sum')
            losses[f'loss_cluster_{name}'] = 0.5 * total / count
        return losses
