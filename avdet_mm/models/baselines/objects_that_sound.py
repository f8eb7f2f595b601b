"""Objects that sound: AVOL-Net (Arandjelovic and Zisserman, ECCV 2018).

A row of the paper's Table 2. Also what the first stage of DSOL (Hu et al.,
NeurIPS 2020) learns localization by.
"""
from typing import Dict, List, Tuple

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from avdet_mm.registry import MODELS
from avdet_mm.structures import AudioVisualDataSample

from ..localizers.base_localizer import BaseLocalizer
from .pairs import other_clips


@MODELS.register_module()
class ObjectsThatSound(BaseLocalizer):
    """Does any location of the frame correspond to the sound?

    The map of a frame v and a sound a is sigmoid(w <v_u, a> + b) with two
    learned numbers w and b; its maximum is the probability that both are of
    the same clip, learned by binary cross entropy. Embeddings are not
    normalized, as in the original.

    To build on it: :meth:`extract_feat` gives the features of the backbones,
    :meth:`embed` what maps are computed from, :meth:`logits` the maps of any
    pairs, :meth:`correspondence_loss` the loss.

    Args:
        visual_channels (int): Of the visual backbone's last output.
            Defaults to 512.
        audio_channels (int): Of the audio backbone's. Defaults to 512.
        embed_channels (int): Of hidden layers and of the joint space.
            Defaults to 128, the original's.
        num_negatives (int): Sounds of other clips that each frame is
            compared with. Matching pairs weigh as much as all others
            together. Defaults to 1, the original's.
        **kwargs: Of :class:`BaseLocalizer`: the backbones, the box
            extractor, the data preprocessor.
    """

    def __init__(self,
                 visual_channels: int = 512,
                 audio_channels: int = 512,
                 embed_channels: int = 128,
                 num_negatives: int = 1,
                 **kwargs) -> None:
        super().__init__(**kwargs)
        if num_negatives < 1:
            raise ValueError('num_negatives must be at least 1: without '
                             'pairs that do not match, all maps become 1; '
                             f'got {num_negatives}.')
        self.num_negatives = num_negatives
        self.visual_embedding = nn.Sequential(
            nn.Conv2d(visual_channels, embed_channels, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(embed_channels, embed_channels, 1))
        self.audio_embedding = nn.Sequential(
            nn.Linear(audio_channels, embed_channels),
            nn.ReLU(inplace=True), nn.Linear(embed_channels, embed_channels))
        # w and b; how they start is not said.
        self.weight = nn.Parameter(torch.tensor(1.))
        self.bias = nn.Parameter(torch.tensor(0.))

    def extract_feat(self, frame: Tensor,
                     audio: Tensor) -> Tuple[Tensor, Tensor]:
        """Encode both modalities; sounds by the *maximum* over locations.

        Args:
            frame (Tensor): (B, 3, H, W).
            audio (Tensor): (B, 1, n_mels, T).

        Returns:
            tuple[Tensor, Tensor]: Visual map (B, C, h, w), audio vector
            (B, C').
        """
        return (self.visual_backbone(frame)[-1],
                self.audio_backbone(audio)[-1].amax(dim=(2, 3)))

    def embed(self, visual_map: Tensor,
              audio_vector: Tensor) -> Dict[str, Tensor]:
        """From what :meth:`extract_feat` returns to the joint space.

        Args:
            visual_map (Tensor): (B, C, h, w).
            audio_vector (Tensor): (B, C').

        Returns:
            dict[str, Tensor]: ``visual`` (B, D, h, w), ``audio`` (B, D).
        """
        return dict(
            visual=self.visual_embedding(visual_map),
            audio=self.audio_embedding(audio_vector))

    def encode(self, frame: Tensor, audio: Tensor) -> Dict[str, Tensor]:
        """Embeddings: ``visual`` (B, D, h, w), ``audio`` (B, D)."""
        return self.embed(*self.extract_feat(frame, audio))

    def logits(self, visual: Tensor, audio: Tensor) -> Tensor:
        """Maps before the sigmoid.

        Args:
            visual (Tensor): (B, D, h, w).
            audio (Tensor): (B, D), the sound that each frame is paired with.

        Returns:
            Tensor: (B, h, w) float32.
        """
        with torch.autocast(visual.device.type, enabled=False):
            products = torch.einsum('bchw,bc->bhw', visual.float(),
                                    audio.float())
            return self.weight * products + self.bias

    def heatmaps(self, outs: Dict[str, Tensor]) -> Tensor:
        """Probability of each location to be what sounds, (B, h, w)."""
        return self.logits(outs['visual'], outs['audio']).sigmoid()

    def correspondence_loss(self, visual: Tensor,
                            audio: Tensor) -> Dict[str, Tensor]:
        """Binary cross entropy of pairs that match and that do not.

        The sigmoid grows, so the maximum is taken before it.

        Args:
            visual (Tensor): (B, D, h, w).
            audio (Tensor): (B, D), row i of the same clip as row i of
                ``visual``.

        Returns:
            dict[str, Tensor]: ``loss_correspondence``, log(2) when nothing
            is learned; for the log ``accuracy``, the share of pairs that
            score higher when they match (0.5 by chance).

        Raises:
            ValueError: If the batch has no more than ``num_negatives``
                clips.
        """
        matching = self.logits(visual, audio).amax(dim=(1, 2))
        others = torch.stack([
            self.logits(visual, other_clips(audio, shift)).amax(dim=(1, 2))
            for shift in range(1, self.num_negatives + 1)
        ])
        # -log(sigmoid(s)), -log(1 - sigmoid(s))
        loss = F.softplus(-matching).mean() + F.softplus(others).mean()
        return dict(
            loss_correspondence=0.5 * loss,
            accuracy=(matching > others).float().mean())

    def loss(self, outs: Dict[str, Tensor],
             data_samples: List[AudioVisualDataSample]) -> Dict[str, Tensor]:
        """See :meth:`correspondence_loss`."""
        return self.correspondence_loss(outs['visual'], outs['audio'])
