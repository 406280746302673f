"""The paper's tagger: a five-block VGG over log-mel patches with the 50 most used Million Song Dataset tags.

The network and its weights are those of D. Afchar, R. Hennequin, V. Guigue, "Learning Unsupervised Hierarchies of
Audio Concepts" (ISMIR 2022, arXiv 2207.11231), published as ``MSD_vgg.h5`` in
https://github.com/deezer/concept_hierarchy. That repository states no licence for the weights, so they are neither
shipped nor downloaded here: a user brings the file.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captum_concepts.errors import InputError

#: The 50 tags, in the order of the output layer.
CLASSES: tuple[str, ...] = (
    "rock", "pop", "alternative", "indie", "electronic", "female vocalists", "dance", "00s", "alternative rock", "jazz",
    "beautiful", "metal", "chillout", "male vocalists", "classic rock", "soul", "indie rock", "Mellow", "electronica",
    "80s", "folk", "90s", "chill", "instrumental", "punk", "oldies", "blues", "hard rock", "ambient", "acoustic",
    "experimental", "female vocalist", "guitar", "Hip-Hop", "70s", "party", "country", "easy listening", "sexy",
    "catchy", "funk", "electro", "heavy metal", "Progressive rock", "60s", "rnb", "indie pop", "sad", "House", "happy",
)  # fmt: skip

FRAMES, MELS, CHANNELS = 187, 96, 128
#: (window, stride) of the max pooling that ends each block, as (time, frequency).
POOLS: tuple[tuple[tuple[int, int], tuple[int, int]], ...] = (
    ((4, 1), (2, 2)),
    ((2, 2), (2, 2)),
    ((2, 2), (2, 2)),
    ((2, 2), (2, 2)),
    ((4, 4), (4, 4)),
)
FLATTENED = 2 * 1 * CHANNELS  # time x frequency x channels after the last pooling
# Activations are of order one, where neighbouring float32 values lie 6e-8 apart: smaller effects are rounded away.
NEGLIGIBLE = 1e-8
# On a CPU a block works through the batch in pieces whose intermediate maps stay in cache (half the time at batch 32).
CPU_PIECE = 4


class BlockWeights(NamedTuple):
    """One block in torch's layout: ``kernel`` (128, C, 3, 3); ``bias`` and the batch normalisation as one affine map,
    ``gain`` and ``shift``, each (128,)."""

    kernel: Tensor
    bias: Tensor
    gain: Tensor
    shift: Tensor

    def constants(self) -> Tensor:
        """What each channel gives where its kernel is zero: (128,)."""
        return F.relu(self.bias) * self.gain + self.shift


class VGGWeights(NamedTuple):
    """All weights in torch's layout: input normalisation ``gain`` and ``shift`` (1,), five blocks, and the dense output
    layer ``kernel`` (50, 256), ``bias`` (50,)."""

    gain: Tensor
    shift: Tensor
    blocks: tuple[BlockWeights, ...]
    kernel: Tensor
    bias: Tensor


class ConvBlock(nn.Module):
    """Convolution 3 x 3, ReLU, batch normalisation, max pooling: (B, C, T, F) -> (B, 128, T', F').

    Computed in a cheaper order with the same result. The normalisation is monotone per channel, so it may follow the
    pooling, where a quarter of the values is left; a falling one (negative gain) turns the maximum into a minimum,
    hence the sign. Channels whose kernel died in training are constant (more than half of the first two published
    blocks): they are filled in, not computed, and the next block does not read them unless a gradient is wanted.

    Args:
        weights: the block's weights.
        pool: (window, stride) of the pooling, each (time, frequency).
        unread: bool (C,), input channels that this block need not read for its value.
        constant: bool (128,), output channels that do not depend on the input.
    """

    channels_read: Tensor
    live: Tensor
    sign: Tensor

    def __init__(
        self, weights: BlockWeights, pool: tuple[tuple[int, int], tuple[int, int]], unread: Tensor, constant: Tensor
    ) -> None:
        super().__init__()
        self.window, stride = pool
        # Where the pooling skips columns, the convolution need not compute them.
        self.step = (1, stride[1] if self.window[1] == 1 else 1)
        self.stride = (stride[0], stride[1] // self.step[1])
        self.register_buffer("channels_read", (~unread).nonzero().flatten())
        self.register_buffer("live", (~constant).nonzero().flatten())
        sign = torch.where(weights.gain[self.live] < 0, -1.0, 1.0)
        self.register_buffer("sign", sign[:, None, None])
        self.falling = bool((sign < 0).any())
        self.kernel = _frozen(weights.kernel[self.live] * sign[:, None, None, None])
        self.kernel_read = _frozen(self.kernel[:, self.channels_read])
        self.bias = _frozen(weights.bias[self.live] * sign)
        self.gain = _frozen(weights.gain[self.live, None, None])
        self.shift = _frozen(weights.shift[self.live, None, None])
        self.constants = _frozen(weights.constants()[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        pieces = torch.split(x, CPU_PIECE) if x.device.type == "cpu" and not x.requires_grad else (x,)
        computed = [self._live(piece) for piece in pieces]
        height, width = computed[0].shape[2:]
        full = self.constants.expand(len(x), -1, height, width).clone(memory_format=torch.contiguous_format)
        row = 0
        for piece in computed:
            full[row : row + len(piece)].index_copy_(1, self.live, piece)
            row += len(piece)
        return full

    def _live(self, x: Tensor) -> Tensor:
        kernel = self.kernel
        # Without a gradient unread channels can be left out; with one, each needs its own.
        if not x.requires_grad and len(self.channels_read) < x.shape[1]:
            x, kernel = x.index_select(1, self.channels_read), self.kernel_read
        x = max_pool(F.conv2d(x, kernel, self.bias, stride=self.step, padding=1), self.window, self.stride)
        if self.falling:
            x = x * self.sign
        return torch.addcmul(self.shift, F.relu(x), self.gain)


class FlattenChannelsLast(nn.Module):
    """(B, C, T, F) -> (B, T * F * C), the order in which Keras flattens."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1).flatten(1)


class MSDVGG(nn.Module):
    """The tagger in torch: log-mel patches (B, 187, 96) or (B, 1, 187, 96), frames x mel bands, to *logits* (B, 50).

    Layers by name: ``pool1`` .. ``pool5``, the blocks' outputs (B, 128, T, F); ``flatten`` (B, 256); ``logits``. Each
    equals the Keras layer of that name (``logits``: its output layer before the sigmoid). Frozen, always in
    evaluation mode. The patches are those of the ``musicnn`` front-end: 16 kHz, log10(1 + 10000 mel).

    Averaged over T and flattened as (F, C), pool3, pool4 and pool5 have the 1536, 768 and 128 entries of the published
    CAVs.

    Raises:
        InputError: patches of another shape.
    """

    def __init__(self, weights: VGGWeights) -> None:
        super().__init__()
        self.input_gain = _frozen(weights.gain)
        self.input_shift = _frozen(weights.shift)
        unread = torch.zeros(1, dtype=torch.bool)
        for number, (block, pool) in enumerate(zip(weights.blocks, POOLS, strict=True), 1):
            constant = block.kernel.abs().sum((1, 2, 3)) * block.gain.abs() <= NEGLIGIBLE
            self.add_module(f"pool{number}", ConvBlock(block, pool, unread, constant))
            if number < len(POOLS):
                reach = weights.blocks[number].kernel.abs().sum((2, 3)).amax(0)
                unread = constant & (block.constants().abs() * reach <= NEGLIGIBLE)
        self.flatten = FlattenChannelsLast()
        self.logits = nn.Linear(FLATTENED, len(CLASSES))
        self.logits.weight, self.logits.bias = _frozen(weights.kernel), _frozen(weights.bias)
        self.eval()

    def train(self, mode: bool = True) -> MSDVGG:
        """Stays in evaluation mode: the port has no training behaviour."""
        return super().train(False)

    def forward(self, patches: Tensor) -> Tensor:
        x = patches.unsqueeze(1) if patches.ndim == 3 else patches
        if x.ndim != 4 or x.shape[1:] != (1, FRAMES, MELS):
            raise InputError(
                f"msd-vgg takes log-mel patches of shape (batch, {FRAMES}, {MELS}), frames x mel bands, "
                f"not {tuple(patches.shape)}; use the musicnn front-end"
            )
        x = x * self.input_gain + self.input_shift
        for number in range(1, len(POOLS) + 1):
            x = self.get_submodule(f"pool{number}")(x)
        logits: Tensor = self.logits(self.flatten(x))
        return logits


def max_pool(x: Tensor, window: tuple[int, int], stride: tuple[int, int]) -> Tensor:
    """Max pooling (B, C, T, F) -> (B, C, T', F') without padding, like ``torch.nn.functional.max_pool2d``.

    Without a gradient it is taken as maxima of strided views, which on a CPU halves the time of the whole network:
    torch's own pooling there always finds the indices for a backward pass too.
    """
    if x.requires_grad:
        return F.max_pool2d(x, window, stride)
    for dim, (size, step) in enumerate(zip(window, stride, strict=True), 2):
        length = (x.shape[dim] - size) // step + 1
        view = [slice(None)] * x.ndim
        maximum: Tensor | None = None
        for offset in range(size):
            view[dim] = slice(offset, offset + (length - 1) * step + 1, step)
            part = x[tuple(view)]
            maximum = part if maximum is None else torch.maximum(maximum, part)
        x = x if maximum is None else maximum
    return x


def _frozen(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.detach().clone(memory_format=torch.contiguous_format), requires_grad=False)
