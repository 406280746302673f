"""The examples in ``examples/`` and the README run, as a person would copy them, on music of known truth."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile
import torch
from helpers.paths import ROOT

from captum_concepts.demo.music import MusicGenerator

EXAMPLES = ROOT / "examples"
INSTRUMENTS = ("violin", "banjo", "vibraphone")


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """instruments/<name>/*.wav with that lead, and music/*.wav of any kind: short pieces of the demo."""
    folder = tmp_path_factory.mktemp("sounds")
    generator = MusicGenerator(seed=3, duration=3.0)
    wanted = [(f"instruments/{name}", {name: True}) for name in INSTRUMENTS] + [("music", {})]
    for kind, (where, forced) in enumerate(wanted):
        for number in range(12):
            path = folder / where / f"{number}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            piece = generator.clip(1000 * kind + number, forced)
            soundfile.write(path, piece.waveform.astype(np.float32), generator.sample_rate)
    return folder


def load(name: str) -> ModuleType:
    specification = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_every_example_is_run_here():
    tested = {name.removeprefix("test_example_") for name in globals() if name.startswith("test_example_")}
    assert tested == {path.stem for path in EXAMPLES.glob("*.py")}


def test_example_own_model(sounds, tmp_path, capsys):
    own_model = load("own_model")
    torch.manual_seed(0)
    torch.save(own_model.network().state_dict(), tmp_path / "genres.pt")
    explanation = own_model.main(
        str(tmp_path / "genres.pt"), str(sounds / "instruments"), str(sounds / "music"), str(tmp_path / "out")
    )
    assert set(explanation.scores["target"]) == set(own_model.CLASSES)
    assert set(explanation.scores["concept"]) == set(INSTRUMENTS)
    assert (tmp_path / "out" / "report.html").stat().st_size > 50_000
    assert "layer4" in capsys.readouterr().out


def test_example_black_box(sounds, tmp_path):
    explanation = load("black_box").main(
        str(sounds / "instruments"), str(sounds / "instruments"), str(sounds / "music"), str(tmp_path / "out")
    )
    # A classifier of the very instruments that are the concepts must rest on them.
    best = explanation.top(n=1).set_index("target")["concept"]
    assert best.to_dict() == {name: name for name in INSTRUMENTS}


def test_readme_example(sounds, tmp_path, monkeypatch, capsys):
    for name in ("instruments", "music"):
        (tmp_path / name).symlink_to(sounds / name)
    torch.manual_seed(0)
    torch.save(load("own_model").network().state_dict(), tmp_path / "genres.pt")
    monkeypatch.chdir(tmp_path)
    readme = (EXAMPLES.parent / "README.md").read_text(encoding="utf-8")
    code = re.findall(r"<!-- start python -->\n```python\n(.*?)```\n<!-- end python -->", readme, flags=re.DOTALL)[0]
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    assert (tmp_path / "report.html").exists()
    assert "jazz" in capsys.readouterr().out
    assert len([line for line in code.splitlines() if line.strip() and not line.startswith(("import", "from"))]) <= 12


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_examples_say_how_they_are_run(path):
    assert f"python examples/{path.name}" in path.read_text(encoding="utf-8")
