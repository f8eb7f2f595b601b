import json
import pickle
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from avdet_mm.models.task_modules import ClusterMatcher
from avdet_mm.testing import write_procedural_clips

TOOL = Path(__file__).parents[2] / 'tools' / 'analysis_tools' / 'demo_page.py'


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def localizer_outputs(rows, classes, rng):
    """Predictions as mmengine's DumpResults writes them."""
    samples = []
    for row in rows:
        target = next(o for o in row['instances'] if o['sounding'])
        box = np.array(target['bbox']) + rng.normal(0, 4, 4)
        # The network saw a crop of 96 from the frame of 108.
        grid = np.stack(np.meshgrid(*[np.arange(12) * 8 + 4 + 6] * 2), -1)
        away = (grid - (box[:2] + box[2:]) / 2) / (box[2:] - box[:2])
        samples.append(
            dict(
                clip_id=row['clip_id'],
                img_shape=(96, 96),
                homography_matrix=np.array(
                    [[1, 0, -6], [0, 1, -6], [0, 0, 1]], np.float32
                ),
                heatmap=torch.as_tensor(np.exp(-4 * (away**2).sum(-1))),
                pred_instances=dict(
                    bboxes=torch.as_tensor(box[None]),
                    scores=torch.tensor([0.8]),
                    labels=torch.tensor([classes.index(row['label'])]),
                ),
            )
        )
    return samples


def self_labels(samples, num_clusters):
    images, annotations = [], []
    for i, sample in enumerate(samples):
        name = sample['clip_id']
        images.append(
            dict(
                id=i,
                clip_id=name,
                file_name=f'data/train_images/{name}.png',
                width=108,
                height=108,
            )
        )
        x1, y1, x2, y2 = sample['pred_instances']['bboxes'][0].tolist()
        annotations.append(
            dict(
                id=i + 1,
                image_id=i,
                bbox=[x1, y1, x2 - x1, y2 - y1],
                category_id=int(sample['pred_instances']['labels'][0]),
                score=0.8,
            )
        )
    categories = [dict(id=k, name=f'cluster_{k}') for k in range(num_clusters)]
    return dict(images=images, annotations=annotations, categories=categories)


def detector_outputs(coco, rng):
    samples = []
    for image in coco['images']:
        boxes, labels = [[5, 5, 40, 30]], [0]
        for ann in coco['annotations']:
            if ann['image_id'] == image['id']:
                x, y, w, h = ann['bbox']
                boxes.append(
                    np.array([x, y, x + w, y + h]) + rng.normal(0, 3, 4)
                )
                labels.append(ann['category_id'])
        samples.append(
            dict(
                img_id=image['id'],
                pred_instances=dict(
                    bboxes=torch.as_tensor(np.array(boxes)),
                    scores=torch.linspace(0.35, 1, len(boxes)),
                    labels=torch.tensor(labels),
                ),
            )
        )
    return samples


def write_log(path, epochs=4, iters=20):
    lines, step = [], 0
    for epoch in range(1, epochs + 1):
        for i in range(iters):
            step += 1
            lines.append(
                dict(
                    lr=1e-3,
                    data_time=0.1,
                    loss=3 / step + 0.5,
                    loss_loc=2 / step,
                    temperature=0.05 + step / 1e3,
                    time=0.2,
                    epoch=epoch,
                    iter=step,
                    step=step,
                )
            )
        lines.append(
            {
                'loc/pointing': epoch / 5,
                'cluster/nmi': epoch / 6,
                'loc/left_out': 12,
                'step': epoch,
            }
        )
    path.parent.mkdir(parents=True)
    path.write_text('\n'.join(map(json.dumps, lines)) + '\n{"cut of')


def fake_run(root, num_train=24, num_test=6):
    """A work dir as the demo leaves it, made up but for the clips."""
    rng = np.random.default_rng(0)
    data = root / 'data'
    write_procedural_clips(
        str(data), num_train, num_test, num_classes=4, workers=0
    )
    table = json.loads((data / 'train.json').read_text())
    classes = table['metainfo']['classes']
    coco = json.loads((data / 'test_coco.json').read_text())
    samples = localizer_outputs(table['data_list'], classes, rng)
    labels = [classes.index(row['label']) for row in table['data_list']]
    matcher = ClusterMatcher().fit(labels, labels, 4, 4)
    matcher.to_json(str(root / 'matching.json'), classes)
    write_json(root / 'self_labels.json', self_labels(samples, 4))
    (root / 'localizer_predictions.pkl').write_bytes(pickle.dumps(samples))
    (root / 'detections.pkl').write_bytes(
        pickle.dumps(detector_outputs(coco, rng))
    )
    write_json(
        root / 'metrics.json',
        dict(
            full_ap30=0.91,
            full_ap50=0.8125,
            full_ap=0.4,
            full_agnostic_ap50=0.83,
            self_boxes_agnostic_ap50=0.5,
            center_box_agnostic_ap50=float('nan'),
            nmi=0.97,
            purity=0.99,
            seconds=512.25,
            seconds_joint=100.0,
            center_box_side=0.5,
        ),
    )
    for stage in ('pretrain', 'joint', 'detector'):
        write_log(root / stage / '20260101_000000/vis_data/scalars.json')
    return classes


def make_page(monkeypatch, *argv):
    monkeypatch.setattr(sys, 'argv', ['demo_page.py', *map(str, argv)])
    runpy.run_path(str(TOOL), run_name='__main__')
    page = (Path(argv[0]) / 'index.html').read_text(encoding='utf-8')
    addresses = set(re.findall(r'src="([^"]+)"', page))
    for address in addresses:  # all relative and all there
        assert (Path(argv[0]) / address).stat().st_size > 100, address
    assert 'http' not in page
    return page, addresses


def test_whole_page(tmp_path, monkeypatch):
    classes = fake_run(tmp_path)
    page, addresses = make_page(monkeypatch, tmp_path, '--per-cluster', '2')
    assert 'This part is missing' not in page and 'Not there' not in page
    for text in (
        '81.2',
        '97.0',
        '<td>–</td>',
        '<td>512</td>',
        'loss_loc',
        '<svg',
        *[f'cluster_{k} → {c}' for k, c in enumerate(classes)],
    ):
        assert text in page, text
    assert sum(a.endswith('.wav') for a in addresses) == 2 * 4
    assert sum('/train_' in a for a in addresses) == 12
    assert sum('/test_' in a for a in addresses) == 6
    assert not list(tmp_path.glob('*tmp*'))
    # Again, with fewer files; what was there before is gone.
    make_page(monkeypatch, tmp_path, '--per-cluster', '1', '--examples', '3')
    assert len(list((tmp_path / 'page').glob('*.wav'))) == 4


def test_parts_that_are_missing(tmp_path, monkeypatch):
    page, addresses = make_page(monkeypatch, tmp_path)
    assert page.count('This part is missing') == 5 and not addresses
    for name in (
        'metrics.json',
        'localizer_predictions.pkl',
        'detections.pkl',
        'self_labels.json',
        'pretrain/',
    ):
        assert name in page
    # No matching, no table of clips, no log of the last stages.
    fake_run(tmp_path, 6, 2)
    for name in ('matching.json', 'data/train.json'):
        (tmp_path / name).unlink()
    for stage in ('joint', 'detector'):
        (tmp_path / stage).rename(tmp_path / f'{stage}_old')
    page, _ = make_page(monkeypatch, tmp_path)
    assert 'This part is missing' not in page
    assert 'cannot be named' in page and 'Not there' in page
    with pytest.raises(SystemExit, match='no folder'):
        make_page(monkeypatch, tmp_path / 'other')
