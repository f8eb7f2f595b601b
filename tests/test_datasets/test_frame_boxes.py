"""Ground truth from a detector: choice of boxes and frames, files."""
import json

import numpy as np
import pytest

from avdet_mm.datasets import AudioVisualDataset, BrokenClipError
from avdet_mm.datasets.clip_table import load_clip_table
from avdet_mm.datasets.frame_boxes import (
    LabeledFrame,
    keep_best,
    pick_times,
    prepared_frames,
    save_frame,
    write_labeled_frames,
)
from avdet_mm.datasets.media import read_image


def test_keep_best_leaves_out_what_overlaps_a_better_box():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 8], [20, 0, 30, 10.]])
    scores = np.array([0.9, 0.8, 0.1])
    assert keep_best(boxes, scores, 0.79).tolist() == [True, False, True]
    # 80 / 100 is not more than 0.8.
    assert keep_best(boxes, scores, 0.8).tolist() == [True, True, True]


def test_keep_best_counts_left_out_boxes_and_prefers_the_later_of_equals():
    # Each overlaps its neighbors by 9 / 11: the middle one goes for the
    # first, and yet the last one goes for the middle one.
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [2, 0, 12, 10.]])
    keep = keep_best(boxes, np.array([0.9, 0.8, 0.7]), 0.7)
    assert keep.tolist() == [True, False, False]
    equal = keep_best(boxes[:2], np.array([0.8, 0.8]), 0.7)
    assert equal.tolist() == [False, True]
    assert keep_best(np.zeros((0, 4)), np.zeros(0), 0.7).tolist() == []


def test_pick_times():
    times = [0., 1., 2., 3., 4., 5.]
    assert pick_times(times, 6., 1) == [3.]
    assert pick_times(times, 6., 2) == [1., 4.]
    assert pick_times([4., 5.], 6., 2) == [4., 5.]
    assert pick_times([5., 4.], 6., 7) == [4., 5.]
    # Of two at the same distance the earlier one.
    assert pick_times([2., 4.], 6., 1) == [2.]
    assert pick_times([], 6., 1) == []


def test_prepared_frames():
    assert prepared_frames(dict(video_path='a.mp4')) == {}
    row = dict(frames=dict(dir='f', ms=[0, 500]))
    assert prepared_frames(row) == {0.: 'f/0.jpg', 0.5: 'f/500.jpg'}


def test_save_frame(tmp_path):
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    out = str(tmp_path / 'gt.json')
    path = save_frame(image, out, dict(clip_id='a'), 1.25)
    assert path == 'gt_images/a_1250.png'
    assert np.array_equal(read_image(str(tmp_path / path)), image)
    with pytest.raises(BrokenClipError, match='unsafe clip id'):
        save_frame(image, out, dict(clip_id='../a'), 1.25)
    assert [p.name for p in tmp_path.iterdir()] == ['gt_images']


def frame(clip_id, time, *instances):
    row = dict(clip_id=clip_id, video_path=f'{clip_id}.mp4')
    return LabeledFrame(row, time, f'i/{clip_id}.png', 48, 64,
                        list(instances))


BOX = dict(bbox=[1., 2., 11., 22.], label='b', score=0.95)


def test_files_of_one_frame_per_clip(tmp_path):
    out = str(tmp_path / 'gt.json')
    report = write_labeled_frames(
        out, [frame('x', 1.5, BOX), frame('y', 2.)], ['a', 'b'],
        dict(x=['b'], y=[], z=['a']), ['x', 'y'], dict(z='silent'),
        dict(source='s'), dict(more=7))
    metainfo, rows = load_clip_table(out)
    assert metainfo['classes'] == ['a', 'b'] and metainfo['source'] == 's'
    assert metainfo['split_hash'] == report['split_hash']
    assert rows == [
        dict(clip_id='x', video_path='x.mp4', time=1.5, height=48, width=64,
             instances=[BOX]),
        dict(clip_id='y', video_path='y.mp4', time=2., height=48, width=64,
             instances=[]),
    ]
    coco = json.loads((tmp_path / 'gt_coco.json').read_text())
    assert coco['images'] == [
        dict(file_name='i/x.png', clip_id='x', time=1.5, height=48, width=64,
             id=0),
        dict(file_name='i/y.png', clip_id='y', time=2., height=48, width=64,
             id=1),
    ]
    assert coco['annotations'] == [
        dict(id=1, image_id=0, category_id=1, bbox=[1., 2., 10., 20.],
             area=200., iscrowd=0, score=0.95)
    ]
    assert json.loads((tmp_path / 'gt_coverage.json').read_text()) == report
    assert report['frames'] == 2 and report['boxes'] == 1
    assert report['more'] == 7 and report['left_out'] == dict(silent=1)


def test_ids_of_several_frames_per_clip(tmp_path):
    out = str(tmp_path / 'gt.json')
    frames = [frame('x', 1.5, BOX), frame('x', 3., BOX), frame('y', 2., BOX)]
    write_labeled_frames(out, frames, ['b'], dict(x=['b'], y=['b']),
                         ['x', 'y'], {}, {})
    dataset = AudioVisualDataset(out, check=None)
    assert dataset.clip_ids == ['x@1500', 'x@3000', 'y@2000']
    assert dataset[1]['time'] == 3.
    coco = json.loads((tmp_path / 'gt_coco.json').read_text())
    assert [i['clip_id'] for i in coco['images']] == ['x', 'x', 'y']
