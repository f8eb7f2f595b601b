import numpy as np
import pytest
import torch

from avdet_mm.evaluation.metrics import ClusterMetric
from avdet_mm.structures import AudioVisualDataSample


def clip(visual, audio, label=None):
    sample = AudioVisualDataSample(
        metainfo={} if label is None else dict(gt_label=label)
    )
    sample.visual_logits = torch.tensor(visual)
    sample.audio_logits = torch.tensor(audio)
    return sample.to_dict()


CLIPS = [
    clip([9.0, 0, 0], [0, 4.0, 0], 0),
    clip([9.0, 0, 0], [4.0, 0, 0], 0),
    clip([0, 9.0, 0], [0, 4.0, 0], 1),
    clip([0, 9.0, 0], [4.0, 0, 0], 1),
    clip([0, 0, 9.0], [4.0, 0, 0]),
]


def test_all_figures_of_both_heads_and_together():
    metric = ClusterMetric()
    metric.dataset_meta = dict(classes=('bell', 'drum', 'cat'))
    metric.process({}, CLIPS)
    result = metric.evaluate(len(CLIPS))
    figures = ('nmi', 'ari', 'purity', 'hungarian_accuracy', 'entropy')
    assert set(result) == {'cluster/left_out'} | {
        f'cluster/{f}{s}' for f in figures for s in ('', '_visual', '_audio')
    }
    assert result['cluster/ari'] == result['cluster/ari_visual'] == 1
    assert result['cluster/nmi_audio'] == pytest.approx(0, abs=1e-12)
    # Two pairs together in each, none in both, of 6.
    assert result['cluster/ari_audio'] == pytest.approx(-2 / 4)
    assert result['cluster/purity_audio'] == 0.5
    assert result['cluster/hungarian_accuracy_visual'] == 1
    assert result['cluster/entropy_audio'] == pytest.approx(
        np.log(2) / np.log(3)
    )
    assert metric.details == dict(
        classes=['bell', 'drum', 'cat'],
        combined=dict(
            sizes=[2, 2, 0],
            contingency=[[2, 0, 0], [0, 2, 0], [0, 0, 0]],
        ),
        visual=dict(
            sizes=[2, 2, 0],
            contingency=[[2, 0, 0], [0, 2, 0], [0, 0, 0]],
        ),
        audio=dict(
            sizes=[2, 2, 0],
            contingency=[[1, 1, 0], [1, 1, 0], [0, 0, 0]],
        ),
    )
