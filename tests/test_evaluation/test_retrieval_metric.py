"""Tests of cross-modal retrieval."""

import numpy as np
import pytest
import torch

from avdet_mm.evaluation.metrics import RetrievalMetric
from avdet_mm.evaluation.metrics.retrieval_metric import retrieval_ranks


def test_ranks_by_hand():
    scores = np.array([[0.5, 0.1, 0.2], [0.3, 0.2, 0.9], [0.4, 0.4, 0.4]])
    # Best; last but for none; tied with both others.
    assert retrieval_ranks(scores).tolist() == [1, 3, 2]


def sample(index, visual, audio, label=None):
    data = dict(
        sample_idx=index,
        visual_embedding=torch.tensor(visual)[:, None, :],
        audio_embedding=torch.tensor(audio),
    )
    return data if label is None else dict(data, gt_label=label)


def evaluate(samples, **kwargs):
    metric = RetrievalMetric(**kwargs)
    metric.process({}, samples)
    return metric.evaluate(len(samples))


# Frames of two locations: where the object is, and something else.
SAMPLES = [
    sample(0, [[1.0, 0.0], [0.0, 0.0]], [1.0, 0.0], 0),
    sample(1, [[0.9, 0.0], [0.0, 0.5]], [0.8, 0.1], 0),
    sample(2, [[0.0, 0.3], [1.0, 0.0]], [0.0, 1.0], 1),
]


def test_by_hand():
    # Maxima: frame 0: 1, .8, 0; frame 1: .9, .72, .5; frame 2: .3, .24, 1.
    found = evaluate(SAMPLES)
    assert found == {
        'retrieval/v2a_r1': pytest.approx(2 / 3),
        'retrieval/v2a_r10': 1,
        'retrieval/v2a_median_rank': 1,
        # The only clip of class 1 has no other one of its class.
        'retrieval/v2a_class1': pytest.approx(2 / 3),
        'retrieval/a2v_r1': pytest.approx(2 / 3),
        'retrieval/a2v_r10': 1,
        'retrieval/a2v_median_rank': 1,
        'retrieval/a2v_class1': pytest.approx(2 / 3),
    }


def test_pooling_is_that_of_the_training():
    # Means: frame 1 scores .45 with sound 0 and .25 with sound 2.
    samples = [SAMPLES[1], SAMPLES[2]]
    assert evaluate(samples, pooling='mean')['retrieval/v2a_r1'] == 1
    samples = [
        sample(0, [[1.0, -1.0], [0.0, 0.0]], [1.0, 0.0]),
        sample(1, [[0.0, 0.0], [0.5, 0.5]], [0.0, 1.0]),
    ]
    assert evaluate(samples)['retrieval/v2a_r1'] == 1
    assert evaluate(samples, pooling='mean')['retrieval/v2a_r1'] == 0.5


def test_without_classes():
    found = evaluate([sample(0, [[1.0]], [1.0]), sample(1, [[0.5]], [0.5])])
    assert not any('class' in name for name in found)


def test_later_clips_are_left_out():
    assert evaluate(SAMPLES, max_clips=2) == evaluate(SAMPLES[:2])


def test_embeddings_are_needed():
    with pytest.raises(KeyError, match='keep_embeddings=True'):
        RetrievalMetric().process({}, [dict(sample_idx=0)])
    with pytest.raises(ValueError, match='at least 2'):
        RetrievalMetric(max_clips=1)
