# The paper's experiments on StampSound, preset full, for one seed; as
# stampsound_small.py, without the ablations. 8000 of the 20000 clips.
#   python tools/run_pipeline.py configs/tables/stampsound_full.py \
#       --seeds 0 1 2
#   python tools/report.py configs/tables/stampsound_full.py --summary
_base_ = ['./stampsound_small.py']
work_root = _base_.work_root.replace('_small', '_full')


def of_full(value):
    """The same with the files of the other preset."""
    if isinstance(value, dict):
        return {key: of_full(x) for key, x in value.items()}
    if isinstance(value, (list, tuple)):
        return [of_full(x) for x in value]
    if not isinstance(value, str):
        return value
    value = value.replace('_small', '_full')
    value = value.replace('preset small', 'preset full')
    return value.replace('four of the ten', '11 of the 40')


stages = of_full(
    [stage for stage in _base_.stages if 'ablation' not in stage.name])
stages[0]['args'][stages[0]['args'].index('small')] = 'full'
stages[0]['args'] += ['--num-train', '8000']
report = of_full(_base_.report)
for table in report['tables']:
    table['rows'] = [
        row for row in table['rows']
        if table['table'] == 'table5_matching'
        or '/ablation_' not in str(row)
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
report['summary']['keys'] = dict(
    _delete_=True,
    **{
        name: key
        for name, key in report['summary']['keys'].items()
        if '/ablation_' not in key[0]
    })
stages[-1]['inputs'] = [
    path for path in stages[-1]['inputs'] if '/ablation_' not in path
]
del table
