"""Make ground truth for clips with a trained detector.

Runs any detector of MMDetection, given by config and checkpoint, on frames of
clips and takes its confident detections for ground truth, as the paper does
with the detector of CoSep to evaluate on VGGSound (Sec. 4.1; that detector
itself is no MMDetection model, for its files of detections see
cosep_detections.py). The paper's threshold is not known ("high confidence");
the defaults, a score above 0.9 and no overlap above 0.7, are those by which
CoSep cleans its detections.

--class-map says which class of the detector is which test class: the name or
path of a label map (see avdet_mm/datasets/label_maps), a json like
{"classes": ["Drum", "Guitar"],
 "mapping": {"snare drum": "Drum", "bongo": "Drum", "guitar": "Guitar"}}.
Other classes of the detector are left out. openimages_instruments fits
detectors of OpenImages. Without it all classes stay as they are.

By default, the middle frame of each clip is labeled, and frames without a
confident detection are left out: nothing is known about them. Frames of
videos are written to <out>_images, prepared ones are used where they are.

A detector does not hear: the boxes are of all objects that are visible,
whether they sound or not.

Example:
    python tools/dataset_converters/pseudo_ground_truth.py \\
        faster-rcnn_r50_fpn_32xb2-1x_openimages.py \\
        faster_rcnn_openimages.pth --clips data/vggsound_test.json \\
        --class-map openimages_instruments --out data/vggsound_test_gt.json

It writes data/vggsound_test_gt.json, a clip table with "instances",
data/vggsound_test_gt_coco.json, the same for detectors (file names are
relative to its folder), and data/vggsound_test_gt_coverage.json.
"""
import argparse
import os.path as osp
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint
from rich.progress import track

from avdet_mm.datasets.clip_size import clip_duration
from avdet_mm.datasets.conversion import find_media
from avdet_mm.datasets.frame_boxes import (
    LabeledFrame,
    keep_best,
    pick_times,
    prepared_frames,
    save_frame,
    write_labeled_frames,
)
from avdet_mm.datasets.media import (
    BrokenClipError,
    decode_frame,
    open_video,
    read_image,
)
from avdet_mm.datasets.metainfo import load_label_map
from avdet_mm.utils import file_sha256


class Frame(NamedTuple):
    """A frame to label; ``path`` is None for one of a video."""
    row: dict
    time: float
    path: Optional[str]
    image: np.ndarray


class Detector:
    """A detector of MMDetection with its test pipeline.

    Args:
        config (str): Its config.
        checkpoint (str): Its weights.
        device (str): Where to run it.

    Raises:
        ValueError: If neither the checkpoint nor the config tells the names
            of the classes.
    """

    def __init__(self, config: str, checkpoint: str, device: str) -> None:
        # Here, so that --help needs no compiled operators of MMCV.
        from mmdet.registry import DATASETS, MODELS
        from mmdet.utils import get_test_pipeline_cfg, register_all_modules
        cfg = Config.fromfile(config)
        register_all_modules(init_default_scope=False)
        init_default_scope(cfg.get('default_scope', 'mmdet'))
        self.model = revert_sync_batchnorm(MODELS.build(cfg.model))
        meta = load_checkpoint(
            self.model, checkpoint, map_location='cpu').get('meta', {})
        self.model.to(device).eval()
        pipeline = get_test_pipeline_cfg(cfg.copy())
        pipeline[0].type = 'mmdet.LoadImageFromNDArray'
        self.pipeline = Compose(pipeline)

        # Newer checkpoints, older ones, then the config.
        meta = {k.lower(): v for k, v in meta.items()}
        names = {
            k.lower(): v
            for k, v in (meta.get('dataset_meta') or {}).items()
        }.get('classes') or meta.get('classes')
        if not names:
            dataset = cfg.test_dataloader.dataset
            while 'dataset' in dataset or 'datasets' in dataset:  # wrappers
                dataset = dataset.get('dataset') or dataset.datasets[0]
            names = dataset.get('metainfo', {}).get('classes')
            kind = DATASETS.get(dataset.type)
            names = names or getattr(kind, 'METAINFO', {}).get('classes')
        if not names:
            raise ValueError(
                f'Neither {checkpoint} nor {config} tells the names of the '
                'classes; set test_dataloader.dataset.metainfo in the '
                'config.')
        self.names = [names] if isinstance(names, str) else list(names)

    @torch.no_grad()
    def __call__(
            self,
            images: Sequence[np.ndarray]) -> List[Dict[str, np.ndarray]]:
        """Detect objects.

        Args:
            images (Sequence[np.ndarray]): Of (h, w, 3) uint8 BGR.

        Returns:
            list[dict]: ``bboxes`` (n, 4) in pixels of the image, ``scores``
            (n, ) and ``labels`` (n, ) for each.

        Raises:
            ValueError: If there are more classes than names.
        """
        batch = pseudo_collate(
            [self.pipeline(dict(img=i, img_id=0)) for i in images])
        results = []
        for sample in self.model.test_step(batch):
            found = sample.pred_instances
            results.append({
                key: found[key].cpu().numpy()
                for key in ('bboxes', 'scores', 'labels')
            })
            if (results[-1]['labels'] >= len(self.names)).any():
                raise ValueError(
                    f'The detector found class {found.labels.max()}, but has '
                    f'{len(self.names)} names of classes. Set '
                    'test_dataloader.dataset.metainfo in the config and '
                    'remove those in the checkpoint.')
        return results


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help="the detector's config")
    parser.add_argument('checkpoint', help="the detector's weights")
    parser.add_argument(
        '--clips',
        required=True,
        help='a clip table, the output folder of tools/prepare_clips.py, or a '
        'folder of videos')
    parser.add_argument(
        '--out', required=True, help='clip table (json) to write')
    parser.add_argument(
        '--class-map', help='label map from classes of the detector')
    parser.add_argument(
        '--score-thr',
        type=float,
        default=0.9,
        help='score that detections have to exceed (default: 0.9)')
    parser.add_argument(
        '--max-overlap',
        type=float,
        default=0.7,
        help='intersection over union with a better detection of any class '
        'of the class map (default: 0.7)')
    parser.add_argument(
        '--frames-per-clip',
        type=int,
        default=1,
        help='frames, spread evenly (default: 1, the middle one)')
    parser.add_argument(
        '--keep-empty',
        action='store_true',
        help='keep frames without a confident detection')
    parser.add_argument(
        '--device',
        default='cuda:0' if torch.cuda.is_available() else 'cpu',
        help='where the detector runs (default: the first GPU, or else cpu)')
    parser.add_argument(
        '--batch-size', type=int, default=8, help='default: 8')
    parser.add_argument(
        '--workers',
        type=int,
        default=4,
        help='threads that read frames (default: 4)')
    return parser.parse_args()


def map_classes(names: Sequence[str],
                class_map: Optional[str]) -> Tuple[List[str], Dict[int, str]]:
    """Which class of the detector is which class of the ground truth.

    Args:
        names (Sequence[str]): Classes of the detector.
        class_map (str, optional): A label map.

    Returns:
        tuple: Classes of the ground truth, and the one of each index of
        ``names``, where there is one.

    Raises:
        ValueError: If the detector has not all classes of the map.
    """
    if class_map is None:
        return list(names), dict(enumerate(names))
    label_map = load_label_map(class_map)
    mapping = label_map.mapping or dict(
        zip(label_map.classes, label_map.classes))
    spelled = [label_map.aliases.get(name, name) for name in names]
    lacking = [name for name in mapping if name not in spelled]
    if lacking:
        raise ValueError(
            f'The detector has no class {", ".join(map(repr, lacking))} of '
            f'{class_map}. Its classes are {", ".join(names)}.')
    return list(label_map.classes), {
        i: mapping[name]
        for i, name in enumerate(spelled) if name in mapping
    }


def read_frames(row: dict, out: str, number: int) -> List[Frame]:
    """Read the frames of a clip that are to be labeled.

    Args:
        row (dict): The clip.
        out (str): The table that it goes to.
        number (int): How many frames.

    Returns:
        list[Frame]: In ascending order of time.

    Raises:
        BrokenClipError: If one cannot be read.
    """
    folder = osp.dirname(out)
    duration = clip_duration(row, out)
    prepared = prepared_frames(row)
    if prepared:
        return [
            Frame(row, time, prepared[time],
                  read_image(osp.join(folder, prepared[time])))
            for time in pick_times(list(prepared), duration, number)
        ]
    with open_video(osp.join(folder, row['video_path'])) as container:
        times = [
            round(duration * (i + 0.5) / number, 3) for i in range(number)
        ]
        return [
            Frame(row, time, None,
                  decode_frame(container, time)[0]) for time in times
        ]


def confident(found: Dict[str, np.ndarray], names: Dict[int, str],
              score_thr: float, max_overlap: float, height: int,
              width: int) -> List[dict]:
    """Detections that are good enough for ground truth.

    Args:
        found (dict): Of one image, from :class:`Detector`.
        names (dict[int, str]): Class of the ground truth for labels.
        score_thr (float): Score that they have to exceed.
        max_overlap (float): See :func:`keep_best`.
        height (int): Of the image.
        width (int): Of the image.

    Returns:
        list[dict]: ``bbox`` [x1, y1, x2, y2] in pixels inside the image,
        ``label`` and ``score``, by descending score.
    """
    size = np.array([width, height] * 2)
    boxes = found['bboxes'].astype(np.float64).clip(0, size)
    keep = (found['scores'] > score_thr) & np.isin(found['labels'],
                                                   list(names))
    keep &= (boxes[:, 2:] - boxes[:, :2] >= 1).all(axis=1)
    at = np.flatnonzero(keep)
    at = at[keep_best(boxes[at], found['scores'][at], max_overlap)]
    at = at[np.argsort(-found['scores'][at], kind='stable')]
    return [
        dict(
            bbox=[round(x, 2) for x in boxes[i].tolist()],
            label=names[int(found['labels'][i])],
            score=round(float(found['scores'][i]), 4)) for i in at
    ]


def main() -> None:
    """Run the tool."""
    args = parse_args()
    if min(args.frames_per_clip, args.batch_size, args.workers) < 1:
        raise ValueError('--frames-per-clip, --batch-size and --workers have '
                         'to be 1 or more.')
    for path in (args.config, args.checkpoint):
        if not osp.isfile(path):
            raise FileNotFoundError(f'There is no file {path!r}.')
    clips = find_media(args.clips, args.out)
    if not clips:
        raise ValueError(f'There are no clips in {args.clips}.')
    detector = Detector(args.config, args.checkpoint, args.device)
    classes, names = map_classes(detector.names, args.class_map)
    labels: Dict[str, List[str]] = {row['clip_id']: [] for row in clips}
    frames: List[LabeledFrame] = []
    reasons: Dict[str, str] = {}

    def read(row: dict) -> Union[List[Frame], BrokenClipError]:
        try:
            return read_frames(row, args.out, args.frames_per_clip)
        except BrokenClipError as error:
            return error

    def label(batch: List[Frame]) -> None:
        for frame, found in zip(batch, detector([f.image for f in batch])):
            height, width = frame.image.shape[:2]
            instances = confident(found, names, args.score_thr,
                                  args.max_overlap, height, width)
            if not instances and not args.keep_empty:
                continue
            clip_id = frame.row['clip_id']
            path = frame.path
            if path is None:
                try:
                    path = save_frame(frame.image, args.out, frame.row,
                                      frame.time)
                except BrokenClipError as error:
                    reasons[clip_id] = error.reason
                    continue
            labels[clip_id] += [x['label'] for x in instances]
            frames.append(
                LabeledFrame(frame.row, frame.time, path, height, width,
                             instances))

    # Few clips at a time: their frames are all in memory.
    chunk = max(args.batch_size, args.workers)
    with ThreadPoolExecutor(args.workers) as pool:
        for start in track(
                range(0, len(clips), chunk), 'Detecting objects'):
            waiting: List[Frame] = []
            rows = clips[start:start + chunk]
            for row, result in zip(rows, pool.map(read, rows)):
                if isinstance(result, BrokenClipError):
                    reasons[row['clip_id']] = result.reason
                else:
                    waiting += result
            for i in range(0, len(waiting), args.batch_size):
                label(waiting[i:i + args.batch_size])

    found = {frame.row['clip_id'] for frame in frames}
    for clip_id in labels.keys() - found - reasons.keys():
        reasons[clip_id] = 'no confident detection'
    if not frames:
        counts = sorted((r, list(reasons.values()).count(r))
                        for r in set(reasons.values()))
        raise ValueError(
            f'None of the {len(clips)} clips of {args.clips} gives ground '
            'truth: ' + '; '.join(f'{n} {r}' for r, n in counts) + '.')
    write_labeled_frames(
        args.out, frames, classes, labels, found, reasons,
        dict(
            source='detector',
            config=osp.basename(args.config),
            config_sha256=file_sha256(args.config),
            checkpoint=osp.basename(args.checkpoint),
            checkpoint_sha256=file_sha256(args.checkpoint),
            detector_classes={detector.names[i]: n
                              for i, n in names.items()},
            score_thr=args.score_thr,
            max_overlap=args.max_overlap,
            frames_per_clip=args.frames_per_clip,
            keep_empty=args.keep_empty))


if __name__ == '__main__':
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(f'error: {error}')
