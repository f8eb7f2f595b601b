"""Category self-labelling during training (Sec. 3.1, Eq. 2-3)."""
import time
from typing import Any, Dict, Iterable, Iterator, List, Optional, Tuple, Union

import numpy as np
import torch
from mmengine.dist import (
    all_reduce,
    all_reduce_params,
    broadcast,
    is_main_process,
)
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import EpochBasedTrainLoop, Runner
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from avdet_mm.evaluation.functional import (
    cluster_entropy,
    cluster_sizes,
    contingency_matrix,
    normalized_mutual_information,
    purity,
)
from avdet_mm.models.heads.sk_cluster_head import IGNORE_LABEL
from avdet_mm.models.task_modules.sinkhorn_knopp import SKResult
from avdet_mm.registry import HOOKS, TASK_UTILS
from avdet_mm.utils.progress import Progress

from ..label_pass import LabelPass
from ..prediction_memory import PredictionMemory, Predictions
from ..utils import unwrap

SOURCES = ('pass', 'memory')
# Data samples and logits of both heads.
Batch = Tuple[list, Tensor, Tensor]


@HOOKS.register_module()
class SelfLabelHook(Hook):
    """Assign the labels that the cluster head learns, again and again.

    At each scheduled iteration, before its forward pass, Sinkhorn-Knopp
    turns the mean of both heads' log-probabilities into labels with the
    wanted cluster sizes. The first call, at iteration 0, gives the initial
    labels.

    Where the predictions come from is ``source``:

    - ``'pass'``, the paper's way: every clip is classified in a
      deterministic pass in eval mode, in the precision of the training.
      Each rank classifies its share and keeps the rows.
    - ``'memory'``: training classifies every clip once per epoch anyway,
      augmented and in train mode. The newest row of each clip is kept, and
      an update costs next to nothing. Updates in the first epoch, while
      most clips have not been seen and the heads change most, are passes
      nevertheless, and their rows start the memory.

    The schedule is SeLaVi's power law: call k of ``num_updates`` takes place
    at iteration ``total * (k / num_updates) ** power``. It depends on the
    place in the training alone, counted in epochs where the loop does, and
    labels and remembered rows are in the checkpoint, so a resumed run
    continues exactly as an uninterrupted one. The number of processes may
    change in between.

    A clip that no pass and no batch has shown yet keeps its last label, or
    has the label -1, which the cluster head ignores.

    The first labels can come from something better than a network that has
    learned nothing, ``initial``. They are then kept until ``begin``, while
    both heads learn them, and the schedule spans the time from there on.
    What ``initial`` mixes up, since it sounds alike, the heads learn mixed
    up. The contrast meanwhile tells sounds apart by what is seen with them:
    with ``recluster``, the same clustering of the sounds' embeddings gives
    the labels at ``begin``, with the numbers of the last ones.

    Cost: with ``'memory'``, checkpoints grow by ``4 * N * K`` bytes (8 MB
    for 54,000 clips and 39 clusters, 1.2 GB for a million and 300), which
    are collected on the main process when one is saved and read by every
    rank when it is loaded. So all ranks must call
    ``runner.save_checkpoint``, as MMEngine's ``CheckpointHook`` does.
    Between checkpoints a rank has about ``4 * N * K / world`` bytes, and up
    to twice that.

    Args:
        dataloader (dict): As in a config: *all training clips*, in the same
            clip table and with the same filters as ``train_dataloader``,
            with a deterministic pipeline and
            ``sampler=dict(type='DefaultSampler', shuffle=False,
            round_up=False)``.
        num_updates (int): Calls during the training. Defaults to 100.
        power (float): Larger is denser early. Defaults to 1.5.
        solver (dict): Defaults to :class:`SinkhornKnopp`.
        marginals (Sequence[float] | dict, optional): The clusters' shares:
            K numbers that sum to 1, or the config of a task util that is
            given this rank's log-probabilities at every update, such as
            :class:`GaussianMarginals` (the paper on AudioSet). Defaults to
            uniform, as in the paper on VGGSound.
        norm_warmup (int): Batch norms without statistics first see this
            many batches in train mode. Defaults to 20.
        source (str): ``'pass'`` or ``'memory'``. Defaults to ``'pass'``.
        align (bool): Before the first labels of a new run, number the audio
            head's clusters such that they meet the visual ones, by one
            Hungarian matching. Defaults to True.
        initial (dict, optional): What makes the first labels (ours):
            :class:`AudioStatisticsClusters`. Defaults to None, the model.
        begin (float): The schedule starts with this epoch; before it, there
            is only the call at iteration 0. Defaults to 0.
        recluster (bool): Whether the first call of the schedule clusters
            what the model makes of the sounds (ours). Needs ``initial`` and
            ``begin``. Defaults to False.
    """

    def __init__(self,
                 dataloader: dict,
                 num_updates: int = 100,
                 power: float = 1.5,
                 solver: dict = dict(type='avdet_mm.SinkhornKnopp'),
                 marginals: Union[None, dict, Iterable[float]] = None,
                 norm_warmup: int = 20,
                 source: str = 'pass',
                 align: bool = True,
                 initial: Optional[dict] = None,
                 begin: float = 0,
                 recluster: bool = False) -> None:
        if num_updates < 1 or power <= 0 or begin < 0:
            raise ValueError('num_updates must be >= 1, power > 0 and begin '
                             f'>= 0, got {num_updates}, {power} and {begin}.')
        if source not in SOURCES:
            raise ValueError("source must be 'pass' or 'memory', got "
                             f'{source!r}.')
        if recluster and (initial is None or begin == 0):
            raise ValueError(
                'SelfLabelHook.recluster clusters again, at a later epoch, '
                'what initial has clustered first. Set initial and begin, or '
                'recluster=False.')
        self.dataloader = dataloader
        self.num_updates = num_updates
        self.power = power
        self.solver = TASK_UTILS.build(solver)
        self.marginals = self._build_marginals(marginals)
        self.norm_warmup = norm_warmup
        self.source = source
        self.align = align
        self.initial = initial and TASK_UTILS.build(initial)
        self.begin = begin
        self.recluster = recluster
        self._memory: Optional[PredictionMemory] = None
        self._restored: Optional[dict] = None
        self._rows: Optional[dict] = None  # while a checkpoint is saved

    @staticmethod
    def _build_marginals(marginals: Any) -> Any:
        """None, a checked tensor, or a callable."""
        if marginals is None:
            return None
        if isinstance(marginals, dict):
            return TASK_UTILS.build(marginals)
        try:
            shares = torch.as_tensor(marginals, dtype=torch.double)
        except (TypeError, ValueError, RuntimeError):
            shares = torch.zeros(0)
        if not (shares.dim() == 1 and len(shares) and
                (shares > 0).all() and abs(shares.sum() - 1) < 1e-6):
            raise ValueError(
                'marginals must be None (uniform), one positive number per '
                'cluster, summing to 1, or a dict such as '
                f"dict(type='avdet_mm.GaussianMarginals'), got {marginals}.")
        return shares

    def update_iters(self, total: int, begin: int = 0) -> List[int]:
        """The iterations before which labels are assigned, ascending.

        Args:
            total (int): Iterations of the training.
            begin (int): Iteration at which the schedule starts.
        """
        return sorted({0} | {
            begin + int((total - begin) * (k / self.num_updates)**self.power)
            for k in range(self.num_updates)
        })

    def before_train(self, runner: Runner) -> None:
        """Build the labelling pass; take up the labels of a resumed run."""
        model = unwrap(runner.model)
        if getattr(model, 'cluster_head', None) is None:
            raise ValueError('SelfLabelHook needs a model with a cluster '
                             'head. Set model.cluster_head or remove the '
                             'hook.')
        self._num_clusters = model.cluster_head.num_clusters
        if isinstance(self.marginals,
                      Tensor) and len(self.marginals) != self._num_clusters:
            raise ValueError(
                f'SelfLabelHook.marginals has {len(self.marginals)} numbers '
                f'for {self._num_clusters} clusters. Give one for each '
                '(model.cluster_head.num_clusters).')
        self._pass = LabelPass(runner, self.dataloader, self._num_clusters,
                               'SelfLabelHook',
                               'model.cluster_head.num_clusters')
        begin = round(self.begin * len(runner.train_dataloader))
        if begin >= runner.max_iters:
            raise ValueError(
                f'SelfLabelHook.begin = {self.begin} is not before the end '
                'of the training. Give an earlier epoch.')
        self._updates = set(self.update_iters(runner.max_iters, begin))
        self._clusterings = set()
        if self.initial is not None:
            self._clusterings = {0, begin} if self.recluster else {0}
        if self._restored is not None:
            self._take_up(runner, model)
        if self.source == 'memory':
            self._listen(runner, model)

    def _take_up(self, runner: Runner, model: BaseModel) -> None:
        """Continue with the labels, and the rows, of a checkpoint."""
        restored, self._restored = self._restored, None
        model.self_labels = self._pass.take_up(restored)
        if restored['total'] != runner.max_iters:
            runner.logger.warning(
                f'This run has {runner.max_iters} iterations in all, that '
                f'of the checkpoint had {restored["total"]} (other epochs, '
                'batch size or processes): from here on, self-labels are '
                'assigned by the schedule of the new total.')
        if self.source == 'memory' and 'memory' in restored:
            self._memory = PredictionMemory.from_state(restored['memory'])

    def _listen(self, runner: Runner, model: BaseModel) -> None:
        """See the head's logits, and when a checkpoint is saved."""

        def keep(head: torch.nn.Module, args: tuple, logits: tuple) -> None:
            self._logits = logits

        self._handle = model.cluster_head.register_forward_hook(keep)
        # MMEngine calls before_save_checkpoint on the main process alone,
        # too late for the other ranks to send their rows.
        save = runner.save_checkpoint

        def gather_and_save(*args: Any, **kwargs: Any) -> None:
            self._rows = (
                None if self._memory is None else self._memory.state())
            save(*args, **kwargs)
            self._rows = None

        runner.save_checkpoint = gather_and_save

    def after_train(self, runner: Runner) -> None:
        """Leave model and runner as they were."""
        if self.source == 'memory':
            self._handle.remove()
            del runner.save_checkpoint

    def before_train_iter(self,
                          runner: Runner,
                          batch_idx: int,
                          data_batch: Optional[dict] = None) -> None:
        """Assign labels if it is time."""
        place = runner.iter
        loop = runner.train_loop
        if isinstance(loop, EpochBasedTrainLoop):
            # Iterations of a run on other ranks do not count in the same
            # unit: its epochs do.
            place = loop.epoch * len(loop.dataloader) + batch_idx
        if place in self._updates:
            if place in self._clusterings:
                self.cluster(runner)
            else:
                self.update(runner)

    def after_train_iter(self,
                         runner: Runner,
                         batch_idx: int,
                         data_batch: Optional[dict] = None,
                         outputs: Optional[dict] = None) -> None:
        """Remember what the heads said of this batch."""
        if self._memory is None:
            return
        self._memory.add(
            Predictions.of_batch(data_batch['data_samples'], *self._logits),
            stamp=2 * runner.iter + 1)
        self._logits = None
        if self.every_n_train_iters(runner, len(runner.train_dataloader)):
            self._memory.settle()

    @torch.no_grad()
    def update(self, runner: Runner) -> None:
        """Assign labels: one set of predictions, one Sinkhorn-Knopp."""
        model = unwrap(runner.model)
        start = time.perf_counter()
        first_epoch = runner.iter < len(runner.train_dataloader)
        if self._memory is not None and not first_epoch:
            seen = self._memory.settle()
        else:
            self._warm_up_norms(model)
            # Nothing has been labelled: the start of a new run.
            seen = self._predict(runner, self.align
                                 and model.self_labels is None)
            if self.source == 'memory':
                self._memory = self._memory or PredictionMemory(
                    self._pass.num_clips, self._num_clusters)
                # Between the batches before and after, on all ranks.
                self._memory.add(seen, stamp=2 * runner.iter)
        middle = time.perf_counter()
        result = self._assign(seen.log_probs.to(device_of(model)))
        agree = torch.stack(
            [seen.agree.sum().cpu(),
             torch.tensor(len(seen.agree))])
        all_reduce(agree)
        self._set_labels(
            runner,
            seen.index,
            seen.classes,
            result, (start, middle),
            head_agreement=agree[0].item() / agree[1].item())

    def _assign(self, log_probs: Tensor) -> SKResult:
        """Sinkhorn-Knopp with the wanted sizes, of this rank's rows."""
        return self.solver(
            log_probs,
            self.marginals(log_probs)
            if callable(self.marginals) else self.marginals)

    @torch.no_grad()
    def cluster(self, runner: Runner) -> None:
        """Assign labels by the sounds, without the heads.

        The first by statistics, later ones by the model's embeddings.
        """
        model = unwrap(runner.model)
        learned = model.self_labels is not None
        start = time.perf_counter()
        if learned:
            self._warm_up_norms(model)
        index, features, classes = self._sounds(runner, learned)
        middle = time.perf_counter()
        result = self.initial(index, features, self._pass.num_clips,
                              self._num_clusters, self._assign,
                              np.random.default_rng(runner.seed))
        if self.source == 'memory' and self._memory is None:
            self._memory = PredictionMemory(self._pass.num_clips,
                                            self._num_clusters)
        self._set_labels(
            runner, index, classes, result, (start, middle), renumber=True)

    def _set_labels(self,
                    runner: Runner,
                    index: Tensor,
                    classes: Tensor,
                    result: SKResult,
                    times: Tuple[float, float],
                    renumber: bool = False,
                    **values: float) -> None:
        """Give the model what all ranks have assigned.

        A clip without a new label keeps its last one.

        Args:
            runner (Runner): Of the training.
            index (Tensor): (n,) int64, this rank's clips.
            classes (Tensor): (n,) int64, ground truth, -1 where there is
                none.
            result (SKResult): With the labels of these clips.
            times (tuple[float, float]): When predicting and solving began.
            renumber (bool): Whether the numbers of the new clusters are not
                yet those of the last. Defaults to False.
            **values (float): More to log.
        """
        model = unwrap(runner.model)
        previous = model.self_labels
        labels, classes = self._gather(
            index, torch.stack([result.labels.cpu(), classes]))
        if previous is not None:
            if renumber:
                labels = self._renumber(labels, previous)
            labels = torch.where(labels == IGNORE_LABEL, previous, labels)
        model.self_labels = labels
        start, middle = times
        self._log(
            runner, labels, previous, classes, result,
            dict(
                values,
                prediction_seconds=middle - start,
                solver_seconds=time.perf_counter() - middle))

    def _sounds(self, runner: Runner,
                learned: bool) -> Tuple[Tensor, Tensor, Tensor]:
        """Statistics, or embeddings, of this rank's sounds.

        Returns:
            tuple[Tensor, Tensor, Tensor]: Indices of clips (n,), features
            (n, F), classes (n,), -1 where there is none; on the CPU.
        """
        model = unwrap(runner.model)
        training = model.training
        model.eval()
        index, features, classes = [], [], []
        with Progress(len(self._pass.loader), 'batches',
                      is_main_process()) as progress:
            for batch in self._pass.loader:
                data = model.data_preprocessor(batch, False)
                audio = data['inputs']['audio']
                if learned:
                    with runner.optim_wrapper.optim_context(model):
                        rows = model.localization_head.embed_audio(
                            model.encode_audio(audio))
                else:
                    rows = self.initial.features(audio)
                features.append(rows.cpu())
                for sample in data['data_samples']:
                    index.append(sample.sample_idx)
                    label = sample.get('gt_label')
                    classes.append(-1 if label is None else int(label))
                progress.update(1)
        model.train(training)
        return torch.tensor(index), torch.cat(features), torch.tensor(classes)

    def _renumber(self, labels: Tensor, previous: Tensor) -> Tensor:
        """Number clusters as those of the last labels that they meet.

        The heads have learned the numbers of the last ones.
        """
        both = (labels != IGNORE_LABEL) & (previous != IGNORE_LABEL)
        met = contingency_matrix(labels[both].numpy(), previous[both].numpy(),
                                 self._num_clusters, self._num_clusters)
        _, order = linear_sum_assignment(met, maximize=True)
        return torch.where(labels == IGNORE_LABEL, labels,
                           torch.from_numpy(order)[labels])

    def _predict(self, runner: Runner, align: bool) -> Predictions:
        """Classify this rank's clips, in a pass in eval mode.

        Args:
            runner (Runner): Of the training.
            align (bool): Whether to permute the audio head's clusters.
        """
        model = unwrap(runner.model)
        training = model.training
        model.eval()
        batches: Iterable[Batch] = self._classify(runner)
        if align:
            # Kept, once, since all of them decide how each is permuted.
            batches = list(batches)
            order = self._align(runner, batches)
            batches = [(samples, visual, audio[:, order])
                       for samples, visual, audio in batches]
        parts = [
            Predictions.empty(self._num_clusters).to(device_of(model)),
            *(Predictions.of_batch(*batch) for batch in batches)
        ]
        model.train(training)
        return Predictions.cat(parts)

    def _classify(self, runner: Runner) -> Iterator[Batch]:
        """Data samples and logits of this rank's clips, by batch."""
        model = unwrap(runner.model)
        with Progress(len(self._pass.loader), 'batches',
                      is_main_process()) as progress:
            for batch in self._pass.loader:
                data = model.data_preprocessor(batch, False)
                with runner.optim_wrapper.optim_context(model):
                    outs = model(data['inputs'], mode='tensor')
                progress.update(1)
                yield (data['data_samples'], outs['visual_logits'],
                       outs['audio_logits'])

    def _align(self, runner: Runner, batches: List[Batch]) -> Tensor:
        """Number the audio clusters as the visual ones that they meet.

        Without it the two heads start with unrelated numbers. Visual cluster
        k is given the audio cluster ``order[k]`` such that the sum over k
        and clips of both probabilities is largest, and the rows of the last
        audio layer move there. No optimizer has seen them yet.

        Returns:
            Tensor: (K,) ``order``, on the device.
        """
        model = unwrap(runner.model)
        device = device_of(model)
        size = self._num_clusters
        overlap = torch.zeros(size, size, dtype=torch.double, device=device)
        met = torch.zeros_like(overlap)
        for _, visual, audio in batches:
            visual, audio = visual.double(), audio.double()
            overlap += visual.softmax(dim=1).T @ audio.softmax(dim=1)
            met.index_put_((visual.argmax(dim=1), audio.argmax(dim=1)),
                           met.new_ones(()),
                           accumulate=True)
        all_reduce(overlap)
        all_reduce(met)
        # The solver says it better if there are numbers that are not finite.
        _, columns = linear_sum_assignment(
            overlap.nan_to_num().cpu().numpy(), maximize=True)
        order = torch.from_numpy(columns).to(device)
        broadcast(order)
        layer = model.cluster_head.audio_mlp[-1]
        layer.weight.copy_(layer.weight[order])
        layer.bias.copy_(layer.bias[order])
        total = met.sum().item()
        before = met.trace().item() / total
        after = met[:, order].trace().item() / total
        runner.logger.info(
            'Audio clusters numbered as the visual ones that they meet: '
            f'both heads agree on {after:.1%} of the clips, before on '
            f'{before:.1%}.')
        return order

    def _gather(self, index: Tensor, columns: Tensor) -> Tensor:
        """All ranks' columns, in the order of the clips, on the CPU.

        Args:
            index (Tensor): (n,) sample indices.
            columns (Tensor): (m, n) int64, not below -1.

        Returns:
            Tensor: (m, N), -1 where no rank has the clip.
        """
        # Ranks own disjoint clips (repeats agree): a maximum merges them.
        merged = columns.new_full((len(columns), self._pass.num_clips), -1)
        merged[:, index] = columns
        all_reduce(merged, 'max')
        return merged

    def _warm_up_norms(self, model: BaseModel) -> None:
        """Give fresh batch norms statistics, as in SeLaVi.

        And all ranks the same ones, whose mean is taken: which rank
        classifies a clip must not matter.
        """
        norms = [
            m for m in model.modules()
            if isinstance(m, _BatchNorm) and m.track_running_stats
        ]
        if any(m.num_batches_tracked == 0 for m in norms):
            training = model.training
            model.train()
            batches = iter(self._pass.loader)
            for _ in range(self.norm_warmup):
                batch = next(batches, None)
                # Batch norm of a vector needs more than one clip. And norms
                # that are synchronized need a batch on every rank.
                usable = torch.tensor(
                    int(batch is not None and len(batch['data_samples']) > 1))
                all_reduce(usable, 'min')
                if not usable:
                    break
                model(model.data_preprocessor(batch, False)['inputs'])
            model.train(training)
        if norms:
            all_reduce_params(
                [x for m in norms for x in (m.running_mean, m.running_var)],
                op='mean')

    def _log(self, runner: Runner, labels: Tensor, previous: Optional[Tensor],
             classes: Tensor, result: SKResult, values: Dict[str,
                                                             float]) -> None:
        """Say how the labels look. Nothing is chosen by ground truth.

        Args:
            runner (Runner): Of the training.
            labels (Tensor): (N,) new labels.
            previous (Tensor, optional): (N,) labels before.
            classes (Tensor): (N,) ground truth, -1 where there is none.
            result (SKResult): How the solver did.
            values (dict): Seconds and, of the heads, agreement.
        """
        known = labels != IGNORE_LABEL
        found = labels[known].numpy()
        sizes = cluster_sizes(found, self._num_clusters)
        values = dict(
            smallest_cluster=int(sizes.min()),
            largest_cluster=int(sizes.max()),
            empty_clusters=int((sizes == 0).sum()),
            entropy=float(cluster_entropy(found, self._num_clusters)),
            solver_iterations=result.iterations,
            column_error=result.error,
            **values)
        line = (
            f'Self-labels at iteration {runner.iter}: {len(found)} clips, '
            f'cluster sizes {sizes.min()} to {sizes.max()}, '
            f'{values["empty_clusters"]} empty, entropy '
            f'{values["entropy"]:.3f}; Sinkhorn-Knopp '
            f'{result.iterations} passes, column error '
            f'{result.error:.1e}')
        if result.error > self.solver.tolerance:
            line += ' (not converged)'
        if 'head_agreement' in values:
            line += f'; both heads agree on {values["head_agreement"]:.1%}'
        if previous is not None:
            both = known & (previous != IGNORE_LABEL)
            table = contingency_matrix(labels[both].numpy(),
                                       previous[both].numpy())
            values['nmi_to_last_labels'] = normalized_mutual_information(table)
            line += ('; NMI to the last labels '
                     f'{values["nmi_to_last_labels"]:.3f}')
        if (classes >= 0).all():
            table = contingency_matrix(found, classes[known].numpy())
            values['nmi_to_classes'] = normalized_mutual_information(table)
            values['purity'] = purity(table)
            line += (f'; to the classes, NMI {values["nmi_to_classes"]:.3f}, '
                     f'purity {values["purity"]:.3f}')
        line += (f'; {values["prediction_seconds"]:.1f} s to predict, '
                 f'{values["solver_seconds"]:.1f} s to solve.')
        if not known.all():
            line += (f' {int((~known).sum())} clips have no label yet and '
                     'are ignored.')
        runner.logger.info(line)
        values = {f'self_labels/{k}': v for k, v in values.items()}
        runner.message_hub.update_scalars(values)
        runner.visualizer.add_scalars(
            dict(values, iter=runner.iter), step=runner.iter)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add the labels, and what is remembered, to the checkpoint."""
        labels = unwrap(runner.model).self_labels
        if labels is None:
            return
        checkpoint['self_labels'] = dict(
            labels=labels, clips=self._pass.digest, total=runner.max_iters)
        if self._rows is not None:
            checkpoint['self_labels']['memory'] = self._rows

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
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


def device_of(model: BaseModel) -> torch.device:
    """Where the weights of a model are."""
    return next(model.parameters()).device
