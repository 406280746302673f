"""The t-tests that other TCAV tools use, for comparison only: classical, and anticonservative.

They take R refits of one concept for R independent observations. The refits share the concept's examples, so they are
one observation, and more refits make the tests reject random sets more often, not less. Nothing in an explanation rests
on them; ``benchmarks/validity/calibration.py`` prints how often each rejects what is not there, beside the rank test.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from captum_concepts.cavs.groups import group_weights
from captum_concepts.cavs.methods import CavMethod, FitFunction
from captum_concepts.errors import InputError
from captum_concepts.significance.null_draws import draw_null_concepts
from captum_concepts.significance.sensitivity import sensitivities, tcav_score


def welch(concept: np.ndarray, random: np.ndarray) -> np.ndarray:
    """Welch's t-test of a concept's scores over refits against those of random sets.

    Classical; anticonservative where the refits share the concept's examples. tensorflow/tcav does the same with equal
    variances.

    Args:
        concept: (..., R) scores of R refits.
        random: (..., R') scores of random sets against random sets.

    Returns:
        (...) two-sided p-values; NaN where neither varies and both are equal, which is no evidence of anything and must
        never be read as significant.

    Raises:
        InputError: fewer than two refits.
    """
    return _t_test(concept, random, equal_var=False)


def tutorial_test(concept: np.ndarray, counterpart: np.ndarray) -> np.ndarray:
    """The test of Captum's tutorials (``get_pval``): the concept's scores against those of the same CAVs' random side.

    Classical; anticonservative, and it asks another question: with two classes the two sides' scores add up to one, so
    that it tests whether the score differs from one half.

    Args:
        concept: (..., R) scores of the concept in R experimental sets [concept, random r].
        counterpart: (..., R) scores of random r in the same sets.

    Returns:
        (...) two-sided p-values of Student's t-test; NaN as in ``welch``.

    Raises:
        InputError: fewer than two refits.
    """
    return _t_test(concept, counterpart, equal_var=True)


def _t_test(one: np.ndarray, other: np.ndarray, equal_var: bool) -> np.ndarray:
    one, other = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    if min(one.shape[-1], other.shape[-1]) < 2:
        raise InputError(f"scores: {min(one.shape[-1], other.shape[-1])} refits; a t-test needs at least 2")
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)  # scipy's, about scores that do not vary
        return np.asarray(stats.ttest_ind(one, other, axis=-1, equal_var=equal_var).pvalue)


def refit_scores(
    activations: Tensor,
    positives: np.ndarray,
    pool: np.ndarray,
    groups: np.ndarray,
    clip_gradients: Tensor,
    fit: FitFunction,
    *,
    runs: int = 10,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """TCAV scores of R refits of each concept, each against another random set, as the classical recipes make them.

    Args:
        activations: (N, D).
        positives: bool (N, K), concepts of equally many groups.
        pool: bool (N,), rows from whose groups the random sets are drawn; none of them a concept's.
        groups: (N,).
        clip_gradients: (clips, T, D).
        fit: a CAV method's function.
        runs: R.
        seed: of the random sets, which are as large as the concepts.

    Returns:
        scores of the concepts (K, T, R), and of R random sets against the same random sets (T, R).

    Raises:
        InputError: a pool too small for the random sets.
    """
    size = len(set(groups[positives[:, 0]]))
    against = draw_null_concepts(groups, pool, size, runs, seed)
    other = draw_null_concepts(groups, pool, size, runs, seed + 1) & ~against
    weights = torch.from_numpy(group_weights(groups)).to(activations)

    def scores(shows: np.ndarray, negatives: np.ndarray) -> np.ndarray:
        masks = torch.from_numpy(shows).to(activations.device), torch.from_numpy(negatives).to(activations.device)
        directions = CavMethod(fit)(activations, *masks, weights)[0]
        return tcav_score(sensitivities(clip_gradients.to(directions), directions)).double().cpu().numpy()

    concepts = positives.shape[1]
    found = scores(np.repeat(positives, runs, axis=1), np.tile(against, (1, concepts)))
    return found.reshape(-1, concepts, runs).swapaxes(0, 1), scores(other, against)
