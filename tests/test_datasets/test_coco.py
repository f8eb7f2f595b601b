"""Tests of building COCO jsons."""
import json

import pytest
from pycocotools.coco import COCO

from avdet_mm.datasets.coco import to_coco


def image(*instances, **kwargs):
    return dict(
        dict(file_name='a.jpg', height=60, width=80, instances=instances),
        **kwargs)


def test_entries(tmp_path):
    coco = to_coco([
        image(),
        image(
            dict(bbox=[1, 2, 11, 22.5], label='b', score=0.5),
            dict(bbox=[0, 0, 80, 60], label='a', iscrowd=1),
            file_name='b.jpg',
            clip_id='clip'),
    ], ['a', 'b'], dict(description='x'))
    assert coco['info'] == dict(description='x')
    assert coco['categories'] == [dict(id=0, name='a'), dict(id=1, name='b')]
    assert coco['images'] == [
        dict(id=0, file_name='a.jpg', height=60, width=80),
        dict(id=1, file_name='b.jpg', height=60, width=80, clip_id='clip')
    ]
    assert coco['annotations'] == [
        dict(id=1, image_id=1, category_id=1, bbox=[1, 2, 10, 20.5],
             area=205., iscrowd=0, score=0.5),
        dict(id=2, image_id=1, category_id=0, bbox=[0, 0, 80, 60],
             area=4800, iscrowd=1),
    ]
    path = tmp_path / 'coco.json'
    path.write_text(json.dumps(coco))
    loaded = COCO(str(path))
    assert loaded.getAnnIds(imgIds=[1], iscrowd=False) == [1]


@pytest.mark.parametrize('instance, message', [
    (dict(bbox=[0, 0, 0, 4], label='a'), 'empty box'),
    (dict(bbox=[0, 0, 3, float('nan')], label='a'), 'empty box'),
    (dict(bbox=[0, 0, 4, 4], label='c'), "'c', which is none"),
])
def test_wrong_boxes(instance, message):
    with pytest.raises(ValueError, match=message):
        to_coco([image(instance)], ['a', 'b'])
