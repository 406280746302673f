"""The package as others meet it: its names, what importing it costs, its version."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from helpers.paths import ROOT

import captum_concepts as cc


def python(code: str) -> str:
    """What ``code`` prints in an interpreter of its own, in which nothing of the package has been imported."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return done.stdout.strip()


@pytest.mark.parametrize("name", cc.__all__)
def test_every_public_name_resolves(name):
    value = getattr(cc, name)
    assert value is getattr(cc, name)
    if name not in ("__version__", "hookimpl"):
        assert callable(value)
        assert value.__name__ == name
        assert value.__module__.startswith("captum_concepts.")


def test_public_names_are_sorted_and_listed():
    assert cc.__all__ == sorted(set(cc.__all__))
    assert set(cc.__all__) <= set(dir(cc))


def test_type_checkers_see_the_same_names():
    stub = (ROOT / "captum_concepts" / "__init__.pyi").read_text(encoding="utf-8")
    listed = re.findall(r'^    "(\w+)",$', stub, flags=re.MULTILINE)
    assert listed == cc.__all__


def test_unknown_name():
    with pytest.raises(AttributeError, match="No captum_concepts attribute nothing"):
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
        "from captum_concepts import *; import captum_concepts.plugins as p; [p.registered(kind) for kind in p.CALLS]\n"
        "print([name for name in optional if name in sys.modules and name not in before])"
    )
    assert python(f"import os; os.environ['CAPTUM_CONCEPTS_DISABLE_PLUGINS'] = '1'\n{code}") == "[]"


def test_no_public_name_is_also_a_submodule():
    modules = {path.stem for path in (ROOT / "captum_concepts").iterdir() if not path.name.startswith("_")}
    assert not set(cc.__all__) & modules


def test_version_is_stated_once():
    assert re.fullmatch(r"\d+\.\d+\.\d+", cc.__version__)
    assert 'dynamic = ["version"]' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_types_are_published():
    assert (ROOT / "captum_concepts" / "py.typed").exists()
