"""Tests of clip tables: reading, writing, matching with files."""
import json
import os

import numpy as np
import pytest

from avdet_mm.datasets.clip_table import (
    PackedRows,
    clip_ids_of,
    coverage,
    dump_clip_table,
    expand_frames,
    find_clips,
    iter_clip_table,
    list_videos,
    load_clip_table,
    print_coverage,
    rebase_row,
    safe_clip_id,
    split_hash,
    youtube_key,
)

ROWS = [
    dict(clip_id='a', video_path='a.mp4', label='x, y'),
    dict(clip_id='ü\udcff', video_path='b\n.mp4'),
]


def test_round_trip_of_a_table(tmp_path):
    path = str(tmp_path / 'new' / 'clips.json')
    dump_clip_table(iter(ROWS), path, dict(classes=['x, y']))
    meta = dict(dataset_type='avdet_mm.clips', classes=['x, y'])
    assert load_clip_table(path) == (meta, ROWS)
    with open(path) as file:
        assert json.load(file) == dict(metainfo=meta, data_list=ROWS)
        file.seek(0)
        assert len(file.readlines()) == 2 + len(ROWS)
    dump_clip_table([], path)
    assert load_clip_table(path)[1] == []


@pytest.mark.parametrize('content', [
    '{"data_list": [{"clip_id": "a"}], "metainfo": {}}',
    '\ufeff{"metainfo": {}, "data_list": [{"clip_id": "a"}]}',
    '{\n "metainfo": {},\n "data_list": [\n  {\n   "clip_id": "a"}\n ]\n}',
    '{"metainfo": {}, "data_list": [\n{"clip_id": "a"}\n]}',
    '\ufeff{"metainfo": {}, "data_list": [\r\n{"clip_id": "a"}\r\n]}\r\n',
])
def test_any_layout_is_read(tmp_path, content):
    path = tmp_path / 'clips.json'
    path.write_bytes(content.encode('utf-8'))
    assert load_clip_table(str(path)) == ({}, [dict(clip_id='a')])


def test_damaged_tables(tmp_path):
    path = tmp_path / 'clips.json'
    dump_clip_table(ROWS, str(path))
    whole = path.read_text()
    path.write_text(whole[:-4])
    with pytest.raises(ValueError, match='ends in the middle'):
        load_clip_table(str(path))
    path.write_text(whole.replace('"b\\n.mp4"}', '"b'))
    _, rows = iter_clip_table(str(path))
    assert next(rows) == ROWS[0]
    with pytest.raises(ValueError, match='no valid json'):
        next(rows)
    dump_clip_table([], str(path), kind='avdet_mm.clip_report')
    with pytest.raises(ValueError, match='avdet_mm.clip_report'):
        load_clip_table(str(path))
    path.write_text('')
    with pytest.raises(ValueError, match='no valid json'):
        load_clip_table(str(path))


def test_packed_rows():
    lines = [json.dumps(dict(clip_id=str(10**i))).encode() for i in range(4)]
    rows = PackedRows.from_lines(lines)
    assert rows.data.dtype == np.uint8 and rows.data.size == sum(
        map(len, lines))
    assert [r['clip_id'] for r in rows] == ['1', '10', '100', '1000']
    assert rows[-1] == rows[3] and rows[-4] == rows[0]
    for index in (4, -5):
        with pytest.raises(IndexError, match='4 rows'):
            rows[index]
    some = rows.take([3, 0, 0])
    assert [r['clip_id'] for r in some] == ['1000', '1', '1']
    assert len(rows.take([])) == len(PackedRows.from_lines([])) == 0


def test_frames_in_short():
    frames = [dict(path='d/0.jpg', time=0.), dict(path='d/500.jpg', time=.5)]
    assert expand_frames(dict(dir='d', ms=[0, 500])) == frames
    assert expand_frames(frames) is frames


def test_rows_move_with_their_table(tmp_path):
    old, new = str(tmp_path / 'a' / 't.json'), str(tmp_path / 'b' / 't.json')
    row = dict(
        clip_id='x',
        frames=dict(dir='frames/x', ms=[0]),
        audio_path='/data/x.flac')
    moved = rebase_row(row, old, new)
    assert moved == dict(
        clip_id='x',
        frames=dict(dir='../a/frames/x', ms=[0]),
        audio_path='/data/x.flac')
    assert row['frames']['dir'] == 'frames/x'
    row = dict(clip_id='x', frames=[dict(path='x.jpg', time=1.)])
    assert rebase_row(row, old, new)['frames'] == [
        dict(path='../a/x.jpg', time=1.)
    ]
    # A link to a folder is not where its name says.
    (tmp_path / 'deep' / 'er').mkdir(parents=True)
    os.symlink(tmp_path / 'deep' / 'er', tmp_path / 'link')
    moved = rebase_row(
        dict(video_path='v.mp4'), str(tmp_path / 'a' / 't.json'),
        str(tmp_path / 'link' / 't.json'))
    assert moved == dict(video_path='../../a/v.mp4')
    # Relative tables in the working directory.
    assert rebase_row(dict(video_path='v.mp4'), 'd/t.json',
                      't.json') == dict(video_path='d/v.mp4')


def test_split_hash_names_a_set():
    # printf 'a\nb' | sha256sum
    assert split_hash(['b', 'a', 'b']) == '7e18f737311b2dc3'
    assert split_hash(['ab']) != split_hash(['a', 'b'])
    split_hash(['\udcff'])


@pytest.mark.parametrize('clip_id, safe', [
    ('---g-f_I2yQ_000001', True), ('a b', True), ('ünï', True),
    ('a' * 200, True), ('a' * 201, False), ('', False), ('..', False),
    ('../x', False), ('/x', False), ('a\\b', False), ('a\0', False),
    ('a\nb', False), ('\udcff', False), (3, False)
])
def test_safe_ids(clip_id, safe):
    assert safe_clip_id(clip_id) is safe


def test_ids_of_videos():
    paths = [
        'train/bell/abc_000030.mp4', 'x.mp4', 'b/x.mkv', '-1.webm',
        'a\nb.mp4', '\udcff.mp4', 'x.y.mp4'
    ]
    ids = clip_ids_of(paths)
    assert len(set(ids)) == len(ids) and all(map(safe_clip_id, ids))
    assert ids[0] == 'abc_000030' and ids[3] == '-1' and ids[6] == 'x.y'
    assert ids[1].startswith('x-') and ids[2].startswith('x-')
    assert ids[4].startswith('a_b-')
    # Other files do not matter but where names are equal.
    assert clip_ids_of(paths[::-1]) == ids[::-1]
    assert clip_ids_of(['x.mp4']) == ['x']
    assert clip_ids_of(['w' * 300 + '.mp4'])[0].startswith('w' * 100 + '-')


def test_videos_of_a_folder(tmp_path):
    (tmp_path / 'b').mkdir()
    for name in ('b/-2.MP4', 'ü 1.webm', 'notes.txt', '.mp4'):
        (tmp_path / name).write_bytes(b'')
    os.symlink(tmp_path, tmp_path / 'loop')
    assert list_videos(str(tmp_path)) == ['b/-2.MP4', 'ü 1.webm']
    with pytest.raises(FileNotFoundError, match='no folder'):
        list_videos(str(tmp_path / 'gone'))
    table = str(tmp_path / 'out' / 'clips.json')
    assert find_clips(str(tmp_path), table) == {
        '-2': dict(clip_id='-2', video_path='../b/-2.MP4'),
        'ü 1': dict(clip_id='ü 1', video_path='../ü 1.webm'),
    }


def test_clips_of_a_table(tmp_path):
    row = dict(
        clip_id='a',
        frames=dict(dir='frames/a', ms=[0, 500]),
        audio_path='audio/a.flac',
        duration=1.,
        height=256,
        width=300)
    labeled = dict(row, label='bell', time=0.5, instances=[])
    dump_clip_table([labeled], str(tmp_path / 'clips.json'))
    found = find_clips(
        str(tmp_path / 'clips.json'), str(tmp_path / 'sub' / 'new.json'))
    assert found == dict(
        a=dict(
            row,
            frames=dict(dir='../frames/a', ms=[0, 500]),
            audio_path='../audio/a.flac'))


@pytest.mark.parametrize('name, key', [
    ('---g-f_I2yQ_000001', ('---g-f_I2yQ', 1)),
    ('a/b/--0PQM4-hqg_30.mp4', ('--0PQM4-hqg', 30)),
    ('_______ab__7_000300.mkv', None),
    ('abcdefgh_1__000300', ('abcdefgh_1_', 300)),
    ('abcdefghijk_30_40', ('abcdefghijk', 30)),
    ('abcdefghijk_30000_40000', ('abcdefghijk', 30)),
    ('abcdefghijk', None),
    ('holiday', None),
])
def test_youtube_names(name, key):
    assert youtube_key(name) == key


def test_coverage(capsys):
    annotated = dict(a=['x'], b=['x', 'y'], c=['y', 'y'], d=[])
    report = coverage(annotated, ['b'], dict(c='silent'))
    assert report == dict(
        annotated=4,
        found=1,
        share=0.25,
        split_hash=split_hash(['b']),
        left_out=dict(missing=2, silent=1),
        per_class=dict(
            x=dict(annotated=2, found=1), y=dict(annotated=2, found=1)),
        left_out_ids=dict(missing=['a', 'd'], silent=['c']))
    print_coverage(report)
    printed = capsys.readouterr().out
    assert '1 of 4 found (25.0%), left out: 2 missing; 1 silent. ' \
        f'Split hash {report["split_hash"]}' in printed
    assert '50%' in printed
    assert coverage({}, [])['share'] == 0
    with pytest.raises(ValueError, match="'z'"):
        coverage(annotated, ['z'])
