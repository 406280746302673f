"""The front-ends of Essentia's algorithms: `captum_concepts.audio.frontends.Frontend` with their numbers.

Each agrees with essentia's own ``TensorflowInput*`` (tests/test_frontends.py).
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from captum_concepts.audio import PRESETS, Frontend, FrontendConfig, frontend
from captum_concepts.errors import InputError
from captum_concepts.text import short_repr

#: Essentia's algorithm -> (patch frames, frames between patches) by default.
PATCHES = {
    "TensorflowPredictMusiCNN": (187, 93),
    "TensorflowPredictVGGish": (96, 93),
    "TensorflowPredictEffnetDiscogs": (128, 62),
    "TensorflowPredictMAEST": (1876, 1875),
    "TensorflowPredictTempoCNN": (256, 128),
    "TensorflowPredictFSDSINet": (101, 50),
}
#: MAEST's patch frames -> frames between patches, for models of 5, 10, 20 and 30 s.
MAEST_HOPS = {316: 313, 626: 625, 1256: 1250, 1876: 1875}
MAEST_MEAN, MAEST_SPREAD = 2.06755686098554, 2 * 1.268292820667291


class MaestFrontend(Frontend):
    """MusiCNN's log-mel, centred and scaled as MAEST was trained with."""

    def forward(self, waveforms: Tensor) -> Tensor:
        return (super().forward(waveforms) - MAEST_MEAN) / MAEST_SPREAD


class _UncompressedFrontend(Frontend):
    """Mel bands by a subclass's own last step; what ``compression`` says does not count."""

    def bands(self, waveforms: Tensor) -> Tensor:
        """Waveforms (B, patch_samples) to mel bands (B, frames, mel)."""
        frames = waveforms.to(self.mel.dtype).unfold(1, self.window_samples, self.frame_hop) * self.window
        magnitudes = torch.fft.rfft(frames, n=self.n_fft).abs()
        return (magnitudes if self.power == 1 else magnitudes.square()) @ self.mel


class TempoFrontend(_UncompressedFrontend):
    """TempoCNN's mel magnitudes, (B, 40, frames, 1): each patch has mean 0 and variance 1."""

    def forward(self, waveforms: Tensor) -> Tensor:
        bands = self.bands(waveforms)
        centred = bands - bands.mean((1, 2), keepdim=True)
        spread = centred.square().mean((1, 2), keepdim=True).sqrt()
        return (centred / spread.where(spread > 0, 1)).transpose(1, 2)[..., None]


class SinetFrontend(_UncompressedFrontend):
    """FSD-SINet's log-mel (B, frames, 96).

    Essentia also scales each file to a peak of 1 by default. Patches do not know their file: normalise it before.
    """

    def __init__(self, config: FrontendConfig) -> None:
        super().__init__(config)
        self.window.copy_(torch.hamming_window(self.window_samples))

    def forward(self, waveforms: Tensor) -> Tensor:
        return torch.log10(self.bands(waveforms) + 1e-30)


def algorithm_frontend(algorithm: str, frames: int | None = None, hop: int | None = None) -> Frontend:
    """The front-end of one of Essentia's algorithms.

    Args:
        algorithm: e.g. "TensorflowPredictMusiCNN", a key of ``PATCHES``.
        frames: frames per patch, where the graph states them.
        hop: frames between patches.

    Raises:
        InputError: no such algorithm.
    """
    if algorithm not in PATCHES:
        raise InputError(f"algorithm={short_repr(algorithm)}: has no front-end here; use one of {', '.join(PATCHES)}")
    default, between = PATCHES[algorithm]
    frames = frames or default
    if algorithm == "TensorflowPredictMAEST":
        between = MAEST_HOPS.get(frames, frames)
    between = hop or (between if frames in (default, *MAEST_HOPS) else frames)
    if algorithm == "TensorflowPredictVGGish":
        return frontend("vggish", patch_frames=frames, hop_samples=between * 160)
    kind, config = _CONFIGS.get(algorithm, (Frontend, PRESETS["musicnn"]))
    return kind(replace(config, patch_frames=frames, hop_samples=between * config.frame_hop))


#: Algorithm -> its front-end, where that is not MusiCNN's own.
_CONFIGS: dict[str, tuple[type[Frontend], FrontendConfig]] = {
    "TensorflowPredictMAEST": (MaestFrontend, PRESETS["musicnn"]),
    "TensorflowPredictTempoCNN": (
        TempoFrontend,
        FrontendConfig(
            sample_rate=11025,
            n_fft=1024,
            window_samples=1024,
            frame_hop=512,
            periodic=False,
            n_mels=40,
            f_min=20.0,
            f_max=5000.0,
            mel_scale="slaney",
            mel_norm="slaney",
            power=1,
            compression="dB",
            centre="clip",
        ),
    ),
    "TensorflowPredictFSDSINet": (
        SinetFrontend,
        FrontendConfig(
            sample_rate=22050,
            n_fft=2048,
            window_samples=660,
            frame_hop=220,
            periodic=True,
            n_mels=96,
            f_min=50.0,
            f_max=10500.0,
            mel_scale="slaney",
            mel_norm=None,
            power=2,
            compression="dB",
            centre="clip",
        ),
    ),
}
