"""What all localizers share: frame and sound in, heatmap and boxes out."""
from abc import ABCMeta, abstractmethod
from typing import Dict, List, Optional, Tuple, Union

import torch
from mmengine.model import BaseModel
from mmengine.structures import InstanceData
from torch import Tensor

from avdet_mm.registry import MODELS, TASK_UTILS
from avdet_mm.structures import AudioVisualDataSample

from ..task_modules.heatmap_box_extractor import boxes_to_original

# Outputs that predictions keep, where a localizer has them.
_KEPT = ('visual_logits', 'audio_logits', 'class_heatmaps')


class BaseLocalizer(BaseModel, metaclass=ABCMeta):
    """Base of the localizer and of the heatmap baselines.

    A method implements :meth:`encode`, :meth:`loss` and :meth:`heatmaps`,
    and :meth:`classify` if it gives clips a class or cluster.

    Args:
        visual_backbone (dict): Frame encoder; its last output is used.
        audio_backbone (dict): Spectrogram encoder; its last output is
            averaged over time and frequency.
        box_extractor (dict): Used in predict mode. Defaults to
            :class:`HeatmapBoxExtractor` with its defaults.
        data_preprocessor (dict, optional): Defaults to
            :class:`AudioVisualDataPreprocessor` with its defaults.
        init_cfg (dict, optional): Defaults to None.
    """

    def __init__(
        self,
        visual_backbone: dict,
        audio_backbone: dict,
        box_extractor: dict = dict(type='avdet_mm.HeatmapBoxExtractor'),
        data_preprocessor: Optional[dict] = None,
        init_cfg: Optional[dict] = None,
    ) -> None:
        if data_preprocessor is None:
            data_preprocessor = dict(
                type='avdet_mm.AudioVisualDataPreprocessor')
        if isinstance(data_preprocessor, dict):
            data_preprocessor = MODELS.build(data_preprocessor)
        super().__init__(data_preprocessor, init_cfg)
        self.visual_backbone = MODELS.build(visual_backbone)
        self.audio_backbone = MODELS.build(audio_backbone)
        self.box_extractor = TASK_UTILS.build(box_extractor)

    def extract_feat(self, frame: Tensor,
                     audio: Tensor) -> Tuple[Tensor, Tensor]:
        """Encode both modalities.

        Args:
            frame (Tensor): (B, 3, H, W).
            audio (Tensor): (B, 1, n_mels, T).

        Returns:
            tuple[Tensor, Tensor]: Visual map (B, C, h, w), audio vector
            (B, C').
        """
        return self.visual_backbone(frame)[-1], self.encode_audio(audio)

    def encode_audio(self, audio: Tensor) -> Tensor:
        """Audio vector, (B, C'), of (B, 1, n_mels, T)."""
        return self.audio_backbone(audio)[-1].mean(dim=(2, 3))

    @property
    def num_clusters(self) -> Optional[int]:
        """K; None (the default) for a method without clusters."""
        return None

    @abstractmethod
    def encode(self, frame: Tensor, audio: Tensor) -> Dict[str, Tensor]:
        """What losses and heatmaps are computed from.

        Args:
            frame (Tensor): (B, 3, H, W).
            audio (Tensor): (B, 1, n_mels, T).

        Returns:
            dict[str, Tensor]: Of tensors with B rows. ``visual_logits`` and
            ``audio_logits`` (B, K) and ``class_heatmaps`` (B, K, h, w) are
            kept in the predictions.
        """

    @abstractmethod
    def loss(self, outs: Dict[str, Tensor],
             data_samples: List[AudioVisualDataSample]) -> Dict[str, Tensor]:
        """Losses of a batch of matching frames and sounds."""

    @abstractmethod
    def heatmaps(self, outs: Dict[str, Tensor]) -> Tensor:
        """Where the sound of each clip is in its frame: (B, h, w)."""

    def classify(self,
                 outs: Dict[str, Tensor]) -> Optional[Tuple[Tensor, Tensor]]:
        """Class or cluster of each clip.

        Returns:
            tuple[Tensor, Tensor], optional: Labels (B,) int64 and their
            posterior (B,) float32; None (the default) without classes.
        """
        return None

    def forward(
        self,
        inputs: Dict[str, Tensor],
        data_samples: Optional[List[AudioVisualDataSample]] = None,
        mode: str = 'tensor'
    ) -> Union[Dict[str, Tensor], List[AudioVisualDataSample]]:
        """Run the model.

        Args:
            inputs (dict): ``frame`` (B, 3, H, W), ``audio``
                (B, 1, n_mels, T).
            data_samples (list, optional): Needed by ``'predict'``, and by
                ``'loss'`` where clips have labels.
            mode (str): ``'loss'``, ``'predict'`` or ``'tensor'``.

        Returns:
            dict | list: Losses; data samples with ``heatmap``,
            ``pred_instances`` and logits; or what :meth:`encode` returns.
        """
        outs = self.encode(**inputs)
        if mode == 'tensor':
            return outs
        if mode == 'loss':
            return self.loss(outs, data_samples)
        if mode == 'predict':
            return self.predict(outs, data_samples, inputs['frame'].shape[2:])
        raise ValueError(
            f"mode must be 'loss', 'predict' or 'tensor', got {mode!r}.")

    def predict(self, outs: Dict[str, Tensor],
                data_samples: List[AudioVisualDataSample],
                input_shape: tuple) -> List[AudioVisualDataSample]:
        """Heatmap, self-boxes (Eq. 5) and class (Eq. 6) of each clip.

        ``pred_instances`` gets ``bboxes``, ``scores`` (largest value of the
        heatmap in the box's component), ``labels`` and, with classes,
        ``label_scores`` (posterior of the label). A frame has one label for
        all its boxes.
        """
        heatmaps = self.heatmaps(outs)
        boxes = self.box_extractor(heatmaps, tuple(input_shape))
        classified = self.classify(outs)
        for i, sample in enumerate(data_samples):
            bboxes, scores = (x.to(heatmaps.device) for x in boxes[i])
            instances = InstanceData(
                bboxes=boxes_to_original(bboxes, sample.homography_matrix,
                                         sample.ori_shape[:2]),
                scores=scores,
                labels=torch.zeros_like(scores, dtype=torch.long))
            if classified is not None:
                labels, label_scores = classified
                instances.labels = labels[i].expand(len(scores))
                instances.label_scores = label_scores[i].expand(len(scores))
            # Copies: a pickled view would carry the whole batch along.
            for name in _KEPT:
                if name in outs:
                    setattr(sample, name, outs[name][i].clone())
            sample.heatmap = heatmaps[i].clone()
            sample.pred_instances = instances
        return data_samples
