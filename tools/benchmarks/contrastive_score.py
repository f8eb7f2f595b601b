r"""Scores of all pairs of frames and sounds, against einsum and amax.

    python tools/benchmarks/contrastive_score.py --json work_dirs/score.json

Forward and backward pass of ``pair_scores`` and of the plain operations, on
the same tensors, in turns. Ratios:

- speedup: time of the plain ones / ours, median over rounds; 512 x 512 pairs
  (--main), 512 channels, 14 x 14 locations, one thread. Then with
  ``2_threads``, and with frames in ``channels_last`` memory;
- memory_ratio: ours / the plain ones. Peak memory beyond inputs and their
  gradients, each in a fresh process: the resident set's peak (VmHWM) less
  the one when the inputs are there and less the gradients' size, or
  PyTorch's own peak on a GPU;
- small, wide: the same for two typical sizes, by default 32 x 32 pairs, 128
  channels, 12 x 12 and 256 x 256, 1024, 14 x 14; share: the mean over a
  quarter of the locations, against topk, at the wide size;
- large_extra_gb: ours with --large-batch, and large_plain_extra_gb where
  there is memory for it; large_plain_cosines_gb is what the cosines alone
  take, of which the plain backward pass needs several copies;
- score_difference, grad_difference: between the two, relative to the norm.
  Ties in single precision, which amax splits, are among the latter.
"""
import argparse
import functools
import time
from typing import Callable, Dict, List, Tuple

import torch
from torch import Tensor

from avdet_mm.models.heads.pair_scores import pair_scores
from avdet_mm.testing.benchmark import in_process, report

SHARE = 0.25
# Its memory does not count.
PRELOAD = ['avdet_mm.models.heads.pair_scores']
Size = Tuple[int, int, int]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--json', help='file for the figures')
    for name, size in (('main', (512, 512, 14)), ('small', (32, 128, 12)),
                       ('wide', (256, 1024, 14))):
        parser.add_argument(
            f'--{name}',
            type=int,
            nargs=3,
            default=size,
            metavar=('BATCH', 'CHANNELS', 'SIDE'),
            help='pairs are BATCH x BATCH, feature maps SIDE x SIDE; '
            'by default %(default)s')
    parser.add_argument(
        '--large-batch', type=int, default=2048, help='0 leaves it out')
    parser.add_argument(
        '--rounds', type=int, default=5, help='after one that warms up')
    parser.add_argument('--device', default='cpu')
    return parser.parse_args()


def make_inputs(size: Size, device: str, channels_last: bool = False) -> tuple:
    """Frames, sounds and the gradient of their scores; no temporaries."""
    batch, channels, side = size
    torch.manual_seed(0)
    visual = torch.empty(
        batch,
        channels,
        side,
        side,
        device=device,
        memory_format=torch.channels_last
        if channels_last else torch.contiguous_format)
    for frame in visual:
        frame.normal_()
        frame /= frame.norm(dim=0)
    audio = torch.randn(batch, channels, device=device)
    audio /= audio.norm(dim=1, keepdim=True)
    grad = torch.randn(batch, batch, device=device) / batch
    return visual.requires_grad_(), audio.requires_grad_(), grad


def plain(visual: Tensor, audio: Tensor, pooling: object = 'max') -> Tensor:
    """The alternative: all cosines at once."""
    cosines = torch.einsum('bcu,dc->bdu', visual.flatten(2), audio)
    if pooling == 'max':
        return cosines.amax(dim=2)
    k = round(pooling * cosines.size(2))
    return cosines.topk(k, dim=2, sorted=False).values.mean(dim=2)


WAYS = dict(ours=pair_scores, plain=plain)


def step(way: Callable, visual: Tensor, audio: Tensor,
         grad: Tensor) -> Tuple[float, Tensor]:
    """Seconds of a forward and a backward pass, and the scores."""
    visual.grad = audio.grad = None
    start = time.perf_counter()
    scores = way(visual, audio)
    scores.backward(grad)
    if visual.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start, scores.detach()


def times(size: Size,
          threads: int,
          rounds: int,
          device: str,
          channels_last: bool = False,
          pooling: object = 'max') -> Dict[str, float]:
    """Milliseconds of both ways, their ratio, and their difference."""
    torch.set_num_threads(threads)
    inputs = make_inputs(size, device, channels_last)
    seconds: Dict[str, List[float]] = {name: [] for name in WAYS}
    results = {}
    # Small problems are soon done, and disturbed by anything: of their
    # repeats the fastest counts.
    repeats = 1 + 50000 // (size[0] * size[0])
    for number in range(rounds + 1):
        for name, way in WAYS.items():
            way = functools.partial(way, pooling=pooling)
            spent = []
            for _ in range(repeats):
                some, scores = step(way, *inputs)
                spent.append(some)
            if number:
                seconds[name].append(min(spent))
            results[name] = scores, inputs[0].grad
    ours, other = (torch.tensor(seconds[name]) for name in WAYS)
    differences = [((a - b).norm() / b.norm()).item()
                   for a, b in zip(results['ours'], results['plain'])]
    return dict(
        speedup=(other / ours).median().item(),
        ms=1000 * ours.median().item(),
        plain_ms=1000 * other.median().item(),
        score_difference=differences[0],
        grad_difference=differences[1])


def status(key: str) -> float:
    """Bytes of an entry of /proc/self/status (Linux)."""
    with open('/proc/self/status') as file:
        return next(
            int(line.split()[1]) * 1024. for line in file
            if line.startswith(key))


def available() -> float:
    """Bytes that the machine can still give (Linux)."""
    with open('/proc/meminfo') as file:
        return next(
            int(line.split()[1]) * 1024. for line in file
            if line.startswith('MemAvailable'))


def extra_memory(name: str, size: Size, device: str,
                 pooling: object) -> float:
    """Peak bytes of one step beyond the inputs and their gradients."""
    torch.set_num_threads(1)
    way = functools.partial(WAYS[name], pooling=pooling)
    # Libraries are loaded by the first call.
    step(way, *make_inputs((2, 8, 3), device))
    inputs = make_inputs(size, device)
    on_gpu = inputs[0].is_cuda
    before = torch.cuda.memory_allocated() if on_gpu else status('VmRSS')
    step(way, *inputs)
    peak = torch.cuda.max_memory_allocated() if on_gpu else status('VmHWM')
    gradients = sum(4 * x.numel() for x in inputs[:2])
    return peak - before - gradients



def measure(args: argparse.Namespace) -> Dict[str, float]:
    """All figures."""
    main, small, wide = args.main, args.small, args.wide
    result = {}

    def add(prefix: str, size: Size, threads: int, **kwargs) -> None:
        print(f'Time, {prefix or "main size"} {size}, {threads} thread(s)')
        found = times(size, threads, args.rounds, args.device, **kwargs)
        suffix = '' if threads == 1 else f'_{threads}_threads'
        keys = list(found) if not result else list(found)[:3]
        result.update({prefix + key + suffix: found[key] for key in keys})

    for threads in (1, 2):
        add('', main, threads)
    add('channels_last_', main, 1, channels_last=True)
    for threads in (1, 2):
        add('small_', small, threads)
        add('wide_', wide, threads)
    add('share_', wide, 1, pooling=SHARE)
    for prefix, size, pooling in (('', main, 'max'), ('share_', wide, SHARE)):
        print(f'Memory, {prefix or "main size"} {size}')
        extra = {
            name: in_process(
                extra_memory,
                name,
                size,
                args.device,
                pooling,
                preload=PRELOAD)
            for name in WAYS
        }
        result[f'{prefix}memory_ratio'] = extra['ours'] / extra['plain']
        result[f'{prefix}extra_mb'] = extra['ours'] / 1e6
        result[f'{prefix}plain_extra_mb'] = extra['plain'] / 1e6
    if args.large_batch:
        large = args.large_batch, *main[1:]
        cosines = 4 * large[0]**2 * large[2]**2
        result['large_plain_cosines_gb'] = cosines / 1e9
        print(f'Memory, large {large}')
        extra = functools.partial(
            in_process, extra_memory, preload=PRELOAD)
        result['large_extra_gb'] = extra('ours', large, args.device,
                                         'max') / 1e9
        ratio = result['plain_extra_mb'] * 1e6 / (4 * main[0]**2 * main[2]**2)
        need = ratio * cosines + 8 * large[0] * large[1] * large[2]**2
        if args.device != 'cpu' or need < 0.8 * available():
            result['large_plain_extra_gb'] = extra('plain', large,
                                                   args.device, 'max') / 1e9
        else:
            print('Not enough memory for the plain operations.')
    return result


def main() -> None:
    args = parse_args()
    result = {key: float(f'{v:.4g}') for key, v in measure(args).items()}
    report(result, args.json)


if __name__ == '__main__':
    main()
