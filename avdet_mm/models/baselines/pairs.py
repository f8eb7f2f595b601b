"""Pairs of frames and sounds that do not match, and a loss of pairs.

The baselines of Table 2 compare each matching pair with one that does not
match. Their data loaders look for another clip for that; here it is another
clip of the batch, so that nothing is encoded twice.
"""
from typing import Dict

import torch
import torch.nn.functional as F
from torch import Tensor


def other_clips(x: Tensor, shift: int = 1) -> Tensor:
    """The same of another clip of the batch.

    Row i of the result is row i - ``shift``, counted around the end. Batches
    are shuffled, so it is any clip, also, now and then, one of the same
    class: nothing here knows classes.

    Args:
        x (Tensor): (B, ...).
        shift (int): At least 1, less than B. Defaults to 1.

    Returns:
        Tensor: (B, ...).

    Raises:
        ValueError: If the batch is too small.
    """
    if len(x) <= shift:
        raise ValueError(
            f'A batch of {len(x)} has not enough other clips to compare with: '
            f'train_dataloader.batch_size must be at least {shift + 1}, and '
            'with drop_last=True no batch is smaller.')
    return x.roll(shift, dims=0)


def contrastive_loss(matching: Tensor, other: Tensor,
                     margin: float) -> Dict[str, Tensor]:
    """Contrastive loss (Hadsell et al., CVPR 2006) of equally many pairs.

    0.5 d^2 for matching pairs, 0.5 max(0, margin - d)^2 for the others,
    averaged over all pairs.

    Args:
        matching (Tensor): (B,) distances of matching pairs.
        other (Tensor): (B,) distances of pairs that do not match.
        margin (float): Distance from which on the latter cost nothing.

    Returns:
        dict[str, Tensor]: ``loss_pairs``; for the log ``accuracy``, the share
        of clips whose matching pair is the closer one (0.5 by chance), and
        ``distance``, the mean of the matching ones.
    """
    loss = torch.cat([matching.square(), F.relu(margin - other).square()])
    return dict(
        loss_pairs=0.5 * loss.mean(),
        accuracy=(matching.detach() < other.detach()).float().mean(),
        distance=matching.detach().mean())
