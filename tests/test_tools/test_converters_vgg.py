"""Converters of VGGSound, VGG-SS, DSOL AudioSet and Flickr-SoundNet.

Annotations are the published files where this checkout has them; media are
tiny, under the names of real clips.
"""
import importlib.util
import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import soundfile

from avdet_mm.datasets import AudioVisualDataset, BrokenClipError
from avdet_mm.datasets.clip_table import (
    dump_clip_table,
    load_clip_table,
    split_hash,
)
from avdet_mm.datasets.conversion import clean_boxes, to_pixels
from avdet_mm.datasets.metainfo import load_label_map
from avdet_mm.testing import write_media

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / 'tools' / 'dataset_converters'
ANNOTATIONS = ROOT.parent / 'shared' / 'data' / 'annotations'
HEIGHT, WIDTH = 48, 64


def load_tool(name):
    spec = importlib.util.spec_from_file_location(f'converter_{name}',
                                                  TOOLS / f'{name}.py')
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool


vggsound = load_tool('vggsound')
vggss = load_tool('vggss')
dsol = load_tool('dsol_audioset')
flickr = load_tool('flickr_soundnet')


def published(name):
    path = ANNOTATIONS / name
    if not path.is_file():
        pytest.skip(f'needs {name}, which is not in this checkout')
    return str(path)


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Runs a converter; returns metainfo, rows and the coverage report."""

    def call(tool, annotations, clips, *options):
        out = tmp_path / 'out' / 'table.json'
        monkeypatch.setattr(sys, 'argv', [
            'tool', str(annotations), '--clips', str(clips), '--out',
            str(out), *map(str, options)
        ])
        tool.main()
        report = out.with_name('table_coverage.json')
        return (*load_clip_table(str(out)), json.loads(report.read_text()))

    return call


@pytest.fixture(scope='module')
def clip(tmp_path_factory):
    """A video of 10 s with one frame per second."""
    path = tmp_path_factory.mktemp('media') / 'clip.mp4'
    frames = np.full((10, HEIGHT, WIDTH, 3), 90, np.uint8)
    write_media(str(path), frames, np.zeros(80000, np.float32), 1, 8000)
    return path


@pytest.fixture
def place(clip, tmp_path):
    """Puts the video at places in a folder; returns the folder."""

    def call(*names):
        for name in names:
            path = tmp_path / 'media' / name
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(clip, path)
        return tmp_path / 'media'

    return call


def prepare(folder, ids, times=range(0, 10000, 500)):
    """A folder as tools/prepare_clips.py leaves it, without the media."""
    dump_clip_table([
        dict(
            clip_id=i,
            frames=dict(dir=f'frames/{i}', ms=list(times)),
            audio_path=f'audio/{i}.flac',
            duration=10.0,
            height=100,
            width=200) for i in ids
    ], str(folder / 'clips.json'))
    return folder


def load(path, **kwargs):
    return AudioVisualDataset(str(path), check=None, **kwargs)


# --------------------------------------------------------------------------
# VGGSound
# --------------------------------------------------------------------------
SAMPLE = """\
---g-f_I2yQ,1,people marching,test

--iY3Bf4hDg,30,"playing violin, fiddle",train
-0iEMffOYwo,5,playing oboe,train
-0iEMffOYwo,5,playing oboe,train
--SQyOb8eS0,30,playing harp,train
--SQyOb8eS0,30,playing piano,train
--SQyOb8eS0,300,playing harp,test
-0dzLw4NyrM,596,playing didgeridoo,train
"""


@pytest.fixture
def sample(tmp_path):
    path = tmp_path / 'vggsound.csv'
    path.write_text('\ufeff' + SAMPLE, encoding='utf-8')
    return path


def test_vggsound_published_files():
    entries = vggsound.read_annotations(published('vggsound_test.csv'))
    assert len(entries) == len({e[:2] for e in entries}) == 15446
    assert {e.split for e in entries} == {'test'}
    assert entries[0] == ('glLQrEijrKg', 300, 'playing hammond organ', 'test')
    labels = Counter(e.label for e in entries)
    assert set(labels) == set(load_label_map('vggsound').classes)
    counts = {
        subset: sum(labels[c] for c in vggsound.subset_classes(subset))
        for subset in vggsound.SUBSETS
    }
    assert counts == dict(
        all=15446,
        instruments=2499,
        mappable=1949,
        representative=749,
        general=550)

    entries = vggsound.read_annotations(published('vggsound_sample.csv'))
    assert len(entries) == 42
    assert entries[3] == ('--9O4XZOge4', 30, 'female speech, woman speaking',
                          'train')
    assert Counter(e.split for e in entries) == dict(train=40, test=2)


def test_vggsound_test_list(run, place):
    folder = place('a/glLQrEijrKg_000300.mp4', 'LDoXsip0BEQ_177_187.mkv')
    _, rows, report = run(vggsound, published('vggsound_test.csv'), folder)
    assert [r['label'] for r in rows] == [
        'playing hammond organ', 'parrot talking'
    ]
    assert report['annotated'] == 15446 and report['found'] == 2
    assert report['left_out'] == dict(missing=15444)
    assert report['per_class']['parrot talking']['found'] == 1
    assert len(report['per_class']) == 309


def test_vggsound(run, sample, place, tmp_path):
    folder = place('x/--iY3Bf4hDg_000030.mp4', 'y/--SQyOb8eS0_30.mp4',
                   '--SQyOb8eS0_300000_310000.webm', 'holiday.mp4',
                   '---g-f_I2yQ_000001.mp4', '---g-f_I2yQ_000001.mkv',
                   '-0iEMffOYwo_000006.mp4')
    metainfo, rows, report = run(vggsound, sample, folder)
    assert rows == [
        dict(
            clip_id='--iY3Bf4hDg_000030',
            video_path='../media/x/--iY3Bf4hDg_000030.mp4',
            label='playing violin, fiddle'),
        dict(
            clip_id='--SQyOb8eS0_30',
            video_path='../media/y/--SQyOb8eS0_30.mp4',
            label='playing harp'),
        dict(
            clip_id='--SQyOb8eS0_300000_310000',
            video_path='../media/--SQyOb8eS0_300000_310000.webm',
            label='playing harp'),
    ]
    assert report['annotated'] == 6 and report['found'] == 3
    assert report['left_out'] == {'missing': 2, 'several files': 1}
    assert report['left_out_ids']['several files'] == ['---g-f_I2yQ_000001']
    assert report['repeated_lines'] == 2
    assert report['contradicting_lines'] == 1
    assert report['per_class']['playing harp'] == dict(annotated=2, found=2)
    # The hash names the clips, however they are called on disk.
    assert metainfo['split_hash'] == report['split_hash'] == split_hash([
        '--iY3Bf4hDg_000030', '--SQyOb8eS0_000030', '--SQyOb8eS0_000300'
    ])
    assert metainfo['annotation_file'] == 'vggsound.csv'
    assert len(metainfo['annotation_sha256']) == 64
    assert metainfo['classes'] == list(load_label_map('vggsound').classes)

    dataset = AudioVisualDataset(
        str(tmp_path / 'out' / 'table.json'), check='probe')
    assert len(dataset) == 3
    names = dataset.metainfo['classes']
    assert names[dataset.get_data_info(0)['gt_label']] == (
        'playing violin, fiddle')


@pytest.mark.parametrize('options, labels, num_classes, annotated', [
    (['--split', 'test'], ['playing harp'], 309, 2),
    (['--subset', 'instruments'], ['playing violin, fiddle'] +
     2 * ['playing harp'] + ['playing didgeridoo'], 50, 5),
    (['--subset', 'mappable', '--split', 'train'],
     ['playing violin, fiddle', 'playing harp'], 39, 3),
    (['--subset', 'mappable', '--label-map', 'vggsound_groups'],
     ['Violin', 'Harp', 'Harp'], 15, 4),
])
def test_vggsound_subsets(run, sample, tmp_path, options, labels, num_classes,
                          annotated):
    source = prepare(tmp_path, [
        '--iY3Bf4hDg_000030', '--SQyOb8eS0_000030', '--SQyOb8eS0_000300',
        '-0dzLw4NyrM_000596'
    ])
    metainfo, rows, report = run(vggsound, sample, source, *options)
    assert [r['label'] for r in rows] == labels
    assert len(metainfo['classes']) == num_classes
    assert report['annotated'] == annotated
    assert rows[0]['frames']['dir'].startswith('../frames/--')
    assert len(load(tmp_path / 'out' / 'table.json')) == len(labels)


def test_vggsound_file_of_classes(run, sample, tmp_path):
    names = tmp_path / 'names.txt'
    names.write_text('playing oboe\nplaying violin\n\n')
    source = prepare(tmp_path, ['--iY3Bf4hDg_000030', '--SQyOb8eS0_000030'])
    metainfo, rows, _ = run(vggsound, sample, source, '--subset', names)
    assert metainfo['classes'] == ['playing oboe', 'playing violin, fiddle']
    assert metainfo['subset'] == 'names.txt'
    assert [r['clip_id'] for r in rows] == ['--iY3Bf4hDg_000030']

    names.write_text('playing lute\n')
    with pytest.raises(ValueError, match="names 'playing lute'"):
        vggsound.subset_classes(str(names))
    names.write_text('\n')
    with pytest.raises(ValueError, match='no class'):
        vggsound.subset_classes(str(names))
    with pytest.raises(FileNotFoundError, match='mappable'):
        vggsound.subset_classes('instrument')


@pytest.mark.parametrize('line, message', [
    ('--iY3Bf4hDg,30,playing oboe', 'line 2 has 3 columns'),
    ('--iY3Bf4hDg,30,playing violin, fiddle,train', 'line 2 has 5 columns'),
    ('--iY3Bf4hDg,x,playing oboe,train', "line 2: the start 'x'"),
    ('--iY3Bf4hDg,-3,playing oboe,train', "line 2: the start '-3'"),
    (',30,playing oboe,train', "line 2: '' is not"),
    ('../../../xy,30,playing oboe,train', r"line 2: '../../../xy' is not"),
    ('abcdefghijk_1,30,playing oboe,train', "'abcdefghijk_1' is not"),
    ('../--iY3Bf4hDg_000030.mp4,playing oboe', "line 2: '../--iY3B"),
    ('--iY3Bf4hDg,30,playing lute,train', "'playing lute' is none of"),
    ('--iY3Bf4hDg,30,playing oboe,val', "split is 'val'"),
    ('"--iY3Bf4hDg', 'columns'),
])
def test_vggsound_bad_lines(tmp_path, line, message):
    path = tmp_path / 'bad.csv'
    path.write_text(f'---g-f_I2yQ,1,people marching,test\n{line}\n')
    with pytest.raises(ValueError, match=message):
        vggsound.read_annotations(str(path))


def test_vggsound_other_encoding(tmp_path):
    path = tmp_path / 'bad.csv'
    path.write_bytes(b'--iY3Bf4hDg,30,caf\xe9,train\n')
    with pytest.raises(ValueError, match='csv file in UTF-8'):
        vggsound.read_annotations(str(path))


def test_vggsound_nothing_found(run, sample, place, tmp_path):
    folder = place('holiday.mp4')
    with pytest.raises(ValueError) as error:
        run(vggsound, sample, folder)
    for part in ('None of the 6', "'---g-f_I2yQ_000001'", "'holiday'",
                 '1 clips'):
        assert part in str(error.value)
    assert not list((tmp_path / 'out').iterdir())
    with pytest.raises(ValueError, match='no entry of the split'):
        run(vggsound, sample, folder, '--subset', 'general')
    with pytest.raises(FileNotFoundError, match="'elsewhere'"):
        run(vggsound, sample, 'elsewhere')
    with pytest.raises(ValueError, match='270 classes lack'):
        run(vggsound, sample, folder, '--label-map', 'vggsound_groups')


def test_folders_that_are_links(run, sample, place, tmp_path):
    """The usual data folder is a link to another disk."""
    (tmp_path / 'disk' / 'deep').mkdir(parents=True)
    (tmp_path / 'out').symlink_to(tmp_path / 'disk' / 'deep')
    place('--iY3Bf4hDg_000030.mp4')
    (tmp_path / 'link').symlink_to(tmp_path / 'media')
    _, rows, _ = run(vggsound, sample, tmp_path / 'link')
    assert rows[0]['video_path'] == '../../media/--iY3Bf4hDg_000030.mp4'
    dataset = AudioVisualDataset(str(tmp_path / 'out' / 'table.json'))
    assert len(dataset) == 1


def test_source_is_not_replaced(monkeypatch, sample, tmp_path):
    source = prepare(tmp_path, ['--iY3Bf4hDg_000030']) / 'clips.json'
    before = source.read_bytes()
    monkeypatch.setattr(sys, 'argv', [
        'tool', str(sample), '--clips', str(source), '--out', str(source)
    ])
    with pytest.raises(ValueError, match='would replace'):
        vggsound.main()
    assert source.read_bytes() == before


def test_command_line(sample, place, tmp_path):
    """One sentence instead of a traceback."""
    result = subprocess.run([
        sys.executable,
        str(TOOLS / 'vggsound.py'),
        str(sample), '--clips',
        str(place('holiday.mp4')), '--out',
        str(tmp_path / 'x.json')
    ], capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr.startswith('error: None of the 6 entries')
    assert 'Traceback' not in result.stderr


# --------------------------------------------------------------------------
# Boxes
# --------------------------------------------------------------------------
def test_clean_boxes():
    nan = float('nan')
    assert clean_boxes([
        [-0.5, 0.25, 0.5, 1.5],
        [0.1, 0.1, 0.1, 0.9],
        [0.5, 0.2, -2.88e16, 0.4],
        [0.5, 0.2, 0.4, 0.4],
        [0.1, 0.1, nan, 0.9],
        [1.0, 0.0, 1.2, 1.0],
    ]) == [[0.0, 0.25, 0.5, 1.0]] + 5 * [None]


def test_to_pixels():
    assert to_pixels([0.25, 0.1, 0.5, 1.0], 48, 64) == [16.0, 4.8, 32.0, 48.0]


# --------------------------------------------------------------------------
# VGG-SS
# --------------------------------------------------------------------------
def test_vggss_published_file():
    entries = vggss.read_annotations(published('vggss.json'))
    assert len(entries) == 5158
    assert sum(len(e.boxes) + e.num_damaged for e in entries.values()) == 5941
    assert sum(e.num_damaged for e in entries.values()) == 18
    assert [n for n, e in entries.items()
            if not e.boxes] == ['M1P1xla8rg0_000000', 'MKC9LvRivTM_000030']
    labels = {e.label for e in entries.values()}
    assert len(labels) == 221
    assert labels <= set(load_label_map('vggsound').classes)


def test_vggss(run, place, clip, tmp_path):
    folder = place('zpWuikVorYg_000032.mp4', 'M1P1xla8rg0_0.mp4',
                   '5VCZHHd4UKI_000098.mp4', 'JIemsK_0lXc_000364.mp4')
    # A frame and a sound file, as the field's loaders want them.
    name = 'ORaz32CQ29k_130000_140000'
    (folder / 'frames').mkdir()
    (folder / 'audio').mkdir()
    cv2.imwrite(
        str(folder / f'frames/{name}.jpg'), np.zeros((90, 160, 3), np.uint8))
    soundfile.write(
        str(folder / f'audio/{name}.wav'), np.zeros(80000), 8000)
    # A video comes before the files that somebody took from it.
    shutil.copy(folder / f'frames/{name}.jpg',
                folder / 'frames/zpWuikVorYg_000032.jpg')
    shutil.copy(folder / f'audio/{name}.wav',
                folder / 'audio/zpWuikVorYg_000032.wav')
    (folder / 'gEvCUcZ6w88_000030.mp4').write_bytes(b'')
    write_media(
        str(folder / 'RgyqhpOJFM4_000030.mp4'),
        np.zeros((2, HEIGHT, WIDTH, 3), np.uint8),
        np.zeros(16000, np.float32), 1, 8000)
    metainfo, rows, report = run(vggss, published('vggss.json'), folder)

    assert [r['clip_id'] for r in rows] == [
        'zpWuikVorYg_000032', 'JIemsK_0lXc_000364', name, 'M1P1xla8rg0_0',
        '5VCZHHd4UKI_000098'
    ]
    assert rows[0]['instances'] == [
        dict(bbox=[25.8, 12.15, 38.4, 36.0], label='elk bugling')
    ]
    assert rows[0]['time'] == 5.0
    assert (rows[0]['height'], rows[0]['width']) == (HEIGHT, WIDTH)
    assert rows[2]['frames'] == [
        dict(path=f'../media/frames/{name}.jpg', time=5.0)
    ]
    assert [x['bbox'] for x in rows[2]['instances']
            ] == [[19.5, 15.469, 96.0, 76.781],
                  [122.5, 24.75, 157.5, 50.906]]
    # The only box is damaged; then one of two.
    assert rows[3]['instances'] == []
    assert len(rows[4]['instances']) == 1
    assert report['left_out'] == {
        'missing': 5151,
        'empty file': 1,
        'no frame at the annotated time': 1
    }
    assert report['boxes'] == 5923 and report['damaged_boxes'] == 18
    assert report['clips_without_box'] == 2 and report['boxes_found'] == 5
    assert len(metainfo['classes']) == 221

    dataset = AudioVisualDataset(
        str(tmp_path / 'out' / 'table.json'), check='probe')
    info = dataset.get_data_info(2)
    assert dataset.metainfo['classes'][info['gt_label']] == 'coyote howling'
    assert info['eval_instances']['bboxes'].tolist() == [
        pytest.approx([19.5, 15.469, 96.0, 76.781]),
        pytest.approx([122.5, 24.75, 157.5, 50.906])
    ]
    assert dataset.get_data_info(3)['eval_instances']['bboxes'].shape == (0,
                                                                          4)


def test_vggss_prepared_clips(run, tmp_path):
    prepare(tmp_path, ['zpWuikVorYg_000032'])
    _, rows, _ = run(vggss, published('vggss.json'), tmp_path)
    assert rows[0]['time'] == 5.0
    assert rows[0]['instances'][0]['bbox'] == [80.625, 25.312, 120.0, 75.0]
    # Frames of the first 4 s do not show what was annotated.
    prepare(tmp_path, ['zpWuikVorYg_000032'], range(0, 4000, 500))
    with pytest.raises(ValueError, match='1: no frame at the annotated time'):
        run(vggss, published('vggss.json'), tmp_path)


@pytest.mark.parametrize('content, message', [
    ('{}', 'is not VGG-SS'),
    ('[', 'no valid json'),
    ('[{"file": "x", "class": "a", "bbox": []}]', 'entry 0'),
    ('[{"file": "zpWuikVorYg_000032", "bbox": []}]', 'entry 0'),
    ('[{"file": "zpWuikVorYg_000032", "class": "a", "bbox": [[1, 2]]}]',
     'entry 0'),
    ('[7]', 'entry 0'),
    ('[{"file": "zpWuikVorYg_000032", "class": "a", "bbox": []}, '
     '{"file": "zpWuikVorYg_000032", "class": "a", "bbox": []}]',
     'two entries'),
])
def test_vggss_bad_file(tmp_path, content, message):
    path = tmp_path / 'bad.json'
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        vggss.read_annotations(str(path))


# --------------------------------------------------------------------------
# DSOL AudioSet
# --------------------------------------------------------------------------
def test_dsol_published_file():
    entries = dsol.read_annotations(published('dsol_audioset_box.json'))
    assert len(entries) == 4503
    assert len({e.youtube_id for e in entries.values()}) == 566
    counts = Counter(c for e in entries.values() for c in e.labels)
    assert counts == {
        'Banjo': 151,
        'Cello': 402,
        'Drum': 2819,
        'Guitar': 1045,
        'Harp': 367,
        'Harmonica': 13,
        'Piano': 490,
        'Saxophone': 320,
        'Trombone': 212,
        'Violin': 419,
        'Flute': 235,
        'Accordion': 454,
        'Horn': 476
    }
    assert sum(counts.values()) == 7403
    assert sum(not e.boxes for e in entries.values()) == 30
    parts = {
        part: sum(dsol.wanted(e, part) for e in entries.values())
        for part in ('single', 'multi', 'all')
    }
    assert parts == dict(single=4270, multi=203, all=4503)


def test_dsol(run, place, tmp_path):
    # gp1DYuoQH08 was annotated at second 6 (and others); 8LYWfpPUokc is
    # twice on disk.
    folder = place('gp1DYuoQH08_000030.mp4', '8LYWfpPUokc_10.mp4',
                   '8LYWfpPUokc_20.mp4', 'kFC6E_1-JnQ.mp4')
    (folder / 'w0A-4EbkVz8_1.000_11.000.mp4').write_bytes(b'nothing')
    path = published('dsol_audioset_box.json')
    metainfo, rows, report = run(dsol, path, folder)
    by_id = {r['clip_id']: r for r in rows}
    row = by_id['gp1DYuoQH08_000030@6']
    assert row['time'] == 6.5 and row['label'] == 'Accordion'
    assert row['video_path'] == '../media/gp1DYuoQH08_000030.mp4'
    assert row['instances'] == [
        dict(bbox=[16.3, 22.0, 23.0, 30.533], label='Accordion')
    ]
    row = by_id['kFC6E_1-JnQ@4']
    assert [x['label'] for x in row['instances']] == ['Violin', 'Violin']

    content = json.loads(Path(path).read_text())
    frames = Counter(key.split('/')[0] for key in content)
    assert len(rows) == frames['gp1DYuoQH08'] + frames['kFC6E_1-JnQ'] > 2
    assert report['left_out'] == {
        'cannot be decoded': frames['w0A-4EbkVz8'],
        'missing': 4503 - len(rows) - frames['w0A-4EbkVz8'] -
        frames['8LYWfpPUokc'],
        'several files': frames['8LYWfpPUokc']
    }
    assert report['boxes'] == 7403 and report['frames_without_box'] == 30
    assert metainfo['classes'] == list(load_label_map('dsol_audioset').classes)
    dataset = AudioVisualDataset(
        str(tmp_path / 'out' / 'table.json'), check='probe')
    assert len(dataset) == len(rows)


def write_dsol(path, **frames):
    """An annotation file: boxes (category, x, y, w, h) of frames."""
    path.write_text(
        json.dumps({
            key: dict(bbox=[
                dict(category=c, normbox=list(box)) for c, *box in boxes
            ])
            for key, boxes in frames.items()
        }))
    return path


FRAMES = {
    'gp1DYuoQH08/0': [(0, .5, .25, .25, .5)],
    'gp1DYuoQH08/9': [(0, .5, .25, .25, .5), (12, 0, 0, 1, 1)],
    'gp1DYuoQH08/3': [],
    'kFC6E_1-JnQ/2': [(6, .9, .9, .2, .2), (7, .5, .5, 0, .1)],
}


@pytest.mark.parametrize('objects, names, images, annotations', [
    ('all', ['gp1DYuoQH08_30@0', 'gp1DYuoQH08_30@9', 'gp1DYuoQH08_30@3',
             'kFC6E_1-JnQ_0@2'], 4, 4),
    ('single', ['gp1DYuoQH08_30@0', 'kFC6E_1-JnQ_0@2'], 2, 2),
    ('multi', ['gp1DYuoQH08_30@9'], 1, 2),
])
def test_dsol_parts_and_coco(run, tmp_path, objects, names, images,
                             annotations):
    path = write_dsol(tmp_path / 'box.json', **FRAMES)
    source = prepare(tmp_path / 'prepared',
                     ['gp1DYuoQH08_30', 'kFC6E_1-JnQ_0'])
    coco = tmp_path / 'coco' / 'test.json'
    _, rows, report = run(dsol, path, source, '--objects', objects, '--coco',
                          coco)
    assert [r['clip_id'] for r in rows] == names
    assert report['found'] == report['annotated'] == len(names)
    content = json.loads(coco.read_text())
    assert len(content['images']) == images
    assert len(content['annotations']) == annotations
    assert len(content['categories']) == 13
    first = content['images'][0]
    assert (first['height'], first['width']) == (100, 200)
    second = int(names[0][-1])
    assert first['file_name'] == ('../prepared/frames/gp1DYuoQH08_30/'
                                  f'{1000 * second + 500}.jpg')
    assert first['clip_id'] == names[0]
    box = content['annotations'][0]
    assert box['bbox'] == [100.0, 25.0, 50.0, 50.0]
    assert box['category_id'] == 0
    assert len(load(tmp_path / 'out' / 'table.json')) == len(names)


def test_dsol_labels(run, tmp_path):
    path = write_dsol(tmp_path / 'box.json', **FRAMES)
    source = prepare(tmp_path / 'prepared',
                     ['gp1DYuoQH08_30', 'kFC6E_1-JnQ_0'])
    _, rows, report = run(dsol, path, source)
    assert [r.get('label') for r in rows] == ['Banjo', None, None, 'Piano']
    # Beyond the image; the other box has no area.
    assert rows[3]['instances'] == [
        dict(bbox=[180.0, 90.0, 200.0, 100.0], label='Piano')
    ]
    assert report['per_class']['Banjo'] == dict(annotated=2, found=2)
    assert report['damaged_boxes'] == 1


def test_dsol_segments(run, tmp_path):
    path = write_dsol(tmp_path / 'box.json', **FRAMES)
    segments = tmp_path / 'balanced_train_segments.csv'
    segments.write_text(
        '# Segments csv created Sun Mar  5 10:54:31 2017\n'
        'gp1DYuoQH08, 30.000, 40.000, "/m/0342h,/m/04szw"\n'
        'kFC6E_1-JnQ, 20.000, 30.000, "/m/0342h"\n')
    source = prepare(
        tmp_path / 'prepared',
        ['gp1DYuoQH08_30', 'gp1DYuoQH08_000130', 'kFC6E_1-JnQ_0'])
    with pytest.raises(ValueError) as error:
        run(dsol, path, source, '--objects', 'multi')
    assert '1: several files' in str(error.value)
    _, rows, report = run(dsol, path, source, '--segments', segments)
    assert {r['clip_id'][:-2] for r in rows} == {'gp1DYuoQH08_30'}
    assert report['left_out'] == dict(missing=1)
    segments.write_text('gp1DYuoQH08, x\n')
    with pytest.raises(ValueError, match='line 1'):
        run(dsol, path, source, '--segments', segments)


@pytest.mark.parametrize('name, any_start, right_start', [
    ('gp1DYuoQH08', 'gp1DYuoQH08', None),
    ('gp1DYuoQH08_000030', 'gp1DYuoQH08', 'gp1DYuoQH08'),
    ('gp1DYuoQH08_30000_40000', 'gp1DYuoQH08', 'gp1DYuoQH08'),
    ('gp1DYuoQH08_31', 'gp1DYuoQH08', None),
    ('kFC6E_1-JnQ_30', 'kFC6E_1-JnQ', None),
    ('Ygp1DYuoQH08_30.000_40.000', 'gp1DYuoQH08', None),
    ('holiday', None, None),
])
def test_dsol_names(name, any_start, right_start):
    assert dsol.clip_key(None)(name) == any_start
    assert dsol.clip_key({'gp1DYuoQH08': 30})(name) == right_start


def test_dsol_coco_needs_images(run, place, tmp_path):
    path = write_dsol(tmp_path / 'box.json', **FRAMES)
    with pytest.raises(ValueError, match='Prepare them first'):
        run(dsol, path, place('gp1DYuoQH08.mp4'), '--coco',
            tmp_path / 'coco.json')
    assert not list((tmp_path / 'out').iterdir())


@pytest.mark.parametrize('frames', [
    {'gp1DYuoQH08': []},
    {'gp1DYuoQH08/x': []},
    {'../gp1DYuoQ/1': []},
    {'gp1DYuoQH08/1': [(13, 0, 0, 1, 1)]},
    {'gp1DYuoQH08/1': [(0, 0, 0, 1)]},
    {'gp1DYuoQH08/1': [(0, 0, 0, 1, 'a')]},
])
def test_dsol_bad_file(tmp_path, frames):
    path = write_dsol(tmp_path / 'bad.json', **frames)
    with pytest.raises(ValueError, match='gp1DYuoQ.*expected are'):
        dsol.read_annotations(str(path))
    path.write_text('[]')
    with pytest.raises(ValueError, match='is not audioset_box.json'):
        dsol.read_annotations(str(path))


# --------------------------------------------------------------------------
# Flickr-SoundNet
# --------------------------------------------------------------------------
def write_xml(path, *annotators):
    """Boxes in pixels of 256x256, by annotator."""
    path.parent.mkdir(exist_ok=True)
    groups = ''.join(
        '<annotator>' + ''.join(
            '<bbox><kind>object</kind>' +
            ''.join(f'<{k}>{x}</{k}>'
                    for k, x in zip(('xmin', 'ymin', 'xmax', 'ymax'), box)) +
            '</bbox>' for box in boxes) + '</annotator>'
        for boxes in annotators)
    path.write_text(f'<annotation><file>a.jpg</file>{groups}</annotation>')


def test_flickr(run, place, tmp_path):
    path = published('flickr_test.csv')
    ids = flickr.read_ids(path)
    assert len(ids) == 249
    assert ids[:3] == ['10000130166', '10007936344', '10008553263']
    folder = place(f'{ids[1]}.mp4')
    for name in (ids[0], ids[4]):
        # LVS and SLAVC lay them out differently.
        sub = 'frames' if name == ids[0] else f'Data/{name}'
        (folder / sub).mkdir(parents=True)
        (folder / 'audio').mkdir(exist_ok=True)
        cv2.imwrite(
            str(folder / sub / f'{name}.jpg'),
            np.zeros((128, 512, 3), np.uint8))
        soundfile.write(
            str(folder / 'audio' / f'{name}.wav'), np.zeros(24000), 8000)
    boxes = tmp_path / 'Annotations'
    write_xml(boxes / f'{ids[0]}.xml', [(0, 64, 128, 256)],
              [(0, 64, 64, 300), (3, 3, 3, 9)], [(16, 64, 128, 256)])
    write_xml(boxes / f'{ids[1]}.xml', [(0, 0, 128, 128), (128, 128, 256,
                                                           256)])
    (boxes / f'{ids[2]}.xml').write_text('<annotation><a>')
    write_xml(boxes / f'{ids[3]}.xml', [])
    metainfo, rows, report = run(flickr, path, folder, '--boxes', boxes)

    assert [r['clip_id'] for r in rows] == ids[:2]
    assert rows[0]['frames'] == [
        dict(path=f'../media/frames/{ids[0]}.jpg', time=1.5)
    ]
    assert rows[0]['time'] == 1.5
    assert [(x['bbox'], x['annotator']) for x in rows[0]['instances']] == [
        ([0.0, 32.0, 256.0, 128.0], '0'),
        ([0.0, 32.0, 128.0, 128.0], '1'),
        ([32.0, 32.0, 256.0, 128.0], '2'),
    ]
    assert rows[1]['time'] == pytest.approx(5.0, abs=0.1)
    assert [x['bbox'] for x in rows[1]['instances']] == [[0, 0, 32, 24],
                                                         [32, 24, 64, 48]]
    assert [x['annotator'] for x in rows[1]['instances']] == 2 * ['object']
    assert report['left_out'] == {
        'annotation file cannot be read': 1,
        'no annotation file': 245,
        'no box in the annotation file': 1
    }
    assert report['damaged_boxes'] == 1 and report['boxes_found'] == 5
    assert metainfo['classes'] == ['object']
    dataset = AudioVisualDataset(
        str(tmp_path / 'out' / 'table.json'), check='probe')
    assert dataset.get_data_info(0)['eval_instances']['bboxes'].shape == (3, 4)


@pytest.mark.parametrize('bbox, reason', [
    ('<k/><a>1</a><b>2</b><c>3</c>', 'annotation file cannot be read'),
    ('<k/><a>1</a><b>2</b><c>3</c><d>x</d>', 'annotation file cannot be read'),
    ('<k/><a>1</a><b>2</b><c>3</c><d/>', 'annotation file cannot be read'),
    ('', 'annotation file cannot be read'),
])
def test_flickr_bad_xml(tmp_path, bbox, reason):
    path = tmp_path / 'a.xml'
    path.write_text(f'<r><o><bbox>{bbox}</bbox></o></r>')
    with pytest.raises(BrokenClipError) as error:
        flickr.read_boxes(str(path))
    assert error.value.reason == reason


def test_flickr_errors(run, place, tmp_path):
    path = tmp_path / 'test.csv'
    path.write_text('10000130166,202\n../../x,1\n')
    with pytest.raises(ValueError, match="line 2: '../../x'"):
        flickr.read_ids(str(path))
    path.write_text('10000130166,202\n10000130166,202\n')
    assert flickr.read_ids(str(path)) == ['10000130166']
    folder = place('10000130166.mp4')
    with pytest.raises(FileNotFoundError, match='no folder'):
        run(flickr, path, folder, '--boxes', tmp_path / 'nowhere')
    with pytest.raises(ValueError, match='1: no annotation file'):
        run(flickr, path, folder, '--boxes', folder)
