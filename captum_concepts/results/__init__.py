"""Records and tables of results, and their files."""

from captum_concepts.results.diagnostics import Diagnostics
from captum_concepts.results.explanation_data import ExplanationData
from captum_concepts.results.files import load_explanation, save_explanation
from captum_concepts.results.tables import SCORE_COLUMNS, SHARE_COLUMNS, empty_scores, empty_shares
from captum_concepts.results.timeline import Timeline

__all__ = [
    "SCORE_COLUMNS",
    "SHARE_COLUMNS",
    "Diagnostics",
    "ExplanationData",
    "Timeline",
    "empty_scores",
    "empty_shares",
    "load_explanation",
    "save_explanation",
]
