"""Front-ends: waveforms to log-mel patches, as modules that run on the device in batches.

A front-end is defined by the numbers in `Frontend`; presets reproduce the ones that published models were trained
with. Gradients flow to the waveform and are finite for digital silence.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from captum_concepts.audio._torchaudio import load
from captum_concepts.errors import InputError
from captum_concepts.text import short_repr, suggest

Layout = Literal["BTF", "BCTF", "BCFT"]
Centre = Literal["clip", "patch", "no"]
Compression = Literal["log10(1+10000x)", "ln(x+0.01)", "ln(x+0.000001)", "dB"]


def _require(condition: bool, name: str, value: object, remedy: str) -> None:
    if not condition:
        raise InputError(f"{name}={short_repr(value)}: is not possible for a front-end; give {remedy}")


def _require_numbers(**numbers: object) -> None:
    for name, value in numbers.items():
        _require(isinstance(value, int) and value > 0, name, value, "a positive whole number")


@dataclass(frozen=True)
class FrontendConfig:
    """The numbers of a front-end.

    Attributes:
        sample_rate: Hz of the waveform.
        n_fft: points of the Fourier transform; a window shorter than this is zero-padded at its end.
        window_samples: samples per frame.
        frame_hop: samples between frames.
        n_mels: mel bands.
        f_min, f_max: Hz, edges of the lowest and highest band.
        mel_scale, mel_norm: as `torchaudio.functional.melscale_fbanks`.
        mel_triangles: the sides of the bands are straight over "hz", as in torchaudio and librosa, or over "mel", as
            in the original VGGish (needs the "htk" scale and no norm).
        power: 1 for the magnitude, 2 for the power spectrum.
        periodic: the Hann window is periodic, else symmetric.
        compression: "log10(1+10000x)", "ln(x+0.01)", "ln(x+0.000001)" or "dB" (10 log10 for power and 20 log10 for
            magnitude spectra, floor 1e-10, as `torchaudio.transforms.AmplitudeToDB` without ``top_db``).
        patch_frames: frames per patch; None where ``patch_samples`` decides.
        patch_samples: samples per patch; None where ``patch_frames`` decides.
        hop_samples: samples between patches; None is ``patch_frames * frame_hop``, the next patch begins with the
            next frame.
        centre: "clip": half a window of zeros belongs around the signal of a clip (``pad``), so that its patches hold
            the centred frames of the whole clip; "patch": each patch is mirrored at its own ends by half a window, as
            `torch.stft` with ``center=True``; "no": frames begin where the patch begins.
        layout: "BTF" (B, frames, mel), "BCTF" (B, 1, frames, mel) or "BCFT" (B, 1, mel, frames).

    Raises:
        InputError: a number is out of range, or a name is unknown.
    """

    sample_rate: int
    n_fft: int
    window_samples: int
    frame_hop: int
    n_mels: int
    f_min: float
    f_max: float
    mel_scale: Literal["slaney", "htk"]
    mel_norm: Literal["slaney"] | None
    power: float
    periodic: bool
    compression: Compression
    mel_triangles: Literal["hz", "mel"] = "hz"
    patch_frames: int | None = None
    patch_samples: int | None = None
    hop_samples: int | None = None
    centre: Centre = "no"
    layout: Layout = "BTF"

    def __post_init__(self) -> None:
        _require_numbers(
            sample_rate=self.sample_rate,
            n_fft=self.n_fft,
            window_samples=self.window_samples,
            frame_hop=self.frame_hop,
            n_mels=self.n_mels,
        )
        _require(self.layout in ("BTF", "BCTF", "BCFT"), "layout", self.layout, "'BTF', 'BCTF' or 'BCFT'")
        _require(self.centre in ("clip", "patch", "no"), "centre", self.centre, "'clip', 'patch' or 'no'")
        _require(
            self.compression in _COMPRESSIONS, "compression", self.compression, " or ".join(map(repr, _COMPRESSIONS))
        )
        _require(self.mel_scale in ("slaney", "htk"), "mel_scale", self.mel_scale, "'slaney' or 'htk'")
        _require(self.mel_norm in ("slaney", None), "mel_norm", self.mel_norm, "'slaney' or None")
        _require(self.mel_triangles in ("hz", "mel"), "mel_triangles", self.mel_triangles, "'hz' or 'mel'")
        _require(
            self.window_samples <= self.n_fft, "window_samples", self.window_samples, f"at most n_fft = {self.n_fft}"
        )
        _require(self.power in (1, 2), "power", self.power, "1 (magnitude) or 2 (power)")
        _require(
            0 <= self.f_min < self.f_max <= self.sample_rate / 2,
            "f_min, f_max",
            (self.f_min, self.f_max),
            "0 <= f_min < f_max <= rate / 2",
        )
        if self.mel_triangles == "mel":
            given = (self.mel_scale, self.mel_norm)
            _require(given == ("htk", None), "mel_scale, mel_norm", given, "'htk' and None for triangles over mel")


class Frontend(nn.Module):
    """Framed spectrum, mel bands, compression.

    Args:
        config: its numbers.

    Attributes:
        patch_samples, patch_frames: the length of a patch, both ways.
        hop_samples: samples between patches.
        pad: zeros to put before and after a clip's signal before it is cut (`audio.iter_patches`).
    """

    window: Tensor
    mel: Tensor

    def __init__(self, config: FrontendConfig) -> None:
        super().__init__()
        self.sample_rate = config.sample_rate
        self.n_fft = config.n_fft
        self.window_samples = config.window_samples
        self.frame_hop = config.frame_hop
        self.n_mels = config.n_mels
        self.power = config.power
        self.compression: Compression = config.compression
        self.centre: Centre = config.centre
        self.layout: Layout = config.layout
        self.patch_samples = self._patch_samples(config.patch_frames, config.patch_samples)
        self.patch_frames = 1 + (self.patch_samples - self._beyond_hops) // config.frame_hop
        hop_samples = config.hop_samples
        if hop_samples is None:
            hop_samples = self.patch_samples if config.centre == "patch" else self.patch_frames * config.frame_hop
        _require_numbers(hop_samples=hop_samples)
        self.hop_samples = hop_samples
        left = config.window_samples // 2
        # The last frame is the first one whose centre lies at or behind the end of the signal, as in Essentia.
        self.pad = (left, config.window_samples - left + config.frame_hop - 1) if config.centre == "clip" else (0, 0)
        if config.mel_triangles == "mel":
            filters = _mel_triangles(
                config.n_fft // 2 + 1, config.f_min, config.f_max, config.n_mels, config.sample_rate
            )
        else:
            filters = load()[0].melscale_fbanks(
                config.n_fft // 2 + 1,
                config.f_min,
                config.f_max,
                config.n_mels,
                config.sample_rate,
                norm=config.mel_norm,
                mel_scale=config.mel_scale,
            )
        self.register_buffer(
            "window", torch.hann_window(config.window_samples, periodic=config.periodic), persistent=False
        )
        self.register_buffer("mel", filters, persistent=False)

    def extra_repr(self) -> str:
        """What ``repr`` shows: rate, frames, bands and patch."""
        shape = {"BTF": "(B, {t}, {f})", "BCTF": "(B, 1, {t}, {f})", "BCFT": "(B, 1, {f}, {t})"}[self.layout]
        return (
            f"{self.sample_rate} Hz, n_fft={self.n_fft}, window_samples={self.window_samples}, "
            f"frame_hop={self.frame_hop}, n_mels={self.n_mels}, power={self.power:g}, "
            f"compression={self.compression!r}, centre={self.centre!r}, hop_samples={self.hop_samples}: "
            f"(B, {self.patch_samples}) -> {shape.format(t=self.patch_frames, f=self.n_mels)}"
        )

    @property
    def _beyond_hops(self) -> int:
        """Samples that a row of frames needs beyond the hops between them."""
        return 0 if self.centre == "patch" else self.window_samples

    def _patch_samples(self, frames: int | None, samples: int | None) -> int:
        if (frames is None) == (samples is None):
            raise InputError("front-end: give patch_frames or patch_samples, and only one of them")
        if samples is None:
            _require_numbers(patch_frames=frames)
            samples = (cast(int, frames) - 1) * self.frame_hop + self._beyond_hops
        _require_numbers(patch_samples=samples)
        least = self.window_samples // 2 + 1 if self.centre == "patch" else self.window_samples
        _require(samples >= least, "patch_samples", samples, f"at least {least}")
        return samples

    def forward(self, waveforms: Tensor) -> Tensor:
        """Waveforms (B, patch_samples) to log-mel in ``layout``.

        Raises:
            InputError: the waveforms have another shape.
        """
        if waveforms.ndim != 2 or waveforms.shape[1] != self.patch_samples:
            raise InputError(
                f"waveforms have shape {tuple(waveforms.shape)}: give (batch, {self.patch_samples}) "
                f"samples at {self.sample_rate} Hz"
            )
        waveforms = waveforms.to(self.mel.dtype)
        if self.centre == "patch":
            half = self.window_samples // 2
            waveforms = nn.functional.pad(waveforms, (half, half), mode="reflect")
        frames = waveforms.unfold(1, self.window_samples, self.frame_hop) * self.window
        spectrum = torch.view_as_real(torch.fft.rfft(frames, n=self.n_fft))
        energy = spectrum.square().sum(-1)
        if self.power == 1:
            energy = _safe_sqrt(energy)
        logmel = _COMPRESSIONS[self.compression](energy @ self.mel, self.power)
        if self.layout == "BTF":
            return logmel
        return logmel[:, None] if self.layout == "BCTF" else logmel.transpose(1, 2)[:, None]


def _mel_triangles(n_bins: int, f_min: float, f_max: float, n_mels: int, sample_rate: int) -> Tensor:
    """Filters (n_bins, n_mels) of peak 1, triangular over HTK mel, 2595 log10(1 + f / 700)."""
    low, high = (2595 * math.log10(1 + f / 700) for f in (f_min, f_max))
    edges = torch.linspace(low, high, n_mels + 2, dtype=torch.float64)
    bins = 2595 * torch.log10(1 + torch.linspace(0, sample_rate / 2, n_bins, dtype=torch.float64) / 700)
    rising = (bins[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins[:, None]) / (edges[2:] - edges[1:-1])
    return torch.minimum(rising, falling).clamp_min(0).float()


def _safe_sqrt(energy: Tensor) -> Tensor:
    """Square root whose gradient at zero is finite: digital silence must not turn gradients into NaN."""
    return energy.clamp_min(1e-24).sqrt()


def _log10_shifted(mel: Tensor, power: float) -> Tensor:
    return torch.log10(1 + 10000 * mel)


def _ln_shifted(mel: Tensor, power: float) -> Tensor:
    return torch.log(mel + 0.01)


def _ln_barely_shifted(mel: Tensor, power: float) -> Tensor:
    return torch.log(mel + 1e-6)


def _decibel(mel: Tensor, power: float) -> Tensor:
    return (20 / power) * torch.log10(mel.clamp_min(1e-10))


_COMPRESSIONS = MappingProxyType(
    {
        "log10(1+10000x)": _log10_shifted,
        "ln(x+0.01)": _ln_shifted,
        "ln(x+0.000001)": _ln_barely_shifted,
        "dB": _decibel,
    }
)
# "musicnn" and "vggish" give what Essentia's TensorflowInputMusiCNN and TensorflowInputVGGish give; "gtzan" gives what
# torchaudio's MelSpectrogram and AmplitudeToDB give for 29.1 s of a track.
PRESETS: Mapping[str, FrontendConfig] = MappingProxyType(
    {
        "musicnn": FrontendConfig(
            sample_rate=16000,
            n_fft=512,
            window_samples=512,
            frame_hop=256,
            n_mels=96,
            f_min=0.0,
            f_max=8000.0,
            mel_scale="slaney",
            mel_norm="slaney",
            power=2,
            periodic=False,
            compression="log10(1+10000x)",
            patch_frames=187,
            centre="clip",
            layout="BTF",
        ),
        "vggish": FrontendConfig(
            sample_rate=16000,
            n_fft=512,
            window_samples=400,
            frame_hop=160,
            n_mels=64,
            f_min=125.0,
            f_max=7500.0,
            mel_scale="htk",
            mel_triangles="mel",
            mel_norm=None,
            power=1,
            periodic=False,
            compression="ln(x+0.01)",
            patch_frames=96,
            centre="clip",
            layout="BTF",
        ),
        "gtzan": FrontendConfig(
            sample_rate=22050,
            n_fft=1024,
            window_samples=1024,
            frame_hop=512,
            n_mels=128,
            f_min=0.0,
            f_max=11025.0,
            mel_scale="htk",
            mel_norm=None,
            power=2,
            periodic=True,
            compression="dB",
            patch_samples=641655,
            centre="patch",
            layout="BCFT",
        ),
    }
)


def frontend(name_or_module: str | Frontend, **changes: Any) -> Frontend:
    """A preset by name, with single numbers changed: ``frontend("gtzan", patch_frames=256)``.

    Args:
        name_or_module: "musicnn", "vggish" or "gtzan"; a `Frontend` is returned as it is.
        changes: arguments of `Frontend`.

    Returns:
        the module.

    Raises:
        InputError: no such preset or argument, or changes to a finished module.

    Example:
        >>> frontend("musicnn").patch_frames, frontend("musicnn", patch_frames=96).patch_frames
        (187, 96)
        >>> frontend("musicn")
        Traceback (most recent call last):
        captum_concepts.errors.InputError: frontend='musicn': no such preset; did you mean 'musicnn'? presets: \
musicnn, vggish, gtzan
    """
    if isinstance(name_or_module, Frontend):
        if changes:
            raise InputError(
                f"changes={short_repr(sorted(changes))}: cannot change a finished front-end; give a preset's name"
            )
        return name_or_module
    if name_or_module not in PRESETS:
        raise InputError(
            f"frontend={short_repr(name_or_module)}: no such preset; {suggest(name_or_module, PRESETS, 'presets')}"
        )
    if "patch_frames" in changes or "patch_samples" in changes:
        changes = {"patch_frames": None, "patch_samples": None} | changes
    try:
        return Frontend(replace(PRESETS[name_or_module], **changes))
    except TypeError as error:
        raise InputError(f"frontend={short_repr(name_or_module)}: {error}; give arguments of Frontend") from error
