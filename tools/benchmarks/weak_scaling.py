r"""Weak scaling of the joint stage: two ranks against one, through gloo.

    python tools/benchmarks/weak_scaling.py --json work_dirs/scaling.json

Training steps of configs/avdet/joint_demo.py on synthetic clips in memory,
--batch pairs and one thread per process. Three ways in turns, so that a
change of the machine's speed meets all alike: one process; two that only
share the machine; two ranks. Medians over the rounds:

- pairs_per_s_1, pairs_per_s_2_apart, pairs_per_s_2: of all processes
  together;
- efficiency: pairs_per_s_2 / (2 * pairs_per_s_1), the weak scaling;
- machine: pairs_per_s_2_apart / (2 * pairs_per_s_1), what two processes
  without a word to each other reach: the most that efficiency can be;
- score_kb, gradient_kb: kilobytes (1000) that a rank sends per step for the
  contrastive score and for the gradients, as the kernel counts them on the
  rank's TCP connections (Linux), and *_formula what :func:`sent` says.

Then the formulas for 1 to 16 ranks with the paper's sizes, a table. In each
step a rank of W with B pairs each, vectors of D numbers and P parameters
sends, in numbers of 4 bytes,

- audio vectors: (W - 1) B D to all others, forth; 2 (W - 1) B D to sum
  their gradients over ranks (a ring sends 2 (W - 1) / W of what it sums);
- rows of scores: (W - 1) B (W B) forth, 2 (W - 1) B (W B) back;
- gradients of the parameters: 2 (W - 1) / W P.

Feature maps stay where they are; to gather them would cost h w times what
audio vectors cost. In messages (collectives): 4 for the score and one for
each 25 MB of gradients (the first is smaller). Each iteration of
Sinkhorn-Knopp sums 1 + K + K^2 numbers of 8 bytes over ranks and broadcasts
K, whatever the number of clips; rows stay.

Of the score a rank keeps for the backward pass: the place of the maximum of
each of its B (W B) pairs, 2 bytes each, their scores, both log-softmaxes of
the gathered (W B) (W B) scores, and the gathered vectors. The heatmaps of
its pairs would be B (W B) h w numbers.
"""
import argparse
import multiprocessing
import os
import os.path as osp
import socket
import statistics
import struct
import tempfile
import time
import warnings
from typing import Dict, List

import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope

from avdet_mm.registry import MODELS
from avdet_mm.structures import AudioVisualDataSample
from avdet_mm.testing.benchmark import report
from avdet_mm.utils.cli import flush_denormals

CONFIG = osp.join(
    osp.dirname(__file__), '../../configs/avdet/joint_demo.py')
# Of the paper.
PAPER = dict(batch=16, channels=1024, height=14, width=14, clusters=39)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--json', help='file for the figures')
    parser.add_argument(
        '--batch', type=int, default=16, help='pairs per rank')
    parser.add_argument(
        '--steps', type=int, default=10, help='steps per round')
    parser.add_argument('--rounds', type=int, default=7)
    return parser.parse_args()


# --------------------------------------------------------------------------
# Formulas
# --------------------------------------------------------------------------
def sent(ranks: int, batch: int, channels: int,
         parameters: int) -> Dict[str, float]:
    """Bytes that a rank sends in a training step.

    Args:
        ranks (int): W.
        batch (int): B, pairs per rank.
        channels (int): D, of the joint space.
        parameters (int): P.

    Returns:
        dict[str, float]: Of ``audio`` vectors, of ``rows`` of scores and
        of ``gradients``.
    """
    others = ranks - 1
    return dict(
        audio=4. * 3 * others * batch * channels,
        rows=4. * 3 * others * batch * ranks * batch,
        gradients=4. * 2 * others / ranks * parameters)


def kept(ranks: int, batch: int, channels: int, height: int,
         width: int) -> Dict[str, float]:
    """Bytes that a rank keeps of the score for the backward pass.

    Args:
        ranks (int): W.
        batch (int): B, pairs per rank.
        channels (int): D, of the joint space.
        height (int): h, of a heatmap.
        width (int): w.

    Returns:
        dict[str, float]: ``score``, what is kept, and ``heatmaps``, what a
        plain implementation keeps instead of the places of the maxima.
    """
    total = ranks * batch
    return dict(
        score=(2. + 4) * batch * total + 2 * 4. * total * total +
        4. * total * channels,
        heatmaps=4. * batch * total * height * width)


def print_table(parameters: int) -> None:
    """The formulas with the paper's sizes.

    Args:
        parameters (int): Of the localizer.
    """
    batch, channels, height, width, clusters = PAPER.values()
    sums = 8 * (1 + 2 * clusters + clusters**2) / 1e3
    print(f'\nB = {batch} pairs per rank, D = {channels}, K = {clusters}, '
          f'heatmaps of {height} x {width}, {parameters / 1e6:.1f} million '
          'parameters. A rank sends, MB per step, and keeps, MB:\n')
    print('ranks  pairs   audio    rows  gradients  (feature maps)    '
          'score  (heatmaps)')
    for ranks in (1, 2, 4, 8, 16):
        mb = {
            **sent(ranks, batch, channels, parameters),
            **kept(ranks, batch, channels, height, width)
        }
        mb = {name: value / 1e6 for name, value in mb.items()}
        print(f'{ranks:5}  {ranks * batch:5}  {mb["audio"]:6.2f}  '
              f'{mb["rows"]:6.3f}  {mb["gradients"]:9.1f}  '
              f'{mb["audio"] * height * width:14.1f}  {mb["score"]:7.2f}  '
              f'{mb["heatmaps"]:10.2f}')
    buckets = 1 + -(-4 * parameters // (25 * 2**20))
    print(f'\nCollectives per step: 4 for the score, about {buckets} for '
          f'gradients. Sinkhorn-Knopp: {sums:.1f} kB summed and broadcast '
          'per iteration, whatever the number of clips and ranks.')


def paper_parameters() -> int:
    """Number of parameters of a localizer of the paper's size."""
    encoder = dict(type='avdet_mm.AVOLNet')
    model = MODELS.build(
        dict(
            type='avdet_mm.AudioVisualLocalizer',
            visual_backbone=encoder,
            audio_backbone=dict(in_channels=1, **encoder),
            localization_head=dict(
                type='avdet_mm.ContrastiveLocalizationHead'),
            cluster_head=dict(
                type='avdet_mm.SKClusterHead',
                num_clusters=PAPER['clusters'])))
    return sum(p.numel() for p in model.parameters())


# --------------------------------------------------------------------------
# Measurement
# --------------------------------------------------------------------------
def bytes_sent() -> int:
    """Bytes that went out on this process' TCP connections (Linux)."""
    total = 0
    for number in os.listdir('/proc/self/fd'):
        try:
            with socket.socket(fileno=os.dup(int(number))) as connection:
                info = connection.getsockopt(socket.IPPROTO_TCP,
                                             socket.TCP_INFO, 256)
        except OSError:
            continue  # no socket, or none of TCP
        total += struct.unpack_from('Q', info, 120)[0]  # tcpi_bytes_acked
    return total


class Trainer:
    """A model, its optimizer and a batch, alone or as a rank.

    Args:
        seed (int): Of the batch.
        batch (int): Pairs.
    """

    def __init__(self, seed: int, batch: int) -> None:
        init_default_scope('avdet_mm')
        torch.manual_seed(0)
        cfg = Config.fromfile(CONFIG)
        self.model = model = MODELS.build(cfg.model)
        # As LogMelStatsHook sets them.
        model.data_preprocessor.audio_mean.fill_(-5.)
        model.data_preprocessor.audio_std.fill_(3.)
        model.self_labels = torch.arange(batch) % cfg.num_clusters
        self.channels = cfg.model.localization_head.embed_channels
        self.parameters = sum(p.numel() for p in model.parameters())
        if dist.is_initialized():
            self.model = MMDistributedDataParallel(
                model, broadcast_buffers=False)
        self.optimizer = build_optim_wrapper(
            self.model, dict(optimizer=cfg.optim_wrapper.optimizer))
        generator = torch.Generator().manual_seed(seed)
        size = cfg.crop_size
        self.data = dict(
            inputs=dict(
                frame=torch.randint(
                    256, (batch, 3, size, size), generator=generator).byte(),
                audio=torch.rand(batch, 24000, generator=generator) * 2 - 1),
            data_samples=[
                AudioVisualDataSample(metainfo=dict(sample_idx=i))
                for i in range(batch)
            ])

    def step(self) -> None:
        """A whole training step."""
        self.model.train_step(self.data, self.optimizer)

    def traffic(self, steps: int) -> List[float]:
        """Bytes sent per step for the score and for the gradients."""
        found = []
        for synchronized in (False, True):
            before = bytes_sent()
            for _ in range(steps):
                if synchronized:
                    self.step()
                else:
                    with self.model.no_sync():
                        self.step()
            dist.barrier()
            time.sleep(0.2)  # for the last acknowledgments
            found.append((bytes_sent() - before) / steps)
        score, both = found
        return [score, both - score]


def serve(pipe: 'multiprocessing.connection.Connection', rank: int,
          folder: str, batch: int) -> None:
    """Life of a process that trains when it is told to.

    Args:
        pipe (Connection): For a number of steps, answered when they are
            done; for ``'traffic'``; for None, the end.
        rank (int): Of two, -1 for a process alone.
        folder (str): Where the ranks meet.
        batch (int): Pairs.
    """
    torch.set_num_threads(1)
    flush_denormals()
    # PyTorch's, about how MMEngine wraps models.
    warnings.simplefilter('ignore')
    if rank >= 0:
        dist.init_process_group(
            'gloo',
            init_method=f'file://{folder}/meet',
            rank=rank,
            world_size=2)
    trainer = Trainer(max(rank, 0), batch)
    while (order := pipe.recv()) is not None:
        if order == 'traffic':
            pipe.send((trainer.traffic(5), trainer.channels,
                       trainer.parameters))
        else:
            for _ in range(order):
                trainer.step()
            pipe.send(None)
    if rank >= 0:
        dist.destroy_process_group()


def measure(args: argparse.Namespace) -> Dict[str, float]:
    """All figures."""
    fork = multiprocessing.get_context('forkserver')
    fork.set_forkserver_preload(
        ['torch._dynamo', 'avdet_mm.models', 'mmengine.runner'])
    processes = []
    with tempfile.TemporaryDirectory() as folder:
        for rank in (-1, -1, 0, 1):
            pipe, theirs = fork.Pipe()
            process = fork.Process(
                target=serve,
                args=(theirs, rank, folder, args.batch),
                daemon=True)
            process.start()
            theirs.close()  # a process that died is not waited for
            processes.append((process, pipe))
        pipes = [pipe for _, pipe in processes]
        ways = {'1': pipes[:1], '2_apart': pipes[:2], '2': pipes[2:]}

        def ask(pipes: list, order: object) -> list:
            for pipe in pipes:
                pipe.send(order)
            return [pipe.recv() for pipe in pipes]

        for pipes in ways.values():
            ask(pipes, 2)  # warm-up
        rates: Dict[str, List[float]] = {name: [] for name in ways}
        for _ in range(args.rounds):
            for name, pipes in ways.items():
                start = time.perf_counter()
                ask(pipes, args.steps)
                pairs = len(pipes) * args.steps * args.batch
                rates[name].append(pairs / (time.perf_counter() - start))
        (score, gradient), channels, parameters = ask(ways['2'],
                                                      'traffic')[0]
        for process, pipe in processes:
            pipe.send(None)
            process.join()
    result = {
        f'pairs_per_s_{name}': statistics.median(values)
        for name, values in rates.items()
    }
    twice = 2 * result['pairs_per_s_1']
    formula = sent(2, args.batch, channels, parameters)
    return dict(
        efficiency=result['pairs_per_s_2'] / twice,
        machine=result['pairs_per_s_2_apart'] / twice,
        **result,
        score_kb=score / 1e3,
        score_kb_formula=(formula['audio'] + formula['rows']) / 1e3,
        gradient_kb=gradient / 1e3,
        gradient_kb_formula=formula['gradients'] / 1e3)


def main() -> None:
    args = parse_args()
    result = {key: round(value, 3) for key, value in measure(args).items()}
    report(result, args.json)
    print_table(paper_parameters())


if __name__ == '__main__':
    main()
