"""tools/run_pipeline.py and the pipelines in configs/avdet/pipelines."""
import glob
import importlib.util
import os.path as osp
import re
import sys

import pytest
from mmengine.config import Config

from avdet_mm.datasets.metainfo import load_label_map
from tests.detectors import cached_metafiles
from tests.toy import ROOT

FOLDER = osp.join(ROOT, 'configs/avdet/pipelines')
PIPELINES = sorted(osp.basename(p) for p in glob.glob(f'{FOLDER}/*.py'))


@pytest.fixture(scope='module')
def tool():
    spec = importlib.util.spec_from_file_location(
        'run_pipeline', osp.join(ROOT, 'tools/run_pipeline.py'))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with cached_metafiles():
        yield module


@pytest.fixture
def places(monkeypatch):
    """The repository's folder, and where a user's files are."""
    monkeypatch.chdir(ROOT)
    for name in ('WORK_DIRS', 'VGGSOUND', 'AUDIOSET', 'OPENIMAGES'):
        monkeypatch.setenv(f'AVDET_{name}', f'/{name}')
    monkeypatch.setenv('AVDET_DEMO_DIR', '/WORK_DIRS/demo')
    # The tool sets it.
    monkeypatch.setenv('AVDET_SEED', '0')


@pytest.fixture
def run(tool, places, monkeypatch, capsys):
    """Runs the tool; returns what it says."""

    def call(*arguments):
        monkeypatch.setattr(sys, 'argv', ['run_pipeline.py', *arguments])
        tool.main()
        return capsys.readouterr().out

    return call


def stages_of(tool, name, *options):
    cfg = Config.fromfile(osp.join(FOLDER, name))
    return {s.name: s for s in tool.load_stages(cfg, list(options))}


def test_all_are_tested():
    assert PIPELINES == [
        'audioset.py', 'demo.py', 'vggsound-full_k300.py', 'vggsound-weak.py',
        'vggsound.py'
    ]


@pytest.mark.parametrize('name', PIPELINES)
def test_stages_find_each_others_files(name, tool, places):
    stages = stages_of(tool, name)
    made = set()
    for stage in stages.values():
        assert osp.isfile(stage.script)
        assert stage.config is None or osp.isfile(stage.config)
        # Nothing from the folder of results that no stage before makes.
        for path in stage.inputs:
            if path.startswith('/WORK_DIRS/') and not path.startswith(
                    '/WORK_DIRS/demo/data/'):
                assert path in made or osp.basename(path) == osp.basename(
                    osp.dirname(path)) + '.py', path
        assert not made.intersection(stage.outputs)
        made.update(stage.outputs)
        # Configs name the checkpoints of the stages before by themselves.
        assert '--cfg-options' not in stage.command
    joint, detector = stages['joint'], stages['detector']
    assert stages['pretrain'].checkpoint in joint.inputs
    labels, = (p for p in joint.outputs if p.endswith('.json'))
    if 'weak' in name:
        assert joint.checkpoint in stages['labels'].inputs
        labels, = stages['labels'].outputs
    else:
        assert labels in stages['matching'].inputs
        matching, = stages['matching'].outputs
        assert matching in stages['test'].inputs
        assert 'publish' not in stages or matching in stages['publish'].inputs
    assert labels in detector.inputs
    for last in {'publish', 'test'} & stages.keys():
        assert detector.checkpoint in stages[last].inputs
    if name != 'demo.py':
        assert list(stages)[-2:] == ['publish', 'test']


def test_matching_gives_the_names_of_the_test(tool, places):
    for name, classes in (('vggsound.py', 'openimages_instruments'),
                          ('vggsound-full_k300.py', 'openimages_general')):
        command = stages_of(tool, name)['matching'].command
        label_map = command[command.index('--label-map') + 1]
        assert load_label_map(label_map).classes == load_label_map(
            classes).classes
    # The small one does without; its file can build on that of the paper.
    small = osp.join(ROOT, 'tests/small/pipeline.py')
    full = stages_of(tool, 'vggsound.py')
    assert '--label-map' not in stages_of(tool, small)['matching'].command
    assert stages_of(tool, small).keys() == full.keys()


def test_clips_of_the_demo_are_made(tool, places):
    stages = stages_of(tool, 'demo.py')
    made = stages['clips'].outputs
    assert set(made) & set(stages['pretrain'].inputs)
    assert set(made) & set(stages['matching'].inputs)


def test_both_pipelines_share_the_localizer(tool, places):
    a = stages_of(tool, 'vggsound.py')
    b = stages_of(tool, 'vggsound-weak.py')
    for name in ('pretrain', 'joint'):
        assert a[name].state() == b[name].state()


def test_options_of_a_stage(tool, places):
    stages = stages_of(tool, 'vggsound.py', 'pretrain.train_cfg.max_epochs=2',
                       'detector.train_cfg.max_epochs=4',
                       'detector.randomness.seed=7')
    checkpoint = '/WORK_DIRS/pretrain_audioset/epoch_2.pth'
    assert stages['pretrain'].checkpoint == checkpoint
    assert stages['pretrain'].command[2:] == [
        '--cfg-options', 'train_cfg.max_epochs=2'
    ]
    # The next stage starts from there.
    assert stages['joint'].command[2:] == [
        '--cfg-options', f'load_from={checkpoint}'
    ]
    assert checkpoint in stages['joint'].inputs
    # The test uses the same config; publishing one that has the options.
    detector = stages['detector'].checkpoint
    assert osp.basename(detector) == 'epoch_4.pth'
    assert stages['test'].command[2:] == [
        detector, '--cfg-options', 'train_cfg.max_epochs=4',
        'randomness.seed=7'
    ]
    assert stages['test'].cfg.randomness.seed == 7
    assert detector in stages['publish'].command
    assert '--cfg-options' not in stages['publish'].command


@pytest.mark.parametrize('option', ['train_cfg.max_epochs=2', 'joint=3'])
def test_options_need_a_stage(option, tool, places):
    with pytest.raises(SystemExit, match='STAGE.KEY=VALUE'):
        stages_of(tool, 'demo.py', option)


def test_dry_run(run, tmp_path):
    root = tmp_path / 'my results'
    out = run('configs/avdet/pipelines/vggsound.py', '--dry-run',
              '--work-root', str(root), '--stages', 'joint', 'pretrain')
    env = f"AVDET_WORK_DIRS='{root}' AVDET_DEMO_DIR='{root}/demo'"
    assert out.split('\n')[1:] == [
        f'[pretrain] {env} python tools/train.py '
        'configs/avdet/pretrain_audioset.py',
        'To be run: it was not run before.', '',
        f'[joint] {env} python tools/train.py '
        'configs/avdet/joint_vggsound.py',
        f'To be run, since {root}/pretrain_audioset/epoch_230.pth is made '
        'before.', ''
    ]
    assert not root.exists()


def test_unknown_stage(run):
    with pytest.raises(SystemExit, match='no stage train .*only clips, pre'):
        run('configs/avdet/pipelines/demo.py', '--stages', 'train')
    with pytest.raises(SystemExit, match=r'no stage ablation\* in '):
        run('configs/avdet/pipelines/demo.py', '--skip', 'ablation*')


def test_patterns_of_stages(run):
    table = 'configs/tables/stampsound_small.py'
    names = [
        stage.name for stage in Config.fromfile(osp.join(ROOT, table)).stages
    ]
    own = [name for name in names if not name.startswith('ablation_')]
    assert 0 < len(own) < len(names)
    out = run(table, '--dry-run', '--skip', 'ablation_*')
    assert re.findall(r'^\[(.*?)\] ', out, re.MULTILINE) == own
    out = run(table, '--dry-run', '--stages', 'detector-*', 'report', '--skip',
              '*weak*')
    assert re.findall(r'^\[(.*?)\] ', out, re.MULTILINE) == [
        'detector-test', 'detector-alt', 'report'
    ]


def commands(out):
    return [line.partition('] ')[2] for line in out.splitlines()
            if line.startswith('[')]


def test_several_gpus(run):
    out = commands(
        run('configs/avdet/pipelines/demo.py', '--dry-run', '--gpus', '4',
            '--stages', 'matching', 'detector', 'test', '--cfg-options',
            'detector.randomness.seed=1'))
    env, demo = f'PYTHON={sys.executable}', '/WORK_DIRS/demo'
    config = 'configs/avdet/faster-rcnn_avol-net_fpn_demo.py'
    assert out[0].startswith(f'{env} python tools/match_clusters.py ')
    assert out[1:] == [
        f'{env} bash tools/dist_train.sh {config} 4 --work-dir '
        f'{demo}/detector --cfg-options randomness.seed=1',
        f'{env} bash tools/dist_test.sh {config} {demo}/detector/epoch_3.pth '
        f'4 --work-dir {demo}/detector/test --cfg-options randomness.seed=1'
    ]


def test_slurm(run):
    out = commands(
        run('configs/avdet/pipelines/demo.py', '--dry-run', '--gpus', '16',
            '--launcher', 'slurm', '--partition', 'p', '--stages', 'detector',
            'test'))
    env, demo = f'PYTHON={sys.executable} GPUS=16', '/WORK_DIRS/demo'
    config = 'configs/avdet/faster-rcnn_avol-net_fpn_demo.py'
    assert out == [
        f'{env} bash tools/slurm_train.sh p detector {config} --work-dir '
        f'{demo}/detector',
        f'{env} bash tools/slurm_test.sh p test {config} '
        f'{demo}/detector/epoch_3.pth --work-dir {demo}/detector/test'
    ]


def test_models_without_weights_need_no_launcher(run):
    table = 'configs/tables/demo.py'
    out = commands(
        run(table, '--dry-run', '--gpus', '4', '--stages', 'center-box-test',
            'pcl-test'))
    assert ('bash tools/dist_test.sh configs/baselines/pcl_demo.py '
            '/WORK_DIRS/demo/pcl/epoch_') in out[0]
    assert out[1].startswith(
        f'PYTHON={sys.executable} python tools/test.py '
        'configs/baselines/center-box_demo.py --work-dir ')


@pytest.mark.parametrize('name, folder', [
    ('demo', 'demo/report'),
    ('vggsound', 'report_vggsound'),
    ('audioset', 'report_audioset'),
    ('stampsound_small', 'stampsound_small/report'),
    ('stampsound_full', 'stampsound_full/report'),
])
def test_all_of_a_table_is_listed(run, name, folder):
    table = f'configs/tables/{name}.py'
    cfg = Config.fromfile(osp.join(ROOT, table))
    out = commands(run(table, '--dry-run'))
    assert len(out) == len(cfg.stages)
    assert out[-1] == (
        f'python tools/report.py {table} --out /WORK_DIRS/{folder}')


def test_seeds(run):
    table = 'configs/tables/stampsound_small.py'
    out = commands(
        run(table, '--dry-run', '--seeds', '3', '5', '--stages', 'localizer',
            'detector'))
    folder = '/WORK_DIRS/stampsound_small/seed'
    assert [line.split(' ')[-1] for line in out] == [
        f'{folder}{seed}/{name}' for seed in (3, 5)
        for name in ('localizer', 'detector')
    ]
    assert [line.split(' ')[0] for line in out] == [
        f'AVDET_SEED={seed}' for seed in (3, 3, 5, 5)
    ]


def test_seeds_need_a_config_that_reads_them(run):
    with pytest.raises(SystemExit, match='does not read AVDET_SEED'):
        run('configs/avdet/pipelines/demo.py', '--dry-run', '--seeds', '0',
            '1')


@pytest.mark.parametrize('arguments', [
    ['--launcher', 'slurm'],
    ['--launcher', 'none', '--gpus', '2'],
])
def test_launchers_need_what_they_need(run, arguments):
    with pytest.raises(SystemExit):
        run('configs/avdet/pipelines/demo.py', '--dry-run', *arguments)


def test_from_another_folder(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = commands(
        run(osp.join(FOLDER, 'demo.py'), '--dry-run', '--stages', 'pretrain'))
    script, config = out[0].split()[1:3]
    assert osp.samefile(script, osp.join(ROOT, 'tools/train.py'))
    assert osp.isfile(config)


def test_stages_run_in_order_until_one_fails(run, tmp_path):
    script = tmp_path / 'copy.py'
    script.write_text('import shutil, sys; shutil.copy(*sys.argv[1::2])')
    pipeline = tmp_path / 'pipeline.py'
    stages = [
        dict(name=b, script=str(script),
             args=[f'{tmp_path}/{a}.txt', '--out', f'{tmp_path}/{b}.txt'])
        for a, b in ('ab', 'bc', 'cd')
    ]
    pipeline.write_text(f'work_root = {str(tmp_path)!r}\nstages = {stages}')
    with pytest.raises(SystemExit, match='stage "b" failed'):
        run(str(pipeline))
    assert not (tmp_path / 'c.txt').exists()
    (tmp_path / 'a.txt').write_text('1')
    assert run(str(pipeline)).count('Finished before.') == 0
    assert (tmp_path / 'd.txt').read_text() == '1'
    assert run(str(pipeline)).count('Finished before.') == 3
    # A result that was spoiled is restored; no other stage has to run.
    (tmp_path / 'c.txt').write_text('2')
    assert run(str(pipeline)).count('Finished before.') == 2
    assert (tmp_path / 'd.txt').read_text() == '1'
    # Those behind a change run again, and no other.
    (tmp_path / 'a.txt').write_text('3')
    run(str(pipeline), '--stages', 'b')
    assert (tmp_path / 'd.txt').read_text() == '1'
    assert run(str(pipeline)).count('Finished before.') == 1
    assert (tmp_path / 'd.txt').read_text() == '3'
