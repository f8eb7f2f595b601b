# The paper's method on VGGSound (docs/training.md).
#   python tools/run_pipeline.py configs/avdet/pipelines/vggsound.py --gpus 8
work_root = '{{$AVDET_WORK_DIRS:work_dirs}}'
label_dir = work_root + '/joint_vggsound'
# -online at the end: labels on the fly, as in the paper.
detector = 'faster-rcnn_r50-simclr_fpn_vggsound'
detector_dir = work_root + '/' + detector
stages = [
    dict(
        name='pretrain',
        script='tools/train.py',
        config='configs/avdet/pretrain_audioset.py'),
    dict(
        name='joint',
        script='tools/train.py',
        config='configs/avdet/joint_vggsound.py',
        links=['load_from={pretrain}']),
    dict(
        name='matching',
        script='tools/match_clusters.py',
        args=[
            label_dir + '/self_labels.json', '--clips',
            '{{$AVDET_VGGSOUND:data/vggsound}}/mappable_train.json',
            '--method', 'hungarian', 'majority', 'manual', '1-shot',
            '10-shot', '--label-map', 'vggsound_representative', '--groups',
            'vggsound_groups', '--out', label_dir + '/matching.json'
        ]),
    dict(
        name='detector',
        script='tools/train.py',
        config=f'configs/avdet/{detector}.py'),
    dict(
        name='publish',
        script='tools/model_converters/publish_detector.py',
        args=[
            f'{detector_dir}/{detector}.py', '{detector}', '--matching',
            label_dir + '/matching.json', '--out', detector_dir + '/published'
        ]),
    dict(
        name='test',
        script='tools/test.py',
        config=f'configs/avdet/{detector}.py',
        args=['{detector}']),
]
