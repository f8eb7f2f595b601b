"""Tests of the labels of self-training rounds."""
import copy
import json

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from torch import nn
from torch.utils.data import Dataset

from avdet_mm.apis import detect, label_dataloader, next_labels
from tests.toy import loader_cfg


def annotation(image_id, cluster, bbox, score, **kwargs):
    return dict(
        iscrowd=0,
        score=score,
        id=0,
        image_id=image_id,
        category_id=cluster,
        bbox=bbox,
        area=bbox[2] * bbox[3],
        **kwargs)


def make_labels(*annotations, images=1, **info):
    """A json whose category ids are 10, 11 and 12."""
    for i, ann in enumerate(annotations):
        ann['id'] = i + 1
    return dict(
        info=dict(description='Self-labels', **info),
        images=[
            dict(
                id=i + 5,
                file_name=f'{i}.png',
                clip_id=f'clip_{i}',
                time=0.5,
                height=100,
                width=100) for i in range(images)
        ],
        annotations=list(annotations),
        categories=[dict(id=k + 10, name=f'cluster_{k}') for k in range(3)])


def found(*rows):
    """Detections: (label, score, x1, y1, x2, y2)."""
    table = np.array(rows, np.float32).reshape(-1, 6)
    return dict(
        labels=table[:, 0].astype(np.int64),
        scores=table[:, 1],
        bboxes=table[:, 2:])


def summary(result):
    """Category, score, box and mark of every annotation, by image."""
    return [(a['image_id'], a['category_id'], round(a['score'], 4), a['bbox'],
             a.get('added', False)) for a in result['annotations']]


SELF_BOX = annotation(5, 11, [0., 0., 20., 20.], 0.9, label_score=0.7)


def test_best_detection_of_the_own_cluster_replaces_the_self_box():
    labels = make_labels(dict(SELF_BOX))
    before = copy.deepcopy(labels)
    result = next_labels(
        labels, {5: found((1, .1, 2, 2, 8, 8), (1, .3, 50, 60, 80, 100),
                          (0, .7, 0, 0, 30, 30))}, info=dict(config='a.py'))
    assert labels == before
    assert result['annotations'] == [
        dict(
            iscrowd=0,
            score=pytest.approx(.3),
            label_score=.7,
            id=1,
            image_id=5,
            category_id=11,
            bbox=[50., 60., 30., 40.],
            area=1200.)
    ]
    assert result['images'] == labels['images']
    assert result['categories'] == labels['categories']
    info = result['info']
    assert info['counts'] == dict(
        images=1, replaced=1, kept=0, without_self_box=0, added=0,
        annotations=1)
    assert info['thresholds'] == dict(
        anchor_thr=.05, score_thr=.8, max_boxes=None)
    assert info['round'] == 1 and info['config'] == 'a.py'
    assert info['previous'] == labels['info']
    json.dumps(result, allow_nan=False)


@pytest.mark.parametrize('score, kept', [(.25, False), (.2499, True)])
def test_anchor_threshold(score, kept):
    result = next_labels(
        make_labels(dict(SELF_BOX)), {5: found((1, score, 40, 40, 80, 80))},
        anchor_thr=.25)
    assert result['info']['counts']['kept'] == kept
    assert result['annotations'][0]['score'] == (.9 if kept else score)
    if kept:
        assert result['annotations'] == [SELF_BOX | dict(id=1)]


def test_confident_boxes_are_added_best_first():
    result = next_labels(
        make_labels(dict(SELF_BOX)), {
            5:
            found(
                # IoU of exactly 0.5 with the self-box: another object.
                (0, .81, 0, 0, 20, 10),
                # Of 0.55: the same one.
                (2, .99, 0, 0, 20, 11),
                # Not confident enough.
                (0, .79, 60, 0, 80, 20),
                # The worse of two on one object, of another cluster.
                (0, .85, 40, 40, 60, 61),
                (2, .875, 40, 40, 60, 60),
                # A second instance of the own cluster; the first is better.
                (1, .9, 70, 70, 90, 90),
                # Too thin to be trained on.
                (0, .95, 95, 0, 95.5, 90))
        },
        anchor_thr=.91)
    assert summary(result) == [
        (5, 11, .9, [0., 0., 20., 20.], False),
        (5, 11, .9, [70., 70., 20., 20.], True),
        (5, 12, .875, [40., 40., 20., 20.], True),
        (5, 10, .81, [0., 0., 20., 10.], True),
    ]
    assert [a['id'] for a in result['annotations']] == [1, 2, 3, 4]
    assert all('label_score' not in a for a in result['annotations'][1:])
    assert result['info']['counts']['added'] == 3


@pytest.mark.parametrize('max_boxes, number', [(1, 1), (2, 2), (None, 3)])
def test_max_boxes(max_boxes, number):
    result = next_labels(
        make_labels(dict(SELF_BOX)), {
            5: found((0, .9, 40, 40, 60, 60), (2, .95, 70, 70, 90, 90))
        },
        max_boxes=max_boxes)
    assert len(result['annotations']) == number
    if number == 2:
        assert result['annotations'][1]['category_id'] == 12


def test_several_self_boxes():
    boxes = [dict(SELF_BOX),
             annotation(5, 11, [70., 0., 9., 9.], .95, label_score=.7)]
    result = next_labels(make_labels(*boxes), {5: found()})
    assert [a['score'] for a in result['annotations']] == [.95, .9]
    assert result['info']['counts']['kept'] == 1
    result = next_labels(
        make_labels(*boxes), {5: found((1, .5, 0, 0, 9, 9))})
    assert summary(result) == [(5, 11, .5, [0., 0., 9., 9.], False)]
    assert result['info']['counts']['replaced'] == 1


def test_images_without_a_self_box_and_order():
    result = next_labels(
        make_labels(
            annotation(7, 10, [0., 0., 9., 9.], .5), images=3), {
                7: found(),
                6: found((2, .7, 0, 0, 9, 9)),
                5: found((2, .9, 0, 0, 9, 9))
            })
    assert summary(result) == [(5, 12, .9, [0., 0., 9., 9.], True),
                               (7, 10, .5, [0., 0., 9., 9.], False)]
    assert result['info']['counts'] == dict(
        images=3, replaced=0, kept=1, without_self_box=2, added=1,
        annotations=2)


def test_next_round_decides_additions_anew():
    first = next_labels(
        make_labels(dict(SELF_BOX)), {
            5: found((1, .5, 2, 2, 22, 22), (0, .9, 40, 40, 60, 60))
        })
    assert len(first['annotations']) == 2
    second = next_labels(first, {5: found((0, .7, 40, 40, 60, 60))})
    # What is added has no say in what is heard, however sure it is.
    assert summary(second) == [(5, 11, .5, [2., 2., 20., 20.], False)]
    assert second['info']['round'] == 2
    assert second['info']['previous'] == first['info']


@pytest.mark.parametrize('change, message', [
    (dict(anchor_thr=1.5), 'anchor_thr=1.5 is no score'),
    (dict(score_thr=-1), 'score_thr=-1 is no score'),
    (dict(max_boxes=0), 'max_boxes=0 leaves no box'),
    (dict(detections={}), r'1 images have no detections \(such as 5\)'),
    (dict(detections={5: found(), 8: found(), 9: found()}),
     r'2 images have detections.*such as 8\)'),
    (dict(detections={5: found((3, .9, 0, 0, 9, 9))}),
     'class 3, but the labels have 3 categories'),
    (dict(labels=dict(images=[])), 'no COCO json'),
    (dict(labels=make_labels(dict(SELF_BOX), annotation(
        5, 10, [0., 0., 9., 9.], .5))), 'Image 5 has self-boxes of several'),
])
def test_errors(change, message):
    arguments = dict(
        dict(labels=make_labels(dict(SELF_BOX)), detections={5: found()}),
        **change)
    with pytest.raises(ValueError, match=message):
        next_labels(**arguments)


def detector_config(**dataset):
    pipeline = [dict(type='LoadImageFromFile')]
    return Config(
        dict(
            model=dict(roi_head=dict(bbox_head=dict(num_classes=3))),
            train_dataloader=dict(
                dataset=dict(
                    dict(
                        type='CocoDataset',
                        data_root='root',
                        data_prefix=dict(img='images')), **dataset)),
            test_dataloader=dict(
                batch_size=7,
                dataset=dict(ann_file='test.json', pipeline=pipeline))))


def test_label_dataloader():
    names = ['a', 'b', 'c']
    cfg = detector_config(metainfo=dict(classes=('c', 'b', 'a')))
    loader = label_dataloader(cfg, '/x/labels.json', names)
    assert loader.to_dict() == dict(
        batch_size=7,
        dataset=dict(
            type='mmdet.CocoDataset',
            data_root='root',
            ann_file='/x/labels.json',
            data_prefix=dict(img='images'),
            metainfo=dict(classes=('a', 'b', 'c')),
            test_mode=True,
            pipeline=[dict(type='LoadImageFromFile')]))
    assert cfg.test_dataloader.dataset.ann_file == 'test.json'


def test_label_dataloader_of_another_training():
    with pytest.raises(ValueError, match=r'2 categories.* is \[3\]'):
        label_dataloader(detector_config(), 'x.json', ['a', 'b'])
    with pytest.raises(ValueError, match='x.json has the categories a, b, c'):
        label_dataloader(
            detector_config(metainfo=dict(classes=('a', 'b', 'd'))), 'x.json',
            ['a', 'b', 'c'])
    cfg = detector_config()
    del cfg.train_dataloader.dataset['data_prefix']
    with pytest.raises(ValueError, match='without a data_prefix'):
        label_dataloader(cfg, 'x.json', ['a', 'b', 'c'])


class Frames(Dataset):
    """Numbers of images, which are files."""

    ann_file = 'labels.json'

    def __init__(self, paths):
        self.paths = paths

    def __len__(self):
        return len(self.paths)

    def get_data_info(self, index):
        return dict(img_path=self.paths[index])

    def __getitem__(self, index):
        return index


class Detector(nn.Module):
    """Finds two boxes in each image, of scores 0.2 and 0.6."""

    def test_step(self, batch):
        assert not self.training
        samples = []
        for index in batch:
            sample = DetDataSample(metainfo=dict(img_id=index + 100))
            sample.pred_instances = InstanceData(
                bboxes=torch.full((2, 4), float(index)),
                scores=torch.tensor([.2, .6]),
                labels=torch.tensor([1, 2]))
            samples.append(sample)
        return samples


def detect_frames(min_score):
    loader = Runner.build_dataloader(loader_cfg(Frames([__file__] * 5), 2))
    return detect(Detector(), loader, min_score)


def check_detections(detections):
    assert sorted(detections) == [100, 101, 102, 103, 104]
    for image_id, one in detections.items():
        assert one['labels'].tolist() == [2]
        assert one['scores'].tolist() == pytest.approx([.6])
        assert one['bboxes'].tolist() == [[image_id - 100.] * 4]


def test_detect():
    check_detections(detect_frames(.5))
    assert all(len(one['scores']) == 2 for one in detect_frames(0).values())


def test_detect_on_two_processes(gloo):
    first, second = gloo(detect_frames, .5)
    check_detections(first)
    assert second == {}


def test_missing_images(tmp_path):
    paths = [__file__, str(tmp_path / 'a.png'), str(tmp_path / 'b.png')]
    with pytest.raises(FileNotFoundError,
                       match='2 of the 3 images of labels.json.*a.png; '):
        detect(Detector(),
               Runner.build_dataloader(loader_cfg(Frames(paths))))
