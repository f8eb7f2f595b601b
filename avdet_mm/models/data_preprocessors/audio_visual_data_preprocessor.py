"""Frames and waveforms to network inputs, the log-mel on the whole batch.

Sec. 3.1 and App. B: one second of sound, 24 kHz, as a log-mel spectrogram.
The paper's size is lost; the default geometry is that of SeLaVi (20 ms
windows every 10 ms, 1024-point FFT, 257 bands: 257 x 99), which shares
authors and sampling rate. 38 of 257 bands are narrower than a bin of that
FFT and stay at the floor; they carry no information and do no harm.
"""
import warnings
from typing import Optional, Sequence

import torch
from torch import Tensor

from avdet_mm.registry import MODELS

from .waveform_data_preprocessor import WaveformDataPreprocessor

try:
    from torchaudio.transforms import MelSpectrogram
except OSError as error:
    raise ImportError(
        'torchaudio cannot load its compiled part beside this build of '
        'PyTorch (a CUDA build beside a CPU one, say). The transforms that '
        'are used here do not need that part: `make setup` removes it, or '
        f'install a matching torchaudio. The cause: {error}') from error


@MODELS.register_module()
class AudioVisualDataPreprocessor(WaveformDataPreprocessor):
    """Collate, move to the device, normalize, compute log-mel spectrograms.

    Args:
        mean (Sequence[float]): Per channel, 0..255, in the order that the
            network sees. Defaults to ImageNet's (RGB).
        std (Sequence[float]): Likewise.
        bgr_to_rgb (bool): Defaults to True.
        sample_rate (int): Of the incoming waveforms, Hz. Defaults to 24000.
        n_fft (int): Defaults to 1024.
        win_length (int): Samples. Defaults to 480 (20 ms).
        hop_length (int): Samples. Defaults to 240 (10 ms).
        n_mels (int): Defaults to 257.
        log_floor (float): Added to the mel energies before the logarithm;
            waveforms lie in [-1, 1]. Defaults to 1e-6.
        audio_mean (float, optional): Mean of the log-mel values. None
            leaves it to :class:`LogMelStatsHook`, which measures it on the
            training clips; it is a buffer and travels in the checkpoint.
        audio_std (float, optional): Likewise. Defaults to None.
        non_blocking (bool): Copy to the device while the CPU goes on; only
            data in pinned memory (``pin_memory=True`` in the data loader)
            can be copied so. Defaults to True.

    Shape:
        - ``inputs['frame']``: B uint8 (3, h, w), BGR; a list
          (``pseudo_collate``) or a tensor (``default_collate``, less work
          for the main process).
        - ``inputs['audio']``: likewise, float32 (T, ), in [-1, 1].
        - Output ``frame``: (B, 3, h, w) float32.
        - Output ``audio``: (B, 1, n_mels, 1 + (T - win_length) //
          hop_length) float32.
    """

    def __init__(self,
                 mean: Sequence[float] = (123.675, 116.28, 103.53),
                 std: Sequence[float] = (58.395, 57.12, 57.375),
                 bgr_to_rgb: bool = True,
                 sample_rate: int = 24000,
                 n_fft: int = 1024,
                 win_length: int = 480,
                 hop_length: int = 240,
                 n_mels: int = 257,
                 log_floor: float = 1e-6,
                 audio_mean: Optional[float] = None,
                 audio_std: Optional[float] = None,
                 non_blocking: bool = True) -> None:
        super().__init__(mean, std, bgr_to_rgb, non_blocking)
        if (audio_mean is None) != (audio_std is None):
            raise ValueError('Give both audio_mean and audio_std, or neither '
                             'to have them measured on the training clips.')
        self.sample_rate = sample_rate
        self.log_floor = log_floor
        # 0 in both: not measured yet.
        self.register_buffer('audio_mean', torch.tensor(audio_mean or 0.))
        self.register_buffer('audio_std', torch.tensor(audio_std or 0.))
        with warnings.catch_warnings():
            # Says that some bands are empty: see the module's docstring.
            warnings.filterwarnings('ignore', message='.*mel filterbank.*')
            # The padding centers the first window on its own samples, so
            # frame k covers samples k * hop .. k * hop + win_length.
            self.mel = MelSpectrogram(
                sample_rate=sample_rate,
                n_fft=n_fft,
                win_length=win_length,
                hop_length=hop_length,
                n_mels=n_mels,
                pad=(n_fft - win_length) // 2,
                center=False)
        # Constants of the transform: not part of the checkpoint.
        for module in self.mel.modules():
            module._non_persistent_buffers_set.update(module._buffers)

    def log_mel(self, waveform: Tensor) -> Tensor:
        """Log-mel spectrogram, not normalized.

        Args:
            waveform (Tensor): (B, T) float32 in [-1, 1].

        Returns:
            Tensor: (B, 1, n_mels, frames) float32, natural logarithm.
        """
        with torch.autocast(waveform.device.type, enabled=False):
            mel = self.mel(waveform.float())
        return mel.add_(self.log_floor).log_().unsqueeze(1)

    def forward(self, data: dict, training: bool = False) -> dict:
        """Turn a collated batch into the keywords of ``model.forward``.

        Raises:
            ValueError: If frames or waveforms differ in size.
        """
        data = super().forward(data, training)
        audio = self.log_mel(data['inputs']['audio'])
        # An `if` would make a GPU's queue run empty in every step.
        std = torch.where(self.audio_std > 0, self.audio_std, 1.)
        data['inputs']['audio'] = audio.sub_(self.audio_mean).div_(std)
        return data
