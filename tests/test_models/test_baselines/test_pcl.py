from math import log

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import nn

from avdet_mm.models.baselines import PCLRoIHead
from avdet_mm.models.baselines.pcl import (
    assign_proposals,
    mil_loss,
    oicr_centers,
    oicr_loss,
    pcl_centers,
    pcl_loss,
    top_scores,
)
from avdet_mm.registry import MODELS

EXTRACTOR = dict(
    type='mmdet.SingleRoIExtractor',
    roi_layer=dict(type='RoIAlign', output_size=2, sampling_ratio=1),
    out_channels=32,
    featmap_strides=[8],
)
TEST_CFG = dict(
    score_thr=0.0, nms=dict(type='nms', iou_threshold=0.3), max_per_img=100
)


def head(num_classes=2, **kwargs):
    torch.manual_seed(0)
    return PCLRoIHead(
        num_classes,
        in_channels=32,
        bbox_roi_extractor=EXTRACTOR,
        fc_channels=8,
        test_cfg=TEST_CFG,
        **kwargs,
    )


def image_losses(module, mil, refine, boxes, present, **out):
    """Losses of outputs that are given as probabilities."""
    out['mil'] = torch.tensor(mil)
    out['refine'] = torch.tensor(refine).log()
    losses = module._image_losses(
        out, torch.tensor(boxes, dtype=torch.float32), torch.tensor(present)
    )
    return {key: value.item() for key, value in losses.items()}


def test_mil_loss():
    scores = torch.tensor([[0.5, 0.1, 0.0], [0.25, 0.1, 0.0]])
    # The image's scores are 0.75, 0.2 and 0.
    assert mil_loss(scores, torch.tensor([0])) == pytest.approx(
        -(log(0.75) + log(0.8)) / 3, abs=1e-6
    )
    assert mil_loss(scores, torch.tensor([0, 2])) == pytest.approx(
        -(log(0.75) + log(0.8) + log(1e-6)) / 3, rel=1e-5
    )


def test_oicr_centers():
    boxes = torch.arange(8.0).view(2, 4)
    scores = torch.tensor([[0.2, 0.7], [0.3, 0.8]])
    before = scores.clone()
    found, labels, values = oicr_centers(boxes, scores, torch.tensor([1]))
    assert torch.equal(found, boxes[1:]) and labels.tolist() == [1]
    assert values.tolist() == pytest.approx([0.8])
    # The first class takes the second box; the other class the next best.
    found, labels, values = oicr_centers(boxes, scores, torch.tensor([0, 1]))
    assert torch.equal(found, boxes[[1, 0]]) and labels.tolist() == [0, 1]
    assert values.tolist() == pytest.approx([0.3, 0.7])
    assert torch.equal(scores, before)
    none = torch.zeros(0, dtype=torch.long)
    assert [len(x) for x in oicr_centers(boxes, scores, none)] == [0, 0, 0]


@pytest.mark.parametrize(
    'scores, expected',
    [
        ([0.0, 0.1, 0.2, 0.5, 0.6, 1.0], [5]),
        # 0.74 changes its group after the first step, and that moves means.
        ([0.76, 0.0, 0.74, 1.0, 0.3], [0, 2, 3]),
        ([0.4, 0.4, 0.4], [0, 1, 2]),
        ([0.4], [0]),
        ([0.1, 0.2], [1]),
    ],
)
def test_top_scores(scores, expected):
    assert top_scores(torch.tensor(scores)).tolist() == expected


def chains():
    """Two chains of three boxes, a single one, and two of low score.

    Only the middle of a chain overlaps both others by more than 0.4.
    """
    boxes, scores = [], []
    for y, best in ((0, 0.9), (50, 0.95)):
        for x, score in ((14, 0.8), (10, 0.85), (6, best)):
            boxes.append([x, y, x + 10, y + 10])
            scores.append(score)
    boxes += [[80, 80, 90, 90], [30, 30, 40, 40], [60, 30, 70, 40]]
    scores += [0.8, 0.4, 0.0]
    return torch.tensor(boxes).float(), torch.tensor(scores)[:, None]


def test_pcl_centers():
    boxes, scores = chains()
    present = torch.tensor([0])
    found, labels, values = pcl_centers(boxes, scores, present, max_centers=2)
    # The middle ones, with the best score of their chain, best first. The
    # single box is left: no more than two are.
    assert torch.equal(found, boxes[[4, 1]])
    assert labels.tolist() == [0, 0]
    assert values.tolist() == pytest.approx([0.95, 0.9])
    found, _, values = pcl_centers(boxes, scores, present, max_centers=1)
    assert torch.equal(found, boxes[4:5])
    # After the first chain no more than five are left.
    found, _, values = pcl_centers(boxes, scores, present)
    assert torch.equal(found, boxes[1:2])
    assert values.tolist() == pytest.approx([0.9])
    # Above 0.5 nothing is connected: of the first five of seven, taken one
    # by one, the two best are kept.
    found, _, values = pcl_centers(
        boxes, scores, present, iou=0.5, max_centers=2
    )
    assert values.tolist() == pytest.approx([0.9, 0.85])


def test_pcl_centers_stand_for_one_class():
    box = torch.tensor([[0.0, 0, 10, 10]])
    scores = torch.tensor([[0.2, 0.9]])
    found, labels, values = pcl_centers(box, scores, torch.tensor([0, 1]))
    assert torch.equal(found, box) and labels.tolist() == [0]
    assert values.tolist() == pytest.approx([0.2])
    # Boxes without area overlap nothing, not even themselves.
    found, labels, _ = pcl_centers(
        torch.zeros(1, 4), scores, torch.tensor([1])
    )
    assert labels.tolist() == [1]


def test_assign_proposals():
    centers = (
        torch.tensor([[0.0, 0, 10, 10], [20, 0, 30, 10]]),
        torch.tensor([1, 0]),
        torch.tensor([0.6, 0.3]),
    )
    boxes = torch.tensor(
        [
            [0.0, 0, 10, 10],
            [0, 0, 10, 5],  # IoU 0.5
            [0, 0, 10, 4],  # 0.4
            [0, 0, 10, 0.9],  # 0.09
            [20, 0, 30, 8],  # 0.8
            [50, 50, 60, 60],
        ]
    )
    labels, weights, closest = assign_proposals(boxes, centers, 2)
    assert labels.tolist() == [1, 1, 2, 2, 0, 2]
    assert weights.tolist() == pytest.approx([0.6, 0.6, 0.6, 0, 0.3, 0])
    assert closest.tolist() == [0, 0, -1, -1, 1, -1]
    labels, weights, closest = assign_proposals(
        boxes, centers, 2, fg_iou=0.9, ignore_iou=0.45
    )
    assert labels.tolist() == [1, 2, 2, 2, 2, 2]
    assert weights.tolist() == pytest.approx([0.6, 0.6, 0, 0, 0.3, 0])
    none = tuple(x[:0] for x in centers)
    labels, weights, closest = assign_proposals(boxes[:2], none, 2)
    assert labels.tolist() == [2, 2] and weights.tolist() == [0, 0]
    assert closest.tolist() == [-1, -1]


def test_oicr_loss():
    logits = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]]).log()
    loss = oicr_loss(logits, torch.tensor([0, 2]), torch.tensor([2.0, 0.5]))
    assert loss == pytest.approx(-(2 * log(0.5) + 0.5 * log(0.7)) / 2)


def test_pcl_loss():
    logits = torch.tensor(
        [[0.5, 0.2, 0.3], [0.25, 0.5, 0.25], [0.7, 0.2, 0.1], [0.3, 0.3, 0.4]]
    ).log()
    loss = pcl_loss(
        logits,
        torch.tensor([0, 0, 1, 2]),
        torch.tensor([0.6, 0.6, 0.3, 0.6]),
        torch.tensor([0, 0, 1, -1]),
    )
    expected = 1.2 * log(0.375) + 0.3 * log(0.2) + 0.6 * log(0.4)
    assert loss == pytest.approx(-expected / 4)


class Given(nn.Module):
    """In place of the extractor: pooled features as they are."""

    num_inputs = 1

    def forward(self, x, rois):
        return x[0]


def test_mil_scores():
    module = head(with_fast_rcnn=False)
    module.bbox_roi_extractor = Given()
    module.shared = nn.Identity()
    module.mil_proposal = nn.Linear(2, 2, bias=False)
    module.mil_class = nn.Linear(2, 2, bias=False)
    module.refine = nn.ModuleList([nn.Linear(2, 3)])
    module.mil_proposal.weight.data = torch.eye(2)
    module.mil_class.weight.data = torch.tensor([[1.0, 1], [0, 0]])
    feats = torch.tensor([[3.0, 1], [1, 1], [2, 5]]).log()
    proposals = [
        InstanceData(bboxes=torch.zeros(2, 4)),
        InstanceData(bboxes=torch.zeros(1, 4)),
    ]
    first, second = module((feats,), proposals)
    # Over proposals 3/4 and 1/4, 1/2 and 1/2; over classes 3 * 1 against 1,
    # 1 * 1 against 1; then 2 * 5 against 1.
    expected = [[9 / 16, 1 / 8], [1 / 8, 1 / 4]]
    np.testing.assert_allclose(first['mil'].detach(), expected, 1e-6)
    expected = [[10 / 11, 1 / 11]]
    np.testing.assert_allclose(second['mil'].detach(), expected, 1e-6)


def test_refinements_learn_from_the_stage_before():
    apart = [[0, 0, 10, 10], [50, 50, 60, 60]]
    mil = [[0.6, 0.0], [0.1, 0.0]]
    refine = [
        [[0.2, 0.1, 0.7], [0.5, 0.1, 0.4]],
        [[0.3, 0.1, 0.6], [0.25, 0.15, 0.6]],
        [[0.1, 0.1, 0.8], [0.4, 0.5, 0.1]],
    ]
    losses = image_losses(head(with_fast_rcnn=False), mil, refine, apart, [0])
    assert set(losses) == {
        'loss_mil',
        'loss_refine0',
        'loss_refine1',
        'loss_refine2',
    }
    # A proposal that does not touch the center is ignored.
    assert losses['loss_refine0'] == pytest.approx(-3 * 0.6 * log(0.2) / 2)
    assert losses['loss_refine1'] == pytest.approx(-0.5 * log(0.25) / 2)
    assert losses['loss_refine2'] == pytest.approx(-0.3 * log(0.1) / 2)
    # The first weight is the only factor.
    losses = image_losses(
        head(with_fast_rcnn=False, first_weight=1), mil, refine, apart, [0]
    )
    assert losses['loss_refine0'] == pytest.approx(-0.6 * log(0.2) / 2)


def test_bags():
    boxes = [[0, 0, 10, 10], [0, 0, 10, 8]]
    mil = [[0.6, 0.0], [0.5, 0.0]]
    refine = [[[0.2, 0.1, 0.7], [0.5, 0.1, 0.4]]]
    kwargs = dict(num_refinements=1, with_fast_rcnn=False)
    bag = image_losses(head(centers='pcl', **kwargs), mil, refine, boxes, [0])
    # The one in the higher group is the center of both.
    assert bag['loss_refine0'] == pytest.approx(-3 * 1.2 * log(0.35) / 2)
    each = image_losses(head(**kwargs), mil, refine, boxes, [0])
    assert each['loss_refine0'] == pytest.approx(
        -3 * 0.6 * (log(0.2) + log(0.5)) / 2
    )


def test_fast_rcnn_branch():
    boxes = [[0, 0, 10, 10], [0, 0, 10, 8]]
    refine = [[[0.6, 0.1, 0.3], [0.5, 0.1, 0.4]]]
    fast = torch.tensor([[0.2, 0.2, 0.6], [0.4, 0.3, 0.3]]).log()
    losses = image_losses(
        head(num_refinements=1),
        [[0.1, 0.0], [0.2, 0.0]],
        refine,
        boxes,
        [0],
        fast_class=fast,
        fast_box=torch.zeros(2, 8),
    )
    assert losses['loss_cls'] == pytest.approx(
        -0.6 * (log(0.2) + log(0.4)) / 2
    )
    # The second box is to move down by 1/8 of its height, and to grow by
    # 10/8, in units of 0.1 and 0.2.
    error = (1 / 8 / 0.1 - 0.5) + (log(10 / 8) / 0.2 - 0.5)
    assert losses['loss_bbox'] == pytest.approx(0.6 * error / 2, rel=1e-5)


def detector(**kwargs):
    torch.manual_seed(0)
    roi_head = dict(
        type='avdet_mm.PCLRoIHead',
        num_classes=4,
        in_channels=32,
        fc_channels=8,
        bbox_roi_extractor=EXTRACTOR,
        **kwargs,
    )
    model = dict(
        type='mmdet.FastRCNN',
        backbone=dict(
            type='avdet_mm.AVOLNet', base_channels=4, pooled_stages=(0, 1)
        ),
        roi_head=roi_head,
        train_cfg=None,
        test_cfg=dict(rcnn=TEST_CFG),
    )
    return MODELS.build(ConfigDict(model))


def samples(labels, seed=0):
    """Images of 48 pixels, made from ones of 24, with boxes by chance."""
    rng = np.random.default_rng(seed)
    result = []
    for per_image in labels:
        low = rng.uniform(0, 24, (len(per_image) + 6, 2))
        boxes = torch.from_numpy(np.hstack([low, low + 20])).float()
        sample = DetDataSample(
            metainfo=dict(
                img_shape=(48, 48), ori_shape=(24, 24), scale_factor=(2, 2)
            ),
            gt_instances=InstanceData(
                bboxes=boxes[6:], labels=torch.tensor(per_image).long()
            ),
            proposals=InstanceData(bboxes=boxes[:6], scores=torch.ones(6)),
        )
        result.append(sample)
    return result


@pytest.mark.parametrize('centers', ['oicr', 'pcl'])
def test_boxes_of_the_ground_truth_are_never_read(centers):
    model = detector(centers=centers)
    images = torch.rand(2, 3, 48, 48)
    data = samples([[1, 1, 3], [0]])
    losses = model.loss(images, data)
    assert set(losses) == {
        'loss_mil',
        'loss_refine0',
        'loss_refine1',
        'loss_refine2',
        'loss_cls',
        'loss_bbox',
    }
    sum(losses.values()).backward()
    assert all(
        p.grad is not None and p.grad.isfinite().all()
        for p in model.parameters()
    )
    assert model.backbone.conv1_1.conv.weight.grad.abs().sum() > 0

    poisoned = samples([[3, 1], [0, 0]])
    for sample, given in zip(poisoned, data):
        sample.proposals = given.proposals
        sample.gt_instances.bboxes[:] = float('nan')
    again = model.loss(images, poisoned)
    assert {k: v.item() for k, v in again.items()} == {
        k: v.item() for k, v in losses.items()
    }
    poisoned[0].gt_instances.labels[0] = 2
    assert model.loss(images, poisoned)['loss_mil'] != losses['loss_mil']


def test_an_image_without_classes_teaches_only_their_absence():
    losses = detector().loss(torch.rand(1, 3, 48, 48), samples([[]]))
    assert losses['loss_mil'] > 0
    assert [v.item() for k, v in losses.items() if k != 'loss_mil'] == [0] * 5


def test_losses_are_means_over_images():
    model = detector().eval()
    images = torch.rand(2, 3, 48, 48)
    data = samples([[1, 3], [0]])
    both = model.loss(images, data)
    each = [model.loss(images[i : i + 1], data[i : i + 1]) for i in (0, 1)]
    for key, value in both.items():
        mean = (each[0][key] + each[1][key]) / 2
        assert value.item() == pytest.approx(mean.item(), rel=1e-4)


def test_predict():
    module = head(with_fast_rcnn=False)
    refine = torch.tensor(
        [
            [[0.6, 0.2, 0.2], [0.3, 0.4, 0.3], [0.0, 0.1, 0.9]],
            [[0.2, 0.2, 0.6], [0.5, 0.0, 0.5], [0.3, 0.1, 0.6]],
        ]
    )
    module.forward = lambda x, proposals: [dict(refine=refine.log())]
    boxes = torch.tensor([[0.0, 0, 20, 20], [0, 0, 20, 10], [30, 0, 40, 10]])
    sample = DetDataSample(
        metainfo=dict(img_shape=(40, 40), scale_factor=(2, 1))
    )
    proposals = [InstanceData(bboxes=boxes)]
    (pred,) = module.predict((), proposals, [sample], rescale=True)
    # Means: [.4, .2], [.4, .2], [.15, .1]; the first two overlap by a half.
    assert sorted(pred.scores.tolist()) == pytest.approx([0.1, 0.15, 0.2, 0.4])
    assert pred.labels.tolist() == [0, 1, 0, 1]
    assert pred.bboxes[2].tolist() == [15, 0, 20, 10]
    (pred,) = module.predict((), proposals, [sample])
    assert pred.bboxes[2].tolist() == [30, 0, 40, 10]


def test_predict_with_fast_rcnn():
    module = head(num_classes=1)
    out = dict(
        refine=torch.tensor([[[0.6, 0.4]]]).log(),
        fast_class=torch.tensor([[0.2, 0.8]]).log(),
        # Down by half its height.
        fast_box=torch.tensor([[0.0, 5, 0, 0]]),
    )
    module.forward = lambda x, proposals: [out]
    sample = DetDataSample(
        metainfo=dict(img_shape=(40, 14), scale_factor=(1, 1))
    )
    proposals = [InstanceData(bboxes=torch.tensor([[10.0, 0, 20, 10]]))]
    (pred,) = module.predict((), proposals, [sample], rescale=True)
    assert pred.scores.tolist() == pytest.approx([0.4])
    # Inside the image, which ends at 14.
    np.testing.assert_allclose(pred.bboxes, [[10, 5, 14, 15]], rtol=1e-6)


def test_detector_predicts_in_original_pixels():
    model = detector().eval()
    with torch.no_grad():
        results = model.predict(torch.rand(2, 3, 48, 48), samples([[], []]))
    for sample in results:
        pred = sample.pred_instances
        assert len(pred) and pred.bboxes.max() <= 24
        assert set(pred.labels.tolist()) <= {0, 1, 2, 3}


def test_errors():
    with pytest.raises(ValueError, match="'oicr', 'pcl'"):
        head(centers='wsddn')
    with pytest.raises(ValueError, match='at least 1'):
        head(num_refinements=0)
    data = samples([[1]])
    data[0].proposals = data[0].proposals[:0]
    with pytest.raises(ValueError, match='no proposals'):
        detector().loss(torch.rand(1, 3, 48, 48), data)
