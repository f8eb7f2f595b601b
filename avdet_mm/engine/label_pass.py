"""What hooks that label all training clips share."""
import hashlib

from mmengine.runner import Runner
from torch import Tensor


class LabelPass:
    """All clips of the training, in order, for a hook that labels them.

    Labels are stored by ``sample_idx``, so they fit one list of clips alone.

    Args:
        runner (Runner): Of the training.
        dataloader (dict): Config of the pass's data loader.
        num_clusters (int): K.
        hook (str): Name of the hook, for messages.
        field (str): Config field that sets K, for messages.

    Attributes:
        loader (DataLoader): The pass.
        num_clips (int): N.
        digest (str): Checksum of the list of clips, to be saved beside the
            labels.

    Raises:
        ValueError: If the clips are not those of ``train_dataloader``, or
            too few.
    """

    def __init__(self, runner: Runner, dataloader: dict, num_clusters: int,
                 hook: str, field: str) -> None:
        self.loader = runner.build_dataloader(dataloader, seed=runner.seed)
        clips = self.loader.dataset.clip_ids
        if clips != runner.train_dataloader.dataset.clip_ids:
            raise ValueError(
                f'The clips of {hook}.dataloader are not those of '
                'train_dataloader, in the same order. Give both the same '
                'ann_file, filter_cfg and indices.')
        if len(clips) < num_clusters:
            raise ValueError(
                f'{num_clusters} clusters cannot be filled by {len(clips)} '
                f'clips. Choose fewer clusters ({field}) or more clips.')
        self.num_clips = len(clips)
        self.digest = hashlib.sha256('\n'.join(clips).encode()).hexdigest()

    def take_up(self, restored: dict) -> Tensor:
        """Labels of a checkpoint, for a run that is being resumed.

        Args:
            restored (dict): ``labels`` and ``clips``, the digest.

        Returns:
            Tensor: (N,) labels, on the CPU.

        Raises:
            ValueError: If they are of other clips.
        """
        if restored['clips'] != self.digest:
            raise ValueError(
                'The clip table is not the one that this checkpoint was '
                'trained on, so its self-labels do not fit. Restore the '
                'table, or start anew with load_from instead of resuming.')
        # Checkpoints are loaded to the device; labels live on the CPU.
        return restored['labels'].cpu()
