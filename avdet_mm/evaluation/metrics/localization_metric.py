"""Do heatmaps and self-boxes find the object that sounds?"""

from typing import Dict, List, Optional, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger

from avdet_mm.registry import METRICS

from ..functional import box_iou


def heatmap_peak(
    heatmap: torch.Tensor,
    img_shape: Sequence[int],
    homography_matrix: np.ndarray,
) -> np.ndarray:
    """Location of a heatmap's maximum in the original frame.

    The map is upsampled bilinearly to the network's input first; the peak
    is the center of the highest pixel there (the first of equals).

    Args:
        heatmap (Tensor): (h, w).
        img_shape (Sequence[int]): (H, W) of the network's input.
        homography_matrix (np.ndarray): (3, 3), maps original pixels to
            those of the network's input.

    Returns:
        np.ndarray: (2,) x and y in original pixels.
    """
    height, width = img_shape[:2]
    fine = F.interpolate(
        torch.as_tensor(heatmap).float()[None, None],
        size=(height, width),
        mode='bilinear',
        align_corners=False,
    )[0, 0]
    y, x = divmod(int(fine.argmax()), width)
    inverse = np.linalg.inv(np.asarray(homography_matrix, dtype=np.float64))
    point = inverse @ np.array([x + 0.5, y + 0.5, 1.0])
    return point[:2] / point[2]


@METRICS.register_module()
class LocalizationMetric(BaseMetric):
    """Heatmap and self-box against the boxes of the sounding objects.

    Clips without the box of a sounding object are left out and counted. If
    the ground truth does not tell which objects sound, all of them count.

    * ``pointing``: share of clips whose heatmap peaks inside such a box.
      Absent if the model has no heatmap.
    * ``iou50``: share of clips with a self-box of IoU >= 0.5 with such a
      box, and ``mean_iou``: mean over clips of the best IoU; 0 for a clip
      without a self-box.
    * ``left_out``: number of clips that were left out.

    All but the last are nan if no clip has ground truth.
    """

    default_prefix = 'loc'

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Measure every clip.

        Args:
            data_batch (dict): Not looked at.
            data_samples (Sequence[dict]): With ``gt_instances`` and
                ``pred_instances`` in original pixels, ``heatmap`` (h, w),
                ``img_shape`` and ``homography_matrix``.
        """
        for sample in data_samples:
            boxes = self._sounding_boxes(sample)
            if not len(boxes):
                self.results.append(None)
                continue
            pred = torch.as_tensor(sample['pred_instances']['bboxes'])
            result = dict(iou=float(box_iou(pred.cpu(), boxes).max(initial=0)))
            if sample.get('heatmap') is not None:
                point = heatmap_peak(
                    sample['heatmap'].cpu(),
                    sample['img_shape'],
                    sample['homography_matrix'],
                )
                inside = (point >= boxes[:, :2]) & (point < boxes[:, 2:])
                result['pointing'] = bool(inside.all(axis=1).any())
            self.results.append(result)

    @staticmethod
    def _sounding_boxes(sample: dict) -> np.ndarray:
        gt: Optional[dict] = sample.get('gt_instances')
        if gt is None:
            return np.zeros((0, 4))
        boxes = torch.as_tensor(gt['bboxes']).cpu().numpy().reshape(-1, 4)
        if 'sounding' in gt:
            boxes = boxes[torch.as_tensor(gt['sounding']).cpu().numpy()]
        return boxes

    def compute_metrics(
        self, results: List[Optional[dict]]
    ) -> Dict[str, float]:
        """Average over clips.

        Args:
            results (list): What :meth:`process` kept, of all ranks.

        Returns:
            dict[str, float]: See the class.
        """
        kept = [r for r in results if r is not None]
        left_out = len(results) - len(kept)
        if left_out:
            MMLogger.get_current_instance().warning(
                '%d of %d clips have no box of a sounding object and are '
                'left out of the localization metrics.',
                left_out,
                len(results),
            )
        ious = np.array([r['iou'] for r in kept])
        hits = [r['pointing'] for r in kept if 'pointing' in r]
        metrics = {}
        if hits or not kept:
            metrics['pointing'] = float(np.mean(hits)) if hits else np.nan
        metrics['iou50'] = float((ious >= 0.5).mean()) if kept else np.nan
        metrics['mean_iou'] = float(ious.mean()) if kept else np.nan
        metrics['left_out'] = left_out
        return metrics
