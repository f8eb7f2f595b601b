"""Stages of a pipeline: commands that run once, and again when they must."""
import glob
import hashlib
import json
import logging
import os
import os.path as osp
import resource
import shlex
import signal
import subprocess
import sys
import time
from argparse import ArgumentParser
from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence

from mmengine.config import Config, DictAction
from mmengine.logging import MMLogger

from .fileio import dump_json, file_sha256

# Config fields that name a file which a stage reads.
_FILE_KEYS = ('ann_file', 'checkpoint', 'load_from', 'localizer', 'matching',
              'report')
# Larger files are known by size and time.
_MAX_HASHED = 1 << 24
# Seconds that a command has to end when it is told to.
_GRACE = 40


class Stage:
    """A command of ``tools/``, with what it depends on.

    Args:
        name (str): Name of the stage.
        script (str): Path of the tool.
        config (str, optional): Path of its config. Defaults to None.
        args (Sequence[str]): More arguments.
        options (Sequence[str]): ``key=value``, for ``--cfg-options``.
        links (Sequence[str]): Likewise; added to the options unless the
            config has these values already.
        inputs (Sequence[str]): Files that neither config nor arguments name.
        outputs (Sequence[str]): Likewise.

    Attributes:
        command (list[str]): Without the interpreter.
        cfg (Config, optional): With the options merged.
        training (bool): Whether the script is ``train.py``.
        work_dir (str, optional): Of a training.
        checkpoint (str, optional): That a training ends with.
        inputs (list[str]): Files that it reads: those that the config names
            and arguments with a suffix, there or not.
        outputs (list[str]): Files that it writes: what follows ``--out``;
            a training's last checkpoint; the ``out_file`` of hooks.
    """

    def __init__(self,
                 name: str,
                 script: str,
                 config: Optional[str] = None,
                 args: Sequence[str] = (),
                 options: Sequence[str] = (),
                 links: Sequence[str] = (),
                 inputs: Sequence[str] = (),
                 outputs: Sequence[str] = ()) -> None:
        self.name, self.script, self.config = name, script, config
        args = list(args)
        self.training = osp.basename(script) == 'train.py'
        self.cfg = self.work_dir = self.checkpoint = None
        if config:
            self.cfg = load_quietly(config)
            options = [*(x for x in links if not _says(self.cfg, x)), *options]
            self.cfg.merge_from_dict(parse_options(options))
        self.command = [script, *([config] if config else []), *args]
        if options:
            self.command += ['--cfg-options', *options]
        written = [*outputs, *_following(args, '--out')]
        tool = osp.basename(script)
        if self.training or (tool == 'generate_pseudo_labels.py'
                             and not written):
            written += [
                hook['out_file'] for hook in self.cfg.get('custom_hooks', ())
                if 'out_file' in hook
            ]
        if self.training:
            stem = osp.splitext(osp.basename(config))[0]
            self.work_dir, = _following(args, '--work-dir') or [
                self.cfg.get('work_dir') or osp.join('work_dirs', stem)
            ]
            self.checkpoint = osp.join(
                self.work_dir, f'epoch_{self.cfg.train_cfg.max_epochs}.pth')
            written.append(self.checkpoint)
        named = [a for a in args if osp.splitext(a)[1]]
        read = {*inputs, *named, *_files(self._settings())}
        self.inputs = sorted(read.difference(written))
        self.outputs = sorted(written)

    def _settings(self) -> dict:
        """The config; of a training, without what evaluates it."""
        cfg = self.cfg.to_dict() if self.cfg else {}
        return {
            key: value
            for key, value in cfg.items()
            if not (self.training and key.startswith(('test_', 'val_')))
        }

    def state(self) -> Dict[str, Any]:
        """What the result depends on, as json can hold it."""
        text = json.dumps(self._settings(), sort_keys=True, default=repr)
        return dict(
            command=shlex.join(self.command),
            config=hashlib.sha256(text.encode()).hexdigest(),
            inputs={path: signature(path)
                    for path in self.inputs})


class StageRunner:
    """Runs stages that are not done yet, and keeps a record of each.

    Records have the ``seconds`` that a stage took, and its ``cpu_seconds``,
    which other work on the machine hardly changes.

    A stage is done if it ended well with the command, the config and the
    input files that it has now, and its outputs are as it left them. A
    training is also taken for done if there is no record of it, but all its
    outputs are there and newer than its inputs: someone ran it by hand, and
    it may have taken days. A training that did not end, of which nothing
    has changed since, is resumed.

    Args:
        folder (str): Where the records are, a json for each stage.
        say (Callable): Called with each message.
        env (dict[str, str], optional): Variables that the commands get,
            shown in front of them. Defaults to None.
        dry_run (bool): Only say what would be done. Defaults to False.
    """

    def __init__(self,
                 folder: str,
                 say: Callable[[str], None],
                 env: Optional[Dict[str, str]] = None,
                 dry_run: bool = False) -> None:
        self.folder = folder
        self.say = say
        self.env = dict(env or {})
        self.dry_run = dry_run
        self._to_be_made = set()

    def run(self,
            stage: Stage,
            launch: Optional[Callable[[List[str]], List[str]]] = None
            ) -> float:
        """Run a stage unless it is done.

        Args:
            stage (Stage): The stage.
            launch (Callable, optional): Makes a command from the stage's.
                By default this interpreter runs it.

        Returns:
            float: Seconds that it took, now or when it was run.

        Raises:
            SystemExit: If the command fails or is interrupted.
        """
        record, state = self._read(stage), stage.state()
        reason = self._why(stage, record, state)
        resume = reason is not None and self._resumable(stage, record, state)
        command = [*stage.command, *(['--resume'] if resume else [])]
        command = launch(command) if launch else [sys.executable, *command]
        shown = shlex.join(
            ['python' if c == sys.executable else c for c in command])
        env = ''.join(f'{k}={shlex.quote(v)} ' for k, v in self.env.items())
        self.say(f'\n[{stage.name}] {env}{shown}')
        if reason is None:
            if record is None:
                self.say(f'{stage.checkpoint} is taken as it is: there is '
                         'no record of how it was made, but it is newer '
                         'than what it is made from. Remove it to train '
                         'anew.')
                record = dict(state, seconds=0., cpu_seconds=0.)
                self._write(stage, record, done=True)
            else:
                self.say('Finished before.')
            return record['seconds']
        if record is not None or self.dry_run:
            self.say(reason + (' It is resumed.' if resume else ''))
        if self.dry_run:
            self._to_be_made.update(stage.outputs)
            return 0.
        start, cpu_start = time.time(), _cpu_seconds()
        record = dict(
            state,
            started=record['started'] if resume else start,
            seconds=record['seconds'] if resume else 0.,
            cpu_seconds=record.get('cpu_seconds', 0.) if resume else 0.)
        self._write(stage, record)
        try:
            code = run_command(command, dict(os.environ, **self.env))
        except KeyboardInterrupt:
            raise SystemExit(
                f'\nInterrupted in the stage "{stage.name}". Run the same '
                'again to go on from here.')
        finally:
            record['seconds'] += time.time() - start
            record['cpu_seconds'] += _cpu_seconds() - cpu_start
            self._write(stage, record)
        if code:
            raise SystemExit(
                f'The stage "{stage.name}" failed (exit code {code}); its '
                'message is above. Run the same again to go on from here: '
                'the stages before are not repeated.')
        self._write(stage, record, done=True)
        return record['seconds']

    def _why(self, stage: Stage, record: Optional[dict],
             state: dict) -> Optional[str]:
        """Why a stage has to run; None if it is done."""
        remade = sorted(self._to_be_made.intersection(stage.inputs))
        if remade:
            return f'To be run, since {remade[0]} is made before.'
        if record is None:
            oldest = min(map(_time, stage.outputs), default=0.)
            newest = max(map(_time, stage.inputs), default=0.)
            if stage.training and oldest and oldest >= newest:
                return None
            return 'To be run: it was not run before.'
        for key in ('command', 'config'):
            if record[key] != state[key]:
                return f'To be run: its {key} has changed.'
        for path in sorted({*record['inputs'], *state['inputs']}):
            if record['inputs'].get(path) != state['inputs'].get(path):
                return f'To be run: {path} has changed.'
        if 'outputs' not in record:
            return 'To be run: it did not end.'
        for path in stage.outputs:
            if record['outputs'].get(path) != signature(path):
                return f'To be run: {path} is not as it left it.'
        return None

    def _resumable(self, stage: Stage, record: Optional[dict],
                   state: dict) -> bool:
        """Whether a training can go on from a checkpoint of its own."""
        if record is None or not stage.training or 'outputs' in record:
            return False
        pointer = osp.join(stage.work_dir, 'last_checkpoint')
        return all(record[key] == state[key]
                   for key in state) and _time(pointer) >= record['started']

    def _path(self, stage: Stage) -> str:
        identity = shlex.join([stage.script, stage.config or '',
                               *stage.outputs])
        digest = hashlib.sha256(identity.encode()).hexdigest()
        return osp.join(self.folder, f'{stage.name}-{digest[:8]}.json')

    def _read(self, stage: Stage) -> Optional[dict]:
        if not osp.isfile(self._path(stage)):
            return None
        with open(self._path(stage), encoding='utf-8') as file:
            return json.load(file)

    def _write(self, stage: Stage, record: dict, done: bool = False) -> None:
        if done:
            outputs = {path: signature(path) for path in stage.outputs}
            record = dict(record, outputs=outputs)
        if not self.dry_run:
            dump_json(record, self._path(stage), indent=1)


def finished_stage(folder: str, name: str) -> Optional[dict]:
    """The newest record of a stage that ended well.

    Args:
        folder (str): That of :class:`StageRunner`.
        name (str): Name of the stage.

    Returns:
        dict: With ``seconds`` and ``cpu_seconds``, 0 for a training that
        the pipeline has not run itself; None without a record.
    """
    found = []
    for path in glob.glob(osp.join(glob.escape(folder), f'{name}-*.json')):
        if len(osp.basename(path)) == len(f'{name}-01234567.json'):
            with open(path, encoding='utf-8') as file:
                found.append(json.load(file))
    done = [record for record in found if 'outputs' in record]
    return max(done, key=lambda r: r.get('started', 0.), default=None)


def parse_options(options: Sequence[str]) -> Dict[str, Any]:
    """What ``--cfg-options`` makes of ``key=value`` words."""
    parser = ArgumentParser()
    parser.add_argument(
        '--cfg-options', nargs='*', action=DictAction, default={})
    return parser.parse_args(['--cfg-options', *options]).cfg_options


def load_quietly(config: str) -> Config:
    """Read a config; MMEngine tells of each environment variable in it."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        return Config.fromfile(config)
    finally:
        logger.setLevel(level)


def signature(path: str) -> Optional[str]:
    """By which a change of a file is noticed; None if there is none."""
    if not osp.exists(path):
        return None
    if osp.isdir(path):
        return 'folder'
    stat = os.stat(path)
    if stat.st_size <= _MAX_HASHED:
        return file_sha256(path)
    return f'{stat.st_size} bytes, {stat.st_mtime_ns} ns'


def run_command(command: Sequence[str], env: Dict[str, str]) -> int:
    """Run a command that ends with this program, whatever ends it.

    Args:
        command (Sequence[str]): Program and arguments.
        env (dict[str, str]): Its environment.

    Returns:
        int: The exit code.
    """
    with _signals_raise():
        process = subprocess.Popen(command, env=env, start_new_session=True)
        try:
            return process.wait()
        except BaseException:
            # Launchers pass it on to their processes. Then what is left.
            process.terminate()
            try:
                process.wait(_GRACE)
            except subprocess.TimeoutExpired:
                pass
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            raise


@contextmanager
def _signals_raise() -> Iterator[None]:
    """Make signals that would end this program at once exceptions."""

    def stop(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    before = {}
    for number in (signal.SIGTERM, signal.SIGHUP):
        # Below nohup, or where a program has its own way, it stays so.
        if signal.getsignal(number) is signal.SIG_DFL:
            before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _following(args: Sequence[str], option: str) -> List[str]:
    return [b for a, b in zip(args, args[1:]) if a == option]


def _says(cfg: Config, option: str) -> bool:
    """Whether a config has the value of a ``key=value`` already."""
    key, _, value = option.partition('=')
    node = cfg
    for part in key.split('.'):
        node = node.get(part) if hasattr(node, 'get') else None
    return str(node) == value


def _files(node: Any, root: str = '') -> Iterator[str]:
    """Files that a config names, of data sets below their ``data_root``."""
    if isinstance(node, dict):
        root = node.get('data_root') or root
        for key, value in node.items():
            if key in _FILE_KEYS and isinstance(value, str):
                below = key in ('ann_file', 'report')
                yield osp.join(root if below else '', value)
            else:
                yield from _files(value, root if key == 'filter_cfg' else '')
    elif isinstance(node, (list, tuple)):
        for value in node:
            yield from _files(value)


def _cpu_seconds() -> float:
    """Of all processes that have ended below this one, on all cores."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _time(path: str) -> float:
    return osp.getmtime(path) if osp.exists(path) else 0.
