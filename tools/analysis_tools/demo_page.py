"""Write the report of a demo run, WORK_DIR/index.html.

The page needs no server and no network: pictures and sounds lie beside it in
WORK_DIR/page. What a run has not produced (yet) is named on the page.
"""

import argparse
import html
import json
import math
import os
import os.path as osp
import shutil
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

import av
import cv2
import mmengine
import numpy as np
import soundfile
import torch

from avdet_mm.evaluation.functional import box_iou
from avdet_mm.models.task_modules import ClusterMatcher
from avdet_mm.visualization import (
    draw_boxes,
    enlarge,
    heatmap_overlay,
    spectrogram_image,
)
from avdet_mm.visualization.drawing import GRAY, GREEN, ORANGE, RED
from avdet_mm.visualization.page import html_page, key

PALETTE = (
    '#2563eb',
    '#e8590c',
    '#2b8a3e',
    '#9c36b5',
    '#c92a2a',
    '#0b7285',
    '#8d6e00',
    '#495057',
)
STAGES = dict(
    pretrain='Localization only',
    joint='Localization and self-labels',
    detector='Detector on self-labels',
    ceiling='Detector on ground truth (ceiling)',
)
# Prefix in metrics.json -> row of the table.
METHODS = dict(
    center_box_agnostic=('Centered box', 'without classes'),
    self_boxes_agnostic=('Self-boxes', 'without classes'),
    full_agnostic=('Full detector', 'without classes'),
    ceiling_agnostic=('Ceiling: trained on ground truth', 'without classes'),
    full=('Full detector', 'clusters matched to classes'),
    ceiling=('Ceiling: trained on ground truth', 'true classes'),
)
LOCALIZER = dict(
    nmi='NMI, both modalities',
    nmi_visual='NMI, visual head',
    nmi_audio='NMI, audio head',
    purity='Purity',
    hungarian_accuracy='Hungarian accuracy',
    pointing='Heatmap peak on the sounding object',
    self_boxes_iou50='Self-box with IoU ≥ 0.5',
)

STYLE = """
nav { margin-top: 14px; }
nav a { color: #fff; margin-right: 18px; }
section { background: var(--card); border: 1px solid var(--line);
          border-radius: 10px; padding: 8px 22px 22px; margin: 22px 0; }
h2 { font-size: 21px; margin: 14px 0 4px; }
h3 { font-size: 16px; margin: 22px 0 8px; }
.missing { border-left: 4px solid #e8590c; padding: 8px 14px;
           background: var(--bg); }
table { border-collapse: collapse; width: 100%; max-width: 860px; }
th, td { text-align: right; padding: 7px 12px;
         border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
th { color: var(--soft); font-weight: 600; font-size: 14px; }
td { font-variant-numeric: tabular-nums; }
td small { color: var(--soft); display: block; }
tr.main td { font-weight: 700; }
.columns { display: grid; gap: 28px; margin-top: 22px;
           grid-template-columns: repeat(auto-fit, minmax(290px, 1fr)); }
.grid { display: grid; gap: 16px;
        grid-template-columns: repeat(auto-fill, minmax(350px, 1fr)); }
figure { margin: 0; }
figure img { width: 100%; display: block; border-radius: 6px; }
figcaption { font-size: 13.5px; color: var(--soft); padding-top: 4px; }
.cluster { display: grid; gap: 12px;
           grid-template-columns: repeat(auto-fill, minmax(190px, 1fr)); }
.cluster img + img { border-radius: 0 0 6px 6px; margin-top: -6px; }
audio { width: 100%; height: 34px; margin-top: 5px; display: block; }
.charts { display: grid; gap: 18px;
          grid-template-columns: repeat(auto-fill, minmax(330px, 1fr)); }
svg { width: 100%; height: auto; display: block; }
svg text { fill: var(--soft); font-size: 11px; }
svg .axis { stroke: var(--line); stroke-width: 1; }
.legend { font-size: 13px; color: var(--soft); }
.legend b { color: var(--fg); font-weight: 600; }
"""


class Missing(Exception):
    """A part of the page cannot be made; the message says why."""


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('work_dir', help='folder of the demo run')
    parser.add_argument(
        '--examples',
        type=int,
        default=12,
        help='training frames and test images to show',
    )
    parser.add_argument(
        '--per-cluster',
        type=int,
        default=5,
        help='clips to show of every cluster',
    )
    parser.add_argument(
        '--score-thr',
        type=float,
        default=0.3,
        help='detections below this score are not drawn',
    )
    return parser.parse_args()


def pick(items: Sequence, count: int, seed: int = 0) -> list:
    """Choose at random, so that nothing is shown for its looks."""
    rng = np.random.default_rng(seed)
    order = sorted(rng.permutation(len(items))[:count])
    return [items[i] for i in order]


def numbers(value) -> np.ndarray:
    """A tensor or anything else as an array."""
    return value.cpu().numpy() if torch.is_tensor(value) else np.asarray(value)


def xyxy(annotation: dict) -> List[float]:
    """Box of a COCO annotation."""
    x, y, w, h = annotation['bbox']
    return [x, y, x + w, y + h]


def figure(picture: str, caption: str) -> str:
    """A picture with its caption (html)."""
    return (
        f'<figure><img loading="lazy" alt="" src="{picture}">'
        f'<figcaption>{caption}</figcaption></figure>'
    )


class DemoPage:
    """Collects what a demo run left behind into one page.

    Args:
        work_dir (str): Folder of the run.
        examples (int): Training frames and test images to show.
        per_cluster (int): Clips to show of every cluster.
        score_thr (float): Detections below are not drawn.
    """

    def __init__(
        self, work_dir: str, examples: int, per_cluster: int, score_thr: float
    ) -> None:
        self.root = Path(work_dir)
        self.examples = examples
        self.per_cluster = per_cluster
        self.score_thr = score_thr
        self.files = self.root / 'page.tmp'

    # -- files ------------------------------------------------------------

    def load(self, name: str, command: str):
        """Read a json or pickle of the run.

        Raises:
            Missing: If it is not there.
        """
        path = self.root / name
        if not path.is_file():
            raise Missing(
                f'<code>{html.escape(name)}</code> is not there '
                f'(written by {command}).'
            )
        return mmengine.load(str(path))

    def frame(
        self, clip_id: str, stored: Optional[str] = None
    ) -> Optional[np.ndarray]:
        """Frame of a clip, (H, W, 3) RGB, or None if no file has it."""
        places = [
            self.root / 'self_labels_images' / f'{clip_id}.png',
            self.root / 'data' / 'train_images' / f'{clip_id}.png',
            self.root / 'data' / 'test_images' / f'{clip_id}.png',
        ]
        if stored:
            places.insert(0, Path(stored))
        for path in places:
            if path.is_file():
                image = cv2.imread(str(path))
                if image is not None:
                    return image[..., ::-1]
        return None

    def picture(self, name: str, image: np.ndarray) -> str:
        """Write a picture; returns its address in the page."""
        cv2.imwrite(
            str(self.files / f'{name}.jpg'),
            image[..., ::-1],
            [cv2.IMWRITE_JPEG_QUALITY, 90],
        )
        return f'page/{name}.jpg'

    def sound(self, name: str, clip: dict) -> Tuple[str, str]:
        """Write a clip's sound and its spectrogram; returns both addresses.

        Raises:
            OSError: If the clip has no readable sound.
        """
        if 'audio_path' in clip:
            waveform, rate = soundfile.read(
                self.root / 'data' / clip['audio_path'], dtype='float32'
            )
            waveform = waveform.reshape(len(waveform), -1).mean(axis=1)
        else:
            path = self.root / 'data' / clip['video_path']
            with av.open(str(path)) as container:
                if not container.streams.audio:
                    raise OSError(f'{path} has no sound.')
                stream = container.streams.audio[0]
                rate = stream.rate
                resampler = av.AudioResampler(
                    format='flt', layout='mono', rate=rate
                )
                parts = [
                    out.to_ndarray()[0]
                    for packet in container.decode(stream)
                    for out in resampler.resample(packet)
                ]
            waveform = np.concatenate(parts or [np.zeros(1, np.float32)])
        soundfile.write(self.files / f'{name}.wav', waveform, rate)
        spectrogram = self.picture(
            f'{name}_mel', spectrogram_image(waveform, rate)
        )
        return f'page/{name}.wav', spectrogram

    def matcher(self) -> Optional[ClusterMatcher]:
        """The main matching of clusters and classes, if there is one."""
        path = self.root / 'matching.json'
        if not path.is_file():
            return None
        return next(iter(ClusterMatcher.from_json(str(path)).values()))

    def clips(self, name: str) -> Dict[str, dict]:
        """Clip id -> row of a clip table; empty without the table."""
        path = self.root / 'data' / name
        if not path.is_file():
            return {}
        rows = mmengine.load(str(path))['data_list']
        return {row['clip_id']: row for row in rows}

    # -- sections ---------------------------------------------------------

    def results(self) -> str:
        """The table of figures."""
        metrics = self.load('metrics.json', '<code>make demo</code>')
        known = set()
        rows = []
        for prefix, (name, remark) in METHODS.items():
            names = [f'{prefix}_{k}' for k in ('ap30', 'ap50', 'ap')]
            if not any(k in metrics for k in names):
                continue
            known.update(names)
            cells = ''.join(
                f'<td>{percent(metrics.get(k))}</td>' for k in names
            )
            mark = ' class="main"' if prefix == 'full' else ''
            rows.append(
                f'<tr{mark}><td>{name}<small>{remark}</small></td>{cells}</tr>'
            )
        detection = table(('Test images', 'AP30', 'AP50', 'AP50:95'), rows)
        rows = [
            f'<tr><td>{label}</td><td>{percent(metrics[k])}</td></tr>'
            for k, label in LOCALIZER.items()
            if k in metrics
        ]
        tables = [table(('Training clips', 'Percent'), rows)] if rows else []
        known.update(LOCALIZER)
        seconds = {
            k[8:]: v for k, v in metrics.items() if k.startswith('seconds_')
        }
        if 'seconds' in metrics:
            seconds['in all'] = metrics['seconds']
        rows = [
            f'<tr><td>{html.escape(k)}</td><td>{v:.0f}</td></tr>'
            for k, v in seconds.items()
        ]
        tables += [table(('Stage', 'Seconds'), rows)] if rows else []
        rows = [
            f'<tr><td><code>{html.escape(k)}</code></td>'
            f'<td>{figure_of(v)}</td></tr>'
            for k, v in metrics.items()
            if k not in known and not k.startswith('seconds')
        ]
        tables += [table(('Also in metrics.json', ''), rows)] if rows else []
        columns = ''.join(f'<div>{t}</div>' for t in tables)
        return (
            '<p class="note">In percent. Figures with and without classes '
            'are not comparable: without, all objects and all boxes count '
            'as one class.</p>'
            f'{detection}<div class="columns">{columns}</div>'
        )

    def training_frames(self) -> str:
        """Heatmaps and self-boxes of training clips."""
        samples = self.load(
            'localizer_predictions.pkl',
            '<code>tools/generate_pseudo_labels.py</code>',
        )
        clips = self.clips('train.json')
        figures = []
        for i, sample in enumerate(pick(samples, self.examples)):
            image = self.frame(sample['clip_id'], sample.get('img_path'))
            if image is None:
                continue
            gt = [
                (o['bbox'], o.get('sounding', True))
                for o in clips.get(sample['clip_id'], {}).get('instances', [])
            ]
            boxes = np.array([b for b, _ in gt], float).reshape(-1, 4)
            pred = numbers(sample['pred_instances']['bboxes'])
            left, factor = enlarge(image, 300)
            left = draw_boxes(
                left, boxes * factor, [GREEN if s else GRAY for _, s in gt]
            )
            left = draw_boxes(left, pred * factor, ORANGE)
            right = enlarge(
                heatmap_overlay(
                    image,
                    sample['heatmap'],
                    sample.get('img_shape'),
                    sample.get('homography_matrix'),
                ),
                300,
            )[0]
            right = draw_boxes(right, pred * factor, ORANGE)
            caption = html.escape(str(sample['clip_id']))
            sounding = boxes[[bool(s) for _, s in gt]]
            if len(sounding):
                best = box_iou(pred, sounding).max(initial=0)
                caption += f' · IoU {best:.2f}'
            figures.append(
                figure(
                    self.picture(f'train_{i}', np.hstack([left, right])),
                    caption,
                )
            )
        if not figures:
            raise Missing(
                'none of the frames that '
                '<code>localizer_predictions.pkl</code> names '
                'can be found.'
            )
        legend = (
            key(ORANGE, 'self-box (found by the localizer)')
            + key(GREEN, 'sounding object (ground truth, shown only)')
            + key(GRAY, 'silent object that has a class')
        )
        return (
            '<p class="note">Frame, and heatmap of its correspondence '
            'with the sound, of clips chosen at random. The box around '
            'the largest component of the heatmap is all that the '
            f'detector learns from.</p><p>{legend}</p>'
            f'<div class="grid">{"".join(figures)}</div>'
        )

    def detections(self) -> str:
        """Detections on test images."""
        samples = self.load(
            'detections.pkl', '<code>tools/test.py</code> with the detector'
        )
        truth = self.load('data/test_coco.json', 'the first step of the demo')
        matcher = self.matcher()
        names = {c['id']: c['name'] for c in truth['categories']}
        images = {image['id']: image for image in truth['images']}
        objects = {i: [] for i in images}
        for ann in truth['annotations']:
            objects[ann['image_id']].append(ann)
        figures = []
        for i, sample in enumerate(pick(samples, self.examples)):
            row = images.get(sample['img_id'])
            if row is None:
                raise Missing(
                    '<code>detections.pkl</code> belongs to other '
                    'images than <code>data/test_coco.json</code>.'
                )
            stem = Path(row['file_name']).stem
            image = self.frame(
                stem,
                str(self.root / 'data' / 'test_images' / row['file_name']),
            )
            if image is None:
                continue
            gt = objects[row['id']]
            gt_boxes = np.array([xyxy(a) for a in gt]).reshape(-1, 4)
            gt_names = [names[a['category_id']] for a in gt]
            pred = sample['pred_instances']
            keep = numbers(pred['scores']) >= self.score_thr
            boxes = numbers(pred['bboxes'])[keep]
            scores = numbers(pred['scores'])[keep]
            labels = numbers(pred['labels'])[keep]
            if matcher is not None:
                classes = [
                    (matcher.classes[c] if c >= 0 else f'cluster {k}')
                    for c, k in zip(matcher.map(labels), labels)
                ]
            else:
                classes = [f'cluster {k}' for k in labels]
            right_ones, found = judge(
                boxes, scores, classes, gt_boxes, gt_names
            )
            panel, factor = enlarge(image, 300)
            left = draw_boxes(panel, gt_boxes * factor, GREEN, gt_names)
            right = draw_boxes(
                panel,
                boxes * factor,
                [ORANGE if ok else RED for ok in right_ones],
                [f'{c} {s:.2f}' for c, s in zip(classes, scores)],
            )
            figures.append(
                figure(
                    self.picture(f'test_{i}', np.hstack([left, right])),
                    f'{html.escape(stem)} · {found} of {len(gt)} found and '
                    'named, '
                    f'{len(boxes) - sum(right_ones)} wrong',
                )
            )
        if not figures:
            raise Missing(
                'none of the test images can be found in '
                '<code>data/test_images</code>.'
            )
        legend = (
            key(GREEN, 'ground truth (left)')
            + key(ORANGE, 'detection, right class and IoU ≥ 0.5')
            + key(RED, 'wrong detection')
        )
        note = (
            ''
            if matcher
            else ' There is no <code>matching.json</code>, '
            'so detections cannot be named.'
        )
        return (
            '<p class="note">Images alone, without sound: what the '
            'detector found in test images chosen at random. Scores of '
            f'at least {self.score_thr:g} are drawn. Clusters were named '
            f'on training clips.{note}</p><p>{legend}</p>'
            f'<div class="grid">{"".join(figures)}</div>'
        )

    def clusters(self) -> str:
        """Members of every cluster, with sound."""
        labels = self.load(
            'self_labels.json', '<code>tools/generate_pseudo_labels.py</code>'
        )
        matcher = self.matcher()
        clips = self.clips('train.json')
        images = {image['id']: image for image in labels['images']}
        members = {c['id']: {} for c in labels['categories']}
        for ann in labels['annotations']:
            clip_id = images[ann['image_id']]['clip_id']
            members[ann['category_id']].setdefault(clip_id, []).append(ann)
        rows = []
        for k, category in enumerate(labels['categories']):
            found = members[category['id']]
            title = html.escape(category['name'])
            if matcher is not None and k < len(matcher.matching):
                c = matcher.matching[k]
                name = matcher.classes[c] if c >= 0 else 'no class'
                title += f' → {html.escape(name)}'
                if c >= 0 and matcher.contingency is not None:
                    counts = matcher.contingency[k]
                    title += f' ({counts[c] / counts.sum():.0%} of '
                    title += f'{counts.sum()} clips)'
            else:
                title += f' ({len(found)} clips)'
            figures = [
                self.member(
                    f'cluster_{k}_{i}',
                    clip_id,
                    found[clip_id],
                    images,
                    clips.get(clip_id),
                )
                for i, clip_id in enumerate(
                    pick(list(found), self.per_cluster, seed=k)
                )
            ]
            rows.append(
                f'<h3>{title}</h3><div class="cluster">'
                f'{"".join(figures)}</div>'
            )
        return (
            '<p class="note">Training clips of every cluster, chosen at '
            'random, with self-box, sound and its log-mel spectrogram. '
            'Names come from the matching; the captions are the true '
            f'classes.</p>{"".join(rows)}'
        )

    def member(
        self,
        name: str,
        clip_id: str,
        annotations: List[dict],
        images: Dict[int, dict],
        clip: Optional[dict],
    ) -> str:
        """One clip of a cluster."""
        stored = images[annotations[0]['image_id']]['file_name']
        image = self.frame(clip_id, str(self.root / stored))
        parts = []
        if image is not None:
            image, factor = enlarge(image, 200)
            boxes = np.array([xyxy(a) for a in annotations]) * factor
            address = self.picture(name, draw_boxes(image, boxes, ORANGE))
            parts.append(f'<img loading="lazy" alt="" src="{address}">')
        if clip is not None:
            try:
                sound, spectrogram = self.sound(name, clip)
                parts.append(
                    f'<img loading="lazy" alt="" src="{spectrogram}">'
                    f'<audio controls controlslist="nodownload '
                    f'noplaybackrate" src="{sound}"></audio>'
                )
            except (OSError, av.FFmpegError) as error:
                parts.append(f'<small>{html.escape(str(error))}</small>')
        label = (clip or {}).get('label')
        caption = f'{clip_id} · {label}' if label else str(clip_id)
        return (
            f'<figure>{"".join(parts)}'
            f'<figcaption>{html.escape(caption)}</figcaption></figure>'
        )

    def curves(self) -> str:
        """Losses and quality over the stages."""
        parts = []
        absent = []
        for stage, title in STAGES.items():
            logs = sorted((self.root / stage).glob('*/vis_data/scalars.json'))
            if not logs:
                if stage != 'ceiling':  # part of the table of seeds only
                    absent.append(
                        f'<code>{stage}/*/vis_data/scalars.json</code>'
                    )
                continue
            parts.append(
                f'<h3>{title} (<code>{stage}</code>)</h3>'
                f'<div class="charts">{charts(logs[-1])}</div>'
            )
        if not parts:
            raise Missing(
                f'{", ".join(absent)} are not there (written by '
                'training with <code>LocalVisBackend</code>).'
            )
        if absent:
            parts.append(
                f'<p class="missing">Not there: {", ".join(absent)}.</p>'
            )
        return ''.join(parts)

    # -- the page ---------------------------------------------------------

    def write(self) -> Path:
        """Make all sections and write the page.

        Returns:
            Path: The html file.
        """
        shutil.rmtree(self.files, ignore_errors=True)
        self.files.mkdir(parents=True)
        body, links = [], []
        for name, title, make in (
            ('results', 'Results', self.results),
            ('detections', 'Detections on test images', self.detections),
            ('training', 'Heatmaps and self-boxes', self.training_frames),
            ('clusters', 'Clusters, to be seen and heard', self.clusters),
            ('curves', 'Training', self.curves),
        ):
            try:
                content = make()
            except Missing as reason:
                content = (
                    f'<p class="missing">This part is missing: {reason}</p>'
                )
            links.append(f'<a href="#{name}">{title}</a>')
            body.append(
                f'<section id="{name}"><h2>{title}</h2>{content}</section>'
            )
        page = html_page(
            'avdet_mm demo',
            '<h1>Objects learned from video alone</h1><p>A '
            'localizer learned which things make which sound, from clips '
            'without a single label. Its boxes and clusters then trained a '
            'stock MMDetection detector, which finds and names the objects '
            'in silent images.</p>'
            f'<nav>{"".join(links)}</nav>',
            ''.join(body),
            'tools/analysis_tools/demo_page.py',
            'Ground truth is used for figures and pictures only.',
            STYLE,
        )
        final = self.root / 'page'
        shutil.rmtree(final, ignore_errors=True)
        os.replace(self.files, final)
        target = self.root / 'index.html'
        temporary = self.root / 'index.html.tmp'
        temporary.write_text(page, encoding='utf-8')
        os.replace(temporary, target)
        return target


def judge(
    boxes: np.ndarray,
    scores: np.ndarray,
    classes: Sequence[str],
    gt_boxes: np.ndarray,
    gt_classes: Sequence[str],
) -> Tuple[List[bool], int]:
    """Which detections are right: same class, IoU >= 0.5, each object once.

    Returns:
        tuple: One bool per detection, and how many objects were found.
    """
    iou = box_iou(boxes, gt_boxes)
    right, taken = [False] * len(boxes), set()
    for i in np.argsort(-scores, kind='stable'):
        options = [
            (iou[i, j], j)
            for j in range(len(gt_boxes))
            if j not in taken and gt_classes[j] == classes[i]
        ]
        best = max(options, default=(0, -1))
        if best[0] >= 0.5:
            right[i] = True
            taken.add(best[1])
    return right, len(taken)


def percent(value: Optional[float]) -> str:
    """A share in percent, or a dash."""
    if value is None or not math.isfinite(value):
        return '–'
    return f'{100 * value:.1f}'


def figure_of(value) -> str:
    """Any value of metrics.json, short."""
    if isinstance(value, float):
        return f'{value:.4g}'
    return html.escape(str(value))


def table(head: Sequence[str], rows: Sequence[str]) -> str:
    """A table of ready rows."""
    cells = ''.join(f'<th>{h}</th>' for h in head)
    return (
        f'<table><thead><tr>{cells}</tr></thead>'
        f'<tbody>{"".join(rows)}</tbody></table>'
    )


Series = Dict[str, Tuple[List[float], List[float]]]


def charts(log: Path) -> str:
    """All charts of one stage: losses, validation, and the other scalars.

    Args:
        log (Path): ``scalars.json`` of MMEngine, one json per line.
    """
    losses: Series = {}
    validation: Series = {}
    others: Series = {}
    ignored = {
        'step',
        'iter',
        'epoch',
        'time',
        'data_time',
        'memory',
        'lr',
        'base_lr',
    }
    for line in log.read_text(encoding='utf-8').splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:  # a run that was killed while writing
            continue
        in_training = 'iter' in row or 'lr' in row
        for name, value in row.items():
            if (
                name in ignored
                or name.endswith('left_out')
                or not isinstance(value, (int, float))
                or not math.isfinite(value)
            ):
                continue
            if not in_training:
                group = validation
            else:
                group = losses if 'loss' in name else others
            xs, ys = group.setdefault(name, ([], []))
            xs.append(row.get('step', len(xs)))
            ys.append(value)
    parts = [chart('Losses', losses, 'iteration')] if losses else []
    # Shares share an axis; counts and the like have one each.
    shares = {k: v for k, v in validation.items() if 0 <= max(v[1]) <= 1}
    if shares:
        parts.append(chart('Validation', shares, 'epoch', limits=(0, 1)))
    single = {k: v for k, v in validation.items() if k not in shares}
    parts += [chart(k, {k: v}, 'epoch') for k, v in single.items()]
    parts += [chart(k, {k: v}, 'iteration') for k, v in others.items()]
    return ''.join(parts)


def chart(
    title: str,
    series: Series,
    x_title: str,
    limits: Optional[Tuple[float, float]] = None,
) -> str:
    """A line chart as inline SVG with its legend."""
    width, height, left, right, top, bottom = 380, 210, 56, 12, 8, 30
    xs = [x for v in series.values() for x in v[0]]
    ys = [y for v in series.values() for y in v[1]]
    x0, x1 = min(xs), max(xs)
    y0, y1 = limits or (min(0, *ys, 0), max(ys))
    if x1 == x0:
        x0, x1 = x0 - 1, x1 + 1
    if y1 == y0:
        y0, y1 = y0 - 0.5, y1 + 0.5

    def place(x: float, y: float) -> Tuple[float, float]:
        return (
            left + (x - x0) / (x1 - x0) * (width - left - right),
            height - bottom - (y - y0) / (y1 - y0) * (height - top - bottom),
        )

    parts = []
    for i in range(5):
        value = y0 + (y1 - y0) * i / 4
        _, y = place(x0, value)
        parts.append(
            f'<line class="axis" x1="{left}" x2="{width - right}" '
            f'y1="{y:.1f}" y2="{y:.1f}"/><text text-anchor="end" '
            f'x="{left - 6}" y="{y + 4:.1f}">{value:.3g}</text>'
        )
    for value, anchor in ((x0, 'start'), (x1, 'end')):
        x, _ = place(value, y0)
        parts.append(
            f'<text text-anchor="{anchor}" x="{x:.1f}" '
            f'y="{height - bottom + 15}">{value:g}</text>'
        )
    middle = (left + width - right) / 2
    parts.append(
        f'<text text-anchor="middle" x="{middle}" '
        f'y="{height - 6}">{x_title}</text>'
    )
    legend = []
    for i, (name, (sx, sy)) in enumerate(series.items()):
        color = PALETTE[i % len(PALETTE)]
        points = [place(x, y) for x, y in zip(sx, sy)]
        line = ' '.join(f'{x:.1f},{y:.1f}' for x, y in points)
        parts.append(
            f'<polyline fill="none" stroke="{color}" '
            f'stroke-width="1.8" points="{line}"/>'
        )
        if len(points) <= 20:
            parts += [
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" fill="{color}"/>'
                for x, y in points
            ]
        legend.append(
            f'<span class="key" style="background: {color}"></span>'
            f'{html.escape(name)} {sy[-1]:.3g}'
        )
    if len(series) == 1:
        ((_, ys),) = series.values()
        legend = [f'last value {ys[-1]:.3g}']
    return (
        f'<div><div class="legend"><b>{html.escape(title)}</b></div>'
        f'<svg viewBox="0 0 {width} {height}">{"".join(parts)}</svg>'
        f'<div class="legend">{"".join(legend)}</div></div>'
    )


def main() -> None:
    """Run the tool."""
    args = parse_args()
    if not osp.isdir(args.work_dir):
        raise SystemExit(f'error: there is no folder {args.work_dir}.')
    page = DemoPage(
        args.work_dir, args.examples, args.per_cluster, args.score_thr
    )
    print(f'Wrote {page.write()}')


if __name__ == '__main__':
    main()
