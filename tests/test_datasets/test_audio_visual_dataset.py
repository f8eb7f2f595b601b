"""Tests of the data set and of the loader's workers."""
import json
import os
import shutil

import cv2
import numpy as np
import pytest
import soundfile
import torch
from mmengine.runner import Runner

from avdet_mm.datasets import AudioVisualDataset
from avdet_mm.datasets.clip_table import dump_clip_table
from avdet_mm.registry import DATASETS
from avdet_mm.testing import write_media

PIPELINE = [
    dict(type='avdet_mm.LoadClip'),
    dict(type='mmdet.RandomCrop', crop_size=(32, 32), crop_type='absolute'),
    dict(type='avdet_mm.PackAudioVisualInputs'),
]


def write_table(folder, rows, classes=('bell', 'organ'), name='clips.json'):
    path = folder / name
    meta = dict(dataset_type='avdet_mm.clips')
    if classes:
        meta['classes'] = list(classes)
    path.write_text(json.dumps(dict(metainfo=meta, data_list=rows)))
    return str(path)


@pytest.fixture(scope='module')
def folder(tmp_path_factory, video):
    """Ten good clips."""
    root = tmp_path_factory.mktemp('table')
    for i in range(10):
        shutil.copy(video, root / f'{i}.mp4')
    return root


def good_rows(number=10):
    return [
        dict(clip_id=f'clip_{i}', video_path=f'{i}.mp4', duration=5.)
        for i in range(number)
    ]


def test_rows_and_samples(folder):
    rows = good_rows()
    box = dict(bbox=[1, 2, 30, 40], label='organ', sounding=True)
    silent = dict(bbox=[5, 6, 20, 25], label='bell', sounding=False)
    rows[3].update(label='organ', time=2., instances=[box, silent])
    rows[4].update(instances=[])
    table = write_table(folder, rows)
    dataset = DATASETS.build(
        dict(
            type='avdet_mm.AudioVisualDataset',
            ann_file=table,
            check='decode',
            pipeline=PIPELINE))
    assert len(dataset) == 10
    assert dataset.clip_ids == [f'clip_{i}' for i in range(10)]
    assert dataset.metainfo['classes'] == ['bell', 'organ']
    info = dataset.get_data_info(3)
    assert info['video_path'] == str(folder / '3.mp4')
    assert info['gt_label'] == 1
    assert info['eval_instances']['bboxes'].shape == (2, 4)
    assert info['eval_instances']['labels'].tolist() == [1, 0]
    assert info['eval_instances']['sounding'].tolist() == [True, False]
    empty = dataset.get_data_info(4)['eval_instances']
    assert empty['bboxes'].shape == (0, 4) and empty['labels'].shape == (0, )
    packed = dataset[3]
    assert packed['inputs']['frame'].shape == (3, 32, 32)
    assert packed['inputs']['audio'].shape == (24000, )
    assert packed['data_samples'].sample_idx == 3
    # The same through data_root, with a table elsewhere.
    dataset = AudioVisualDataset(
        'clips.json', data_root=str(folder), indices=4)
    assert dataset.clip_ids == [f'clip_{i}' for i in range(4)]


def test_bad_clips_are_counted_and_left_out(folder, tmp_path, signal,
                                            counting):
    for i in range(10):
        os.link(folder / f'{i}.mp4', tmp_path / f'{i}.mp4')
    rows = good_rows()

    def add(name, keep=None, **streams):
        path = tmp_path / f'{name}.mp4'
        if streams:
            write_media(str(path), **streams)
        if keep:
            path.write_bytes(path.read_bytes()[:keep])
        rows.append(dict(clip_id=name, video_path=path.name))

    add('missing')
    add('mute', frames=counting)
    add('blind', waveform=signal)
    add('short', frames=counting[:5], waveform=signal[:15000])
    add('cut', keep=20000, frames=counting, waveform=signal)
    add('silent', frames=counting, waveform=np.zeros_like(signal))
    # Cut behind the header: looks whole until it is decoded.
    whole = tmp_path / 'whole.mp4'
    add('late', frames=counting, waveform=signal)
    os.rename(tmp_path / 'late.mp4', whole)
    _move_header_first(whole, tmp_path / 'late.mp4', 0.6)
    table = write_table(tmp_path, rows)

    wanted = {
        None: [],
        'exists': ['missing'],
        'probe': ['missing', 'mute', 'blind', 'short', 'cut'],
        'decode':
        ['missing', 'mute', 'blind', 'short', 'cut', 'silent', 'late'],
    }
    for check, bad in wanted.items():
        dataset = AudioVisualDataset(table, check=check, max_bad_share=0.5)
        left_out = {r['clip_id'] for r in rows} - set(dataset.clip_ids)
        assert left_out == set(bad), check
    with pytest.raises(ValueError, match='max_bad_share') as caught:
        AudioVisualDataset(table, check='decode')
    message = str(caught.value)
    assert '7 of 17 clips' in message
    for part in ('missing file: 1 (e.g. missing)', 'no audio stream: 1',
                 'no video stream: 1', 'too short: 1', 'silent: 1',
                 'cannot be decoded: '):
        assert part in message


def _move_header_first(source, target, keep):
    """Rewrite a mp4 with its header in front and cut it."""
    import av
    with av.open(str(source)) as old, av.open(
            str(target), 'w', options=dict(movflags='faststart')) as new:
        streams = {
            s.index: new.add_stream_from_template(s)
            for s in old.streams
        }
        for packet in old.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                new.mux(packet)
    data = target.read_bytes()
    target.write_bytes(data[:int(len(data) * keep)])


def test_report_goes_through_the_logger(folder, tmp_path, caplog):
    rows = good_rows() + [dict(clip_id='gone', video_path='gone.mp4')]
    table = write_table(folder, rows, name='one_bad.json')
    from mmengine.logging import MMLogger
    logger = MMLogger.get_instance('test_report')
    records = []
    logger.handle = records.append
    dataset = AudioVisualDataset(table, max_bad_share=0.1)
    assert len(dataset) == 10
    assert len(records) == 1
    assert records[0].levelname == 'WARNING'
    assert '1 of 11 clips' in records[0].getMessage()
    assert 'missing file: 1 (e.g. gone)' in records[0].getMessage()
    with pytest.raises(ValueError, match='max_bad_share=0.09'):
        AudioVisualDataset(table, max_bad_share=0.09)
    AudioVisualDataset(write_table(folder, good_rows(), name='whole.json'))
    assert len(records) == 2
    assert 'all 10 clips can be used' in records[1].getMessage()


def test_nothing_left(tmp_path):
    rows = [dict(clip_id='a', video_path='a.mp4')]
    with pytest.raises(ValueError, match='No clip .* can be used'):
        AudioVisualDataset(write_table(tmp_path, rows), max_bad_share=1.)
    with pytest.raises(ValueError, match='empty'):
        AudioVisualDataset(write_table(tmp_path, []))


@pytest.mark.parametrize('content, error, message', [
    ('{"metainfo": ', ValueError, 'no valid json'),
    ('[1, 2]', TypeError, 'holds a list'),
    ('{"images": [], "annotations": [], "categories": []}', ValueError,
     'COCO'),
    ('{"a.mp4": 1}', ValueError, 'metainfo'),
    ('{"metainfo": {"dataset_type": "x.y"}, "data_list": []}', ValueError,
     'x.y'),
    ('{"metainfo": {}, "data_list": [{"video_path": "a.mp4"}]}', ValueError,
     'clip_id'),
    ('{"metainfo": {}, "data_list": [{"clip_id": "a"}]}', ValueError,
     'video_path'),
])
def test_files_that_are_no_clip_tables(tmp_path, content, error, message):
    path = tmp_path / 'table.json'
    path.write_text(content)
    with pytest.raises(error, match=message):
        AudioVisualDataset(str(path), check=None)


@pytest.mark.parametrize('change, message', [
    (dict(label='drum'), "'drum', which is none of the 2 classes"),
    (dict(instances=[dict(bbox=[0, 0, 4, 4], label='drum')]), "'drum'"),
    (dict(instances=[dict(bbox=[4, 0, 0, 4], label='bell')]), 'empty box'),
    (dict(clip_id='clip_1'), 'two clips'),
])
def test_bad_rows(folder, change, message):
    rows = good_rows()
    rows[0].update(change)
    with pytest.raises(ValueError, match=message):
        AudioVisualDataset(write_table(folder, rows, name='bad.json'))


def test_labels_without_classes(folder):
    rows = [dict(good_rows()[0], label='bell')]
    table = write_table(folder, rows, classes=None, name='no_classes.json')
    with pytest.raises(ValueError, match='classes'):
        AudioVisualDataset(table)
    dataset = AudioVisualDataset(table, metainfo=dict(classes=['bell']))
    assert dataset.get_data_info(0)['gt_label'] == 0


def test_no_clip_is_replaced(folder):
    table = write_table(folder, good_rows(), name='plain.json')
    dataset = AudioVisualDataset(table, pipeline=[lambda results: None])
    with pytest.raises(RuntimeError, match="'clip_0'"):
        dataset[0]
    with pytest.raises(ValueError, match='check'):
        AudioVisualDataset(table, check='maybe')


def test_workers_differ_from_epoch_to_epoch_and_follow_the_seed(folder):
    table = write_table(folder, good_rows(8), name='workers.json')

    def times(seed):
        torch.manual_seed(seed)
        loader = Runner.build_dataloader(
            dict(
                batch_size=2,
                num_workers=2,
                persistent_workers=False,
                dataset=dict(
                    type='avdet_mm.AudioVisualDataset',
                    ann_file=table,
                    pipeline=PIPELINE),
                sampler=dict(type='DefaultSampler', shuffle=False),
                worker_init_fn=dict(type='avdet_mm.seed_worker'),
                collate_fn=dict(type='pseudo_collate')),
            seed=seed)
        return [[
            s.time for batch in loader for s in batch['data_samples']
        ] for _ in range(2)]

    first, second = times(0)
    assert first != second
    assert first[:2] != first[2:4]  # two workers
    assert times(0) == [first, second]
    assert times(1) != [first, second]




def write_report(path, **faults):
    dump_clip_table([
        dict(clip_id=i, verdict=f[0] if f else 'good', faults=f)
        for i, f in faults.items()
    ], str(path), kind='avdet_mm.clip_report')


def test_rejected_clips_are_left_out(folder, tmp_path):
    table = write_table(folder, good_rows(), name='report.json')
    report = tmp_path / 'check.json'
    faults = {f'clip_{i}': [] for i in range(9)}
    faults.update(clip_1=['still'], clip_2=['silent', 'still'])
    write_report(report, **faults)

    def ids(**kwargs):
        dataset = AudioVisualDataset(
            table, max_bad_share=0.3, check=None, **kwargs)
        return [int(i[5:]) for i in dataset.clip_ids]

    # The report does not know clip 9.
    assert ids(filter_cfg=dict(report=str(report))) == [0, *range(3, 9)]
    keep = dict(report=str(report), keep=['still'])
    assert ids(filter_cfg=keep) == [0, 1, *range(3, 9)]
    keep['keep'] = ['still', 'silent', 'not checked']
    assert ids(filter_cfg=keep) == list(range(10))
    os.link(report, folder / 'check.json')
    assert ids(
        filter_cfg=dict(report='check.json'),
        data_root=str(folder)) == [0, *range(3, 9)]
    with pytest.raises(ValueError) as caught:
        AudioVisualDataset(table, filter_cfg=dict(report=str(report)))
    assert '3 of 10 clips' in str(caught.value)
    for part in ('not checked: 1 (e.g. clip_9)', 'silent: 1 (e.g. clip_2)',
                 'still: 1 (e.g. clip_1)'):
        assert part in str(caught.value)
    for wrong, message in ((dict(min_size=1), 'filter_cfg is dict'),
                           (dict(keep=['dull']), "'dull', which is no")):
        with pytest.raises(ValueError, match=message):
            AudioVisualDataset(table, filter_cfg=wrong)
    with pytest.raises(ValueError, match='avdet_mm.clip_report'):
        AudioVisualDataset(table, filter_cfg=dict(report=table))


def test_frames_in_short(tmp_path, signal):
    (tmp_path / 'frames' / 'a').mkdir(parents=True)
    for ms in (0, 500, 1000):
        cv2.imwrite(
            str(tmp_path / f'frames/a/{ms}.jpg'),
            np.full((32, 40, 3), ms // 10, np.uint8))
    soundfile.write(str(tmp_path / 'a.flac'), signal, 24000)
    row = dict(
        clip_id='a',
        frames=dict(dir='frames/a', ms=[0, 500, 1000]),
        audio_path='a.flac',
        time=1.)
    table = write_table(tmp_path, [row])
    dataset = AudioVisualDataset(
        table,
        check='decode',
        pipeline=[dict(type='avdet_mm.LoadClip', frame_time='middle')])
    assert dataset.get_data_info(0)['frames'] == [
        dict(path=str(tmp_path / f'frames/a/{ms}.jpg'), time=ms / 1000)
        for ms in (0, 500, 1000)
    ]
    assert dataset[0]['img'].mean() == pytest.approx(100, abs=1)
    os.remove(tmp_path / 'frames/a/500.jpg')
    with pytest.raises(ValueError, match='missing file: 1'):
        AudioVisualDataset(table)
    shutil.rmtree(tmp_path / 'frames')
    with pytest.raises(ValueError, match='missing file: 1'):
        AudioVisualDataset(table)


@pytest.mark.parametrize('serialize', [True, False])
def test_subsets(folder, serialize):
    table = write_table(folder, good_rows(), name=f'subset_{serialize}.json')

    def make(**kwargs):
        return AudioVisualDataset(table, serialize_data=serialize, **kwargs)

    def ids(dataset):
        return [int(i[5:]) for i in dataset.clip_ids]

    assert ids(make(indices=3)) == [0, 1, 2]
    assert ids(make(indices=-2)) == [8, 9]
    assert ids(make(indices=[7, 0])) == [7, 0]
    dataset = make()
    assert ids(dataset.get_subset([5, 1, 9])) == [5, 1, 9]
    assert ids(dataset.get_subset(4)) == [0, 1, 2, 3]
    assert dataset.get_data_info(-1)['sample_idx'] == 9
    assert dataset.get_data_info(-1)['clip_id'] == 'clip_9'
    with pytest.raises(IndexError):
        dataset.get_data_info(10)
    late = make(lazy_init=True)
    late.full_init()
    assert len(late) == len(ids(late)) == 10
    # No list of dicts that workers would copy.
    if serialize:
        assert len(dataset.data_list) == 0
        assert dataset.data_bytes.dtype == np.uint8
