"""Tests of frames as image files."""
import os

import cv2
import numpy as np
import pytest

from avdet_mm.datasets.transforms import ExportFrame
from avdet_mm.registry import TRANSFORMS


def frame(height=24, width=36):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3),
                                             np.uint8)


def test_png_is_the_frame(tmp_path):
    out = tmp_path / 'new' / 'folder'
    transform = TRANSFORMS.build(
        dict(type='avdet_mm.ExportFrame', out_dir=str(out)))
    results = dict(img=frame(), clip_id='clip.7 é')
    assert transform(results) is results
    assert results['img_path'] == str(out / 'clip.7 é.png')
    assert (cv2.imread(results['img_path']) == frame()).all()
    assert (results['img'] == frame()).all()
    # No part of a file is left beside it.
    assert os.listdir(out) == ['clip.7 é.png']


def test_other_formats(tmp_path):
    results = ExportFrame(str(tmp_path), 'jpg')(
        dict(img=frame(), clip_id='a'))
    assert results['img_path'].endswith('a.jpg')
    assert cv2.imread(results['img_path']).shape == (24, 36, 3)


def test_written_again(tmp_path):
    for value in (10, 20):
        results = ExportFrame(str(tmp_path))(
            dict(img=np.full((8, 8, 3), value, np.uint8), clip_id='a'))
    assert (cv2.imread(results['img_path']) == 20).all()


@pytest.mark.parametrize('clip_id', ['..', '.', 'a/b', '../a', 'a\0b', ''])
def test_clip_ids_that_are_no_file_names(tmp_path, clip_id):
    with pytest.raises(ValueError, match='file name'):
        ExportFrame(str(tmp_path / 'x'))(dict(img=frame(), clip_id=clip_id))
    assert not list(tmp_path.rglob('*.png'))


def test_unknown_format(tmp_path):
    with pytest.raises(ValueError, match='nonsense'):
        ExportFrame(str(tmp_path), 'nonsense')


def test_folder_that_is_a_file(tmp_path):
    (tmp_path / 'x').write_text('')
    with pytest.raises(OSError):
        ExportFrame(str(tmp_path / 'x'))(dict(img=frame(), clip_id='a'))
