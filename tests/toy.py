"""Tiny models, data and runners for tests."""
import itertools
import json
import os
import os.path as osp

import numpy as np
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from torch.utils.data import Dataset

from avdet_mm.structures import AudioVisualDataSample

ROOT = osp.dirname(osp.dirname(osp.abspath(__file__)))
_count = itertools.count()


class ToyClips(Dataset):
    """Clips in memory: noise, a function of the index."""

    def __init__(self, size=12, prefix='clip', image_size=32):
        self.clip_ids = [f'{prefix}_{i:03d}' for i in range(size)]
        rng = np.random.default_rng(0)
        self.frames = torch.from_numpy(
            rng.integers(0, 256, (size, 3, image_size, image_size), np.uint8))
        self.audio = torch.from_numpy(
            rng.uniform(-1, 1, (size, 2000)).astype(np.float32))
        # Louder and softer clips, so that log-mel values differ.
        self.audio *= torch.linspace(0.01, 1, size)[:, None]
        self.image_size = image_size

    def __len__(self):
        return len(self.clip_ids)

    def __getitem__(self, i):
        shape = (self.image_size, self.image_size)
        return dict(
            inputs=dict(frame=self.frames[i], audio=self.audio[i]),
            data_samples=AudioVisualDataSample(
                metainfo=dict(
                    clip_id=self.clip_ids[i],
                    sample_idx=i,
                    time=0.5,
                    ori_shape=shape,
                    img_shape=shape,
                    homography_matrix=np.eye(3, dtype=np.float32),
                    img_path=f'/images/{self.clip_ids[i]}.png')))


def model_cfg(num_clusters=None, norm=True, **kwargs):
    """Config of a localizer of a few thousand parameters."""
    norm_cfg = dict(type='BN') if norm else None
    widths = dict(
        visual_channels=32,
        audio_channels=32,
        hidden_channels=16,
        norm_cfg=norm_cfg)
    backbone = dict(
        type='avdet_mm.AVOLNet', base_channels=4, norm_cfg=norm_cfg)
    return dict(
        dict(
            type='avdet_mm.AudioVisualLocalizer',
            data_preprocessor=dict(
                type='avdet_mm.AudioVisualDataPreprocessor',
                n_fft=256,
                win_length=100,
                hop_length=100,
                n_mels=16,
                audio_mean=-3.,
                audio_std=2.),
            visual_backbone=dict(pooled_stages=(0, 1), **backbone),
            audio_backbone=dict(in_channels=1, **backbone),
            localization_head=dict(
                type='avdet_mm.ContrastiveLocalizationHead',
                embed_channels=16,
                **widths),
            cluster_head=None if num_clusters is None else dict(
                type='avdet_mm.SKClusterHead',
                num_clusters=num_clusters,
                **widths)), **kwargs)


def loader_cfg(dataset, batch_size=4, shuffle=False, **kwargs):
    """Config of a data loader."""
    return dict(
        dict(
            dataset=dataset,
            batch_size=batch_size,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=shuffle),
            collate_fn=dict(type='pseudo_collate')), **kwargs)


def label_cfg(dataset, batch_size=5):
    """Config of the data loader of a labelling pass."""
    return loader_cfg(
        dataset,
        batch_size,
        sampler=dict(type='DefaultSampler', shuffle=False, round_up=False))


def make_runner(work_dir, model, dataset, hooks=(), epochs=2, **kwargs):
    """A runner that trains on the CPU, seeded and without validation."""
    batch_size = kwargs.pop('batch_size', 4)
    # What Runner reads from the config alone.
    cfg = dict(
        model_wrapper_cfg=dict(
            type='MMDistributedDataParallel', device_ids=None))
    return Runner(
        cfg=cfg,
        **dict(
            dict(
                model=model,
                work_dir=str(work_dir),
                train_dataloader=loader_cfg(
                    dataset, batch_size, shuffle=True, drop_last=True),
                train_cfg=dict(by_epoch=True, max_epochs=epochs),
                optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.05)),
                default_hooks=dict(logger=dict(type='LoggerHook', interval=1)),
                log_processor=dict(window_size=1),
                custom_hooks=list(hooks),
                default_scope='avdet_mm',
                experiment_name=experiment_name(),
                randomness=dict(seed=3)), **kwargs))


def experiment_name():
    """A new name: runners with the same name share log and message hub."""
    return f'test_{os.getpid()}_{next(_count)}'


def scalars(work_dir, key='loss'):
    """Logged values of a training by step, from its scalars.json files."""
    found = {}
    for folder, _, files in sorted(os.walk(work_dir)):
        if 'scalars.json' not in files:
            continue
        with open(osp.join(folder, 'scalars.json')) as file:
            for line in file:
                row = json.loads(line)
                if key in row:
                    found[row['step']] = row[key]
    return found


def load_config(name, demo_dir, monkeypatch):
    """A config of configs/avdet, shrunk to a few clips and a second."""
    monkeypatch.setenv('AVDET_DEMO_DIR', str(demo_dir))
    path = name if osp.isabs(name) else osp.join(ROOT, 'configs/avdet', name)
    cfg = Config.fromfile(path)
    shrink(cfg._cfg_dict)
    cfg.experiment_name = experiment_name()
    # MMDetection names it: all runners of a process would share one.
    cfg.visualizer.pop('name', None)
    return cfg


def shrink(node):
    """Small batches in this process, everywhere in a config."""
    if isinstance(node, dict):
        if 'num_workers' in node:
            node.num_workers = 0
            node.batch_size = min(node.batch_size, 4)
        for value in node.values():
            shrink(value)
    elif isinstance(node, (list, tuple)):
        for value in node:
            shrink(value)


def find_hook(cfg, name):
    """The config of a custom hook."""
    hook, = (h for h in cfg.custom_hooks if h['type'] == f'avdet_mm.{name}')
    return hook
