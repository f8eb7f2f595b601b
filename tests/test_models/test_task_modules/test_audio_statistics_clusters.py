"""Tests of first labels from statistics of the sounds."""
import numpy as np
import pytest
import torch
from mmengine.dist import get_rank

from avdet_mm.models.task_modules import (
    AudioStatisticsClusters,
    SinkhornKnopp,
)
from avdet_mm.models.task_modules.kmeans import kmeans


def blobs(sizes=(20, 20, 20, 20), seed=0):
    generator = np.random.default_rng(seed)
    truth = generator.permutation(np.repeat(range(len(sizes)), sizes))
    rows = 5 * np.eye(len(sizes), 12)[truth]
    rows += generator.normal(0, 0.3, rows.shape)
    return torch.from_numpy(rows).float(), truth


def cluster(features, clusters=4, index=None, num_clips=None, **kwargs):
    index = torch.arange(len(features)) if index is None else index
    return AudioStatisticsClusters(**kwargs)(
        index, features, num_clips or len(features), clusters,
        SinkhornKnopp(), np.random.default_rng(0))


def test_features_by_hand():
    log_mel = torch.tensor([[[[0., 1., 2., 3., 4.], [5., 5., 5., 5., 10.]]]])
    found = AudioStatisticsClusters(percentiles=(50, 100)).features(log_mel)
    # Percentile by percentile: 2, 5, then 4, 10; their mean is 5.25.
    assert found.tolist() == [[2 - 5.25, 5 - 5.25, 4 - 5.25, 10 - 5.25]]


def test_loudness_and_order_in_time_do_not_matter():
    clusters = AudioStatisticsClusters()
    log_mel = torch.randn(3, 1, 8, 20)
    expected = clusters.features(log_mel)
    assert expected.shape == (3, 32)
    torch.testing.assert_close(
        clusters.features(log_mel[..., torch.randperm(20)] + 3.), expected)


@pytest.mark.parametrize('kwargs', [
    {},
    dict(num_components=3),
    dict(max_fit=30),
])
def test_finds_blobs(kwargs):
    rows, truth = blobs()
    result = cluster(rows, **kwargs)
    pairs = set(zip(result.labels.tolist(), truth.tolist()))
    assert len(pairs) == 4
    assert torch.equal(cluster(rows, **kwargs).labels, result.labels)


def test_sizes_are_those_of_the_solver():
    rows, _ = blobs((30, 30, 6))
    alone = kmeans(rows, 3, np.random.default_rng(0)).bincount()
    assert sorted(alone.tolist()) == [6, 30, 30]
    # Nearly 22 each: labels are the largest entries of soft assignments.
    assert cluster(rows, 3).labels.bincount(minlength=3).min() >= 18


def test_equal_rows_are_no_error():
    result = cluster(torch.ones(6, 5), 2)
    assert len(result.labels) == 6


def of_a_rank():
    # As a data loader's sampler shares the clips out, unevenly.
    rows, _ = blobs((20, 20, 20, 21))
    index = torch.arange(get_rank(), len(rows), 2)
    found = torch.full((len(rows), ), -1)
    found[index] = cluster(rows[index], 4, index, len(rows), max_fit=50).labels
    return found


def test_two_ranks_cluster_as_one_process(gloo):
    rows, _ = blobs((20, 20, 20, 21))
    expected = cluster(rows, 4, max_fit=50).labels
    one, two = gloo(of_a_rank)
    assert torch.equal(torch.maximum(one, two), expected)
    assert (one[1::2] == -1).all() and (two[::2] == -1).all()


@pytest.mark.parametrize('kwargs, message', [
    (dict(percentiles=()), 'percentiles'),
    (dict(percentiles=(0, 50)), 'percentiles'),
    (dict(num_components=0), 'positive'),
    (dict(rounds=0), 'positive'),
    (dict(max_fit=0), 'positive'),
])
def test_arguments_are_checked(kwargs, message):
    with pytest.raises(ValueError, match=message):
        AudioStatisticsClusters(**kwargs)
