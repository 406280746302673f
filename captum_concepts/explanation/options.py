"""What can be chosen about an explanation, as records that are checked when they are made."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from torch import Tensor

from captum_concepts.backbones.layers import check_pooling
from captum_concepts.cavs.methods import CavMethod, FitFunction, resolve_method
from captum_concepts.errors import InputError
from captum_concepts.hierarchy.concept_hierarchy import ConceptHierarchy
from captum_concepts.miners.several_parents import check_parent_options
from captum_concepts.plugins.registry import lookup
from captum_concepts.significance.corrections import check_correction
from captum_concepts.similarities.api import find_measure
from captum_concepts.text import short_repr


@dataclass(frozen=True)
class FitOptions:
    """How the CAVs of a layer are fitted.

    Attributes:
        cav: a registered CAV method or a function like ``cavs.fit_pattern``.
        cav_options: passed to the method.
        pool: pooling of activations: "time", "none" or "time_freq".
        min_groups: concepts with fewer groups of positives or negatives are not fitted; at least 2.

    Raises:
        InputError: an unknown method, option or pooling, or a number out of range.

    Example:
        >>> FitOptions(cav="lda").min_groups
        5
    """

    cav: str | FitFunction = "pattern"
    cav_options: dict[str, Any] = field(default_factory=dict)
    pool: str = "time"
    min_groups: int = 5

    def __post_init__(self) -> None:
        check_pooling(self.pool)
        _at_least("min_groups", self.min_groups, 2)
        object.__setattr__(self, "cav_options", dict(self.cav_options or {}))
        _check_signature("cav_options", resolve_method(self.cav), 4, self.cav_options)

    @property
    def method(self) -> CavMethod:
        """The CAV method with its options."""
        return CavMethod(resolve_method(self.cav), self.cav_options)


@dataclass(frozen=True)
class SignificanceOptions:
    """How effects are tested.

    Attributes:
        n_nulls: null concepts per concept size; default: as many as the family of tests needs, between 1,999 and
            9,999; at least 19.
        correction: of the p-values within a layer and target: "bh", "by", "holm", "bonferroni" or "hierarchical", see
            ``significance.CORRECTIONS``. "hierarchical" mines the hierarchy on one half of the concepts' groups, and
            fits, tests and walks it down on the other.
        bootstrap: samples for the intervals; at least 100.

    Raises:
        InputError: an unknown correction, or a number out of range.

    Example:
        >>> SignificanceOptions(correction="holm").bootstrap
        1000
    """

    n_nulls: int | None = None
    correction: str = "bh"
    bootstrap: int = 1000

    def __post_init__(self) -> None:
        _at_least("bootstrap", self.bootstrap, 100)
        if self.n_nulls is not None:
            _at_least("n_nulls", self.n_nulls, 19)
        check_correction(self.correction)


@dataclass(frozen=True)
class HierarchyOptions:
    """How the hierarchy is mined, and what is computed along it.

    Attributes:
        similarity: a registered measure or a callable, see ``similarities.similarity``.
        miner: a registered miner or a callable, see ``miners.mine``.
        miner_options: passed to the miner.
        support: bootstrap samples for the support of every link, see ``miners.bootstrap_support``; 0: none. Cheap with
            the similarity "discriminant"; with another one every sample fits all CAVs again.
        max_parents: of one concept; above 1 the hierarchy is a DAG, see ``miners.add_parents``.
        shares: whether to compute the contribution of each concept and subtree to each class, see ``contributions``;
            seconds to minutes.

    Raises:
        InputError: an unknown measure, miner or option, or a number out of range.

    Example:
        >>> HierarchyOptions(miner="heymann", similarity="activation").max_parents
        1
    """

    similarity: str | Callable[..., Tensor] = "discriminant"
    miner: str | Callable[..., ConceptHierarchy] = "spanning_tree"
    miner_options: dict[str, Any] = field(default_factory=dict)
    support: int = 0
    max_parents: int = 1
    shares: bool = False

    def __post_init__(self) -> None:
        if self.support < 0:
            raise InputError(f"support={self.support}: negative; give 0 for none, or a number of bootstrap samples")
        check_parent_options(self.max_parents, 0)
        object.__setattr__(self, "miner_options", dict(self.miner_options or {}))
        miner = self.miner if callable(self.miner) else lookup("miners", self.miner).factory
        _check_signature("miner_options", miner, 2, self.miner_options)
        find_measure(self.similarity)


@dataclass(frozen=True)
class ExplainOptions:
    """All records of options of one explanation."""

    fit: FitOptions
    tests: SignificanceOptions
    hierarchy: HierarchyOptions

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> ExplainOptions:
        """Records from keyword arguments, each of which is a field of one of them.

        Raises:
            InputError: a name that is no option, or what the records refuse.

        Example:
            >>> ExplainOptions.of({"cav": "lda", "bootstrap": 500}).tests.bootstrap
            500
        """
        records = (FitOptions, SignificanceOptions, HierarchyOptions)
        known = {option.name: record for record in records for option in fields(record)}
        for name in given:
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"options are {', '.join(known)}"
                raise InputError(f"{name}={short_repr(given[name])}: no such option; {hint}")

        def of_record(record: type) -> dict[str, Any]:
            return {name: value for name, value in given.items() if known[name] is record}

        return cls(
            FitOptions(**of_record(FitOptions)),
            SignificanceOptions(**of_record(SignificanceOptions)),
            HierarchyOptions(**of_record(HierarchyOptions)),
        )

    def as_dict(self) -> dict[str, Any]:
        """Option -> value, of all records."""
        return {**vars(self.fit), **vars(self.tests), **vars(self.hierarchy)}


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise InputError(f"{name}={value}: too few; give at least {least}")


def _check_signature(argument: str, function: Callable[..., Any], positional: int, options: dict[str, Any]) -> None:
    try:
        signature = inspect.signature(function)
    except ValueError:  # some callables written in C do not tell
        return
    try:
        signature.bind(*[None] * positional, **options)
    except TypeError as error:
        raise InputError(f"{argument}={short_repr(options)}: {error}") from None
