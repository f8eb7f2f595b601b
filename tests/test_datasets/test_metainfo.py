"""The label maps and the real names of the data sets they are about."""
import csv
import json
from pathlib import Path

import pytest

from avdet_mm.datasets.metainfo import (
    LabelMap,
    label_map_names,
    load_label_map,
)

ANNOTATIONS = Path(__file__).parents[3] / 'shared' / 'data' / 'annotations'
TEST_LABELS = ('Accordion', 'Cello', 'Flute', 'Guitar', 'Harp', 'Oboe',
               'Piano', 'Saxophone', 'Trombone', 'Trumpet', 'Violin', 'Banjo',
               'Harmonica', 'Horn', 'Drum')


@pytest.fixture(scope='module')
def real_names():
    """Class names of VGGSound as published: name to number of clips."""
    path = ANNOTATIONS / 'vggsound_stat.csv'
    if not path.is_file():
        pytest.skip(f'needs {path.name}, which is not in this checkout')
    with open(path, newline='') as file:
        return {row[0]: int(row[1]) for row in csv.reader(file)}


def test_vggsound_is_the_published_list(real_names):
    label_map = load_label_map('vggsound')
    assert len(real_names) == 309
    assert label_map.classes == tuple(sorted(real_names))
    # Two classes of one instrument, each with clips of its own.
    assert real_names['playing timpani'] == 629
    assert real_names['playing tympani'] == 463
    assert label_map.aliases == {
        'playing violin': 'playing violin, fiddle',
        'playing marimba': 'playing marimba, xylophone',
        'playing steel guitar': 'playing steel guitar, slide guitar',
        'racing car': 'race car, auto racing'
    }
    # Another spelling must not hide a class.
    assert not label_map.aliases.keys() & set(real_names)


@pytest.mark.parametrize('name, number', [
    ('vggsound_instruments', 50),
    ('vggsound_mappable', 39),
    ('vggsound_representative', 15),
    ('vggsound_groups', 39),
    ('vggsound_general', 11),
])
def test_names_are_those_of_vggsound(real_names, name, number):
    label_map = load_label_map(name)
    names = list(label_map.mapping) or label_map.classes
    assert len(names) == number
    assert set(names) <= real_names.keys()
    everything = load_label_map('vggsound').aliases
    assert label_map.aliases == {
        k: v
        for k, v in everything.items() if v in names
    }


def test_table_a3():
    instruments = load_label_map('vggsound_instruments').classes
    mappable = load_label_map('vggsound_mappable').classes
    representative = load_label_map('vggsound_representative')
    groups = load_label_map('vggsound_groups')
    assert instruments[:39] == mappable
    assert instruments[39] == 'playing didgeridoo'
    assert instruments[-1] == 'playing erhu'
    assert representative.classes == groups.classes == TEST_LABELS
    assert tuple(representative.mapping.values()) == TEST_LABELS
    assert representative.mapping['playing electric guitar'] == 'Guitar'
    assert representative.mapping['playing snare drum'] == 'Drum'
    assert representative.mapping['playing french horn'] == 'Horn'
    # What stands for a label is in its group, and each of the 39 has one.
    assert groups.mapping.items() >= representative.mapping.items()
    assert tuple(groups.mapping) == mappable


def test_groups():
    groups = load_label_map('vggsound_groups')
    sizes = [list(groups.mapping.values()).count(c) for c in TEST_LABELS]
    assert sizes == [1, 2, 1, 6, 1, 3, 4, 1, 1, 2, 1, 1, 1, 1, 13]
    assert groups.mapping['playing acoustic guitar'] == 'Guitar'
    assert groups.mapping['playing timpani'] == 'Drum'
    assert groups.mapping['playing tympani'] == 'Drum'
    assert 'INFERRED' in groups.about
    assert groups.notes['playing mandolin'].startswith('Uncertain')
    # Of groups with more than one class, what is no plain guitar or drum
    # has a note.
    plain = set(load_label_map('vggsound_representative').mapping)
    plain |= {
        c
        for c in groups.mapping if c.split()[-1] in (
            'kit', 'drum', 'tabla', 'bongo', 'timpani', 'tympani', 'timbales',
            'congas', 'djembe') or c == 'playing acoustic guitar'
    }
    assert groups.mapping.keys() - plain == groups.notes.keys()


def test_table_a1():
    label_map = load_label_map('vggsound_general')
    assert label_map.classes == (
        'Airplane', 'Ambulance', 'Bird', 'Car', 'Cat', 'Computer Keyboard',
        'Computer Mouse', 'Frog', 'Helicopter', 'Lion', 'Snowmobile')
    assert tuple(label_map.mapping.values()) == label_map.classes
    assert label_map.mapping['race car, auto racing'] == 'Car'
    assert list(label_map.notes) == ['Helicopter']


def test_order_of_category_numbers():
    cosep = load_label_map('cosep').classes
    dsol = load_label_map('dsol_audioset').classes
    assert set(cosep) == set(TEST_LABELS)
    assert cosep.index('Oboe') == 6 and cosep.index('Horn') == 14
    assert dsol == tuple(c for c in cosep if c not in ('Oboe', 'Trumpet'))
    assert dsol.index('Piano') == 6 and dsol.index('Accordion') == 11


@pytest.mark.parametrize('name', label_map_names())
def test_every_map_says_what_it_is(name):
    assert len(load_label_map(name).about) > 40


def test_own_file(tmp_path):
    path = tmp_path / 'mine.json'
    path.write_text(json.dumps(dict(classes=['a', 'b'], mapping=dict(x='b'))))
    assert load_label_map(str(path)) == LabelMap(('a', 'b'), dict(x='b'), {},
                                                 {}, '')


@pytest.mark.parametrize('content, message', [
    ('[', 'no valid json'),
    ('["a"]', 'no label map'),
    ('{"classes": []}', 'no label map'),
    ('{"classes": ["a", "b", "a"]}', "'a' twice"),
    ('{"classes": ["a"], "map": {}}', r"has the keys \['map'\]"),
    ('{"classes": ["a"], "mapping": {"x": "b"}}', "maps 'x' to 'b'"),
    ('{"classes": ["a"], "aliases": {"x": "b"}}', "mentions 'b'"),
    ('{"classes": ["a"], "notes": {"c": "?"}}', "mentions 'c'"),
])
def test_bad_file(tmp_path, content, message):
    path = tmp_path / 'bad.json'
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        load_label_map(str(path))


def test_unknown_name():
    with pytest.raises(FileNotFoundError, match='neither.*vggsound_groups'):
        load_label_map('vggsound_group')


def test_target_of():
    groups = load_label_map('vggsound_groups')
    assert groups.target_of('tapping guitar') == 'Guitar'
    assert groups.target_of('Guitar') == 'Guitar'
    assert groups.target_of('people marching') is None
    alias, name = next(iter(load_label_map('vggsound').aliases.items()))
    assert alias != name
    assert load_label_map('vggsound').target_of(alias) == name
