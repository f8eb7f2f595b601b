"""Tests of the environment check."""
import subprocess
import sys
import warnings
from pickle import UnpicklingError

import numpy as np
import pytest
import torch
import torch.nn as nn
from mmengine.logging.history_buffer import HistoryBuffer
from mmengine.model import BaseModel
from mmengine.runner import Runner

from avdet_mm.utils.compat import (
    PACKAGES,
    Package,
    allow_checkpoint_types,
    check_environment,
    find_version,
    release,
)

ONE = (Package('thing', '1.2.0', '1.10.3', ('onedl-thing', 'thing')), )


@pytest.mark.parametrize('version, numbers', [
    ('2.13.0+cpu', (2, 13, 0)),
    ('2.0.0rc4', (2, 0, 0)),
    ('0.10', (0, 10)),
    ('unknown', (0, )),
])
def test_release(version, numbers):
    assert release(version) == numbers


@pytest.mark.parametrize('version', ['1.2.0', '1.9', '1.10.99', '1.2.0rc1'])
def test_accepted_silently(version):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        check_environment(ONE, lambda package: version)


def test_below_minimum_says_what_to_install():
    with pytest.raises(ImportError) as error:
        check_environment(ONE, lambda package: '1.1.9')
    for part in ('thing >= 1.2.0', '1.1.9 is installed', 'make setup',
                 'pip install "onedl-thing>=1.2.0"'):
        assert part in str(error.value)


def test_missing_says_what_to_install():
    with pytest.raises(ImportError, match='not installed.*pip install'):
        check_environment(ONE, lambda package: None)


@pytest.mark.parametrize('version', ['1.11.0', '2.0'])
def test_above_tested_range_warns(version):
    with pytest.warns(UserWarning, match='tested up to 1.10.3'):
        check_environment(ONE, lambda package: version)


def test_find_version_of_what_is_installed():
    for package in PACKAGES:
        version = find_version(package)
        assert release(version) >= release(package.minimum)
    assert find_version(PACKAGES[0]) == torch.__version__


def test_find_version_ignores_bare_folders(tmp_path, monkeypatch):
    (tmp_path / 'thing').mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert find_version(ONE[0]) is None
    (tmp_path / 'thing/__init__.py').touch()
    (tmp_path / 'thing/version.py').write_text("__version__ = '7.8'\n")
    assert find_version(ONE[0]) == '7.8'


def test_import_is_light():
    code = ('import sys, avdet_mm; assert avdet_mm.registry.MODELS.scope;'
            "assert not {'mmdet', 'mmcv', 'cv2'} & set(sys.modules)")
    subprocess.run([sys.executable, '-c', code], check=True)


def test_history_buffer_loads_weights_only(tmp_path):
    path = tmp_path / 'checkpoint.pth'
    buffer = HistoryBuffer([1.0, 2.0, 3.0], [1, 1, 1])
    dtypes = ('bool', 'int8', 'uint8', 'int32', 'int64', 'float16', 'float32')
    arrays = {name: np.ones(2, name) for name in dtypes}
    torch.save(
        dict(log=dict(loss=buffer), best=np.float64(0.5), arrays=arrays),
        path)
    loaded = torch.load(path, weights_only=True)
    assert loaded['log']['loss'].mean() == 2.0
    assert loaded['best'] == 0.5
    for name in dtypes:
        np.testing.assert_array_equal(loaded['arrays'][name], arrays[name])


class Sneaky:
    """Pickles as a look-up that a safe load must refuse."""

    def __init__(self, *args):
        self.args = args

    def __reduce__(self):
        return getattr, self.args


@pytest.mark.parametrize('args', [
    (HistoryBuffer, '__init__'),
    (np.ndarray, 'tofile'),
])
def test_other_attributes_stay_refused(tmp_path, args):
    path = tmp_path / 'checkpoint.pth'
    torch.save(dict(log=Sneaky(*args)), path)
    with pytest.raises(UnpicklingError, match='only methods of'):
        torch.load(path, weights_only=True)


class ToyModel(BaseModel):
    """One weight, whose loss is its square."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return dict(loss=self.weight.square().sum())


def make_runner(work_dir, max_epochs, resume=False):
    """Builds a runner of four iterations per epoch."""
    return Runner(
        ToyModel(),
        work_dir=str(work_dir),
        train_dataloader=dict(
            dataset=[torch.zeros(1)] * 4,
            batch_size=1,
            collate_fn=dict(type='pseudo_collate'),
            sampler=dict(type='DefaultSampler', shuffle=False)),
        train_cfg=dict(by_epoch=True, max_epochs=max_epochs),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook')),
        default_scope='mmengine',
        resume=resume,
        experiment_name=f'{work_dir.name}_{max_epochs}_{resume}')


def test_runner_resumes(tmp_path):
    allow_checkpoint_types()
    make_runner(tmp_path, 1).train()
    torch.load(tmp_path / 'epoch_1.pth', weights_only=True)
    runner = make_runner(tmp_path, 2, resume=True)
    runner.train()
    assert (runner.epoch, runner.iter) == (2, 8)
    torch.testing.assert_close(runner.model.weight.detach(),
                               torch.tensor([0.8**8]))
    # a load by the runner must not take the allowed types away again
    torch.load(tmp_path / 'epoch_2.pth', weights_only=True)
