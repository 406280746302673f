"""Linear classifiers of many sets of concepts at once: one concept against many random sets, one against the rest, any.

A *block* is the rows of one concept. A *set* is a tuple of blocks that a classifier tells apart: two blocks give one
hyperplane w, stored as the rows -w and w; more give one row per block, each against the rest of the set. Every block
meets the model once and is shared by all sets that it is in: K concepts against R random sets are K·R sets of K + R
blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from captum_concepts.cavs.lda import oracle_shrinkage
from captum_concepts.cavs.logistic import fit_logistic
from captum_concepts.errors import InputError
from captum_concepts.seeding import random_key
from captum_concepts.tcav.logistic_dual import solve_dual
from captum_concepts.text import short_repr

MAX_DUAL_ROWS = 512
MAX_DUAL_BLOCKS = 8
PRECISIONS = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class SetFits:
    """Classifiers of E sets of C blocks each.

    Attributes:
        numbers: which of the sets, in ascending order within a call's input only if they were given so.
        weights: (E, C, F).
        biases: (E, C): block c is said where ``weights[e, c] @ f + biases[e, c]`` is positive.
        accuracy: (E,), share of the held-out rows of the set that get the greatest value from their own block's row;
            NaN without held-out rows.
    """

    numbers: list[int]
    weights: Tensor
    biases: Tensor
    accuracy: Tensor


@dataclass(frozen=True)
class Blocks:
    """Rows of B concepts one after the other.

    Attributes:
        rows: (N, F), on the device that fits.
        counts: rows of each block.
        held: (N,) bool, the rows that are held out of fits; None holds out none.
    """

    rows: Tensor
    counts: Sequence[int]
    held: Tensor | None = None

    def parts(self) -> tuple[list[Tensor], list[Tensor]]:
        """Row numbers to fit and to test, of each block."""
        owner = torch.arange(len(self.rows), device=self.rows.device).split(list(self.counts))
        if self.held is None:
            return list(owner), [numbers[:0] for numbers in owner]
        held = self.held.to(self.rows.device).split(list(self.counts))
        return (
            [numbers[~out] for numbers, out in zip(owner, held, strict=True)],
            [numbers[out] for numbers, out in zip(owner, held, strict=True)],
        )


def held_out(names: Sequence[str], counts: Sequence[int], ratio: float, seed: int) -> Tensor:
    """bool (N,): ``int(ratio * n)`` rows of each block, drawn by seed and name alone, so that no company matters.

    Raises:
        InputError: a ratio outside 0 <= ratio < 1.
    """
    if not 0 <= ratio < 1:
        raise InputError(f"test_split_ratio={short_repr(ratio)} must be at least 0 and below 1")
    parts = []
    for name, count in zip(names, counts, strict=True):
        order = np.random.default_rng(list(random_key(seed, name))).permutation(count)
        held = np.zeros(count, dtype=bool)
        held[order[: int(ratio * count)]] = True
        parts.append(held)
    return torch.from_numpy(np.concatenate(parts))


def fit_sets(
    blocks: Blocks,
    sets: Sequence[Sequence[int]],
    method: str = "logistic",
    *,
    chunk_bytes: int = 2**28,
    precision: str = "float32",
    **options: Any,
) -> Iterator[SetFits]:
    """Fit the classifiers of many sets, in chunks.

    Args:
        blocks: the rows.
        sets: block numbers of each set, at least two, each once; row c of a set's weights belongs to its c-th block.
        method: "pattern", difference of means (Haufe et al. 2014); "lda", that difference whitened by the shrunk
            covariance within all blocks of the call; "logistic", L2-regularised, the problem of scikit-learn's
            ``LogisticRegression(C=C)``: in the dual for sets of at most ``MAX_DUAL_BLOCKS`` blocks with at most
            ``MAX_DUAL_ROWS`` rows or fewer rows than features, else in the primal.
        chunk_bytes: bound of the working memory and of the chunk that is given out, beside the rows, a copy of them in
            double precision for "lda", and some hundred bytes per set; at least one set is always taken.
        precision: of products of rows: "float32", "float64" or "bfloat16"; sets whose minimum is not reached in it are
            solved again in "float64". Cosine to the exact direction of "logistic": better than 1 - 1e-6 with float32,
            1 - 1e-3 with bfloat16 on well-scaled rows.
        options: ``C`` (1.0) of "logistic", ``shrinkage`` (None: oracle-approximating) of "lda".

    Yields:
        SetFits; sets of different sizes are never in one.

    Raises:
        InputError: unknown method, precision or option, a set with fewer than two blocks or one twice, a block without
            rows to fit, NaN rows.
    """
    if method not in _METHODS:
        raise InputError(f"method={short_repr(method)} is not known; use {', '.join(_METHODS)}")
    if precision not in PRECISIONS:
        raise InputError(f"precision={short_repr(precision)} is not known; use {', '.join(PRECISIONS)}")
    make, known = _METHODS[method]
    unknown = [name for name in options if name not in known]
    if unknown:
        raise InputError(f"{unknown[0]}: not an option of method {method!r}; it has {', '.join(known) or 'none'}")
    if not torch.isfinite(blocks.rows).all():
        raise InputError("activations: NaN or infinite values; drop the examples they come from")
    train, test = blocks.parts()
    sizes: dict[int, list[int]] = {}
    for number, members in enumerate(sets):
        if len(set(members)) < max(2, len(members)):
            raise InputError(f"sets: {short_repr(list(members))} needs at least two blocks, each once")
        empty = next((block for block in members if not len(train[block])), None)
        if empty is not None:
            raise InputError(f"block {empty} has {blocks.counts[empty]} rows and none to fit; give more examples")
        sizes.setdefault(len(members), []).append(number)
    rows = blocks.rows if blocks.rows.dtype == torch.float64 else blocks.rows.float()
    fit = make(rows, train, PRECISIONS[precision], **options)
    for count, numbers in sizes.items():
        # Neighbours share blocks, whatever the order they were given in.
        ordered = sorted(numbers, key=lambda number: tuple(sets[number]))
        for chunk in _chunks(ordered, sets, [len(part) for part in train], count, rows.shape[1], chunk_bytes):
            chosen = torch.tensor([list(sets[number]) for number in chunk])
            weights, biases = fit(chosen)
            accuracy = _accuracy(rows, test, chosen, weights, biases)
            yield SetFits(chunk, weights, biases, accuracy)


def _chunks(
    ordered: Sequence[int], sets: Sequence[Sequence[int]], sizes: Sequence[int], count: int, features: int, limit: int
) -> Iterator[list[int]]:
    """Cut sets so that weights, Gram matrices and the blocks that a chunk needs stay within ``limit`` bytes."""
    chunk: list[int] = []
    seen: set[int] = set()
    rows = widest = 0
    for number in ordered:
        fresh = [block for block in sets[number] if block not in seen]
        new_rows = rows + sum(sizes[block] for block in fresh)
        new_widest = max(widest, sum(sizes[block] for block in sets[number]))
        problems = (len(chunk) + 1) * (1 if count == 2 else count)
        small = 8 * 5 * new_widest**2 if new_widest <= MAX_DUAL_ROWS or new_widest < features else 40 * new_widest
        needed = problems * small + 32 * (len(chunk) + 1) * count * features + 8 * new_rows * (new_rows + features)
        if chunk and needed > limit:
            yield chunk
            chunk, seen = [], set()
            fresh = list(sets[number])
            new_rows = new_widest = sum(sizes[block] for block in fresh)
        chunk.append(number)
        seen.update(fresh)
        rows, widest = new_rows, new_widest
    if chunk:
        yield chunk


ChunkFit = Callable[[Tensor], tuple[Tensor, Tensor]]


def _pattern(rows: Tensor, train: Sequence[Tensor], precision: torch.dtype) -> ChunkFit:
    means, counts = _block_means(rows, train)
    return lambda members: _between_means(means, means, counts, members)


def _lda(rows: Tensor, train: Sequence[Tensor], precision: torch.dtype, shrinkage: float | None = None) -> ChunkFit:
    if shrinkage is not None and not 0 <= shrinkage <= 1:
        raise InputError(f"shrinkage={shrinkage} must be between 0 and 1")
    means, counts = _block_means(rows, train)
    centred = torch.cat([rows[part].double() - mean for part, mean in zip(train, means.double(), strict=True)])
    n, d = centred.shape
    degrees = max(n - len(train), 1)
    centred /= degrees**0.5
    wide = d > n
    gram = centred @ centred.T if wide else centred.T @ centred
    trace = float(gram.diagonal().sum())
    if trace <= 0:
        raise InputError("method='lda' needs rows that differ within their concepts; use method='pattern'")
    if shrinkage is None:
        shrinkage = oracle_shrinkage(gram, d, float(degrees))
    ridge = (shrinkage + torch.finfo(torch.float32).eps) * trace / d
    keep = 1 - shrinkage
    factor = torch.linalg.cholesky(keep * gram + ridge * torch.eye(len(gram), dtype=gram.dtype, device=gram.device))
    right = means.double()
    if wide:
        # Woodbury: (ridge I + keep X'X)^-1 m = (m - keep X' (ridge I + keep XX')^-1 X m) / ridge
        solved = (right - keep * (centred.T @ torch.cholesky_solve(centred @ right.T, factor)).T) / ridge
    else:
        solved = torch.cholesky_solve(right.T, factor).T
    solved = solved.to(rows.dtype)
    return lambda members: _between_means(means, solved, counts, members)


def _block_means(rows: Tensor, train: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """(B, F) means and (B,) counts of the rows to fit; NaN for blocks without any."""
    means = torch.stack([rows[part].double().mean(0) for part in train]).to(rows.dtype)
    return means, torch.tensor([float(len(part)) for part in train], dtype=rows.dtype, device=rows.device)


def _between_means(means: Tensor, whitened: Tensor, counts: Tensor, members: Tensor) -> tuple[Tensor, Tensor]:
    """Directions from the (whitened) mean of each block's rest to its own, and the intercepts half way."""
    members = members.to(means.device)
    if members.shape[1] == 2:  # the rest is the other, and the rows are opposite
        first, second = members.T
        weights = torch.empty(len(members), 2, means.shape[1], dtype=means.dtype, device=means.device)
        torch.sub(whitened[second], whitened[first], out=weights[:, 1])
        torch.neg(weights[:, 1], out=weights[:, 0])
        bias = -torch.linalg.vecdot(weights[:, 1], means[first] + means[second]) / 2
        return weights, torch.stack([-bias, bias], 1)
    sizes = counts[members][:, :, None]
    total = sizes.sum(1, keepdim=True)

    def rest(values: Tensor) -> Tensor:
        own = values[members]
        return ((sizes * own).sum(1, keepdim=True) - sizes * own) / (total - sizes)

    weights = whitened[members] - rest(whitened)
    biases = -(weights * (means[members] + rest(means))).sum(2) / 2
    return weights, biases


def _logistic(rows: Tensor, train: Sequence[Tensor], precision: torch.dtype, C: float = 1.0) -> ChunkFit:
    if not 0 < C < float("inf"):
        raise InputError(f"C={short_repr(C)} must be positive and finite")
    # The intercept is free, so centring changes nothing but the rounding of inner products.
    sums = [rows[part].double().sum(0) for part in train]  # block by block: no second copy of all rows
    centre = (torch.stack(sums).sum(0) / sum(len(part) for part in train)).to(rows.dtype)

    def fit(members: Tensor) -> tuple[Tensor, Tensor]:
        largest = max(sum(len(train[block]) for block in chosen) for chosen in members.tolist())
        # One against the rest of many share all their rows, which the primal does at once.
        if members.shape[1] > MAX_DUAL_BLOCKS or (largest > MAX_DUAL_ROWS and largest >= rows.shape[1]):
            return _logistic_primal(rows, train, members, C)
        weights, biases, near = _logistic_dual(rows, centre, train, members, C, precision)
        left = (~near).nonzero()[:, 0]
        for part in left.split(max(1, len(members) // 4)) if len(left) else ():
            chosen = members[part.to(members.device)]
            weights[part], biases[part], _ = _logistic_dual(rows, centre, train, chosen, C, torch.float64)
        return weights, biases

    return fit


def _logistic_dual(
    rows: Tensor, centre: Tensor, train: Sequence[Tensor], members: Tensor, C: float, precision: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Weights and biases, and bool (E,): False for sets whose minimum was not reached in this precision."""
    columns = [_Column(rows, centre, train, members[:, column]) for column in range(members.shape[1])]
    gram = _small_grams(columns, precision)
    ends = np.cumsum([column.width for column in columns]).tolist()
    spans = [slice(end - column.width, end) for end, column in zip(ends, columns, strict=True)]
    sets, count = members.shape
    weights = rows.new_zeros(sets, count, rows.shape[1])
    biases = rows.new_zeros(sets, count)
    near = torch.ones(sets, dtype=torch.bool, device=rows.device)
    for positive in [1] if count == 2 else range(count):
        sign = torch.cat([(1.0 if c == positive else -1.0) * column.used for c, column in enumerate(columns)], 1)
        coefficients, intercepts, reached = solve_dual(gram, sign.to(gram.dtype), C)
        near &= reached
        coefficients = coefficients.to(rows.dtype)
        for column, span in zip(columns, spans, strict=True):
            column.spread(coefficients[:, span], weights[:, positive])
        biases[:, positive] = intercepts.to(rows.dtype) - weights[:, positive] @ centre
    if count == 2:
        weights[:, 0], biases[:, 0] = -weights[:, 1], -biases[:, 1]
    return weights, biases, near


class _Column:
    """The blocks that stand at one place of the sets of a chunk.

    Attributes:
        x: (U, F), centred rows of the distinct blocks one after the other.
        index: (E, width), each set's rows among them, padded with row 0.
        used: (E, width) float, 0 in the padding.
        place: (E,), which of the distinct blocks each set has.
    """

    def __init__(self, rows: Tensor, centre: Tensor, train: Sequence[Tensor], blocks: Tensor):
        distinct, place = torch.unique(blocks, return_inverse=True)
        parts = [train[block] for block in distinct.tolist()]
        sizes = torch.tensor([len(part) for part in parts])
        self.x = rows[torch.cat(parts)] - centre
        self.width = int(sizes.max())
        self.place = place.to(rows.device)
        self._starts = (sizes.cumsum(0) - sizes).tolist()
        self._sizes = sizes.tolist()
        self._sets = torch.argsort(place, stable=True).to(rows.device).split(torch.bincount(place).tolist())
        steps = torch.arange(self.width)
        inside = steps < sizes[:, None]
        starts = (sizes.cumsum(0) - sizes)[:, None]
        self.index = torch.where(inside, starts + steps, 0)[place].to(rows.device)
        self.used = inside[place].to(rows)

    def spread(self, coefficients: Tensor, weights: Tensor) -> None:
        """Add to each set's weights (E, F) the sum of its rows by their coefficients (E, width), block by block."""
        for chosen, start, size in zip(self._sets, self._starts, self._sizes, strict=True):
            weights.index_add_(0, chosen, coefficients[chosen, :size] @ self.x[start : start + size])

    def blocks(self) -> list[Tensor]:
        """The rows of each distinct block."""
        return list(self.x.split(self._sizes))


def _small_grams(columns: Sequence[_Column], precision: torch.dtype) -> Tensor:
    """(E, n, n) inner products of each set's rows, n the sum of the columns' widths; what is padded is not used."""
    total = sum(column.width for column in columns)
    wide = torch.float64 if precision == torch.float64 else torch.float32
    gram = torch.empty(len(columns[0].index), total, total, dtype=wide, device=columns[0].x.device)
    first = 0
    for c, one in enumerate(columns):
        gram[:, first : first + one.width, first : first + one.width] = _own_products(one, precision).to(wide)
        second = first + one.width
        for other in columns[c + 1 :]:
            products = (one.x.to(precision) @ other.x.to(precision).T).to(wide)
            values = products[one.index[:, :, None], other.index[:, None, :]]
            gram[:, first : first + one.width, second : second + other.width] = values
            gram[:, second : second + other.width, first : first + one.width] = values.transpose(1, 2)
            second += other.width
        first += one.width
    return gram


def _own_products(column: _Column, precision: torch.dtype) -> Tensor:
    """(E, width, width): inner products of the rows of each set's block."""
    padded = torch.nn.utils.rnn.pad_sequence(column.blocks(), batch_first=True).to(precision)
    return (padded @ padded.transpose(1, 2))[column.place]


def _logistic_primal(rows: Tensor, train: Sequence[Tensor], members: Tensor, C: float) -> tuple[Tensor, Tensor]:
    found = []
    for chosen in members.tolist():
        x = torch.cat([rows[train[block]] for block in chosen])
        owner = torch.repeat_interleave(torch.tensor([len(train[block]) for block in chosen])).to(x.device)
        positives = owner[:, None] == torch.arange(len(chosen), device=x.device)
        directions, biases, scales = fit_logistic(x, positives, ~positives, x.new_ones(len(x)), C=C)
        found.append((directions * scales[:, None], biases * scales))
    return torch.stack([weights for weights, _ in found]), torch.stack([biases for _, biases in found])


def _accuracy(rows: Tensor, test: Sequence[Tensor], members: Tensor, weights: Tensor, biases: Tensor) -> Tensor:
    """(E,): share of the held-out rows for which their own block's row of the weights gives the greatest value."""
    right = torch.zeros(len(members), dtype=torch.float64, device=rows.device)
    total = torch.zeros_like(right)
    binary = members.shape[1] == 2
    for column in range(members.shape[1]):
        for block in torch.unique(members[:, column]).tolist():
            if not len(test[block]):
                continue
            chosen = (members[:, column] == block).nonzero()[:, 0].to(rows.device)
            if binary:  # the two rows are opposite
                values = weights[chosen, 1] @ rows[test[block]].T + biases[chosen, 1, None]
                hits = (values > 0) == (column == 1)
            else:
                hits = (weights[chosen] @ rows[test[block]].T + biases[chosen][:, :, None]).argmax(1) == column
            right[chosen] += hits.double().sum(1)
            total[chosen] += len(test[block])
    return (right / total).float()


_METHODS: dict[str, tuple[Callable[..., ChunkFit], tuple[str, ...]]] = {
    "logistic": (_logistic, ("C",)),
    "pattern": (_pattern, ()),
    "lda": (_lda, ("shrinkage",)),
}
METHODS = tuple(_METHODS)
