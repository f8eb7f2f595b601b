# The test images of the paper's Table 1 for methods whose boxes have no
# class; nothing is trained.
_base_ = ['mmdet::_base_/default_runtime.py']
custom_imports = dict(imports=['avdet_mm'], allow_failed_imports=False)
work_root = '{{$AVDET_WORK_DIRS:work_dirs}}'
data_root = '{{$AVDET_VGGSOUND:data/vggsound}}'
test_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=False,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CocoDataset',
        data_root=data_root,
        ann_file='test_coco.json',
        # Its file names are relative to it, as the converters write them.
        data_prefix=dict(img=''),
        metainfo=dict(
            classes=('Accordion', 'Cello', 'Flute', 'Guitar', 'Harp', 'Oboe',
                     'Piano', 'Saxophone', 'Trombone', 'Trumpet', 'Violin',
                     'Banjo', 'Harmonica', 'Horn', 'Drum')),
        test_mode=True))
test_evaluator = dict(
    type='avdet_mm.MatchedCocoMetric',
    ann_file=data_root + '/test_coco.json',
    class_aware=False)
test_cfg = dict(type='TestLoop')
