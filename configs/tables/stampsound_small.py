# The paper's experiments on StampSound, preset small, for one seed: every
# stage from the clips to the report, on two CPU cores. All seeds, and
# docs/results/stampsound_small.json:
#   python tools/run_pipeline.py configs/tables/stampsound_small.py \
#       --seeds 0 1 2
#   python tools/report.py configs/tables/stampsound_small.py --summary
# The ingredients are in data/stampsound_pack (docs/stampsound.md).
data = '{{$AVDET_STAMPSOUND:data}}'
data_root = data + '/stampsound_small'
root = '{{$AVDET_WORK_DIRS:work_dirs}}/stampsound_small'
work_root = root + '/seed{{$AVDET_SEED:0}}'
clips = data_root + '/train.json'
self_labels = work_root + '/self_labels.json'
round1 = work_root + '/self_labels_round1.json'
localizer = 'configs/stampsound/localizer_small.py'
detector = 'configs/stampsound/faster-rcnn_small'
# Numbers of clusters other than that of classes: half, 1.25 times.
numbers = (5, 12)
# Self-boxes otherwise: by beta, and with all components.
boxes = {
    name + (' multi' if multi else ' single'):
    [f'model.box_extractor.beta={beta}', f'model.box_extractor.multi={multi}']
    for name, beta, multi in (
        ('0.5', '0.5', False),
        ('0.6', '0.6', False),
        ('0.8', '0.8', False),
        ('0.6-0.8', '0.6,0.8', False),
        ('0.6-0.8', '0.6,0.8', True),
    )
}
# Heatmaps of the same localizer with less care. Cosines have another beta,
# that which tools/analysis_tools/choose_beta.py finds for them.
cosines = ['model.appearance_head=None', 'model.box_extractor.beta=0.6']
plainer = dict(
    flip=['model.flip_test=False'],
    filter=['model.heatmap_filter=None'],
    looks=cosines,
    all=[
        'model.flip_test=False', 'model.heatmap_filter=None', *cosines
    ])
# Localizers of which one part is other than ours.
ablations = {
    'model-labels': 'first labels by the heads',
    'no-recluster': 'sounds not clustered again',
    'mean-classifier': 'visual classifier sees the mean',
    'attention-classifier': 'visual classifier sees a learned mean',
    'mean-pooling': 'scores are means to the end',
    'max-pooling': 'scores are maxima from the start',
    'share': 'scores are the best 6 % in the end',
    'receptive-field': 'smaller receptive field, best 6 %',
    'criterion': 'annealing begins when pairs are found',
    'cluster-negatives': 'no negatives of the same cluster',
    'curriculum': 'confident pairs first',
    'visual-contrast': 'with visual self-supervision',
    'batch64': 'batch of 64',
    'bfloat16': 'trained in bfloat16',
}


def train(name, config, options=()):
    """A training in the folder of its name."""
    return dict(
        name=name,
        script='tools/train.py',
        config=config,
        args=['--work-dir', f'{work_root}/{name}'],
        links=list(options))


def match(labels, out, name='matching'):
    """All matchings; StampSound's classes have no groups."""
    return dict(
        name=name,
        script='tools/match_clusters.py',
        args=[
            labels, '--clips', clips, '--method', 'hungarian', 'majority',
            '1-shot', '10-shot', '--out', out
        ])


def test(name, config, checkpoint=None, data='test', folder=None, options=()):
    """A test on the test clips (or images), or on unseen photographs."""
    path = f'{work_root}/{name}/{folder or data}'
    return dict(
        name=f'{name}-{folder or data}',
        script='tools/test.py',
        config=config,
        args=[
            *(['{' + checkpoint + '}'] if checkpoint else []), '--work-dir',
            path
        ],
        links=list(options),
        outputs=[path + '/evaluation.json'])


def images(data):
    """Options for other images than those of the config."""
    return [
        f'test_dataloader.dataset.ann_file={data}_coco.json',
        f'test_evaluator.ann_file={data_root}/{data}_coco.json'
    ]


def test_detector(name, config):
    """Tests of a detector on both sets."""
    kept = f'{work_root}/{name}/test/detections'
    stages = [
        test(
            name,
            config,
            name,
            options=['test_evaluator.outfile_prefix=' + kept]),
        test(name, config, name, 'alt', options=images('alt')),
    ]
    stages[0]['outputs'].append(kept + '.bbox.json')
    return stages


def localizer_tests(name, config):
    """Tests of a localizer on the test clips and on those it labels."""
    return [
        test(name, config, name),
        test(
            name,
            config,
            name,
            'train',
            options=['test_dataloader.dataset.ann_file=train.json']),
    ]


def ablation(name, options=()):
    """A localizer trained otherwise."""
    config = f'configs/stampsound/ablations/{name}_small.py'
    name = f'ablation_{name}'
    return [train(name, config, options), localizer_tests(name, config)[1]]


def boxes_stage(name):
    """Name of the stage that trains on some boxes."""
    return 'ablation_boxes-' + name.replace('.', '').replace(' ', '-')


def own_boxes(name, options):
    """A detector on other self-boxes of the same localizer."""
    name = boxes_stage(name)
    labels = f'{work_root}/{name}.json'
    config = detector + '.py'
    return [
        dict(
            name=name + '-labels',
            script='tools/generate_pseudo_labels.py',
            config=localizer,
            args=['{localizer}', '--out', labels],
            links=[*options, 'custom_hooks.5.dump_file=None']),
        train(name, config, [f'train_dataloader.dataset.ann_file={labels}']),
        test_detector(name, config)[0],
    ]


def other_number(k):
    """Localizer and detector with K clusters."""
    config = f'configs/stampsound/ablations/faster-rcnn_k{k}_small.py'
    name = f'ablation_k{k}-detector'
    return [
        *ablation(f'k{k}'),
        match(
            f'{work_root}/self_labels_k{k}.json',
            f'{work_root}/matching_k{k}.json',
            name=f'ablation_k{k}-matching'),
        train(name, config),
        test_detector(name, config)[0],
    ]


stages = [
    dict(
        name='clips',
        script='tools/dataset_converters/stampsound.py',
        args=[
            data + '/stampsound_pack', data_root, '--preset', 'small',
            '--format', 'frames'
        ],
        outputs=[
            data_root + f'/{split}{kind}.json'
            for split in ('train', 'test', 'alt') for kind in ('', '_coco')
        ]),
    # The method.
    train('localizer', localizer),
    *localizer_tests('localizer', localizer),
    # Table 2: self-boxes in place of heatmaps, and the cosines themselves.
    test(
        'localizer',
        localizer,
        'localizer',
        folder='maps',
        options=[
            'test_evaluator.3.source=boxes',
            'test_evaluator.3.protocols=[dsol_single,lvs_vggss]'
        ]),
    test(
        'localizer',
        localizer,
        'localizer',
        folder='test-no-looks',
        options=cosines),
    match(self_labels, work_root + '/matching.json'),
    train('detector', detector + '.py'),
    *test_detector('detector', detector + '.py'),
    # Beyond the paper: the detector's boxes are the next labels.
    dict(
        name='labels-round1',
        script='tools/self_training_labels.py',
        config=detector + '.py',
        args=[
            '{detector}', self_labels, round1, '--max-boxes', '1', '--clips',
            clips
        ],
        outputs=[round1]),
    train('detector_round1', detector + '.py',
          [f'train_dataloader.dataset.ann_file={round1}']),
    *test_detector('detector_round1', detector + '.py'),
    # Other supervision.
    dict(
        name='weak-labels',
        script='tools/generate_pseudo_labels.py',
        config='configs/stampsound/weak_small.py',
        args=['{localizer}']),
    train('detector-weak', detector + '-weak.py'),
    *test_detector('detector-weak', detector + '-weak.py'),
    train('ceiling', detector + '-gt.py'),
    *test_detector('ceiling', detector + '-gt.py'),
    # Baselines of Table 1.
    test('center-box', 'configs/stampsound/center-box_small.py'),
    test(
        'center-box',
        'configs/stampsound/center-box_small.py',
        data='train',
        options=['test_dataloader.dataset.ann_file=train.json']),
    test('selective-search', 'configs/stampsound/selective-search_small.py'),
    # Ablations of the localizer.
    *ablation('paper-pretrain')[:1],
    *[
        stage for name in ('paper-joint', *ablations)
        for stage in ablation(name)
    ],
    # Of the detector.
    *[stage for k in numbers for stage in other_number(k)],
    *[
        stage for name, options in [*boxes.items(), ('cosines', cosines)]
        for stage in own_boxes(name, options)
    ],
    train('ablation_warmup',
          'configs/stampsound/ablations/faster-rcnn_warmup_small.py'),
    test_detector(
        'ablation_warmup',
        'configs/stampsound/ablations/faster-rcnn_warmup_small.py')[0],
    # The same weights, boxes drawn otherwise.
    *[
        test(
            'localizer',
            localizer,
            'localizer',
            folder='train-no-' + name,
            options=[*options, 'test_dataloader.dataset.ann_file=train.json'])
        for name, options in plainer.items()
    ],
]


def detection(name, folder, paper=None, agnostic=False, main=False,
              unseen=True):
    """A row of Table 1, or one of an ablation, without unseen photos."""
    runs = {'test': f'{of_seed}/{folder}/test'}
    if unseen and folder.startswith(('detector', 'ceiling')):
        runs['unseen photographs'] = f'{of_seed}/{folder}/alt'
    return dict(
        name=name, runs=runs, paper=paper, agnostic=agnostic, main=main)


of_seed = root + '/seed{seed}'
out = root + '/report'
localization = [
    dict(name='IoU ≥ 0.5', metric='loc/iou50', group='Self-boxes'),
    dict(name='mean IoU', metric='loc/mean_iou', group='Self-boxes'),
    dict(name='pointing', metric='loc/pointing', group='Self-boxes'),
]
retrieval = [
    dict(
        name='class found by sound',
        metric='retrieval/a2v_class1',
        group='Retrieval'),
    dict(
        name='by sight', metric='retrieval/v2a_class1', group='Retrieval'),
]
clusters = [
    dict(name='both heads', metric='cluster/nmi', group='NMI'),
    dict(name='visual', metric='cluster/nmi_visual', group='NMI'),
    dict(name='audio', metric='cluster/nmi_audio', group='NMI'),
]
report = dict(
    title='StampSound, preset small',
    about='Each class is one photograph and one recording: the figures show '
    'correspondence and detection in new surroundings, not new individuals. '
    'Another photograph of four of the ten classes is in "unseen '
    'photographs".',
    out=out,
    seeds=[0, 1, 2],
    clusters=of_seed + '/localizer/test',
    gallery=dict(
        name='Ours - full', run=of_seed + '/detector/test', images=data_root),
    tables=[
        dict(
            table='table1',
            paper=['VGGSound'],
            rows=[
                detection('Ours - weak sup.', 'detector-weak',
                          'Ours - weak sup.'),
                detection('Ours - full', 'detector', 'Ours - full', main=True),
                detection('Ours - full, round 2', 'detector_round1'),
                detection('Ceiling: ground-truth boxes', 'ceiling'),
                detection('Center Box', 'center-box', 'Center Box*', True),
                detection('Selective Search', 'selective-search',
                          'Selective Search*', True),
                detection('Ours - self-boxes', 'localizer',
                          'Ours - self-boxes*', True),
                detection('Ours - full', 'detector', None, True, True),
                detection('Ours - full, round 2', 'detector_round1', None,
                          True),
                detection('Ceiling: ground-truth boxes', 'ceiling', None,
                          True),
            ]),
        dict(
            table='figures',
            key='recall',
            title='Silent and sounding objects found (IoU ≥ 0.5, score ≥ 0.3)',
            columns=[
                dict(name='sounding', metric='coco/recall50_sounding'),
                dict(name='silent', metric='coco/recall50_silent'),
            ],
            rows=[
                dict(name=name, run=f'{of_seed}/{folder}/test', main=main)
                for name, folder, main in (
                    ('Ours - full', 'detector', True),
                    ('Ours - full, round 2', 'detector_round1', False),
                    ('Ours - weak sup.', 'detector-weak', False),
                    ('Ceiling: ground-truth boxes', 'ceiling', False),
                )
            ]),
        dict(
            table='figures',
            key='localizer',
            title='The localizer on the training clips, and without parts',
            columns=[*localization, *clusters, *retrieval],
            rows=[
                dict(
                    name='Ours',
                    run=of_seed + '/localizer/train',
                    main=True),
                dict(
                    name='without mirror images',
                    run=of_seed + '/localizer/train-no-flip'),
                dict(
                    name='heatmaps do not follow colors',
                    run=of_seed + '/localizer/train-no-filter'),
                dict(
                    name='boxes of the cosines, not of looks',
                    run=of_seed + '/localizer/train-no-looks'),
                dict(
                    name='none of the three',
                    run=of_seed + '/localizer/train-no-all'),
                *[
                    dict(
                        name=title,
                        run=f'{of_seed}/ablation_{name}/train')
                    for name, title in ablations.items()
                ],
                *[
                    dict(
                        name=f'{k} clusters',
                        run=f'{of_seed}/ablation_k{k}/train')
                    for k in numbers
                ],
                dict(
                    name="the paper's recipe",
                    run=of_seed + '/ablation_paper-joint/train'),
                dict(
                    name='centered box',
                    runs={
                        name: of_seed + '/center-box/train'
                        for name in ('IoU ≥ 0.5', 'mean IoU')
                    }),
            ]),
        dict(
            table='figures',
            key='localizer_test',
            title='The localizer on the test clips',
            columns=[*localization, *clusters, *retrieval],
            rows=[
                dict(name='Ours', run=of_seed + '/localizer/test', main=True),
            ]),
        dict(
            table='figures',
            key='heatmaps',
            title="Heatmaps by the protocols of Table 2's methods, test clips",
            notes=[
                'The union of the boxes of what sounds against the heatmap, '
                "which DSOL's protocol cuts off at half of its maximum.",
            ],
            columns=[
                dict(name=name, metric=f'ssl/{metric}', group=group)
                for group, name, metric in (
                    ('DSOL, single', 'IoU-0.5', 'dsol_single_iou50'),
                    ('DSOL, single', 'AUC', 'dsol_single_auc'),
                    ('LVS', 'cIoU-0.5', 'lvs_vggss_ciou50'),
                    ('LVS', 'AUC', 'lvs_vggss_auc'),
                    ('EZ-VSL', 'AP50', 'ez_vsl_vggss_ap50'),
                    ('EZ-VSL', 'mean cIoU', 'ez_vsl_vggss_mean_ciou'),
                )
            ],
            rows=[
                dict(name='Ours', run=of_seed + '/localizer/test', main=True),
                dict(
                    name='Ours, without the appearance head',
                    run=of_seed + '/localizer/test-no-looks'),
                # EZ-VSL's rule takes the whole frame for one with boxes.
                dict(
                    name='Ours, self-boxes',
                    runs={
                        name: of_seed + '/localizer/maps'
                        for name in ('IoU-0.5', 'cIoU-0.5', 'AUC')
                    }),
            ]),
        dict(
            table='table3',
            rows=[
                dict(name='Ours - full', run=of_seed + '/detector/test'),
                dict(name='unseen photographs', run=of_seed + '/detector/alt'),
            ]),
        dict(
            table='table5_k',
            paper=[],
            rows=[
                detection('K = 5', 'ablation_k5-detector'),
                detection('K = 10', 'detector', main=True, unseen=False),
                detection('K = 12', 'ablation_k12-detector'),
            ]),
        dict(
            table='table5_matching',
            paper=['VGGSound'],
            rows=[
                dict(
                    name='Ours - full',
                    runs={
                        'K = 5': of_seed + '/ablation_k5-detector/test',
                        'K = 10': of_seed + '/detector/test',
                        'K = 12': of_seed + '/ablation_k12-detector/test'
                    })
            ]),
        dict(
            table='tableA2',
            paper=[],
            rows=[
                detection('0.7 single', 'detector', main=True, unseen=False),
                *[detection(name, boxes_stage(name)) for name in boxes]
            ]),
        dict(
            table='figures',
            key='detector',
            title='The detector, otherwise',
            columns=[
                dict(name=name, metric='coco/' + name)
                for name in ('AP30', 'AP50', 'AP')
            ],
            rows=[
                dict(
                    name='Ours - full',
                    run=of_seed + '/detector/test',
                    main=True),
                dict(
                    name='boxes of the cosines, not of looks',
                    run=of_seed + '/ablation_boxes-cosines/test'),
                dict(
                    name='class-agnostic warm-up for an epoch',
                    run=of_seed + '/ablation_warmup/test'),
            ]),
    ],
    summary=dict(
        file='docs/results/stampsound_small.json',
        keys=dict(
            nmi=(of_seed + '/localizer/train', 'cluster/nmi'),
            nmi_visual=(of_seed + '/localizer/train', 'cluster/nmi_visual'),
            self_boxes_iou50=(of_seed + '/localizer/train', 'loc/iou50'),
            center_box_iou50=(of_seed + '/center-box/train', 'loc/iou50'),
            pointing=(of_seed + '/localizer/train', 'loc/pointing'),
            retrieval_class1=(of_seed + '/localizer/train',
                              'retrieval/a2v_class1'),
            nmi_visual_test=(of_seed + '/localizer/test',
                             'cluster/nmi_visual'),
            self_boxes_iou50_test=(of_seed + '/localizer/test', 'loc/iou50'),
            full_ap30=(of_seed + '/detector/test', 'coco/AP30'),
            full_ap50=(of_seed + '/detector/test', 'coco/AP50'),
            full_ap=(of_seed + '/detector/test', 'coco/AP'),
            full_ap50_unseen=(of_seed + '/detector/alt', 'coco/AP50'),
            round1_ap50=(of_seed + '/detector_round1/test', 'coco/AP50'),
            ceiling_ap50=(of_seed + '/ceiling/test', 'coco/AP50'),
            weak_ap50=(of_seed + '/detector-weak/test', 'coco/AP50'),
            center_box_agnostic_ap50=(of_seed + '/center-box/test',
                                      'coco/agnostic_AP50'),
            selective_search_agnostic_ap50=(of_seed + '/selective-search/test',
                                            'coco/agnostic_AP50'),
            self_boxes_agnostic_ap50=(of_seed + '/localizer/test',
                                      'coco/agnostic_AP50'),
            full_agnostic_ap50=(of_seed + '/detector/test',
                                'coco/agnostic_AP50'),
            silent_recall=(of_seed + '/detector/test',
                           'coco/recall50_silent'),
            sounding_recall=(of_seed + '/detector/test',
                             'coco/recall50_sounding'),
            # Of the ablations.
            **{
                f'{name}_{key}': (f'{of_seed}/ablation_{name}/train', metric)
                for name in ('paper-joint', *ablations)
                for key, metric in (('self_boxes_iou50', 'loc/iou50'),
                                    ('nmi_visual', 'cluster/nmi_visual'))
            },
            **{
                f'{folder[9:]}_ap50': (f'{of_seed}/{folder}/test',
                                       'coco/AP50')
                for folder in (*[f'ablation_k{k}-detector' for k in numbers],
                               *map(boxes_stage, (*boxes, 'cosines')),
                               'ablation_warmup')
            },
        ),
        # Of the processor, on two cores.
        seconds=dict(localizer_seconds=(of_seed, 'localizer', 2))))
stages.append(
    dict(
        name='report',
        script='tools/report.py',
        config='configs/tables/stampsound_small.py',
        args=['--out', out],
        inputs=[
            path for stage in stages for path in stage.get('outputs', ())
            if path.endswith(('evaluation.json', '.bbox.json'))
        ]))
