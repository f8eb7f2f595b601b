# The paper's Tables 1 (VGGSound and OpenImages), 3, 5, 6 and A.2: every row,
# from the tables of clips (docs/training.md) to the report.
#   python tools/run_pipeline.py configs/tables/vggsound.py --gpus 8
#   python tools/report.py configs/tables/vggsound.py   # of what is there
# MMDetection's RPN has its weights from COCO: rpn_r50_fpn_1x_coco of its
# model zoo.
work_root = '{{$AVDET_WORK_DIRS:work_dirs}}'
data_root = '{{$AVDET_VGGSOUND:data/vggsound}}'
openimages = '{{$AVDET_OPENIMAGES:data/openimages}}'
coco_rpn = '{{$AVDET_COCO_RPN:checkpoints/rpn_r50_fpn_1x_coco.pth}}'
out = work_root + '/report_vggsound'
detector = 'faster-rcnn_r50-simclr_fpn_vggsound'
general = detector + '-full_k300'
betas = {
    '0.8': '0.8 single',
    '0.9': '0.9 single',
    '0.7-0.9': '0.7-0.9 single',
    '0.7-0.9-multi': '0.7-0.9 multi'
}


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
    """All matchings of Table 5."""
    return dict(
        name=name,
        script='tools/match_clusters.py',
        args=[
            f'{work_root}/{folder}/self_labels.json', '--clips',
            data_root + '/mappable_train.json', '--method', 'hungarian',
            'majority', 'manual', '1-shot', '10-shot', '--label-map',
            'vggsound_representative', '--groups', 'vggsound_groups', '--out',
            f'{work_root}/{folder}/matching.json'
        ])


def test(name, config, checkpoint=None, folder=None, links=()):
    """A test on VGGSound."""
    stem = config.split('/')[-1][:-3]
    place = f'{work_root}/{folder or stem}/test'
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


def test_both(name, config, checkpoint=None, folder=None, links=()):
    """A test on VGGSound and one on OpenImages."""
    stem = config.split('/')[-1][:-3]
    place = f'{work_root}/{folder or stem}/test-openimages'
    return [
        test(name, config, checkpoint, folder, links),
        dict(
            name=name + '-openimages',
            script='tools/test.py',
            config=config,
            args=[*([checkpoint] if checkpoint else []), '--work-dir', place],
            links=[
                f'test_dataloader.dataset.data_root={openimages}',
                'test_dataloader.dataset.ann_file=instruments_coco.json',
                f'test_evaluator.ann_file={openimages}/instruments_coco.json'
            ],
            outputs=[place + '/evaluation.json'])
    ]


stages = [
    train('pretrain', 'configs/avdet/pretrain_audioset.py'),
    train(
        'joint',
        'configs/avdet/joint_vggsound.py',
        links=['load_from={pretrain}']),
    match('matching', 'joint_vggsound'),
    train('detector', f'configs/avdet/{detector}.py'),
    dict(
        name='weak-labels',
        script='tools/generate_pseudo_labels.py',
        config='configs/avdet/weak_vggsound.py',
        args=['{joint}']),
    train('weak', f'configs/avdet/{detector}-weak.py'),
    train('pcl', 'configs/baselines/pcl_vggsound.py'),
    # Tests for Table 1; that of the detector is also for 3 and 5.
    *test_both('test-pcl', 'configs/baselines/pcl_vggsound.py', '{pcl}'),
    *test_both('test-weak', f'configs/avdet/{detector}-weak.py', '{weak}'),
    *test_both('test-center-box', 'configs/baselines/center-box_vggsound.py'),
    *test_both('test-selective-search',
               'configs/baselines/selective-search_vggsound.py'),
    *test_both('test-rpn', 'configs/baselines/rpn_coco_vggsound.py', coco_rpn),
    test('test-joint', 'configs/avdet/joint_vggsound.py', '{joint}'),
    *test_both(
        'test',
        f'configs/avdet/{detector}.py',
        '{detector}',
        links=['test_evaluator.outfile_prefix=$FOLDER/detections']),
]
# Table 5: the number of clusters.
for k in (20, 30, 50):
    stages += [
        train(
            f'joint-k{k}',
            f'configs/avdet/joint_vggsound_k{k}.py',
            links=['load_from={pretrain}']),
        match(f'matching-k{k}', f'joint_vggsound_k{k}'),
        train(f'detector-k{k}', f'configs/avdet/{detector}_k{k}.py'),
        *test_both(f'test-k{k}', f'configs/avdet/{detector}_k{k}.py',
                   '{detector-k%d}' % k)
    ]
# Table A.2: the trained localizer labels anew; its clusters stay, and so
# does what they are matched to.
for beta in betas:
    name = 'beta-' + beta.replace('.', '')
    labels = f'{work_root}/joint_vggsound_beta-{beta}'
    links = [
        f'train_dataloader.dataset.ann_file={labels}/self_labels.json',
        f'train_dataloader.dataset.data_prefix.img={labels}/'
    ]
    folder = f'{detector}_beta-{beta}'
    stages += [
        dict(
            name=f'labels-{name}',
            script='tools/generate_pseudo_labels.py',
            config=f'configs/avdet/joint_vggsound_beta-{beta}.py',
            args=['{joint}']),
        train(f'detector-{name}', f'configs/avdet/{detector}.py', folder,
              links),
        *test_both(
            f'test-{name}',
            f'configs/avdet/{detector}.py',
            '{detector-%s}' % name,
            folder)
    ]
# Table 6: general objects.
stages += [
    train(
        'joint-general',
        'configs/avdet/joint_vggsound-full_k300.py',
        links=['load_from={pretrain}']),
    dict(
        name='matching-general',
        script='tools/match_clusters.py',
        args=[
            work_root + '/joint_vggsound-full_k300/self_labels.json',
            '--clips', data_root + '/all_train.json', '--label-map',
            'vggsound_general', '--out',
            work_root + '/joint_vggsound-full_k300/matching.json'
        ]),
    train('detector-general', f'configs/avdet/{general}.py'),
    test('test-general', f'configs/avdet/{general}.py', '{detector-general}'),
]


def row(name, folder, paper=None, agnostic=False, main=False,
        openimages=True):
    """A row with one or both data sets."""
    runs = {'VGGSound': f'{work_root}/{folder}/test'}
    if openimages:
        runs['OpenImages'] = f'{work_root}/{folder}/test-openimages'
    return dict(
        name=name, runs=runs, paper=paper, agnostic=agnostic, main=main)


report = dict(
    title='Detectors learned from VGGSound',
    about="The paper's Tables 1, 3, 5, 6 and A.2.",
    out=out,
    clusters=work_root + '/joint_vggsound/test',
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
                row('PCL', 'pcl_vggsound', 'PCL (WSOD)'),
                row('Ours - weak sup.', detector + '-weak',
                    'Ours - weak sup.'),
                row('Ours - full', detector, 'Ours - full', main=True),
                row('Center Box', 'center-box_vggsound', 'Center Box*', True),
                row('Selective Search', 'selective-search_vggsound',
                    'Selective Search*', True),
                row('COCO RPN', 'rpn_coco_vggsound', 'COCO-trained RPN*',
                    True),
                row('Ours - self-boxes', 'joint_vggsound',
                    'Ours - self-boxes*', True, openimages=False),
                row('Ours - full', detector, None, True, True),
            ]),
        dict(
            table='table3',
            rows=[
                dict(
                    name='OpenImages',
                    run=f'{work_root}/{detector}/test-openimages',
                    paper='OpenImages'),
                dict(
                    name='VGGSound',
                    run=f'{work_root}/{detector}/test',
                    paper='VGGSound'),
            ]),
        dict(
            table='table5_k',
            rows=[
                row('K = 20', detector + '_k20', '20'),
                row('K = 30', detector + '_k30', '30'),
                row('K = 39', detector, '39'),
                row('K = 50', detector + '_k50', '50'),
            ]),
        dict(table='table5_matching', rows=[row('Ours - full', detector)]),
        dict(table='table6', run=f'{work_root}/{general}/test'),
        dict(
            table='tableA2',
            rows=[
                row('0.7 single', detector, '0.7 single'), *[
                    row(paper, f'{detector}_beta-{beta}', paper)
                    for beta, paper in betas.items()
                ]
            ]),
    ])
stages.append(
    dict(
        name='report',
        script='tools/report.py',
        config='configs/tables/vggsound.py',
        args=['--out', out],
        inputs=[
            path for stage in stages for path in stage.get('outputs', ())
        ]))
