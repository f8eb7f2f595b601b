"""Selective search as a detector without classes."""

from typing import List, Optional

import torch
from mmdet.structures import DetDataSample
from mmengine.model import BaseModel
from mmengine.structures import InstanceData

from avdet_mm.registry import MODELS


@MODELS.register_module()
class SelectiveSearch(BaseModel):
    """Predict the proposals that an image comes with.

    The second row of the paper's Table 1. It has nothing to train and needs
    no checkpoint: :class:`SelectiveSearchProposals` in the pipeline computes
    boxes and scores, in the workers of the loader, and
    ``mmdet.PackDetInputs`` packs them. It is evaluated class-agnostically.
    """

    def forward(
        self,
        inputs: object,
        data_samples: Optional[List[DetDataSample]] = None,
        mode: str = 'predict',
    ) -> List[DetDataSample]:
        """Turn proposals into detections.

        Args:
            inputs (object): Not looked at.
            data_samples (list[DetDataSample]): B samples with ``proposals``:
                ``bboxes`` (n, 4) ``xyxy`` and ``scores`` (n,); in pixels of
                the original image, or of one that was resized by
                ``scale_factor`` (width, height) in the meta info.
            mode (str): ``'predict'``.

        Returns:
            list[DetDataSample]: The samples with ``pred_instances``:
            ``bboxes`` (n, 4) ``xyxy`` in original pixels, ``scores`` (n,),
            ``labels`` (n,) = 0.

        Raises:
            ValueError: If proposals are missing or the mode is unknown.
            RuntimeError: In mode ``'loss'``.
        """
        if mode == 'loss':
            raise RuntimeError(
                'SelectiveSearch has nothing to train: run it with '
                'tools/test.py.'
            )
        if mode != 'predict':
            raise ValueError(f'Mode {mode!r} is unknown; choose predict.')
        for sample in data_samples or [None]:
            if sample is None or 'proposals' not in sample:
                raise ValueError(
                    'SelectiveSearch needs samples with `proposals`: put '
                    'avdet_mm.SelectiveSearchProposals into the pipeline, '
                    'behind the loading of the image.'
                )
            proposals = sample.proposals
            scale = proposals.bboxes.new_tensor(
                sample.metainfo.get('scale_factor', (1, 1))
            )
            sample.pred_instances = InstanceData(
                bboxes=proposals.bboxes / scale.repeat(2),
                scores=proposals.scores,
                labels=torch.zeros_like(proposals.scores, dtype=torch.long),
            )
        return data_samples
