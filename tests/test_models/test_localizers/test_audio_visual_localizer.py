"""Tests of the localizer."""
import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate

from avdet_mm.models.localizers import AudioVisualLocalizer
from avdet_mm.registry import MODELS
from avdet_mm.structures import AudioVisualDataSample
from tests.toy import ToyClips, model_cfg


def build(**kwargs):
    torch.manual_seed(0)
    return MODELS.build(model_cfg(**kwargs))


def batch_of(model, indices, training=False, image_size=32):
    dataset = ToyClips(image_size=image_size)
    return model.data_preprocessor(
        pseudo_collate([dataset[i] for i in indices]), training)


@pytest.mark.parametrize('image_size', [32, 48])
def test_tensor_mode(image_size):
    model = build(num_clusters=5)
    data = batch_of(model, [0, 1, 2], image_size=image_size)
    assert data['inputs']['audio'].shape == (3, 1, 16, 20)
    outs = model(**data)
    cells = image_size // 8
    assert {k: tuple(v.shape) for k, v in outs.items()} == dict(
        visual=(3, 16, cells, cells),
        audio=(3, 16),
        visual_logits=(3, 5),
        audio_logits=(3, 5))
    assert set(build()(data['inputs'], mode='tensor')) == {'visual', 'audio'}


def test_audio_features_are_averaged():
    model = build().eval()
    inputs = batch_of(model, [3, 4])['inputs']
    visual, audio = model.extract_feat(**inputs)
    feature_map, = model.audio_backbone(inputs['audio'])
    assert feature_map.shape == (2, 32, 1, 1)
    wide = torch.randn(2, 1, 64, 48)
    feature_map, = model.audio_backbone(wide)
    _, audio = model.extract_feat(inputs['frame'], wide)
    assert feature_map.shape == (2, 32, 4, 3)
    torch.testing.assert_close(audio, feature_map.flatten(2).sum(2) / 12)
    assert visual.shape == (2, 32, 4, 4)


def test_localization_alone():
    model = build()
    data = batch_of(model, [0, 1, 2, 3])
    losses = model(**data, mode='loss')
    outs = model(data['inputs'])
    expected = model.localization_head.loss(outs['visual'], outs['audio'])
    assert set(losses) == {'loss_loc', 'loc_chance', 'retrieval', 'scale'}
    torch.testing.assert_close(losses['loss_loc'], expected['loss_loc'])


@pytest.mark.parametrize('loc_weight', [0., 0.3, 0.5, 1.])
def test_equation_4(loc_weight):
    model = build(num_clusters=5, loc_weight=loc_weight)
    data = batch_of(model, [7, 2, 9])
    model.self_labels = torch.arange(12) % 5
    losses = model(**data, mode='loss')
    outs = model(data['inputs'])
    loc = model.localization_head.loss(outs['visual'],
                                       outs['audio'])['loss_loc']
    # Labels belong to clips, not to places in the batch: 7, 2 and 9.
    labels = torch.tensor([2, 2, 4])
    clus = 0.
    for name in ('visual', 'audio'):
        log_p = outs[f'{name}_logits'].log_softmax(1)
        clus = clus - 0.5 * log_p[range(3), labels].mean()
    total, log = model.parse_losses(losses)
    torch.testing.assert_close(total,
                               loc_weight * loc + (1 - loc_weight) * clus)
    torch.testing.assert_close(losses['loss_loc'], loc_weight * loc)
    assert {k for k in losses if 'loss' in k} == {
        'loss_loc', 'loss_cluster_visual', 'loss_cluster_audio'
    }


def test_every_parameter_learns():
    model = build(num_clusters=5)
    model.self_labels = torch.arange(12) % 5
    losses = model(**batch_of(model, [0, 1, 2, 3, 4, 5]), mode='loss')
    model.parse_losses(losses)[0].backward()
    for name, p in model.named_parameters():
        assert p.grad is not None and torch.isfinite(p.grad).all(), name
        if name.endswith('conv.weight'):
            assert p.grad.abs().max() > 0, name


def test_no_labels():
    model = build(num_clusters=5)
    with pytest.raises(RuntimeError, match='SelfLabelHook'):
        model(**batch_of(model, [0, 1]), mode='loss')


def test_silent_and_equal_clips_stay_finite():
    model = build(num_clusters=2)
    model.self_labels = torch.zeros(12, dtype=torch.long)
    data = pseudo_collate([ToyClips()[0]] * 4)
    data['inputs']['audio'] = [torch.zeros(2000)] * 4
    losses = model(**model.data_preprocessor(data), mode='loss')
    total, _ = model.parse_losses(losses)
    total.backward()
    assert torch.isfinite(total)
    assert losses['loc_chance'].item() == pytest.approx(np.log(4))
    # Batch norm of equal clips gives 0: nothing can be told apart.
    assert losses['loss_loc'].item() == pytest.approx(
        0.5 * np.log(4), abs=1e-4)
    for name, p in model.named_parameters():
        assert torch.isfinite(p.grad).all(), name


def sample_of(homography=None, ori_shape=(64, 64)):
    return AudioVisualDataSample(
        metainfo=dict(
            sample_idx=0,
            ori_shape=ori_shape,
            homography_matrix=np.eye(3, dtype=np.float32)
            if homography is None else homography))


def outs_with_peak(y, x, cells=8):
    """Cosine 1 at a block of 2 x 2 cells, 0 elsewhere."""
    visual = torch.zeros(1, 2, cells, cells)
    visual[0, 1] = 1
    visual[0, :, y:y + 2, x:x + 2] = torch.tensor([1., 0.]).view(2, 1, 1)
    return dict(visual=visual, audio=torch.tensor([[1., 0.]]))


def test_predict_heatmap_and_box():
    model = build().eval()
    model.box_extractor.beta_range = (0., 0.)
    model.box_extractor.beta_on = 'max'  # threshold: the mean
    outs = outs_with_peak(2, 4)
    result, = model.predict(outs, [sample_of(ori_shape=(8, 8))], (8, 8))
    expected = torch.zeros(8, 8)
    expected[2:4, 4:6] = 1
    assert torch.equal(result.heatmap, expected)
    pred = result.pred_instances
    assert pred.bboxes.tolist() == [[4, 2, 6, 4]]
    assert pred.scores.tolist() == [1]
    assert pred.labels.tolist() == [0]
    assert pred.labels.dtype == torch.int64
    assert 'label_scores' not in pred and 'visual_logits' not in result


def test_box_is_mapped_back_to_the_original_frame():
    # The original frame of 400 x 300 was halved to 200 x 150, cropped to
    # 128 x 128 at (30, 10) and flipped: x' = 128 - (x / 2 - 30).
    homography = np.array([[-.5, 0, 158], [0, .5, -10], [0, 0, 1]],
                          np.float32)
    model = build().eval()
    outs = outs_with_peak(2, 4)  # cells of 16 pixels
    sample = sample_of(homography, (300, 400))
    result, = model.predict(outs, [sample], (128, 128))
    direct, = model.predict(outs, [sample_of(ori_shape=(128, 128))],
                            (128, 128))
    x1, y1, x2, y2 = direct.pred_instances.bboxes[0].tolist()
    # Around the block, symmetric about its center (80, 48).
    assert (x1 + x2, y1 + y2) == (160, 96)
    assert 24 <= x2 - x1 <= 56
    assert result.pred_instances.bboxes.tolist() == [[
        2 * (158 - x2), 2 * (y1 + 10), 2 * (158 - x1), 2 * (y2 + 10)
    ]]


def test_label_by_equation_6():
    model = build(num_clusters=3).eval()
    visual, audio = [.5, .4, .1], [.1, .4, .5]
    outs = dict(
        outs_with_peak(2, 4),
        visual_logits=torch.tensor([visual]).log() + 3,
        audio_logits=torch.tensor([audio]).log() - 70)
    result, = model.predict(outs, [sample_of()], (64, 64))
    # Either head alone prefers another cluster; products: .05, .16, .05.
    assert result.pred_instances.labels.tolist() == [1]
    assert result.pred_instances.label_scores.tolist() == pytest.approx(
        [.16 / .26])
    torch.testing.assert_close(result.visual_logits, outs['visual_logits'][0])
    torch.testing.assert_close(result.audio_logits, outs['audio_logits'][0])


def test_all_boxes_of_a_frame_have_its_label():
    model = build(
        num_clusters=4,
        box_extractor=dict(type='avdet_mm.HeatmapBoxExtractor',
                           multi=True)).eval()
    outs = outs_with_peak(0, 0)
    outs['visual'] = torch.maximum(outs['visual'],
                                   outs_with_peak(5, 5)['visual'])
    outs['visual'][:, 1] = 1 - outs['visual'][:, 0]
    logits = torch.tensor([[0., 0., 9., 0.]])
    outs.update(visual_logits=logits, audio_logits=logits)
    result, = model.predict(outs, [sample_of()], (64, 64))
    pred = result.pred_instances
    assert len(pred.bboxes) == 2
    assert pred.labels.tolist() == [2, 2]
    assert pred.label_scores.shape == (2, )


def test_constant_heatmap_has_no_box():
    model = build(num_clusters=4).eval()
    outs = dict(
        visual=torch.ones(1, 2, 8, 8) * 0.6,
        audio=torch.tensor([[1., 0.]]),
        visual_logits=torch.zeros(1, 4),
        audio_logits=torch.zeros(1, 4))
    result, = model.predict(outs, [sample_of()], (64, 64))
    assert {k: tuple(v.shape) for k, v in result.pred_instances.items()} == {
        'bboxes': (0, 4),
        'scores': (0, ),
        'labels': (0, ),
        'label_scores': (0, )
    }


def test_predict_mode_does_not_mix_clips():
    model = build(num_clusters=4).eval()
    together = model(**batch_of(model, [0, 5, 11]), mode='predict')
    assert [s.clip_id for s in together] == ['clip_000', 'clip_005',
                                             'clip_011']
    for i, sample in zip((0, 5, 11), together):
        assert sample.heatmap.shape == (4, 4)
        assert sample.heatmap.abs().max() <= 1 + 1e-6
        alone, = model(**batch_of(model, [i]), mode='predict')
        torch.testing.assert_close(sample.heatmap, alone.heatmap)
        torch.testing.assert_close(sample.pred_instances.bboxes,
                                   alone.pred_instances.bboxes)
        torch.testing.assert_close(sample.visual_logits, alone.visual_logits)


def test_self_labels_are_no_part_of_the_state_dict():
    model = build(num_clusters=4)
    keys = set(model.state_dict())
    model.self_labels = torch.zeros(12, dtype=torch.long)
    assert set(model.state_dict()) == keys
    assert 'data_preprocessor.audio_mean' in keys


def test_defaults():
    cfg = model_cfg()
    for key in ('data_preprocessor', 'cluster_head'):
        cfg.pop(key)
    cfg.pop('type')
    model = AudioVisualLocalizer(**cfg)
    assert model.cluster_head is None
    assert model.loc_weight == 0.5
    assert model.data_preprocessor.log_mel(torch.zeros(
        1, 24000)).shape == (1, 1, 257, 99)


def test_bad_mode():
    model = build()
    with pytest.raises(ValueError, match='mode'):
        model(**batch_of(model, [0, 1]), mode='train')


@pytest.mark.parametrize('loc_weight', [-0.1, 1.1])
def test_bad_weight(loc_weight):
    with pytest.raises(ValueError, match='loc_weight'):
        build(loc_weight=loc_weight)


def test_mean_of_a_frame_and_its_mirror_image():
    torch.manual_seed(0)
    model = MODELS.build(model_cfg(num_clusters=3, flip_test=True))
    frame, audio = torch.randn(4, 3, 32, 32), torch.randn(4, 1, 16, 20)
    # In train mode nothing changes.
    assert model.train().encode(frame, audio)['visual'].norm(
        dim=1).sub(1).abs().max() < 1e-5
    model.eval()
    found = model.encode(frame, audio)
    model.flip_test = False
    one, two = model.encode(frame, audio), model.encode(frame.flip(3), audio)
    torch.testing.assert_close(
        model.heatmaps(found),
        (model.heatmaps(one) + model.heatmaps(two).flip(2)) / 2)
    torch.testing.assert_close(
        found['visual_logits'],
        (one['visual_logits'] + two['visual_logits']) / 2)
    assert torch.equal(found['audio_logits'], one['audio_logits'])
    assert (model.heatmaps(found) - model.heatmaps(one)).abs().max() > 1e-3


def test_filtered_heatmaps():
    model = build(heatmap_filter=dict(type='avdet_mm.GuidedFilter'))
    data = batch_of(model, [0, 1, 2])
    assert 'frame' not in model.train()(data['inputs'])
    outs = model.eval()(data['inputs'])
    cosines = model.localization_head.heatmaps(outs['visual'], outs['audio'])
    assert cosines.shape == (3, 4, 4)
    expected = model.heatmap_filter(cosines, data['inputs']['frame'])
    for i, sample in enumerate(model(**data, mode='predict')):
        assert sample.heatmap.shape == (16, 16)
        assert torch.equal(sample.heatmap, expected[i])
        boxes = model.box_extractor(expected, (32, 32))[i][0]
        assert torch.equal(sample.pred_instances.bboxes, boxes)


def with_appearance(**kwargs):
    cfg = model_cfg(num_clusters=3, **kwargs)
    cfg['visual_backbone'].update(out_indices=(0, 3))
    channels = MODELS.build(cfg['visual_backbone']).out_channels[0]
    torch.manual_seed(0)
    return MODELS.build(
        dict(
            cfg,
            appearance_head=dict(
                type='avdet_mm.AppearanceHead', in_channels=channels)))


@pytest.mark.parametrize('filtered', [False, True])
def test_heatmaps_by_looks(filtered):
    model = with_appearance(
        heatmap_filter=dict(type='avdet_mm.GuidedFilter')
        if filtered else None)
    data = batch_of(model, [0, 1, 2])
    frame = data['inputs']['frame']
    outs = model.eval()(data['inputs'])
    assert outs['looks'].shape == (3, 64, 16, 16)
    cosines = model.localization_head.heatmaps(outs['visual'], outs['audio'])
    expected = model.appearance_head.predict(outs['looks'], cosines,
                                             model.classify(outs)[0])
    if filtered:
        expected = model.heatmap_filter(expected, frame)
    for i, sample in enumerate(model(**data, mode='predict')):
        torch.testing.assert_close(sample.heatmap, expected[i])
    # And the mean over a frame and its mirror image.
    mirrored = model.encode(frame.flip(3), data['inputs']['audio'])
    model.flip_test = True
    torch.testing.assert_close(
        model.encode(**data['inputs'])['looks'],
        (outs['looks'] + mirrored['looks'].flip(3)) / 2)


@pytest.mark.parametrize('filtered', [False, True])
def test_looks_are_learned_from_heatmaps_alone(filtered):
    kwargs = dict(
        heatmap_filter=dict(type='avdet_mm.GuidedFilter')
        if filtered else None)
    model = with_appearance(**kwargs)
    data = batch_of(model, [7, 2, 9], training=True)
    model.self_labels = torch.arange(12) % 3
    labels = torch.tensor([1, 2, 0])
    losses = model(**data, mode='loss')
    outs = model(data['inputs'])
    heatmaps = model.localization_head.heatmaps(outs['visual'], outs['audio'])
    if filtered:
        heatmaps = model.heatmap_filter(heatmaps, data['inputs']['frame'],
                                        (16, 16))
    expected = model.appearance_head.loss(outs['looks'], heatmaps, labels)
    torch.testing.assert_close(losses['loss_appearance'],
                               expected['loss_appearance'])
    # The localizer's gradients are those without the head.
    losses['loss_appearance'].backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == name.startswith('appearance')


def test_looks_need_clusters():
    with pytest.raises(ValueError, match='needs a cluster_head'):
        build(appearance_head=dict(type='avdet_mm.AppearanceHead'))


def test_looks_need_two_outputs():
    model = build(
        num_clusters=3,
        appearance_head=dict(type='avdet_mm.AppearanceHead', in_channels=32))
    with pytest.raises(ValueError, match='set its out_indices'):
        model(**batch_of(model, [0, 1]), mode='tensor')


def test_sound_of_a_mirrored_frame_is_encoded_once():
    model = build(flip_test=True).eval()
    calls = []
    model.audio_backbone.register_forward_hook(
        lambda *args: calls.append(args))
    model(**batch_of(model, [0, 1]), mode='tensor')
    assert len(calls) == 1


@pytest.mark.parametrize('num_clusters', [None, 3])
def test_visual_self_supervision(num_clusters):
    cfg = model_cfg(num_clusters)
    channels = MODELS.build(cfg['visual_backbone']).out_channels[-1]
    torch.manual_seed(0)
    model = MODELS.build(
        dict(
            cfg,
            visual_contrast_head=dict(
                type='avdet_mm.VisualContrastHead', in_channels=channels)))
    data = batch_of(model, [7, 2, 9], training=True)
    model.self_labels = torch.arange(12) % 3
    head, frame = model.visual_contrast_head, data['inputs']['frame']
    torch.manual_seed(1)
    losses = model(**data, mode='loss')
    assert 'loss_loc' in losses
    torch.manual_seed(1)
    view = head.other_view(frame)
    expected = head.loss(
        head(model.visual_backbone(frame)[-1]),
        head(model.visual_backbone(view)[-1]))
    torch.testing.assert_close(losses['loss_visual_contrast'],
                               expected['loss_visual_contrast'])
    losses['loss_visual_contrast'].backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == name.startswith('visual')
    # Only training sees another view.
    assert 'view' not in model.eval()(data['inputs'])


def test_embeddings_are_kept_if_asked_for():
    model = build(keep_embeddings=True).eval()
    data = batch_of(model, [0, 1, 2])
    outs = model(data['inputs'])
    for i, sample in enumerate(model(**data, mode='predict')):
        assert torch.equal(sample.visual_embedding, outs['visual'][i])
        assert torch.equal(sample.audio_embedding, outs['audio'][i])
    model.keep_embeddings = False
    data = batch_of(model, [0, 1, 2])
    assert 'visual_embedding' not in model(**data, mode='predict')[0]
