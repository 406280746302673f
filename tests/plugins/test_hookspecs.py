"""The hooks promise what the rest of the package relies on."""

from __future__ import annotations

import inspect

import pytest

from captum_concepts.plugins import hookspecs
from captum_concepts.plugins import registry as plugins

HOOKS = {
    "captum_concepts_backbones": (),
    "captum_concepts_concept_sources": (),
    "captum_concepts_interventions": (),
    "captum_concepts_cav_methods": (),
    "captum_concepts_similarities": (),
    "captum_concepts_miners": (),
    "captum_concepts_explainers": (),
    "captum_concepts_exporters": (),
    "captum_concepts_commands": ("cli",),
    "captum_concepts_hierarchy_mined": ("hierarchy",),
    "captum_concepts_explanation_ready": ("explanation",),
}


def specified() -> dict[str, tuple[str, ...]]:
    return {
        name: tuple(inspect.signature(function).parameters)
        for name, function in inspect.getmembers(hookspecs, inspect.isfunction)
        if hasattr(function, "captum_concepts_spec")
    }


def test_the_hooks_are_the_promised_ones():
    assert specified() == HOOKS


def test_markers_belong_to_the_project():
    assert hookspecs.hookspec.project_name == hookspecs.hookimpl.project_name == "captum_concepts"


@pytest.mark.parametrize("name", HOOKS)
def test_docstring_says_when_what_and_how(name):
    text = inspect.getdoc(getattr(hookspecs, name))
    assert "Called " in text
    assert "eturns " in text
    assert "Example: " in text
    for argument in HOOKS[name]:
        assert f"``{argument}``" in text


@pytest.mark.parametrize("kind", plugins.CALLS)
def test_docstring_gives_the_call_that_is_checked(kind):
    text = inspect.getdoc(getattr(hookspecs, f"captum_concepts_{kind}"))
    assert f"({', '.join(plugins.CALLS[kind])}" in text
    for argument in plugins.CALLS[kind]:
        assert f"``{argument}``" in text


def test_every_hook_without_arguments_is_a_kind_to_look_up():
    assert {f"captum_concepts_{kind}" for kind in plugins.CALLS} == {name for name in HOOKS if not HOOKS[name]}
