"""Every config runs: built, trained for an epoch of a few clips, evaluated.

The stages hand each other files below one folder, as in the demo; what comes
from the stages before is made here with random weights.
"""
import glob
import json
import os
import os.path as osp
import re
import runpy
import shutil
import subprocess
import sys

import mmdet
import pytest
import torch
from mmdet.registry import MODELS as MMDET_MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from avdet_mm.apis import generate_pseudo_labels
from avdet_mm.datasets.clip_table import dump_clip_table, load_clip_table
from avdet_mm.datasets.prepare import prepare_clips
from avdet_mm.registry import MODELS
from tests.toy import ROOT, find_hook, load_config, scalars

FOLDER = osp.join(ROOT, 'configs/avdet')
CONFIGS = sorted(osp.basename(p) for p in glob.glob(f'{FOLDER}/*_demo*.py'))
DETECTORS = [n for n in CONFIGS if n.startswith('faster-rcnn')]
DETECTOR = 'faster-rcnn_avol-net_fpn_demo.py'


def checkpoint_of(cfg):
    """The file of an earlier stage that a config starts from."""
    init = cfg.model.get('backbone', {}).get('init_cfg') or {}
    return cfg.get('load_from') or init.get('checkpoint')


def weights_of(path):
    return torch.load(path, weights_only=True)['state_dict']


@pytest.fixture(scope='module')
def demo_dir(clip_dir, tmp_path_factory):
    """A demo's folder with all files that stages make for each other."""
    root = tmp_path_factory.mktemp('demo')
    shutil.copytree(clip_dir, root / 'data')
    with pytest.MonkeyPatch.context() as patch:
        joint = load_config('joint_demo.py', root, patch)
        init_default_scope('avdet_mm')
        model = MODELS.build(joint.model).eval()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.05)
        for name in CONFIGS:
            path = checkpoint_of(load_config(name, root, patch))
            if path is not None:
                assert path.startswith(str(root))
                os.makedirs(osp.dirname(path), exist_ok=True)
                torch.save(dict(state_dict=model.state_dict()), path)
        hook = find_hook(joint, 'PseudoLabelHook')
        generate_pseudo_labels(model, Runner.build_dataloader(hook.dataloader),
                               hook.out_file)
        patch.setattr(sys, 'argv', [
            'match_clusters.py', hook.out_file, '--clips',
            str(root / 'data/train.json'), '--out',
            load_config(DETECTOR, root, patch).test_evaluator.matching
        ])
        runpy.run_path(
            osp.join(ROOT, 'tools/match_clusters.py'), run_name='__main__')
    return root


@pytest.mark.parametrize('name', CONFIGS)
def test_one_epoch(name, demo_dir, tmp_path, monkeypatch):
    cfg = load_config(name, demo_dir, monkeypatch)
    cfg.work_dir = str(tmp_path)
    if cfg.get('train_cfg') is None:
        # A baseline without weights.
        assert Runner.from_cfg(cfg).test()
        return
    cfg.train_cfg.max_epochs = cfg.train_cfg.val_interval = 1
    cfg.default_hooks.logger.interval = 1
    for hook in cfg.custom_hooks:
        if 'out_file' in hook:  # other tests read the shared one
            hook.out_file = str(tmp_path / 'out.json')
            hook.dump_file = str(tmp_path / 'dump.pkl')
    path = checkpoint_of(cfg)
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert runner.epoch == 1 and runner.iter >= 1
    losses = scalars(tmp_path)
    assert len(losses) == runner.iter
    assert all(abs(value) < 1000 for value in losses.values())
    # It has learned, and can be tested with what it has saved.
    trained = weights_of(tmp_path / 'epoch_1.pth')
    if path is not None:
        target = 'backbone' if name in DETECTORS else 'visual_backbone'
        old = weights_of(path)['visual_backbone.conv4_2.conv.weight']
        new = trained[f'{target}.conv4_2.conv.weight']
        assert not torch.equal(new, old)
        # Few steps: it started from there.
        assert (new - old).abs().mean() < 0.5 * old.abs().mean()
    if name == 'joint_demo.py':
        with open(tmp_path / 'out.json') as file:
            assert len(json.load(file)['images']) == 16
    assert runner.test()


@pytest.mark.parametrize('name', DETECTORS)
def test_detector_is_stock_but_for_its_backbone(name, demo_dir, monkeypatch):
    cfg = load_config(name, demo_dir, monkeypatch)

    def types(node, path=()):
        if isinstance(node, (list, tuple)):
            node = dict(enumerate(node))
        if isinstance(node, dict):
            if isinstance(node.get('type'), str):
                yield path, node['type']
            for key, value in node.items():
                yield from types(value, (*path, key))

    own = {p: t for p, t in types(cfg.model) if 'avdet_mm' in t}
    assert own == {('backbone', ): 'avdet_mm.AVOLNet'}
    assert type(MMDET_MODELS.build(cfg.model)).__module__.startswith('mmdet.')
    data = {t for _, t in types(cfg.train_dataloader.dataset)}
    assert not any('avdet_mm' in t for t in data)


@pytest.mark.parametrize('name', DETECTORS)
def test_detector_starts_from_the_visual_encoder(name, demo_dir, monkeypatch):
    cfg = load_config(name, demo_dir, monkeypatch)
    model = MMDET_MODELS.build(cfg.model)
    model.init_weights()
    start = weights_of(checkpoint_of(cfg))
    state = model.backbone.state_dict()
    assert 'conv4_2.conv.weight' in state
    for key, value in state.items():
        assert torch.equal(value, start[f'visual_backbone.{key}']), key


@pytest.mark.parametrize('name', CONFIGS)
def test_own_types_have_their_scope(name, demo_dir, monkeypatch):
    # Written avdet_mm.X at every depth: whatever the default scope is.
    cfg = load_config(name, demo_dir, monkeypatch)
    own = {
        key
        for registry in vars(__import__('avdet_mm.registry',
                                        fromlist=['x'])).values()
        if hasattr(registry, 'module_dict') and registry.scope == 'avdet_mm'
        for key in registry.module_dict
    }
    assert 'AVOLNet' in own

    def check(node):
        if isinstance(node, dict):
            assert node.get('type') not in own, node
            for value in node.values():
                check(value)
        elif isinstance(node, (list, tuple)):
            for value in node:
                check(value)

    check(cfg._cfg_dict.to_dict())


@pytest.mark.parametrize('name', ['pretrain_demo.py', DETECTOR])
def test_stock_mmdet_tool(name, demo_dir, tmp_path):
    """MMDetection's own tools/train.py, in a process of its own."""
    options = [
        'train_cfg.max_epochs=1', 'train_cfg.val_interval=1',
        'default_hooks.logger.interval=1', 'train_dataloader.batch_size=4',
        'train_dataloader.num_workers=0', 'val_dataloader.num_workers=0'
    ]
    result = subprocess.run([
        sys.executable,
        osp.join(osp.dirname(mmdet.__file__), '.mim/tools/train.py'),
        osp.join(FOLDER, name), '--work-dir',
        str(tmp_path), '--cfg-options', *options
    ],
                            cwd=ROOT,
                            env=dict(
                                os.environ,
                                PYTHONPATH=ROOT,
                                OMP_NUM_THREADS='1',
                                AVDET_DEMO_DIR=str(demo_dir)),
                            capture_output=True,
                            text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    if name not in DETECTORS:
        # With our default scope, every kind of registry is ours.
        assert 'Failed to search registry' not in (result.stdout +
                                                   result.stderr)
    assert weights_of(tmp_path / 'epoch_1.pth')
    assert len(scalars(tmp_path)) >= 1


@pytest.mark.parametrize('prepared', [False, True])
def test_any_clips(prepared, clip_dir, tmp_path, monkeypatch):
    table = str(clip_dir / 'train.json')
    if prepared:
        prepare_clips(table, str(tmp_path / 'prepared'), workers=1)
        table = str(tmp_path / 'prepared' / 'clips.json')
    _, rows = load_clip_table(table)
    dump_clip_table([
        dict(clip_id=r['clip_id'], faults=['still'] if i < 2 else [])
        for i, r in enumerate(rows)
    ], str(tmp_path / 'check.json'), kind='avdet_mm.clip_report')
    monkeypatch.setenv('AVDET_CLIPS', table)
    cfg = load_config('pretrain_clips.py', clip_dir, monkeypatch)
    cfg.merge_from_dict({
        'work_dir': str(tmp_path / 'run'),
        'train_cfg.max_epochs': 1,
        'default_hooks.logger.interval': 1,
        'train_dataloader.dataset.filter_cfg.report':
        str(tmp_path / 'check.json'),
    })
    runner = Runner.from_cfg(cfg)
    runner.train()
    dataset = runner.train_dataloader.dataset
    assert dataset.clip_ids == [r['clip_id'] for r in rows[2:]]
    assert runner.iter == 3  # 14 clips, 4 at a time
    log, = (tmp_path / 'run').glob('*/*.log')
    assert '2 of 16 clips' in log.read_text()
    assert 'still: 2 (e.g. train_000000, train_000001)' in log.read_text()
    assert len(scalars(tmp_path / 'run')) == 3


def test_folder_of_the_demo_can_be_moved(monkeypatch):
    monkeypatch.setenv('AVDET_DEMO_DIR', '/somewhere')
    for name in CONFIGS:
        text = Config.fromfile(osp.join(FOLDER, name)).pretty_text
        assert '/somewhere' in text and 'work_dirs' not in text, name
        # {{_base_.x}} is replaced alone, not in an expression.
        assert not re.search(r"'_[a-z_.]+_[0-9a-f]{6}", text), name
    monkeypatch.delenv('AVDET_DEMO_DIR')
    assert 'work_dirs/demo/data/' in Config.fromfile(
        osp.join(FOLDER, CONFIGS[0])).pretty_text
