"""Similarities of concepts on one scale."""

from __future__ import annotations

import numpy as np

ROUNDING = 1e-5  # of the largest entry: what lies closer together is the same


def link_strengths(similarity: np.ndarray) -> np.ndarray:
    """(K, K) float64 on one scale: cosines of a symmetric matrix with a positive diagonal, else the matrix itself.

    Inner products (the similarity "discriminant") do not compare across concepts of different length; cosines do.
    Concepts with a diagonal of 0 or less, which noise alone may have moved, are 0 to all others.
    """
    matrix = np.asarray(similarity, dtype=np.float64)
    if not is_inner_products(matrix):
        return matrix
    own = matrix.diagonal()
    length = np.sqrt(np.where(own > 0, own, np.inf))
    return matrix / length[:, None] / length[None, :]


def is_inner_products(matrix: np.ndarray) -> bool:
    tolerance = ROUNDING * np.abs(matrix).max(initial=0.0)
    return bool((matrix.diagonal() > 0).any() and np.abs(matrix - matrix.T).max(initial=0.0) <= tolerance)
