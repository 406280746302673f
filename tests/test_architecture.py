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


# What is longer than the others, and why.
LONG_FOR_A_REASON = {
    "backbones/torch_backbone.py: TorchBackbone.__init__": "one keyword for each thing to know about a user's model",
    "backbones/embedding_backbone.py: EmbeddingBackbone.__init__": "one keyword for each thing to know about a model",
    "tcav/batched_cavs.py: BatchedCAVs.__init__": "the arguments of Captum's TCAV, which it stands in for",
}


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


def definitions() -> list[tuple[str, ast.FunctionDef]]:
    """``package/module.py: Class.function`` and its definition, of the whole package."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        owners = [("", tree), *((f"{node.name}.", node) for node in ast.walk(tree) if isinstance(node, ast.ClassDef))]
        found += [
            (f"{path.relative_to(PACKAGE)}: {owner}{node.name}", node)
            for owner, parent in owners
            for node in parent.body
            if isinstance(node, ast.FunctionDef)
        ]
    return found


def code_lines(function: ast.FunctionDef) -> int:
    docstring = ast.get_docstring(function, clean=False)
    return function.end_lineno - function.lineno + 1 - (len(docstring.splitlines()) if docstring else 0)


def test_files_have_at_most_450_lines() -> None:
    sizes = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for path in PACKAGE.rglob("*.py")
    }
    assert {path: size for path, size in sizes.items() if size > 450} == {}


def test_functions_have_at_most_60_lines_of_code() -> None:
    long = {name: code_lines(function) for name, function in definitions() if code_lines(function) > 60}
    assert long.keys() <= LONG_FOR_A_REASON.keys(), long


def test_constructors_have_at_most_ten_arguments() -> None:
    counts = {
        name: len(function.args.args) + len(function.args.kwonlyargs) - 1
        for name, function in definitions()
        if function.name == "__init__"
    }
    assert {name for name, count in counts.items() if count > 10} <= LONG_FOR_A_REASON.keys(), counts
