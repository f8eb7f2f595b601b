"""Configs of DSOL: those of the demo train, those of AudioSet run."""
import json
import os.path as osp

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from avdet_mm.registry import HOOKS, MODELS
from tests.toy import ROOT, find_hook, load_config, scalars

FOLDER = osp.join(ROOT, 'configs/baselines')


@pytest.fixture
def shrunk(clip_dir, tmp_path, monkeypatch):
    """Configs of the demo with two clusters, on 16 clips."""

    def load(name):
        cfg = load_config(
            osp.join(FOLDER, name), clip_dir.parent, monkeypatch)
        cfg.work_dir = str(tmp_path / name[:-3])
        cfg.default_hooks.logger.interval = 1
        return cfg

    return load


def test_demo(shrunk, tmp_path):
    before = shrunk('objects-that-sound_demo.py')
    cfg = shrunk('dsol-stage1_demo.py')
    # Measured as the other methods are.
    for name in ('dsol-stage1_demo.py', 'dsol-stage2_demo.py'):
        assert shrunk(name).test_evaluator[:-1] == before.test_evaluator
    # Continues what localizes, with the same clips and encoders.
    assert cfg.load_from.endswith('/objects-that-sound/epoch_6.pth')
    assert before.train_cfg.max_epochs == 6
    for key in ('visual_backbone', 'audio_backbone', 'data_preprocessor'):
        assert cfg.model[key] == before.model[key]
    hook = find_hook(cfg, 'DSOLClusterHook')
    turns = [
        HOOKS.build(hook).place(epoch) < hook.class_epochs
        for epoch in range(cfg.train_cfg.max_epochs)
    ]
    assert turns == [True, False, True]
    cfg.load_from = None
    runner = Runner.from_cfg(cfg)
    # Batch norms need statistics, which those of the checkpoint have.
    hook, = (h for h in runner.hooks if type(h).__name__ == 'DSOLClusterHook')
    hook.init_epochs = 1
    runner.train()
    assert runner.iter == 12
    assert len(scalars(cfg.work_dir, 'loss_correspondence')) == 12
    assert scalars(cfg.work_dir, 'loss_visual').keys() == set(range(5, 13))
    metrics = runner.test()
    for key in ('loc/pointing', 'ssl/dsol_single_iou50', 'cluster/nmi'):
        assert 0 <= metrics[key] <= 1, key

    second = shrunk('dsol-stage2_demo.py')
    assert second.load_from.endswith('/dsol-stage1/epoch_3.pth')
    second.load_from = osp.join(cfg.work_dir, 'epoch_3.pth')
    second.train_cfg.max_epochs = 1
    labels = find_hook(second, 'PseudoLabelHook')
    assert labels.out_file.endswith('/dsol-stage2/self_labels.json')
    labels.out_file = str(tmp_path / 'labels/self_labels.json')
    labels.dataloader.dataset.pipeline[1].out_dir = str(tmp_path / 'images')
    runner_two = Runner.from_cfg(second)
    runner_two.train()
    assert runner_two.iter == 4
    for name in ('loss_matching', 'loss_correspondence'):
        values = scalars(second.work_dir, name).values()
        assert len(values) == 4 and all(0 < x < 100 for x in values), name
    # What was heard in stage 1.
    one, two = runner.model.state_dict(), runner_two.model.state_dict()
    fixed = [key for key in two if key.startswith('fixed')]
    assert fixed
    for key in fixed:
        assert torch.equal(two[key], one[key[len('fixed_'):]]), key
    assert torch.equal(two['dictionary'], one['dictionary'])
    assert one['dictionary'].any()
    with open(labels.out_file) as file:
        written = json.load(file)
    assert len(written['images']) == 16
    assert [c['name'] for c in written['categories']] == [
        f'cluster_{k}' for k in range(second.num_clusters)
    ]
    metrics = runner_two.test()
    for key in ('loc/pointing', 'ssl/dsol_single_iou50', 'cluster/nmi_audio'):
        assert 0 <= metrics[key] <= 1, key
    assert 'ssl/dsol_multi_ciou30' in metrics


@pytest.mark.parametrize('stage', [1, 2])
def test_audioset(stage, monkeypatch):
    monkeypatch.setenv('AVDET_WORK_DIRS', 'W')
    cfg = Config.fromfile(osp.join(FOLDER, f'dsol-stage{stage}_audioset.py'))
    init_default_scope('avdet_mm')
    assert cfg.work_dir == f'W/dsol-stage{stage}_audioset'
    assert cfg.optim_wrapper.optimizer.lr == 1e-4
    model = MODELS.build(cfg.model)
    assert model.dictionary.shape == (13, 512)
    model.dictionary.normal_()
    frame, audio = torch.randn(2, 3, 64, 64), torch.randn(2, 1, 64, 199)
    losses = model(dict(frame=frame, audio=audio), [], mode='loss')
    loss, _ = model.parse_losses(losses)
    loss.backward()
    assert torch.isfinite(loss)
    model.eval()
    with torch.no_grad():
        outs = model(dict(frame=frame, audio=audio))
    assert model.heatmaps(outs).shape == (2, 4, 4)
    assert outs['visual_logits'].shape == outs['audio_logits'].shape == (2, 13)
    assert ('class_heatmaps' in outs) == (stage == 2)
    last = cfg.train_cfg.max_epochs
    if stage == 1:
        place = HOOKS.build(find_hook(cfg, 'DSOLClusterHook')).place
        assert [place(e) for e in (9, 10, 13, 14)] == [3, 0, 3, 0]
        # The last epoch is one of classification, the next would not be.
        assert [place(e) for e in (last - 1, last)] == [2, 3]
        assert f'epoch_{last}.pth' in Config.fromfile(
            osp.join(FOLDER, 'dsol-stage2_audioset.py')).load_from
    else:
        assert (model.matching, model.temperature) == ('bce', 0.7)
        assert find_hook(cfg, 'PseudoLabelHook').out_file == (
            'W/dsol-stage2_audioset/self_labels.json')
