"""The built-in CAV methods by name: a new method is one file in this folder and one line here."""

from __future__ import annotations

from captum_concepts.cavs.lda import fit_lda
from captum_concepts.cavs.logistic import fit_logistic
from captum_concepts.cavs.methods import FitFunction
from captum_concepts.cavs.pattern import fit_pattern
from captum_concepts.cavs.sgd import fit_sgd

CAV_METHODS: dict[str, FitFunction] = {
    "pattern": fit_pattern,
    "lda": fit_lda,
    "logistic": fit_logistic,
    "sgd": fit_sgd,
}
