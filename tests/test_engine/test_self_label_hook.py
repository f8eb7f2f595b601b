"""Tests of the self-labels during training."""
import copy
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.optim.optimizer import amp_optimizer_wrapper
from torch.nn.modules.batchnorm import _BatchNorm

from avdet_mm.engine.hooks import SelfLabelHook
from avdet_mm.engine.utils import unwrap
from avdet_mm.evaluation.functional import (
    contingency_matrix,
    normalized_mutual_information,
    purity,
)
from avdet_mm.models.task_modules.sinkhorn_knopp import SKResult
from avdet_mm.registry import TASK_UTILS
from tests.toy import (
    ToyClips,
    label_cfg,
    loader_cfg,
    make_runner,
    model_cfg,
    scalars,
)

K = 3


def hook_cfg(dataset, **kwargs):
    return dict(
        dict(
            type='avdet_mm.SelfLabelHook',
            dataloader=label_cfg(dataset),
            num_updates=4,
            power=1.,
            # To the end, so that borders do not matter.
            solver=dict(type='avdet_mm.SinkhornKnopp', tolerance=1e-6)),
        **kwargs)


class LabeledClips(ToyClips):
    """Clips with a class, but for one where ``unknown`` says so."""

    def __init__(self, *args, unknown=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.classes = [None if i == unknown else i % 2 for i in range(
            len(self.clip_ids))]

    def __getitem__(self, i):
        data = super().__getitem__(i)
        if self.classes[i] is not None:
            data['data_samples'].set_metainfo(dict(gt_label=self.classes[i]))
        return data


def toy_runner(work_dir, size=12, epochs=2, hook=None, **kwargs):
    dataset = kwargs.pop('dataset', None) or ToyClips(size)
    return make_runner(
        work_dir,
        kwargs.pop('model', model_cfg(num_clusters=K)),
        dataset, [hook_cfg(dataset, **(hook or {}))],
        epochs=epochs,
        **kwargs)


def ready(runner):
    """As at the start of the training."""
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    runner.call_hook('before_train')
    return runner


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """A folder with the checkpoints of two epochs."""
    folder = tmp_path_factory.mktemp('finished')
    toy_runner(folder).train()
    return folder


def find_hook(runner):
    hook, = (h for h in runner.hooks if isinstance(h, SelfLabelHook))
    return hook


def dense_labels(model, dataset, sharpness=20):
    """Labels of clips that are classified one by one, in eval mode."""
    model.eval()
    rows = []
    for i in range(len(dataset)):
        data = model.data_preprocessor(pseudo_collate([dataset[i]]))
        with torch.no_grad():
            outs = model(data['inputs'])
        rows.append(outs['visual_logits'][0].double().softmax(0) *
                    outs['audio_logits'][0].double().softmax(0))
    ps = torch.stack(rows)**(sharpness / 2)
    r = 1 / ps.size(1)
    beta = torch.ones(len(ps), dtype=torch.double)
    for _ in range(5000):
        alpha = r / (ps.T @ beta)
        beta = 1 / len(ps) / (ps @ alpha)
    return (ps * alpha).argmax(1)


@pytest.mark.parametrize('num_updates, power, total, expected', [
    (4, 1., 100, [0, 25, 50, 75]),
    (4, 2., 100, [0, 6, 25, 56]),
    (1, 1.5, 100, [0]),
    (3, 1.5, 1000, [0, 192, 544]),
    (100, 1., 10, list(range(10))),
    (7, 1., 7, list(range(7))),
])
def test_schedule(num_updates, power, total, expected):
    hook = SelfLabelHook({}, num_updates, power)
    assert hook.update_iters(total) == expected
    # A function of its arguments alone.
    assert hook.update_iters(total) == expected


@pytest.mark.parametrize('begin, expected', [
    (20, [0, 20, 40, 60, 80]),
    (0, [0, 25, 50, 75]),
    (96, [0, 96, 97, 98, 99]),
])
def test_schedule_that_begins_later(begin, expected):
    assert SelfLabelHook({}, 4, 1.).update_iters(100, begin) == expected


class SoundingClips(LabeledClips):
    """Clips of two classes: low and high tones, by turns."""

    def __init__(self, size=12):
        super().__init__(size)
        time = torch.arange(2000) / 24000
        for i in range(size):
            tone = torch.sin(2 * np.pi * (9000 if i % 2 else 900) * time)
            self.audio[i] = 0.3 * tone + 0.01 * self.audio[i]


@pytest.mark.parametrize('recluster', [False, True])
@pytest.mark.parametrize('source', ['pass', 'memory'])
def test_first_labels_from_sounds(tmp_path, monkeypatch, source, recluster):
    steps = []
    for name in ('cluster', 'update'):
        method = getattr(SelfLabelHook, name)

        def recorded(self, runner, method=method, name=name):
            method(self, runner)
            steps.append((name, runner.iter))
            if name == 'cluster':
                first.append(runner.model.self_labels.clone())

        monkeypatch.setattr(SelfLabelHook, name, recorded)
    first = []
    dataset = SoundingClips()
    runner = make_runner(
        tmp_path,
        model_cfg(num_clusters=2),
        dataset, [
            hook_cfg(
                dataset,
                num_updates=2,
                begin=1,
                source=source,
                recluster=recluster,
                initial=dict(type='avdet_mm.AudioStatisticsClusters'))
        ],
        epochs=3)
    runner.train()
    # 3 iterations an epoch.
    second = 'cluster' if recluster else 'update'
    assert steps == [('cluster', 0), (second, 3), ('update', 6)]
    labels = first[0]
    assert len(set(zip(labels.tolist(), dataset.classes))) == 2
    assert labels.dtype == torch.long and labels.device.type == 'cpu'
    assert scalars(tmp_path, 'self_labels/nmi_to_classes')[0] == 1
    # Heads have said nothing of the first labels, and of the others.
    agreement = scalars(tmp_path, 'self_labels/head_agreement')
    assert sorted(agreement) == ([6] if recluster else [3, 6])


def of_sounds(work_dir, launcher='none'):
    """A runner whose hook clusters sounds."""
    dataset = SoundingClips(13)
    return ready(
        make_runner(
            work_dir,
            model_cfg(num_clusters=2),
            dataset, [
                hook_cfg(
                    dataset,
                    begin=1,
                    recluster=True,
                    initial=dict(type='avdet_mm.AudioStatisticsClusters'))
            ],
            launcher=launcher))


def clustered_twice(work_dir, launcher='none'):
    """Labels by statistics and, after numbers have changed, by embeddings."""
    runner = of_sounds(work_dir, launcher)
    hook, model = find_hook(runner), unwrap(runner.model)
    hook.cluster(runner)
    first = model.self_labels
    model.self_labels = 1 - first
    model.train()
    hook.cluster(runner)
    assert model.training
    return first, model.self_labels


def test_labels_from_sounds_of_two_processes(gloo, tmp_path):
    one = clustered_twice(str(tmp_path / 'one'))
    a, b = gloo(clustered_twice, str(tmp_path / 'two'), 'pytorch')
    for first, second, alone in zip(a, b, one):
        assert torch.equal(first, second) and torch.equal(first, alone)


def test_sounds_are_clustered_again_by_their_embeddings(tmp_path):
    runner = of_sounds(tmp_path)
    hook, model = find_hook(runner), runner.model
    seen = []

    class Halves:

        def __call__(self, index, features, num_clips, num_clusters, assign,
                     generator):
            seen.append((index, features))
            labels = (index >= 6).long()
            return SKResult(labels, torch.zeros(2), 0, 0.)

    hook.initial = Halves()
    model.self_labels = torch.tensor([1] * 7 + [0] * 5 + [-1])
    hook.cluster(runner)
    # Cluster 0 met seven clips of 1, and 1 those of 0.
    assert model.self_labels.tolist() == [1] * 6 + [0] * 7
    (index, features), = seen
    model.eval()
    for place, row in zip(index.tolist(), features):
        data = model.data_preprocessor(
            pseudo_collate([SoundingClips(13)[place]]))
        with torch.no_grad():
            expected = model(data['inputs'])['audio'][0]
        torch.testing.assert_close(row, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('renumber, expected', [
    (False, [0, 0, 1, 1, 1, 2]),
    (True, [2, 2, 0, 1, 0, 1]),
])
def test_a_clip_that_is_not_labelled_again_keeps_its_label(
        tmp_path, monkeypatch, renumber, expected):
    runner = toy_runner(tmp_path)
    hook = find_hook(runner)
    hook._num_clusters, hook._pass = 3, SimpleNamespace(num_clips=6)
    runner.model.self_labels = torch.tensor([2, 2, 0, 1, -1, 1])
    logged = []
    monkeypatch.setattr(hook, '_log', lambda *args: logged.append(args))
    # Nobody has clip 3.
    index, classes = torch.tensor([5, 4, 2, 1, 0]), torch.arange(5)
    result = SimpleNamespace(labels=torch.tensor([2, 1, 1, 0, 0]))
    hook._set_labels(
        runner, index, classes, result, (0., 1.), renumber=renumber, more=7.)
    assert runner.model.self_labels.tolist() == expected
    (_, labels, previous, found, _, values), = logged
    assert labels is runner.model.self_labels
    assert previous.tolist() == [2, 2, 0, 1, -1, 1]
    assert found.tolist() == [4, 3, 2, -1, 1, 0]
    assert values['more'] == 7 and values['prediction_seconds'] == 1


def test_schedule_must_begin_before_the_end(tmp_path):
    with pytest.raises(ValueError, match='not before the end'):
        ready(toy_runner(tmp_path, epochs=2, hook=dict(begin=2)))
    with pytest.raises(ValueError, match='begin'):
        SelfLabelHook({}, begin=-1)


def test_labels_are_assigned_on_schedule(tmp_path, monkeypatch):
    seen = []
    update = SelfLabelHook.update

    def recorded(self, runner):
        assert runner.model.training
        before = {
            k: v.clone()
            for k, v in runner.model.state_dict().items()
        }
        update(self, runner)
        assert runner.model.training
        changed = {
            k
            for k, v in runner.model.state_dict().items()
            if not torch.equal(v, before[k])
        }
        # Only fresh batch norms are warmed up and clusters aligned, once.
        assert bool(changed) == (runner.iter == 0)
        assert all('running_' in k or 'num_batches' in k
                   or 'cluster_head.audio_mlp.3' in k for k in changed)
        seen.append(runner.iter)

    monkeypatch.setattr(SelfLabelHook, 'update', recorded)
    runner = toy_runner(tmp_path, epochs=3, hook=dict(num_updates=5))
    runner.train()
    assert runner.iter == 9
    assert seen == [0, 1, 3, 5, 7]
    assert runner.model.self_labels.shape == (12, )
    nmi = scalars(tmp_path, 'self_labels/nmi_to_last_labels')
    assert list(nmi) == [1, 3, 5, 7]
    assert all(0 <= v <= 1 for v in nmi.values())


def test_agreement_of_the_heads_is_logged(tmp_path):
    runner = toy_runner(tmp_path)
    runner.train()
    find_hook(runner).update(runner)
    model = runner.model.eval()
    agree = 0
    for i in range(12):
        data = model.data_preprocessor(pseudo_collate([ToyClips(12)[i]]))
        outs = model(data['inputs'])
        agree += int(outs['visual_logits'].argmax()) == int(
            outs['audio_logits'].argmax())
    logged = runner.message_hub.get_scalar(
        'self_labels/head_agreement').current()
    assert logged == pytest.approx(agree / 12)


def test_labels_come_before_the_forward_pass(tmp_path, monkeypatch):
    events = []
    monkeypatch.setattr(SelfLabelHook, 'update',
                        lambda self, runner: events.append('update'))
    runner = toy_runner(tmp_path, epochs=1, hook=dict(num_updates=2))
    runner.model.loss = lambda outs, data_samples: events.append(
        'loss') or dict(loss=outs['audio'].sum())
    runner.train()
    assert events == ['update', 'loss', 'update', 'loss', 'loss']


def test_labels_equal_dense_reference(tmp_path):
    dataset = ToyClips(12)
    runner = toy_runner(tmp_path)
    runner.train()
    find_hook(runner).update(runner)
    model = runner.model
    assert model.self_labels.dtype == torch.int64
    assert torch.equal(model.self_labels, dense_labels(model, dataset))
    assert set(model.self_labels.tolist()) == set(range(K))


def test_marginals_and_sharpness_are_used(tmp_path):
    runner = toy_runner(
        tmp_path, size=20, epochs=1, hook=dict(marginals=[0.8, 0.1, 0.1]))
    runner.train()
    sizes = np.bincount(runner.model.self_labels, minlength=K)
    assert sizes[0] >= 14 and sizes.sum() == 20


@pytest.mark.parametrize('norm_warmup, batches', [(2, 2), (20, 3)])
def test_fresh_norms_are_warmed_up(tmp_path, norm_warmup, batches):
    runner = toy_runner(tmp_path, hook=dict(norm_warmup=norm_warmup))
    hook = find_hook(runner)
    ready(runner)
    norms = [m for m in runner.model.modules() if isinstance(m, _BatchNorm)]
    assert {int(m.num_batches_tracked) for m in norms} == {0}
    hook.update(runner)  # 12 clips in batches of 5: 3 batches
    assert {int(m.num_batches_tracked) for m in norms} == {batches}
    hook.update(runner)
    assert {int(m.num_batches_tracked) for m in norms} == {batches}


def test_last_batch_of_one_clip(tmp_path):
    # Batch norm cannot be warmed up by a single clip.
    runner = toy_runner(tmp_path, size=11, epochs=1)
    runner.train()
    assert (runner.model.self_labels >= 0).all()
    norms = [m for m in runner.model.modules() if isinstance(m, _BatchNorm)]
    # Two warm-up batches of 5 and two of training of 4.
    assert {int(m.num_batches_tracked) for m in norms} == {4}


def test_labels_travel_in_the_checkpoint(tmp_path):
    runner = toy_runner(tmp_path)
    runner.train()
    checkpoint = torch.load(tmp_path / 'epoch_2.pth', weights_only=True)
    saved = checkpoint['self_labels']
    assert torch.equal(saved['labels'], runner.model.self_labels)
    assert isinstance(saved['clips'], str)
    assert not any('self_labels' in k for k in checkpoint['state_dict'])


def resumed(work_dir, source, **kwargs):
    work_dir.mkdir()
    shutil.copy(source / 'epoch_1.pth', work_dir)
    return toy_runner(
        work_dir,
        resume=True,
        load_from=str(work_dir / 'epoch_1.pth'),
        **kwargs)


def test_resume_continues_with_the_labels(tmp_path):
    whole = toy_runner(tmp_path / 'a', hook=dict(num_updates=4), epochs=2)
    whole.train()
    saved = torch.load(
        tmp_path / 'a/epoch_1.pth', weights_only=True)['self_labels']['labels']
    part = resumed(tmp_path / 'b', tmp_path / 'a', hook=dict(num_updates=4))
    restored = []
    find_hook(part).before_train_epoch = lambda runner: restored.append(
        runner.model.self_labels.clone())
    part.train()
    assert len(restored) == 1 and torch.equal(restored[0], saved)
    assert torch.equal(part.model.self_labels, whole.model.self_labels)


def test_resume_with_another_clip_table(tmp_path, finished):
    other = ToyClips(12, prefix='other')
    runner = make_runner(
        tmp_path,
        model_cfg(num_clusters=K),
        other, [hook_cfg(other)],
        resume=True,
        load_from=str(finished / 'epoch_1.pth'))
    with pytest.raises(ValueError, match='clip table'):
        runner.train()


def test_resume_without_labels(tmp_path):
    dataset = ToyClips(12)
    make_runner(tmp_path / 'a', model_cfg(), dataset, epochs=1).train()
    with pytest.raises(ValueError, match='no self-labels'):
        resumed(tmp_path / 'b', tmp_path / 'a').train()


def test_load_from_starts_with_new_labels(tmp_path, finished):
    other = ToyClips(9, prefix='other')
    runner = make_runner(
        tmp_path,
        model_cfg(num_clusters=K),
        other, [hook_cfg(other)],
        epochs=1,
        load_from=str(finished / 'epoch_1.pth'))
    runner.train()
    assert runner.model.self_labels.shape == (9, )


def test_more_clusters_than_clips(tmp_path):
    runner = toy_runner(tmp_path, model=model_cfg(num_clusters=13))
    with pytest.raises(ValueError, match='13 clusters .* 12 clips'):
        runner.train()


@pytest.mark.parametrize('other', [
    ToyClips(11),
    ToyClips(12, prefix='other'),
])
def test_loaders_must_have_the_same_clips(tmp_path, other):
    runner = toy_runner(tmp_path, hook=dict(dataloader=loader_cfg(other)))
    with pytest.raises(ValueError, match='train_dataloader'):
        runner.train()


def test_model_without_cluster_head(tmp_path):
    with pytest.raises(ValueError, match='cluster head'):
        toy_runner(tmp_path, model=model_cfg()).train()


@pytest.mark.parametrize('kwargs, message', [
    (dict(num_updates=0), 'num_updates'),
    (dict(power=0), 'power'),
    (dict(power=-1.), 'power'),
    (dict(source='disk'), "'pass' or 'memory'"),
    (dict(recluster=True, begin=1), 'Set initial and begin'),
    (dict(recluster=True,
          initial=dict(type='avdet_mm.AudioStatisticsClusters')),
     'Set initial and begin'),
    (dict(marginals='uniform'), 'marginals must be'),
    (dict(marginals=0.5), 'marginals must be'),
    (dict(marginals=[]), 'marginals must be'),
    (dict(marginals=[0.6, 0.6]), 'summing to 1'),
    (dict(marginals=[1.2, -0.2]), 'one positive number'),
    (dict(marginals=[1., float('nan')]), 'one positive number'),
])
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        SelfLabelHook({}, **kwargs)


def test_marginals_of_another_number_of_clusters(tmp_path):
    runner = toy_runner(tmp_path, hook=dict(marginals=[0.5, 0.5]))
    with pytest.raises(ValueError, match='2 numbers for 3 clusters'):
        runner.train()


def test_diverged_training(tmp_path):
    runner = ready(toy_runner(tmp_path))
    hook = find_hook(runner)
    hook.update(runner)
    runner.model.cluster_head.audio_mlp[-1].bias.data[0] = float('nan')
    with pytest.raises(ValueError, match='not finite'):
        hook.update(runner)


# Marginals, alignment, memory, quality


@TASK_UTILS.register_module()
class SmallestFirst:
    """Half of the mass for the least probable cluster; and what it saw."""

    def __init__(self):
        self.seen = []

    def __call__(self, log_probs):
        self.seen.append(log_probs)
        shares = torch.full((K, ), 0.25, dtype=torch.double)
        shares[log_probs.exp().sum(0).argmin()] = 0.5
        return shares


def spy(hook):
    """What the solver is given from now on."""
    calls = []
    solver = hook.solver

    def recorded(log_probs, marginals):
        calls.append((log_probs.clone(), marginals))
        return solver(log_probs, marginals)

    recorded.tolerance = solver.tolerance
    hook.solver = recorded
    return calls


@pytest.mark.parametrize('source', ['pass', 'memory'])
def test_built_marginals_see_the_predictions(tmp_path, source):
    runner = toy_runner(
        tmp_path,
        size=20,
        epochs=2,
        hook=dict(
            marginals=dict(type='SmallestFirst', _scope_='avdet_mm'),
            source=source))
    hook = find_hook(runner)
    calls = spy(hook)
    runner.train()
    seen = hook.marginals.seen
    assert len(seen) == len(calls) == 4
    for rows, (log_probs, marginals) in zip(seen, calls):
        assert rows.shape == (20, K) and rows.dtype == torch.float32
        assert torch.equal(rows, log_probs)
        assert marginals[rows.exp().sum(0).argmin()] == 0.5
    assert not torch.equal(seen[0], seen[-1])


def twin_runner(work_dir, permutation, **kwargs):
    """Both heads see the same vector, audio clusters have other numbers."""
    runner = toy_runner(work_dir, size=43, **kwargs)
    model = runner.model
    model = getattr(model, 'module', model)
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(3 * 32 * 32, 32, generator=generator) / 30

    head = model.cluster_head

    def encode(frame, audio):
        x = frame.flatten(1) @ mix
        features = x[..., None, None].expand(-1, -1, 2, 2), x
        visual, audio = model.localization_head(*features)
        visual_logits, audio_logits = head(*features)
        return dict(
            visual=visual,
            audio=audio,
            visual_logits=visual_logits,
            audio_logits=audio_logits)

    model.encode = encode
    torch.nn.init.normal_(head.visual_mlp[-1].weight, generator=generator)
    head.audio_mlp.load_state_dict(head.visual_mlp.state_dict())
    with torch.no_grad():
        for value in (head.audio_mlp[-1].weight, head.audio_mlp[-1].bias):
            value.copy_(value[permutation])
    return runner


def heads_agree(model):
    head = model.cluster_head
    return all(
        torch.equal(a, b)
        for a, b in zip(head.visual_mlp[-1].parameters(),
                        head.audio_mlp[-1].parameters()))


def test_gaussian_marginals(tmp_path):
    runner = twin_runner(
        tmp_path, [0, 1, 2],
        hook=dict(
            marginals=dict(
                type='avdet_mm.GaussianMarginals', std=0.4, seed=1)))
    hook = find_hook(ready(runner))
    calls = spy(hook)
    hook.update(runner)
    (_, shares), = calls
    assert shares.max() - shares.min() > 0.1
    sizes = np.bincount(runner.model.self_labels, minlength=K)
    assert np.abs(sizes / 43 - shares.numpy()).max() < 0.05


@pytest.mark.parametrize('permutation', [[0, 1, 2], [2, 0, 1]])
def test_alignment_finds_the_permutation(tmp_path, permutation):
    runner = ready(twin_runner(tmp_path, permutation))
    model = runner.model
    hook = find_hook(runner)
    assert heads_agree(model) == (permutation == [0, 1, 2])
    hook.update(runner)
    assert heads_agree(model)
    # The labels are those of the permuted head.
    labels = model.self_labels
    assert torch.equal(labels, dense_labels(model, ToyClips(43)))
    agreement = runner.message_hub.get_scalar('self_labels/head_agreement')
    assert agreement.current() == 1
    # Never again: the optimizer knows the rows by now.
    with torch.no_grad():
        layer = model.cluster_head.audio_mlp[-1]
        layer.weight.copy_(layer.weight[[1, 2, 0]])
    hook.update(runner)
    assert not heads_agree(model)


def test_alignment_is_logged(tmp_path, monkeypatch):
    runner = ready(twin_runner(tmp_path, [2, 0, 1]))
    lines = []
    monkeypatch.setattr(runner.logger, 'info', lines.append)
    find_hook(runner).update(runner)
    found, = (line for line in lines if 'numbered' in line)
    assert 'agree on 100.0% of the clips, before on ' in found
    before = float(found.split('before on ')[1].rstrip('%.'))
    assert before < 50


def test_no_alignment_if_not_wanted(tmp_path):
    runner = ready(twin_runner(tmp_path, [2, 0, 1], hook=dict(align=False)))
    find_hook(runner).update(runner)
    assert not heads_agree(runner.model)


def record_alignments(monkeypatch):
    """The state of the optimizer whenever clusters are aligned."""
    found = []
    align = SelfLabelHook._align

    def recorded(self, runner, batches):
        found.append((runner.iter, dict(runner.optim_wrapper.optimizer.state)))
        return align(self, runner, batches)

    monkeypatch.setattr(SelfLabelHook, '_align', recorded)
    return found


def test_alignment_at_the_first_update_of_a_new_run(tmp_path, monkeypatch):
    found = record_alignments(monkeypatch)
    adam = dict(optimizer=dict(type='Adam', lr=0.01))
    toy_runner(tmp_path / 'a', optim_wrapper=adam).train()
    assert found == [(0, {})]
    resumed(tmp_path / 'b', tmp_path / 'a', optim_wrapper=adam).train()
    assert found == [(0, {})]


def test_mixed_precision(tmp_path, monkeypatch):
    # MMEngine wants a GPU for it; the CPU does as well.
    monkeypatch.setattr(amp_optimizer_wrapper, 'is_cuda_available',
                        lambda: True)
    found = record_alignments(monkeypatch)
    dtypes = set()
    runner = toy_runner(
        tmp_path,
        hook=dict(source='memory'),
        optim_wrapper=dict(
            type='AmpOptimWrapper',
            dtype='bfloat16',
            loss_scale=dict(enabled=False),
            optimizer=dict(type='Adam', lr=0.01)))
    runner.model.cluster_head.visual_mlp[-1].register_forward_hook(
        lambda module, args, out: dtypes.add((module.training, out.dtype)))
    runner.train()
    assert found == [(0, {})]
    # Batch norms are warmed up as they are, the pass is as the training.
    assert (False, torch.bfloat16) in dtypes
    assert (True, torch.bfloat16) in dtypes
    assert (False, torch.float32) not in dtypes
    rows = find_hook(runner)._memory.settle().log_probs
    assert rows.dtype == torch.float32 and torch.isfinite(rows).all()
    assert runner.model.cluster_head.audio_mlp[-1].weight.dtype == \
        torch.float32


def test_memory_holds_the_last_predictions(tmp_path):
    runner = toy_runner(
        tmp_path, size=13, epochs=2, hook=dict(source='memory'))
    hook = find_hook(runner)
    expected, initial = {}, {}
    predict, loss = hook._predict, runner.model.loss

    def predicted(*args):
        found = predict(*args)
        initial.update(zip(found.index.tolist(), found.log_probs))
        expected.update(initial)
        return found

    def seen(outs, data_samples):
        for sample, visual, audio in zip(data_samples, outs['visual_logits'],
                                         outs['audio_logits']):
            expected[sample.sample_idx] = (visual.softmax(0).log() / 2 +
                                           audio.softmax(0).log() / 2)
        return loss(outs, data_samples)

    hook._predict, runner.model.loss = predicted, seen
    solved = []
    hook.update = lambda runner: SelfLabelHook.update(
        hook, runner) or solved.append(dict(expected))
    calls = spy(hook)
    runner.train()
    # Thirteen clips in batches of four: one is not seen in an epoch.
    assert len(solved) == len(calls) == 4 and len(initial) == 13
    for (log_probs, _), rows in zip(calls, solved):
        torch.testing.assert_close(
            log_probs, torch.stack([rows[i].detach() for i in range(13)]))
    assert not torch.equal(calls[0][0], calls[-1][0])
    # The labels are those of the rows.
    assert torch.equal(runner.model.self_labels,
                       hook.solver(*calls[-1]).labels)


def test_memory_in_a_training(tmp_path):
    runner = toy_runner(
        tmp_path,
        size=13,
        epochs=3,
        hook=dict(source='memory', num_updates=6, power=2.))
    hook = find_hook(runner)
    pending = []
    # Before the checkpoint is saved.
    hook.after_train_epoch = lambda runner: pending.append(
        len(hook._memory._pending))
    passes = []
    predict = hook._predict
    hook._predict = lambda runner, align: passes.append(
        (runner.iter, align)) or predict(runner, align)
    runner.train()
    # Passes in the first epoch only.
    assert passes == [(0, True), (1, False), (2, False)]
    # Settled at the end of every epoch.
    assert pending == [0, 0, 0]
    # Three batches warm the norms up; the pass itself does not touch them.
    norms = [m for m in runner.model.modules() if isinstance(m, _BatchNorm)]
    assert {int(m.num_batches_tracked) for m in norms} == {3 + 9}
    # Nothing is left in model and runner.
    assert not runner.model.cluster_head._forward_hooks
    assert 'save_checkpoint' not in vars(runner)
    saved = torch.load(tmp_path / 'epoch_3.pth', weights_only=True)
    memory = saved['self_labels']['memory']
    assert torch.equal(memory['log_probs'], hook._memory.settle().log_probs)
    assert memory['log_probs'].shape == (13, K)
    assert memory['stamps'].min() >= 0 and memory['stamps'].max() == 2 * 8 + 1


@pytest.mark.parametrize('source', ['pass', 'memory'])
def test_quality_is_logged(tmp_path, source):
    dataset = LabeledClips(12)
    runner = toy_runner(
        tmp_path, dataset=dataset, hook=dict(source=source))
    labels = []
    hook = find_hook(runner)
    update = hook.update

    def updated(runner):
        update(runner)
        labels.append(runner.model.self_labels)

    hook.update = updated
    runner.train()
    last, before = labels[-1].numpy(), labels[-2].numpy()
    sizes = np.bincount(last, minlength=K)
    share = sizes[sizes > 0] / 12
    truth = contingency_matrix(last, dataset.classes)
    expected = dict(
        smallest_cluster=sizes.min(),
        largest_cluster=sizes.max(),
        empty_clusters=(sizes == 0).sum(),
        entropy=-(share * np.log(share)).sum() / np.log(K),
        nmi_to_last_labels=normalized_mutual_information(
            contingency_matrix(last, before)),
        nmi_to_classes=normalized_mutual_information(truth),
        purity=purity(truth))
    for name, value in expected.items():
        key = f'self_labels/{name}'
        assert runner.message_hub.get_scalar(key).current() == pytest.approx(
            value), name
        steps = [0, 1, 3, 4]
        assert list(scalars(tmp_path, key)) == (
            steps[1:] if 'last' in name else steps)
        assert scalars(tmp_path, key)[4] == pytest.approx(value), name
    for name in ('head_agreement', 'solver_iterations', 'column_error',
                 'prediction_seconds', 'solver_seconds'):
        found = scalars(tmp_path, f'self_labels/{name}')
        assert list(found) == [0, 1, 3, 4]
        assert all(np.isfinite(v) and v >= 0 for v in found.values()), name
    # Training logs them once per update, not at every line.
    assert scalars(tmp_path, 'head_agreement') == {}


@pytest.mark.parametrize('dataset', [
    ToyClips(12),
    LabeledClips(12, unknown=7),
    LabeledClips(12),
])
def test_figures_for_classes_only_if_all_are_known(tmp_path, dataset):
    runner = ready(toy_runner(tmp_path, dataset=dataset))
    find_hook(runner).update(runner)
    found = set(runner.message_hub.log_scalars)
    assert 'self_labels/entropy' in found
    known = dataset.__class__ is LabeledClips and None not in dataset.classes
    for name in ('nmi_to_classes', 'purity'):
        assert (f'self_labels/{name}' in found) == known


def test_classes_choose_nothing(tmp_path):
    found = []
    for name, dataset in (('a', ToyClips(12)), ('b', LabeledClips(12))):
        runner = ready(toy_runner(tmp_path / name, dataset=dataset))
        find_hook(runner).update(runner)
        found.append(runner.model.self_labels.tolist())
    assert found[0] == found[1]


def incomplete(dataset):
    """A labelling pass that never shows the last two of twelve clips."""
    return loader_cfg(
        dataset,
        5,
        sampler=dict(type='DefaultSampler', shuffle=False, round_up=False),
        drop_last=True)


def test_clips_without_label_are_ignored(tmp_path, monkeypatch):
    dataset = ToyClips(12)
    runner = toy_runner(
        tmp_path,
        dataset=dataset,
        hook=dict(dataloader=incomplete(dataset), num_updates=1))
    lines, seen = [], []
    monkeypatch.setattr(runner.logger, 'info', lines.append)
    head = runner.model.cluster_head
    loss = head.loss

    def recorded(visual, audio, labels):
        found = loss(visual, audio, labels)
        # As if the clips without a label were not there.
        expected = loss(visual[labels >= 0], audio[labels >= 0],
                        labels[labels >= 0])
        assert {k: v.item() for k, v in found.items()} == pytest.approx(
            {k: v.item() for k, v in expected.items()})
        seen.append((labels < 0).sum().item())
        return found

    head.loss = recorded
    runner.train()
    labels = runner.model.self_labels
    assert (labels[:10] >= 0).all() and (labels[10:] == -1).all()
    assert sum(seen) == 4  # two clips in each of two epochs
    assert any('10 clips' in x and '2 clips have no label' in x
               for x in lines)
    saved = torch.load(
        tmp_path / 'epoch_2.pth', weights_only=True)['self_labels']
    assert torch.equal(saved['labels'], labels)


def test_training_shows_what_the_pass_left_out(tmp_path):
    dataset = ToyClips(12)
    runner = toy_runner(
        tmp_path,
        dataset=dataset,
        hook=dict(
            dataloader=incomplete(dataset), num_updates=2, source='memory'))
    labels = []
    hook = find_hook(runner)
    hook.before_train_epoch = lambda r: labels.append(r.model.self_labels)
    hook.after_train_epoch = lambda r: labels.append(r.model.self_labels)
    runner.train()
    _, first, _, last = labels
    assert (first[10:] == -1).all()
    assert (last >= 0).all()


def test_a_clip_that_is_not_seen_keeps_its_label(tmp_path):
    runner = ready(toy_runner(tmp_path))
    hook = find_hook(runner)
    hook.update(runner)
    dataset = ToyClips(12)
    hook._pass.loader = runner.build_dataloader(incomplete(dataset))
    before = torch.arange(12) % K
    runner.model.self_labels = before
    hook.update(runner)
    assert torch.equal(runner.model.self_labels[10:], before[10:])
    assert not torch.equal(runner.model.self_labels, before)


# Resuming

SCHEDULE_WARNING = 'by the schedule of the new total'


def train_in_parts(tmp_path, parts, **kwargs):
    """Four epochs; in one go, or resumed from the middle of another run."""
    kwargs.setdefault('size', 13)
    if not parts:
        runner = toy_runner(tmp_path / 'whole', epochs=4, **kwargs)
    else:
        folder = tmp_path / 'part'
        folder.mkdir()
        shutil.copy(tmp_path / 'whole/epoch_2.pth', folder)
        # Other random numbers, to be sure.
        torch.rand(3)
        runner = toy_runner(
            folder,
            epochs=4,
            resume=True,
            load_from=str(folder / 'epoch_2.pth'),
            **kwargs)
        lines = []
        runner.logger.warning = lines.append
    updates = []
    hook = find_hook(runner)
    update = hook.update

    def recorded(runner):
        update(runner)
        updates.append((runner.iter, runner.model.self_labels.tolist()))

    hook.update = recorded
    runner.train()
    if parts:
        assert not any(SCHEDULE_WARNING in line for line in lines)
    return runner, updates


@pytest.mark.parametrize('source', ['pass', 'memory'])
def test_resumed_training_equals_an_uninterrupted_one(tmp_path, source):
    # Epochs begin at 0, 3, 6, 9. An update takes place at the very start of
    # the third, from which the run is resumed.
    hook = dict(source=source, num_updates=8, marginals=[0.5, 0.3, 0.2])
    kwargs = dict(dataset=LabeledClips(13), hook=hook)
    whole, updates = train_in_parts(tmp_path, False, **kwargs)
    part, later = train_in_parts(tmp_path, True, **kwargs)
    assert [i for i, _ in updates] == [0, 1, 3, 4, 6, 7, 9, 10]
    assert later == updates[4:]
    assert len({str(labels) for _, labels in updates}) > 2
    expected = scalars(tmp_path / 'whole')
    assert scalars(tmp_path / 'part') == {
        step: expected[step]
        for step in range(7, 13)
    }
    for name in ('nmi_to_classes', 'head_agreement'):
        key = f'self_labels/{name}'
        expected = scalars(tmp_path / 'whole', key)
        assert scalars(tmp_path / 'part', key) == {
            step: expected[step]
            for step in (6, 7, 9, 10)
        }
    for a, b in zip(whole.model.state_dict().values(),
                    part.model.state_dict().values()):
        assert torch.equal(a, b)
    a, b = (
        torch.load(tmp_path / name / 'epoch_4.pth', weights_only=True)
        ['self_labels'] for name in ('whole', 'part'))
    assert torch.equal(a['labels'], b['labels'])
    assert ('memory' in a) == (source == 'memory')
    for key, value in a.get('memory', {}).items():
        assert np.array_equal(value, b['memory'][key]), key


def test_a_memory_without_saved_rows_starts_with_a_pass(tmp_path, finished):
    runner = resumed(tmp_path / 'b', finished, hook=dict(source='memory'))
    calls = []
    hook = find_hook(runner)
    predict = hook._predict
    hook._predict = lambda runner, align: calls.append(
        (runner.iter, align)) or predict(runner, align)
    runner.train()
    assert calls == [(3, False)]
    saved = torch.load(tmp_path / 'b/epoch_2.pth', weights_only=True)
    assert (saved['self_labels']['memory']['stamps'] >= 2 * 3).all()


def test_another_total_is_a_warning(tmp_path, finished, monkeypatch):
    runner = resumed(tmp_path / 'b', finished, epochs=3)
    lines, seen = [], []
    monkeypatch.setattr(runner.logger, 'warning', lines.append)
    hook = find_hook(runner)
    hook.update = lambda runner: seen.append(runner.iter)
    runner.train()
    line, = (x for x in lines if SCHEDULE_WARNING in x)
    assert '9 iterations in all' in line and 'had 6 ' in line
    # Every 9 / 4 iterations, from the third on.
    assert seen == [4, 6]


def test_updates_stay_at_their_epochs(tmp_path):
    # Six iterations per epoch, then three, as with twice the processes.
    hook = dict(num_updates=4)
    toy_runner(tmp_path / 'a', epochs=1, batch_size=2, hook=hook).train()
    runner = resumed(
        tmp_path / 'b', tmp_path / 'a', epochs=4, batch_size=4, hook=hook)
    seen = []
    find_hook(runner).update = lambda runner: seen.append(
        (runner.epoch, runner.iter))
    runner.train()
    assert seen == [(1, 6), (2, 9), (3, 12)]


def test_iterations_count_without_epochs(tmp_path):
    runner = toy_runner(
        tmp_path,
        train_cfg=dict(by_epoch=False, max_iters=8),
        hook=dict(source='memory'))
    seen = []
    hook = find_hook(runner)
    update = hook.update
    hook.update = lambda runner: seen.append(runner.iter) or update(runner)
    runner.train()
    assert seen == [0, 2, 4, 6]


# Two processes


def train_without_norms(work_dir, launcher='none', source='pass', **kwargs):
    """Epochs of 12 of 13 clips, 6 at a time over all processes."""
    parts = 1 if launcher == 'none' else 2
    hook = dict(num_updates=3, source=source)
    hook.update(kwargs.pop('hook', {}))
    runner = toy_runner(
        work_dir,
        size=13,
        model=model_cfg(num_clusters=K, norm=False),
        batch_size=6 // parts,
        hook=hook,
        launcher=launcher,
        **kwargs)
    runner.train()
    model = runner.model.module if parts == 2 else runner.model
    return model.self_labels, model.state_dict()


@pytest.mark.parametrize('source', ['pass', 'memory'])
def test_training_on_two_processes_equals_one(gloo, tmp_path, source):
    # Without batch norm, whose statistics are those of a process. 13 clips:
    # the labelling pass is uneven.
    labels, state = train_without_norms(
        str(tmp_path / 'one'), source=source)
    assert labels.shape == (13, ) and set(labels.tolist()) == set(range(K))
    assert len(scalars(tmp_path / 'one', 'scale')) == 4
    results = gloo(train_without_norms, str(tmp_path / 'two'), 'pytorch',
                   source)
    for part_labels, part_state in results:
        assert torch.equal(part_labels, labels)
        for name, value in state.items():
            torch.testing.assert_close(
                part_state[name], value, rtol=1e-4, atol=1e-5, msg=name)
    for name in ('scale', 'self_labels/head_agreement',
                 'self_labels/nmi_to_last_labels'):
        expected = scalars(tmp_path / 'one', name)
        assert expected
        assert scalars(tmp_path / 'two', name) == pytest.approx(
            expected, rel=1e-5)


def test_memory_on_another_number_of_processes(gloo, tmp_path):
    whole = tmp_path / 'one'
    labels, _ = train_without_norms(str(whole), source='memory', epochs=4)
    shutil.copy(whole / 'epoch_2.pth', tmp_path)
    results = gloo(resumed_on_two, str(tmp_path / 'two'),
                   str(tmp_path / 'epoch_2.pth'))
    for part_labels, updates in results:
        assert torch.equal(part_labels, labels)
        assert updates == [5]
    two, one = (
        torch.load(path / 'epoch_4.pth', weights_only=True)
        for path in (tmp_path / 'two', whole))
    two, one = two['self_labels'], one['self_labels']
    assert two['memory']['world'] == 2
    assert set(two['memory']['ranks'].tolist()) == {0, 1}
    assert torch.equal(two['memory']['stamps'], one['memory']['stamps'])
    torch.testing.assert_close(two['memory']['log_probs'],
                               one['memory']['log_probs'])

    # Two processes equal themselves, to the bit.
    shutil.copy(tmp_path / 'two/epoch_3.pth', tmp_path)
    for part_labels, updates in gloo(resumed_on_two, str(tmp_path / 'again'),
                                     str(tmp_path / 'epoch_3.pth')):
        assert torch.equal(part_labels, labels)
        assert updates == []
    again, two = (
        torch.load(path / 'epoch_4.pth', weights_only=True)['self_labels']
        for path in (tmp_path / 'again', tmp_path / 'two'))
    for key, value in two['memory'].items():
        assert np.array_equal(value, again['memory'][key]), key
    assert scalars(tmp_path / 'again')[8] == scalars(tmp_path / 'two')[8]


def resumed_on_two(work_dir, path):
    """Labels at the end, and the iterations at which they were assigned."""
    updates = []
    update = SelfLabelHook.update
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            SelfLabelHook, 'update', lambda self, runner: updates.append(
                runner.iter) or update(self, runner))
        labels, _ = train_without_norms(
            work_dir,
            'pytorch',
            'memory',
            epochs=4,
            resume=True,
            load_from=path)
    return labels, updates


def first_labels(work_dir, launcher='none'):
    """A new run's first update, with fresh norms that see other clips."""
    runner = ready(twin_runner(work_dir, [2, 0, 1], launcher=launcher))
    hook = find_hook(runner)
    hook.update(runner)
    model = getattr(runner.model, 'module', runner.model)
    labels, agree = model.self_labels, heads_agree(model)
    state = copy.deepcopy(model.state_dict())
    # Now the heads agree on the clips of one cluster.
    with torch.no_grad():
        layer = model.cluster_head.audio_mlp[-1]
        layer.weight.copy_(layer.weight[[1, 0, 2]])
        layer.bias.copy_(layer.bias[[1, 0, 2]])
    hook.update(runner)
    agreement = runner.message_hub.get_scalar('self_labels/head_agreement')
    return labels, agree, state, agreement.current()


def test_first_labels_of_two_processes(gloo, tmp_path):
    labels, *_ = first_labels(str(tmp_path / 'one'))
    a, b = gloo(first_labels, str(tmp_path / 'two'), 'pytorch')
    # The clips that warm up the norms are others than in one process.
    assert (a[0] == labels).float().mean() > 0.9
    assert torch.equal(a[0], b[0])
    assert a[1] and b[1]
    # One rank has 22 clips, the other 21, the last one alone: 4 batches of 5
    # and what is left. Both take 4.
    assert a[2]['cluster_head.audio_mlp.1.num_batches_tracked'] == 4
    for name, value in a[2].items():
        assert torch.equal(b[2][name], value), name
    # A share of the clips of both.
    assert 0 < a[3] < 1
    assert a[3] == b[3] and a[3] * 43 == pytest.approx(round(a[3] * 43))


def align_apart(work_dir):
    """Align by 3 clips on rank 0 and 9 others on rank 1."""
    runner = ready(toy_runner(work_dir, launcher='pytorch'))
    lines = []
    runner.logger.info = lines.append
    if torch.distributed.get_rank() == 0:
        visual, audio = [0, 1, 2], [1, 0, 2]
    else:
        visual, audio = [0, 1, 2] * 3, [2, 0, 1] * 3
    onehot = torch.eye(K) * 10
    with torch.no_grad():
        order = find_hook(runner)._align(
            runner, [([], onehot[visual], onehot[audio])])
    return order.tolist(), lines


def test_alignment_counts_the_clips_of_all_ranks(gloo, tmp_path):
    for order, lines in gloo(align_apart, str(tmp_path)):
        assert order == [2, 0, 1]
        # 10 of 12, before 1 of 12.
        assert 'agree on 83.3% of the clips, before on 8.3%' in lines[0]


def labels_of_checkpoint(path, work_dir, launcher='none'):
    """Labels by the weights of a checkpoint, with batch norm."""
    torch.manual_seed(torch.distributed.get_rank() if launcher !=
                      'none' else 0)
    runner = toy_runner(
        work_dir,
        size=13,
        launcher=launcher,
        load_from=path)
    runner.load_or_resume()
    ready(runner)
    find_hook(runner).update(runner)
    model = runner.model.module if launcher != 'none' else runner.model
    return model.self_labels


def test_labels_of_two_processes_equal_one(gloo, tmp_path):
    toy_runner(tmp_path / 'a', size=13, epochs=1).train()
    path = str(tmp_path / 'a/epoch_1.pth')
    expected = labels_of_checkpoint(path, str(tmp_path / 'b'))
    assert set(expected.tolist()) == set(range(K))
    for labels in gloo(labels_of_checkpoint, path, str(tmp_path / 'c'),
                       'pytorch'):
        assert torch.equal(labels, expected)
