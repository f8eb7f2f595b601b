"""A warning when the contrastive loss learns nothing."""
import math

from mmengine.hooks import Hook

from avdet_mm.registry import HOOKS


@HOOKS.register_module()
class PlateauHook(Hook):
    """Warn when the loss stays at log(batch size), the value of guessing.

    It looks at the retrieval rate rather than at the loss: guessing finds
    1 / B of the pairs.

    Args:
        patience (int): The look is taken every so many iterations, at the
            mean over the last 50. Defaults to 500.
        factor (float): Times guessing that must be reached. Defaults to
            1.5.
    """

    def __init__(self, patience: int = 500, factor: float = 1.5) -> None:
        self.patience = patience
        self.factor = factor

    def after_train_iter(self,
                         runner,
                         batch_idx,
                         data_batch=None,
                         outputs=None) -> None:
        """Compare the retrieval rate with guessing."""
        if (runner.iter + 1) % self.patience:
            return
        scalars = runner.message_hub.log_scalars
        retrieval = scalars['train/retrieval'].mean(min(self.patience, 50))
        guess = math.exp(-scalars['train/loc_chance'].current())
        if retrieval < self.factor * guess:
            runner.logger.warning(
                f'The contrastive loss is at its plateau: after '
                f'{runner.iter + 1} iterations frames find their own sound '
                f'no better than by guessing ({retrieval:.3f}, guessing '
                f'{guess:.3f}), and the heatmaps are flat. Try a smaller '
                'temperature (0.05), batch norm in the heads, a higher '
                'learning rate or warm-up, average pooling first; and check '
                'that sounds and frames belong together.')
