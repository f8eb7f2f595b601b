"""Write procedural audio-visual clips with clip tables and ground truth."""
import argparse

from avdet_mm.testing import write_procedural_clips


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('out_dir', help='folder to write to')
    parser.add_argument('--num-train', type=int, default=3000)
    parser.add_argument('--num-test', type=int, default=300)
    parser.add_argument(
        '--num-duet',
        type=int,
        default=150,
        help='test clips in which two objects sound (duet.json)')
    parser.add_argument(
        '--num-solo',
        type=int,
        default=150,
        help='test clips with one object that can sound (solo.json)')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--image-size', type=int, default=108)
    parser.add_argument('--num-classes', type=int, default=8)
    parser.add_argument(
        '--workers',
        type=int,
        help='processes; by default as many as there are CPU cores')
    return parser.parse_args()


def main() -> None:
    write_procedural_clips(progress=True, **vars(parse_args()))


if __name__ == '__main__':
    main()
