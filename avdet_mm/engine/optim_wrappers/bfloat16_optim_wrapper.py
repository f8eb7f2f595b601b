"""Optimization steps in bfloat16, also on CPUs."""
from contextlib import contextmanager
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
    a matter of the processor: those with AVX512-BF16 or AMX train about
    twice as fast, others slower than in single precision.

    Args:
        **kwargs: Of :class:`mmengine.optim.OptimWrapper`.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Autocast, besides what MMEngine does for accumulated gradients."""
        device = torch.device(get_device()).type
        with super().optim_context(model), torch.autocast(
                device, dtype=torch.bfloat16):
            yield
