"""Confident pairs first (ours, not the paper's)."""
from mmengine.hooks import Hook

from avdet_mm.registry import HOOKS

from ..utils import unwrap


@HOOKS.register_module()
class ConfidenceCurriculumHook(Hook):
    """Begin with pairs that seem to correspond, and add the others.

    In videos, much that is heard has nothing to do with what is seen. Of
    each batch, the contrast counts only the share of pairs with the smallest
    loss, in which frame and sound already find each other best. The share
    grows evenly from ``start`` at the first iteration to ``end`` when epoch
    ``end_epoch`` begins, and stays. It depends on the iteration alone, so it
    survives ``--resume``.

    Args:
        end_epoch (int): Epoch by which ``end`` is reached.
        start (float): First share. Defaults to 0.5.
        end (float): Last share; less than 1 leaves out the pairs that never
            come to correspond. Defaults to 1.
    """

    def __init__(self,
                 end_epoch: int,
                 start: float = 0.5,
                 end: float = 1.) -> None:
        if not (end_epoch > 0 and 0 < start <= end <= 1):
            raise ValueError('ConfidenceCurriculumHook needs end_epoch > 0 '
                             'and 0 < start <= end <= 1.')
        self.end_epoch = end_epoch
        self.start, self.end = start, end

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        """Set the share of this iteration."""
        epoch = runner.iter / len(runner.train_dataloader)
        progress = min(epoch / self.end_epoch, 1)
        unwrap(runner.model).localization_head.loss_module.set_share(
            self.start + progress * (self.end - self.start))
