"""Charts as SVG."""
import re
from xml.etree import ElementTree

import pytest

from avdet_mm.visualization.charts import (
    MAX_CURVES,
    PALETTE,
    bars,
    curves,
    matrix,
)


def paths(svg, color):
    """What is drawn in a color."""
    return re.findall(rf'<path d="[^"]*"[^>]*{color}[^>]*>', svg)


CHARTS = dict(
    curves=lambda: curves({'a $x_1$ & b': ([0, 1], [1, None])}, 'x', 'y'),
    bars=lambda: bars(['g', 'h'], {'a': [1, None], 'b': [2, 3]}, 'y'),
    matrix=lambda: matrix([[1, 0], [0, 0]], ['r', 's'], ['c', 'd'], 'x', 'y'),
)


@pytest.mark.parametrize('name', CHARTS)
def test_text_has_the_color_of_the_page(name):
    svg = CHARTS[name]()
    ElementTree.fromstring(svg[svg.index('<svg'):])
    assert 'prefers-color-scheme: dark' in svg
    assert svg.count('currentColor') > 3
    assert '#010203' not in svg
    # No background, and the same figures give the same file.
    assert CHARTS[name]() == svg
    assert '<image' not in svg


def test_curves_leave_gaps_and_pair_colors():
    x = [20, 30, 39, 50]
    svg = curves({'ours': (x, [1, 2, None, 4]), 'paper': (x, [1, 2, 3, 4])},
                 'K', 'AP', unit=False, dotted=['paper'])
    lines = [p for p in paths(svg, PALETTE[0]) if 'clip-path' in p]
    # 20 to 30, then a point alone; and all four.
    assert [line.count('M ') for line in lines] == [2, 1]
    assert [line.count('L ') for line in lines] == [1, 3]
    assert ['dasharray' in line for line in lines] == [False, True]
    assert not paths(svg, PALETTE[1])


def test_so_many_curves_differ():
    svg = curves({
        str(n): ([0, 1], [n / MAX_CURVES] * 2)
        for n in range(MAX_CURVES)
    }, 'x', 'y')
    looks = [
        re.sub('d="[^"]*"', '', line) for color in PALETTE
        for line in paths(svg, color) if 'clip-path' in line
    ]
    assert len(set(looks)) == len(looks) == MAX_CURVES


def test_bars():
    svg = bars(['g', 'h'], {'a': [1, None], 'b': [2, 3], 'c': [1, 1]}, 'y',
               pale=['c'])
    # One of each color in the legend; c has the color of b.
    assert len(paths(svg, PALETTE[0])) == 1 + 1
    assert len(paths(svg, PALETTE[1])) == (2 + 1) + (2 + 1)
    assert svg.count('opacity: 0.4') == 2 + 1
    assert not paths(svg, PALETTE[2])


def test_matrix_shades_by_share_of_the_row():
    svg = matrix([[3, 1], [0, 0], [0, 80]], 'rst', 'cd', 'x', 'y')
    cells = paths(svg, PALETTE[0])
    alphas = [
        float(re.search(r'opacity: ([\d.]+)', c)[1]) if 'opacity' in c else 1
        for c in cells
    ]
    assert alphas == pytest.approx(
        [0.06 + 0.94 * s for s in (0.75, 0.25, 0, 0, 0, 1)])
