"""Checks that authors of plugins can run on what they provide."""

from captum_concepts.testing.interventions import check_intervention

__all__ = ["check_intervention"]
