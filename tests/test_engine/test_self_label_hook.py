"""Tests of the self-labels during training."""
import shutil

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from torch.nn.modules.batchnorm import _BatchNorm

from avdet_mm.engine.hooks import SelfLabelHook
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
            solver=dict(type='avdet_mm.SinkhornKnopp', tolerance=1e-8)),
        **kwargs)


def toy_runner(work_dir, size=12, epochs=2, hook=None, **kwargs):
    dataset = ToyClips(size)
    return make_runner(
        work_dir,
        kwargs.pop('model', model_cfg(num_clusters=K)),
        dataset, [hook_cfg(dataset, **(hook or {}))],
        epochs=epochs,
        **kwargs)


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
        # Only fresh batch norms are warmed up, once.
        assert bool(changed) == (runner.iter == 0)
        assert all('running_' in k or 'num_batches' in k for k in changed)
        seen.append(runner.iter)

    monkeypatch.setattr(SelfLabelHook, 'update', recorded)
    runner = toy_runner(tmp_path, epochs=3, hook=dict(num_updates=5))
    runner.train()
    assert runner.iter == 9
    assert seen == [0, 1, 3, 5, 7]
    assert runner.model.self_labels.shape == (12, )
    nmi = scalars(tmp_path, 'nmi_to_last_labels')
    assert nmi and all(0 <= v <= 1 for v in nmi.values())


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
    logged = runner.message_hub.get_scalar('train/head_agreement').current()
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
    runner.call_hook('before_train')
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


def test_resume_with_another_clip_table(tmp_path):
    toy_runner(tmp_path / 'a', epochs=1).train()
    other = ToyClips(12, prefix='other')
    (tmp_path / 'b').mkdir()
    runner = make_runner(
        tmp_path / 'b',
        model_cfg(num_clusters=K),
        other, [hook_cfg(other)],
        resume=True,
        load_from=str(tmp_path / 'a/epoch_1.pth'))
    with pytest.raises(ValueError, match='clip table'):
        runner.train()


def test_resume_without_labels(tmp_path):
    dataset = ToyClips(12)
    make_runner(tmp_path / 'a', model_cfg(), dataset, epochs=1).train()
    with pytest.raises(ValueError, match='no self-labels'):
        resumed(tmp_path / 'b', tmp_path / 'a').train()


def test_load_from_starts_with_new_labels(tmp_path):
    toy_runner(tmp_path / 'a', epochs=1).train()
    other = ToyClips(9, prefix='other')
    runner = make_runner(
        tmp_path / 'b',
        model_cfg(num_clusters=K),
        other, [hook_cfg(other)],
        epochs=1,
        load_from=str(tmp_path / 'a/epoch_1.pth'))
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


@pytest.mark.parametrize('kwargs', [
    dict(num_updates=0),
    dict(power=0),
    dict(power=-1.),
])
def test_bad_arguments(kwargs):
    with pytest.raises(ValueError, match='num_updates'):
        SelfLabelHook({}, **kwargs)


def test_diverged_training(tmp_path):
    runner = toy_runner(tmp_path)
    runner.call_hook('before_train')
    hook = find_hook(runner)
    hook.update(runner)
    runner.model.cluster_head.audio_mlp[-1].bias.data[0] = float('nan')
    with pytest.raises(ValueError, match='not finite'):
        hook.update(runner)


# Two processes


def train_without_norms(work_dir, launcher='none'):
    """Two epochs of 12 clips, 6 at a time over all processes."""
    parts = 1 if launcher == 'none' else 2
    dataset = ToyClips(13)
    runner = toy_runner(
        work_dir,
        size=13,
        model=model_cfg(num_clusters=K, norm=False),
        batch_size=6 // parts,
        hook=dict(num_updates=3),
        launcher=launcher)
    assert len(dataset) == 13
    runner.train()
    model = runner.model.module if parts == 2 else runner.model
    return model.self_labels, model.state_dict()


def test_training_on_two_processes_equals_one(gloo, tmp_path):
    # Without batch norm, whose statistics are those of a process. 13 clips:
    # the labelling pass is uneven.
    labels, state = train_without_norms(str(tmp_path / 'one'))
    assert len(labels.unique()) > 1
    assert len(scalars(tmp_path / 'one', 'scale')) == 4
    results = gloo(train_without_norms, str(tmp_path / 'two'), 'pytorch')
    for part_labels, part_state in results:
        assert torch.equal(part_labels, labels)
        for name, value in state.items():
            torch.testing.assert_close(
                part_state[name], value, rtol=1e-4, atol=1e-5, msg=name)
    assert scalars(tmp_path / 'two', 'scale') == pytest.approx(
        scalars(tmp_path / 'one', 'scale'), rel=1e-5)


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
    runner.call_hook('before_train')
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
