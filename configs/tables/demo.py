# The paper's Tables 1, 2, 3 and 5 on the demo's clips: every row, from the
# clips to the report. An hour or two on two CPU cores.
#   python tools/run_pipeline.py configs/tables/demo.py --dry-run
#   python tools/run_pipeline.py configs/tables/demo.py
#   python tools/report.py configs/tables/demo.py    # of what is there so far
work_root = '{{$AVDET_DEMO_DIR:work_dirs/demo}}'
data_root = work_root + '/data'
out = work_root + '/report'
detector = 'configs/avdet/faster-rcnn_avol-net_fpn_demo'
joint = 'configs/avdet/joint_demo.py'
center_box = 'configs/baselines/center-box_demo.py'
# The other settings of these evaluators are those of the config.
boxes_as_maps = [
    'type=avdet_mm.SoundLocalizationMetric', 'source=boxes',
    'protocols=[dsol_single,dsol_multi]'
]


def train(name, config, detector=False, localizer='joint'):
    """A training in the folder of its name."""
    backbone = ['model.backbone.init_cfg.checkpoint={' + localizer + '}']
    return dict(
        name=name,
        script='tools/train.py',
        config=config,
        args=['--work-dir', f'{work_root}/{name}'],
        links=backbone if detector else [])


def match(folder, labels, out):
    """All matchings that the demo's classes allow; there are no groups."""
    return dict(
        name='matching' + folder,
        script='tools/match_clusters.py',
        args=[
            labels, '--clips', data_root + '/train.json', '--method',
            'hungarian', 'majority', '1-shot', '10-shot', '--out', out
        ])


def test(name,
         config,
         checkpoint=None,
         images=False,
         clips=('test', 'duet'),
         folder='test',
         links=()):
    """Tests on some of the demo's test sets, as clips or as images."""
    stages = []
    for data in clips:
        # Folders are called test, test-duet and test-solo.
        place = folder + (f'-{data}' if data != 'test' else '')
        path = f'{work_root}/{name}/{place}'
        outputs = [path + '/evaluation.json']
        options = list(links)
        if keep in options:
            options[options.index(keep)] += path + '/detections'
            outputs.append(path + '/detections.bbox.json')
        if images and data != 'test':
            options += [
                f'test_dataloader.dataset.ann_file={data}_coco.json',
                f'test_dataloader.dataset.data_prefix.img={data}_images/',
                f'test_evaluator.ann_file={data_root}/{data}_coco.json'
            ]
        elif data != 'test':
            options.append(f'test_dataloader.dataset.ann_file={data}.json')
        stages.append(
            dict(
                name=f'{name}-{place}',
                script='tools/test.py',
                config=config,
                args=[
                    *(['{' + checkpoint + '}'] if checkpoint else []),
                    '--work-dir', path
                ],
                links=options,
                outputs=outputs))
    return stages


keep = 'test_evaluator.outfile_prefix='
as_maps = ['test_evaluator.' + setting for setting in boxes_as_maps]
first_as_maps = ['test_evaluator.0.' + setting for setting in boxes_as_maps]
heatmaps = [
    'test_evaluator.0.type=avdet_mm.SoundLocalizationMetric',
    'test_evaluator.0.protocols=[dsol_single,dsol_multi]',
    # As of the baselines (configs/baselines/_base_/demo.py).
    'test_evaluator.0.single_thr=0.5',
    'test_evaluator.0.multi_thr=0.5',
    'test_evaluator.1.type=avdet_mm.SoundLocalizationMetric',
    'test_evaluator.1.protocols=[dsol_single,dsol_multi]',
    'test_evaluator.1.prefix=ssl_music'
]
# Those of Table 2: one object sounds and nothing else could, or two sound.
sounds = ('solo', 'duet')
stages = [
    dict(
        name='clips',
        script='tools/dataset_converters/procedural_clips.py',
        args=[data_root],
        outputs=[
            data_root + f'/{name}.json'
            for data in ('train', 'test', 'duet', 'solo')
            for name in (data, data + '_coco')
        ]),
    # The method.
    train('pretrain', 'configs/avdet/pretrain_demo.py'),
    dict(train('joint', joint), links=['load_from={pretrain}']),
    match('', work_root + '/self_labels.json', work_root + '/matching.json'),
    train('detector', detector + '.py', True),
    dict(
        name='weak-labels',
        script='tools/generate_pseudo_labels.py',
        config='configs/avdet/weak_demo.py',
        args=['{joint}']),
    train('detector-weak', detector + '-weak.py', True),
    train('ceiling', detector + '-gt.py', True),
    # Other numbers of clusters.
    *[
        stage for k in (6, 12) for stage in (
            dict(
                train(f'joint_k{k}', f'configs/avdet/joint_demo_k{k}.py'),
                links=['load_from={pretrain}']),
            match(f'-k{k}', f'{work_root}/self_labels_k{k}.json',
                  f'{work_root}/matching_k{k}.json'),
            train(f'detector_k{k}', f'{detector}_k{k}.py', True,
                  f'joint_k{k}'),
        )
    ],
    # Baselines of Table 1.
    train('rpn', 'configs/baselines/rpn_demo.py', True),
    train('pcl', 'configs/baselines/pcl_demo.py', True),
    # Baselines of Table 2.
    *[
        train(name, f'configs/baselines/{name}_demo.py')
        for name in ('objects-that-sound', 'attention', 'dmc')
    ],
    dict(
        train('sound-of-pixels', 'configs/baselines/sound-of-pixels_demo.py'),
        links=['model.visual_backbone.init_cfg.checkpoint={pretrain}']),
    dict(
        train('dsol-stage1', 'configs/baselines/dsol-stage1_demo.py'),
        links=['load_from={objects-that-sound}']),
    dict(
        train('dsol-stage2', 'configs/baselines/dsol-stage2_demo.py'),
        links=['load_from={dsol-stage1}']),
    match('-dsol', work_root + '/dsol-stage2/self_labels.json',
          work_root + '/dsol-stage2/matching.json'),
    # Tests for Table 1.
    *test('pcl', 'configs/baselines/pcl_demo.py', 'pcl', True),
    *test('detector-weak', detector + '-weak.py', 'detector-weak', True),
    *test('center-box', center_box),
    *test(
        'selective-search',
        'configs/baselines/selective-search_demo.py',
        images=True),
    *test('rpn', 'configs/baselines/rpn_demo.py', 'rpn', True),
    *test('joint', joint, 'joint'),
    *test('detector', detector + '.py', 'detector', True, links=[keep]),
    *test('ceiling', detector + '-gt.py', 'ceiling', True),
    # Tests for Table 5.
    *[
        stage for k in (6, 12)
        for stage in test(f'detector_k{k}', f'{detector}_k{k}.py',
                          f'detector_k{k}', True)
    ],
    # Tests for Table 2.
    *[
        stage for name in ('sound-of-pixels', 'objects-that-sound',
                           'attention', 'dmc')
        for stage in test(
            name, f'configs/baselines/{name}_demo.py', name, clips=sounds)
    ],
    # It tells no classes of objects apart.
    *test(
        'dsol-stage1',
        'configs/baselines/dsol-stage1_demo.py',
        'dsol-stage1',
        clips=['solo']),
    *test(
        'dsol-stage2',
        'configs/baselines/dsol-stage2_demo.py',
        'dsol-stage2',
        clips=sounds,
        links=[
            f'test_evaluator.{i}.matching={work_root}/dsol-stage2/'
            'matching.json' for i in (1, 2)
        ]),
    *test('detector', detector + '.py', 'detector', True, sounds, 'maps',
          as_maps),
    *test('joint', joint, 'joint', False, sounds, 'maps', heatmaps),
    *test(
        'center-box',
        center_box,
        clips=sounds,
        folder='maps-full',
        links=[*first_as_maps, 'model.side=1.0']),
    *test(
        'center-box',
        center_box,
        clips=sounds,
        folder='maps',
        links=first_as_maps),
]


def detection(name, folder, paper=None, agnostic=False, main=False):
    """A row of Table 1."""
    place = f'{work_root}/{folder}/test'
    return dict(
        name=name,
        runs={
            'test clips': place,
            'duets': place + '-duet'
        },
        paper=paper,
        agnostic=agnostic,
        main=main)


def localization(name, folder, paper=None, main=False, multi=True):
    """A row of Table 2."""
    runs = {'single-instr.': f'{work_root}/{folder}-solo'}
    if multi:
        runs['multi-instr.'] = f'{work_root}/{folder}-duet'
    return dict(name=name, runs=runs, paper=paper, main=main)


of_heatmaps = [
    localization('Sound of Pixels', 'sound-of-pixels/test', 'Sound of pixels'),
    localization('Objects that Sound', 'objects-that-sound/test',
                 'Object t. Sound'),
    localization('Attention', 'attention/test', 'Attention'),
    localization('DMC', 'dmc/test', 'DMC'),
    localization('DSOL, stage 1', 'dsol-stage1/test', multi=False),
    localization('DSOL', 'dsol-stage2/test', 'DSOL'),
    localization("Ours, localizer's heatmap", 'joint/maps'),
]
report = dict(
    title='Every table on the demo clips',
    about='Generated clips, small networks, minutes of training on a CPU. '
    "Columns of the paper are of other data: only the order of a table's "
    'rows can be compared with them.',
    out=out,
    clusters=work_root + '/joint/test',
    gallery=dict(
        name='Ours - full',
        run=work_root + '/detector/test',
        images=data_root + '/test_images'),
    tables=[
        dict(
            table='table1',
            paper=['VGGSound'],
            notes=[
                'In a test clip one object sounds, in a duet two do; others '
                'are silent, but count as objects.',
                "RPN is trained on the training images' boxes here, in place "
                'of COCO.'
            ],
            rows=[
                detection('PCL', 'pcl', 'PCL (WSOD)'),
                detection('Ours - weak sup.', 'detector-weak',
                          'Ours - weak sup.'),
                detection('Ours - full', 'detector', 'Ours - full', main=True),
                detection('Ceiling: ground-truth boxes', 'ceiling'),
                detection('Center Box', 'center-box', 'Center Box*', True),
                detection('Selective Search', 'selective-search',
                          'Selective Search*', True),
                detection('RPN', 'rpn', 'COCO-trained RPN*', True),
                detection('Ours - self-boxes', 'joint', 'Ours - self-boxes*',
                          True),
                detection('Ours - full', 'detector', None, True, True),
                detection('Ceiling: ground-truth boxes', 'ceiling', None,
                          True),
            ]),
        dict(
            table='table2',
            title='Sound localization',
            notes=[
                'Single: solos, in which one object sounds and no other '
                'could. Multi: duets.',
                'Trivial rows look at nothing; the box has 0.6 of each side.',
                'DSOL, stage 1, has no classes of objects.',
                "The frame network of Sound of Pixels starts from our "
                "localizer's pre-training, in place of ImageNet's."
            ],
            rows=[
                *of_heatmaps,
                localization("Ours, union of the detector's boxes",
                             'detector/maps', 'Ours', True),
                localization('Trivial: full frame', 'center-box/maps-full'),
                localization('Trivial: centered box', 'center-box/maps'),
            ]),
        dict(
            table='table2',
            key='table2_music',
            prefix='ssl_music',
            title='Sound localization, heatmaps at lower thresholds',
            paper=False,
            rows=of_heatmaps),
        dict(
            table='table3',
            rows=[
                dict(
                    name='Ours - full, test clips',
                    run=work_root + '/detector/test'),
                dict(
                    name='Ours - full, duets',
                    run=work_root + '/detector/test-duet'),
            ]),
        dict(
            table='table5_k',
            paper=[],
            notes=['The clips have 8 classes.'],
            rows=[
                detection('K = 6', 'detector_k6'),
                detection('K = 8', 'detector', main=True),
                detection('K = 12', 'detector_k12'),
            ]),
        dict(
            table='table5_matching',
            paper=['VGGSound'],
            notes=['Test clips.'],
            rows=[
                dict(
                    name='Ours - full',
                    runs={
                        'K = 6': work_root + '/detector_k6/test',
                        'K = 8': work_root + '/detector/test',
                        'K = 12': work_root + '/detector_k12/test'
                    })
            ]),
    ])
stages.append(
    dict(
        name='report',
        script='tools/report.py',
        config='configs/tables/demo.py',
        args=['--out', out],
        inputs=[
            path for stage in stages for path in stage.get('outputs', ())
            if path.endswith(('evaluation.json', '.bbox.json'))
        ]))
