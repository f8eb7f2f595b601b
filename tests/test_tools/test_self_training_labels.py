"""Tests of tools/self_training_labels.py."""
import json
import runpy
import sys

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope

from avdet_mm.utils import file_sha256
from tests.toy import ROOT, load_config
from tools import self_training_labels as module

NAMES = [f'cluster_{k}' for k in range(8)]


@pytest.fixture
def tool(monkeypatch):
    """Runs the tool with arguments, as a program."""

    def run(*arguments):
        monkeypatch.setattr(sys, 'argv', ['tool', *map(str, arguments)])
        runpy.run_path(
            f'{ROOT}/tools/self_training_labels.py', run_name='__main__')

    monkeypatch.setenv('LOCAL_RANK', '0')
    yield run
    torch.set_flush_denormal(False)


@pytest.fixture(scope='module')
def untrained(clip_dir, tmp_path_factory):
    """Folder with config.py, weights.pth, not trained, and labels.json.

    Labels are the true boxes, as cluster k for class k; two clips have none.
    """
    root = tmp_path_factory.mktemp('untrained')
    with pytest.MonkeyPatch.context() as patch:
        cfg = load_config('faster-rcnn_avol-net_fpn_demo.py', clip_dir.parent,
                          patch)
    cfg.model.test_cfg.rcnn.score_thr = 0.
    # Must not matter: the checkpoint is named on the command line.
    cfg.resume = True
    cfg.load_from = str(root / 'nothing.pth')
    cfg.work_dir = str(root)
    cfg = Config(cfg._cfg_dict.to_dict())
    cfg.dump(str(root / 'config.py'))
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        state = MODELS.build(cfg.model).state_dict()
    torch.save(dict(state_dict=state, meta={}), root / 'weights.pth')

    labels = json.loads((clip_dir / 'train_coco.json').read_text())
    labels['categories'] = [dict(id=i, name=n) for i, n in enumerate(NAMES)]
    for image in labels['images']:
        image['file_name'] = 'data/train_images/' + image['file_name']
        image['time'] = 0.5
    labels['annotations'] = [
        dict(a, score=.9, label_score=.8) for a in labels['annotations']
        if a['image_id'] > 1
    ]
    (root / 'labels.json').write_text(json.dumps(labels))
    return root


def files(root):
    return [root / name for name in ('config.py', 'weights.pth',
                                     'labels.json')]


def test_two_rounds(untrained, clip_dir, tool, tmp_path, capsys):
    config, weights, labels = files(untrained)
    out, out2 = tmp_path / 'x/r1.json', tmp_path / 'r2.json'
    rule = ['--anchor-thr', '0.01', '--score-thr', '0.02', '--max-boxes', '3']
    tool(config, weights, labels, out, *rule, '--clips',
         clip_dir / 'train.json')
    before, after = (json.loads(p.read_text()) for p in (labels, out))
    assert after['images'] == before['images']
    assert after['categories'] == before['categories']
    info = after['info']
    assert info['round'] == 1
    assert info['config'] == str(config)
    assert info['checkpoint_sha256'] == file_sha256(str(weights))
    assert info['labels_sha256'] == file_sha256(str(labels))
    assert info['thresholds'] == dict(
        anchor_thr=.01, score_thr=.02, max_boxes=3)
    counts = info['counts']
    assert counts['images'] == 16 and counts['without_self_box'] == 2
    assert counts['replaced'] + counts['kept'] == 14
    assert counts['replaced'] > 0 and counts['added'] > 0
    anns = after['annotations']
    assert len(anns) == counts['annotations'] == 14 + counts['added']
    assert {a['image_id'] for a in anns} == set(range(16))
    clusters = {a['image_id']: a['category_id']
                for a in before['annotations']}
    for ann in anns:
        assert ann.get('added') or ann['category_id'] == clusters[
            ann['image_id']]
        x, y, width, height = ann['bbox']
        assert min(x, y, width, height) >= 0
        assert x + width <= 108.01 and y + height <= 108.01
    printed = capsys.readouterr().out
    assert 'Before: 14 of 14 (100.0 %)' in printed
    assert 'After: ' in printed and f'of {counts["added"]} ' in printed

    tool(config, weights, out, out2)
    assert json.loads(out2.read_text())['info']['round'] == 2


def test_written_at_once_or_not_at_all(untrained, tool, tmp_path,
                                       monkeypatch):
    config, weights, labels = files(untrained)
    out = tmp_path / 'r1.json'
    out.write_text('old')

    def interrupted(data, file, **kwargs):
        file.write('{"info": ')
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr('avdet_mm.utils.fileio.json.dump', interrupted)
        with pytest.raises(KeyboardInterrupt):
            tool(config, weights, labels, out)
    assert out.read_text() == 'old'
    assert [p.name for p in tmp_path.iterdir()] == ['r1.json']
    tool(config, weights, labels, out)
    assert json.loads(out.read_text())['info']['counts']['images'] == 16


def test_errors(untrained, tool, tmp_path, capsys):
    config, weights, labels = files(untrained)
    out = tmp_path / 'r1.json'
    with pytest.raises(SystemExit):
        tool(config, tmp_path / 'no.pth', labels, out)
    assert 'there is no checkpoint' in capsys.readouterr().err
    with pytest.raises(SystemExit):
        tool(config, weights, labels, labels)
    assert 'a file of their own' in capsys.readouterr().err
    with pytest.raises(SystemExit, match='score_thr=8.0 is no score'):
        tool(config, weights, labels, out, '--score-thr', '8')
    other = json.loads(labels.read_text())
    for image in other['images']:
        image['file_name'] = 'elsewhere/' + image['file_name']
    (tmp_path / 'moved.json').write_text(json.dumps(other))
    with pytest.raises(SystemExit, match='16 of the 16 images .*data_prefix'):
        tool(config, weights, tmp_path / 'moved.json', out)
    other['categories'].pop()
    (tmp_path / 'seven.json').write_text(json.dumps(other))
    with pytest.raises(SystemExit, match=r'7 categories, but .* \[8\]'):
        tool(config, weights, tmp_path / 'seven.json', out)
    torch.save(dict(state_dict=dict(x=torch.zeros(1))), tmp_path / 'w.pth')
    with pytest.raises(SystemExit, match='cannot be loaded.*another config'):
        tool(config, tmp_path / 'w.pth', labels, out)
    assert not out.exists()


def own(image_id, bbox, **kwargs):
    return dict(image_id=image_id, bbox=bbox, **kwargs)


def test_count_right():
    labels = dict(
        images=[dict(id=i, clip_id='abc'[i]) for i in range(3)],
        annotations=[
            # On the silent object: not right as what is heard ...
            own(0, [0, 0, 10, 10]),
            # ... but it is not free any more.
            own(0, [0, 0, 10, 9], added=True),
            own(0, [20, 0, 10, 5], added=True),
            own(0, [20, 0, 10, 6], added=True),
            own(0, [50, 0, 10, 10], added=True),
            own(1, [0, 0, 10, 5]),
            own(1, [0, 0, 10, 4.9]),
            # A clip whose objects are not known.
            own(2, [0, 0, 10, 10]),
        ])
    objects = dict(
        a=[
            dict(bbox=[0, 0, 10, 10], sounding=False),
            dict(bbox=[20, 0, 30, 10])
        ],
        b=[dict(bbox=[0, 0, 10, 10])],
        c=[])
    assert module.count_right(labels, objects) == dict(
        own=3, own_right=1, added=4, added_right=1)


def test_read_objects(tmp_path):
    labels = dict(images=[dict(id=0, clip_id='a'), dict(id=1, clip_id='b')])
    path = tmp_path / 'clips.json'

    def write(*rows):
        path.write_text(json.dumps(dict(metainfo={}, data_list=rows)))

    box = dict(bbox=[0, 0, 1, 1])
    write(dict(clip_id='a', instances=[box]), dict(clip_id='b'),
          dict(clip_id='c', instances=[box]))
    assert module.read_objects(str(path), labels) == dict(a=[box], b=[])
    write(dict(clip_id='a', instances=[box]))
    with pytest.raises(ValueError, match="1 of the 2 .*such as 'b'"):
        module.read_objects(str(path), labels)
    write(dict(clip_id='a'), dict(clip_id='b'))
    with pytest.raises(ValueError, match='No clip in .* has "instances"'):
        module.read_objects(str(path), labels)
    with pytest.raises(ValueError, match='have no clip_id'):
        module.read_objects(str(path), dict(images=[dict(id=0)]))
