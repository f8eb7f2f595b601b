"""What the command lines of tools/train.py, test.py and others share."""
import argparse
import atexit
import datetime
import logging
import os
import os.path as osp
import sys
import threading
import time

import numpy as np
import torch
import torch.distributed
from mmengine.config import Config, ConfigDict, DictAction
from mmengine.device import get_device
from mmengine.dist import is_distributed
from mmengine.logging import print_log
from mmengine.runner import Runner

from .job_pool import num_cores


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

    Ranks without a GPU are set up here, see :func:`init_cpu_ranks`. The
    process group is destroyed when the program ends well, and the program
    ends when torchrun is killed.

    Args:
        args (argparse.Namespace): The parsed arguments.

    Returns:
        Config: With ``launcher``, ``work_dir`` and the overrides set.
    """
    flush_denormals()
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
    if cfg.launcher != 'none':
        atexit.register(_end_ranks)
        if 'TORCHELASTIC_RUN_ID' in os.environ:
            threading.Thread(target=_end_with_parent, daemon=True).start()
        if get_device() == 'cpu':
            init_cpu_ranks(cfg)
    return cfg


def check_checkpoint(parser: argparse.ArgumentParser, path: str) -> None:
    """End with a usage error if there is no such checkpoint.

    Args:
        parser (argparse.ArgumentParser): Of the tool.
        path (str): What it was given.
    """
    if not osp.isfile(path):
        parser.error(f'there is no checkpoint {path!r}; training writes them '
                     'to its work directory, and names the last one in the '
                     'file last_checkpoint there')


def label_hook(cfg: Config) -> ConfigDict:
    """The config's PseudoLabelHook, which knows the clips to label.

    Raises:
        SystemExit: If there is not exactly one.
    """
    hooks = [
        hook for hook in cfg.get('custom_hooks') or []
        if hook['type'] in ('avdet_mm.PseudoLabelHook', 'PseudoLabelHook')
    ]
    if len(hooks) != 1:
        raise SystemExit(
            f'{cfg.filename} has {len(hooks)} PseudoLabelHooks in '
            'custom_hooks; one is needed to know which clips to label.')
    return hooks[0]


def load_runner(cfg: Config, checkpoint: str) -> Runner:
    """A Runner whose model has the weights of one checkpoint.

    Whatever the config says of others is ignored. Weights of parts that the
    config leaves out (``model.appearance_head=None``) are a warning.

    Args:
        cfg (Config): Of :func:`load_config`.
        checkpoint (str): The file.

    Raises:
        SystemExit: If it cannot be loaded, or lacks weights of the model.
    """
    cfg.load_from, cfg.resume = None, False
    runner = Runner.from_cfg(cfg)
    problem = (f'{checkpoint} cannot be loaded: it is damaged, or belongs to '
               f'another config than {cfg.filename}.')
    try:
        loaded = runner.load_checkpoint(checkpoint, 'cpu', strict=False)
    except Exception as error:
        raise SystemExit(f'{problem} {error}') from error
    shapes, needed = ({
        name.removeprefix('module.'): value.shape
        for name, value in state.items()
    } for state in (loaded.get('state_dict', loaded),
                    runner.model.state_dict()))
    missing = [
        name for name, shape in needed.items() if shapes.get(name) != shape
    ]
    if missing:
        raise SystemExit(f'{problem} It has no fitting weights for '
                         f'{len(missing)} of the model: {missing[0]}, ...')
    return runner


def flush_denormals() -> None:
    """Take denormal numbers, which slow CPUs down, for zeros."""
    # NumPy looks at the smallest ones once, and would warn that they are
    # gone: let it look before.
    np.finfo(np.float32).smallest_subnormal
    np.finfo(np.float64).smallest_subnormal
    torch.set_flush_denormal(True)


def init_cpu_ranks(cfg: Config) -> None:
    """Let ranks without a GPU work together, through gloo.

    MMEngine would ask CUDA for a device. The ranks of a machine share its
    cores. ``env_cfg.dist_cfg.timeout`` (s, 1800 by default) applies.

    Args:
        cfg (Config): Its ``model_wrapper_cfg`` is set; ``sync_bn`` is taken
            away, since PyTorch synchronizes batch norms on GPUs only.

    Raises:
        SystemExit: If the ranks were not started by torchrun.
    """
    if cfg.launcher != 'pytorch':
        raise SystemExit(
            'Without a GPU the ranks have to be started by torchrun: use '
            '--launcher pytorch, below Slurm or MPI too.')
    timeout = cfg.get('env_cfg', {}).get('dist_cfg', {}).get('timeout', 1800)
    torch.distributed.init_process_group(
        'gloo', timeout=datetime.timedelta(seconds=timeout))
    ranks = int(os.environ.get('LOCAL_WORLD_SIZE', 1))
    threads = max(1, num_cores() // ranks)
    torch.set_num_threads(threads)
    # MMEngine would set it to 1, with a warning.
    os.environ.setdefault('MKL_NUM_THREADS', str(threads))
    # The rest is what MMEngine's default is.
    wrapper = dict(
        type='MMDistributedDataParallel',
        broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False))
    wrapper.update(cfg.get('model_wrapper_cfg') or {})
    cfg.model_wrapper_cfg = dict(wrapper, device_ids=None)
    if cfg.get('sync_bn') is not None:
        print_log(
            f'sync_bn={cfg.sync_bn!r} needs GPUs: each rank normalizes by '
            'the statistics of its own batches.',
            logger='current',
            level=logging.WARNING)
        cfg.sync_bn = None


def _end_ranks() -> None:
    # After an error the others may wait for this rank, and NCCL for them.
    if is_distributed() and not hasattr(sys, 'last_value'):
        torch.distributed.destroy_process_group()


def _end_with_parent() -> None:
    # The ranks of a torchrun that was killed would go on, and meet those of
    # the next one in the same work directory.
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
