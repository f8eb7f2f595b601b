"""Drawing on RGB arrays with OpenCV."""

from typing import Optional, Sequence, Tuple, Union

import cv2
import numpy as np
import torch
import torch.nn.functional as F

Color = Tuple[int, int, int]
GREEN: Color = (46, 204, 64)
ORANGE: Color = (255, 140, 0)
RED: Color = (235, 50, 60)
GRAY: Color = (190, 190, 190)


def _colorize(values: np.ndarray, colormap: int) -> np.ndarray:
    """Values (H, W) in [0, 1] to an RGB image (H, W, 3) uint8."""
    values = np.round(values * 255).astype(np.uint8)
    return cv2.applyColorMap(values, colormap)[..., ::-1]


def _to_unit_range(values: np.ndarray) -> np.ndarray:
    """Stretch to [0, 1]; constant values become 0."""
    low, high = float(values.min()), float(values.max())
    return (values - low) / (high - low) if high > low else values * 0


def enlarge(image: np.ndarray, min_side: int) -> Tuple[np.ndarray, int]:
    """Enlarge small images so that lines and text on them can be read.

    Args:
        image (np.ndarray): (H, W, 3) uint8.
        min_side (int): The shorter side will be about this long at least,
            in pixels.

    Returns:
        tuple: The image, and the whole factor by which it was enlarged.
    """
    factor = max(1, round(min_side / min(image.shape[:2])))
    if factor > 1:
        image = cv2.resize(
            image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC
        )
    return image, factor


def heatmap_overlay(
    image: np.ndarray,
    heatmap: Union[np.ndarray, torch.Tensor],
    img_shape: Optional[Sequence[int]] = None,
    homography_matrix: Optional[np.ndarray] = None,
    opacity: float = 0.65,
) -> np.ndarray:
    """Lay a heatmap over the frame that it belongs to.

    The map is upsampled to the network's input and taken back to the frame;
    its own range is stretched to the whole color map. Parts of the frame
    that the network did not see stay dark.

    Args:
        image (np.ndarray): (H, W, 3) uint8 RGB, the original frame.
        heatmap (np.ndarray | Tensor): (h, w).
        img_shape (Sequence[int], optional): (height, width) of the network's
            input. Defaults to None: the size of the frame.
        homography_matrix (np.ndarray, optional): (3, 3), maps pixels of the
            frame to those of the network's input. Defaults to None: frame
            and input differ by scale only.
        opacity (float): Of the map at its maximum, in [0, 1]; it falls to a
            third of that at the minimum. Defaults to 0.65.

    Returns:
        np.ndarray: (H, W, 3) uint8 RGB.
    """
    height, width = image.shape[:2]
    in_height, in_width = (img_shape or (height, width))[:2]
    if homography_matrix is None:
        homography_matrix = np.diag([in_width / width, in_height / height, 1])
    values = F.interpolate(
        torch.as_tensor(heatmap).float().cpu()[None, None],
        size=(in_height, in_width),
        mode='bilinear',
        align_corners=False,
    )[0, 0].numpy()
    values = _to_unit_range(values)
    # OpenCV counts pixel centers as whole numbers, the homography edges.
    shift = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    matrix = np.linalg.inv(shift) @ homography_matrix @ shift
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    values = cv2.warpPerspective(
        values, matrix, (width, height), flags=flags, borderValue=-1
    )
    seen = (values >= 0)[..., None]
    values = values.clip(0, 1)
    colors = _colorize(values, cv2.COLORMAP_TURBO).astype(np.float32)
    weight = opacity * (1 + 2 * values[..., None]) / 3
    mixed = (1 - weight) * image + weight * colors
    return np.where(seen, mixed, 0.4 * image).round().astype(np.uint8)


def draw_boxes(
    image: np.ndarray,
    boxes: np.ndarray,
    color: Union[Color, Sequence[Color]],
    texts: Optional[Sequence[str]] = None,
    thickness: int = 2,
) -> np.ndarray:
    """Draw boxes and what is written on them.

    Args:
        image (np.ndarray): (H, W, 3) uint8 RGB.
        boxes (np.ndarray): (n, 4) ``xyxy`` in pixels.
        color (tuple | list[tuple]): RGB, one for all boxes or one for each.
        texts (Sequence[str], optional): One for each box; '' for none.
        thickness (int): Of the lines, in pixels. Defaults to 2.

    Returns:
        np.ndarray: (H, W, 3) uint8 RGB, a copy.
    """
    image = np.ascontiguousarray(image).copy()
    height, width = image.shape[:2]
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    one = len(color) == 3 and not isinstance(color[0], (tuple, list))
    colors = [color] * len(boxes) if one else list(color)
    for i, box in enumerate(boxes):
        x1, y1, x2, y2 = np.round(box).astype(int).tolist()
        cv2.rectangle(image, (x1, y1), (x2 - 1, y2 - 1), colors[i], thickness)
        if texts is None or not texts[i]:
            continue
        font, scale = cv2.FONT_HERSHEY_SIMPLEX, 0.45
        (w, h), base = cv2.getTextSize(texts[i], font, scale, 1)
        # Above the box, or inside where there is no room; never outside.
        top = y1 - h - base - 2 if y1 >= h + base + 2 else y1
        left = max(0, min(x1, width - w - 4))
        top = max(0, min(top, height - h - base - 2))
        cv2.rectangle(
            image,
            (left, top),
            (left + w + 4, top + h + base + 2),
            colors[i],
            -1,
        )
        dark = np.dot(colors[i], (0.3, 0.59, 0.11)) < 140
        cv2.putText(
            image,
            texts[i],
            (left + 2, top + h + 1),
            font,
            scale,
            (255, 255, 255) if dark else (0, 0, 0),
            1,
            cv2.LINE_AA,
        )
    return image


def spectrogram_image(
    waveform: np.ndarray,
    sample_rate: int,
    size: Tuple[int, int] = (80, 320),
    n_mels: int = 64,
    range_db: float = 60.0,
) -> np.ndarray:
    """Log-mel spectrogram of a sound as a picture.

    Args:
        waveform (np.ndarray): (T,) in [-1, 1]; at least one sample.
        sample_rate (int): Hz.
        size (tuple[int, int]): Height and width of the picture in pixels.
            Defaults to (80, 320).
        n_mels (int): Number of bands. Defaults to 64.
        range_db (float): What is this much below the loudest spot is black.
            Defaults to 60.

    Returns:
        np.ndarray: (*size, 3) uint8 RGB; low bands at the bottom.
    """
    # Imported here: drawing boxes needs no torchaudio.
    from torchaudio.transforms import MelSpectrogram

    waveform = torch.as_tensor(np.asarray(waveform, np.float32)).flatten()
    window = int(0.04 * sample_rate)
    transform = MelSpectrogram(
        sample_rate,
        n_fft=max(1024, window),
        win_length=window,
        hop_length=max(1, window // 4),
        n_mels=n_mels,
        pad_mode='constant',
    )
    level = 10 * torch.log10(transform(waveform) + 1e-10)
    level = level.clamp(min=float(level.max()) - range_db)
    values = _to_unit_range(level.numpy())[::-1]
    values = cv2.resize(
        values, (size[1], size[0]), interpolation=cv2.INTER_LINEAR
    )
    return _colorize(values, cv2.COLORMAP_INFERNO)
