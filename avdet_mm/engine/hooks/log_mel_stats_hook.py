"""Mean and deviation of the log-mel values, measured on the data."""
import torch
from mmengine.dist import broadcast, is_main_process
from mmengine.hooks import Hook

from avdet_mm.registry import HOOKS

from ..utils import unwrap


@HOOKS.register_module()
class LogMelStatsHook(Hook):
    """Fill the preprocessor's ``audio_mean`` and ``audio_std`` once.

    They are measured on clips spread evenly over the training set and are
    buffers of the model, so later stages find them in the checkpoint; if
    they are there already, nothing is done.

    Args:
        num_clips (int): Clips to measure. Defaults to 256.
    """

    def __init__(self, num_clips: int = 256) -> None:
        self.num_clips = num_clips

    @torch.no_grad()
    def before_train(self, runner) -> None:
        """Measure on the main process and broadcast."""
        preprocessor = unwrap(runner.model).data_preprocessor
        if preprocessor.audio_std > 0:
            return
        if is_main_process():
            dataset = runner.train_dataloader.dataset
            step = max(1, len(dataset) // self.num_clips)
            values = torch.cat([
                preprocessor.log_mel(dataset[i]['inputs']['audio'][None].to(
                    preprocessor.device)).flatten()
                for i in range(0, len(dataset), step)
            ])
            preprocessor.audio_mean.fill_(values.mean())
            preprocessor.audio_std.fill_(values.std().clamp(min=1e-3))
            runner.logger.info(
                f'Log-mel statistics of {len(range(0, len(dataset), step))} '
                f'training clips: mean {preprocessor.audio_mean:.3f}, '
                f'deviation {preprocessor.audio_std:.3f}.')
        broadcast(preprocessor.audio_mean)
        broadcast(preprocessor.audio_std)
