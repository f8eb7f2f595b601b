"""Run all stages of a method, from one file: configs/avdet/pipelines/*.py.

Files in configs/tables have the stages of all methods of the paper's tables,
and the report of their results (tools/report.py).

Every stage is a command, printed before it runs, that can be run by hand.
What is done is not done again; a training that was interrupted is resumed; a
stage whose command, config or input files have changed runs anew, and so do
those that read what it writes (a training starts from scratch then and
replaces its checkpoints: look with --dry-run first). Ctrl-C ends the stage
that runs.

Examples:
    python tools/run_pipeline.py configs/avdet/pipelines/vggsound.py --dry-run
    python tools/run_pipeline.py configs/avdet/pipelines/vggsound.py --gpus 8
    python tools/run_pipeline.py configs/avdet/pipelines/vggsound.py \\
        --stages detector test --cfg-options detector.randomness.seed=1
    python tools/run_pipeline.py configs/tables/stampsound_small.py \\
        --seeds 0 1 2 --skip 'ablation_*'

Trainings and tests use all GPUs asked for: those of this machine, by torchrun
(tools/dist_train.sh), or, within an allocation of Slurm, those of several
machines (--launcher slurm; tools/slurm_train.sh with its variables
GPUS_PER_NODE, CPUS_PER_TASK and SRUN_ARGS).
"""
import argparse
import fnmatch
import os
import os.path as osp
import sys
from collections import defaultdict
from functools import partial
from typing import Callable, Dict, List, Optional

from mmengine.config import Config

from avdet_mm.utils.stages import Stage, StageRunner, load_quietly

ROOT = osp.dirname(osp.dirname(osp.abspath(__file__)))
DISTRIBUTED = ('train.py', 'test.py')


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('pipeline', help='file with the stages')
    parser.add_argument(
        '--gpus',
        type=int,
        default=1,
        help='processes of trainings and tests, one per GPU (default: 1)')
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm'],
        help='default: pytorch for several GPUs, otherwise none')
    parser.add_argument('--partition', help='of Slurm')
    parser.add_argument(
        '--work-root',
        help='folder of all results: sets AVDET_WORK_DIRS, and '
        'AVDET_DEMO_DIR to demo in it')
    parser.add_argument(
        '--seeds',
        type=int,
        nargs='+',
        help='run all of it for each seed: sets AVDET_SEED, which the '
        "pipeline's configs have to read, as those of configs/stampsound do")
    parser.add_argument(
        '--stages',
        nargs='+',
        default=['*'],
        metavar='NAME',
        help="run these only (default: all); 'detector*' is all whose names "
        'begin so')
    parser.add_argument(
        '--skip',
        nargs='+',
        default=[],
        metavar='NAME',
        help='run all but these, likewise')
    parser.add_argument(
        '--dry-run',
        action='store_true',
        help='say what would be run, and run nothing')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        default=[],
        metavar='STAGE.KEY=VALUE',
        help="override settings of a stage's config; also for the stages "
        'that use the same config without options of their own')
    args = parser.parse_args()
    if args.launcher is None:
        args.launcher = 'pytorch' if args.gpus > 1 else 'none'
    if args.launcher == 'none' and args.gpus > 1:
        parser.error('Several GPUs need --launcher pytorch or slurm.')
    if args.launcher == 'slurm' and args.partition is None:
        parser.error('--launcher slurm needs --partition.')
    return args


def here(path: str) -> str:
    """A path of the repository, as seen from the current folder."""
    return osp.relpath(osp.join(ROOT, path))


def load_stages(cfg: Config, options: List[str]) -> List[Stage]:
    """The stages of a pipeline.

    Args:
        cfg (Config): The pipeline. ``stages`` are dicts of ``name``,
            ``script``, and if need be ``config``, ``args``, ``links``,
            ``inputs`` and ``outputs`` of :class:`Stage`. ``{name}`` in
            arguments and links is the last checkpoint of that stage.
        options (list[str]): ``STAGE.KEY=VALUE``.

    Returns:
        list[Stage]: In order.

    Raises:
        SystemExit: If an option is of a stage that there is not.
    """
    extra = defaultdict(list)
    names = [spec.name for spec in cfg.stages]
    for option in options:
        name, _, rest = option.partition('.')
        if name not in names or '=' not in rest:
            raise SystemExit(
                f'--cfg-options {option}: write STAGE.KEY=VALUE, where STAGE '
                f'is one of {", ".join(names)}.')
        extra[name].append(rest)
    of_config: Dict[str, List[str]] = {}
    checkpoints: Dict[str, str] = {}
    stages = []
    for spec in cfg.stages:
        spec = dict(spec)
        config = spec.get('config')
        more = extra[spec['name']] or of_config.get(config, [])
        if config:
            of_config.setdefault(config, more)
            spec['config'] = here(config)
        spec['script'] = here(spec['script'])
        for key in ('args', 'links'):
            spec[key] = [x.format_map(checkpoints) for x in spec.get(key, ())]
        stages.append(Stage(options=more, **spec))
        if stages[-1].training:
            checkpoints[stages[-1].name] = stages[-1].checkpoint
    return stages


def launcher(args: argparse.Namespace,
             stage: Stage) -> Optional[Callable[[List[str]], List[str]]]:
    """What makes the command of a stage one for several GPUs, if it is."""
    if (args.launcher == 'none'
            or osp.basename(stage.script) not in DISTRIBUTED):
        return None
    if not stage.training and stage.command[2:3] in ([], ['--work-dir']):
        return None  # No checkpoint: a model without weights, on one process.
    tool, files = ('train', 1) if stage.training else ('test', 2)

    def launch(command: List[str]) -> List[str]:
        named, rest = command[1:1 + files], command[1 + files:]
        if args.launcher == 'pytorch':
            script = here(f'tools/dist_{tool}.sh')
            return ['bash', script, *named, str(args.gpus), *rest]
        script = here(f'tools/slurm_{tool}.sh')
        return ['bash', script, args.partition, stage.name, *named, *rest]

    return launch


def main() -> None:
    """Run the tool."""
    args = parse_args()
    env = {}
    if args.work_root is not None:
        env = dict(
            AVDET_WORK_DIRS=args.work_root,
            AVDET_DEMO_DIR=osp.join(args.work_root, 'demo'))
    # Configs read them.
    os.environ.update(env)
    if args.launcher != 'none':
        env['PYTHON'] = sys.executable
    if args.launcher == 'slurm':
        env['GPUS'] = str(args.gpus)
    roots = set()
    for seed in args.seeds or [None]:
        if seed is not None:
            env['AVDET_SEED'] = os.environ['AVDET_SEED'] = str(seed)
        cfg = load_quietly(args.pipeline)
        if cfg.work_root in roots:
            raise SystemExit(
                f'{args.pipeline} does not read AVDET_SEED: its results would '
                'overwrite one another. Run it without --seeds.')
        roots.add(cfg.work_root)
        run_stages(args, cfg, env)


def run_stages(args: argparse.Namespace, cfg: Config,
               env: Dict[str, str]) -> None:
    """Run the stages of a pipeline, once.

    Args:
        args (argparse.Namespace): The command line.
        cfg (Config): The pipeline.
        env (dict[str, str]): Variables that the commands get.
    """
    stages = load_stages(cfg, args.cfg_options)
    names = [stage.name for stage in stages]
    found = {
        pattern: fnmatch.filter(names, pattern)
        for pattern in (*args.stages, *args.skip)
    }
    for pattern, of_pattern in found.items():
        if not of_pattern:
            raise SystemExit(
                f'There is no stage {pattern} in {args.pipeline}, only '
                f'{", ".join(names)}.')
    wanted, skipped = (
        {name for pattern in patterns for name in found[pattern]}
        for patterns in (args.stages, args.skip))
    runner = StageRunner(
        osp.join(cfg.work_root, 'stages'),
        partial(print, flush=True),
        env=env,
        dry_run=args.dry_run)
    for stage in stages:
        if stage.name in wanted - skipped:
            runner.run(stage, launcher(args, stage))


if __name__ == '__main__':
    main()
