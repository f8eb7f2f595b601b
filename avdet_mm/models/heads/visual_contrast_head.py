"""Visual self-supervision on the same frames (ours, not the paper's)."""
from typing import Dict

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor

from avdet_mm.registry import MODELS

from .contrastive_localization_head import gather_with_grad
from .mlp import pointwise_mlp


@MODELS.register_module()
class VisualContrastHead(BaseModule):
    """SimCLR's loss on two views of each frame.

    One view is the frame that sees its sound, the other a part of it, maybe
    mirrored, with other brightness and colors. Both are averaged over
    locations and pass a 2-layer MLP; of all frames of the batch, a view has
    to find its own other view (NT-Xent of https://arxiv.org/abs/2002.05709,
    Eq. 1). It costs a second pass of the visual encoder.

    Args:
        in_channels (int): Of the visual feature map.
        hidden_channels (int): Of the MLP. Defaults to 256.
        embed_channels (int): Of its output. Defaults to 128.
        temperature (float): Cosines are divided by it. Defaults to 0.2.
        loss_weight (float): Defaults to 0.5.
        min_side (float): Smallest side of a part, as a share of the frame's.
            Defaults to 0.6.
        jitter (float): Brightness is moved by up to this many standard
            deviations of the data preprocessor, contrast and each channel
            are multiplied by between 1 - jitter and 1 + jitter. Defaults to
            0.4.
        norm_cfg (dict): Norm in the MLP. Defaults to BN.
    """

    def __init__(self,
                 in_channels: int,
                 hidden_channels: int = 256,
                 embed_channels: int = 128,
                 temperature: float = 0.2,
                 loss_weight: float = 0.5,
                 min_side: float = 0.6,
                 jitter: float = 0.4,
                 norm_cfg: dict = dict(type='BN'),
                 init_cfg: dict = None) -> None:
        super().__init__(init_cfg)
        if not temperature > 0:
            raise ValueError(f'temperature must be > 0, got {temperature}.')
        if not (0 < min_side <= 1 and 0 <= jitter < 1):
            raise ValueError('VisualContrastHead needs 0 < min_side <= 1 and '
                             '0 <= jitter < 1.')
        self.temperature = temperature
        self.loss_weight = loss_weight
        self.min_side = min_side
        self.jitter = jitter
        self.mlp = pointwise_mlp(in_channels, hidden_channels, embed_channels,
                                 norm_cfg)

    def other_view(self, frame: Tensor) -> Tensor:
        """A random view of each frame.

        Args:
            frame (Tensor): (B, 3, H, W) float32, normalized.

        Returns:
            Tensor: Of the same shape.
        """
        count = len(frame)

        def uniform(low: float, high: float, *shape: int) -> Tensor:
            return torch.empty(
                count, *shape, device=frame.device).uniform_(low, high)

        side = uniform(self.min_side, 1.)
        # From the frame's middle, half of its side being 1.
        x, y = ((1 - side) * uniform(-1., 1.) for _ in range(2))
        mirrored = uniform(-1., 1.).sign()
        zero = torch.zeros_like(side)
        transform = torch.stack([side * mirrored, zero, x, zero, side, y],
                                dim=1).view(-1, 2, 3)
        grid = F.affine_grid(transform, frame.shape, align_corners=False)
        view = F.grid_sample(
            frame, grid, padding_mode='border', align_corners=False)
        gain = uniform(1 - self.jitter, 1 + self.jitter, 1, 1, 1) * uniform(
            1 - self.jitter, 1 + self.jitter, 3, 1, 1)
        shift = uniform(-self.jitter, self.jitter, 1, 1, 1)
        return view * gain + shift

    def forward(self, visual_map: Tensor) -> Tensor:
        """Embed frames.

        Args:
            visual_map (Tensor): (B, in_channels, h, w).

        Returns:
            Tensor: (B, embed_channels) float32 of unit norm.
        """
        mean = visual_map.mean(dim=(2, 3), keepdim=True)
        return F.normalize(self.mlp(mean).flatten(1).float(), dim=1)

    def loss(self, one: Tensor, other: Tensor) -> Dict[str, Tensor]:
        """NT-Xent over the batches of all ranks.

        Args:
            one (Tensor): (B, embed_channels), of :meth:`forward`.
            other (Tensor): Likewise, of the other views.

        Returns:
            dict: ``loss_visual_contrast``.
        """
        one, other = gather_with_grad(one), gather_with_grad(other)
        views = torch.cat([one, other])
        logits = views @ views.t() / self.temperature
        # No view is compared with itself.
        logits = logits.masked_fill(
            torch.eye(len(views), dtype=torch.bool, device=views.device),
            -torch.inf)
        target = torch.arange(len(views), device=views.device).roll(len(one))
        return dict(
            loss_visual_contrast=self.loss_weight *
            F.cross_entropy(logits, target))
