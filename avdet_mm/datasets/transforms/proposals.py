"""Object proposals by selective search (Uijlings et al., IJCV 2013).

The paper uses them twice in Table 1: as detections without a class, and as
what PCL chooses from.
"""

import hashlib
import os.path as osp
from typing import Optional

import cv2
import numpy as np
from mmcv.transforms import BaseTransform

from avdet_mm.registry import TRANSFORMS
from avdet_mm.utils import atomic_write

_MODES = {
    'fast': 'switchToSelectiveSearchFast',
    'quality': 'switchToSelectiveSearchQuality',
}


def selective_search(image: np.ndarray, mode: str = 'fast') -> np.ndarray:
    """Boxes of the regions that selective search merges.

    OpenCV returns a fixed set of boxes, ranked largely by chance: by their
    level in the hierarchy times a number from C's generator, so that the
    ranking differs from call to call. Here it is all chance, but seeded by
    the image: an image has one ranking, on any machine.

    Args:
        image (np.ndarray): (h, w, 3) uint8, BGR.
        mode (str): ``'fast'`` or ``'quality'``, OpenCV's two settings.
            Defaults to ``'fast'``.

    Returns:
        np.ndarray: (n, 4) int32 boxes, ``xyxy`` in pixels, n >= 1.

    Raises:
        ImportError: If the installed OpenCV lacks ``ximgproc``.
    """
    if not hasattr(cv2, 'ximgproc'):
        raise ImportError(
            'Selective search needs OpenCV with its module ximgproc. Replace '
            'the installed opencv-python by the package of the same version '
            'that has it: pip install '
            f'"opencv-contrib-python-headless=={cv2.__version__}.*"'
        )
    segmentation = cv2.ximgproc.segmentation
    search = segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(np.ascontiguousarray(image))
    getattr(search, _MODES[mode])()
    boxes = np.unique(search.process(), axis=0).astype(np.int32)
    boxes[:, 2:] += boxes[:, :2]
    # This generator draws the same in every version of NumPy.
    generator = np.random.RandomState(int(_digest(image)[:8], 16))
    return boxes[generator.rand(len(boxes)).argsort()]


def _digest(image: np.ndarray) -> str:
    digest = hashlib.sha256(repr(image.shape).encode())
    digest.update(np.ascontiguousarray(image))
    return digest.hexdigest()


@TRANSFORMS.register_module()
class SelectiveSearchProposals(BaseTransform):
    """Give an image its proposals; takes the place of ``LoadProposals``.

    Use it right behind the loading of the image, before anything random:
    proposals of an image are computed once and then read from
    ``cache_dir``, in later epochs, by other processes and in later runs. A
    file there is named by the pixels and the mode, and written in one step.
    With ``mmdet.ProposalBroadcaster`` around what moves boxes, MMDetection's
    ``Resize``, ``RandomFlip`` and ``PackDetInputs`` do the rest.

    Required key: img (h, w, 3) uint8 BGR. Added keys:

    - proposals (n, 4) float32, ``xyxy`` in pixels of ``img``
    - proposals_scores (n,) float32, 1 at the first rank and falling, above 0

    Args:
        cache_dir (str, optional): Folder of the cache, made as needed.
            Defaults to None: nothing is kept.
        max_proposals (int): Most proposals of an image; the paper does not
            tell. Defaults to 2000, about what the method's authors use.
        mode (str): ``'fast'`` or ``'quality'``. Defaults to ``'fast'``.

    Raises:
        ValueError: If ``mode`` is unknown or ``max_proposals`` is below 1.
        ImportError: If proposals must be computed and the installed OpenCV
            lacks ``ximgproc``.
    """

    def __init__(
        self,
        cache_dir: Optional[str] = None,
        max_proposals: int = 2000,
        mode: str = 'fast',
    ) -> None:
        if mode not in _MODES:
            raise ValueError(
                f'`mode` must be one of {tuple(_MODES)}, got {mode!r}.'
            )
        if max_proposals < 1:
            raise ValueError(
                f'`max_proposals` must be at least 1, got {max_proposals}.'
            )
        self.cache_dir = cache_dir
        self.max_proposals = max_proposals
        self.mode = mode

    def transform(self, results: dict) -> dict:
        """Add the proposals.

        Args:
            results (dict): Sample with ``img``.

        Returns:
            dict: The sample with the keys listed above.
        """
        boxes = self._boxes(results['img'])[: self.max_proposals]
        results['proposals'] = boxes.astype(np.float32)
        results['proposals_scores'] = np.linspace(
            1, 0, len(boxes), endpoint=False, dtype=np.float32
        )
        return results

    def _boxes(self, image: np.ndarray) -> np.ndarray:
        """All boxes of an image, from the cache where they are there."""
        if self.cache_dir is None:
            return selective_search(image, self.mode)
        key = _digest(image)
        path = osp.join(self.cache_dir, self.mode, key[:2], f'{key[2:]}.npy')
        try:
            return np.load(path)
        except (FileNotFoundError, EOFError, ValueError):
            # The latter two: a file that a power cut has left empty.
            boxes = selective_search(image, self.mode)
        with atomic_write(path, 'wb') as file:
            np.save(file, boxes)
        return boxes

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(cache_dir={self.cache_dir!r}, '
            f'max_proposals={self.max_proposals}, mode={self.mode!r})'
        )
