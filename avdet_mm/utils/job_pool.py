"""Calling a function many times in processes that may die on the way.

Decoders written in C crash, hang and eat all memory on some files. Unlike
those of :mod:`concurrent.futures`, these pools lose only the call that did
it: they say how it ended and go on.
"""
import multiprocessing
import os
import signal
import threading
import time
from itertools import islice
from multiprocessing import connection
from typing import (
    Any,
    Callable,
    Iterable,
    Iterator,
    List,
    NamedTuple,
    Optional,
)

LAUNCHERS = ('local', 'ray')


class Died(NamedTuple):
    """Result of a call that ended its process.

    Attributes:
        timeout (bool): Whether it took too long.
        detail (str): The signal or exit code; or the limit.
    """
    timeout: bool
    detail: str


class Done(NamedTuple):
    """A finished call.

    Attributes:
        job (Any): Argument of the function.
        result (Any): What it returned, or :class:`Died`.
    """
    job: Any
    result: Any


Results = Iterator[Optional[Done]]


def run_local(function: Callable[[Any], Any],
              jobs: Iterable[Any],
              workers: Optional[int] = None,
              timeout: float = 600.) -> Results:
    """Call a function in processes of this machine.

    Close the iterator to end them early.

    Args:
        function (Callable): A function of a module, with one argument, which
            does not raise.
        jobs (Iterable): Its arguments.
        workers (int, optional): Number of processes. Defaults to None, as
            many as there are CPU cores.
        timeout (float): Seconds after which a call is ended.
            Defaults to 600.

    Yields:
        Done, optional: The finished calls in any order; None twice a second
        while none is finished.
    """
    jobs = iter(jobs)
    pool: List[_Worker] = []
    try:
        for job in islice(jobs, workers or num_cores()):
            pool.append(_Worker(function, timeout, job))
        while pool:
            ready = connection.wait([w.pipe for w in pool], timeout=0.5)
            if not ready:
                yield None
            for worker in [w for w in pool if w.pipe in ready]:
                done = Done(worker.job, worker.take())
                more = list(islice(jobs, 1))
                if more and not isinstance(done.result, Died):
                    worker.give(*more)
                else:
                    pool.remove(worker)
                    worker.end()
                    if more:
                        pool.append(_Worker(function, timeout, *more))
                yield done
    finally:
        for worker in pool:
            worker.end()


class _Worker:
    """A process for one call after another."""

    def __init__(self, function: Callable[[Any], Any], timeout: float,
                 job: Any) -> None:
        self.pipe, theirs = multiprocessing.Pipe()
        self.timeout = timeout
        self.process = multiprocessing.Process(
            target=_serve,
            args=(theirs, self.pipe, function, timeout),
            daemon=True)
        self.process.start()
        theirs.close()
        self.give(job)

    def give(self, job: Any) -> None:
        """Start a call."""
        self.job = job
        try:
            self.pipe.send(job)
        except ConnectionError:
            pass  # take() will find out.

    def take(self) -> Any:
        """Wait for the result."""
        try:
            return self.pipe.recv()
        except (EOFError, ConnectionError):
            self.process.join()
        code = self.process.exitcode
        if code == -signal.SIGALRM:
            return _too_long(self.timeout)
        return Died(
            False,
            signal.Signals(-code).name if code < 0 else f'exit code {code}')

    def end(self) -> None:
        """End the process, whatever it does."""
        self.process.kill()
        self.process.join()
        self.pipe.close()


def end_with_parent() -> None:
    """Let this process end when its parent does, however that ends."""

    def wait() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _serve(pipe: connection.Connection, other_end: connection.Connection,
           function: Callable[[Any], Any], timeout: float) -> None:
    """Life of a worker: do the calls that come through the pipe."""
    # A forked process has this end too, and would wait for itself.
    other_end.close()
    # Ctrl-C goes to all processes; the parent decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    end_with_parent()
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return
        pipe.send(_call(function, job, timeout))


def _call(function: Callable[[Any], Any], job: Any, timeout: float) -> Any:
    """Call a function; the kernel ends the process after a time.

    Nothing else can interrupt a decoder that hangs.
    """
    signal.setitimer(signal.ITIMER_REAL, timeout)
    try:
        return function(job)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _too_long(timeout: float) -> Died:
    return Died(True, f'more than {timeout:g} s')


def run_ray(function: Callable[[Any], Any],
            jobs: Iterable[Any],
            workers: Optional[int] = None,
            timeout: float = 600.,
            address: Optional[str] = None) -> Results:
    """Call a function on a Ray cluster; otherwise as :func:`run_local`.

    Args:
        function (Callable): As there.
        jobs (Iterable): As there.
        workers (int, optional): Number of calls at a time. Defaults to None,
            as many as the cluster has CPU cores.
        timeout (float): As there.
        address (str, optional): Of the cluster, e.g. ``'auto'``. Defaults to
            None, a local one that is started and ended here.

    Yields:
        Done, optional: As there.

    Raises:
        ImportError: If Ray is missing.
        RuntimeError: If there is no such cluster.
    """
    try:
        import ray
    except ImportError as error:
        raise ImportError('The Ray launcher needs Ray: '
                          'pip install "avdet_mm[ray]"') from error
    started = not ray.is_initialized()
    if started:
        local = dict(num_cpus=workers or num_cores(), include_dashboard=False)
        try:
            ray.init(
                address=address or 'local',
                log_to_driver=False,
                logging_level='warning',
                **local if address is None else {})
        except ConnectionError as error:
            raise RuntimeError(f'There is no Ray cluster at {address!r}: '
                               f'{error}') from error
    call = ray.remote(num_cpus=1, max_retries=0)(_call)
    limit = workers or max(int(ray.cluster_resources().get('CPU', 1)), 1)
    jobs, pending = iter(jobs), {}
    try:
        while True:
            for job in islice(jobs, limit - len(pending)):
                ref = call.remote(function, job, timeout)
                pending[ref] = job, time.monotonic()
            if not pending:
                return
            ready, _ = ray.wait(list(pending), timeout=0.5)
            if not ready:
                yield None
            for ref in ready:
                job, since = pending.pop(ref)
                try:
                    result = ray.get(ref)
                except ray.exceptions.RayError as error:
                    # How the process died is not told, so the clock decides.
                    if time.monotonic() - since >= timeout:
                        result = _too_long(timeout)
                    else:
                        result = Died(False, type(error).__name__)
                yield Done(job, result)
    finally:
        for ref in pending:
            ray.cancel(ref, force=True)
        if started:
            ray.shutdown()


def num_cores() -> int:
    """Number of CPU cores that this process may use."""
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
