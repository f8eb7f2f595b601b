"""Sizes and lengths are those that the pipeline sees."""
import struct

import cv2
import numpy as np
import pytest
import soundfile
from PIL import Image

from avdet_mm.datasets import BrokenClipError
from avdet_mm.datasets.clip_size import clip_duration, frame_size
from avdet_mm.datasets.transforms import LoadClip
from avdet_mm.testing import write_media

TABLE = 'table.json'


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A video of 2 s, upright and turned, and a prepared frame with sound."""
    root = tmp_path_factory.mktemp('sizes')
    frames = np.zeros((16, 48, 64, 3), np.uint8)
    wave = np.zeros(48000, np.float32)
    write_media(str(root / 'upright.mp4'), frames, wave)
    content = bytearray((root / 'upright.mp4').read_bytes())
    place = content.find(b'tkhd') + 4 + 40
    for name, (a, b) in dict(turned=(0, 1), headlong=(-1, 0)).items():
        content[place:place + 36] = struct.pack('>9i', a << 16, b << 16, 0,
                                                -b << 16, a << 16, 0, 0, 0,
                                                1 << 30)
        (root / f'{name}.mp4').write_bytes(content)
    write_media(str(root / 'mute.mp4'), frames)
    (root / 'damaged.mp4').write_bytes(content[:200])
    cv2.imwrite(str(root / '0.jpg'), frames[0])
    cv2.imwrite(str(root / '500.jpg'), frames[0, :20])
    soundfile.write(str(root / 'clip.flac'), wave, 24000)
    return root


def prepared(**kwargs):
    return dict(
        frames=dict(dir='.', ms=[0, 500]), audio_path='clip.flac', **kwargs)


@pytest.mark.parametrize('row, size', [
    (dict(video_path='upright.mp4'), (48, 64)),
    (dict(video_path='turned.mp4'), (64, 48)),
    (dict(video_path='headlong.mp4'), (48, 64)),
    (prepared(), (48, 64)),
    (dict(frames=[dict(path='500.jpg', time=.5)]), (20, 64)),
    (dict(video_path='nowhere.mp4', height=7, width=9), (7, 9)),
])
def test_frame_size(folder, row, size):
    assert frame_size(row, str(folder / TABLE)) == size


def test_size_is_the_pipelines(folder):
    row = dict(video_path=str(folder / 'turned.mp4'))
    loaded = LoadClip(frame_time='middle')(dict(row))
    assert frame_size(row, TABLE) == loaded['img_shape'] == (64, 48)


def test_image_with_orientation(folder, tmp_path):
    path = tmp_path / 'phone.jpg'
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new('RGB', (64, 48)).save(path, exif=exif)
    row = dict(frames=[dict(path=str(path), time=0.)])
    assert frame_size(row, str(folder / TABLE)) == (64, 48)


def test_table_in_the_working_folder(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert frame_size(dict(video_path='upright.mp4'), TABLE) == (48, 64)


@pytest.mark.parametrize('row, reason', [
    (dict(video_path='nowhere.mp4'), 'missing file'),
    (dict(video_path='mute.mp4'), 'no audio stream'),
    (dict(video_path='damaged.mp4'), 'cannot be decoded'),
    (dict(frames=dict(dir='nowhere', ms=[0])), 'missing file'),
    (dict(frames=dict(dir='.', ms=[7])), 'no readable image'),
])
def test_no_size(folder, row, reason):
    (folder / '7.jpg').write_bytes(b'no image')
    with pytest.raises(BrokenClipError) as error:
        frame_size(row, str(folder / TABLE))
    assert error.value.reason == reason


def test_clip_duration(folder):
    table = str(folder / TABLE)
    assert clip_duration(prepared(), table) == 2.0
    assert clip_duration(prepared(duration=1.5), table) == 1.5
    seconds = clip_duration(dict(video_path='upright.mp4'), table)
    assert seconds == pytest.approx(2.0, abs=0.05)
    with pytest.raises(BrokenClipError, match='missing file'):
        clip_duration(dict(video_path='nowhere.mp4'), table)
