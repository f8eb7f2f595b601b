"""Evaluate a localizer, a baseline or a detector from a config."""
import argparse

from mmengine.evaluator import DumpResults
from mmengine.runner import Runner

from avdet_mm.utils.cli import load_config, runner_parser


def parse_args() -> argparse.Namespace:
    parser = runner_parser(__doc__)
    parser.add_argument(
        'checkpoint',
        nargs='?',
        help='checkpoint file; none for models without weights')
    parser.add_argument('--out', help='pickle file for all predictions')
    args = parser.parse_args()
    if args.out is not None and not args.out.endswith(('.pkl', '.pickle')):
        parser.error('--out must end with .pkl or .pickle')
    return args


def main() -> None:
    args = parse_args()
    cfg = load_config(args)
    cfg.load_from = args.checkpoint
    runner = Runner.from_cfg(cfg)
    if args.out is not None:
        runner.test_evaluator.metrics.append(
            DumpResults(out_file_path=args.out))
    runner.test()


if __name__ == '__main__':
    main()
