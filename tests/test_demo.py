"""The demo's own arithmetic; its stages are tested in test_configs.py."""
import importlib.util
import json
import os.path as osp

import pytest

ROOT = osp.dirname(osp.dirname(osp.abspath(__file__)))


@pytest.fixture(scope='module')
def run_demo():
    spec = importlib.util.spec_from_file_location(
        'run_demo', osp.join(ROOT, 'demo/run_demo.py'))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_center_box_takes_the_best_side(run_demo, tmp_path):
    # A centered object of half the frame: side 0.5 is exact.
    coco = dict(
        images=[dict(id=7, width=100, height=60, file_name='a.png')],
        categories=[dict(id=3, name='bell')],
        annotations=[
            dict(
                id=1,
                image_id=7,
                category_id=3,
                bbox=[25, 15, 50, 30],
                area=1500,
                iscrowd=0)
        ])
    path = tmp_path / 'coco.json'
    path.write_text(json.dumps(coco))
    best = run_demo.center_box_ap(str(path))
    # 0.5, 0.6 (IoU 0.69) and 0.7 (IoU 0.51) all reach AP50 = 1; AP decides.
    assert best['center_box_side'] == 0.5
    assert best['center_box_agnostic_ap'] == pytest.approx(1.)
    assert best['center_box_agnostic_ap50'] == pytest.approx(1.)


def test_table_has_every_run(run_demo):
    run = {
        f'{prefix}{k}': 0.25
        for prefix in ('center_box_agnostic_', 'self_boxes_agnostic_',
                       'full_agnostic_', 'full_')
        for k in ('ap30', 'ap50', 'ap')
    }
    run.update(
        nmi=1., nmi_visual=.9, nmi_audio=1., purity=1.,
        hungarian_accuracy=1., pointing=.9, self_boxes_iou50=.7,
        seconds=100., seconds_clips=40.)
    text = run_demo.table([run, dict(run, full_ap50=0.5)], ['a', 'b'])
    assert text.count('0.250 / 0.250 / 0.250') == 7
    assert '0.250 / 0.500 / 0.250' in text
    # No ceiling was trained, so no row speaks of it.
    assert 'ceiling (' not in text
