"""tools/report.py, the paper's figures and the tables in configs/tables."""
import importlib.util
import json
import os
import os.path as osp
import re
import sys

import cv2
import numpy as np
import pytest

from tests.toy import ROOT

CLASSES = ['Harp', 'Bell & co_1']


@pytest.fixture(scope='module')
def tool():
    spec = importlib.util.spec_from_file_location(
        'report_tool', osp.join(ROOT, 'tools/report.py'))
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture
def run(tool, tmp_path, monkeypatch):
    """Runs the tool on a report; returns what it wrote."""
    monkeypatch.chdir(tmp_path)

    def call(tables=None, *arguments, **spec):
        if tables is not None:
            report = dict(title='T', out='out', tables=tables, **spec)
            (tmp_path / 'table.py').write_text(f'report = {report!r}')
            arguments = ('table.py', *arguments)
        monkeypatch.setattr(sys, 'argv', ['report.py', *arguments])
        tool.main()
        return {
            name: (tmp_path / 'out' / name).read_text()
            for name in ('report.md', 'report.html', 'tables.tex',
                         'report.json')
        }

    return call


def flat(out):
    return json.loads(out['report.json'])


def figures(ap50, ap30=0.75, ap=0.25):
    return dict(AP30=ap30, AP50=ap50, AP=ap)


def put(folder, metrics, details=None, **more):
    os.makedirs(folder, exist_ok=True)
    path = osp.join(folder, 'evaluation.json')
    with open(path, 'w') as file:
        json.dump(
            dict(dict(config='c.py', checkpoint=None, metrics=metrics,
                      details=details or {}), **more), file)
    return path


def coco(folder, ap50=0.5, matchings=None, agnostic=0.125, **more):
    """Of a test with MatchedCocoMetric; None for what is not defined."""
    metrics = {f'coco/agnostic_{k}': v for k, v in figures(agnostic).items()}
    metrics.update({f'coco/{k}': v for k, v in figures(ap50).items()})
    per_class = {c: figures(v) for c, v in zip(CLASSES, (0.5, None))}
    details = dict(
        ann_file=None,
        protocol=dict(iou_thrs=[0.3, 0.5, 0.95], max_dets=77, backend='numpy',
                      nms_iou=0.6),
        num_images=3,
        num_objects=dict(zip(CLASSES, (4, 5))),
        outfile_prefix=None,
        matchings={
            name: dict(figures(value), clusters=dict(cluster_0='Harp'),
                       per_class=per_class, pr50={'Harp': [1.0] * 101})
            for name, value in (matchings or dict(hungarian=ap50)).items()
        },
        agnostic=dict(figures(agnostic), pr50=[0.5] * 101),
        confusion=dict(clusters=['cluster_0', 'cluster_1'],
                       classes=[*CLASSES, 'background'],
                       counts=[[5, 0, 1], [0, 0, 0]]))
    details.update(more)
    return put(folder, metrics, dict(coco=details))


def agnostic(folder):
    """Of a test with class_aware=False."""
    coco(folder)
    path = osp.join(folder, 'evaluation.json')
    with open(path) as file:
        content = json.load(file)
    content['metrics'] = {
        k: v for k, v in content['metrics'].items() if 'agnostic' in k
    }
    content['details']['coco'].update(matchings={}, confusion=None)
    with open(path, 'w') as file:
        json.dump(content, file)


def ssl(folder, iou50=0.5):
    protocol = dict(rule='map > 0.1 of its maximum', success=[1.0, 0.5, 0.0],
                    num_frames=9, num_empty=1, num_other=2, map_thr=0.1)
    multi = dict(protocol, class_maps='boxes of the class')
    put(folder, {
        'ssl/dsol_single_iou50': iou50,
        'ssl/dsol_single_auc': 0.4,
        'ssl/dsol_multi_ciou30': 0.3
    }, dict(ssl=dict(protocols=dict(dsol_single=protocol, dsol_multi=multi))))


def row(name, folder, group='VGGSound', **kwargs):
    return dict(name=name, runs={group: folder}, **kwargs)


# -- the paper's figures ---------------------------------------------------


@pytest.fixture(scope='module')
def paper():
    with open(osp.join(ROOT, 'docs/results/paper.json')) as file:
        return json.load(file)['tables']


def of(table, name, group):
    return table['rows'][name]['figures'][group]


def test_tables_of_the_paper_agree_with_each_other(paper):
    assert {k: v['number'] for k, v in paper.items()} == dict(
        table1='1', table2='2', table3='3', table5_k='5',
        table5_matching='5', table6='6', tableA2='A.2')
    for name in ('VGGSound', 'AudioSet', 'OpenImages'):
        ap50 = of(paper['table1'], 'Ours - full', name)['AP50']
        per_class = dict(of(paper['table3'], name, 'AP50'))
        assert per_class.pop('mean') == ap50
        known = [v for v in per_class.values() if v is not None]
        # Harmonica, not printed, is 0 on AudioSet.
        count = len(known) + (name == 'AudioSet')
        assert abs(sum(known) / count - ap50) < 0.06
        if name != 'AudioSet':
            for table, key in (('table5_k', '39'), ('tableA2', '0.7 single'),
                               ('table5_matching', 'Hung.')):
                assert of(paper[table], key, name)['AP50'] == ap50
    general = paper['table6']['rows']
    mean = dict(general['Mean']['figures']['OpenImages'])
    # As printed; its column has 47.5.
    assert mean.pop('AP30') == 45.6
    for metric, value in mean.items():
        found = [r['figures']['OpenImages'][metric]
                 for c, r in general.items() if c != 'Mean']
        assert len(found) == 10 and abs(np.mean(found) - value) < 0.06


def test_agnostic_rows_of_the_paper_have_stars(paper):
    rows = paper['table1']['rows']
    assert len(rows) == 7
    assert all(r['agnostic'] == n.endswith('*') for n, r in rows.items())
    assert of(paper['table1'], 'Ours - self-boxes*', 'OpenImages') == dict(
        AP30=None, AP50=None, AP=None)


def test_second_table_of_the_paper(paper):
    assert len(paper['table2']['rows']) == 6
    assert of(paper['table2'], 'DSOL', 'single-instr.') == {
        'IoU-0.5': 38.9, 'AUC': 40.9}
    assert of(paper['table2'], 'Ours', 'multi-instr.') == {'cIoU-0.3': 52.4}


# -- tables ----------------------------------------------------------------


def lines(text, start):
    return [x for x in text.splitlines() if x.startswith(start)]


def test_first_table(run):
    coco('full', agnostic=None)
    agnostic('center')
    out = run([dict(table='table1', notes=['Mind <this>.'], rows=[
        row('Ours', 'full', paper='Ours - full', main=True),
        row('PCL', 'nothing', paper='PCL (WSOD)'),
        row('Center', 'center', paper='Center Box*', agnostic=True),
        row('Ours', 'full', agnostic=True),
    ])], '--json', 'more.json')
    # With classes and without are apart, and never in one column.
    aware, starred = out['report.md'].split('**Class-agnostic')
    assert lines(aware, '| **Ours') == [
        '| **Ours** | 75.0 | 50.0 | 25.0 | *52.3* | *39.4* | *14.7* |'
    ]
    assert lines(aware, '| PCL') == [
        '| PCL | not run |  |  | *54.9* | *27.7* | *7.6* |'
    ]
    assert not lines(aware, '| Center')
    assert lines(starred, '| Center') == [
        '| Center\\* | 75.0 | 12.5 | 25.0 | *29.6* | *5.6* | *1.5* |'
    ]
    # What the paper does not have is no figure; nan is none either.
    assert lines(starred, '| Ours') == [
        '| Ours\\* | 75.0 | n/a | 25.0 | *–* | *–* | *–* |'
    ]
    assert aware.count('VGGSound: mAP50 (paper)') == 1
    protocol, = lines(out['report.md'], '- VGGSound: 3 images')
    for part in ('9 objects', '0.3, 0.5 ', '0.5 to 0.95', 'at most 77',
                 'IoU 0.6', 'numpy'):
        assert part in protocol
    assert '- Mind \\<this\\>.' in out['report.md']
    assert 'Mind &lt;this&gt;.' in out['report.html']
    assert '- nothing (PCL, VGGSound)' in out['report.md']
    assert 'not run</td>' in out['report.html']
    assert flat(out) == {
        'table1/Ours/VGGSound/mAP30': 75,
        'table1/Ours/VGGSound/mAP50': 50,
        'table1/Ours/VGGSound/mAP': 25,
        'table1/PCL/VGGSound/mAP30': None,
        'table1/PCL/VGGSound/mAP50': None,
        'table1/PCL/VGGSound/mAP': None,
        'table1/Center*/VGGSound/mAP30': 75,
        'table1/Center*/VGGSound/mAP50': 12.5,
        'table1/Center*/VGGSound/mAP': 25,
        'table1/Ours*/VGGSound/mAP30': 75,
        'table1/Ours*/VGGSound/mAP50': None,
        'table1/Ours*/VGGSound/mAP': 25,
        'paper/table1/Ours/VGGSound/mAP30': 52.3,
        'paper/table1/Ours/VGGSound/mAP50': 39.4,
        'paper/table1/Ours/VGGSound/mAP': 14.7,
        'paper/table1/PCL/VGGSound/mAP30': 54.9,
        'paper/table1/PCL/VGGSound/mAP50': 27.7,
        'paper/table1/PCL/VGGSound/mAP': 7.6,
        'paper/table1/Center*/VGGSound/mAP30': 29.6,
        'paper/table1/Center*/VGGSound/mAP50': 5.6,
        'paper/table1/Center*/VGGSound/mAP': 1.5,
    }
    with open('more.json') as file:
        assert json.load(file) == flat(out)
    # All pictures of the page are there, and they are SVG.
    linked = set(re.findall(r'src="(pictures/[^"]*)"', out['report.html']))
    assert {f'pictures/{p}' for p in os.listdir('out/pictures')} == linked
    assert {osp.basename(p)[:-4] for p in linked} == {
        'per_class_methods', 'pr_classes', 'pr_agnostic', 'confusion'
    }
    for path in linked:
        with open(f'out/{path}') as file:
            assert '</svg>' in file.read()


def test_of_many_classes_the_worst_have_curves(run):
    names = [f'class {n}' for n in range(20)]
    # The first four are found best.
    found = dict(
        figures(0.5),
        clusters={},
        per_class={n: figures(1 - i / 20) for i, n in enumerate(names)},
        pr50={n: [1.0] * 101 for n in names})
    coco('full')
    with open('full/evaluation.json') as file:
        content = json.load(file)
    content['details']['coco']['matchings'] = dict(hungarian=found)
    with open('full/evaluation.json', 'w') as file:
        json.dump(content, file)
    out = run([dict(table='table1', rows=[row('Ours', 'full')])])
    assert 'VGGSound: the 16 classes with the lowest AP50' in out['report.md']
    with open('out/pictures/pr_classes.svg') as file:
        drawn = re.findall('<!-- (class [0-9]+) -->', file.read())
    assert sorted(drawn) == sorted(names[4:])


def test_other_data_have_no_columns_of_the_paper(run):
    coco('full')
    table = dict(table='table1', rows=[row('Ours', 'full', 'mine',
                                           paper='Ours - full')])
    assert '(paper)' not in run([table])['report.md']
    out = run([dict(table, paper=['OpenImages'])])
    line, = lines(out['report.md'], '| Ours')
    assert line == '| Ours | 75.0 | 50.0 | 25.0 | *39.9* | *28.5* | *7.6* |'
    assert 'mine: mAP50 | mine: mAP | OpenImages: mAP30 (paper)' in out[
        'report.md']


def test_second_table(run):
    ssl('a')
    ssl('b', None)
    both = 'single-instr.', 'multi-instr.'
    out = run([dict(table='table2', rows=[
        dict(name='DMC', runs=dict.fromkeys(both, 'a'), paper='DMC'),
        dict(name='One', runs={both[0]: 'b'}),
        dict(name='None', runs=dict.fromkeys(both, 'c'), paper='DSOL'),
    ])])
    assert lines(out['report.md'], '| ')[1:] == [
        '| DMC | 50.0 | 40.0 | 30.0 | *32.8* | *38.2* | *32.0* |',
        '| One | n/a | 40.0 | – | *–* | *–* | *–* |',
        '| None | not run |  | not run | *38.9* | *40.9* | *48.7* |',
    ]
    assert ('multi-instr.: dsol\\_multi: map \\> 0.1 of its maximum; boxes of '
            'the class; 9 frames; 1 without') in out['report.md']
    assert sorted(os.listdir('out/pictures')) == [
        'success_dsol_multi.svg', 'success_dsol_single.svg'
    ]
    assert flat(out)['table2/DMC/multi-instr./cIoU-0.3'] == 30


def test_third_table(run):
    coco('full')
    out = run([dict(table='table3', rows=[
        dict(name='VGGSound', run='full', paper='VGGSound'),
        dict(name='AudioSet', run='nothing')])])
    # The paper's are a line of their own; our classes decide on columns.
    assert lines(out['report.md'], '| ') == [
        '| method | AP50: mean | AP50: Harp | AP50: Bell & co\\_1 |',
        '| VGGSound | 50.0 | 50.0 | n/a |',
        '| VGGSound (paper) | *39.4* | *95.6* | *–* |',
        '| AudioSet | not run |  |  |',
    ]
    assert flat(out)['paper/table3/VGGSound (paper)/AP50/Harp'] == 95.6
    assert flat(out)['table3/VGGSound/AP50/Bell & co_1'] is None


def test_number_of_clusters(run):
    coco('k20', 0.25)
    out = run([dict(table='table5_k', paper=['VGGSound'], rows=[
        row('K = 20', 'k20', paper='20'), row('K = 50', 'k50', paper='50')])])
    assert lines(out['report.md'], '| K') == [
        '| K = 20 | 25.0 | *34.4* |', '| K = 50 | not run | *41.0* |'
    ]
    assert os.listdir('out/pictures') == ['k.svg']


def test_beta(run):
    coco('b', 0.25)
    out = run([dict(table='tableA2', rows=[
        row('0.8 single', 'b', paper='0.8 single')])])
    assert lines(out['report.md'], '| 0') == ['| 0.8 single | 25.0 | *36.6* |']
    assert os.listdir('out/pictures') == ['beta.svg']


def test_matchings(run):
    coco('full', matchings={'5-shot': 0.125, '1-shot': None, 'manual': 0.5})
    table = dict(table='table5_matching', rows=[row('Ours', 'full')])
    # The paper's order, then others.
    assert lines(run([table])['report.md'], '| ')[1:] == [
        '| manual | 50.0 | *41.0* |', '| 1-shot | n/a | *36.4* |',
        '| 5-shot | 12.5 | *–* |'
    ]
    table['rows'][0]['runs']['OpenImages'] = 'nothing'
    assert lines(run([table])['report.md'], '| 1-shot') == [
        '| 1-shot | n/a | not run | *36.4* | *25.1* |'
    ]
    table['rows'] = [row('Ours', 'nothing')]
    assert lines(run([table])['report.md'], '| 1-shot') == [
        '| 1-shot | not run | *36.4* |'
    ]


def test_general_objects(run):
    coco('general')
    path = osp.join('general', 'evaluation.json')
    with open(path) as file:
        text = file.read().replace('"Harp"', '"Computer Mouse"')
    with open(path, 'w') as file:
        file.write(text)
    table = dict(table='table6', run='general')
    assert lines(run([table])['report.md'], '| ')[1:] == [
        '| **Mean** | 75.0 | 50.0 | 25.0 | *45.6* | *24.4* | *6.5* |',
        '| Computer Mouse | 75.0 | 50.0 | 25.0 | *35.9* | *25.4* | *8.8* |',
        '| Bell & co\\_1 | 75.0 | n/a | 25.0 | *–* | *–* | *–* |',
    ]
    out = run([dict(table, run='nothing')])['report.md']
    assert '| Airplane | not run |  |  | *62.7* | *27.0* | *6.5* |' in out


def test_clusters(run):
    coco('full')
    put('joint', {}, dict(cluster=dict(
        classes=CLASSES, visual=dict(sizes=[2, 1]), audio=dict(sizes=[1, 2]),
        combined=dict(sizes=[3, 0], contingency=[[2, 1], [0, 0]]))))
    table = dict(table='table1', rows=[row('Ours', 'full')])
    assert '## Clusters' in run([table], clusters='joint')['report.md']
    assert {'cluster_sizes.svg', 'cluster_classes.svg'} < set(
        os.listdir('out/pictures'))
    out = run([table], clusters='nothing')['report.md']
    assert '## Clusters' not in out and 'nothing (clusters)' in out


# -- several seeds ---------------------------------------------------------


def test_seeds_are_mean_and_spread(run):
    # Of 60, 70 and 80: mean 70, sample standard deviation 10.
    for seed, value in enumerate((0.6, 0.7, 0.8)):
        coco(f's{seed}/full', value)
    for seed in (0, 2):
        coco(f's{seed}/part', 0.5 + 0.1 * seed)
    coco('s1/one', 0.5)
    coco('s0/nan', None)
    coco('fixed', 0.25)
    names = 'full', 'part', 'one', 'nan', 'none'
    out = run([dict(table='tableA2', paper=[], rows=[
        *[row(name, f's{{seed}}/{name}') for name in names],
        row('fixed', 'fixed')])], seeds=[0, 1, 2])
    assert lines(out['report.md'], '| ')[1:] == [
        '| full | 70.0 ± 10.0 |',
        '| part | 60.0 ± 14.1 (2 of 3) |',
        '| one | 50.0 (1 of 3) |',
        '| nan | n/a (1 of 3) |',
        '| none | not run |',
        '| fixed | 25.0 |',
    ]
    assert '>60.0 ± 14.1 (2 of 3)</td>' in out['report.html']
    assert r'full & 70.0 $\pm$ 10.0 \\' in out['tables.tex']
    assert r'part & 60.0 $\pm$ 14.1 (2 of 3) \\' in out['tables.tex']
    assert '- Mean ± sample standard deviation over the seeds 0, 1, 2.\n' in (
        out['report.md'])
    # What is not there is named, seed by seed.
    for folder in ('s1/part', 's0/one', 's2/nan', 's1/none'):
        assert f'- {folder} (' in out['report.md']
    assert 's0/part' not in out['report.md']
    key = 'tableA2/{}/VGGSound/mAP50{}'.format
    assert flat(out) == {
        key('full', ''): 70,
        key('full', '/seeds'): [60, 70, 80],
        key('full', '/std'): 10,
        key('part', ''): 60,
        key('part', '/seeds'): [50, None, 70],
        key('part', '/std'): 14.1421,
        key('one', ''): 50,
        key('one', '/seeds'): [None, 50, None],
        key('one', '/std'): None,
        key('nan', ''): None,
        key('nan', '/seeds'): [None, None, None],
        key('nan', '/std'): None,
        key('none', ''): None,
        key('fixed', ''): 25,
    }


def test_seeds_where_a_figure_is_not_defined(run):
    for seed, value in enumerate((0.6, None, 0.8)):
        coco(f's{seed}', value)
    rows = [dict(table='tableA2', paper=[], rows=[row('x', 's{seed}')])]
    out = run(rows, seeds=[0, 1, 2])['report.md']
    assert lines(out, '| x') == ['| x | 70.0 ± 14.1 (2 of 3) |']
    for seed in (0, 2):
        coco(f's{seed}', None)
    out = run(rows, seeds=[0, 1, 2])['report.md']
    assert lines(out, '| x') == ['| x | n/a |']
    out = run(rows, seeds=[1])['report.md']
    assert lines(out, '| x') == ['| x | n/a |']


def test_all_tables_of_seeds(run):
    for seed, value in ((1, 0.5), (2, 0.75)):
        coco(f's{seed}/full', value, agnostic=value / 2)
        ssl(f's{seed}/maps', value)
    folder = 's{seed}/full'
    out = run([
        dict(table='table1', paper=[], rows=[
            row('A', folder), row('A', folder, agnostic=True)]),
        dict(table='table2', paper=False, rows=[
            dict(name='B', runs={'single-instr.': 's{seed}/maps'})]),
        dict(table='table3', rows=[dict(name='C', run=folder)]),
        dict(table='table5_k', paper=[], rows=[row('K = 4', folder)]),
        dict(table='table5_matching', paper=[], rows=[row('', folder)]),
        dict(table='table6', run=folder),
    ], seeds=[1, 2])
    text = out['report.md']
    assert lines(text, '| A |') == [
        '| A | 75.0 ± 0.0 | 62.5 ± 17.7 | 25.0 ± 0.0 |']
    assert lines(text, '| A\\*') == [
        '| A\\* | 75.0 ± 0.0 | 31.2 ± 8.8 | 25.0 ± 0.0 |']
    assert lines(text, '| B |') == ['| B | 62.5 ± 17.7 | 40.0 ± 0.0 |']
    assert lines(text, '| C') == ['| C | 62.5 ± 17.7 | 50.0 ± 0.0 | n/a |']
    assert lines(text, '| K') == ['| K = 4 | 62.5 ± 17.7 |']
    assert lines(text, '| hungarian') == ['| hungarian | 62.5 ± 17.7 |']
    assert lines(text, '| **Mean') == [
        '| **Mean** | 75.0 ± 0.0 | 62.5 ± 17.7 | 25.0 ± 0.0 | *45.6* | '
        '*24.4* | *6.5* |']
    assert lines(text, '| Harp')[0].startswith(
        '| Harp | 75.0 ± 0.0 | 50.0 ± 0.0 |')
    # One protocol for all seeds.
    assert text.count('- VGGSound: 3 images') == 3
    note = '- Mean ± sample standard deviation over the seeds 1, 2.'
    assert lines(text, note) == 2 * [note + ' Pictures: seed 1.'] + 4 * [note]

    # Bars show what cells do: the means, not the first seed.
    def bars():
        with open('out/pictures/per_class.svg') as file:
            return file.read()

    found = bars()
    coco('mean', 0.625)
    for folder, same in (('mean', True), ('s1/full', False)):
        run([dict(table='table3', rows=[dict(name='C', run=folder)])])
        assert (bars() == found) == same


def test_first_seed_may_be_missing(run):
    coco('s1', 0.5)
    out = run([dict(table='table3', rows=[dict(name='C', run='s{seed}')]),
               dict(table='table5_matching', paper=[],
                    rows=[row('', 's{seed}')])], seeds=[0, 1])
    assert lines(out['report.md'], '| C') == [
        '| C | 50.0 (1 of 2) | 50.0 (1 of 2) | n/a (1 of 2) |']
    assert lines(out['report.md'], '| hungarian') == [
        '| hungarian | 50.0 (1 of 2) |']


def test_seeds_are_named(run):
    with pytest.raises(SystemExit, match=r's\{seed\} is there for .*`seeds='):
        run([dict(table='table1', rows=[row('x', 's{seed}')])])


def test_pictures_are_of_the_first_seed(run):
    detections('s3')
    coco('s4', ann_file='nothing', outfile_prefix='nothing')
    put('joint3', {}, dict(cluster=dict(
        classes=CLASSES, combined=dict(sizes=[3, 0],
                                       contingency=[[2, 1], [0, 0]]))))
    out = run([dict(table='table1', rows=[row('Ours', 's{seed}')])],
              seeds=[3, 4], clusters='joint{seed}',
              gallery=dict(name='Ours', run='s{seed}', images='s3'))
    assert flat(out)['failures/Ours/missed'] == 2
    assert 'Detections of Ours, seed 3 with a score' in out['report.md']
    assert 'Classes of the clips in each cluster, seed 3' in out['report.md']
    out = run([dict(table='table1', rows=[row('Ours', 's{seed}')])],
              seeds=[5, 3], clusters='joint{seed}',
              gallery=dict(name='Ours', run='s{seed}', images='s3'))
    assert '## Detections and failures' not in out['report.md']
    assert '- joint5 (clusters)' in out['report.md']


# -- tables of any metrics -------------------------------------------------


FIGURES = dict(
    table='figures', title='Ablations', key='ablations', notes=['So.'],
    columns=[
        dict(name='NMI', metric='cluster/nmi_visual', suffix='/joint'),
        dict(name='Time (s)', metric='time', scale=1, suffix='/joint'),
        dict(name='silent', group='Recall', metric='coco/recall50_silent'),
        dict(name='sounding', group='Recall', metric='coco/AP50')])


def test_figures(run):
    for seed, value in ((0, 0.5), (1, 0.75)):
        path = coco(f'w{seed}/x', recall=dict(iou_thr=0.5, score_thr=0.3))
        with open(path) as file:
            content = json.load(file)
        content['metrics']['coco/recall50_silent'] = value
        with open(path, 'w') as file:
            json.dump(content, file)
        put(f'w{seed}/x/joint', {'cluster/nmi_visual': value, 'time': 90})
    table = dict(FIGURES, rows=[
        dict(name='x_1', run='w{seed}/x', main=True),
        dict(name='only', runs=dict(NMI='w1/x')),
        dict(name='none', run='w{seed}/y'),
        dict(name='part', runs=dict(NMI='w0/y'), run='w0/x'),
    ])
    out = run([table], seeds=[0, 1])
    text = out['report.md']
    assert '## Ablations\n' in text
    assert lines(text, '| ') == [
        '| method | NMI | Time (s) | Recall: silent | Recall: sounding |',
        '| **x\\_1** | 62.5 ± 17.7 | 90.0 ± 0.0 | 62.5 ± 17.7 | 50.0 ± 0.0 |',
        '| only | 75.0 | – | – | – |',
        '| none | not run |  | not run |  |',
        '| part | not run | 90.0 | 50.0 | 50.0 |',
    ]
    assert flat(out)['ablations/x_1/NMI/seeds'] == [50, 75]
    assert flat(out)['ablations/part/Recall/silent'] == 50
    assert flat(out)['ablations/part/Time (s)'] == 90
    assert 'ablations/only/Recall/silent' not in flat(out)
    notes = lines(text, '- ')
    assert notes[0] == '- So.' and '- Not in percent: Time (s).' in notes
    assert [n for n in notes if n.startswith('- Recall: 3 images')
            and 'recall at IoU 0.5 and score ≥ 0.3; ' in n]
    assert '- w0/y/joint (none, Figures)' in notes
    assert '- w1/y (none, Recall)' in notes
    assert '>Ablations</a>' in out['report.html']
    assert (' & \\multicolumn{2}{c}{} & \\multicolumn{2}{c}{Recall} '
            '\\\\\n\\cmidrule(lr){4-5}\n & NMI') in out['tables.tex']
    # Without groups there is no line for them.
    out = run([dict(FIGURES, columns=FIGURES['columns'][:1],
                    rows=[dict(name='x', run='w0/x')])])
    assert '\\toprule\n & NMI' in out['tables.tex']
    assert '<thead><tr><th></th><th class="first">NMI' in out['report.html']


def test_wrong_figures(run):
    put('w/joint', {'cluster/nmi': 1})
    with pytest.raises(SystemExit, match='no cluster/nmi_visual, only clus'):
        run([dict(FIGURES, rows=[dict(name='x', run='w')])])
    with pytest.raises(SystemExit, match='x has runs of nmi, which is none'):
        run([dict(FIGURES, rows=[dict(name='x', runs=dict(nmi='w'))])])


# -- summary ---------------------------------------------------------------


def summary_of(run, keys, *arguments, seeds=(0, 1, 2)):
    run([dict(FIGURES, rows=[])], *arguments, seeds=list(seeds),
        summary=dict(file='sums/small.json', keys=keys))
    with open('sums/small.json') as file:
        return json.load(file)


def test_summary(run, capsys):
    for seed, value in enumerate((0.25, 0.5, 0.75)):
        put(f's{seed}', {'coco/AP50': value, 'gone': None})
        if seed:
            put(f's{seed}/part', {'coco/AP50': value})
    put('fixed', {'coco/AP50': 0.125})
    keys = dict(full_ap50=('s{seed}', 'coco/AP50'),
                part=('s{seed}/part', 'coco/AP50'),
                fixed=('fixed', 'coco/AP50'),
                gone=('s{seed}', 'gone'),
                nothing=('s{seed}/no', 'coco/AP50'))
    # Only when asked.
    with pytest.raises(FileNotFoundError):
        summary_of(run, keys)
    assert summary_of(run, keys, '--summary') == dict(
        full_ap50=0.5, full_ap50_seeds=[0.25, 0.5, 0.75], full_ap50_std=0.25,
        part=0.625, part_seeds=[None, 0.5, 0.75],
        part_std=pytest.approx(0.125 * 2**0.5), fixed=0.125)
    told = capsys.readouterr().err.splitlines()
    assert told == [
        'warning: part of the summary is of 2 of 3 seeds.',
        'warning: the summary has no gone: gone of s{seed} is not defined.',
        'warning: the summary has no nothing: coco/AP50 of s{seed}/no is not '
        'run.',
    ]
    found = summary_of(run, dict(x=('s{seed}', 'coco/AP50')), '--summary',
                       seeds=[2])
    assert found == dict(x=0.75, x_seeds=[0.75], x_std=None)


def test_summary_of_several_machines(run, capsys):
    put('s0', {'a': 0.25, 'b': 1.})
    put('s2', {'a': 0.75, 'b': 0.})
    put('fixed', {'a': 0.125})
    keys = dict(x=('s{seed}', 'a'), y=('s{seed}/part', 'a'),
                fixed=('fixed', 'a'), other=('none', 'a'),
                never=('s{seed}/no', 'a'))
    os.makedirs('sums')
    with open('sums/small.json', 'w') as file:
        json.dump(dict(x=0.5, x_seeds=[0.5, 0.5, None], y=1.,
                       y_seeds=[None, None, 1.], y_std=None, fixed=0.5,
                       other=0.375), file)
    # What was run here is newer; the rest stays.
    found = summary_of(run, keys, '--summary', '--keep')
    assert found == dict(
        x=0.5, x_seeds=[0.25, 0.5, 0.75], x_std=0.25, y=1.,
        y_seeds=[None, None, 1.], y_std=None, fixed=0.125, other=0.375)
    told = capsys.readouterr().err.splitlines()
    assert told[0] == 'warning: y of the summary is of 1 of 3 seeds.'
    assert 'has no never' in told[1] and len(told) == 2
    with pytest.raises(SystemExit, match='x is of 3 seeds in the summary'):
        summary_of(run, keys, '--summary', '--keep', seeds=[0, 2])
    assert summary_of(run, keys, '--summary')['x_seeds'] == [.25, None, .75]
    with pytest.raises(SystemExit):
        run([dict(FIGURES, rows=[])], '--keep')


def test_seconds_in_the_summary(run, capsys):
    def record(folder, stage, **content):
        os.makedirs(f'{folder}/stages', exist_ok=True)
        with open(f'{folder}/stages/{stage}.json', 'w') as file:
            json.dump(content, file)

    record('s0', 'train-00000000', cpu_seconds=8., started=1, outputs={})
    record('s0', 'train-00000001', cpu_seconds=10., started=2, outputs={})
    record('s0', 'train-00000002', cpu_seconds=99., started=3)  # Not ended.
    record('s0', 'train-test-00000000', cpu_seconds=99., started=3,
           outputs={})
    record('s1', 'train-00000000', cpu_seconds=0., outputs={})
    record('s2', 'train-00000000', cpu_seconds=14., started=1, outputs={})
    seconds = dict(train_seconds=('s{seed}', 'train', 2),
                   fixed=('s2', 'train', 1), none=('s1', 'train', 1))
    run([dict(FIGURES, rows=[])], '--summary', seeds=[0, 1, 2],
        summary=dict(file='s.json', keys={}, seconds=seconds))
    with open('s.json') as file:
        assert json.load(file) == dict(
            train_seconds=6., train_seconds_seeds=[5., None, 7.],
            train_seconds_std=pytest.approx(2**0.5), fixed=14.)
    assert capsys.readouterr().err.splitlines() == [
        'warning: train_seconds of the summary is of 2 of 3 seeds.',
        'warning: the summary has no none: the stage train below s1 is not '
        'run.',
    ]


def test_wrong_summary(run):
    with pytest.raises(SystemExit, match='has no `summary`: dict'):
        run([dict(FIGURES, rows=[])], '--summary')
    with pytest.raises(SystemExit):
        run(None, '--summary', '--work-dirs', 'a=b')
    put('full', {'loc/iou50': 1})
    with pytest.raises(SystemExit, match='has no coco/AP50, only loc/iou50'):
        summary_of(run, dict(x=('full', 'coco/AP50')), '--summary')
    assert not osp.exists('sums')


# -- LaTeX -----------------------------------------------------------------


def test_latex(run):
    coco('full')
    out = run([
        dict(table='table1', title='50 % of #1', notes=['n_1'], rows=[
            row('A & B_{1}', 'full', paper='PCL (WSOD)'),
            row('~^\\$', 'nothing', agnostic=True)]),
        dict(table='table3', rows=[dict(name='x', run='full')])
    ])['tables.tex']
    assert r'\caption{Table 1: 50 \% of \#1}' in out
    assert (r'A \& B\_\{1\} & 75.0 & 50.0 & 25.0 & \textit{54.9} & '
            r'\textit{27.7} & \textit{7.6} \\') in out
    assert (r'\textasciitilde{}\textasciicircum{}\textbackslash{}\$* & '
            r'\multicolumn{3}{c}{not run} & \textit{--}') in out
    assert r' & \multicolumn{3}{c}{VGGSound} & \multicolumn{3}{c}' in out
    assert r'{VGGSound, paper} \\' in out
    assert r'\cmidrule(lr){2-4} \cmidrule(lr){5-7}' in out
    assert r'Bell \& co\_1' in out
    for sign in ('begin', 'end'):
        assert out.count(f'\\{sign}{{tabular}}') == 2
    # As many cells as columns, in every line.
    for block in out.split(r'\begin{tabular}{l')[1:]:
        width = block.index('}') + 1
        for line in block.splitlines()[2:]:
            if line.endswith(r' \\'):
                spans = [int(n) for n in re.findall(r'column{(\d+)}', line)]
                cells = len(re.findall(r'(?<!\\)&', line)) + 1
                assert cells + sum(spans) - len(spans) == width


# -- files that are not as they should be ----------------------------------

TABLE = [dict(table='table1', rows=[row('Ours', 'full')])]


@pytest.mark.parametrize('text, message', [
    ('{"metrics": {', 'full/evaluation.json is no json'),
    ('[]', 'lacks metrics or details'),
    ('{"metrics": {}}', 'lacks metrics or details'),
    ('{"metrics": {"coco/AP50": "high"}, "details": {}}',
     'coco/AP50 is no number'),
    ('{"metrics": {"loc/iou50": 1}, "details": {}}',
     'has no coco/AP30, only loc/iou50'),
])
def test_broken_files(run, text, message):
    os.makedirs('full')
    with open('full/evaluation.json', 'w') as file:
        file.write(text)
    with pytest.raises(SystemExit, match=message):
        run(TABLE)
    assert not osp.exists('out/report.md')


def test_stale_file(run):
    path = coco('full')
    with open(path) as file:
        content = json.load(file)
    with open(path, 'w') as file:
        json.dump(dict(content, checkpoint='epoch_3.pth'), file)
    run(TABLE)  # Moved away: nothing is known.
    open('epoch_3.pth', 'w').close()
    os.utime('epoch_3.pth', (1, 1))
    run(TABLE)
    os.utime(path, (1, 1))
    os.utime('epoch_3.pth', (2, 2))
    with pytest.raises(SystemExit) as error:
        run(TABLE)
    assert 'full/evaluation.json is older than epoch_3.pth' in str(error.value)
    assert ('python tools/test.py c.py epoch_3.pth --work-dir full'
            in str(error.value))


def test_test_of_another_config(tool, run, tmp_path, monkeypatch):
    coco('full')
    config = tmp_path / 'table.py'
    for name, fits in (('configs/c.py', True), ('configs/d.py', False)):
        stages = [dict(name='t', script='tools/test.py', config=name,
                       outputs=['full/evaluation.json'])]
        config.write_text(f'stages = {stages!r}\n'
                          f'report = dict(title="T", tables={TABLE!r})')
        monkeypatch.setattr(sys, 'argv', ['report.py', 'table.py'])
        if fits:
            tool.main()
            assert osp.isfile('report/report.html')
        else:
            with pytest.raises(SystemExit, match='belongs to c.py'):
                tool.main()


def test_details_are_needed(run):
    put('full', {f'coco/{k}': 1 for k in figures(1)})
    with pytest.raises(SystemExit, match='no details of coco'):
        run([dict(table='table5_matching', rows=[row('Ours', 'full')])])


def test_wrong_configs(run, tmp_path):
    with pytest.raises(SystemExit,
                       match='no table table9, only table1, .* and figures'):
        run([dict(table='table9', rows=[])])
    coco('full')
    with pytest.raises(SystemExit, match='no row Mine, only PCL'):
        run([dict(table='table1', rows=[row('x', 'full', paper='Mine')])])
    (tmp_path / 'empty.py').write_text('stages = []')
    with pytest.raises(SystemExit, match='has no `report`'):
        run(None, 'empty.py')
    with pytest.raises(SystemExit):
        run(None)
    with pytest.raises(SystemExit):
        run(TABLE, '--work-dirs', 'a=b')


# -- plain work directories ------------------------------------------------


def test_work_dirs(run):
    coco('a')
    agnostic('b')
    ssl('c')
    os.makedirs('d')
    out = run(None, '--out', 'out', '--work-dirs', 'A=a', 'B=b', 'C=c', 'D=d')
    found = lines(out['report.md'], '| ')
    assert found == [
        '| method | test: mAP30 | test: mAP50 | test: mAP |',
        '| A | 75.0 | 50.0 | 25.0 |',
        '| D | not run |  |  |',
        '| method | test: mAP30 | test: mAP50 | test: mAP |',
        '| A\\* | 75.0 | 12.5 | 25.0 |',
        '| B\\* | 75.0 | 12.5 | 25.0 |',
        '| method | single-instr.: IoU-0.5 | single-instr.: AUC | '
        'multi-instr.: cIoU-0.3 |',
        '| C | 50.0 | 40.0 | 30.0 |',
        '| method | AP50: mean | AP50: Harp | AP50: Bell & co\\_1 |',
        '| A | 50.0 | 50.0 | n/a |',
    ]
    assert '(paper)' not in out['report.md']


@pytest.mark.parametrize('words, message', [
    (['a'], 'write NAME=DIR'),
    (['a=full', 'a=full'], 'each name once'),
    (['a=gone'], 'no folder gone'),
    (['a=other'], 'no test in these folders'),
])
def test_wrong_work_dirs(run, words, message):
    coco('full')
    put('other', {'loc/iou50': 1})
    with pytest.raises(SystemExit, match=message):
        run(None, '--work-dirs', *words)


# -- failures --------------------------------------------------------------


def detections(name):
    """A test with files for the gallery: two images, four objects."""
    def item(image, category, box, **more):
        return dict(image_id=image, category_id=category, bbox=box, **more)

    truth = dict(
        images=[dict(id=i, file_name=f'frames/{i}/0.png') for i in (7, 8)],
        categories=[dict(id=3, name='Harp'), dict(id=4, name='Bell')],
        annotations=[
            item(7, 3, [0, 0, 20, 20], sounding=True),
            item(7, 3, [30, 0, 20, 20], sounding=False),
            item(8, 3, [0, 0, 20, 20]), item(8, 4, [0, 30, 20, 20])])
    found = [
        item(7, 0, [0, 0, 50, 20], score=0.9),  # both
        item(8, 0, [0, 0, 20, 20], score=0.9),
        item(8, 0, [0, 30, 20, 20], score=0.5),  # a bell
        item(8, 1, [0, 30, 20, 20], score=0.29),  # below the threshold
        item(8, 1, [40, 40, 9, 9], score=0.3)]
    os.makedirs(name)
    for path, content in (('gt.json', truth), ('d.bbox.json', found)):
        with open(f'{name}/{path}', 'w') as file:
            json.dump(content, file)
    coco(name, ann_file=f'{name}/gt.json', outfile_prefix=f'{name}/d')
    for i in (7, 8):
        os.makedirs(f'{name}/frames/{i}')
        cv2.imwrite(f'{name}/frames/{i}/0.png',
                    np.zeros((60, 60, 3), np.uint8))


def test_gallery(run):
    detections('full')
    gallery = dict(name='Ours', run='full', images='full')
    out = run(TABLE, gallery=gallery)
    found = {k: v for k, v in flat(out).items() if k.startswith('failures')}
    assert found == {
        'failures/Ours/correct': 1,
        'failures/Ours/duplicate': 0,
        'failures/Ours/misnamed': 1,
        'failures/Ours/grouped': 1,
        'failures/Ours/part': 0,
        'failures/Ours/background': 1,
        'failures/Ours/missed': 2,
    }
    assert lines(out['report.md'], '| grouped')[0].startswith(
        '| grouped | 1 | 25.0 % of detections |')
    assert lines(out['report.md'], '| missed')[0].startswith(
        '| missed | 2 | 50.0 % of objects |')
    assert 'at least 0.3 on 2 images with 4 objects' in out['report.md']
    for caption in ('frames/7/0: Harp 0.90, object: Harp, Harp',
                    'frames/8/0: Harp 0.50, object: Bell',
                    'frames/8/0: no class 0.30<', 'frames/7/0: Harp missed'):
        assert caption in out['report.html']
    # The object in green, the detection in red.
    picture = cv2.imread('out/pictures/misnamed_0.jpg').astype(int)
    blue, green, red = np.moveaxis(picture, -1, 0)
    assert ((red > 150) & (green < 100) & (blue < 110)).sum() > 100
    # Of images drawn at random, all detections, in orange.
    assert 'frames/7/0: sounding Harp; silent Harp' in out['report.html']
    assert 'frames/8/0: Harp, Bell' in out['report.html']
    assert '### images drawn at random' in out['report.md']
    picture = cv2.imread('out/pictures/random_0.jpg').astype(int)
    blue, green, red = np.moveaxis(picture, -1, 0)
    assert ((red > 180) & (abs(green - 140) < 40) & (blue < 90)).sum() > 100
    picture = cv2.imread('out/pictures/missed_0.jpg').astype(int)
    blue, green, red = np.moveaxis(picture, -1, 0)
    assert ((green > 150) & (red < 110) & (blue < 130)).sum() > 100
    assert {p for p in os.listdir('out/pictures') if p.endswith('.jpg')} == {
        'grouped_0.jpg', 'misnamed_0.jpg', 'background_0.jpg', 'missed_0.jpg',
        'missed_1.jpg', 'random_0.jpg', 'random_1.jpg'}
    # Not more than was asked for; labels may be classes already.
    coco('full', ann_file='full/gt.json', outfile_prefix='full/d',
         matchings=dict(labels=0.5))
    out = run(TABLE, gallery=dict(gallery, per_kind=1, score_thr=0.95))
    assert flat(out)['failures/Ours/missed'] == 4
    assert {p for p in os.listdir('out/pictures')
            if p.endswith('.jpg')} == {'missed_0.jpg', 'random_0.jpg'}


def test_gallery_needs_its_files(run):
    gallery = dict(name='Ours', run='full', images='full')
    out = run(TABLE, gallery=gallery)
    assert '## Detections and failures' not in out['report.md']
    coco('full')
    with pytest.raises(SystemExit, match='test with outfile_prefix'):
        run(TABLE, gallery=gallery)
    coco('full', ann_file='gt.json', outfile_prefix='d')
    with pytest.raises(SystemExit, match='no file gt.json'):
        run(TABLE, gallery=gallery)


def test_gallery_needs_pictures(run):
    detections('full')
    with pytest.raises(SystemExit, match='no picture elsewhere'):
        run(TABLE, gallery=dict(name='x', run='full', images='elsewhere'))


# -- configs/tables --------------------------------------------------------


@pytest.fixture
def table(monkeypatch):
    """Reads a table config; results would be in /WORK."""
    from avdet_mm.utils.stages import load_quietly
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv('AVDET_WORK_DIRS', '/WORK')
    monkeypatch.setenv('AVDET_DEMO_DIR', '/WORK')
    return lambda name: load_quietly(f'{ROOT}/configs/tables/{name}.py')


def runs_of(report):
    """Work directories of all tests, of all seeds."""
    found = [report.clusters, report.gallery.run]
    found += [folder for folder, _ in report.get('summary', {}).get(
        'keys', {}).values()]
    for spec in report.tables:
        for line in [*spec.get('rows', ()), spec]:
            runs = [(None, line.run)] if 'run' in line else []
            runs += line.get('runs', {}).items()
            for column, folder in runs:
                suffixes = {c.get('suffix', '') for c in spec.get(
                    'columns', ()) if column in (None, c.name)}
                found += [folder + suffix for suffix in suffixes or ['']]
    for folder in found:
        for seed in report.get('seeds', [0]):
            yield folder.replace('{seed}', str(seed))


NAMES = ['audioset', 'demo', 'stampsound_full', 'stampsound_small', 'vggsound']


def test_all_tables_are_tested():
    assert sorted(os.listdir(osp.join(ROOT, 'configs/tables'))) == [
        f'{name}.py' for name in NAMES]


@pytest.mark.parametrize('name', NAMES)
def test_every_row_is_tested_by_a_stage(name, table, monkeypatch):
    all_tested = set()
    for seed in table(name).report.get('seeds', [0]):
        monkeypatch.setenv('AVDET_SEED', str(seed))
        cfg = table(name)
        for stage in cfg.stages:
            assert osp.isfile(stage.script)
            assert osp.isfile(stage.get('config', stage.script)), stage.config
        made = [
            path for stage in cfg.stages for path in stage.get('outputs', ())
        ]
        assert len(set(made)) == len(made)
        names = [stage.name for stage in cfg.stages]
        assert len(set(names)) == len(names)
        tested = {
            osp.dirname(p) for p in made if p.endswith('evaluation.json')
        }
        # The report is last and reads all of them.
        report = cfg.stages[-1]
        assert report.config == f'configs/tables/{name}.py'
        assert tested == {
            osp.dirname(p) for p in report.inputs
            if p.endswith('evaluation.json')
        }
        run = cfg.report.gallery.run.replace('{seed}', str(seed))
        assert f'{run}/detections.bbox.json' in report.inputs
        all_tested |= tested
    assert set(runs_of(cfg.report)) == all_tested


@pytest.mark.parametrize('name', NAMES)
def test_nothing_was_run_yet(name, table, run):
    cfg = table(name)
    out = run([spec.to_dict() for spec in cfg.report.tables],
              seeds=cfg.report.get('seeds', []))
    assert not any(v for k, v in flat(out).items()
                   if not k.startswith('paper/'))
    assert 'not run' in out['report.md']
    # Rows that are the paper's have its figures beside them.
    assert '(paper)' in out['report.md']


def test_rows_of_the_demo(table):
    first, second, music, *_ = table('demo').report.tables
    aware = [r.name for r in first.rows if not r.agnostic]
    starred = [r.name for r in first.rows if r.agnostic]
    assert len(aware) == 4 and len(starred) == 6
    assert {'Ours - full', 'Ceiling: ground-truth boxes'} == set(
        aware) & set(starred)
    assert {r.get('paper') for r in first.rows} == {
        'PCL (WSOD)', 'Ours - weak sup.', 'Ours - full', 'Center Box*',
        'Selective Search*', 'COCO-trained RPN*', 'Ours - self-boxes*', None
    }
    assert {r.get('paper') for r in second.rows} == {
        'Sound of pixels', 'Object t. Sound', 'Attention', 'DMC', 'DSOL',
        'Ours', None
    }
    # Heatmaps, at both thresholds.
    assert [r.name for r in music.rows] == [r.name for r in second.rows][:7]
