"""CAVs by the classifier that Captum uses."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from captum_concepts.errors import InputError
from captum_concepts.text import short_repr


def fit_sgd(
    activations: Tensor, positives: Tensor, negatives: Tensor, weights: Tensor, seed: int = 0, alpha: float = 0.01
) -> tuple[Tensor, Tensor, Tensor]:
    """Captum's stochastic descent as a method of ``cavs.fit_cavs``, for comparison: one concept after the other.

    A linear support vector machine by scikit-learn's ``SGDClassifier`` with Captum's settings; unlike in Captum the
    random numbers are those of the seed, and rows have weights.

    Args:
        activations: (N, D).
        positives, negatives: bool (N, K); rows in neither are left out of that concept.
        weights: (N,), weight of each row; scaled to mean one over each concept's rows.
        seed: of the order of rows, the same for every concept.
        alpha: penalty.

    Returns:
        directions (K, D) unit, biases (K,), scales (K,) = length of the weights. The scale is that of the machine's
        margin, not of a log odds.

    Raises:
        InputError: scikit-learn is missing, or ``alpha`` is not positive.
    """
    if not 0 < alpha < float("inf"):
        raise InputError(f"alpha={short_repr(alpha)} must be positive and finite")
    x, share = activations.detach().cpu().numpy(), weights.detach().cpu().double().numpy()
    found = []
    for positive, negative in zip(positives.T.cpu().numpy(), negatives.T.cpu().numpy(), strict=True):
        rows = positive | negative
        model = sgd_classifier(alpha=alpha, random_state=seed)
        model.fit(x[rows], positive[rows], sample_weight=share[rows] / share[rows].mean())
        found.append(np.append(model.coef_[0], model.intercept_[0]))
    fitted = torch.from_numpy(np.array(found)).to(activations)
    scales = fitted[:, :-1].norm(dim=1)
    return fitted[:, :-1] / scales[:, None], fitted[:, -1] / scales, scales


def sgd_classifier(**options: Any) -> Any:
    """Captum's settings. Called between split and fit, as in Captum: importing scikit-learn draws from ``random``."""
    try:
        import sklearn.linear_model
        import sklearn.svm
    except ImportError:
        raise InputError(
            "Captum's classifier (mode='exact', method='sgd') is made of scikit-learn: pip install scikit-learn"
        ) from None
    return sklearn.linear_model.SGDClassifier(**{"alpha": 0.01, "max_iter": 1000, "tol": 1e-3, **options})
