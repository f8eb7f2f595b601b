"""What the command lines of tools/train.py, test.py and others share."""
import argparse
import os
import os.path as osp

import numpy as np
import torch
from mmengine.config import Config, DictAction


def runner_parser(description: str) -> argparse.ArgumentParser:
    """A parser with a config and the options that a Runner needs.

    Args:
        description (str): Shown by ``--help``.

    Returns:
        argparse.ArgumentParser: To add more arguments to.
    """
    parser = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--work-dir',
        help='where logs and results go; work_dirs/<config name> if neither '
        'this nor the config says')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='override settings of the config, key=value')
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    return parser


def load_config(args: argparse.Namespace) -> Config:
    """The config of a :func:`runner_parser`'s arguments, ready for a Runner.

    Args:
        args (argparse.Namespace): The parsed arguments.

    Returns:
        Config: With ``launcher``, ``work_dir`` and the overrides set.
    """
    # Denormal numbers slow CPUs down. NumPy looks at the smallest ones once,
    # and would warn that they are gone: let it look before.
    np.finfo(np.float32).smallest_subnormal
    np.finfo(np.float64).smallest_subnormal
    torch.set_flush_denormal(True)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = Config.fromfile(args.config)
    cfg.launcher = args.launcher
    if args.cfg_options is not None:
        cfg.merge_from_dict(args.cfg_options)
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        name = osp.splitext(osp.basename(args.config))[0]
        cfg.work_dir = osp.join('work_dirs', name)
    return cfg
