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
    keep = f'test_evaluator.outfile_prefix={work_root}/{name}/test/detections'
    return [
        test(name, config, name, options=[keep]),
        test(name, config, name, 'alt', options=images('alt')),
    ]


def as_maps(position=''):
    """Options that score boxes or heatmaps as Table 2 does."""
    of_metric = f'test_evaluator.{position}'
    return [
        of_metric + 'type=avdet_mm.SoundLocalizationMetric',
        of_metric + 'protocols=[dsol_single]'
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
    test('localizer', localizer, 'localizer'),
    test('localizer', localizer, 'localizer', 'train',
         options=['test_dataloader.dataset.ann_file=train.json']),
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
    test('center-box', 'configs/stampsound/center-box_small.py', None,
         'train',
         options=['test_dataloader.dataset.ann_file=train.json']),
    test('selective-search', 'configs/stampsound/selective-search_small.py'),
]
