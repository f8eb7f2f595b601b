# The demo's stages, without its baselines and its page (make demo):
#   python tools/run_pipeline.py configs/avdet/pipelines/demo.py
work_root = '{{$AVDET_DEMO_DIR:work_dirs/demo}}'
data_root = work_root + '/data'
stages = [
    dict(
        name='clips',
        script='tools/dataset_converters/procedural_clips.py',
        args=[data_root],
        outputs=[data_root + '/train.json', data_root + '/test.json']),
    dict(
        name='pretrain',
        script='tools/train.py',
        config='configs/avdet/pretrain_demo.py',
        args=['--work-dir', work_root + '/pretrain']),
    dict(
        name='joint',
        script='tools/train.py',
        config='configs/avdet/joint_demo.py',
        args=['--work-dir', work_root + '/joint'],
        links=['load_from={pretrain}']),
    dict(
        name='matching',
        script='tools/match_clusters.py',
        args=[
            work_root + '/self_labels.json', '--clips',
            data_root + '/train.json', '--method', 'hungarian', 'majority',
            '1-shot', '10-shot', '--out', work_root + '/matching.json'
        ]),
    dict(
        name='detector',
        script='tools/train.py',
        config='configs/avdet/faster-rcnn_avol-net_fpn_demo.py',
        args=['--work-dir', work_root + '/detector'],
        links=['model.backbone.init_cfg.checkpoint={joint}']),
    dict(
        name='test',
        script='tools/test.py',
        config='configs/avdet/faster-rcnn_avol-net_fpn_demo.py',
        args=['{detector}', '--work-dir', work_root + '/detector/test']),
]
