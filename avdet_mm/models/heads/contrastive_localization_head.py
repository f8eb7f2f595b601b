"""Sound source localization by contrast (Sec. 3.1, Eq. 1)."""
import math
from typing import Dict, Optional, Tuple, Union

import torch
import torch.nn as nn
import torch.nn.functional as F
from mmengine.dist import all_gather, all_reduce, get_rank, get_world_size
from mmengine.model import BaseModule
from torch import Tensor

from avdet_mm.registry import MODELS

from .mlp import pointwise_mlp
from .pair_scores import pair_scores
from .sk_cluster_head import IGNORE_LABEL


class _GatherWithGrad(torch.autograd.Function):
    # PyTorch's differentiable all_gather mixes up gradients that are not
    # contiguous, e.g. of a transposed matrix.

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.rank, ctx.size = get_rank(), len(x)
        return torch.cat(all_gather(x.contiguous()))

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        grad = grad.clone(memory_format=torch.contiguous_format)
        all_reduce(grad, 'sum')
        return grad.narrow(0, ctx.rank * ctx.size, ctx.size)


def gather_with_grad(x: Tensor) -> Tensor:
    """Concatenate ``x`` of all ranks; its gradients are summed over ranks.

    When every rank computes the same loss from what it gathered, each local
    gradient comes back ``world_size`` times; the averaging of
    DistributedDataParallel takes that factor out again, so the update is
    exactly that of one process with the whole batch.
    """
    return x if get_world_size() == 1 else _GatherWithGrad.apply(x)


@MODELS.register_module()
class ContrastiveLocalizationHead(BaseModule):
    """Cosine heatmaps between a sound and every location of a frame.

    Both modalities pass a 2-layer MLP and are L2-normalized. The score of
    frame i and sound j pools the heatmap of *that pair* over locations.

    Args:
        visual_channels (int): Channels of the visual feature map.
        audio_channels (int): Channels of the audio vector.
        hidden_channels (int): Of the MLPs. The paper's value is lost; 512
            as in SeLaVi. Defaults to 512.
        embed_channels (int): Of the joint space. The paper's value is lost;
            1024 as in the first author's earlier work. Defaults to 1024.
        pooling (str | float): ``'mean'`` (pre-training), ``'max'`` (joint
            training), or a share in (0, 1): the mean over that share of
            best locations, ours, see :class:`AnnealedPoolingHook`.
            Defaults to ``'max'``.
        temperature (float): Initial temperature; cosines are divided by it.
            It is learned as the scalar log(1 / temperature), and 1 /
            temperature is clamped to 100. Defaults to 0.07.
        norm_cfg (dict, optional): Norm in the MLPs. Defaults to BN.
        same_cluster_negatives (bool): Whether the sound of another clip
            with the same self-label is a negative, as in the paper. If not
            (ours), such pairs are left out of the contrast; it takes effect
            once clips have labels. Defaults to True.
        loss (dict): Defaults to :class:`SymmetricInfoNCE`.
    """

    max_scale = 100.

    def __init__(self,
                 visual_channels: int = 512,
                 audio_channels: int = 512,
                 hidden_channels: int = 512,
                 embed_channels: int = 1024,
                 pooling: Union[str, float] = 'max',
                 temperature: float = 0.07,
                 norm_cfg: Optional[dict] = dict(type='BN'),
                 same_cluster_negatives: bool = True,
                 loss: dict = dict(type='avdet_mm.SymmetricInfoNCE'),
                 init_cfg: Optional[dict] = None) -> None:
        super().__init__(init_cfg)
        if not temperature > 0:
            raise ValueError(f'temperature must be > 0, got {temperature}.')
        self.visual_mlp = pointwise_mlp(visual_channels, hidden_channels,
                                        embed_channels, norm_cfg)
        self.audio_mlp = pointwise_mlp(audio_channels, hidden_channels,
                                       embed_channels, norm_cfg)
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))
        self.same_cluster_negatives = same_cluster_negatives
        self.loss_module = MODELS.build(loss)
        self.set_pooling(pooling)

    def set_pooling(self, pooling: Union[str, float]) -> None:
        """Choose how heatmaps are pooled into scores.

        Args:
            pooling (str | float): ``'max'``, ``'mean'``, or a share in
                (0, 1) of best locations to average.
        """
        if pooling not in ('max', 'mean') and not (isinstance(
                pooling, float) and 0 < pooling < 1):
            raise ValueError("pooling must be 'max', 'mean' or a share of "
                             f'locations in (0, 1), got {pooling!r}.')
        self.pooling = pooling

    @property
    def scale(self) -> Tensor:
        """Inverse temperature, a scalar in (0, 100]."""
        return self.log_scale.exp().clamp(max=self.max_scale)

    def forward(self, visual_map: Tensor,
                audio_vector: Tensor) -> Tuple[Tensor, Tensor]:
        """Embed both modalities.

        Args:
            visual_map (Tensor): (B, visual_channels, h, w).
            audio_vector (Tensor): (B, audio_channels).

        Returns:
            tuple: (B, D, h, w) and (B, D), both of unit norm along D.
        """
        # For 1x1 convolutions and pair_scores it is the faster memory.
        visual = self.visual_mlp(
            visual_map.contiguous(memory_format=torch.channels_last))
        return (F.normalize(visual.float(), dim=1),
                self.embed_audio(audio_vector))

    def embed_audio(self, audio_vector: Tensor) -> Tensor:
        """Embed sounds alone: (B, D), of unit norm."""
        audio = self.audio_mlp(audio_vector[..., None, None]).flatten(1)
        return F.normalize(audio.float(), dim=1)

    @staticmethod
    def heatmaps(visual: Tensor, audio: Tensor) -> Tensor:
        """Cosines of each frame with its own sound: (B, h, w) in [-1, 1]."""
        with torch.autocast(visual.device.type, enabled=False):
            return torch.einsum('bchw,bc->bhw', visual, audio)

    def scores(self, visual: Tensor, audio: Tensor) -> Tensor:
        """Pooled cosines of every frame with every sound.

        Args:
            visual (Tensor): (B, D, h, w).
            audio (Tensor): (B', D).

        Returns:
            Tensor: (B, B') float32 or float64, without the temperature. See
            :func:`pair_scores`.
        """
        return pair_scores(visual, audio, self.pooling)

    def loss(self,
             visual: Tensor,
             audio: Tensor,
             labels: Optional[Tensor] = None) -> Dict[str, Tensor]:
        """Eq. 1 over the batches of all ranks.

        Only audio vectors, labels and rows of scores are exchanged, never
        feature maps. All ranks must have equally many samples.

        Args:
            visual (Tensor): (B, D, h, w).
            audio (Tensor): (B, D).
            labels (Tensor, optional): (B,) int64 self-labels, -1 for none;
                used without ``same_cluster_negatives``.

        Returns:
            dict: ``loss_loc``; for the log ``loc_chance``, the value
            log(B) that the loss has when nothing is learned, ``retrieval``,
            the share of frames whose own sound scores best, and ``scale``.
        """
        rows = self.scores(visual, gather_with_grad(audio))
        scores = gather_with_grad(rows * self.scale)
        if labels is not None and not self.same_cluster_negatives:
            labels = torch.cat(all_gather(labels.contiguous()))
            same = (labels[:, None] == labels) & (labels != IGNORE_LABEL)
            scores = scores.masked_fill(same.fill_diagonal_(False), -math.inf)
        target = torch.arange(scores.size(0), device=scores.device)
        hits = (scores.detach().argmax(dim=1) == target).float().mean()
        return dict(
            loss_loc=self.loss_module(scores),
            loc_chance=scores.new_tensor(math.log(scores.size(0))),
            retrieval=hits,
            scale=self.scale.detach())
