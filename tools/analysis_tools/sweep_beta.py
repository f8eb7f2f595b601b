"""Self-boxes for every beta of Eq. 5, on both sides, against ground truth.

Reads the predictions that PseudoLabelHook dumps (dump_file). It shows what
a choice of beta costs; it does not make one.
"""
import argparse

import mmengine
import numpy as np
import torch

from avdet_mm.evaluation.functional import box_iou
from avdet_mm.models.task_modules import HeatmapBoxExtractor
from avdet_mm.models.task_modules.heatmap_box_extractor import (
    boxes_to_original,
)


def best_iou(sample: dict, extractor: HeatmapBoxExtractor) -> float:
    """IoU of a clip's self-box with the sounding object, 0 without a box."""
    boxes, _ = extractor(
        torch.as_tensor(sample['heatmap'])[None], sample['img_shape'][:2])[0]
    if not len(boxes):
        return 0.
    boxes = boxes_to_original(boxes, sample['homography_matrix'],
                              sample['ori_shape'][:2])
    truth = sample['gt_instances']
    truth = truth['bboxes'][truth['sounding']]
    return float(box_iou(boxes.numpy(), np.asarray(truth)).max())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('predictions', help='pickle file of predictions')
    parser.add_argument(
        '--betas',
        type=float,
        nargs='+',
        default=[.1, .2, .3, .4, .5, .6, .7, .8, .9])
    parser.add_argument('--max-clips', type=int, default=1000)
    args = parser.parse_args()
    samples = mmengine.load(args.predictions)[:args.max_clips]
    print('share of self-boxes with IoU >= 0.5 (mean IoU), '
          f'{len(samples)} clips')
    print('beta   on the mean       on the max')
    for beta in args.betas:
        cells = []
        for side in ('mean', 'max'):
            extractor = HeatmapBoxExtractor(beta, side)
            ious = np.array([best_iou(s, extractor) for s in samples])
            cells.append(f'{(ious >= 0.5).mean():.3f} ({ious.mean():.3f})')
        print(f'{beta:<6} {cells[0]}     {cells[1]}')


if __name__ == '__main__':
    main()
