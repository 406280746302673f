"""The networks: features (B, channels, frames, bands) to embeddings (B, size) of length one.

The ResNets are torchvision's with a first convolution for the number of channels. They differ from the original
(FabianGroeger96/deep-embedded-music) in these ways: convolutions that a batch normalisation follows have no bias, which
the normalisation would undo; only the first bottleneck of a stage has a 1x1 shortcut, where the original gives every
bottleneck one; padding is symmetric, where TensorFlow puts the odd pixel behind; weights begin as torchvision has
them. Stem, blocks, strides, global average, dropout .5 and the linear embedding are the original's; its L2 0.1 on
kernels and biases is a term of the loss (`captum_concepts_tile2vec.training`).

In the other networks batch normalisation learns and is used in evaluation too, each place with a layer of its own (the
original used one layer for all places and none of it in evaluation), and dropout comes before the embedding, not on it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
import torchvision.models
from torch import Tensor, nn

from captum_concepts.errors import InputError
from captum_concepts.text import short_repr


@dataclass(frozen=True)
class Shape:
    """What a network is built for: channels, frames and bands of its input, and the size of its embedding."""

    channels: int
    frames: int
    bands: int
    size: int = 16

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not isinstance(value, int) or value < 1:
                raise InputError(f"{name}={short_repr(value)}: give a positive whole number")


class Network(nn.Module):
    """An encoder, a linear embedding, and the division by its length.

    Attributes:
        encoder: features to (B, width).
        embedding: linear, width to size.
    """

    def __init__(self, encoder: nn.Module, width: int, size: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.embedding = nn.Linear(width, size)

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, channels, frames, bands) to embeddings (B, size) of length one."""
        embedding: Tensor = self.embedding(self.encoder(features))
        # In float32, as the smallest length float16 can divide by is too large.
        return nn.functional.normalize(embedding.float(), dim=1)

    def take_fixed(self) -> nn.Module | None:
        """Take out the first layer, where it only computes statistics; the network then starts from those."""
        if not isinstance(self.encoder, nn.Sequential) or not isinstance(self.encoder[0], _Statistics):
            return None
        fixed = self.encoder[0]
        self.encoder[0] = nn.Identity()
        return fixed


def _resnet(name: str) -> Callable[[Shape], Network]:
    def build(shape: Shape) -> Network:
        encoder = getattr(torchvision.models, name)(weights=None)
        encoder.conv1 = nn.Conv2d(shape.channels, 64, 7, stride=2, padding=3, bias=False)
        nn.init.kaiming_normal_(encoder.conv1.weight, mode="fan_out", nonlinearity="relu")
        width = encoder.fc.in_features
        encoder.fc = nn.Dropout(0.5)
        return Network(encoder, width, shape.size)

    return build


class _Same(nn.Module):
    """Pads as TensorFlow's "same": the output has ceil(input / stride) frames and bands."""

    def __init__(self, kernel: tuple[int, int], stride: tuple[int, int] = (1, 1), value: float = 0.0) -> None:
        super().__init__()
        self.kernel, self.stride, self.value = kernel, stride, value

    def forward(self, x: Tensor) -> Tensor:
        padding = []
        for length, kernel, stride in zip(x.shape[:-3:-1], self.kernel[::-1], self.stride[::-1], strict=True):
            missing = max((math.ceil(length / stride) - 1) * stride + kernel - length, 0)
            padding += [missing // 2, missing - missing // 2]
        return nn.functional.pad(x, padding, value=self.value)


def _convolve(channels: int, filters: int, kernel: int, pool: int, stride: tuple[int, int]) -> nn.Sequential:
    """Convolution, ReLU, pooling, batch normalisation."""
    return nn.Sequential(
        _Same((kernel, kernel)),
        nn.Conv2d(channels, filters, kernel),
        nn.ReLU(),
        _Same((pool, pool), stride),  # zeros are not above any output of a ReLU
        nn.MaxPool2d(pool, stride),
        nn.BatchNorm2d(filters),
    )


def _halved(length: int, times: int) -> int:
    for _ in range(times):
        length = math.ceil(length / 2)
    return length


def conv_net_1d(shape: Shape) -> Network:
    """Convolutions over time of 64, 64, 128 filters of length 2, 2, 3, each with ReLU, pooling by 2 and dropout .3."""
    layers: list[nn.Module] = [_FramesLast()]
    inputs = shape.channels * shape.bands
    for filters, kernel in ((64, 2), (64, 2), (128, 3)):
        same = nn.ConstantPad1d(((kernel - 1) // 2, kernel // 2), 0.0)
        layers += [same, nn.Conv1d(inputs, filters, kernel), nn.ReLU(), nn.MaxPool1d(2), nn.Dropout(0.3)]
        inputs = filters
    frames = shape.frames // 8
    if not frames:
        raise InputError(f"ConvNet1D needs 8 frames and the features have {shape.frames}: give longer tiles")
    return Network(nn.Sequential(*layers, nn.Flatten()), 128 * frames, shape.size)


def conv_net_2d(shape: Shape) -> Network:
    """32 filters of 3x3, 32 of 3x3, 64 of 2x2, pooled by 3, 3, 2 with stride 2, batch normalisation, dropout .3."""
    encoder = nn.Sequential(
        _convolve(shape.channels, 32, 3, 3, (2, 2)),
        _convolve(32, 32, 3, 3, (2, 2)),
        _convolve(32, 64, 2, 2, (2, 2)),
        nn.Flatten(),
        nn.Dropout(0.3),
    )
    return Network(encoder, 64 * _halved(shape.frames, 3) * _halved(shape.bands, 3), shape.size)


class _ConvGRU(nn.Module):
    """16 filters of 7x7, 32 of 5x5, 32 and 32 of 3x3, pooled 3x3 with stride (2, 1), then a GRU of 32 units.

    The GRU walks over all places of the map, frame by frame and band by band within a frame, as in the original.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        filters = ((channels, 16, 7), (16, 32, 5), (32, 32, 3), (32, 32, 3))
        self.convolutions = nn.Sequential(*(_convolve(*these, 3, (2, 1)) for these in filters))
        self.gru = nn.GRU(32, 32, batch_first=True)
        self.norm = nn.BatchNorm1d(32)
        self.dropout = nn.Dropout(0.3)

    def forward(self, features: Tensor) -> Tensor:
        places = self.convolutions(features).flatten(2).transpose(1, 2)
        states = self.gru(places)[0].transpose(1, 2)
        return self.dropout(self.norm(states).flatten(1))


def conv_gru_net(shape: Shape) -> Network:
    """See `_ConvGRU`."""
    return Network(_ConvGRU(shape.channels), 32 * _halved(shape.frames, 4) * shape.bands, shape.size)


class _GRU(nn.Module):
    """GRUs of 64 and 128 units over time; the last state of the second."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.gru1 = nn.GRU(inputs, 64, batch_first=True)
        self.gru2 = nn.GRU(64, 128, batch_first=True)

    def forward(self, features: Tensor) -> Tensor:
        states = self.gru1(features.transpose(1, 2).flatten(2))[0]
        last: Tensor = self.gru2(states)[1][0]
        return last


def gru_net(shape: Shape) -> Network:
    """See `_GRU`."""
    return Network(_GRU(shape.channels * shape.bands), 128, shape.size)


class _Dense(Network):
    def forward(self, features: Tensor) -> Tensor:
        embedding = self.embedding(self.encoder(features)).relu()
        return nn.functional.normalize(embedding.float(), dim=1)


def dense_net(shape: Shape) -> Network:
    """One linear layer with ReLU on the flattened features; where all units are 0, the embedding is 0."""
    return _Dense(nn.Flatten(), shape.channels * shape.frames * shape.bands, shape.size)


class _Statistics(nn.Module):
    """(B, channels, frames, bands) to (B, 8 * channels * bands): what each band does over time.

    Its mean, its standard deviation, and its mean absolute change over 1, 2, 4, 8, 16 and 32 frames.

    Args:
        across: also the mean absolute difference to the band so many above, 0 where there is none: how peaked the
            spectrum is. The result is then (B, (8 + len(across)) * channels * bands).
    """

    LAGS = (1, 2, 4, 8, 16, 32)

    def __init__(self, across: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.across = across

    def forward(self, features: Tensor) -> Tensor:
        told = [features.mean(2), features.std(2, correction=0)]
        told += [(features[:, :, lag:] - features[:, :, :-lag]).abs().mean(2) for lag in self.LAGS]
        for step in self.across:
            differences = (features[..., step:] - features[..., :-step]).abs().mean(2)
            told.append(nn.functional.pad(differences, (0, step)))
        return torch.stack(told, dim=1).flatten(1)


def _statistics(name: str, across: tuple[int, ...]) -> Callable[[Shape], Network]:
    """Statistics of each band over time, batch normalisation, dropout .3, and the linear embedding.

    Not of the original: for sets too small for a network to learn by itself which differences matter.
    """

    def build(shape: Shape) -> Network:
        if shape.frames <= _Statistics.LAGS[-1]:
            raise InputError(f"{name} needs 33 frames and the features have {shape.frames}: give longer tiles")
        if shape.bands <= max(across, default=0):
            raise InputError(f"{name} needs {max(across) + 1} bands and the features have {shape.bands}: give log-mel")
        width = (2 + len(_Statistics.LAGS) + len(across)) * shape.channels * shape.bands
        encoder = nn.Sequential(_Statistics(across), nn.BatchNorm1d(width), nn.Dropout(0.3))
        return Network(encoder, width, shape.size)

    return build


class _FramesLast(nn.Module):
    """(B, channels, frames, bands) to (B, channels * bands, frames)."""

    def forward(self, features: Tensor) -> Tensor:
        return features.transpose(2, 3).flatten(1, 2)


BUILDERS: dict[str, Callable[[Shape], Network]] = {
    "ResNet18": _resnet("resnet18"),
    "ResNet34": _resnet("resnet34"),
    "ResNet50": _resnet("resnet50"),
    "ResNet101": _resnet("resnet101"),
    "ResNet152": _resnet("resnet152"),
    "ConvNet1D": conv_net_1d,
    "ConvNet2D": conv_net_2d,
    "ConvGRUNet": conv_gru_net,
    "GRUNet": gru_net,
    "DenseNet": dense_net,
    "StatisticsNet": _statistics("StatisticsNet", ()),
    "ContrastNet": _statistics("ContrastNet", (1, 2, 4)),
}


def build_network(architecture: str, shape: Shape) -> Network:
    """A network with random weights.

    Args:
        architecture: a key of ``BUILDERS``.
        shape: of its input and embedding.

    Raises:
        InputError: no such architecture, or one that the features are too small for.
    """
    if architecture not in BUILDERS:
        raise InputError(f"architecture={short_repr(architecture)}: give one of {', '.join(BUILDERS)}")
    return BUILDERS[architecture](shape)


def default_l2(architecture: str) -> float:
    """Weight of the L2 term in the original: 0.1 for its ResNets, none elsewhere."""
    return 0.1 if architecture.startswith("ResNet") else 0.0
