"""Tests of DSOL's clusters during training."""
import shutil

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.runner import Runner
from torch.nn.functional import normalize

from avdet_mm.engine.hooks import DSOLClusterHook
from avdet_mm.engine.hooks.dsol_cluster_hook import cluster_means
from avdet_mm.engine.utils import unwrap
from avdet_mm.models.task_modules.kmeans import kmeans
from tests import toy
from tests.toy import ToyClips, label_cfg, make_runner, scalars
from tests.toy import model_cfg as localizer_cfg

K = 3
LOCALIZATION, CLASSES = {'loss_correspondence'}, {'loss_visual', 'loss_audio'}


def model_cfg(norm=True, **kwargs):
    cfg = localizer_cfg(norm=norm)
    return dict(
        type='avdet_mm.DSOL',
        num_clusters=K,
        visual_channels=32,
        audio_channels=32,
        embed_channels=8,
        **{
            key: cfg[key]
            for key in
            ('data_preprocessor', 'visual_backbone', 'audio_backbone')
        },
        **kwargs)


def toy_runner(work_dir, size=12, epochs=4, hook=None, **kwargs):
    dataset = kwargs.pop('dataset', None) or ToyClips(size)
    hook = dict(
        dict(
            type='avdet_mm.DSOLClusterHook',
            dataloader=label_cfg(dataset),
            class_epochs=2), **(hook or {}))
    return make_runner(
        work_dir,
        kwargs.pop('model', None) or model_cfg(),
        dataset, [dict(type='avdet_mm.EpochSeedHook'), hook],
        epochs=epochs,
        **dict(
            dict(optim_wrapper=dict(optimizer=dict(type='Adam', lr=1e-3))),
            **kwargs))


def find_hook(runner):
    hook, = (h for h in runner.hooks if isinstance(h, DSOLClusterHook))
    return hook


def ready(runner):
    """As at the start of the training."""
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    runner.call_hook('before_train')
    return runner


@pytest.mark.parametrize('init_epochs, class_epochs, expected', [
    (1, 3, 'LcCCLcCCL'),
    (3, 1, 'LLLcLcLcL'),
    (0, 2, 'cCLcCLcCL'),
])
def test_turns(init_epochs, class_epochs, expected):
    hook = DSOLClusterHook({}, init_epochs, class_epochs)
    places = [hook.place(epoch) for epoch in range(9)]
    assert expected == ''.join(
        'c' if place == 0 else 'C' if place < class_epochs else 'L'
        for place in places)


def test_what_epochs_train(tmp_path, monkeypatch):
    clustered, seen = [], {}
    cluster = DSOLClusterHook.cluster
    monkeypatch.setattr(
        DSOLClusterHook, 'cluster', lambda self, runner: clustered.append(
            runner.epoch) or cluster(self, runner))
    runner = toy_runner(tmp_path, epochs=7)
    model = runner.model
    before_step = model.train_step

    def train_step(data, optim_wrapper):
        old = {k: v.clone() for k, v in model.named_parameters()}
        losses = before_step(data, optim_wrapper)
        changed = {
            k.split('.')[0]
            for k, v in model.named_parameters() if not torch.equal(v, old[k])
        }
        names = {k for k in losses if k.startswith('loss_')}
        seen.setdefault(runner.epoch, []).append((names, changed))
        return losses

    model.train_step = train_step
    runner.train()
    assert clustered == [1, 4]
    backbones = {'visual_backbone', 'audio_backbone'}
    # One of localization, cycles of two of classes and one of localization.
    for epoch, turn in enumerate('LCCLCCL'):
        for names, changed in seen[epoch]:
            if turn == 'L':
                assert names == LOCALIZATION
                assert changed == backbones | {
                    'visual_embedding', 'audio_embedding', 'weight', 'bias'
                }
            else:
                assert names == CLASSES
                assert changed == backbones | {
                    'visual_classifier', 'audio_classifier'
                }


def test_clusters_of_found_objects(tmp_path):
    dataset = ToyClips(13)
    runner = ready(toy_runner(tmp_path, dataset=dataset))
    model = runner.model
    # Batch norms with statistics, and classifiers that were trained.
    data = pseudo_collate([dataset[i] for i in range(13)])
    model(**model.data_preprocessor(data), mode='tensor')
    optimizer = runner.optim_wrapper.optimizer
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    find_hook(runner).cluster(runner)
    assert model.training

    model.eval()
    rows = []
    for i in range(13):
        data = model.data_preprocessor(pseudo_collate([dataset[i]]))
        with torch.no_grad():
            rows.append(model.object_features(model(data['inputs']))[0])
    rows, labels = torch.stack(rows), model.self_labels
    norms = rows.norm(dim=1)
    assert norms.min() > 0 and norms.max() > 1.1 * norms.min()
    assert labels.dtype == torch.long and labels.shape == (13, )
    assert set(labels.tolist()) == set(range(K))
    # Means of what was found, not of what k-means has seen.
    for k in range(K):
        torch.testing.assert_close(model.dictionary[k],
                                   rows[labels == k].mean(dim=0))
    generator = np.random.default_rng([3, 0])
    assert torch.equal(kmeans(normalize(rows), K, generator), labels)
    # Classifiers start anew, in the optimizer too.
    for layer in (model.visual_classifier, model.audio_classifier):
        assert layer.weight.abs().max() < 0.05 and layer.weight.std() > 0.005
        assert not layer.bias.any()
        assert all(p not in optimizer.state for p in layer.parameters())
    assert model.visual_embedding[0].weight in optimizer.state


def test_cluster_means():
    means = cluster_means(
        torch.tensor([[1., 2.], [3., 4.], [5., 9.]]),
        torch.tensor([1, 0, 1]), 2)
    assert means.tolist() == [[3, 4], [3, 5.5]]


# Epochs are L c C L c; a run stops within a cycle, or before a clustering.
@pytest.mark.parametrize('stopped', [1, 2, 4])
def test_resumed_run_equals_an_uninterrupted_one(tmp_path, stopped):
    whole = tmp_path / 'whole'
    toy_runner(whole, epochs=5, default_hooks=HOOKS).train()
    part = tmp_path / 'part'
    part.mkdir()
    shutil.copy(whole / f'epoch_{stopped}.pth', part)
    runner = toy_runner(
        part,
        epochs=5,
        default_hooks=HOOKS,
        resume=True,
        load_from=str(part / f'epoch_{stopped}.pth'))
    runner.train()
    one, two = (
        torch.load(folder / 'epoch_5.pth', weights_only=True)
        for folder in (whole, part))
    for name, value in one['state_dict'].items():
        assert torch.equal(two['state_dict'][name], value), name
    assert torch.equal(one['self_labels']['labels'],
                       two['self_labels']['labels'])
    expected = scalars(whole)
    found = scalars(part)
    assert len(found) == 3 * (5 - stopped)
    assert found.items() <= expected.items()


HOOKS = dict(
    logger=dict(type='LoggerHook', interval=1),
    checkpoint=dict(type='CheckpointHook', interval=1))


def test_other_clips_cannot_resume(tmp_path):
    toy_runner(tmp_path, epochs=2, default_hooks=HOOKS).train()
    path = str(tmp_path / 'epoch_2.pth')
    # A new run takes the weights, not the labels.
    runner = toy_runner(tmp_path / 'new', load_from=path)
    runner.load_or_resume()
    ready(runner)
    assert runner.model.self_labels is None
    other = toy_runner(
        tmp_path / 'other',
        dataset=ToyClips(12, prefix='other'),
        resume=True,
        load_from=path)
    with pytest.raises(ValueError, match='not the one that this checkpoint'):
        other.train()


def two_epochs(work_dir, launcher='none'):
    """Classes of 13 clips, six at a time.

    Localization differs: a rank finds pairs that do not match in its own
    batch.
    """

    def tolerant(cfg, **kwargs):
        # As find_unused_parameters=True in a config.
        cfg['model_wrapper_cfg']['find_unused_parameters'] = True
        return Runner(cfg=cfg, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(toy, 'Runner', tolerant)
        runner = toy_runner(
            work_dir,
            size=13,
            epochs=2,
            model=model_cfg(norm=False),
            batch_size=6 if launcher == 'none' else 3,
            launcher=launcher,
            hook=dict(init_epochs=0))
    runner.train()
    model = unwrap(runner.model)
    return model.self_labels, model.state_dict()


def test_two_processes_equal_one(gloo, tmp_path):
    # 13 clips: the pass is uneven.
    labels, state = two_epochs(str(tmp_path / 'one'))
    assert set(labels.tolist()) == set(range(K))
    (first, a), (second, b) = gloo(two_epochs, str(tmp_path / 'two'),
                                   'pytorch')
    assert torch.equal(first, labels) and torch.equal(second, labels)
    for name, value in state.items():
        torch.testing.assert_close(
            a[name], value, rtol=1e-3, atol=1e-4, msg=name)
        assert torch.equal(a[name], b[name]), name


def test_errors(tmp_path):
    for kwargs in (dict(init_epochs=-1), dict(class_epochs=0)):
        with pytest.raises(ValueError, match='must be at least'):
            DSOLClusterHook({}, **kwargs)
    with pytest.raises(ValueError, match=r'avdet_mm\.DSOL'):
        ready(toy_runner(tmp_path / 'a', model=localizer_cfg()))
    with pytest.raises(ValueError, match='in the same order'):
        ready(
            toy_runner(
                tmp_path / 'b',
                hook=dict(dataloader=label_cfg(ToyClips(5)))))
    with pytest.raises(ValueError, match='cannot be filled by 2 clips'):
        ready(toy_runner(tmp_path / 'c', size=2))
