"""Size and length of a clip that its row may not tell."""
import os.path as osp
from typing import Tuple

from .clip_table import expand_frames
from .media import (
    BrokenClipError,
    open_audio,
    open_video,
    read_image,
    upright_size,
    video_duration,
)


def frame_size(row: dict, table: str) -> Tuple[int, int]:
    """Size of a clip's frames, as the pipeline loads them.

    It is the row's ``height`` and ``width``; without these, that of the
    first prepared frame, or of the video's first frame, turned as it is to
    be displayed.

    Args:
        row (dict): Row of a clip table.
        table (str): Path of the table; the row's paths are relative to its
            folder.

    Returns:
        tuple: Height and width in pixels.

    Raises:
        BrokenClipError: If the frame cannot be read.
    """
    if 'height' in row and 'width' in row:
        return row['height'], row['width']
    folder = osp.dirname(table)
    if 'video_path' not in row:
        path = expand_frames(row['frames'])[0]['path']
        height, width = read_image(osp.join(folder, path)).shape[:2]
        return height, width
    path = osp.join(folder, row['video_path'])
    with open_video(path) as container:
        # PyAV tells the rotation with a decoded frame only.
        for frame in container.decode(container.streams.video[0]):
            return upright_size(frame)
    raise BrokenClipError(path, 'no frame can be decoded')


def clip_duration(row: dict, table: str) -> float:
    """Length of a clip: the row's ``duration``, else by the file's header.

    Args:
        row (dict): Row of a clip table.
        table (str): Path of the table; the row's paths are relative to its
            folder.

    Returns:
        float: Seconds.

    Raises:
        BrokenClipError: If the header cannot be read.
    """
    if 'duration' in row:
        return row['duration']
    folder = osp.dirname(table)
    if 'video_path' in row:
        with open_video(osp.join(folder, row['video_path'])) as container:
            return video_duration(container)
    with open_audio(osp.join(folder, row['audio_path'])) as file:
        return file.frames / file.samplerate
