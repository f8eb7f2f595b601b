"""Charts of figures as SVG, for light and dark pages."""

import io
from typing import Any, Dict, Optional, Sequence, Tuple

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

PALETTE = (
    '#2f7de1',
    '#e8590c',
    '#2f9e44',
    '#ae3ec9',
    '#e03131',
    '#1098ad',
    '#b08900',
    '#868e96',
)
LINES = ('-', '--', ':')
# So many curves differ in color or line; dotted ones go with another.
MAX_CURVES = 2 * len(PALETTE)
# Stands for the color of the page's text, which a style sheet sets.
_INK = '#010203'
_STYLE = (
    '<style>svg { color: #1c2530; } '
    '@media (prefers-color-scheme: dark) { svg { color: #e3e8ee; } }</style>'
)
_RC = {
    'axes.edgecolor': _INK,
    'axes.labelcolor': _INK,
    'axes.linewidth': 0.6,
    'axes.spines.right': False,
    'axes.spines.top': False,
    'font.size': 9,
    'grid.alpha': 0.18,
    'grid.color': _INK,
    'legend.frameon': False,
    'svg.hashsalt': 'avdet_mm',
    'text.color': _INK,
    # Names are no formulas, whatever dollar signs they have.
    'text.parse_math': False,
    'xtick.color': _INK,
    'ytick.color': _INK,
}

Points = Tuple[Sequence[float], Sequence[Optional[float]]]


def curves(
    series: Dict[str, Points],
    x_title: str,
    y_title: str,
    unit: bool = True,
    dotted: Sequence[str] = (),
) -> str:
    """Lines over a common axis.

    Args:
        series (dict[str, tuple]): Name -> x and y, of equal lengths; None
            and nan are left out.
        x_title (str): What x is.
        y_title (str): What y is.
        unit (bool): Whether both axes go from 0 to 1; otherwise they fit
            the points, which are marked, and the ticks of x are theirs.
            Defaults to True.
        dotted (Sequence[str]): Series that are drawn dotted, in the color
            of the one before. Defaults to none.

    Returns:
        str: SVG.
    """
    with rc_context(_RC):
        figure, axes = _axes(5.4, 3.2)
        number = -1
        for name, (x, y) in series.items():
            number += name not in dotted
            round_, color = divmod(max(number, 0), len(PALETTE))
            axes.plot(
                x,
                _floats(y),
                LINES[2 if name in dotted else round_ % 2],
                color=PALETTE[color],
                marker=None if unit else 'o',
                markersize=4,
                label=name,
                linewidth=1.6,
            )
        axes.set_xlabel(x_title)
        axes.set_ylabel(y_title)
        axes.grid(True)
        if unit:
            axes.set_xlim(0, 1)
            axes.set_ylim(0, 1.02)
        else:
            axes.set_xticks(sorted({v for x, _ in series.values() for v in x}))
            axes.set_ylim(0, 1.08 * axes.get_ylim()[1])
        _legend(axes)
        return _svg(figure)


def bars(
    names: Sequence[str],
    series: Dict[str, Sequence[Optional[float]]],
    y_title: str,
    x_title: str = '',
    pale: Sequence[str] = (),
) -> str:
    """Groups of bars.

    Args:
        names (Sequence[str]): One for each group.
        series (dict[str, Sequence]): Name -> one value for each group; None
            and nan leave a gap. The legend is left out if there is but one.
        y_title (str): What the values are.
        x_title (str): What the groups are. Defaults to ''.
        pale (Sequence[str]): Series in the color of the one before, but
            paler. Defaults to none.

    Returns:
        str: SVG.
    """
    with rc_context(_RC):
        room = max(len(names) * max(len(series), 2) * 0.16, 4)
        figure, axes = _axes(min(room + 1.6, 12), 3.2)
        width = 0.8 / len(series)
        places = np.arange(len(names))
        number = -1
        for i, (name, values) in enumerate(series.items()):
            number += name not in pale
            heights = _floats(values)
            there = np.isfinite(heights)
            axes.bar(
                places[there] - 0.4 + width * (i + 0.5),
                heights[there],
                width * 0.92,
                color=PALETTE[max(number, 0) % len(PALETTE)],
                alpha=0.4 if name in pale else 1,
                label=name,
            )
        slanted = max(map(len, names), default=0) * len(names) > 60
        axes.set_xticks(
            places,
            names,
            rotation=35 if slanted else 0,
            ha='right' if slanted else 'center',
            rotation_mode='anchor',
        )
        axes.tick_params(axis='x', length=0)
        axes.set_xlabel(x_title)
        axes.set_ylabel(y_title)
        axes.grid(True, axis='y')
        axes.set_axisbelow(True)
        axes.yaxis.set_major_locator(MaxNLocator(6))
        if len(series) > 1:
            _legend(axes)
        return _svg(figure)


def matrix(
    counts: Sequence[Sequence[int]],
    rows: Sequence[str],
    columns: Sequence[str],
    row_title: str,
    column_title: str,
) -> str:
    """Counts as a table whose cells are the darker the larger their share.

    Args:
        counts (Sequence[Sequence[int]]): (R, C); colors show shares of rows.
        rows (Sequence[str]): R names.
        columns (Sequence[str]): C names.
        row_title (str): What rows are.
        column_title (str): What columns are.

    Returns:
        str: SVG.
    """
    counts = np.asarray(counts, dtype=np.int64).reshape(
        len(rows), len(columns)
    )
    shares = counts / counts.sum(axis=1, keepdims=True).clip(1)
    with rc_context(_RC):
        width = 1.6 + 0.46 * len(columns)
        figure, axes = _axes(max(width, 3.4), 1.3 + 0.27 * len(rows))
        color = np.array([0x2F, 0x7D, 0xE1]) / 255
        for (i, j), share in np.ndenumerate(shares):
            axes.axhspan(
                i - 0.47,
                i + 0.47,
                (j + 0.03) / len(columns),
                (j + 0.97) / len(columns),
                color=(*color, 0.06 + 0.94 * share),
                linewidth=0,
            )
            if counts[i, j]:
                axes.text(
                    j,
                    i,
                    str(counts[i, j]),
                    ha='center',
                    va='center',
                    fontsize=7.5,
                    color='#ffffff' if share > 0.55 else _INK,
                )
        axes.set_xlim(-0.5, len(columns) - 0.5)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xticks(
            range(len(columns)),
            columns,
            rotation=35,
            ha='right',
            rotation_mode='anchor',
        )
        axes.set_yticks(range(len(rows)), rows)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_xlabel(column_title)
        axes.set_ylabel(row_title)
        return _svg(figure)


def _axes(width: float, height: float) -> Tuple[Figure, Any]:
    figure = Figure((width, height), layout='constrained')
    return figure, figure.subplots()


def _legend(axes: Any) -> None:
    """Beside the axes: nothing can be hidden below it."""
    axes.legend(
        loc='upper left', bbox_to_anchor=(1.0, 1.02), borderaxespad=0.4
    )


def _floats(values: Sequence[Optional[float]]) -> np.ndarray:
    return np.array([np.nan if v is None else v for v in values], dtype=float)


def _svg(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(
        buffer, format='svg', transparent=True, metadata=dict(Date=None)
    )
    text = buffer.getvalue().decode('utf-8')
    start = text.index('<svg')
    end = text.index('>', start) + 1
    text = text[start:end] + _STYLE + text[end:]
    return text.replace(_INK, 'currentColor')
