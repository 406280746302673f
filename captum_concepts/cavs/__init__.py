"""Concept activation vectors: one file per method."""

from captum_concepts.cavs.bank import QUALITY_COLUMNS, ConceptBank
from captum_concepts.cavs.builtin import CAV_METHODS
from captum_concepts.cavs.directions import Fit, separation
from captum_concepts.cavs.fit import fit_cavs
from captum_concepts.cavs.groups import group_means, group_weights, index_groups
from captum_concepts.cavs.lda import fit_lda
from captum_concepts.cavs.logistic import fit_logistic
from captum_concepts.cavs.methods import FitFunction, resolve_method, run_fit
from captum_concepts.cavs.pattern import fit_pattern
from captum_concepts.cavs.quality import auc_with_interval, balanced_accuracy
from captum_concepts.cavs.sgd import fit_sgd

__all__ = [
    "CAV_METHODS",
    "QUALITY_COLUMNS",
    "ConceptBank",
    "Fit",
    "FitFunction",
    "auc_with_interval",
    "balanced_accuracy",
    "fit_cavs",
    "fit_lda",
    "fit_logistic",
    "fit_pattern",
    "fit_sgd",
    "group_means",
    "group_weights",
    "index_groups",
    "resolve_method",
    "run_fit",
    "separation",
]
