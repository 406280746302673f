"""The structure of the package: no import circle of files or packages, and packages export what they list."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import networkx as nx
import pytest
from helpers.paths import ROOT

PACKAGE = ROOT / "captum_concepts"
PACKAGES = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def import_graph() -> nx.DiGraph:
    """Every import between modules of the package, those within functions and for type checkers included."""
    modules = {module_name(path): path for path in PACKAGE.rglob("*.py")}
    graph = nx.DiGraph()
    graph.add_nodes_from(modules)
    for name, path in modules.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{name}: relative import"
                whole = [f"{node.module}.{alias.name}" for alias in node.names]
                found = [target if target in modules else str(node.module) for target in whole]
            else:
                continue
            graph.add_edges_from((name, target) for target in found if target in modules and target != name)
    return graph


def circles(graph: nx.DiGraph) -> list[list[str]]:
    return [sorted(part) for part in nx.strongly_connected_components(graph) if len(part) > 1]


def test_the_graph_sees_imports_of_every_kind() -> None:
    graph = import_graph()
    assert graph.has_edge("captum_concepts.cavs.fit", "captum_concepts.cavs.bank")  # at the top
    assert graph.has_edge("captum_concepts.cli.app", "captum_concepts.demo.run")  # within a function
    assert graph.has_edge(
        "captum_concepts.hierarchy.description", "captum_concepts.hierarchy.concept_hierarchy"
    )  # type


def test_no_files_import_each_other_in_a_circle() -> None:
    graph = import_graph()
    graph.remove_node("captum_concepts")  # its names are imported when they are first used
    assert circles(graph) == []


def test_no_packages_import_each_other_in_a_circle() -> None:
    def package(module: str) -> str:
        return ".".join(module.split(".")[:2])

    graph = nx.DiGraph()
    for source, target in import_graph().edges:
        if "captum_concepts" not in (source, target) and package(source) != package(target):
            graph.add_edge(package(source), package(target))
    assert circles(graph) == []


def test_a_circle_would_be_found() -> None:
    assert circles(nx.DiGraph([("a", "b"), ("b", "c"), ("c", "a"), ("c", "d")])) == [["a", "b", "c"]]


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_exports_what_it_lists(package: str) -> None:
    source = (PACKAGE / package / "__init__.py").read_text(encoding="utf-8")
    module = importlib.import_module(f"captum_concepts.{package}")
    assert module.__doc__
    imported = {
        alias.asname or alias.name
        for node in ast.parse(source).body
        if isinstance(node, ast.ImportFrom) and node.module != "__future__"
        for alias in node.names
    }
    assert set(getattr(module, "__all__", [])) == imported


def test_modules_and_functions_stay_readable() -> None:
    """At most 450 lines a file and 60 a function; options of the command line and tables of constants are data."""
    long = []
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if len(text.splitlines()) > 450:
            long.append(f"{path.relative_to(ROOT)}: {len(text.splitlines())} lines")
    assert long == []
