"""Set-up of data loader workers."""
import random

import cv2
import numpy as np
import torch
from mmengine.dist import get_rank

from avdet_mm.registry import FUNCTIONS


@FUNCTIONS.register_module()
def seed_worker(worker_id: int) -> None:
    """Seed a loader worker anew in every epoch, and give it one thread.

    MMEngine's own function seeds worker ``i`` the same way each time that it
    starts, so without persistent workers every epoch repeats the random
    crops and times of the first. Here the seed comes from the one that the
    loader draws for each epoch from the main process' generator: different
    from epoch to epoch, worker to worker and rank to rank, and still
    determined by the run's seed.

    Set it in a data loader's config:
    ``worker_init_fn=dict(type='avdet_mm.seed_worker')``.

    Args:
        worker_id (int): Number of the worker; already part of its seed.
    """
    seeds = np.random.SeedSequence([torch.initial_seed(), get_rank()])
    for seed_with, seed in zip((np.random.seed, random.seed,
                                torch.manual_seed), seeds.generate_state(3)):
        seed_with(int(seed))
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
