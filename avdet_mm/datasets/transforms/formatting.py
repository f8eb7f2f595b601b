"""From a loaded sample to the model's inputs."""
from typing import Sequence

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.structures import InstanceData

from avdet_mm.registry import TRANSFORMS
from avdet_mm.structures import AudioVisualDataSample


@TRANSFORMS.register_module()
class PackAudioVisualInputs(BaseTransform):
    """Pack a sample for :class:`AudioVisualDataPreprocessor`.

    Required keys: img (h, w, 3) BGR, uint8 or float in [0, 255] (rounded
    and clipped), and waveform (T,) float32; with
    ``eval_instances``, the boxes in *original* pixels become
    ``gt_instances`` (``bboxes`` (m, 4), ``labels`` (m,), ``sounding``
    (m,)).

    Args:
        meta_keys (Sequence[str]): Keys to keep as meta info where a sample
            has them.
    """

    def __init__(
        self,
        meta_keys: Sequence[str] = ('clip_id', 'sample_idx', 'time',
                                    'ori_shape', 'img_shape',
                                    'homography_matrix', 'img_path',
                                    'video_path', 'gt_label')
    ) -> None:
        self.meta_keys = tuple(meta_keys)

    def transform(self, results: dict) -> dict:
        """Pack the sample.

        Args:
            results (dict): Loaded and transformed sample.

        Returns:
            dict: ``inputs``, a dict of ``frame`` (3, h, w) uint8 and
            ``audio`` (T,) float32 tensors, and ``data_samples``, an
            :class:`AudioVisualDataSample`.
        """
        image = results['img']
        if image.dtype != np.uint8:  # e.g. after PhotoMetricDistortion
            image = np.clip(np.rint(image), 0, 255).astype(np.uint8)
        frame = np.ascontiguousarray(image.transpose(2, 0, 1))
        sample = AudioVisualDataSample(
            metainfo={
                key: results[key]
                for key in self.meta_keys if key in results
            })
        if 'eval_instances' in results:
            sample.gt_instances = InstanceData(
                **{
                    key: torch.from_numpy(value)
                    for key, value in results['eval_instances'].items()
                })
        return dict(
            inputs=dict(
                frame=torch.from_numpy(frame),
                audio=torch.from_numpy(results['waveform'])),
            data_samples=sample)

    def __repr__(self) -> str:
        return f'{type(self).__name__}(meta_keys={self.meta_keys})'
