"""Tests of steps in bfloat16."""
import subprocess

import pytest
import torch
from torch import nn

from avdet_mm.engine.optim_wrappers.bfloat16_optim_wrapper import (
    check_bfloat16,
)
from avdet_mm.registry import OPTIM_WRAPPERS


def wrapper(model, **kwargs):
    return OPTIM_WRAPPERS.build(
        dict(
            type='avdet_mm.BFloat16OptimWrapper',
            optimizer=torch.optim.SGD(model.parameters(), lr=0.5),
            **kwargs))


def test_forward_in_bfloat16_and_weights_in_float32():
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 1 + 2**-10)
    optim = wrapper(model)
    with optim.optim_context(model):
        out = model(torch.ones(2, 1))
    # bfloat16 has 8 bits: the last one of the weight is lost on the way.
    assert out.dtype == torch.bfloat16
    assert out.tolist() == [[1.], [1.]]
    optim.update_params(out.float().mean())
    assert model.weight.dtype == torch.float32
    assert model.weight.item() == 1 + 2**-10 - 0.5
    assert model(torch.ones(1, 1)).dtype == torch.float32


def test_accumulates_gradients():
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 2.)
    optim = wrapper(model, accumulative_counts=2)
    optim.initialize_count_status(model, 0, 2)
    for x in (1., 3.):
        assert model.weight.item() == 2
        with optim.optim_context(model):
            out = model(torch.full((1, 1), x))
        optim.update_params(out.float().mean())
    assert model.weight.item() == 2 - 0.5 * (1 + 3) / 2


def test_a_processor_that_fails_is_found_before_the_training(monkeypatch):
    check_bfloat16.cache_clear()
    monkeypatch.setattr(
        'avdet_mm.engine.optim_wrappers.bfloat16_optim_wrapper._TRIAL',
        'import os, signal; os.kill(os.getpid(), signal.SIGILL)')
    with pytest.raises(RuntimeError, match=r"with -4\).*'OptimWrapper'"):
        wrapper(nn.Linear(1, 1))
    monkeypatch.setattr(
        'avdet_mm.engine.optim_wrappers.bfloat16_optim_wrapper._TRIAL',
        'raise SystemExit("no primitive")')
    with pytest.raises(RuntimeError, match='with 1: no primitive'):
        wrapper(nn.Linear(1, 1))


def test_one_trial_is_enough(monkeypatch):
    check_bfloat16.cache_clear()
    wrapper(nn.Linear(1, 1))
    monkeypatch.setattr(subprocess, 'run', None)
    wrapper(nn.Linear(1, 1))
