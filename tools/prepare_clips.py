"""Prepare clips: from videos to small frames, sound and a clip table.

Example:
    python tools/prepare_clips.py ~/videos data/mine
    python tools/prepare_clips.py list.csv data/mine --fps 4 --segment 10

Writes OUT/clips.json (a clip table for training), OUT/frames/<clip>/<ms>.jpg,
OUT/audio/<clip>.flac and OUT/prepare_report.json (what became of each video).
Broken videos are reported and left out. Started again, it goes on where it
was, whatever ended it; in a finished folder it adds new and changed videos
only.
"""
import argparse
from typing import Tuple

from avdet_mm.datasets.prepare import prepare_clips
from avdet_mm.utils.job_pool import LAUNCHERS


def parse_shard(text: str) -> Tuple[int, int]:
    """Numbers of ``i/n``."""
    try:
        i, n = map(int, text.split('/'))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f'{text!r} is not i/n, e.g. 0/4') from None
    if not 0 <= i < n:
        raise argparse.ArgumentTypeError(
            f'{text!r} is not i/n with 0 <= i < n, e.g. 0/4')
    return i, n


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'source',
        metavar='SOURCE',
        help='folder of videos (with those below it); or a list, a text file '
        'with one path per line or a .csv file with the column "path" and '
        'perhaps "clip_id" and "label"; or a clip table (.json) of videos, '
        'whose labels and boxes are carried over')
    parser.add_argument('out_dir', metavar='OUT', help='folder to write')
    parser.add_argument(
        '--fps', type=float, default=2., help='frames per second (2)')
    parser.add_argument(
        '--short-side',
        type=int,
        default=256,
        metavar='PIXELS',
        help='shorter side of frames; smaller ones keep their size (256)')
    parser.add_argument(
        '--quality', type=int, default=90, help='of the JPEG files (90)')
    parser.add_argument(
        '--sample-rate',
        type=int,
        default=24000,
        metavar='HZ',
        help='samples per second of the sound (24000)')
    parser.add_argument(
        '--segment',
        type=float,
        metavar='SECONDS',
        help='cut videos into clips of this length, <clip>_<first second>; '
        'the rest counts if it has 1 s (one clip per video)')
    parser.add_argument(
        '--workers',
        type=int,
        metavar='N',
        help='number of processes (one per CPU core)')
    parser.add_argument(
        '--shard',
        type=parse_shard,
        default=(0, 1),
        metavar='i/n',
        help='prepare part i of n, 0 <= i < n: for several machines that '
        'share OUT; the last to end writes the table')
    parser.add_argument(
        '--launcher',
        choices=LAUNCHERS,
        default='local',
        help='processes of this machine, or a Ray cluster that shares SOURCE '
        'and OUT')
    parser.add_argument(
        '--ray-address',
        metavar='ADDRESS',
        help='of the cluster, e.g. auto (starts a local one)')
    parser.add_argument(
        '--timeout',
        type=float,
        default=600.,
        metavar='SECONDS',
        help='give a video up after this time; raise it for very long '
        'videos (600)')
    parser.add_argument(
        '--retry-failed',
        action='store_true',
        help='also try those again that failed before and did not change')
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    try:
        done = prepare_clips(progress=True, **vars(args))
    except KeyboardInterrupt:
        print('\nStopped. The same command goes on from here.')
        return 130
    except (ImportError, OSError, RuntimeError, TypeError,
            ValueError) as error:
        raise SystemExit(str(error)) from error
    for verdict, paths in sorted(done['failed'].items()):
        names = ', '.join(repr(path) for path in paths[:3])
        more = ', ...' if len(paths) > 3 else ''
        print(f'{verdict}: {len(paths)} ({names}{more})')
    info = done['info']
    if info is None:
        print('This part is done. The table is written when all parts are.')
        return 0
    good = info['counts'].get('good', 0)
    print(f'{info["clips"]} clips of {good} videos are in {args.out_dir} '
          f'({done["prepared"]} of {info["sources"]} videos were new or '
          f'changed, {info["sources"] - good} cannot be used).')
    return 0 if good else 1


if __name__ == '__main__':
    raise SystemExit(main())
