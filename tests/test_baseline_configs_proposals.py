"""Configs of Table 1's baselines: built, trained for an epoch, evaluated."""
import glob
import os
import os.path as osp
import shutil

import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from avdet_mm.datasets.transforms import proposals
from avdet_mm.registry import MODELS
from tests.detectors import (
    INSTRUMENTS,
    cached_metafiles,
    environment,
    write_labels,
    write_stages,
)
from tests.toy import ROOT, load_config, scalars

FOLDER = osp.join(ROOT, 'configs/baselines')
NOT_TRAINED = [
    'center-box_demo.py', 'center-box_vggsound.py', 'rpn_coco_vggsound.py',
    'selective-search_demo.py', 'selective-search_vggsound.py'
]
TRAINED = ['pcl_demo.py', 'pcl_vggsound.py', 'rpn_demo.py']
PCL_LOSSES = {
    'loss_mil', 'loss_refine0', 'loss_refine1', 'loss_refine2', 'loss_cls',
    'loss_bbox'
}


@pytest.fixture(scope='module', autouse=True)
def quick_configs():
    with cached_metafiles():
        yield


@pytest.fixture(scope='module')
def demo_dir(clip_dir, tmp_path_factory):
    """A demo's folder: clips, a localizer, and its weak labels."""
    root = tmp_path_factory.mktemp('demo')
    data = root / 'data'
    shutil.copytree(clip_dir, data)
    with pytest.MonkeyPatch.context() as patch:
        joint = load_config('joint_demo.py', root, patch)
        pcl = load_config(osp.join(FOLDER, 'pcl_demo.py'), root, patch)
    init_default_scope('avdet_mm')
    os.makedirs(root / 'joint')
    torch.save(
        dict(state_dict=MODELS.build(joint.model).state_dict()),
        root / 'joint/epoch_7.pth')
    write_labels(data, root / 'weak_labels.json', pcl.classes)
    return root


@pytest.fixture(scope='module')
def vggsound_root(clip_dir, tmp_path_factory):
    root = tmp_path_factory.mktemp('stages')
    write_stages(clip_dir, root)
    return root


@pytest.fixture(autouse=True)
def grid(monkeypatch):
    """Overlapping boxes instead of a search, which its own tests try."""

    def search(image, mode):
        h, w = image.shape[:2]
        x, y = np.meshgrid(np.arange(0, w - w // 2, 16),
                           np.arange(0, h - h // 2, 16))
        low = np.stack([x.ravel(), y.ravel()], 1)
        return np.hstack([low, low + [w // 2, h // 2]]).astype(np.int32)

    monkeypatch.setattr(proposals, 'selective_search', search)


@pytest.fixture
def config(request, monkeypatch, tmp_path):
    """Reads and shrinks a config, with the folder that it needs."""

    def read(name):
        if '_demo' in name:
            root = request.getfixturevalue('demo_dir')
        else:
            root = request.getfixturevalue('vggsound_root')
            for key, value in environment(root).items():
                monkeypatch.setenv(key, value)
        cfg = load_config(osp.join(FOLDER, name), root, monkeypatch)
        cfg.work_dir = str(tmp_path)
        return cfg

    return read


def small_resnet(cfg):
    """A ResNet and what follows of a sixteenth of the channels."""
    cfg.model.backbone.update(base_channels=4, init_cfg=None)
    if cfg.model.type == 'RPN':
        cfg.model.neck.update(in_channels=[16, 32, 64, 128], out_channels=8)
        cfg.model.rpn_head.update(in_channels=8, feat_channels=8)
    else:
        head = cfg.model.roi_head
        cfg.model.neck.update(in_channels=[128], out_channels=8)
        head.update(in_channels=8, fc_channels=16)
        head.bbox_roi_extractor.out_channels = 8
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        loader = cfg.get(name)
        for transform in loader.dataset.pipeline if loader else ():
            for resize in (transform, *transform.get('transforms', ())):
                if 'scale' in resize:
                    resize.scale = (128, 64)
                if 'scales' in resize:
                    resize.scales = [(128, 64), (128, 80)]


def test_all_configs_are_known():
    found = [
        osp.basename(path)
        for method in ('center-box', 'selective-search', 'rpn', 'pcl')
        for path in glob.glob(f'{FOLDER}/{method}_*.py')
    ]
    assert sorted(found) == sorted(NOT_TRAINED + TRAINED)


@pytest.mark.parametrize('name', NOT_TRAINED)
def test_without_training(name, config):
    cfg = config(name)
    assert cfg.get('train_dataloader') is None
    if name.startswith('rpn'):
        small_resnet(cfg)
    metrics = Runner.from_cfg(cfg).test()
    # No class plays a part.
    assert {k for k in metrics if k.endswith('AP50')} == {
        'coco/agnostic_AP50'
    }
    assert 0 <= metrics['coco/agnostic_AP50'] <= 1


@pytest.mark.parametrize('name', TRAINED)
def test_one_epoch(name, config, tmp_path):
    cfg = config(name)
    if 'vggsound' in name:
        small_resnet(cfg)
    cfg.train_cfg.max_epochs = cfg.train_cfg.val_interval = 1
    cfg.default_hooks.logger.interval = 1
    runner = Runner.from_cfg(cfg)
    start = {k: v.clone() for k, v in runner.model.state_dict().items()}
    runner.train()
    assert runner.iter == 4
    total = scalars(tmp_path)
    expected = PCL_LOSSES if name.startswith('pcl') else {
        'loss_rpn_cls', 'loss_rpn_bbox'
    }
    parts = [scalars(tmp_path, key) for key in expected]
    for step, value in total.items():
        assert 0 < value < 20
        # All keys with "loss" in them, and only they, are added up.
        assert value == pytest.approx(sum(p[step] for p in parts), rel=1e-4)
    state = runner.model.state_dict()
    trained = [
        k for k, p in runner.model.named_parameters() if p.requires_grad
    ]
    assert any(k.startswith('backbone') for k in trained)
    assert all(not torch.equal(state[k], start[k]) for k in trained)
    aware = name.startswith('pcl')
    assert ('coco/AP50' in runner.test()) == aware


def test_pcl_differs_from_the_demo_detector_in_supervision(config):
    pcl, rpn = config('pcl_demo.py'), config('rpn_demo.py')
    detector = config('../avdet/faster-rcnn_avol-net_fpn_demo.py')
    for cfg in (pcl, rpn):
        for key in ('type', 'init_cfg', 'frozen_stages', 'norm_eval',
                    'base_channels', 'pooled_stages'):
            assert cfg.model.backbone[key] == detector.model.backbone[key]
        assert cfg.train_cfg.max_epochs == detector.train_cfg.max_epochs
    assert pcl.train_dataloader.dataset.ann_file.endswith('weak_labels.json')
    assert rpn.train_dataloader.dataset.ann_file.endswith('train_coco.json')
    # It starts from the localizer.
    runner = Runner.from_cfg(pcl)
    runner.model.init_weights()
    weights = torch.load(
        pcl.model.backbone.init_cfg.checkpoint,
        weights_only=True)['state_dict']
    key = 'conv4_2.conv.weight'
    assert torch.equal(runner.model.backbone.state_dict()[key],
                       weights[f'visual_backbone.{key}'])


def test_values_of_the_papers_and_the_code(config):
    pcl = config('pcl_vggsound.py')
    assert pcl.train_dataloader.dataset.metainfo.classes == INSTRUMENTS
    assert pcl.train_dataloader.dataset.ann_file.endswith(
        'joint_vggsound/weak_labels.json')
    assert pcl.model.test_cfg.rcnn.nms.iou_threshold == 0.3
    assert [h.type for h in pcl.custom_hooks] == ['avdet_mm.EpochSeedHook']
    assert pcl.optim_wrapper.optimizer.lr == 1e-3
    assert pcl.param_scheduler[0].milestones == [8]
    head = MODELS.build(
        dict(pcl.model.roi_head, in_channels=8, fc_channels=8))
    assert (head.centers, len(head.refine), head.first_weight) == ('oicr', 3,
                                                                   3)
    assert (head.fg_iou, head.ignore_iou) == (0.5, 0.1)
    searches = [
        config(f'{name}_vggsound.py').test_dataloader.dataset.pipeline[1]
        for name in ('pcl', 'selective-search')
    ]
    # One cache.
    assert searches[0].cache_dir == searches[1].cache_dir
    rpn = config('rpn_coco_vggsound.py').model.test_cfg.rpn
    assert (rpn.max_per_img, rpn.nms.iou_threshold) == (100, 0.7)
