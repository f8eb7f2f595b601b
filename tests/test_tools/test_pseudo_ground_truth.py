"""Ground truth by detectors: one whose boxes are known, a Faster R-CNN."""
import importlib.util
import json
import sys
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from mmdet.evaluation.functional.class_names import oid_v6_classes
from mmdet.models import BaseDetector
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from pycocotools.coco import COCO

from avdet_mm.datasets import AudioVisualDataset
from avdet_mm.datasets.clip_table import dump_clip_table, load_clip_table
from avdet_mm.datasets.media import read_image
from avdet_mm.testing import write_media
from avdet_mm.utils import file_sha256

ROOT = Path(__file__).parents[2]
_spec = importlib.util.spec_from_file_location(
    'converter_pseudo_ground_truth',
    ROOT / 'tools' / 'dataset_converters' / 'pseudo_ground_truth.py')
tool = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tool)

# Where the patch of the frames at a time in seconds is: x1, y1, x2, y2.
HEIGHT, WIDTH = 48, 96


def patch_at(time):
    return [16 + 8 * int(time), 8, 40 + 8 * int(time), 32]


@MODELS.register_module(force=True)
class PatchDetector(BaseDetector):
    """Finds the brighter patch; its classes are the colors.

    Each patch is found three times: by its class, a little smaller with a
    lower score and the next class, and as a corner with a low score.
    """

    def __init__(self, data_preprocessor=None, init_cfg=None):
        super().__init__(data_preprocessor, init_cfg)
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.batch_sizes = []

    def predict(self, batch_inputs, batch_data_samples, rescale=True):
        self.batch_sizes.append(len(batch_inputs))
        for image, sample in zip(batch_inputs, batch_data_samples):
            channel = image.mean(dim=(1, 2)).argmax()
            mask = (image[channel] > 128).numpy().astype(np.uint8)
            x, y, w, h = cv2.boundingRect(mask)
            if w == 0:
                boxes = np.zeros((0, 4))
            else:
                boxes = np.array([[x, y, x + w, y + h],
                                  [x, y, x + w, y + 0.9 * h],
                                  [x, y, x + w / 4, y + h / 4]])
            boxes /= np.array(sample.scale_factor * 2)
            n = len(boxes)
            sample.pred_instances = InstanceData(
                bboxes=torch.tensor(boxes),
                scores=torch.tensor([0.95, 0.93, 0.5])[:n] +
                self.weight.detach(),
                labels=torch.tensor([0, 1, 0])[:n] + channel)
        return batch_data_samples

    def loss(self, batch_inputs, batch_data_samples):
        raise NotImplementedError

    def _forward(self, batch_inputs, batch_data_samples=None):
        raise NotImplementedError

    def extract_feat(self, batch_inputs):
        raise NotImplementedError


CONFIG = """
default_scope = 'mmdet'
model = dict(
    type='PatchDetector',
    data_preprocessor=dict(type='DetDataPreprocessor', pad_size_divisor=32))
test_dataloader = dict(
    dataset=dict(
        type='RepeatDataset',
        dataset=dict(
            type='CocoDataset',
            pipeline=[
                dict(type='LoadImageFromFile', backend_args=None),
                dict(type='Resize', scale=(192, 1000), keep_ratio=True),
                dict(type='LoadAnnotations', with_bbox=True),
                dict(
                    type='PackDetInputs',
                    meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape',
                               'scale_factor')),
            ])))
"""
NAMES = ('blue drum', 'green drum', 'red harp', 'black bell')


@pytest.fixture
def config(tmp_path):
    path = tmp_path / 'patch_config.py'
    path.write_text(CONFIG)
    return path


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / 'patch.pth'
    torch.save(
        dict(
            state_dict=dict(weight=torch.zeros(1)),
            meta=dict(dataset_meta=dict(CLASSES=NAMES))), path)
    return path


@pytest.fixture(scope='module')
def frames():
    """Eight seconds at 4 fps of a patch that jumps every second; by color."""

    def make(channel):
        images = np.full((32, HEIGHT, WIDTH, 3), 20, np.uint8)
        for i, image in enumerate(images):
            x1, y1, x2, y2 = patch_at(i / 4)
            image[y1:y2, x1:x2, channel] = 250
        return images

    return make


@pytest.fixture(scope='module')
def videos(tmp_path_factory, frames):
    """Videos with a blue, a green and no patch, and files that are none."""
    folder = tmp_path_factory.mktemp('media')
    wave = np.zeros(8 * 8000, np.float32)
    for channel, name in enumerate(('blue', 'green')):
        write_media(str(folder / f'{name}.mp4'), frames(channel), wave, 4,
                    8000)
    write_media(str(folder / 'gray.mp4'),
                np.full((32, HEIGHT, WIDTH, 3), 20, np.uint8), wave, 4, 8000)
    write_media(str(folder / 'mute.mp4'), frames(0), None, 4)
    (folder / 'empty.mp4').touch()
    return folder


@pytest.fixture
def prepared(tmp_path, frames):
    """Prepared frames, one per second, of a red patch."""
    folder = tmp_path / 'prepared'
    (folder / 'frames' / 'red').mkdir(parents=True)
    for second in range(8):
        cv2.imwrite(str(folder / f'frames/red/{second}000.jpg'),
                    frames(2)[4 * second],
                    [cv2.IMWRITE_JPEG_QUALITY, 100])
    dump_clip_table([
        dict(clip_id='red',
             frames=dict(dir='frames/red', ms=list(range(0, 8000, 1000))),
             audio_path='audio/red.flac', duration=8.)
    ], str(folder / 'clips.json'))
    return folder


@pytest.fixture
def run(monkeypatch, tmp_path, config, checkpoint):
    """Runs the tool; returns metainfo, rows, COCO json and report."""

    def call(clips, *options):
        out = tmp_path / 'out' / 'gt.json'
        monkeypatch.setattr(sys, 'argv', [
            'tool',
            str(config),
            str(checkpoint), '--clips',
            str(clips), '--out',
            str(out), '--device', 'cpu', *map(str, options)
        ])
        tool.main()
        return (*load_clip_table(str(out)), *(
            json.loads(out.with_name(f'gt_{x}.json').read_text())
            for x in ('coco', 'coverage')))

    return call


def test_videos(run, videos, checkpoint, config, tmp_path):
    metainfo, rows, coco, report = run(videos)
    # The middle of 8 s; the pipeline has doubled the size of the image, the
    # box is in pixels of the video. What overlaps it more than 0.7 with a
    # lower score is left out, and so is the corner.
    assert [(r['clip_id'], r['time'], r['height'], r['width'])
            for r in rows] == [('blue', 4., 48, 96), ('green', 4., 48, 96)]
    for row, name in zip(rows, NAMES):
        box, = row['instances']
        assert box['bbox'] == pytest.approx(patch_at(4), abs=1)
        assert box['label'] == name and box['score'] == 0.95
    assert metainfo['classes'] == list(NAMES)
    assert report['left_out_ids'] == {
        'empty file': ['empty'],
        'no audio stream': ['mute'],
        'no confident detection': ['gray']
    }
    assert report['per_class'] == {
        'blue drum': dict(annotated=1, found=1),
        'green drum': dict(annotated=1, found=1)
    }
    # Where it is from.
    for info in (metainfo, coco['info'], report):
        assert info['config'] == 'patch_config.py'
        assert info['checkpoint_sha256'] == file_sha256(str(checkpoint))
        assert info['config_sha256'] == file_sha256(str(config))
        assert info['score_thr'] == 0.9 and info['max_overlap'] == 0.7
    # The frame itself lies beside the tables.
    image = coco['images'][1]
    assert image['file_name'] == 'gt_images/green_4000.png'
    with av.open(str(videos / 'green.mp4')) as container:
        shown = list(container.decode(video=0))[16]
    saved = read_image(str(tmp_path / 'out' / image['file_name']))
    assert np.array_equal(saved, shown.to_ndarray(format='bgr24'))
    assert [p.name for p in sorted((tmp_path / 'out').rglob('*'))] == [
        'gt.json', 'gt_coco.json', 'gt_coverage.json', 'gt_images',
        'blue_4000.png', 'green_4000.png'
    ]


def test_files_are_read_by_their_readers(run, videos, tmp_path):
    run(videos)
    dataset = AudioVisualDataset(str(tmp_path / 'out' / 'gt.json'))
    assert dataset[1]['eval_instances']['labels'].tolist() == [1]
    coco = COCO(str(tmp_path / 'out' / 'gt_coco.json'))
    found, = coco.loadAnns(coco.getAnnIds([1]))
    assert found['bbox'] == pytest.approx([48, 8, 24, 24], abs=1)
    assert coco.cats[found['category_id']]['name'] == 'green drum'


def test_prepared_frames(run, prepared):
    _, rows, coco, _ = run(prepared, '--frames-per-clip', 2)
    assert [(r['clip_id'], r['time']) for r in rows] == [('red@2000', 2.),
                                                         ('red@6000', 6.)]
    for row in rows:
        assert row['instances'][0]['bbox'] == patch_at(row['time'])
        assert row['instances'][0]['label'] == 'red harp'
        assert row['frames']['dir'] == '../prepared/frames/red'
    # No copies.
    assert [i['file_name'] for i in coco['images']] == [
        f'../prepared/frames/red/{t}000.jpg' for t in (2, 6)
    ]


def test_missing_prepared_frame(run, prepared):
    (prepared / 'frames' / 'red' / '4000.jpg').unlink()
    with pytest.raises(ValueError, match='None of the 1 clips .* 1 missing'):
        run(prepared)


def test_class_map(run, videos, tmp_path):
    path = tmp_path / 'map.json'
    path.write_text(
        json.dumps(
            dict(classes=['Harp', 'Drum'],
                 mapping={'blue drum': 'Drum', 'Red harp': 'Harp'},
                 aliases={'red harp': 'Red harp'})))
    metainfo, rows, coco, report = run(videos, '--class-map', path)
    assert metainfo['classes'] == ['Harp', 'Drum']
    assert metainfo['detector_classes'] == {
        'blue drum': 'Drum',
        'red harp': 'Harp'
    }
    # The second detection of the green patch is a red harp, and the first
    # one, a green drum, is not there to suppress it.
    assert [(r['clip_id'], x['label'], x['score']) for r in rows
            for x in r['instances']] == [('blue', 'Drum', 0.95),
                                         ('green', 'Harp', 0.93)]
    assert coco['annotations'][0]['category_id'] == 1
    assert report['left_out']['no confident detection'] == 1


def test_unknown_classes_in_the_map(run, videos):
    with pytest.raises(ValueError, match=(
            r"has no class 'Accordion', .* of openimages_instruments\. Its "
            'classes are blue drum, green drum, red harp, black bell')):
        run(videos, '--class-map', 'openimages_instruments')


@pytest.mark.parametrize('name', ['instruments', 'general'])
def test_detectors_of_openimages_have_the_papers_classes(name):
    classes, mapped = tool.map_classes(oid_v6_classes(), f'openimages_{name}')
    assert sorted(mapped.values()) == sorted(classes)
    if name == 'instruments':
        assert mapped[oid_v6_classes().index('French horn')] == 'Horn'


def test_thresholds(run, videos):
    _, rows, _, _ = run(videos, '--score-thr', 0.2, '--max-overlap', 0.95)
    assert [x['score'] for x in rows[0]['instances']] == [0.95, 0.93, 0.5]
    x1, y1, x2, y2 = patch_at(4)
    assert rows[0]['instances'][2]['bbox'] == pytest.approx(
        [x1, y1, (3 * x1 + x2) / 4, (3 * y1 + y2) / 4], abs=1)
    with pytest.raises(ValueError, match='3 no confident detection'):
        run(videos, '--score-thr', 0.95)


def test_confident_boxes_are_in_the_image_and_in_order():
    found = dict(
        bboxes=np.array([[-5, 2, 20, 30], [60, 8, 99, 50], [10, 0, 10.9, 40],
                         [0, 0, 96, 48], [40, 40, 50, 46]]),
        scores=np.array([0.92, 0.99, 0.98, 0.97, 0.95], np.float32),
        labels=np.array([0, 1, 0, 3, 0]))
    # The third is less than a pixel wide, the fourth of no class of the map.
    assert tool.confident(found, {0: 'a', 1: 'b'}, 0.9, 0.7, 48, 96) == [
        dict(bbox=[60., 8., 96., 48.], label='b', score=0.99),
        dict(bbox=[40., 40., 50., 46.], label='a', score=0.95),
        dict(bbox=[0., 2., 20., 30.], label='a', score=0.92),
    ]


def test_keep_empty(run, videos):
    _, rows, coco, report = run(videos, '--keep-empty')
    assert [(r['clip_id'], len(r['instances'])) for r in rows] == [
        ('blue', 1), ('gray', 0), ('green', 1)
    ]
    assert len(coco['images']) == 3 and report['found'] == 3


@pytest.mark.parametrize('batch_size, sizes', [(1, [1] * 9), (4, [4, 4, 1]),
                                               (64, [9])])
def test_batches(run, videos, monkeypatch, batch_size, sizes):
    models = []
    build = MODELS.build
    monkeypatch.setattr(MODELS, 'build', lambda cfg: models.append(build(cfg))
                        or models[-1])
    _, rows, _, _ = run(videos, '--batch-size', batch_size, '--workers', 1,
                        '--frames-per-clip', 3)
    assert models[0].batch_sizes == sizes
    # Whatever the batches, each frame has its own boxes.
    assert [r['clip_id'] for r in rows] == [
        f'{c}@{t}' for c in ('blue', 'green') for t in (1333, 4000, 6667)
    ]
    for row in rows:
        assert row['instances'][0]['bbox'] == pytest.approx(
            patch_at(row['time']), abs=1)


def test_names_of_the_classes(config, checkpoint):

    def names(meta, text=CONFIG):
        torch.save(dict(state_dict=dict(weight=torch.zeros(1)), **meta),
                   checkpoint)
        config.write_text(text)
        return tool.Detector(str(config), str(checkpoint), 'cpu').names

    assert names(dict(meta=dict(dataset_meta=dict(classes=('a', 'b'))))) == [
        'a', 'b'
    ]
    assert names(dict(meta=dict(CLASSES=['c']))) == ['c']
    assert names(dict(meta=dict(dataset_meta=dict(classes='d')))) == ['d']
    # From the config: its own, or those of the data set's type.
    own = CONFIG.replace("type='CocoDataset',",
                         "type='CocoDataset', metainfo=dict(classes=('e', )),")
    assert names({}, own) == ['e']
    assert names({})[:2] == ['person', 'bicycle']
    unnamed = CONFIG.replace('CocoDataset', 'BaseDetDataset')
    with pytest.raises(ValueError, match='Neither .* tells the names'):
        names({}, unnamed)


def test_more_classes_than_names(run, videos, checkpoint):
    torch.save(
        dict(
            state_dict=dict(weight=torch.zeros(1)),
            meta=dict(dataset_meta=dict(classes=('a', )))), checkpoint)
    with pytest.raises(ValueError, match='found class 1, but has 1 names'):
        run(videos)


def test_wrong_arguments(run, videos, checkpoint, tmp_path):
    (tmp_path / 'none').mkdir()
    with pytest.raises(ValueError, match='There are no clips in'):
        run(tmp_path / 'none')
    with pytest.raises(ValueError, match='--batch-size .* 1 or more'):
        run(videos, '--batch-size', 0)
    checkpoint.unlink()
    with pytest.raises(FileNotFoundError, match='no file .*patch.pth'):
        run(videos)


def test_faster_rcnn(run, videos, config, checkpoint, monkeypatch, tmp_path):
    """MMDetection's own model, of the demo, with random weights."""
    monkeypatch.setenv('AVDET_DEMO_DIR', str(tmp_path))
    cfg = Config.fromfile(
        ROOT / 'configs/avdet/faster-rcnn_avol-net_fpn_demo.py')
    cfg.dump(str(config))
    torch.manual_seed(0)
    register_all_modules(init_default_scope=False)
    init_default_scope('mmdet')
    model = MODELS.build(cfg.model)
    names = tuple(f'cluster_{k}' for k in range(8))
    torch.save(
        dict(
            state_dict=model.state_dict(),
            meta=dict(dataset_meta=dict(classes=names))), checkpoint)
    _, rows, _, _ = run(videos, '--score-thr', 0.02)
    assert rows
    boxes = np.array([x['bbox'] for r in rows for x in r['instances']])
    assert (boxes >= 0).all() and (boxes[:, 2:] <= (WIDTH, HEIGHT)).all()
