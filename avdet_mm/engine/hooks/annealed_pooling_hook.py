"""From average to max pooling in small steps (ours, not the paper's)."""
import math
from typing import Optional, Union

from mmengine.hooks import Hook
from mmengine.runner import Runner

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
    it survives ``--resume``; with ``retrieval``, on that at which the
    annealing began, too, which is in the checkpoint.

    Args:
        begin (int): First epoch of the annealing.
        end_epoch (int): Epoch by which ``end`` is reached.
        start (float): First share. Defaults to 0.5.
        end (float): Last share. Defaults to 0.01.
        final (str | float): Pooling from ``end_epoch`` on. A share makes
            heatmaps cover more of an object than its most telling spot.
            Defaults to ``'max'``.
        retrieval (float, optional): From epoch ``begin`` on, wait until
            frames find their own sound this many times as often as by
            guessing (mean over 50 iterations), and let the annealing take
            ``end_epoch - begin`` epochs from there. Defaults to None, no
            waiting.
    """

    _KEY = 'annealed_pooling_began'

    def __init__(self,
                 begin: int,
                 end_epoch: int,
                 start: float = 0.5,
                 end: float = 0.01,
                 final: Union[str, float] = 'max',
                 retrieval: Optional[float] = None) -> None:
        if not (0 <= begin < end_epoch and 0 < end <= start < 1):
            raise ValueError('AnnealedPoolingHook needs 0 <= begin < '
                             'end_epoch and 0 < end <= start < 1.')
        if retrieval is not None and not retrieval > 1:
            raise ValueError('retrieval is a multiple of guessing, more than '
                             f'1, got {retrieval}.')
        self.begin, self.end_epoch = begin, end_epoch
        self.start, self.end = start, end
        self.final = final
        self.retrieval = retrieval

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        """Set the pooling of this iteration."""
        epoch = runner.iter / len(runner.train_dataloader)
        begin = self.begin
        if self.retrieval is not None and epoch >= begin:
            begin = self._began(runner, epoch)
        progress = (epoch - begin) / (self.end_epoch - self.begin)
        if progress < 0:
            return
        pooling = (
            self.final if progress >= 1 else self.start *
            (self.end / self.start)**progress)
        unwrap(runner.model).localization_head.set_pooling(pooling)

    def _began(self, runner: Runner, epoch: float) -> float:
        """The epoch at which pairs were found often enough, or infinity."""
        hub = runner.message_hub
        # In every checkpoint.
        if self._KEY not in hub.runtime_info:
            scalars = hub.log_scalars
            if 'train/retrieval' not in scalars:
                return math.inf
            found = scalars['train/retrieval'].mean(50)
            guess = math.exp(-scalars['train/loc_chance'].current())
            if found < self.retrieval * guess:
                return math.inf
            runner.logger.info(
                f'At epoch {epoch:.2f}, {found:.1%} of the frames find their '
                f'own sound (guessing {guess:.1%}): the annealing of the '
                'pooling begins.')
            hub.update_info(self._KEY, epoch)
        return hub.get_info(self._KEY)
