"""Names and defaults that the command line and the library share; imports nothing, so that ``--help`` stays fast."""

from __future__ import annotations

from typing import Final

ALPHA: Final = 0.05
"""Level of significance of tests and of false discovery rates."""

POOLINGS: Final = ("time", "none", "time_freq")
"""What each activation is averaged over; the first is the default."""

NEGATIVES: Final = ("random", "rest", "in-domain")
"""What the positives of a concept can be compared with."""

ON_ERROR: Final = ("skip", "refuse")
"""What to do with clips that cannot be used; the first is the default."""

CORRECTIONS: Final = ("bh", "by", "holm", "bonferroni", "hierarchical")
"""Corrections for multiple tests; the first is the default."""

BUILT_IN: Final = {
    "cav_methods": ("lda", "logistic", "pattern", "sgd"),
    "similarities": ("activation", "correlation", "cosine", "diffusion", "discriminant", "overlap", "sensitivity"),
    "miners": ("agglomerative", "branching", "generality", "heymann", "spanning_tree", "subsumption"),
}
"""Kind of plugin -> names of the methods that the package provides; a test compares it with the registry."""

ATTRIBUTION_METHODS: Final = ("saliency", "integrated_gradients", "gradient_shap", "deep_lift_shap")
"""Captum's input attributions, in the order in which they are computed and drawn."""

AGREEMENT: Final = (
    "parent_accuracy",
    "root_precision",
    "root_recall",
    "ancestor_precision",
    "ancestor_recall",
    "ancestor_f1",
    "triplet_agreement",
    "robinson_foulds",
    "adjusted_rand",
    "same_cluster_edges",
    "same_cluster_chance",
    "same_cluster_ceiling",
)
"""Measures of the agreement of a hierarchy with a reference, in the order of tables."""

TABLE_SUFFIXES: Final = (".csv", ".tsv", ".txt", ".parquet")
"""Endings of files that are read as tables of clips."""

HIERARCHY_SUFFIXES: Final = (".graphml", ".gexf", ".nwk", ".json")
"""Endings of files that a hierarchy can be written to."""

MAX_DEFAULT_TARGETS: Final = 20
"""A backbone with more classes is explained only for targets that were asked for."""

REPORT_LIMIT_MB: Final = 25.0
"""Largest page in megabytes; beyond it sounds go into files beside the page."""
