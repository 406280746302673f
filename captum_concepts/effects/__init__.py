"""Effects of concepts on class logits: measured, in context and observational, with errors and agreement."""

from captum_concepts.effects.agreement import Agreement, agreement, ceiling, contradicted
from captum_concepts.effects.in_context import (
    by_fold,
    contrast_test,
    contrasts,
    in_context_effects,
    measured_effects,
    pair_effects,
    patterns,
)
from captum_concepts.effects.intervals import Estimate, two_way_interval
from captum_concepts.effects.measured import Measurements, host_gradients, measure, patches_by_group
from captum_concepts.effects.mixtures import MixturePlan, mix, plan_mixtures
from captum_concepts.effects.observational import observational_effects
from captum_concepts.effects.permutation import blocked_permutation_test, permutation_test

__all__ = [
    "Agreement",
    "Estimate",
    "Measurements",
    "MixturePlan",
    "agreement",
    "blocked_permutation_test",
    "by_fold",
    "ceiling",
    "contradicted",
    "contrast_test",
    "contrasts",
    "host_gradients",
    "in_context_effects",
    "measure",
    "measured_effects",
    "mix",
    "observational_effects",
    "pair_effects",
    "patches_by_group",
    "patterns",
    "permutation_test",
    "plan_mixtures",
    "two_way_interval",
]
