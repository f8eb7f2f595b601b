"""Sets up everything that avdet_mm needs; run it as often as you like.

Usage: python tools/setup_env.py [--stack onedl|official] [--no-cache]
       python tools/setup_env.py --print-python

Installs into ``.venv`` in the repository root, or completes the active
environment where that already has PyTorch and the OpenMMLab packages. MMCV's
operators are compiled, with a precompiled header that makes this ten times
faster; the wheel is kept in the user's cache folder for the next clone. Needs
only the standard library, a C++ compiler and a network.
"""
import argparse
import contextlib
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import Dict, List, Optional, Sequence

ROOT = Path(__file__).resolve().parents[1]
LOGS = ROOT / 'work_dirs' / 'setup'
TORCH = 'torch==2.13.0'
TORCHAUDIO = 'torchaudio==2.11.0'
CPU_INDEX = 'https://download.pytorch.org/whl/cpu'
# Official MMEngine and MMCV import pkg_resources, which newer setuptools lack;
# PyTorch would replace one older than 77.0.3 by the newest
BUILD_TOOLS = ['pip', 'wheel', 'setuptools>=77.0.3,<81', 'ninja', 'packaging']
STACKS = {
    'onedl': dict(
        venv='.venv',
        mmcv='onedl-mmcv==2.3.6',
        # imaug brings a module that mmdet.datasets imports
        others=[
            'onedl-mmengine==0.10.12', 'onedl-mmdetection==3.5.1', 'imaug'
        ]),
    'official': dict(
        venv='.venv-official',
        mmcv='mmcv==2.1.0',
        others=['mmengine==0.10.7', 'mmdet==3.3.0', 'numpy<2.4']),
}
REQUIREMENTS = [
    f'requirements/{name}.txt' for name in ('runtime', 'eval', 'tests')
]
STACK_MODULES = ['torch', 'mmengine', 'mmdet', 'mmcv._ext']
OWN_MODULES = [
    'avdet_mm', 'torchaudio', 'av', 'soundfile', 'scipy', 'pycocotools',
    'matplotlib', 'pytest', 'ruff'
]
FLAGS = ['-O1', '-g0', '-w']
# What PyTorch's extension builder adds: a header is only used by a compiler
# call with the very same options
HEADER_FLAGS = [
    '-fPIC', *FLAGS, '-std=c++17', '-DTORCH_API_INCLUDE_EXTENSION_H',
    '-DTORCH_EXTENSION_NAME=_ext'
]
CURES = [
    (r'No space left on device', 'Free some disk space (6 GB are needed).'),
    (r'ensurepip|No module named venv',
     'Install the venv module, e.g. `sudo apt install python3-venv`.'),
    (r'No module named pip', 'Install pip: `python -m ensurepip --upgrade`.'),
    (r'Python\.h', "Install Python's headers, e.g. `sudo apt install "
     'python3-dev`.'),
    (r'Killed|out of memory|MemoryError',
     'Not enough memory: run again with MAX_JOBS=1.'),
    (r'ConnectionError|Max retries|NewConnection|Name or service not known|'
     r'name resolution|[Tt]imed out|Network is unreachable',
     "Check the network (and pip's index and proxy settings), then run "
     'again: finished steps are kept.'),
    (r'No matching distribution|Could not find a version',
     "No such package for this Python or in pip's index: check `pip config "
     'list`, or use Python 3.11 (`make setup PYTHON=python3.11`).'),
    (r'CUDA_HOME|nvcc', "PyTorch's CUDA version and the CUDA toolkit do not "
     'fit: install the matching toolkit.'),
]


class SetupError(Exception):
    """A step failed; the message holds the cause and the cure."""


def say(text: str) -> None:
    """Prints one line at once."""
    print(text, flush=True)


class Steps:
    """Numbered steps with the seconds elapsed since the start."""

    def __init__(self, total: int):
        self.total = total
        self.done = 0
        self.start = time.monotonic()

    def next(self, text: str) -> None:
        """Announces the next step."""
        self.done += 1
        seconds = time.monotonic() - self.start
        say(f'[{self.done}/{self.total}] {seconds:4.0f} s  {text}')


def cause_and_cure(log: str, default: str = '') -> str:
    """Describes a failure by the last lines of its log.

    Args:
        log (str): What the failing command printed.
        default (str): The cure where the log matches none of CURES.

    Returns:
        str: The first lines that name an error, the last 10 lines and, where
        one is known, the cure.
    """
    lines = [line for line in log.splitlines() if line.strip()]
    errors = [
        line for line in lines[:-10]
        if re.search(r'^[^\'"]*(\w+Error|error|ERROR|fatal)\b.*: ', line)
    ]
    lines = errors[:5] + lines[-10:]
    cure = next((c for pattern, c in CURES if re.search(pattern, log)),
                default)
    return '\n'.join(['  | ' + line[:300] for line in lines] +
                     ([f'Cure: {cure}'] if cure else []))


def log_path(name: str) -> Path:
    """Returns where the output of a step goes."""
    LOGS.mkdir(parents=True, exist_ok=True)
    return LOGS / f'{name}.log'


def stop(process: subprocess.Popen) -> None:
    """Ends a process that leads a session, with all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    process.wait()


def run(command: Sequence, name: str, **options) -> None:
    """Runs a command with its output in a log, showing its progress.

    Args:
        command (Sequence): Program and arguments.
        name (str): Names the log file and, in messages, the command.
        options: Go to ``subprocess.Popen``.

    Raises:
        SetupError: The command failed.
    """
    path = log_path(name)
    start = time.monotonic()
    shown = start
    live = sys.stdout.isatty()
    with open(path, 'wb') as log:
        process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            **options)
        try:
            while True:
                try:
                    process.wait(timeout=0.5 if live else 1)
                    break
                except subprocess.TimeoutExpired:
                    pass
                now = time.monotonic()
                if live or now - shown >= 15:
                    shown = now
                    text = f'{now - start:6.0f} s  {name}' + compiled(path)
                    print(
                        f'\r{text:<60}' if live else f'      ...{text}',
                        end='' if live else '\n',
                        flush=True)
        except BaseException:
            stop(process)
            raise
        finally:
            if live:
                print('\r' + ' ' * 60 + '\r', end='', flush=True)
    if process.returncode:
        raise SetupError(
            f'{name} failed. The end of its output:\n' +
            cause_and_cure(path.read_text(errors='replace')) +
            f'\nFull log: {path}')


def compiled(path: Path) -> str:
    """Reads ninja's last ``[k/n]`` from a log: ', file k of n'."""
    with open(path, 'rb') as file:
        file.seek(max(0, path.stat().st_size - 50000))
        found = re.findall(rb'^\s*\[(\d+)/(\d+)\]', file.read(), re.MULTILINE)
    if not found:
        return ''
    k, n = (int(number) for number in found[-1])
    return f', file {k} of {n}'


def output(command: Sequence, timeout: float = 120, **options) -> str:
    """Returns what a command prints, '' where it fails."""
    try:
        return subprocess.run(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=timeout,
            check=True,
            text=True,
            **options).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ''


def probe(python: Path) -> Dict[str, str]:
    """Finds, without importing them, the modules that an environment has.

    Args:
        python (Path): Its interpreter.

    Returns:
        dict[str, str]: Modules found to their files. ``mmcv._ext``, the
        compiled operators, counts as a module.
    """
    code = """
import glob, json, os, sys
from importlib.util import find_spec
found = {}
for name in sys.argv[1:]:
    spec = find_spec(name.partition('.')[0])
    path = spec and spec.origin
    if path and name == 'mmcv._ext':
        folder = os.path.dirname(path)
        path = next(iter(glob.glob(os.path.join(folder, '_ext*'))), None)
    if path:
        found[name] = path
print(json.dumps(found))
"""
    if not python.exists():
        return {}
    # not from the repository root, where avdet_mm is always found
    text = output([python, '-c', code, *STACK_MODULES, *OWN_MODULES],
                  cwd=tempfile.gettempdir())
    return json.loads(text) if text else {}


def venv_python(stack: str) -> Path:
    """Returns the interpreter of a stack's own environment."""
    return ROOT / STACKS[stack]['venv'] / 'bin' / 'python'


def choose_python(stack: str) -> Path:
    """Chooses the interpreter to install into and to run everything with.

    Args:
        stack (str): Key of STACKS.

    Returns:
        Path: The active environment's where it has the whole stack already
        (never for the official stack, which is for tests), else the one of
        the stack's own environment, which need not exist yet.
    """
    own = venv_python(stack)
    if stack != 'onedl':
        return own
    active = [
        Path(os.environ[name]) / 'bin' / 'python'
        for name in ('VIRTUAL_ENV', 'CONDA_PREFIX') if os.environ.get(name)
    ] + [Path(sys.executable)]
    for python in active:
        if python == own or all(m in probe(python) for m in STACK_MODULES):
            return python
    return own


def fingerprint(stack: str) -> str:
    """Hashes what a finished set-up consists of, for the stamp."""
    parts = [
        str(ROOT), TORCH, TORCHAUDIO,
        json.dumps(STACKS[stack], sort_keys=True), *BUILD_TOOLS
    ]
    parts += [(ROOT / name).read_text() for name in REQUIREMENTS]
    return hashlib.sha256('\n'.join(parts).encode()).hexdigest()


def stamp_path(python: Path) -> Path:
    """Returns the stamp of a finished set-up, inside the environment."""
    return python.parent.parent / 'avdet_mm_setup.json'


def is_done(python: Path, stack: str) -> bool:
    """Tells whether this very set-up was finished and nothing is gone."""
    try:
        stamp = json.loads(stamp_path(python).read_text())
    except (OSError, ValueError):
        return False
    if stamp != dict(fingerprint=fingerprint(stack)):
        return False
    found = probe(python)
    return (set(found) == {*STACK_MODULES, *OWN_MODULES}
            and ROOT in Path(found['avdet_mm']).resolve().parents)


def write_stamp(python: Path, stack: str) -> None:
    """Marks the set-up as finished."""
    path = stamp_path(python)
    temporary = path.with_suffix('.tmp')
    temporary.write_text(json.dumps(dict(fingerprint=fingerprint(stack))))
    os.replace(temporary, path)


@contextlib.contextmanager
def only_one(folder: Path):
    """Lets a second set-up of the same environment wait for the first."""
    import fcntl
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / '.avdet_mm_setup.lock', 'w') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            say('Another set-up of this environment is running: waiting.')
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def pip(python: Path, *arguments) -> List:
    """Returns the command line of a pip call."""
    return [
        python, '-m', 'pip', '--disable-pip-version-check', '--no-input',
        *arguments
    ]


def has_gpu() -> bool:
    """Tells whether an NVIDIA GPU is seen."""
    return 'GPU' in output(['nvidia-smi', '-L'], timeout=30)


def torch_arguments(python: Path, gpu: bool) -> List[str]:
    """Returns what to tell pip for the right build of PyTorch.

    On Linux PyPI's build is the CUDA one, of several GB. Without a GPU, a
    CPU build that pip finds already (a local wheel, a mirror) is taken;
    otherwise PyTorch's own index of CPU builds is added.
    """
    if gpu or not sys.platform.startswith('linux'):
        return [TORCH]
    report = output(
        pip(python, 'install', '--dry-run', '--ignore-installed', '--no-deps',
            '--quiet', '--report', '-', TORCH))
    if '+cpu' in report or '%2Bcpu' in report:
        return [TORCH]
    return [TORCH, '--extra-index-url', CPU_INDEX, '--retries', '2']


def check_python() -> None:
    """Stops where this Python cannot hold the stack."""
    if not (3, 10) <= sys.version_info[:2] < (3, 15):
        raise SetupError(
            f'Python {sys.version.split()[0]} does not fit: {TORCH} and the '
            'OpenMMLab packages need Python 3.10 to 3.14.\nCure: name '
            'another one, e.g. `make setup PYTHON=python3.11`.')


def check_compiler() -> None:
    """Stops early where MMCV's operators cannot be compiled."""
    compiler = shlex.split(os.environ.get('CXX', 'c++'))[0]
    if not shutil.which(compiler):
        raise SetupError(
            f"No C++ compiler ({compiler}), which MMCV's operators need.\n"
            'Cure: install one, e.g. `sudo apt install g++`, or name yours '
            'in CXX.')
    header = Path(sysconfig.get_paths()['include']) / 'Python.h'
    if not header.exists():
        raise SetupError(
            f"Python's headers are missing ({header}), which MMCV's "
            'operators need.\nCure: install them, e.g. `sudo apt install '
            'python3-dev`.')


def cache_folder() -> Path:
    """Returns the folder of compiled wheels."""
    home = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    return Path(home) / 'avdet_mm' / 'wheels'


def wheel_key(mmcv: str, torch: str, python_tag: str, system: str,
              ops: str) -> str:
    """Names what a compiled wheel depends on.

    Args:
        mmcv (str): Requirement, e.g. 'onedl-mmcv==2.3.6'.
        torch (str): Version with its build, e.g. '2.13.0+cpu'.
        python_tag (str): E.g. 'cpython-311'.
        system (str): E.g. 'linux-x86_64'.
        ops (str): 'cpu' or 'cuda'.

    Returns:
        str: A folder name.
    """
    key = '-'.join([mmcv, 'torch', torch, python_tag, system, ops])
    return re.sub(r'[^\w.+-]+', '_', key)


def max_jobs() -> int:
    """Compilers to run at once: one per core, 1.5 GB of memory each."""
    cores = len(os.sched_getaffinity(0)) if hasattr(
        os, 'sched_getaffinity') else os.cpu_count() or 1
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    return max(1, min(cores, int(memory / 1.5e9)))


def header_command(source: Path, includes: Sequence[str]) -> List[str]:
    """Returns the call that precompiles a header."""
    compiler = shlex.split(os.environ.get('CXX', 'c++'))
    return [
        *compiler, '-x', 'c++-header', *HEADER_FLAGS, *includes,
        str(source), '-o', f'{source}.gch'
    ]


def header_is_used(source: Path, includes: Sequence[str]) -> bool:
    """Tells whether the compiler takes the precompiled header."""
    trivial = source.with_name('trivial.cpp')
    trivial.write_text('int main() { return 0; }\n')
    compiler = shlex.split(os.environ.get('CXX', 'c++'))
    # without -w, which would silence -Winvalid-pch
    flags = [flag for flag in HEADER_FLAGS if flag != '-w']
    return subprocess.run(
        [
            *compiler, *flags, *includes, '-Winvalid-pch',
            '-Werror=invalid-pch', '-include',
            str(source), '-fsyntax-only',
            str(trivial)
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True).returncode == 0


class Mmcv:
    """MMCV's compiled wheel: from the cache, or built.

    Args:
        python (Path): Interpreter of the environment, which has PyTorch.
        requirement (str): E.g. 'onedl-mmcv==2.3.6'.
        gpu (bool): Whether an NVIDIA GPU is seen.
        use_cache (bool): Whether a wheel built before may be taken.
    """

    def __init__(self, python: Path, requirement: str, gpu: bool,
                 use_cache: bool):
        self.python = python
        self.requirement = requirement
        code = ('import sys, sysconfig, torch;'
                'print(torch.__version__, sys.implementation.cache_tag,'
                'sysconfig.get_platform(), torch.version.cuda)')
        version, tag, system, cuda = output([python, '-c', code]).split()
        toolkit = os.environ.get('CUDA_HOME') or shutil.which('nvcc')
        self.ops = 'cuda' if gpu and toolkit and cuda != 'None' else 'cpu'
        if gpu and self.ops == 'cpu':
            say("      No CUDA toolkit (nvcc): MMCV's operators are built for "
                'the CPU. The detector then trains on the CPU only.')
        self.folder = cache_folder() / wheel_key(requirement, version, tag,
                                                 system, self.ops)
        self.use_cache = use_cache
        self.scratch = Path(tempfile.mkdtemp(prefix='avdet_mm_'))
        self.header = None  # the running compiler call
        self.includes = []

    def cached(self) -> Optional[Path]:
        """Returns the wheel in the cache, or None."""
        wheels = sorted(self.folder.glob('*.whl')) if self.use_cache else []
        return wheels[0] if wheels else None

    @property
    def source(self) -> Path:
        """The header to precompile."""
        return self.scratch / 'pre.h'

    def start_header(self) -> None:
        """Starts to precompile the header: one core, about 430 MB."""
        code = ('import sysconfig; from torch.utils.cpp_extension import '
                "include_paths as p; print('\\n'.join(p()));"
                "print(sysconfig.get_paths()['include'])")
        *system, own = output([self.python, '-c', code]).splitlines()
        self.includes = [part for p in system for part in ('-isystem', p)]
        self.includes += ['-I' + own]
        self.source.write_text('#include <torch/types.h>\n')
        with open(log_path('header'), 'wb') as log:
            self.header = subprocess.Popen(
                header_command(self.source, self.includes),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True)

    def build(self) -> Path:
        """Compiles the wheel and puts it into the cache."""
        flags = list(FLAGS)
        if self.ops == 'cpu':
            if self.header is None:
                self.start_header()
            if self.header.wait() == 0 and header_is_used(
                    self.source, self.includes):
                flags += ['-include', str(self.source)]
            else:
                say('      The compiler cannot use a precompiled header: the '
                    'build works without it, but takes up to half an hour.')
        environment = dict(
            os.environ,
            CFLAGS=' '.join(flags),
            MMCV_WITH_OPS='1',
            MAX_JOBS=os.environ.get('MAX_JOBS', str(max_jobs())),
            FORCE_CUDA='1' if self.ops == 'cuda' else '0')
        if self.ops == 'cpu':
            environment['CUDA_VISIBLE_DEVICES'] = ''
        # pip's cache would not notice another PyTorch version
        run(pip(self.python, 'wheel', '--verbose', '--no-cache-dir',
                '--no-deps', '--no-build-isolation', '--no-binary', ':all:',
                '--wheel-dir', self.scratch, self.requirement),
            'mmcv',
            env=environment)
        wheel = next(self.scratch.glob('*.whl'))
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / f'{wheel.name}.{os.getpid()}.tmp'
        shutil.copy(wheel, temporary)
        os.replace(temporary, self.folder / wheel.name)
        return self.folder / wheel.name

    def install(self, wheel: Path) -> None:
        """Installs a wheel over what is there."""
        run(
            pip(self.python, 'install', '--force-reinstall', '--no-deps',
                wheel), 'mmcv-install')

    def close(self) -> None:
        """Removes the scratch folder."""
        if self.header is not None and self.header.poll() is None:
            stop(self.header)
        shutil.rmtree(self.scratch, ignore_errors=True)


def imports(python: Path, *modules: str) -> bool:
    """Tells whether all modules can be imported together."""
    return bool(
        output([python, '-c', f'import {", ".join(modules)}; print(1)'],
               timeout=300))


def installed_version(python: Path, name: str) -> str:
    """Returns the version of a distribution, '' where it is missing."""
    code = f'from importlib.metadata import version; print(version({name!r}))'
    return output([python, '-c', code])


def repair_torchaudio(python: Path) -> None:
    """Makes ``import torchaudio`` work beside a CPU build of PyTorch."""
    if imports(python, 'torchaudio'):
        return
    # The published torchaudio wheel is a CUDA build, whose one compiled
    # library that is loaded at import asks for CUDA libraries. Transforms
    # and resampling, all that is used here, are Python: it can go.
    folder = probe(python).get('torchaudio')
    for library in Path(folder).parent.glob('lib/_torchaudio*.so'):
        say(f'      Removing {library.name}: it needs CUDA libraries.')
        library.unlink()


def complete_cv2(python: Path) -> None:
    """Replaces OpenCV by its headless build with contributed modules.

    One of these is selective search. The build has all that opencv-python
    has, the name that MMCV asks for, and needs no libGL.
    """
    if output([python, '-c', 'import cv2; print(cv2.ximgproc)']):
        return
    version = installed_version(python, 'opencv-python')
    run(
        pip(python, 'install', '--force-reinstall', '--no-deps',
            f'opencv-contrib-python-headless=={version}'), 'opencv')


def check_imports(python: Path) -> None:
    """Imports everything once."""
    run([
        python, '-c', 'import cv2, torch, torchaudio, av, soundfile, mmengine,'
        'mmcv.ops, mmdet.datasets, mmdet.models, avdet_mm'
    ],
        'imports',
        cwd=tempfile.gettempdir())


def install_own(python: Path) -> None:
    """Installs avdet_mm itself, editable, and nothing else."""
    run(
        pip(python, 'install', '--no-deps', '--no-build-isolation',
            '--editable', ROOT), 'avdet_mm')


def set_up_own(python: Path, stack: str, use_cache: bool) -> None:
    """Sets up a stack's own environment from nothing."""
    config = STACKS[stack]
    steps = Steps(6)
    name, _, version = config['mmcv'].partition('==')
    gpu = has_gpu()

    steps.next(f"Environment {config['venv']}")
    check_python()
    if not any(cache_folder().glob(f'{name}_{version}*')):
        check_compiler()
    if not output([python, '-m', 'pip', '--version']):
        run([sys.executable, '-m', 'venv', python.parent.parent], 'venv')
    run(pip(python, 'install', *BUILD_TOOLS), 'build-tools')

    steps.next(f"PyTorch {TORCH.partition('==')[2]}, "
               f"{'GPU' if gpu else 'CPU'} build")
    if 'torch' not in probe(python) or installed_version(
            python, 'torch').partition('+')[0] != TORCH.partition('==')[2]:
        run(pip(python, 'install', *torch_arguments(python, gpu)), 'torch')

    mmcv = Mmcv(python, config['mmcv'], gpu, use_cache)
    try:
        ready = (
            use_cache and installed_version(python, name) == version
            and imports(python, 'mmcv.ops'))
        wheel = mmcv.cached()
        if not ready and not wheel:
            check_compiler()
            if mmcv.ops == 'cpu':
                mmcv.start_header()  # runs beside the next step

        steps.next('Packages')
        requirements = [
            part for file in REQUIREMENTS for part in ('-r', ROOT / file)
        ]
        run(
            pip(python, 'install', *config['others'], 'opencv-python',
                *requirements), 'packages')
        run(pip(python, 'install', '--no-deps', TORCHAUDIO), 'torchaudio')
        repair_torchaudio(python)
        complete_cv2(python)

        if ready:
            steps.next(f"{config['mmcv']}: installed already")
        else:
            if wheel:
                steps.next(f"{config['mmcv']}: wheel from {mmcv.folder}")
                mmcv.install(wheel)
                if not imports(python, 'mmcv.ops'):
                    say('      It does not work here and is built again.')
                    wheel = None
            else:
                steps.next(f"{config['mmcv']}: compiling its operators "
                           '(about 2 minutes on 2 idle cores)')
            if not wheel:
                mmcv.install(mmcv.build())
    finally:
        mmcv.close()

    steps.next('avdet_mm')
    install_own(python)
    steps.next('Importing everything once')
    check_imports(python)


def set_up_active(python: Path) -> None:
    """Completes an environment that has the stack, changing nothing in it."""
    steps = Steps(3)
    found = probe(python)
    missing = [m for m in OWN_MODULES if m not in found and m != 'avdet_mm']
    steps.next(f"Active environment {python.parent.parent}; missing: "
               f"{', '.join(missing) or 'nothing'}")
    code = """
from importlib.metadata import distributions
kept = {}
for d in distributions():
    if d.metadata['Name']:
        kept.setdefault(d.metadata['Name'].lower(), d.version)
print(*(f'{name}=={version}' for name, version in kept.items()), sep='\\n')
"""
    with tempfile.TemporaryDirectory() as folder:
        keep = Path(folder) / 'keep.txt'
        keep.write_text(output([python, '-c', code]) + '\n')
        packages = [m for m in missing if m != 'torchaudio']
        if not installed_version(python, 'setuptools'):
            packages.append('setuptools')
        if packages:
            run(pip(python, 'install', '-c', keep, *packages), 'packages')
    if 'torchaudio' in missing:
        run(
            pip(python, 'install', '--no-deps',
                torchaudio_for(installed_version(python, 'torch'))),
            'torchaudio')
        repair_torchaudio(python)
    steps.next('avdet_mm')
    install_own(python)
    steps.next('Importing everything once')
    check_imports(python)


def torchaudio_for(torch: str) -> str:
    """Returns the torchaudio that fits: from 2.11 on, one fits all."""
    version = torch.partition('+')[0]
    numbers = tuple(int(n) for n in version.split('.')[:2])
    return f'torchaudio=={version}' if numbers < (2, 11) else TORCHAUDIO


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Runs the set-up.

    Args:
        arguments (Sequence[str], optional): Command line. Defaults to the
            program's own.

    Returns:
        int: Exit status.
    """
    parser = argparse.ArgumentParser(
        description='Sets up everything that avdet_mm needs.')
    parser.add_argument(
        '--stack',
        choices=list(STACKS),
        default='onedl',
        help='OpenMMLab packages: the maintained forks, or the official ones '
        'in .venv-official. Defaults to onedl')
    parser.add_argument(
        '--no-cache',
        action='store_true',
        help='build MMCV again and take nothing from a cache')
    parser.add_argument(
        '--print-python',
        action='store_true',
        help='print the interpreter that the set-up uses, and stop')
    args = parser.parse_args(arguments)

    python = choose_python(args.stack)
    if args.print_python:
        say(str(python))
        return 0
    global LOGS
    LOGS = ROOT / 'work_dirs' / 'setup' / args.stack
    if args.no_cache:
        os.environ['PIP_NO_CACHE_DIR'] = '1'
    # ended from outside: stop what was started, as on Ctrl-C
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    start = time.monotonic()
    try:
        with only_one(python.parent.parent):
            if is_done(python, args.stack) and not args.no_cache:
                say(f'Set up already: {python}')
                return 0
            if python == venv_python(args.stack):
                set_up_own(python, args.stack, not args.no_cache)
            else:
                set_up_active(python)
            write_stamp(python, args.stack)
    except SetupError as error:
        say(f'\nSet-up failed. {error}')
        return 1
    except KeyboardInterrupt:
        say('\nSet-up interrupted. Run it again: finished steps are kept.')
        return 130
    say(f'Set-up done in {time.monotonic() - start:.0f} s: {python}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
