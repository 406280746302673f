"""The built-in similarities by name: a new measure is one file in this folder and one line here."""

from __future__ import annotations

from captum_concepts.similarities.activation import activation
from captum_concepts.similarities.correlation import correlation
from captum_concepts.similarities.cosine import cosine
from captum_concepts.similarities.diffusion import diffusion
from captum_concepts.similarities.discriminant.measure import discriminant
from captum_concepts.similarities.measure import Measure
from captum_concepts.similarities.overlap import overlap
from captum_concepts.similarities.sensitivity import sensitivity

SIMILARITIES: dict[str, Measure] = {
    "cosine": Measure(cosine, symmetric=True),
    "diffusion": Measure(diffusion, symmetric=True),
    "activation": Measure(activation, symmetric=False, needs=frozenset({"activations", "labels"})),
    "correlation": Measure(correlation, symmetric=True, needs=frozenset({"activations"})),
    "discriminant": Measure(discriminant, symmetric=True, needs=frozenset({"activations", "labels"}), grouped=True),
    "sensitivity": Measure(sensitivity, symmetric=True, needs=frozenset({"gradients"})),
    "overlap": Measure(overlap, symmetric=False, needs=frozenset({"labels"})),
}
