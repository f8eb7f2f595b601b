"""StampSound: photographed things that sound, among silent ones.

Cut-outs of photographs are pasted on background photographs and move a
little; one of them is heard. The sounding thing and the silent ones are
pasted by the same routine, with the same sizes, turns, colors, sharpness and
motion, and in random order, so that only the correspondence of sound and
sight tells which one it is. ``docs/stampsound.md`` describes the benchmark.

Clips have to be the same everywhere. So pictures are made with integer
arithmetic, from rounded parameters, and sound in float64 from samples that
are rounded to 16 bits before and after.
"""
import hashlib
import json
import os
import os.path as osp
import shutil
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache, partial
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

import cv2
import numpy as np
import soundfile

from avdet_mm.utils import atomic_write, dump_json, file_sha256
from avdet_mm.utils.job_pool import end_with_parent, num_cores

from .clip_table import dump_clip_table, iter_clip_table
from .coco import to_coco
from .media import decode_frame, open_video, write_media

LISTING = osp.join(osp.dirname(__file__), 'stampsound.json')

SPLITS = ('train', 'test', 'alt')
FORMATS = ('mp4', 'frames')
FPS = 8
NUM_FRAMES = 16
DURATION = NUM_FRAMES / FPS
SAMPLE_RATE = 24000
# The frame whose boxes are in the tables, and its time in seconds.
EVAL_FRAME = NUM_FRAMES // 2
EVAL_TIME = EVAL_FRAME / FPS
# Of each clip, in the format 'frames'.
FRAME_MS = (0, 500, 1000, 1500)
JPEG_QUALITY = 90

# Composition; lengths are shares of the image's side.
MAX_RESOLUTION = 0.5
MAX_TURN = 15.
MAX_DRIFT = 0.06
MAX_PAN = 0.03
MIN_VISIBLE = 0.75
# How often 1, 2, 3 things of sounding classes are in a test picture.
TEST_OBJECTS = (0.1, 0.3, 0.6)
# Lengths in seconds.
MAX_PAUSE = 0.2
MAX_SPEED = 0.08
MIN_SECOND = 0.1
SNR = (5., 20.)
LOUDNESS = (-26., -16.)
OFF_SCREEN_SHARE = 0.2
OFF_SCREEN_LEVEL = (-12., -4.)

_VERSION = 1
_CHUNK = 25
# What a generator of random numbers is for.
_PICTURE, _SOUND, _ORDER = range(3)


class Preset(NamedTuple):
    """Sizes of a benchmark.

    Attributes:
        classes (tuple[str], optional): Names of the sounding classes; None
            for all of the listing.
        side (tuple[float]): Range of the longer side of a thing's box, as a
            share of the image's side.
        distractors (int): Largest number of silent distractors.
        num_train (int): Number of training clips.
        num_test (int): Number of test clips.
        num_alt (int): Number of test clips with unseen photographs.
    """
    classes: Optional[Tuple[str, ...]]
    side: Tuple[float, float]
    distractors: int
    num_train: int
    num_test: int
    num_alt: int


PRESETS = dict(
    small=Preset(('drumkit', 'firetruck', 'frog', 'hen', 'hornet', 'penguin',
                  'tiger', 'toucan', 'violin', 'zebra'), (0.4, 0.8), 1, 4000,
                 500, 400),
    full=Preset(None, (0.25, 0.7), 3, 20000, 2000, 1100),
)


# --------------------------------------------------------------------------
# Ingredients
# --------------------------------------------------------------------------
def load_listing(path: str = LISTING) -> dict:
    """Load a list of ingredients.

    Args:
        path (str): A json with ``classes``: name to ``photo``, ``sound`` and
            ``alt`` (a list of unseen photographs); ``distractors`` and
            ``backgrounds``, each with ``train`` and ``test`` (lists); and
            ``files``: path to ``sha256``. Paths are relative to the pack.
            Defaults to StampSound's own.

    Returns:
        dict: Its content.

    Raises:
        ValueError: If a file that is used is not among ``files``.
    """
    with open(path, encoding='utf-8') as file:
        listing = json.load(file)
    used = set()
    for entry in listing['classes'].values():
        used |= {entry['photo'], entry['sound'], *entry['alt']}
    for kind in ('distractors', 'backgrounds'):
        used |= {*listing[kind]['train'], *listing[kind]['test']}
    unknown = sorted(used - listing['files'].keys())
    if unknown:
        raise ValueError(f'{path} names {len(unknown)} files without their '
                         f'"sha256", e.g. {unknown[0]}; add them to "files".')
    return listing


def verify_pack(pack: str, listing: dict) -> None:
    """Make sure that the ingredients are the benchmark's.

    Args:
        pack (str): Folder of the ingredients.
        listing (dict): From :func:`load_listing`.

    Raises:
        FileNotFoundError: If the folder or files in it are missing.
        ValueError: If files differ.
    """
    files = listing['files']
    advice = ('Make the pack with --from-debian, see docs/stampsound.md.')
    if not osp.isdir(pack):
        raise FileNotFoundError(f'There is no folder {pack!r}. {advice}')
    missing = [p for p in files if not osp.isfile(osp.join(pack, p))]
    if missing:
        raise FileNotFoundError(
            f'{len(missing)} of {len(files)} ingredients are missing in '
            f'{pack}: {_some(missing)}. {advice}')
    wrong = [
        p for p, entry in files.items()
        if file_sha256(osp.join(pack, p)) != entry['sha256']
    ]
    if wrong:
        raise ValueError(
            f'{len(wrong)} of {len(files)} ingredients in {pack} are not '
            f'those of the benchmark (their SHA-256 differs): {_some(wrong)}.'
            f' {advice}')


def _some(names: List[str]) -> str:
    return ', '.join(names[:5]) + (', ...' if len(names) > 5 else '')


def make_pack(pack: str, root: str, listing: dict) -> None:
    """Collect the ingredients from installed or unpacked Debian packages.

    Stamps are copied. Backgrounds are scaled by Pillow to 640 pixels at most
    and written as JPEG of quality 85.

    Args:
        pack (str): Folder to write.
        root (str): Where the packages are unpacked, ``/`` if installed.
        listing (dict): From :func:`load_listing`; each of its ``files`` has
            an ``origin``, a path relative to ``root``.

    Raises:
        FileNotFoundError: If files of the packages are missing.
    """
    from PIL import Image
    files = listing['files']
    missing = [
        entry['origin'] for entry in files.values()
        if not osp.isfile(osp.join(root, entry['origin']))
    ]
    if missing:
        raise FileNotFoundError(
            f'{len(missing)} of {len(files)} files are missing below {root}: '
            f'{_some(missing)}. Install or unpack the Debian packages that '
            'docs/stampsound.md names.')
    for path, entry in files.items():
        source = osp.join(root, entry['origin'])
        with atomic_write(osp.join(pack, path), 'wb') as target:
            if path.startswith('backgrounds/'):
                with Image.open(source) as image:
                    image.thumbnail((640, 640), Image.LANCZOS)
                    image.convert('RGB').save(target, 'JPEG', quality=85)
            else:
                with open(source, 'rb') as file:
                    shutil.copyfileobj(file, target)


@lru_cache(maxsize=None)
def _photo(path: str, longest: int) -> np.ndarray:
    """A cut-out, cropped and reduced to a longest side.

    Returns:
        np.ndarray: (h, w, 4) uint8, BGR premultiplied with alpha.
    """
    image = cv2.imread(path, cv2.IMREAD_UNCHANGED)
    if image is None or image.dtype != np.uint8 or image.shape[2:] != (4, ):
        raise ValueError(f'{path} is no image with 8 bits and alpha.')
    if not (image[..., 3] >= 128).any():
        raise ValueError(f'{path} has no opaque pixel.')
    y1, x1, y2, x2 = _extent(image[..., 3] >= 128)
    image = image[y1:y2, x1:x2].astype(np.int64)
    image[..., :3] = (image[..., :3] * image[..., 3:] + 127) // 255
    h, w = image.shape[:2]
    if max(h, w) > longest:
        h, w = (max((2 * n * longest + max(h, w)) // (2 * max(h, w)), 1)
                for n in (h, w))
        image = _resize(image, h, w)
    return image.astype(np.uint8)


def _extent(mask: np.ndarray) -> Tuple[int, int, int, int]:
    """Box [y1, x1, y2, x2) of the True pixels."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return (int(rows[0]), int(columns[0]), int(rows[-1]) + 1,
            int(columns[-1]) + 1)


@lru_cache(maxsize=None)
def _background_photo(path: str) -> np.ndarray:
    """A background photograph, (h, w, 3) uint8 BGR."""
    image = cv2.imread(path, cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError(f'{path} is no readable image.')
    return image


@lru_cache(maxsize=None)
def _recording(path: str) -> Tuple[np.ndarray, int]:
    """A recording without its pauses.

    Pauses are what is more than 35 dB below the loudest 20 ms; 120 ms of
    them are kept beside each sound.

    Returns:
        tuple: (T,) float64, whole numbers of 16 bits; and samples per
        second.
    """
    wave, rate = soundfile.read(path, always_2d=True)
    # Lossy formats exceed full scale by up to 3 dB.
    wave = np.round(wave.mean(axis=1) * 16384)
    step = rate // 50
    wave = np.pad(wave, (0, -len(wave) % step))
    energy = np.square(wave).reshape(-1, step).sum(1)
    if not energy.any():
        raise ValueError(f'{path} is silent.')
    loud = energy > energy.max() * 10**-3.5
    near = np.convolve(loud, np.ones(13), 'same')[:len(loud)] > 0.5
    return wave.reshape(-1, step)[near].ravel(), rate


# --------------------------------------------------------------------------
# Pictures
# --------------------------------------------------------------------------
def _taps(old: int, new: int) -> Tuple[np.ndarray, np.ndarray]:
    """Places (k, new) and weights (k, new), whole numbers of sum 4096.

    They are those of a triangle filter.
    """
    scale = old / new
    support = max(scale, 1.)
    center = (np.arange(new) + 0.5) * scale - 0.5
    first = np.ceil(center - support).astype(int)
    places = first + np.arange(int(np.ceil(2 * support)))[:, None]
    weights = np.clip(1 - np.abs(places - center) / support, 0, None)
    weights[(places < 0) | (places >= old)] = 0
    weights = np.round(weights * (4096 / weights.sum(0)))
    weights[weights.argmax(0), np.arange(new)] += 4096 - weights.sum(0)
    return places.clip(0, old - 1), weights.astype(np.int32)


def _resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize an image (h, w, c) of 8-bit values by integer arithmetic."""
    places, weights = _taps(image.shape[0], height)
    rows = np.full((height, ) + image.shape[1:], 8, np.int32)
    for place, weight in zip(places, weights):
        rows += image[place] * weight[:, None, None]
    rows >>= 4
    places, weights = _taps(image.shape[1], width)
    both = np.full((height, width, image.shape[2]), 1 << 19, np.int32)
    for place, weight in zip(places, weights):
        both += rows[:, place] * weight[:, None]
    return (both >> 20).astype(np.uint8)


def _color_matrix(rng: np.random.Generator) -> Tuple[np.ndarray, int]:
    """Random change of color: matrix (3, 3) in 1/4096, and offset."""
    brightness, contrast, saturation = rng.uniform(
        (0.8, 0.85, 0.7), (1.15, 1.15, 1.3))
    hue = np.deg2rad(rng.uniform(-10, 10))
    # Rotation about the axis of grays, and mixture with the gray.
    a, b = np.cos(hue), np.sin(hue) / np.sqrt(3)
    third = (1 - a) / 3
    turn = np.array([[a + third, third - b, third + b],
                     [third + b, a + third, third - b],
                     [third - b, third + b, a + third]])
    gray = np.array([0.114, 0.587, 0.299])
    mixture = saturation * np.eye(3) + (1 - saturation) * gray
    matrix = contrast * brightness * mixture @ turn
    return np.round(4096 * matrix).astype(int), round(128 * (1 - contrast))


def _recolor(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Change the colors of an image, with premultiplied alpha or without."""
    matrix, offset = _color_matrix(rng)
    color = (image[..., :3] @ matrix.T + 2048) >> 12
    if image.shape[2] == 3:
        return np.clip(color + offset, 0, 255).astype(np.uint8)
    alpha = image[..., 3:].astype(np.int64)
    color = np.clip(color + (offset * alpha + 127) // 255, 0, alpha)
    return np.concatenate([color, alpha], axis=2).astype(np.uint8)


def _turn(image: np.ndarray, cosine: int, sine: int) -> np.ndarray:
    """Turn an image (h, w, 4) about its center, by integer arithmetic.

    Args:
        image (np.ndarray): uint8.
        cosine (int): Of the angle, times 65536.
        sine (int): Of the angle, times 65536.

    Returns:
        np.ndarray: (h2, w2, 4) uint8 that holds all of it.
    """
    h, w = image.shape[:2]
    new_h = (h * cosine + w * abs(sine)) // 65536 + 3
    new_w = (w * cosine + h * abs(sine)) // 65536 + 3
    # Twice the distance from the center, which is whole.
    u = 2 * np.arange(new_w) + 1 - new_w
    v = (2 * np.arange(new_h) + 1 - new_h)[:, None]
    # One transparent pixel around the image takes what lies outside.
    x = np.clip(((cosine * u + sine * v) >> 1) + 32768 * (w + 1), 0,
                65536 * (w + 1) - 1)
    y = np.clip(((cosine * v - sine * u) >> 1) + 32768 * (h + 1), 0,
                65536 * (h + 1) - 1)
    padded = np.zeros((h + 2, w + 2, 4), np.uint8)
    padded[1:-1, 1:-1] = image
    pixels = padded.view(np.uint32).reshape(-1)
    first = (y >> 16) * (w + 2) + (x >> 16)

    def corner(step: int) -> np.ndarray:
        found = np.take(pixels, first + step)
        return found.view(np.uint8).reshape(new_h, new_w, 4).astype(np.int32)

    right = ((x >> 8) & 255).astype(np.int32)[..., None]
    low = ((y >> 8) & 255).astype(np.int32)[..., None]
    top = (corner(0) << 8) + (corner(1) - corner(0)) * right
    bottom = (corner(w + 2) << 8) + (corner(w + 3) - corner(w + 2)) * right
    return (((top << 8) + (bottom - top) * low + 32768) >> 16).astype(
        np.uint8)


class _Layer(NamedTuple):
    """A thing as it is pasted.

    Attributes:
        image (np.ndarray): (h, w, 4) uint8, BGR premultiplied with alpha.
        box (np.ndarray): [x1, y1, x2, y2] in it, (4,) int, of the pixels
            that are at least half opaque.
    """
    image: np.ndarray
    box: np.ndarray


def _layer(photo: np.ndarray, side: float,
           rng: np.random.Generator) -> _Layer:
    """Recolor, flip, turn and scale a cut-out.

    Args:
        photo (np.ndarray): From :func:`_photo`.
        side (float): Longer side of its box after that, in pixels.
        rng (np.random.Generator): Source of the changes.
    """
    image = _recolor(photo, rng)
    if rng.random() < 0.5:
        image = image[:, ::-1]
    angle = np.deg2rad(rng.uniform(-MAX_TURN, MAX_TURN))
    cosine, sine = (int(np.round(65536 * f(angle))) for f in (np.cos, np.sin))
    y, x = np.nonzero(image[..., 3] >= 128)
    extent = max(
        np.ptp(cosine * x - sine * y), np.ptp(cosine * y + sine * x)) / 65536
    scale = side / (extent + 1)
    h, w = (max(int(np.round(n * scale)), 1) for n in image.shape[:2])
    image = _turn(_resize(image, h, w), cosine, sine)
    y1, x1, y2, x2 = _extent(image[..., 3] >= 128)
    return _Layer(image, np.array([x1, y1, x2, y2]))


def _visible(layers: List[_Layer], corners: np.ndarray,
             size: int) -> np.ndarray:
    """Share of each thing that no later one covers, (n,)."""
    top = np.full((size, size), -1)
    areas = []
    for i, ((image, (x1, y1, x2, y2)), (x, y)) in enumerate(
            zip(layers, corners)):
        mask = image[y1:y2, x1:x2, 3] >= 128
        top[y + y1:y + y2, x + x1:x + x2][mask] = i
        areas.append(np.count_nonzero(mask))
    left = np.bincount(top[top >= 0], minlength=len(layers))
    return left / np.array(areas)


def _arrange(
    photos: List[np.ndarray], sides: Tuple[float, float], size: int,
    rng: np.random.Generator
) -> Tuple[List[_Layer], np.ndarray, np.ndarray, np.ndarray]:
    """Choose sizes and places until no thing is hidden too much.

    All are drawn anew each time, so that no role is favored.

    Args:
        photos (list[np.ndarray]): Cut-outs, from back to front.
        sides (tuple[float]): Range of sides in pixels.
        size (int): Side of the image.
        rng (np.random.Generator): Source of randomness.

    Returns:
        tuple: Layers; their corners (x, y) in the frames, (frames, n, 2)
        int; boxes (n, 4) int and visible shares (n,) at the evaluated frame.
    """
    count = len(photos)
    smallest, largest = sides
    while True:
        drifts = rng.uniform(-MAX_DRIFT, MAX_DRIFT, (count, 2)) * size
        steps = (np.arange(NUM_FRAMES) - EVAL_FRAME)[:, None, None]
        moves = np.round(drifts * steps / NUM_FRAMES).astype(int)
        layers = [
            _layer(photo, side, rng) for photo, side in zip(
                photos, rng.uniform(smallest, largest, count))
        ]
        boxes = np.stack([layer.box for layer in layers])
        # Inside the image in all frames.
        low = -boxes[:, :2] - moves.min(0)
        high = size - boxes[:, 2:] - moves.max(0)
        if (high >= low).all():
            for _ in range(20):
                corners = rng.integers(low, high + 1)
                visible = _visible(layers, corners, size)
                if visible.min() >= MIN_VISIBLE:
                    return (layers, corners + moves,
                            boxes + np.tile(corners, 2), visible)
        largest = max(largest - 0.02 * size, smallest)


def _paste(frame: np.ndarray, image: np.ndarray, x: int, y: int) -> None:
    """Paste a layer (h, w, 4) into a frame (s, s, 3), at a corner."""
    top, left = max(-y, 0), max(-x, 0)
    below = frame[y + top:y + image.shape[0], x + left:x + image.shape[1]]
    h, w = below.shape[:2]
    image = image[top:top + h, left:left + w]
    # Division by 255, rounded.
    product = below * (255 - image[..., 3:].astype(np.uint16)) + 128
    below[:] = ((product + (product >> 8)) >> 8) + image[..., :3]


def _background(photo: np.ndarray, size: int,
                rng: np.random.Generator) -> np.ndarray:
    """A random square part of a photograph, (size, size, 3) uint8."""
    h, w = photo.shape[:2]
    side = int(rng.uniform(0.6, 1) * min(h, w))
    y, x = (int(rng.integers(0, n - side + 1)) for n in (h, w))
    part = photo[y:y + side, x:x + side]
    if rng.random() < 0.5:
        part = part[:, ::-1]
    return _recolor(_resize(part, size, size), rng)


# --------------------------------------------------------------------------
# Sound
# --------------------------------------------------------------------------
def _excerpt(path: str, rng: np.random.Generator) -> np.ndarray:
    """Part of a recording, repeated if short, at a random speed.

    Where it starts is random; of up to 20 starts the first is taken for which
    the first, mid and last second hold a tenth of the energy each, or else
    the one that comes closest.

    Returns:
        np.ndarray: (DURATION * SAMPLE_RATE,) float64.
    """
    wave, rate = _recording(path)
    loop = np.append(wave, np.zeros(int(rng.uniform(0, MAX_PAUSE) * rate)))
    speed = rng.uniform(1 - MAX_SPEED, 1 + MAX_SPEED)
    # The Fourier transform takes its input for a period; what that does to
    # the ends is cut off.
    margin = 0.1
    wanted = int(np.round((DURATION + 2 * margin) * rate * speed))
    cut = int(margin * rate * speed)
    best, part = -1., loop
    for start in rng.integers(0, len(loop), 20):
        tried = loop[(start + np.arange(wanted)) % len(loop)]
        quarters = [
            np.square(x).sum()
            for x in np.array_split(tried[cut:wanted - cut], 4)
        ]
        seconds = [quarters[i] + quarters[i + 1] for i in range(3)]
        share = min(seconds) / max(sum(quarters), 1.)
        if share > best:
            best, part = share, tried
        if best >= MIN_SECOND:
            break
    count = round((DURATION + 2 * margin) * SAMPLE_RATE)
    spectrum = np.fft.rfft(part)[:count // 2 + 1]
    cut = round(margin * SAMPLE_RATE)
    return np.fft.irfft(spectrum, count)[cut:-cut] * (count / wanted)


def _noise(slope: float, rng: np.random.Generator) -> np.ndarray:
    """Noise (DURATION * SAMPLE_RATE,) with a power of 1 / f**slope."""
    count = round(DURATION * SAMPLE_RATE)
    spectrum = np.fft.rfft(rng.standard_normal(count))
    frequency = np.fft.rfftfreq(count, 1 / SAMPLE_RATE)
    return np.fft.irfft(
        spectrum * np.maximum(frequency, 40.)**(-slope / 2), count)


def _at_level(wave: np.ndarray, level: float,
              reference: float = 1.) -> np.ndarray:
    """Scale a wave to a level (dB) relative to a reference (rms)."""
    rms = np.sqrt(np.mean(np.square(wave)))
    return wave * (reference * 10**(level / 20) / rms)


def _sound(path: str, others: List[str],
           rng: np.random.Generator) -> Tuple[np.ndarray, dict]:
    """Sound of a clip.

    Args:
        path (str): Recording of the thing that sounds.
        others (list[str]): Recordings of which one may sound off-screen.
        rng (np.random.Generator): Source of randomness.

    Returns:
        tuple: (DURATION * SAMPLE_RATE,) int16; and ``snr`` (dB), of the
        thing to the noise, and ``off_screen``, place in ``others`` of what
        sounds off-screen or None.
    """
    wave = _at_level(_excerpt(path, rng), 0)
    snr = rng.uniform(*SNR)
    slope = rng.uniform(0.5, 1.5)
    loudness = rng.uniform(*LOUDNESS)
    off_screen = None
    if others and rng.random() < OFF_SCREEN_SHARE:
        off_screen = int(rng.integers(len(others)))
        wave = wave + _at_level(
            _excerpt(others[off_screen], rng), rng.uniform(*OFF_SCREEN_LEVEL))
    wave = wave + _at_level(_noise(slope, rng), -snr)
    wave = _at_level(wave, loudness)
    wave *= 32767 / max(1., np.abs(wave).max() / 0.98)
    return np.round(wave).astype(np.int16), dict(
        snr=float(snr), off_screen=off_screen)


# --------------------------------------------------------------------------
# Clips
# --------------------------------------------------------------------------
def _generator(seed: int, split: str, number: int,
               use: int) -> np.random.Generator:
    key = (SPLITS.index(split), number, use)
    return np.random.default_rng(
        np.random.SeedSequence(seed, spawn_key=key))


def preset_classes(preset: Preset, listing: dict) -> List[str]:
    """Names of a preset's classes, in the listing's order.

    Args:
        preset (Preset): The preset.
        listing (dict): From :func:`load_listing`.

    Returns:
        list[str]: The names; their places are the category ids.

    Raises:
        ValueError: If the listing lacks one.
    """
    if preset.classes is None:
        return list(listing['classes'])
    missing = sorted(set(preset.classes) - listing['classes'].keys())
    if missing:
        raise ValueError('The list of ingredients lacks the classes '
                         f'{", ".join(missing)} of the preset.')
    return [name for name in listing['classes'] if name in preset.classes]


def make_clip(pack: str,
              listing: dict,
              preset: Preset,
              seed: int,
              split: str,
              index: int,
              image_size: int = 256) -> dict:
    """Compose one clip in memory; the arguments alone determine it.

    Args:
        pack (str): Folder of the ingredients.
        listing (dict): From :func:`load_listing`.
        preset (Preset): One of :data:`PRESETS`.
        seed (int): Seed of the benchmark.
        split (str): ``'train'``, ``'test'`` or ``'alt'``.
        index (int): Number of the clip in its split.
        image_size (int): Side of the square frames. Defaults to 256.

    Returns:
        dict: ``frames`` (16, s, s, 3) uint8 BGR at 8 fps; ``samples``
        (48000,) int16 at 24 kHz; ``label`` of the sounding thing; ``snr``
        (dB) and ``off_screen`` (class that sounds off-screen or None);
        ``background`` (path); and ``objects``, from back to front, of
        ``photo`` (path), ``label`` (None for distractors), ``sounding``,
        ``bbox`` [x1, y1, x2, y2] at the evaluated frame (whole pixels, of
        all that is at least half opaque, covered by others or not) and
        ``visible`` (share that no other covers).
    """
    rng = _generator(seed, split, index, _PICTURE)
    classes = preset_classes(preset, listing)
    part = 'train' if split == 'train' else 'test'
    if split == 'alt':
        classes = [n for n in classes if listing['classes'][n]['alt']]

    # Each class once per block of clips, in an order of its own.
    block, place = divmod(index, len(classes))
    order = _generator(seed, split, block, _ORDER).random(
        len(classes)).argsort()
    labels = [classes[order[place]]]
    if split != 'train':
        count = 1 + int(np.searchsorted(
            np.cumsum(TEST_OBJECTS)[:-1], rng.random(), side='right'))
        silent = [n for n in classes if n != labels[0]]
        labels += [silent[i] for i in rng.random(len(silent)).argsort()
                   ][:count - 1]
    distractors = listing['distractors'][part]
    extra = int(rng.integers(preset.distractors + 1))

    objects = []
    for i, label in enumerate(labels):
        entry = listing['classes'][label]
        photos = entry['alt'] if split == 'alt' else [entry['photo']]
        photo = photos[rng.integers(len(photos))]
        objects.append(dict(photo=photo, label=label, sounding=i == 0))
    chosen = rng.random(len(distractors)).argsort()[:extra]
    objects += [
        dict(photo=distractors[i], label=None, sounding=False) for i in chosen
    ]
    objects = [objects[i] for i in rng.random(len(objects)).argsort()]

    longest = int(np.round(MAX_RESOLUTION * image_size))
    layers, corners, boxes, visible = _arrange(
        [_photo(osp.join(pack, o['photo']), longest) for o in objects],
        tuple(s * image_size for s in preset.side), image_size, rng)
    for i, obj in enumerate(objects):
        obj['bbox'] = boxes[i].tolist()
        obj['visible'] = float(visible[i])

    backgrounds = listing['backgrounds'][part]
    background = backgrounds[rng.integers(len(backgrounds))]
    pan = int(np.round(MAX_PAN * image_size))
    scene = _background(
        _background_photo(osp.join(pack, background)), image_size + 2 * pan,
        rng)
    pans = rng.uniform(-pan, pan, 2) * (
        (np.arange(NUM_FRAMES) - EVAL_FRAME)[:, None] / EVAL_FRAME)
    frames = np.empty((NUM_FRAMES, image_size, image_size, 3), np.uint8)
    for frame, (x, y), places in zip(frames,
                                     np.round(pans).astype(int) + pan,
                                     corners):
        frame[:] = scene[y:y + image_size, x:x + image_size]
        for layer, (left, top) in zip(layers, places):
            _paste(frame, layer.image, left, top)

    others = [n for n in classes if n != labels[0] and split == 'train']
    samples, facts = _sound(
        *_paths(pack, listing, labels[0], others),
        _generator(seed, split, index, _SOUND))
    if facts['off_screen'] is not None:
        facts['off_screen'] = others[facts['off_screen']]
    return dict(
        frames=frames,
        samples=samples,
        label=labels[0],
        background=background,
        objects=objects,
        **facts)


def _paths(pack: str, listing: dict, label: str,
           others: List[str]) -> Tuple[str, List[str]]:
    """Recordings of the sounding class and of others."""
    path, *rest = (
        osp.join(pack, listing['classes'][n]['sound'])
        for n in (label, *others))
    return path, rest


def _instances(clip: dict) -> List[dict]:
    """Ground truth of a clip: things of sounding classes, silent ones too."""
    return [
        dict(
            bbox=o['bbox'],
            label=o['label'],
            sounding=o['sounding'],
            visible=round(o['visible'], 3)) for o in clip['objects']
        if o['label']
    ]


def clip_digests(clip: dict) -> Dict[str, str]:
    """SHA-256 of what a clip is made of, before lossy coding.

    Args:
        clip (dict): From :func:`make_clip`.

    Returns:
        dict[str, str]: Hexadecimal digits for ``pixels``, ``boxes`` and
        ``sound``.
    """
    truth = [clip['label']] + [[o['label'], o['sounding'], o['bbox']]
                               for o in _instances(clip)]
    content = dict(
        pixels=clip['frames'].tobytes(),
        boxes=json.dumps(truth).encode(),
        sound=clip['samples'].astype('<i2').tobytes())
    return {k: hashlib.sha256(v).hexdigest() for k, v in content.items()}


def _write_clip(clip: dict, clip_id: str, out_dir: str, style: str) -> dict:
    """Write a clip's media; returns its row, with the path of its image."""
    size = clip['frames'].shape[1]
    row: Dict[str, Any] = dict(clip_id=clip_id)
    quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]

    def write_image(image: np.ndarray, path: str) -> None:
        path = osp.join(out_dir, path)
        os.makedirs(osp.dirname(path), exist_ok=True)
        if not cv2.imwrite(path, image, quality):
            raise OSError(f'{path} cannot be written.')

    if style == 'mp4':
        row['video_path'] = f'videos/{clip_id}.mp4'
        path = osp.join(out_dir, row['video_path'])
        write_media(path, clip['frames'],
                    clip['samples'].astype(np.float32) / 32767, FPS,
                    SAMPLE_RATE)
        with open_video(path) as container:
            image, _ = decode_frame(container, EVAL_TIME)
        row['image'] = f'images/{clip_id}.jpg'
        write_image(image, row['image'])
    else:
        folder = f'frames/{clip_id}'
        for ms in FRAME_MS:
            write_image(clip['frames'][ms * FPS // 1000],
                        f'{folder}/{ms}.jpg')
        row['frames'] = dict(dir=folder, ms=list(FRAME_MS))
        row['audio_path'] = f'audio/{clip_id}.flac'
        soundfile.write(
            osp.join(out_dir, row['audio_path']), clip['samples'],
            SAMPLE_RATE, 'PCM_16')
        row['image'] = f'{folder}/{round(EVAL_TIME * 1000)}.jpg'
    return dict(
        row,
        duration=DURATION,
        time=EVAL_TIME,
        height=size,
        width=size,
        label=clip['label'],
        instances=_instances(clip))


def _write_chunk(job: Tuple[str, int, int], out_dir: str, style: str,
                 compose: Callable) -> int:
    """Write some clips, then a file that says so; returns their number."""
    split, first, last = job
    path = _chunk_path(out_dir, job)
    if not osp.exists(path):
        cv2.setNumThreads(0)
        rows = []
        for index in range(first, last):
            clip = compose(split=split, index=index)
            row = _write_clip(clip, f'{split}_{index:06d}', out_dir, style)
            rows.append(dict(row=row, digests=clip_digests(clip)))
        dump_json(rows, path)
    return last - first


def _chunk_path(out_dir: str, job: Tuple[str, int, int]) -> str:
    return osp.join(out_dir, '.chunks', '{}_{}_{}.json'.format(*job))


def write_stampsound(pack: str,
                     out_dir: str,
                     preset: str = 'small',
                     seed: int = 0,
                     num_train: Optional[int] = None,
                     num_test: Optional[int] = None,
                     num_alt: Optional[int] = None,
                     style: str = 'mp4',
                     image_size: int = 256,
                     workers: Optional[int] = None,
                     listing: str = LISTING,
                     progress: bool = False) -> Dict[str, Dict[str, str]]:
    """Write StampSound with clip tables and COCO jsons.

    What is finished is not done again, also after the process was killed.

    Args:
        pack (str): Folder of the ingredients.
        out_dir (str): Folder for ``{train,test,alt}.json`` (clip tables),
            ``{train,test,alt}_coco.json`` (boxes of all things of sounding
            classes at the evaluated frames; files relative to this folder),
            and ``videos/`` and ``images/`` (the evaluated frames as
            decoded), or ``frames/`` and ``audio/``.
        preset (str): ``'small'`` or ``'full'``. Defaults to ``'small'``.
        seed (int): Seed of the benchmark. Defaults to 0.
        num_train (int, optional): Number of training clips. Defaults to
            None, the preset's; so do the other two.
        num_test (int, optional): Number of test clips.
        num_alt (int, optional): Number of test clips with unseen
            photographs.
        style (str): ``'mp4'`` (H.264 and AAC) or ``'frames'`` (JPEG at 2 fps
            and FLAC, as ``tools/prepare_clips.py`` writes).
            Defaults to ``'mp4'``.
        image_size (int): Side of the frames in pixels. Defaults to 256.
        workers (int, optional): Number of processes; 0 works in this one.
            Defaults to None, as many as there are CPU cores.
        listing (str): The list of ingredients. Defaults to the benchmark's.
        progress (bool): Whether to show a progress bar. Defaults to False.

    Returns:
        dict[str, dict]: For each split the checksums, see
        :func:`split_checksums`.

    Raises:
        FileNotFoundError, ValueError: If ingredients are missing or not the
            benchmark's, an argument is out of range, or the folder holds a
            set with other settings.
    """
    if preset not in PRESETS or style not in FORMATS:
        raise ValueError(f'preset must be one of {list(PRESETS)} and style '
                         f'one of {FORMATS}, got {preset!r} and {style!r}.')
    if image_size % 2 or image_size < 32:
        raise ValueError('image_size must be even (H.264) and at least 32, '
                         f'got {image_size}.')
    if seed < 0:
        raise ValueError(f'seed must not be negative, got {seed}.')
    table, sizes = load_listing(listing), PRESETS[preset]
    classes = preset_classes(sizes, table)
    numbers = {
        split: getattr(sizes, f'num_{split}') if number is None else number
        for split, number in zip(SPLITS, (num_train, num_test, num_alt))
    }
    if numbers['alt'] and not any(table['classes'][n]['alt']
                                  for n in classes):
        raise ValueError('No class has an unseen photograph; set num_alt=0.')
    settings = dict(
        version=_VERSION,
        listing=file_sha256(listing),
        preset=preset,
        seed=seed,
        image_size=image_size,
        style=style,
        numbers=numbers)
    tables = {s: osp.join(out_dir, f'{s}.json') for s in SPLITS if numbers[s]}
    _check_settings(out_dir, settings)
    if all(map(osp.exists, tables.values())):
        shutil.rmtree(osp.join(out_dir, '.chunks'), ignore_errors=True)
        return {
            split: iter_clip_table(path)[0]['checksums']
            for split, path in tables.items()
        }
    verify_pack(pack, table)
    dump_json(settings, osp.join(out_dir, '.chunks', 'settings.json'))
    os.makedirs(
        osp.join(out_dir, 'videos' if style == 'mp4' else 'audio'),
        exist_ok=True)

    jobs = [(split, first, min(first + _CHUNK, number))
            for split, number in numbers.items()
            for first in range(0, number, _CHUNK)]
    work = partial(
        _write_chunk,
        out_dir=out_dir,
        style=style,
        compose=partial(
            make_clip,
            pack,
            table,
            sizes,
            seed,
            image_size=image_size))
    _run(work, jobs, workers, sum(numbers.values()) if progress else None)

    checksums = {}
    for split, path in tables.items():
        entries = []
        for job in jobs:
            if job[0] == split:
                with open(_chunk_path(out_dir, job)) as file:
                    entries += json.load(file)
        checksums[split] = split_checksums([e['digests'] for e in entries])
        _write_tables([e['row'] for e in entries], path, classes, settings,
                      checksums[split])
    shutil.rmtree(osp.join(out_dir, '.chunks'))
    return checksums


def _check_settings(out_dir: str, settings: dict) -> None:
    """Make sure that a folder holds no set with other settings."""
    found = []
    note = osp.join(out_dir, '.chunks', 'settings.json')
    if osp.exists(note):
        with open(note) as file:
            found.append(json.load(file))
    for split in SPLITS:
        path = osp.join(out_dir, f'{split}.json')
        if osp.exists(path):
            found.append(iter_clip_table(path)[0].get('stampsound'))
    for other in found:
        if other != settings:
            raise ValueError(
                f'{out_dir} holds a set with other settings, {other}; wanted '
                f'are {settings}. Choose another folder, or remove it.')


def _run(work: Callable, jobs: List[tuple], workers: Optional[int],
         total: Optional[int]) -> None:
    """Do the jobs, on several processes; with a bar if a total is given."""
    from rich.progress import Progress
    if workers is None:
        workers = num_cores()
    with Progress(disable=total is None) as progress:
        task = progress.add_task('Composing clips', total=total)
        if workers == 0:
            for count in map(work, jobs):
                progress.advance(task, count)
            return
        with ProcessPoolExecutor(workers, initializer=end_with_parent) as pool:
            for count in pool.map(work, jobs):
                progress.advance(task, count)


def split_checksums(digests: List[Dict[str, str]]) -> Dict[str, str]:
    """Checksums of a split: SHA-256 of its clips' digests, one per line.

    Args:
        digests (list[dict]): From :func:`clip_digests`, in order.

    Returns:
        dict[str, str]: Hexadecimal digits for ``pixels``, ``boxes`` and
        ``sound``.
    """
    return {
        kind: hashlib.sha256('\n'.join(
            d[kind] for d in digests).encode()).hexdigest()
        for kind in ('pixels', 'boxes', 'sound')
    }


def _write_tables(rows: List[dict], path: str, classes: List[str],
                  settings: dict, checksums: Dict[str, str]) -> None:
    """Write a split's COCO json and, last, its clip table."""
    images = [
        dict(
            file_name=row.pop('image'),
            height=row['height'],
            width=row['width'],
            clip_id=row['clip_id'],
            time=row['time'],
            instances=row['instances']) for row in rows
    ]
    split = osp.splitext(osp.basename(path))[0]
    info = dict(
        description=f'StampSound {settings["preset"]} {split}',
        version=str(_VERSION),
        checksums=checksums)
    dump_json(
        to_coco(images, classes, info), f'{osp.splitext(path)[0]}_coco.json')
    dump_clip_table(
        rows, path,
        dict(
            classes=classes,
            source='StampSound',
            split=split,
            stampsound=settings,
            checksums=checksums))
