"""Optimization steps in bfloat16, also on CPUs."""
import subprocess
import sys
from contextlib import contextmanager
from functools import lru_cache
from typing import Iterator

import torch
from mmengine.device import get_device
from mmengine.optim import OptimWrapper
from torch import nn

from avdet_mm.registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class BFloat16OptimWrapper(OptimWrapper):
    """MMEngine's OptimWrapper with forward passes in bfloat16 autocast.

    Weights, gradients of weights and the optimizer stay in single precision,
    and there is no loss scale, since bfloat16 has the range of float32.
    MMEngine's ``AmpOptimWrapper`` refuses to work on CPUs, where bfloat16 is
    a matter of the processor: those with AMX train about twice as fast,
    others, also with AVX512-BF16, slower than in single precision.

    Args:
        **kwargs: Of :class:`mmengine.optim.OptimWrapper`.

    Raises:
        RuntimeError: If the processor fails at bfloat16, as that of a
            virtual machine which announces AMX and does not have it.
    """

    def __init__(self, **kwargs) -> None:
        if get_device() == 'cpu':
            check_bfloat16()
        super().__init__(**kwargs)

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Autocast, besides what MMEngine does for accumulated gradients."""
        device = torch.device(get_device()).type
        with super().optim_context(model), torch.autocast(
                device, dtype=torch.bfloat16):
            yield


@lru_cache(maxsize=None)
def check_bfloat16() -> None:
    """Try layers in bfloat16 on the CPU, in a process of its own.

    Where the processor lacks what it announces, that process is killed by
    "Illegal instruction" and not the training. It takes two seconds.

    Raises:
        RuntimeError: If that fails, with the way out.
    """
    result = subprocess.run([sys.executable, '-c', _TRIAL],
                            stderr=subprocess.PIPE,
                            text=True)
    if result.returncode:
        last = (result.stderr.strip().splitlines() or [''])[-1]
        raise RuntimeError(
            'This processor fails at bfloat16 (a trial ended with '
            f"{result.returncode}{': ' + last if last else ''}). Train in "
            "single precision, optim_wrapper.type='OptimWrapper', or set "
            'ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16, without AMX.')


_TRIAL = """
import torch
images = torch.ones(2, 16, 8, 8)
layers = torch.nn.Sequential(
    torch.nn.Conv2d(16, 32, 3), torch.nn.Flatten(),
    torch.nn.Linear(1152, 64))
with torch.autocast('cpu', torch.bfloat16):
    layers(images).float().sum().backward()
"""
