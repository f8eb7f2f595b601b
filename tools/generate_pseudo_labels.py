"""Write the COCO json of self-labels with a trained localizer (Sec. 3.2).

The clips, their pipeline and the files to write are those of the config's
PseudoLabelHook; the options override them.
"""
import argparse

from mmengine.runner import Runner

from avdet_mm.apis import generate_pseudo_labels
from avdet_mm.utils.cli import load_config, runner_parser


def parse_args() -> argparse.Namespace:
    parser = runner_parser(__doc__)
    parser.add_argument('checkpoint', help='checkpoint of the localizer')
    parser.add_argument('--out', help='json file to write')
    parser.add_argument('--dump', help='pickle file for all predictions')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    cfg = load_config(args)
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
