"""Tests of self-labels as a COCO json."""
import json
import os
import os.path as osp
import pickle

import cv2
import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.runner import Runner
from pycocotools.coco import COCO

from avdet_mm import __version__
from avdet_mm.apis import generate_pseudo_labels
from avdet_mm.registry import DATASETS, MODELS
from tests.toy import ToyClips, loader_cfg, model_cfg

K = 4


def build_model(num_clusters=K, **kwargs):
    torch.manual_seed(0)
    return MODELS.build(model_cfg(num_clusters=num_clusters, **kwargs)).eval()


def clips(clip_dir, out_dir):
    return DATASETS.build(
        dict(
            type='avdet_mm.AudioVisualDataset',
            ann_file=str(clip_dir / 'train.json'),
            test_mode=True,
            pipeline=[
                dict(type='avdet_mm.LoadClip', frame_time='middle'),
                dict(type='avdet_mm.ExportFrame', out_dir=str(out_dir)),
                dict(type='mmdet.Resize', scale=(100000, 64),
                     keep_ratio=True),
                dict(type='avdet_mm.PackAudioVisualInputs')
            ]))


def loader(dataset, batch_size=3):
    return Runner.build_dataloader(loader_cfg(dataset, batch_size), seed=0)


def files_below(folder):
    return {
        osp.relpath(osp.join(root, name), folder)
        for root, _, names in os.walk(folder)
        for name in names
    }


def test_json_of_media_files(clip_dir, tmp_path):
    dataset = clips(clip_dir, tmp_path / 'frames')
    model = build_model()
    out = tmp_path / 'labels' / 'self_labels.json'
    counts = generate_pseudo_labels(
        model, loader(dataset), str(out), info=dict(checkpoint='x.pth'))
    assert counts == dict(images=16, annotations=16, without_box=0)
    assert not model.training

    coco = COCO(str(out))
    assert [c['name'] for c in coco.loadCats(coco.getCatIds())
            ] == [f'cluster_{k}' for k in range(K)]
    assert len(coco.getImgIds()) == len(coco.getAnnIds()) == 16
    info = coco.dataset['info']
    assert info['checkpoint'] == 'x.pth'
    assert info['generator'] == f'avdet_mm {__version__}'
    assert (info['beta'], info['beta_on'], info['multi']) == ([0.7, 0.7],
                                                              'mean', False)
    for i, image in enumerate(coco.loadImgs(sorted(coco.getImgIds()))):
        row = dataset.get_data_info(i)
        assert image['clip_id'] == row['clip_id']
        assert image['time'] == pytest.approx(row['time'])
        # Relative to the json; the frame that the box belongs to.
        frame = cv2.imread(str(out.parent / image['file_name']))
        assert frame.shape == (image['height'], image['width'], 3)
        decoded = cv2.imread(
            str(clip_dir / 'train_images' / f'{row["clip_id"]}.png'))
        assert (frame == decoded).all()

        data = model.data_preprocessor(pseudo_collate([dataset[i]]))
        with torch.no_grad():
            sample, = model(**data, mode='predict')
        pred = sample.pred_instances
        ann, = coco.imgToAnns[image['id']]
        x, y, w, h = ann['bbox']
        np.testing.assert_allclose([[x, y, x + w, y + h]],
                                   pred.bboxes, atol=1e-3)
        assert 0 <= x < x + w <= 108 and 0 <= y < y + h <= 108
        assert ann['area'] == pytest.approx(w * h)
        assert ann['iscrowd'] == 0
        assert ann['category_id'] == pred.labels.item()
        assert ann['score'] == pytest.approx(pred.scores.item(), abs=1e-5)
        assert ann['label_score'] == pytest.approx(
            pred.label_scores.item(), abs=1e-5)
    # Nothing half-written is left.
    assert files_below(tmp_path) == {'labels/self_labels.json'} | {
        f'frames/{name}.png'
        for name in dataset.clip_ids
    }


def test_several_boxes_and_none(tmp_path):
    model = build_model(
        box_extractor=dict(type='avdet_mm.HeatmapBoxExtractor', multi=True))
    # Hand-made heatmaps: constant, one component, two components.
    maps = torch.zeros(3, 8, 8)
    maps[1:, 1:3, 1:5] = 1
    maps[2, 6, 6] = 1
    model.localization_head.heatmaps = lambda visual, audio: maps
    out = tmp_path / 'a.json'
    counts = generate_pseudo_labels(
        model, loader(ToyClips(3), 3), str(out), str(tmp_path / 'dump.pkl'))
    assert counts == dict(images=3, annotations=3, without_box=1)
    coco = COCO(str(out))
    assert [len(coco.imgToAnns[i]) for i in range(3)] == [0, 1, 2]
    first, second = coco.imgToAnns[2]
    assert first['area'] > second['area']
    assert first['category_id'] == second['category_id']
    assert [a['id'] for a in coco.dataset['annotations']] == [1, 2, 3]
    with open(tmp_path / 'dump.pkl', 'rb') as file:
        samples = pickle.load(file)
    assert [s['clip_id'] for s in samples] == ToyClips(3).clip_ids
    assert [len(s['pred_instances']['bboxes']) for s in samples] == [0, 1, 2]
    for sample, heatmap in zip(samples, maps):
        assert torch.equal(sample['heatmap'], heatmap)
        assert sample['visual_logits'].shape == (K, )


def test_without_cluster_head(tmp_path):
    out = tmp_path / 'a.json'
    generate_pseudo_labels(build_model(None), loader(ToyClips(4)), str(out))
    coco = json.loads(out.read_text())
    assert coco['categories'] == [dict(id=0, name='cluster_0')]
    assert {a['category_id'] for a in coco['annotations']} == {0}
    assert [x['file_name'] for x in coco['images']] == [
        osp.relpath(f'/images/clip_00{i}.png', tmp_path) for i in range(4)
    ]


def test_mode_of_the_model_is_restored(tmp_path):
    model = build_model().train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    generate_pseudo_labels(model, loader(ToyClips(4)),
                           str(tmp_path / 'a.json'))
    assert model.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_file_in_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    generate_pseudo_labels(build_model(), loader(ToyClips(4)), 'a.json')
    assert files_below(tmp_path) == {'a.json'}


def test_sample_without_image(tmp_path):
    dataset = ToyClips(4)
    data = dataset[2]
    del data['data_samples'].img_path
    dataset = [dataset[0], dataset[1], data, dataset[3]]
    with pytest.raises(ValueError, match='clip_002 has no image.*ExportFrame'):
        generate_pseudo_labels(build_model(), loader(dataset),
                               str(tmp_path / 'a.json'))
    assert files_below(tmp_path) == set()


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    out = tmp_path / 'a.json'
    out.write_text('old')

    def full(*args):
        raise OSError('No space left on device')

    monkeypatch.setattr(os, 'replace', full)
    with pytest.raises(OSError, match='No space'):
        generate_pseudo_labels(build_model(), loader(ToyClips(4)), str(out))
    assert out.read_text() == 'old'


def label_on_rank(out_file):
    # 5 clips: the sampler repeats one, so that both ranks have 3.
    return generate_pseudo_labels(build_model(), loader(ToyClips(5), 2),
                                  out_file, f'{out_file}.pkl')


def test_two_processes_equal_one(gloo, tmp_path):
    counts = label_on_rank(str(tmp_path / 'one.json'))
    assert counts['images'] == 5
    assert gloo(label_on_rank, str(tmp_path / 'two.json')) == [counts, {}]
    one, two = (
        json.loads((tmp_path / f'{name}.json').read_text())
        for name in ('one', 'two'))
    assert two['images'] == one['images']
    assert len(two['annotations']) == len(one['annotations']) == 5
    for a, b in zip(one['annotations'], two['annotations']):
        assert a.pop('bbox') == pytest.approx(b.pop('bbox'), abs=1e-3)
        assert a == pytest.approx(b, abs=1e-3)
    with open(tmp_path / 'two.json.pkl', 'rb') as file:
        assert len(pickle.load(file)) == 5
