"""Tests of k-means."""
import numpy as np
import torch

from avdet_mm.models.task_modules import kmeans as module
from avdet_mm.models.task_modules.kmeans import kmeans


def test_kmeans_finds_blobs():
    generator = np.random.default_rng(1)
    truth = generator.permutation(np.repeat(range(4), [5, 10, 40, 3]))
    centers = 10 * np.eye(4, 6)
    rows = torch.from_numpy(
        centers[truth] + generator.normal(0, 0.3, (58, 6))).float()
    labels = kmeans(rows, 4, np.random.default_rng(2))
    assert labels.dtype == torch.long
    pairs = set(zip(labels.tolist(), truth.tolist()))
    assert len(pairs) == 4 and {k for k, _ in pairs} == set(range(4))
    assert torch.equal(kmeans(rows, 4, np.random.default_rng(2)), labels)


def test_empty_clusters_get_the_farthest_rows(monkeypatch):
    # All in cluster 1, whose center is 0: rows 3 and then 2 are farthest.
    monkeypatch.setattr(
        module, 'kmeans2', lambda data, k, **kwargs:
        (np.zeros((k, 1)), np.ones(len(data), np.int32)))
    rows = torch.tensor([[1.], [2.], [3.], [-4.]])
    labels = kmeans(rows, 3, np.random.default_rng(0))
    assert labels.tolist() == [1, 1, 2, 0]
    # A row that is alone stays where it is.
    monkeypatch.setattr(
        module, 'kmeans2', lambda data, k, **kwargs:
        (np.zeros((k, 1)), np.array([1, 1, 1, 0], np.int32)))
    assert kmeans(rows, 3, np.random.default_rng(0)).tolist() == [1, 1, 2, 0]


def test_kmeans_of_equal_rows():
    labels = kmeans(torch.ones(5, 2), 3, np.random.default_rng(0))
    assert sorted(set(labels.tolist())) == [0, 1, 2]
