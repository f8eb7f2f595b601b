"""The simplest localizer: a box in the middle of the frame."""

from typing import Dict, List, Optional, Union

import torch
from mmdet.structures import DetDataSample
from mmengine.model import BaseModel
from mmengine.structures import InstanceData
from torch import Tensor

from avdet_mm.registry import MODELS


@MODELS.register_module()
class CenterBox(BaseModel):
    """Predict one centered box for every frame, whatever it shows.

    The first row of the paper's Table 1: it looks at neither pixels nor
    sound, so any method has to beat it. It has nothing to train and needs
    no checkpoint. It is evaluated class-agnostically.

    Args:
        side (float): Width and height of the box as a share of the width and
            height of the original frame, in (0, 1]. Defaults to 0.6.
        data_preprocessor (dict, optional): Config of the data preprocessor.
            Defaults to None, MMEngine's ``BaseDataPreprocessor``.
    """

    def __init__(
        self, side: float = 0.6, data_preprocessor: Optional[dict] = None
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor)
        if not 0 < side <= 1:
            raise ValueError(
                '`side` is a share of the frame and must be '
                f'above 0 and at most 1, got {side}.'
            )
        self.side = side

    def forward(
        self,
        inputs: Dict[str, Tensor],
        data_samples: Optional[List[DetDataSample]] = None,
        mode: str = 'tensor',
    ) -> Union[Tensor, List[DetDataSample]]:
        """Give every frame its box.

        Args:
            inputs (dict[str, Tensor]): Not looked at.
            data_samples (list[DetDataSample]): B samples with ``ori_shape``
                (height, width) in the meta info.
            mode (str): ``'predict'`` or ``'tensor'``.

        Returns:
            list[DetDataSample] | Tensor: ``'predict'``: the samples with
            ``pred_instances``: ``bboxes`` (1, 4) ``xyxy`` in original
            pixels, ``scores`` (1,) = 1, ``labels`` (1,) = 0. ``'tensor'``:
            the (B, 4) boxes.

        Raises:
            ValueError: If samples are missing or the mode is unknown.
            RuntimeError: In mode ``'loss'``.
        """
        if mode == 'loss':
            raise RuntimeError(
                'CenterBox has nothing to train: run it with tools/test.py.'
            )
        if mode not in ('predict', 'tensor'):
            raise ValueError(
                f'Mode {mode!r} is unknown; choose predict or tensor.'
            )
        if data_samples is None:
            raise ValueError(
                'CenterBox needs `data_samples`, whose '
                '`ori_shape` gives the size of the frames.'
            )
        sizes = torch.tensor(
            [(s.ori_shape[1], s.ori_shape[0]) for s in data_samples],
            dtype=torch.float32,
        ).view(-1, 2)
        boxes = torch.cat(
            [
                sizes * (1 - self.side) / 2,
                sizes * (1 + self.side) / 2,
            ],
            dim=1,
        )
        if mode == 'tensor':
            return boxes
        for box, sample in zip(boxes, data_samples):
            sample.pred_instances = InstanceData(
                bboxes=box[None],
                scores=torch.ones(1),
                labels=torch.zeros(1, dtype=torch.long),
            )
        return data_samples
