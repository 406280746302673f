"""Captum's default classifier: the same hyperplanes from the same random numbers, without its detours."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from captum.concept import Classifier
from torch import Tensor
from torch.utils.data import DataLoader

from captum_concepts.cavs.sgd import sgd_classifier
from captum_concepts.errors import InputError
from captum_concepts.text import short_repr


def split_size(rows: int, test_split_ratio: float) -> int:
    """How many of ``rows`` are held out, rounded down as Captum does.

    Raises:
        InputError: a ratio outside 0 <= ratio < 1.
    """
    if not 0 <= test_split_ratio < 1:
        raise InputError(f"test_split_ratio={short_repr(test_split_ratio)} must be at least 0 and below 1")
    return int(test_split_ratio * rows)


class CaptumSGD(Classifier):
    """What Captum 0.9.0's ``DefaultClassifier`` computes: a linear SVM by scikit-learn's ``SGDClassifier``.

    The split takes as many numbers from ``random`` and the fit as many from ``numpy.random`` as in Captum, so that with
    the same seeds the weights are equal bit by bit. The accuracy is right for two concepts too (Captum issue 1122).
    """

    def __init__(self) -> None:
        self._weights = torch.zeros(0, 0)
        self._biases = torch.zeros(0)
        self._classes: list[int] = []

    def train_and_eval(
        self, dataloader: DataLoader, test_split_ratio: float = 0.33, **kwargs: Any
    ) -> dict[str, Tensor]:
        """Fit on what the loader gives, (rows, labels) by (rows, labels); returns {"accs": held-out accuracy}."""
        batches = list(dataloader)
        return self.fit([rows for rows, _ in batches], torch.cat([labels for _, labels in batches]), test_split_ratio)

    def fit(self, rows: Sequence[Tensor], labels: Tensor, test_split_ratio: float = 0.33) -> dict[str, Tensor]:
        """Fit on (N, F) rows, given in parts, with (N,) integer labels.

        Returns:
            {"accs": 0-d}, the accuracy on the rows held out; NaN if there are none.

        Raises:
            InputError: scikit-learn is missing.
        """
        x = torch.cat(list(rows)).detach().cpu().numpy()
        y = labels.cpu().numpy()
        order = list(range(len(x)))
        random.shuffle(order)
        held = split_size(len(x), test_split_ratio)
        test, train = order[:held], order[held:]
        model = sgd_classifier()
        model.fit(x[train], y[train])
        weights, biases = (torch.from_numpy(np.asarray(part)).float() for part in (model.coef_, model.intercept_))
        binary = len(weights) == 1
        self._weights = torch.cat([-weights, weights]) if binary else weights
        self._biases = torch.cat([-biases, biases]) if binary else biases
        self._classes = [int(label) for label in model.classes_]
        accuracy = float(np.mean(model.predict(x[test]) == y[test])) if held else float("nan")
        return {"accs": torch.tensor(accuracy)}

    def weights(self) -> Tensor:
        """(C, F), in the order of ``classes``."""
        return self._weights

    def biases(self) -> Tensor:
        """(C,): row k of ``weights`` says concept k where ``weights[k] @ f + biases[k]`` is positive."""
        return self._biases

    def classes(self) -> list[int]:
        """The concepts' ids, ascending."""
        return self._classes
