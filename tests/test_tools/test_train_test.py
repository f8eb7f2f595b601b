"""Tests of tools/train.py, test.py and generate_pseudo_labels.py."""
import glob
import json
import os.path as osp
import pickle
import runpy
import shutil
import sys

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from avdet_mm.models.heads import ContrastiveLocalizationHead
from tests.toy import ROOT, find_hook, load_config, scalars


@pytest.fixture
def tool(monkeypatch):
    """Runs a tool with arguments, as its own program."""

    def run(name, *arguments):
        monkeypatch.setattr(sys, 'argv', [name, *map(str, arguments)])
        runpy.run_path(osp.join(ROOT, 'tools', name), run_name='__main__')

    monkeypatch.setenv('LOCAL_RANK', '0')
    yield run
    torch.set_flush_denormal(False)


def joint_config(clip_dir, root, monkeypatch, epochs, num_workers=0):
    """joint_demo.py on a few clips, from scratch; a dumped config file."""
    cfg = load_config('joint_demo.py', clip_dir.parent, monkeypatch)
    cfg.train_cfg.max_epochs = epochs
    cfg.train_cfg.val_interval = epochs + 1
    for key in ('val_cfg', 'val_dataloader', 'val_evaluator', 'load_from'):
        cfg[key] = None
    cfg.default_hooks.logger.interval = 1
    cfg.default_hooks.checkpoint = dict(type='CheckpointHook', interval=1)
    cfg.log_processor.window_size = 1
    hook = find_hook(cfg, 'SelfLabelHook')
    hook.num_updates = 4
    for loader in (cfg.train_dataloader, hook.dataloader):
        loader.num_workers = num_workers
        loader.worker_init_fn = dict(type='avdet_mm.seed_worker')
    labels = find_hook(cfg, 'PseudoLabelHook')
    labels.out_file = str(root / 'labels.json')
    labels.dump_file = str(root / 'dump.pkl')
    labels.dataloader.dataset.pipeline[1].out_dir = str(root / 'images')
    return cfg


def dump(cfg, path):
    """Write a config file with an experiment name of its own."""
    cfg = Config(cfg._cfg_dict.to_dict())
    cfg.experiment_name += f'_{osp.basename(path)}'
    cfg.dump(str(path))
    return path


@pytest.mark.parametrize('num_workers', [0, 1])
def test_resume_equals_an_uninterrupted_run(num_workers, clip_dir, tmp_path,
                                            tool, monkeypatch):
    cfg = joint_config(clip_dir, tmp_path, monkeypatch, 4, num_workers)
    whole, part = tmp_path / 'whole', tmp_path / 'part'
    tool('train.py', dump(cfg, tmp_path / 'a.py'), '--work-dir', whole)
    part.mkdir()
    # As if the run had been interrupted in its third epoch.
    shutil.copy(whole / 'epoch_2.pth', part)
    (part / 'last_checkpoint').write_text(str(part / 'epoch_2.pth'))
    torch.rand(3)
    tool('train.py', dump(cfg, tmp_path / 'b.py'), '--work-dir', part,
         '--resume')

    expected = scalars(whole)
    assert sorted(expected) == list(range(1, 17))
    # Other crops and frames in every epoch: no epoch repeats another.
    assert len(set(expected.values())) == 16
    assert scalars(part) == pytest.approx(
        {step: expected[step]
         for step in range(9, 17)}, rel=1e-6)
    a, b = (
        torch.load(folder / 'epoch_4.pth', weights_only=True)
        for folder in (whole, part))
    early = torch.load(whole / 'epoch_2.pth', weights_only=True)
    assert torch.equal(a['self_labels']['labels'], b['self_labels']['labels'])
    assert not torch.equal(a['self_labels']['labels'],
                           early['self_labels']['labels'])
    assert a['state_dict'].keys() == b['state_dict'].keys()
    for name, value in a['state_dict'].items():
        torch.testing.assert_close(
            b['state_dict'][name], value, rtol=1e-6, atol=1e-7, msg=name)


@pytest.fixture(scope='module')
def trained(clip_dir, tmp_path_factory):
    """A folder with a config, a checkpoint and the hook's self-labels."""
    root = tmp_path_factory.mktemp('trained')
    with pytest.MonkeyPatch.context() as patch:
        cfg = joint_config(clip_dir, root, patch, 1)
    dump(cfg, root / 'config.py')
    cfg.work_dir = str(root)
    Runner.from_cfg(cfg).train()
    return root


def test_tool_and_hook_write_the_same_labels(trained, tool, tmp_path):
    out, pickled = tmp_path / 'x' / 'a.json', tmp_path / 'b.pkl'
    tool('generate_pseudo_labels.py', trained / 'config.py',
         trained / 'epoch_1.pth', '--out', out, '--dump', pickled,
         '--work-dir', tmp_path)
    by_tool = json.loads(out.read_text())
    by_hook = json.loads((trained / 'labels.json').read_text())
    assert len(by_hook['annotations']) > 0
    assert by_tool['categories'] == by_hook['categories']
    for a, b in zip(by_tool['images'], by_hook['images']):
        # The same files, relative to either json.
        assert osp.realpath(out.parent / a.pop('file_name')) == osp.realpath(
            trained / b.pop('file_name'))
        assert a == b
    for a, b in zip(by_tool['annotations'], by_hook['annotations']):
        assert a.pop('bbox') == pytest.approx(b.pop('bbox'))
        assert a == pytest.approx(b)
    assert len(by_tool['annotations']) == len(by_hook['annotations'])
    assert by_tool['info']['config'] == str(trained / 'config.py')
    assert by_tool['info']['checkpoint'] == str(trained / 'epoch_1.pth')
    for path in (pickled, trained / 'dump.pkl'):
        with open(path, 'rb') as file:
            assert len(pickle.load(file)) == 16


def test_labels_need_the_hook(trained, tool, tmp_path):
    cfg = Config.fromfile(trained / 'config.py')
    cfg.custom_hooks = cfg.custom_hooks[:1]
    path = dump(cfg, tmp_path / 'config.py')
    with pytest.raises(SystemExit, match='0 PseudoLabelHooks'):
        tool('generate_pseudo_labels.py', path, trained / 'epoch_1.pth')


def test_test_tool(trained, tool, tmp_path, capsys):
    out = tmp_path / 'predictions.pkl'
    config = dump(
        Config.fromfile(trained / 'config.py'), tmp_path / 'config.py')
    tool('test.py', config, trained / 'epoch_1.pth', '--work-dir', tmp_path,
         '--out', out)
    with open(out, 'rb') as file:
        samples = pickle.load(file)
    assert [s['clip_id'] for s in samples] == [
        f'test_{i:06d}' for i in range(4)
    ]
    assert all('heatmap' in s and 'pred_instances' in s for s in samples)
    path, = glob.glob(f'{tmp_path}/*/*.json')
    with open(path) as file:
        metrics = json.load(file)
    assert 0 <= metrics['loc/pointing'] <= 1
    assert 0 <= metrics['cluster/nmi'] <= 1

    path = tmp_path / 'evaluation.json'
    assert capsys.readouterr().out.splitlines()[-1].endswith(f': {path}')
    evaluation = json.loads(path.read_text())
    assert set(evaluation) == {'config', 'checkpoint', 'metrics', 'details'}
    assert evaluation['config'] == str(config)
    assert evaluation['checkpoint'] == str(trained / 'epoch_1.pth')
    # MMEngine logs a whole number of 0 as null.
    assert evaluation['metrics'] == {
        k: 0 if v is None else v
        for k, v in metrics.items() if '/' in k
    }
    assert len(evaluation['metrics']) > 10
    # Of the metrics that keep details; LocalizationMetric has none.
    assert set(evaluation['details']) == {'cluster', 'coco'}
    coco = evaluation['details']['coco']
    assert coco['num_images'] == 4 and coco['matchings'] == {}
    assert coco['agnostic']['AP50'] == metrics['coco/agnostic_AP50']


def test_evaluation_is_json():
    jsonable = runpy.run_path(osp.join(ROOT, 'tools', 'test.py'))['jsonable']
    values = {
        'a': np.float32(0.5),
        1: (float('nan'), [torch.tensor(float('inf')), np.arange(2)]),
        'b': ['x', None, True, np.int64(3)],
    }
    assert jsonable(values) == {
        'a': 0.5,
        '1': [None, [None, [0, 1]]],
        'b': ['x', None, True, 3],
    }


def test_predictions_go_to_a_pickle(trained, tool, capsys):
    with pytest.raises(SystemExit):
        tool('test.py', trained / 'config.py', '--out', 'a.json')
    assert '.pkl' in capsys.readouterr().err


def test_learning_rate_needs_a_base(trained, tool, tmp_path):
    with pytest.raises(SystemExit, match='base_batch_size'):
        tool('train.py', trained / 'config.py', '--auto-scale-lr',
             '--work-dir', tmp_path)


@pytest.mark.parametrize('arguments', [
    ['--amp'],
    ['--cfg-options', 'optim_wrapper.type=AmpOptimWrapper'],
])
def test_mixed_precision_needs_a_gpu(arguments, trained, tool, tmp_path):
    with pytest.raises(SystemExit, match='needs a GPU.* single precision'):
        tool('train.py', trained / 'config.py', '--work-dir', tmp_path,
             *arguments)


@pytest.mark.parametrize('options, dtype, loss_scale', [
    ([], None, 'dynamic'),
    (['optim_wrapper.dtype=bfloat16'], 'bfloat16', 1.),
    (['optim_wrapper.dtype=float16'], 'float16', 'dynamic'),
    (['optim_wrapper.loss_scale=512.'], None, 512.),
])
def test_mixed_precision(options, dtype, loss_scale, trained, tool, tmp_path,
                         monkeypatch):
    seen = []
    monkeypatch.setattr('avdet_mm.utils.amp.get_device', lambda: 'cuda')
    monkeypatch.setattr(Runner, 'from_cfg', lambda cfg: seen.append(cfg))
    with pytest.raises(AttributeError, match='train'):  # of no runner
        tool('train.py', trained / 'config.py', '--work-dir', tmp_path,
             '--amp', *(['--cfg-options', *options] if options else []))
    wrapper = seen[0].optim_wrapper
    assert wrapper.type == 'AmpOptimWrapper'
    assert wrapper.get('dtype') == dtype
    assert wrapper.loss_scale == loss_scale


def test_bfloat16_on_a_cpu(trained, tool, tmp_path, monkeypatch):
    dtypes = []
    loss = ContrastiveLocalizationHead.loss

    def look(self, visual, audio, labels=None):
        vector = torch.zeros(2, 128, 1, 1)
        dtypes.append(self.audio_mlp.eval()(vector).dtype)
        self.audio_mlp.train()
        return loss(self, visual, audio, labels)

    monkeypatch.setattr(ContrastiveLocalizationHead, 'loss', look)
    tool('train.py', trained / 'config.py', '--work-dir', tmp_path, '--amp',
         '--cfg-options', 'optim_wrapper.dtype=bfloat16')
    assert set(dtypes) == {torch.bfloat16}


def test_options_override_the_config(trained, tool, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(Runner, 'train', lambda self: seen.append(self.cfg))
    tool('train.py',
         dump(Config.fromfile(trained / 'config.py'), tmp_path / 'config.py'),
         '--work-dir', tmp_path, '--cfg-options',
         'train_dataloader.batch_size=3', 'randomness.seed=7')
    cfg, = seen
    assert cfg.train_dataloader.batch_size == 3
    assert cfg.randomness.seed == 7
    assert cfg.work_dir == str(tmp_path)
    assert cfg.launcher == 'none'
