import itertools
import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from avdet_mm.models.task_modules import ClusterMatcher

TOOL = str(Path(__file__).parents[3] / 'tools' / 'match_clusters.py')


def labels_of(table):
    pairs = [
        (k, c)
        for k, row in enumerate(table)
        for c, n in enumerate(row)
        for _ in range(n)
    ]
    return [p[0] for p in pairs], [p[1] for p in pairs]


@pytest.mark.parametrize('shape', [(4, 4), (5, 3), (3, 5)])
def test_hungarian_brute_force(shape):
    table = np.random.default_rng(1).integers(1, 20, shape)
    matcher = ClusterMatcher().fit(*labels_of(table), *shape)
    assert (matcher.contingency == table).all()
    found = matcher.matching >= 0
    assert found.sum() == min(shape)
    assert len(set(matcher.matching[found])) == min(shape)
    wide = table if shape[0] <= shape[1] else table.T
    best = max(
        sum(wide[i, j] for i, j in enumerate(columns))
        for columns in itertools.permutations(
            range(wide.shape[1]), wide.shape[0]
        )
    )
    assert table[found, matcher.matching[found]].sum() == best


def test_methods_differ():
    table = [[9, 8], [7, 0], [0, 0]]
    hungarian = ClusterMatcher().fit(*labels_of(table), 3, 2)
    assert hungarian.matching.tolist() == [1, 0, -1]
    majority = ClusterMatcher('majority').fit(*labels_of(table), 3, 2)
    assert majority.matching.tolist() == [0, 0, -1]


def test_no_match_without_a_clip():
    # Cluster 1 is left for class 1, but they never meet.
    matcher = ClusterMatcher().fit([0, 1, 0], [0, 0, 0], 2, 2)
    assert matcher.matching.tolist() == [0, -1]


def test_map_and_json(tmp_path):
    matcher = ClusterMatcher().fit(*labels_of([[0, 3], [0, 1], [2, 0]]), 3, 2)
    assert matcher.map([2, 1, 0, 2]).tolist() == [0, -1, 1, 0]
    assert matcher.map([]).shape == (0,)
    path = str(tmp_path / 'new' / 'matching.json')
    matcher.to_json(path, ['bell', 'drum'], dict(source='here'))
    assert json.load(open(path)) == dict(
        info=dict(source='here'),
        classes=['bell', 'drum'],
        num_clusters=3,
        contingency=[[0, 3], [0, 1], [2, 0]],
        matchings=dict(hungarian={'0': 'drum', '2': 'bell'}),
    )
    again, = ClusterMatcher.from_json(path).values()
    assert again.method == 'hungarian'
    assert again.classes == ['bell', 'drum']
    assert (again.matching == matcher.matching).all()
    assert (again.contingency == matcher.contingency).all()
    assert [p.name for p in (tmp_path / 'new').iterdir()] == ['matching.json']


def test_several_matchings_in_one_json(tmp_path):
    labels = labels_of([[0, 3], [0, 1], [2, 0]])
    first, *others = (
        ClusterMatcher(m).fit(*labels, 3, 2) for m in ('majority', 'hungarian')
    )
    path = str(tmp_path / 'matching.json')
    first.to_json(path, ['bell', 'drum'], others=others)
    again = ClusterMatcher.from_json(path)
    assert list(again) == ['majority', 'hungarian']
    assert again['majority'].matching.tolist() == [1, 1, 0]
    assert again['hungarian'].matching.tolist() == [1, -1, 0]
    with pytest.raises(ValueError, match='one matching of each'):
        first.to_json(path, ['bell', 'drum'], others=[first])
    with pytest.raises(RuntimeError, match='fit'):
        first.to_json(path, ['bell', 'drum'], others=[ClusterMatcher()])


class Poisoned(list):
    """Labels of which only some may be looked at."""

    def __init__(self, labels, allowed):
        super().__init__(labels)
        self.allowed, self.seen = set(allowed), set()

    def __getitem__(self, i):
        assert i in self.allowed
        self.seen.add(int(i))
        return super().__getitem__(i)

    def __iter__(self):
        raise AssertionError('All labels were read.')


def test_k_shot_reads_k_labels_of_each_cluster():
    clusters = [0, 0, 0, 1, 1, 1, 3]
    scores = [0.2, 0.9, 0.8, 0.5, 0.5, 0.7, 0.1]
    classes = [0, 1, 2, 0, 2, 1, 2]

    def fit(shots, allowed):
        labels = Poisoned(classes, allowed)
        matcher = ClusterMatcher(f'{shots}-shot')
        matcher.fit(clusters, labels, 4, 3, scores)
        assert labels.seen == set(allowed)
        return matcher

    one = fit(1, [1, 5, 6])
    assert one.matching.tolist() == [1, 1, -1, 2]
    assert one.contingency.tolist() == [[0, 1, 0], [0, 1, 0], [0, 0, 0],
                                        [0, 0, 1]]
    # Two classes once each: that of the more confident clip. Of clips 3 and
    # 4, equally confident, the first counts.
    two = fit(2, [1, 2, 5, 3, 6])
    assert two.matching.tolist() == [1, 1, -1, 2]
    # More than there are.
    assert fit(9, range(7)).contingency.sum() == 7


def test_k_shot_majority_outvotes_confidence():
    labels = [2] + [0] * 3 + [1] * 3
    scores = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3]
    matcher = ClusterMatcher('7-shot').fit([0] * 7, labels, 1, 3, scores)
    assert matcher.matching.tolist() == [0]
    matcher = ClusterMatcher('2-shot').fit([0] * 7, labels, 1, 3, scores)
    assert matcher.matching.tolist() == [2]


def test_manual_is_majority_of_groups():
    matcher = ClusterMatcher('manual').fit([0, 0, 0], [1, 1, 0], 2, 2)
    assert matcher.matching.tolist() == [1, -1]


def test_errors(tmp_path):
    for method in ('best', '0-shot', '-1-shot', 'shot'):
        with pytest.raises(ValueError, match='is unknown; choose'):
            ClusterMatcher(method)
    for scores in (None, [0.5, 0.5]):
        with pytest.raises(ValueError, match='confidence of every clip'):
            ClusterMatcher('1-shot').fit([0], [0], 1, 1, scores)
    with pytest.raises(ValueError, match='No labeled clips'):
        ClusterMatcher().fit([], [], 2, 2)
    with pytest.raises(ValueError, match='does not fit'):
        ClusterMatcher().fit([2], [0], 2, 2)
    with pytest.raises(RuntimeError, match='fit'):
        ClusterMatcher().map([0])
    with pytest.raises(RuntimeError, match='fit'):
        ClusterMatcher().to_json(str(tmp_path / 'x.json'), [])
    matcher = ClusterMatcher().fit([0, 1], [0, 1], 2, 2)
    with pytest.raises(ValueError, match='another model'):
        matcher.map([2])
    with pytest.raises(ValueError, match='another model'):
        matcher.map([-1])
    with pytest.raises(ValueError, match='3 class names'):
        matcher.to_json(str(tmp_path / 'x.json'), ['a', 'b', 'c'])
    with pytest.raises(FileNotFoundError, match='match_clusters.py'):
        ClusterMatcher.from_json(str(tmp_path / 'x.json'))
    path = tmp_path / 'x.json'
    good = dict(
        classes=['a'], num_clusters=1, matchings=dict(majority={'0': 'a'})
    )
    for bad, message in (
        ('{', 'not valid json'),
        ('[]', 'not a matching'),
        ('{"images": []}', 'not a matching'),
        (json.dumps({**good, 'matchings': dict(majority={'0': 'b'})}), "'b'"),
        (json.dumps({**good, 'matchings': dict(majority={'7': 'a'})}), '7'),
    ):
        path.write_text(bad)
        with pytest.raises(ValueError, match=message):
            ClusterMatcher.from_json(str(path))
    path.write_text(json.dumps(good))
    matcher = ClusterMatcher.from_json(str(path))['majority']
    assert matcher.map([0]).tolist() == [0]


@pytest.fixture
def run_tool(tmp_path, monkeypatch):

    def run(self_labels, clips, *options):
        argv = [TOOL]
        for name, content in (('', self_labels), ('--clips', clips)):
            path = tmp_path / f'in{name}.json'
            path.write_text(json.dumps(content))
            argv += [name, str(path)] if name else [str(path)]
        out = tmp_path / 'matching.json'
        monkeypatch.setattr(sys, 'argv', [*argv, '--out', str(out), *options])
        runpy.run_path(TOOL, run_name='__main__')
        return json.loads(out.read_text())

    return run


def files(clusters, labels, classes=('bell', 'drum')):
    """Self-labels with category ids from 1, and the table to them."""
    self_labels = dict(
        images=[dict(id=i, clip_id=f'clip{i}') for i in range(len(clusters))],
        categories=[dict(id=k + 1, name=f'cluster_{k}') for k in range(3)],
        annotations=[
            dict(id=i, image_id=i, category_id=k + 1, score=0.5)
            for i, k in enumerate(clusters)
        ],
    )
    clips = dict(
        metainfo=dict(classes=classes),
        data_list=[
            dict(clip_id=f'clip{i}', **(dict(label=n) if n else {}))
            for i, n in enumerate(labels)
        ],
    )
    return self_labels, clips


def test_tool(run_tool):
    self_labels, clips = files(
        [0, 0, 2, 2, 1], ['drum', 'drum', 'bell', None, None, 'bell']
    )
    # A second box that scores less has no say.
    self_labels['annotations'].append(
        dict(id=9, image_id=2, category_id=1, score=0.1)
    )
    content = run_tool(self_labels, clips)
    assert content['matchings']['hungarian'] == {'0': 'drum', '2': 'bell'}
    assert content['classes'] == ['bell', 'drum']
    assert content['contingency'] == [[0, 2], [0, 0], [1, 0]]
    assert content['info']['num_clips'] == 3
    assert content['info']['num_clips_without_label'] == 2


def test_tool_errors(run_tool):
    good, clips = files([0, 1], ['bell', 'drum'])
    del clips['metainfo']  # class names are then those in use
    assert run_tool(good, clips)['classes'] == ['bell', 'drum']
    foreign = dict(data_list=[dict(clip_id='other', label='bell')])
    no_id = dict(good, images=[dict(id=0), dict(id=1)])
    for self_labels, table, message in (
        (good, foreign, 'belongs to other clips'),
        (good, files([0, 1], [None, None])[1], 'No clip in'),
        (good, files([0, 1], [None, None, 'bell'])[1], 'None of the 2'),
        (good, files([0, 1], ['cat', 'bell'])[1], 'labels that its metainfo'),
        (good, good, 'not a clip table'),
        (clips, clips, 'not a COCO json'),
        (no_id, clips, 'no clip_id'),
        (dict(good, annotations=[]), clips, 'no annotations'),
    ):
        with pytest.raises(SystemExit, match=f'^error: .*{message}'):
            run_tool(self_labels, table)


def test_label_map_renames_after_matching(run_tool, tmp_path):
    # Cluster 2 is the cat's, so that it is not free for a test class.
    self_labels, clips = files(
        [0, 0, 1, 2, 2, 2], ['drum'] * 2 + ['bell', 'cat', 'cat', 'bell'],
        ('cat', 'bell', 'drum'),
    )
    path = tmp_path / 'map.json'
    path.write_text(json.dumps(dict(
        classes=['Violin', 'Drum', 'bell'], mapping=dict(drum='Drum')
    )))
    content = run_tool(self_labels, clips, '--label-map', str(path))
    assert content['matchings']['hungarian'] == {'0': 'Drum', '1': 'bell'}
    assert content['classes'] == ['Violin', 'Drum', 'bell']
    assert content['contingency'] == [[0, 2, 0], [0, 0, 1], [0, 0, 1]]
    assert content['info']['label_map'] == str(path)
    with pytest.raises(SystemExit, match='none of the classes'):
        run_tool(self_labels, clips, '--label-map', 'cosep')


def test_tool_all_methods(run_tool, tmp_path, capsys):
    # Cluster 0 is mostly the drum, its most confident clips are bells.
    self_labels, clips = files(
        [0] * 5 + [1, 1, 2], ['bell'] * 2 + ['drum'] * 3 + ['bell'] * 3,
        ('bell', 'drum'),
    )
    for ann, score in zip(
        self_labels['annotations'], [0.9, 0.8, 0.3, 0.2, 0.1, 0.5, 0.4, 0.3]
    ):
        ann['label_score'] = score
    path = tmp_path / 'groups.json'
    path.write_text(json.dumps(dict(
        classes=['Metal', 'Skin'], mapping=dict(bell='Metal', drum='Metal')
    )))
    methods = ['hungarian', 'majority', '1-shot', '4-shot']
    content = run_tool(self_labels, clips, '--method', *methods)
    assert list(content['matchings']) == methods
    assert content['contingency'] == [[2, 3], [2, 0], [1, 0]]
    assert content['matchings'] == {
        'hungarian': {'0': 'drum', '1': 'bell'},
        'majority': {'0': 'drum', '1': 'bell', '2': 'bell'},
        '1-shot': {'0': 'bell', '1': 'bell', '2': 'bell'},
        '4-shot': {'0': 'bell', '1': 'bell', '2': 'bell'},
    }
    assert '3 of the 3 labels' in capsys.readouterr().out
    content = run_tool(
        self_labels, clips, '--method', 'manual', '--groups', str(path)
    )
    assert content['classes'] == ['Metal', 'Skin']
    assert content['matchings'] == {
        'manual': {'0': 'Metal', '1': 'Metal', '2': 'Metal'}
    }
    assert content['info']['groups'] == str(path)


def test_tool_method_errors(run_tool, capsys):
    self_labels, clips = files([0, 1], ['bell', 'drum'])
    with pytest.raises(SystemExit, match='confidence of every clip'):
        run_tool(self_labels, clips, '--method', '1-shot')
    with pytest.raises(SystemExit, match='is unknown'):
        run_tool(self_labels, clips, '--method', 'best')
    with pytest.raises(SystemExit):
        run_tool(self_labels, clips, '--method', 'manual')
    assert 'need each other' in capsys.readouterr().err
    with pytest.raises(SystemExit, match='must have the same classes'):
        run_tool(
            *files([0, 1], ['playing cello', 'playing harp'],
                   ('playing cello', 'playing harp')),
            '--method', 'hungarian', 'manual', '--groups', 'vggsound_groups',
            '--label-map', 'vggsound_mappable',
        )


def test_table_5_of_the_paper(run_tool):
    # Two kinds of guitar: one cluster stands for the test label by Hungarian
    # matching, both by groups.
    names = ('playing electric guitar', 'playing acoustic guitar',
             'playing cello')
    self_labels, clips = files([0, 0, 1, 1, 2], [
        names[0], names[0], names[1], names[1], names[2]], names)
    for ann in self_labels['annotations']:
        ann['label_score'] = 0.5
    content = run_tool(
        self_labels, clips, '--method', 'hungarian', 'manual', '1-shot',
        '--label-map', 'vggsound_representative', '--groups',
        'vggsound_groups',
    )
    assert content['matchings'] == {
        'hungarian': {'0': 'Guitar', '2': 'Cello'},
        'manual': {'0': 'Guitar', '1': 'Guitar', '2': 'Cello'},
        '1-shot': {'0': 'Guitar', '2': 'Cello'},
    }


def test_missing_clips_may_be_allowed(run_tool):
    self_labels, clips = files([0, 1, 2], ['bell', 'drum', 'bell'])
    del clips['data_list'][2]
    with pytest.raises(SystemExit, match='--allow-missing'):
        run_tool(self_labels, clips)
    content = run_tool(self_labels, clips, '--allow-missing')
    assert content['matchings']['hungarian'] == {'0': 'bell', '1': 'drum'}
    assert content['info']['num_clips_without_label'] == 1


def test_rename():
    matcher = ClusterMatcher('majority')
    with pytest.raises(RuntimeError, match='fit'):
        matcher.rename([0], 1)
    matcher.fit([0, 1, 2, 3], [0, 1, 2, 2], 5, 3)
    with pytest.raises(ValueError, match='each of 3'):
        matcher.rename([0, 1], 2)
    with pytest.raises(ValueError, match='each of 3'):
        matcher.rename([0, 1, 2], 2)
    matcher.rename([1, 1, -1], 2)
    assert matcher.matching.tolist() == [1, 1, -1, -1, -1]
    assert matcher.contingency.tolist() == [[0, 1], [0, 1], [0, 0], [0, 0],
                                            [0, 0]]
