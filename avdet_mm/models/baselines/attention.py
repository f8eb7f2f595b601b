"""Attention: learning to localize sound source (Senocak et al., CVPR 2018).

A row of the paper's Table 2, whose figure is that of the re-implementation
by DSOL (Hu et al., NeurIPS 2020).
"""
from typing import Dict, List, Optional, Tuple

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from avdet_mm.registry import MODELS
from avdet_mm.structures import AudioVisualDataSample

from ..localizers.base_localizer import BaseLocalizer
from .pairs import contrastive_loss, other_clips


@MODELS.register_module()
class AttentionLocalizer(BaseLocalizer):
    """Sound attends to locations whose mean it has to look like.

    With the features V_u of a frame's locations and s of a sound,

    * h = FC(ReLU(FC(s))) and att = softmax_u(ReLU(cos(V_u, h)) / T),
    * z = sum_u att_u V_u and f = FC(ReLU(FC(ReLU(z)))),
    * the distance of frame and sound is d = ||f - s||.

    With d+ of the frame and its own sound and d- of the frame and the sound
    of another clip, the loss is the mean of (softmax([d+, d-]) - [0, 1])^2:
    0.25 when both are equal.

    The original has fixed features, of VGG-16 and SoundNet. Here they are
    learned, as in DSOL; and as there, each sound of a pair attends to the
    frame itself, where the original has d- from the f of the own sound. That
    f may depend on the sound alone when features are learned: pairs are told
    apart without looking. DSOL also has another loss, see ``margin``.

    Args:
        visual_channels (int): Of the visual backbone's last output.
            Defaults to 512.
        audio_channels (int): Of the audio backbone's. Defaults to 512.
        relu (bool): Whether negative cosines count as 0: True in the
            original, False in DSOL. Defaults to True.
        temperature (float): T. Defaults to 1, that of both: no location has
            more than e times the weight of another (with ``relu``).
        margin (float, optional): With a number (10 in DSOL), the contrastive
            loss of d+ and d-, :func:`contrastive_loss`. Defaults to None,
            the original's loss.
        **kwargs: Of :class:`BaseLocalizer`: the backbones, the box
            extractor, the data preprocessor.
    """

    def __init__(self,
                 visual_channels: int = 512,
                 audio_channels: int = 512,
                 relu: bool = True,
                 temperature: float = 1.,
                 margin: Optional[float] = None,
                 **kwargs) -> None:
        super().__init__(**kwargs)
        for name, value in (('temperature', temperature), ('margin', margin)):
            if value is not None and not value > 0:
                raise ValueError(f'{name} must be above 0, got {value}.')
        self.relu = relu
        self.temperature = temperature
        self.margin = margin
        self.audio_fc = nn.Sequential(
            nn.Linear(audio_channels, audio_channels), nn.ReLU(inplace=True),
            nn.Linear(audio_channels, visual_channels))
        self.visual_fc = nn.Sequential(
            nn.ReLU(), nn.Linear(visual_channels, visual_channels),
            nn.ReLU(inplace=True), nn.Linear(visual_channels, audio_channels))

    def encode(self, frame: Tensor, audio: Tensor) -> Dict[str, Tensor]:
        """Features and attention.

        Returns:
            dict[str, Tensor]: ``visual`` (B, C, h, w), ``audio`` (B, C'),
            ``attention`` (B, h, w), ``attended`` (B, C').
        """
        visual, audio = self.extract_feat(frame, audio)
        attention, attended = self.attend(visual, audio)
        return dict(
            visual=visual,
            audio=audio,
            attention=attention,
            attended=attended)

    def attend(self, visual: Tensor, audio: Tensor) -> Tuple[Tensor, Tensor]:
        """What sounds look at.

        Args:
            visual (Tensor): (B, C, h, w).
            audio (Tensor): (B, C'), the sound that each frame is paired with.

        Returns:
            tuple[Tensor, Tensor]: Attention (B, h, w) float32, of sum 1, and
            f of the class's formula, (B, C').
        """
        query = F.normalize(self.audio_fc(audio).float(), dim=1)
        cosines = torch.einsum('bchw,bc->bhw',
                               F.normalize(visual.float(), dim=1), query)
        if self.relu:
            cosines = cosines.relu()
        attention = (cosines.flatten(1) /
                     self.temperature).softmax(dim=1).view_as(cosines)
        pooled = torch.einsum('bchw,bhw->bc', visual.float(), attention)
        return attention, self.visual_fc(pooled)

    def heatmaps(self, outs: Dict[str, Tensor]) -> Tensor:
        """Attention, from 0 to 1 in every frame: (B, h, w).

        Where the attention is the same everywhere, 0.
        """
        attention = outs['attention']
        low = attention.amin(dim=(1, 2), keepdim=True)
        high = attention.amax(dim=(1, 2), keepdim=True)
        # Attention sums up to 1: differences far below 1 / (h w) are rounding.
        least = torch.finfo(torch.float32).eps / attention[0].numel()
        return (attention - low) / (high - low).clamp(min=least)

    def loss(self, outs: Dict[str, Tensor],
             data_samples: List[AudioVisualDataSample]) -> Dict[str, Tensor]:
        """See the class.

        Returns:
            dict[str, Tensor]: ``loss_pairs``; for the log ``accuracy``, the
            share of clips whose own sound is the closer one (0.5 by chance),
            and ``distance``, the mean to the own sound.

        Raises:
            ValueError: If the batch has one clip.
        """
        sound = outs['audio']
        other = other_clips(sound)
        matching = _distance(outs['attended'], sound)
        _, attended = self.attend(outs['visual'], other)
        distance = _distance(attended, other)
        if self.margin is not None:
            return contrastive_loss(matching, distance, self.margin)
        # Both entries of the softmax miss their target by the same.
        loss = torch.sigmoid(matching - distance).square().mean()
        return dict(
            loss_pairs=loss,
            accuracy=(matching.detach() < distance.detach()).float().mean(),
            distance=matching.detach().mean())


def _distance(x: Tensor, y: Tensor) -> Tensor:
    """Euclidean, (B, D) and (B, D) to (B,) float32."""
    return F.pairwise_distance(x.float(), y.float())
