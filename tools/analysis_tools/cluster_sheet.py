"""Draw what a localizer found: a row for each cluster, with heatmaps.

Clips are drawn at random from each cluster. The self-box is orange; the
sounding object's own box, where the clip table has one, green, and red if the
self-box misses it (IoU below 0.5).

    python tools/analysis_tools/cluster_sheet.py \\
        work_dirs/NAME/localizer_predictions.pkl work_dirs/NAME/clusters.jpg

The predictions are those that PseudoLabelHook writes (``dump_file``), or
tools/generate_pseudo_labels.py with --dump. They are a pickle file: open your
own only.
"""
import argparse
import os
import os.path as osp

import cv2
import mmcv
import mmengine
import numpy as np

from avdet_mm.evaluation.functional import box_iou
from avdet_mm.utils import atomic_write
from avdet_mm.visualization import draw_boxes, heatmap_overlay
from avdet_mm.visualization.drawing import GREEN, ORANGE, RED

GAP = 4


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('predictions', help='pickle file')
    parser.add_argument('out', help='picture to write')
    parser.add_argument(
        '--columns', type=int, default=8, help='clips of each cluster')
    parser.add_argument(
        '--clusters', type=int, nargs='+', help='these only (default: all)')
    parser.add_argument(
        '--side', type=int, default=128, help='of a frame, in pixels')
    parser.add_argument('--seed', type=int, default=0)
    return parser.parse_args()


def tile(sample: dict, side: int) -> np.ndarray:
    """One clip: frame, heatmap and boxes.

    Args:
        sample (dict): A prediction.
        side (int): Height and width of the result; frames of another shape
            are stretched.

    Returns:
        np.ndarray: (side, side, 3) uint8 RGB.

    Raises:
        SystemExit: If the frame is gone.
    """
    path = sample.get('img_path') or ''
    if not osp.isfile(path):
        raise SystemExit(f'The frame {path!r} of {sample["clip_id"]} is gone. '
                         'Write the predictions anew.')
    image = mmcv.imread(path, channel_order='rgb')
    height, width = image.shape[:2]
    image = heatmap_overlay(image, sample['heatmap'], sample['img_shape'],
                            sample['homography_matrix'], opacity=0.5)
    image = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    scale = np.array([side / width, side / height] * 2)
    found = np.asarray(sample['pred_instances']['bboxes'], np.float32)
    truth = sample.get('gt_instances') or {}
    if 'sounding' in truth:
        sounding = np.asarray(truth['sounding'], bool)
        true = np.asarray(truth['bboxes'], np.float32)[sounding]
        hit = box_iou(found, true).max(initial=0) >= 0.5
        image = draw_boxes(image, true * scale, GREEN if hit else RED)
    return draw_boxes(image, found * scale, ORANGE)


def main() -> None:
    """Run the tool."""
    args = parse_args()
    samples = mmengine.load(args.predictions)
    labels = np.array([
        int(s['pred_instances']['labels'][0])
        if len(s['pred_instances']['labels']) else -1 for s in samples
    ])
    clusters = sorted(set(labels.tolist()) - {-1})
    unknown = set(args.clusters or ()) - set(clusters)
    if unknown:
        raise SystemExit(f'No clip has the cluster {min(unknown)}, only '
                         f'{", ".join(map(str, clusters))}.')
    random = np.random.default_rng(args.seed)
    step = args.side + GAP
    wanted = args.clusters or clusters
    sheet = np.full((len(wanted) * step + GAP, args.columns * step + GAP, 3),
                    255, np.uint8)
    for row, cluster in enumerate(wanted):
        members = np.flatnonzero(labels == cluster)
        chosen = random.permutation(members)[:args.columns]
        for column, i in enumerate(chosen):
            y, x = GAP + row * step, GAP + column * step
            sheet[y:y + args.side, x:x + args.side] = tile(
                samples[i], args.side)
    suffix = osp.splitext(args.out)[1] or '.jpg'
    good, data = cv2.imencode(suffix, sheet[..., ::-1],
                              [cv2.IMWRITE_JPEG_QUALITY, 85])
    os.makedirs(osp.dirname(args.out) or '.', exist_ok=True)
    with atomic_write(args.out, 'wb') as file:
        file.write(data.tobytes())
    print(f'Wrote {args.out}: {len(wanted)} clusters, of {len(samples)} clips '
          f'{args.columns} of each.')


if __name__ == '__main__':
    main()
