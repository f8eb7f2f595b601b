"""Transforms of the frame that MMDetection lacks."""
import numpy as np
from mmcv.transforms import BaseTransform

from avdet_mm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class CenterSquareCrop(BaseTransform):
    """Crop the central square of a frame and record where it was.

    MMCV's ``CenterCrop`` does not keep ``homography_matrix``, with which
    boxes are mapped back to the original frame.

    Required and modified keys:

    - img (h, w, 3), img_shape
    - homography_matrix (3, 3), original to current pixels

    Args:
        size (int): Side of the square in pixels.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def transform(self, results: dict) -> dict:
        """Crop the frame.

        Args:
            results (dict): Sample with the keys above.

        Returns:
            dict: The sample, cropped.

        Raises:
            ValueError: If the frame is smaller than the square.
        """
        h, w = results['img'].shape[:2]
        if min(h, w) < self.size:
            raise ValueError(
                f'A square of {self.size} pixels cannot be cropped from a '
                f'frame of {w} x {h}; resize its short side to at least '
                f'{self.size} first, e.g. by mmdet.Resize.')
        x, y = (w - self.size) // 2, (h - self.size) // 2
        results['img'] = results['img'][y:y + self.size, x:x + self.size]
        results['img_shape'] = results['img'].shape[:2]
        shift = np.array([[1, 0, -x], [0, 1, -y], [0, 0, 1]], np.float32)
        results['homography_matrix'] = shift @ results['homography_matrix']
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(size={self.size})'
