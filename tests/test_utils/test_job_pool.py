"""Tests of calls in processes."""
import faulthandler
import multiprocessing
import os
import signal
import sys
import time

import pytest

from avdet_mm.utils.job_pool import Died, Done, num_cores, run_local, run_ray

fork = multiprocessing.get_context('fork')


def work(job):
    """Twice a number; some words end the process."""
    if job == 'segfault':
        faulthandler.disable()
        os.kill(os.getpid(), signal.SIGSEGV)
    if job == 'exit':
        os._exit(7)
    if job == 'hang':
        # Deaf to everything that Python could do.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        time.sleep(60)
    return 2 * job


def results(found):
    return {done.job: done.result for done in found if done is not None}


@pytest.mark.parametrize('workers', [1, 3, 50])
def test_all_calls(workers):
    found = results(run_local(work, iter(range(20)), workers))
    assert found == {i: 2 * i for i in range(20)}


def test_nothing_to_do():
    assert list(run_local(work, [])) == []


@pytest.mark.parametrize('workers', [1, 2])
def test_only_culprits_are_lost(workers):
    jobs = [1, 'segfault', 2, 'exit', 'hang', 3, 4]
    found = results(run_local(work, jobs, workers, timeout=1.))
    assert found == {
        1: 2,
        2: 4,
        3: 6,
        4: 8,
        'segfault': Died(False, 'SIGSEGV'),
        'exit': Died(False, 'exit code 7'),
        'hang': Died(True, 'more than 1 s')
    }


def test_jobs_are_taken_when_needed():
    taken = []

    def jobs():
        for i in range(100):
            taken.append(i)
            yield i

    before = set(multiprocessing.active_children())
    calls = run_local(work, jobs(), 2)
    assert isinstance(next(calls), Done)
    assert len(taken) <= 6
    assert len(set(multiprocessing.active_children()) - before) == 2
    calls.close()
    assert set(multiprocessing.active_children()) == before


def alive(pid):
    """Whether a process runs; one that is only to be buried does not."""
    try:
        with open(f'/proc/{pid}/stat') as file:
            return file.read().rsplit(')', 1)[1].split()[0] not in 'ZX'
    except FileNotFoundError:
        return False


def parent(pipe):
    calls = run_local(work, ['hang'] * 3, 3)
    next(calls)
    pipe.send([p.pid for p in multiprocessing.active_children()])
    time.sleep(60)


@pytest.mark.skipif(sys.platform != 'linux', reason='looks into /proc')
def test_workers_end_with_their_parent():
    mine, theirs = fork.Pipe()
    run = fork.Process(target=parent, args=(theirs, ))
    run.start()
    pids = mine.recv()
    assert len(pids) == 3 and all(map(alive, pids))
    os.kill(run.pid, signal.SIGKILL)
    run.join()
    deadline = time.monotonic() + 10
    while any(map(alive, pids)):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_num_cores():
    assert 1 <= num_cores() <= os.cpu_count()


def test_ray_is_optional(monkeypatch):
    monkeypatch.setitem(sys.modules, 'ray', None)
    with pytest.raises(ImportError, match=r'pip install "avdet_mm\[ray\]"'):
        next(run_ray(work, [1]))
