"""How alike two concepts are: K x K matrices, computed in blocks of rows on the concept bank's device.

A bank is anything with ``names`` (K), ``directions`` (K, D), ``biases`` (K,) and ``scales`` (K,). ``activations`` are
(N, D) rows of its layer, ``labels`` (N, K) says which rows show which concept, ``weights`` (N,) how much a row counts
(e.g. 1 / patches of its clip, so that clips count alike).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np
import torch
from torch import Tensor

from captum_concepts.concept_means import observations, scaled_products
from captum_concepts.concept_neighbours import discriminant_space
from captum_concepts.diffusion import diffusion as walks_between
from captum_concepts.errors import InputError, shown

ROWS = 8192
EXTREME = 1e15  # of weights: their squares and sums are still numbers in float32


class Bank(Protocol):
    """What the similarities need of a :class:`captum_concepts.cavs.ConceptBank`."""

    names: tuple[str, ...]
    directions: Tensor
    biases: Tensor
    scales: Tensor


@dataclass(frozen=True)
class Measure:
    """A kind of similarity.

    Attributes:
        function: ``(bank, activations, labels, weights) -> (K, K)``; what is not needed may be None.
        symmetric: whether the matrix equals its transpose; otherwise row p, column c speaks for the link p -> c.
        needs: which of "activations", "labels" and "gradients" must be given; the function takes ``gradients=`` only
            if it needs them.
        grouped: whether the function also takes ``groups=``.
    """

    function: Callable[..., Tensor]
    symmetric: bool
    needs: frozenset[str] = frozenset()
    grouped: bool = False

    def __call__(
        self,
        bank: Bank,
        activations: Tensor | None = None,
        labels: Tensor | None = None,
        weights: Tensor | None = None,
        groups: Sequence[str] | np.ndarray | None = None,
        gradients: Tensor | None = None,
    ) -> Tensor:
        more: dict[str, object] = {}
        if self.grouped:
            more["groups"] = groups
        if "gradients" in self.needs:
            more["gradients"] = gradients
        return self.function(bank, activations, labels, weights, **more)


def similarity(
    bank: Bank,
    measure: str | Measure | Callable[..., Tensor] = "cosine",
    *,
    activations: Tensor | np.ndarray | None = None,
    labels: Tensor | np.ndarray | None = None,
    weights: Tensor | np.ndarray | None = None,
    groups: Sequence[str] | np.ndarray | None = None,
    gradients: Tensor | np.ndarray | None = None,
) -> Tensor:
    """Similarity of all concepts of a bank, (K, K).

    Args:
        measure: a name in :data:`SIMILARITIES`, a :class:`Measure`, or a function
            ``(bank, activations, labels, weights) -> (K, K)``.
        activations: (N, D). labels: (N, K) bool. weights: (N,), not negative; default: all rows count alike.
        groups: (N,), the track or recording of each row; default: every row its own, but for equal ones.
        gradients: (clips, targets, D), of the explained clips' logits at the layer of the bank.

    Raises:
        InputError: an unknown measure, something needed is missing or has another shape or NaN, a concept without
            rows, or a measure that does not return a finite (K, K).
    """
    chosen = find_measure(measure)
    given = {"activations": activations, "labels": labels, "gradients": gradients}
    for need in sorted(chosen.needs):
        if given[need] is None:
            raise InputError(f"similarity {shown(measure)}: needs {need}; give {need}=")
    activations = None if activations is None else torch.as_tensor(activations).detach()
    labels = None if labels is None else torch.as_tensor(labels)
    weights = None if weights is None else torch.as_tensor(weights)
    gradients = None if gradients is None else torch.as_tensor(gradients).detach()
    _check_rows(bank, activations, labels, weights)
    _check_gradients(bank, gradients)
    result = chosen(bank, activations, labels, weights, groups, gradients)
    k = len(bank.names)
    if not isinstance(result, Tensor) or result.shape != (k, k):
        got = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
        raise InputError(f"similarity {shown(measure)}: must return a ({k}, {k}) tensor, got {got}")
    bad = (~torch.isfinite(result)).nonzero()
    if len(bad):
        a, b = (shown(bank.names[i]) for i in bad[0].tolist())
        raise InputError(f"similarity {shown(measure)}: not finite between {a} and {b}; leave such concepts out")
    return result


def find_measure(measure: str | Measure | Callable[..., Tensor]) -> Measure:
    """The measure of a name or function; raises InputError for an unknown name."""
    if isinstance(measure, Measure):
        return measure
    if callable(measure):
        return Measure(measure, symmetric=False)
    from captum_concepts.plugins import lookup

    factory = lookup("similarities", measure).factory
    if isinstance(factory, Measure):
        return factory
    return Measure(factory, symmetric=bool(getattr(factory, "symmetric", False)))


def _check_rows(bank: Bank, activations: Tensor | None, labels: Tensor | None, weights: Tensor | None) -> None:
    k, d = bank.directions.shape
    if activations is not None and (activations.ndim != 2 or activations.shape[1] != d or not activations.numel()):
        raise InputError(f"activations: shape {tuple(activations.shape)}; give (rows, {d}), the layer of the bank")
    for start in range(0, 0 if activations is None else len(activations), ROWS):
        bad = (~torch.isfinite(cast(Tensor, activations)[start : start + ROWS]).all(1)).nonzero()
        if len(bad):
            raise InputError(f"activations: not finite in row {start + int(bad[0])}; drop the clips it comes from")
    rows = len(activations) if activations is not None else len(labels) if labels is not None else None
    if labels is not None and labels.shape != (rows, k):
        raise InputError(f"labels: shape {tuple(labels.shape)}; give ({rows}, {k}), one column for each concept")
    if weights is not None:
        if weights.shape != (rows,):
            raise InputError(f"weights: shape {tuple(weights.shape)}; give one number for each of the {rows} rows")
        if not bool((weights >= 0).all()) or not bool(torch.isfinite(weights).all()):
            raise InputError("weights: negative, infinite or NaN; give numbers of at least 0")
        if not float(weights.sum()) > 0:
            raise InputError("weights: no weight is above 0; give at least one row some")
        if not 1 / EXTREME < float(weights.max()) < EXTREME:
            raise InputError(f"weights: the largest is {float(weights.max()):.3g}; divide them by it")


def _check_gradients(bank: Bank, gradients: Tensor | None) -> None:
    d = bank.directions.shape[1]
    if gradients is not None and (gradients.ndim != 3 or gradients.shape[2] != d or not gradients.numel()):
        raise InputError(
            f"gradients: shape {tuple(gradients.shape)}; give (clips, targets, {d}), of the layer of the bank"
        )


def _blocks(
    bank: Bank, activations: Tensor, labels: Tensor | None, weights: Tensor | None
) -> Iterator[tuple[Tensor, Tensor | None, Tensor]]:
    """Rows, their labels and their weights (n, 1) in the bank's device and dtype, a bounded number at a time."""
    like = bank.directions
    for start in range(0, len(activations), ROWS):
        part = slice(start, start + ROWS)
        rows = activations[part].to(like)
        weight = rows.new_ones(len(rows), 1) if weights is None else weights[part].to(like)[:, None]
        yield rows, None if labels is None else labels[part].to(like), weight


def combine(matrices: Mapping[str, Tensor | np.ndarray]) -> Tensor:
    """Mean of the similarities of several layers, each divided by its mean diagonal: one hierarchy for all of them.

    Args:
        matrices: layer -> (K, K) over the same concepts, of the same measure.

    Raises:
        InputError: no matrix, shapes that differ, numbers that are not finite, or a mean diagonal that is not above 0.
    """
    parts = {layer: torch.as_tensor(matrix) for layer, matrix in matrices.items()}
    if not parts:
        raise InputError("combine: no layers; give at least one similarity")
    shape = next(iter(parts.values())).shape
    for layer, matrix in parts.items():
        if matrix.shape != shape or len(shape) != 2 or shape[0] != shape[1]:
            raise InputError(
                f"combine: shape {tuple(matrix.shape)} at {shown(layer)}; give (K, K) of the same concepts"
            )
        if not bool(torch.isfinite(matrix).all()):
            raise InputError(f"combine: not finite at {shown(layer)}; leave out concepts without a usable vector")
        if not float(matrix.diagonal().mean()) > 0:
            raise InputError(f"combine: {shown(layer)} tells no concept from the others; leave the layer out")
    total = sum(matrix / matrix.diagonal().mean() for matrix in parts.values())
    return torch.as_tensor(total) / len(parts)


def cosine(
    bank: Bank, activations: Tensor | None = None, labels: Tensor | None = None, weights: Tensor | None = None
) -> Tensor:
    """Cosine of the directions."""
    unit = torch.nn.functional.normalize(bank.directions, dim=1)
    return _mirrored(unit @ unit.T)


def diffusion(
    bank: Bank, activations: Tensor | None = None, labels: Tensor | None = None, weights: Tensor | None = None
) -> Tensor:
    """How well the CAVs are connected through their nearest neighbours; see :mod:`captum_concepts.diffusion`.

    It takes them as classifiers have them, as long as their scale says, not as unit directions.
    """
    bad = (~torch.isfinite(bank.directions).all(1) | ~torch.isfinite(bank.scales)).nonzero()
    if len(bad):
        raise InputError(f"diffusion: {shown(bank.names[int(bad[0])])} has no usable CAV; leave the concept out")
    return walks_between(bank.directions.double() * bank.scales.double()[:, None]).to(bank.directions.dtype)


def activation(bank: Bank, activations: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """The paper's S (Afchar, Hennequin & Guigue, ISMIR 2022): how strongly i's rows speak for j's CAV.

    ``S[i, j]`` is the weighted mean over the rows of concept i of ``sigmoid(scales[j] (directions[j] f + biases[j]))``.
    Not symmetric; the diagonal stays as it is.
    """
    sums = bank.directions.new_zeros(len(bank.names), len(bank.names))
    counts = bank.directions.new_zeros(len(bank.names), 1)
    for rows, shows, weight in _blocks(bank, activations, labels, weights):
        present = torch.sigmoid(bank.scales * (rows @ bank.directions.T + bank.biases))
        weighted = (cast(Tensor, shows) * weight).T
        sums += weighted @ present
        counts += weighted.sum(1, keepdim=True)
    return sums / _nonempty(bank, counts)


def correlation(bank: Bank, activations: Tensor, labels: Tensor | None = None, weights: Tensor | None = None) -> Tensor:
    """Weighted correlation, over all rows, of the projections on two concepts' directions."""
    total, mean = 0.0, bank.directions.new_zeros(bank.directions.shape[1])
    for rows, _, weight in _blocks(bank, activations, None, weights):
        total += float(weight.sum())
        mean += (rows * weight).sum(0)
    mean /= total
    k = len(bank.names)
    covariance, scale = bank.directions.new_zeros(k, k), bank.directions.new_zeros(k)
    for rows, _, weight in _blocks(bank, activations, None, weights):
        projected = (rows - mean) @ bank.directions.T
        covariance += (projected * weight).T @ projected
        scale = torch.maximum(scale, (rows @ bank.directions.T).abs().amax(0))
    std = covariance.diagonal().sqrt()
    # below rounding error of the projections a spread is not a spread
    flat = (std <= total**0.5 * scale * 10 * torch.finfo(std.dtype).eps).nonzero()
    if len(flat):
        name = bank.names[int(flat[0])]
        raise InputError(f"correlation: {shown(name)} has the same projection on every row; leave the concept out")
    return _mirrored(covariance / std[:, None] / std[None, :])


def discriminant(
    bank: Bank,
    activations: Tensor,
    labels: Tensor,
    weights: Tensor | None = None,
    groups: Sequence[str] | np.ndarray | None = None,
) -> Tensor:
    """Inner products of the concepts in Fisher's discriminant space: of their means, and of their neighbourhoods.

    See :mod:`captum_concepts.concept_means` and :mod:`captum_concepts.concept_neighbours`; both are freed of noise.
    Seen from all rows together: the diagonal is how far a concept lies from them (squared), 1 on average; below 0
    where noise alone lies farther. It does not use the CAVs of the bank.
    """
    to = bank.directions.device
    observed = observations(activations.to(to), labels.to(to), None if weights is None else weights.to(to), groups)
    _nonempty(bank, observed.shows.sum(0))
    return scaled_products(discriminant_space(observed).inner_products()).to(bank.directions.dtype)


def sensitivity(
    bank: Bank,
    activations: Tensor | None,
    labels: Tensor | None,
    weights: Tensor | None = None,
    *,
    gradients: Tensor,
) -> Tensor:
    """Whether two concepts push the classes alike: cosine of their sensitivities over all clips and targets.

    ``S[i, j]`` is the cosine, not centred, of the directional derivatives of the logits along the two CAVs: 1 where
    the model answers to both in the same way, -1 where one speaks for what the other speaks against, whatever the CAVs
    themselves look like. Weights of the concepts' rows play no part.
    """
    k = len(bank.names)
    products = torch.zeros(k, k, dtype=torch.float64, device=bank.directions.device)
    for some in gradients.split(max(1, ROWS // gradients.shape[1])):
        pushed = (some.to(bank.directions).flatten(0, 1) @ bank.directions.T).double()
        products += pushed.T @ pushed
    length = products.diagonal().sqrt()
    still = (length <= 0).nonzero()
    if len(still):
        raise InputError(
            f"sensitivity: no logit changes along {shown(bank.names[int(still[0])])}; leave the concept out"
        )
    return _mirrored(products / length[:, None] / length[None, :]).to(bank.directions.dtype)


def overlap(bank: Bank, activations: Tensor | None, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """``S[i, j]``: weighted share of concept j's rows that show concept i too; 1 where j lies within i.

    Not symmetric. It looks at the labels alone, not at the model.
    """
    both = bank.directions.new_zeros(len(bank.names), len(bank.names))
    counts = bank.directions.new_zeros(len(bank.names), 1)
    for shows, _, weight in _blocks(bank, labels, None, weights):
        both += (shows * weight).T @ shows
        counts += (shows * weight).sum(0)[:, None]
    return both / _nonempty(bank, counts).T


def _nonempty(bank: Bank, counts: Tensor) -> Tensor:
    empty = (counts <= 0).flatten().nonzero()
    if len(empty):
        name = bank.names[int(empty[0])]
        raise InputError(f"labels: no row of positive weight shows {shown(name)}; leave the concept out or add clips")
    return counts


def _mirrored(symmetric: Tensor) -> Tensor:
    """Rounding differs between the triangles; make them equal, within [-1, 1], with a diagonal of 1."""
    result = ((symmetric + symmetric.T) / 2).clamp_(-1.0, 1.0)
    return result.fill_diagonal_(1.0)


SIMILARITIES: dict[str, Measure] = {
    "cosine": Measure(cosine, symmetric=True),
    "diffusion": Measure(diffusion, symmetric=True),
    "activation": Measure(activation, symmetric=False, needs=frozenset({"activations", "labels"})),
    "correlation": Measure(correlation, symmetric=True, needs=frozenset({"activations"})),
    "discriminant": Measure(discriminant, symmetric=True, needs=frozenset({"activations", "labels"}), grouped=True),
    "sensitivity": Measure(sensitivity, symmetric=True, needs=frozenset({"gradients"})),
    "overlap": Measure(overlap, symmetric=False, needs=frozenset({"labels"})),
}
