"""AVOL-Net, the encoder of frames and of spectrograms (App. B).

Topology of "Objects that Sound" (Arandjelovic and Zisserman, ECCV 2018,
Fig. 2): four stages of two 3x3 convolutions, each followed by batch norm and
ReLU; 2x2 max pooling after the first three stages.
"""
from typing import Sequence, Tuple

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from avdet_mm.registry import MODELS


@MODELS.register_module()
class AVOLNet(BaseModule):
    """Eight convolutions for an image or a spectrogram.

    It serves as the localizer's visual and audio encoder and, with
    ``out_indices``, as the backbone of an MMDetection detector. With the
    defaults a (B, 3, 224, 224) image becomes (B, 512, 14, 14) and a
    (B, 1, 257, 99) spectrogram (B, 512, 16, 6).

    Args:
        in_channels (int): 3 for images, 1 for spectrograms. Defaults to 3.
        base_channels (int): Width of the first stage; it doubles from stage
            to stage. Defaults to 64.
        first_stride (int): Stride of the very first convolution.
            Defaults to 2.
        pooled_stages (Sequence[int]): Stages whose outputs are max pooled
            before the next stage. Defaults to (0, 1, 2); fewer make the
            heatmap finer.
        kernel_sizes (Sequence[int]): Of both convolutions of each stage.
            1 in the last stages (ours) keeps the receptive field small: a
            heatmap is blurred by it, alike in all directions, and boxes of
            long objects become too square. Defaults to (3, 3, 3, 3).
        out_indices (Sequence[int]): Stages whose outputs are returned.
            Defaults to (3, ).
        frozen_stages (int): Stages ``0 .. frozen_stages`` are frozen; -1
            freezes none. Defaults to -1.
        norm_cfg (dict): Defaults to ``dict(type='BN')``.
        norm_eval (bool): Keep batch norm in eval mode. Defaults to False.
        init_cfg (dict, optional): Defaults to Kaiming for convolutions.

    Shape:
        - Input: (B, in_channels, H, W).
        - Output: tuple of (B, base_channels * 2**i, H / s, W / s) for each
          stage i of ``out_indices``, where s is ``first_stride`` times 2 for
          each pooled stage before i.
    """

    num_stages = 4

    def __init__(self,
                 in_channels: int = 3,
                 base_channels: int = 64,
                 first_stride: int = 2,
                 pooled_stages: Sequence[int] = (0, 1, 2),
                 kernel_sizes: Sequence[int] = (3, 3, 3, 3),
                 out_indices: Sequence[int] = (3, ),
                 frozen_stages: int = -1,
                 norm_cfg: dict = dict(type='BN'),
                 norm_eval: bool = False,
                 init_cfg: dict = None) -> None:
        if init_cfg is None:
            init_cfg = dict(type='Kaiming', layer='Conv2d', mode='fan_out')
        super().__init__(init_cfg)
        if not out_indices or not set(out_indices) <= set(
                range(self.num_stages)):
            raise ValueError(
                f'out_indices must lie in 0..{self.num_stages - 1}, at least '
                f'one, got {tuple(out_indices)}.')
        if len(kernel_sizes) != self.num_stages or any(
                size < 1 or size % 2 == 0 for size in kernel_sizes):
            raise ValueError(f'kernel_sizes must be {self.num_stages} odd '
                             f'numbers, got {tuple(kernel_sizes)}.')
        if frozen_stages > max(out_indices):
            raise ValueError(
                f'frozen_stages must be at most {max(out_indices)}, the last '
                f'stage of out_indices, got {frozen_stages}.')
        self.out_indices = tuple(out_indices)
        self.pooled_stages = tuple(pooled_stages)
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.out_channels = [base_channels * 2**i for i in self.out_indices]
        for i in range(max(self.out_indices) + 1):
            channels = base_channels * 2**i
            for j in (1, 2):
                stride = first_stride if (i, j) == (0, 1) else 1
                self.add_module(
                    f'conv{i + 1}_{j}',
                    ConvModule(
                        in_channels,
                        channels,
                        kernel_sizes[i],
                        stride=stride,
                        padding=kernel_sizes[i] // 2,
                        norm_cfg=norm_cfg))
                in_channels = channels
        # Optimizers and DDP look at it before training starts.
        self._freeze()

    def _freeze(self) -> None:
        for i in range(self.frozen_stages + 1):
            for conv in self._stage(i):
                conv.eval()
                conv.requires_grad_(False)

    def _stage(self, i: int) -> Tuple[ConvModule, ConvModule]:
        return (getattr(self, f'conv{i + 1}_1'),
                getattr(self, f'conv{i + 1}_2'))

    def forward(self, x: Tensor) -> Tuple[Tensor, ...]:
        """Return the feature maps of ``out_indices``, fine to coarse."""
        outs = []
        for i in range(max(self.out_indices) + 1):
            if i - 1 in self.pooled_stages:
                x = F.max_pool2d(x, 2)
            # A third faster on CPUs; a no-op once it has been done.
            x = x.contiguous(memory_format=torch.channels_last)
            for conv in self._stage(i):
                x = conv(x)
            if i in self.out_indices:
                # MMCV's RoIAlign takes any memory for channels-first.
                outs.append(x.contiguous())
        return tuple(outs)

    def train(self, mode: bool = True) -> 'AVOLNet':
        """Set the mode, but keep frozen parts and batch norm as asked."""
        super().train(mode)
        self._freeze()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self
