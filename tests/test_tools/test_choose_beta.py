"""Tests of the choice of beta; tests/test_stampsound_configs.py runs it."""
import importlib.util
import os.path as osp

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData

from avdet_mm.models.task_modules import HeatmapBoxExtractor
from avdet_mm.structures import AudioVisualDataSample
from tests.toy import ROOT


@pytest.fixture(scope='module')
def tool():
    path = osp.join(ROOT, 'tools/analysis_tools/choose_beta.py')
    spec = importlib.util.spec_from_file_location('choose_beta', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_largest_boxes(tool):
    maps = torch.zeros(2, 8, 8)
    maps[0, 2:5, 1:3] = 1.
    found = tool.largest_boxes(maps, 0.5, (16, 16))
    assert np.array_equal(
        found[0],
        HeatmapBoxExtractor(0.5)(maps[:1], (16, 16))[0][0][0].numpy())
    assert np.array_equal(found[1], np.zeros(4))  # Constant.


def test_patches_are_pasted_where_their_boxes_say(tool):
    frames = torch.rand(3, 3, 20, 24)
    frames[:, :, 5:9, 6:12] = torch.tensor([2., 3., 4.])[:, None, None, None]
    others = torch.rand(3, 3, 20, 24)
    cores = np.array([[6, 5, 12, 9]] * 3, np.float32)
    wholes = np.array([[0, 0, 10, 7], [3, 1, 9, 20], [0, 0, 24, 20]],
                      np.float32)
    before = frames.clone(), others.clone()
    pasted, boxes = tool.paste(frames, cores, wholes, others,
                               np.random.default_rng(0))
    assert torch.equal(frames, before[0]) and torch.equal(others, before[1])
    assert np.array_equal(boxes[:, 2:] - boxes[:, :2],
                          wholes[:, 2:] - wholes[:, :2])
    for i, (x1, y1, x2, y2) in enumerate(boxes.astype(int)):
        assert 0 <= x1 < x2 <= 24 and 0 <= y1 < y2 <= 20
        rows, columns = torch.meshgrid(
            torch.arange(20.), torch.arange(24.), indexing='ij')
        mask = (((rows + 0.5) - (y1 + y2) / 2) / ((y2 - y1) / 2))**2 + ((
            (columns + 0.5) - (x1 + x2) / 2) / ((x2 - x1) / 2))**2 <= 1
        # Its box is the patch's.
        assert mask.any(1).nonzero().flatten()[[0, -1]].tolist() == [
            y1, y2 - 1]
        assert mask.any(0).nonzero().flatten()[[0, -1]].tolist() == [
            x1, x2 - 1]
        assert (pasted[i][:, mask] - 2. - i).abs().max() < 1e-5
        assert torch.equal(pasted[i][:, ~mask], others[i][:, ~mask])


class Blobs(torch.nn.Module):
    """Its heatmaps are the red channel of a frame, blurred by a mean.

    Sounds are numbers of clusters. What is brightest in a frame is the
    object, 40 pixels wide; the blur widens it by 8 pixels on all sides.
    """

    data_preprocessor = staticmethod(lambda batch, training: batch)

    def encode(self, frames, audio):
        return dict(frames=frames, audio=audio)

    def heatmaps(self, outs):
        red = outs['frames'][:, :1]
        return torch.nn.functional.avg_pool2d(
            red, 17, 1, 8, count_include_pad=False)[:, 0]

    def classify(self, outs):
        return outs['audio'], None


def batch(true_box):
    frames = torch.zeros(6, 3, 96, 96)
    x1, y1, x2, y2 = true_box
    frames[:, :, y1:y2, x1:x2] = 1.
    sample = AudioVisualDataSample(
        metainfo=dict(ori_shape=(192, 192),
                      homography_matrix=np.diag([0.5, 0.5, 1.])))
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor([[0., 0., 9., 9.],
                             [2. * x for x in true_box]]),
        sounding=torch.tensor([False, True]))
    nothing = AudioVisualDataSample(metainfo=sample.metainfo)
    return dict(inputs=dict(frame=frames, audio=torch.arange(6) % 2),
                data_samples=[sample] * 5 + [nothing])


def test_true_boxes_are_compared_in_their_own_pixels(tool):
    true_box = [20, 30, 60, 70]
    _, true = tool.measure(Blobs(), [batch(true_box)] * 2)
    for beta, found in true.items():
        assert len(found) == 10
        box = tool.largest_boxes(
            Blobs().heatmaps(dict(frames=batch(true_box)['inputs']['frame'])),
            beta, (96, 96))[:1]
        assert found == pytest.approx(tool.ious(
            box, np.array([true_box], np.float32))[0])
    # The blur is half as high where the object ends, and the threshold is
    # half of the way between mean and maximum.
    assert true[0.5][0] > 0.85 > true[0.9][0]


def test_one_cluster_gives_no_patch(tool):
    one = batch([20, 30, 60, 70])
    one['inputs']['audio'] = torch.zeros(6, dtype=int)
    pasted, true = tool.measure(Blobs(), [one])
    assert len(pasted[0.5]) == 0 and len(true[0.5]) == 5


def test_missing_checkpoint(tool, monkeypatch, capsys):
    monkeypatch.setattr('sys.argv', [
        'choose_beta.py',
        osp.join(ROOT, 'configs/stampsound/localizer_small.py'), 'no.pth'
    ])
    with pytest.raises(SystemExit):
        tool.main()
    assert "there is no checkpoint 'no.pth'" in capsys.readouterr().err
