# The paper's experiments on StampSound, preset full, for one seed; as
# stampsound_small.py, without the ablations. 8000 of the 20000 clips.
#   python tools/run_pipeline.py configs/tables/stampsound_full.py \
#       --seeds 0 1 2
#   python tools/report.py configs/tables/stampsound_full.py --summary
import json

_base_ = ['./stampsound_small.py']
work_root = _base_.work_root.replace('_small', '_full')


def of_full(value):
    """The same with the files of the other preset."""
    text = json.dumps(value).replace('_small', '_full')
    text = text.replace('preset small', 'preset full')
    return json.loads(text.replace('four of the ten', '11 of the 40'))


stages = of_full(
    [stage for stage in _base_.stages if 'ablation' not in stage.name])
stages[0]['args'][stages[0]['args'].index('small')] = 'full'
stages[0]['args'] += ['--num-train', '8000']
report = of_full(_base_.report)
for table in report['tables']:
    table['rows'] = [
        row for row in table['rows']
        if table['table'] == 'table5_matching'
        or '/ablation_' not in json.dumps(row)
    ]
    if table['table'] == 'table5_matching':
        table['rows'][0]['runs'] = {
            'K = 40': table['rows'][0]['runs']['K = 10']
        }
report['tables'] = [
    table for table in report['tables']
    if len(table['rows']) > 1 or table['table'] == 'table5_matching'
    or table.get('key') in ('localizer_test', 'heatmaps')
]
stages[-1]['inputs'] = [
    path for path in stages[-1]['inputs'] if '/ablation_' not in path
]
del table
