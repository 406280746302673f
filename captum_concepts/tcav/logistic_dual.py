"""L2-regularised logistic regression in the dual: many small problems at once, whose rows share inner products."""

from __future__ import annotations

import torch
from torch import Tensor

NEAR = 0.05
SHORTEST = 0.02  # a step of which less than this can be taken leads nowhere
STUCK = 25  # times the tolerance; the error of the direction goes with its square


def solve_dual(
    gram: Tensor, sign: Tensor, C: float, *, tolerance: float | None = None, max_iterations: int = 20
) -> tuple[Tensor, Tensor, Tensor]:
    """Minimise ½‖w‖² + C Σ_i log(1 + exp(-y_i (w·x_i + b))) for P problems of at most n rows each.

    The minimum is w = Σ_i a_i x_i with Σ_i a_i = 0, so that only inner products of rows are needed. Newton steps with
    the curvatures split evenly to both sides (Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006,
    eq. 3.26 and 3.27) and a free intercept, solved by conjugate gradients, each followed to the lowest point along it.
    Rows that are long for their penalty can make these steps useless. Problems that they leave far from the minimum
    are solved again by exact steps in float64; in float32, where inner products of such rows are too coarse, they are
    reported.

    Args:
        gram: (P, n, n) inner products of each problem's rows, float32 or float64.
        sign: (P, n) of the same type, 1 for positives, -1 for negatives, 0 where a problem has fewer rows.
        C: inverse penalty.
        tolerance: stop a problem when every a_i is where its loss wants it, to this share of the largest of them;
            None is 2e-4 in float32, 1e-8 in float64.
        max_iterations: of Newton with conjugate gradients.

    Returns:
        a (P, n), b (P,), and bool (P,), False for problems far from their minimum, to be solved in float64.
    """
    if tolerance is None:
        tolerance = 2e-4 if gram.dtype == torch.float32 else 1e-8
    inner, coefficients, margins = gram, torch.zeros_like(sign), torch.zeros_like(sign)
    intercepts = sign.new_zeros(len(sign))
    before, done = torch.full_like(intercepts, torch.inf), torch.zeros_like(intercepts, dtype=torch.bool)
    active = torch.arange(len(sign), device=sign.device)
    for _ in range(max_iterations):
        y, a, f, b = sign[active], coefficients[active], margins[active], intercepts[active]
        off = _off(y, a, f, C)
        # Near the minimum a step that gains nothing has met the limit of the precision.
        running = (off > tolerance) & ~((before[active] < NEAR) & (off > 0.7 * before[active]))
        running &= ~done[active]  # what has stopped stays as it is, so that company makes no difference
        done[active] = ~running
        before[active] = off
        if not running.any():
            break
        # Taking problems out copies their inner products, so wait until it is worth it.
        if int(running.sum()) < 0.75 * len(active):
            active, gram = active[running], gram[running]
            y, a, f, b, off = y[running], a[running], f[running], b[running], off[running]
            running = running[running]
        new_a, new_b = _newton(gram, y, f, C, (0.1 * off).clamp(tolerance, 0.1))
        step, shift = new_a - a, new_b - b
        pushed = (gram @ step[:, :, None])[:, :, 0]
        # There full steps are right, and differences of the objective drown in rounding.
        length = torch.where(off < NEAR, 1, _step_length(y, f, b, step, pushed, shift, C)) * running
        done[active] |= length.abs() < SHORTEST * running
        coefficients[active] = a + length[:, None] * step
        intercepts[active] = b + length * shift
        margins[active] = f + length[:, None] * (pushed + shift[:, None])
    near = _off(sign, coefficients, margins, C) <= STUCK * tolerance
    if inner.dtype == torch.float64:
        stuck = (~near).nonzero()[:, 0]
        for part in stuck.split(max(1, len(sign) // 4)):
            coefficients[part], intercepts[part] = _solve_exactly(inner[part], sign[part], C)
        near = torch.ones_like(near)
    return coefficients, intercepts, near


def _off(sign: Tensor, coefficients: Tensor, margins: Tensor, C: float) -> Tensor:
    """(P,): the largest distance of an a_i from where its loss wants it, as a share of the largest of those."""
    wanted = C * sign * torch.sigmoid(-sign * margins)
    return (wanted - coefficients).abs().amax(1) / wanted.abs().amax(1)


def _solve_exactly(gram: Tensor, sign: Tensor, C: float) -> tuple[Tensor, Tensor]:
    """As ``solve_dual``, by Newton steps from zero whose equations are solved by elimination."""
    coefficients, intercepts = torch.zeros_like(sign), torch.zeros_like(sign[:, 0])
    unit = torch.eye(sign.shape[1], dtype=sign.dtype, device=sign.device)
    before = torch.full_like(intercepts, torch.inf)
    for _ in range(100):
        margins = (gram @ coefficients[:, :, None])[:, :, 0] + intercepts[:, None]
        off = _off(sign, coefficients, margins, C)
        if ((off < 1e-10) | ((before < 1e-5) & (off > 0.7 * before))).all():
            break
        before = off
        # The floor keeps the intercept determined where all margins are far from zero.
        curvature = C * sign**2 * (torch.sigmoid(margins) * torch.sigmoid(-margins)).clamp_min(1e-12)
        missing = C * sign * torch.sigmoid(-sign * margins) - coefficients
        solved = torch.linalg.solve(unit + curvature[:, :, None] * gram, torch.stack([missing, curvature], 2))
        shift = (coefficients + solved[:, :, 0]).sum(1) / solved[:, :, 1].sum(1)
        step = solved[:, :, 0] - shift[:, None] * solved[:, :, 1]
        pushed = (gram @ step[:, :, None])[:, :, 0]
        length = torch.where(off < NEAR, 1, _step_length(sign, margins, intercepts, step, pushed, shift, C))
        coefficients = coefficients + length[:, None] * step
        intercepts = intercepts + length * shift
    return coefficients, intercepts


def _newton(gram: Tensor, sign: Tensor, margins: Tensor, C: float, precision: Tensor) -> tuple[Tensor, Tensor]:
    """About the minimum of the quadratic that touches each objective at its margins: (P, n), (P,)."""
    root = (C * sign**2 * torch.sigmoid(margins) * torch.sigmoid(-margins)).sqrt()
    # a = S (I + S G S)^-1 S^-1 (W f + wanted - W b), where wanted / S = y sqrt(C) exp(-y f / 2) needs no division.
    forces = root * margins + sign * C**0.5 * torch.exp((-sign * margins / 2).clamp_max(20))
    right = torch.stack([forces, root], 2)
    solved = root[:, :, None] * _conjugate_gradients(gram, root[:, :, None], right, precision)
    intercept = solved[:, :, 0].sum(1) / solved[:, :, 1].sum(1)
    return solved[:, :, 0] - intercept[:, None] * solved[:, :, 1], intercept


def _conjugate_gradients(gram: Tensor, root: Tensor, right: Tensor, precision: Tensor) -> Tensor:
    """Solve (I + S G S) x = right, both columns of all problems side by side.

    A column stops when a step lowers its quadratic by less than the square of ``precision`` (P,) of all before it: the
    error in the norm of the matrix (Hestenes and Stiefel 1952), which, unlike the residual, decides about descent.
    """
    scale = 1 / (1 + gram.diagonal(dim1=1, dim2=2)[:, :, None] * root**2)
    solution = torch.zeros_like(right)
    residual = right.clone()
    direction = scale * residual
    energy = (residual * direction).sum(1, keepdim=True)
    left, total = energy > 0, torch.zeros_like(energy)
    for _ in range(2 * right.shape[1]):
        applied = direction + root * (gram @ (root * direction))
        along = (direction * applied).sum(1, keepdim=True)
        length = torch.where(left & (along > 0), energy / along, 0)
        solution += length * direction
        residual -= length * applied
        total += length * energy
        left = left & (length * energy > precision[:, None, None] ** 2 * total)
        if not left.any():
            break
        scaled = scale * residual
        following = (residual * scaled).sum(1, keepdim=True)
        direction = scaled + torch.where(energy > 0, following / energy, 0) * direction
        energy = following
    return solution


def _step_length(
    sign: Tensor,
    margins: Tensor,
    intercepts: Tensor,
    step: Tensor,
    pushed: Tensor,
    shift: Tensor,
    C: float,
) -> Tensor:
    """(P,): how far to go along a step so that the objective falls most, by Newton in one dimension.

    Where the margins are far from zero full steps are too short, and this saves most of the costly products.
    """
    moved = sign * (pushed + shift[:, None])
    start = sign * margins
    cross = (step * (margins - intercepts[:, None])).sum(1)  # margins are G a + b
    square = (step * pushed).sum(1).clamp_min(0)
    length = torch.ones_like(cross)
    for _ in range(12):
        wrong = sign**2 * torch.sigmoid(-start - length[:, None] * moved)
        slope = cross + length * square - C * (wrong * moved).sum(1)
        bend = square + C * (wrong * (1 - wrong) * moved**2).sum(1)
        following = length - slope / bend.clamp_min(torch.finfo(bend.dtype).tiny)
        length = torch.minimum(torch.maximum(following, length / 4), length * 4)
    return length
