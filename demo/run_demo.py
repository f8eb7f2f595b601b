"""The whole method on procedural clips: make demo, make demo-table.

Every stage is a command that can be run by hand; it is printed before it
runs. AVDET_DEMO_DIR tells the configs where the stages' files are. After an
interruption the stages that were finished are not run again, unless their
configs or files have changed (records: stages in the work directory); to
start anew, remove the work directory.
"""
import argparse
import glob
import json
import os
import os.path as osp
import time
from functools import partial
from typing import Dict, List, Optional, Sequence

import numpy as np

from avdet_mm.utils.stages import Stage, StageRunner

ROOT = osp.dirname(osp.dirname(osp.abspath(__file__)))
CONFIGS = 'configs/avdet'
DETECTOR = f'{CONFIGS}/faster-rcnn_avol-net_fpn_demo'
CENTER_BOX_SIDES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--work-dir', default='work_dirs/demo')
    parser.add_argument(
        '--seeds',
        type=int,
        nargs='+',
        help='one whole run per seed, in work-dir/seed_N, and their mean')
    parser.add_argument(
        '--ceiling',
        action='store_true',
        help='also train the detector on ground-truth boxes')
    parser.add_argument('--num-train', type=int, default=3000)
    parser.add_argument('--num-test', type=int, default=300)
    return parser.parse_args()


class Demo:
    """One run with one seed."""

    def __init__(self, work_dir: str, seed: int, num_train: int,
                 num_test: int) -> None:
        self.dir = work_dir
        self.seed = seed
        self.num_train, self.num_test = num_train, num_test
        self.seconds: Dict[str, float] = {}
        env = dict(AVDET_DEMO_DIR=work_dir)
        os.environ.update(env)  # configs read it
        self.runner = StageRunner(f'{work_dir}/stages',
                                  partial(print, flush=True), env)

    def run(self,
            stage: str,
            script: str,
            config: Optional[str] = None,
            args: Sequence[str] = (),
            **kwargs) -> Stage:
        """Run a command of this stage and add up its seconds."""
        command = Stage(stage, script, config, args, **kwargs)
        self.seconds[stage] = self.seconds.get(
            stage, 0.) + self.runner.run(command)
        return command

    def train(self, stage: str, config: str) -> str:
        """tools/train.py on a config of the demo; returns the checkpoint."""
        return self.run(
            stage,
            'tools/train.py',
            config, ['--work-dir', f'{self.dir}/{stage}'],
            options=[f'randomness.seed={self.seed}']).checkpoint

    def test(self, stage: str, config: str, *arguments: str) -> dict:
        """tools/test.py; returns what the metrics returned."""
        work_dir = f'{self.dir}/{stage}/test'
        self.run('evaluation', 'tools/test.py', config,
                 [*arguments, '--work-dir', work_dir])
        newest = max(glob.glob(f'{work_dir}/*/*.json'))
        with open(newest) as f:
            return json.load(f)

    def __call__(self, ceiling: bool) -> Dict[str, float]:
        """All stages; returns the flat metrics."""
        joint = f'{CONFIGS}/joint_demo.py'
        data = f'{self.dir}/data'
        self.run(
            'clips',
            'tools/dataset_converters/procedural_clips.py',
            args=[
                data, '--num-train',
                str(self.num_train), '--num-test',
                str(self.num_test), '--seed',
                str(self.seed)
            ],
            outputs=[f'{data}/train.json', f'{data}/test.json'])
        self.train('pretrain', f'{CONFIGS}/pretrain_demo.py')
        localizer = self.train('joint', joint)
        self.run(
            'matching',
            'tools/match_clusters.py',
            args=[
                f'{self.dir}/self_labels.json', '--clips',
                f'{data}/train.json', '--method', 'hungarian', 'majority',
                '1-shot', '10-shot', '--out', f'{self.dir}/matching.json'
            ])
        detector = self.train('detector', f'{DETECTOR}.py')

        metrics = {}
        out = self.test('detector', f'{DETECTOR}.py', detector, '--out',
                        f'{self.dir}/detections.pkl')
        metrics.update({
            f'full_{key.lower()}': out[f'coco/{key}']
            for key in ('AP30', 'AP50', 'AP', 'agnostic_AP30',
                        'agnostic_AP50', 'agnostic_AP')
        })
        out = self.test('joint', joint, localizer)
        for key in ('AP30', 'AP50', 'AP'):
            metrics[f'self_boxes_agnostic_{key.lower()}'] = out[
                f'coco/agnostic_{key}']
        metrics.update(center_box_ap(f'{data}/test_coco.json'))
        metrics.update(
            localizer_quality(f'{self.dir}/localizer_predictions.pkl'))
        # The ceiling is no part of the method: its time is not counted.
        metrics['seconds'] = sum(self.seconds.values())
        if ceiling:
            config = f'{DETECTOR}-gt.py'
            checkpoint = self.train('ceiling', config)
            out = self.test('ceiling', config, checkpoint)
            for key in ('AP30', 'AP50', 'AP', 'agnostic_AP50'):
                metrics[f'ceiling_{key.lower()}'] = out[f'coco/{key}']
        metrics.update({
            f'seconds_{stage}': value
            for stage, value in self.seconds.items()
        })
        metrics = {key: round(float(v), 4) for key, v in metrics.items()}
        write_json(f'{self.dir}/metrics.json', metrics)
        self.run(
            'page',
            'tools/analysis_tools/demo_page.py',
            args=[self.dir],
            inputs=[f'{self.dir}/metrics.json'])
        return metrics


def center_box_ap(ann_file: str) -> Dict[str, float]:
    """The best centered box: its side is chosen *with* ground truth."""
    from avdet_mm.evaluation.functional import detection_ap
    with open(osp.join(ROOT, ann_file)) as f:
        coco = json.load(f)
    best = {}
    for side in CENTER_BOX_SIDES:
        boxes = [
            dict(
                image_id=image['id'],
                category_id=coco['categories'][0]['id'],
                score=1.,
                bbox=[
                    image['width'] * (1 - side) / 2, image['height'] *
                    (1 - side) / 2, image['width'] * side,
                    image['height'] * side
                ]) for image in coco['images']
        ]
        ap = detection_ap(coco, boxes)
        key = (ap['agnostic_AP50'], ap['agnostic_AP'])
        if not best or key > (best['center_box_agnostic_ap50'],
                              best['center_box_agnostic_ap']):
            best = {
                f'center_box_agnostic_{key.lower()}': ap[f'agnostic_{key}']
                for key in ('AP30', 'AP50', 'AP')
            }
            best['center_box_side'] = side
    return best


def localizer_quality(dump_file: str) -> Dict[str, float]:
    """Heatmaps, self-boxes and clusters of all training clips."""
    import mmengine

    from avdet_mm.evaluation.metrics import ClusterMetric, LocalizationMetric
    samples = mmengine.load(osp.join(ROOT, dump_file))
    out = {}
    for metric in (ClusterMetric(), LocalizationMetric()):
        metric.process({}, samples)
        out.update(metric.evaluate(len(samples)))
    return dict(
        nmi=out['cluster/nmi'],
        nmi_visual=out['cluster/nmi_visual'],
        nmi_audio=out['cluster/nmi_audio'],
        purity=out['cluster/purity'],
        hungarian_accuracy=out['cluster/hungarian_accuracy'],
        pointing=out['loc/pointing'],
        self_boxes_iou50=out['loc/iou50'])


def write_json(path: str, content: dict) -> None:
    path = osp.join(ROOT, path)
    with open(f'{path}.tmp', 'w') as f:
        json.dump(content, f, indent=2)
        f.write('\n')
    os.replace(f'{path}.tmp', path)


def table(runs: List[Dict[str, float]], names: List[str]) -> str:
    """The figures of all runs, side by side, as text."""
    rows = [('AP30 / AP50 / AP50:95 on the test images', None)]
    for title, prefix in (
        ('centered box, class-agnostic', 'center_box_agnostic_'),
        ('self-boxes, class-agnostic', 'self_boxes_agnostic_'),
        ('full detector, class-agnostic', 'full_agnostic_'),
        ('full detector, Hungarian', 'full_'),
        ('ceiling (ground-truth boxes)', 'ceiling_')):
        rows.append((f'  {title}', [f'{prefix}{k}'
                                    for k in ('ap30', 'ap50', 'ap')]))
    rows.append(('clusters of the training clips', None))
    for title, key in (('NMI, both heads', 'nmi'), ('NMI, visual head',
                                                    'nmi_visual'),
                       ('NMI, audio head', 'nmi_audio'), ('purity', 'purity'),
                       ('Hungarian accuracy', 'hungarian_accuracy')):
        rows.append((f'  {title}', [key]))
    rows.append(('localizer on the training clips', None))
    rows.append(('  heatmap peak on the object', ['pointing']))
    rows.append(('  self-box with IoU >= 0.5', ['self_boxes_iou50']))
    rows.append(('seconds', None))
    rows += [(f'  {key[8:]}', [key]) for key in runs[0]
             if key.startswith('seconds_')]
    rows.append(('  in all, without the ceiling', ['seconds']))

    lines = [' ' * 34 + ''.join(f'{name:>24}' for name in names)]
    for title, keys in rows:
        if keys is not None and keys[0] not in runs[0]:
            continue
        cells = []
        for run in runs if keys else ():
            digits = 0 if keys[0].startswith('seconds') else 3
            cells.append(' / '.join(f'{run[k]:.{digits}f}' for k in keys))
        lines.append(f'{title:<34}' + ''.join(f'{c:>24}' for c in cells))
    return '\n'.join(lines)


def main() -> None:
    args = parse_args()
    start = time.time()
    os.chdir(ROOT)
    if args.seeds is None:
        demo = Demo(args.work_dir, 0, args.num_train, args.num_test)
        runs, names = [demo(args.ceiling)], ['seed 0']
    else:
        runs, names = [], []
        for seed in args.seeds:
            demo = Demo(f'{args.work_dir}/seed_{seed}', seed, args.num_train,
                        args.num_test)
            runs.append(demo(args.ceiling))
            names.append(f'seed {seed}')
        mean = {
            key: round(float(np.mean([run[key] for run in runs])), 4)
            for key in runs[0]
        }
        write_json(f'{args.work_dir}/metrics.json', mean)
        runs.append(mean)
        names.append('mean')
    text = table(runs, names)
    with open(osp.join(ROOT, args.work_dir, 'table.txt'), 'w') as f:
        f.write(text + '\n')
    print(f'\n{text}\n\nFigures: {args.work_dir}/metrics.json')
    for name in names:
        folder = name.replace(' ', '_') if args.seeds is not None else ''
        page = osp.join(args.work_dir, folder, 'index.html')
        if name != 'mean':
            print(f'Pictures: {page}')
    print(f'Everything took {(time.time() - start) / 60:.1f} minutes.')


if __name__ == '__main__':
    main()
