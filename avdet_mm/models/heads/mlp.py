"""The 2-layer MLPs on top of the encoders (App. B)."""
from typing import Optional

import torch.nn as nn
from mmcv.cnn import build_norm_layer


def pointwise_mlp(in_channels: int,
                  hidden_channels: int,
                  out_channels: int,
                  norm_cfg: Optional[dict] = dict(type='BN'),
                  dropout: float = 0.) -> nn.Sequential:
    """Linear, norm, ReLU, linear at every location, as 1x1 convolutions.

    Shape:
        - Input: (B, in_channels, h, w); a vector is a 1 x 1 map.
        - Output: (B, out_channels, h, w).
    """
    layers = [
        nn.Conv2d(in_channels, hidden_channels, 1, bias=norm_cfg is None)
    ]
    if norm_cfg is not None:
        layers.append(build_norm_layer(norm_cfg, hidden_channels)[1])
    layers.append(nn.ReLU(inplace=True))
    if dropout > 0:
        layers.append(nn.Dropout(dropout))
    layers.append(nn.Conv2d(hidden_channels, out_channels, 1))
    return nn.Sequential(*layers)
