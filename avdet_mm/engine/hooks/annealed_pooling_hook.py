"""From average to max pooling in small steps (ours, not the paper's)."""
from typing import Union

from mmengine.hooks import Hook

from avdet_mm.registry import HOOKS

from ..utils import unwrap


@HOOKS.register_module()
class AnnealedPoolingHook(Hook):
    """Shrink the share of locations that a score pools, geometrically.

    The paper pools the heatmap by average in pre-training and by maximum
    afterwards. Between the two, this hook averages over a shrinking share
    of best locations: ``start`` at epoch ``begin``, ``end`` when epoch
    ``end_epoch`` begins, ``final`` from there on. Before ``begin`` the
    head's own pooling stays. The share depends on the iteration alone, so
    it survives ``--resume``.

    Args:
        begin (int): First epoch of the annealing.
        end_epoch (int): Epoch by which ``end`` is reached.
        start (float): First share. Defaults to 0.5.
        end (float): Last share. Defaults to 0.01.
        final (str | float): Pooling from ``end_epoch`` on. A share makes
            heatmaps cover more of an object than its most telling spot.
            Defaults to ``'max'``.
    """

    def __init__(self,
                 begin: int,
                 end_epoch: int,
                 start: float = 0.5,
                 end: float = 0.01,
                 final: Union[str, float] = 'max') -> None:
        if not (0 <= begin < end_epoch and 0 < end <= start < 1):
            raise ValueError('AnnealedPoolingHook needs 0 <= begin < '
                             'end_epoch and 0 < end <= start < 1.')
        self.begin, self.end_epoch = begin, end_epoch
        self.start, self.end = start, end
        self.final = final

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        """Set the pooling of this iteration."""
        epoch = runner.iter / len(runner.train_dataloader)
        progress = (epoch - self.begin) / (self.end_epoch - self.begin)
        if progress < 0:
            return
        pooling = (
            self.final if progress >= 1 else self.start *
            (self.end / self.start)**progress)
        unwrap(runner.model).localization_head.set_pooling(pooling)
