"""The corrections by name: a new one is a function and an entry here, and its name in ``choices.CORRECTIONS``."""

from __future__ import annotations

from captum_concepts.significance.families import (
    Correction,
    benjamini_hochberg,
    benjamini_yekutieli,
    bonferroni,
    harmonic,
    holm,
)

#: The bound of Yekutieli (JASA 2008) on the FDR over a whole tree whose families of siblings are each tested at level
#: q: 2 d q, with d <= 1.44. So each family is tested at alpha / TREE_FACTOR.
TREE_FACTOR = 2 * 1.44

BUILTIN_CORRECTIONS: dict[str, Correction] = {
    "bh": Correction(
        "Benjamini-Hochberg: false discovery rate, for independent or positively dependent tests", benjamini_hochberg
    ),
    "by": Correction("Benjamini-Yekutieli: false discovery rate under any dependence", benjamini_yekutieli, harmonic),
    "holm": Correction("Holm: chance of any false rejection, under any dependence", holm),
    "bonferroni": Correction("Bonferroni: chance of any false rejection, under any dependence", bonferroni),
    "hierarchical": Correction(
        "false discovery rate top-down along the hierarchy: Benjamini-Hochberg among siblings, a concept only if its "
        f"parent was rejected; q-values times {TREE_FACTOR:g} (Yekutieli 2008: FDR over the tree <= 2 x 1.44 x level "
        "of a family)",
        None,
        lambda family: TREE_FACTOR,
    ),
}
