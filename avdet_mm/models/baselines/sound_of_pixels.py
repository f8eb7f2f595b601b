"""Sound of Pixels: localize by separating mixed sounds.

H. Zhao et al., "The Sound of Pixels" (ECCV 2018); details from its public
code. A row of the paper's Table 2.
"""
from typing import Dict, List, Optional, Tuple

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from avdet_mm.registry import MODELS
from avdet_mm.structures import AudioVisualDataSample

from ..localizers.base_localizer import BaseLocalizer

# Of the public code: the curvature of the frequency axis, what keeps silent
# cells finite, and the limits of the weights of cells.
_WARP = 21.
_FLOOR = 1e-10
_WEIGHTS = (1e-3, 10.)


@MODELS.register_module()
class SoundUNet(BaseModule):
    """The U-Net that splits a log spectrogram into K components.

    Each level halves both axes by a 4x4 convolution; on the way back up,
    bilinear upsampling and a 3x3 convolution, beside the level's input.
    Maps are resized to the sizes of the way down, so any size will do.

    Args:
        out_channels (int): K. Defaults to 32.
        base_channels (int): Width of the first level; it doubles from level
            to level, up to eight times. Defaults to 64.
        num_levels (int): Defaults to 7, for 256 x 256 cells.
        init_cfg (dict | list, optional): Defaults to that of the public
            code: convolutions N(0, 0.001), factors of batch norms
            N(1, 0.02).

    Shape:
        - Input: (B, 1, F, T), both axes at least ``2**num_levels``.
        - Output: tuple of one tensor, (B, K, F, T).
    """

    def __init__(self,
                 out_channels: int = 32,
                 base_channels: int = 64,
                 num_levels: int = 7,
                 init_cfg: Optional[dict] = None) -> None:
        if init_cfg is None:
            init_cfg = [
                dict(type='Normal', layer='Conv2d', std=0.001),
                dict(type='Normal', layer='BatchNorm2d', mean=1., std=0.02),
            ]
        super().__init__(init_cfg)
        self.out_channels = out_channels
        self.num_levels = num_levels
        widths = [base_channels * min(2**i, 8) for i in range(num_levels)]
        self.norm = nn.BatchNorm2d(1)
        self.downs, self.ups = nn.ModuleList(), nn.ModuleList()
        for i, width in enumerate(widths):
            outer, inner = i == 0, i == num_levels - 1
            above = 1 if outer else widths[i - 1]
            down = nn.Conv2d(above, width, 4, 2, 1, bias=False)
            up = nn.Conv2d(
                width if inner else 2 * width,
                out_channels if outer else above,
                3,
                padding=1,
                bias=outer)
            if not outer and not inner:
                down = nn.Sequential(down, nn.BatchNorm2d(width))
            if not outer:
                up = nn.Sequential(up, nn.BatchNorm2d(above))
            self.downs.append(down)
            self.ups.append(up)

    def forward(self, x: Tensor) -> Tuple[Tensor]:
        """Components of spectrograms.

        Raises:
            ValueError: If the spectrogram is too small for the levels.
        """
        if min(x.shape[2:]) < 2**self.num_levels:
            raise ValueError(
                f'A spectrogram of {x.shape[2]} x {x.shape[3]} cells cannot '
                f'be halved {self.num_levels} times. Use a longer '
                'audio_duration, a shorter hop_length or fewer num_levels.')
        x = self.norm(x)
        inputs = []
        for i, down in enumerate(self.downs):
            inputs.append(x)
            x = down(F.leaky_relu(x, 0.2) if i else x)
        for i in reversed(range(self.num_levels)):
            x = F.interpolate(
                F.relu(x),
                size=inputs[i].shape[2:],
                mode='bilinear',
                align_corners=True)
            x = self.ups[i](x)
            if i:
                x = torch.cat([inputs[i], x], dim=1)
        return (x, )


@MODELS.register_module()
class SoundOfPixels(BaseLocalizer):
    r"""Learn which pixels sound by separating mixed sounds with frames.

    The sounds of N clips are mixed. A U-Net splits the mixture's log
    spectrogram into K components :math:`a_k`, a frame network gives each
    frame K values :math:`v_k` in (0, 1), and the mask of a frame's own sound
    is :math:`\sigma(\sum_k s_k v_k a_k + b)`. The target is binary: where
    the clip's magnitude is more than half of the mixture's.

    A location's heat is the share of the energy of the clip's own sound,
    not mixed, that the mask made from that location alone lets through. The
    public code has masks per pixel, but no heatmaps: which sound is masked
    and how energy is summed are inferred, and cells are those of the
    logarithmic frequency axis. A location without any component lets
    :math:`\sigma(b)^2` through, about a quarter: heatmaps have no zeros, so
    a threshold far below half of the maximum selects the whole frame.

    Different from the public code: one frame per clip instead of the
    maximum over three, since a sample here has one; and clips are mixed with
    others of their batch (clip i with clips i - 1, ..., i - N + 1) instead
    of with clips that are loaded for it. So a batch of B clips gives B
    mixtures, and each clip is in N of them.

    Args:
        visual_backbone (dict): Frame encoder; its last output is used.
        audio_backbone (dict): Such as :class:`SoundUNet`; its
            ``out_channels`` is K.
        visual_channels (int): Of the frame encoder's output. Defaults to
            512.
        num_mix (int): N. Defaults to 2.
        n_fft (int): Samples per window. Defaults to 1022.
        hop_length (int): Samples between windows. Defaults to 256.
        num_bins (int): Cells of the logarithmic frequency axis. Defaults to
            256.
        box_extractor (dict): Used in predict mode. Defaults to
            :class:`HeatmapBoxExtractor` with its defaults.
        data_preprocessor (dict, optional): Defaults to
            :class:`WaveformDataPreprocessor` with its defaults.
        init_cfg (dict, optional): Defaults to None.
    """

    def __init__(
        self,
        visual_backbone: dict,
        audio_backbone: dict,
        visual_channels: int = 512,
        num_mix: int = 2,
        n_fft: int = 1022,
        hop_length: int = 256,
        num_bins: int = 256,
        box_extractor: dict = dict(type='avdet_mm.HeatmapBoxExtractor'),
        data_preprocessor: Optional[dict] = None,
        init_cfg: Optional[dict] = None,
    ) -> None:
        if num_mix < 2:
            raise ValueError('num_mix must be at least 2: a sound that is '
                             f'not mixed teaches nothing, got {num_mix}.')
        if data_preprocessor is None:
            data_preprocessor = dict(type='avdet_mm.WaveformDataPreprocessor')
        super().__init__(visual_backbone, audio_backbone, box_extractor,
                         data_preprocessor, init_cfg)
        self.num_mix = num_mix
        self.n_fft = n_fft
        self.hop_length = hop_length
        num_channels = self.audio_backbone.out_channels
        self.visual_conv = nn.Conv2d(
            visual_channels, num_channels, 3, padding=1)
        self.scale = nn.Parameter(torch.ones(num_channels))
        self.bias = nn.Parameter(torch.zeros(1))
        self.register_buffer('window', torch.hann_window(n_fft), False)
        # Where the cells of the logarithmic axis lie on the linear one.
        top = n_fft // 2
        place = top * (_WARP**torch.linspace(0, 1, num_bins) - 1) / (_WARP - 1)
        lower = place.long().clamp(max=top - 1)
        self.register_buffer('lower', lower, False)
        self.register_buffer('fraction', (place - lower)[:, None], False)

    @torch.autocast('cuda', enabled=False)
    def spectrum(self, waveform: Tensor) -> Tensor:
        """Short-time Fourier transform, windows centered on their times.

        Args:
            waveform (Tensor): (B, T) float32.

        Returns:
            Tensor: (B, n_fft // 2 + 1, 1 + T // hop_length) complex64.

        Raises:
            ValueError: If the sound is shorter than half a window.
        """
        if waveform.shape[1] <= self.n_fft // 2:
            raise ValueError(
                f'{waveform.shape[1]} samples are too few for windows of '
                f'{self.n_fft}. Use a longer audio_duration in LoadClip, or '
                'a smaller n_fft.')
        return torch.stft(
            waveform.float(),
            self.n_fft,
            self.hop_length,
            window=self.window,
            return_complex=True)

    def magnitude(self, spectrum: Tensor) -> Tensor:
        """Magnitude on the logarithmic frequency axis.

        Args:
            spectrum (Tensor): (..., n_fft // 2 + 1, T) complex64.

        Returns:
            Tensor: (..., num_bins, T) float32, linearly interpolated.
        """
        linear = spectrum.abs()
        return torch.lerp(linear[..., self.lower, :],
                          linear[..., self.lower + 1, :], self.fraction)

    def separate(self, magnitude: Tensor) -> Tensor:
        """Components of sounds.

        Args:
            magnitude (Tensor): (B, num_bins, T).

        Returns:
            Tensor: (B, K, num_bins, T).
        """
        return self.audio_backbone(magnitude.log()[:, None])[-1]

    def synthesize(self, visual: Tensor, sound: Tensor) -> Tensor:
        """Logits of masks, from frames or locations and components.

        Args:
            visual (Tensor): (B, K, n) in (0, 1).
            sound (Tensor): (B, K, num_bins, T).

        Returns:
            Tensor: (B, n, num_bins, T).
        """
        weights = visual * self.scale[:, None]
        return torch.einsum('bkn,bkft->bnft', weights, sound) + self.bias

    def mix(self, spectrum: Tensor) -> Tuple[Tensor, Tensor]:
        """Mix each clip's sound with those of the clips before it.

        Args:
            spectrum (Tensor): (B, F, T) complex64.

        Returns:
            tuple[Tensor, Tensor]: Magnitudes of the mixtures, (B, num_bins,
            T), above 0, and targets of their masks, (B, num_mix, num_bins,
            T) float32 0 or 1; number n of mixture i is clip (i - n) mod B.

        Raises:
            ValueError: If the batch has fewer than ``num_mix`` clips.
        """
        if len(spectrum) < self.num_mix:
            raise ValueError(
                f'{self.num_mix} different clips are mixed, but the batch '
                f'has {len(spectrum)}. Use a larger batch_size, and '
                'drop_last=True in the data loader.')
        parts = self._rolled(spectrum / self.num_mix)
        mixture = self.magnitude(parts.sum(dim=1)) + _FLOOR
        targets = self.magnitude(parts) > 0.5 * mixture[:, None]
        return mixture, targets.float()

    def _rolled(self, x: Tensor) -> Tensor:
        """(B, ...) to (B, num_mix, ...): each with those before it."""
        return torch.stack(
            [x.roll(n, dims=0) for n in range(self.num_mix)], dim=1)

    def encode(self, frame: Tensor, audio: Tensor) -> Dict[str, Tensor]:
        """Encode frames and transform sounds.

        Args:
            frame (Tensor): (B, 3, H, W).
            audio (Tensor): (B, T), waveforms.

        Returns:
            dict[str, Tensor]: ``visual`` (B, K, h, w), before the sigmoid,
            and ``spectrum`` (B, n_fft // 2 + 1, T') complex64.
        """
        return dict(
            visual=self.visual_conv(self.visual_backbone(frame)[-1]),
            spectrum=self.spectrum(audio))

    def loss(
        self,
        outs: Dict[str, Tensor],
        data_samples: Optional[List[AudioVisualDataSample]] = None
    ) -> Dict[str, Tensor]:
        """Binary cross-entropy of the masks, more weight on loud cells.

        Args:
            outs (dict[str, Tensor]): What :meth:`encode` returns.
            data_samples (list, optional): Not looked at.

        Returns:
            dict[str, Tensor]: ``loss_mask``, the mean over cells, clips and
            mixtures of the cross-entropy times log(1 + magnitude of the
            mixture), which is clamped to [0.001, 10].
        """
        mixture, targets = self.mix(outs['spectrum'])
        visual = outs['visual'].amax(dim=(2, 3)).sigmoid()
        logits = self.synthesize(
            self._rolled(visual).transpose(1, 2), self.separate(mixture))
        weights = mixture.log1p().clamp(*_WEIGHTS)[:, None]
        loss = F.binary_cross_entropy_with_logits(
            logits, targets, weight=weights.expand_as(targets))
        return dict(loss_mask=loss)

    def heatmaps(self, outs: Dict[str, Tensor]) -> Tensor:
        """Share of each clip's energy that each location lets through.

        Args:
            outs (dict[str, Tensor]): What :meth:`encode` returns.

        Returns:
            Tensor: (B, h, w) float32 in [0, 1].
        """
        magnitude = self.magnitude(outs['spectrum']) + _FLOOR
        visual = outs['visual'].sigmoid()
        energy = magnitude.square().flatten(1)
        energy = energy / energy.sum(dim=1, keepdim=True)
        heatmaps = []
        # One by one: the masks of all locations of a batch take gigabytes.
        for v, a, e in zip(
                visual.flatten(2), self.separate(magnitude), energy):
            masks = self.synthesize(v[None], a[None])[0].float().sigmoid()
            heatmaps.append(masks.square().flatten(1) @ e)
        return torch.stack(heatmaps).view(-1, *visual.shape[2:])
