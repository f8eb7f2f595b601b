"""What predictors that look at nothing reach under localization protocols.

The whole frame, centered boxes of several sides, and a heatmap that falls
from the center: whoever reads a figure of SoundLocalizationMetric should
know these. On DSOL's frames of AudioSet a centered box is level with several
methods of the paper's Table 2.

ANNOTATIONS is DSOL's audioset_box.json, VGG-SS's vggss.json, or a clip table
with instances. Prints a Markdown table in percent; a column per figure. A
box is a map of zeros and ones, of which EZ-VSL's protocols can make nothing.

Example:
    python tools/analysis_tools/trivial_localization.py audioset_box.json
"""
import argparse
import sys
from typing import Dict, Hashable, Iterator, List, Tuple

import numpy as np
from mmengine.fileio import load

from avdet_mm.datasets.clip_size import frame_size
from avdet_mm.datasets.clip_table import load_clip_table
from avdet_mm.datasets.media import BrokenClipError
from avdet_mm.evaluation.functional import (
    PROTOCOLS,
    binarize,
    box_map,
    class_iou,
    grid_boxes,
    protocol_figures,
    pseudo_heatmap,
    weighted_iou,
)
from avdet_mm.evaluation.functional.localization import GRID

# Boxes on the grid (n, 4), and the class of each.
Frame = Tuple[np.ndarray, List[Hashable]]


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('annotations', help='json file')
    parser.add_argument(
        '--sides',
        type=float,
        nargs='+',
        default=[0.5, 0.6, 0.7, 0.8, 0.9],
        help='sides of centered boxes, as shares of the frame')
    parser.add_argument(
        '--single-thr',
        type=float,
        default=0.1,
        help='dsol_single: share of the maximum (heatmaps only)')
    parser.add_argument('--multi-thr', type=float, default=0.2)
    args = parser.parse_args()
    if not all(0 < side <= 1 for side in args.sides):
        parser.error('--sides are shares of the frame, above 0 and at most 1')
    return args


def read_frames(path: str) -> Tuple[List[Frame], bool]:
    """Frames of any of the formats.

    Args:
        path (str): The file.

    Returns:
        tuple: The frames, and whether their boxes are annotators' votes.

    Raises:
        ValueError: If the file is of no known form.
    """
    content = load(path)
    try:
        if isinstance(content, list):
            return list(vggss_frames(content)), False
        if 'data_list' not in content:
            return list(dsol_frames(content)), False
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f'{path} is none of audioset_box.json, vggss.json and a clip '
            f'table ({type(error).__name__}: {error}).') from error
    _, rows = load_clip_table(path)
    votes = any('annotator' in i for r in rows for i in r.get('instances', ()))
    return list(table_frames(rows, path)), votes


def dsol_frames(content: Dict[str, dict]) -> Iterator[Frame]:
    """Frames of audioset_box.json: x, y, w, h in shares of the frame."""
    for entry in content.values():
        boxes = np.array([b['normbox'] for b in entry['bbox']], np.float64)
        # Scaled before the sum, as DSOL does.
        boxes = boxes.reshape(-1, 4) * GRID
        boxes[:, 2:] += boxes[:, :2]
        yield on_grid(boxes, [b['category'] for b in entry['bbox']],
                      (GRID, GRID))


def vggss_frames(content: List[dict]) -> Iterator[Frame]:
    """Frames of vggss.json: x1, y1, x2, y2 in shares of the frame."""
    for entry in content:
        boxes = np.array(entry['bbox'], np.float64)
        yield on_grid(boxes, [entry['class']] * len(boxes), (1, 1))


def table_frames(rows: List[dict], path: str) -> Iterator[Frame]:
    """Frames of a clip table."""
    for row in rows:
        found = [
            i for i in row.get('instances', ()) if i.get('sounding', True)
        ]
        boxes = np.array([i['bbox'] for i in found], np.float64)
        yield on_grid(boxes, [i['label'] for i in found],
                      frame_size(row, path))


def on_grid(boxes: np.ndarray, classes: List[Hashable],
            img_shape: Tuple[float, float]) -> Frame:
    """Boxes of a frame that are good, on the grid."""
    boxes, kept = grid_boxes(boxes, img_shape)
    return boxes, [c for c, k in zip(classes, kept) if k]


def predictors(sides: List[float]) -> Dict[str, np.ndarray]:
    """Maps (224, 224) in [0, 1] by name; the last is no map of boxes."""
    maps = {'whole frame': np.ones((GRID, GRID), np.float32)}
    for side in sides:
        box = [[(1 - side) / 2] * 2 + [(1 + side) / 2] * 2]
        maps[f'centered box, side {side:g}'] = pseudo_heatmap(
            grid_boxes(np.array(box), (1, 1))[0])
    axis = (np.arange(GRID) + 0.5) / GRID - 0.5
    distance = np.hypot(axis, axis[:, None])
    maps['heatmap: nearness to the center'] = (
        1 - distance / distance.max()).astype(np.float32)
    return maps


def measure(frames: List[Frame], maps: Dict[str, np.ndarray],
            names: List[str], thrs: Dict[str, float]) -> Dict[str, dict]:
    """Figures of all maps under some protocols.

    Args:
        frames (list): Frames.
        maps (dict): Of :func:`predictors`.
        names (list[str]): Protocols.
        thrs (dict[str, float]): Shares of the maximum, for DSOL's.

    Returns:
        dict[str, dict]: Protocol to ``frames`` (their number) and, for each
        map by name, its figures; None where the protocol refuses it.
    """
    result = {}
    for name in names:
        protocol = PROTOCOLS[name]
        masks = {}
        for key, values in maps.items():
            binary = not key.startswith('heatmap')
            masks[key] = None if (
                binary and protocol.evaluator == 'ez_vsl') else binarize(
                    values, protocol.evaluator, thrs.get(name))
        ious = {key: [] for key in masks}
        number = 0
        for boxes, classes in frames:
            found = min(len(set(classes)), 2)
            if found != (protocol.num_classes or found) or not (
                    found or protocol.empty_counts):
                continue
            number += 1
            if name == 'dsol_multi':
                array = np.array(classes, object)
                truth = {c: box_map(boxes[array == c]) for c in set(classes)}
            else:
                truth = box_map(boxes, protocol.consensus)
            for key, mask in masks.items():
                if mask is None:
                    continue
                ious[key].append(
                    class_iou(dict.fromkeys(truth, mask), truth) if name ==
                    'dsol_multi' else weighted_iou(mask, truth))
        result[name] = dict(frames=number)
        for key, values in ious.items():
            figures = protocol_figures(protocol, values)
            figures.pop('nsa', None)
            result[name][key] = None if masks[key] is None else figures
    return result


def table(result: Dict[str, dict], rows: List[str]) -> str:
    """The results as a Markdown table, in percent."""
    columns = [(name, figure) for name in result for figure in next(
        filter(None, (result[name][row] for row in reversed(rows))))]
    head = [''] + [
        f'{name} {figure} ({result[name]["frames"]})'
        for name, figure in columns
    ]
    lines = [head, ['---'] + ['---:'] * len(columns)]
    for row in rows:
        lines.append([row] + [
            '-' if result[name][row] is None else
            f'{100 * result[name][row][figure]:.1f}'
            for name, figure in columns
        ])
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def main() -> None:
    """Run the tool."""
    args = parse_args()
    frames, votes = read_frames(args.annotations)
    kind = 'flickr' if votes else 'vggss'
    names = ['dsol_single', 'dsol_multi', f'lvs_{kind}', f'ez_vsl_{kind}']
    thrs = dict(dsol_single=args.single_thr, dsol_multi=args.multi_thr)
    maps = predictors(args.sides)
    result = measure(frames, maps, names, thrs)
    result = {k: v for k, v in result.items() if v['frames']}
    empty = sum(not classes for _, classes in frames)
    print(f'{len(frames)} frames, {empty} without a box; in parentheses the '
          'number that a protocol takes.\n')
    print(table(result, list(maps)))


if __name__ == '__main__':
    try:
        main()
    except (OSError, ValueError, BrokenClipError) as error:
        sys.exit(f'error: {error}')
