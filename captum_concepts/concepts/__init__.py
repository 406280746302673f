"""Sets of concepts from folders, tables, playlists and arrays."""

from captum_concepts.concepts.concept_set import ConceptSet
from captum_concepts.concepts.folds import stratified_parts
from captum_concepts.concepts.names import Skipped, concept_name
from captum_concepts.concepts.overlap import Overlap
from captum_concepts.concepts.reference import read_parents
from captum_concepts.concepts.tables import read_clip_table

__all__ = [
    "ConceptSet",
    "Overlap",
    "Skipped",
    "concept_name",
    "read_clip_table",
    "read_parents",
    "stratified_parts",
]
