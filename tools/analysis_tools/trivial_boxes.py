"""How often methods that learn nothing box the sounding object.

On procedural training clips: share of clips with IoU >= 0.5. The demo would
prove nothing if one of these came close to the localizer. All parameters are
the best ones for the ground truth, and a random drawn object is an oracle:
it knows the exact boxes of everything that was drawn.
"""
import argparse

import cv2
import numpy as np
from mmengine.utils import track_iter_progress

from avdet_mm.evaluation.functional import box_iou
from avdet_mm.testing import make_clip

PERCENTILES = (70, 80, 85, 90, 95)
SIDES = np.arange(0.3, 0.95, 0.05)


def largest_box(score: np.ndarray, percentile: float) -> list:
    """Box of the largest region above a percentile of a map."""
    mask = (score > np.percentile(score, percentile)).astype(np.uint8)
    stats = cv2.connectedComponentsWithStats(mask, connectivity=8)[2][1:]
    if not len(stats):
        return [0, 0, 0, 0]
    x, y, w, h, _ = stats[stats[:, 4].argmax()]
    return [x, y, x + w, y + h]


def score_maps(frame: np.ndarray) -> dict:
    """Maps of what strikes the eye: (h, w) each."""
    hsv = cv2.cvtColor(frame, cv2.COLOR_BGR2HSV).astype(np.float32)
    gray = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY).astype(np.float32)
    odd = np.linalg.norm(
        frame - np.median(frame.reshape(-1, 3), axis=0), axis=2)
    edges = cv2.Laplacian(gray, cv2.CV_32F)**2
    maps = {
        'unusual color': (odd, 2),
        'saturation': (hsv[..., 1] * hsv[..., 2], 2),
        'texture': (edges, 4)
    }
    return {
        name: cv2.GaussianBlur(values, (0, 0), sigma)
        for name, (values, sigma) in maps.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--num-clips', type=int, default=600)
    args = parser.parse_args()
    hits = {}
    for index in track_iter_progress(range(args.num_clips)):
        clip = make_clip(args.seed, 'train', index)
        frame = clip['frames'][len(clip['frames']) // 2]
        truth = next(o['bbox'] for o in clip['objects'] if o['sounding'])
        size = len(frame)
        boxes = {
            ('centered box', f'side {s:.2f}'):
            [size * (1 - s) / 2] * 2 + [size * (1 + s) / 2] * 2
            for s in SIDES
        }
        for name, values in score_maps(frame).items():
            for p in PERCENTILES:
                boxes[name, f'percentile {p}'] = largest_box(values, p)
        for key, box in boxes.items():
            hits.setdefault(key, []).append(
                box_iou(np.array([box], float), np.array([truth]))[0, 0] >=
                0.5)
        drawn = np.array([o['bbox'] for o in clip['objects']])
        hits.setdefault(('random drawn object', 'oracle'), []).append(
            (box_iou(drawn, np.array([truth])) >= 0.5).mean())
    best = {}
    for (name, setting), values in hits.items():
        best[name] = max(best.get(name, (-1, '')), (np.mean(values), setting))
    print()
    for name, (share, setting) in best.items():
        print(f'{name:<22} {share:.3f}  ({setting})')


if __name__ == '__main__':
    main()
