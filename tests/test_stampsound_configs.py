"""configs/stampsound, from made-up clips to the test of the detector."""
import glob
import json
import os.path as osp
import re
import runpy
import sys

import numpy as np
import pytest
import torch
from mmengine.config import Config

from avdet_mm.datasets.stampsound import write_stampsound
from tests.stampsound_pack import make_tiny_pack
from tests.toy import ROOT

FOLDER = osp.join(ROOT, 'configs/stampsound')
CONFIGS = sorted(
    osp.relpath(p, FOLDER)
    for p in glob.glob(f'{FOLDER}/**/*.py', recursive=True)
    if not p.endswith('_demo.py'))
# Of the full preset, by what is inherited from the small one.
BOTH = ('localizer', 'faster-rcnn', 'weak', 'center-box', 'selective-search')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Clips of the small preset's classes, and where results go."""
    root = tmp_path_factory.mktemp('stampsound')
    (root / 'pack').mkdir()
    write_stampsound(
        str(root / 'pack'),
        str(root / 'data/stampsound_small'),
        num_train=30,
        num_test=4,
        num_alt=4,
        image_size=64,
        style='frames',
        listing=make_tiny_pack(root / 'pack'),
        workers=1)
    return root


@pytest.fixture
def places(folder, monkeypatch):
    """The environment that configs read."""
    monkeypatch.setenv('AVDET_STAMPSOUND', str(folder / 'data'))
    monkeypatch.setenv('AVDET_WORK_DIRS', str(folder / 'work_dirs'))
    monkeypatch.setenv('AVDET_SEED', '5')
    return folder


@pytest.fixture
def tool(places, monkeypatch, capsys):
    """Runs a tool with arguments; returns what it prints."""

    def run(name, *arguments):
        monkeypatch.setattr(sys, 'argv', [name, *map(str, arguments)])
        runpy.run_path(osp.join(ROOT, 'tools', name), run_name='__main__')
        return capsys.readouterr().out

    monkeypatch.setenv('LOCAL_RANK', '0')
    yield run
    torch.set_flush_denormal(False)


def read(name):
    return Config.fromfile(osp.join(FOLDER, name))


@pytest.mark.parametrize('name', CONFIGS)
def test_files_are_those_of_preset_and_seed(name, places):
    preset = 'full' if '_full' in name else 'small'
    cfg = read(name)
    # What the Runner reads; variables of the file are in it too.
    text = json.dumps({
        key: cfg.get(key)
        for key in ('model', 'custom_hooks', 'load_from', 'run_dir', *(
            f'{split}_{kind}' for split in ('train', 'val', 'test')
            for kind in ('dataloader', 'evaluator')))
    }, default=str)
    assert cfg.randomness.seed == 5
    other = 'small' if preset == 'full' else 'full'
    assert f'stampsound_{other}' not in text
    assert f'stampsound_{preset}/seed5' in text
    count = 40 if preset == 'full' else 10
    other_number = re.search('k([0-9]+)_small', name)
    if other_number:
        count = int(other_number[1])
        for kind in ('self_labels', 'matching'):
            assert f'{kind}.json' not in text
    assert cfg.num_clusters == count
    heads = [cfg.model.get('cluster_head') or {},
             cfg.model.get('roi_head', {}).get('bbox_head', {})]
    for head in heads:
        for key in ('num_clusters', 'num_classes'):
            assert head.get(key, count) == count
    for loader, number in ((cfg.get('train_dataloader'), count),
                           (cfg.test_dataloader, 40 if count == 40 else 10)):
        names = (loader or {}).get('dataset', {}).get('metainfo', {})
        assert len(names.get('classes', range(number))) == number


def test_recipe_on_the_demo(monkeypatch):
    monkeypatch.setenv('AVDET_DEMO_DIR', 'some')
    cfg, demo = read('localizer_demo.py'), Config.fromfile(
        osp.join(ROOT, 'configs/avdet/joint_demo.py'))
    for loader in (cfg.train_dataloader, cfg.test_dataloader,
                   cfg.val_dataloader, cfg.custom_hooks[4].dataloader):
        assert loader.dataset.data_root == demo.data_root == 'some/data/'
        assert loader.dataset.pipeline[0].cache
    assert cfg.model.cluster_head.num_clusters == demo.num_clusters
    assert (cfg.test_dataloader.dataset.pipeline[1].scale
            == demo.test_dataloader.dataset.pipeline[1].scale)
    assert cfg.train_pipeline[1:] == demo.train_pipeline[1:]


@pytest.mark.parametrize('name', ['full', 'demo'])
def test_one_recipe(name, places):
    recipe, other = (read(f'localizer_{n}.py') for n in ('small', name))
    assert recipe.model.cluster_head.pop('num_clusters') == 10
    other.model.cluster_head.pop('num_clusters')
    assert other.model == recipe.model
    assert other.optim_wrapper == recipe.optim_wrapper
    # Data differ, and full trains longer.
    hooks, expected = ([{
        key: value
        for key, value in hook.items()
        if key not in ('dataloader', 'begin', 'end_epoch', 'num_updates')
    } for hook in cfg.custom_hooks[:5]] for cfg in (other, recipe))
    assert hooks == expected


def test_presets_have_the_same_configs():
    for stem in BOTH:
        small = [n for n in CONFIGS if n.startswith(f'{stem}_small')]
        assert small
        for name in small:
            assert name.replace('_small', '_full') in CONFIGS


def test_ablations_do_not_overwrite_labels(places):
    for name in CONFIGS:
        if name.startswith('ablations/'):
            hooks = {hook['type']: hook for hook in read(name).custom_hooks}
            labels = hooks.get('avdet_mm.PseudoLabelHook')
            if '/k' not in name:
                assert labels is None
            elif labels:
                assert labels.out_file.endswith('self_labels_k' + re.search(
                    'k([0-9]+)_', name)[1] + '.json')


@pytest.mark.parametrize('preset', ['small', 'full'])
def test_tables(preset, tool, places):
    path = osp.join(ROOT, f'configs/tables/stampsound_{preset}.py')
    cfg = Config.fromfile(path)
    made = {
        out.replace('seed5', 'seed{seed}')
        for stage in cfg.stages for out in stage.get('outputs', ())
    }
    rows = [row for table in cfg.report.tables for row in table.rows]
    folders = {folder for row in rows
               for folder in row.get('runs', {'': row.get('run')}).values()}
    folders |= {folder for folder, _ in cfg.report.summary['keys'].values()}
    assert {f'{folder}/evaluation.json' for folder in folders} <= made
    other = 'full' if preset == 'small' else 'small'
    assert f'stampsound_{other}' not in json.dumps(cfg.report.to_dict())
    names = {stage.name for stage in cfg.stages}
    assert len(names) == len(cfg.stages)
    assert any('ablation' in name for name in names) == (preset == 'small')
    for row in rows:
        assert ('ablation' in json.dumps(row)) <= (preset == 'small')
    said = tool('run_pipeline.py', path, '--dry-run')
    assert all(f'[{name}] ' in said for name in names)


def test_stages(tool, places):
    small = osp.join(FOLDER, '{}_small.py').format
    run = places / 'work_dirs/stampsound_small/seed5'
    data = places / 'data/stampsound_small'
    tool('train.py', small('localizer'), '--work-dir', run / 'localizer',
         '--cfg-options', 'train_cfg.max_epochs=1', 'val_cfg=None',
         'val_dataloader=None', 'val_evaluator=None', 'model.flip_test=True',
         'train_dataloader.batch_size=10', 'custom_hooks.4.begin=0.5',
         'custom_hooks.4.num_updates=1', 'custom_hooks.2.patience=1000',
         'param_scheduler.0.start_factor=1.')
    weights = run / 'localizer/epoch_1.pth'
    labels = json.loads((run / 'self_labels.json').read_text())
    assert len(labels['images']) == 30 and len(labels['categories']) == 10
    assert labels['info']['beta'] == [0.7, 0.7]
    assert osp.isfile(run / labels['images'][0]['file_name'])
    tool('match_clusters.py', run / 'self_labels.json', '--clips',
         data / 'train.json', '--method', 'hungarian', '--out',
         run / 'matching.json')
    said = tool('analysis_tools/choose_beta.py', small('localizer'), weights,
                '--max-clips', '12', '--work-dir', run / 'beta')
    assert '12 clips with a box' in said and 'Chosen: beta 0.' in said
    tool('train.py', small('faster-rcnn'), '--work-dir', run / 'detector',
         '--cfg-options', 'train_cfg.max_epochs=1',
         'train_dataloader.dataset.indices=8',
         f'model.backbone.init_cfg.checkpoint={weights}')
    tool('test.py', small('faster-rcnn'), run / 'detector/epoch_1.pth',
         '--work-dir', run / 'detector/test')
    found = json.loads((run / 'detector/test/evaluation.json').read_text())
    assert 0 <= found['metrics']['coco/AP50'] <= 1
    assert 'coco/recall50_silent' in found['metrics']


def test_centered_box(tool, places):
    out = places / 'center'
    tool('test.py', osp.join(FOLDER, 'center-box_small.py'), '--work-dir', out)
    found = json.loads((out / 'evaluation.json').read_text())['metrics']
    boxes = [
        np.array(instance['bbox'])
        for clip in json.loads((places / 'data/stampsound_small/test.json')
                               .read_text())['data_list']
        for instance in clip['instances'] if instance['sounding']
    ]
    box = 32 + 64 * np.array([-0.32, -0.32, 0.32, 0.32])
    hits = 0
    for other in boxes:
        inner = (np.minimum(box, other)[2:] - np.maximum(box, other)[:2])
        inner = inner.clip(0).prod()
        areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (box, other)]
        hits += inner / (sum(areas) - inner) >= 0.5
    assert found['loc/iou50'] == pytest.approx(hits / len(boxes))


def test_recipe_on_the_demos_clips(tool, places, monkeypatch):
    demo = places / 'demo'
    monkeypatch.setenv('AVDET_DEMO_DIR', str(demo))
    tool('dataset_converters/procedural_clips.py', demo / 'data',
         '--num-train', 24, '--num-test', 4, '--num-duet', 0, '--num-solo', 0,
         '--image-size', 48, '--workers', 1)
    config = osp.join(FOLDER, 'localizer_demo.py')
    tool('train.py', config, '--work-dir', demo / 'localizer',
         '--cfg-options', 'train_cfg.max_epochs=1', 'val_cfg=None',
         'val_dataloader=None', 'val_evaluator=None',
         'train_dataloader.batch_size=8', 'custom_hooks.2.patience=1000',
         'custom_hooks.4.begin=0.5', 'custom_hooks.4.num_updates=1')
    tool('test.py', config, demo / 'localizer/epoch_1.pth', '--work-dir',
         demo / 'test')
    found = json.loads((demo / 'test/evaluation.json').read_text())['metrics']
    assert 0 <= found['loc/iou50'] <= 1
