"""Choose beta of Eq. 5 without ground truth, by pasted patches (ours).

How far a heatmap reaches beyond an object depends on the encoder and on how
it was trained. That can be measured without knowing any object's outline:
what lies in the middle of a self-box is cut out, scaled to the size of a
whole self-box and pasted, as an ellipse, on the frame of a clip of another
cluster (objects do not fill the corners of their boxes either). There its
box is known to the pixel, and the beta is chosen whose self-boxes, drawn
from that frame and the first clip's sound, meet it best.

    python tools/analysis_tools/choose_beta.py CONFIG CHECKPOINT
    python tools/generate_pseudo_labels.py CONFIG CHECKPOINT \\
        --cfg-options model.box_extractor.beta=0.6

A ``heatmap_filter`` takes no part in the choice, since it would follow the
edges of the patches.

Where the clip table has boxes, the self-boxes of the frames themselves are
compared with them, which shows what the choice costs; nothing is chosen by
them.
"""
from typing import Dict, List, Optional, Tuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from avdet_mm.evaluation.functional import box_iou
from avdet_mm.models.localizers import BaseLocalizer
from avdet_mm.models.task_modules import HeatmapBoxExtractor
from avdet_mm.models.task_modules.heatmap_box_extractor import (
    boxes_to_original,
)
from avdet_mm.utils.cli import (
    check_checkpoint,
    label_hook,
    load_config,
    load_runner,
    runner_parser,
)
from avdet_mm.utils.progress import Progress

BETAS = tuple(round(0.1 * i, 1) for i in range(1, 10))
# Patches are cut from the middle of boxes of this beta: inside the object.
CORE = 0.2
# And pasted at the size of boxes of this one.
WHOLE = 0.5


def largest_boxes(heatmaps: Tensor, beta: float, size: Tuple[int, int]
                  ) -> np.ndarray:
    """The box of each map's largest component; 0, 0, 0, 0 without one.

    Args:
        heatmaps (Tensor): (B, h, w).
        beta (float): On the mean's side.
        size (tuple[int, int]): Height and width of the input in pixels.

    Returns:
        np.ndarray: (B, 4) float32, xyxy in input pixels.
    """
    found = HeatmapBoxExtractor(beta)(heatmaps, size)
    return np.stack([
        boxes[0].numpy() if len(boxes) else np.zeros(4, np.float32)
        for boxes, _ in found
    ])


def paste(frames: Tensor, cores: np.ndarray, wholes: np.ndarray,
          others: Tensor, generator: np.random.Generator
          ) -> Tuple[Tensor, np.ndarray]:
    """Paste an elliptic patch of each frame somewhere on another one.

    Args:
        frames (Tensor): (B, 3, H, W).
        cores (np.ndarray): (B, 4) boxes of the patches.
        wholes (np.ndarray): (B, 4) boxes, whose sizes the patches get.
        others (Tensor): (B, 3, H, W) the frames to paste on.
        generator (np.random.Generator): Of the places.

    Returns:
        tuple[Tensor, np.ndarray]: (B, 3, H, W) new frames; (B, 4) float32
        boxes of what was pasted.
    """
    height, width = frames.shape[2:]
    pasted = others.clone()
    boxes = np.zeros((len(frames), 4), np.float32)
    for i, (core, whole) in enumerate(
            zip(cores.round().astype(int), wholes.round().astype(int))):
        h, w = whole[3] - whole[1], whole[2] - whole[0]
        y = generator.integers(height - h + 1)
        x = generator.integers(width - w + 1)
        patch = frames[i:i + 1, :, core[1]:core[3], core[0]:core[2]]
        patch = F.interpolate(
            patch, (int(h), int(w)), mode='bilinear', align_corners=False)[0]
        rows, columns = (
            ((torch.arange(float(n)) + 0.5) * 2 / n - 1)**2 for n in (h, w))
        inside = (rows[:, None] + columns <= 1).to(frames.device)
        under = pasted[i, :, y:y + h, x:x + w]
        under[:, inside] = patch[:, inside]
        boxes[i] = x, y, x + w, y + h
    return pasted, boxes


def unfiltered(model: BaseLocalizer, outs: Dict[str, Tensor]) -> Tensor:
    """Heatmaps before any ``heatmap_filter``."""
    return model.heatmaps(
        {name: value for name, value in outs.items() if name != 'frame'})


def ious(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """IoU of each box with its counterpart, (n,)."""
    return np.array([
        box_iou(a[None], b[None])[0, 0] for a, b in zip(one, two)
    ])


@torch.no_grad()
def measure(model: BaseLocalizer, loader, seed: int = 0
            ) -> Tuple[Dict[float, np.ndarray], Dict[float, np.ndarray]]:
    """IoU of self-boxes with what they should be, for each beta.

    Args:
        model (BaseLocalizer): With clusters.
        loader (DataLoader): Clips, deterministic.
        seed (int): Of places. Defaults to 0.

    Returns:
        tuple: beta -> (n,) IoU with pasted patches; and with the sounding
        object's box, of clips that have one.
    """
    model.eval()
    generator = np.random.default_rng(seed)
    pasted: Dict[float, List[np.ndarray]] = {beta: [] for beta in BETAS}
    true: Dict[float, List[np.ndarray]] = {beta: [] for beta in BETAS}
    with Progress(len(loader), 'batches', True) as progress:
        for batch in loader:
            data = model.data_preprocessor(batch, False)
            frames, audio = data['inputs']['frame'], data['inputs']['audio']
            size = tuple(frames.shape[2:])
            outs = model.encode(frames, audio)
            maps, plain = model.heatmaps(outs), unfiltered(model, outs)
            labels = model.classify(outs)[0].cpu().numpy()
            cores, wholes = (
                largest_boxes(plain, beta, size) for beta in (CORE, WHOLE))
            others = [np.flatnonzero(labels != label) for label in labels]
            usable = np.array([
                i for i, other in enumerate(others) if len(other)
                and (cores[i, 2:] - cores[i, :2]).min() >= 1
            ], dtype=int)
            for beta in BETAS:
                found = largest_boxes(maps, beta, size)
                for i, sample in enumerate(data['data_samples']):
                    truth = sounding_box(sample)
                    if truth is not None:
                        box = boxes_to_original(
                            torch.from_numpy(found[i:i + 1]),
                            sample.homography_matrix, sample.ori_shape[:2])
                        true[beta].append(ious(box.numpy(), truth))
            if len(usable):
                onto = np.array([generator.choice(others[i]) for i in usable])
                mixed, boxes = paste(frames[usable], cores[usable],
                                     wholes[usable], frames[onto], generator)
                maps = unfiltered(model, model.encode(mixed, audio[usable]))
                for beta in BETAS:
                    pasted[beta].append(
                        ious(largest_boxes(maps, beta, size), boxes))
            progress.update(1)
    return tuple({
        beta: np.concatenate(parts) if parts else np.zeros(0)
        for beta, parts in found.items()
    } for found in (pasted, true))


def sounding_box(sample) -> Optional[np.ndarray]:
    """(1, 4) box of what sounds, None if the clip table does not say."""
    truth = sample.get('gt_instances')
    if truth is None or 'sounding' not in truth:
        return None
    boxes = np.asarray(truth.bboxes)[np.asarray(truth.sounding, bool)]
    return boxes[:1] if len(boxes) else None


def main() -> None:
    parser = runner_parser(__doc__)
    parser.add_argument('checkpoint', help='checkpoint of the localizer')
    parser.add_argument(
        '--max-clips',
        type=int,
        default=1000,
        help='training clips to look at (default: %(default)s)')
    args = parser.parse_args()
    check_checkpoint(parser, args.checkpoint)
    cfg = load_config(args)
    # The clips that get self-boxes, as they are shown for that.
    loader = label_hook(cfg)['dataloader']
    loader.dataset.indices = args.max_clips
    runner = load_runner(cfg, args.checkpoint)
    pasted, true = measure(runner.model,
                           runner.build_dataloader(loader, seed=0))
    if not len(pasted[BETAS[0]]):
        raise SystemExit(
            'No patch could be pasted on the frame of another cluster: in no '
            'batch are two clusters and a heatmap that is not constant. Is '
            'the localizer trained? If so, try more --max-clips.')
    means = {beta: float(x.mean()) for beta, x in pasted.items()}
    chosen = max(means, key=means.get)
    known = len(true[chosen])
    print(f'{len(pasted[chosen])} pasted patches' +
          (f', {known} clips with a box' if known else ''))
    print('beta  mean IoU, pasted' +
          ('  mean IoU, objects  IoU >= 0.5, objects' if known else ''))
    for beta in BETAS:
        line = f'{beta:<4}  {means[beta]:<16.3f}'
        if known:
            line += (f'  {true[beta].mean():<17.3f}'
                     f'  {(true[beta] >= 0.5).mean():.3f}')
        print(line)
    print(f'Chosen: beta {chosen} (on the mean).')
    if known:
        shares = {b: float((x >= 0.5).mean()) for b, x in true.items()}
        best = max(shares, key=shares.get)
        print(f'It costs {shares[best] - shares[chosen]:.3f} of the clips '
              f'against the best, beta {best}.')


if __name__ == '__main__':
    main()
