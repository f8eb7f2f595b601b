r"""How fast training data are loaded, side by side with the alternatives.

    python tools/benchmarks/data_pipeline.py --json work_dirs/loading.json

One run, the same clips, one thread per process, in turns, so that a change of
the machine's speed meets all alike. Ratios above 1 say that the first is
faster:

- raw_vs_bare_decode: videos through AudioVisualDataset and the training
  pipeline, against PyAV calls alone that decode the same frames and sounds;
- prepared_vs_raw: clips of tools/prepare_clips.py against the videos, both
  with the log-mel spectrograms of the batch;
- prepared_vs_usual_loader: against a loader as repositories on sound
  localization have it (PIL, soundfile and scipy.signal.spectrogram on three
  seconds around the frame, for each sample);
- workers_2_vs_1: loader workers on prepared clips. burn_2_vs_1 is the same
  ratio for two processes that only compute: what the machine can give.

Then the memory of a process that loads --items clips, and of a clip table
with --rows rows and a worker that reads it.
"""
import argparse
import contextlib
import functools
import multiprocessing
import os
import os.path as osp
import tempfile
import time
from typing import Callable, Dict, List, Sequence, Tuple

import av
import cv2
import numpy as np
import soundfile
import torch
from mmengine.dataset import default_collate, worker_init_fn
from PIL import Image
from rich.progress import track
from scipy import signal
from torch.utils.data import DataLoader

from avdet_mm.datasets import AudioVisualDataset
from avdet_mm.datasets.clip_table import dump_clip_table, find_clips
from avdet_mm.datasets.media import open_video, video_duration
from avdet_mm.datasets.prepare import prepare_clips
from avdet_mm.models import AudioVisualDataPreprocessor
from avdet_mm.testing import make_clip
from avdet_mm.testing.benchmark import in_process, report

BATCH = 32
CROP = 224
RATE = 24000
FPS = 25
PIPELINE = [
    dict(type='avdet_mm.LoadClip', frame_time='middle'),
    dict(type='mmdet.Resize', scale=(100000, 256), keep_ratio=True),
    dict(type='mmdet.RandomCrop', crop_size=(CROP, CROP)),
    dict(type='mmdet.RandomFlip', prob=0.5),
    dict(type='avdet_mm.RandomAudioGain'),
    dict(type='avdet_mm.PackAudioVisualInputs'),
]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--json', help='file for the figures')
    parser.add_argument(
        '--videos',
        help='folder of videos to measure on; by default videos with 25 '
        'frames per second of 640 x 360 pixels are made')
    parser.add_argument('--num-videos', type=int, default=16)
    parser.add_argument(
        '--seconds', type=int, default=10, help='length of the made videos')
    parser.add_argument(
        '--rounds', type=int, default=8, help='times that each clip is read')
    parser.add_argument(
        '--batches',
        type=int,
        default=64,
        help='batches of prepared clips that loader workers send; a quarter '
        'of that of videos')
    parser.add_argument(
        '--items',
        type=int,
        default=10000,
        help='prepared clips that are loaded for the memory measurement')
    parser.add_argument(
        '--raw-items', type=int, default=10000, help='videos, likewise')
    parser.add_argument(
        '--rows', type=int, default=1000000, help='rows of the large table')
    parser.add_argument(
        '--dir', help='folder for the clips; by default a temporary one')
    return parser.parse_args()


# --------------------------------------------------------------------------
# Media
# --------------------------------------------------------------------------
def make_video(path: str, index: int, seconds: int) -> None:
    """Write a video as video sites encode them: H.264 with B frames and a
    key frame every five seconds, AAC stereo at 44.1 kHz."""
    clip = make_clip(0, 'train', index, image_size=720)
    rng = np.random.default_rng(index)
    wave = np.resize(clip['waveform'], RATE * seconds)
    places = np.linspace(0, 1, FPS * seconds)
    noise = rng.normal(0, 3, (400, 700, 3)).astype(np.float32)
    with av.open(path, 'w') as container:
        video = container.add_stream('libx264', rate=FPS)
        video.width, video.height = 640, 360
        video.pix_fmt, video.gop_size = 'yuv420p', 5 * FPS
        video.options = dict(preset='fast', crf='23', threads='1')
        audio = container.add_stream('aac', rate=44100, layout='stereo')
        resampler = av.AudioResampler('fltp', 'stereo', 44100)
        for i, place in enumerate(places):
            still = clip['frames'][i * 13 // len(places)]
            x, y = int(80 * place), int(300 * place)
            dx, dy = rng.integers(0, 40, 2)
            image = still[y:y + 360, x:x + 640] + noise[dy:dy + 360,
                                                        dx:dx + 640]
            frame = av.VideoFrame.from_ndarray(
                image.clip(0, 255).astype(np.uint8), format='bgr24')
            container.mux(video.encode(frame))
        frame = av.AudioFrame.from_ndarray(wave[None], 'fltp', 'mono')
        frame.sample_rate = RATE
        for piece in resampler.resample(frame) + resampler.resample(None):
            container.mux(audio.encode(piece))
        container.mux(video.encode())
        container.mux(audio.encode())


def dataset_of(source: str, table: str, rounds: int,
               rng: np.random.Generator) -> AudioVisualDataset:
    """The training data set of a folder of videos or a clip table.

    Every clip is there once per round, each time with another ``time``.
    """
    clips = sorted(find_clips(source, table).items())
    for _, row in clips:
        if 'duration' not in row:
            path = osp.join(osp.dirname(table), row['video_path'])
            with open_video(path) as container:
                row['duration'] = video_duration(container)
    dump_clip_table((dict(
        row,
        clip_id=f'{clip_id}@{i}',
        time=rng.uniform(0.02, 0.98) * row['duration'])
                     for i in range(rounds) for clip_id, row in clips), table)
    return AudioVisualDataset(table, check='probe', pipeline=PIPELINE)


# --------------------------------------------------------------------------
# The ways to load a clip
# --------------------------------------------------------------------------
def bare_decode(path: str, time: float,
                duration: float) -> Tuple[np.ndarray, np.ndarray]:
    """The frame at a time and the second of sound around it: PyAV alone."""
    with av.open(path) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        video.codec_context.thread_count = 1
        container.seek(int(time / video.time_base), stream=video)
        shown = None
        for frame in container.decode(video):
            if shown is not None and frame.time > time:
                break
            shown = frame
        image = shown.to_ndarray(format='bgr24')
        start = min(max(time - 0.5, 0), duration - 1)
        container.seek(int(start / audio.time_base), stream=audio)
        resampler = av.AudioResampler('fltp', 'mono', RATE)
        pieces: List[np.ndarray] = []
        for frame in container.decode(audio):
            pieces += [r.to_ndarray() for r in resampler.resample(frame)]
            if frame.time > start + 1:
                break
        return image, np.concatenate(pieces, axis=1)[0, :RATE]


class UsualLoader:
    """Frame by PIL, log spectrogram by scipy, sample by sample.

    Args:
        dataset (AudioVisualDataset): Prepared clips.
        folder (str): For the same sounds as wav files.
    """

    def __init__(self, dataset: AudioVisualDataset, folder: str) -> None:
        os.makedirs(folder, exist_ok=True)
        self.clips = []
        for i in range(len(dataset)):
            row = dataset.get_data_info(i)
            wave, rate = soundfile.read(row['audio_path'], dtype='int16')
            path = osp.join(folder, f'{i}.wav')
            soundfile.write(path, wave, rate)
            self.clips.append(([f['path'] for f in row['frames']], path))

    def __getitem__(self, index: int) -> Tuple[torch.Tensor, torch.Tensor]:
        frames, sound = self.clips[index]
        image = Image.open(frames[np.random.randint(len(frames))])
        image = image.convert('RGB')
        side = int(CROP * 1.1)
        scale = side / min(image.size)
        image = image.resize([round(scale * s) for s in image.size],
                             Image.BICUBIC)
        x, y = (np.random.randint(s - CROP + 1) for s in image.size)
        image = image.crop((x, y, x + CROP, y + CROP))
        if np.random.rand() < 0.5:
            image = image.transpose(Image.FLIP_LEFT_RIGHT)
        frame = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        frame = frame.contiguous().float().div(255)
        mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
        std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
        wave, rate = soundfile.read(sound, dtype='float32')
        middle = len(wave) // 2
        wave = wave[middle - 3 * rate // 2:middle + 3 * rate // 2]
        _, _, spectrogram = signal.spectrogram(
            wave, rate, nperseg=512, noverlap=274)
        spectrogram = np.log(spectrogram + 1e-7) / 12
        return (frame - mean) / std, torch.from_numpy(spectrogram)[None]


def load(dataset: AudioVisualDataset, indices: Sequence[int]) -> None:
    """Load clips."""
    for i in indices:
        dataset[i]


def load_bare(dataset: AudioVisualDataset, indices: Sequence[int]) -> None:
    """The same clips by PyAV alone."""
    for i in indices:
        row = dataset.get_data_info(i)
        bare_decode(row['video_path'], row['time'], row['duration'])


def load_batch(dataset: AudioVisualDataset, indices: Sequence[int],
               preprocessor: AudioVisualDataPreprocessor) -> None:
    """Load clips and compute their inputs of the model."""
    for i in range(0, len(indices), BATCH):
        samples = [dataset[j] for j in indices[i:i + BATCH]]
        preprocessor(default_collate(samples), True)


def usual_batch(loader: UsualLoader, indices: Sequence[int]) -> None:
    """The same with the usual loader."""
    for i in range(0, len(indices), BATCH):
        samples = [loader[j] for j in indices[i:i + BATCH]]
        torch.stack([s[0] for s in samples])
        torch.stack([s[1] for s in samples])


def in_turns(rounds: Sequence[Sequence[int]],
             **ways: Callable[[Sequence[int]], None]) -> Dict[str, float]:
    """Seconds per clip of each way, measured in turns.

    Args:
        rounds (Sequence): The clips of each round; the first warms up.
        **ways (Callable): What to measure.

    Returns:
        dict[str, float]: Median over the rounds.
    """
    seconds: Dict[str, List[float]] = {name: [] for name in ways}
    for number, indices in enumerate(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            way(indices)
            if number:
                seconds[name].append(
                    (time.perf_counter() - start) / len(indices))
    return {name: float(np.median(s)) for name, s in seconds.items()}


# --------------------------------------------------------------------------
# Workers and memory
# --------------------------------------------------------------------------
def worker_rate(dataset: AudioVisualDataset, workers: int,
                items: int) -> float:
    """Clips per second that reach the main process from loader workers.

    The first batch, for which the workers start, is not counted.
    """
    order = [i % len(dataset) for i in range(items)]
    loader = DataLoader(
        dataset,
        BATCH,
        sampler=order,
        num_workers=workers,
        collate_fn=default_collate,
        worker_init_fn=functools.partial(
            worker_init_fn, num_workers=workers, rank=0, seed=0))
    batches = iter(loader)
    next(batches)
    start = time.perf_counter()
    number = sum(len(batch['data_samples']) for batch in batches)
    return number / (time.perf_counter() - start)


def workers_ratio(dataset: AudioVisualDataset, rounds: int,
                  items: int) -> float:
    """Rate of two workers relative to that of one, measured in turns."""
    rates = [[worker_rate(dataset, workers, items) for workers in (1, 2)]
             for _ in range(rounds)]
    one, two = np.median(rates, axis=0)
    return float(two / one)


def burn(seconds: float, count: 'multiprocessing.Queue') -> None:
    """Compute for a while; tells how much was done."""
    end, done = time.perf_counter() + seconds, 0
    values = np.arange(20000.)
    while time.perf_counter() < end:
        np.sqrt(values).sum()
        done += 1
    count.put(done)


def burn_ratio(rounds: int) -> float:
    """Work that two processes do, relative to one: the machine's limit."""
    done: List[List[int]] = []
    for _ in range(rounds):
        done.append([])
        for number in (1, 2):
            count = multiprocessing.Queue()
            processes = [
                multiprocessing.Process(target=burn, args=(1., count))
                for _ in range(number)
            ]
            for process in processes:
                process.start()
            done[-1].append(sum(count.get() for _ in processes))
            for process in processes:
                process.join()
    one, two = np.median(done, axis=0)
    return float(two / one)


def memory_mb(kind: str = 'VmRSS') -> float:
    """Memory of this process (Linux)."""
    with open('/proc/self/status') as file:
        return next(
            int(line.split()[1]) / 1024 for line in file
            if line.startswith(kind))


def private_mb() -> float:
    """Memory that this process shares with no other (Linux)."""
    with open('/proc/self/smaps_rollup') as file:
        return sum(
            int(line.split()[1]) / 1024 for line in file
            if line.startswith('Private'))


def memory_of_items(table: str, items: int) -> List[float]:
    """Megabytes after a tenth of the items, and after all of them."""
    torch.set_num_threads(1)
    dataset = AudioVisualDataset(table, pipeline=PIPELINE)
    found = []
    for i in range(items):
        dataset[i % len(dataset)]
        if i + 1 in (items // 10, items):
            found.append(memory_mb())
    return found


def table_figures(folder: str, rows: int) -> Dict[str, float]:
    """Seconds and memory of a large clip table."""
    table = osp.join(folder, 'large.json')
    if not osp.exists(table):
        names = (f'abcdefghijk_{i:06d}' for i in range(rows))
        dump_clip_table((dict(
            clip_id=name,
            frames=dict(dir=f'frames/{name}', ms=list(range(0, 10000, 500))),
            audio_path=f'audio/{name}.flac',
            duration=10.,
            height=256,
            width=455,
            label=f'class {hash(name) % 309}') for name in names), table,
                        dict(classes=[f'class {i}' for i in range(309)]))
    before, start = memory_mb(), time.perf_counter()
    dataset = AudioVisualDataset(table, check=None)
    figures = dict(
        table_rows=len(dataset),
        table_seconds=time.perf_counter() - start,
        table_mb=memory_mb() - before,
        table_peak_mb=memory_mb('VmHWM'))
    count: 'multiprocessing.Queue' = multiprocessing.Queue()
    worker = multiprocessing.Process(
        target=read_rows, args=(dataset, rows // 20, count))
    worker.start()
    figures['table_worker_private_mb'] = count.get()
    worker.join()
    return figures


def read_rows(dataset: AudioVisualDataset, number: int,
              count: 'multiprocessing.Queue') -> None:
    """Read rows in a worker; tells how much memory became its own."""
    before = private_mb()
    for i in np.random.default_rng(0).integers(0, len(dataset), number):
        dataset.get_data_info(int(i))
    count.put(private_mb() - before)



# --------------------------------------------------------------------------
def measure(args: argparse.Namespace, folder: str) -> Dict[str, float]:
    """All figures."""
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    videos = args.videos
    if videos is None:
        videos = osp.join(folder, 'videos')
        os.makedirs(videos, exist_ok=True)
        for i in track(range(args.num_videos), 'Making videos'):
            path = osp.join(videos, f'{i}.mp4')
            if not osp.exists(path):
                make_video(path, i, args.seconds)
    print('Preparing clips ...')
    prepare_clips(videos, osp.join(folder, 'prepared'))
    rounds = args.rounds + 1
    rng = np.random.default_rng(0)
    raw = dataset_of(videos, osp.join(folder, 'raw.json'), rounds, rng)
    prepared = dataset_of(
        osp.join(folder, 'prepared', 'clips.json'),
        osp.join(folder, 'prepared.json'), rounds, rng)
    usual = UsualLoader(prepared, osp.join(folder, 'usual'))
    preprocessor = AudioVisualDataPreprocessor(audio_mean=-5., audio_std=3.)
    number = len(raw) // rounds
    turns = np.arange(rounds * number).reshape(rounds, number).tolist()

    print('Videos against bare decoding ...')
    ms = in_turns(
        turns,
        bare=functools.partial(load_bare, raw),
        raw_sample=functools.partial(load, raw),
        raw=functools.partial(load_batch, raw, preprocessor=preprocessor))
    # Prepared clips are so fast that every round has eight times as many.
    many = [8 * turn for turn in turns]
    print('Prepared clips against the usual loader ...')
    ms.update(
        in_turns(
            many,
            prepared_sample=functools.partial(load, prepared),
            prepared=functools.partial(
                load_batch, prepared, preprocessor=preprocessor),
            usual=functools.partial(usual_batch, usual)))
    result = dict(
        raw_vs_bare_decode=ms['bare'] / ms['raw_sample'],
        prepared_vs_raw=ms['raw'] / ms['prepared'],
        prepared_vs_usual_loader=ms['usual'] / ms['prepared'])
    print('Workers ...')
    items = args.batches * BATCH
    result.update(
        workers_2_vs_1=workers_ratio(prepared, args.rounds, items),
        workers_2_vs_1_raw=workers_ratio(raw, -(-args.rounds // 2),
                                         items // 4),
        burn_2_vs_1=burn_ratio(args.rounds))
    result.update(
        {f'{name}_ms': 1000 * seconds
         for name, seconds in ms.items()})
    print('Memory ...')
    for name in ('raw', 'prepared'):
        items = args.items if name == 'prepared' else args.raw_items
        early, late = in_process(
            memory_of_items, osp.join(folder, f'{name}.json'), items)
        result.update({
            f'{name}_mb_at_{items // 10}_items': early,
            f'{name}_mb_at_{items}_items': late
        })
    result.update(in_process(table_figures, folder, args.rows))
    return result


def main() -> None:
    args = parse_args()
    with contextlib.ExitStack() as stack:
        folder = args.dir or stack.enter_context(
            tempfile.TemporaryDirectory())
        os.makedirs(folder, exist_ok=True)
        result = measure(args, folder)
    result = {key: round(value, 3) for key, value in result.items()}
    report(result, args.json)


if __name__ == '__main__':
    main()
