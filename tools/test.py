"""Evaluate a localizer, a baseline or a detector from a config.

Beside what MMEngine logs, <work dir>/evaluation.json has all metrics (null
for nan) and the details that metrics keep for reports, by their prefix:

    {"config": "...", "checkpoint": "..." or null,
     "metrics": {"coco/AP50": 0.5, ...}, "details": {"coco": {...}, ...}}
"""
import argparse
import math
import os.path as osp
from typing import Any

from mmengine.dist import is_main_process
from mmengine.evaluator import DumpResults
from mmengine.runner import Runner

from avdet_mm.utils import dump_json
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


def jsonable(value: Any) -> Any:
    """Numbers of NumPy and PyTorch as Python's, nan and infinity as None."""
    if isinstance(value, dict):
        return {str(key): jsonable(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(v) for v in value]
    if hasattr(value, 'tolist'):
        return jsonable(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_evaluation(args: argparse.Namespace, runner: Runner,
                     metrics: dict) -> None:
    """Write metrics and details for reports, and tell where."""
    details = {
        metric.prefix or type(metric).__name__: metric.details
        for metric in runner.test_evaluator.metrics
        if getattr(metric, 'details', None)
    }
    path = osp.join(runner.work_dir, 'evaluation.json')
    content = dict(
        config=args.config,
        checkpoint=args.checkpoint,
        metrics=metrics,
        details=details)
    dump_json(jsonable(content), path)
    print(f'Metrics and details for reports: {path}')


def main() -> None:
    args = parse_args()
    cfg = load_config(args)
    cfg.load_from = args.checkpoint
    runner = Runner.from_cfg(cfg)
    if args.out is not None:
        runner.test_evaluator.metrics.append(
            DumpResults(out_file_path=args.out))
    metrics = runner.test()
    if is_main_process():
        write_evaluation(args, runner, metrics)


if __name__ == '__main__':
    main()
