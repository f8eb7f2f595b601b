"""A warning when the contrastive loss learns nothing."""
from mmengine.hooks import Hook

from avdet_mm.registry import HOOKS


@HOOKS.register_module()
class PlateauHook(Hook):
    """Warn when the loss stays at log(batch size), the value of guessing.

    Args:
        patience (int): Iterations after which at least ``margin`` of the
            chance level must have been gained. Defaults to 500.
        margin (float): Defaults to 0.05.
    """

    def __init__(self, patience: int = 500, margin: float = 0.05) -> None:
        self.patience = patience
        self.margin = margin

    def after_train_iter(self,
                         runner,
                         batch_idx,
                         data_batch=None,
                         outputs=None) -> None:
        """Look at the mean retrieval rate over the last ``patience``."""
        if (runner.iter + 1) % self.patience:
            return
        scalars = runner.message_hub.log_scalars
        window = min(self.patience, 100)
        retrieval = scalars['train/retrieval'].mean(window)
        guess = pow(2.718281828459045, -scalars['train/loc_chance'].current())
        # Guessing finds 1 / B of the pairs.
        if retrieval < (1 + 20 * self.margin) * guess:
            runner.logger.warning(
                f'The contrastive loss is at its plateau: after '
                f'{runner.iter + 1} iterations frames find their own sound '
                f'no better than by guessing ({retrieval:.3f}, guessing '
                f'{guess:.3f}), and the heatmaps are flat. Try a smaller '
                'temperature (0.05), batch norm in the heads, a higher '
                'learning rate or warm-up, average pooling first; and check '
                'that sounds and frames belong together.')
