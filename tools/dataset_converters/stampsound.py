"""Compose the StampSound benchmark (docs/stampsound.md).

Example::

    python tools/dataset_converters/stampsound.py data/stampsound_pack \\
        data/stampsound_small --preset small

The first argument is the folder of the ingredients. Where the Debian packages
that they come from are installed, ``--from-debian /`` fills it first.
"""
import argparse

from avdet_mm.datasets.stampsound import (
    FORMATS,
    LISTING,
    PRESETS,
    load_listing,
    make_pack,
    write_stampsound,
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('pack', help='folder of the ingredients')
    parser.add_argument('out_dir', help='folder to write to')
    parser.add_argument(
        '--preset', choices=list(PRESETS), default='small',
        help='10 classes, or all 40 (default: small)')
    parser.add_argument(
        '--seed', type=int, default=0, help='seed of all clips (default: 0)')
    for split, what in (('train', 'training clips'), ('test', 'test clips'),
                        ('alt', 'test clips with unseen photographs')):
        numbers = ', '.join(f'{name} {getattr(p, f"num_{split}")}'
                            for name, p in PRESETS.items())
        parser.add_argument(
            f'--num-{split}', type=int,
            help=f'number of {what} (default: {numbers})')
    parser.add_argument(
        '--format', choices=FORMATS, default='mp4', dest='style',
        help='mp4: H.264 and AAC; frames: JPEG at 2 fps and FLAC '
        '(default: mp4)')
    parser.add_argument(
        '--image-size', type=int, default=256,
        help='side of the frames in pixels (default: 256)')
    parser.add_argument(
        '--workers', type=int,
        help='processes; by default as many as there are CPU cores')
    parser.add_argument(
        '--from-debian', metavar='ROOT',
        help='first fill the folder of the ingredients from the Debian '
        'packages below ROOT: / where they are installed, else a folder '
        'that they are unpacked in')
    parser.add_argument(
        '--listing', default=LISTING,
        help='json of other ingredients, for a benchmark of your own')
    return parser.parse_args()


def main() -> None:
    args = vars(parse_args())
    root = args.pop('from_debian')
    if root is not None:
        make_pack(args['pack'], root, load_listing(args['listing']))
    checksums = write_stampsound(progress=True, **args)
    for split, found in checksums.items():
        for kind, digest in found.items():
            print(f'{split:5} {kind:6} {digest}')


if __name__ == '__main__':
    main()
