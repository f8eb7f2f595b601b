"""Stages run once, again when they must, and go on where they were."""
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from avdet_mm.utils.stages import (
    Stage,
    StageRunner,
    finished_stage,
    run_command,
)
from tests.toy import ROOT

CONFIG = """
lr = {lr}
work_dir = {work_dir!r}
data_root = {data!r}
train_cfg = dict(max_epochs=3)
load_from = {start!r}
train_dataloader = dict(
    dataset=dict(data_root={data!r}, ann_file='train.json'))
val_evaluator = dict(matching='nowhere.json')
test_dataloader = dict(
    dataset=dict(data_root={data!r}, ann_file='test.json'))
custom_hooks = [dict(type='A'), dict(type='B', out_file={labels!r})]
"""
# Fails in its second epoch as long as there is no file "go"; counts its runs.
TRAIN = """
import os, sys
here, folder = {here!r}, {work_dir!r}
os.makedirs(folder, exist_ok=True)
with open(here + '/calls', 'a') as file:
    file.write(' '.join(sys.argv[2:]) + '|')
with open(folder + '/last_checkpoint', 'w') as file:
    file.write('epoch_1.pth')
if not os.path.exists(here + '/go'):
    sys.exit(3)
for name in ({labels!r}, folder + '/epoch_3.pth'):
    with open(name, 'w') as file:
        file.write('x')
"""


class Files:
    """A training in a folder, and what it said and was called with."""

    def __init__(self, root):
        self.root = root
        self.names = dict(
            here=str(root),
            work_dir=str(root / 'run'),
            data=str(root / 'data'),
            start=str(root / 'start.pth'),
            labels=str(root / 'labels.json'))
        (root / 'data').mkdir()
        for name in ('data/train.json', 'data/test.json', 'start.pth', 'go'):
            (root / name).write_text('1')
        (root / 'train.py').write_text(TRAIN.format(**self.names))
        self.edit()

    def edit(self, lr=1):
        text = CONFIG.format(lr=lr, **self.names)
        (self.root / 'config.py').write_text(text)

    def stage(self, *options):
        return Stage(
            'one',
            str(self.root / 'train.py'),
            str(self.root / 'config.py'),
            options=options)

    def run(self, *options, **kwargs):
        """Messages of a run, and arguments of the calls in it."""
        said = []
        calls = self.root / 'calls'
        calls.write_text('')
        try:
            StageRunner(str(self.root / 'records'), said.append,
                        **kwargs).run(self.stage(*options))
        except SystemExit as error:
            said.append(str(error))
        return said, calls.read_text().split('|')[:-1]


@pytest.fixture
def files(tmp_path):
    return Files(tmp_path)


def test_what_a_training_reads_and_writes(files):
    stage = files.stage('lr=2')
    root = files.root
    assert stage.cfg.lr == 2
    assert stage.command == [
        str(root / 'train.py'),
        str(root / 'config.py'), '--cfg-options', 'lr=2'
    ]
    assert stage.training and stage.work_dir == str(root / 'run')
    assert stage.checkpoint == str(root / 'run/epoch_3.pth')
    # What only evaluates it is not its input.
    assert stage.inputs == [str(root / 'data/train.json'),
                            str(root / 'start.pth')]
    assert stage.outputs == sorted([
        str(root / 'labels.json'), str(root / 'run/epoch_3.pth')])


def test_what_other_tools_read_and_write(files):
    config = str(files.root / 'config.py')
    stage = Stage('t', 'test.py', config, ['a.pth', '--out', 'b.pkl', '3'])
    assert not stage.training and stage.checkpoint is None
    assert 'a.pth' in stage.inputs and 'nowhere.json' in stage.inputs
    assert str(files.root / 'data/test.json') in stage.inputs
    assert stage.outputs == ['b.pkl']
    stage = Stage('l', 'tools/generate_pseudo_labels.py', config, ['a.pth'])
    assert stage.outputs == [str(files.root / 'labels.json')]
    stage = Stage('c', 'c.py', args=['d'], inputs=['e'], outputs=['f'])
    assert (stage.inputs, stage.outputs) == (['e'], ['f'])
    assert stage.cfg is None


def test_links_are_options_where_a_config_differs(files):
    start = files.names['start']
    stage = Stage(
        'one', 'train.py', str(files.root / 'config.py'), options=['lr=3'],
        links=[f'load_from={start}', 'custom_hooks.1.out_file=other.json'])
    assert stage.command[2:] == [
        '--cfg-options', 'custom_hooks.1.out_file=other.json', 'lr=3'
    ]
    assert 'other.json' in stage.outputs


def test_done_once(files):
    said, calls = files.run()
    assert calls == [''] and len(said) == 1
    assert said[0] == (f'\n[one] python {files.root}/train.py '
                       f'{files.root}/config.py')
    said, calls = files.run()
    assert calls == [] and said[1:] == ['Finished before.']


@pytest.mark.parametrize('change, reason', [
    ('config', 'its config has changed'),
    ('data/train.json', 'data/train.json has changed'),
    ('start.pth', 'start.pth has changed'),
    ('run/epoch_3.pth', 'epoch_3.pth is not as it left it'),
    ('labels.json', 'labels.json is not as it left it'),
])
def test_run_again_when_something_changed(files, change, reason):
    files.run()
    if change == 'config':
        files.edit(lr=2)
    else:
        (files.root / change).write_text('other')
    said, calls = files.run()
    assert reason in said[1] and 'resumed' not in said[1]
    assert calls == ['']  # from scratch
    assert files.run()[1] == []


def test_run_again_with_other_options_or_without_a_result(files):
    files.run()
    said, calls = files.run('lr=5')
    assert 'its command has changed' in said[1] and calls == [
        '--cfg-options lr=5']
    os.remove(files.root / 'labels.json')
    assert files.run('lr=5')[1] == ['--cfg-options lr=5']


@pytest.mark.parametrize('change', ['data/test.json', 'comment'])
def test_not_run_again_for_what_it_does_not_read(files, change):
    files.run()
    if change == 'comment':
        path = files.root / 'config.py'
        path.write_text('# Better explained.\n' + path.read_text())
    else:
        (files.root / change).write_text('other')
    assert files.run()[1] == []


def test_failure_then_resumed(files):
    os.remove(files.root / 'go')
    said, calls = files.run()
    assert 'The stage "one" failed (exit code 3)' in said[-1]
    assert calls == ['']
    said, calls = files.run()
    assert said[0].endswith(' --resume') and 'did not end' in said[1]
    assert calls == ['--resume']
    (files.root / 'go').write_text('')
    assert files.run()[1] == ['--resume']
    record, = (files.root / 'records').glob('*.json')
    record = json.loads(record.read_text())
    assert record['seconds'] > 0
    # Of three starts of Python, on as many cores as it likes.
    assert 0 < record['cpu_seconds'] < 32 * record['seconds']
    assert finished_stage(str(files.root / 'records'), 'one') == record
    assert finished_stage(str(files.root / 'records'), 'on') is None
    assert files.run()[1] == []


def test_changed_after_a_failure_is_not_resumed(files):
    os.remove(files.root / 'go')
    files.run()
    files.edit(lr=2)
    said, calls = files.run()
    assert 'its config has changed' in said[1] and calls == ['']


def test_an_old_checkpoint_is_not_resumed(files):
    files.run()
    files.edit(lr=2)
    # Interrupted before the first checkpoint of the new run.
    (files.root / 'train.py').write_text('import sys; sys.exit(3)')
    pointer = files.root / 'run/last_checkpoint'
    os.utime(pointer, (time.time() - 9, ) * 2)
    files.run()
    (files.root / 'train.py').write_text(TRAIN.format(**files.names))
    assert files.run()[1] == ['']


def test_a_training_run_by_hand_is_taken(files):
    (files.root / 'run').mkdir()
    for name in ('run/epoch_3.pth', 'labels.json'):
        (files.root / name).write_text('by hand')
    # Older than what it is made from: not of it.
    past = time.time() - 9
    os.utime(files.root / 'labels.json', (past, past))
    said, calls = files.run(dry_run=True)
    assert 'was not run before' in said[1]
    for name in ('data/train.json', 'start.pth'):
        os.utime(files.root / name, (past, past))
    for dry_run in (True, False):
        assert not (files.root / 'records').exists()
        said, calls = files.run(dry_run=dry_run)
        assert calls == [] and 'epoch_3.pth is taken as it is' in said[1]
    assert files.run()[0][1] == 'Finished before.'


def test_dry_run_says_what_would_follow(files):
    said = []
    runner = StageRunner(
        str(files.root / 'records'), said.append, dict(A='b c'), dry_run=True)
    runner.run(files.stage())
    runner.run(Stage('two', 'x.py', args=[str(files.root / 'labels.json')]))
    runner.run(Stage('three', 'y.py'))
    assert said[0].startswith("\n[one] A='b c' python ")
    assert 'was not run before' in said[1]
    assert f'since {files.root}/labels.json is made before' in said[3]
    assert not (files.root / 'records').exists()
    assert not (files.root / 'calls').exists()


def test_launched_in_another_way_it_is_the_same_stage(files):
    said = []
    runner = StageRunner(
        str(files.root / 'records'), said.append, dict(SOME='1'))
    runner.run(
        files.stage(), lambda command: [
            sys.executable, '-c',
            'import os, runpy, sys; assert os.environ["SOME"] == "1";'
            'runpy.run_path(sys.argv[1])', *command
        ])
    assert files.run()[1] == []


# In a process of its own: the signal would end this one if it went wrong,
# and what started the tests may ignore it (nohup, background jobs).
INTERRUPTED = """
import os, signal, sys, threading, time
from avdet_mm.utils.stages import run_command
number, pids = int(sys.argv[1]), sys.argv[2]
signal.signal(signal.SIGINT, signal.default_int_handler)
for other in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(other, signal.SIG_DFL)

def interrupt():
    while not os.path.exists(pids):
        time.sleep(0.01)
    os.kill(os.getpid(), number)

threading.Thread(target=interrupt).start()
script = f'sleep 60 & echo $! $$ > {pids}.part; mv {pids}.part {pids}; wait'
try:
    run_command(['bash', '-c', script], dict(os.environ))
except (KeyboardInterrupt, SystemExit) as error:
    print(type(error).__name__)
assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
"""


@pytest.mark.parametrize('number, error', [
    (signal.SIGINT, 'KeyboardInterrupt'),
    (signal.SIGTERM, 'SystemExit'),
    (signal.SIGHUP, 'SystemExit'),
])
def test_what_ends_it_ends_its_processes(number, error, tmp_path):
    """Also those that the command has started."""
    pids = tmp_path / 'pids'
    result = subprocess.run(
        [sys.executable, '-c', INTERRUPTED,
         str(int(number)),
         str(pids)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split()[-1] == error
    for pid in map(int, pids.read_text().split()):
        for _ in range(500):
            if not alive(pid):
                break
            time.sleep(0.01)
        assert not alive(pid)


def test_nohup():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        code = run_command(['bash', '-c', f'kill -HUP {os.getpid()}; exit 4'],
                           dict(os.environ))
    finally:
        signal.signal(signal.SIGHUP, before)
    assert code == 4


def alive(pid):
    """Whether a process runs; one that waits to be reaped does not."""
    try:
        with open(f'/proc/{pid}/stat') as file:
            return file.read().rpartition(')')[2].split()[0] != 'Z'
    except FileNotFoundError:
        return False


def test_interrupted_is_said(files):
    (files.root / 'train.py').write_text(
        'import os, signal, time\n'
        'os.kill(os.getppid(), signal.SIGINT)\ntime.sleep(60)')
    # Background jobs start with this signal ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        said, _ = files.run()
    finally:
        signal.signal(signal.SIGINT, before)
    assert said[-1].startswith('\nInterrupted in the stage "one"')
    assert 'did not end' in files.run(dry_run=True)[0][1]
