"""Tests of self-labels as a COCO json."""
import json
import os
import os.path as osp
import pickle
import resource

import cv2
import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from pycocotools.coco import COCO

from avdet_mm import __version__
from avdet_mm.apis import generate_pseudo_labels
from avdet_mm.datasets.clip_table import split_hash
from avdet_mm.datasets.coco import to_coco
from avdet_mm.datasets.metainfo import load_label_map
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
    assert info['label_source'] == 'cluster' and 'label_map' not in info
    assert info['split_hash'] == split_hash(dataset.clip_ids)
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


@pytest.mark.parametrize('num_clusters', [None, K])
def test_dump_and_json_are_the_predictions(num_clusters, tmp_path):
    model = build_model(
        num_clusters,
        box_extractor=dict(
            type='avdet_mm.HeatmapBoxExtractor', multi=True, beta=0.9))
    dataset, out = ToyClips(7), tmp_path / 'a.json'
    generate_pseudo_labels(model, loader(dataset), str(out),
                           str(tmp_path / 'dump.pkl'))
    with open(tmp_path / 'dump.pkl', 'rb') as file:
        dumps = pickle.load(file)
    images = []
    for i, dump in enumerate(dumps):
        data = model.data_preprocessor(pseudo_collate([dataset[i]]))
        with torch.no_grad():
            sample, = model(**data, mode='predict')
        expected = sample.to_dict()
        assert dump.keys() == expected.keys()
        a, b = dump['pred_instances'], expected['pred_instances']
        assert a.keys() == b.keys()
        for key in a:
            assert a[key].dtype == b[key].dtype
            torch.testing.assert_close(a[key], b[key])
        for key in {'heatmap', 'visual_logits', 'audio_logits'} & dump.keys():
            torch.testing.assert_close(dump[key], expected[key])
            # No view of the batch is pickled.
            assert dump[key].untyped_storage().nbytes() == 4 * dump[
                key].numel()
        assert dump['clip_id'] == expected['clip_id']
        images.append(
            dict(
                file_name=osp.relpath(dump['img_path'], tmp_path),
                height=32,
                width=32,
                clip_id=dump['clip_id'],
                time=0.5,
                instances=[
                    dict(bbox=x, score=s, label_score=t, label=str(y))
                    for x, s, t, y in zip(
                        a['bboxes'].tolist(), a['scores'].tolist(),
                        a.get('label_scores', a['scores']).tolist(),
                        a['labels'].tolist())
                ]))
    assert any(len(image['instances']) > 1 for image in images)
    coco = json.loads(out.read_text())
    expected = to_coco(images, [str(k) for k in range(num_clusters or 1)])
    assert coco['images'] == expected['images']
    assert coco['annotations'] == expected['annotations']
    assert list(coco['annotations'][0]) == list(expected['annotations'][0])


class LabeledClips(ToyClips):
    """Clips with classes; every fifth has none."""

    metainfo = dict(
        classes=['playing harp', 'playing cello', 'playing double bass'])

    def __getitem__(self, i):
        data = super().__getitem__(i)
        if i % 5 != 4:
            data['data_samples'].set_metainfo(dict(gt_label=i % 3))
        return data


@pytest.mark.parametrize('num_clusters', [None, K])
def test_classes_of_the_clips(num_clusters, tmp_path, caplog):
    dataset, out = LabeledClips(11), tmp_path / 'a.json'
    counts = generate_pseudo_labels(
        build_model(num_clusters), loader(dataset), str(out),
        label_source='ground_truth')
    assert counts == dict(
        images=9, annotations=9, without_box=0, without_label=2)
    coco = COCO(str(out))
    assert [c['name'] for c in coco.dataset['categories']
            ] == dataset.metainfo['classes']
    labeled = [i for i in range(11) if i % 5 != 4]
    assert [x['clip_id'] for x in coco.dataset['images']
            ] == [dataset.clip_ids[i] for i in labeled]
    assert [x['id'] for x in coco.dataset['images']] == list(range(9))
    for image, i in zip(coco.dataset['images'], labeled):
        ann, = coco.imgToAnns[image['id']]
        assert ann['category_id'] == i % 3
        assert ann['label_score'] == 1
        assert -1 <= ann['score'] <= 1
    info = coco.dataset['info']
    assert info['label_source'] == 'ground_truth'
    assert info['split_hash'] == split_hash(
        dataset.clip_ids[i] for i in labeled)
    # The same boxes as with clusters.
    generate_pseudo_labels(
        build_model(num_clusters), loader(dataset),
        str(tmp_path / 'b.json'))
    boxes = [a['bbox'] for a in json.loads(
        (tmp_path / 'b.json').read_text())['annotations']]
    assert [a['bbox'] for a in coco.dataset['annotations']
            ] == [boxes[i] for i in labeled]


def test_merged_classes(tmp_path):
    dataset, out = LabeledClips(6), tmp_path / 'a.json'
    dataset.metainfo = dict(
        classes=['playing harp', 'barking', 'playing double bass'])
    counts = generate_pseudo_labels(
        build_model(), loader(dataset), str(out),
        label_source='ground_truth', label_map='vggsound_groups')
    # 1 is barking, 4 has no label.
    assert counts['without_label'] == 2
    coco = json.loads(out.read_text())
    names = load_label_map('vggsound_groups').classes
    assert [c['name'] for c in coco['categories']] == list(names)
    assert [names[a['category_id']] for a in coco['annotations']
            ] == ['Harp', 'Cello', 'Harp', 'Cello']
    assert coco['info']['label_map'] == 'vggsound_groups'


def test_names_of_a_label_map_and_other_spellings(tmp_path):
    path = tmp_path / 'map.json'
    path.write_text(json.dumps(dict(
        classes=['strings', 'bark'], mapping={'harp': 'strings'},
        aliases={'playing harp': 'harp', 'barking': 'bark'})))
    dataset, out = LabeledClips(4), tmp_path / 'a.json'
    dataset.metainfo = dict(classes=['playing harp', 'barking', 'bark'])
    generate_pseudo_labels(
        build_model(), loader(dataset), str(out),
        label_source='ground_truth', label_map=str(path))
    coco = json.loads(out.read_text())
    assert [a['category_id'] for a in coco['annotations']] == [0, 1, 1, 0]


@pytest.mark.parametrize('classes, kwargs, message', [
    (None, dict(label_source='truth'), 'label_source must be'),
    (['a', 'b', 'c'], dict(label_map='vggsound_groups'), 'clusters have'),
    (None, dict(label_source='ground_truth'), 'metainfo "classes"'),
    (['a', 'b', 'c'],
     dict(label_source='ground_truth', label_map='vggsound_groups'),
     r'knows none of the classes of the clip table \(a, b, c\)'),
    (['a', 'b', 'c'],
     dict(label_source='ground_truth', label_map='nonsense'),
     'There is no label map'),
])
def test_labels_that_cannot_be_given(classes, kwargs, message, tmp_path):
    dataset = LabeledClips(3)
    dataset.metainfo = dict(classes=classes)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        generate_pseudo_labels(build_model(), loader(dataset),
                               str(tmp_path / 'a.json'), **kwargs)
    assert files_below(tmp_path) == set()


def test_no_clip_has_a_label(tmp_path):
    dataset = ToyClips(3)
    dataset.metainfo = dict(classes=['a'])
    with pytest.raises(ValueError, match='None of the 3 clips has a label'):
        generate_pseudo_labels(
            build_model(), loader(dataset), str(tmp_path / 'a.json'),
            label_source='ground_truth')
    assert files_below(tmp_path) == set()


def test_a_box_outside_of_the_frame(tmp_path):
    dataset = ToyClips(2)
    data = dataset[1]
    shift = np.array([[1, 0, 90], [0, 1, 0], [0, 0, 1]], np.float32)
    data['data_samples'].set_metainfo(dict(homography_matrix=shift))
    with pytest.raises(ValueError, match='of image 1 is empty'):
        generate_pseudo_labels(build_model(), loader([dataset[0], data]),
                               str(tmp_path / 'a.json'))
    assert files_below(tmp_path) == set()


def test_without_cluster_head(tmp_path):
    out = tmp_path / 'a.json'
    generate_pseudo_labels(build_model(None), loader(ToyClips(4)), str(out))
    coco = json.loads(out.read_text())
    assert coco['categories'] == [dict(id=0, name='cluster_0')]
    assert {a['category_id'] for a in coco['annotations']} == {0}
    assert [x['file_name'] for x in coco['images']] == [
        osp.relpath(f'/images/clip_00{i}.png', tmp_path) for i in range(4)
    ]


def test_many_clips_do_not_hold_files_open(tmp_path):
    # Each tensor of a loader's process is an open file until it is freed.
    class WithBoxes(ToyClips):

        def __getitem__(self, i):
            clip = super().__getitem__(i)
            clip['data_samples'].gt_instances = InstanceData(
                bboxes=torch.full((1, 4), float(i)))
            return clip

    data = Runner.build_dataloader(
        loader_cfg(WithBoxes(120), 4, num_workers=1), seed=0)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir('/proc/self/fd'))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 100, limit[1]))
    try:
        generate_pseudo_labels(build_model(), data, str(tmp_path / 'l.json'),
                               dump_file=str(tmp_path / 'p.pkl'))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    with open(tmp_path / 'p.pkl', 'rb') as file:
        kept = pickle.load(file)
    assert [int(clip['gt_instances']['bboxes'][0, 0])
            for clip in kept] == list(range(120))


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


def label_on_rank(out_file, **kwargs):
    # 5 clips: the sampler repeats one, so that both ranks have 3.
    model = build_model(
        box_extractor=dict(
            type='avdet_mm.HeatmapBoxExtractor', beta=(0.3, 0.9)))
    return generate_pseudo_labels(model, loader(LabeledClips(5), 2), out_file,
                                  f'{out_file}.pkl', **kwargs)


def classes_on_rank(out_file):
    return label_on_rank(out_file, label_source='ground_truth')


@pytest.mark.parametrize('function, number', [(label_on_rank, 5),
                                              (classes_on_rank, 4)])
def test_two_processes_equal_one(function, number, gloo, tmp_path):
    counts = function(str(tmp_path / 'one.json'))
    assert counts['images'] == number
    torch.rand(3)  # A range of beta draws by clip, not from this generator.
    assert gloo(function, str(tmp_path / 'two.json')) == [counts, {}]
    one, two = (
        json.loads((tmp_path / f'{name}.json').read_text())
        for name in ('one', 'two'))
    assert two['images'] == one['images']
    assert len(two['annotations']) == len(one['annotations']) == number
    for a, b in zip(one['annotations'], two['annotations']):
        assert a.pop('bbox') == pytest.approx(b.pop('bbox'), abs=1e-3)
        assert a == pytest.approx(b, abs=1e-3)
    with open(tmp_path / 'two.json.pkl', 'rb') as file:
        assert len(pickle.load(file)) == 5


def test_batches_do_not_change_the_file(tmp_path):
    model = build_model(
        box_extractor=dict(
            type='avdet_mm.HeatmapBoxExtractor', beta=(0.3, 0.9)))
    files = []
    for batch_size in (1, 4, 9):
        out = tmp_path / f'{batch_size}.json'
        generate_pseudo_labels(model, loader(ToyClips(9), batch_size),
                               str(out))
        files.append(json.loads(out.read_text()))
    for coco in files[1:]:
        assert coco['images'] == files[0]['images']
        for a, b in zip(coco['annotations'], files[0]['annotations']):
            assert a.pop('bbox') == pytest.approx(b['bbox'], abs=1e-3)
            assert a == pytest.approx({k: b[k] for k in a}, abs=1e-3)
