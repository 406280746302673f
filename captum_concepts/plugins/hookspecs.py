"""Every extension point of captum_concepts, one function each.

A plugin is a module (or any object) whose functions carry the name of a hook below and the ``@hookimpl`` mark; its
distribution names it in the entry-point group ``captum_concepts``. The built-in methods come through the same hooks
(:mod:`captum_concepts.builtin_plugins`). Rules that pluggy sets: an implementation may leave out arguments it does not
need; an argument with a default is never passed; the plugin registered last is called first unless marked ``tryfirst``
or ``trylast``; every implementation is called and all results count.

The hooks that return a mapping are called once, when something is first looked up. Importing heavy libraries belongs
inside the factories, not at the top of the plugin: a plugin is imported whenever the command line starts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    import click

PROJECT = "captum_concepts"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
Factories = Mapping[str, Callable[..., Any]]


# Things that are looked up by name


@hookspec
def captum_concepts_backbones() -> Factories:  # type: ignore[empty-body]
    """Models whose decisions can be explained, by name.

    Called once, at the first look-up. Returns name -> ``factory(weights, device, **options) -> Backbone``:
    ``weights`` is the path the user gave or None, ``device`` a torch device such as ``"cpu"`` or ``"cuda:0"``,
    ``options`` what the user passed to ``load_backbone``. Raise ``InputError`` for weights of another architecture.

    Example: ``{"msd-vgg": load_msd_vgg}`` makes ``load_backbone("msd-vgg", weights="MSD_vgg.h5")`` work.
    """


@hookspec
def captum_concepts_concept_sources() -> Factories:  # type: ignore[empty-body]
    """Places concepts can be read from, by name.

    Called once, at the first look-up. Returns name -> ``factory(argument, **options) -> ConceptSet``: ``argument`` is
    the text after the colon in ``--concepts name:argument`` (mostly a path). Raise ``InputError`` for a bad argument.

    Example: ``{"jams": read_jams}`` makes ``--concepts jams:annotations/`` work.
    """


@hookspec
def captum_concepts_interventions() -> Factories:  # type: ignore[empty-body]
    """Changes of a sound that stand for a concept, by name.

    Called once, at the first look-up. Returns name -> ``factory(strength, **options) -> Intervention``: ``strength`` is
    how much is changed, in the unit of the intervention; ``options`` is what the user passed. Raise ``InputError`` for
    a strength or an option out of range. ``captum_concepts.testing.check_intervention`` tells whether an intervention
    keeps its contract.

    Example: ``{"vibrato": Vibrato}`` makes ``registry.lookup("interventions", "vibrato").factory(0.5)`` work.
    """


@hookspec
def captum_concepts_cav_methods() -> Factories:  # type: ignore[empty-body]
    """Ways to find the direction of a concept in activation space, by name.

    Called once, at the first look-up. Returns name ->
    ``fit(activations, positives, negatives, weights, **options) -> (directions, biases)``: ``activations`` is a float
    tensor (N, D), ``positives`` and ``negatives`` are bool tensors (N, K), ``weights`` is a float tensor (N,) that
    evens out groups of different size; ``directions`` (K, D), of any length, and ``biases`` (K,) come back on the same
    device: ``f @ directions[k] + biases[k]`` is the logit that a row f shows concept k. All K concepts are fitted in
    one call.

    Example: ``{"mean-difference": fit}`` makes ``fit_cavs(activations, labels, method="mean-difference")`` work.
    """


@hookspec
def captum_concepts_similarities() -> Factories:  # type: ignore[empty-body]
    """Measures of how similar two concepts are, by name.

    Called once, at the first look-up. Returns name ->
    ``measure(bank, activations, labels, weights) -> similarity``: ``bank`` is the ``ConceptBank``; ``activations`` is
    a float tensor (N, D), ``labels`` a bool tensor (N, K) and ``weights`` a float tensor (N,) that evens out groups of
    different size, each of them None if the user gave none; ``similarity`` is a float tensor (K, K) whose entry (i, j)
    says how much concept i shows concept j. A measure may carry an attribute ``symmetric: bool`` (default False), for
    miners that need a symmetric matrix.

    Example: ``{"angle": measure}`` makes ``similarity(bank, measure="angle")`` work.
    """


@hookspec
def captum_concepts_miners() -> Factories:  # type: ignore[empty-body]
    """Ways to turn a similarity matrix into a hierarchy, by name.

    Called once, at the first look-up. Returns name -> ``miner(similarity, names, **options) -> ConceptHierarchy``:
    ``similarity`` is a float tensor (K, K), ``names`` the K concept names in the same order. Raise ``InputError`` for
    an option out of range. Permuting the concepts must permute the result and change nothing else.

    Example: ``{"single-linkage": mine}`` makes ``mine(similarity, names, miner="single-linkage")`` work.
    """


@hookspec
def captum_concepts_explainers() -> Factories:  # type: ignore[empty-body]
    """Other methods of explanation to compare with, by name.

    Called once, at the first look-up. Returns name -> ``explain(model, inputs, targets, **options) -> attributions``:
    ``model`` is a ``torch.nn.Module`` that returns logits (B, C), ``inputs`` a tensor (B, ...) it accepts, ``targets``
    an integer tensor (B,) of class indices; ``attributions`` is a numpy array of the shape of ``inputs``. One that has
    an option ``baselines`` is given real inputs to compare with, a tensor (M, ...).

    Example: ``{"occlusion": explain}`` makes ``captum-concepts attribute --method occlusion`` work.
    """


@hookspec
def captum_concepts_exporters() -> Factories:  # type: ignore[empty-body]
    """Formats an explanation can be written in, by name.

    Called once, at the first look-up. Returns name -> ``export(explanation, path) -> None``: ``explanation`` is the
    ``Explanation``, ``path`` the file or folder to write. Labels in it are untrusted: escape them for the format.

    Example: ``{"dot": export}`` makes ``dot`` a format that an explanation can be written in.
    """


# The command line


@hookspec
def captum_concepts_commands(cli: click.Group) -> None:
    """Add commands to ``captum-concepts``.

    Called once, when the command line starts. ``cli`` is the ``click.Group`` of ``captum-concepts``; add to it with
    ``@cli.command()`` or ``@cli.group()``. Returns nothing. Results belong on stdout, messages on stderr.

    Example: ``cli.add_command(gtzan)`` makes ``captum-concepts gtzan`` work.
    """


# Watching the work


@hookspec
def captum_concepts_hierarchy_mined(hierarchy: Any) -> None:
    """See each hierarchy as soon as it has been mined.

    Called once per layer of an explanation. ``hierarchy`` is the finished
    ``captum_concepts.ConceptHierarchy``; look at it, do not change it. Returns nothing; an exception ends the run.

    Example: log ``hierarchy.graph.number_of_edges()`` to an experiment tracker.
    """


@hookspec
def captum_concepts_explanation_ready(explanation: Any) -> None:
    """See each explanation as soon as it is complete.

    Called at the end of every explanation, before anything is written. ``explanation`` is the finished
    ``captum_concepts.Explanation``; look at it, do not change it. Returns nothing; an exception ends the run.

    Example: upload ``explanation.scores`` to a dashboard.
    """
