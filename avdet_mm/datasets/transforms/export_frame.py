"""Frames of videos as image files, for the detector."""
import os.path as osp

import cv2
from mmcv.transforms import BaseTransform

from avdet_mm.datasets.clip_table import safe_clip_id
from avdet_mm.registry import TRANSFORMS
from avdet_mm.utils import atomic_write


@TRANSFORMS.register_module()
class ExportFrame(BaseTransform):
    """Write the loaded frame as ``out_dir/<clip_id>.<suffix>``.

    The detector trains on image files; this puts the frame that a self-box
    belongs to beside the json. Use it right behind :class:`LoadClip`, in
    the pipeline of the labelling pass. Files are written atomically.

    Required keys: ``img``, ``clip_id``. Added key: ``img_path``.

    Args:
        out_dir (str): Folder, created if needed.
        suffix (str): Image format. Defaults to ``'png'``.

    Raises:
        ValueError: If OpenCV cannot write the format.
    """

    def __init__(self, out_dir: str, suffix: str = 'png') -> None:
        if not cv2.haveImageWriter(f'a.{suffix}'):
            raise ValueError(f'OpenCV cannot write .{suffix} images. Choose '
                             "another suffix, e.g. 'png'.")
        self.out_dir = out_dir
        self.suffix = suffix

    def transform(self, results: dict) -> dict:
        """Write the frame.

        Raises:
            ValueError: If the clip id cannot be a file name.
            OSError: If the file cannot be written.
        """
        name = results['clip_id']
        if not safe_clip_id(name):
            raise ValueError(f'clip_id {name!r} cannot be used as a file '
                             'name. Rename it in the clip table.')
        path = osp.join(self.out_dir, f'{name}.{self.suffix}')
        _, data = cv2.imencode(f'.{self.suffix}', results['img'])
        with atomic_write(path, 'wb') as file:
            file.write(data.tobytes())
        results['img_path'] = path
        return results
