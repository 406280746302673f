"""The networks people train on GTZAN: waveform (batch, samples) at 22,050 Hz in, logits (batch, classes) out.

Architectures and parameter counts are those of https://github.com/stusiojan/AudioConcept, reimplemented.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from captum_concepts.audio import frontend
from captum_concepts.backbones import whole_samples
from captum_concepts.errors import InputError
from captum_concepts.text import short_repr

#: Seconds of a chunk.
MAX_SECONDS = 600.0
#: Options come out of files too: none may ask for more memory than there is.
_LARGEST = {"n_classes": 10_000, "sample_rate": 192_000, "n_fft": 16_384, "n_mels": 1024, "channels": 1024}


class GenreModel(nn.Module):
    """A network on log-mel energies (dB) of one chunk of audio.

    Args:
        n_classes: outputs.
        seconds: length of a chunk; what `forward` takes is exactly ``patch_samples`` long.
        sample_rate: Hz.
        n_fft: points of the Fourier transform and samples of the window; frames are half of it apart.
        f_min, f_max: Hz, edges of the lowest and highest mel band.
        n_mels: mel bands.

    Attributes:
        options: the keyword arguments that build this model again.
        patch_samples: samples per chunk.

    Raises:
        InputError: an option is out of range.
    """

    name: ClassVar[str]
    #: Layers that `captum_concepts` watches unless told otherwise.
    default_layers: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        n_classes: int,
        seconds: float,
        sample_rate: int = 22050,
        n_fft: int = 1024,
        f_min: float = 0.0,
        f_max: float = 11025.0,
        n_mels: int = 128,
    ) -> None:
        super().__init__()
        _require_whole(n_classes=n_classes, sample_rate=sample_rate, n_fft=n_fft, n_mels=n_mels)
        if not 0 < seconds <= MAX_SECONDS:
            raise InputError(f"seconds={short_repr(seconds)}: give more than 0 and at most {MAX_SECONDS:g}")
        with torch.device("cpu"):  # filters are computed from values, which "meta" tensors lack
            self.frontend = frontend(
                "gtzan",
                sample_rate=sample_rate,
                n_fft=n_fft,
                window_samples=n_fft,
                frame_hop=n_fft // 2,
                f_min=f_min,
                f_max=f_max,
                n_mels=n_mels,
                patch_samples=whole_samples("seconds", seconds, sample_rate),
            )
        self.options: dict[str, Any] = {
            "n_classes": n_classes,
            "seconds": seconds,
            "sample_rate": sample_rate,
            "n_fft": n_fft,
            "f_min": f_min,
            "f_max": f_max,
            "n_mels": n_mels,
        }

    @property
    def sample_rate(self) -> int:
        """Hz."""
        return int(self.frontend.sample_rate)

    @property
    def patch_samples(self) -> int:
        """Samples per chunk."""
        return int(self.frontend.patch_samples)

    def forward(self, waveforms: Tensor) -> Tensor:
        """Waveforms (B, patch_samples) to logits (B, n_classes)."""
        return self.from_log_mel(self.log_mel(waveforms))

    def log_mel(self, waveforms: Tensor) -> Tensor:
        """Waveforms (B, patch_samples) to dB (B, 1, n_mels, frames), always in full precision.

        Half precision overflows on the energies of loud music.
        """
        with torch.autocast(waveforms.device.type, enabled=False):
            return self.frontend(waveforms)

    @abstractmethod
    def from_log_mel(self, log_mel: Tensor) -> Tensor:
        """dB (B, 1, n_mels, frames) to logits (B, n_classes)."""


class GtzanCNN(GenreModel):
    """``gtzan-cnn``: five convolution blocks and two dense layers, 40,124 parameters at the defaults.

    The published pools take 29.1 s to one column. For a shorter chunk (3.96 s), or fewer bands, the largest pool is
    lowered by one, the last of equals first, until at least one column (row) is left: (3, 4, 5, 3, 4) frames become
    (3, 3, 3, 3, 2). Of a longer chunk the columns that are left are averaged. No parameter depends on the length, so
    the weights of one variant fit every other.

    Args:
        n_classes, seconds, mel: see `GenreModel`.
        channels: of the first block; the others have 1, 2, 2 and 4 times as many.
        dropout: after each block.
        dense_dropout: before the output.
    """

    name = "gtzan-cnn"
    default_layers = ("block4", "block5")
    POOLS = ((2, 3), (3, 4), (2, 5), (3, 3), (3, 4))
    WIDTHS = (1, 1, 2, 2, 4)

    def __init__(
        self,
        n_classes: int = 10,
        seconds: float = 29.1,
        channels: int = 16,
        dropout: float = 0.1,
        dense_dropout: float = 0.5,
        **mel: Any,
    ) -> None:
        super().__init__(n_classes, seconds, **mel)
        _require_whole(channels=channels)
        _require_share(dropout=dropout, dense_dropout=dense_dropout)
        self.options |= {"channels": channels, "dropout": dropout, "dense_dropout": dense_dropout}
        bands = fitting_pools(self.frontend.n_mels, [pool[0] for pool in self.POOLS])
        frames = fitting_pools(self.frontend.patch_frames, [pool[1] for pool in self.POOLS])
        self.input_norm = nn.BatchNorm2d(1)
        incoming = 1
        for number, (width, pool) in enumerate(zip(self.WIDTHS, zip(bands, frames, strict=True), strict=True), 1):
            block = _convolution(incoming, channels * width, pool)
            block.add_module("dropout", nn.Dropout(dropout))
            self.add_module(f"block{number}", block)
            incoming = channels * width
        self.dense = nn.Linear(incoming, incoming)
        self.dense_norm = nn.BatchNorm1d(incoming)
        self.dense_relu = nn.ReLU()
        self.dense_dropout = nn.Dropout(dense_dropout)
        self.output = nn.Linear(incoming, n_classes)

    def from_log_mel(self, log_mel: Tensor) -> Tensor:
        """dB (B, 1, n_mels, frames) to logits (B, n_classes)."""
        maps = self.input_norm(log_mel)
        for number in range(1, len(self.POOLS) + 1):
            maps = self.get_submodule(f"block{number}")(maps)
        hidden = self.dense_relu(self.dense_norm(self.dense(maps.mean((2, 3)))))
        return self.output(self.dense_dropout(hidden))


class GtzanVGG16(GenreModel):
    """``gtzan-vgg16``: VGG16 (configuration D) with batch normalisation on the mel image resized to 224 x 224.

    134,308,812 parameters at the defaults; K. Simonyan, A. Zisserman, arXiv 1409.1556, with one input channel. It is
    not Google's VGGish.

    Args:
        n_classes, seconds, mel: see `GenreModel`.
        dropout: after each of the two hidden dense layers.
    """

    name = "gtzan-vgg16"
    default_layers = ("block5", "hidden2")
    WIDTHS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
    IMAGE = 224

    def __init__(self, n_classes: int = 10, seconds: float = 3.96, dropout: float = 0.5, **mel: Any) -> None:
        super().__init__(n_classes, seconds, **mel)
        _require_share(dropout=dropout)
        self.options |= {"dropout": dropout}
        self.input_norm = nn.BatchNorm2d(1)
        incoming = 1
        for number, widths in enumerate(self.WIDTHS, 1):
            block = nn.Sequential()
            for place, width in enumerate(widths, 1):
                block.add_module(f"conv{place}", nn.Conv2d(incoming, width, 3, padding=1))
                block.add_module(f"norm{place}", nn.BatchNorm2d(width))
                block.add_module(f"relu{place}", nn.ReLU())
                incoming = width
            block.add_module("pool", nn.MaxPool2d(2))
            self.add_module(f"block{number}", block)
        side = self.IMAGE // 2 ** len(self.WIDTHS)
        self.hidden1 = _dense(incoming * side * side, 4096, dropout)
        self.hidden2 = _dense(4096, 4096, dropout)
        self.output = nn.Linear(4096, n_classes)

    def from_log_mel(self, log_mel: Tensor) -> Tensor:
        """dB (B, 1, n_mels, frames) to logits (B, n_classes)."""
        size = (self.IMAGE, self.IMAGE)
        maps = nn.functional.interpolate(self.input_norm(log_mel), size=size, mode="bilinear", align_corners=False)
        for number in range(1, len(self.WIDTHS) + 1):
            maps = self.get_submodule(f"block{number}")(maps)
        return self.output(self.hidden2(self.hidden1(maps.flatten(1))))


class GtzanCNN2(GenreModel):
    """``gtzan-cnn2``: four wide convolution blocks and three dense layers, 3,914,890 parameters at the defaults.

    The published network ends in a softmax; this one gives logits, which have the same order. Its input is not
    normalised.

    Args:
        n_classes, seconds, mel: see `GenreModel`; the first dense layer grows with the chunk.
        dropout: after each of the two hidden dense layers.
    """

    name = "gtzan-cnn2"
    default_layers = ("block3", "block4")
    WIDTHS = (64, 128, 256, 512)
    POOLS = (2, 2, 4, 4)

    def __init__(self, n_classes: int = 10, seconds: float = 3.96, dropout: float = 0.5, **mel: Any) -> None:
        super().__init__(n_classes, seconds, **mel)
        _require_share(dropout=dropout)
        self.options |= {"dropout": dropout}
        incoming, bands, frames = 1, self.frontend.n_mels, self.frontend.patch_frames
        for number, (width, pool) in enumerate(zip(self.WIDTHS, self.POOLS, strict=True), 1):
            block = _convolution(incoming, width, (pool, pool))
            nn.init.xavier_uniform_(block.get_submodule("conv").weight)  # type: ignore[arg-type]
            self.add_module(f"block{number}", block)
            incoming, bands, frames = width, bands // pool, frames // pool
        if not bands * frames:
            raise InputError(
                f"{self.name}: seconds={short_repr(seconds)}, n_mels={self.frontend.n_mels}: too small for its pools "
                "of 64 "
                "frames and bands; give a longer chunk or more bands"
            )
        self.hidden1 = _dense(incoming * bands * frames, 1024, dropout)
        self.hidden2 = _dense(1024, 256, dropout)
        self.output = nn.Linear(256, n_classes)

    def from_log_mel(self, log_mel: Tensor) -> Tensor:
        """dB (B, 1, n_mels, frames) to logits (B, n_classes)."""
        maps = log_mel
        for number in range(1, len(self.WIDTHS) + 1):
            maps = self.get_submodule(f"block{number}")(maps)
        return self.output(self.hidden2(self.hidden1(maps.flatten(1))))


MODELS: Mapping[str, type[GenreModel]] = {model.name: model for model in (GtzanCNN, GtzanVGG16, GtzanCNN2)}


def build_model(name: str, seed: int = 0, **options: Any) -> GenreModel:
    """An untrained network in evaluation mode; the same seed gives the same weights.

    Args:
        name: one of ``MODELS``.
        seed: of the weights; the global random state is left as it is.
        options: of the network's class.

    Raises:
        InputError: unknown network or option.
    """
    if name not in MODELS:
        raise InputError(f"model={short_repr(name)}: is not known; give one of {', '.join(MODELS)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return MODELS[name](**options).eval()
        except TypeError as error:
            raise InputError(f"{name}: {error}") from None


def fitting_pools(size: int, pools: Sequence[int]) -> list[int]:
    """Pool sizes that leave at least one of ``size`` positions: the largest, the last of equals, lowered as needed.

    Args:
        size: positions before the first pool.
        pools: the published sizes; each pool drops a remainder.
    """
    fitted = list(pools)
    while not _left(size, fitted):
        largest = max(range(len(fitted)), key=lambda place: (fitted[place], place))
        fitted[largest] -= 1
    return fitted


def _left(size: int, pools: Sequence[int]) -> int:
    for pool in pools:
        size //= pool
    return size


def _convolution(incoming: int, outgoing: int, pool: tuple[int, int]) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(incoming, outgoing, 3, padding=1),
            norm=nn.BatchNorm2d(outgoing),
            relu=nn.ReLU(),
            pool=nn.MaxPool2d(pool),
        )
    )


def _dense(incoming: int, outgoing: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(OrderedDict(dense=nn.Linear(incoming, outgoing), relu=nn.ReLU(), dropout=nn.Dropout(dropout)))


def _require_whole(**numbers: object) -> None:
    for name, value in numbers.items():
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= _LARGEST[name]:
            raise InputError(f"{name}={short_repr(value)}: give a whole number from 1 to {_LARGEST[name]}")


def _require_share(**numbers: Any) -> None:
    for name, value in numbers.items():
        if not isinstance(value, (int, float)) or not 0 <= value < 1:
            raise InputError(f"{name}={short_repr(value)}: give a share from 0 to below 1")
