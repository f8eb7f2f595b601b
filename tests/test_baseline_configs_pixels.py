"""Configs of Sound of Pixels."""
import os.path as osp

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from avdet_mm.registry import MODELS, TRANSFORMS
from tests.toy import ROOT, load_config, scalars

FOLDER = osp.join(ROOT, 'configs/baselines')
SAMPLES = {'demo': 16383, 'audioset': 65535}


def audioset_config():
    return Config.fromfile(osp.join(FOLDER, 'sound-of-pixels_audioset.py'))


def test_demo(clip_dir, tmp_path, monkeypatch):
    cfg = load_config(
        osp.join(FOLDER, 'sound-of-pixels_demo.py'), clip_dir.parent,
        monkeypatch)
    assert cfg.work_dir == str(clip_dir.parent / 'sound-of-pixels')
    cfg.work_dir = str(tmp_path)
    # From an earlier stage, which is not run here.
    trunk = cfg.model.visual_backbone.pop('init_cfg')
    assert trunk.checkpoint == str(clip_dir.parent / 'pretrain/epoch_6.pth')
    cfg.train_cfg.max_epochs = 1
    cfg.default_hooks.logger.interval = 1
    runner = Runner.from_cfg(cfg)
    before = {k: v.clone() for k, v in runner.model.named_parameters()}
    runner.train()
    assert runner.iter == 4  # 16 clips, 4 at a time
    losses = scalars(tmp_path, 'loss_mask')
    assert len(losses) == 4 and all(0 < x < 5 for x in losses.values())
    # Every part has learned.
    changed = {
        key.split('.')[0]
        for key, value in runner.model.named_parameters()
        if not torch.equal(value, before[key])
    }
    assert changed == {key.split('.')[0] for key in before}
    metrics = runner.test()
    for key in ('loc/pointing', 'loc/iou50', 'ssl/dsol_single_iou50',
                'ssl/dsol_single_auc'):
        assert 0 <= metrics[key] <= 1, key
    assert osp.isfile(tmp_path / 'epoch_1.pth')


@pytest.mark.parametrize('name', SAMPLES)
def test_spectrogram_fits_the_unet(name, monkeypatch):
    monkeypatch.setenv('AVDET_DEMO_DIR', 'demo')
    cfg = Config.fromfile(osp.join(FOLDER, f'sound-of-pixels_{name}.py'))
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        load = TRANSFORMS.build(loader.dataset.pipeline[0])
        samples = round(load.audio_duration * load.sample_rate)
        assert samples == SAMPLES[name] and load.sample_rate == 11025
        # A square of a power of 2, as many as the U-Net has levels or more.
        cells = 1 + samples // cfg.model.hop_length
        assert cells == cfg.model.num_bins
        assert cells % 2**cfg.model.audio_backbone.num_levels == 0
    # Sounds are mixed within a batch.
    assert cfg.train_dataloader.drop_last


def test_audioset():
    cfg = audioset_config()
    init_default_scope('avdet_mm')
    cfg.model.audio_backbone.base_channels = 2
    model = MODELS.build(cfg.model)
    assert model.visual_backbone.init_cfg['checkpoint'] == (
        'torchvision://resnet18')
    audio = torch.rand(2, 65535) - 0.5
    losses = model(
        dict(frame=torch.randn(2, 3, 64, 64), audio=audio), mode='loss')
    loss, _ = model.parse_losses(losses)
    loss.backward()
    gradients = [p.grad for p in model.parameters()]
    assert all(g is not None and torch.isfinite(g).all() for g in gradients)
    model.eval()
    with torch.no_grad():
        outs = model(dict(frame=torch.randn(1, 3, 64, 96), audio=audio[:1]))
        assert outs['visual'].shape == (1, 32, 4, 6)
        assert model.heatmaps(outs).shape == (1, 4, 6)


def test_recipe_of_the_public_code(monkeypatch):
    monkeypatch.setenv('AVDET_WORK_DIRS', 'W')
    monkeypatch.setenv('AVDET_AUDIOSET', '/clips')
    cfg = audioset_config()
    assert cfg.work_dir == 'W/sound-of-pixels_audioset'
    assert cfg.train_dataloader.dataset.data_root == '/clips'
    assert cfg.train_dataloader.batch_size * 4 == 80
    assert cfg.train_cfg.max_epochs == 100
    assert cfg.param_scheduler == [
        dict(type='MultiStepLR', milestones=[40, 80], gamma=0.1)
    ]
    unet = cfg.model.audio_backbone
    assert (unet.out_channels, unet.base_channels,
            unet.num_levels) == (32, 64, 7)
    assert [step.type for step in cfg.train_dataloader.dataset.pipeline] == [
        'avdet_mm.LoadClip', 'mmdet.Resize', 'mmdet.RandomCrop',
        'mmdet.RandomFlip', 'avdet_mm.RandomAudioGain',
        'avdet_mm.PackAudioVisualInputs'
    ]
    assert [hook.type for hook in cfg.custom_hooks] == [
        'avdet_mm.EpochSeedHook'
    ]
    unet.base_channels = 2
    init_default_scope('avdet_mm')
    model = MODELS.build(cfg.model)
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    assert isinstance(optimizer, torch.optim.SGD)
    rates = {
        id(p): group['lr']
        for group in optimizer.param_groups for p in group['params']
    }
    for name, parameter in model.named_parameters():
        slow = name.startswith('visual_backbone')
        assert rates[id(parameter)] == pytest.approx(1e-4 if slow else 1e-3)
    assert all(group['momentum'] == 0.9 and group['weight_decay'] == 1e-4
               for group in optimizer.param_groups)
