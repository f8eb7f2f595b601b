"""Tests of the set-up's helpers; nothing is installed or compiled here."""
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools import setup_env

KEY = ('onedl-mmcv==2.3.6', '2.13.0+cpu', 'cpython-311', 'linux-x86_64',
       'cpu')


def test_wheel_key_is_a_folder_name():
    key = setup_env.wheel_key(*KEY)
    assert key.startswith('onedl-mmcv_2.3.6')
    assert '2.13.0+cpu' in key
    assert not set(key) & set('/=: ')


@pytest.mark.parametrize('index, other', [
    (0, 'onedl-mmcv==2.3.7'),
    (1, '2.13.0+cu130'),
    (2, 'cpython-312'),
    (3, 'linux-aarch64'),
    (4, 'cuda'),
])
def test_wheel_key_depends_on_everything(index, other):
    changed = list(KEY)
    changed[index] = other
    assert setup_env.wheel_key(*changed) != setup_env.wheel_key(*KEY)


def test_cache_folder_follows_the_user(monkeypatch, tmp_path):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    assert setup_env.cache_folder() == tmp_path / 'avdet_mm/wheels'
    monkeypatch.delenv('XDG_CACHE_HOME')
    assert setup_env.cache_folder() == Path.home() / '.cache/avdet_mm/wheels'


def test_header_is_compiled_with_the_flags_of_the_build(monkeypatch):
    monkeypatch.setenv('CXX', 'ccache g++')
    command = setup_env.header_command(Path('x/pre.h'), ['-Iinclude'])
    assert command[:4] == ['ccache', 'g++', '-x', 'c++-header']
    assert command[-3:] == ['x/pre.h', '-o', 'x/pre.h.gch']
    for flag in [*setup_env.FLAGS, '-fPIC', '-std=c++17', '-Iinclude']:
        assert flag in command


@pytest.mark.skipif(not shutil.which('g++'), reason='needs g++')
def test_header_is_used(monkeypatch, tmp_path):
    monkeypatch.setenv('CXX', 'g++')
    source = tmp_path / 'pre.h'
    source.write_text('#include <cstddef>\n')
    subprocess.run(setup_env.header_command(source, []), check=True)
    assert setup_env.header_is_used(source, [])
    # compiled with other options: the compiler must not take it
    other = setup_env.header_command(source, ['-DOTHER', '-fopenmp'])
    subprocess.run(other, check=True)
    assert not setup_env.header_is_used(source, [])


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """An environment that holds everything, by the probe's word."""
    python = tmp_path / '.venv/bin/python'
    python.parent.mkdir(parents=True)
    found = dict.fromkeys(setup_env.STACK_MODULES + setup_env.OWN_MODULES, '/')
    found['avdet_mm'] = str(setup_env.ROOT / 'avdet_mm/__init__.py')
    monkeypatch.setattr(setup_env, 'probe', lambda python: found)
    return python, found


def test_stamp(environment):
    python, found = environment
    assert not setup_env.is_done(python, 'onedl')
    setup_env.write_stamp(python, 'onedl')
    assert setup_env.is_done(python, 'onedl')
    assert not setup_env.is_done(python, 'official')
    found['avdet_mm'] = '/another/clone/avdet_mm/__init__.py'
    assert not setup_env.is_done(python, 'onedl')


def test_stamp_notices_a_missing_package(environment):
    python, found = environment
    setup_env.write_stamp(python, 'onedl')
    del found['mmcv._ext']
    assert not setup_env.is_done(python, 'onedl')


def test_stamp_notices_changed_pins_and_damage(environment, monkeypatch):
    python, _ = environment
    setup_env.write_stamp(python, 'onedl')
    stamp = setup_env.stamp_path(python)
    assert list(json.loads(stamp.read_text())) == ['fingerprint']
    monkeypatch.setattr(setup_env, 'TORCH', 'torch==9.9.9')
    assert not setup_env.is_done(python, 'onedl')
    stamp.write_text('{')
    assert not setup_env.is_done(python, 'onedl')


def test_probe_of_this_environment():
    found = setup_env.probe(Path(sys.executable))
    assert set(setup_env.STACK_MODULES) <= set(found)
    assert '_ext' in Path(found['mmcv._ext']).name
    assert setup_env.probe(Path('/nowhere/python')) == {}


def test_active_environment_with_the_stack_is_chosen(monkeypatch, tmp_path):
    monkeypatch.setenv('VIRTUAL_ENV', str(tmp_path))
    everything = dict.fromkeys(setup_env.STACK_MODULES, '/')
    active = tmp_path / 'bin/python'
    monkeypatch.setattr(setup_env, 'probe', lambda python: everything
                        if python == active else {})
    assert setup_env.choose_python('onedl') == active
    assert setup_env.choose_python('official').parts[-3] == '.venv-official'
    del everything['mmcv._ext']
    assert setup_env.choose_python('onedl') == setup_env.venv_python('onedl')


@pytest.mark.parametrize('report, arguments', [
    ('{"url": "file:///w/torch-2.13.0%2Bcpu-cp311.whl"}', 1),
    ('{"url": "https://index/torch-2.13.0-cp311.whl"}', 5),
    ('', 5),
])
def test_cpu_build_of_torch(monkeypatch, report, arguments):
    monkeypatch.setattr(sys, 'platform', 'linux')
    monkeypatch.setattr(setup_env, 'output', lambda *a, **k: report)
    found = setup_env.torch_arguments(Path('python'), gpu=False)
    assert found[0] == setup_env.TORCH and len(found) == arguments
    assert (setup_env.CPU_INDEX in found) == (arguments > 1)
    assert setup_env.torch_arguments(Path('python'), True) == [setup_env.TORCH]


@pytest.mark.parametrize('torch, torchaudio', [
    ('2.1.2+cu118', 'torchaudio==2.1.2'),
    ('2.13.0+cpu', setup_env.TORCHAUDIO),
])
def test_torchaudio_for(torch, torchaudio):
    assert setup_env.torchaudio_for(torch) == torchaudio


def test_compile_progress(tmp_path):
    log = tmp_path / 'log'
    log.write_text('building\n')
    assert setup_env.compiled(log) == ''
    log.write_text('x\n  [1/78] c++ a\n  [12/78] c++ b [3/4]\n')
    assert setup_env.compiled(log) == ', file 12 of 78'


def test_failure_names_cause_cure_and_log(tmp_path, monkeypatch):
    monkeypatch.setattr(setup_env, 'LOGS', tmp_path / 'logs')
    code = 'import sys; print("x: No space left on device"); sys.exit(3)'
    with pytest.raises(setup_env.SetupError) as error:
        setup_env.run([sys.executable, '-c', code], 'step')
    assert '| x: No space left on device' in str(error.value)
    assert 'Cure: Free some disk space' in str(error.value)
    assert str(tmp_path / 'logs/step.log') in str(error.value)


def test_cause_is_found_far_from_the_end():
    log = ["  ModuleNotFoundError: No module named 'x'"] + ['noise'] * 50
    text = setup_env.cause_and_cure('\n'.join(log))
    assert "No module named 'x'" in text
    assert text.count('noise') == 10
    assert 'Cure' not in text


def test_missing_compiler(monkeypatch):
    monkeypatch.setenv('CXX', 'no-such-compiler -m64')
    with pytest.raises(setup_env.SetupError, match='apt install g'):
        setup_env.check_compiler()


def test_old_python(monkeypatch):
    monkeypatch.setattr(setup_env.sys, 'version_info', (3, 9, 1))
    with pytest.raises(setup_env.SetupError, match='PYTHON=python3.11'):
        setup_env.check_python()


def test_second_setup_waits(tmp_path, capsys):
    with setup_env.only_one(tmp_path):
        code = ('from tools import setup_env; from pathlib import Path;'
                f'c = setup_env.only_one(Path({str(tmp_path)!r}));'
                'c.__enter__(); print("entered")')
        process = subprocess.Popen([sys.executable, '-c', code],
                                   cwd=setup_env.ROOT,
                                   stdout=subprocess.PIPE,
                                   text=True)
        assert 'waiting' in process.stdout.readline()
    assert 'entered' in process.communicate(timeout=30)[0]


def test_print_python():
    path = subprocess.run(
        [sys.executable, setup_env.__file__, '--print-python'],
        capture_output=True,
        text=True,
        check=True).stdout.strip()
    assert Path(path).exists()


def test_setup_names_no_part_of_the_stack():
    text = (setup_env.ROOT / 'requirements/runtime.txt').read_text()
    names = [line for line in text.splitlines() if not line.startswith('#')]
    assert not {'torch', 'torchaudio', 'mmengine', 'mmcv', 'mmdet'} & {*names}
