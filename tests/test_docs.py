"""The documentation agrees with the code."""

from __future__ import annotations

import functools
import inspect
import re
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from helpers.paths import ROOT
from helpers.planted import planted_directions

import captum_concepts as cc
from captum_concepts.plugins import hookspecs
from captum_concepts.plugins import registry as plugins

HOOKS_PAGE = (ROOT / "docs" / "reference" / "hooks.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCS = sorted((ROOT / "docs").rglob("*.md"))
HOOKS = [name for name in dir(hookspecs) if name.startswith("captum_concepts_")]


def example(text: str, name: str) -> str:
    """The code between ``<!-- start NAME -->`` and ``<!-- end NAME -->``."""
    between = re.findall(rf"<!-- start {name} -->\n+```\w*\n(.*?)```\n+<!-- end {name} -->", text, flags=re.DOTALL)
    assert len(between) == 1, f"one example called {name} expected, {len(between)} found"
    return between[0]


def section(hook: str) -> str:
    arguments = ", ".join(inspect.signature(getattr(hookspecs, hook)).parameters)
    heading = f"### `{hook}({arguments})`\n"
    assert HOOKS_PAGE.count(heading) == 1
    return re.split(r"^##", HOOKS_PAGE.split(heading)[1], maxsplit=1, flags=re.MULTILINE)[0]


@pytest.fixture
def only_builtins(monkeypatch):
    monkeypatch.setenv(plugins.DISABLE, "1")
    plugins._load.cache_clear()
    yield
    plugins._load.cache_clear()


def registered(code: str) -> None:
    module = ModuleType("documented")
    exec(compile(code, "documentation", "exec"), module.__dict__)
    plugins.get_plugin_manager().register(module)


@pytest.mark.parametrize("hook", HOOKS)
def test_plugin_hooks_are_documented(hook):
    text = section(hook)
    for argument in inspect.signature(getattr(hookspecs, hook)).parameters:
        assert f"| `{argument}` |" in text
    assert f"@hookimpl\ndef {hook}(" in text


@pytest.mark.parametrize("kind", plugins.CALLS)
def test_calls_of_factories_are_documented(kind):
    text = section(f"captum_concepts_{kind}")
    assert re.search(rf"^`\w+\({', '.join(plugins.CALLS[kind])}(, \*\*options)?\) -> .+`$", text, flags=re.MULTILINE)
    for argument in plugins.CALLS[kind]:
        assert f"| `{argument}` |" in text


def test_no_hook_is_documented_that_does_not_exist():
    assert re.findall(r"^### `(\w+)\(", HOOKS_PAGE, flags=re.MULTILINE) == sorted(
        HOOKS, key=lambda name: inspect.getsourcelines(getattr(hookspecs, name))[1]
    )


@pytest.mark.parametrize("hook", HOOKS)
def test_snippets_of_hooks_are_valid_plugins(hook):
    for code in re.findall(r"```python\n(.*?)```", section(hook), flags=re.DOTALL):
        names = dict.fromkeys(re.findall(r": (\w+)\}", code), print)
        namespace = {"hookimpl": cc.hookimpl, **names}
        exec(code, namespace)
        implemented = tuple(inspect.signature(namespace[hook]).parameters)
        assert implemented == tuple(inspect.signature(getattr(hookspecs, hook)).parameters)


def test_the_documented_plugin_works(only_builtins):
    registered(example(HOOKS_PAGE, "plugin"))
    activations, labels, directions = planted_directions(400, 6, 2)
    namespace = {"activations": activations, "labels": labels}
    exec(example(HOOKS_PAGE, "use"), namespace)
    found = namespace["bank"].directions.cpu()
    cosines = torch.nn.functional.cosine_similarity(found, directions)
    assert (cosines > 0.9).all()
    leaning = activations @ found.T + namespace["bank"].biases.cpu() > 0
    assert (leaning == labels).float().mean() > 0.95


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib came with Python 3.11")
def test_the_documented_project_names_the_entry_point():
    import tomllib

    project = tomllib.loads(example(HOOKS_PAGE, "project"))["project"]
    assert project["entry-points"] == {plugins.GROUP: {"centroid": "captum_concepts_centroid"}}
    assert "`captum_concepts_centroid.py`" in HOOKS_PAGE


def test_the_plugin_of_the_readme_works(only_builtins, tmp_path, monkeypatch):
    registered(example(README, "plugin"))
    entry = plugins.lookup("exporters", "names")
    assert entry.plugin == "documented"
    (use,) = re.findall(r"`(explanation\.export\(.+?\))`", README)
    monkeypatch.chdir(tmp_path)
    names = SimpleNamespace(concepts=("one", "two"))
    exec(use, {"explanation": SimpleNamespace(export=functools.partial(cc.Explanation.export, names))})
    assert (tmp_path / "names.txt").read_text(encoding="utf-8") == "one\ntwo\n"
    assert " ".join(re.findall(r"`captum-concepts export \S+ (\S+ \S+)`", README)) == "names names.txt"


@pytest.mark.parametrize("page", [path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")])
def test_links_between_pages_lead_somewhere(page):
    path = ROOT / page
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), target


def test_every_page_is_in_the_navigation_or_in_another_page():
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = {path.relative_to(ROOT / "docs").as_posix(): path for path in (ROOT / "docs").rglob("*.md")}
    text = "\n".join(path.read_text(encoding="utf-8") for path in pages.values())
    for page in pages:
        assert f": {page}\n" in navigation or f'--8<-- "{page}"\n' in text, page


def test_every_package_has_a_page_in_the_reference():
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for path in (ROOT / "captum_concepts").glob("*/__init__.py"):
        package = path.parent.name
        page = ROOT / "docs" / "reference" / f"{package}.md"
        assert page.is_file(), f"write {page.relative_to(ROOT)}, and name it in mkdocs.yml"
        assert f"::: captum_concepts.{package}\n" in page.read_text(encoding="utf-8")
        assert f"{package}: reference/{package}.md\n" in navigation


def test_every_package_is_in_the_architecture():
    table = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for path in (ROOT / "captum_concepts").glob("*/__init__.py"):
        assert re.search(rf"^\|.*`{path.parent.name}`.*\|", table, flags=re.MULTILINE), path.parent.name


@pytest.mark.parametrize("page", ["README.md", *(path.relative_to(ROOT).as_posix() for path in DOCS)])
def test_pages_install_only_from_the_repository(page):
    """Nothing is published yet, so `pip install` takes a path."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for argument in re.findall(r"pip install '?([^\s'`]+)", text):
        assert argument.startswith("."), argument


def test_pages_use_standard_terms():
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS]:
        if "figures" not in path.parts:  # written by benchmarks
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"\b(heard|held against|the rooms|the doors)\b", text, flags=re.IGNORECASE), path.name


def test_every_test_named_by_feature_parity_exists():
    files = [*ROOT.glob("tests/**/test_*.py"), *ROOT.glob("plugins/*/tests/**/test_*.py")]
    inside = {path: set(re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.M)) for path in files}
    known = {path.name for path in files}.union(*inside.values())
    text = (ROOT / "docs" / "feature-parity.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)?(?:::)?(test_\w+(?:\.py)?)?`", text)
    for file, test in named:
        assert not file or ROOT / file in inside, file
        assert not test or test in (inside[ROOT / file] if file else known), test
    assert sum(bool(test) for _, test in named) > 100
