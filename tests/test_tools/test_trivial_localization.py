import json
import runpy
import sys
from pathlib import Path

import pytest

from avdet_mm.datasets.clip_table import dump_clip_table

TOOL = (
    Path(__file__).parents[2]
    / 'tools'
    / 'analysis_tools'
    / 'trivial_localization.py'
)


def run(monkeypatch, capsys, *arguments):
    """Run the tool; returns its table: row to column to text, and line 1."""
    monkeypatch.setattr(sys, 'argv', [str(TOOL), *map(str, arguments)])
    runpy.run_path(str(TOOL), run_name='__main__')
    first, _, *lines = capsys.readouterr().out.splitlines()
    head, rule, *rows = (
        [c.strip() for c in x.split('|')[1:-1]] for x in lines
    )
    assert set(rule) == {'---', '---:'}
    return {row[0]: dict(zip(head[1:], row[1:])) for row in rows}, first


def write(tmp_path, content):
    path = tmp_path / 'annotations.json'
    path.write_text(json.dumps(content))
    return path


def test_dsol(tmp_path, monkeypatch, capsys):
    half = [0.0, 0.0, 0.5, 1.0]

    def entry(*boxes):
        return dict(bbox=[dict(category=c, normbox=b) for c, b in boxes])

    path = write(
        tmp_path,
        {
            'a/0': entry((3, half)),
            'a/1': entry((3, [0.25, 0.25, 0.5, 0.5])),
            'a/2': entry((3, half), (4, [0.5, 0.0, 0.5, 1.0])),
            'a/3': entry(),
        },
    )
    rows, first = run(monkeypatch, capsys, path, '--sides', 0.5)
    assert first.startswith('4 frames, 1 without a box')
    assert list(rows) == [
        'whole frame',
        'centered box, side 0.5',
        'heatmap: nearness to the center',
    ]
    whole, box, _ = rows.values()
    # IoU 1/2 and 1/4; and 1 of a centered box.
    assert whole['dsol_single iou50 (2)'] == '50.0'
    assert box['dsol_single iou50 (2)'] == '50.0'
    # (10.5 + 5.5) / 20 / 2
    assert whole['dsol_single auc (2)'] == '40.0'
    assert whole['dsol_multi ciou30 (1)'] == '100.0'
    # An eighth of a half and of the centered box: 1/8 / 5/8.
    assert box['dsol_multi ciou30 (1)'] == '0.0'
    # The frame without a box counts.
    assert whole['lvs_vggss ciou50 (4)'] == '50.0'
    assert whole['ez_vsl_vggss ap50 (4)'] == '-'


def test_vggss(tmp_path, monkeypatch, capsys):
    path = write(
        tmp_path,
        [
            {'file': 'x_000001', 'class': 'a', 'bbox': [[0, 0, 1, 0.75]]},
            {'file': 'y_000001', 'class': 'b', 'bbox': [[0.3, 0, -2.9e16, 1]]},
        ],
    )
    rows, first = run(monkeypatch, capsys, path, '--sides', 1)
    assert first.startswith('2 frames, 1 without a box')
    assert rows['whole frame'] == rows['centered box, side 1']
    assert rows['whole frame']['dsol_single iou50 (1)'] == '100.0'
    assert rows['whole frame']['lvs_vggss ciou50 (2)'] == '50.0'
    near = rows['heatmap: nearness to the center']
    assert near['ez_vsl_vggss ap50 (2)'] == '50.0'
    assert not [c for c in near if c.startswith('dsol_multi')]


@pytest.mark.parametrize('votes', [False, True])
def test_clip_table(tmp_path, monkeypatch, capsys, votes):
    path = str(tmp_path / 'table.json')
    left, top = [0, 0, 100, 100], [0, 0, 200, 50]
    dump_clip_table(
        [
            dict(
                clip_id='a',
                height=100,
                width=200,
                instances=[
                    dict(bbox=box, label='object', sounding=sounding)
                    | (dict(annotator=str(i)) if votes else {})
                    for i, (box, sounding) in enumerate(
                        [(left, True), (top, True), ([0, 0, 200, 100], False)]
                    )
                ],
            )
        ],
        path,
    )
    rows, _ = run(monkeypatch, capsys, path)
    if votes:
        # One quarter of weight 1, two of 0.5: 2 / (2 + 1).
        assert rows['whole frame']['lvs_flickr auc (1)'] == '67.5'
    else:
        # Three quarters.
        assert rows['whole frame']['lvs_vggss auc (1)'] == '77.5'


def test_errors(tmp_path, monkeypatch, capsys):
    for content in ({'images': []}, [dict(file='x')], 5):
        with pytest.raises(SystemExit, match='is none of audioset_box.json'):
            run(monkeypatch, capsys, write(tmp_path, content))
    path = write(tmp_path, [])
    with pytest.raises(SystemExit):
        run(monkeypatch, capsys, path, '--sides', 1.2)
    assert 'above 0 and at most 1' in capsys.readouterr().err
