"""Broken and odd files of all kinds go through every tool that reads clips."""
import csv
import json
import os
import stat

import av
import numpy as np
import pytest

from avdet_mm.datasets import AudioVisualDataset, BrokenClipError
from avdet_mm.datasets.clip_check import (
    FAULTS,
    REMARKS,
    check_clips,
    inspect_clip,
)
from avdet_mm.datasets.clip_table import (
    REPORT_TYPE,
    dump_clip_table,
    iter_clip_table,
    list_videos,
    load_clip_table,
)
from avdet_mm.datasets.prepare import prepare_clips
from avdet_mm.datasets.transforms import LoadClip
from avdet_mm.testing.faults import (
    KINDS,
    cannot_be_built,
    make_frames,
    make_sound,
    write_clip,
    write_fault_corpus,
)

GOOD = [name for name, kind in KINDS.items() if kind.verdict == 'good']
LOAD = dict(type='avdet_mm.LoadClip')


def skip_if_not_built(kind):
    reason = cannot_be_built(kind)
    if reason is not None:
        pytest.skip(reason)


def snapshot(folder):
    """Everything in a folder, links not followed."""
    found = {}
    for root, folders, files in os.walk(folder):
        for name in folders + files:
            path = os.path.join(root, name)
            status = os.lstat(path)
            found[os.path.relpath(path, folder)] = (
                status.st_mode, status.st_mtime_ns, status.st_size
                if stat.S_ISREG(status.st_mode) else None)
    return found


class Corpus:

    def __init__(self, root):
        self.root = root
        self.folder = str(root / 'videos')
        write_fault_corpus(self.folder)
        before = snapshot(root)
        self.report = str(root / 'checked' / 'check.json')
        self.info = check_clips(self.folder, self.report, workers=2)
        self.out = str(root / 'prepared')
        self.result = prepare_clips(self.folder, self.out, workers=2)
        after = snapshot(root)
        self.changed = {
            path
            for path in before.keys() | after.keys()
            if before.get(path) != after.get(path)
        }
        _, rows = iter_clip_table(self.report, REPORT_TYPE)
        self.checked = dict(zip(list_videos(self.folder), rows))
        with open(os.path.join(self.out, 'prepare_report.json')) as file:
            self.sources = {x['path']: x for x in json.load(file)['sources']}

    def path(self, kind):
        return os.path.join(self.folder, kind.file)


@pytest.fixture(scope='module')
def corpus(tmp_path_factory):
    return Corpus(tmp_path_factory.mktemp('corpus'))


def test_there_are_many_kinds():
    assert len(KINDS) >= 70
    assert len({kind.verdict for kind in KINDS.values()}) >= 20
    assert {kind.verdict for kind in KINDS.values()} <= {'good', *FAULTS}
    assert len({kind.file for kind in KINDS.values()}) == len(KINDS)


@pytest.mark.parametrize('name', list(KINDS))
def test_check_names_the_verdict(corpus, name):
    kind = KINDS[name]
    skip_if_not_built(kind)
    found = corpus.checked[kind.file]
    assert found['verdict'] == kind.verdict, found
    assert found['faults'] == ([] if kind.verdict == 'good' else [
        kind.verdict, *(x for x in found['faults'] if x != kind.verdict)
    ])
    assert set(found['remarks']) <= set(REMARKS)
    if kind.remark is not None:
        assert kind.remark in found['remarks']
    elif kind.verdict == 'good':
        assert not found['remarks']


@pytest.mark.parametrize('name', list(KINDS))
def test_prepare_names_the_verdict(corpus, name):
    kind = KINDS[name]
    skip_if_not_built(kind)
    source = corpus.sources[kind.file]
    assert source['verdict'] == kind.prepared, source


def test_every_file_is_accounted_for(corpus):
    files = {k.file for k in KINDS.values() if cannot_be_built(k) is None}
    files.add('folder.mp4/up.mp4')
    # The link to a folder looks like a video's; the folder itself does not
    # count.
    assert set(corpus.checked) == set(corpus.sources) == files - {
        'folder.mp4/up.mp4'
    }
    assert corpus.info['clips'] == len(corpus.checked)
    assert corpus.info['good'] == len(GOOD)


def test_nothing_outside_the_output_folders_is_written(corpus):
    allowed = ('checked', 'prepared')
    assert {p.split(os.sep)[0] for p in corpus.changed} == set(allowed)


@pytest.mark.parametrize('name', list(KINDS))
def test_clips_load_or_say_why_not(corpus, name):
    kind = KINDS[name]
    skip_if_not_built(kind)
    row = dict(video_path=corpus.path(kind))
    for time in (None, 0., 0.3, 0.7, 1.1, 1.35):
        load = LoadClip(frame_time='middle')
        if time is not None and kind.loads:
            row['time'] = time
        if not kind.loads:
            with pytest.raises(BrokenClipError) as caught:
                load(dict(row))
            assert caught.value.reason in {*FAULTS, 'sound too short'}
            continue
        sample = load(dict(row))
        assert sample['waveform'].shape == (24000, )
        assert np.isfinite(sample['waveform']).all()
        assert sample['img'].dtype == np.uint8
        assert sample['img'].ndim == 3
        # The frame is one that is shown then, not a later one.
        assert time is None or sample['time'] < time + 0.05
        if kind.verdict == 'good':
            found = corpus.checked[kind.file]
            assert sample['img'].shape == (found['height'], found['width'], 3)


def test_rotated_video_is_upright_everywhere(corpus):
    assert corpus.checked['rotated.mp4']['height'] == 64
    assert corpus.checked['rotated.mp4']['width'] == 48
    clip, = corpus.sources['rotated.mp4']['clips']
    assert (clip['height'], clip['width']) == (64, 48)


def test_prepared_good_clips_train(corpus):
    rows = load_clip_table(os.path.join(corpus.out, 'clips.json'))[1]
    good = {
        corpus.sources[KINDS[name].file]['clips'][0]['clip_id']
        for name in GOOD
    }
    assert good <= {row['clip_id'] for row in rows}
    table = os.path.join(corpus.out, 'good.json')
    dump_clip_table([r for r in rows if r['clip_id'] in good], table)
    dataset = AudioVisualDataset(table, check='probe', pipeline=[LOAD])
    assert len(dataset) == len(GOOD)
    for sample in dataset:
        assert sample['waveform'].shape == (24000, )
        assert min(sample['img'].shape[:2]) >= 48

    # The prepared clips pass the same check, their files being checked.
    info = check_clips(
        table, os.path.join(corpus.out, 'check.json'), workers=2)
    assert info['good'] == len(GOOD), info['examples']


def test_training_leaves_out_what_the_report_rejects(corpus):
    rows = [
        dict(clip_id=found['clip_id'], video_path=file)
        for file, found in corpus.checked.items()
    ]
    table = os.path.join(corpus.root, 'checked', 'table.json')
    dump_clip_table(rows, table)
    given = dict(data_root=corpus.folder, check=None, max_bad_share=1.)
    ids = {f: row['clip_id'] for f, row in corpus.checked.items()}
    good = {ids[KINDS[name].file] for name in GOOD}
    dataset = AudioVisualDataset(
        table, filter_cfg=dict(report=corpus.report), **given)
    assert set(dataset.clip_ids) == good
    kept = AudioVisualDataset(
        table,
        filter_cfg=dict(report=corpus.report, keep=['still', 'black']),
        **given)
    more = {ids[f] for f in ('black.mp4', 'still.mp4', 'slides.mp4',
                             'one_frame.mkv')}
    assert set(kept.clip_ids) == good | more


# --------------------------------------------------------------------------
# Lists and tables
# --------------------------------------------------------------------------
@pytest.fixture
def two_clips(tmp_path):
    folder = tmp_path / 'data' / 'in'
    folder.mkdir(parents=True)
    for i, name in enumerate(['a,b.mp4', 'c.mp4']):
        write_clip(str(folder / name), make_frames(i), make_sound(i))
    return folder


BAD_IDS = ['../../x', '/etc/x', 'a/b', '..', '.', '', 'x\0y', 'x\ny', 7, None,
           ['x'], 'n' * 300, '\ud800']


def test_ids_cannot_leave_the_folder(two_clips, tmp_path):
    rows = [dict(clip_id=i, video_path='c.mp4') for i in BAD_IDS]
    rows += [
        dict(clip_id='good', video_path='c.mp4', label='dog'),
        dict(clip_id='good', video_path='a,b.mp4', label='dog'),
        dict(clip_id='gone', video_path='../in/gone.mp4', label='dog'),
        dict(clip_id='outside', video_path='../../data/in/a,b.mp4'),
        dict(clip_id='folder', video_path='.'),
        dict(clip_id='zero byte', video_path='a\0b.mp4'),
        dict(clip_id='number', video_path=3),
        dict(clip_id='nothing'),
        dict(clip_id='no frames', frames=[], audio_path='a.flac'),
        dict(clip_id='endless', video_path='c.mp4', duration='long'),
        'no row',
    ]
    table = two_clips / 'table.json'
    table.write_text(json.dumps(dict(metainfo={}, data_list=rows)))
    before = snapshot(tmp_path)
    info = check_clips(str(table), str(tmp_path / 'out' / 'check.json'),
                       workers=1)
    prepare_clips(str(table), str(tmp_path / 'out' / 'prepared'), workers=1)
    after = snapshot(tmp_path)
    assert {p.split(os.sep)[0] for p in after.keys() - before.keys()
            } == {'out'}
    assert {p for p in before if before[p] != after[p]} <= set()

    found = list(iter_clip_table(str(tmp_path / 'out' / 'check.json'),
                                 REPORT_TYPE)[1])
    assert [x['verdict'] for x in found] == [
        *['unsafe clip id'] * len(BAD_IDS), 'good', 'duplicate clip id',
        'missing file', 'good', 'not a regular file', 'impossible file name',
        'bad row', 'bad row', 'bad row', 'bad row', 'unsafe clip id'
    ]
    assert info['per_class'] == dict(dog=[1, 3])
    assert info['good'] == 2


def test_lists_with_bom_commas_and_crlf(two_clips, tmp_path):
    write_clip(
        os.path.join(str(two_clips), os.fsdecode(b'caf\xe9.mp4')),
        make_frames(5), make_sound(5))
    listing = two_clips / 'list.csv'
    with open(listing, 'wb') as file:
        file.write(b'\xef\xbb\xbfpath,clip_id,label\r\n'
                   b'"a,b.mp4",first,"playing violin, fiddle"\r\n'
                   b'c.mp4,../../x,dog\r\n'
                   b'c.mp4,first,dog\r\n'
                   b'../../../../gone.mp4,gone,dog\r\n'
                   b'caf\xe9.mp4,,dog\r\n')
    out = tmp_path / 'out'
    prepare_clips(str(listing), str(out), workers=1)
    report = json.loads((out / 'prepare_report.json').read_text())
    assert [x['verdict'] for x in report['sources']] == [
        'good', 'unsafe clip id', 'duplicate clip id', 'missing file', 'good'
    ]
    _, rows = load_clip_table(str(out / 'clips.json'))
    assert rows[0]['label'] == 'playing violin, fiddle'
    assert [row['clip_id'] for row in rows][0] == 'first'
    assert sorted(os.listdir(tmp_path)) == ['data', 'out']
    with open(listing, newline='', encoding='latin-1') as file:
        assert len(list(csv.reader(file))) == 6


def test_permission_denied(two_clips, monkeypatch):
    def refuse(*args, **kwargs):
        raise av.error.PermissionError(13, 'Permission denied')

    row = dict(video_path=str(two_clips / 'c.mp4'))
    monkeypatch.setattr(av, 'open', refuse)
    assert inspect_clip(row)['verdict'] == 'permission denied'
    monkeypatch.setattr(os, 'stat', refuse)
    assert inspect_clip(row)['verdict'] == 'permission denied'
