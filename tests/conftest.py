"""Fixtures for all tests."""
import os

import pytest
import torch

from tests.gloo import GlooPool

# Values are compared with those of the CPU, also on a machine with a GPU.
os.environ.setdefault('CUDA_VISIBLE_DEVICES', '')
# Some virtual machines announce AMX and do not have it: bfloat16 kills there.
os.environ.setdefault('ONEDNN_MAX_CPU_ISA', 'AVX512_CORE_BF16')
# The models here are tiny: threads cost more than they gain.
torch.set_num_threads(1)


@pytest.fixture(scope='session', autouse=True)
def plain_config_dumps():
    """Runners dump their configs; laying them out takes seconds each."""
    with pytest.MonkeyPatch.context() as patch:
        # MMEngine imports it from there, its version decides when.
        for place in ('yapf.yapflib.yapf_api', 'mmengine.config.config'):
            patch.setattr(
                f'{place}.FormatCode',
                lambda text, **kwargs: (text, False),
                raising=False)
        yield


@pytest.fixture(scope='session')
def gloo():
    """Calls a function on two processes: ``gloo(function, *args)``."""
    pool = GlooPool()
    yield pool
    pool.close()


@pytest.fixture(scope='session')
def clip_dir(tmp_path_factory):
    """Folder with procedural clips, as ``data/`` of a demo: 16 and 4."""
    from avdet_mm.testing import write_procedural_clips
    root = tmp_path_factory.mktemp('procedural') / 'data'
    write_procedural_clips(str(root), 16, 4, seed=5, workers=0)
    return root
