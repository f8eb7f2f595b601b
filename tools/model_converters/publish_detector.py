"""Write a trained detector as a pair of files for bare MMDetection.

DIR/detector.py and DIR/detector.pth work with mmdet.apis.init_detector,
DetInferencer and MMDetection's own tools where avdet_mm is not installed.
"""
import argparse

from avdet_mm.apis import publish_detector


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'config',
        help="the detector's config; the one in its work directory has the "
        'overrides of its training')
    parser.add_argument('checkpoint', help="the detector's checkpoint")
    parser.add_argument(
        '--out', required=True, metavar='DIR', help='folder to write to')
    parser.add_argument(
        '--matching',
        help='json of tools/match_clusters.py: name clusters by classes, as '
        'its first matching has them')
    return parser.parse_args()


def main() -> None:
    """Run the tool."""
    args = parse_args()
    files = publish_detector(args.config, args.checkpoint, args.out,
                             args.matching)
    print('Wrote {} and {}.'.format(*files))


if __name__ == '__main__':
    main()
