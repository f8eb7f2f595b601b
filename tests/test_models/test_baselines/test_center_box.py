import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.evaluator import Evaluator

from avdet_mm.evaluation.metrics import MatchedCocoMetric
from avdet_mm.models.baselines import CenterBox
from avdet_mm.registry import MODELS
from avdet_mm.structures import AudioVisualDataSample


def batch(*sizes):
    return pseudo_collate(
        [
            dict(
                inputs=dict(
                    frame=torch.zeros(3, 8, 8, dtype=torch.uint8),
                    audio=torch.zeros(100),
                ),
                data_samples=AudioVisualDataSample(
                    metainfo=dict(ori_shape=size)
                ),
            )
            for size in sizes
        ]
    )


def test_boxes():
    model = MODELS.build(dict(type='avdet_mm.CenterBox', side=0.5))
    assert not list(model.parameters())
    results = model.test_step(batch((100, 200), (40, 40)))
    assert isinstance(results[0], AudioVisualDataSample)
    pred = results[0].pred_instances
    assert pred.bboxes.tolist() == [[50, 25, 150, 75]]
    assert pred.scores.tolist() == [1] and pred.labels.tolist() == [0]
    assert results[1].pred_instances.bboxes.tolist() == [[10, 10, 30, 30]]
    data = batch((100, 200), (40, 40))
    boxes = model(**data, mode='tensor')
    assert boxes.tolist() == [[50, 25, 150, 75], [10, 10, 30, 30]]
    evaluator = Evaluator([MatchedCocoMetric(class_aware=False)])
    results[0].gt_instances = results[0].pred_instances
    evaluator.process(results[:1])
    assert evaluator.evaluate(1)['coco/agnostic_AP'] == pytest.approx(1)


def test_errors():
    with pytest.raises(ValueError, match='share of the frame'):
        CenterBox(side=0)
    model = CenterBox()
    data = batch((10, 10))
    with pytest.raises(RuntimeError, match='nothing to train'):
        model(**data, mode='loss')
    with pytest.raises(ValueError, match='unknown'):
        model(**data, mode='train')
    with pytest.raises(ValueError, match='ori_shape'):
        model(data['inputs'], mode='predict')
