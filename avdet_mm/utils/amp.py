"""Mixed precision, as asked for on the command line."""
from mmengine.config import Config
from mmengine.device import get_device


def set_up_amp(cfg: Config, amp: bool) -> None:
    """Train in mixed precision if asked to, or say why that cannot be.

    ``optim_wrapper.dtype`` decides between ``'float16'``, PyTorch's default
    on GPUs, with a dynamic loss scale as in MMDetection, and
    ``'bfloat16'``, which needs no loss scale and works on CPUs too, by
    :class:`BFloat16OptimWrapper`.

    Args:
        cfg (Config): Its ``optim_wrapper`` is changed.
        amp (bool): Whether ``--amp`` was given; otherwise the config alone
            decides.

    Raises:
        SystemExit: If float16 is asked for without a GPU.
    """
    wrapper = cfg.optim_wrapper
    on_cpu = get_device() in ('cpu', 'mps')
    if amp and get_device() == 'cpu' and wrapper.get('dtype') == 'bfloat16':
        wrapper.type = 'avdet_mm.BFloat16OptimWrapper'
        del wrapper['dtype']
        return
    if amp:
        wrapper.type = 'AmpOptimWrapper'
        wrapper.setdefault(
            'loss_scale',
            1. if wrapper.get('dtype') == 'bfloat16' else 'dynamic')
    if wrapper.get('type') == 'AmpOptimWrapper' and on_cpu:
        raise SystemExit(
            'Mixed precision in float16 needs a GPU, and PyTorch sees none '
            "here. Leave --amp out, and optim_wrapper.type='AmpOptimWrapper' "
            'too, to train in single precision; or, on CPUs, add '
            '--cfg-options optim_wrapper.dtype=bfloat16 to --amp.')
