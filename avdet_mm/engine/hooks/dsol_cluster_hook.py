"""Clusters of found objects in DSOL's first stage (Hu et al., 2020)."""
from typing import Optional, Tuple

import numpy as np
import torch
from mmengine.dist import all_reduce, broadcast, is_main_process
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import Tensor
from torch.nn.functional import normalize

from avdet_mm.evaluation.functional import (
    cluster_sizes,
    contingency_matrix,
    normalized_mutual_information,
)
from avdet_mm.models.task_modules.kmeans import kmeans
from avdet_mm.registry import HOOKS
from avdet_mm.utils.progress import Progress

from ..label_pass import LabelPass
from ..utils import unwrap


@HOOKS.register_module()
class DSOLClusterHook(Hook):
    """Train localization and classification in turn, an epoch at a time.

    After ``init_epochs`` of localization, cycles follow: all training clips
    are clustered by what is seen where their sound comes from
    (:meth:`DSOL.object_features`, L2-normalized, k-means); the mean features
    of the clusters become the model's ``dictionary``; both classifiers start
    anew and learn the clusters for ``class_epochs`` together with the
    backbones; then comes one epoch of localization. Training should end with
    a cycle's classification: ``max_epochs = init_epochs + class_epochs +
    n * (1 + class_epochs)``.

    What an epoch does depends on its number alone, and the labels are in the
    checkpoint, so a resumed run continues as an uninterrupted one.

    In an epoch some of the weights have no gradient: a distributed training
    needs ``find_unused_parameters=True`` in the config.

    Args:
        dataloader (dict): As in a config: *all training clips*, in the same
            clip table and with the same filters as ``train_dataloader``,
            with a deterministic pipeline and
            ``sampler=dict(type='DefaultSampler', shuffle=False,
            round_up=False)``.
        init_epochs (int): Defaults to 1; the original has 10 on AudioSet. 0
            is for a model that can localize already (``load_from``).
        class_epochs (int): At least 1. Defaults to 3, the original's.
    """

    def __init__(self,
                 dataloader: dict,
                 init_epochs: int = 1,
                 class_epochs: int = 3) -> None:
        if init_epochs < 0 or class_epochs < 1:
            raise ValueError('init_epochs must be at least 0 and '
                             'class_epochs at least 1, got '
                             f'{init_epochs} and {class_epochs}.')
        self.dataloader = dataloader
        self.init_epochs = init_epochs
        self.class_epochs = class_epochs
        self._restored: Optional[dict] = None

    def place(self, epoch: int) -> int:
        """Where an epoch is in its cycle, counted from 0.

        Returns:
            int: 0: clustering and classification; below ``class_epochs``:
            classification; else: localization.
        """
        if epoch < self.init_epochs:
            return self.class_epochs
        return (epoch - self.init_epochs) % (self.class_epochs + 1)

    def before_train(self, runner: Runner) -> None:
        """Build the pass over the clips; take up a resumed run's labels."""
        model = unwrap(runner.model)
        if not hasattr(model, 'object_features'):
            raise ValueError('DSOLClusterHook needs a model that can say '
                             'what sounds look like: avdet_mm.DSOL.')
        self._pass = LabelPass(runner, self.dataloader, model.num_clusters,
                               'DSOLClusterHook', 'model.num_clusters')
        if self._restored is not None:
            restored, self._restored = self._restored, None
            model.self_labels = self._pass.take_up(restored)

    def before_train_epoch(self, runner: Runner) -> None:
        """Choose what to train; cluster if it is time."""
        place = self.place(runner.epoch)
        unwrap(runner.model).classifying = place < self.class_epochs
        if place == 0:
            self.cluster(runner)

    @torch.no_grad()
    def cluster(self, runner: Runner) -> None:
        """Give the model a dictionary, labels and fresh classifiers."""
        model = unwrap(runner.model)
        device = next(model.parameters()).device
        features, classes = self._features(runner)
        generator = np.random.default_rng([runner.seed, runner.epoch])
        labels = torch.zeros(len(features), dtype=torch.long)
        if is_main_process():
            labels = kmeans(
                normalize(features), model.num_clusters, generator)
        # Not left to the ranks, which may run on different processors.
        labels = labels.to(device)
        broadcast(labels)
        labels = labels.cpu()
        model.dictionary.copy_(cluster_means(features, labels,
                                             model.num_clusters))
        model.self_labels = labels
        optimizer = runner.optim_wrapper.optimizer
        for layer in (model.visual_classifier, model.audio_classifier):
            # The original's.
            weight = generator.normal(0, 0.01, tuple(layer.weight.shape))
            layer.weight.copy_(torch.from_numpy(weight))
            layer.bias.zero_()
            for parameter in layer.parameters():
                broadcast(parameter)
                # What the optimizer remembers belongs to the last clusters.
                optimizer.state.pop(parameter, None)
        self._log(runner, model, labels, classes)

    def _features(self, runner: Runner) -> Tuple[Tensor, Tensor]:
        """Look at all clips, in eval mode.

        Returns:
            tuple[Tensor, Tensor]: Object features (N, C) and classes (N,),
            -1 where there is none, on the CPU of every rank; the classes
            are for the log.
        """
        model = unwrap(runner.model)
        size = self._pass.num_clips
        features = torch.zeros(size, model.dictionary.size(1))
        classes = torch.full((size, ), -1)
        training = model.training
        model.eval()
        with Progress(len(self._pass.loader), 'batches',
                      is_main_process()) as progress:
            for batch in self._pass.loader:
                data = model.data_preprocessor(batch, False)
                with runner.optim_wrapper.optim_context(model):
                    outs = model(data['inputs'], mode='tensor')
                    found = model.object_features(outs)
                index = torch.tensor(
                    [s.sample_idx for s in data['data_samples']])
                features[index] = found.cpu()
                for sample in data['data_samples']:
                    if sample.get('gt_label') is not None:
                        classes[sample.sample_idx] = int(sample.gt_label)
                progress.update(1)
        model.train(training)
        # One rank has the clip, the others add zeros.
        all_reduce(features)
        all_reduce(classes, 'max')
        return features, classes

    def _log(self, runner: Runner, model: BaseModel, labels: Tensor,
             classes: Tensor) -> None:
        """Say how the clusters look. Nothing is chosen by ground truth."""
        sizes = cluster_sizes(labels.numpy(), model.num_clusters)
        line = (f'Clusters before epoch {runner.epoch + 1}: {len(labels)} '
                f'clips, sizes {sizes.min()} to {sizes.max()}')
        if (classes >= 0).all():
            nmi = normalized_mutual_information(
                contingency_matrix(labels.numpy(), classes.numpy()))
            line += f', NMI to the classes {nmi:.3f}'
            runner.visualizer.add_scalars({
                'clusters/nmi_to_classes': nmi,
                'iter': runner.iter
            }, step=runner.iter)
        runner.logger.info(line + '.')

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add the labels to the checkpoint."""
        labels = unwrap(runner.model).self_labels
        if labels is not None:
            checkpoint['self_labels'] = dict(
                labels=labels, clips=self._pass.digest)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep the labels of a run that is being resumed."""
        if runner._resume:
            self._restored = checkpoint.get('self_labels')


def cluster_means(features: Tensor, labels: Tensor,
                  num_clusters: int) -> Tensor:
    """Mean of each cluster's rows.

    Args:
        features (Tensor): (N, C).
        labels (Tensor): (N,) int64; every cluster has one or more rows.
        num_clusters (int): K.

    Returns:
        Tensor: (K, C).
    """
    sums = features.new_zeros(num_clusters, features.size(1))
    sums.index_add_(0, labels, features)
    return sums / labels.bincount(minlength=num_clusters)[:, None]
