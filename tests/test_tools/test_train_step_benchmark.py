"""Tests of the benchmark of training steps; its times are not judged."""
import importlib.util
import json
import os.path as osp
import sys
from types import SimpleNamespace

import pytest
import torch

from tests.toy import ROOT

TINY = [
    'model.visual_backbone.base_channels=2',
    'model.audio_backbone.base_channels=2',
    'model.localization_head.visual_channels=16',
    'model.localization_head.audio_channels=16',
    'model.data_preprocessor.n_mels=16',
]
CLUSTERS = [
    'model.cluster_head.visual_channels=16',
    'model.cluster_head.audio_channels=16',
]
STAGES = ('preprocessing', 'log-mel', 'visual', 'audio', 'heads',
          'score, loss', 'backward', 'optimizer', 'other')


@pytest.fixture(scope='module')
def benchmark():
    path = osp.join(ROOT, 'tools', 'benchmarks', 'train_step.py')
    spec = importlib.util.spec_from_file_location('train_step', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def measure(benchmark, tmp_path, monkeypatch):
    """The figures of a config by the command."""

    def run(config, *arguments):
        out = tmp_path / 'new' / 'figures.json'
        monkeypatch.setattr(sys, 'argv', [
            'train_step.py',
            osp.join(ROOT, 'configs', 'avdet', f'{config}.py'), '--json',
            str(out), '--steps', '1', '--device', 'cpu', *arguments
        ])
        benchmark.main()
        figures = json.loads(out.read_text())
        assert all(key.startswith(f'{config}/') for key in figures)
        return {k.split('/', 1)[1]: v for k, v in figures.items()}

    for name in ('VGGSOUND', 'AUDIOSET', 'DEMO_DIR'):
        monkeypatch.setenv(f'AVDET_{name}', str(tmp_path / 'missing'))
    yield run
    torch.set_flush_denormal(False)


@pytest.mark.parametrize('config, options', [
    ('pretrain_audioset', TINY),
    ('joint_vggsound', TINY + CLUSTERS),
])
def test_localizers(config, options, measure, capsys):
    figures = measure(config, '--batch-size', '2', '--cfg-options', *options)
    assert {*STAGES, 'step', 'pairs_per_s', 'loader_cores', 'data'
            } <= set(figures)
    assert all(figures[stage] > 0 for stage in STAGES)
    # What they are to each other: test_loading_is_the_sum_of_its_parts.
    assert figures['data'] > 0 and figures['data_LoadClip'] > 0
    assert figures['pairs_per_s'] == pytest.approx(
        1000 / figures['step'], rel=0.01)
    printed = capsys.readouterr().out
    assert 'synthetic data, batches of 2' in printed
    assert 'score, loss' in printed


def test_loading_is_the_sum_of_its_parts(benchmark, monkeypatch):
    """The same work, measured in two ways, by a clock of its own."""
    now = [0]
    monkeypatch.setattr(benchmark.time, 'perf_counter', lambda: now[0])

    class Decode:

        def __call__(self, item):
            now[0] += 2
            return item

    class Crop:

        def __call__(self, item):
            now[0] += 3
            return item

    class Clips(torch.utils.data.Dataset):
        pipeline = SimpleNamespace(transforms=[Decode(), Crop(), Crop()])

        def __len__(self):
            return 8

        def get_data_info(self, i):
            now[0] += 1
            return dict(i=i)

        def __getitem__(self, i):
            item = self.get_data_info(i)
            for transform in self.pipeline.transforms:
                item = transform(item)
            return item

    loader = torch.utils.data.DataLoader(
        Clips(),
        batch_size=2,
        collate_fn=lambda items: dict(data_samples=items))
    assert benchmark.loading_times(loader) == dict(
        data=9000, data_table=1000, data_Decode=2000, data_Crop=3000,
        data_Crop_=3000)


def test_detector(measure):
    figures = measure('faster-rcnn_avol-net_fpn_demo', '--batch-size', '2')
    assert figures['audio'] == figures['log-mel'] == 0
    for stage in ('visual', 'heads', 'backward', 'optimizer'):
        assert figures[stage] > 0


def test_own_data(measure, clip_dir, monkeypatch, capsys):
    monkeypatch.setenv('AVDET_DEMO_DIR', str(clip_dir.parent))
    measure('pretrain_demo', '--batch-size', '2')
    assert 'its own data' in capsys.readouterr().out


def test_float16_needs_a_gpu(measure):
    with pytest.raises(SystemExit, match='needs a GPU'):
        measure('pretrain_audioset', '--amp', '--cfg-options',
                'optim_wrapper.dtype=float16')


def test_mixed_precision_is_bfloat16(measure, benchmark, monkeypatch):
    entered = []
    autocast = torch.autocast
    monkeypatch.setattr(
        torch, 'autocast',
        lambda *args, **kwargs: entered.append(kwargs) or autocast(
            *args, **kwargs))
    measure('pretrain_audioset', '--amp')
    assert {'dtype': torch.bfloat16} in entered


def test_clock_counts_exclusive_times(benchmark, monkeypatch):
    now = [0]
    monkeypatch.setattr(benchmark.time, 'perf_counter', lambda: now[0])

    class Steps:

        def outer(self):
            now[0] += 1
            self.inner()
            self.inner()
            return 'done'

        def inner(self):
            now[0] += 10

    steps, clock = Steps(), benchmark.Clock(torch.device('cpu'))
    clock.watch(steps, 'outer', 'a')
    clock.watch(steps, 'inner', 'b')
    clock.restart()
    now[0] += 100
    assert steps.outer() == 'done'
    now[0] += 1000
    clock.change('other')
    assert clock.seconds == dict(a=1, b=20, other=1100)
    clock.on = False
    clock.restart()
    steps.outer()
    assert not clock.seconds
