"""Every config runs: built, trained for an epoch of a few clips, evaluated.

The stages hand each other files below one folder. What comes from the stages
before is made here, for the demo's configs with random weights. The paper's
detectors are tested in test_detector_configs.py.
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
from mmengine.optim import LinearLR
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from avdet_mm.apis import generate_pseudo_labels
from avdet_mm.datasets.clip_table import dump_clip_table, load_clip_table
from avdet_mm.datasets.metainfo import load_label_map
from avdet_mm.datasets.prepare import prepare_clips
from avdet_mm.registry import MODELS, TASK_UTILS
from avdet_mm.utils.stages import parse_options
from tests.toy import (
    ROOT,
    experiment_name,
    find_hook,
    load_config,
    scalars,
    shrink,
)

FOLDER = osp.join(ROOT, 'configs/avdet')
CONFIGS = sorted(
    osp.basename(p) for p in glob.glob(f'{FOLDER}/*_demo*.py')
    if '_demo_k' not in p)
DETECTORS = [n for n in CONFIGS if n.startswith('faster-rcnn')]
DETECTOR = 'faster-rcnn_avol-net_fpn_demo.py'
# The paper's localizers, with the options that shrink them.
LOCALIZERS = {
    'pretrain_audioset.py': 'pretrain',
    'joint_vggsound.py': 'joint',
    'joint_audioset.py': 'joint',
}
# What configs change in the one that they inherit from; of those marked
# None nothing is trained.
NOT_TRAINED = dict(
    train_dataloader=None,
    train_cfg=None,
    optim_wrapper=None,
    param_scheduler=None)


def other_clusters(number):
    return {
        'num_clusters': number,
        'model.cluster_head.num_clusters': number,
        'work_dir': f'W/joint_vggsound_k{number}',
        'custom_hooks.4.out_file':
        f'W/joint_vggsound_k{number}/self_labels.json',
    }


def other_boxes(suffix, **kwargs):
    return dict(
        NOT_TRAINED, **{
            'work_dir': f'W/joint_vggsound_{suffix}',
            'custom_hooks.0.out_file':
            f'W/joint_vggsound_{suffix}/self_labels.json',
        }, **{
            f'model.box_extractor.{key}': value
            for key, value in kwargs.items()
        })


VARIANTS = {
    'joint_vggsound_k20.py': other_clusters(20),
    'joint_vggsound_k30.py': other_clusters(30),
    'joint_vggsound_k50.py': other_clusters(50),
    'joint_vggsound_beta-0.8.py': other_boxes('beta-0.8', beta=0.8),
    'joint_vggsound_beta-0.9.py': other_boxes('beta-0.9', beta=0.9),
    'joint_vggsound_beta-0.7-0.9.py': other_boxes(
        'beta-0.7-0.9', beta=(0.7, 0.9)),
    'joint_vggsound_beta-0.7-0.9-multi.py': other_boxes(
        'beta-0.7-0.9-multi', beta=(0.7, 0.9), multi=True),
    'weak_vggsound.py': dict(
        NOT_TRAINED, **{
            'work_dir': 'W/weak_vggsound',
            'out_file': 'W/joint_vggsound/weak_labels.json',
            'label_map': 'vggsound_groups',
            'custom_hooks.0.out_file': 'W/joint_vggsound/weak_labels.json',
            'custom_hooks.0.label_source': 'ground_truth',
            'custom_hooks.0.label_map': 'vggsound_groups',
        }),
    'joint_vggsound-full_k300.py': {
        'num_clusters': 300,
        'model.cluster_head.num_clusters': 300,
        'work_dir': 'W/joint_vggsound-full_k300',
        'custom_hooks.4.out_file':
        'W/joint_vggsound-full_k300/self_labels.json',
        'localizer_clips': 'all_train.json',
        'detector_clips': 'all_train.json',
        'train_dataloader.dataset.ann_file': 'all_train.json',
        'label_dataloader.dataset.ann_file': 'all_train.json',
        'pseudo_label_dataloader.dataset.ann_file': 'all_train.json',
        'custom_hooks.3.dataloader.dataset.ann_file': 'all_train.json',
        'custom_hooks.4.dataloader.dataset.ann_file': 'all_train.json',
    },
}


# The demo's ablation of the number of clusters: base, and what differs.
DEMO_VARIANTS = {}
for _k in (6, 12):
    DEMO_VARIANTS[f'joint_demo_k{_k}.py'] = 'joint_demo.py', {
        'num_clusters': _k,
        'model.cluster_head.num_clusters': _k,
        'custom_hooks.2.out_file': f'D/self_labels_k{_k}.json',
        'custom_hooks.2.dump_file': None,
    }
    DEMO_VARIANTS[f'faster-rcnn_avol-net_fpn_demo_k{_k}.py'] = DETECTOR, {
        'num_clusters': _k,
        'model.backbone.init_cfg.checkpoint': f'D/joint_k{_k}/epoch_7.pth',
        'model.roi_head.bbox_head.num_classes': _k,
        'train_dataloader.dataset.ann_file': f'D/self_labels_k{_k}.json',
        'train_dataloader.dataset.metainfo.classes': tuple(
            f'cluster_{k}' for k in range(_k)),
        'test_evaluator.matching': f'D/matching_k{_k}.json',
        'val_evaluator.matching': f'D/matching_k{_k}.json',
    }


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
        loader = Runner.build_dataloader(hook.dataloader)
        generate_pseudo_labels(model, loader, hook.out_file)
        weak = find_hook(
            load_config('weak_demo.py', root, patch), 'PseudoLabelHook')
        generate_pseudo_labels(
            model, loader, weak.out_file, label_source=weak.label_source)
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


@pytest.mark.parametrize('name', [*CONFIGS, *LOCALIZERS, *VARIANTS])
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


def small_options(stage):
    """The words of tests/small, which README shows as a command."""
    with open(osp.join(ROOT, 'tests/small', f'{stage}.txt')) as file:
        return file.read().split()


def flat(node, path=()):
    """A config as (path, value) of its leaves."""
    if isinstance(node, (list, tuple)) and any(
            isinstance(x, dict) for x in node):
        node = dict(enumerate(node))
    if isinstance(node, dict) and node:
        return {
            k: v
            for key, value in node.items()
            for k, v in flat(value, (*path, str(key))).items()
        }
    return {'.'.join(path): node}


@pytest.fixture(scope='module')
def paper_dir(clip_dir, tmp_path_factory):
    """Prepared clips under all names, and the localizers trained on them."""
    root = tmp_path_factory.mktemp('paper')
    data = root / 'data'
    shutil.copytree(clip_dir, data)
    prepare_clips(str(data / 'train.json'), str(data), workers=1)
    for name in ('instruments', 'all'):
        shutil.copy(data / 'clips.json', data / f'{name}_train.json')
    # Labels that the weakly supervised variant knows.
    metainfo, rows = load_clip_table(str(data / 'clips.json'))
    classes = load_label_map('vggsound_mappable').classes
    names = dict(zip(metainfo['classes'], classes))
    dump_clip_table([
        dict(row, label=names[row['label']], instances=[]) for row in rows
    ], str(data / 'mappable_train.json'), dict(classes=classes))
    with pytest.MonkeyPatch.context() as patch:
        for key in ('AVDET_VGGSOUND', 'AVDET_AUDIOSET'):
            patch.setenv(key, str(data))
        patch.setenv('AVDET_WORK_DIRS', str(root))
        yield root


def paper_config(name, stage):
    cfg = Config.fromfile(osp.join(FOLDER, name))
    cfg.merge_from_dict(parse_options(small_options(stage)))
    shrink(cfg._cfg_dict)
    cfg.default_hooks.logger.interval = 1
    cfg.experiment_name = experiment_name()
    if stage == 'joint':  # of 16 clips
        cfg.model.cluster_head.num_clusters = 8
        cfg.load_from = cfg.load_from.replace('epoch_230', 'epoch_1')
    return cfg


@pytest.fixture(scope='module')
def trained(paper_dir):
    """Runners of the paper's localizers, after an epoch."""
    runners = {}
    for name, stage in LOCALIZERS.items():
        runners[name] = Runner.from_cfg(paper_config(name, stage))
        runners[name].train()
    return runners


@pytest.mark.parametrize('name', LOCALIZERS)
def test_localizer_trains_for_an_epoch(name, trained, paper_dir):
    runner = trained[name]
    work_dir = paper_dir / osp.splitext(name)[0]
    assert runner.iter == 4
    weights = weights_of(work_dir / 'epoch_1.pth')
    before = paper_dir / 'pretrain_audioset/epoch_1.pth'
    losses = ['loss_loc']
    if name != 'pretrain_audioset.py':
        losses += ['loss_cluster_visual', 'loss_cluster_audio']
        key = 'visual_backbone.conv4_2.conv.weight'
        old, new = weights_of(before)[key], weights[key]
        # It has learned, and started from the pre-training.
        assert 0 < (new - old).abs().mean() < 0.1 * old.abs().mean()
        assert runner.model.self_labels.shape == (16, )
        labels = json.loads((work_dir / 'self_labels.json').read_text())
        assert len(labels['images']) == 16
        assert len(labels['categories']) == 8
        # The detector will find the frames.
        for image in labels['images']:
            assert osp.isfile(work_dir / image['file_name'])
    for loss in losses:
        assert len(scalars(work_dir, loss)) == 4
        assert all(0 < v < 10 for v in scalars(work_dir, loss).values())
    metrics = runner.test()
    assert 0 <= metrics['loc/pointing'] <= 1
    assert ('coco/agnostic_AP50' in metrics) == (len(losses) > 1)


def test_recipes_of_the_paper(paper_dir):
    cfg = Config.fromfile(osp.join(FOLDER, 'pretrain_audioset.py'))
    assert cfg.model.localization_head.pooling == 'mean'
    assert cfg.train_dataloader.batch_size == 12
    assert cfg.auto_scale_lr == dict(enable=False, base_batch_size=64 * 12)
    assert cfg.train_cfg.max_epochs == 230
    assert cfg.optim_wrapper.optimizer == dict(type='Adam', lr=1e-4)
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.Adam([weight], lr=cfg.lr)
    scheduler, = cfg.param_scheduler
    scheduler = LinearLR.build_iter_from_epoch(
        optimizer,
        epoch_length=7,
        **{k: v
           for k, v in scheduler.items()
           if k not in ('type', 'convert_to_iter_based')})
    rates = []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        scheduler.step()
    # Linear up to the end of the tenth epoch, constant from there on.
    assert rates[0] == pytest.approx(1e-6)
    assert rates[69] == pytest.approx(1e-4)
    assert rates[35] == pytest.approx(1e-6 + (1e-4 - 1e-6) * 35 / 69)
    assert rates[99] == pytest.approx(1e-4)

    cfg = Config.fromfile(osp.join(FOLDER, 'joint_vggsound.py'))
    assert cfg.model.localization_head.pooling == 'max'
    assert cfg.model.cluster_head.num_clusters == 39
    assert cfg.train_dataloader.batch_size == 16
    assert cfg.auto_scale_lr == dict(enable=False, base_batch_size=16 * 16)
    assert cfg.train_cfg.max_epochs == 300
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.momentum) == ('SGD', 1e-2,
                                                                  0.9)
    assert cfg.get('param_scheduler') is None
    hook = find_hook(cfg, 'SelfLabelHook')
    assert (hook.num_updates, hook.power, hook.get('marginals')) == (100, 1.5,
                                                                     None)
    assert cfg.load_from == str(paper_dir / 'pretrain_audioset/epoch_230.pth')
    # Whole numbers of intervals, and nothing is chosen by a test set.
    for name in LOCALIZERS:
        cfg = Config.fromfile(osp.join(FOLDER, name))
        assert cfg.train_cfg.max_epochs % cfg.default_hooks.checkpoint[
            'interval'] == 0
        assert cfg.get('val_dataloader') is None
        assert not cfg.train_dataloader.persistent_workers
    assert find_hook(cfg, 'SelfLabelHook').marginals == dict(
        type='avdet_mm.GaussianMarginals', std=0.1)


def test_shapes_of_the_paper(paper_dir):
    cfg = Config.fromfile(osp.join(FOLDER, 'joint_vggsound.py'))
    model = MODELS.build(cfg.model).eval()
    with torch.no_grad():
        audio = model.data_preprocessor.log_mel(torch.zeros(1, 24000))
        assert audio.shape == (1, 1, 257, 99)
        outs = model(dict(frame=torch.zeros(1, 3, 224, 224), audio=audio))
    assert outs['visual'].shape == (1, 1024, 14, 14)
    assert outs['audio'].shape == (1, 1024)
    assert outs['visual_logits'].shape == outs['audio_logits'].shape == (1, 39)


@pytest.mark.parametrize('name', VARIANTS)
def test_variants_change_what_they_say(name, monkeypatch):
    monkeypatch.setenv('AVDET_WORK_DIRS', 'W')
    base, cfg = (
        Config.fromfile(osp.join(FOLDER, n)).to_dict()
        for n in ('joint_vggsound.py', name))
    expected = VARIANTS[name]
    if 'train_cfg' in expected:
        # Of the hooks, PseudoLabelHook alone is left.
        base['custom_hooks'] = base['custom_hooks'][-1:]
        base.update(NOT_TRAINED)
    base, cfg = flat(base), flat(cfg)
    assert base.keys() <= cfg.keys()
    changed = {k: v for k, v in cfg.items() if base.get(k) != v or
               k not in base}
    assert changed == {k: v for k, v in expected.items()
                       if k not in NOT_TRAINED}
    model = Config.fromfile(osp.join(FOLDER, name)).model
    TASK_UTILS.build(model.box_extractor)
    head = MODELS.build(model.cluster_head)
    assert head.num_clusters == expected.get('num_clusters', 39)


@pytest.mark.parametrize('name', DEMO_VARIANTS)
def test_demo_variants_change_what_they_say(name, monkeypatch):
    monkeypatch.setenv('AVDET_DEMO_DIR', 'D')
    base, expected = DEMO_VARIANTS[name]
    base, cfg = (
        flat(Config.fromfile(osp.join(FOLDER, n)).to_dict())
        for n in (base, name))
    assert {k: v for k, v in cfg.items() if base[k] != v} == expected
    assert base.keys() == cfg.keys()


@pytest.mark.parametrize(
    'name', ['joint_vggsound_beta-0.7-0.9-multi.py', 'weak_vggsound.py'])
def test_labels_of_a_trained_localizer(name, trained, paper_dir, tmp_path,
                                       monkeypatch):
    """Variants that train nothing write a json of their own."""
    monkeypatch.setenv('AVDET_WORK_DIRS', str(tmp_path))
    monkeypatch.setenv('LOCAL_RANK', '0')
    monkeypatch.setattr(sys, 'argv', [
        'generate_pseudo_labels.py',
        osp.join(FOLDER, name),
        str(paper_dir / 'joint_vggsound/epoch_1.pth'), '--cfg-options',
        'model.cluster_head.num_clusters=8',
        'custom_hooks.0.dataloader.num_workers=0',
        *(x for x in small_options('joint') if x.startswith('model.'))
    ])
    runpy.run_path(
        osp.join(ROOT, 'tools/generate_pseudo_labels.py'),
        run_name='__main__')
    torch.set_flush_denormal(False)
    path = Config.fromfile(osp.join(FOLDER, name)).custom_hooks[0].out_file
    assert path.startswith(str(tmp_path))
    with open(path) as file:
        labels = json.load(file)
    assert len(labels['images']) == 16
    assert len(labels['annotations']) >= 16
    classes = load_label_map('vggsound_groups').classes
    if name == 'weak_vggsound.py':
        assert [c['name'] for c in labels['categories']] == list(classes)
    else:
        assert len(labels['annotations']) > 16
        assert labels['info']['beta'] == [0.7, 0.9]


def test_no_config_is_forgotten():
    found = {
        osp.relpath(path, FOLDER)
        for path in glob.glob(osp.join(ROOT, 'configs/**/*.py'),
                              recursive=True)
    }
    tested = {
        *CONFIGS, *LOCALIZERS, *VARIANTS, *DEMO_VARIANTS, 'pretrain_clips.py'
    }
    elsewhere = ('_base_/', 'pipelines/', 'faster-rcnn_r50', '../baselines/',
                 '../stampsound/', '../tables/')
    assert {
        path
        for path in found - tested if not path.startswith(elsewhere)
    } == set()
