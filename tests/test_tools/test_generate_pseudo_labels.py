"""Tests of the command line of tools/generate_pseudo_labels.py."""
import json
import os.path as osp
import runpy
import sys

import pytest
import torch
from mmengine.config import Config

from avdet_mm.registry import MODELS
from avdet_mm.utils import file_sha256
from tests.toy import ROOT, find_hook, load_config


@pytest.fixture
def tool(monkeypatch):
    """Runs the tool with arguments, as a program."""

    def run(*arguments):
        monkeypatch.setattr(sys, 'argv', ['tool', *map(str, arguments)])
        runpy.run_path(
            osp.join(ROOT, 'tools', 'generate_pseudo_labels.py'),
            run_name='__main__')

    monkeypatch.setenv('LOCAL_RANK', '0')
    yield run
    torch.set_flush_denormal(False)


@pytest.fixture(scope='module')
def untrained(clip_dir, tmp_path_factory):
    """A folder with config.py and weights.pth, not trained."""
    root = tmp_path_factory.mktemp('untrained')
    with pytest.MonkeyPatch.context() as patch:
        cfg = load_config('joint_demo.py', clip_dir.parent, patch)
    hook = find_hook(cfg, 'PseudoLabelHook')
    hook.out_file, hook.dump_file = str(root / 'labels.json'), None
    hook.dataloader.dataset.pipeline[1].out_dir = str(root / 'images')
    # Must not matter: the checkpoint is named on the command line.
    cfg.resume = True
    cfg.load_from = str(root / 'nothing.pth')
    cfg.work_dir = str(root)
    cfg = Config(cfg._cfg_dict.to_dict())
    cfg.dump(str(root / 'config.py'))
    torch.manual_seed(0)
    state = MODELS.build(cfg.model).state_dict()
    torch.save(dict(state_dict=state, meta={}), root / 'weights.pth')
    return root


def test_classes_of_the_clip_table(untrained, clip_dir, tool, tmp_path):
    weights, out = untrained / 'weights.pth', tmp_path / 'a.json'
    tool(untrained / 'config.py', weights, '--out', out, '--label-source',
         'ground_truth')
    coco = json.loads(out.read_text())
    table = json.loads((clip_dir / 'train.json').read_text())
    names = [c['name'] for c in coco['categories']]
    assert names == table['metainfo']['classes']
    labels = {x['clip_id']: x['label'] for x in table['data_list']}
    clips = {x['id']: x['clip_id'] for x in coco['images']}
    assert len(coco['annotations']) == len(labels) == 16
    for ann in coco['annotations']:
        assert names[ann['category_id']] == labels[clips[ann['image_id']]]
    info = coco['info']
    assert info['checkpoint_sha256'] == file_sha256(str(weights))
    assert info['config'] == str(untrained / 'config.py')
    assert info['label_source'] == 'ground_truth'


def test_label_map(untrained, tool, tmp_path):
    groups = tmp_path / 'groups.json'
    groups.write_text(
        json.dumps(
            dict(classes=['x', 'y'], mapping=dict(bell='y', organ='x'))))
    out = tmp_path / 'a.json'
    tool(untrained / 'config.py', untrained / 'weights.pth', '--out', out,
         '--label-source', 'ground_truth', '--label-map', groups)
    coco = json.loads(out.read_text())
    assert [c['name'] for c in coco['categories']] == ['x', 'y']
    assert 0 < len(coco['images']) < 16


def test_no_such_checkpoint(untrained, tool, capsys):
    with pytest.raises(SystemExit):
        tool(untrained / 'config.py', untrained / 'epoch_9.pth')
    message = capsys.readouterr().err
    assert "epoch_9.pth'" in message and 'last_checkpoint' in message


@pytest.mark.parametrize('content', ['text', 'other', 'part', 'shape'])
def test_checkpoint_that_does_not_fit(content, untrained, tool, tmp_path):
    path = tmp_path / 'weights.pth'
    if content == 'text':
        path.write_text('nothing')
    else:
        saved = torch.load(untrained / 'weights.pth', weights_only=True)
        state = saved['state_dict']
        if content == 'other':
            saved['state_dict'] = dict(weight=torch.zeros(3))
        elif content == 'shape':
            name = 'cluster_head.audio_mlp.0.weight'
            state[name] = torch.cat([state[name]] * 2)
        else:  # As of a localizer without cluster head.
            saved['state_dict'] = {
                k: v
                for k, v in state.items() if not k.startswith('cluster_head')
            }
        torch.save(saved, path)
    with pytest.raises(SystemExit, match='cannot be loaded.*another config'):
        tool(untrained / 'config.py', path, '--out', tmp_path / 'a.json')
    assert not (tmp_path / 'a.json').exists()


def test_checkpoint_of_a_localizer_with_more_parts(untrained, tool, tmp_path):
    saved = torch.load(untrained / 'weights.pth', weights_only=True)
    saved['state_dict']['appearance_head.mlp.0.weight'] = torch.zeros(3)
    torch.save(saved, tmp_path / 'more.pth')
    files = []
    for weights in (untrained / 'weights.pth', tmp_path / 'more.pth'):
        out = tmp_path / f'{weights.stem}.json'
        tool(untrained / 'config.py', weights, '--out', out)
        files.append(json.loads(out.read_text())['annotations'])
    assert files[0] and files[0] == files[1]
