r"""How fast, lean and right SinkhornKnopp is, beside the dense algorithm.

    python tools/benchmarks/sinkhorn.py --json work_dirs/sinkhorn.json

The dense algorithm is that of SeLaVi: both heads' posteriors of all clips in
float64, their product to the power lambda / 2 in place, and Sinkhorn's
iteration on two scaling vectors until the rows' factors change by 0.1 in
total or 2000 iterations are done. Both run on the same logits with the same
threads, in one run.

Logits are those of two heads well into their training. A clip of cluster c
has a logit of ``strength`` at c (its own, 0.1 to 1 times that of the case),
less at similar clusters, noise, and a bias of the head. Cluster sizes have a
long tail, and each head takes one clip in ten for one of another cluster.
The cases differ in that:

- clustered: the case of the main figures. The larger mean posterior of half
  of the clips is below 0.5;
- early, sure: weaker and stronger evidence; imbalanced: a steeper tail;
  random: noise alone;
- certain: logits are hundreds apart, and half of the clips are of different
  clusters for their two heads, each of which is certain.

Keys of the main case (--rows x --clusters):

- speedup: time of the dense iteration and its labels over that of
  SinkhornKnopp, both from the array that they iterate on. SinkhornKnopp goes
  on to the column error at which dense stops, or to its default tolerance if
  that is less; speedup_default: always to its default tolerance. *_cpu: of
  the CPU seconds of all threads, which other jobs disturb less;
- memory_ratio: peak memory of SinkhornKnopp over that of dense, in all from
  batches of logits to labels, each in a fresh process (its maximal resident
  set, less what it has after its imports); memory_ratio_lean: over a dense
  one that multiplies the posteriors batch by batch and never holds both;
- label_agreement: share of its labels that are those of the dense algorithm
  at its fixed point. Dense hardly gets there from its own start, but its
  fixed point is unique: it goes on from a solution in float64, and stays
  (limit_error and limit_row_change, which its criterion wants below 0.1);
  label_agreement_default: of the run with the default tolerance;
  label_agreement_dense: of what dense has when it stops;
  label_agreement_own_dense: of the two that speedup compares;
- *_s, *_passes, *_error, *_mb: seconds, passes over the rows, column error,
  and peak memory of SinkhornKnopp (own, default), dense, and dense going on
  (limit).

Keys of the other cases, NAME_* on --case-rows rows and --case-clusters
clusters: as above; here dense goes on to its criterion from its own start
(at most 50,000 iterations) for label_agreement, and stops after 2000 for
speedup. Where it has rows of zeros, NAME_dense_zero_rows says how many,
and there is no other figure of it.

Time against N and K: n_*_s, k_*_s (seconds at that number) and n_*_passes,
k_*_passes, the exponents of the time of a pass (n_exponent, k_exponent: 1 is
linear; a pass multiplies K x N by N x K), and a plot beside the json.
--large adds a run of 1,000,000 rows: large_*; large_gb is all that its
process has at its peak, logits included.
"""
import argparse
import gc
import os.path as osp
import resource
import time
from typing import Any, Callable, Dict, Iterator, NamedTuple, Tuple

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from avdet_mm.models.task_modules import SinkhornKnopp
from avdet_mm.models.task_modules.sinkhorn_knopp import mean_log_probs
from avdet_mm.testing.benchmark import in_process, report
from avdet_mm.utils.job_pool import num_cores

SHARPNESS = 20.
BATCH = 2000


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--json', help='file for the figures')
    parser.add_argument('--rows', type=int, default=200000)
    parser.add_argument('--clusters', type=int, default=300)
    parser.add_argument(
        '--dense-iters', type=int, default=2000, help='cap of dense')
    parser.add_argument('--case-rows', type=int, default=10000)
    parser.add_argument('--case-clusters', type=int, default=60)
    parser.add_argument(
        '--times', type=int, default=3, help='runs of SinkhornKnopp')
    parser.add_argument(
        '--threads', type=int, default=num_cores(), help='of both')
    parser.add_argument(
        '--large', action='store_true', help='also 1,000,000 rows')
    parser.add_argument('--large-rows', type=int, default=1000000)
    return parser.parse_args()


# --------------------------------------------------------------------------
# Logits
# --------------------------------------------------------------------------
class Case(NamedTuple):
    """What logits are like."""
    strength: float
    noise: float
    tail: float = 1.  # cluster i has a share of 1 / (i + head) ** tail
    head: float = 5.
    conflict: float = 0.1  # share of the clips that a head mistakes


CASES = dict(
    clustered=Case(30, 1.5),
    early=Case(6, 1.5),
    sure=Case(45, 1.5),
    imbalanced=Case(30, 1.5, tail=1.5, head=1.),
    random=Case(0, 3),
    certain=Case(500, 1, conflict=0.3))


def batches(name: str, rows: int,
            clusters: int) -> Iterator[Tuple[Tensor, Tensor]]:
    """Logits of both heads, (BATCH, K) float32 each, the same every time."""
    case = CASES[name]
    rng = np.random.default_rng(0)
    prototypes = rng.normal(size=(clusters, 16))
    similarity = (prototypes @ prototypes.T / 16).clip(-1, 1)
    pattern = np.eye(clusters) + similarity * (1 - np.eye(clusters)) / 1.5
    pattern = torch.from_numpy(pattern).float()
    biases = torch.from_numpy(0.7 * rng.normal(size=(2, clusters))).float()
    shares = 1 / (np.arange(clusters) + case.head)**case.tail
    shares = torch.from_numpy(shares)
    generator = torch.Generator().manual_seed(0)
    for start in range(0, rows, BATCH):
        size = min(BATCH, rows - start)
        cluster = shares.multinomial(size, True, generator=generator)
        heads = []
        for bias in biases:
            mistaken = torch.rand(size, generator=generator) < case.conflict
            other = torch.randint(clusters, (size, ), generator=generator)
            seen = torch.where(mistaken, other, cluster)
            strength = torch.rand(size, 1, generator=generator).clamp(0.1)
            logits = case.noise * torch.randn(
                size, clusters, generator=generator)
            logits += case.strength * strength * pattern[seen] + bias
            heads.append(logits)
        yield tuple(heads)


def log_probs_of(name: str, rows: int, clusters: int,
                 dtype: torch.dtype = torch.float32) -> Tensor:
    """What SinkhornKnopp iterates on."""
    log_probs = torch.empty(rows, clusters, dtype=dtype)
    for out, (visual, audio) in zip(
            log_probs.split(BATCH), batches(name, rows, clusters)):
        out.copy_(mean_log_probs(visual, audio))
    return log_probs


# --------------------------------------------------------------------------
# The dense algorithm
# --------------------------------------------------------------------------
def dense_kernel(name: str, rows: int, clusters: int) -> Tensor:
    """What dense iterates on: (N, K) float64."""
    kernel = torch.empty(rows, clusters, dtype=torch.float64)
    other = torch.empty_like(kernel)
    for p_visual, p_audio, (visual, audio) in zip(
            kernel.split(BATCH), other.split(BATCH),
            batches(name, rows, clusters)):
        p_visual.copy_(visual.double().softmax(dim=1))
        p_audio.copy_(audio.double().softmax(dim=1))
    kernel *= other
    del other
    kernel.pow_(SHARPNESS / 2)
    return kernel


def lean_kernel(name: str, rows: int, clusters: int) -> Tensor:
    """The same, of one array only."""
    kernel = torch.empty(rows, clusters, dtype=torch.float64)
    for out, (visual, audio) in zip(
            kernel.split(BATCH), batches(name, rows, clusters)):
        out.copy_(visual.double().softmax(dim=1))
        out.mul_(audio.double().softmax(dim=1)).pow_(SHARPNESS / 2)
    return kernel


class Dense(NamedTuple):
    """What the dense algorithm returns."""
    labels: Tensor
    iterations: int
    row_change: float  # sum of |beta / beta_new - 1|, its criterion
    error: float  # sum of |column - r|


def dense(kernel: Tensor, max_iters: int, beta: Tensor = None) -> Dense:
    """Sinkhorn's iteration with uniform marginals."""
    rows, clusters = kernel.shape
    if beta is None:
        beta = kernel.new_full((rows, ), 1 / rows)
    transposed = kernel.t()
    for i in range(1, max_iters + 1):
        alpha = 1 / clusters / (transposed @ beta)
        new = 1 / rows / (kernel @ alpha)
        if i % 10 == 0 or i == max_iters:
            change = (beta / new - 1).abs().sum().item()
        beta = new
        if i % 10 == 0 and change <= 0.1:
            break
    labels = torch.cat([(x * alpha).argmax(dim=1)
                        for x in kernel.split(BATCH)])
    column = alpha * (transposed @ beta)
    return Dense(labels, i, change, (column - 1 / clusters).abs().sum().item())


# --------------------------------------------------------------------------
# Figures
# --------------------------------------------------------------------------
class Timed(NamedTuple):
    """What a call took, and returned."""
    seconds: float
    cpu: float  # seconds of all threads
    result: Any


def timed(function: Callable, *args) -> Timed:
    start = time.perf_counter(), time.process_time()
    result = function(*args)
    return Timed(time.perf_counter() - start[0],
                 time.process_time() - start[1], result)


def same(a: Tensor, b: Tensor) -> float:
    return (a == b).double().mean().item()


def median_run(times: int, solver: SinkhornKnopp, log_probs: Tensor) -> Timed:
    runs = [timed(solver, log_probs) for _ in range(times)]
    return Timed(
        float(np.median([x.seconds for x in runs])),
        float(np.median([x.cpu for x in runs])), runs[0].result)


def memory(args: argparse.Namespace) -> Dict[str, float]:
    """Peaks, each of a fresh process."""
    shape = 'clustered', args.rows, args.clusters
    peaks = [
        in_process(function, args.threads, *shape)
        for function in (own_memory, dense_memory, lean_memory)
    ]
    return dict(
        memory_ratio=peaks[0] / peaks[1],
        memory_ratio_lean=peaks[0] / peaks[2],
        own_mb=peaks[0],
        dense_mb=peaks[1],
        lean_mb=peaks[2])


def main_case(args: argparse.Namespace) -> Dict[str, float]:
    """The figures of the first list, but for memory."""
    shape = 'clustered', args.rows, args.clusters
    kernel = dense_kernel(*shape)
    dense_s, dense_cpu, slow = timed(dense, kernel, args.dense_iters)
    print(f'dense: {dense_s:.1f} s, {slow.iterations} iterations')

    # A solution in float64; its potentials give the rows' factors.
    exact = SinkhornKnopp(SHARPNESS, tolerance=1e-10)(
        log_probs_of(*shape, torch.float64))
    beta = 1 / args.rows / (kernel @ exact.potentials.exp())
    limit = dense(kernel, args.dense_iters, beta)
    del kernel, beta
    gc.collect()

    log_probs = log_probs_of(*shape)
    default = SinkhornKnopp(SHARPNESS)
    solver = SinkhornKnopp(
        SHARPNESS, tolerance=min(slow.error, default.tolerance))
    own_s, own_cpu, own = median_run(args.times, solver, log_probs)
    default_s, default_cpu, rough = median_run(args.times, default, log_probs)
    return dict(
        speedup=dense_s / own_s,
        speedup_cpu=dense_cpu / own_cpu,
        speedup_default=dense_s / default_s,
        speedup_default_cpu=dense_cpu / default_cpu,
        label_agreement=same(own.labels, limit.labels),
        label_agreement_default=same(rough.labels, limit.labels),
        label_agreement_dense=same(slow.labels, limit.labels),
        label_agreement_own_dense=same(own.labels, slow.labels),
        own_s=own_s,
        own_passes=own.iterations,
        own_error=own.error,
        default_s=default_s,
        default_passes=rough.iterations,
        default_error=rough.error,
        dense_s=dense_s,
        dense_passes=slow.iterations,
        dense_error=slow.error,
        dense_row_change=slow.row_change,
        limit_passes=limit.iterations,
        limit_error=limit.error,
        limit_row_change=limit.row_change)


def other_case(name: str, args: argparse.Namespace) -> Dict[str, float]:
    """The figures of one more case."""
    shape = name, args.case_rows, args.case_clusters
    own_s, own_cpu, own = median_run(args.times, SinkhornKnopp(SHARPNESS),
                                     log_probs_of(*shape))
    result = dict(s=own_s, passes=own.iterations, error=own.error)
    kernel = dense_kernel(*shape)
    zeros = int((kernel == 0).all(dim=1).sum())
    if zeros:
        result['dense_zero_rows'] = zeros
    else:
        dense_s, dense_cpu, slow = timed(dense, kernel, args.dense_iters)
        limit = dense(kernel, 25 * args.dense_iters)
        result.update(
            speedup=dense_s / own_s,
            speedup_cpu=dense_cpu / own_cpu,
            label_agreement=same(own.labels, limit.labels),
            label_agreement_dense=same(slow.labels, limit.labels),
            dense_passes=slow.iterations,
            dense_error=slow.error,
            limit_passes=limit.iterations,
            limit_error=limit.error,
            limit_row_change=limit.row_change)
    return {f'{name}_{key}': value for key, value in result.items()}


def scaling(args: argparse.Namespace) -> Dict[str, float]:
    """Time against N and K."""
    result = {}
    rows = [args.rows // x for x in (8, 4, 2, 1)]
    clusters = [args.clusters // x for x in (6, 3, 2, 1)] + [2 * args.clusters]
    for axis, shapes in dict(
            n=[(n, args.clusters) for n in rows],
            k=[(args.rows // 4, k) for k in clusters]).items():
        numbers, per_pass = [], []
        for shape in shapes:
            seconds, _, own = median_run(args.times, SinkhornKnopp(SHARPNESS),
                                         log_probs_of('clustered', *shape))
            number = shape['nk'.index(axis)]
            numbers.append(number)
            per_pass.append(seconds / own.iterations)
            result[f'{axis}_{number}_s'] = seconds
            result[f'{axis}_{number}_passes'] = own.iterations
        slope, _ = np.polyfit(np.log(numbers), np.log(per_pass), 1)
        result[f'{axis}_exponent'] = slope
    return result


def plot(result: Dict[str, float], path: str) -> None:
    """Time against N and K as a picture."""
    figure = Figure(figsize=(9, 3.6))
    for axis, ax, label in zip('nk', figure.subplots(1, 2),
                               ('clips N', 'clusters K')):
        numbers = sorted(
            int(key.split('_')[1]) for key in result
            if key.startswith(f'{axis}_') and key.endswith('_s'))
        seconds = [result[f'{axis}_{x}_s'] for x in numbers]
        passes = [result[f'{axis}_{x}_passes'] for x in numbers]
        ax.plot(numbers, seconds, 'o-', label='in all, with its passes')
        ax.plot(
            numbers, [10 * s / p for s, p in zip(seconds, passes)],
            's--',
            label='10 passes')
        for x, s, p in zip(numbers, seconds, passes):
            ax.annotate(
                p, (x, s), (0, 6),
                textcoords='offset points',
                ha='center',
                fontsize=8)
        ax.set(xlabel=label, ylabel='seconds', xlim=0)
        ax.margins(0.12)
        ax.locator_params(nbins=5)
        ax.set_ylim(bottom=0)
        slope = result[f'{axis}_exponent']
        ax.set_title(f'time of a pass ~ {axis.upper()}^{slope:.2f}')
        ax.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


# --------------------------------------------------------------------------
# Memory: each function runs in a process of its own.
# --------------------------------------------------------------------------
def resident_mb() -> float:
    with open('/proc/self/statm') as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def own_memory(threads: int, *shape) -> float:
    """MB that logits to labels take."""
    torch.set_num_threads(threads)
    before = resident_mb()
    SinkhornKnopp(SHARPNESS)(log_probs_of(*shape))
    return peak_mb() - before


def dense_memory(threads: int, *shape, kernel=dense_kernel) -> float:
    """Likewise of dense; its iterations are all alike."""
    torch.set_num_threads(threads)
    before = resident_mb()
    dense(kernel(*shape), 2)
    return peak_mb() - before


def lean_memory(threads: int, *shape) -> float:
    """Likewise of dense with one array."""
    return dense_memory(threads, *shape, kernel=lean_kernel)


def large(threads: int, rows: int, clusters: int) -> Dict[str, float]:
    """A large run; the memory is all that the process has."""
    torch.set_num_threads(threads)
    making_s, _, log_probs = timed(log_probs_of, 'clustered', rows, clusters)
    own_s, _, own = timed(SinkhornKnopp(SHARPNESS), log_probs)
    return dict(
        large_rows=rows,
        large_making_s=making_s,
        large_s=own_s,
        large_passes=own.iterations,
        large_error=own.error,
        large_gb=peak_mb() / 1024)


def main() -> None:
    args = parse_args()
    torch.set_num_threads(args.threads)
    # Memory first: a process starts with the maximum of its parent.
    print('Memory ...')
    result = memory(args)
    if args.large:
        result.update(
            in_process(large, args.threads, args.large_rows, args.clusters))
    print('Time ...')
    result = dict(main_case(args), **result)
    for name in CASES:
        if name != 'clustered':
            print(f'{name} ...')
            result.update(other_case(name, args))
    print('Against N and K ...')
    result.update(scaling(args))
    report(result, args.json)
    if args.json:
        plot(result, osp.splitext(args.json)[0] + '.png')


if __name__ == '__main__':
    main()
