"""Tests of the benchmark of loading; its figures are not judged here."""
import importlib.util
import json
import os.path as osp
import sys

import numpy as np
import pytest

from tests.toy import ROOT


@pytest.fixture(scope='module')
def benchmark():
    path = osp.join(ROOT, 'tools', 'benchmarks', 'data_pipeline.py')
    spec = importlib.util.spec_from_file_location('data_pipeline', path)
    module = importlib.util.module_from_spec(spec)
    # Child processes find its functions by this name.
    sys.modules['data_pipeline'] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules['data_pipeline']


def test_bare_decode_gives_what_training_gets(benchmark, tmp_path):
    videos = tmp_path / 'videos'
    videos.mkdir()
    benchmark.make_video(str(videos / 'a.mp4'), 0, 2)
    dataset = benchmark.dataset_of(
        str(videos), str(tmp_path / 'raw.json'), 3, np.random.default_rng(0))
    assert len(dataset) == 3
    for i in range(3):
        row = dataset.get_data_info(i)
        assert row['duration'] == 2
        image, wave = benchmark.bare_decode(row['video_path'], row['time'],
                                            row['duration'])
        loaded = dataset.pipeline.transforms[0](row)
        assert (image == loaded['img']).all()
        assert wave.shape == loaded['waveform'].shape == (24000, )


def test_all_figures(tmp_path):
    # As a command: its child processes import the script anew.
    import subprocess
    out = tmp_path / 'figures.json'
    subprocess.run([
        sys.executable, 'tools/benchmarks/data_pipeline.py', '--json',
        str(out), '--num-videos', '1', '--seconds', '2', '--rounds', '1',
        '--batches', '8', '--items', '20', '--raw-items', '10', '--rows',
        '1000'
    ], cwd=ROOT, check=True, capture_output=True, timeout=300)
    figures = json.loads(out.read_text())
    assert all(isinstance(value, (int, float)) for value in figures.values())
    for key in ('raw_vs_bare_decode', 'prepared_vs_raw',
                'prepared_vs_usual_loader', 'workers_2_vs_1'):
        assert figures[key] > 0
    assert figures['table_rows'] == 1000
