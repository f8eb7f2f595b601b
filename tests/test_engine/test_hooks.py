"""Tests of the smaller hooks."""
import json
import logging
import math
import pickle
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.logging import MessageHub
from mmengine.registry import HOOKS

from avdet_mm.engine.hooks import (
    AnnealedPoolingHook,
    ConfidenceCurriculumHook,
    EpochSeedHook,
    LogMelStatsHook,
    PlateauHook,
)
from avdet_mm.models.data_preprocessors import AudioVisualDataPreprocessor
from tests.toy import ToyClips, loader_cfg, make_runner, model_cfg, scalars


def test_hooks_are_registered():
    for name in ('AnnealedPoolingHook', 'ConfidenceCurriculumHook',
                 'EpochSeedHook', 'LogMelStatsHook', 'PlateauHook',
                 'PseudoLabelHook', 'SelfLabelHook'):
        assert HOOKS.get(f'avdet_mm.{name}').__name__ == name


# AnnealedPoolingHook


def pooling_at(hook, iteration, iters_per_epoch=10):
    chosen = ['untouched']
    runner = SimpleNamespace(
        iter=iteration,
        train_dataloader=range(iters_per_epoch),
        model=SimpleNamespace(
            localization_head=SimpleNamespace(set_pooling=chosen.append)))
    hook.before_train_iter(runner, 0)
    return chosen[-1]


def test_share_shrinks_geometrically():
    hook = AnnealedPoolingHook(begin=1, end_epoch=3, start=0.5, end=0.02)
    assert pooling_at(hook, 0) == 'untouched'
    assert pooling_at(hook, 9) == 'untouched'
    assert pooling_at(hook, 10) == pytest.approx(0.5)
    # Halfway: the geometric mean.
    assert pooling_at(hook, 20) == pytest.approx(0.1)
    assert pooling_at(hook, 15) == pytest.approx(0.5 * 25**-0.25)
    last = pooling_at(hook, 29)
    assert last == pytest.approx(0.5 * 25**-0.95)
    assert last > 0.02
    assert pooling_at(hook, 30) == 'max'
    assert pooling_at(hook, 1000) == 'max'
    shared = AnnealedPoolingHook(1, 3, start=0.5, end=0.02, final=0.1)
    assert pooling_at(shared, 29) == last
    assert pooling_at(shared, 30) == pooling_at(shared, 1000) == 0.1
    # Whatever came before: resuming changes nothing.
    assert pooling_at(hook, 20) == pytest.approx(0.1)


def test_annealing_in_a_training(tmp_path):
    cfg = model_cfg()
    cfg['localization_head']['pooling'] = 'mean'
    runner = make_runner(
        tmp_path,
        cfg,
        ToyClips(8), [
            dict(
                type='avdet_mm.AnnealedPoolingHook',
                begin=1,
                end_epoch=2,
                start=0.5,
                end=0.125)
        ],
        epochs=3)
    seen = []
    loss = runner.model.localization_head.loss

    def probe(*args):
        seen.append(runner.model.localization_head.pooling)
        return loss(*args)

    runner.model.localization_head.loss = probe
    runner.train()
    assert seen == [
        'mean', 'mean',
        pytest.approx(0.5),
        pytest.approx(0.25), 'max', 'max'
    ]


def test_annealing_begins_when_pairs_are_found(tmp_path):
    hook = dict(
        type='avdet_mm.AnnealedPoolingHook', begin=1, end_epoch=2, start=0.5,
        end=0.125, retrieval=2.)

    def train(epochs, found, **kwargs):
        """Poolings of the iterations; ``found`` is of each."""
        cfg = model_cfg()
        cfg['localization_head']['pooling'] = 'mean'
        runner = make_runner(tmp_path, cfg, ToyClips(8), [hook],
                             epochs=epochs, **kwargs)
        seen, found = [], iter(found)
        head = runner.model.localization_head
        loss = head.loss

        def probe(*args):
            seen.append(head.pooling)
            return dict(loss(*args), retrieval=torch.tensor(next(found)))

        head.loss = probe
        runner.train()
        return seen

    # Guessing finds a quarter. The first epoch does not count; 0.5 is the
    # mean over the first three iterations.
    seen = train(2, [0.3, 0.3, 0.9, 0.])
    assert seen == ['mean', 'mean', 'mean', pytest.approx(0.5)]
    # Once begun, it goes on, here after an interruption.
    seen = train(4, [0.] * 4, resume=True)
    assert seen == [pytest.approx(0.25), 'max', 'max', 'max']


def test_wrong_criterion():
    with pytest.raises(ValueError, match='a multiple of guessing'):
        AnnealedPoolingHook(0, 1, retrieval=1.)


# ConfidenceCurriculumHook


def test_confident_pairs_first(tmp_path):
    runner = make_runner(
        tmp_path,
        model_cfg(),
        ToyClips(8), [
            dict(
                type='avdet_mm.ConfidenceCurriculumHook',
                end_epoch=2,
                start=0.25,
                end=0.75)
        ],
        epochs=3)
    module = runner.model.localization_head.loss_module
    assert module.share == 1
    seen, forward = [], module.forward

    def probe(scores):
        seen.append(module.share)
        return forward(scores)

    module.forward = probe
    runner.train()
    assert seen == [0.25, 0.375, 0.5, 0.625, 0.75, 0.75]


@pytest.mark.parametrize('kwargs', [
    dict(end_epoch=0),
    dict(end_epoch=1, start=0.),
    dict(end_epoch=1, start=0.6, end=0.5),
    dict(end_epoch=1, end=1.1),
])
def test_wrong_curriculum(kwargs):
    with pytest.raises(ValueError, match='start <= end <= 1'):
        ConfidenceCurriculumHook(**kwargs)


@pytest.mark.parametrize('kwargs', [
    dict(begin=2, end_epoch=2),
    dict(begin=-1, end_epoch=2),
    dict(begin=0, end_epoch=2, start=0.1, end=0.5),
    dict(begin=0, end_epoch=2, start=1.),
    dict(begin=0, end_epoch=2, end=0.),
])
def test_bad_annealing(kwargs):
    with pytest.raises(ValueError, match='AnnealedPoolingHook'):
        AnnealedPoolingHook(**kwargs)


# LogMelStatsHook


def stats_of(preprocessor, dataset, indices):
    values = np.concatenate([
        preprocessor.log_mel(dataset[i]['inputs']['audio'][None]).numpy().
        ravel() for i in indices
    ]).astype(np.float64)
    return values.mean(), values.std(ddof=1)


def fresh_model_cfg():
    cfg = model_cfg()
    for key in ('audio_mean', 'audio_std'):
        cfg['data_preprocessor'].pop(key)
    return cfg


@pytest.mark.parametrize('num_clips, indices', [(256, range(8)),
                                                (8, range(8)), (4, range(
                                                    0, 8, 2)), (1, [0])])
def test_statistics_are_measured(tmp_path, num_clips, indices):
    runner = make_runner(
        tmp_path, fresh_model_cfg(), ToyClips(8),
        [dict(type='avdet_mm.LogMelStatsHook', num_clips=num_clips)])
    preprocessor = runner.model.data_preprocessor
    assert preprocessor.audio_std == 0
    runner.call_hook('before_train')
    mean, std = stats_of(preprocessor, ToyClips(8), indices)
    assert preprocessor.audio_mean.item() == pytest.approx(mean, rel=1e-4)
    assert preprocessor.audio_std.item() == pytest.approx(std, rel=1e-3)


def test_statistics_travel_and_are_measured_once(tmp_path):
    hooks = [dict(type='avdet_mm.LogMelStatsHook')]
    first = make_runner(
        tmp_path / 'a', fresh_model_cfg(), ToyClips(8), hooks, epochs=1)
    first.train()
    expected = first.model.data_preprocessor.audio_mean.clone()
    second = make_runner(
        tmp_path / 'b',
        fresh_model_cfg(),
        ToyClips(4),  # softer clips
        hooks,
        epochs=1,
        load_from=str(tmp_path / 'a/epoch_1.pth'))
    second.train()
    assert second.model.data_preprocessor.audio_mean == expected


def test_deviation_of_silence():
    dataset = ToyClips(4)
    dataset.audio.zero_()
    preprocessor = AudioVisualDataPreprocessor(n_mels=4)
    runner = SimpleNamespace(
        model=SimpleNamespace(data_preprocessor=preprocessor),
        train_dataloader=SimpleNamespace(dataset=dataset),
        logger=logging.getLogger('test'))
    LogMelStatsHook().before_train(runner)
    assert preprocessor.audio_mean.item() == pytest.approx(math.log(1e-6))
    assert preprocessor.audio_std.item() == pytest.approx(1e-3)


# PlateauHook


def warnings_of(retrieval, batch_size, iterations, **kwargs):
    """Iterations after which the hook warns, of constant figures."""
    warned = []
    hub = MessageHub.get_instance(f'plateau_{random.random()}')
    runner = SimpleNamespace(
        iter=0,
        message_hub=hub,
        logger=SimpleNamespace(
            warning=lambda message: warned.append((runner.iter, message))))
    hook = PlateauHook(**kwargs)
    for runner.iter in range(iterations):
        hub.update_scalar('train/retrieval', retrieval)
        hub.update_scalar('train/loc_chance', math.log(batch_size))
        hub.update_scalar('train/loss_loc', math.log(batch_size))
        hook.after_train_iter(runner, 0)
    return warned


def test_guessing_is_a_plateau():
    warned = warnings_of(1 / 32, 32, 60, patience=25)
    assert [i for i, _ in warned] == [24, 49]
    assert 'temperature' in warned[0][1] and '0.031' in warned[0][1]


def test_learning_is_no_plateau():
    assert warnings_of(0.9, 32, 60, patience=25) == []


def test_no_warning_before_its_time():
    assert warnings_of(1 / 32, 32, 24, patience=25) == []


def test_plateau_in_a_training(tmp_path):
    # Equal clips: nothing can be told apart.
    dataset = ToyClips(8)
    dataset.frames[:] = dataset.frames[0].clone()
    dataset.audio[:] = dataset.audio[0].clone()
    runner = make_runner(
        tmp_path,
        model_cfg(),
        dataset, [dict(type='avdet_mm.PlateauHook', patience=4)],
        epochs=2)
    warned = []
    runner.logger.warning = lambda message, *a: warned.append(message)
    runner.train()
    assert sum('plateau' in m for m in warned) == 1
    chance = list(scalars(tmp_path, 'loc_chance').values())
    assert chance == pytest.approx([math.log(4)] * 4, abs=1e-4)


# EpochSeedHook


def draws(seed, epoch, noise):
    """What is drawn after the hook, whatever was drawn before it."""
    random.seed(noise)
    np.random.seed(noise)
    torch.manual_seed(noise)
    EpochSeedHook().before_train_epoch(
        SimpleNamespace(seed=seed, epoch=epoch))
    return random.random(), np.random.rand(), torch.rand(1).item()


@pytest.mark.parametrize('persistent', [False, True])
def test_persistent_workers_are_warned_of(persistent):
    warnings = []
    EpochSeedHook().before_train(
        SimpleNamespace(
            train_dataloader=SimpleNamespace(persistent_workers=persistent),
            logger=SimpleNamespace(warning=warnings.append)))
    assert len(warnings) == persistent
    assert all('persistent_workers=False' in text for text in warnings)


def test_random_numbers_depend_on_the_epoch_alone():
    first = draws(0, 3, noise=1)
    assert draws(0, 3, noise=2) == first
    others = [draws(0, 4, 1), draws(1, 3, 1), draws(3, 0, 1)]
    for other in others:
        assert all(a != b for a, b in zip(first, other))


def test_random_numbers_differ_between_ranks(monkeypatch):
    first = draws(0, 3, noise=1)
    monkeypatch.setattr('avdet_mm.engine.hooks.epoch_seed_hook.get_rank',
                        lambda: 1)
    assert all(a != b for a, b in zip(first, draws(0, 3, noise=1)))


# PseudoLabelHook


def test_pseudo_labels_after_training(tmp_path):
    clips = ToyClips(5)
    out, dump = tmp_path / 'labels.json', tmp_path / 'dump.pkl'
    runner = make_runner(
        tmp_path,
        model_cfg(),
        ToyClips(8), [
            dict(
                type='avdet_mm.PseudoLabelHook',
                dataloader=loader_cfg(clips, 2),
                out_file=str(out),
                dump_file=str(dump))
        ],
        epochs=1)
    after = []
    runner.hooks[0].before_train = lambda runner: after.append(out.exists())
    runner.train()
    assert after == [False]
    coco = json.loads(out.read_text())
    assert [x['clip_id'] for x in coco['images']] == clips.clip_ids
    with open(dump, 'rb') as file:
        samples = pickle.load(file)
    # By the trained weights, which are those of the checkpoint.
    state = torch.load(tmp_path / 'epoch_1.pth', weights_only=True)
    runner.model.load_state_dict(state['state_dict'])
    runner.model.eval()
    batch = runner.model.data_preprocessor(pseudo_collate([clips[3]]))
    expected, = runner.model(**batch, mode='predict')
    torch.testing.assert_close(samples[3]['heatmap'], expected.heatmap)
    assert coco['info']['label_source'] == 'cluster'
    assert coco['info']['iterations'] == 2
    assert coco['info']['config'] == runner.experiment_name


class LabeledClips(ToyClips):
    """Clips 0, 2 and 3 have classes."""

    metainfo = dict(classes=['playing harp', 'tapping guitar'])

    def __getitem__(self, i):
        data = super().__getitem__(i)
        if i in (0, 2, 3):
            data['data_samples'].set_metainfo(dict(gt_label=i % 2))
        return data


def test_pseudo_labels_with_classes(tmp_path):
    out = tmp_path / 'labels.json'
    make_runner(
        tmp_path,
        model_cfg(),
        ToyClips(8), [
            dict(
                type='avdet_mm.PseudoLabelHook',
                dataloader=loader_cfg(LabeledClips(5), 2),
                out_file=str(out),
                label_source='ground_truth',
                label_map='vggsound_groups')
        ],
        epochs=1).train()
    coco = json.loads(out.read_text())
    assert [x['clip_id'] for x in coco['images']
            ] == ['clip_000', 'clip_002', 'clip_003']
    names = [c['name'] for c in coco['categories']]
    assert [names[a['category_id']] for a in coco['annotations']
            ] == ['Harp', 'Harp', 'Guitar']
