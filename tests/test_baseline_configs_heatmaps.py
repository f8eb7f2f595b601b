"""Configs of Objects that Sound, attention and DMC.

Those of the demo are trained for an epoch of a few clips and tested; those of
AudioSet, whose clips are not here, are built and run on small frames.
"""
import os.path as osp

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from avdet_mm.registry import METRICS, MODELS
from tests.toy import ROOT, load_config, scalars

FOLDER = osp.join(ROOT, 'configs/baselines')
METHODS = {
    'objects-that-sound': ('ObjectsThatSound', 'loss_correspondence'),
    'attention': ('AttentionLocalizer', 'loss_pairs'),
    'dmc': ('DMC', 'loss_pairs'),
}


@pytest.mark.parametrize('name', METHODS)
def test_demo(name, clip_dir, tmp_path, monkeypatch):
    cfg = load_config(
        osp.join(FOLDER, f'{name}_demo.py'), clip_dir.parent, monkeypatch)
    cls, loss = METHODS[name]
    assert cfg.model.type == f'avdet_mm.{cls}'
    cfg.work_dir = str(tmp_path)
    cfg.train_cfg.max_epochs = 1
    cfg.default_hooks.logger.interval = 1
    runner = Runner.from_cfg(cfg)
    before = {k: v.clone() for k, v in runner.model.named_parameters()}
    runner.train()
    assert runner.iter == 4  # 16 clips, 4 at a time
    losses = scalars(tmp_path, loss)
    assert len(losses) == 4 and all(0 < x < 1000 for x in losses.values())
    # Every part has learned.
    changed = {
        key.split('.')[0]
        for key, value in runner.model.named_parameters()
        if not torch.equal(value, before[key])
    }
    assert changed == {key.split('.')[0] for key in before}
    assert runner.model.data_preprocessor.audio_std > 0
    metrics = runner.test()
    for key in ('loc/pointing', 'loc/iou50', 'ssl/dsol_single_iou50',
                'ssl/dsol_single_auc'):
        assert 0 <= metrics[key] <= 1, key
    assert osp.isfile(tmp_path / 'epoch_1.pth')


@pytest.mark.parametrize('name', METHODS)
def test_audioset(name, monkeypatch):
    monkeypatch.setenv('AVDET_WORK_DIRS', 'W')
    cfg = Config.fromfile(osp.join(FOLDER, f'{name}_audioset.py'))
    init_default_scope('avdet_mm')
    assert cfg.work_dir == f'W/{name}_audioset'
    assert cfg.model.type == f'avdet_mm.{METHODS[name][0]}'
    model = MODELS.build(cfg.model)
    # Of the two ResNets, the visual one alone starts from ImageNet; with DMC
    # both start from nothing.
    starts = [
        isinstance(x.init_cfg, dict) and x.init_cfg['checkpoint']
        for x in (model.visual_backbone, model.audio_backbone)
    ]
    assert starts == [name != 'dmc' and 'torchvision://resnet18', False]
    assert model.audio_backbone.conv1.in_channels == 1
    audio = model.data_preprocessor.log_mel(torch.rand(2, 24000))
    assert audio.shape == (2, 1, 64, 199)
    losses = model(dict(frame=torch.randn(2, 3, 64, 64), audio=audio), [],
                   mode='loss')
    loss, _ = model.parse_losses(losses)
    loss.backward()
    gradients = [p.grad for p in model.parameters()]
    assert all(g is not None and torch.isfinite(g).all() for g in gradients)
    # Batch norm learns, on all layers.
    assert model.visual_backbone.bn1.num_batches_tracked == 1
    model.eval()
    with torch.no_grad():
        frame = torch.randn(1, 3, 224, 224)
        assert model.visual_backbone(frame)[-1].shape == (1, 512, 14, 14)
        outs = model(dict(frame=frame, audio=audio[:1]))
        assert model.heatmaps(outs).shape == (1, 14, 14)


def test_recipe_of_audioset(monkeypatch):
    monkeypatch.setenv('AVDET_AUDIOSET', '/clips')
    for name in METHODS:
        cfg = Config.fromfile(osp.join(FOLDER, f'{name}_audioset.py'))
        assert cfg.optim_wrapper.optimizer == dict(
            type='Adam', lr=1e-4, weight_decay=1e-4)
        assert cfg.train_dataloader.batch_size == 32
        assert cfg.train_dataloader.dataset.data_root == '/clips'
        # All instruments, and a test that is not trained on.
        assert cfg.train_dataloader.dataset.ann_file == (
            'instruments_train.json')
        assert cfg.test_dataloader.dataset.ann_file == 'test.json'
        assert cfg.get('val_dataloader') is None
        assert cfg.train_cfg.max_epochs % (
            cfg.default_hooks.checkpoint.interval) == 0
        evaluators = [METRICS.build(x) for x in cfg.test_evaluator]
        assert [type(x).__name__ for x in evaluators] == [
            'LocalizationMetric', 'SoundLocalizationMetric'
        ]
        assert cfg.test_evaluator[1].protocols == [
            'dsol_single', 'dsol_multi'
        ]
