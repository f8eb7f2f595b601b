# The paper's method on AudioSet-Instruments (docs/training.md).
#   python tools/run_pipeline.py configs/avdet/pipelines/audioset.py --gpus 8
work_root = '{{$AVDET_WORK_DIRS:work_dirs}}'
label_dir = work_root + '/joint_audioset'
detector = 'faster-rcnn_r50-simclr_fpn_audioset'
detector_dir = work_root + '/' + detector
stages = [
    dict(
        name='pretrain',
        script='tools/train.py',
        config='configs/avdet/pretrain_audioset.py'),
    dict(
        name='joint',
        script='tools/train.py',
        config='configs/avdet/joint_audioset.py',
        links=['load_from={pretrain}']),
    # The table of the 13 classes that the test has; the others count as clips
    # without a label.
    dict(
        name='matching',
        script='tools/match_clusters.py',
        args=[
            label_dir + '/self_labels.json', '--clips',
            '{{$AVDET_AUDIOSET:data/audioset}}/instruments13_train.json',
            '--allow-missing', '--method', 'hungarian', 'majority', '1-shot',
            '10-shot', '--out', label_dir + '/matching.json'
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
