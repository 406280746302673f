"""In-context effects: gradients times the shift of the activation that an added sound causes."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from captum_concepts.effects.intervals import (
    Estimate,
    concept_means,
    student_p_values,
    two_way_interval,
    two_way_variance,
    with_error,
)
from captum_concepts.effects.mixtures import N_FOLDS, MixturePlan
from captum_concepts.effects.permutation import blocked_permutation_test
from captum_concepts.errors import InputError
from captum_concepts.text import short_repr

Alternative = Literal["another", "nothing"]
ALTERNATIVES = ("another", "nothing")


def contrasts(values: Tensor, plan: MixturePlan, alternative: Alternative = "another") -> Tensor:
    """Each pair's values against the stated alternative.

    Args:
        values: (P, ...), changes of logits or shifts of activations.
        plan: the pairs.
        alternative: "nothing" leaves the change as it is: the sound was added or nothing was. "another" subtracts the
            mean over the other concepts of their changes on the same host: this sound was added or another of them.

    Returns:
        (P, ...).

    Raises:
        InputError: an unknown alternative, values of another number of pairs, or a single concept without "nothing".
    """
    if alternative not in ALTERNATIVES:
        raise InputError(f"alternative={short_repr(alternative)}: unknown; give 'another' or 'nothing'")
    if len(values) != len(plan):
        raise InputError(f"values={tuple(values.shape)}: not one row for each of {len(plan)} pairs; give (pairs, ...)")
    if alternative == "nothing":
        return values
    if len(plan.concepts) < 2:
        raise InputError(f"concepts={short_repr(plan.concepts)}: no other sound; give two, or alternative='nothing'")
    flat = values.reshape(len(values), -1)
    n_concepts = len(plan.concepts)
    # Mean of each concept on each host where it is, then of the other concepts there.
    cells, cell = torch.unique(plan.host * n_concepts + plan.concept, return_inverse=True)
    means = concept_means(flat, cell, len(cells))
    host = cells // n_concepts
    totals = flat.new_zeros(len(plan.hosts), flat.shape[1]).index_add_(0, host, means)
    others = torch.bincount(host, minlength=len(plan.hosts)) - 1
    if int(others[host].min()) < 1:
        raise InputError("plan=a host with one concept only: nothing to compare with; plan all concepts together")
    rest = (totals[plan.host] - means[cell]) / others[plan.host, None].to(flat)
    return (flat - rest).reshape(values.shape)


def patterns(shifts: Tensor, plan: MixturePlan, alternative: Alternative = "another") -> Tensor:
    """Mean contrast of each concept's shifts: the direction in which its sound moves the activation.

    Args:
        shifts: (P, D).
        plan, alternative: as in `contrasts`.

    Returns:
        (K, D), in units of the activation.
    """
    return concept_means(contrasts(shifts, plan, alternative), plan.concept, len(plan.concepts))


def pair_effects(shifts: Tensor, gradients: Tensor, plan: MixturePlan, alternative: Alternative = "another") -> Tensor:
    """Effect of each pair: its contrast times the mean gradient at the hosts of the other fold.

    Args:
        shifts: (P, D).
        gradients: (H, C, D) at the plan's hosts.
        plan, alternative: as in `contrasts`.

    Returns:
        (P, C) in logits, in the shifts' precision.
    """
    _check_gradients(gradients, shifts, plan)
    contrast = contrasts(shifts, plan, alternative)
    result = shifts.new_zeros(len(plan), gradients.shape[1])
    for fold in range(N_FOLDS):
        mean = gradients[plan.host_fold != fold].mean(0)
        rows = plan.fold == fold
        result[rows] = contrast[rows] @ mean.T.to(contrast)
    return result


def by_fold(values: Tensor, plan: MixturePlan) -> tuple[Tensor, Tensor]:
    """Means over the pairs of each fold: two estimates that share no donor and no host, but for hosts of gradients.

    Effects of one fold are compared with measured effects of the other, so that they agree by no common pair.

    Args:
        values: (P, C), such as `pair_effects`, or `contrasts` of changes of logits.
        plan: the pairs.

    Returns:
        (K, C) of fold 0 and of fold 1.
    """
    first, second = (
        concept_means(values[plan.fold == fold], plan.concept[plan.fold == fold], len(plan.concepts))
        for fold in range(N_FOLDS)
    )
    return first, second


def in_context_effects(
    shifts: Tensor, gradients: Tensor, plan: MixturePlan, alternative: Alternative = "another"
) -> Estimate:
    """Effects in logits, with 95 % intervals.

    The error has two parts: that of the shifts, over hosts and donors (`two_way_variance`), and that of the gradients,
    over the hosts of the other fold. Student's t has one degree of freedom less than there are donors or hosts.

    Args:
        shifts, gradients, plan, alternative: as in `pair_effects`.

    Returns:
        (K, C) each.
    """
    values = pair_effects(shifts, gradients, plan, alternative).double()
    n_concepts = len(plan.concepts)
    mean = concept_means(values, plan.concept, n_concepts)
    variance, freedom = two_way_variance(values, plan.concept, plan.host, plan.donor, n_concepts)
    contrast = contrasts(shifts, plan, alternative)
    for fold in range(N_FOLDS):
        rows = plan.fold == fold
        share = torch.bincount(plan.concept[rows], minlength=n_concepts) / torch.bincount(plan.concept)
        pattern = concept_means(contrast[rows], plan.concept[rows], n_concepts).to(gradients)
        variance += share[:, None].double() ** 2 * gradient_variance(gradients[plan.host_fold != fold], pattern)
    return with_error(mean, variance, freedom)


def measured_effects(logit_changes: Tensor, plan: MixturePlan, alternative: Alternative = "another") -> Estimate:
    """Mean change of each logit by each concept's sound, with 95 % intervals over hosts and donors.

    Args:
        logit_changes: (P, C).
        plan, alternative: as in `contrasts`.

    Returns:
        (K, C) each, in logits.
    """
    values = contrasts(logit_changes.double(), plan, alternative)
    return two_way_interval(values, plan.concept, plan.host, plan.donor, len(plan.concepts))


def contrast_test(values: Tensor, plan: MixturePlan, n_permutations: int = 9999, seed: int = 0) -> Tensor:
    """Two-sided p-values of effects against "another of these sounds".

    Where each donor of a concept is used once, donors are permuted among concepts, host by host
    (`blocked_permutation_test`), which is exact. Where a concept has fewer donors than mixtures, its pairs are not
    independent, and Student's t of the mean contrast is used, with the two-way error of `two_way_variance`.

    Args:
        values: (P, C), such as `pair_effects` against "nothing", or changes of logits.
        plan: the pairs.
        n_permutations, seed: as in `permutation_test`.

    Returns:
        (K, C) float64; NaN for a concept with a single donor.
    """
    n_concepts = len(plan.concepts)
    contrast = contrasts(values.double(), plan)
    mean = concept_means(contrast, plan.concept, n_concepts)
    variance, freedom = two_way_variance(contrast, plan.concept, plan.host, plan.donor, n_concepts)
    result = student_p_values(mean, variance, freedom)
    once = torch.tensor(
        [len(plan.donor[plan.concept == k].unique()) == int((plan.concept == k).sum()) for k in range(n_concepts)]
    )
    if once.any():
        result[once] = blocked_permutation_test(values, plan.slot, plan.concept, n_permutations, seed)[once]
    return result


def gradient_variance(gradients: Tensor, directions: Tensor) -> Tensor:
    """Variance of the mean over clips of gradient times direction.

    Args:
        gradients: (H, C, D), one of each group.
        directions: (K, D).

    Returns:
        (K, C) float64; NaN for a single group.
    """
    columns = [(directions.to(gradients) @ gradients[:, c].T).double().var(1) for c in range(gradients.shape[1])]
    return torch.stack(columns, 1) / len(gradients)


def _check_gradients(gradients: Tensor, shifts: Tensor, plan: MixturePlan) -> None:
    wanted = (len(plan.hosts), shifts.shape[-1])
    if gradients.dim() != 3 or (gradients.shape[0], gradients.shape[2]) != wanted:
        raise InputError(
            f"gradients={tuple(gradients.shape)}: do not fit the plan; give ({wanted[0]} hosts, classes, {wanted[1]})"
        )
