"""Tests of the sheet of clusters."""
import os.path as osp
import pickle
import runpy
import sys

import cv2
import numpy as np
import pytest
import torch

from avdet_mm.visualization.drawing import ORANGE, RED
from tests.toy import ROOT


@pytest.fixture
def sheet(tmp_path, monkeypatch, capsys):
    """Runs the tool on five clips; returns picture and what is printed."""
    samples = []
    for i, label in enumerate((3, 0, 3, 3, 0)):
        path = str(tmp_path / f'{i}.png')
        cv2.imwrite(path, np.full((60, 80, 3), 50 * i, np.uint8))
        box = [8., 6., 72., 54.]
        samples.append(dict(
            clip_id=str(i), img_path=path, img_shape=(30, 40),
            homography_matrix=np.diag([0.5, 0.5, 1.]),
            heatmap=torch.rand(4, 5),
            pred_instances=dict(bboxes=torch.tensor([box]),
                                labels=torch.tensor([label])),
            gt_instances=dict(
                bboxes=torch.tensor([box if label else [0., 0., 20., 20.]]),
                sounding=torch.tensor([True]))))
    # A constant heatmap has no box, and a flat one is in no cluster.
    samples.append(dict(samples[0], pred_instances=dict(
        bboxes=torch.zeros(0, 4), labels=torch.zeros(0))))

    def run(*arguments, change=None):
        if change:
            change(samples)
        with open(tmp_path / 'p.pkl', 'wb') as file:
            pickle.dump(samples, file)
        out = tmp_path / 'new' / 'sheet.png'
        monkeypatch.setattr(sys, 'argv', [
            'cluster_sheet.py', str(tmp_path / 'p.pkl'), str(out), *arguments])
        runpy.run_path(osp.join(ROOT, 'tools/analysis_tools/cluster_sheet.py'),
                       run_name='__main__')
        return cv2.imread(str(out)), capsys.readouterr().out

    return run


def test_a_row_for_each_cluster(sheet):
    picture, said = sheet('--columns', '4', '--side', '40')
    assert picture.shape == (2 * 44 + 4, 4 * 44 + 4, 3)
    assert '2 clusters, of 6 clips 4 of each' in said
    # Two clips of cluster 0, three of 3; the rest is white.
    white = [[bool((picture[y + 4:y + 44, x + 4:x + 44] == 255).all())
              for x in range(0, 176, 44)] for y in (0, 44)]
    assert white == [[False, False, True, True], [False, False, False, True]]
    # Self-boxes above all; clips of cluster 0 miss their object.
    for row, missed in ((0, True), (44, False)):
        tile = picture[row + 4:row + 44, 4:44, ::-1]
        assert (tile[4, 20] == ORANGE).all()
        assert (tile[2, 0] == RED).all() == missed
    one, said = sheet('--clusters', '3', '--columns', '2', '--side', '64')
    assert one.shape == (72, 140, 3) and '1 clusters' in said


def test_errors(sheet):
    with pytest.raises(SystemExit, match='No clip has the cluster 1, only 0'):
        sheet('--clusters', '1')
    with pytest.raises(SystemExit, match="'gone.png' of 0 is gone"):
        sheet(change=lambda samples: samples[0].update(img_path='gone.png'))
