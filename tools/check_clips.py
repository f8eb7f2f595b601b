"""Check clips: a verdict for each, before training meets them.

Example:
    python tools/check_clips.py ~/videos --out check.json
    python tools/check_clips.py data/mine/clips.json --out data/mine/check.json

Writes a report for AudioVisualDataset(filter_cfg=dict(report='check.json'))
and prints what it found. Started again, it goes on where it was; what was
measured is kept in check.json.measured, so that other limits need no decoding.
"""
import argparse

from avdet_mm.datasets.clip_check import (
    FAULTS,
    REMARKS,
    THRESHOLDS,
    check_clips,
    print_report,
)
from avdet_mm.datasets.clip_measure import LEVELS


def parse_args() -> argparse.Namespace:
    meanings = '\n'.join(f'  {name}: {meaning}'
                         for name, meaning in {**FAULTS, **REMARKS}.items())
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog='Verdicts, and remarks, which reject nothing '
        f'({", ".join(REMARKS)}):\n{meanings}',
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'source',
        metavar='TABLE_OR_FOLDER',
        help='clip table (.json), or folder of videos (with those below it)')
    parser.add_argument(
        '--out', required=True, metavar='JSON', help='report to write')
    parser.add_argument(
        '--level',
        choices=LEVELS,
        default='decode',
        help='probe: what headers tell; decode: everything (decode)')
    parser.add_argument(
        '--data-root',
        metavar='FOLDER',
        help='what paths in the table are relative to (its folder)')
    parser.add_argument(
        '--workers',
        type=int,
        metavar='N',
        help='number of processes (one per CPU core)')
    parser.add_argument(
        '--timeout',
        type=float,
        default=600.,
        metavar='SECONDS',
        help='give a clip up after this time (600)')
    limits = parser.add_argument_group('limits')
    for name, (default, meaning) in THRESHOLDS.items():
        limits.add_argument(
            f'--{name.replace("_", "-")}',
            type=float,
            default=default,
            metavar='X',
            help=f'{meaning} ({default:g})')
    return parser.parse_args()


def main() -> int:
    args = vars(parse_args())
    thresholds = {name: args.pop(name) for name in THRESHOLDS}
    try:
        info = check_clips(thresholds=thresholds, progress=True, **args)
    except KeyboardInterrupt:
        print('\nStopped. The same command goes on from here.')
        return 130
    except (OSError, TypeError, ValueError) as error:
        raise SystemExit(str(error)) from error
    print_report(info, args['out'])
    return 0 if info['good'] else 1


if __name__ == '__main__':
    raise SystemExit(main())
