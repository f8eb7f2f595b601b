"""Tests of the benchmark of detection AP; its times are not judged here."""
import json
import subprocess
import sys

import pytest

from tests.toy import ROOT


def test_all_figures(tmp_path):
    out = tmp_path / 'figures.json'
    subprocess.run([
        sys.executable, 'tools/benchmarks/evaluation.py', '--json',
        str(out), '--images', '60', '--clusters', '6', '--detections', '4',
        '--threads', '1', '--reference-images', '20'
    ], cwd=ROOT, check=True, capture_output=True, timeout=300)
    figures = json.loads(out.read_text())
    assert all(isinstance(value, (int, float)) for value in figures.values())
    assert figures['reference_images'] == 20
    assert figures['max_difference'] == 0
    assert 0 < figures['AP'] < figures['AP50'] < figures['AP30'] < 1
    assert 0 < figures['agnostic_AP50'] < 1
    for key in ('seconds', 'peak_gb', 'speedup_vs_pycocotools',
                'agnostic_speedup', 'reference_seconds'):
        assert figures[key] > 0
    assert figures['seconds'] == pytest.approx(
        figures['process_seconds'] + figures['compute_seconds'], rel=1e-3)
    assert figures['inputs_gb'] <= figures['peak_gb'] < 2
