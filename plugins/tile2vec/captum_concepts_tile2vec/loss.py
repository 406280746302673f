"""The triplet loss of Tile2Vec, its reductions, and other opposites of the batch to learn from."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from captum_concepts.errors import InputError
from captum_concepts.text import short_repr

Strategy = Literal["active", "all"]
Mining = Literal["none", "semi-hard", "all"]
STRATEGIES = ("active", "all")
MININGS = ("none", "semi-hard", "all")
ACTIVE = 1e-16  # a triplet with a loss above this is active


class TripletLoss(NamedTuple):
    """Scalars: the loss, mean squared distances to neighbours and opposites, and the share of triplets with a loss.

    Of mining "all" every anchor makes a triplet with each opposite that it is compared with.
    """

    loss: Tensor
    near: Tensor
    far: Tensor
    active: Tensor


def triplet_loss(
    anchors: Tensor,
    neighbours: Tensor,
    opposites: Tensor,
    margin: float = 1.0,
    strategy: Strategy = "active",
    mining: Mining = "none",
    groups: Tensor | None = None,
) -> TripletLoss:
    """max(0, |a - n|² - |a - o|² + margin), reduced over a batch.

    Args:
        anchors, neighbours, opposites: (B, D).
        margin: how much further away an opposite should be.
        strategy: "all" is the mean over the batch, "active" the sum over the batch divided by the number of triplets
            with a loss above 1e-16 (0 where there is none).
        mining: "none" takes the opposites as they come; "semi-hard" (Schroff et al. 2015, FaceNet) searches all
            opposites of the batch that are of another group for the nearest that is further away than the neighbour,
            and where there is none takes the furthest; "all" compares each anchor with all of them (the "batch all" of
            Hermans et al. 2017, "In defense of the triplet loss"), so that a batch of B has up to B² triplets.
        groups: int64 (B, 2), numbers of the groups of anchors and opposites; mining needs them, as the nearest tile of
            the batch is likely to be of the anchor's own recording.

    Raises:
        InputError: unknown strategy or mining, or mining without groups.
    """
    if strategy not in STRATEGIES:
        raise InputError(f"strategy={short_repr(strategy)}: give active or all")
    if mining not in MININGS:
        raise InputError(f"mining={short_repr(mining)}: give {', '.join(MININGS)}")
    if mining != "none" and groups is None:
        raise InputError(f"mining={short_repr(mining)}: needs groups; give the groups of anchors and opposites")
    near = (anchors - neighbours).square().sum(1)
    if mining == "semi-hard" and groups is not None:
        opposites = opposites[_semi_hard(anchors, near, opposites, groups)]
    if mining == "all" and groups is not None:
        row, column = torch.nonzero(groups[:, None, 0] != groups[None, :, 1], as_tuple=True)
        # Not by differences: those of all pairs would be B * B * D numbers.
        squares = anchors.square().sum(1)[:, None] + opposites.square().sum(1) - 2 * anchors @ opposites.T
        near, far = near[row], squares[row, column]
    else:
        far = (anchors - opposites).square().sum(1)
    losses = (near - far + margin).clamp_min(0)
    active = losses > ACTIVE
    loss = losses.mean() if strategy == "all" else losses.sum() / active.sum().clamp_min(1)
    return TripletLoss(loss, near.detach().mean(), far.detach().mean(), active.float().mean())


@torch.no_grad()
def _semi_hard(anchors: Tensor, near: Tensor, opposites: Tensor, groups: Tensor) -> Tensor:
    """For each anchor the row of the opposite to learn from; its own is of another group, so there always is one."""
    distances = (anchors[:, None] - opposites).square().sum(2)
    foreign = groups[:, None, 0] != groups[None, :, 1]
    beyond = foreign & (distances > near[:, None])
    nearest = distances.masked_fill(~beyond, torch.inf).argmin(1)
    furthest = distances.masked_fill(~foreign, -torch.inf).argmax(1)
    return torch.where(beyond.any(1), nearest, furthest)


def l2_penalty(module: nn.Module) -> Tensor:
    """Sum of squares of the kernels and biases of all convolutions and linear layers, as Keras' l2(1)."""
    layers = (nn.Conv1d, nn.Conv2d, nn.Linear)
    tensors = [
        parameter.square().sum()
        for layer in module.modules()
        if isinstance(layer, layers)
        for parameter in layer.parameters(recurse=False)
    ]
    return torch.stack(tensors).sum()
