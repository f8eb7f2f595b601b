"""Write the COCO json of self-labels with a trained localizer (Sec. 3.2).

The clips, their pipeline and the files to write are those of the config's
PseudoLabelHook; the options override them. With --label-source ground_truth
the boxes get the classes of the clip table, the paper's weakly supervised
variant.
"""
import argparse

from avdet_mm.apis import generate_pseudo_labels
from avdet_mm.utils import file_sha256
from avdet_mm.utils.cli import (
    check_checkpoint,
    label_hook,
    load_config,
    load_runner,
    runner_parser,
)


def parse_args() -> argparse.Namespace:
    parser = runner_parser(__doc__)
    parser.add_argument('checkpoint', help='checkpoint of the localizer')
    parser.add_argument('--out', help='json file to write')
    parser.add_argument('--dump', help='pickle file for all predictions')
    parser.add_argument(
        '--label-source',
        choices=['cluster', 'ground_truth'],
        help="label boxes with clusters or with the clips' own classes")
    parser.add_argument(
        '--label-map',
        help='with ground_truth: label map that merges classes, such as '
        'vggsound_groups')
    args = parser.parse_args()
    check_checkpoint(parser, args.checkpoint)
    return args


def main() -> None:
    args = parse_args()
    cfg = load_config(args)
    hook = label_hook(cfg)
    runner = load_runner(cfg, args.checkpoint)
    generate_pseudo_labels(
        runner.model,
        runner.build_dataloader(hook.dataloader),
        args.out or hook.out_file,
        dump_file=args.dump or hook.get('dump_file'),
        info=dict(
            config=args.config,
            checkpoint=args.checkpoint,
            checkpoint_sha256=file_sha256(args.checkpoint)),
        label_source=args.label_source or hook.get('label_source', 'cluster'),
        label_map=args.label_map or hook.get('label_map'))


if __name__ == '__main__':
    main()
