"""Frames to normalized tensors; waveforms stay what they are."""
from typing import Sequence

import torch
from mmengine.model import BaseDataPreprocessor
from torch import Tensor

from avdet_mm.registry import MODELS


@MODELS.register_module()
class WaveformDataPreprocessor(BaseDataPreprocessor):
    """Collate, move to the device, normalize frames.

    For models that compute their spectrograms themselves, because they mix
    sounds first.

    Args:
        mean (Sequence[float]): Per channel, 0..255, in the order that the
            network sees. Defaults to ImageNet's (RGB).
        std (Sequence[float]): Likewise.
        bgr_to_rgb (bool): Defaults to True.
        non_blocking (bool): Copy to the device while the CPU goes on; only
            data in pinned memory (``pin_memory=True`` in the data loader)
            can be copied so. Defaults to True.

    Shape:
        - ``inputs['frame']``: B uint8 (3, h, w), BGR; a list
          (``pseudo_collate``) or a tensor (``default_collate``, less work
          for the main process).
        - ``inputs['audio']``: likewise, float32 (T, ), in [-1, 1].
        - Output ``frame``: (B, 3, h, w) float32.
        - Output ``audio``: (B, T) float32, not changed.
    """

    def __init__(self,
                 mean: Sequence[float] = (123.675, 116.28, 103.53),
                 std: Sequence[float] = (58.395, 57.12, 57.375),
                 bgr_to_rgb: bool = True,
                 non_blocking: bool = True) -> None:
        super().__init__(non_blocking)
        self.bgr_to_rgb = bgr_to_rgb
        for name, value in (('mean', mean), ('std', std)):
            value = torch.tensor(value, dtype=torch.float32)
            self.register_buffer(name, value.view(1, 3, 1, 1), False)

    def forward(self, data: dict, training: bool = False) -> dict:
        """Turn a collated batch into the keywords of ``model.forward``.

        Raises:
            ValueError: If frames or waveforms differ in size.
        """
        data = self.cast_data(data)
        inputs = data['inputs']
        frame = self._stack(inputs['frame'], 'frames')
        if self.bgr_to_rgb:
            frame = frame.flip(1)
        frame = (frame - self.mean).div_(self.std)
        audio = self._stack(inputs['audio'], 'waveforms')
        return dict(
            inputs=dict(frame=frame, audio=audio),
            data_samples=data.get('data_samples'))

    @staticmethod
    def _stack(tensors: Sequence[Tensor], what: str) -> Tensor:
        if isinstance(tensors, Tensor):
            return tensors
        shapes = {tuple(t.shape) for t in tensors}
        if len(shapes) > 1:
            raise ValueError(
                f'The {what} of one batch differ in size: {sorted(shapes)}. '
                'Crop them to one size in the pipeline, or use batch_size=1.')
        return torch.stack(list(tensors))
