"""Write the labels of a self-training round with a trained detector.

Reads self-labels (COCO json of PseudoLabelHook, of
tools/generate_pseudo_labels.py or of an earlier round), runs the detector
that was trained on them over their images, and writes a json of the same
layout for the next training. It is beyond the paper;
``avdet_mm.apis.next_labels`` has the rule.

    python tools/self_training_labels.py CONFIG work_dirs/NAME/epoch_N.pth \\
        work_dirs/joint/self_labels.json work_dirs/joint/self_labels_r1.json
    python tools/train.py CONFIG --work-dir work_dirs/NAME_r1 --cfg-options \\
        train_dataloader.dataset.ann_file=work_dirs/joint/self_labels_r1.json

File names of images stay what they are: relative to the data_prefix of the
config's training images.
"""
import argparse
import os.path as osp
import sys
from typing import Dict, List

import numpy as np
from mmengine.dist import is_main_process

from avdet_mm.apis import detect, label_dataloader, next_labels
from avdet_mm.datasets.clip_table import iter_clip_table
from avdet_mm.evaluation.functional import box_iou
from avdet_mm.evaluation.metrics.ground_truth import load_coco_json
from avdet_mm.utils import dump_json, file_sha256
from avdet_mm.utils.cli import (
    check_checkpoint,
    load_config,
    load_runner,
    runner_parser,
)

MIN_IOU = 0.5


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = runner_parser(__doc__)
    parser.add_argument('checkpoint', help='checkpoint of the detector')
    parser.add_argument('labels', help='json of the labels of this round')
    parser.add_argument('out', help='json to write, of the next round')
    parser.add_argument(
        '--anchor-thr',
        type=float,
        default=0.05,
        help="least score of the detection of a clip's own cluster that "
        'replaces its self-box (default: %(default)s)')
    parser.add_argument(
        '--score-thr',
        type=float,
        default=0.8,
        help='least score of detections that are added (default: '
        '%(default)s)')
    parser.add_argument(
        '--max-boxes',
        type=int,
        help='add none to a frame that has so many boxes; 1: only replace '
        'self-boxes (default: no limit)')
    parser.add_argument(
        '--clips',
        help='clip table of the training clips with "instances"; only to '
        'print how many labels are on objects, before and after')
    args = parser.parse_args()
    check_checkpoint(parser, args.checkpoint)
    if osp.realpath(args.labels) == osp.realpath(args.out):
        parser.error('the labels of the next round need a file of their own: '
                     'a repeated call would make one more round of them')
    return args


def read_objects(path: str, labels: dict) -> Dict[str, List[dict]]:
    """Read the objects of the clips that the labels name.

    Args:
        path (str): Clip table.
        labels (dict): COCO json whose images have a ``clip_id``.

    Returns:
        dict[str, list[dict]]: Clip id -> its instances.

    Raises:
        ValueError: If images have no clip, a clip is not in the table, or
            no clip has objects.
    """
    if any('clip_id' not in image for image in labels['images']):
        raise ValueError(
            'Images of the labels have no clip_id, so they cannot be found '
            f'in {path}; leave out --clips.')
    clips = {image['clip_id'] for image in labels['images']}
    rows = {
        row['clip_id']: row.get('instances') or []
        for row in iter_clip_table(path)[1] if row['clip_id'] in clips
    }
    if len(rows) < len(clips):
        raise ValueError(
            f'{len(clips) - len(rows)} of the {len(clips)} labeled clips are '
            f'not in {path} (such as {min(clips - set(rows))!r}); give the '
            'table that the self-labels were generated from.')
    if not any(rows.values()):
        raise ValueError(f'No clip in {path} has "instances", so labels '
                         'cannot be compared with objects; leave out --clips.')
    return rows


def count_right(labels: dict, objects: Dict[str, List[dict]]) -> dict:
    """Count labels that are on objects, in clips that have objects.

    Args:
        labels (dict): COCO json of labels.
        objects (dict[str, list[dict]]): Of :func:`read_objects`.

    Returns:
        dict[str, int]: ``own``, boxes of what is heard, and ``own_right``,
        those whose IoU with a sounding object is at least 0.5; ``added``,
        the others, and ``added_right``, those of IoU at least 0.5 with an
        object, sounding or not, that no box before is on.
    """
    boxes: Dict[int, List[dict]] = {}
    for ann in labels['annotations']:
        boxes.setdefault(ann['image_id'], []).append(ann)
    counts = dict(own=0, own_right=0, added=0, added_right=0)
    for image in labels['images']:
        found = objects[image['clip_id']]
        if not found:
            continue
        bboxes = np.array([x['bbox'] for x in found], float)
        sounding = np.array([x.get('sounding', True) for x in found], bool)
        free = np.ones(len(found), bool)
        # Own boxes come first in the json, then the added by their score.
        for ann in boxes.get(image['id'], []):
            x, y, width, height = ann['bbox']
            iou = box_iou([x, y, x + width, y + height], bboxes)[0]
            kind = 'added' if ann.get('added') else 'own'
            eligible = free if kind == 'added' else sounding
            best = np.where(eligible, iou, 0.).argmax()
            right = eligible[best] and iou[best] >= MIN_IOU
            counts[kind] += 1
            counts[f'{kind}_right'] += int(right)
            # What is labeled already does not count again.
            free &= iou < MIN_IOU
    return counts


def show_right(name: str, counts: dict) -> None:
    """Print the counts of :func:`count_right`."""
    print(f'{name}: {share(counts["own_right"], counts["own"])} boxes of '
          f'what is heard have an IoU >= {MIN_IOU} with the sounding object')
    if counts['added']:
        print(f'{name}: {share(counts["added_right"], counts["added"])} '
              f'added boxes have an IoU >= {MIN_IOU} with an object that has '
              'no other box')


def share(part: int, whole: int) -> str:
    """A part of a whole in words."""
    percent = f' ({100 * part / whole:.1f} %)' if whole else ''
    return f'{part} of {whole}{percent}'


def main() -> None:
    """Run the tool."""
    args = parse_args()
    cfg = load_config(args)
    labels = load_coco_json(args.labels,
                            ('images', 'annotations', 'categories'))
    objects = args.clips and read_objects(args.clips, labels)
    rule = dict(
        anchor_thr=args.anchor_thr,
        score_thr=args.score_thr,
        max_boxes=args.max_boxes)
    # Tells what is wrong with labels or options before the detector runs.
    nothing = dict(bboxes=[], scores=[], labels=[])
    next_labels(labels, {i['id']: nothing for i in labels['images']}, **rule)
    dataloader = label_dataloader(cfg, osp.abspath(args.labels),
                                  [c['name'] for c in labels['categories']])
    runner = load_runner(cfg, args.checkpoint)
    detections = detect(runner.model, runner.build_dataloader(dataloader),
                        min(args.anchor_thr, args.score_thr))
    if not is_main_process():
        return
    result = next_labels(
        labels,
        detections,
        **rule,
        info=dict(
            config=args.config,
            checkpoint=args.checkpoint,
            checkpoint_sha256=file_sha256(args.checkpoint),
            labels=args.labels,
            labels_sha256=file_sha256(args.labels)))
    dump_json(result, args.out)
    info = result['info']
    counts = info['counts']
    print(f'Round {info["round"]}: of {counts["images"]} images '
          f'{counts["replaced"]} have a detection instead of their self-box, '
          f'{counts["kept"]} keep it, {counts["without_self_box"]} had none; '
          f'{counts["added"]} boxes added.')
    if objects:
        show_right('Before', count_right(labels, objects))
        show_right('After', count_right(result, objects))
    print(f'Wrote {args.out}')


if __name__ == '__main__':
    try:
        main()
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f'error: {error}')
