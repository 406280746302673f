"""Scores of concepts, their p-values, intervals and corrections."""

from captum_concepts.cavs.rows import LabelledRows
from captum_concepts.significance.classical import tutorial_test, welch
from captum_concepts.significance.corrections import CORRECTIONS, adjust, hierarchical
from captum_concepts.significance.intervals import mean_interval, share_interval
from captum_concepts.significance.layer_nulls import LayerNulls, layer_nulls
from captum_concepts.significance.null_concepts import NullPlan, null_sets
from captum_concepts.significance.rank_tests import gated_rank_test, rank_test
from captum_concepts.significance.scores import score_layer
from captum_concepts.significance.sensitivity import clip_means, magnitude, sensitivities, smooth_score, tcav_score

__all__ = [
    "CORRECTIONS",
    "LabelledRows",
    "LayerNulls",
    "NullPlan",
    "adjust",
    "clip_means",
    "gated_rank_test",
    "hierarchical",
    "layer_nulls",
    "magnitude",
    "mean_interval",
    "null_sets",
    "rank_test",
    "score_layer",
    "sensitivities",
    "share_interval",
    "smooth_score",
    "tcav_score",
    "tutorial_test",
    "welch",
]
