"""A tiny pack of made-up ingredients for the tests of StampSound."""
import json
from pathlib import Path

import cv2
import numpy as np
import soundfile

from avdet_mm.datasets.stampsound import PRESETS
from avdet_mm.utils import file_sha256

# Those of the small preset and two more.
CLASSES = sorted(PRESETS['small'].classes + ('cat', 'bus'))
WITH_ALT = ('cat', 'frog', 'hen', 'tiger')
# The packs that the benchmark itself is made of, where they are at hand.
REAL_PACK = Path(__file__).resolve().parents[2] / 'shared/data/stampsound'


def ellipse(h: int, w: int) -> np.ndarray:
    """Opaque ellipse within a transparent border, (h, w) uint8."""
    y = (np.arange(h)[:, None] - (h - 1) / 2) / (h / 2 - 2)
    x = (np.arange(w) - (w - 1) / 2) / (w / 2 - 2)
    return np.where(x * x + y * y <= 1, 255, 0).astype(np.uint8)


def make_tiny_pack(root: Path) -> str:
    """Write the ingredients and their list; returns the list's path."""
    rng = np.random.default_rng(0)
    files = {}

    def done(path: str) -> str:
        files[path] = dict(
            sha256=file_sha256(root / path), origin=f'usr/{path}')
        return path

    def photo(path: str) -> str:
        h, w = rng.integers(24, 60, 2).tolist()
        image = rng.integers(0, 256, (3, 3, 4), dtype=np.uint8)
        image = image.repeat(20, axis=0).repeat(20, axis=1)[:h, :w].copy()
        image[..., 3] = ellipse(h, w)
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / path), image)
        return done(path)

    def background(path: str) -> str:
        image = rng.integers(0, 256, (3, 4, 3), dtype=np.uint8)
        image = image.repeat(32, axis=0).repeat(32, axis=1)
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        # A JPEG's pixels would depend on the library that decodes it.
        cv2.imwrite(str(root / path), image)
        return done(path)

    def sound(path: str, pitch: float) -> str:
        t = np.arange(8000 + rng.integers(8000)) / 16000
        wave = 0.3 * np.sin(2 * np.pi * pitch * t)
        wave[4000:6000] = 0
        soundfile.write(root / path, wave, 16000, format='OGG')
        return done(path)

    listing = dict(
        classes={
            name: dict(
                photo=photo(f'stamps/{name}.png'),
                sound=sound(f'stamps/{name}.ogg', 200. * 1.25**i),
                alt=[photo(f'stamps/{name}_alt.png')]
                if name in WITH_ALT else [])
            for i, name in enumerate(CLASSES)
        },
        distractors=dict(
            train=[photo(f'stamps/thing_{i}.png') for i in range(4)],
            test=[photo(f'stamps/thing_{i}.png') for i in range(4, 7)]),
        backgrounds=dict(
            train=[background(f'backgrounds/{i}.png') for i in range(2)],
            test=[background(f'backgrounds/{i}.png') for i in range(2, 4)]),
        files=files)
    path = root / 'listing.json'
    path.write_text(json.dumps(listing))
    return str(path)
