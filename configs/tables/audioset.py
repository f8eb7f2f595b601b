# The paper's Tables 1 and 3 on AudioSet and Table 2: every row, from the
# tables of clips (docs/training.md) to the report.
#   python tools/run_pipeline.py configs/tables/audioset.py --gpus 8
#   python tools/report.py configs/tables/audioset.py   # of what is there
# For Table 2 the paper trains on videos with one instrument, which only
# DSOL's lost lists name; here all clips are used.
work_root = '{{$AVDET_WORK_DIRS:work_dirs}}'
data_root = '{{$AVDET_AUDIOSET:data/audioset}}'
coco_rpn = '{{$AVDET_COCO_RPN:checkpoints/rpn_r50_fpn_1x_coco.pth}}'
out = work_root + '/report_audioset'
detector = 'faster-rcnn_r50-simclr_fpn_audioset'
joint = 'configs/avdet/joint_audioset.py'
label_dir = work_root + '/joint_audioset'
# In the order of the label map audioset_instruments13.
classes = ('Banjo', 'Cello', 'Drum', 'Guitar', 'Harp', 'Harmonica', 'Piano',
           'Saxophone', 'Trombone', 'Violin', 'Flute', 'Accordion', 'Horn')
named = '[' + ','.join(classes) + ']'
# Weak supervision: the clips of these 13 classes, of which each has one.
weak_clips = [
    'custom_hooks.4.dataloader.dataset.ann_file=instruments13_train.json'
]
weak = [
    f'train_dataloader.dataset.ann_file={label_dir}/weak_labels.json',
    f'train_dataloader.dataset.data_prefix.img={label_dir}/',
    f'train_dataloader.dataset.metainfo.classes={named}',
    f'test_dataloader.dataset.metainfo.classes={named}'
]
weak_detector = [
    *weak, 'model.roi_head.bbox_head.num_classes=13',
    'test_evaluator.matching=None'
]
on_audioset = [
    f'test_dataloader.dataset.data_root={data_root}',
    f'test_evaluator.ann_file={data_root}/test_coco.json'
]
pcl = [*weak, *on_audioset, 'model.roi_head.num_classes=13']
# The other settings of these evaluators are those of the config.
as_maps = [
    'test_evaluator.type=avdet_mm.SoundLocalizationMetric',
    'test_evaluator.source=boxes',
    'test_evaluator.protocols=[dsol_single,dsol_multi]'
]
heatmaps = [
    'test_evaluator.0.type=avdet_mm.SoundLocalizationMetric',
    'test_evaluator.0.protocols=[dsol_single,dsol_multi]'
]


def train(name, config, folder=None, links=()):
    """A training in the folder of its config."""
    stem = config.split('/')[-1][:-3]
    return dict(
        name=name,
        script='tools/train.py',
        config=config,
        args=['--work-dir', f'{work_root}/{folder or stem}'],
        links=list(links))


def match(name, folder):
    """The matching of the 13 classes that the test has."""
    return dict(
        name=name,
        script='tools/match_clusters.py',
        args=[
            folder + '/self_labels.json', '--clips',
            data_root + '/instruments13_train.json', '--allow-missing',
            '--out', folder + '/matching.json'
        ])


def test(name, config, checkpoint, folder, links=()):
    """A test."""
    place = f'{work_root}/{folder}'
    links = [link.replace('$FOLDER', place) for link in links]
    files = [place + '/evaluation.json']
    if any('outfile_prefix' in link for link in links):
        files.append(place + '/detections.bbox.json')
    return dict(
        name=name,
        script='tools/test.py',
        config=config,
        args=[*([checkpoint] if checkpoint else []), '--work-dir', place],
        links=links,
        outputs=files)


heatmap_methods = ('sound-of-pixels', 'objects-that-sound', 'attention', 'dmc',
                   'dsol-stage1')
center_box = 'configs/baselines/center-box_vggsound.py'
dsol = 'configs/baselines/dsol-stage2_audioset.py'
stages = [
    train('pretrain', 'configs/avdet/pretrain_audioset.py'),
    train('joint', joint, links=['load_from={pretrain}']),
    match('matching', label_dir),
    train('detector', f'configs/avdet/{detector}.py'),
    dict(
        name='weak-labels',
        script='tools/generate_pseudo_labels.py',
        config=joint,
        args=[
            '{joint}', '--label-source', 'ground_truth', '--out',
            label_dir + '/weak_labels.json'
        ],
        links=weak_clips),
    train('weak', f'configs/avdet/{detector}.py', detector + '-weak',
          weak_detector),
    train('pcl', 'configs/baselines/pcl_vggsound.py', 'pcl_audioset', pcl),
    *[
        train(name, f'configs/baselines/{name}_audioset.py')
        for name in heatmap_methods
    ],
    train('dsol-stage2', dsol, links=['load_from={dsol-stage1}']),
    match('matching-dsol', work_root + '/dsol-stage2_audioset'),
    # Tests for Table 1.
    test('test-pcl', 'configs/baselines/pcl_vggsound.py', '{pcl}',
         'pcl_audioset/test', pcl),
    test('test-weak', f'configs/avdet/{detector}.py', '{weak}',
         detector + '-weak/test', weak_detector),
    test('test-center-box', center_box, None, 'center-box_audioset/test',
         on_audioset),
    test('test-selective-search',
         'configs/baselines/selective-search_vggsound.py', None,
         'selective-search_audioset/test', on_audioset),
    test('test-rpn', 'configs/baselines/rpn_coco_vggsound.py', coco_rpn,
         'rpn_coco_audioset/test', on_audioset),
    test('test-joint', joint, '{joint}', 'joint_audioset/test'),
    test('test', f'configs/avdet/{detector}.py', '{detector}',
         detector + '/test',
         ['test_evaluator.outfile_prefix=$FOLDER/detections']),
    # Tests for Table 2.
    *[
        test(f'test-{name}', f'configs/baselines/{name}_audioset.py',
             '{' + name + '}', f'{name}_audioset/test')
        for name in heatmap_methods
    ],
    test('test-dsol-stage2', dsol, '{dsol-stage2}',
         'dsol-stage2_audioset/test', [
             'test_evaluator.1.matching='
             f'{work_root}/dsol-stage2_audioset/matching.json'
         ]),
    test('test-maps', f'configs/avdet/{detector}.py', '{detector}',
         detector + '/maps', as_maps),
    test('test-joint-maps', joint, '{joint}', 'joint_audioset/maps', heatmaps),
    test('test-full-frame', center_box, None, 'center-box_audioset/maps-full',
         [*on_audioset, *as_maps, 'model.side=1.0']),
    test('test-center-box-maps', center_box, None, 'center-box_audioset/maps',
         [*on_audioset, *as_maps, 'model.side=0.8']),
]


def detection(name, folder, paper=None, agnostic=False, main=False):
    """A row of Table 1."""
    return dict(
        name=name,
        runs=dict(AudioSet=f'{work_root}/{folder}/test'),
        paper=paper,
        agnostic=agnostic,
        main=main)


def localization(name, folder, paper=None, main=False, multi=True):
    """A row of Table 2: one test has frames of one class and of several."""
    runs = {'single-instr.': f'{work_root}/{folder}'}
    if multi:
        runs['multi-instr.'] = f'{work_root}/{folder}'
    return dict(name=name, runs=runs, paper=paper, main=main)


report = dict(
    title='Detectors and localizers on AudioSet-Instruments',
    about="The paper's Table 2, and AudioSet's part of Tables 1 and 3.",
    out=out,
    clusters=work_root + '/joint_audioset/test',
    gallery=dict(
        name='Ours - full',
        run=f'{work_root}/{detector}/test',
        images=data_root),
    tables=[
        dict(
            table='table1',
            notes=[
                'PCL has the clips of weak supervision; the paper gives it '
                'only frames in which a supervised detector finds instruments '
                '(configs/baselines/pcl_vggsound.py).'
            ],
            rows=[
                detection('PCL', 'pcl_audioset', 'PCL (WSOD)'),
                detection('Ours - weak sup.', detector + '-weak',
                          'Ours - weak sup.'),
                detection('Ours - full', detector, 'Ours - full', main=True),
                detection('Center Box', 'center-box_audioset', 'Center Box*',
                          True),
                detection('Selective Search', 'selective-search_audioset',
                          'Selective Search*', True),
                detection('COCO RPN', 'rpn_coco_audioset',
                          'COCO-trained RPN*', True),
                detection('Ours - self-boxes', 'joint_audioset',
                          'Ours - self-boxes*', True),
                detection('Ours - full', detector, None, True, True),
            ]),
        dict(
            table='table2',
            notes=[
                'Trivial rows look at nothing; 0.8 is the side that does best '
                "on DSOL's frames.",
                'DSOL, stage 1, has no classes of objects.'
            ],
            rows=[
                localization('Sound of Pixels',
                             'sound-of-pixels_audioset/test',
                             'Sound of pixels'),
                localization('Objects that Sound',
                             'objects-that-sound_audioset/test',
                             'Object t. Sound'),
                localization('Attention', 'attention_audioset/test',
                             'Attention'),
                localization('DMC', 'dmc_audioset/test', 'DMC'),
                localization('DSOL, stage 1', 'dsol-stage1_audioset/test',
                             multi=False),
                localization('DSOL', 'dsol-stage2_audioset/test', 'DSOL'),
                localization("Ours, union of the detector's boxes",
                             detector + '/maps', 'Ours', True),
                localization("Ours, localizer's heatmap",
                             'joint_audioset/maps'),
                localization('Trivial: full frame',
                             'center-box_audioset/maps-full'),
                localization('Trivial: centered box',
                             'center-box_audioset/maps'),
            ]),
        dict(
            table='table3',
            rows=[
                dict(
                    name='AudioSet',
                    run=f'{work_root}/{detector}/test',
                    paper='AudioSet')
            ]),
    ])
stages.append(
    dict(
        name='report',
        script='tools/report.py',
        config='configs/tables/audioset.py',
        args=['--out', out],
        inputs=[
            path for stage in stages for path in stage.get('outputs', ())
        ]))
