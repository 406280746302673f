"""From clips, concepts and targets to an explanation."""

from captum_concepts.explanation.explainer import ConceptHierarchyExplainer
from captum_concepts.explanation.explanation import Explanation
from captum_concepts.explanation.segments import Segment, strongest_segments, write_segments
from captum_concepts.explanation.timeline import add_timelines, extract_timelines

__all__ = [
    "ConceptHierarchyExplainer",
    "Explanation",
    "Segment",
    "add_timelines",
    "extract_timelines",
    "strongest_segments",
    "write_segments",
]
