"""Look at clips and listen to them: contact sheets and a page with sound.

    python tools/analysis_tools/browse_clips.py data/train.json --out look
    python tools/analysis_tools/browse_clips.py videos --out rejected \
        --report check.json --verdict still silent

Each clip is shown as training gets it: the frame at its evaluated (or else
middle) time with ground-truth boxes, the log-mel spectrogram of the second of
sound around it, and frames and loudness over the whole clip. Clips that
cannot be loaded are shown with the reason. OUT/index.html needs no server and
no network; OUT/sheet_<n>.png are the same clips as pictures. Clips are chosen
at random, as equal a number of each label as there is.
"""
import argparse
import json
import os
import os.path as osp
import re
import shutil
import statistics
from array import array
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import (
    Callable,
    Collection,
    Dict,
    Iterable,
    Iterator,
    List,
    Optional,
    Tuple,
)

import cv2
import matplotlib
import numpy as np
import soundfile
import torch
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console
from rich.progress import track

from avdet_mm.datasets import AudioVisualDataset
from avdet_mm.datasets.clip_table import (
    dump_clip_table,
    folder_rows,
    iter_clip_table,
    iter_lines,
    read_faults,
)
from avdet_mm.datasets.media import (
    BrokenClipError,
    decode_audio,
    decode_frame,
    open_audio,
    open_video,
    read_audio,
    read_image,
    video_duration,
)
from avdet_mm.models.data_preprocessors import AudioVisualDataPreprocessor
from avdet_mm.utils.fileio import atomic_write
from avdet_mm.visualization import draw_boxes
from avdet_mm.visualization.drawing import GRAY, GREEN
from avdet_mm.visualization.page import escape, html_page, key

TOOL = 'tools/analysis_tools/browse_clips.py'
SAMPLE_RATE = 24000
WINDOW = 1.0  # seconds of sound that training hears
NUM_THUMBS = 4
ROWS_PER_SHEET = 4
# Log-mel values from black to white, the same for all clips: a quiet clip
# looks quiet. The lower one is the floor, log(1e-6).
MEL_RANGE = (-13.8, 6.0)
NOT_CHECKED = 'not checked'
UNLABELED = 'no label'

Color = Tuple[int, int, int]
INK: Color = (28, 37, 48)
SOFT: Color = (92, 104, 115)
BAD: Color = (190, 40, 30)
FINE: Color = (36, 128, 52)
EMPTY: Color = (226, 230, 235)
DARK: Color = (17, 22, 28)
WAVE: Color = (150, 162, 175)
HEARD: Color = (37, 99, 235)

STYLE = """
:root { color-scheme: light dark; }
main, header > div { max-width: 1760px; }
header { padding: 24px 0 22px; }
.bar { position: sticky; top: 0; z-index: 1; display: flex; flex-wrap: wrap;
       gap: 8px 12px; align-items: center; padding: 10px 0; font-size: 14px;
       background: var(--bg); border-bottom: 1px solid var(--line); }
.bar select, .bar input { font: inherit; color: inherit; padding: 4px 8px;
       background: var(--card); border: 1px solid var(--line);
       border-radius: 6px; max-width: 260px; min-width: 0; }
.bar output { color: var(--soft); margin-left: auto; }
details { font-size: 14px; margin: 12px 0; }
summary { cursor: pointer; color: var(--soft); }
details span { display: inline-block; padding: 1px 9px; margin-top: 5px;
       background: var(--card); border: 1px solid var(--line);
       border-radius: 12px; }
details small { color: var(--soft); margin-left: 3px; }
.legend { font-size: 13.5px; color: var(--soft); margin: 12px 0; }
.grid { display: grid; gap: 14px; margin: 4px 0 28px;
        grid-template-columns: repeat(auto-fill, minmax(280px, 1fr)); }
figure { margin: 0; padding: 8px; background: var(--card); min-width: 0;
         border: 1px solid var(--line); border-radius: 10px;
         display: flex; flex-direction: column; }
figure[hidden] { display: none; }
figure img { display: block; min-width: 0; }
.pair { display: flex; gap: 4px; }
.pair div { background: #11161c; border-radius: 5px; overflow: hidden; }
.pair div:first-child { flex: 3 1 0; aspect-ratio: var(--aspect); }
.pair div:last-child { flex: 1 1 0; position: relative; }
.frame, .mel { width: 100%; height: 100%; }
.frame, .strip { object-fit: contain; }
.mel { position: absolute; }
.strip { width: 100%; aspect-ratio: var(--strip); margin: 4px 0;
         background: #11161c; border-radius: 5px; }
.level { height: 18px; }
.none { background: var(--bg); color: #c92a2a; padding: 14px; flex: 1;
        font-size: 14px; overflow-wrap: anywhere; min-height: 120px;
        border-radius: 5px; }
audio { width: 100%; height: 32px; margin: 5px 0 2px; display: block; }
figcaption { font-size: 13px; line-height: 1.45; color: var(--soft);
             padding: 3px 2px 0; }
figcaption b { color: var(--fg); font-weight: 600; display: block;
               white-space: nowrap; overflow: hidden;
               text-overflow: ellipsis; }
.bad { color: #c92a2a; } .fine { color: #2b8a3e; }
@media (prefers-color-scheme: dark) {
  .bad, .none { color: #ff8a80; } .fine { color: #69db7c; }
  .level { filter: invert(.88) hue-rotate(180deg); } }
"""
SCRIPT = """
const clips = [...document.querySelectorAll('figure')];
const [label, verdict, words] = ['label', 'verdict', 'words'].map(
  (name) => document.getElementById(name));
function update() {
  let count = 0;
  for (const clip of clips) {
    clip.hidden = [label, verdict].some((control) => control
      && control.value && clip.dataset[control.id] !== control.value)
      || !clip.textContent.toLowerCase().includes(words.value.toLowerCase());
    count += !clip.hidden;
  }
  document.querySelector('output').value =
    `${count} of ${clips.length} shown`;
}
for (const control of [label, verdict, words])
  control && control.addEventListener('input', update);
document.addEventListener('play', (event) => {
  for (const other of document.querySelectorAll('audio'))
    if (other !== event.target) other.pause();
}, true);
update();
"""


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'source', help='a clip table, or a folder of videos')
    parser.add_argument(
        '--out', required=True, help='folder for the page and the sheets')
    parser.add_argument(
        '--num', type=int, default=48, help='number of clips (default 48)')
    parser.add_argument(
        '--seed', type=int, default=0, help='of the choice (default 0)')
    parser.add_argument(
        '--clip-ids',
        nargs='+',
        action='extend',
        metavar='ID',
        help='show these clips only; an id that begins with a dash is given '
        'as --clip-ids=-abc')
    parser.add_argument(
        '--label',
        nargs='+',
        metavar='NAME',
        help='choose among clips with these labels')
    parser.add_argument(
        '--report',
        help='json of tools/check_clips.py, for the verdicts on the clips')
    parser.add_argument(
        '--verdict',
        nargs='+',
        metavar='NAME',
        help='choose among clips with these verdicts; needs --report')
    parser.add_argument(
        '--boxes',
        action=argparse.BooleanOptionalAction,
        default=True,
        help='whether to draw ground-truth boxes (default: yes)')
    parser.add_argument(
        '--columns',
        type=int,
        default=6,
        help='clips in a row of a sheet (default 6)')
    parser.add_argument(
        '--sound-seconds',
        type=float,
        default=20.,
        help='longest sound on the page, around the shown frame '
        '(default 20)')
    args = parser.parse_args()
    if args.num < 1 or args.columns < 1 or args.sound_seconds < WINDOW:
        parser.error('--num and --columns must be at least 1, '
                     f'--sound-seconds at least {WINDOW:g}.')
    if args.verdict and not args.report:
        parser.error('--verdict needs --report, the json of '
                     'tools/check_clips.py.')
    return args


# -- choice of clips -------------------------------------------------------


@dataclass
class Choice:
    """Clips to show, and how many there are to choose from.

    Attributes:
        rows (list[dict]): Rows of the table, in its order.
        labels (Counter): Label to clips of the whole table.
        verdicts (Counter): Verdict to clips of the whole table; empty
            without a report.
    """
    rows: List[dict]
    labels: Counter
    verdicts: Counter


def text_of(row: object, name: str) -> Optional[str]:
    """A field of a row that may be damaged, as text."""
    value = row.get(name) if isinstance(row, dict) else None
    return None if value is None else str(value)


class Source:
    """Rows of a clip table, or of a folder of videos.

    Args:
        path (str): The table or the folder.

    Attributes:
        classes (list[str], optional): Classes of the table.

    Raises:
        FileNotFoundError, TypeError, ValueError: If it is neither, or a
            folder without videos.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.classes = None
        self._videos = None
        if not osp.isdir(path):
            self.classes = iter_clip_table(path)[0].get('classes')
            return
        self._videos = folder_rows(path)
        if not self._videos:
            table = osp.join(path, 'clips.json')
            hint = f'; did you mean {table}?' if osp.isfile(table) else '.'
            raise ValueError(f'The folder {path} has no video files{hint}')

    def rows(self) -> Iterable[dict]:
        """All rows, as they are in the table."""
        return self._videos or iter_clip_table(self.path)[1]

    def take(self, places: Collection[int]) -> List[dict]:
        """The rows at some places; no others are parsed."""
        if self._videos:
            return [self._videos[i] for i in sorted(places)]
        lines = enumerate(iter_lines(self.path)[1])
        return [json.loads(line) for i, line in lines if i in places]


def choose(source: Source,
           num: int,
           seed: int,
           verdict_of: Callable[[object], Optional[str]],
           clip_ids: Optional[List[str]] = None,
           labels: Optional[List[str]] = None,
           verdicts: Optional[List[str]] = None) -> Choice:
    """Choose clips at random, as equally many of each label as there are.

    Only the chosen rows are kept, so the table may have any length.

    Args:
        source (Source): Where to choose from.
        num (int): Number of clips.
        seed (int): Of the choice.
        verdict_of (Callable): Row to verdict, None without a report.
        clip_ids (list[str], optional): Choose these instead.
        labels (list[str], optional): Choose among these labels.
        verdicts (list[str], optional): Choose among these verdicts.

    Returns:
        Choice: At most ``num`` rows; all of ``clip_ids`` if given.

    Raises:
        ValueError: If no clip can be chosen, or an id is not there.
    """
    wanted = set(clip_ids or ())
    missing = set(wanted)
    all_labels: Counter = Counter()
    all_verdicts: Counter = Counter()
    places = defaultdict(lambda: array('q'))
    clip_id = None
    for i, row in enumerate(source.rows()):
        clip_id = text_of(row, 'clip_id')
        label = text_of(row, 'label') or UNLABELED
        verdict = verdict_of(row)
        all_labels[label] += 1
        if verdict is not None:
            all_verdicts[verdict] += 1
        missing.discard(clip_id)
        if ((not labels or label in labels)
                and (not verdicts or verdict in verdicts)
                and (not wanted or clip_id in wanted)):
            places[label].append(i)
    if missing:
        raise ValueError(
            f'{len(missing)} of the clip ids are not there, for example '
            f'{min(missing)!r}; the last one that is there is {clip_id!r}.')
    if not places:
        told = [
            f' It has these {name}: ' + ', '.join(
                f'{n} ({c})' for n, c in found.most_common(8)) + '.'
            for name, found in (('labels', all_labels),
                                ('verdicts', all_verdicts)) if found
        ]
        raise ValueError(f'{source.path} has no clip that fits.'
                         f'{"".join(told) or " It is empty."}')
    sizes = {label: len(found) for label, found in places.items()}
    quotas = share_out(sum(sizes.values()) if wanted else num, sizes, seed)
    rng = np.random.default_rng(seed)
    chosen = set()
    for label in sorted(places):
        order = rng.permutation(sizes[label])[:quotas[label]]
        chosen.update(places[label][i] for i in order)
    return Choice(source.take(chosen), all_labels, all_verdicts)


def share_out(num: int, sizes: Dict[str, int], seed: int) -> Dict[str, int]:
    """How many to take of each group, as equal as their sizes allow.

    Args:
        num (int): Number to take in all.
        sizes (dict[str, int]): Group to its size.
        seed (int): Decides which groups get one more than others.

    Returns:
        dict[str, int]: Group to number, at most its size.
    """
    names = sorted(sizes)
    order = [names[i] for i in np.random.default_rng(seed).permutation(
        len(names))]
    quotas = dict.fromkeys(names, 0)
    left = min(num, sum(sizes.values()))
    while left:
        for name in [n for n in order if quotas[n] < sizes[n]][:left]:
            quotas[name] += 1
            left -= 1
    return quotas


def verdicts_of(report: Optional[str]) -> Callable[[object], Optional[str]]:
    """Verdicts of a report, as a function of rows.

    Args:
        report (str, optional): The json of ``tools/check_clips.py``.

    Returns:
        Callable: Row to verdict: all its faults, the first, or ``'good'``.
    """
    if report is None:
        return lambda row: None
    found = {
        clip_id: faults[0] if faults else 'good'
        for clip_id, faults in read_faults(report)
    }
    return lambda row: found.get(text_of(row, 'clip_id'), NOT_CHECKED)


# -- one clip --------------------------------------------------------------


@dataclass
class Cell:
    """What is shown of a clip.

    Attributes:
        name (str): Begin of the names of its files.
        clip_id, label (str): For people to read.
        verdict (str, optional): Of the report.
        fault (str): Why it cannot be loaded, or ''.
        remark (str): What is odd about its ground truth, or ''.
        facts (str): Duration, size, time of the frame.
        aspect (float): Width by height of its frames.
        has_boxes (bool): Whether boxes are drawn on its frame.
        frame (np.ndarray, optional): RGB, as large as on the page.
        thumbs (list): Frames over its duration, RGB, None where a frame
            cannot be decoded; empty if there is none.
        level (np.ndarray, optional): RGB, loudness over its duration;
            there is a sound file if there is this.
        mel (np.ndarray, optional): RGB, low bands at the bottom.
    """
    name: str
    clip_id: str
    label: str
    verdict: Optional[str] = None
    fault: str = ''
    remark: str = ''
    facts: str = ''
    aspect: float = 0.
    has_boxes: bool = False
    frame: Optional[np.ndarray] = None
    thumbs: List[Optional[np.ndarray]] = field(default_factory=list)
    level: Optional[np.ndarray] = None
    mel: Optional[np.ndarray] = None


def fit(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Scale an image to the largest size inside a box."""
    h, w = image.shape[:2]
    scale = min(width / w, height / h)
    size = max(1, round(w * scale)), max(1, round(h * scale))
    return cv2.resize(
        image, size,
        interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)


def explain(error: Exception, row: object, table: str, path: str) -> str:
    """What an error says, in short.

    Args:
        error (Exception): What loading a clip raised.
        row (Any): Row of the clip; its video need not be named.
        table (str): The table that the row is from.
        path (str): Its stand-in, named in errors.

    Returns:
        str: Without folders and codes of the system.
    """
    if not isinstance(error, BrokenClipError):
        text = f'{type(error).__name__}: {error}'
        return text.replace(path, osp.basename(table))
    text = str(error).replace(f'{error.path}: ', '', 1)
    # What FFmpeg and the system add: a number and the path once more.
    text = re.sub(r'\[Errno -?\d+\] ', '', text)
    text = re.sub(r": '[^']*'(?=\))", '', text)
    if error.reason and text_of(row, 'video_path') is None:
        text += f': {osp.basename(error.path)}'
    return text


class ClipLoader:
    """Load clips as training does and write their files for the page.

    Args:
        table (str): The table that the rows are from, or a folder that
            their paths are relative to.
        classes (list[str], optional): Classes of the table.
        folder (str): Where to write frames, spectrograms and sounds.
        boxes (bool): Whether to draw ground-truth boxes.
        sound_seconds (float): Longest sound.
    """

    def __init__(self, table: str, classes: Optional[List[str]], folder: str,
                 boxes: bool, sound_seconds: float) -> None:
        self.table = table
        root = table if osp.isdir(table) else osp.dirname(table)
        self.root = osp.abspath(root)
        self.classes = classes
        self.folder = osp.abspath(folder)
        self.boxes = boxes
        self.sound_seconds = sound_seconds
        self.preprocessor = AudioVisualDataPreprocessor(
            sample_rate=SAMPLE_RATE)

    def __call__(self, number: int, row: dict,
                 verdict: Optional[str]) -> Cell:
        """Load a clip.

        Args:
            number (int): Its place among those that are shown.
            row (dict): Its row of the table.
            verdict (str, optional): Of the report.

        Returns:
            Cell: What could be loaded, and why the rest could not.
        """
        cell = Cell(f'{number:04d}',
                    text_of(row, 'clip_id') or '(no clip_id)',
                    text_of(row, 'label') or '', verdict)
        path = osp.join(self.folder, f'{cell.name}.json')

        @contextmanager
        def told() -> Iterator[None]:
            # Whatever goes wrong belongs on the page: that is what it is for.
            try:
                yield
            except Exception as error:
                cell.fault = cell.fault or explain(error, row, self.table,
                                                   path)

        info = sample = None
        with told():
            dataset = self._dataset(row, path)
            info = dataset.get_data_info(0)
            sample = dataset[0]
            self._show(cell, sample)
        if info is not None:
            with told():
                self._over_time(cell, info, sample, told)
        if osp.exists(path):
            os.remove(path)
        return cell

    def _dataset(self, row: dict, path: str) -> AudioVisualDataset:
        """The row alone as a data set: checked and loaded as in training."""
        metainfo = dict(classes=self.classes) if self.classes else {}
        dump_clip_table([row], path, metainfo)
        return AudioVisualDataset(
            path,
            data_root=self.root,
            check=None,
            pipeline=[
                dict(
                    type='avdet_mm.LoadClip',
                    sample_rate=SAMPLE_RATE,
                    audio_duration=WINDOW,
                    frame_time='middle')
            ])

    def _show(self, cell: Cell, sample: dict) -> None:
        """Frame with boxes, and the spectrogram."""
        image = sample['img'][..., ::-1]
        height, width = image.shape[:2]
        cell.aspect = width / height
        cell.facts = f'{width}×{height} · frame at {sample["time"]:.2f} s'
        frame = fit(image, 480, 400)
        truth = sample.get('eval_instances')
        if truth is not None:
            inside = (truth['bboxes'] >= -1).all() and (
                truth['bboxes'] <= np.array([width, height] * 2) + 1).all()
            cell.remark = '' if inside else 'a box reaches beyond the frame'
            if self.boxes and len(truth['bboxes']):
                cell.has_boxes = True
                scale = np.array(frame.shape[1::-1] * 2) / ([width, height]
                                                            * 2)
                frame = draw_boxes(
                    frame, truth['bboxes'] * scale,
                    [GREEN if s else GRAY for s in truth['sounding']],
                    [shorten(self.classes[i], 24) for i in truth['labels']])
        cell.frame = np.ascontiguousarray(frame)
        wave = torch.as_tensor(sample['waveform'])[None]
        cell.mel = self._mel_image(self.preprocessor.log_mel(wave)[0, 0])
        self._write(f'{cell.name}.jpg', cell.frame)
        self._write(f'{cell.name}_mel.png', cell.mel)

    @staticmethod
    def _mel_image(log_mel: torch.Tensor) -> np.ndarray:
        """Colors of a log-mel spectrogram (bands, frames)."""
        low, high = MEL_RANGE
        values = ((log_mel.numpy()[::-1] - low) / (high - low)).clip(0, 1)
        return cv2.applyColorMap(
            np.round(values * 255).astype(np.uint8),
            cv2.COLORMAP_INFERNO)[..., ::-1]

    def _over_time(self, cell: Cell, info: dict, sample: Optional[dict],
                   told: Callable) -> None:
        """Frames and sound of the whole clip."""
        wanted = info.get('time') if sample is None else sample['time']
        if 'video_path' in info:
            with open_video(info['video_path']) as file:
                duration = min(
                    video_duration(file), info.get('duration', np.inf))
                self._thumbs(cell, partial(decode_frame, file), duration,
                             told)
                self._sound(cell, partial(decode_audio, file), duration,
                            wanted)
            return

        def nearest(time: float) -> Tuple[np.ndarray, float]:
            frame = min(info['frames'], key=lambda f: abs(f['time'] - time))
            return read_image(frame['path']), frame['time']

        with open_audio(info['audio_path']) as file:
            duration = file.frames / file.samplerate
            self._thumbs(cell, nearest, duration, told)
            self._sound(cell, partial(read_audio, file), duration, wanted)

    def _thumbs(self, cell: Cell, read: Callable, duration: float,
                told: Callable) -> None:
        """Frames in the middle of equal parts of the clip."""
        cell.facts = ' · '.join(filter(None,
                                       [f'{duration:.2f} s', cell.facts]))
        times = []
        for i in range(NUM_THUMBS):
            cell.thumbs.append(None)
            times.append('')
            with told():
                image, time = read((i + 0.5) / NUM_THUMBS * duration)
                cell.aspect = cell.aspect or image.shape[1] / image.shape[0]
                cell.thumbs[i] = np.ascontiguousarray(
                    fit(image, 160, 160)[..., ::-1])
                times[i] = f'{time:.1f}'
        self._write(f'{cell.name}_strip.jpg', strip(cell.thumbs, times))

    def _sound(self, cell: Cell, read: Callable, duration: float,
               wanted: Optional[float]) -> None:
        """Sound of the clip, and its level over the clip's duration."""
        time = duration / 2 if wanted is None else wanted
        length = min(duration, self.sound_seconds)
        start = float(np.clip(time - length / 2, 0, duration - length))
        wave = read(start, length, SAMPLE_RATE)
        if not wave.size:
            raise BrokenClipError('sound', 'no sample can be decoded')
        soundfile.write(
            osp.join(self.folder, f'{cell.name}.wav'), wave, SAMPLE_RATE,
            subtype='PCM_16')
        cell.level = level_image(wave, start, duration, time)
        self._write(f'{cell.name}_level.png', cell.level)

    def _write(self, name: str, image: np.ndarray) -> None:
        """Write an RGB image."""
        cv2.imwrite(
            osp.join(self.folder, name), image[..., ::-1],
            [cv2.IMWRITE_JPEG_QUALITY, 88])


# -- pictures --------------------------------------------------------------


@lru_cache(maxsize=None)
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """A font that knows more than ASCII; matplotlib brings it along."""
    name = 'DejaVuSans-Bold.ttf' if bold else 'DejaVuSans.ttf'
    return ImageFont.truetype(
        osp.join(matplotlib.get_data_path(), 'fonts', 'ttf', name), size)


def shorten(text: str, length: int) -> str:
    """Leave out the middle of a text that is longer than ``length``."""
    if len(text) <= length:
        return text
    tail = (length - 1) // 3
    return f'{text[:length - 1 - tail]}…{text[len(text) - tail:]}'


def write_line(draw: ImageDraw.ImageDraw, place: Tuple[int, int], text: str,
               width: int, color: Color, size: int,
               bold: bool = False) -> None:
    """Write one line, shortened to a width in pixels."""
    # As on the page: no halves of surrogate pairs, no line breaks.
    text = ' '.join(text.encode('utf-8', 'replace').decode().split())
    length = len(text)
    while length > 3 and draw.textlength(
            shorten(text, length), font(size, bold)) > width:
        length -= 1
    draw.text(place, shorten(text, length), color, font(size, bold))


def strip(thumbs: List[Optional[np.ndarray]],
          times: List[str]) -> np.ndarray:
    """Frames side by side with their times; gray where there is none."""
    shapes = [t.shape for t in thumbs if t is not None] or [(120, 160, 3)]
    height, width = (max(s[i] for s in shapes) for i in (0, 1))
    gap = 4
    image = Image.new('RGB', (len(thumbs) * (width + gap) - gap, height),
                      DARK)
    draw = ImageDraw.Draw(image)
    for i, (thumb, time) in enumerate(zip(thumbs, times)):
        left = i * (width + gap)
        draw.rectangle((left, 0, left + width - 1, height), EMPTY)
        if thumb is None:
            draw.line((left, 0, left + width - 1, height), WAVE, 2)
            draw.line((left, height, left + width - 1, 0), WAVE, 2)
            continue
        image.paste(Image.fromarray(thumb), (left, 0))
        draw.text((left + 6, height - 30), time, (255, 255, 255), font(22),
                  stroke_width=3, stroke_fill=(0, 0, 0))
    return np.array(image)


def level_image(wave: np.ndarray, start: float, duration: float,
                time: float, size: Tuple[int, int] = (36, 480)) -> np.ndarray:
    """Loudness over the time of a clip.

    Args:
        wave (np.ndarray): (T,) in [-1, 1].
        start (float): Second of the clip at which it begins.
        duration (float): Of the clip in seconds.
        time (float): Of the frame; the window of sound around it is blue.
        size (tuple[int, int]): Height and width in pixels.

    Returns:
        np.ndarray: (*size, 3) uint8 RGB; the height of a bar is the square
        root of the largest amplitude.
    """
    height, width = size
    image = np.full((height, width, 3), 255, np.uint8)
    edges = (np.arange(width + 1) / width * duration - start) * SAMPLE_RATE
    edges = edges.round().astype(int)
    first = np.clip(time - WINDOW / 2, 0, max(duration - WINDOW, 0))
    for x in range(width):
        piece = wave[max(edges[x], 0):max(edges[x + 1], 0)]
        if not piece.size:
            image[:, x] = EMPTY
            continue
        half = max(round(np.sqrt(np.abs(piece).max()) * height / 2), 1)
        second = (x + 0.5) / width * duration
        heard = first <= second < first + WINDOW
        image[height // 2 - half:height // 2 + half, x] = \
            HEARD if heard else WAVE
    return image


def paste(image: Image.Image, part: Optional[np.ndarray],
          box: Tuple[int, int, int, int], stretch: bool = False) -> None:
    """Put a picture into a box, centered on dark; a light box for none."""
    x, y, width, height = box
    ImageDraw.Draw(image).rectangle(
        (x, y, x + width - 1, y + height - 1),
        EMPTY if part is None else DARK)
    if part is None:
        return
    part = cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA) \
        if stretch else fit(part, width, height)
    h, w = part.shape[:2]
    image.paste(Image.fromarray(np.ascontiguousarray(part)),
                (x + (width - w) // 2, y + (height - h) // 2))


def wrap(draw: ImageDraw.ImageDraw, text: str, width: int, size: int,
         lines: int) -> List[str]:
    """Break a text into at most so many lines of a width in pixels."""
    done, line = [], ''
    for word in re.findall(r'\S{1,24}\s?', text):
        if line and draw.textlength((line + word).rstrip(),
                                    font(size)) > width:
            done.append(line.rstrip())
            line = ''
        line += word
    done.append(line.rstrip())
    if len(done) > lines:
        done = done[:lines]
        done[-1] += ' …'
    return done


def contact_sheet(cells: List[Cell], columns: int, aspect: float,
                  title: str) -> np.ndarray:
    """Clips in rows and columns.

    Args:
        cells (list[Cell]): The clips.
        columns (int): Clips in a row.
        aspect (float): Width by height of the places for frames.
        title (str): Written on top.

    Returns:
        np.ndarray: (H, W, 3) uint8 RGB.
    """
    frame_w, mel_w, gap, margin, head = 204, 64, 4, 14, 40
    frame_h = round(frame_w / aspect)
    cell_w = frame_w + gap + mel_w
    thumb_w = (cell_w - (NUM_THUMBS - 1) * gap) // NUM_THUMBS
    thumb_h, level_h, line_h = round(thumb_w / aspect), 18, 16
    captions = [[(cell.clip_id, INK), (cell.label, INK), (cell.facts, SOFT)] +
                remarks(cell) for cell in cells]
    captions = [[line for line in lines if line[0]] for lines in captions]
    lines = max(map(len, captions))
    media_h = frame_h + thumb_h + level_h + 2 * gap
    cell_h = media_h + 3 + lines * line_h
    rows = -(-len(cells) // columns)
    image = Image.new(
        'RGB', (columns * (cell_w + margin) + margin,
                rows * (cell_h + margin) + head + margin), (255, 255, 255))
    draw = ImageDraw.Draw(image)
    right = image.width - margin
    legend = (('silent object', GRAY), ('sounding object', GREEN))
    for text, color in legend if any(c.has_boxes for c in cells) else ():
        right -= round(draw.textlength(text, font(13)))
        draw.text((right, 13), text, SOFT, font(13))
        draw.rectangle((right - 18, 14, right - 6, 26), color)
        right -= 40
    write_line(draw, (margin, 11), title, right - margin, INK, 15, True)
    for i, cell in enumerate(cells):
        x = margin + i % columns * (cell_w + margin)
        y = head + i // columns * (cell_h + margin)
        if cell.frame is None:
            paste(image, None, (x, y, cell_w,
                                frame_h if cell.thumbs else media_h))
            for k, line in enumerate(
                    wrap(draw, cell.fault, cell_w - 24, 13, 5)):
                draw.text((x + 12, y + 12 + 19 * k), line, BAD, font(13))
        else:
            paste(image, cell.frame, (x, y, frame_w, frame_h))
            paste(image, cell.mel, (x + frame_w + gap, y, mel_w, frame_h),
                  stretch=True)
        for k, thumb in enumerate(cell.thumbs):
            paste(image, thumb, (x + k * (thumb_w + gap), y + frame_h + gap,
                                 thumb_w, thumb_h))
        if cell.level is not None:
            level = cv2.resize(cell.level, (cell_w, level_h),
                               interpolation=cv2.INTER_AREA)
            image.paste(Image.fromarray(level), (x, y + media_h - level_h))
        y += media_h + 3
        for k, (line, color) in enumerate(captions[i]):
            write_line(draw, (x, y + k * line_h), line, cell_w, color,
                       11 if color == SOFT else 12, k == 0)
    return np.array(image)


def remarks(cell: Cell) -> List[Tuple[str, Color]]:
    """What is said about a clip under its pictures, with colors."""
    said = []
    if cell.verdict is not None:
        said.append((cell.verdict, FINE if cell.verdict == 'good' else BAD))
    # Without a frame, the fault is in its place.
    odd = cell.remark if cell.frame is None else cell.fault or cell.remark
    if odd:
        said.append((odd, BAD))
    return said


# -- page ------------------------------------------------------------------


def card(cell: Cell) -> str:
    """A clip on the page."""
    name = f'media/{cell.name}'

    def image(end: str, kind: str) -> str:
        return (f'<img class="{kind}" loading="lazy" alt="" '
                f'src="{name}{end}">')

    parts = []
    if cell.frame is None:
        parts.append(f'<div class="none">{escape(cell.fault)}</div>')
    else:
        parts.append(f'<div class="pair"><div>{image(".jpg", "frame")}</div>'
                     f'<div>{image("_mel.png", "mel")}</div></div>')
    if cell.thumbs:
        parts.append(image('_strip.jpg', 'strip'))
    if cell.level is not None:
        parts.append(image('_level.png', 'level'))
        parts.append(f'<audio controls preload="metadata" controlslist='
                     f'"nodownload noplaybackrate" src="{name}.wav"></audio>')
    lines = [escape(cell.label), escape(cell.facts)]
    lines += [
        f'<span class="{"fine" if color == FINE else "bad"}">{escape(text)}'
        '</span>' for text, color in remarks(cell)
    ]
    clip_id = escape(cell.clip_id)
    return (f'<figure data-label="{escape(cell.label or UNLABELED)}" '
            f'data-verdict="{escape(cell.verdict or "")}">{"".join(parts)}'
            f'<figcaption><b title="{clip_id}">{clip_id}</b>'
            f'{"<br>".join(filter(None, lines))}</figcaption></figure>')


def counts(title: str, everything: Counter, shown: Counter) -> str:
    """How many clips the table has of each kind, and how many are shown."""
    items = ' '.join(
        f'<span>{escape(name)} <small>{shown[name]} of {count:,}</small>'
        '</span>' for name, count in everything.most_common())
    return (f'<details{" open" if len(everything) <= 40 else ""}><summary>'
            f'{len(everything)} {title}, shown of all</summary>{items}'
            '</details>')


def select(name: str, what: str, shown: Counter) -> str:
    """A choice among the values that are shown."""
    options = ''.join(
        f'<option value="{escape(value)}">{escape(shorten(value, 40))} '
        f'({count})</option>' for value, count in sorted(shown.items()))
    return (f'<select id="{name}" aria-label="{what}"><option value="">all '
            f'{what}</option>{options}</select>')


def page(cells: List[Cell], choice: Choice, aspect: float, source: str,
         how: str) -> str:
    """The page.

    Args:
        cells (list[Cell]): Clips to show.
        choice (Choice): Where they are from.
        aspect (float): Width by height of the places for frames.
        source (str): Name of the table or folder.
        how (str): How the clips were chosen.

    Returns:
        str: html.
    """
    labels = Counter(c.label or UNLABELED for c in cells)
    verdicts = Counter(c.verdict for c in cells if c.verdict)
    num_broken = sum(c.frame is None for c in cells)
    total = sum(choice.labels.values())
    lead = f'All {total:,} clips.' if len(cells) == total else \
        f'{len(cells):,} of {total:,} clips, {how}.'
    if num_broken:
        lead += f' {num_broken:,} of those shown cannot be loaded.'
    tables, controls = [], []
    if set(choice.labels) != {UNLABELED}:
        tables.append(counts('labels', choice.labels, labels))
        controls.append(select('label', 'labels', labels))
    if choice.verdicts:
        tables.append(counts('verdicts', choice.verdicts, verdicts))
        controls.append(select('verdict', 'verdicts', verdicts))
    controls.append('<input id="words" type="search" placeholder="text of a '
                    'caption" aria-label="text of a caption">')
    legend = key(HEARD, 'the second of sound that the spectrogram shows')
    if any(c.has_boxes for c in cells):
        legend = (key(GREEN, 'sounding object') + key(GRAY, 'silent object')
                  + legend)
    body = (
        f'{"".join(tables)}<div class="bar">{"".join(controls)}<output>'
        f'</output></div><p class="legend">{legend}<br>Frame and log-mel '
        'spectrogram as training gets them: one second of sound, 0 to '
        f'{SAMPLE_RATE // 2000} kHz from bottom to top, one brightness for '
        'all clips. Below, frames and loudness over the whole clip.</p>'
        f'<div class="grid">{"".join(map(card, cells))}</div>')
    style = (f'{STYLE}:root {{ --aspect: {aspect:.4f}; '
             f'--strip: {NUM_THUMBS * aspect:.4f}; }}')
    header = f'<h1>Clips of {escape(source)}</h1><p>{escape(lead)}</p>'
    return html_page(f'Clips of {source}', header, body, TOOL,
                     style=style).replace(
                         '</body>', f'<script>{SCRIPT}</script></body>')


# -- files -----------------------------------------------------------------


def own_files(out: str) -> List[str]:
    """Files and folders of an earlier page in the output folder."""
    names = os.listdir(out) if osp.isdir(out) else []
    return [
        name for name in names
        if name in ('index.html', 'media')
        or re.fullmatch(r'sheet_\d+\.png', name)
    ]


def check_out(out: str) -> None:
    """Make sure that nothing of somebody else's is replaced.

    Raises:
        FileExistsError: If it would be.
    """
    if osp.lexists(out) and not osp.isdir(out):
        raise FileExistsError(f'{out} is no folder; choose another --out.')
    names = own_files(out)
    if not names:
        return
    index = osp.join(out, 'index.html')
    text = ''
    if osp.isfile(index):
        with open(index, encoding='utf-8', errors='replace') as file:
            text = file.read(4096)
    if f'<meta name="generator" content="{TOOL}">' not in text:
        raise FileExistsError(
            f'{out} has {names[0]} and no page of this tool; choose another '
            '--out.')


def browse(args: argparse.Namespace) -> str:
    """Write page and sheets.

    Returns:
        str: What was written, for people to read.
    """
    check_out(args.out)
    with Console().status(f'Reading {args.source}'):
        verdict_of = verdicts_of(args.report)
        source = Source(args.source)
        choice = choose(source, args.num, args.seed, verdict_of, args.clip_ids,
                        args.label, args.verdict)
    part = osp.join(args.out, f'.browse_clips.part{os.getpid()}')
    try:
        media = osp.join(part, 'media')
        os.makedirs(media)
        loader = ClipLoader(args.source, source.classes, media,
                            args.boxes, args.sound_seconds)
        with ThreadPoolExecutor() as pool:
            cells = list(
                track(
                    pool.map(loader, range(1, len(choice.rows) + 1),
                             choice.rows, map(verdict_of, choice.rows)),
                    'Loading clips',
                    total=len(choice.rows)))
        # Groups stay together, and so do clips that cannot be loaded.
        cells.sort(key=lambda c: (c.label, c.frame is None))
        aspect = statistics.median([c.aspect for c in cells if c.aspect]
                                   or [4 / 3])
        aspect = min(max(aspect, 0.75), 16 / 9)
        folder, name = osp.split(osp.abspath(args.source))
        if not osp.isdir(args.source):  # clips.json alone says little
            name = f'{osp.basename(folder)}/{name}'
        size = args.columns * ROWS_PER_SHEET
        num_sheets = -(-len(cells) // size)
        for i in range(num_sheets):
            title = f'{name} · {i + 1} / {num_sheets}'
            sheet = contact_sheet(cells[i * size:(i + 1) * size],
                                  args.columns, aspect, title)
            cv2.imwrite(
                osp.join(part, f'sheet_{i + 1:02d}.png'), sheet[..., ::-1])
        how = 'chosen by their ids' if args.clip_ids else \
            f'chosen at random (seed {args.seed})'
        wanted = (args.label or []) + (args.verdict or [])
        if wanted:
            how += f' among {", ".join(wanted)}'
        with atomic_write(osp.join(part, 'index.html')) as file:
            file.write(page(cells, choice, aspect, name, how))
        for old in own_files(args.out):
            path = osp.join(args.out, old)
            shutil.rmtree(path) if osp.isdir(path) else os.remove(path)
        for new in os.listdir(part):
            os.replace(osp.join(part, new), osp.join(args.out, new))
    finally:
        shutil.rmtree(part, ignore_errors=True)
    num_broken = sum(c.frame is None for c in cells)
    broken = f', {num_broken} of which cannot be loaded' * bool(num_broken)
    return (f'{len(cells)} clip{"s" * (len(cells) > 1)}{broken}: '
            f'{osp.join(args.out, "index.html")} and {num_sheets} sheet'
            f'{"s" * (num_sheets > 1)} beside it.')


def main() -> None:
    """Run the tool."""
    args = parse_args()
    try:
        print(browse(args))
    except (OSError, TypeError, ValueError) as error:
        raise SystemExit(f'error: {error}') from error


if __name__ == '__main__':
    main()
