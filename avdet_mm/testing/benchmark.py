"""What the scripts in tools/benchmarks share."""
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Callable, Dict, Optional, Sequence

from avdet_mm.utils import dump_json


def in_process(function: Callable,
               *args: Any,
               preload: Sequence[str] = ()) -> Any:
    """Call a function in a fresh process, whose memory is its own.

    Args:
        function (Callable): Of a module that can be imported, or of the
            script that runs.
        *args: Its arguments.
        preload (Sequence[str]): Modules that are there already when the
            function is called, so that they do not count. Defaults to ().

    Returns:
        Any: What the function returns.
    """
    # Never a copy of this process, whose memory is large by now.
    context = multiprocessing.get_context('forkserver' if preload else 'spawn')
    if preload:
        context.set_forkserver_preload(list(preload))
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *args).result()


def report(result: Dict[str, float], path: Optional[str]) -> None:
    """Print all figures of a benchmark and write them as a flat json.

    Args:
        result (dict[str, float]): The figures.
        path (str, optional): The json; None writes none.
    """
    width = max(map(len, result))
    for key, value in result.items():
        print(f'{key:{width}} {value:g}')
    if path:
        dump_json(result, path, indent=1)
