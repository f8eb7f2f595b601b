r"""Detection AP of many images and clusters, against pycocotools.

    python tools/benchmarks/evaluation.py --json work_dirs/evaluation.json

Random detections of as many clusters as classes go through
``MatchedCocoMetric`` as those of a detector do, with five matchings
(Hungarian, majority, manual groups, 1-shot and 10-shot; all but the first
give one class to several clusters) and class-agnostically:

- seconds: of ``process`` for all images and of ``compute_metrics``, in a
  fresh process with --threads threads;
- process_seconds, compute_seconds: its two parts;
- peak_gb: largest resident set of that process, with its libraries and the
  samples it was given; inputs_gb: what it had before the first ``process``;
- speedup_vs_pycocotools: time of pycocotools / ours, backends of the same
  ``DetectionEvaluator`` from the same arrays to the precision table, for
  *one* one-to-one matching, class-aware. Measured with --reference-images
  images, since pycocotools takes time and memory for every pair of an image
  and a class: at full size 50 times as long, and some 20 GB, for each of
  the matchings (``--full-reference`` measures just that). Ours is the
  median of 5 runs;
- speedup_vs_faster_coco_eval: the same for the optional package, if it is
  installed;
- agnostic_speedup: the same for class-agnostic figures;
- reference_seconds, reference_ours_seconds: the times of the first ratio;
- max_difference: largest difference of any precision from pycocotools', at
  11 IoU thresholds x 101 recalls x classes.
"""
import argparse
import importlib.util
import resource
import tempfile
import time
from typing import Dict, List

import numpy as np
import torch

from avdet_mm.evaluation.functional.detection import DetectionEvaluator
from avdet_mm.evaluation.metrics import MatchedCocoMetric
from avdet_mm.testing.benchmark import in_process, report
from avdet_mm.utils import dump_json

# Its memory does not count.
PRELOAD = ['avdet_mm.evaluation.metrics']

MATCHINGS = ('hungarian', 'majority', 'manual', '1-shot', '10-shot')
SIDE = 640.


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--json', help='file for the figures')
    parser.add_argument('--images', type=int, default=100000)
    parser.add_argument(
        '--clusters', type=int, default=300, help='and classes')
    parser.add_argument(
        '--detections', type=int, default=10, help='of each image')
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument(
        '--reference-images',
        type=int,
        default=2000,
        help='images that pycocotools evaluates; by default %(default)s')
    parser.add_argument(
        '--full-reference',
        action='store_true',
        help='pycocotools evaluates all images')
    return parser.parse_args()


def make_boxes(num_images: int, num_clusters: int,
               per_image: int) -> Dict[str, np.ndarray]:
    """Objects (1 to 4 per image) and detections of noisy place and class.

    Most images have one or two classes, as sounding objects do. Of an
    image's detections about half are near an object, most of them with its
    cluster; the others are anywhere, and less confident.
    """
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 5, num_images)
    gt_images = np.repeat(np.arange(num_images), counts)
    size = rng.uniform(40, 360, (len(gt_images), 2))
    low = rng.uniform(0, SIDE - size)
    gt_boxes = np.concatenate([low, low + size], axis=1)
    main = rng.integers(0, num_clusters, num_images)
    gt_classes = np.where(
        rng.random(len(gt_images)) < 0.6, main[gt_images],
        rng.integers(0, num_clusters, len(gt_images)))

    images = np.repeat(np.arange(num_images), per_image)
    num = len(images)
    first = np.cumsum(counts) - counts
    near = first[images] + rng.integers(0, counts[images])
    hit = rng.random(num) < 0.5
    noise = rng.normal(0, rng.uniform(2, 50, (num, 1)), (num, 4))
    boxes = gt_boxes[near] + noise
    size = rng.uniform(20, 300, (num, 2))
    low = rng.uniform(0, SIDE - size)
    boxes = np.where(hit[:, None], boxes,
                     np.concatenate([low, low + size], axis=1))
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    labels = np.where(hit & (rng.random(num) < 0.7), gt_classes[near],
                      rng.integers(0, num_clusters, num))
    # Rounded as if sorted into bins, so that some scores are equal.
    scores = np.round(rng.beta(1 + 2 * hit, 3), 4)
    return dict(
        gt_images=gt_images,
        gt_boxes=gt_boxes.astype(np.float32),
        gt_classes=gt_classes,
        images=images,
        boxes=boxes.astype(np.float32),
        scores=scores.astype(np.float32),
        labels=labels)


def xywh(boxes: np.ndarray) -> np.ndarray:
    boxes = boxes.astype(np.float64)
    boxes[:, 2:] -= boxes[:, :2]
    return boxes


def write_inputs(folder: str, data: Dict[str, np.ndarray], num_images: int,
                 num_clusters: int) -> None:
    """COCO json of the ground truth and json of the matchings."""
    names = [f'class_{c}' for c in range(num_clusters)]
    rows = zip(data['gt_images'].tolist(),
               xywh(data['gt_boxes']).tolist(), data['gt_classes'].tolist())
    dump_json(
        dict(
            images=[dict(id=i) for i in range(num_images)],
            categories=[dict(id=c, name=n) for c, n in enumerate(names)],
            annotations=[
                dict(id=i, image_id=image, bbox=box, category_id=c)
                for i, (image, box, c) in enumerate(rows, 1)
            ]), f'{folder}/gt.json')
    rng = np.random.default_rng(1)
    clusters = np.arange(num_clusters)
    maps = dict(hungarian=clusters, manual=clusters // 3 * 3)
    for name, share in (('majority', 0.1), ('1-shot', 0.4), ('10-shot', 0.2)):
        maps[name] = np.where(
            rng.random(num_clusters) < share,
            rng.integers(0, num_clusters, num_clusters), clusters)
    dump_json(
        dict(
            classes=names,
            num_clusters=num_clusters,
            matchings={
                name: {str(k): names[c]
                       for k, c in enumerate(maps[name])}
                for name in MATCHINGS
            }), f'{folder}/matching.json')


def peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def evaluate(folder: str, num_images: int, num_clusters: int, per_image: int,
             threads: int) -> Dict[str, float]:
    """All matchings at full size; for a fresh process."""
    torch.set_num_threads(threads)
    data = make_boxes(num_images, num_clusters, per_image)
    predictions = [
        torch.from_numpy(data[key]).view(num_images, per_image, *shape)
        for key, shape in (('boxes', (4, )), ('scores', ()), ('labels', ()))
    ]
    del data
    # Made before, since the detector makes them, not the metric.
    samples = [
        dict(
            img_id=i,
            pred_instances=dict(bboxes=boxes, scores=scores, labels=labels))
        for i, (boxes, scores, labels) in enumerate(zip(*predictions))
    ]
    metric = MatchedCocoMetric(f'{folder}/gt.json', f'{folder}/matching.json')
    inputs_gb = peak_gb()
    start = time.perf_counter()
    for sample in samples:
        metric.process({}, [sample])
    middle = time.perf_counter()
    figures = metric.evaluate(num_images)
    end = time.perf_counter()
    assert len(figures) == 3 * (len(MATCHINGS) + 1)
    return dict(
        seconds=end - start,
        process_seconds=middle - start,
        compute_seconds=end - middle,
        peak_gb=peak_gb(),
        inputs_gb=inputs_gb,
        **{key.replace('coco/', ''): figures[key]
           for key in ('coco/AP30', 'coco/AP50', 'coco/AP',
                       'coco/majority_AP50', 'coco/agnostic_AP50')})


def precision_tables(backend: str, num_images: int, num_clusters: int,
                     per_image: int) -> List[object]:
    """Class-aware and agnostic precision, and the seconds of both."""
    data = make_boxes(num_images, num_clusters, per_image)
    crowd = np.zeros(len(data['gt_images']), dtype=bool)
    gt_boxes, boxes = xywh(data['gt_boxes']), xywh(data['boxes'])
    result: List[object] = []
    for args in ((data['labels'], data['gt_classes'], num_clusters), ()):
        seconds = []
        # Other programs disturb short times more.
        for _ in range(1 if backend == 'pycocotools' else 5):
            start = time.perf_counter()
            evaluator = DetectionEvaluator(
                data['gt_images'],
                gt_boxes,
                crowd,
                data['images'],
                boxes,
                data['scores'],
                num_images,
                backend=backend)
            precision = evaluator.precision(*args)
            seconds.append(time.perf_counter() - start)
        result += [precision, float(np.median(seconds))]
    return [*result, peak_gb()]



def measure(args: argparse.Namespace) -> Dict[str, float]:
    """All figures."""
    sizes = args.images, args.clusters, args.detections
    with tempfile.TemporaryDirectory() as folder:
        write_inputs(folder, make_boxes(*sizes), *sizes[:2])
        print(f'{sizes[0]} images x {sizes[1]} clusters x {sizes[2]} '
              'detections, all matchings')
        result = in_process(
            evaluate, folder, *sizes, args.threads, preload=PRELOAD)

    number = args.images if args.full_reference else min(
        args.reference_images, args.images)
    print(f'One matching, {number} images')
    tables = {
        name: in_process(
            precision_tables, name, number, *sizes[1:], preload=PRELOAD)
        for name in ('numpy', 'pycocotools', 'faster_coco_eval')
        if name != 'faster_coco_eval' or importlib.util.find_spec(name)
    }
    aware, ours, agnostic, ours_agnostic, _ = tables['numpy']
    other, seconds, other_agnostic, agnostic_seconds, gb = tables[
        'pycocotools']
    differences = [
        np.abs(a - b)[~np.isnan(b)].max(initial=0)
        for a, b in ((aware, other), (agnostic, other_agnostic))
    ]
    assert np.array_equal(np.isnan(aware), np.isnan(other))
    result.update(
        speedup_vs_pycocotools=seconds / ours,
        agnostic_speedup=agnostic_seconds / ours_agnostic,
        reference_images=number,
        reference_seconds=seconds,
        reference_ours_seconds=ours,
        reference_peak_gb=gb,
        max_difference=max(differences))
    if 'faster_coco_eval' in tables:
        result['speedup_vs_faster_coco_eval'] = (
            tables['faster_coco_eval'][1] / ours)
    return result


def main() -> None:
    args = parse_args()
    result = {key: float(f'{v:.4g}') for key, v in measure(args).items()}
    report(result, args.json)


if __name__ == '__main__':
    main()
