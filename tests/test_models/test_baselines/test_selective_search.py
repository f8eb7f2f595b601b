import multiprocessing

import cv2
import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmdet.structures import DetDataSample
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

from avdet_mm.datasets.transforms import SelectiveSearchProposals
from avdet_mm.datasets.transforms import proposals as module
from avdet_mm.datasets.transforms.proposals import selective_search
from avdet_mm.registry import MODELS

needs_ximgproc = pytest.mark.skipif(
    not hasattr(cv2, 'ximgproc'), reason='OpenCV without ximgproc'
)
# What the tests below take selective search to find.
FOUND = np.array([[0, 0, 40, 20], [10, 5, 20, 15], [0, 0, 5, 20]], np.int32)


def picture(shift=0):
    """Two plain objects on a plain ground: 60 x 40."""
    image = np.full((40, 60, 3), 30, np.uint8)
    image[5:25, 5 + shift : 25 + shift] = (200, 40, 40)
    image[15:35, 38:55] = (40, 200, 220)
    return image


@pytest.fixture
def calls(monkeypatch):
    """Counts searches, which find FOUND."""
    seen = []

    def search(image, mode):
        seen.append(mode)
        return FOUND

    monkeypatch.setattr(module, 'selective_search', search)
    return seen


@needs_ximgproc
def test_finds_the_objects():
    boxes = selective_search(picture())
    assert boxes.dtype == np.int32
    found = set(map(tuple, boxes.tolist()))
    assert len(found) == len(boxes)
    for expected in ((5, 5, 25, 25), (38, 15, 55, 35), (0, 0, 60, 40)):
        # Segments may differ by a pixel.
        assert (
            min(
                max(abs(a - b) for a, b in zip(box, expected)) for box in found
            )
            <= 1
        )
    assert boxes.min() >= 0
    assert (boxes <= [60, 40, 60, 40]).all()
    assert (boxes[:, :2] < boxes[:, 2:]).all()
    assert len(selective_search(picture(), 'quality')) >= len(boxes)


@needs_ximgproc
def test_order_is_the_images_own():
    rng = np.random.default_rng(0)
    image = cv2.blur(rng.integers(0, 256, (60, 80, 3), np.uint8), (5, 5))
    boxes = selective_search(image)
    assert len(boxes) > 20
    # C's generator has moved on between the calls.
    np.testing.assert_array_equal(boxes, selective_search(image))
    np.testing.assert_array_equal(
        boxes, selective_search(np.asfortranarray(image))
    )
    # Neither position nor size decides.
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    for value in (*boxes.T, area):
        assert (np.diff(value) > 0).any() and (np.diff(value) < 0).any()


@needs_ximgproc
def test_a_blank_image_has_one():
    boxes = selective_search(np.zeros((20, 30, 3), np.uint8))
    assert boxes.tolist() == [[0, 0, 30, 20]]


def test_without_ximgproc(monkeypatch):
    monkeypatch.delattr(cv2, 'ximgproc', raising=False)
    with pytest.raises(
        ImportError,
        match=f'opencv-contrib-python-headless=={cv2.__version__}',
    ):
        selective_search(picture())


def test_boxes_and_scores(calls):
    transform = SelectiveSearchProposals(max_proposals=2)
    results = transform(dict(img=picture()))
    assert results['proposals'].dtype == np.float32
    assert results['proposals'].tolist() == FOUND[:2].tolist()
    assert results['proposals_scores'].tolist() == [1, 0.5]
    results = SelectiveSearchProposals()(dict(img=picture()))
    assert results['proposals_scores'] == pytest.approx([1, 2 / 3, 1 / 3])
    assert len(calls) == 2
    assert 'max_proposals=2' in repr(transform)


def test_cache(calls, tmp_path):
    folder = tmp_path / 'made' / 'as_needed'

    def boxes(image, **kwargs):
        transform = SelectiveSearchProposals(str(folder), **kwargs)
        return transform(dict(img=image))['proposals'].tolist()

    assert boxes(picture()) == FOUND.tolist()
    assert boxes(picture()) == FOUND.tolist()
    assert boxes(picture(), max_proposals=1) == FOUND[:1].tolist()
    assert calls == ['fast']
    boxes(picture(), mode='quality')
    boxes(picture(), mode='quality')
    assert calls == ['fast', 'quality']
    boxes(picture(shift=1))
    # The same bytes, another shape.
    boxes(picture().reshape(60, 40, 3))
    assert calls == ['fast', 'quality', 'fast', 'fast']
    # A file that a power cut left empty is made again.
    files = [p for p in folder.rglob('*') if p.is_file()]
    assert len(files) == 4 and all(p.suffix == '.npy' for p in files)
    for path in files:
        path.write_bytes(b'')
    assert boxes(picture()) == FOUND.tolist()
    assert boxes(picture()) == FOUND.tolist()
    assert len(calls) == 5


def test_cache_is_read_by_other_processes(calls, tmp_path, monkeypatch):
    transform = SelectiveSearchProposals(str(tmp_path))
    transform(dict(img=picture()))

    def fail(image, mode):
        raise AssertionError('computed again')

    monkeypatch.setattr(module, 'selective_search', fail)
    context = multiprocessing.get_context('fork')
    with context.Pool(1) as pool:
        results = pool.apply(transform, (dict(img=picture()),))
    assert results['proposals'].tolist() == FOUND.tolist()


def test_failed_writes_leave_nothing(calls, tmp_path, monkeypatch):
    def save(file, boxes):
        file.write(b'half')
        raise OSError('disk full')

    monkeypatch.setattr(np, 'save', save)
    with pytest.raises(OSError, match='disk full'):
        SelectiveSearchProposals(str(tmp_path))(dict(img=picture()))
    assert not [p for p in tmp_path.rglob('*') if p.is_file()]


def test_transform_errors():
    with pytest.raises(ValueError, match='mode'):
        SelectiveSearchProposals(mode='slow')
    with pytest.raises(ValueError, match='at least 1'):
        SelectiveSearchProposals(max_proposals=0)


def pipeline(flip):
    init_default_scope('mmdet')
    return Compose(
        [
            dict(type='avdet_mm.SelectiveSearchProposals'),
            dict(
                type='mmdet.ProposalBroadcaster',
                transforms=[
                    dict(
                        type='mmdet.Resize', scale=(120, 120), keep_ratio=True
                    ),
                    dict(type='mmdet.RandomFlip', prob=flip),
                ],
            ),
            dict(
                type='mmdet.PackDetInputs',
                meta_keys=('ori_shape', 'img_shape', 'scale_factor'),
            ),
        ]
    )


def sample(image):
    return dict(
        img=image,
        img_shape=image.shape[:2],
        ori_shape=image.shape[:2],
        gt_bboxes=np.array([[10, 5, 20, 15]], np.float32),
        gt_bboxes_labels=np.array([3]),
        gt_ignore_flags=np.zeros(1, bool),
    )


def test_proposals_move_with_the_image(calls):
    packed = pipeline(0.0)(sample(picture()))
    proposals = packed['data_samples'].proposals
    assert proposals.bboxes.tolist() == (2 * FOUND).tolist()
    assert proposals.scores == pytest.approx([1, 2 / 3, 1 / 3])
    packed = pipeline(1.0)(sample(picture()))['data_samples']
    assert packed.proposals.bboxes[1].tolist() == [80, 10, 100, 30]
    assert packed.gt_instances.bboxes.tolist() == [[80, 10, 100, 30]]


def test_model_predicts_them_in_original_pixels(calls):
    model = MODELS.build(dict(type='avdet_mm.SelectiveSearch'))
    assert not list(model.parameters())
    batch = pseudo_collate([pipeline(0.0)(sample(picture()))])
    (result,) = model.test_step(batch)
    pred = result.pred_instances
    assert pred.bboxes.tolist() == FOUND.tolist()
    assert pred.scores == pytest.approx([1, 2 / 3, 1 / 3])
    assert pred.labels.tolist() == [0, 0, 0]
    assert pred.labels.dtype == torch.int64


def test_model_without_resize():
    model = MODELS.build(dict(type='avdet_mm.SelectiveSearch'))
    boxes = torch.tensor([[1.0, 2, 3, 4]])
    given = DetDataSample(
        proposals=InstanceData(bboxes=boxes, scores=torch.ones(1))
    )
    (result,) = model(None, [given])
    assert torch.equal(result.pred_instances.bboxes, boxes)


def test_model_errors():
    model = MODELS.build(dict(type='avdet_mm.SelectiveSearch'))
    with pytest.raises(RuntimeError, match='nothing to train'):
        model(None, [], mode='loss')
    with pytest.raises(ValueError, match='unknown'):
        model(None, [], mode='tensor')
    for samples in (None, [DetDataSample()]):
        with pytest.raises(ValueError, match='SelectiveSearchProposals'):
            model(None, samples)
