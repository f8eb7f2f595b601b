"""Procedural audio-visual clips: sounding objects among silent ones.

A *kind* of object is a combination (shape, texture, color family). A few
kinds are the sounding classes, each with its own timbre; all others are
silent distractors. Both are drawn by the same routine from the same shapes,
textures and colors, with the same sizes, places and poses, and over the
kinds each shape, texture and color is as frequent among the classes as among
the distractors. So neither one visual cue nor the order, size or place of an
object tells which object sounds: only its correspondence with the sound does.

Two more test sets stand in for those of sound localization (Table 2): in
*duets* two objects of different classes sound at once; in *solos* there is one
object of a sounding class, and it sounds.
"""
import json
import os
import os.path as osp
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import product
from typing import Dict, List, Optional, Sequence, Tuple

import av
import cv2
import numpy as np

from avdet_mm.datasets.clip_table import dump_clip_table
from avdet_mm.datasets.coco import to_coco
from avdet_mm.datasets.media import write_media
from avdet_mm.utils import dump_json
from avdet_mm.utils.job_pool import num_cores

SHAPES = ('disc', 'square', 'triangle', 'star', 'ring', 'cross', 'heart',
          'hourglass')
TEXTURES = ('stripes', 'checker', 'dots', 'rings')
# Center of each family's hue range in degrees.
COLORS = {'red': 0., 'green': 100., 'blue': 215., 'magenta': 300.}
HUE_JITTER = 16.

# Sounding classes: name (of the timbre) -> kind (of the object).
CLASSES = {
    'bell': ('disc', 'stripes', 'red'),
    'organ': ('square', 'checker', 'green'),
    'siren': ('triangle', 'dots', 'blue'),
    'rattle': ('star', 'rings', 'magenta'),
    'pluck': ('ring', 'checker', 'blue'),
    'cricket': ('cross', 'stripes', 'magenta'),
    'wind': ('heart', 'rings', 'red'),
    'motor': ('hourglass', 'dots', 'green'),
}

FPS = 8
NUM_FRAMES = 13
SAMPLE_RATE = 24000
DURATION = NUM_FRAMES / FPS
MID_FRAME = NUM_FRAMES // 2
SPLITS = ('train', 'test', 'duet', 'solo')

_SUPERSAMPLE = 3
_MAX_COVERAGE = 0.12
_VERSION = 3


# --------------------------------------------------------------------------
# Objects
# --------------------------------------------------------------------------
def _contours(shape: str) -> List[np.ndarray]:
    """Outline(s) of a shape, (n, 2) points of about unit radius each."""
    angle = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    circle = np.stack([np.cos(angle), np.sin(angle)], 1)
    if shape == 'disc':
        return [circle]
    if shape == 'ring':
        return [circle, 0.45 * circle]
    if shape == 'square':
        return [np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], float)]
    if shape == 'triangle':
        return [np.array([[0, -1], [1, 0.8], [-1, 0.8]], float)]
    if shape == 'star':
        turn = np.arange(10) * np.pi / 5 - np.pi / 2
        radius = np.where(np.arange(10) % 2, 0.45, 1.)
        return [
            np.stack([radius * np.cos(turn), radius * np.sin(turn)], 1)
        ]
    if shape == 'cross':
        a = 0.38
        return [
            np.array([[-a, -1], [a, -1], [a, -a], [1, -a], [1, a], [a, a],
                      [a, 1], [-a, 1], [-a, a], [-1, a], [-1, -a], [-a, -a]])
        ]
    if shape == 'heart':
        x = np.sin(angle)**3
        y = -(13 * np.cos(angle) - 5 * np.cos(2 * angle) -
              2 * np.cos(3 * angle) - np.cos(4 * angle)) / 15
        return [np.stack([x, y], 1)]
    if shape == 'hourglass':
        return [
            np.array([[-1, -1], [1, -1], [0.25, 0], [1, 1], [-1, 1],
                      [-0.25, 0]])
        ]
    raise ValueError(f'There is no shape {shape!r}; choose one of {SHAPES}.')


def _texture(name: str, u: np.ndarray, v: np.ndarray,
             rng: np.random.Generator) -> np.ndarray:
    """Weight of the family color in [0, 1] at object coordinates (u, v)."""
    # Cycles per unit; objects are about 2 units wide.
    turns = 2 * np.pi * rng.uniform(1.5, 2.1)
    du, dv = (2 * np.pi * rng.uniform(0, 1, 2)).tolist()
    if name == 'stripes':
        wave = np.sin(turns * v + dv)
    elif name == 'checker':
        wave = np.sin(0.8 * turns * u + du) * np.sin(0.8 * turns * v + dv)
    elif name == 'dots':
        wave = 0.45 + 0.5 * (
            np.cos(turns * u + du) + np.cos(turns * v + dv))
    elif name == 'rings':
        wave = np.sin(turns * np.hypot(u, v) + du)
    else:
        raise ValueError(
            f'There is no texture {name!r}; choose one of {TEXTURES}.')
    return np.clip(0.5 + 3 * wave, 0, 1)


def _bgr(hue: float, saturation: float, value: float) -> np.ndarray:
    """HSV (degrees, [0, 1], [0, 1]) to BGR in [0, 255], float32 (3,)."""
    hsv = np.array([[[hue % 360, saturation, value]]], np.float32)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)[0, 0] * 255


def _draw_object(kind: Tuple[str, str, str], side: float,
                 rng: np.random.Generator) -> Tuple[np.ndarray, np.ndarray]:
    """Draw one object.

    Args:
        kind (tuple[str]): Shape, texture and color family.
        side (float): Longer side of its box in pixels.
        rng (np.random.Generator): Source of pose and jitter.

    Returns:
        tuple: Patch (n, n, 4) float32, BGR in [0, 255] premultiplied with
        the alpha of the last channel, whose center is the center of the
        object's box; and (width, height) of the box in pixels.
    """
    shape, texture, color = kind
    angle = np.deg2rad(rng.uniform(-22, 22))
    aspect = rng.uniform(0.85, 1.18)
    turn = np.array([[np.cos(angle), -np.sin(angle)],
                     [np.sin(angle), np.cos(angle)]])
    stretch = np.diag([aspect, 1 / aspect])
    outline = [c @ stretch.T @ turn.T for c in _contours(shape)]
    low, high = outline[0].min(0), outline[0].max(0)
    scale = side / (high - low).max()
    center = (low + high) / 2
    extent = (high - low) * scale

    n = int(np.ceil(side)) + 4
    m = n * _SUPERSAMPLE
    points = [
        ((c - center) * scale + n / 2) * _SUPERSAMPLE - 0.5 for c in outline
    ]
    alpha = np.zeros((m, m), np.uint8)
    cv2.fillPoly(
        alpha, [np.round(p * 16).astype(np.int32) for p in points],
        255,
        shift=4)
    alpha = alpha.astype(np.float32) / 255

    grid = ((np.arange(m) + 0.5) / _SUPERSAMPLE - n / 2) / scale
    x = (grid + center[0])[None].astype(np.float32)
    y = (grid + center[1])[:, None].astype(np.float32)
    inverse = np.linalg.inv(turn @ stretch).astype(np.float32)
    u = inverse[0, 0] * x + inverse[0, 1] * y
    v = inverse[1, 0] * x + inverse[1, 1] * y
    weight = _texture(texture, u, v, rng)[..., None]

    hue = COLORS[color] + rng.uniform(-HUE_JITTER, HUE_JITTER)
    first = _bgr(hue, rng.uniform(0.7, 1), rng.uniform(0.65, 1))
    if rng.random() < 0.5:
        second = _bgr(hue, rng.uniform(0.3, 0.8), rng.uniform(0.08, 0.3))
    else:
        second = _bgr(hue, rng.uniform(0.05, 0.25), rng.uniform(0.8, 1))
    shade = 1 + rng.uniform(-0.15, 0.15) * x + rng.uniform(-0.15, 0.15) * y
    paint = (weight * first + (1 - weight) * second) * shade[..., None]
    patch = np.dstack([np.clip(paint, 0, 255) * alpha[..., None], alpha])
    patch = cv2.resize(patch, (n, n), interpolation=cv2.INTER_AREA)
    return patch, extent


def _background(size: int, rng: np.random.Generator) -> np.ndarray:
    """Textured background, (size, size, 3) float32 BGR in [0, 255]."""
    grid = (np.arange(size, dtype=np.float32) + 0.5) / size
    # One to four regions of different colors, with straight borders.
    sites = rng.uniform(-0.2, 1.2, (rng.integers(1, 5), 2))
    distance = [(grid - x)**2 + (grid[:, None] - y)**2 for x, y in sites]
    paints = np.stack([
        _bgr(rng.uniform(0, 360), rng.uniform(0, 0.9), rng.uniform(0.15, 1))
        for _ in sites
    ])
    image = paints[np.argmin(distance, axis=0)]
    # Noise of several scales, correlated over channels to a random degree.
    gray = rng.uniform(0.3, 1)
    for cells in (2, 4, 9, 27):
        noise = rng.normal(0, 1, (cells, cells, 3)).astype(np.float32)
        noise = gray * noise[..., :1] + (1 - gray) * noise
        image += rng.uniform(4, 26) * cv2.resize(
            noise, (size, size), interpolation=cv2.INTER_CUBIC)
    # Soft blobs of any hue, as large as objects.
    for _ in range(rng.integers(1, 5)):
        cx, cy = rng.uniform(0, 1, 2)
        rx, ry = rng.uniform(0.08, 0.3, 2)
        blob = rng.uniform(0.4, 0.9) * np.outer(
            np.exp(-((grid - cy) / ry)**2), np.exp(-((grid - cx) / rx)**2))
        paint = _bgr(
            rng.uniform(0, 360), rng.uniform(0.5, 1), rng.uniform(0.4, 1))
        image += blob[..., None].astype(np.float32) * (paint - image)
    # Clutter: lines and small patches of any color.
    canvas = np.ascontiguousarray(np.clip(image, 0, 255)).astype(np.uint8)
    for _ in range(rng.integers(2, 7)):
        start, end = rng.integers(0, size * 16, (2, 2))
        paint = _bgr(
            rng.uniform(0, 360), rng.uniform(0, 1), rng.uniform(0, 1))
        cv2.line(canvas, (int(start[0]), int(start[1])),
                 (int(end[0]), int(end[1])), paint.tolist(),
                 int(rng.integers(1, 3)), cv2.LINE_AA, 4)
    for _ in range(rng.integers(3, 9)):
        center = rng.uniform(0, size, 2)
        axes = rng.uniform(0.02, 0.11, 2) * size
        paint = _bgr(
            rng.uniform(0, 360), rng.uniform(0.2, 1), rng.uniform(0.2, 1))
        corners = cv2.boxPoints((center.tolist(), (2 * axes).tolist(),
                                 float(rng.uniform(0, 180))))
        if rng.random() < 0.5:
            cv2.ellipse(canvas, (center.tolist(), (2 * axes).tolist(),
                                 float(rng.uniform(0, 180))), paint.tolist(),
                        -1, cv2.LINE_AA)
        else:
            cv2.fillPoly(canvas, [np.round(corners * 16).astype(np.int32)],
                         paint.tolist(), cv2.LINE_AA, 4)
    return canvas.astype(np.float32)


def _layout(extents: List[np.ndarray], drifts: np.ndarray, size: int,
            rng: np.random.Generator) -> Optional[np.ndarray]:
    """Centers (m, 2) of objects that lie inside and hardly overlap."""
    half = np.array(extents) / 2
    for _ in range(60):
        low = half + np.abs(drifts) / 2 + 1
        centers = rng.uniform(low, size - low)
        x1y1, x2y2 = centers - half, centers + half
        sides = np.minimum(x2y2[:, None], x2y2[None]) - np.maximum(
            x1y1[:, None], x1y1[None])
        inter = np.clip(sides, 0, None).prod(-1)
        area = (x2y2 - x1y1).prod(-1)
        cover = inter / np.minimum(area[:, None], area[None])
        np.fill_diagonal(cover, 0)
        if cover.max() <= _MAX_COVERAGE:
            return centers
    return None


# --------------------------------------------------------------------------
# Sound
# --------------------------------------------------------------------------
def _noise(n: int, slope: float, rng: np.random.Generator) -> np.ndarray:
    """Noise (n,) of unit power whose spectrum falls as 1 / f**slope."""
    spectrum = np.fft.rfft(rng.standard_normal(n))
    freq = np.maximum(np.fft.rfftfreq(n, 1 / SAMPLE_RATE), 40.)
    noise = np.fft.irfft(spectrum * freq**(-slope / 2), n)
    return (noise / noise.std()).astype(np.float32)


def _band(n: int, low: float, high: float,
          rng: np.random.Generator) -> np.ndarray:
    """Noise (n,) of unit power between two frequencies (Hz)."""
    spectrum = np.fft.rfft(rng.standard_normal(n))
    freq = np.fft.rfftfreq(n, 1 / SAMPLE_RATE)
    center, width = np.sqrt(low * high), np.log(high / low) / 2
    spectrum *= np.exp(-(np.log(np.maximum(freq, 1) / center) / width)**4)
    noise = np.fft.irfft(spectrum, n)
    return (noise / noise.std()).astype(np.float32)


def _since_onset(t: np.ndarray, period: float,
                 rng: np.random.Generator) -> Tuple[np.ndarray, np.ndarray]:
    """Seconds since the last onset, and that onset's number, both (n,)."""
    beat = t / period + rng.uniform(0, 1)
    return (beat % 1) * period, beat.astype(int)


def _timbre(name: str, n: int, rng: np.random.Generator) -> np.ndarray:
    """Sound (n,) of a class, of unit power, with random pitch and phase."""
    t = (np.arange(n) / SAMPLE_RATE).astype(np.float32)
    pitch = 440. * 2**(rng.uniform(-3, 3) / 12)
    tau = 2 * np.pi
    if name == 'bell':
        age, _ = _since_onset(t, rng.uniform(0.35, 0.6), rng)
        wave = sum(
            g * np.exp(-age * d) * np.sin(tau * pitch * r * t +
                                          rng.uniform(0, tau))
            for r, g, d in ((0.5, .5, 3), (1, 1, 5), (1.19, .7, 6),
                            (2.76, .7, 8), (5.4, .5, 12), (8.9, .3, 16)))
    elif name == 'organ':
        tremolo = 1 + 0.25 * np.sin(tau * rng.uniform(4, 7) * t)
        wave = tremolo * sum(
            np.sin(tau * pitch / 2 * k * t + rng.uniform(0, tau)) / k**0.5
            for k in (1, 2, 3, 4, 6, 8, 12))
    elif name == 'siren':
        sweep = np.sin(tau * rng.uniform(1.8, 3.2) * t + rng.uniform(0, tau))
        phase = tau * np.cumsum(pitch * 2.2 * 2**(0.75 * sweep)) / SAMPLE_RATE
        wave = np.sin(phase) + 0.4 * np.sin(2 * phase) + 0.2 * np.sin(
            3 * phase)
    elif name == 'rattle':
        age, _ = _since_onset(t, 1 / rng.uniform(9, 14), rng)
        wave = np.exp(-age * 70) * _band(n, pitch * 2, pitch * 18, rng)
    elif name == 'pluck':
        age, beat = _since_onset(t, 1 / rng.uniform(3.5, 5.5), rng)
        steps = rng.choice([0, 3, 5, 7, 10, 12], size=beat.max() + 1)
        note = (pitch * 0.75 * 2**(steps / 12)).astype(np.float32)[beat]
        wave = sum(
            np.exp(-age * (3 + 3 * k)) * np.sin(tau * note * k * age) / k**0.6
            for k in range(1, 9))
    elif name == 'cricket':
        age, _ = _since_onset(t, rng.uniform(0.25, 0.4), rng)
        gate = (age < 0.16) * (
            1 - np.cos(tau * age * rng.uniform(28, 42)))
        wave = gate * np.sin(tau * pitch * 8 * t)
        wave += 0.35 * gate * np.sin(tau * pitch * 12.3 * t)
    elif name == 'wind':
        low, high = (_band(n, pitch * a, pitch * b, rng)
                     for a, b in ((0.8, 2), (2, 5)))
        mix = np.sin(tau * rng.uniform(0.6, 1.3) * t + rng.uniform(0, tau))
        wave = (1.1 + mix) * low + (1.1 - mix) * 0.7 * high
    elif name == 'motor':
        wobble = 1 + 0.06 * np.sin(
            tau * rng.uniform(2, 5) * t + rng.uniform(0, tau))
        phase = np.cumsum(pitch / 5 * wobble) / SAMPLE_RATE
        age = (phase % 1) / (pitch / 5)
        wave = sum(
            g * np.exp(-age * d) * np.sin(tau * pitch * r * age)
            for r, g, d in ((0.9, 1, 150), (2.6, .8, 250), (5.5, .5, 400)))
    else:
        raise ValueError(
            f'There is no timbre {name!r}; choose one of {list(CLASSES)}.')
    wave = (wave - wave.mean()).astype(np.float32)
    return wave / wave.std()


def _sound(names: Sequence[str], n: int,
           rng: np.random.Generator) -> np.ndarray:
    """Waveform (n,) float32 in [-1, 1]: timbres, loudness and noise."""
    snr = rng.uniform(5, 20)
    wave = _timbre(names[0], n, rng)
    # Of two sounds, neither hides the other.
    for name in names[1:]:
        wave += 10**(rng.uniform(-3, 3) / 20) * _timbre(name, n, rng)
    wave = wave + 10**(-snr / 20) * _noise(n, rng.uniform(0, 1.2), rng)
    wave *= 10**(rng.uniform(-26, -14) / 20) / wave.std()
    return np.clip(wave, -0.98, 0.98).astype(np.float32)


# --------------------------------------------------------------------------
# Clips
# --------------------------------------------------------------------------
def _kinds(num_classes: int) -> Tuple[Dict[str, tuple], List[tuple]]:
    """The sounding classes and the kinds of silent distractors."""
    if not 2 <= num_classes <= len(CLASSES):
        raise ValueError(f'num_classes must be 2 to {len(CLASSES)}, '
                         f'got {num_classes}.')
    classes = dict(list(CLASSES.items())[:num_classes])
    taken = set(classes.values())
    values = [sorted({kind[i] for kind in taken}) for i in range(3)]
    return classes, [k for k in product(*values) if k not in taken]


def make_clip(seed: int,
              split: str,
              index: int,
              image_size: int = 108,
              num_classes: int = 8) -> dict:
    """Make one clip in memory; the arguments alone determine it.

    A training clip, as a solo, holds one sounding object and 0-2
    distractors; a test clip 1-3 objects of sounding classes, of which one
    sounds, and 0-1 distractors; a duet 2-3 objects of different classes, of
    which two sound, equally loud to 3 dB, and 0-1 distractors.

    Args:
        seed (int): Seed of the data set.
        split (str): ``'train'``, ``'test'``, ``'duet'`` or ``'solo'``.
        index (int): Number of the clip in its split.
        image_size (int): Side of the square frames, even. Defaults to 108.
        num_classes (int): Number of sounding classes. Defaults to 8.

    Returns:
        dict: ``frames`` (13, s, s, 3) uint8 BGR at 8 fps; ``waveform``
        (39000,) float32 at 24 kHz; ``label``, class of the sounding object,
        None for duets; and ``objects``, a list of dicts with ``kind``
        (shape, texture, color), ``label`` (None for distractors),
        ``sounding``, and, at the mid frame, ``bbox`` [x1, y1, x2, y2] in
        pixels and ``mask`` (s, s) bool, the pixels that it covers by a
        quarter or more, not minding what lies in front.
    """
    rng = np.random.default_rng(
        np.random.SeedSequence([seed, SPLITS.index(split), index]))
    classes, distractors = _kinds(num_classes)
    names = list(classes)
    if split in ('train', 'solo'):
        labels = [rng.choice(names)]
        labels += [None] * rng.choice(3, p=(0.2, 0.4, 0.4))
    elif split == 'duet':
        count = min(2 + rng.integers(0, 2), num_classes)
        labels = list(rng.choice(names, size=count, replace=False))
        labels += [None] * rng.integers(0, 2)
    else:
        # Most of the objects are silent: 1 of 2.5 on average sounds.
        count = 1 + rng.choice(3, p=(0.1, 0.3, 0.6))
        labels = list(rng.choice(names, size=count))
        labels += [None] * rng.integers(0, 2)
    num_sounding = 2 if split == 'duet' else 1
    objects = [
        dict(
            kind=classes[name] if name else distractors[rng.integers(
                len(distractors))],
            label=str(name) if name else None,
            sounding=i < num_sounding) for i, name in enumerate(labels)
    ]
    objects = [objects[i] for i in rng.permutation(len(objects))]

    # All sizes and places anew until they fit: no role is favored.
    largest = 0.55
    while True:
        sides = rng.uniform(0.25, largest, len(objects)) * image_size
        drawn = [
            _draw_object(o['kind'], s, rng) for o, s in zip(objects, sides)
        ]
        drifts = rng.uniform(-0.03, 0.03, (len(objects), 2)) * image_size
        extents = [extent for _, extent in drawn]
        centers = _layout(extents, drifts, image_size, rng)
        if centers is not None:
            break
        largest = max(largest - 0.02, 0.3)

    # Patches are larger than boxes, so they may reach beyond the frame.
    pad = image_size // 4
    background = np.pad(
        _background(image_size, rng), ((pad, pad), (pad, pad), (0, 0)))
    inside = (slice(pad, -pad), slice(pad, -pad))
    flicker = 1 + rng.uniform(0, 0.06) * np.sin(
        np.arange(NUM_FRAMES) * rng.uniform(0.5, 2) + rng.uniform(0, 6))
    noise = rng.uniform(1, 5) * rng.standard_normal(
        (image_size + 16, image_size + 16, 3), dtype=np.float32)
    frames = []
    for i in range(NUM_FRAMES):
        frame = background.copy()
        for obj, (patch, _), center, drift in zip(objects, drawn, centers,
                                                  drifts):
            n = patch.shape[0]
            corner = center + drift * (i - MID_FRAME) / NUM_FRAMES - n / 2
            x, y = np.floor(corner).astype(int)
            shift = np.eye(2, 3)
            shift[:, 2] = corner - (x, y)
            layer = cv2.warpAffine(patch, shift, (n + 1, n + 1))
            place = (slice(y + pad, y + pad + n + 1),
                     slice(x + pad, x + pad + n + 1))
            frame[place] *= 1 - layer[..., 3:]
            frame[place] += layer[..., :3]
            if i == MID_FRAME:
                mask = np.zeros(frame.shape[:2], bool)
                mask[place] = layer[..., 3] > 0.25
                obj['mask'] = mask[inside]
        dy, dx = rng.integers(0, 17, 2)
        frame = frame[inside] * float(flicker[i]) + noise[dy:dy + image_size,
                                                          dx:dx + image_size]
        frames.append(np.clip(frame, 0, 255).astype(np.uint8))
    for obj, center, extent in zip(objects, centers, extents):
        obj['bbox'] = [
            round(float(x), 2)
            for x in np.concatenate([center - extent / 2, center + extent / 2])
        ]

    sounds = [o['label'] for o in objects if o['sounding']]
    num_samples = round(DURATION * SAMPLE_RATE)
    return dict(
        frames=np.stack(frames),
        waveform=_sound(sounds, num_samples, rng),
        label=sounds[0] if len(sounds) == 1 else None,
        objects=objects)


def _mid_frame(path: str) -> np.ndarray:
    """Decode the mid frame of a clip, (h, w, 3) uint8 BGR."""
    with av.open(path) as container:
        container.streams.video[0].codec_context.thread_count = 1
        for i, frame in enumerate(container.decode(video=0)):
            if i == MID_FRAME:
                return frame.to_ndarray(format='bgr24')
    raise RuntimeError(f'{path} has fewer than {MID_FRAME + 1} frames.')


def _write_clip(job: Tuple[str, int], out_dir: str, seed: int,
                image_size: int, num_classes: int) -> dict:
    """Write one clip with its image; returns its row of the table."""
    split, index = job
    cv2.setNumThreads(0)
    clip = make_clip(seed, split, index, image_size, num_classes)
    clip_id = f'{split}_{index:06d}'
    video_path = f'{split}/{index:06d}.mp4'
    path = osp.join(out_dir, video_path)
    write_media(path, clip['frames'], clip['waveform'], FPS, SAMPLE_RATE)
    image = _mid_frame(path)
    cv2.imwrite(osp.join(out_dir, f'{split}_images', f'{clip_id}.png'), image,
                [cv2.IMWRITE_PNG_COMPRESSION, 1])
    # A duet has no one class, so its row has no 'label'.
    label = dict(label=clip['label']) if clip['label'] else {}
    return dict(
        clip_id=clip_id,
        video_path=video_path,
        duration=DURATION,
        **label,
        time=MID_FRAME / FPS,
        instances=[
            dict(bbox=o['bbox'], label=o['label'], sounding=o['sounding'])
            for o in clip['objects'] if o['label']
        ])


def write_procedural_clips(out_dir: str,
                           num_train: int = 3000,
                           num_test: int = 300,
                           seed: int = 0,
                           image_size: int = 108,
                           num_classes: int = 8,
                           workers: Optional[int] = None,
                           progress: bool = False,
                           num_duet: int = 0,
                           num_solo: int = 0) -> None:
    """Write procedural clips as mp4 files with clip tables and COCO jsons.

    Every clip depends on ``seed``, its split and its number only. The tables
    are written last; those that exist already with the same settings (of
    duets, of solos, and of all others) are left as they are with their clips.

    Args:
        out_dir (str): Folder for ``{train,test,duet,solo}.json`` (clip
            tables), and for each ``<name>/*.mp4``, ``<name>_images/*.png``
            (the mid frames as decoded) and ``<name>_coco.json`` (boxes of
            all objects of sounding classes at the mid frames).
        num_train (int): Number of training clips. Defaults to 3000.
        num_test (int): Number of test clips. Defaults to 300.
        seed (int): Seed of the data set. Defaults to 0.
        image_size (int): Side of the frames in pixels. Defaults to 108.
        num_classes (int): Number of sounding classes. Defaults to 8.
        workers (int, optional): Number of processes; 0 works in this one.
            Defaults to None, as many as there are CPU cores.
        progress (bool): Whether to show a progress bar. Defaults to False.
        num_duet (int): Number of test clips in which two objects sound.
            Defaults to 0, and no files of duets are written.
        num_solo (int): Likewise of test clips with one object of a sounding
            class. Defaults to 0.
    """
    if image_size % 2 or image_size < 32:
        raise ValueError('image_size must be even (H.264) and at least 32, '
                         f'got {image_size}.')
    classes = list(_kinds(num_classes)[0])
    frames = dict(image_size=image_size, num_classes=num_classes)
    settings = dict(
        version=_VERSION,
        seed=seed,
        num_train=num_train,
        num_test=num_test,
        **frames)
    numbers = dict(train=num_train, test=num_test)
    todo = {}
    if not _written(out_dir, ('train', 'test'), settings):
        todo = {split: (numbers[split], settings) for split in numbers}
    for split, number in (('duet', num_duet), ('solo', num_solo)):
        settings = {
            'version': _VERSION,
            'seed': seed,
            f'num_{split}': number,
            **frames
        }
        if number and not _written(out_dir, (split, ), settings):
            todo[split] = number, settings

    tables = {split: osp.join(out_dir, f'{split}.json') for split in todo}
    for split, table in tables.items():
        if osp.exists(table):
            os.remove(table)
        os.makedirs(osp.join(out_dir, split), exist_ok=True)
        os.makedirs(osp.join(out_dir, f'{split}_images'), exist_ok=True)

    jobs = [(split, i) for split in todo for i in range(todo[split][0])]
    work = partial(
        _write_clip,
        out_dir=out_dir,
        seed=seed,
        image_size=image_size,
        num_classes=num_classes)

    def collect(results) -> List[dict]:
        if not progress:
            return list(results)
        from rich.progress import track
        return list(
            track(results, 'Writing procedural clips', total=len(jobs)))

    if workers is None:
        workers = num_cores()
    if workers > 0 and jobs:
        with ProcessPoolExecutor(workers) as pool:
            rows = collect(pool.map(work, jobs, chunksize=16))
    else:
        rows = collect(map(work, jobs))

    for split, table in tables.items():
        part = [row for row in rows if row['clip_id'].startswith(split)]
        images = [
            dict(
                file_name=f'{row["clip_id"]}.png',
                height=image_size,
                width=image_size,
                clip_id=row['clip_id'],
                instances=row['instances']) for row in part
        ]
        info = dict(description='Procedural audio-visual clips')
        dump_json(
            to_coco(images, classes, info),
            osp.join(out_dir, f'{split}_coco.json'))
        dump_clip_table(part, table,
                        dict(classes=classes, procedural=todo[split][1]))


def _written(out_dir: str, splits: Sequence[str], settings: dict) -> bool:
    """Whether the tables are there, the last with these settings."""
    tables = [osp.join(out_dir, f'{split}.json') for split in splits]
    if not all(map(osp.exists, tables)):
        return False
    with open(tables[-1]) as file:
        return json.load(file)['metainfo'].get('procedural') == settings
