"""Tests of writing files in one step."""
import json
import os

import pytest

from avdet_mm.utils import atomic_write, dump_json


def test_a_file_appears_when_it_is_complete(tmp_path):
    path = tmp_path / 'new' / 'a.txt'
    with atomic_write(str(path)) as file:
        file.write('Zürich')
        assert not path.exists()
    assert path.read_text(encoding='utf-8') == 'Zürich'
    with atomic_write(str(path), 'wb') as file:
        file.write(b'\x00')
    assert path.read_bytes() == b'\x00'
    assert os.listdir(path.parent) == ['a.txt']


def test_a_failure_leaves_what_was_there(tmp_path):
    path = tmp_path / 'a.json'
    dump_json([1], str(path))
    with pytest.raises(ZeroDivisionError):
        with atomic_write(str(path)) as file:
            file.write('half')
            1 / 0
    with pytest.raises(ValueError):
        dump_json(dict(a=float('nan')), str(path))
    assert json.loads(path.read_text()) == [1]
    assert os.listdir(tmp_path) == ['a.json']


def test_folder_of_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dump_json(dict(a=1), 'a.json', indent=1)
    assert (tmp_path / 'a.json').read_text() == '{\n "a": 1\n}'
