"""Deep multimodal clustering (Hu et al., CVPR 2019).

A row of the paper's Table 2, whose figure is that of the re-implementation
by DSOL (Hu et al., NeurIPS 2020), which this follows: two clusters of the
frame, one of the sound, a contrastive loss.
"""
from typing import Dict, List, Tuple

import torch
import torch.nn as nn
from torch import Tensor

from avdet_mm.registry import MODELS
from avdet_mm.structures import AudioVisualDataSample

from ..localizers.base_localizer import BaseLocalizer
from .pairs import contrastive_loss, other_clips


def soft_kmeans(points: Tensor,
                num_clusters: int,
                num_iters: int = 4,
                sharpness: float = 30.) -> Tuple[Tensor, Tensor]:
    """K-means that gradients pass through.

    Centers start as points at evenly spaced positions. In each iteration,
    points are assigned by a softmax over clusters of - ``sharpness`` times
    their Euclidean distance, and centers become the means by these weights.

    Args:
        points (Tensor): (B, N, D).
        num_clusters (int): K, at most N.
        num_iters (int): Defaults to 4.
        sharpness (float): Defaults to 30.

    Returns:
        tuple[Tensor, Tensor]: Centers (B, K, D) and the assignment that they
        are the means of, (B, K, N), of sum 1 along K.

    Raises:
        ValueError: If there are fewer points than clusters.
    """
    number = points.size(1)
    if number < num_clusters:
        raise ValueError(
            f'{number} locations cannot start {num_clusters} clusters: use '
            'larger frames or a backbone of smaller stride.')
    centers = points[:, ::number // num_clusters][:, :num_clusters]
    for _ in range(num_iters):
        # The quick way, by inner products, has no accurate gradient where a
        # point is its own center.
        distances = torch.cdist(
            centers, points, compute_mode='donot_use_mm_for_euclid_dist')
        assignment = (-sharpness * distances).softmax(dim=1)
        centers = assignment @ points / assignment.sum(dim=2, keepdim=True)
    return centers, assignment


@MODELS.register_module()
class DMC(BaseLocalizer):
    """Clusters of locations, one of which is to be close to the sound.

    Each location passes a fully connected layer; soft k-means groups them.
    The distance d of frame and sound is that of the sound to the closest
    visual center. 0.5 d^2 is lost for matching pairs and
    0.5 max(0, margin - d)^2 for a frame with the sound of another clip.

    A single cluster of sound has the mean as its center, and the mean passes
    through a linear layer: so it is computed.

    Args:
        visual_channels (int): Of the visual backbone's last output.
            Defaults to 512.
        audio_channels (int): Of the audio backbone's. Defaults to 512.
        embed_channels (int): Of the joint space. Defaults to 512, DSOL's.
        visual_clusters (int): Of each frame. Defaults to 2, DSOL's: what
            sounds and what does not.
        num_iters (int): Of k-means. Defaults to 4, DSOL's.
        sharpness (float): See :func:`soft_kmeans`. Defaults to 30, DSOL's.
        margin (float): See above. Defaults to 5, DSOL's.
        **kwargs: Of :class:`BaseLocalizer`: the backbones, the box
            extractor, the data preprocessor.
    """

    def __init__(self,
                 visual_channels: int = 512,
                 audio_channels: int = 512,
                 embed_channels: int = 512,
                 visual_clusters: int = 2,
                 num_iters: int = 4,
                 sharpness: float = 30.,
                 margin: float = 5.,
                 **kwargs) -> None:
        super().__init__(**kwargs)
        if visual_clusters < 2:
            raise ValueError('visual_clusters must be at least 2: one cluster '
                             f'is the whole frame; got {visual_clusters}.')
        for name, value in (('num_iters', num_iters),
                            ('sharpness', sharpness), ('margin', margin)):
            if not value > 0:
                raise ValueError(f'{name} must be above 0, got {value}.')
        self.visual_fc = nn.Linear(visual_channels, embed_channels)
        self.audio_fc = nn.Linear(audio_channels, embed_channels)
        self.visual_clusters = visual_clusters
        self.num_iters = num_iters
        self.sharpness = sharpness
        self.margin = margin

    def encode(self, frame: Tensor, audio: Tensor) -> Dict[str, Tensor]:
        """Centers and assignment.

        Returns:
            dict[str, Tensor]: ``centers`` (B, K, D), ``assignment``
            (B, K, h, w), ``audio`` (B, D); float32.
        """
        visual, audio = self.extract_feat(frame, audio)
        points = self.visual_fc(visual.flatten(2).transpose(1, 2))
        # Half precision is too coarse for 30 times a distance.
        with torch.autocast(points.device.type, enabled=False):
            centers, assignment = soft_kmeans(points.float(),
                                              self.visual_clusters,
                                              self.num_iters, self.sharpness)
        return dict(
            centers=centers,
            assignment=assignment.unflatten(2, visual.shape[2:]),
            audio=self.audio_fc(audio).float())

    @staticmethod
    def distances(centers: Tensor, audio: Tensor) -> Tensor:
        """Of sounds to visual centers.

        Args:
            centers (Tensor): (B, K, D).
            audio (Tensor): (B, D), the sound that each frame is paired with.

        Returns:
            Tensor: (B, K).
        """
        return torch.cdist(
            centers,
            audio[:, None],
            compute_mode='donot_use_mm_for_euclid_dist').squeeze(2)

    def heatmaps(self, outs: Dict[str, Tensor]) -> Tensor:
        """Assignment to the cluster closest to the sound, (B, h, w)."""
        nearest = self.distances(outs['centers'], outs['audio']).argmin(dim=1)
        assignment = outs['assignment']
        return assignment[torch.arange(len(nearest), device=nearest.device),
                          nearest]

    def loss(self, outs: Dict[str, Tensor],
             data_samples: List[AudioVisualDataSample]) -> Dict[str, Tensor]:
        """See the class and :func:`contrastive_loss`.

        Raises:
            ValueError: If the batch has one clip.
        """
        matching, other = (
            self.distances(outs['centers'], audio).amin(dim=1)
            for audio in (outs['audio'], other_clips(outs['audio'])))
        return contrastive_loss(matching, other, self.margin)
