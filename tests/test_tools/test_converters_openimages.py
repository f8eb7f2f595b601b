"""Converter of OpenImages; the files are made here, in its formats."""
import importlib.util
import json
import sys
from pathlib import Path

import cv2
import mmcv
import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from avdet_mm.datasets.clip_table import split_hash
from avdet_mm.datasets.metainfo import load_label_map

TOOLS = Path(__file__).parents[2] / 'tools' / 'dataset_converters'
_spec = importlib.util.spec_from_file_location('converter_openimages',
                                               TOOLS / 'openimages.py')
openimages = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(openimages)

GUITAR, HORN, BIRD, SPARROW, ANIMAL, PLANE = ('/m/0342h', '/m/0319l',
                                              '/m/015p6', '/m/0h23m',
                                              '/m/0jbk', '/m/0cmf2')
HEADER = ('ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,'
          'IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside')
# The first line is the example of OpenImages' own page.
BOXES = f"""{HEADER}
0001eeaf4aed83f9,xclick,{PLANE},1,0.022673031,0.9642005,0.07103825,0.80054647,0,0,0,0,0
aaaaaaaaaaaaaaaa,xclick,{GUITAR},1,0.1,0.5,0.25,0.75,0,0,0,0,0
aaaaaaaaaaaaaaaa,xclick,{HORN},1,0,1,0,0.5,1,1,1,0,0
aaaaaaaaaaaaaaaa,xclick,{SPARROW},1,0.1,0.2,0.1,0.2,0,0,0,0,0
bbbbbbbbbbbbbbbb,activemil,{GUITAR},1,-0.1,0.5,0.5,1.2,-1,-1,-1,-1,-1
bbbbbbbbbbbbbbbb,xclick,{GUITAR},1,0.5,0.5,0.1,0.2,0,0,0,0,0
cccccccccccccccc,xclick,{HORN},1,0.2,0.4,0.2,0.4,0,0,0,1,0
dddddddddddddddd,xclick,{BIRD},1,0.2,0.4,0.2,0.4,0,0,0,0,1
eeeeeeeeeeeeeeee,xclick,{GUITAR},1,0.2,0.4,0.2,0.4,0,0,0,0,0
"""
NAMES = f"""{ANIMAL},Animal
{BIRD},Bird
{GUITAR},Guitar
{HORN},French horn
{PLANE},Airplane
{SPARROW},Sparrow
/m/01m2v,Computer keyboard
"""


@pytest.fixture
def boxes(tmp_path):
    path = tmp_path / 'validation-annotations-bbox.csv'
    path.write_text(BOXES)
    return path


@pytest.fixture
def names(tmp_path):
    path = tmp_path / 'class-descriptions-boxable.csv'
    path.write_text(NAMES)
    return path


@pytest.fixture
def images(tmp_path):
    """Images of all ids but e, 200 x 100 pixels."""
    folder = tmp_path / 'images'
    for name in ('0001eeaf4aed83f9.jpg', 'aaaaaaaaaaaaaaaa.jpg',
                 'x/bbbbbbbbbbbbbbbb.png', 'cccccccccccccccc.jpeg',
                 'dddddddddddddddd.JPG', 'ffffffffffffffff.jpg'):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((100, 200, 3), 80, np.uint8)).save(path)
    return folder


@pytest.fixture
def run(monkeypatch, tmp_path, boxes, images):
    """Runs the converter; returns the COCO json and the report."""

    def call(*options):
        out = tmp_path / 'out' / 'coco.json'
        monkeypatch.setattr(
            sys, 'argv',
            ['tool', str(boxes), '--images',
             str(images), '--out',
             str(out), *map(str, options)])
        openimages.main()
        report = out.with_name('coco_coverage.json')
        return json.loads(out.read_text()), json.loads(report.read_text())

    return call


def instances(coco):
    """(File, class, box, crowd) of every box."""
    files = [i['file_name'] for i in coco['images']]
    names = [c['name'] for c in coco['categories']]
    return [(files[a['image_id']], names[a['category_id']], a['bbox'],
             a['iscrowd']) for a in coco['annotations']]


def test_instruments(run, tmp_path):
    coco, report = run()
    test_labels = load_label_map('vggsound_representative').classes
    assert tuple(c['name'] for c in coco['categories']) == test_labels
    assert [(i['id'], i['file_name'], i['height'], i['width'])
            for i in coco['images']] == [
                (0, 'aaaaaaaaaaaaaaaa.jpg', 100, 200),
                (1, 'x/bbbbbbbbbbbbbbbb.png', 100, 200),
                (2, 'cccccccccccccccc.jpeg', 100, 200),
            ]
    # XMin, XMax, YMin, YMax; the last one is clipped, an empty one dropped.
    assert instances(coco) == [
        ('aaaaaaaaaaaaaaaa.jpg', 'Guitar', [20., 25., 80., 50.], 0),
        ('aaaaaaaaaaaaaaaa.jpg', 'Horn', [0., 0., 200., 50.], 1),
        ('x/bbbbbbbbbbbbbbbb.png', 'Guitar', [0., 50., 100., 50.], 0),
        ('cccccccccccccccc.jpeg', 'Horn', [40., 20., 40., 20.], 0),
    ]
    assert report['annotated'] == 4 and report['found'] == 3
    assert report['left_out_ids'] == {'missing': ['eeeeeeeeeeeeeeee']}
    assert report['per_class']['Guitar'] == dict(annotated=3, found=2)
    assert report['boxes'] == 4 and report['crowds'] == 1
    assert report['boxes_dropped'] == {'empty': 1}
    assert report['boxes_per_class']['Guitar'] == 2
    assert report['boxes_per_class']['Oboe'] == 0
    # Those of an airplane and a bird; f is not in the csv at all.
    assert report['images_on_disk_without_class'] == 2
    assert report['split_hash'] == split_hash(
        ['aaaaaaaaaaaaaaaa', 'bbbbbbbbbbbbbbbb', 'cccccccccccccccc'])
    assert coco['info']['split_hash'] == report['split_hash']
    assert coco['info']['IsGroupOf'] == 'crowd'

    # The stock evaluation reads it and leaves the crowd aside.
    truth = COCO(str(tmp_path / 'out' / 'coco.json'))
    found = truth.loadRes([
        dict(image_id=a['image_id'], category_id=a['category_id'],
             bbox=a['bbox'], score=0.9) for a in coco['annotations']
        if not a['iscrowd']
    ])
    evaluation = COCOeval(truth, found, 'bbox')
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1)


def test_general(run):
    coco, _ = run('--classes', 'general')
    assert [c['name'] for c in coco['categories']][5] == 'Computer Keyboard'
    assert [x[:2] for x in instances(coco)] == [
        ('0001eeaf4aed83f9.jpg', 'Airplane'),
        ('dddddddddddddddd.JPG', 'Bird'),
    ]
    # 0.022673031 of 200 pixels, to 0.001 pixels.
    assert coco['annotations'][0]['bbox'] == pytest.approx(
        [4.535, 7.104, 188.305, 72.951], abs=1e-9)


@pytest.mark.parametrize('name', ['instruments', 'general'])
def test_ids_of_the_papers_classes(name):
    classes = openimages.load_classes(name)
    ids = openimages.class_ids(classes, None)
    assert sorted(x for x, in ids.values()) == sorted(classes.classes)
    # The same test labels, in the same order, as the map from VGGSound.
    other = dict(instruments='representative', general='general')[name]
    assert classes.classes == load_label_map(f'vggsound_{other}').classes
    if name == 'instruments':
        mids = load_label_map('audioset_instruments13').mapping
        assert {k: [v] for k, v in mids.items()}.items() <= ids.items()


def test_names_are_compared_with_the_descriptions(names, tmp_path):
    instruments = openimages.load_classes('instruments')
    ids = openimages.class_ids(instruments, str(names))
    assert ids == openimages.class_ids(instruments, None)
    # Another class of the name does not get in.
    names.write_text(f'{NAMES}/m/0zzz,Horn\n')
    assert '/m/0zzz' not in openimages.class_ids(instruments, str(names))
    names.write_text(NAMES.replace('French horn', 'Unicorn'))
    with pytest.raises(ValueError, match="line 4 calls /m/0319l 'Unicorn', "
                       "but it is 'Horn'"):
        openimages.class_ids(instruments, str(names))
    names.write_text('a,b,c\n')
    with pytest.raises(ValueError, match='line 1 has 3 columns'):
        openimages.class_ids(instruments, str(names))


def test_classes_of_a_file(run, names, tmp_path):
    path = tmp_path / 'names.txt'
    path.write_text('Sparrow\nBird\n')
    coco, _ = run('--classes', path, '--descriptions', names)
    assert [c['name'] for c in coco['categories']] == ['Sparrow', 'Bird']
    assert [x[:2] for x in instances(coco)] == [
        ('aaaaaaaaaaaaaaaa.jpg', 'Sparrow'), ('dddddddddddddddd.JPG', 'Bird')
    ]
    with pytest.raises(ValueError, match="id of 'Bird' is not known; give"):
        run('--classes', path)
    path.write_text('Sparrow\nYeti\n')
    with pytest.raises(ValueError, match="'Yeti' is not .* does not list"):
        run('--classes', path, '--descriptions', names)
    path.write_text('\n')
    with pytest.raises(ValueError, match='names no class'):
        run('--classes', path, '--descriptions', names)
    with pytest.raises(FileNotFoundError, match='known are instruments'):
        run('--classes', 'instrument')


def test_classes_of_a_json(run, tmp_path):
    path = tmp_path / 'map.json'
    path.write_text(
        json.dumps(
            dict(classes=['flies'], mapping={BIRD: 'flies', PLANE: 'flies'})))
    coco, _ = run('--classes', path)
    assert {x[1] for x in instances(coco)} == {'flies'}
    assert len(coco['annotations']) == 2


def test_hierarchy(run, names, tmp_path):
    path = tmp_path / 'hierarchy.json'
    path.write_text(
        json.dumps({
            'LabelName': '/m/0bl9f',
            'Subcategory': [{
                'LabelName': ANIMAL,
                'Subcategory': [{
                    'LabelName': BIRD,
                    'Subcategory': [{'LabelName': SPARROW}],
                    'Part': [{'LabelName': GUITAR}],
                }],
            }, {'LabelName': PLANE}],
        }))
    coco, _ = run('--classes', 'general', '--hierarchy', path)
    assert [x[:2] for x in instances(coco)] == [
        ('0001eeaf4aed83f9.jpg', 'Airplane'),
        ('aaaaaaaaaaaaaaaa.jpg', 'Bird'),
        ('dddddddddddddddd.JPG', 'Bird'),
    ]
    # The nearest class above counts.
    wanted = tmp_path / 'names.txt'
    wanted.write_text('Animal\nSparrow\n')
    coco, _ = run('--classes', wanted, '--descriptions', names, '--hierarchy',
                  path)
    assert [x[:2] for x in instances(coco)] == [
        ('aaaaaaaaaaaaaaaa.jpg', 'Sparrow'),
        ('dddddddddddddddd.JPG', 'Animal'),
    ]
    with pytest.raises(ValueError, match='has none of the classes'):
        run('--hierarchy', path)
    path.write_text('[]')
    with pytest.raises(ValueError, match='is no hierarchy'):
        run('--hierarchy', path)


def test_below_two_classes(tmp_path):
    path = tmp_path / 'hierarchy.json'
    path.write_text(
        json.dumps({
            'LabelName': 'root',
            'Subcategory': [
                {'LabelName': i, 'Subcategory': [{'LabelName': 'c'}]}
                for i in 'ab'
            ]
        }))
    ids = openimages.add_descendants(dict(a=['A'], b=['B']), str(path))
    assert ids['a'] == ['A'] and sorted(ids['c']) == ['A', 'B']
    assert set(ids) == set('abc')


def test_flags(run):
    coco, report = run('--group-of', 'drop', '--depictions', 'crowd')
    assert [(x[0][:1], x[1], x[3]) for x in instances(coco)] == [
        ('a', 'Guitar', 0), ('x', 'Guitar', 0), ('c', 'Horn', 1)
    ]
    assert report['boxes_dropped'] == {'by flag': 1, 'empty': 1}
    # An image loses its only box.
    coco, report = run('--depictions', 'drop', '--group-of', 'keep')
    assert [(x[0][:1], x[1], x[3]) for x in instances(coco)] == [
        ('a', 'Guitar', 0), ('a', 'Horn', 0), ('x', 'Guitar', 0)
    ]
    assert report['annotated'] == 3
    assert report['images_on_disk_without_class'] == 3
    coco, _ = run('--classes', 'general', '--inside', 'drop')
    assert [x[1] for x in instances(coco)] == ['Airplane']


def test_keep_empty(run):
    coco, report = run('--keep-empty', '--depictions', 'drop')
    assert [i['file_name'][:1] for i in coco['images']
            ] == ['0', 'a', 'x', 'c', 'd']
    assert report['annotated'] == 6 and report['found'] == 5
    assert report['images_on_disk_without_class'] == 0


def test_columns_are_found_by_name(run, boxes):
    expected, _ = run()
    # As in the boxes of version 6 for training: more columns, here between.
    lines = [line.split(',') for line in BOXES.splitlines()]
    boxes.write_text('\n'.join(
        ','.join([line[0], 'XClick1X' if i == 0 else '0.5', *line[:0:-1]])
        for i, line in enumerate(lines)))
    coco, _ = run()
    assert coco['annotations'] == expected['annotations']
    # Without flags nothing is a crowd.
    boxes.write_text('\n'.join(','.join(line[:8]) for line in lines))
    coco, _ = run()
    assert [a['iscrowd'] for a in coco['annotations']] == [0] * 4
    boxes.write_text('\n'.join(','.join(line[:7]) for line in lines))
    with pytest.raises(ValueError, match='has no column YMax; expected'):
        run()


@pytest.mark.parametrize('line', [
    'aaaa', f'aaaa,x,{GUITAR},1,0.1,0.2,0.3',
    f'aaaa,x,{GUITAR},1,0.1,a,0.3,0.4,0,0,0,0,0'
])
def test_damaged_line(run, boxes, line):
    boxes.write_text(f'{BOXES}\n{line}\n')
    with pytest.raises(ValueError, match='line 12: .* is no box'):
        run()


def test_unreadable_images(run, images):
    whole = (images / 'aaaaaaaaaaaaaaaa.jpg').read_bytes()
    (images / 'aaaaaaaaaaaaaaaa.jpg').write_bytes(whole[:-200])
    (images / 'x/bbbbbbbbbbbbbbbb.png').write_bytes(b'')
    coco, report = run()
    assert [i['file_name'] for i in coco['images']
            ] == ['cccccccccccccccc.jpeg']
    assert report['left_out_ids'] == {
        'cannot be decoded': ['aaaaaaaaaaaaaaaa'],
        'missing': ['eeeeeeeeeeeeeeee'],
        'no readable image': ['bbbbbbbbbbbbbbbb'],
    }


def test_nothing_found(run, boxes, images):
    for path in images.rglob('*.*'):
        if path.stem[0] in 'abc':
            path.unlink()
    with pytest.raises(ValueError, match=(
            r"None of the 4 images .* Looked for e\.g\. 'aaaaaaaaaaaaaaaa.jpg'"
            r'; .* has 2 images of the csv\. 4: missing')):
        run()
    boxes.write_text(HEADER)
    with pytest.raises(ValueError, match='has no box of the classes'):
        run()
    boxes.write_text('')
    with pytest.raises(ValueError, match='has no column ImageID'):
        run()


@pytest.mark.parametrize('orientation', range(1, 9))
def test_turned_images(run, images, boxes, orientation):
    """The box stays on the bright patch, as MMDetection loads the image."""
    stored = np.zeros((100, 200, 3), np.uint8)
    stored[10:30, 120:160] = 255
    exif = Image.Exif()
    exif[openimages.EXIF_ORIENTATION] = orientation
    Image.fromarray(stored).save(
        images / 'aaaaaaaaaaaaaaaa.jpg', exif=exif, quality=95)
    boxes.write_text(
        f'{HEADER}\naaaaaaaaaaaaaaaa,x,{GUITAR},1,0.6,0.8,0.1,0.3,0,0,0,0,0\n')
    coco, report = run()
    shown = mmcv.imread(str(images / 'aaaaaaaaaaaaaaaa.jpg'))
    image = coco['images'][0]
    assert (image['height'], image['width']) == shown.shape[:2]
    patch = cv2.boundingRect((shown[..., 0] > 128).astype(np.uint8))
    assert coco['annotations'][0]['bbox'] == pytest.approx(patch, abs=1e-6)
    assert report['images_turned'] == (orientation != 1)
