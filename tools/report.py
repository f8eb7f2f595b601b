"""Write the paper's tables with the figures of finished tests.

Reads the evaluation.json that tools/test.py leaves in its work directory,
of all the tests that a table config names (configs/tables), or of plain work
directories. Writes report.md, report.html with its pictures beside it,
tables.tex (needs the package booktabs) and report.json, all figures under
flat names. Figures are in percent; those of the paper are marked. What was
not tested yet is called "not run". Where a work directory has {seed} in its
name, figures are the mean and the sample standard deviation over the `seeds`
of the config.

Examples:
    python tools/report.py configs/tables/demo.py
    python tools/report.py --work-dirs PCL=work_dirs/pcl/test \\
        "Ours=work_dirs/detector/test" --out work_dirs/report
"""
import argparse
import json
import math
import os
import os.path as osp
import random
import shlex
import shutil
import statistics
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from typing import (
    Any,
    Callable,
    Dict,
    Iterator,
    List,
    Optional,
    Sequence,
    Tuple,
    Union,
)

import mmcv
import numpy as np

from avdet_mm.evaluation.functional import classify_detections, count_failures
from avdet_mm.evaluation.functional.failures import KINDS
from avdet_mm.utils import atomic_write, dump_json
from avdet_mm.utils.progress import Progress
from avdet_mm.utils.stages import finished_stage, load_quietly
from avdet_mm.visualization import draw_boxes, enlarge
from avdet_mm.visualization.charts import MAX_CURVES, bars, curves, matrix
from avdet_mm.visualization.drawing import GRAY, GREEN, ORANGE, RED
from avdet_mm.visualization.page import escape, html_page, key

ROOT = osp.dirname(osp.dirname(osp.abspath(__file__)))
PAPER = osp.join(ROOT, 'docs', 'results', 'paper.json')
AP = dict(mAP30='AP30', mAP50='AP50', mAP='AP')
AGNOSTIC = {name: f'agnostic_{metric}' for name, metric in AP.items()}
SINGLE, MULTI = 'single-instr.', 'multi-instr.'
# Groups of Table 2: protocol, column of the table -> end of the metric.
LOCALIZATION = {
    SINGLE: ('dsol_single', {'IoU-0.5': 'iou50', 'AUC': 'auc'}),
    MULTI: ('dsol_multi', {'cIoU-0.3': 'ciou30'}),
}
# Of the paper's Table 5, by the names that tools/match_clusters.py gives.
MATCHINGS = {
    'hungarian': 'Hung.',
    'majority': 'Argmax',
    'manual': 'Manual',
    '1-shot': '1-shot',
    '10-shot': '10-shot',
}
NOT_RUN = 'not run'
# So many missing results are printed one by one.
_MANY = 12
# Stands for each of a config's seeds in the name of a work directory.
SEED = '{seed}'
STAR = ('Rows with * are class-agnostic: all objects count as one class. '
        'They cannot be compared with rows that name classes.')
KIND_TEXTS = dict(
    correct='right class, IoU ≥ 0.5, first to find its object',
    duplicate='right class, IoU ≥ 0.5, but the object was found before',
    misnamed='IoU ≥ 0.5 with an object of another class',
    grouped='covers at least half of each of two objects or more',
    part='at least 80 % of it within an object, IoU < 0.5',
    background='none of these',
    missed='objects that no detection fits with IoU ≥ 0.5',
)
# Beside the failures, what a detector does with any image.
RANDOM = 'images drawn at random'
STYLE = """
header nav { margin-top: 14px; }
header nav a { color: #fff; margin-right: 18px; }
section { background: var(--card); border: 1px solid var(--line);
          border-radius: 10px; padding: 8px 22px 22px; margin: 22px 0; }
h2 { font-size: 21px; margin: 14px 0 4px; }
h3 { font-size: 16px; margin: 22px 0 6px; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 10px 0; }
th, td { text-align: right; padding: 6px 12px; white-space: nowrap;
         border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
td.text { text-align: left; white-space: normal; }
th { color: var(--soft); font-weight: 600; font-size: 14px; }
th.group { text-align: center; }
td { font-variant-numeric: tabular-nums; }
tr.main td { font-weight: 700; }
.paper { color: var(--soft); font-style: italic; font-weight: 400; }
.none { color: var(--soft); text-align: center; font-weight: 400; }
.first { border-left: 1px solid var(--line); }
ul.notes { color: var(--soft); font-size: 13.5px; padding-left: 18px;
           margin: 6px 0 0; max-width: 900px; }
.charts { display: flex; flex-wrap: wrap; gap: 20px; align-items: start;
          margin-top: 18px; }
.charts figure { flex: 0 1 auto; max-width: 100%; }
.grid { display: grid; gap: 16px;
        grid-template-columns: repeat(auto-fill, minmax(220px, 1fr)); }
figure { margin: 0; }
figure img { max-width: 100%; display: block; border-radius: 6px; }
.grid img { width: 100%; }
figcaption { font-size: 13.5px; color: var(--soft); padding-top: 4px; }
"""


@dataclass(frozen=True)
class Spread:
    """A figure of several seeds.

    Args:
        values (tuple[float | None]): Of each seed; None where the test was
            not run or the figure is not defined.
        num_runs (int): How many of the tests were run.
    """
    values: Tuple[Optional[float], ...]
    num_runs: int

    @property
    def known(self) -> List[float]:
        """What there is."""
        return [value for value in self.values if value is not None]

    @property
    def mean(self) -> Optional[float]:
        """None if nothing is known."""
        return statistics.fmean(self.known) if self.known else None

    @property
    def std(self) -> Optional[float]:
        """Of a sample; None of fewer than two."""
        return statistics.stdev(self.known) if len(self.known) > 1 else None

    def __str__(self) -> str:
        text = 'n/a' if self.mean is None else f'{self.mean:.1f}'
        if self.std is not None:
            text += f' ± {self.std:.1f}'
        count = len(self.known) or self.num_runs
        if count < len(self.values):
            text += f' ({count} of {len(self.values)})'
        return text


# A figure in percent; None if it is not defined; text in place of one.
Cell = Union[float, None, str, Spread]
Column = Tuple[str, str]


@dataclass
class Row:
    """One line of a table; columns that it lacks stay empty."""
    name: str
    cells: Dict[Column, Cell] = field(default_factory=dict)
    paper: Dict[Column, Cell] = field(default_factory=dict)
    main: bool = False


@dataclass
class Block:
    """Rows that can be compared with each other."""
    title: str
    columns: List[Column]
    paper: List[Column]
    rows: List[Row]


@dataclass
class Table:
    """A table of the paper with our figures."""
    key: str
    title: str
    blocks: List[Block]
    notes: List[str]
    # Name in the folder of pictures, caption, SVG.
    pictures: List[Tuple[str, str, str]] = field(default_factory=list)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('table', nargs='?', help='config with a `report`')
    parser.add_argument(
        '--work-dirs',
        nargs='+',
        metavar='NAME=DIR',
        help='instead of a config: work directories of tests')
    parser.add_argument(
        '--out', help="folder to write to (default: the config's, or report)")
    parser.add_argument('--json', help='more than OUT/report.json: this file')
    parser.add_argument(
        '--summary',
        action='store_true',
        help="write the config's `summary`, a flat json, too")
    parser.add_argument(
        '--keep',
        action='store_true',
        help='with --summary: what has not been run here keeps its value in '
        'that file, as for seeds that ran on several machines')
    args = parser.parse_args()
    if (args.table is None) == (args.work_dirs is None):
        parser.error('give either a table config or --work-dirs NAME=DIR.')
    if args.summary and args.table is None:
        parser.error('--summary needs a table config that has a `summary`.')
    if args.keep and not args.summary:
        parser.error('--keep needs --summary.')
    return args


class Runs:
    """The evaluation.json of work directories, each read once.

    Args:
        configs (dict[str, str]): Work directory -> config that it is a test
            of, where that is known.
        seeds (Sequence[int]): What ``{seed}`` stands for. Defaults to ().
    """

    def __init__(self,
                 configs: Dict[str, str],
                 seeds: Sequence[int] = ()) -> None:
        self.configs = configs
        self.seeds = seeds
        self._read: Dict[str, Optional[dict]] = {}

    def folders(self, folder: Optional[str]) -> List[str]:
        """One work directory, or those of all seeds; none for None.

        Raises:
            SystemExit: If there are no seeds for ``{seed}``.
        """
        if folder is None:
            return []
        if SEED not in folder:
            return [folder]
        if not self.seeds:
            raise SystemExit(f'error: {folder} is there for several seeds: '
                             'name them, `seeds=[0, 1, 2]`, in the `report`.')
        return [folder.replace(SEED, str(seed)) for seed in self.seeds]

    def of_seed(self, folder: str) -> str:
        """Which of several seeds a picture shows."""
        return f', seed {self.seeds[0]}' if SEED in folder else ''

    def __call__(self, folder: str) -> Optional[dict]:
        """What a test found, of the first seed; None if it was not run.

        Raises:
            SystemExit: If the file is broken or stale.
        """
        folder = self.folders(folder)[0]
        if folder not in self._read:
            self._read[folder] = self._load(folder)
        return self._read[folder]

    def _load(self, folder: str) -> Optional[dict]:
        path = osp.join(folder, 'evaluation.json')
        if not osp.isfile(path):
            return None
        try:
            with open(path, encoding='utf-8') as file:
                run = json.load(file)
        except ValueError as error:
            raise SystemExit(f'error: {path} is no json ({error}). Remove it '
                             'and test again.') from error
        parts = ('metrics', 'details')
        if not isinstance(run, dict) or not all(
                isinstance(run.get(part), dict) for part in parts):
            raise SystemExit(
                f'error: {path} lacks metrics or details: it was not written '
                'by tools/test.py. Remove it and test again.')
        bad = [
            name for name, value in run['metrics'].items()
            if not (value is None or isinstance(value, (int, float)))
        ]
        if bad:
            raise SystemExit(f'error: {bad[0]} is no number in {path}. '
                             'Remove it and test again.')
        config, checkpoint = run.get('config'), run.get('checkpoint')
        wanted = self.configs.get(folder)
        if wanted and config and osp.basename(config) != osp.basename(wanted):
            raise SystemExit(
                f'error: {path} belongs to {config}, but {wanted} is tested '
                'there. Remove it and test again.')
        if (checkpoint and osp.isfile(checkpoint)
                and osp.getmtime(checkpoint) > osp.getmtime(path)):
            again = shlex.join(['python', 'tools/test.py', config or 'CONFIG',
                                checkpoint, '--work-dir', folder])
            raise SystemExit(f'error: {path} is older than {checkpoint}, '
                             f'which it is about. Test again: {again}')
        run['path'] = path
        return run

    def cell(self,
             folder: Optional[str],
             get: Callable[[dict], Optional[float]],
             scale: float = 100) -> Cell:
        """A figure of a test, or what to say instead.

        Args:
            folder (str, optional): Work directory; None for a dash.
            get (Callable): Has the content of an evaluation.json, returns
                the figure.
            scale (float): It is multiplied by this. Defaults to 100, which
                makes a share a percentage.

        Returns:
            Cell: A number, of all seeds where the folder has ``{seed}``.
        """
        if folder is None:
            return '–'
        runs = [self(one) for one in self.folders(folder)]
        values = tuple(
            None if run is None else scaled(get(run), scale) for run in runs)
        num_runs = len(runs) - runs.count(None)
        if not num_runs:
            return NOT_RUN
        return Spread(values, num_runs) if SEED in folder else values[0]

    def stage_seconds(self, folder: str, stage: str, cores: int) -> Cell:
        """Processor time of a pipeline's stage by number of cores.

        Args:
            folder (str): Work root of the pipeline.
            stage (str): Name of the stage.
            cores (int): On which the time is shared out.
        """
        records = [
            finished_stage(osp.join(one, 'stages'), stage)
            for one in self.folders(folder)
        ]
        # A training that was not run by the pipeline has no time.
        values = tuple(
            record['cpu_seconds'] / cores
            if record and record.get('cpu_seconds') else None
            for record in records)
        if not any_number(values):
            return NOT_RUN
        return Spread(values, len(values)) if SEED in folder else values[0]

    def metric(self,
               folder: Optional[str],
               name: str,
               scale: float = 100) -> Cell:
        """A metric; see :meth:`cell`.

        Raises:
            SystemExit: If the file does not have it.
        """

        def get(run: dict) -> Optional[float]:
            if name not in run['metrics']:
                raise SystemExit(
                    f'error: {run["path"]} has no {name}, only '
                    f'{", ".join(run["metrics"])}. Test with the metric that '
                    'gives it, or change the table config.')
            return run['metrics'][name]

        return self.cell(folder, get, scale)

    def details(self, folder: Optional[str], prefix: str) -> Optional[dict]:
        """What a metric left for reports, of the first seed; None without
        it or the test."""
        run = folder and self(folder)
        return (run or {}).get('details', {}).get(prefix)


def scaled(value: Optional[float], scale: float) -> Optional[float]:
    """A multiple of a figure; nan becomes None."""
    if value is None or math.isnan(value):
        return None
    return scale * value


def percent(value: Optional[float]) -> Optional[float]:
    """A share in percent; nan becomes None."""
    return scaled(value, 100)


class Report:
    """All tables and pictures of a `report`.

    Args:
        spec (dict): ``title``; ``about`` and ``notes``, texts; ``tables``,
            see :meth:`tables`; ``clusters``, work directory of a test with
            ``avdet_mm.ClusterMetric``; ``gallery``, see :meth:`gallery`;
            ``summary``, see :meth:`summary`. Work directories may have
            ``{seed}`` in their names; pictures then are of the first seed.
        runs (Runs): Where figures are read.
    """

    def __init__(self, spec: dict, runs: Runs) -> None:
        self.spec = spec
        self.runs = runs
        with open(PAPER, encoding='utf-8') as file:
            self.paper = json.load(file)['tables']
        self.missing: List[str] = []

    # -- tables -----------------------------------------------------------

    def tables(self) -> List[Table]:
        """Build the tables, dicts with the name of the paper's ``table``,
        or ``figures``, see :meth:`_figures`.

        They have ``rows``, dicts of ``name``, ``runs`` (column group ->
        work directory) and perhaps ``paper`` (row of the paper, if it is
        one of its rows), ``agnostic`` and ``main``. Groups of ``table1``,
        ``table5_k``, ``table5_matching`` and ``tableA2`` are data sets, of
        ``table2`` those of the paper; rows of ``table3`` and ``table6``
        have a ``run`` instead. The paper's figures are given for the data
        sets in ``paper``, which are those of the table by default. A table
        may have ``notes``, and a ``key`` if there is another of its number;
        ``prefix`` is that of the metric of ``table2``.

        Raises:
            SystemExit: If a table is not known.
        """
        tables = []
        for spec in self.spec['tables']:
            name = spec['table']
            make = getattr(self, f'_{name}', None)
            if name not in (*self.paper, 'figures') or make is None:
                raise SystemExit(f'error: there is no table {name}, only '
                                 f'{", ".join(self.paper)} and figures.')
            blocks, folders, pictures = make(spec)
            blocks = [block for block in blocks if block.rows]
            notes = [*spec.get('notes', ()), *self._protocols(folders)]
            others = [
                column['name'] for column in spec.get('columns', ())
                if column.get('scale', 100) != 100
            ]
            if others:
                notes.append(f'Not in percent: {", ".join(others)}.')
            if any(SEED in (folder or '') for runs in folders.values()
                   for _, folder, _ in runs):
                notes.append('Mean ± sample standard deviation over the seeds '
                             f'{", ".join(map(str, self.runs.seeds))}.')
                # The pictures of other tables show their cells.
                if name in ('table1', 'table2'):
                    notes[-1] += f' Pictures: seed {self.runs.seeds[0]}.'
            if name == 'table1':
                notes.append(STAR)
            if any(block.paper for block in blocks):
                notes += [f'Paper: {n}' for n in self.paper[name]['notes']]
            title = spec.get('title', 'Figures')
            if name in self.paper:
                subject = spec.get('title', self.paper[name]['title'])
                title = f'Table {self.paper[name]["number"]}: {subject}'
            tables.append(
                Table(
                    spec.get('key', name), title, blocks, notes, pictures))
        return tables

    def _figures(self, spec: dict) -> tuple:
        """A table of any metrics.

        It has ``columns``, dicts of ``name``, ``metric`` and perhaps
        ``group``, a title above several, ``suffix``, which is appended to
        the work directories, and ``scale`` (100, for shares in percent);
        and ``rows``, dicts of ``name``, a ``run`` or ``runs`` (name of a
        column -> work directory), and perhaps ``main``.

        Raises:
            SystemExit: If a row has a run of another column.
        """
        columns = {(column.get('group', ''), column['name']): column
                   for column in spec['columns']}
        rows, folders = [], defaultdict(list)
        for row in spec['rows']:
            unknown = set(row.get('runs', ())) - {name for _, name in columns}
            if unknown:
                raise SystemExit(
                    f'error: {row["name"]} has runs of {min(unknown)}, which '
                    'is none of the columns.')
            cells = {}
            for (group, name), column in columns.items():
                folder = row.get('runs', {}).get(name, row.get('run'))
                if folder is not None:
                    folder += column.get('suffix', '')
                    prefix = column['metric'].split('/')[0]
                    folders[group or 'Figures'].append(
                        (row['name'], folder, prefix))
                cells[group, name] = self.runs.metric(
                    folder, column['metric'], column.get('scale', 100))
            rows.append(Row(row['name'], cells, main=bool(row.get('main'))))
        return [Block('', list(columns), [], rows)], folders, []

    def _paper(self, table: str, row: Optional[str], group: str,
               figure: str) -> Cell:
        """A figure of the paper; '–' where it has none."""
        rows = self.paper[table]['rows']
        if row is None:
            return '–'
        if row not in rows:
            raise SystemExit(f'error: {table} of the paper has no row {row}, '
                             f'only {", ".join(rows)}.')
        value = rows[row]['figures'].get(group, {}).get(figure)
        return '–' if value is None else value

    def _groups(self, spec: dict) -> List[str]:
        return list(dict.fromkeys(g for r in spec['rows'] for g in r['runs']))

    def _paper_groups(self, spec: dict) -> List[str]:
        rows = self.paper[spec['table']]['rows'].values()
        known = list(dict.fromkeys(g for r in rows for g in r['figures']))
        groups = self._groups(spec)
        return list(spec.get('paper', [g for g in known if g in groups]))

    def _table1(self, spec: dict) -> tuple:
        groups, known = self._groups(spec), self._paper_groups(spec)
        columns = [(g, name) for g in groups for name in AP]
        blocks, folders = [], defaultdict(list)
        for title, agnostic in (('With classes', False),
                                ('Class-agnostic (*)', True)):
            metrics = AGNOSTIC if agnostic else AP
            rows = []
            for row in spec['rows']:
                if bool(row.get('agnostic')) != agnostic:
                    continue
                run = row['runs']
                rows.append(
                    Row(row['name'] + '*' * agnostic, {
                        (g, name): self.runs.metric(run[g], f'coco/{metric}')
                        for g in run for name, metric in metrics.items()
                    }, {(g, name): self._paper('table1', row.get('paper'), g,
                                               metric)
                        for g in known for name, metric in AP.items()},
                        bool(row.get('main'))))
                for g in run:
                    folders[g].append((row['name'], run[g], 'coco'))
            paper = [(g, name) for g in known for name in AP]
            blocks.append(Block(title, columns, paper, rows))
        return blocks, folders, self._detection_pictures(spec, groups[0])

    def _table2(self, spec: dict) -> tuple:
        groups = [g for g in LOCALIZATION if g in self._groups(spec)]
        columns = [(g, name) for g in groups for name in LOCALIZATION[g][1]]
        rows, folders = [], defaultdict(list)
        prefix = spec.get('prefix', 'ssl')
        for row in spec['rows']:
            run = row['runs']
            cells = {}
            for g, name in columns:
                protocol, names = LOCALIZATION[g]
                cells[g, name] = self.runs.metric(
                    run.get(g), f'{prefix}/{protocol}_{names[name]}')
            paper = {
                column: self._paper('table2', row.get('paper'), *column)
                for column in columns
            }
            rows.append(
                Row(row['name'], cells, paper, bool(row.get('main'))))
            for g in run:
                folders[g].append((row['name'], run[g], prefix))
        pictures = []
        for g in groups:
            series = {}
            for row in spec['rows']:
                details = self.runs.details(row['runs'].get(g), prefix) or {}
                protocol = details.get('protocols', {}).get(LOCALIZATION[g][0])
                if protocol:
                    success = protocol['success']
                    series[row['name']] = (np.linspace(0, 1, len(success)),
                                           success)
            if series:
                what = 'cIoU' if g == MULTI else 'IoU'
                name = f'{spec.get("key", "success")}_{LOCALIZATION[g][0]}'
                pictures.append(
                    (name, f'Share of frames by '
                     f'threshold, {g}',
                     curves(series, f'threshold of {what}', 'success')))
        paper = columns if spec.get('paper', True) else []
        return [Block('', columns, paper, rows)], folders, pictures

    def _table3(self, spec: dict) -> tuple:
        names, rows, folders = ['mean'], [], defaultdict(list)
        for row in spec['rows']:
            cells = {'mean': self.runs.metric(row['run'], 'coco/AP50')}
            for name in self._classes(row['run']):
                cells[name] = self._of_class(row['run'], name, 'AP50')
            names += [name for name in cells if name not in names]
            rows.append(
                Row(row['name'], {('AP50', n): c for n, c in cells.items()},
                    main=bool(row.get('main'))))
            folders[row['name']].append((row['name'], row['run'], 'coco'))
        columns = [('AP50', name) for name in names]
        for row, line in zip(spec['rows'], list(rows)):
            if line.cells['AP50', 'mean'] == NOT_RUN:
                line.cells = dict.fromkeys(columns, NOT_RUN)
            if row.get('paper'):
                rows.insert(
                    rows.index(line) + 1,
                    Row(f'{line.name} (paper)', paper={
                        column: self._paper('table3', row['paper'], *column)
                        for column in columns}))
        series = {
            row.name: [number(row.cells.get(c, row.paper.get(c)))
                       for c in columns]
            for row in rows
        }
        series = {n: found for n, found in series.items() if any_number(found)}
        pictures = []
        if len(names) > 1:
            pale = [row.name for row in rows if not row.cells]
            pictures = [('per_class', 'AP50 of each class',
                         bars(names, series, 'AP50 (%)', pale=pale))]
        return [Block('', columns, [], rows)], folders, pictures

    def _ablation(self, spec: dict) -> tuple:
        """Tables of one AP50 for each row and data set."""
        name = spec['table']
        groups, known = self._groups(spec), self._paper_groups(spec)
        rows, folders = [], defaultdict(list)
        for row in spec['rows']:
            rows.append(
                Row(row['name'],
                    {(g, 'mAP50'): self.runs.metric(folder, 'coco/AP50')
                     for g, folder in row['runs'].items()},
                    {(g, 'mAP50'): self._paper(name, row.get('paper'), g,
                                               'AP50') for g in known}))
            for g, folder in row['runs'].items():
                folders[g].append((row['name'], folder, 'coco'))
        return [
            Block('', [(g, 'mAP50') for g in groups],
                  [(g, 'mAP50') for g in known], rows)
        ], folders

    def _table5_k(self, spec: dict) -> tuple:
        blocks, folders = self._ablation(spec)
        series, dotted = {}, []
        for g in self._groups(spec):
            for what in ('cells', 'paper'):
                points = [(float(row.name.split()[-1]),
                           number(getattr(row, what).get((g, 'mAP50'))))
                          for row in blocks[0].rows]
                if any(y is not None for _, y in points):
                    title = g if what == 'cells' else f'{g}, paper'
                    series[title] = tuple(zip(*sorted(points)))
                    dotted += [title] * (what == 'paper')
        picture = curves(series, 'number of clusters K', 'mAP50 (%)', False,
                         dotted) if series else ''
        return blocks, folders, [('k', 'Number of clusters', picture)
                                 ] if series else []

    def _tableA2(self, spec: dict) -> tuple:
        blocks, folders = self._ablation(spec)
        series = {}
        for g in self._groups(spec):
            for what in ('cells', 'paper'):
                values = [number(getattr(row, what).get((g, 'mAP50')))
                          for row in blocks[0].rows]
                if any(v is not None for v in values):
                    series[g if what == 'cells' else f'{g}, paper'] = values
        pale = [name for name in series if name.endswith(', paper')]
        picture = bars([row.name for row in blocks[0].rows], series,
                       'mAP50 (%)', 'beta, boxes', pale) if series else ''
        return blocks, folders, [('beta', 'Threshold beta', picture)
                                 ] if series else []

    def _table5_matching(self, spec: dict) -> tuple:
        known = self._paper_groups(spec)
        found: Dict[str, Dict[Column, Cell]] = {}
        missing: Dict[Column, Cell] = {}
        groups, folders = self._groups(spec), defaultdict(list)
        for row in spec['rows']:
            for g, folder in row['runs'].items():
                folders[g].append((row['name'], folder, 'coco'))
                tests = self._coco(folder)
                if not tests:
                    missing[g, 'mAP50'] = NOT_RUN
                for name in dict.fromkeys(
                        n for details in tests for n in details['matchings']):
                    found.setdefault(name, {})[g, 'mAP50'] = self.runs.cell(
                        folder, lambda run: run['details']['coco'][
                            'matchings'].get(name, {}).get('AP50'))
        rows = []
        for name in sorted(found or MATCHINGS, key=matching_order):
            paper = MATCHINGS.get(name)
            rows.append(
                Row(name, {**missing, **found.get(name, {})},
                    {(g, 'mAP50'): self._paper('table5_matching', paper, g,
                                               'AP50') for g in known}))
        return [
            Block('', [(g, 'mAP50') for g in groups],
                  [(g, 'mAP50') for g in known], rows)
        ], folders, []

    def _table6(self, spec: dict) -> tuple:
        run, group = spec['run'], spec.get('group', 'OpenImages')
        paper = self.paper['table6']['rows']
        columns = [(group, name) for name in AP]
        rows = []
        for name in ['Mean', *(self._classes(run) or list(paper)[1:])]:
            # The names of the data set, where the paper shortens them.
            theirs = name.replace('Computer', 'Comp.')
            theirs = theirs if theirs in paper else None
            cells = {}
            for column, metric in AP.items():
                cells[group, column] = (
                    self.runs.metric(run, f'coco/{metric}') if name == 'Mean'
                    else self._of_class(run, name, metric))
            rows.append(
                Row(name, cells,
                    {(group, column): self._paper('table6', theirs, group,
                                                  metric)
                     for column, metric in AP.items()}, name == 'Mean'))
        return [Block('', columns, columns, rows)
                ], {group: [('', run, 'coco')]}, []

    def _coco(self, folder: Optional[str]) -> List[dict]:
        """Details of the detection metric, of each seed that was run.

        Raises:
            SystemExit: If a test was run without it.
        """
        found = []
        for one in self.runs.folders(folder):
            details = self.runs.details(one, 'coco')
            if details is not None:
                found.append(details)
            elif self.runs(one) is not None:
                raise SystemExit(
                    f'error: {osp.join(one, "evaluation.json")} has no '
                    'details of coco: test with avdet_mm.MatchedCocoMetric.')
        return found

    def _classes(self, folder: str) -> List[str]:
        """Classes with figures of their own, by the first matching."""
        return list(
            dict.fromkeys(
                name for details in self._coco(folder)
                for name in matching_of(details).get('per_class', {})))

    def _of_class(self, folder: str, name: str, metric: str) -> Cell:
        """A figure of one class, by the first matching."""
        return self.runs.cell(
            folder, lambda run: matching_of(run['details']['coco'])[
                'per_class'].get(name, {}).get(metric))

    def _protocols(self, folders: Dict[str, list]) -> Iterator[str]:
        """How the figures of each column group were computed."""
        for group, runs in folders.items():
            found: Dict[str, List[str]] = {}
            for name, folder, prefix in [
                (name, one, prefix) for name, folder, prefix in runs
                    for one in self.runs.folders(folder)
            ]:
                details = self.runs.details(folder, prefix)
                if self.runs(folder) is None:
                    self.missing.append(f'{folder} ({name}, {group})')
                if details is None:
                    continue
                if prefix == 'coco':
                    text = coco_protocol(details)
                elif group in LOCALIZATION and 'protocols' in details:
                    text = ssl_protocol(details, LOCALIZATION[group][0])
                else:
                    continue
                names = found.setdefault(text, [])
                names += [name] * (name not in names)
            for text, names in found.items():
                of = f' ({", ".join(names)})' if len(found) > 1 else ''
                yield f'{group}{of}: {text}'

    # -- pictures ---------------------------------------------------------

    def _detection_pictures(self, spec: dict, group: str) -> list:
        """Pictures of the first data set of Table 1."""
        aware, pr, main = {}, {}, None
        for row in spec['rows']:
            details = self.runs.details(row['runs'].get(group), 'coco')
            if not details:
                continue
            if row.get('agnostic'):
                precision = (details.get('agnostic') or {}).get('pr50')
                if precision:
                    pr[row['name'] + '*'] = precision
                continue
            if not details.get('matchings'):
                continue
            aware[row['name']] = matching_of(details)['per_class']
            if main is None or row.get('main'):
                main = row['name'], details
        pictures = []
        if aware:
            classes = list(
                dict.fromkeys(c for found in aware.values() for c in found))
            series = {
                name: [percent(found.get(c, {}).get('AP50')) for c in classes]
                for name, found in aware.items()
            }
            pictures.append(
                ('per_class_methods', f'AP50 of each class, {group}',
                 bars(classes, series, 'AP50 (%)')))
        if main:
            name, details = main
            matching = matching_of(details)
            found = matching.get('pr50', {})
            found = {c: p for c, p in found.items() if any_number(p)}
            caption = f'Precision and recall at IoU 0.5, {name}, {group}'
            if len(found) > MAX_CURVES:
                worst = sorted(
                    found, key=lambda c: matching['per_class'][c]['AP50'])
                found = {c: found[c] for c in worst[:MAX_CURVES]}
                caption += f': the {MAX_CURVES} classes with the lowest AP50'
            if found:
                pictures.append(('pr_classes', caption, pr_curves(found)))
        if pr:
            pictures.append(
                ('pr_agnostic', 'Precision and recall at IoU 0.5, '
                 f'class-agnostic, {group}', pr_curves(pr)))
        if main and details.get('confusion'):
            confusion = details['confusion']
            named = matching_of(details).get('clusters') or {}
            rows = [
                f'{c} → {named[c]}' if named.get(c) and named[c] != c else c
                for c in confusion['clusters']
            ]
            pictures.append(
                ('confusion', f'Detections (score ≥ 0.3) of each cluster by '
                 f'the class of what they hit, {name}, {group}',
                 matrix(confusion['counts'], rows, confusion['classes'],
                        'cluster', 'class')))
        return pictures

    def cluster_pictures(self) -> list:
        """Sizes of the clusters of clips, and their classes."""
        folder = self.spec.get('clusters')
        seed = self.runs.of_seed(folder or '')
        folder = next(iter(self.runs.folders(folder)), None)
        if folder and self.runs(folder) is None:
            self.missing.append(f'{folder} (clusters)')
        details = self.runs.details(folder, 'cluster')
        if not details or not details.get('combined'):
            return []
        found = {
            name: details[name]['sizes']
            for name in ('combined', 'visual', 'audio') if details.get(name)
        }
        sizes = found['combined']
        names = [str(k) for k in range(len(sizes))]
        pictures = [('cluster_sizes', 'Clips in each cluster, by both heads '
                     f'together and by each{seed}',
                     bars(names, found, 'clips', 'cluster'))]
        pictures.append(
            ('cluster_classes', f'Classes of the clips in each cluster{seed}',
             matrix(details['combined']['contingency'], names,
                    details['classes'], 'cluster', 'class')))
        return pictures

    def gallery(self, folder: str) -> Optional[dict]:
        """Sort the detections of a test by what went wrong.

        ``gallery`` of the report has ``name``, ``run``, a work directory,
        ``images``, the folder of pictures, and perhaps ``score_thr`` (0.3,
        ours: as for the confusion), ``per_kind`` (6 pictures).

        Args:
            folder (str): Where pictures are written.

        Returns:
            dict: ``counts``, ``num_images``, ``num_objects`` and
            ``pictures``, kind -> list of (file name, caption). None if the
            test was not run.

        Raises:
            SystemExit: If a file that it needs is missing.
        """
        spec = self.spec.get('gallery')
        details = self._coco(self.runs.folders(spec['run'])[0]) if spec else []
        if not details:
            return None
        details, = details
        prefix = details.get('outfile_prefix')
        if not prefix or not details.get('ann_file'):
            raise SystemExit(
                f'error: the gallery needs the detections of {spec["run"]}: '
                'test with outfile_prefix and ann_file in the evaluator.')
        truth = read(details['ann_file'])
        found = by_image(read(f'{prefix}.bbox.json'))
        names = {c['id']: c['name'] for c in truth['categories']}
        numbers = {name: i for i, name in names.items()}
        # The first matching, unless labels are classes already.
        matched = next(iter(details['matchings'].items()), ('labels', {}))
        clusters = None if matched[0] == 'labels' else matched[1]['clusters']
        objects = by_image(truth['annotations'])
        thr = spec.get('score_thr', 0.3)
        results, examples = [], defaultdict(list)
        with Progress(len(truth['images']), 'images') as progress:
            for image in truth['images']:
                dets = [d for d in found[image['id']] if d['score'] >= thr]
                gts = objects[image['id']]
                for det in dets:
                    label = det['category_id']
                    det['class'] = (
                        names.get(label) if clusters is None else
                        clusters.get(f'cluster_{label}'))
                out = classify_detections(
                    [xyxy(d) for d in dets], [d['score'] for d in dets],
                    [numbers.get(d['class'], -1) for d in dets],
                    [xyxy(g) for g in gts], [g['category_id'] for g in gts])
                results.append(out)
                examples[RANDOM].append((image, dets, gts, None, []))
                for i, kind in enumerate(out['kinds']):
                    examples[kind].append((image, dets, gts, i,
                                           out['objects'][i]))
                for j in out['missed']:
                    examples['missed'].append((image, dets, gts, None, [j]))
                progress.update(1)
        pictures = {}
        for kind in (RANDOM, *KINDS[1:], 'missed'):
            stem = kind.rpartition(' ')[2]
            chosen = random.Random(0).sample(
                examples[kind],
                min(spec.get('per_kind', 6), len(examples[kind])))
            pictures[kind] = [
                (f'{stem}_{n}.jpg', caption)
                for n, caption in enumerate(
                    draw_example(spec['images'], names, example,
                                 osp.join(folder, f'{stem}_{n}.jpg'))
                    for n, example in enumerate(chosen))
            ]
        return dict(
            name=spec['name'],
            seed=self.runs.of_seed(spec['run']),
            score_thr=thr,
            counts=count_failures(results),
            num_images=len(truth['images']),
            num_objects=len(truth['annotations']),
            pictures=pictures)

    # -- summary ----------------------------------------------------------

    def summary(self, earlier: Dict[str, Any] = {}) -> Dict[str, Any]:
        """Chosen metrics under names of one's own.

        ``summary`` of the report has ``file``, a json, and ``keys``, name ->
        (work directory, metric), and perhaps ``seconds``, name -> (work root
        of a pipeline, stage, cores): the processor time of a stage, shared
        out to so many cores.

        Args:
            earlier (dict): A former summary; of what is missing its values
                are taken. Defaults to {}.

        Returns:
            dict: Name -> metric as it is in evaluation.json, not in percent.
            Of a work directory with ``{seed}`` it is the mean, with
            ``<name>_seeds``, a list with None for what is missing, and
            ``<name>_std`` of the sample, None of a single one. Names
            without any figure are left out, which is said.
        """
        spec = self.spec['summary']
        cells = {
            name: (self.runs.metric(folder, metric, scale=1),
                   f'{metric} of {folder}')
            for name, (folder, metric) in spec['keys'].items()
        }
        for name, (folder, stage, cores) in spec.get('seconds', {}).items():
            cells[name] = (self.runs.stage_seconds(folder, stage, cores),
                           f'the stage {stage} below {folder}')
        out: Dict[str, Any] = {}
        for name, (cell, what) in cells.items():
            cell = kept(cell, earlier, name)
            value = number(cell)
            if value is None:
                why = NOT_RUN if cell == NOT_RUN else 'not defined'
                print(f'warning: the summary has no {name}: {what} is {why}.',
                      file=sys.stderr)
                continue
            out[name] = value
            if isinstance(cell, Spread):
                out[f'{name}_seeds'] = list(cell.values)
                out[f'{name}_std'] = cell.std
                if len(cell.known) < len(cell.values):
                    print(f'warning: {name} of the summary is of '
                          f'{len(cell.known)} of {len(cell.values)} seeds.',
                          file=sys.stderr)
        return out


# -- small helpers --------------------------------------------------------


def matching_of(details: dict) -> dict:
    """The first matching, whose figures are the headline."""
    return next(iter(details['matchings'].values()), {})


def matching_order(name: str) -> tuple:
    """The paper's order, then the rest."""
    known = list(MATCHINGS)
    return (known.index(name) if name in known else len(known), name)


def number(cell: Cell) -> Optional[float]:
    """A cell without its text; of several seeds the mean."""
    if isinstance(cell, Spread):
        return cell.mean
    return None if isinstance(cell, str) else cell


def kept(cell: Cell, earlier: Dict[str, Any], name: str) -> Cell:
    """A cell of the summary, filled up with a former summary's values."""
    before = earlier.get(f'{name}_seeds')
    if before is None:
        return earlier.get(name, cell) if number(cell) is None else cell
    if isinstance(cell, Spread):
        now = cell.values
    else:
        now = (None, ) * (len(before) if number(cell) is None else 1)
    if len(now) != len(before):
        raise SystemExit(
            f'error: {name} is of {len(before)} seeds in the summary that '
            '--keep goes on with, and no longer; write it without --keep.')
    values = tuple(b if a is None else a for a, b in zip(now, before))
    return Spread(values, len([v for v in values if v is not None]))


def any_number(values: Sequence[Optional[float]]) -> bool:
    return any(v is not None for v in values)


def pr_curves(found: Dict[str, Sequence[Optional[float]]]) -> str:
    """Precision over recall."""
    return curves({
        name: (np.linspace(0, 1, len(p)), p)
        for name, p in found.items()
    }, 'recall', 'precision')


def coco_protocol(details: dict) -> str:
    """One line on how the figures of the detection metric came about."""
    protocol = details['protocol']
    thrs = protocol['iou_thrs']
    text = (f'{details["num_images"]} images, '
            f'{sum(details["num_objects"].values())} objects; AP at IoU '
            f'{thrs[0]:g}, {thrs[1]:g} and the mean over {thrs[1]:g} to '
            f'{thrs[-1]:g}; at most {protocol["max_dets"]} detections per '
            'image and class')
    if protocol['nms_iou'] is not None:
        text += ('; of clusters that share a class, NMS at IoU '
                 f'{protocol["nms_iou"]:g}')
    recall = details.get('recall')
    if recall:
        text += (f'; recall at IoU {recall["iou_thr"]:g} and score ≥ '
                 f'{recall["score_thr"]:g}')
    return f'{text}; backend {protocol["backend"]}.'


def ssl_protocol(details: dict, name: str) -> str:
    """One line on a protocol of the localization metric."""
    protocol = details['protocols'][name]
    maps = protocol.get('class_maps')
    return (f'{name}: {protocol["rule"]}{"; " * bool(maps)}{maps or ""}; '
            f'{protocol["num_frames"]} frames; {protocol["num_empty"]} '
            f'without an object and {protocol["num_other"]} with another '
            'number of classes do not count.')


def read(path: str) -> Any:
    """A json file that has to be there."""
    if not osp.isfile(path):
        raise SystemExit(f'error: there is no file {path}; it comes from the '
                         'test that the gallery shows. Test again.')
    with open(path, encoding='utf-8') as file:
        return json.load(file)


def by_image(items: Sequence[dict]) -> Dict[Any, List[dict]]:
    """Annotations or detections of each image."""
    out = defaultdict(list)
    for item in items:
        out[item['image_id']].append(item)
    return out


def xyxy(item: dict) -> List[float]:
    """Box of a COCO dict."""
    x, y, w, h = item['bbox']
    return [x, y, x + w, y + h]


def draw_example(folder: str, names: Dict[int, str], example: tuple,
                 path: str) -> str:
    """Draw one failure, or all detections; returns the caption."""
    image, dets, gts, i, concerned = example
    source = osp.join(folder, image['file_name'])
    frame = mmcv.imread(source, channel_order='rgb') if osp.isfile(
        source) else None
    if frame is None:
        raise SystemExit(f'error: there is no picture {source}: check '
                         '`images` of the gallery.')
    panel, factor = enlarge(frame, 320)
    # Frames of different clips have the same name, in different folders.
    title = osp.splitext(image['file_name'])[0]
    if i is None and not concerned:
        panel = draw_boxes(panel, factor * boxes_of(gts), GREEN)
        panel = draw_boxes(panel, factor * boxes_of(dets), ORANGE,
                           [text_of(d) for d in dets])
        mmcv.imwrite(panel[..., ::-1], path)
        return f'{title}: ' + (objects_of(names, gts) or 'no object')
    others = [d for n, d in enumerate(dets) if n != i]
    panel = draw_boxes(panel, factor * boxes_of(others), GRAY, thickness=1)
    # Of a detection the caption names the object: room is scarce.
    texts = [names[g['category_id']] if j in concerned and i is None else ''
             for j, g in enumerate(gts)]
    panel = draw_boxes(panel, factor * boxes_of(gts), GREEN, texts)
    about = ', '.join(names[gts[j]['category_id']] for j in concerned)
    if i is None:
        caption = f'{title}: {about} missed'
    else:
        det = dets[i]
        text = text_of(det)
        panel = draw_boxes(panel, factor * boxes_of([det]), RED, [text])
        caption = f'{title}: {text}' + (f', object: {about}' if about else '')
    mmcv.imwrite(panel[..., ::-1], path)
    return caption


def text_of(det: dict) -> str:
    """Class and score of a detection."""
    return f'{det["class"] or "no class"} {det["score"]:.2f}'


def objects_of(names: Dict[int, str], gts: Sequence[dict]) -> str:
    """Names of the objects, those that sound first, if that is known."""
    parts = []
    for word, sounding in (('sounding ', True), ('silent ', False),
                           ('', None)):
        found = [names[g['category_id']] for g in gts
                 if g.get('sounding') is sounding]
        parts += [word + ', '.join(found)] if found else []
    return '; '.join(parts)


def boxes_of(items: Sequence[dict]) -> np.ndarray:
    return np.array([xyxy(item) for item in items]).reshape(-1, 4)


# -- output ---------------------------------------------------------------


def shown(cell: Cell) -> str:
    """A cell as text."""
    if cell is None:
        return 'n/a'
    return f'{cell:.1f}' if isinstance(cell, (int, float)) else str(cell)


def cells_of(block: Block, row: Row) -> List[Tuple[str, int, str]]:
    """Text, number of columns and style of each cell but the name.

    A group of columns that were not run is one cell.
    """
    out = []
    for columns, cells, style in ((block.columns, row.cells, ''),
                                  (block.paper, row.paper, 'paper')):
        for group, number_ in spans(columns):
            values = [cells.get(c, '–') for c in columns if c[0] == group]
            if style == '' and set(values) == {NOT_RUN}:
                out.append((NOT_RUN, number_, 'none'))
            else:
                out += [(shown(v), 1, style) for v in values]
    # Lines of the paper within a table of ours.
    if not row.cells and row.paper and not block.paper:
        return [(shown(row.paper.get(c, '–')), 1, 'paper')
                for c in block.columns]
    return out


def spans(columns: Sequence[Column]) -> List[Tuple[str, int]]:
    """Groups and how many columns each has."""
    out: Dict[str, int] = {}
    for group, _ in columns:
        out[group] = out.get(group, 0) + 1
    return list(out.items())


def heads(block: Block) -> List[Tuple[str, List[str], bool]]:
    """Title of each group, its columns, and whether it is the paper's."""
    out = []
    for columns, paper in ((block.columns, False), (block.paper, True)):
        for group, _ in spans(columns):
            names = [name for g, name in columns if g == group]
            out.append((f'{group}, paper' if paper else group, names, paper))
    return out


def markdown_text(text: str) -> str:
    """Plain text within Markdown."""
    for sign in '\\`*_|<>[]':
        text = text.replace(sign, '\\' + sign)
    return text


def markdown(title: str, spec: dict, tables: List[Table], clusters: list,
             gallery: Optional[dict], missing: List[str]) -> str:
    """The report as Markdown."""
    lines = [f'# {markdown_text(title)}', '']
    if spec.get('about'):
        lines += [markdown_text(spec['about']), '']
    lines += ['Figures in percent. Columns and lines marked "paper" are those '
              'of the paper, all others were measured here.', '']
    for table in tables:
        lines += [f'## {markdown_text(table.title)}', '']
        for block in table.blocks:
            if block.title:
                lines += [f'**{markdown_text(block.title)}**', '']
            names = [
                markdown_text(f'{group}: {name}' if group else name) +
                (' (paper)' * is_paper)
                for group, columns, is_paper in heads(block)
                for group in [group[:-7] if is_paper else group]
                for name in columns
            ]
            lines += [
                '| method | ' + ' | '.join(names) + ' |',
                '|---|' + '---:|' * len(names)
            ]
            for row in block.rows:
                cells = []
                for text, span, style in cells_of(block, row):
                    text = f'*{text}*' if style == 'paper' else text
                    cells += [text] + [''] * (span - 1)
                name = markdown_text(row.name)
                name = f'**{name}**' if row.main else name
                lines.append(f'| {name} | ' + ' | '.join(cells) + ' |')
            lines.append('')
        lines += [f'- {markdown_text(note)}' for note in table.notes]
        lines += ['']
        lines += markdown_pictures(table.pictures)
    if clusters:
        lines += ['## Clusters', '', *markdown_pictures(clusters)]
    if gallery:
        lines += ['## Detections and failures', '',
                  markdown_text(gallery_text(gallery)), '',
                  '| kind | number | share | |', '|---|---:|---:|---|']
        for kind, count, share, text in gallery_rows(gallery):
            lines.append(f'| {kind} | {count} | {share} | {text} |')
        lines += ['']
        for kind, pictures in gallery['pictures'].items():
            lines += [f'### {kind}', ''] if pictures else []
            for name, caption in pictures:
                lines += [f'![{markdown_text(caption)}](pictures/{name})']
            lines += [''] if pictures else []
    if missing:
        lines += ['## Not run', '']
        lines += [f'- {markdown_text(m)}' for m in missing]
        lines += ['']
    return '\n'.join(lines)


def markdown_pictures(pictures: list) -> List[str]:
    lines = []
    for name, caption, _ in pictures:
        lines += [f'![{markdown_text(caption)}](pictures/{name}.svg)', '']
    return lines


def gallery_text(gallery: dict) -> str:
    return (f'Detections of {gallery["name"]}{gallery["seed"]} with a score '
            f'of at least {gallery["score_thr"]:g} on '
            f'{gallery["num_images"]} images with {gallery["num_objects"]} '
            'objects. The paper names these kinds of failure (Sec. 5, App. '
            'A); their definitions here are ours.')


def gallery_rows(gallery: dict) -> Iterator[Tuple[str, int, str, str]]:
    """Kind, count, share and definition."""
    counts = gallery['counts']
    num_dets = sum(counts[kind] for kind in KINDS)
    for kind, count in counts.items():
        total, of = ((gallery['num_objects'], 'objects') if kind == 'missed'
                     else (num_dets, 'detections'))
        share = f'{100 * count / total:.1f} % of {of}' if total else '–'
        yield kind, count, share, KIND_TEXTS[kind]


def html_report(title: str, spec: dict, tables: List[Table], clusters: list,
                gallery: Optional[dict], missing: List[str]) -> str:
    """The report as a page."""
    sections = []
    for table in tables:
        parts = []
        for block in table.blocks:
            if block.title:
                parts.append(f'<h3>{escape(block.title)}</h3>')
            parts.append(html_block(block))
        notes = ''.join(f'<li>{escape(n)}</li>' for n in table.notes)
        parts.append(f'<ul class="notes">{notes}</ul>')
        parts.append(html_charts(table.pictures))
        sections.append((table.key, table.title, ''.join(parts)))
    if clusters:
        sections.append(('clusters', 'Clusters', html_charts(clusters)))
    if gallery:
        sections.append(('failures', 'Detections and failures',
                         html_gallery(gallery)))
    if missing:
        items = ''.join(f'<li>{escape(m)}</li>' for m in missing)
        sections.append(('not-run', 'Not run',
                         f'<ul class="notes">{items}</ul>'))
    # Those that the paper gives one number have one link.
    first = {text.split(':')[0]: name for name, text, _ in sections[::-1]}
    links = ''.join(f'<a href="#{name}">{escape(text)}</a>'
                    for text, name in reversed(first.items()))
    about = escape(spec.get('about', ''))
    return html_page(
        title, f'<h1>{escape(title)}</h1><p>{about}</p><nav>{links}</nav>',
        ''.join(f'<section id="{name}"><h2>{escape(text)}</h2>{body}'
                '</section>' for name, text, body in sections),
        'tools/report.py',
        'Figures in percent. Those in italics, below "paper", are the '
        "paper's; all others were measured here.", STYLE)


def html_block(block: Block) -> str:
    """One block of a table."""
    first, second = ['<th></th>'], ['<th></th>']
    for group, names, is_paper in heads(block):
        style = ' paper' * is_paper
        first.append(f'<th class="group first{style}" colspan="{len(names)}">'
                     f'{escape(group)}</th>')
        for i, name in enumerate(names):
            second.append(f'<th class="{"first" * (i == 0)}{style}">'
                          f'{escape(name)}</th>')
    starts, at = set(), 0
    for _, names, _ in heads(block):
        starts.add(at)
        at += len(names)
    rows = []
    for row in block.rows:
        cells, at = [f'<td>{escape(row.name)}</td>'], 0
        for text, span, style in cells_of(block, row):
            style = f'{style} first' if at in starts else style
            cells.append(f'<td class="{style}" colspan="{span}">'
                         f'{escape(text)}</td>')
            at += span
        rows.append(f'<tr{" class=main" * row.main}>{"".join(cells)}</tr>')
    above = f'<tr>{"".join(first)}</tr>' * any(g for g, _, _ in heads(block))
    return (f'<div class="wide"><table><thead>{above}'
            f'<tr>{"".join(second)}</tr></thead>'
            f'<tbody>{"".join(rows)}</tbody></table></div>')


def html_charts(pictures: list) -> str:
    """Charts with captions."""
    figures = ''.join(
        f'<figure><figcaption>{escape(caption)}</figcaption>'
        f'<img alt="" src="pictures/{name}.svg"></figure>'
        for name, caption, _ in pictures)
    return f'<div class="charts">{figures}</div>'


def html_gallery(gallery: dict) -> str:
    """Counts and pictures of failures."""
    rows = ''.join(
        f'<tr><td>{kind}</td><td>{count}</td><td>{share}</td>'
        f'<td class="text">{escape(text)}</td></tr>'
        for kind, count, share, text in gallery_rows(gallery))
    legend = (key(GREEN, 'ground truth') + key(RED, 'the detection') +
              key(GRAY, 'other detections') +
              key(ORANGE, f'all detections ({RANDOM})'))
    parts = [
        f'<p class="note">{escape(gallery_text(gallery))}</p>'
        f'<div class="wide"><table><thead><tr><th>kind</th><th>number</th>'
        f'<th>share</th><th></th></tr></thead><tbody>{rows}</tbody></table>'
        f'</div><p>{legend}</p>'
    ]
    for kind, pictures in gallery['pictures'].items():
        if pictures:
            figures = ''.join(
                f'<figure><img loading="lazy" alt="" src="pictures/{name}">'
                f'<figcaption>{escape(caption)}</figcaption></figure>'
                for name, caption in pictures)
            parts.append(f'<h3>{kind.capitalize()}</h3>'
                         f'<div class="grid">{figures}</div>')
    return ''.join(parts)


TEX = {
    '\\': r'\textbackslash{}',
    '~': r'\textasciitilde{}',
    '^': r'\textasciicircum{}',
    '<': r'\textless{}',
    '>': r'\textgreater{}',
    '|': r'\textbar{}',
    '–': '--',
    '±': r'$\pm$',
    '→': r'$\rightarrow$',
    '≥': r'$\geq$',
    **{sign: f'\\{sign}' for sign in '&%$#_{}'},
}


def tex(text: str) -> str:
    """Plain text within LaTeX."""
    return ''.join(TEX.get(sign, sign) for sign in text)


def latex(tables: List[Table]) -> str:
    """All tables, for \\input in a paper."""
    lines = ['% Written by tools/report.py. Needs \\usepackage{booktabs}.',
             '% Columns and rows marked "paper", in italics, are the paper\'s.'
             ]
    for table in tables:
        if not table.blocks:
            continue
        groups = heads(table.blocks[0])
        width = sum(len(names) for _, names, _ in groups)
        lines += [
            '', r'\begin{table}', r'\centering',
            f'\\caption{{{tex(table.title)}}}', f'\\label{{tab:{table.key}}}',
            f'\\begin{{tabular}}{{l{"r" * width}}}', r'\toprule'
        ]
        top, rules, at = [], [], 2
        for group, names, _ in groups:
            top.append(f'\\multicolumn{{{len(names)}}}{{c}}{{{tex(group)}}}')
            if group:
                rules.append(f'\\cmidrule(lr){{{at}-{at + len(names) - 1}}}')
            at += len(names)
        names = [tex(name) for _, names, _ in groups for name in names]
        if rules:
            lines += [' & '.join(['', *top]) + r' \\', ' '.join(rules)]
        lines.append(' & '.join(['', *names]) + r' \\')
        for block in table.blocks:
            lines.append(r'\midrule')
            if block.title:
                lines.append(f'\\multicolumn{{{width + 1}}}{{l}}'
                             f'{{{tex(block.title)}}} \\\\')
            for row in block.rows:
                cells = []
                for text, span, style in cells_of(block, row):
                    text = tex(text)
                    if style == 'paper':
                        text = f'\\textit{{{text}}}'
                    if span > 1:
                        text = f'\\multicolumn{{{span}}}{{c}}{{{text}}}'
                    cells.append(text)
                lines.append(' & '.join([tex(row.name), *cells]) + r' \\')
        lines += [r'\bottomrule', r'\end{tabular}']
        lines += ['% ' + note for note in table.notes]
        lines += [r'\end{table}']
    return '\n'.join(lines) + '\n'


def flat(tables: List[Table], gallery: Optional[dict]) -> dict:
    """All figures: ``table/row/group/column``, the paper's with ``paper/``
    in front; None for what is not defined or was not run. Of several seeds
    it is the mean, with ``/seeds``, a list, and ``/std`` at the end of the
    name for the rest."""

    def rounded(value: Optional[float]) -> Optional[float]:
        return None if value is None else round(value, 4)

    out: Dict[str, Any] = {}
    for table in tables:
        for block in table.blocks:
            for row in block.rows:
                for front, cells in (('', row.cells), ('paper/', row.paper)):
                    for (group, name), cell in cells.items():
                        if cell == '–':
                            continue
                        path = '/'.join(
                            x for x in (table.key, row.name, group, name) if x)
                        path = front + path
                        out[path] = rounded(number(cell))
                        if isinstance(cell, Spread):
                            values = [rounded(v) for v in cell.values]
                            out[f'{path}/seeds'] = values
                            out[f'{path}/std'] = rounded(cell.std)
    for kind, count in (gallery or {}).get('counts', {}).items():
        out[f'failures/{gallery["name"]}/{kind}'] = count
    return out


def write(report: Report, out: str, json_file: Optional[str],
          summarize: bool, keep: bool) -> None:
    """Build everything and write it."""
    summary = None
    if summarize:
        earlier = {}
        if keep and osp.isfile(report.spec['summary']['file']):
            earlier = read(report.spec['summary']['file'])
        summary = report.summary(earlier)
    tables = report.tables()
    clusters = report.cluster_pictures()
    part = osp.join(out, 'pictures.part')
    shutil.rmtree(part, ignore_errors=True)
    os.makedirs(part)
    gallery = report.gallery(part)
    for name, _, svg in [p for t in tables for p in t.pictures] + clusters:
        with open(osp.join(part, f'{name}.svg'), 'w',
                  encoding='utf-8') as file:
            file.write(svg)
    spec = report.spec
    missing = list(dict.fromkeys(report.missing))
    content = (spec['title'], spec, tables, clusters, gallery, missing)
    texts = {
        'report.md': markdown(*content),
        'report.html': html_report(*content),
        'tables.tex': latex(tables)
    }
    figures = flat(tables, gallery)
    final = osp.join(out, 'pictures')
    shutil.rmtree(final, ignore_errors=True)
    os.replace(part, final)
    for name, text in texts.items():
        with atomic_write(osp.join(out, name)) as file:
            file.write(text)
    for path in [osp.join(out, 'report.json'), *([json_file] * bool(json_file))
                 ]:
        dump_json(figures, path, indent=1)
    print(f'Wrote {osp.join(out, "report.html")}, report.md, tables.tex and '
          'report.json.')
    if missing:
        print('Not run: ' + (', '.join(missing) if len(missing) <= _MANY else
                             f'{len(missing)} results that the report lists') +
              '.')
    if summary is not None:
        dump_json(summary, spec['summary']['file'], indent=1)
        print(f'Wrote {spec["summary"]["file"]}.')


def from_work_dirs(words_: Sequence[str]) -> Tuple[dict, Runs]:
    """A report of whatever figures are in work directories.

    Raises:
        SystemExit: If a word is not NAME=DIR, a name is there twice or a
            folder is missing.
    """
    folders: Dict[str, str] = {}
    for word in words_:
        name, sign, folder = word.partition('=')
        if not (name and sign and folder) or name in folders:
            raise SystemExit(f'error: --work-dirs {word}: write NAME=DIR, '
                             'each name once.')
        if not osp.isdir(folder):
            raise SystemExit(f'error: there is no folder {folder}.')
        folders[name] = folder
    runs = Runs({})
    detection, localization, classes, clusters = [], [], [], None
    group = 'test'
    for name, folder in folders.items():
        run = runs(folder)
        metrics = (run or {}).get('metrics', {})
        row = dict(name=name, runs={group: folder})
        if run is None or 'coco/AP50' in metrics:
            detection.append(row)
        if 'coco/AP50' in metrics and runs.details(folder, 'coco'):
            classes.append(dict(name=name, run=folder))
        if 'coco/agnostic_AP50' in metrics:
            detection.append(dict(row, agnostic=True))
        found = {
            g: folder for g, (protocol, names) in LOCALIZATION.items()
            if all(f'ssl/{protocol}_{n}' in metrics for n in names.values())
        }
        if found:
            localization.append(dict(name=name, runs=found))
        if runs.details(folder, 'cluster'):
            clusters = folder
    tables = []
    if detection:
        tables.append(dict(table='table1', rows=detection, paper=[]))
    if localization:
        tables.append(dict(table='table2', rows=localization, paper=[]))
    if classes:
        tables.append(dict(table='table3', rows=classes))
    if not tables:
        raise SystemExit('error: no test in these folders has figures of '
                         'avdet_mm.MatchedCocoMetric or '
                         'avdet_mm.SoundLocalizationMetric.')
    return dict(
        title='Report', tables=tables, clusters=clusters), runs


def from_config(path: str) -> Tuple[dict, Runs]:
    """The report of a table config.

    Raises:
        SystemExit: If it has none.
    """
    cfg = load_quietly(path)
    if 'report' not in cfg:
        raise SystemExit(f'error: {path} has no `report`; see '
                         'configs/tables for what it looks like.')
    configs = {
        osp.dirname(output): stage.config
        for stage in cfg.get('stages', ()) for output in stage.get(
            'outputs', ()) if osp.basename(output) == 'evaluation.json'
    }
    spec = cfg.to_dict()['report']
    return spec, Runs(configs, spec.get('seeds', ()))


def main() -> None:
    """Run the tool."""
    args = parse_args()
    if args.table:
        spec, runs = from_config(args.table)
    else:
        spec, runs = from_work_dirs(args.work_dirs)
    if args.summary and 'summary' not in spec:
        raise SystemExit(f'error: the report of {args.table} has no `summary`:'
                         ' dict(file=..., keys={name: (folder, metric)}).')
    write(
        Report(spec, runs), args.out or spec.get('out', 'report'), args.json,
        args.summary, args.keep)


if __name__ == '__main__':
    sys.exit(main())
