"""The localizer: joint localization and clustering (Sec. 3.1, Eq. 4)."""
from typing import Dict, List, Optional, Tuple

import torch
from torch import Tensor

from avdet_mm.registry import MODELS, TASK_UTILS
from avdet_mm.structures import AudioVisualDataSample

from .base_localizer import BaseLocalizer


@MODELS.register_module()
class AudioVisualLocalizer(BaseLocalizer):
    """Learns from clips where sounds come from and which kind they are.

    The paper's two stages are two configs: localization alone (no
    ``cluster_head``), then both heads with labels by
    :class:`SelfLabelHook`.

    Args:
        localization_head (dict): :class:`ContrastiveLocalizationHead`.
        cluster_head (dict, optional): :class:`SKClusterHead`.
        loc_weight (float): lambda of Eq. 4, whose form is lost: the loss is
            lambda * L_loc + (1 - lambda) * L_clus. Without a cluster head
            it is L_loc. Defaults to 0.5.
        flip_test (bool): In eval mode, take the mean of a frame and its
            mirror image (ours), of heatmaps and of visual logits. It costs
            a second pass of the visual encoder. Defaults to False.
        heatmap_filter (dict, optional): What refines heatmaps by their
            frames, in eval mode (ours): :class:`GuidedFilter`. Defaults to
            None.
        appearance_head (dict, optional): :class:`AppearanceHead` (ours) on
            the first output of the visual backbone, which then needs two
            ``out_indices``; in eval mode the heatmaps are the head's.
            Needs a cluster head, whose K it gets. Defaults to None.
        visual_contrast_head (dict, optional): :class:`VisualContrastHead`
            (ours), whose loss is added. Defaults to None.
        keep_embeddings (bool): Predictions keep ``visual_embedding``
            (D, h, w) and ``audio_embedding`` (D,), for
            :class:`RetrievalMetric`. Defaults to False.
        **kwargs: Of :class:`BaseLocalizer`: the backbones, the box
            extractor, the data preprocessor.
    """

    def __init__(self,
                 localization_head: dict,
                 cluster_head: Optional[dict] = None,
                 loc_weight: float = 0.5,
                 flip_test: bool = False,
                 heatmap_filter: Optional[dict] = None,
                 appearance_head: Optional[dict] = None,
                 visual_contrast_head: Optional[dict] = None,
                 keep_embeddings: bool = False,
                 **kwargs) -> None:
        super().__init__(**kwargs)
        if not 0 <= loc_weight <= 1:
            raise ValueError(
                f'loc_weight must lie in [0, 1], got {loc_weight}.')
        self.localization_head = MODELS.build(localization_head)
        self.cluster_head = (
            MODELS.build(cluster_head) if cluster_head else None)
        self.loc_weight = loc_weight
        self.flip_test = flip_test
        self.heatmap_filter = (
            TASK_UTILS.build(heatmap_filter) if heatmap_filter else None)
        if appearance_head and not cluster_head:
            raise ValueError(
                'An appearance_head learns the looks of clusters: it needs a '
                'cluster_head.')
        self.appearance_head = (
            MODELS.build(
                dict(appearance_head, num_clusters=self.num_clusters))
            if appearance_head else None)
        self.visual_contrast_head = (
            MODELS.build(visual_contrast_head)
            if visual_contrast_head else None)
        self.keep_embeddings = keep_embeddings
        #: (num_clips,) int64, set and saved by SelfLabelHook; indexed by
        #: ``sample_idx``. Not a buffer: it belongs to the training set.
        self.self_labels: Optional[Tensor] = None

    @property
    def num_clusters(self) -> Optional[int]:
        """K; None without a cluster head."""
        return self.cluster_head and self.cluster_head.num_clusters

    def encode(self, frame: Tensor, audio: Tensor) -> Dict[str, Tensor]:
        """Features of both heads.

        Returns:
            dict[str, Tensor]: ``visual`` (B, D, h, w), ``audio`` (B, D), of
            unit norm; with a cluster head ``visual_logits`` and
            ``audio_logits`` (B, K). With ``flip_test``, in eval mode,
            ``visual`` is the mean of two maps of unit norm; with
            ``heatmap_filter``, there is the ``frame``, too. With an
            appearance head, ``looks`` (B, C, h', w'). With a visual contrast
            head, in training mode, ``view`` and ``other_view``, (B, D').
        """
        heard = self.encode_audio(audio)
        outs = self._encode(frame, heard)
        if self.heatmap_filter is not None and (
                not self.training or self.appearance_head is not None):
            outs['frame'] = frame
        if self.flip_test and not self.training:
            mirrored = self._encode(frame.flip(3), heard)
            # The heatmap is linear in it: its mean is that of heatmaps.
            outs['visual'] = (outs['visual'] + mirrored['visual'].flip(3)) / 2
            if self.cluster_head is not None:
                outs['visual_logits'] = (outs['visual_logits'] +
                                         mirrored['visual_logits']) / 2
            if self.appearance_head is not None:
                outs['looks'] = (outs['looks'] + mirrored['looks'].flip(3)) / 2
        return outs

    def _encode(self, frame: Tensor, heard: Tensor) -> Dict[str, Tensor]:
        """Of the frame as it is and an audio vector."""
        maps = self.visual_backbone(frame)
        features = maps[-1], heard
        visual, audio = self.localization_head(*features)
        outs = dict(visual=visual, audio=audio)
        if self.cluster_head is not None:
            outs['visual_logits'], outs['audio_logits'] = self.cluster_head(
                *features)
        if self.appearance_head is not None:
            if len(maps) < 2:
                raise ValueError(
                    'The appearance_head works on the first of two outputs '
                    'of the visual_backbone, which has one: set its '
                    'out_indices, to (1, 3), say.')
            outs['looks'] = self.appearance_head(maps[0])
        if self.visual_contrast_head is not None and self.training:
            head = self.visual_contrast_head
            outs['view'] = head(maps[-1])
            outs['other_view'] = head(
                self.visual_backbone(head.other_view(frame))[-1])
        return outs

    def heatmaps(self, outs: Dict[str, Tensor]) -> Tensor:
        """Cosines of each location with the clip's own sound, (B, h, w).

        With an appearance head, what near them looks like the clip's cluster.
        With ``heatmap_filter``, in eval mode, refined: finer, and no cosines
        any more.
        """
        heatmaps = self._cosines(outs)
        if 'looks' in outs:
            heatmaps = self.appearance_head.predict(outs['looks'], heatmaps,
                                                    self.classify(outs)[0])
        return self._filter(heatmaps, outs)

    def _cosines(self, outs: Dict[str, Tensor]) -> Tensor:
        return self.localization_head.heatmaps(outs['visual'], outs['audio'])

    def _filter(self,
                heatmaps: Tensor,
                outs: Dict[str, Tensor],
                size: Optional[Tuple[int, int]] = None) -> Tensor:
        if 'frame' in outs:
            heatmaps = self.heatmap_filter(heatmaps, outs['frame'], size)
        return heatmaps

    def classify(self,
                 outs: Dict[str, Tensor]) -> Optional[Tuple[Tensor, Tensor]]:
        """Eq. 6; None without a cluster head."""
        if self.cluster_head is None:
            return None
        return self.cluster_head.predict(outs['visual_logits'],
                                         outs['audio_logits'])

    def predict(self, outs: Dict[str, Tensor],
                data_samples: List[AudioVisualDataSample],
                input_shape: tuple) -> List[AudioVisualDataSample]:
        """As all localizers; with embeddings, if they are to be kept."""
        super().predict(outs, data_samples, input_shape)
        if self.keep_embeddings:
            for i, sample in enumerate(data_samples):
                # Copies: a view would carry the whole batch along.
                sample.visual_embedding = outs['visual'][i].clone()
                sample.audio_embedding = outs['audio'][i].clone()
        return data_samples

    def loss(self, outs: Dict[str, Tensor],
             data_samples: List[AudioVisualDataSample]) -> Dict[str, Tensor]:
        """Eq. 4, and the losses of our other heads."""
        losses = self._loss(outs, data_samples)
        if self.visual_contrast_head is not None:
            losses.update(
                self.visual_contrast_head.loss(outs['view'],
                                               outs['other_view']))
        return losses

    def _loss(self, outs: Dict[str, Tensor],
              data_samples: List[AudioVisualDataSample]) -> Dict[str, Tensor]:
        """Without visual self-supervision."""
        if self.cluster_head is None:
            return self.localization_head.loss(outs['visual'], outs['audio'])
        if self.self_labels is None:
            raise RuntimeError(
                'The cluster head has no labels to learn. Add '
                "dict(type='avdet_mm.SelfLabelHook', ...) to custom_hooks.")
        index = torch.tensor([s.sample_idx for s in data_samples])
        labels = self.self_labels[index].to(outs['visual_logits'].device)
        losses = self.localization_head.loss(outs['visual'], outs['audio'],
                                             labels)
        losses['loss_loc'] = self.loc_weight * losses['loss_loc']
        clustering = self.cluster_head.loss(outs['visual_logits'],
                                            outs['audio_logits'], labels)
        for name, value in clustering.items():
            losses[name] = (1 - self.loc_weight) * value
        if self.appearance_head is not None:
            with torch.no_grad():
                heatmaps = self._filter(
                    self._cosines(outs), outs, outs['looks'].shape[2:])
            losses.update(
                self.appearance_head.loss(outs['looks'], heatmaps,
                                          labels))
        return losses
