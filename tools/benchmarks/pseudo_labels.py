r"""What self-labels cost beyond the forward pass.

    python tools/benchmarks/pseudo_labels.py --json work_dirs/labels.json

One run on clips that it makes, one thread unless --threads says otherwise,
the alternatives in turns. Ratios:

- vs_forward_only: clips per second of generate_pseudo_labels (loader,
  forward, boxes, labels, json) relative to loader and forward alone, with
  the paper's sizes: AVOL-Net of full width, 224 pixels, 14 x 14 cells, 39
  clusters, batches of 64. The weights are random: the heatmaps are rougher
  than those of a trained localizer, and take longer. median of the turns.
- vs_forward_only_small: the same with the localizer of the demo (a quarter
  of the width, 135 pixels), beside whose forward pass boxes weigh more.
- box_extraction_speedup: HeatmapBoxExtractor against the usual loop over
  images (F.interpolate of one map, scipy.ndimage.label with 8-connectivity,
  numpy.bincount, find_objects), CPU seconds, on maps of 14 x 14 cells with
  one to three blobs and some noise. box_extraction_speedup_zoom: the loop
  with scipy.ndimage.zoom. box_extraction_speedup_rough: maps of many parts,
  noise smoothed over three cells.
- boxes_differ, score_difference: boxes that are not those of the loop, and
  the largest difference of scores. Both should be 0.
- bytes_per_clip: growth of the peak memory (ru_maxrss of a fresh process)
  of a labelling pass with the number of its clips, between a tenth of
  --rows and --rows; all is kept until the json is written.
"""
import argparse
import contextlib
import functools
import os
import os.path as osp
import resource
import tempfile
import time
from typing import Callable, Dict, List, Tuple

import cv2
import numpy as np
import scipy.ndimage
import soundfile
import torch
import torch.nn.functional as F
from mmengine.dataset import default_collate
from mmengine.logging import MMLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader

from avdet_mm.apis import generate_pseudo_labels
from avdet_mm.datasets import AudioVisualDataset
from avdet_mm.datasets.clip_table import dump_clip_table
from avdet_mm.models import AudioVisualLocalizer
from avdet_mm.models.heads import SKClusterHead
from avdet_mm.models.task_modules import HeatmapBoxExtractor
from avdet_mm.structures import AudioVisualDataSample
from avdet_mm.testing import make_clip
from avdet_mm.testing.benchmark import in_process, report

CELLS, PIXELS = 14, 224
RATE = 24000


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--json', help='file for the figures')
    parser.add_argument(
        '--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--workers', type=int, default=0)
    parser.add_argument('--batch-size', type=int, default=64)
    parser.add_argument(
        '--batches',
        type=int,
        default=1,
        help='batches of a turn; the small localizer has eight times as many')
    parser.add_argument('--turns', type=int, default=5)
    parser.add_argument(
        '--width', type=int, default=64, help='of the first stage')
    parser.add_argument('--maps', type=int, default=512)
    parser.add_argument(
        '--rows',
        type=int,
        default=100000,
        help='clips of the memory measurement')
    return parser.parse_args()


# --------------------------------------------------------------------------
# Boxes
# --------------------------------------------------------------------------
def blobs(number: int) -> Tensor:
    """Maps as of a trained localizer: one to three blobs, some noise."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:CELLS, :CELLS]
    maps = 0.02 * rng.normal(size=(number, CELLS, CELLS))
    for i in range(number):
        for _ in range(rng.integers(1, 4)):
            cy, cx = rng.uniform(0, CELLS - 1, 2)
            maps[i] += rng.uniform(0.3, 1) * np.exp(
                -((y - cy)**2 + (x - cx)**2) / (2 * rng.uniform(1, 4)**2))
    return torch.from_numpy(maps).float()


def rough(number: int) -> Tensor:
    """Maps with many parts."""
    rng = np.random.default_rng(1)
    noise = rng.normal(size=(number, CELLS, CELLS))
    return torch.from_numpy(
        scipy.ndimage.uniform_filter(noise, (0, 3, 3))).float()


def by_torch(heatmap: Tensor) -> np.ndarray:
    """Upsample one map with PyTorch."""
    return F.interpolate(
        heatmap[None, None], (PIXELS, PIXELS),
        mode='bilinear',
        align_corners=False)[0, 0].numpy()


def by_zoom(heatmap: Tensor) -> np.ndarray:
    """Upsample one map with scipy."""
    return scipy.ndimage.zoom(
        heatmap.numpy(), PIXELS / CELLS, order=1, mode='nearest',
        grid_mode=True)


def usual_loop(heatmaps: Tensor,
               upsample: Callable) -> Tuple[np.ndarray, np.ndarray]:
    """Boxes and scores of maps, one after another."""
    boxes, scores = [], []
    for heatmap in heatmaps:
        fine = upsample(heatmap)
        threshold = 0.3 * fine.max() + 0.7 * fine.mean()
        labels, _ = scipy.ndimage.label(fine > threshold, np.ones((3, 3)))
        largest = 1 + np.bincount(labels.ravel())[1:].argmax()
        y, x = scipy.ndimage.find_objects(labels)[largest - 1]
        boxes.append((x.start, y.start, x.stop, y.stop))
        scores.append(fine[labels == largest].max())
    return np.array(boxes), np.array(scores)


def ours(heatmaps: Tensor) -> Tuple[np.ndarray, np.ndarray]:
    """The same by the package, in batches of 64."""
    extractor = HeatmapBoxExtractor()
    found = [extractor.extract(h, (PIXELS, PIXELS))
             for h in heatmaps.split(64)]
    return (np.concatenate([f.bboxes for f in found]),
            np.concatenate([f.scores for f in found]))


def box_figures(number: int, turns: int) -> Dict[str, float]:
    """Box extraction, side by side."""
    loop = functools.partial(usual_loop, upsample=by_torch)
    zoom = functools.partial(usual_loop, upsample=by_zoom)
    smooth, parts = blobs(number), rough(number)
    seconds = in_turns(
        turns,
        time.process_time,
        ours=lambda: ours(smooth),
        loop=lambda: loop(smooth),
        zoom=lambda: zoom(smooth),
        ours_rough=lambda: ours(parts),
        loop_rough=lambda: loop(parts))
    differ, difference = 0, 0.
    for maps in (smooth, parts):
        (a, scores), (b, expected) = ours(maps), loop(maps)
        differ += int((a != b).any(axis=1).sum())
        difference = max(difference, float(abs(scores - expected).max()))
    return dict(
        box_extraction_speedup=ratio(seconds, 'loop', 'ours'),
        box_extraction_speedup_zoom=ratio(seconds, 'zoom', 'ours'),
        box_extraction_speedup_rough=ratio(seconds, 'loop_rough',
                                           'ours_rough'),
        boxes_differ=differ,
        score_difference=difference,
        **{
            f'{name}_us_per_map': 1e6 * float(np.median(s)) / number
            for name, s in seconds.items()
        })


def in_turns(turns: int, clock: Callable[[], float],
             **ways: Callable[[], object]) -> Dict[str, List[float]]:
    """Seconds of each way in every turn; one turn before warms up."""
    seconds: Dict[str, List[float]] = {name: [] for name in ways}
    for turn in range(turns + 1):
        for name, way in ways.items():
            start = clock()
            way()
            if turn:
                seconds[name].append(clock() - start)
    return seconds


def ratio(seconds: Dict[str, List[float]], a: str, b: str) -> float:
    """Seconds of one way relative to another, median of the turns."""
    return float(np.median(np.divide(seconds[a], seconds[b])))


# --------------------------------------------------------------------------
# Self-labels
# --------------------------------------------------------------------------
def make_clips(folder: str, number: int, distinct: int = 8) -> str:
    """Prepared clips: jpg frames of 256 x 340 pixels, a second of flac."""
    os.makedirs(folder, exist_ok=True)
    for i in range(min(distinct, number)):
        clip = make_clip(0, 'train', i, image_size=340)
        frame = np.ascontiguousarray(clip['frames'][6][42:298])
        cv2.imwrite(osp.join(folder, f'{i}.jpg'), frame)
        wave = np.resize(clip['waveform'], 2 * RATE)
        soundfile.write(osp.join(folder, f'{i}.flac'), wave, RATE)
    table = osp.join(folder, f'clips_{number}.json')
    dump_clip_table((dict(
        clip_id=f'clip_{i:09d}',
        frames=[dict(path=f'{i % distinct}.jpg', time=1.)],
        audio_path=f'{i % distinct}.flac',
        duration=2.) for i in range(number)), table)
    return table


def dataset_of(table: str, size: int, crop: int) -> AudioVisualDataset:
    """The clips, frames resized and cropped in their middle."""
    return AudioVisualDataset(
        table,
        test_mode=True,
        pipeline=[
            dict(type='avdet_mm.LoadClip', frame_time='middle'),
            dict(
                type='mmdet.Resize', scale=(100000, size), keep_ratio=True),
            dict(type='avdet_mm.CenterSquareCrop', size=crop),
            dict(type='avdet_mm.PackAudioVisualInputs')
        ])


def localizer(width: int, small: bool) -> AudioVisualLocalizer:
    """A localizer with random weights."""
    torch.manual_seed(0)
    trunk = dict(type='avdet_mm.AVOLNet', base_channels=width)
    heads = dict(visual_channels=8 * width, audio_channels=8 * width)
    if small:
        heads['hidden_channels'] = 128
    return AudioVisualLocalizer(
        visual_backbone=dict(
            pooled_stages=(0, 1) if small else (0, 1, 2), **trunk),
        audio_backbone=dict(in_channels=1, **trunk),
        localization_head=dict(
            type='avdet_mm.ContrastiveLocalizationHead',
            embed_channels=128 if small else 1024,
            **heads),
        cluster_head=dict(
            type='avdet_mm.SKClusterHead', num_clusters=39, **heads),
        data_preprocessor=dict(
            type='avdet_mm.AudioVisualDataPreprocessor',
            audio_mean=-5.,
            audio_std=3.,
            **dict(n_mels=64, win_length=960, hop_length=480)
            if small else {})).eval()


@torch.no_grad()
def forward_only(model: AudioVisualLocalizer, loader: DataLoader) -> None:
    """Load the clips and run the network."""
    for batch in loader:
        data = model.data_preprocessor(batch, False)
        model(data['inputs'], mode='tensor')
    if next(model.parameters()).is_cuda:
        torch.cuda.synchronize()


def label_figures(args: argparse.Namespace, folder: str,
                  small: bool) -> Dict[str, float]:
    """Throughput of a labelling pass and of its forward pass."""
    number = args.batch_size * args.batches * (8 if small else 1)
    dataset = dataset_of(
        make_clips(osp.join(folder, 'clips'), number),
        *((135, 135) if small else (256, PIXELS)))
    model = localizer(args.width // 4 if small else args.width, small)
    model.to(args.device)
    loader = DataLoader(
        dataset,
        args.batch_size,
        num_workers=args.workers,
        collate_fn=default_collate)
    out = osp.join(folder, 'labels.json')
    seconds = in_turns(
        args.turns,
        time.perf_counter,
        forward=lambda: forward_only(model, loader),
        label=lambda: generate_pseudo_labels(model, loader, out))
    suffix = '_small' if small else ''
    return {
        f'vs_forward_only{suffix}':
        ratio(seconds, 'forward', 'label'),
        f'clips_per_second{suffix}':
        number / float(np.median(seconds['label'])),
    }


# --------------------------------------------------------------------------
# Memory
# --------------------------------------------------------------------------
class FewCells(nn.Module):
    """Gives heatmaps of 2 x 2 cells; computes nothing."""

    num_clusters = 39
    box_extractor = HeatmapBoxExtractor()

    @staticmethod
    def heatmaps(outs: Dict[str, Tensor]) -> Tensor:
        return outs['visual']

    @staticmethod
    def classify(outs: Dict[str, Tensor]) -> Tuple[Tensor, Tensor]:
        return SKClusterHead.predict(outs['visual_logits'],
                                     outs['audio_logits'])

    @staticmethod
    def data_preprocessor(batch: dict, training: bool) -> dict:
        return batch

    def forward(self, inputs: dict, mode: str) -> Dict[str, Tensor]:
        number = len(inputs['frame'])
        logits = torch.zeros(number, 39)
        maps = torch.tensor([[0., 1.], [0., 0.]]).expand(number, 2, 2)
        return dict(
            visual=maps, audio=None, visual_logits=logits, audio_logits=logits)


class ManyClips:
    """Batches of clips with names as long as those of VGGSound.

    Args:
        number (int): Of the clips.
    """
    dataset = None

    def __init__(self, number: int) -> None:
        self.number = number

    def __len__(self) -> int:
        return -(-self.number // 64)

    def __iter__(self):
        for start in range(0, self.number, 64):
            places = range(start, min(start + 64, self.number))
            yield dict(
                inputs=dict(frame=torch.zeros(len(places), 3, 4, 4)),
                data_samples=[self.sample(i) for i in places])

    @staticmethod
    def sample(i: int) -> AudioVisualDataSample:
        name = f'clip-{i:06d}_000030'
        return AudioVisualDataSample(
            metainfo=dict(
                sample_idx=i,
                clip_id=name,
                img_path=f'/data/vggsound/frames/{name}/005000.jpg',
                time=5.,
                ori_shape=(4, 4),
                homography_matrix=np.eye(3, dtype=np.float32)))


def bytes_per_clip(number: int, folder: str) -> float:
    """Growth of this process's peak memory with the number of clips."""
    torch.set_num_threads(1)
    MMLogger.get_instance('pseudo_labels', log_level='WARNING')
    out, few = osp.join(folder, 'many.json'), number // 10
    peaks = []
    for clips in (few, number):
        generate_pseudo_labels(FewCells(), ManyClips(clips), out)
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return 1024 * (peaks[1] - peaks[0]) / (number - few)



# --------------------------------------------------------------------------
def main() -> None:
    args = parse_args()
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(0)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        result = box_figures(args.maps, args.turns)
        result['bytes_per_clip'] = in_process(bytes_per_clip, args.rows,
                                              folder)
        for small in (True, False):
            result.update(label_figures(args, folder, small))
    result = {key: round(value, 4) for key, value in result.items()}
    report(result, args.json)


if __name__ == '__main__':
    main()
