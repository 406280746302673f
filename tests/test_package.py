"""The package as others meet it: its names, what importing it costs, its version."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import captum_concepts as cc

ROOT = Path(__file__).resolve().parents[1]


def python(code: str) -> str:
    """What ``code`` prints in an interpreter of its own, in which nothing of the package has been imported."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return done.stdout.strip()


@pytest.mark.parametrize("name", cc.__all__)
def test_every_public_name_resolves(name):
    value = getattr(cc, name)
    assert value is getattr(cc, name)
    if name in cc._HOMES and name != "hookimpl":
        assert callable(value)
        assert value.__name__ == name
        assert value.__module__.startswith("captum_concepts.")


def test_public_names_are_sorted_and_listed():
    assert cc.__all__ == sorted(set(cc.__all__))
    assert set(cc.__all__) == {*cc._HOMES, "__version__"}
    assert set(cc.__all__) <= set(dir(cc))


def test_type_checkers_see_the_same_names():
    source = (ROOT / "captum_concepts" / "__init__.py").read_text(encoding="utf-8")
    imports = re.findall(r"^    from captum_concepts\.(\w+) import (.+)$", source, flags=re.MULTILINE)
    assert {name: module for module, names in imports for name in names.split(", ")} == cc._HOMES


def test_unknown_name():
    with pytest.raises(AttributeError, match="module 'captum_concepts' has no attribute 'nothing'"):
        cc.nothing  # noqa: B018


def test_importing_the_package_imports_nothing_heavy():
    heavy = [
        "captum",
        "click",
        "jinja2",
        "networkx",
        "numpy",
        "pandas",
        "rich",
        "safetensors",
        "scipy",
        "soundfile",
        "torch",
    ]
    assert python(f"import sys, captum_concepts; print([n for n in {heavy} if n in sys.modules])") == "[]"


def test_importing_everything_public_imports_nothing_optional():
    optional = ["essentia", "gradio", "h5py", "playwright", "pyarrow", "quantus", "ray", "sklearn", "statsmodels"]
    # captum and pandas take what they find installed; what counts is what comes on top of them.
    code = (
        f"import sys, captum.concept, pandas; optional = {optional}; before = set(sys.modules)\n"
        "from captum_concepts import *; import captum_concepts.plugins as p; [p.registry(kind) for kind in p.CALLS]\n"
        "print([name for name in optional if name in sys.modules and name not in before])"
    )
    assert python(f"import os; os.environ['CAPTUM_CONCEPTS_DISABLE_PLUGINS'] = '1'\n{code}") == "[]"


def test_similarity_is_the_function_in_whatever_order_things_are_imported():
    orders = [
        "import captum_concepts.similarity",
        "from captum_concepts.similarity import SIMILARITIES",
        "import captum_concepts; captum_concepts.similarity",
        "from captum_concepts import similarity",
        "from captum_concepts.plugins import registry; registry('similarities')",
    ]
    # One interpreter, in which the package is forgotten before each order, so that torch is imported only once.
    code = (
        "import sys\n"
        f"for first in {orders}:\n"
        "    for name in [name for name in sys.modules if name.split('.')[0] == 'captum_concepts']:\n"
        "        del sys.modules[name]\n"
        "    exec(first, {})\n"
        "    import captum_concepts as cc, captum_concepts.similarity\n"
        "    from captum_concepts import similarity\n"
        "    from captum_concepts.similarity import similarity as function\n"
        "    module = sys.modules['captum_concepts.similarity']\n"
        "    print(type(function).__name__, cc.similarity is function, similarity is function, module.__name__)\n"
    )
    assert python(code).splitlines() == ["function True True captum_concepts.similarity"] * len(orders)


def test_no_other_public_name_is_also_a_submodule():
    modules = {path.stem for path in (ROOT / "captum_concepts").iterdir() if not path.name.startswith("_")}
    assert set(cc.__all__) & modules == {"similarity"}


def test_version_is_stated_once():
    assert re.fullmatch(r"\d+\.\d+\.\d+", cc.__version__)
    assert 'dynamic = ["version"]' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_types_are_published():
    assert (ROOT / "captum_concepts" / "py.typed").exists()
