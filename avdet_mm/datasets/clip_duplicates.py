"""Fingerprints of picture and sound, and the search for equal clips.

Two clips are the same if their pictures and their sounds agree and they are
equally long. Both are needed: stretches of one video in which nothing but
the sound changes are different clips, and so are two videos with the same
music.
"""
from typing import Dict, List, NamedTuple, Optional

import cv2
import numpy as np
import scipy.fft

# Side of the gray pictures that are compared.
SIDE = 32
# The clip is cut into so many spans, each with a hash of its mean picture.
PICTURE_SPANS = 8
# Spans and bands of the sound's fingerprint.
SOUND_SPANS = 8
SOUND_BANDS = 12
# Hz; sound of 8 kHz, and the codecs of telephones, keep this range.
BAND_EDGES = np.geomspace(150., 3500., SOUND_BANDS + 1)
# Sound this much (dB) below the loudest counts as not there.
SOUND_RANGE = 30.
# Steps of 1 / 8 dB fit 30 dB into a byte.
SOUND_STEP = 0.125

# Coefficients of the cosine transform, from low to high frequencies without
# the mean: 64 places (row, column).
_ORDER = sorted(((i, j) for i in range(9) for j in range(9) if i + j),
                key=lambda place: (sum(place), place))[:64]
_ROWS, _COLUMNS = np.array(_ORDER).T
# Bits of a picture's hash that clips must share to be compared: the lowest
# frequencies, which copies keep.
_KEY = np.uint64((1 << 28) - 1)
# A clip is compared with at most so many that look like it.
_MOST = 256
_COUNT = np.array([bin(i).count('1') for i in range(256)], np.uint8)


class Fingerprint(NamedTuple):
    """What is compared of a clip.

    Attributes:
        picture (np.ndarray): (8,) uint64, hashes of spans of the clip.
        sound (np.ndarray): (96,) uint8, level in spans and bands in steps of
            1 / 8 dB.
    """
    picture: np.ndarray
    sound: np.ndarray


def hash_pictures(grays: np.ndarray) -> np.ndarray:
    """Hash the spans of a clip by the signs of their lowest frequencies.

    Args:
        grays (np.ndarray): (n, 32, 32), small gray pictures at equal
            distances in time, n > 0.

    Returns:
        np.ndarray: (8,) uint64, of the mean picture of each span.
    """
    n = len(grays)
    hashes = np.zeros(PICTURE_SPANS, np.uint64)
    for i in range(PICTURE_SPANS):
        start = i * n // PICTURE_SPANS
        stop = max((i + 1) * n // PICTURE_SPANS, start + 1)
        mean = grays[start:stop].mean(axis=0, dtype=np.float32)
        bits = cv2.dct(mean)[_ROWS, _COLUMNS] > 0
        hashes[i] = np.packbits(bits, bitorder='little').view('<u8')[0]
    return hashes


def sound_levels(energy: np.ndarray) -> np.ndarray:
    """A coarse spectrogram, relative to its loudest part.

    Args:
        energy (np.ndarray): (n, 12) energy in :data:`BAND_EDGES` of short
            blocks.

    Returns:
        np.ndarray: (96,) uint8, 8 spans x 12 bands, in steps of 1 / 8 dB.
    """
    n = len(energy)
    if not n:
        return np.zeros(SOUND_SPANS * SOUND_BANDS, np.uint8)
    # Spans overlap, so that a small shift of the sound changes little.
    place = (np.arange(n) + 0.5) / n * SOUND_SPANS
    away = np.abs(place - np.arange(0.5, SOUND_SPANS)[:, None])
    weight = 1 + np.cos(np.pi * np.minimum(away, 1)) + 1e-9
    spans = weight @ energy / weight.sum(axis=1, keepdims=True)
    level = 10 * np.log10(spans + 1e-14)
    level = np.maximum(level - level.max() + SOUND_RANGE, 0)
    return np.round(level / SOUND_STEP).astype(np.uint8).ravel()


def band_energy(blocks: np.ndarray, rate: int) -> np.ndarray:
    """Energy in bands of frequency.

    Args:
        blocks (np.ndarray): (n, m) float32 samples.
        rate (int): Samples per second.

    Returns:
        np.ndarray: (n, 12) energy in :data:`BAND_EDGES`.
    """
    spectrum = scipy.fft.rfft(blocks, axis=1)
    power = spectrum.real**2 + spectrum.imag**2
    edges = np.round(BAND_EDGES * blocks.shape[1] / rate).astype(int)
    edges = np.minimum(edges, power.shape[1] - 1)
    total = np.add.reduceat(power, edges, axis=1)[:, :-1]
    # Bands narrower than a line of the spectrum have no own energy.
    return np.where(np.diff(edges) > 0, total, 0.)


class Duplicates(NamedTuple):
    """Result of :func:`find_duplicates`.

    Attributes:
        original (dict[int, int]): Position of a copy to that of the clip
            that it is a copy of.
        compared (int): Number of pairs that were compared in full.
        skipped (int): Number of pairs that were not, since too many clips
            look and sound alike.
    """
    original: Dict[int, int]
    compared: int
    skipped: int


def picture_distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Differing bits of pictures.

    Args:
        a (np.ndarray): (n, 8) uint64, of :func:`hash_pictures`.
        b (np.ndarray): As ``a``.

    Returns:
        np.ndarray: (n,) bits of 64, the mean over the spans.
    """
    bits = _COUNT[np.ascontiguousarray(a ^ b).view(np.uint8)]
    return bits.sum(axis=1, dtype=np.int32) / PICTURE_SPANS


def sound_distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Difference of sounds, not minding loudness.

    Args:
        a (np.ndarray): (n, 96) uint8, of :func:`sound_levels`.
        b (np.ndarray): As ``a``.

    Returns:
        np.ndarray: (n,) mean absolute difference in dB.
    """
    away = a.astype(np.float32) - b
    away -= away.mean(axis=1, keepdims=True)
    return SOUND_STEP * np.abs(away).mean(axis=1)


def find_duplicates(picture: np.ndarray,
                    sound: np.ndarray,
                    duration: np.ndarray,
                    good: Optional[np.ndarray] = None,
                    max_picture: float = 10.,
                    max_sound: float = 1.7,
                    max_seconds: float = 0.5) -> Duplicates:
    """Find clips that are copies of others.

    Clips that share the low frequencies of any span of the picture, and
    whose spectra are about as steep, are compared in full; not all with all,
    so that time and memory grow with the number of clips, not its square.

    Args:
        picture (np.ndarray): (n, 8) uint64, of :func:`hash_pictures`.
        sound (np.ndarray): (n, 96) uint8, of :func:`sound_levels`.
        duration (np.ndarray): (n,) seconds.
        good (np.ndarray, optional): (n,) bool; of equal clips, the first
            good one is the original, or else the first. Defaults to None,
            all are good.
        max_picture (float): Most bits of 64 by which the pictures differ on
            average. Defaults to 10.
        max_sound (float): Largest mean difference of the sounds in dB.
            Defaults to 1.7.
        max_seconds (float): Largest difference in length.
            Defaults to 0.5.

    Returns:
        Duplicates: The copies.
    """
    n = len(picture)
    rank = np.arange(n)
    if good is not None:
        rank[np.argsort(~np.asarray(good, bool), kind='stable')] = np.arange(n)
    # Level of the low bands over that of the high ones, scaled so that it
    # differs by no more than the mean absolute difference of all does.
    bands = sound.reshape(n, SOUND_SPANS, SOUND_BANDS)
    half = SOUND_BANDS // 2
    slope = SOUND_STEP / 2 * (
        bands[..., :half].mean(axis=(1, 2), dtype=np.float32) -
        bands[..., half:].mean(axis=(1, 2), dtype=np.float32))

    pairs: List[np.ndarray] = []
    compared = skipped = 0
    for i in range(PICTURE_SPANS):
        key = picture[:, i] & _KEY
        order = np.lexsort((slope, key))
        key, steep = key[order], slope[order]
        # Up to where each clip has others to be compared with.
        last = np.searchsorted(key, key, side='right') - 1
        near = np.searchsorted(
            _composed(key, steep), _composed(key, steep + max_sound + 1e-3),
            side='right') - 1
        last = np.minimum(last, near)
        span = last - np.arange(n)
        skipped += int(np.maximum(span - _MOST, 0).sum())
        for lag in range(1, min(int(span.max(initial=0)), _MOST) + 1):
            at = np.flatnonzero(span >= lag)
            a, b = order[at], order[at + lag]
            compared += len(a)
            same = np.abs(duration[a] - duration[b]) <= max_seconds
            a, b = a[same], b[same]
            same = picture_distance(picture[a], picture[b]) <= max_picture
            a, b = a[same], b[same]
            same = sound_distance(sound[a], sound[b]) <= max_sound
            a, b = a[same], b[same]
            swap = rank[a] > rank[b]
            pairs.append(
                np.stack([np.where(swap, b, a), np.where(swap, a, b)]))

    first, second = np.concatenate(
        pairs, axis=1) if pairs else np.zeros((2, 0), int)
    order = np.lexsort((rank[first], rank[second]))
    original: Dict[int, int] = {}
    # By rank, so that what a clip is a copy of is known before.
    for a, b in zip(first[order].tolist(), second[order].tolist()):
        if a not in original and b not in original:
            original[b] = a
    return Duplicates(original, compared, skipped)


def _composed(key: np.ndarray, steep: np.ndarray) -> np.ndarray:
    """One number that sorts by key (28 bits), then by slope."""
    return key.astype(np.float64) * 128 + np.clip(steep, -30, 30) + 32
