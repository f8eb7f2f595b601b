"""Tests of preparing clips."""
import errno
import faulthandler
import io
import json
import multiprocessing
import os
import os.path as osp
import random
import re
import shutil
import signal
import struct
import time
from fractions import Fraction
from functools import partial

import av
import numpy as np
import pytest
import soundfile

from avdet_mm.datasets import prepare
from avdet_mm.datasets.clip_table import dump_clip_table, load_clip_table
from avdet_mm.datasets.media import (
    BrokenClipError,
    decode_audio,
    decode_frame,
    open_video,
    read_image,
)
from avdet_mm.datasets.prepare import prepare_clips
from avdet_mm.datasets.prepare_source import OutputError, prepare_source
from avdet_mm.testing import write_media

fork = multiprocessing.get_context('fork')


def write_streams(path, frames, waveform, fps=8, sound_at=0., pts=None):
    """A file with uncompressed sound, which may start late, and with frames
    at any times, in units of ``1 / fps``."""
    with av.open(str(path), 'w') as container:
        video = container.add_stream('mpeg4', rate=fps)
        video.height, video.width = frames.shape[1:3]
        video.pix_fmt = 'yuv420p'
        audio = container.add_stream('pcm_s16le', rate=24000)
        audio.layout = 'mono'
        for i, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format='bgr24')
            frame.pts = pts[i] if pts else i
            frame.time_base = Fraction(1, fps)
            container.mux(video.encode(frame))
        container.mux(video.encode())
        samples = np.round(waveform * 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(
            samples[None], format='s16', layout='mono')
        frame.sample_rate = 24000
        frame.pts = round(sound_at * 24000)
        frame.time_base = Fraction(1, 24000)
        container.mux(audio.encode(frame))
        container.mux(audio.encode())


def rotate(path, out):
    """Write in the header of an mp4 that it is to be turned by 90 degrees."""
    data = bytearray(open(path, 'rb').read())
    matrix = data.find(b'tkhd') + 44
    one = 1 << 16
    data[matrix:matrix + 36] = struct.pack('>9i', 0, one, 0, -one, 0, 0, 0, 0,
                                           1 << 30)
    with open(out, 'wb') as file:
        file.write(data)


def spoil(path, out):
    """Overwrite a packet in the middle of a file."""
    with av.open(path) as container:
        packets = [(p.pos, p.size) for p in container.demux()
                   if p.size and p.stream.type == 'video']
    place, size = packets[len(packets) // 2]
    data = bytearray(open(path, 'rb').read())
    data[place + 6:place + size] = bytes(size - 6)
    with open(out, 'wb') as file:
        file.write(data)


def tree(folder):
    """All files below a folder with their contents."""
    found = {}
    for root, folders, names in os.walk(folder):
        found.update((osp.relpath(osp.join(root, n), folder), None)
                     for n in folders)
        for name in names:
            path = osp.join(root, name)
            with open(path, 'rb') as file:
                found[osp.relpath(path, folder)] = file.read()
    return found


def report_of(out):
    with open(osp.join(out, 'prepare_report.json')) as file:
        return json.load(file)


def verdicts(out):
    return {r['path']: r['verdict'] for r in report_of(out)['sources']}


def rows_of(out):
    return {
        row['clip_id']: row
        for row in load_clip_table(osp.join(out, 'clips.json'))[1]
    }


def level(image):
    """Gray level of an even image: green, which conversion changes least."""
    assert image[..., 1].std() < 1
    return float(image[..., 1].mean())


@pytest.fixture
def videos(tmp_path, video):
    """A folder with three videos, and where to prepare them."""
    folder = tmp_path / 'videos'
    (folder / 'more').mkdir(parents=True)
    for name in ('a.mp4', 'b.mp4', 'more/c.mp4'):
        shutil.copy(video, folder / name)
    return str(folder), str(tmp_path / 'out')


@pytest.fixture(scope='module')
def small(tmp_path_factory):
    """A folder with 12 tiny videos."""
    folder = tmp_path_factory.mktemp('small')
    rng = np.random.default_rng(1)
    for i in range(12):
        frames = np.full((12, 32, 32, 3), 20 * i, np.uint8)
        wave = rng.uniform(-0.3, 0.3, 36000).astype(np.float32)
        write_media(str(folder / f'v{i:02d}.mp4'), frames, wave)
    (folder / 'broken.mp4').write_bytes(b'no video')
    return str(folder)


# --------------------------------------------------------------------------
# One source
# --------------------------------------------------------------------------
@pytest.mark.parametrize('fps, shown', [
    (2., [0, 4, 8, 12, 16, 20, 24, 28, 32, 36]),
    (8., range(40)),
    (100., range(40)),
    (3., [0, 2, 5, 8, 10, 13, 16, 18, 21, 24, 26, 29, 32, 34, 37]),
])
def test_frames(tmp_path, video, fps, shown):
    found = prepare_source(video, 'x', str(tmp_path / 'new'), fps=fps)
    clip, = found['clips']
    assert found['shown'] == [48, 64]
    assert clip == dict(
        clip_id='x',
        ms=[round(i / 8 * 1000) for i in shown],
        duration=5.,
        height=48,
        width=64)
    files = os.listdir(tmp_path / 'new' / 'x')
    assert sorted(files) == sorted(f'{ms}.jpg' for ms in clip['ms'])
    for i, ms in zip(shown, clip['ms']):
        image = read_image(str(tmp_path / 'new' / 'x' / f'{ms}.jpg'))
        assert image.shape == (48, 64, 3)
        assert level(image) == pytest.approx(6 * i, abs=2.95)


def test_frames_agree_with_the_video_itself(tmp_path, video):
    prepare_source(video, 'x', str(tmp_path / 'new'), fps=1, quality=100)
    with open_video(video) as container:
        for k in range(5):
            image, at = decode_frame(container, k)
            mine = read_image(str(tmp_path / f'new/x/{round(at * 1e3)}.jpg'))
            assert np.abs(mine.astype(int) - image).mean() < 2


@pytest.mark.parametrize('short_side, size', [(24, (24, 32)), (20, (20, 27)),
                                              (48, (48, 64)),
                                              (300, (48, 64))])
def test_short_side(tmp_path, video, short_side, size):
    found = prepare_source(
        video, 'x', str(tmp_path / 'new'), short_side=short_side)
    clip, = found['clips']
    assert (clip['height'], clip['width']) == size
    assert found['shown'] == [48, 64]
    image = read_image(str(tmp_path / 'new' / 'x' / '0.jpg'))
    assert image.shape == (*size, 3)


def test_rotated_video(tmp_path, signal):
    frames = np.zeros((8, 48, 64, 3), np.uint8)
    frames[:, :, :32] = 200
    write_media(str(tmp_path / 'flat.mp4'), frames, signal[:24000])
    rotate(tmp_path / 'flat.mp4', tmp_path / 'up.mp4')
    path = str(tmp_path / 'up.mp4')
    with open_video(path) as container:
        image, _ = decode_frame(container, 0)
    assert image.shape == (64, 48, 3)
    found = prepare_source(path, 'x', str(tmp_path / 'new'), short_side=24)
    assert found['shown'] == [64, 48]
    clip, = found['clips']
    assert (clip['height'], clip['width']) == (32, 24)
    mine = read_image(str(tmp_path / 'new' / 'x' / '0.jpg')).astype(int)
    assert mine.shape == (32, 24, 3)
    assert np.abs(mine - image[::2, ::2]).mean() < 5
    assert abs(mine[:12].mean() - mine[-12:].mean()) > 150


def test_sound(tmp_path, video, signal):
    prepare_source(video, 'x', str(tmp_path / 'new'))
    wave, rate = soundfile.read(str(tmp_path / 'new' / 'x.flac'))
    info = soundfile.info(str(tmp_path / 'new' / 'x.flac'))
    assert (rate, info.channels, info.subtype) == (24000, 1, 'PCM_16')
    assert len(wave) == 120000
    with open_video(video) as container:
        exact = decode_audio(container, 0., 5., 24000)
    assert np.abs(wave - exact).max() <= 0.5 / 32768 + 1e-7
    # No shift: the lag of the best agreement is none.
    lags = range(-50, 51)
    agreement = [
        np.dot(np.roll(wave, lag)[1000:-1000], signal[1000:-1000])
        for lag in lags
    ]
    assert lags[int(np.argmax(agreement))] == 0


def test_sound_in_pieces(tmp_path, video, monkeypatch):
    prepare_source(video, 'x', str(tmp_path / 'whole'))
    monkeypatch.setattr('avdet_mm.datasets.prepare_source._PIECE', 0.7)
    prepare_source(video, 'x', str(tmp_path / 'pieces'))
    whole, _ = soundfile.read(str(tmp_path / 'whole' / 'x.flac'))
    pieces, _ = soundfile.read(str(tmp_path / 'pieces' / 'x.flac'))
    assert len(whole) == len(pieces)
    assert np.abs(whole - pieces).max() < 2e-3


def test_sound_starts_late(tmp_path, counting, signal):
    path = str(tmp_path / 'late.mkv')
    write_streams(path, counting, signal[:108000], sound_at=0.5)
    found = prepare_source(path, 'x', str(tmp_path / 'new'))
    assert found['clips'][0]['duration'] == 5
    wave, _ = soundfile.read(str(tmp_path / 'new' / 'x.flac'))
    assert len(wave) == 120000
    assert not wave[:11990].any()
    assert np.abs(wave[12000:] - signal[:108000]).max() < 1e-3


def test_picture_starts_late(tmp_path, counting, signal):
    path = str(tmp_path / 'late.mkv')
    write_streams(path, counting, signal, sound_at=-0.5)
    clip, = prepare_source(path, 'x', str(tmp_path / 'new'))['clips']
    assert clip['ms'] == [500, 1000, 1500, 2000, 2500, 3000, 3500, 4000, 4500]
    assert clip['duration'] == 5
    image = read_image(str(tmp_path / 'new' / 'x' / '1000.jpg'))
    assert level(image) == pytest.approx(24, abs=2.95)


@pytest.mark.parametrize('name', ['x.mkv', 'x.mov', 'x.mp4'])
@pytest.mark.parametrize('num_frames, samples', [(40, 60000), (20, 120000)])
def test_common_duration(tmp_path, counting, signal, name, num_frames,
                         samples):
    path = str(tmp_path / name)
    if name == 'x.mp4':
        write_media(path, counting[:num_frames], signal[:samples])
    else:
        write_streams(path, counting[:num_frames], signal[:samples])
    clip, = prepare_source(path, 'x', str(tmp_path / 'new'))['clips']
    assert clip['duration'] == pytest.approx(2.5, abs=0.05)
    assert clip['ms'] == [0, 500, 1000, 1500, 2000]
    info = soundfile.info(str(tmp_path / 'new' / 'x.flac'))
    assert info.frames == round(clip['duration'] * 24000)


def test_slide_show(tmp_path, counting, signal):
    path = str(tmp_path / 'slow.mp4')
    write_media(path, counting[::10], signal[:96000], fps=1)
    clip, = prepare_source(path, 'x', str(tmp_path / 'new'))['clips']
    assert clip['ms'] == [0, 1000, 2000, 3000]


def test_variable_frame_rate(tmp_path, counting, signal):
    path = str(tmp_path / 'vfr.mkv')
    pts = [0, 1, 2, 9, 11, 16, 17, 30, 31]
    write_streams(path, counting[:36:4], signal[:96000], pts=pts)
    clip, = prepare_source(path, 'x', str(tmp_path / 'new'))['clips']
    # Shown at 0, 4, 8, ..., 28 eighths of a second.
    assert clip['ms'] == [0, 250, 1375, 2000, 2125]
    for ms, i in zip(clip['ms'], (0, 2, 4, 5, 6)):
        image = read_image(str(tmp_path / 'new' / 'x' / f'{ms}.jpg'))
        assert level(image) == pytest.approx(24 * i, abs=6)


def test_one_frame_and_odd_size(tmp_path, counting, signal):
    path = str(tmp_path / 'one.mp4')
    write_media(path, counting[:1, :, :], signal[:24000], fps=1)
    clip, = prepare_source(path, 'x', str(tmp_path / 'new'))['clips']
    assert (clip['ms'], clip['duration']) == ([0], 1.)
    path = str(tmp_path / 'odd.mkv')
    write_streams(path, counting[:8, :47, :63], signal[:24000])
    clip, = prepare_source(path, 'x', str(tmp_path / 'odd'))['clips']
    assert (clip['height'], clip['width']) == (47, 63)


@pytest.mark.parametrize('segment, starts, lengths', [
    (2., [0, 2, 4], [2, 2, 1]),
    (2.2, [0, 2], [2.2, 2.2]),
    (5., [0], [5]),
    (60., [0], [5]),
    (1.5, [0, 1, 3], [1.5, 1.5, 1.5]),
])
def test_segments(tmp_path, video, segment, starts, lengths):
    out = str(tmp_path / 'new')
    clips = prepare_source(video, 'x', out, segment=segment)['clips']
    assert [c['clip_id'] for c in clips] == [f'x_{s:06d}' for s in starts]
    assert [c['duration'] for c in clips] == pytest.approx(lengths)
    for i, (clip, length) in enumerate(zip(clips, lengths)):
        first = i * segment
        wanted = first + np.arange(0, length - 1e-9, 0.5)
        shown = np.floor(wanted * 8 + 1e-6)
        assert clip['ms'] == [
            round(max(x / 8 - first, 0) * 1000) for x in shown
        ]
        for frame, ms in zip(shown, clip['ms']):
            image = read_image(osp.join(out, clip['clip_id'], f'{ms}.jpg'))
            assert level(image) == pytest.approx(6 * frame, abs=2.95)
        info = soundfile.info(osp.join(out, f'{clip["clip_id"]}.flac'))
        assert info.frames == round(length * 24000)


@pytest.mark.parametrize('arguments, place, ms', [
    (dict(time=1.3), 0, 1250),
    (dict(time='middle'), 0, 2500),
    (dict(time=0.), 0, 0),
    (dict(time='middle', duration=3.3), 0, 1625),
    (dict(time=4.7, segment=2.), 2, 625),
])
def test_wanted_time(tmp_path, video, arguments, place, ms):
    clips = prepare_source(video, 'x', str(tmp_path / 'new'),
                           **arguments)['clips']
    assert [c.get('time') for c in clips
            ] == [ms / 1000 if i == place else None for i in range(len(clips))]
    assert ms in clips[place]['ms']
    assert clips[place]['ms'] == sorted(set(clips[place]['ms']))


@pytest.mark.parametrize('arguments, reason', [
    (dict(time=7.), 'time outside the clip'),
    (dict(time=3., duration=2.), 'time outside the clip'),
    (dict(segment=2., duration=0.5), 'too short'),
])
def test_impossible_wishes(tmp_path, video, arguments, reason):
    with pytest.raises(BrokenClipError) as error:
        prepare_source(video, 'x', str(tmp_path / 'new'), **arguments)
    assert error.value.reason == reason


def test_output_error_is_no_fault_of_the_source(tmp_path, video):
    with pytest.raises(OutputError):
        prepare_source(video, 'x', str(tmp_path / 'none' / 'new'))


# --------------------------------------------------------------------------
# Folders, lists and tables
# --------------------------------------------------------------------------
def test_folder(videos):
    source, out = videos
    done = prepare_clips(source, out, workers=2)
    assert done['prepared'] == 3 and done['failed'] == {}
    assert done['info'] == report_of(out)['info']
    assert done['info']['counts'] == {'good': 3}
    metainfo, rows = load_clip_table(osp.join(out, 'clips.json'))
    assert metainfo['prepared'] == dict(
        fps=2., short_side=256, quality=90, sample_rate=24000, segment=None)
    assert [row['clip_id'] for row in rows] == ['a', 'b', 'c']
    assert rows[2] == dict(
        clip_id='c',
        frames=dict(dir='frames/c', ms=list(range(0, 5000, 500))),
        audio_path='audio/c.flac',
        duration=5.,
        height=48,
        width=64)
    stat = os.stat(osp.join(source, 'more/c.mp4'))
    record = report_of(out)['sources'][2]
    assert (record['path'], record['size'], record['mtime_ns'],
            record['verdict']) == ('more/c.mp4', stat.st_size,
                                   stat.st_mtime_ns, 'good')
    assert sorted(os.listdir(out)) == [
        'audio', 'clips.json', 'frames', 'prepare_report.json'
    ]


def test_table_loads_for_training(videos):
    from avdet_mm.datasets import AudioVisualDataset
    source, out = videos
    prepare_clips(source, out, workers=1)
    dataset = AudioVisualDataset(
        osp.join(out, 'clips.json'),
        check='decode',
        pipeline=[dict(type='avdet_mm.LoadClip', frame_time='middle')])
    assert dataset.clip_ids == ['a', 'b', 'c']
    loaded = dataset[0]
    assert loaded['time'] in (2., 2.5)
    assert level(loaded['img']) == pytest.approx(
        48 * loaded['time'], abs=2.95)
    assert loaded['waveform'].shape == (24000, )


def test_text_list(videos, tmp_path):
    source, out = videos
    path = tmp_path / 'list.txt'
    path.write_bytes(b'\xef\xbb\xbfvideos/b.mp4\r\n\r\n' +
                     f'{source}/a.mp4\nnone.mp4'.encode())
    done = prepare_clips(str(path), out, workers=1)
    assert list(rows_of(out)) == ['b', 'a']
    assert done['failed'] == {'missing file': ['none.mp4']}


def test_csv(videos, tmp_path):
    source, out = videos
    path = tmp_path / 'list.csv'
    path.write_text(
        '\ufeffpath,clip_id,label\n'
        'videos/a.mp4,,"playing violin, fiddle"\n'
        'videos/b.mp4,second,dog\n'
        'videos/more/c.mp4\n',
        encoding='utf-8')
    prepare_clips(str(path), out, workers=1)
    rows = rows_of(out)
    assert {i: row.get('label') for i, row in rows.items()} == {
        'a': 'playing violin, fiddle', 'second': 'dog', 'c': None}
    metainfo, _ = load_clip_table(osp.join(out, 'clips.json'))
    assert metainfo['classes'] == ['dog', 'playing violin, fiddle']


def test_unsafe_and_duplicate_ids(videos, tmp_path):
    source, out = videos
    path = tmp_path / 'list.csv'
    path.write_text('path,clip_id\n'
                    'videos/a.mp4,../../x\n'
                    'videos/a.mp4,a/b\n'
                    'videos/a.mp4,..\n'
                    'videos/a.mp4,good\n'
                    'videos/b.mp4,good\n'
                    ',empty\n')
    before = set(os.listdir(tmp_path))
    done = prepare_clips(str(path), out, workers=1)
    assert done['failed'] == {
        'unsafe clip id': ['videos/a.mp4'] * 3,
        'duplicate clip id': ['videos/b.mp4'],
        'no video path': ['']
    }
    assert done['info']['counts'] == {
        'duplicate clip id': 1, 'good': 1, 'no video path': 1,
        'unsafe clip id': 3}
    assert list(rows_of(out)) == ['good']
    assert set(os.listdir(tmp_path)) - before == {'out'}
    again = tree(out)
    assert prepare_clips(str(path), out)['prepared'] == 0
    assert tree(out) == again


def test_clip_table(videos, tmp_path):
    source, out = videos
    boxes = [
        dict(bbox=[8, 10, 40, 30], label='dog', sounding=True),
        dict(bbox=[0, 0, 64, 48], label='cat', sounding=False)
    ]
    rows = [
        dict(clip_id='x', video_path='videos/a.mp4', label='dog', time=1.3,
             instances=boxes, url='u'),
        dict(clip_id='y', video_path='videos/b.mp4', duration=3.,
             instances=boxes[:1], label=None),
        dict(clip_id='z', video_path='videos/b.mp4', instances=[]),
        dict(clip_id='bad', video_path='videos/b.mp4',
             instances=[dict(bbox=[4, 4, 2, 8], label='dog')]),
        dict(clip_id='late', video_path='videos/b.mp4', time=99),
        dict(clip_id='frames', frames=[], audio_path='x'),
        dict(video_path='videos/b.mp4'),
        dict(clip_id=['list'], video_path=['videos/b.mp4']),
        dict(clip_id='label', video_path='videos/b.mp4', label=7),
        'no row at all',
    ]
    table = str(tmp_path / 'table.json')
    dump_clip_table(rows, table, dict(
        classes=['dog', 'cat', 'frog'], subset='test', split_hash='old'))
    done = prepare_clips(table, out, short_side=20, workers=1)
    assert done['failed'] == {
        'bad row': ['videos/b.mp4'] * 2,
        'time outside the clip': ['videos/b.mp4'],
        'no video path': [None],
        'unsafe clip id': ['videos/b.mp4', ['videos/b.mp4'], None]
    }
    metainfo, _ = load_clip_table(osp.join(out, 'clips.json'))
    assert metainfo['classes'] == ['dog', 'cat', 'frog']
    assert metainfo['subset'] == 'test' and metainfo['split_hash'] != 'old'
    found = rows_of(out)
    assert list(found) == ['x', 'y', 'z']
    row = found['x']
    assert (row['height'], row['width']) == (20, 27)
    assert row['time'] == 1.25 and 1250 in row['frames']['ms']
    assert row['label'] == 'dog' and row['url'] == 'u'
    assert row['instances'] == [
        dict(bbox=[3.375, 4.167, 16.875, 12.5], label='dog', sounding=True),
        dict(bbox=[0, 0, 27, 20], label='cat', sounding=False)
    ]
    # Without a time the boxes are those of the middle.
    assert found['y']['time'] == 1.5 and found['y']['duration'] == 3
    assert found['z'].get('time') is None

    # Another label needs no new frames, another time does.
    rows[0]['label'] = 'frog'
    rows[1]['time'] = 0.3
    dump_clip_table(rows, table, dict(classes=['dog', 'cat', 'frog']))
    assert prepare_clips(table, out, short_side=20)['prepared'] == 1
    assert rows_of(out)['x']['label'] == 'frog'
    assert rows_of(out)['y']['time'] == 0.25


def test_segments_of_a_clip_table(videos, tmp_path):
    source, out = videos
    instance = dict(bbox=[8, 10, 40, 30], label='dog')
    table = str(tmp_path / 'table.json')
    dump_clip_table([
        dict(clip_id='x', video_path='videos/a.mp4', label='dog', time=3.,
             instances=[instance])
    ], table)
    prepare_clips(table, out, segment=2, workers=1)
    rows = rows_of(out)
    assert list(rows) == ['x_000000', 'x_000002', 'x_000004']
    assert {row['label'] for row in rows.values()} == {'dog'}
    assert rows['x_000002']['time'] == 1.
    assert rows['x_000002']['instances'] == [instance]
    assert not {'time', 'instances'} & (rows['x_000000'].keys()
                                        | rows['x_000004'].keys())


WEIRD = [
    '-dash.mp4', 'with space .mp4', 'ünïcödé 声.mp4', 'quo\'te".mp4',
    'new\nline.mp4', '$(x);`y`.mp4', 'pipe:0.mp4', 'a\\b.mp4',
    '%d.mp4', 'x' * 240 + '.mp4', os.fsdecode(b'latin\xe9.mp4'), '.mp4.MP4'
]


@pytest.mark.parametrize('kind', ['folder', 'csv'])
def test_weird_names(tmp_path, video, kind):
    folder = tmp_path / 'odd folder'
    folder.mkdir()
    for name in WEIRD:
        os.link(video, osp.join(folder, name))
    source, out = str(folder), str(tmp_path / 'out')
    if kind == 'csv':
        source = str(folder / 'list.csv')
        with open(source, 'w', errors='surrogateescape') as file:
            quoted = [n.replace('"', '""') for n in WEIRD]
            file.write('path\n' + ''.join(f'"{n}"\n' for n in quoted))
    done = prepare_clips(source, out, workers=2)
    assert done['failed'] == {}
    assert set(verdicts(out)) == set(WEIRD)
    rows = rows_of(out)
    assert len(rows) == len(WEIRD)
    assert {'-dash', 'with space ', 'ünïcödé 声', 'pipe:0'} <= set(rows)
    for row in rows.values():
        assert osp.exists(osp.join(out, row['audio_path']))
        assert len(os.listdir(osp.join(out, row['frames']['dir']))) == 10
    assert prepare_clips(source, out)['prepared'] == 0


def test_faults_beside_good_clips(tmp_path, video, counting, signal):
    folder, out = tmp_path / 'videos', str(tmp_path / 'out')
    folder.mkdir()
    good = open(video, 'rb').read()
    for name in ('0good.mp4', 'zgood.mp4'):
        (folder / name).write_bytes(good)
    (folder / 'wrong_extension.avi').write_bytes(good)
    (folder / 'empty.mp4').write_bytes(b'')
    (folder / 'text.mp4').write_text('not a video')
    (folder / 'header.mp4').write_bytes(good[:len(good) // 2])
    write_media(str(folder / 'mute.mp4'), counting, None)
    write_media(str(folder / 'blind.mp4'), None, signal)
    write_streams(folder / 'middle.mkv', counting, signal)
    content = (folder / 'middle.mkv').read_bytes()
    (folder / 'middle.mkv').write_bytes(content[:len(content) // 2])
    spoil(video, folder / 'spoiled.mp4')
    os.mkfifo(folder / 'pipe.mp4')
    (folder / 'folder.mp4').mkdir()
    os.symlink('loop.mp4', folder / 'loop.mp4')
    os.symlink('nothing.mp4', folder / 'dangling.mp4')
    os.symlink('.', folder / 'here')
    done = prepare_clips(str(folder), out, workers=2)
    assert verdicts(out) == {
        '0good.mp4': 'good',
        'zgood.mp4': 'good',
        'wrong_extension.avi': 'good',
        'empty.mp4': 'empty file',
        'text.mp4': 'cannot be decoded',
        'header.mp4': 'cannot be decoded',
        'mute.mp4': 'no audio stream',
        'blind.mp4': 'no video stream',
        'middle.mkv': 'picture ends too early',
        'spoiled.mp4': 'damaged in the middle',
        'pipe.mp4': 'not a regular file',
        'loop.mp4': 'loop of links',
        'dangling.mp4': 'missing file',
    }
    assert done['info']['counts']['good'] == 3
    assert sorted(os.listdir(osp.join(out, 'frames'))) == [
        '0good', 'wrong_extension', 'zgood']
    assert str(tmp_path) not in json.dumps(report_of(out))


@pytest.mark.parametrize('name, content, error, text', [
    ('none', None, FileNotFoundError, 'There is no'),
    ('v.mp4', 'x', ValueError, 'is a video'),
    ('l.csv', 'a,b\n1,2\n', ValueError, 'no column "path"'),
    ('l.txt', '\n\n', ValueError, 'no videos'),
    ('t.json', '{"images": []}', ValueError, 'COCO'),
])
def test_no_source(tmp_path, name, content, error, text):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(error, match=text):
        prepare_clips(str(tmp_path / name), str(tmp_path / 'out'))
    assert not osp.exists(tmp_path / 'out')


@pytest.mark.parametrize('argument', [
    dict(fps=0), dict(short_side=0), dict(quality=101), dict(sample_rate=1),
    dict(segment=0.5), dict(workers=0), dict(shard=(2, 2)),
    dict(shard=(-1, 2)), dict(launcher='slurm'), dict(timeout=0)])
def test_bad_arguments(videos, argument):
    with pytest.raises(ValueError, match=next(iter(argument))):
        prepare_clips(*videos, **argument)
    assert not osp.exists(videos[1])


# --------------------------------------------------------------------------
# Going on
# --------------------------------------------------------------------------
def identities(out):
    """Inode and time of every media file."""
    found = {}
    for root, _, names in os.walk(out):
        for name in names:
            if not name.endswith('.json'):
                stat = os.stat(osp.join(root, name))
                path = osp.relpath(osp.join(root, name), out)
                found[path] = stat.st_ino, stat.st_mtime_ns
    return found


def test_again_does_nothing(videos):
    source, out = videos
    prepare_clips(source, out, workers=1)
    before = identities(out), tree(out)
    tables = [os.stat(osp.join(out, n)).st_mtime_ns
              for n in ('clips.json', 'prepare_report.json')]
    assert prepare_clips(source, out)['prepared'] == 0
    assert (identities(out), tree(out)) == before
    assert tables == [os.stat(osp.join(out, n)).st_mtime_ns
                      for n in ('clips.json', 'prepare_report.json')]


def test_lost_files_are_made_again(videos):
    source, out = videos
    prepare_clips(source, out, workers=1)
    before, whole = identities(out), tree(out)
    os.remove(osp.join(out, 'frames', 'a', '500.jpg'))
    os.remove(osp.join(out, 'audio', 'b.flac'))
    assert prepare_clips(source, out, workers=1)['prepared'] == 2
    assert tree(out) == whole
    after = identities(out)
    same = {path for path in before if before[path] == after[path]}
    assert same == {path for path in before
                    if path.startswith(('frames/c', 'audio/c'))}


def test_new_changed_and_deleted_videos(videos, tmp_path, counting, signal):
    source, out = videos
    prepare_clips(source, out, workers=1)
    before = identities(out)
    shutil.copy(osp.join(source, 'a.mp4'), osp.join(source, 'd.mp4'))
    write_media(osp.join(source, 'b.mp4'), counting[:16], signal[:48000])
    os.remove(osp.join(source, 'more', 'c.mp4'))
    assert prepare_clips(source, out, workers=1)['prepared'] == 2
    rows = rows_of(out)
    # Videos may be deleted once they are prepared.
    assert list(rows) == ['a', 'b', 'd', 'c']
    assert rows['b']['frames']['ms'] == [0, 500, 1000, 1500]
    assert len(os.listdir(osp.join(out, 'frames', 'b'))) == 4
    after = identities(out)
    assert all(before[p] == after[p] for p in before if '/b' not in p)
    assert prepare_clips(source, out)['prepared'] == 0


def test_video_turns_bad(videos):
    source, out = videos
    prepare_clips(source, out, workers=1)
    with open(osp.join(source, 'b.mp4'), 'w') as file:
        file.write('x')
    done = prepare_clips(source, out, workers=1)
    assert done['failed'] == {'cannot be decoded': ['b.mp4']}
    assert sorted(os.listdir(osp.join(out, 'frames'))) == ['a', 'c']
    assert sorted(os.listdir(osp.join(out, 'audio'))) == ['a.flac', 'c.flac']


def test_a_second_video_of_a_name(videos):
    source, out = videos
    prepare_clips(source, out, workers=1)
    shutil.copy(osp.join(source, 'a.mp4'), osp.join(source, 'more', 'a.mp4'))
    prepare_clips(source, out, workers=1)
    ids = list(rows_of(out))
    assert len(ids) == 4 and 'a' not in ids
    assert sorted(os.listdir(osp.join(out, 'frames'))) == sorted(ids)


def test_failed_are_retried_when_asked_or_changed(videos):
    source, out = videos
    bad = osp.join(source, 'bad.mp4')
    with open(bad, 'w') as file:
        file.write('x')
    assert prepare_clips(source, out, workers=1)['prepared'] == 4
    assert prepare_clips(source, out, workers=1)['prepared'] == 0
    done = prepare_clips(source, out, workers=1, retry_failed=True)
    assert done['prepared'] == 1
    shutil.copy(osp.join(source, 'a.mp4'), bad)
    done = prepare_clips(source, out, workers=1)
    assert (done['prepared'], done['failed']) == (1, {})
    assert done['info']['counts'] == {'good': 4}


def test_other_settings(videos, tmp_path):
    source, out = videos
    prepare_clips(source, out, workers=1)
    whole = tree(out)
    with pytest.raises(ValueError, match='fps 2.0, now it is 4'):
        prepare_clips(source, out, fps=4)
    with pytest.raises(ValueError, match="source '../videos', now"):
        prepare_clips(osp.join(source, 'more'), out)
    assert tree(out) == whole


def test_foreign_folder(videos):
    source, out = videos
    os.makedirs(out)
    dump_clip_table([], osp.join(out, 'clips.json'))
    whole = tree(out)
    with pytest.raises(ValueError, match='was not written here'):
        prepare_clips(source, out)
    assert tree(out) == whole


def test_report_cannot_remove_files_elsewhere(videos, tmp_path):
    source, out = videos
    prepare_clips(source, out, workers=1)
    (tmp_path / 'precious').mkdir()
    path = osp.join(out, 'prepare_report.json')
    report = report_of(out)
    for record in report['sources']:
        record['clips'][0]['clip_id'] = '../../precious'
        record['size'] = 1
    with open(path, 'w') as file:
        json.dump(report, file)
    prepare_clips(source, out, workers=1)
    assert osp.exists(tmp_path / 'precious')


@pytest.mark.parametrize('n', [2, 5])
def test_shards(small, tmp_path, n):
    whole, out = str(tmp_path / 'whole'), str(tmp_path / 'out')
    prepare_clips(small, whole, workers=1)
    order = random.Random(n).sample(range(n), n)
    numbers = []
    for i in order:
        done = prepare_clips(small, out, workers=1, shard=(i, n))
        numbers.append(done['prepared'])
        assert (done['info'] is None) == (i != order[-1])
        assert osp.exists(osp.join(out, 'clips.json')) == (i == order[-1])
    assert sum(numbers) == 13 and numbers[0] < 13
    assert tree(out) == tree(whole)
    assert prepare_clips(small, out, shard=(0, n))['prepared'] == 0
    assert tree(out) == tree(whole)


def test_shards_side_by_side(small, tmp_path):
    whole, out = str(tmp_path / 'whole'), str(tmp_path / 'out')
    prepare_clips(small, whole, workers=1)
    runs = [
        fork.Process(
            target=prepare_clips,
            args=(small, out),
            kwargs=dict(workers=1, shard=(i, 3))) for i in range(3)
    ]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
        assert run.exitcode == 0
    assert tree(out) == tree(whole)


def test_unsharded_run_completes_shards(small, tmp_path):
    whole, out = str(tmp_path / 'whole'), str(tmp_path / 'out')
    prepare_clips(small, whole, workers=1)
    part = prepare_clips(small, out, workers=1, shard=(1, 3))['prepared']
    assert prepare_clips(small, out, workers=1)['prepared'] == 13 - part
    assert tree(out) == tree(whole)


def hold(source, out, shard, ready):
    def never(arguments):
        ready.set()
        time.sleep(60)

    prepare._attempt = never
    prepare_clips(source, out, workers=1, shard=shard)


def test_two_runs_at_once(small, tmp_path):
    out, ready = str(tmp_path / 'out'), fork.Event()
    other = fork.Process(target=hold, args=(small, out, (0, 2), ready))
    other.start()
    try:
        assert ready.wait(20)
        for shard in ((0, 1), (0, 2), (1, 3)):
            with pytest.raises(RuntimeError, match='Another run'):
                prepare_clips(small, out, shard=shard)
        done = prepare_clips(small, out, workers=1, shard=(1, 2))
        assert done['info'] is None and done['prepared'] > 0
    finally:
        other.kill()
        other.join()
    # The kernel gives the place back, whatever ends a run.
    prepare_clips(small, out, workers=1, shard=(0, 2))
    assert report_of(out)['info']['counts']['good'] == 12


# --------------------------------------------------------------------------
# Accidents
# --------------------------------------------------------------------------
def test_crashes_and_hangs(small, tmp_path, monkeypatch):
    def accident(file, clip_id, **kwargs):
        if clip_id == 'v01':
            faulthandler.disable()  # pytest's own, it would tell us.
            os.kill(os.getpid(), signal.SIGSEGV)
        elif clip_id == 'v02':
            os._exit(3)
        elif clip_id == 'v03':
            time.sleep(60)
        elif clip_id == 'v04':
            raise ValueError(f'{file} is odd')
        return prepare_source(file, clip_id, **kwargs)

    monkeypatch.setattr(prepare, 'prepare_source', accident)
    out = str(tmp_path / 'out')
    done = prepare_clips(small, out, workers=2, timeout=2.)
    assert done['failed'] == {
        'cannot be decoded': ['broken.mp4'],
        'decoder crashed': ['v01.mp4', 'v02.mp4'],
        'took too long': ['v03.mp4'],
        'unexpected error': ['v04.mp4'],
    }
    records = {r['clip_id']: r for r in report_of(out)['sources']}
    assert records['v01']['detail'] == 'SIGSEGV'
    assert records['v02']['detail'] == 'exit code 3'
    assert records['v03']['detail'] == 'more than 2 s'
    assert records['v04']['detail'] == 'ValueError: v04.mp4 is odd'
    assert not osp.exists(osp.join(out, '.prepare'))
    # What went wrong by accident can be done again.
    monkeypatch.undo()
    again = prepare_clips(small, out, workers=2, retry_failed=True)
    assert (again['prepared'], list(again['failed'])) == (
        5, ['cannot be decoded'])
    prepare_clips(small, str(tmp_path / 'whole'), workers=2)
    assert tree(out) == tree(str(tmp_path / 'whole'))


def test_disk_full_in_a_worker(small, tmp_path, monkeypatch):
    from avdet_mm.datasets import prepare_source as module

    def full(path, data):
        if 'v05' in path:
            with module.writing():
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with open(path, 'wb') as file:
            file.write(data)

    out = str(tmp_path / 'out')
    monkeypatch.setattr(module, '_write', full)
    with pytest.raises(RuntimeError, match='No space left.*goes on'):
        prepare_clips(small, out, workers=1)
    assert not osp.exists(osp.join(out, 'clips.json'))
    assert not osp.exists(osp.join(out, 'frames', 'v05'))
    monkeypatch.undo()
    prepare_clips(small, out, workers=1)
    prepare_clips(small, str(tmp_path / 'whole'), workers=1)
    assert tree(out) == tree(str(tmp_path / 'whole'))


def test_disk_full_in_the_log(small, tmp_path, monkeypatch):
    out, write = str(tmp_path / 'out'), os.write
    calls = []

    def half(file, data):
        calls.append(1)
        return write(file, data[:50] if len(calls) == 4 else data)

    monkeypatch.setattr(prepare.os, 'write', half)
    with pytest.raises(RuntimeError, match='No space left'):
        prepare_clips(small, out, workers=1)
    monkeypatch.undo()
    with open(osp.join(out, '.prepare', '0-of-1.jsonl'), 'rb') as file:
        assert not file.read().endswith(b'\n')
    prepare_clips(small, out, workers=1)
    prepare_clips(small, str(tmp_path / 'whole'), workers=1)
    assert tree(out) == tree(str(tmp_path / 'whole'))


def test_unwritable_output(videos, tmp_path):
    (tmp_path / 'file').write_text('x')
    with pytest.raises(RuntimeError, match='Cannot write to'):
        prepare_clips(videos[0], str(tmp_path / 'file' / 'out'))


STEPS = ('rename', 'replace', 'remove', 'write', 'mkdir', 'rmdir')


def die_at(step, source, out):
    """Prepare, but die before the n-th change to the file system."""
    left, run = [step], os.getpid()

    def fatal(function):
        def call(*args, **kwargs):
            left[0] -= os.getpid() == run
            if left[0] < 0:
                os.kill(run, signal.SIGKILL)
            return function(*args, **kwargs)

        return call

    for name in STEPS:
        setattr(os, name, fatal(getattr(os, name)))
    prepare_clips(source, out, workers=1)


def test_death_at_every_step(video, tmp_path):
    """A run dies at every change, and so does the next one, a bit later."""
    source, whole = str(tmp_path / 'videos'), str(tmp_path / 'whole')
    os.makedirs(source)
    for name in ('a.mp4', 'b.mp4'):
        shutil.copy(video, osp.join(source, name))
    prepare_clips(source, whole, workers=1)
    wanted, codes = tree(whole), []

    # AVDET_KILLS=... takes every step, else every third.
    for step in range(0, 90, 1 if 'AVDET_KILLS' in os.environ else 3):
        out = str(tmp_path / f'out{step}')
        for more in (0, 3):
            run = fork.Process(
                target=die_at, args=(step + more, source, out))
            run.start()
            run.join()
            codes.append(run.exitcode)
        done = prepare_clips(source, out, workers=1)
        assert done['info']['counts'] == {'good': 2}
        assert tree(out) == wanted, step
        shutil.rmtree(out)
        if codes[-2:] == [0, 0]:
            break
    assert codes[:2] == [-signal.SIGKILL] * 2
    assert codes[-2:] == [0, 0] and len(codes) >= 16


def test_sigkill(small, tmp_path):
    """Kill at random moments; AVDET_KILLS=20 for a longer test."""
    kills = int(os.environ.get('AVDET_KILLS', 5))
    whole, out = str(tmp_path / 'whole'), str(tmp_path / 'out')
    start = time.monotonic()
    prepare_clips(small, whole, workers=2, segment=1)
    seconds = time.monotonic() - start
    rng, landed = random.Random(kills), 0
    for _ in range(kills):
        run = fork.Process(
            target=prepare_clips,
            args=(small, out),
            kwargs=dict(workers=2, segment=1))
        run.start()
        time.sleep(rng.uniform(0, 2 * seconds / (kills + 1)))
        os.kill(run.pid, signal.SIGKILL)
        run.join()
        landed += run.exitcode == -signal.SIGKILL
    assert landed >= kills // 2
    prepare_clips(small, out, workers=2, segment=1)
    assert tree(out) == tree(whole)


def test_damaged_report(videos):
    source, out = videos
    prepare_clips(source, out, workers=1)
    with open(osp.join(out, 'prepare_report.json'), 'a') as file:
        file.write('}')
    with pytest.raises(ValueError, match='is damaged .*begin anew'):
        prepare_clips(source, out)


def test_bar_in_a_terminal(small, tmp_path, monkeypatch):
    import rich.console
    screen = io.StringIO()
    monkeypatch.setattr(
        rich.console, 'Console',
        partial(rich.console.Console, file=screen, force_terminal=True,
                width=90))
    prepare_clips(small, str(tmp_path / 'out'), workers=1, progress=True)
    assert re.search(r'13/13 [\d.]+ videos/s, 0:00:00 left, 1 failed',
                     re.sub(r'\x1b\[[\d;?]*\w', '', screen.getvalue()))


def test_lines_on_a_pipe(small, tmp_path, monkeypatch, capsys):
    clock = iter(range(0, 100000, 20))
    monkeypatch.setattr('avdet_mm.utils.progress.time.monotonic',
                        lambda: next(clock))
    prepare_clips(small, str(tmp_path / 'out'), workers=1, progress=True)
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith('13 of 13, 0.0 videos/s, 0:00:00 left, 1 failed')
