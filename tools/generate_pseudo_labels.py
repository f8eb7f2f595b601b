"""Write the COCO json of self-labels with a trained localizer (Sec. 3.2).

The clips, their pipeline and the files to write are those of the config's
PseudoLabelHook; the options override them.
"""
import argparse
import os

import torch
from mmengine.config import Config, DictAction
from mmengine.runner import Runner

from avdet_mm.apis import generate_pseudo_labels


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file with a PseudoLabelHook')
    parser.add_argument('checkpoint', help='checkpoint of the localizer')
    parser.add_argument('--out', help='json file to write')
    parser.add_argument('--dump', help='pickle file for all predictions')
    parser.add_argument('--work-dir', default='work_dirs/pseudo_labels')
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
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def main() -> None:
    torch.set_flush_denormal(True)
    args = parse_args()
    cfg = Config.fromfile(args.config)
    cfg.launcher = args.launcher
    cfg.work_dir = args.work_dir
    if args.cfg_options is not None:
        cfg.merge_from_dict(args.cfg_options)
    hooks = [
        h for h in cfg.get('custom_hooks', [])
        if h['type'] in ('avdet_mm.PseudoLabelHook', 'PseudoLabelHook')
    ]
    if len(hooks) != 1:
        raise SystemExit(
            f'{args.config} has {len(hooks)} PseudoLabelHooks in '
            'custom_hooks; one is needed to know which clips to label.')
    hook = hooks[0]
    cfg.load_from = args.checkpoint
    runner = Runner.from_cfg(cfg)
    runner.load_or_resume()
    generate_pseudo_labels(
        runner.model,
        runner.build_dataloader(hook.dataloader),
        args.out or hook.out_file,
        dump_file=args.dump or hook.get('dump_file'),
        info=dict(config=args.config, checkpoint=args.checkpoint))


if __name__ == '__main__':
    main()
