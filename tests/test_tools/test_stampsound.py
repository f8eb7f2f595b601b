"""Tests of tools/dataset_converters/stampsound.py."""
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.stampsound_pack import make_tiny_pack
from tools.dataset_converters import stampsound as tool

ROOT = Path(__file__).resolve().parents[2]
SIZES = ['--num-train', '30', '--num-test', '1', '--num-alt', '1',
         '--image-size', '32']


def contents(folder):
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in Path(folder).rglob('*') if p.is_file()
    }


def run(monkeypatch, *args):
    monkeypatch.setattr(sys, 'argv', ['stampsound.py', *map(str, args)])
    tool.main()


def test_pack_from_debian_and_checksums(tmp_path, monkeypatch, capsys):
    listing = make_tiny_pack(tmp_path / 'usr')
    args = [tmp_path / 'pack', tmp_path / 'out', '--listing', listing,
            '--workers', '0', '--format', 'frames', '--num-train', '2',
            '--num-test', '1', '--num-alt', '0', '--image-size', '32']
    # Made backgrounds are JPEGs, unlike those of the list.
    with pytest.raises(ValueError, match='4 of 39 .*backgrounds/0.png'):
        run(monkeypatch, *args, '--from-debian', tmp_path)
    for path in (tmp_path / 'usr/backgrounds').iterdir():
        (tmp_path / 'pack/backgrounds' / path.name).write_bytes(
            path.read_bytes())
    capsys.readouterr()
    run(monkeypatch, *args)
    lines = [
        line.split() for line in capsys.readouterr().out.splitlines()
        if line.startswith(('train', 'test', 'alt'))
    ]
    assert [line[:2] for line in lines] == [
        [split, kind] for split in ('train', 'test')
        for kind in ('pixels', 'boxes', 'sound')
    ]
    assert {len(line[2]) for line in lines} == {64}


def test_killed_run_is_completed(tmp_path, monkeypatch):
    listing = make_tiny_pack(tmp_path / 'pack')
    args = ['--listing', listing, '--workers', '2', *SIZES]
    out = tmp_path / 'out'
    process = subprocess.Popen([
        sys.executable,
        str(ROOT / 'tools/dataset_converters/stampsound.py'),
        str(tmp_path / 'pack'), str(out), *args],
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
        stdout=subprocess.DEVNULL)
    while not list(out.glob('.chunks/train_*.json')):
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / 'alt.json').exists()
    run(monkeypatch, tmp_path / 'pack', out, *args)
    run(monkeypatch, tmp_path / 'pack', tmp_path / 'whole', *args)
    assert contents(out) == contents(tmp_path / 'whole')
    assert len(list(out.glob('videos/*.mp4'))) == 32
