"""The result: tidy scores, hierarchies, concept banks and provenance; saved, loaded, exported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from captum_concepts.errors import InputError
from captum_concepts.hierarchy.concept_hierarchy import ConceptHierarchy
from captum_concepts.hierarchy.description import describe
from captum_concepts.miners.api import mine
from captum_concepts.plugins.registry import lookup
from captum_concepts.report.page import write_report
from captum_concepts.results.explanation_data import ExplanationData
from captum_concepts.results.files import load_explanation, save_explanation
from captum_concepts.similarities.combine import combine
from captum_concepts.text import short_repr


class Explanation(ExplanationData):
    """Everything one explanation of one model says, with what people do with it; for the fields see ExplanationData."""

    def save(self, folder: str | Path) -> Path:
        """Write ``explanation.json``, ``scores.csv``, ``arrays.safetensors`` and every hierarchy as GraphML and GEXF;
        ``shares.csv`` where there are shares.

        The same explanation gives the same bytes. ``load`` gives back an equal one. Labels stand in ``scores.csv`` as
        they are, so that one which begins with ``=``, ``+``, ``-`` or ``@`` is a formula to a spreadsheet: import the
        column as text if you do not trust your labels.

        Raises:
            InputError: the folder cannot be written.
        """
        return save_explanation(self, Path(folder))

    @classmethod
    def load(cls, folder: str | Path) -> Explanation:
        """Read what ``save`` wrote. Nothing is unpickled.

        Raises:
            InputError: a file is missing, damaged, or of another schema version.
        """
        return cls(**vars(load_explanation(Path(folder))))

    def to_html(self, path: str | Path, *, limit_mb: float = 25.0) -> Path:
        """Write the page; see ``report.write_report``."""
        return write_report(self, path, limit_mb=limit_mb)

    def export(self, format: str, path: str | Path, **options: Any) -> Path:
        """Write the explanation in a registered format: ``"folder"`` (as `save`), ``"html"``, or a plugin's.

        Args:
            format: name of an exporter (hook ``captum_concepts_exporters``).
            path: the file or folder to write.
            options: of that exporter.

        Returns:
            ``path``.

        Raises:
            InputError: no such format.
        """
        lookup("exporters", format).factory(self, path, **options)
        return Path(path)

    def top(self, layer: str | None = None, n: int = 10) -> pd.DataFrame:
        """The ``n`` tested concepts with the largest magnitude for each target at one layer (default: the last).

        Targets come in the order of ``targets``.

        Raises:
            InputError: no such layer.
        """
        layer = self.layers[-1] if layer is None else layer
        if layer not in self.layers:
            raise InputError(f"layer {short_repr(layer)} was not explained; choose one of {', '.join(self.layers)}")
        rows = self.scores[(self.scores["layer"] == layer) & (self.scores["status"] == "ok")]
        ranked = rows.sort_values("magnitude", ascending=False, kind="stable")
        ranked = ranked.sort_values(
            "target", key=lambda names: names.map({name: i for i, name in enumerate(self.targets)}), kind="stable"
        )
        return ranked.groupby("target", sort=False).head(n).reset_index(drop=True)

    def combined(
        self, layers: Sequence[str] | None = None, miner: str = "spanning_tree", **options: Any
    ) -> ConceptHierarchy:
        """One hierarchy for several layers, mined from the mean of their similarities (``similarity.combine``).

        Args:
            layers: default: all that have a hierarchy.
            miner: with its ``options``, see ``miners.mine``.

        Raises:
            InputError: no such layer, a layer without a hierarchy, or no concept that is testable at all of them.
        """
        chosen = list(self.hierarchies) if layers is None else list(layers)
        for layer in chosen:
            if layer not in self.hierarchies:
                raise InputError(
                    f"layer {short_repr(layer)} has no hierarchy; choose from {', '.join(self.hierarchies)}"
                )
            if layer not in self.similarities or layer not in self.banks:
                raise InputError(
                    f"layer {short_repr(layer)}: its similarities are not in the explanation; explain again"
                )
        at = {layer: {name: i for i, name in enumerate(self.banks[layer].names)} for layer in chosen}
        usable = [
            name
            for name in self.concepts
            if all(name in at[x] and np.isfinite(self.similarities[x][at[x][name], at[x][name]]) for x in chosen)
        ]
        if not usable:
            raise InputError(f"no concept can be told apart at all of {', '.join(chosen) or 'no layer'}; give fewer")
        rows = {layer: [at[layer][name] for name in usable] for layer in chosen}
        matrices = {layer: self.similarities[layer][np.ix_(rows[layer], rows[layer])] for layer in chosen}
        return mine(combine(matrices), usable, miner, **options)

    def consensus(self, layer: str | None = None, least: float = 0.5) -> ConceptHierarchy:
        """What at least this share of the resamples agree on, see ``support.Support.consensus``.

        Args:
            layer: default: the last that has support.
            least: in (0, 1].

        Raises:
            InputError: a layer without support, or a share out of range.
        """
        if layer is None:
            layer = next((name for name in reversed(self.layers) if name in self.supports), self.layers[-1])
        if layer not in self.supports:
            remedy = f"choose from {', '.join(self.supports)}" if self.supports else "explain with support=200"
            raise InputError(f"layer {short_repr(layer)} has no support; {remedy}")
        return self.supports[layer].consensus(least)

    def why(self, concept: str, layer: str | None = None, candidates: int = 3) -> str:
        """In words, why a concept sits where it sits in the hierarchy of a layer (default: the last that has one).

        Its parents with similarity and support, the concepts most similar to it, how general it is, its stability and
        what the clips are that speak for it most.

        Raises:
            InputError: no such layer, or a concept that is not in its hierarchy.
        """
        if layer is None:
            layer = next((name for name in reversed(self.layers) if name in self.hierarchies), "")
        if layer not in self.hierarchies:
            raise InputError(f"layer {short_repr(layer)} has no hierarchy; choose from {', '.join(self.hierarchies)}")
        hierarchy, bank = self.hierarchies[layer], self.banks[layer]
        order = [bank.names.index(name) for name in hierarchy.names if name in bank.names]
        matrix = self.similarities[layer][np.ix_(order, order)] if len(order) == len(hierarchy) else None
        stability = self.supports[layer].stability.get(concept) if layer in self.supports else None
        lines = [describe(hierarchy, concept, matrix, candidates, stability)]
        clips = self.examples.get(layer, {}).get(concept, [])
        if clips:
            named = ", ".join(f"{Path(c.path).name} from {c.start:.1f} s" for c in clips)
            lines.append(f"Clips that speak for it most: {named}.")
        return "\n".join(lines)
