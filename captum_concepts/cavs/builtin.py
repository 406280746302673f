"""The CAV methods that come along."""

from __future__ import annotations

from captum_concepts.cavs.lda import fit_lda
from captum_concepts.cavs.logistic import fit_logistic
from captum_concepts.cavs.methods import FitFunction
from captum_concepts.cavs.pattern import fit_pattern

CAV_METHODS: dict[str, FitFunction] = {"pattern": fit_pattern, "lda": fit_lda, "logistic": fit_logistic}
