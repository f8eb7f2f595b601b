import json
import runpy
import sys
from pathlib import Path

import pytest

from avdet_mm.datasets import AudioVisualDataset
from avdet_mm.datasets.clip_check import FAULTS, REMARKS, THRESHOLDS
from avdet_mm.datasets.clip_table import dump_clip_table
from avdet_mm.testing.faults import make_frames, make_sound, write_clip

TOOL = Path(__file__).parents[2] / 'tools' / 'check_clips.py'


def run(monkeypatch, *arguments):
    """Run the tool; returns its exit code."""
    monkeypatch.setattr(sys, 'argv', [str(TOOL), *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(TOOL), run_name='__main__')
    return ended.value.code


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / '-my clips'
    folder.mkdir()
    for i in range(2):
        write_clip(str(folder / f'{i}.mp4'), make_frames(i), make_sound(i))
    (folder / 'text.mp4').write_text('no video')
    return folder


def test_report_filters_training(folder, tmp_path, monkeypatch, capsys):
    out = tmp_path / 'out' / 'check.json'
    assert run(monkeypatch, '--out', out, '--workers', 1, '--',
               folder) == 0
    printed = capsys.readouterr().out
    assert '2 of 3 clips are good (66.7%).' in printed
    assert 'cannot be decoded' in printed
    rows = [dict(clip_id=i, video_path=f'{i}.mp4') for i in ('0', 'text')]
    table = folder / 'table.json'
    dump_clip_table(rows, str(table))
    dataset = AudioVisualDataset(
        str(table), filter_cfg=dict(report=str(out)), max_bad_share=0.5)
    assert dataset.clip_ids == ['0']


def test_limits_are_options(folder, tmp_path, monkeypatch, capsys):
    out = tmp_path / 'check.json'
    # No clip is long enough.
    assert run(monkeypatch, folder, '--out', out, '--audio-duration', 3,
               '--workers', 1) == 1
    assert 'too short' in capsys.readouterr().out
    info = json.loads(out.read_text())['metainfo']
    assert info['thresholds']['audio_duration'] == 3
    assert info['verdicts'] == {'cannot be decoded': 1, 'too short': 2}


def test_errors_are_sentences(tmp_path, monkeypatch):
    code = run(monkeypatch, tmp_path / 'gone', '--out', tmp_path / 'x.json')
    assert 'expected is a folder of videos or a clip table' in code


def test_help_tells_all_verdicts_and_limits(monkeypatch, capsys):
    assert run(monkeypatch, '--help') == 0
    printed = ' '.join(capsys.readouterr().out.split())
    for name, meaning in {**FAULTS, **REMARKS}.items():
        assert f'{name}: {meaning}' in printed
    for name in THRESHOLDS:
        assert f'--{name.replace("_", "-")}' in printed
