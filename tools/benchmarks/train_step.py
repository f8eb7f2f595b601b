r"""Where the time of a training step goes, stage by stage.

    python tools/benchmarks/train_step.py --json work_dirs/step.json
    python tools/benchmarks/train_step.py configs/avdet/joint_vggsound.py \
        --device cuda --amp --batch-size 256

By default the paper's pre-training and joint training, and the demo's
detector. Any training config of a localizer or of a two-stage detector will
do; where its data are missing, synthetic clips or images take their place
and pass its own pipeline. Milliseconds per clip or image, a median over
steps:

- data: the loader, in this one process on one core; divide by the number of
  workers. data_<transform> says what it is made of;
- preprocessing: the move to the device and the normalization; log-mel;
- visual, audio: the encoders, forward; heads (of detectors: neck, proposals,
  regions and their losses); score, loss: of the localizer's heads;
- backward; optimizer; other: the rest of the step.

On a GPU every stage ends with a synchronization, which step, a whole step
without any, does without. pairs_per_s follows from step, loader_cores says
how many cores the loader needs to keep up with it. --amp: mixed precision in
bfloat16 unless the config names another ``optim_wrapper.dtype``.
"""
import argparse
import functools
import itertools
import os
import os.path as osp
import statistics
import tempfile
import time
from collections import defaultdict
from typing import Any, Callable, Dict, List

import cv2
import numpy as np
import soundfile
import torch
from mmengine.config import Config, ConfigDict, DictAction
from mmengine.dataset import BaseDataset
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from rich.console import Console
from rich.table import Table

from avdet_mm.datasets.clip_table import dump_clip_table
from avdet_mm.registry import MODELS
from avdet_mm.utils import dump_json
from avdet_mm.utils.amp import set_up_amp
from avdet_mm.utils.cli import flush_denormals

ROOT = osp.dirname(osp.dirname(osp.dirname(osp.abspath(__file__))))
CONFIGS = [
    osp.join(ROOT, 'configs', 'avdet', f'{name}.py')
    for name in ('pretrain_audioset', 'joint_vggsound',
                 'faster-rcnn_avol-net_fpn_demo')
]
# What is called in a step, and the stage that it belongs to.
CALLS = [
    ('data_preprocessor', 'forward', 'preprocessing'),
    ('data_preprocessor', 'log_mel', 'log-mel'),
    ('visual_backbone', 'forward', 'visual'),
    ('audio_backbone', 'forward', 'audio'),
    ('localization_head', 'forward', 'heads'),
    ('cluster_head', 'forward', 'heads'),
    ('localization_head', 'loss', 'score, loss'),
    ('cluster_head', 'loss', 'score, loss'),
    ('backbone', 'forward', 'visual'),
    ('neck', 'forward', 'heads'),
    ('rpn_head', 'loss_and_predict', 'heads'),
    ('roi_head', 'loss', 'heads'),
]
STAGES = ('preprocessing', 'log-mel', 'visual', 'audio', 'heads',
          'score, loss', 'backward', 'optimizer', 'other')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('configs', nargs='*', default=CONFIGS)
    parser.add_argument('--json', help='file for the figures')
    parser.add_argument(
        '--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--amp', action='store_true')
    parser.add_argument(
        '--batch-size', type=int, help='instead of that of the config')
    parser.add_argument(
        '--steps', type=int, default=5, help='after two that warm up')
    parser.add_argument(
        '--threads', type=int, help="of the CPU; by default PyTorch's choice")
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        default={},
        help='override settings of every config, key=value')
    return parser.parse_args()


# --------------------------------------------------------------------------
# Data
# --------------------------------------------------------------------------
def write_images(folder: str, number: int) -> List[str]:
    """Pictures of 455 x 256 pixels that compress about as photos do."""
    rng = np.random.default_rng(0)
    paths = []
    for i in range(number):
        image = sum(
            cv2.resize(
                rng.uniform(0, 128 / 2**k, (4 * 2**k, 7 * 2**k, 3)),
                (455, 256)) for k in range(6))
        paths.append(osp.join(folder, f'{i}.jpg'))
        cv2.imwrite(paths[-1], image.clip(0, 255).astype(np.uint8))
    return paths


def synthetic_clips(folder: str, number: int) -> Dict[str, Any]:
    """Prepared clips of ten seconds; settings of the data set."""
    rng = np.random.default_rng(0)
    rows = []
    for i, path in enumerate(write_images(folder, number)):
        audio = osp.join(folder, f'{i}.flac')
        wave = np.cumsum(rng.normal(0, 0.02, 240000))
        soundfile.write(audio, np.sin(wave), 24000, subtype='PCM_16')
        rows.append(
            dict(
                clip_id=str(i),
                frames=[dict(path=path, time=t) for t in np.linspace(1, 9, 9)],
                audio_path=audio,
                duration=10.))
    table = osp.join(folder, 'clips.json')
    dump_clip_table(rows, table)
    return dict(ann_file=table, data_root='', filter_cfg=None)


def synthetic_coco(folder: str, number: int) -> Dict[str, Any]:
    """Images with one box each; settings of the data set."""
    rng = np.random.default_rng(0)
    paths = write_images(folder, number)
    boxes = rng.uniform(20, 150, (number, 4)).round().tolist()
    path = osp.join(folder, 'coco.json')
    dump_json(
        dict(
            images=[
                dict(id=i, file_name=osp.basename(name), width=455, height=256)
                for i, name in enumerate(paths)
            ],
            annotations=[
                dict(
                    id=i,
                    image_id=i,
                    category_id=1,
                    bbox=box,
                    area=box[2] * box[3],
                    iscrowd=0) for i, box in enumerate(boxes)
            ],
            categories=[dict(id=1, name='thing')]), path)
    return dict(
        ann_file=path,
        data_root='',
        data_prefix=dict(img=folder),
        metainfo=dict(classes=('thing', )))


def with_data(loader: ConfigDict, folder: str) -> bool:
    """Give a loader's data set synthetic data if its own are missing."""
    dataset = loader.dataset
    while 'dataset' in dataset:  # RepeatDataset and the like
        dataset = dataset.dataset
    if osp.exists(
            osp.join(dataset.get('data_root') or '', dataset.ann_file)):
        return True
    make = (
        synthetic_clips if dataset.type.endswith('AudioVisualDataset') else
        synthetic_coco)
    dataset.update(make(folder, 2 * loader.batch_size))
    return False


def loading_times(loader: torch.utils.data.DataLoader) -> Dict[str, float]:
    """Milliseconds per item of the loader and of each transform."""
    dataset: BaseDataset = loader.dataset
    while hasattr(dataset, 'dataset'):
        dataset = dataset.dataset
    seconds: Dict[str, float] = defaultdict(float)
    number = 0
    for measured in (False, True):
        start = time.perf_counter()
        for batch in itertools.islice(loader, 2):
            number += measured * len(batch['data_samples'])
        seconds['data'] = time.perf_counter() - start
    for i in range(number):
        start = time.perf_counter()
        item = dataset.get_data_info(i % len(dataset))
        names = ['table']
        seconds['data_table'] += time.perf_counter() - start
        for transform in dataset.pipeline.transforms:
            start = time.perf_counter()
            item = transform(item)
            name = f'data_{type(transform).__name__}'
            while name in names:
                name += '_'
            names.append(name)
            seconds[name] += time.perf_counter() - start
            if item is None:  # no box is left: another image would follow
                break
    return {name: 1000 * s / number for name, s in seconds.items()}


# --------------------------------------------------------------------------
# Steps
# --------------------------------------------------------------------------
class Clock:
    """Exclusive seconds of nested calls, by stage.

    Args:
        device (torch.device): To wait for, where it is a GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.on = True
        self.restart()

    def restart(self) -> None:
        """Forget all times; the stage is ``other``."""
        self.seconds: Dict[str, float] = defaultdict(float)
        self.stage = 'other'
        self.wait()
        self.last = time.perf_counter()

    def wait(self) -> None:
        """Let the device finish."""
        if self.device.type == 'cuda':
            torch.cuda.synchronize(self.device)

    def change(self, stage: str) -> str:
        """Begin a stage; returns the one that ends."""
        self.wait()
        now, ended = time.perf_counter(), self.stage
        self.seconds[ended] += now - self.last
        self.stage, self.last = stage, now
        return ended

    def watch(self, owner: Any, name: str, stage: str) -> None:
        """Count calls of a method as a stage."""
        method = getattr(owner, name)

        @functools.wraps(method)
        def timed(*args, **kwargs):
            if not self.on:
                return method(*args, **kwargs)
            outer = self.change(stage)
            try:
                return method(*args, **kwargs)
            finally:
                self.change(outer)

        setattr(owner, name, timed)


def step_times(step: Callable[[], Any], clock: Clock, size: int,
               steps: int) -> Dict[str, float]:
    """Milliseconds per item of the stages and of whole steps."""
    found: Dict[str, List[float]] = defaultdict(list)
    for number in range(2 + steps):
        clock.restart()
        step()
        clock.change('other')
        for stage in STAGES:
            if number >= 2:
                found[stage].append(clock.seconds[stage])
    clock.on = False
    for _ in range(steps):
        clock.restart()
        step()
        clock.change('other')
        found['step'].append(clock.seconds['other'])
    return {
        name: 1000 * statistics.median(s) / size
        for name, s in found.items()
    }


def measure(path: str, args: argparse.Namespace) -> Dict[str, float]:
    """All figures of one config."""
    cfg = Config.fromfile(path)
    cfg.merge_from_dict(args.cfg_options)
    if args.amp:
        cfg.optim_wrapper.setdefault('dtype', 'bfloat16')
    set_up_amp(cfg, args.amp)
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    loader_cfg = cfg.train_dataloader
    if args.batch_size:
        loader_cfg.batch_size = args.batch_size
    loader_cfg.update(num_workers=0, persistent_workers=False)
    loader_cfg.pop('prefetch_factor', None)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        own = with_data(loader_cfg, folder)
        print(f'{osp.basename(path)}: {"its own" if own else "synthetic"} '
              f'data, batches of {loader_cfg.batch_size}, {args.device}')
        loader = Runner.build_dataloader(loader_cfg, seed=0)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # as in loader workers
        result = loading_times(loader)
        torch.set_num_threads(threads)
        batch = next(iter(loader))
    device = torch.device(args.device)
    model = MODELS.build(cfg.model).to(device).train()
    if getattr(model, 'cluster_head', None) is not None:
        model.self_labels = torch.randint(model.cluster_head.num_clusters,
                                          (len(loader.dataset), ))
    optim_wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    clock = Clock(device)
    for name, method, stage in CALLS:
        owner = getattr(model, name, None)
        if hasattr(owner, method):
            clock.watch(owner, method, stage)
    clock.watch(optim_wrapper, 'backward', 'backward')
    for method in ('step', 'zero_grad'):
        clock.watch(optim_wrapper, method, 'optimizer')
    size = len(batch['data_samples'])
    result.update(
        step_times(lambda: model.train_step(batch, optim_wrapper), clock,
                   size, args.steps))
    result['pairs_per_s'] = 1000 / result['step']
    result['loader_cores'] = result['data'] / result['step']
    if device.type == 'cuda':
        result['gpu_gb'] = torch.cuda.max_memory_allocated(device) / 1e9
        torch.cuda.reset_peak_memory_stats(device)
    return result


def show(results: Dict[str, Dict[str, float]]) -> None:
    """Print the table."""
    table = Table('ms per clip', *results, title='A training step')
    names = ['data', *STAGES, 'step', 'pairs_per_s', 'loader_cores', 'gpu_gb']
    names += sorted({k for r in results.values() for k in r} - {*names})
    table.columns[0].min_width = max(map(len, names))
    for column in table.columns[1:]:
        column.overflow = 'fold'
    for name in names:
        values = [r.get(name) for r in results.values()]
        if any(values):
            table.add_row(name, *('' if v is None else f'{v:.3g}'
                                  for v in values))
    Console().print(table)


def main() -> None:
    args = parse_args()
    flush_denormals()
    cv2.setNumThreads(0)
    if args.threads:
        torch.set_num_threads(args.threads)
    results = {
        osp.splitext(osp.basename(path))[0]: measure(path, args)
        for path in args.configs
    }
    show(results)
    if args.json:
        os.makedirs(osp.dirname(osp.abspath(args.json)), exist_ok=True)
        dump_json(
            {
                f'{config}/{name}': float(f'{value:.4g}')
                for config, result in results.items()
                for name, value in result.items()
            },
            args.json,
            indent=1)


if __name__ == '__main__':
    main()
