"""Tests of tools/analysis_tools/browse_clips.py."""
import importlib.util
import json
import os
import re
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import soundfile

from avdet_mm.datasets.clip_table import REPORT_TYPE, dump_clip_table
from avdet_mm.testing import make_clip, write_media, write_procedural_clips

TOOL = Path(__file__).parents[2] / 'tools/analysis_tools/browse_clips.py'
RATE = 24000


@pytest.fixture(scope='module')
def tool():
    spec = importlib.util.spec_from_file_location('browse_clips', TOOL)
    module = importlib.util.module_from_spec(spec)
    # Data classes look their module up.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope='module')
def clip_dir(tmp_path_factory):
    root = tmp_path_factory.mktemp('clips')
    write_procedural_clips(str(root), 3, 12, num_classes=3, workers=0)
    return root


@pytest.fixture
def browse(tool, monkeypatch, capsys):
    """Runs the tool; returns the page and the figures on it."""

    def run(source, out, *options):
        argv = ['browse_clips.py', source, '--out', out, *options]
        monkeypatch.setattr(sys, 'argv', list(map(str, argv)))
        tool.main()
        page = (out / 'index.html').read_text(encoding='utf-8')
        for address in re.findall(r'src="([^"]+)"', page):
            assert (out / address).stat().st_size > 100, address
        assert 'http' not in page and str(source) not in page
        assert not list(out.glob('.*'))
        return page, re.findall('<figure.*?</figure>', page)

    return run


def shown_ids(figures):
    return [re.search('<b title="([^"]*)"', f)[1] for f in figures]


def tone(frequency, seconds=1.625, start=0.):
    """A tone that begins at a time."""
    time = np.arange(round(seconds * RATE)) / RATE
    wave = 0.5 * np.sin(2 * np.pi * frequency * time)
    return np.where(time >= start, wave, 0).astype(np.float32)


def frames(value=90, count=13, height=72, width=128):
    return np.full((count, height, width, 3), value, np.uint8)


def table_of(path, rows, **metainfo):
    dump_clip_table(rows, str(path), metainfo)
    return path


def report_of(path, faults):
    """A report as tools/check_clips.py writes it."""
    rows = [
        dict(clip_id=i, verdict=(f + ['good'])[0], faults=f)
        for i, f in faults.items()
    ]
    head = json.dumps(dict(dataset_type=REPORT_TYPE))
    lines = ',\n'.join(map(json.dumps, rows))
    path.write_text(f'{{"metainfo": {head}, "data_list": [\n{lines}\n]}}\n')
    return path


def test_page_and_sheets(browse, clip_dir, tmp_path):
    out = tmp_path / 'look'
    page, figures = browse(clip_dir / 'test.json', out, '--num', 7,
                           '--columns', 2)
    assert len(figures) == 7
    assert f'Clips of {clip_dir.name}/test.json' in page
    assert '7 of 12 clips, chosen at random (seed 0).' in page
    assert 'sounding object' in page and 'cannot be loaded' not in page
    rows = json.loads((clip_dir / 'test.json').read_text())['data_list']
    labels = {r['clip_id']: r['label'] for r in rows}
    for clip_id, figure in zip(shown_ids(figures), figures):
        assert f'data-label="{labels[clip_id]}"' in figure
        assert '1.62 s · 108×108 · frame at 0.75 s' in figure
        assert figure.count('<img') == 4 and figure.count('<audio') == 1
    # As equally many of each label as there are.
    for label in set(labels.values()):
        there = list(labels.values()).count(label)
        shown = sum(labels[i] == label for i in shown_ids(figures))
        assert shown in (min(there, 2), min(there, 3))
        assert f'<small>{shown} of {there}</small>' in page
    assert page.count('<option value=') == 1 + len(set(labels.values()))
    # 2 x 4 clips fit on a sheet.
    assert [p.name for p in out.glob('*.png')] == ['sheet_01.png']
    assert cv2.imread(str(out / 'sheet_01.png')).shape[1] == 2 * 286 + 14
    with soundfile.SoundFile(out / 'media' / '0001.wav') as file:
        assert (file.samplerate, file.channels, file.subtype) == (RATE, 1,
                                                                  'PCM_16')
        assert file.frames == 39000
    assert cv2.imread(str(out / 'media/0001_mel.png')).shape == (257, 99, 3)
    assert not list((out / 'media').glob('*.json'))

    # The seed decides.
    again = browse(clip_dir / 'test.json', out, '--num', 7)
    assert shown_ids(again[1]) == shown_ids(figures)
    other = browse(clip_dir / 'test.json', out, '--num', 7, '--seed', 1)
    assert shown_ids(other[1]) != shown_ids(figures)


def test_new_page_replaces_old_one_only(browse, clip_dir, tmp_path):
    source = clip_dir / 'test.json'
    browse(source, tmp_path, '--num', 6, '--columns', 1)
    assert len(list(tmp_path.glob('sheet_*.png'))) == 2
    (tmp_path / 'notes.txt').write_text('mine')
    browse(source, tmp_path, '--num', 3)
    assert len(list(tmp_path.glob('sheet_*.png'))) == 1
    assert len(list((tmp_path / 'media').glob('*.wav'))) == 3
    assert (tmp_path / 'notes.txt').read_text() == 'mine'

    other = tmp_path / 'other'
    (other / 'media').mkdir(parents=True)
    with pytest.raises(SystemExit, match='has media and no page of this'):
        browse(source, other)
    (other / 'index.html').write_text('<html>my home page</html>')
    with pytest.raises(SystemExit, match='choose another'):
        browse(source, other)
    assert sorted(os.listdir(other)) == ['index.html', 'media']
    with pytest.raises(SystemExit, match='is no folder'):
        browse(source, tmp_path / 'notes.txt')


def test_choice_by_label_and_id(browse, clip_dir, tmp_path):
    source = clip_dir / 'test.json'
    rows = json.loads(source.read_text())['data_list']
    label = rows[0]['label']
    ids = {r['clip_id'] for r in rows if r['label'] == label}
    page, figures = browse(source, tmp_path, '--label', label)
    assert set(shown_ids(figures)) == ids
    assert f'chosen at random (seed 0) among {label}.' in page
    _, figures = browse(source, tmp_path, '--clip-ids', 'test_000003',
                        '--clip-ids=test_000001', '--num', 1)
    assert sorted(shown_ids(figures)) == ['test_000001', 'test_000003']
    with pytest.raises(SystemExit, match=rf'no clip .* labels: .*{label} \('):
        browse(source, tmp_path, '--label', 'piano')
    with pytest.raises(SystemExit, match="1 of .*'-abc'.*'test_000011'"):
        browse(source, tmp_path, '--clip-ids', 'test_000001',
               '--clip-ids=-abc')


def test_broken_clips_are_shown_with_the_reason(browse, tmp_path):
    source = tmp_path / 'videos'
    (source / 'sub').mkdir(parents=True)
    clip = make_clip(0, 'train', 0)
    odd = source / 'sub' / '-x "y" <b>&amp; ünï.mp4'
    write_media(str(odd), clip['frames'], clip['waveform'])
    write_media(str(source / 'still.mp4'), frames(), tone(440))
    (source / 'empty.mp4').write_bytes(b'')
    (source / 'text.mp4').write_text('hello')
    write_media(str(source / 'no sound.mp4'), clip['frames'])
    write_media(str(source / 'short.mp4'), frames(count=4), tone(440, .5))
    # From the middle on, no frame can be decoded.
    content = odd.read_bytes()
    (source / 'cut.mp4').write_bytes(content[:len(content) // 4])
    page, figures = browse(source, tmp_path / 'out')
    assert 'All 7 clips. 5 of those shown cannot be loaded.' in page
    figures = dict(zip(shown_ids(figures), figures))
    clip_id = '-x &quot;y&quot; &lt;b&gt;&amp;amp; ünï'
    assert figures[clip_id].count('<img') == 4
    assert '128×72' in figures['still']
    for name, reason in (('empty', 'empty file'), ('text',
                                                   'cannot be decoded'),
                         ('no sound', 'no audio stream'),
                         ('cut', 'cannot be decoded')):
        assert f'<div class="none">{reason}' in figures[name], name
        assert '<audio' not in figures[name]
    # What there is of it is shown.
    assert re.search('"none">too short .*strip.jpg.*<audio', figures['short'])
    assert 'id="label"' not in page and 'sounding object' not in page
    assert 'Errno' not in page


def test_rows_that_training_refuses(browse, clip_dir, tmp_path):
    good = dict(clip_id='good', video_path=str(clip_dir / 'test/000000.mp4'))
    box = [0, 0, 10, 10]
    rows = [
        good,
        dict(good, clip_id='far \ud800', label='a',
             instances=[dict(bbox=[50, 50, 300, 90], label='a')]),
        dict(good, clip_id='unknown', label='c'),
        dict(good, clip_id='flat', instances=[dict(bbox=[5, 5, 5, 9],
                                                   label='a')]),
        dict(clip_id='gone', video_path='gone.mp4'),
        dict(clip_id='nothing', instances=[dict(bbox=box, label='a')]),
        dict(video_path='x.mp4'),
        7,
    ]
    source = table_of(tmp_path / 'table.json', rows, classes=['a', 'b'])
    page, figures = browse(source, tmp_path / 'out')
    figures = dict(zip(shown_ids(figures), figures))
    assert len(figures) == 7 and page.count('(no clip_id)</b>') == 2
    for name, text in (('far ?', 'a box reaches beyond the frame'),
                       ('unknown', 'none of the 2 classes'),
                       ('flat', 'has an empty box'),
                       ('gone', 'missing file'),
                       ('nothing', 'neither'),
                       ('(no clip_id)', 'has no')):
        assert text in figures[name], name
    assert 'class="bad"' not in figures['good']
    assert '3 labels' in page and '<small>6 of 6</small>' in page


def test_verdicts(browse, clip_dir, tmp_path):
    faults = {f'test_{i:06d}': [] for i in range(10)}
    faults['test_000002'] = ['still', 'silent']
    faults['test_000005'] = ['silent']
    report = report_of(tmp_path / 'check.json', faults)
    source, out = clip_dir / 'test.json', tmp_path / 'out'
    page, figures = browse(source, out, '--report', report)
    assert len(figures) == 12
    chips = re.findall(r'<span>([a-z ]+) <small>(\d+) of (\d+)</small>', page)
    assert {('good', '8', '8'), ('not checked', '2', '2'),
            ('still', '1', '1'), ('silent', '1', '1')} < set(chips)
    figures = dict(zip(shown_ids(figures), figures))
    for clip_id, verdict, color in (('test_000000', 'good', 'fine'),
                                    ('test_000002', 'still', 'bad'),
                                    ('test_000011', 'not checked', 'bad')):
        assert f'data-verdict="{verdict}"' in figures[clip_id]
        assert f'<span class="{color}">{verdict}<' in figures[clip_id]
    page, figures = browse(source, out, '--report', report, '--verdict',
                           'silent', 'still')
    assert sorted(shown_ids(figures)) == ['test_000002', 'test_000005']
    with pytest.raises(SystemExit, match=r'verdicts: good \(8\)'):
        browse(source, out, '--report', report, '--verdict', 'black')
    with pytest.raises(SystemExit):
        browse(source, out, '--verdict', 'still')
    with pytest.raises(SystemExit, match='clip_report'):
        browse(source, out, '--report', source)


def test_prepared_clips(browse, tmp_path):
    soundfile.write(tmp_path / 'a.flac', tone(3000, 2.), RATE)
    (tmp_path / 'frames').mkdir()
    for ms in (0, 500, 1000, 1500):
        cv2.imwrite(str(tmp_path / f'frames/{ms}.jpg'),
                    frames(ms // 10)[0])
    short = dict(clip_id='short', audio_path='a.flac',
                 frames=dict(dir='frames', ms=[0, 500, 1000, 1500]))
    long = dict(short, clip_id='long', time=1.5, frames=[
        dict(path=f'frames/{ms}.jpg', time=ms / 1000) for ms in (0, 1500)
    ])
    gone = dict(short, clip_id='gone', frames=dict(dir='frames', ms=[0, 77]))
    source = table_of(tmp_path / 'clips.json', [short, long, gone])
    _, figures = browse(source, tmp_path / 'out', '--sound-seconds', 1.5)
    figures = dict(zip(shown_ids(figures), figures))
    assert '2.00 s · 128×72 · frame at 0.50 s' in figures['short']
    assert 'frame at 1.50 s' in figures['long']
    assert 'missing file: 77.jpg' in figures['gone']

    def media(clip_id, end):
        name = re.search(r'media/(\d+)', figures[clip_id])[1]
        return str(tmp_path / f'out/media/{name}{end}')

    # The frame at 0.5 s, and one of each half second.
    assert abs(cv2.imread(media('short', '.jpg')).mean() - 50) < 2
    strip = cv2.imread(media('short', '_strip.jpg'))
    assert strip.shape == (90, 4 * 160 + 3 * 4, 3)
    for i, level in enumerate((0, 50, 100, 150)):
        tile = strip[:40, i * 164 + 5:i * 164 + 155]
        assert abs(tile.mean() - level) < 3
    assert soundfile.info(media('short', '.wav')).frames == 1.5 * RATE
    # Centers of the 257 bands divide the mel scale into 258; row 0 is the
    # uppermost.
    mel = cv2.imread(media('short', '_mel.png')).sum(axis=(1, 2))
    tone_mel, top_mel = np.log10(1 + np.array([3000, 12000]) / 700)
    row = np.flatnonzero(mel == mel.max()).mean()
    assert abs(row - (257 - 258 * tone_mel / top_mel)) < 1


def test_frames_over_the_time_of_a_video(browse, tmp_path):
    # 2 s at 8 frames per second, each brighter than the one before.
    levels = np.arange(20, 180, 10, dtype=np.uint8)
    write_media(str(tmp_path / 'a.mp4'),
                levels[:, None, None, None] + frames(0, 16), tone(440, 2.))
    page, _ = browse(tmp_path, tmp_path / 'out')
    assert '2.00 s · 128×72 · frame at 1.00 s' in page
    frame = cv2.imread(str(tmp_path / 'out/media/0001.jpg'))
    assert abs(frame.mean() - 100) < 5
    strip = cv2.imread(str(tmp_path / 'out/media/0001_strip.jpg'))
    # In the middle of each quarter.
    for i, level in enumerate((40, 80, 120, 160)):
        assert abs(strip[:40, i * 164 + 5:i * 164 + 155].mean() - level) < 5


def test_boxes_can_be_left_out(browse, tmp_path):
    write_media(str(tmp_path / 'a.mp4'), frames(), tone(440))
    source = table_of(
        tmp_path / 'clips.json', [
            dict(clip_id='a', video_path='a.mp4', instances=[
                dict(bbox=[20, 10, 60, 50], label='dog', sounding=True),
                dict(bbox=[80, 10, 120, 50], label='cat', sounding=False)
            ])
        ], classes=['cat', 'dog'])

    def image(*options):
        browse(source, tmp_path / 'out', *options)
        return cv2.imread(str(tmp_path / 'out/media/0001.jpg')).astype(int)

    plain, drawn = image('--no-boxes'), image()
    assert plain.shape == (270, 480, 3)  # 3.75 times the frame
    assert (abs(plain - 90) < 6).all()
    # Lower edges of the boxes: green, and gray.
    blue, green, red = drawn[187, 100]
    assert green > red + 60 and green > blue + 60
    assert np.ptp(drawn[187, 380]) < 12 and drawn[187, 380].mean() > 150
    assert (abs(drawn[230:] - 90) < 6).all()


def test_loudness_over_time(tool):
    # 2 s of a clip of 4 s, from 1 s on; the tone begins at 2 s.
    image = tool.level_image(tone(440, 2., start=1.), 1., 4., 2.,
                             size=(20, 40))
    columns = [set(map(tuple, image[:, x].tolist())) for x in range(40)]
    white = (255, 255, 255)
    assert columns[:10] == [{tool.EMPTY}] * 10
    assert columns[10:15] == [{tool.WAVE, white}] * 5
    assert columns[15:25] == [{tool.HEARD, white}] * 10
    assert columns[25:30] == [{tool.WAVE, white}] * 5
    assert columns[30:] == [{tool.EMPTY}] * 10
    height = (image != 255).any(-1).sum(axis=0)
    # Silence is a thin line, 0.5 is sqrt(0.5) of the height.
    assert (height[10:20] == 2).all() and (height[20:30] == 14).all()


def test_share_out(tool):
    sizes = dict(a=100, b=2, c=5)
    assert tool.share_out(12, sizes, 0) == dict(a=5, b=2, c=5)
    assert tool.share_out(500, sizes, 0) == sizes
    one = [tool.share_out(1, sizes, seed) for seed in range(20)]
    assert all(sum(q.values()) == 1 for q in one)
    assert {k for q in one for k, n in q.items() if n} == set('abc')
    assert tool.shorten('abcdefghij', 10) == 'abcdefghij'
    assert tool.shorten('abcdefghijk', 10) == 'abcdef…ijk'


def test_sources_that_are_none(browse, tmp_path):
    with pytest.raises(SystemExit, match='nowhere'):
        browse(tmp_path / 'nowhere.json', tmp_path / 'out')
    folder = tmp_path / 'folder'
    folder.mkdir()
    with pytest.raises(SystemExit, match='has no video files.$'):
        browse(folder, tmp_path / 'out')
    table_of(folder / 'clips.json', [])
    with pytest.raises(SystemExit, match='did you mean .*clips.json'):
        browse(folder, tmp_path / 'out')
    with pytest.raises(SystemExit, match='It is empty'):
        browse(folder / 'clips.json', tmp_path / 'out')
    with pytest.raises(SystemExit):
        browse(folder / 'clips.json', tmp_path / 'out', '--num', 0)
    assert not (tmp_path / 'out').exists()
