"""Diagnostics of concepts and their CAVs: reproducibility, correlation, domain shift, position, leakage."""

from captum_concepts.diagnostics.domain_shift import DomainCheck, check_domain
from captum_concepts.diagnostics.layer_diagnostics import LayerChecks
from captum_concepts.diagnostics.pushforward import push_forward

__all__ = [
    "DomainCheck",
    "LayerChecks",
    "check_domain",
    "push_forward",
]
