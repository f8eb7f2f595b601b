"""Category self-labelling during training (Sec. 3.1, Eq. 2-3)."""
import hashlib
from typing import List, Optional, Sequence, Tuple

import torch
from mmengine.dist import all_reduce, is_distributed
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from avdet_mm.evaluation.functional import (
    cluster_entropy,
    cluster_sizes,
    contingency_matrix,
    normalized_mutual_information,
)
from avdet_mm.models.task_modules.sinkhorn_knopp import (
    SKResult,
    mean_log_probs,
)
from avdet_mm.registry import HOOKS, TASK_UTILS

from ..utils import unwrap


@HOOKS.register_module()
class SelfLabelHook(Hook):
    """Assign the labels that the cluster head learns, again and again.

    At each scheduled iteration, before its forward pass, every clip is
    classified by both heads in a deterministic pass in eval mode, and
    Sinkhorn-Knopp turns the mean of their log-probabilities into labels
    with the wanted cluster sizes. The first call, at iteration 0, gives the
    initial labels.

    The schedule is SeLaVi's power law: call k of ``num_updates`` takes place
    at iteration ``total * (k / num_updates) ** power``. It depends on the
    iteration alone and the labels are in the checkpoint, so a resumed run
    continues exactly as an uninterrupted one.

    Args:
        dataloader (dict): As in a config: *all training clips*, in the same
            clip table and with the same filters as ``train_dataloader``,
            with a deterministic pipeline and
            ``sampler=dict(type='DefaultSampler', shuffle=False,
            round_up=False)``.
        num_updates (int): Calls during the training. Defaults to 100.
        power (float): Larger is denser early. Defaults to 1.5.
        solver (dict): Defaults to :class:`SinkhornKnopp`.
        marginals (Sequence[float], optional): K shares, summing to 1.
            Defaults to uniform, as in the paper on VGGSound.
        norm_warmup (int): Batch norms without statistics first see this
            many batches in train mode. Defaults to 20.
    """

    def __init__(self,
                 dataloader: dict,
                 num_updates: int = 100,
                 power: float = 1.5,
                 solver: dict = dict(type='avdet_mm.SinkhornKnopp'),
                 marginals: Optional[Sequence[float]] = None,
                 norm_warmup: int = 20) -> None:
        if num_updates < 1 or power <= 0:
            raise ValueError('num_updates must be >= 1 and power > 0, got '
                             f'{num_updates} and {power}.')
        self.dataloader = dataloader
        self.num_updates = num_updates
        self.power = power
        self.solver = TASK_UTILS.build(solver)
        self.marginals = marginals
        self.norm_warmup = norm_warmup
        self._restored = None

    def update_iters(self, total: int) -> List[int]:
        """The iterations before which labels are assigned, ascending."""
        return sorted({
            int(total * (k / self.num_updates)**self.power)
            for k in range(self.num_updates)
        })

    def before_train(self, runner) -> None:
        """Build the labelling pass; take up the labels of a resumed run."""
        model = unwrap(runner.model)
        if getattr(model, 'cluster_head', None) is None:
            raise ValueError('SelfLabelHook needs a model with a cluster '
                             'head. Set model.cluster_head or remove the '
                             'hook.')
        self._loader = runner.build_dataloader(
            self.dataloader, seed=runner.seed)
        clips = self._loader.dataset.clip_ids
        if clips != runner.train_dataloader.dataset.clip_ids:
            raise ValueError(
                'The clips of SelfLabelHook.dataloader are not those of '
                'train_dataloader, in the same order. Give both the same '
                'ann_file, filter_cfg and indices.')
        if len(clips) < model.cluster_head.num_clusters:
            raise ValueError(
                f'{model.cluster_head.num_clusters} clusters cannot be '
                f'filled by {len(clips)} clips. Choose fewer clusters '
                '(model.cluster_head.num_clusters) or more clips.')
        self._clips = hashlib.sha256('\n'.join(clips).encode()).hexdigest()
        self._updates = set(self.update_iters(runner.max_iters))
        if self._restored is not None:
            if self._restored['clips'] != self._clips:
                raise ValueError(
                    'The clip table is not the one that this checkpoint was '
                    'trained on, so its self-labels do not fit. Restore the '
                    'table, or start anew with load_from instead of '
                    'resuming.')
            # Checkpoints are loaded to the device; labels live on the CPU.
            model.self_labels = self._restored['labels'].cpu()

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        """Assign labels if it is time."""
        if runner.iter in self._updates:
            self.update(runner)

    @torch.no_grad()
    def update(self, runner) -> None:
        """One labelling pass over all clips, one Sinkhorn-Knopp."""
        model = unwrap(runner.model)
        self._warm_up_norms(model)
        index, log_probs, agree = self._predict(model)
        result = self.solver(log_probs, self.marginals)
        labels = self._gather(index, result.labels,
                              len(self._loader.dataset))
        all_reduce(agree)
        self._log(runner, labels, model.self_labels, result,
                  agree.item() / len(labels))
        model.self_labels = labels

    def _predict(self, model: BaseModel) -> Tuple[Tensor, Tensor, Tensor]:
        """Classify this rank's clips.

        Returns:
            tuple[Tensor, Tensor, Tensor]: Sample indices (n,),
            log-probabilities (n, K), and the number of clips that both
            heads put into the same cluster.
        """
        training = model.training
        model.eval()
        index, log_probs = [], [
            torch.zeros(0, model.cluster_head.num_clusters).double()
        ]
        agree = torch.zeros(())
        for batch in self._loader:
            data = model.data_preprocessor(batch, False)
            outs = model(data['inputs'], mode='tensor')
            index += [s.sample_idx for s in data['data_samples']]
            visual, audio = outs['visual_logits'], outs['audio_logits']
            log_probs.append(mean_log_probs(visual, audio))
            agree += (visual.argmax(1) == audio.argmax(1)).sum().cpu()
        model.train(training)
        device = log_probs[-1].device
        return (torch.tensor(index, dtype=torch.long),
                torch.cat([x.to(device) for x in log_probs]),
                agree.to(device))

    @staticmethod
    def _gather(index: Tensor, labels: Tensor, total: int) -> Tensor:
        """All ranks' labels, in the order of the clips, on the CPU."""
        # Ranks own disjoint clips (repeats agree): a maximum merges them.
        merged = torch.full((total, ), -1, dtype=torch.long)
        merged[index] = labels.cpu()
        if is_distributed():
            merged = merged.to(labels.device)
            all_reduce(merged, 'max')
        return merged.cpu()

    def _warm_up_norms(self, model: BaseModel) -> None:
        """Give fresh batch norms statistics, as in SeLaVi."""
        fresh = any(
            isinstance(m, _BatchNorm) and m.num_batches_tracked == 0
            for m in model.modules())
        if not fresh:
            return
        training = model.training
        model.train()
        for i, batch in enumerate(self._loader):
            if i == self.norm_warmup:
                break
            # Batch norm of a vector needs more than one clip.
            if len(batch['data_samples']) > 1:
                model(model.data_preprocessor(batch, False)['inputs'])
        model.train(training)

    def _log(self, runner, labels: Tensor, previous: Optional[Tensor],
             result: SKResult, agreement: float) -> None:
        """Say how the labels look; no ground truth is needed for it."""
        num_clusters = len(result.potentials)
        sizes = cluster_sizes(labels.numpy(), num_clusters)
        entropy = cluster_entropy(labels.numpy(), num_clusters)
        line = (f'Self-labels at iteration {runner.iter}: {len(labels)} '
                f'clips, cluster sizes {sizes.min()} to {sizes.max()}, '
                f'entropy {entropy:.3f}; both heads agree on '
                f'{agreement:.1%}; Sinkhorn-Knopp {result.iterations} '
                f'iterations, column error {result.error:.1e}')
        runner.message_hub.update_scalar('train/head_agreement', agreement)
        if result.error > self.solver.tolerance:
            line += ' (not converged)'
        if previous is not None:
            change = normalized_mutual_information(
                contingency_matrix(labels.numpy(), previous.numpy()))
            line += f'; NMI to the last labels {change:.3f}'
            runner.message_hub.update_scalar('train/nmi_to_last_labels',
                                             change)
        runner.logger.info(line + '.')

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Add the labels to the checkpoint."""
        labels = unwrap(runner.model).self_labels
        if labels is not None:
            checkpoint['self_labels'] = dict(labels=labels, clips=self._clips)

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Keep the labels of a run that is being resumed.

        Weights loaded by ``load_from`` start a new run with new labels.
        """
        if not runner._resume:
            return
        if 'self_labels' not in checkpoint:
            raise ValueError(
                'The checkpoint holds no self-labels, so this run cannot be '
                'resumed from it. Use load_from to start from its weights.')
        self._restored = checkpoint['self_labels']
