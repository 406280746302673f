"""The built-in miners by name: a new miner is one file in this folder and one line here."""

from __future__ import annotations

from captum_concepts.miners.agglomerative import agglomerative
from captum_concepts.miners.api import Miner
from captum_concepts.miners.branching import branching
from captum_concepts.miners.generality import attach_by_generality
from captum_concepts.miners.heymann import heymann
from captum_concepts.miners.spanning_tree import spanning_tree
from captum_concepts.miners.subsumption import subsumption

MINERS: dict[str, Miner] = {
    "spanning_tree": spanning_tree,
    "heymann": heymann,
    "subsumption": subsumption,
    "generality": attach_by_generality,
    "branching": branching,
    "agglomerative": agglomerative,
}
