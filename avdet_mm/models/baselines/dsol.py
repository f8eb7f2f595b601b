"""DSOL: discriminative sounding objects localization, NeurIPS 2020.

Hu et al., the strongest method that the paper's Table 2 compares with, in
two stages:

1. :class:`DSOL` learns localization from clips with one source, as
   :class:`ObjectsThatSound` does, and in turn to tell clusters of the
   objects found so far from each other (:class:`DSOLClusterHook`). The
   clusters' mean features are the object dictionary.
2. :class:`DSOLStageTwo` learns from clips with several sources which entries
   of the dictionary sound, by matching what is seen where sound comes from
   with what the audio network of stage 1 hears.
"""
from typing import Dict, List, Optional, Tuple

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from avdet_mm.registry import MODELS
from avdet_mm.structures import AudioVisualDataSample

from .objects_that_sound import ObjectsThatSound

MATCHINGS = ('kl', 'bce')
# Sharpens the class maps of the test; from the authors' code.
_SHARPNESS = 3.


@MODELS.register_module()
class DSOL(ObjectsThatSound):
    """Stage 1 of DSOL: localization and classification, in turn.

    Needs :class:`DSOLClusterHook`, which decides what an epoch trains and
    assigns the labels of both classifiers.

    Args:
        num_clusters (int): K. The original has 13 on AudioSet, 11 or 20 on
            MUSIC.
        mask_threshold (float): Objects are where the location map is above
            it. Defaults to 0.05, the original's.
        visual_channels (int): Of the visual backbone's last output.
            Defaults to 512.
        audio_channels (int): Of the audio backbone's. Defaults to 512.
        **kwargs: Of :class:`ObjectsThatSound`.

    Attributes:
        dictionary (Tensor): (K, C) mean object feature of each cluster, a
            buffer; zeros before the first clustering.
        self_labels (Tensor, optional): (num_clips,) int64, set and saved by
            the hook; indexed by ``sample_idx``.
        classifying (bool): Whether :meth:`loss` is that of the classifiers
            instead of localization; set by the hook.
    """

    def __init__(self,
                 num_clusters: int,
                 mask_threshold: float = 0.05,
                 visual_channels: int = 512,
                 audio_channels: int = 512,
                 **kwargs) -> None:
        super().__init__(
            visual_channels=visual_channels,
            audio_channels=audio_channels,
            **kwargs)
        if num_clusters < 2:
            raise ValueError(
                f'num_clusters must be at least 2, got {num_clusters}.')
        if not 0 <= mask_threshold < 1:
            raise ValueError('mask_threshold is compared with probabilities '
                             'and must be at least 0 and below 1, got '
                             f'{mask_threshold}.')
        self.mask_threshold = mask_threshold
        self.visual_classifier = nn.Linear(visual_channels, num_clusters)
        self.audio_classifier = nn.Linear(audio_channels, num_clusters)
        self.register_buffer('dictionary',
                             torch.zeros(num_clusters, visual_channels))
        self.self_labels: Optional[Tensor] = None
        self.classifying = False

    @property
    def num_clusters(self) -> int:
        """K."""
        return len(self.dictionary)

    def encode(self, frame: Tensor, audio: Tensor) -> Dict[str, Tensor]:
        """Embeddings, features and logits.

        Returns:
            dict[str, Tensor]: ``visual`` (B, D, h, w), ``audio`` (B, D);
            ``features`` (B, C, h, w) of the visual backbone;
            ``visual_logits`` and ``audio_logits`` (B, K), the former of the
            whole frame.
        """
        visual_map, audio_vector = self.extract_feat(frame, audio)
        return dict(
            self.embed(visual_map, audio_vector),
            features=visual_map,
            visual_logits=self.visual_classifier(visual_map.mean(dim=(2, 3))),
            audio_logits=self.audio_classifier(audio_vector))

    def object_features(self, outs: Dict[str, Tensor]) -> Tensor:
        """What is seen where the sound comes from, for clustering.

        The location map is thresholded and the mask grown by the four
        neighbors of each location. Features outside of it count as zeros.

        Args:
            outs (dict[str, Tensor]): Of :meth:`encode`.

        Returns:
            Tensor: (B, C) mean over all locations, float32.
        """
        mask = (self.heatmaps(outs) > self.mask_threshold).float()[:, None]
        grown = torch.maximum(
            F.max_pool2d(mask, (3, 1), stride=1, padding=(1, 0)),
            F.max_pool2d(mask, (1, 3), stride=1, padding=(0, 1)))
        return (outs['features'].float() * grown).mean(dim=(2, 3))

    def classify(self, outs: Dict[str, Tensor]) -> Tuple[Tensor, Tensor]:
        """Cluster of the sound.

        Returns:
            tuple[Tensor, Tensor]: Labels (B,) int64, probabilities (B,).
        """
        scores, labels = outs['audio_logits'].float().softmax(dim=1).max(dim=1)
        return labels, scores

    def loss(self, outs: Dict[str, Tensor],
             data_samples: List[AudioVisualDataSample]) -> Dict[str, Tensor]:
        """Of localization, or cross entropy of both classifiers.

        Raises:
            RuntimeError: If there are no labels to learn.
        """
        if not self.classifying:
            return super().loss(outs, data_samples)
        if self.self_labels is None:
            raise RuntimeError(
                'The classifiers have no labels to learn. Add '
                "dict(type='avdet_mm.DSOLClusterHook', ...) to custom_hooks, "
                'and resume from a checkpoint that was trained with it.')
        index = torch.tensor([s.sample_idx for s in data_samples])
        labels = self.self_labels[index].to(outs['audio_logits'].device)
        return {
            f'loss_{name}': F.cross_entropy(
                outs[f'{name}_logits'].float(), labels)
            for name in ('visual', 'audio')
        }


@MODELS.register_module()
class DSOLStageTwo(DSOL):
    """Stage 2 of DSOL: which objects of the dictionary sound, and where.

    Starts from a checkpoint of stage 1 (``load_from``), whose audio backbone
    is also loaded into ``fixed_audio_backbone``. This one and the audio
    classifier are not trained: they say which objects are heard, softmax of
    ``audio_logits / temperature``. Location u of the frame is like object k
    by ``scale * <V_u, D_k> + offset``, with two learned numbers. Where these
    are seen is compared with what is heard:

    - ``'kl'``, the authors' code for MUSIC and the method of their text:
      times the location map, averaged over the frame, softmax over objects;
      Kullback-Leibler divergence, averaged over clips *and* objects.
    - ``'bce'``, their code for AudioSet: sigmoid, averaged over the frame;
      binary cross entropy.

    Class maps in predictions: softmax over objects of three times the
    former's product, as in the authors' test; for ``'bce'``, which has no
    published test, the sigmoid times the location map, as in their text.
    The ``heatmap`` is the location map.

    Args:
        matching (str): ``'kl'`` or ``'bce'``. Defaults to ``'kl'``.
        temperature (float): Defaults to 1, the original's for MUSIC; it has
            0.7 on AudioSet.
        loc_weight (float): Of the localization loss, which goes on.
            Defaults to 0.5, the original's for MUSIC; it has 1 on AudioSet.
        scale (float): To start from. The original draws it at random, its
            sign too. Defaults to 1.
        **kwargs: Of :class:`DSOL`.
    """

    def __init__(self,
                 audio_backbone: dict,
                 matching: str = 'kl',
                 temperature: float = 1.,
                 loc_weight: float = 0.5,
                 scale: float = 1.,
                 **kwargs) -> None:
        super().__init__(audio_backbone=audio_backbone, **kwargs)
        if matching not in MATCHINGS:
            raise ValueError(
                f'matching must be one of {MATCHINGS}, got {matching!r}.')
        if temperature <= 0 or loc_weight < 0:
            raise ValueError(
                'temperature must be > 0 and loc_weight >= 0, got '
                f'{temperature} and {loc_weight}.')
        self.matching = matching
        self.temperature = temperature
        self.loc_weight = loc_weight
        self.scale = nn.Parameter(torch.tensor(float(scale)))
        self.offset = nn.Parameter(torch.tensor(0.))
        self.fixed_audio_backbone = MODELS.build(audio_backbone)
        del self.visual_classifier
        self.fixed_audio_backbone.requires_grad_(False)
        self.audio_classifier.requires_grad_(False)

    def train(self, mode: bool = True) -> 'DSOLStageTwo':
        """Keep the norms of the fixed backbone as they are."""
        super().train(mode)
        self.fixed_audio_backbone.eval()
        return self

    def _load_from_state_dict(self, state_dict: dict, prefix: str,
                              *args) -> None:
        """Take the fixed backbone from a checkpoint of stage 1."""
        source = f'{prefix}audio_backbone.'
        target = f'{prefix}fixed_audio_backbone.'
        if not any(key.startswith(target) for key in state_dict):
            state_dict.update({
                target + key[len(source):]: value
                for key, value in state_dict.items()
                if key.startswith(source)
            })
        super()._load_from_state_dict(state_dict, prefix, *args)

    def encode(self, frame: Tensor, audio: Tensor) -> Dict[str, Tensor]:
        """Embeddings, and what is seen and heard.

        Returns:
            dict[str, Tensor]: ``visual`` (B, D, h, w), ``audio`` (B, D);
            ``class_heatmaps`` (B, K, h, w); ``visual_logits`` (B, K) of the
            objects that are seen to sound, ``audio_logits`` (B, K) of those
            that are heard.
        """
        visual_map, audio_vector = self.extract_feat(frame, audio)
        outs = self.embed(visual_map, audio_vector)
        with torch.autocast(frame.device.type, enabled=False):
            location = self.heatmaps(outs)[:, None]
            likeness = self.scale * torch.einsum(
                'bchw,kc->bkhw', visual_map.float(),
                self.dictionary) + self.offset
            if self.matching == 'kl':
                sounding = likeness * location
                outs['visual_logits'] = sounding.mean(dim=(2, 3))
                outs['class_heatmaps'] = (_SHARPNESS * sounding).softmax(dim=1)
            else:
                seen = likeness.sigmoid()
                outs['visual_logits'] = seen.mean(dim=(2, 3)).logit(eps=1e-6)
                outs['class_heatmaps'] = seen * location
        with torch.no_grad():
            heard = self.fixed_audio_backbone(audio)[-1].amax(dim=(2, 3))
            outs['audio_logits'] = self.audio_classifier(heard)
        return outs

    def loss(self, outs: Dict[str, Tensor],
             data_samples: List[AudioVisualDataSample]) -> Dict[str, Tensor]:
        """``loss_matching`` and the weighted ``loss_correspondence``."""
        losses = self.correspondence_loss(outs['visual'], outs['audio'])
        losses['loss_correspondence'] *= self.loc_weight
        heard = outs['audio_logits'].float() / self.temperature
        if self.matching == 'kl':
            losses['loss_matching'] = F.kl_div(
                outs['visual_logits'].log_softmax(dim=1),
                heard.log_softmax(dim=1),
                reduction='none',
                log_target=True).mean()
        else:
            losses['loss_matching'] = F.binary_cross_entropy_with_logits(
                outs['visual_logits'], heard.softmax(dim=1))
        return losses
