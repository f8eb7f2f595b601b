import itertools

import numpy as np
import pytest

from avdet_mm.evaluation.functional import (
    adjusted_rand_index,
    cluster_entropy,
    cluster_sizes,
    contingency_matrix,
    hungarian_accuracy,
    normalized_mutual_information,
    purity,
)


def test_contingency():
    table = contingency_matrix([0, 0, 2], [1, 1, 0], num_clusters=4)
    assert table.tolist() == [[0, 2], [0, 0], [1, 0], [0, 0]]
    assert contingency_matrix([], [], 2, 3).tolist() == [[0] * 3] * 2
    with pytest.raises(ValueError, match='one of each'):
        contingency_matrix([0], [0, 1])
    with pytest.raises(ValueError, match='does not fit'):
        contingency_matrix([5], [0], num_clusters=3)
    with pytest.raises(ValueError, match='negative'):
        contingency_matrix([-1], [0])
    with pytest.raises(ValueError, match='integers'):
        contingency_matrix([0.5], [0])


def test_nmi_closed_form():
    nmi = normalized_mutual_information
    assert nmi(np.diag([3, 4, 5])) == pytest.approx(1)
    assert nmi(np.diag([3, 4, 5])[[2, 0, 1]]) == pytest.approx(1)
    assert nmi(np.full((3, 4), 2)) == pytest.approx(0, abs=1e-12)
    # One constant labeling, two constant labelings, none at all.
    assert nmi(np.array([[2, 3]])) == 0
    assert nmi(np.array([[5]])) == 1
    assert np.isnan(nmi(np.zeros((2, 2), int)))
    # Two classes split evenly over four clusters: I = log 2, H(K) = log 4.
    table = np.array([[5, 0], [5, 0], [0, 5], [0, 5]])
    assert nmi(table) == pytest.approx(2 * np.log(2) / np.log(8))


def test_nmi_direct():
    rng = np.random.default_rng(0)
    table = rng.integers(0, 9, (5, 7)).astype(float)
    joint = table / table.sum()
    pk, pc = joint.sum(1, keepdims=True), joint.sum(0, keepdims=True)
    mutual = sum(
        p * np.log(p / (a * b))
        for p, a, b in zip(
            joint.ravel(), np.repeat(pk, 7), np.tile(pc.ravel(), 5)
        )
        if p
    )
    mean = (-(pk * np.log(pk)).sum() - (pc * np.log(pc)).sum()) / 2
    assert normalized_mutual_information(table) == pytest.approx(mutual / mean)


def test_ari_closed_form():
    ari = adjusted_rand_index
    assert ari(np.diag([3, 4, 5])) == pytest.approx(1)
    assert ari(np.array([[2, 3]])) == 0
    assert ari(np.array([[5]])) == ari(np.array([[1]])) == ari(np.eye(3)) == 1
    assert np.isnan(ari(np.zeros((2, 2), int)))
    # Pairs together in both 2, in clusters 4, in classes 6, of 15.
    table = np.array([[2, 1], [0, 2], [1, 0]])
    assert ari(table) == pytest.approx((2 - 1.6) / (5 - 1.6))


def test_ari_counts_pairs():
    rng = np.random.default_rng(2)
    clusters, classes = rng.integers(0, 4, 40), rng.integers(0, 3, 40)
    same = [
        (clusters[i] == clusters[j], classes[i] == classes[j])
        for i, j in itertools.combinations(range(40), 2)
    ]
    both = sum(a and b for a, b in same)
    a, b = (sum(pair[i] for pair in same) for i in (0, 1))
    chance = a * b / len(same)
    assert adjusted_rand_index(
        contingency_matrix(clusters, classes)
    ) == pytest.approx((both - chance) / ((a + b) / 2 - chance))
    # Chance level: 0 on average.
    shuffled = [
        adjusted_rand_index(
            contingency_matrix(clusters, rng.permutation(classes))
        )
        for _ in range(300)
    ]
    assert abs(np.mean(shuffled)) < 0.01


def test_purity():
    assert purity(np.array([[3, 1], [0, 4], [0, 0]])) == 7 / 8
    assert np.isnan(purity(np.zeros((2, 2), int)))


@pytest.mark.parametrize('shape', [(4, 4), (5, 3), (3, 5), (1, 4)])
def test_hungarian_brute_force(shape):
    table = np.random.default_rng(sum(shape)).integers(0, 20, shape)
    wide = table if shape[0] <= shape[1] else table.T
    best = max(
        sum(wide[i, j] for i, j in enumerate(columns))
        for columns in itertools.permutations(
            range(wide.shape[1]), wide.shape[0]
        )
    )
    assert hungarian_accuracy(table) == pytest.approx(best / table.sum())


def test_sizes_and_entropy():
    assert cluster_sizes([0, 2, 2], 4).tolist() == [1, 0, 2, 0]
    assert cluster_entropy([0, 1, 2, 3], 4) == pytest.approx(1)
    assert cluster_entropy([1, 1, 1], 4) == pytest.approx(0)
    assert cluster_entropy([0, 0, 1, 1], 4) == pytest.approx(0.5)
    assert np.isnan(cluster_entropy([], 4))
