"""The command line, with a small model registered by hand and generated sounds."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import click
import networkx as nx
import numpy as np
import pytest
import soundfile as sf
import torch
from click.testing import CliRunner, Result
from helpers.models import band_energies
from torch import Tensor, nn

from captum_concepts.backbones.options import resolve_device
from captum_concepts.backbones.torch_backbone import TorchBackbone
from captum_concepts.choices import AGREEMENT, ATTRIBUTION_METHODS, BUILT_IN, CORRECTIONS, NEGATIVES, POOLINGS
from captum_concepts.cli import options as cli_options
from captum_concepts.cli.app import main
from captum_concepts.concepts.concept_set import ConceptSet
from captum_concepts.errors import InputError
from captum_concepts.explanation.explanation import Explanation
from captum_concepts.hierarchy.concept_hierarchy import ConceptHierarchy
from captum_concepts.hierarchy.evaluation import evaluate_hierarchy
from captum_concepts.miners.api import mine
from captum_concepts.plugins.hookspecs import hookimpl
from captum_concepts.plugins.registry import get_plugin_manager, registered

RATE = 4000
PITCHES = {"low": 200.0, "middle": 500.0, "high": 1100.0}
HOSTILE = "bad\n\x1b[2Jname"
COMMANDS = (
    "demo",
    "explain",
    "extract",
    "check",
    "timeline",
    "attribute",
    "mine",
    "why",
    "evaluate",
    "report",
    "export",
    "plugins",
)
FILES = ("explanation.json", "scores.csv", "arrays.safetensors", "hierarchy-bands.graphml", "hierarchy-bands.gexf")


class Bands(nn.Module):
    """Logits of two classes from the energies of 16 bands."""

    def __init__(self) -> None:
        super().__init__()
        self.bands = nn.Identity()
        self.head = nn.Linear(16, 2)
        with torch.no_grad():
            self.head.weight.copy_(torch.stack([torch.linspace(1, -1, 16), torch.linspace(-1, 1, 16)]))
            self.head.bias.zero_()

    def forward(self, waves: Tensor) -> Tensor:
        return self.head(self.bands(band_energies(waves, 16)[:, 0]))


def load_bands(
    weights: str | None, device: str = "auto", *, hop_seconds: float = 0.5, title: str = "x"
) -> TorchBackbone:
    if weights is not None:
        raise InputError(f"weights {weights!r}: bands has its own; leave --weights out")
    return TorchBackbone(
        Bands(),
        ["bands"],
        classes=["dark", "bright"],
        sample_rate=RATE,
        patch_seconds=0.5,
        hop_seconds=hop_seconds,
        name="bands",
        device=resolve_device(device),
    )


def load_many(weights: str | None, device: str) -> TorchBackbone:
    model, device = Bands(), resolve_device(device)
    model.head = nn.Linear(16, 21)
    of_numbers = [str(number) for number in range(21)]
    return TorchBackbone(
        model, ["bands"], classes=of_numbers, sample_rate=RATE, patch_seconds=0.5, name="many", device=device
    )


def load_carded(weights: str | None, device: str, *, card: str | None = None) -> TorchBackbone:
    raise InputError(f"card {card!r} was given")


def write_names(explanation: Explanation, path: str | Path, *, ending: str = "\n") -> None:
    Path(path).write_text("".join(name + ending for name in explanation.concepts))


class Plugin:
    @hookimpl
    def captum_concepts_backbones(self):
        return {"bands": load_bands, "carded": load_carded, "many": load_many}

    @hookimpl
    def captum_concepts_exporters(self):
        return {"names": write_names}


@pytest.fixture(autouse=True)
def plugin():
    manager, provider = get_plugin_manager(), Plugin()
    manager.register(provider, name="bands-by-hand")
    yield
    manager.unregister(provider)


@pytest.fixture(autouse=True)
def one_store_per_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPTUM_CONCEPTS_STORE", str(tmp_path / "store"))


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    root = tmp_path_factory.mktemp("sounds")
    rng = np.random.default_rng(0)
    seconds = np.arange(RATE) / RATE
    rows = ["file,pitch"]
    for name, hertz in PITCHES.items():
        (root / "concepts" / name).mkdir(parents=True)
        for i in range(8):
            tone = np.sin(2 * np.pi * hertz * (1 + 0.02 * i) * seconds) + 0.3 * rng.normal(size=RATE)
            path = root / "concepts" / name / f"{i}.wav"
            sf.write(path, 0.3 * tone, RATE)
            rows.append(f"concepts/{name}/{i}.wav,{name}")
    (root / "clips").mkdir()
    for i in range(6):
        sf.write(root / "clips" / f"{i}.wav", 0.2 * rng.normal(size=RATE), RATE)
    (root / "table.csv").write_text("\n".join(rows))
    (root / "parents.json").write_text(json.dumps({"low": "tones", "middle": "tones", "high": "low"}))
    (root / "empty").mkdir()
    return SimpleNamespace(
        root=root,
        concepts=str(root / "concepts"),
        clips=str(root / "clips"),
        table=str(root / "table.csv"),
        parents=str(root / "parents.json"),
        empty=str(root / "empty"),
    )


@pytest.fixture(scope="module")
def saved(sounds: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    manager, provider = get_plugin_manager(), Plugin()
    manager.register(provider, name="bands-by-hand-of-a-module")
    out = tmp_path_factory.mktemp("saved") / "out"
    given = explain_arguments(sounds, out, "--no-report", "--no-store", "--reference", sounds.parents)
    result = CliRunner().invoke(main, given)
    manager.unregister(provider)
    assert result.exit_code == 0, result.stderr
    return out


def explain_arguments(sounds: SimpleNamespace, out: Path, *more: str) -> list[str]:
    given = ["explain", "--backbone", "bands", "--concepts", sounds.concepts, "--clips", sounds.clips]
    return [*given, "--out", str(out), "--nulls", "99", "--device", "cpu", *more]


def invoke(*given: object) -> Result:
    return CliRunner().invoke(main, [str(each) for each in given])


def assert_refused(result: Result, *texts: str) -> None:
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("captum-concepts: ")
    assert result.stderr.rstrip("\n").isprintable()
    for text in texts:
        assert text in result.stderr


# ---------------------------------------------------------------------- help


def test_help_is_shown_without_arguments() -> None:
    alone, asked = invoke(), invoke("--help")
    assert alone.exit_code == asked.exit_code == 0
    assert alone.stdout == asked.stdout
    for command in COMMANDS:
        assert f"\n  {command} " in alone.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_of_every_command_is_explained(command: str) -> None:
    result = invoke(command, "--help")
    assert result.exit_code == 0
    for parameter in main.commands[command].params:
        assert not isinstance(parameter, click.Option) or parameter.help, f"{command} {parameter.name}"
    if command not in ("demo", "plugins"):
        assert f"captum-concepts {command} " in result.stdout.replace("Usage: captum-concepts", "")  # an example


@pytest.mark.parametrize("kind", ["cav_methods", "similarities", "miners"])
def test_the_help_names_every_built_in_method(kind: str) -> None:
    built_in = tuple(name for name, entry in registered(kind).items() if entry.plugin == "builtin")
    assert built_in == BUILT_IN[kind]


def test_choices_are_those_of_the_library() -> None:
    from captum_concepts.attributions.builtin import METHODS
    from captum_concepts.backbones import layers
    from captum_concepts.concepts import review
    from captum_concepts.significance import corrections

    tree = ConceptHierarchy.from_edges(["a", "b"], [("a", "b", 1.0)])
    assert tuple(METHODS) == ATTRIBUTION_METHODS
    assert layers.POOLINGS == POOLINGS
    assert review.NEGATIVES == NEGATIVES
    assert tuple(corrections.CORRECTIONS) == CORRECTIONS
    assert set(AGREEMENT) <= set(evaluate_hierarchy(tree, {"b": "a"}, {"a": "a", "b": "a"}))


def test_help_does_not_wait_for_torch() -> None:
    code = (
        "import sys\nfrom captum_concepts.cli.app import main\n"
        "main(['--help'], standalone_mode=False)\nmain(['explain', '--help'], standalone_mode=False)\n"
        "print('imported:', *{'torch', 'pandas', 'scipy', 'captum', 'rich'} & set(sys.modules))"
    )
    environment = {**os.environ, "CAPTUM_CONCEPTS_DISABLE_PLUGINS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].strip() == "imported:"


# ---------------------------------------------------------------------- explain


def test_explain_writes_its_files_and_prints_tables(sounds: SimpleNamespace, tmp_path: Path) -> None:
    result = invoke(*explain_arguments(sounds, tmp_path / "out"))
    assert result.exit_code == 0, result.stderr
    explanation = Explanation.load(tmp_path / "out")
    assert all((tmp_path / "out" / name).is_file() for name in (*FILES, "report.html"))
    assert "Strongest concepts at layer bands" in result.stdout
    strongest = explanation.top("bands", 1).set_index("target")["concept"].to_dict()
    assert strongest == {"dark": "low", "bright": "high"}  # what the model's weights say
    assert "Hierarchy at layer bands:" in result.stdout
    assert "listening to concepts: 24/24 in " in result.stderr
    assert "report.html" in result.stderr


def test_explain_with_json_and_quiet(sounds: SimpleNamespace, tmp_path: Path) -> None:
    with_few = explain_arguments(sounds, tmp_path / "out", "--no-report", "--json", "--quiet", "--min-groups", "9")
    assert_refused(invoke(*with_few), "none of 3")
    result = invoke(*explain_arguments(sounds, tmp_path / "out", "--no-report", "--json", "--quiet"))
    assert (result.exit_code, result.stderr) == (0, "")
    rows = json.loads(result.stdout)
    scores = Explanation.load(tmp_path / "out").scores
    assert [row["concept"] for row in rows] == list(scores["concept"])
    assert [row["magnitude"] for row in rows] == [None if x != x else x for x in scores["magnitude"]]
    assert not (tmp_path / "out" / "report.html").exists()


def test_a_target_given_twice_is_one(sounds: SimpleNamespace, tmp_path: Path) -> None:
    twice = ["--target", "dark", "--target", "dark", "--no-report"]
    assert invoke(*explain_arguments(sounds, tmp_path / "out", *twice)).exit_code == 0
    assert Explanation.load(tmp_path / "out").targets == ("dark",)


def test_the_help_explains_every_column_of_the_scores(saved: Path) -> None:
    columns = (saved / "scores.csv").read_text().splitlines()[0].split(",")
    explained = invoke("explain", "--help").stdout.split("Columns of scores.csv:")[1].split("Options:")[0]
    named = {name for line in explained.splitlines() for name in line.strip().split("  ")[0].split(", ")}
    assert {*columns} - {"layer", "target", "concept"} <= named
    assert "n_groups                 groups of explained clips" in explained


def test_remedies_fit_command_line_and_library(sounds: SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / "short").mkdir()
    sf.write(tmp_path / "short" / "a.wav", 0.1 * np.random.default_rng(0).normal(size=RATE // 4), RATE)
    short = explain_arguments(sounds, tmp_path / "out", "--clips", str(tmp_path / "short"), "--no-report")
    assert "looped to fill it, unless you said otherwise (--option short=pad" in invoke(*short).stderr
    many = explain_arguments(sounds, tmp_path / "out", "--backbone", "many", "--quiet")
    assert_refused(invoke(*many), "no target given", "many has 21 classes", "--target NAME; in Python targets=")
    alone = ConceptSet.from_playlists({"noise": [sounds.root / "clips" / "0.wav"]})
    with pytest.raises(InputError, match=r"leave these concepts out \(in Python: subset\(\)\)"):
        alone.negative_mask()


def test_same_command_again_extracts_nothing(sounds: SimpleNamespace, tmp_path: Path) -> None:
    arguments = explain_arguments(sounds, tmp_path / "out", "--no-report")
    first, second = invoke(*arguments), invoke(*arguments)
    assert first.stdout == second.stdout
    assert "listening to concepts: 24/24 (24 already there)" in second.stderr
    assert "explaining clips: 6/6 (6 already there)" in second.stderr


def test_hostile_names_break_neither_line_nor_terminal(sounds: SimpleNamespace, tmp_path: Path) -> None:
    concepts, clips = tmp_path / "concepts", tmp_path / "clips"
    clips.mkdir()
    (clips / "good.wav").write_bytes((sounds.root / "clips" / "0.wav").read_bytes())
    (clips / f"{HOSTILE}.wav").write_bytes(b"no sound")
    for old, new in (("low", HOSTILE), ("high", "</script>")):
        folder = concepts / new.replace("/", "_")
        folder.mkdir(parents=True)
        for path in (sounds.root / "concepts" / old).iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
    hostile = SimpleNamespace(concepts=str(concepts), clips=str(clips))
    result = invoke(*explain_arguments(hostile, tmp_path / "out", "-v", "--no-report"))
    assert result.exit_code == 0, result.stderr
    assert not set("\x1b\x07\r") & set(result.output)
    assert len([line for line in result.stderr.splitlines() if "left out: " in line and "name" in line]) == 1
    assert_refused(invoke(*explain_arguments(hostile, tmp_path / "out", "--on-bad", "refuse", "-q")), "\\x1b[2Jname")


def no_pass_over_audio(*_: object, **__: object) -> None:
    raise AssertionError("a clip was read")


@pytest.mark.parametrize(
    ("more", "texts"),
    [
        (["--layer", "pool9"], ["pool9", "bands"]),
        (["--target", "brigt"], ["brigt", "bright"]),
        (["--backbone", "band"], ["'band'", "did you mean 'bands'"]),
        (["--weights", "x.h5"], ["x.h5", "leave --weights out"]),
        (["--device", "tpu"], ["tpu", "cpu or cuda"]),
        (["--option", "hop_seconds"], ["--option='hop_seconds'", "KEY=VALUE"]),
        (["--option", "hop=1"], ["--option='hop'", "it has hop_seconds, title"]),
        (["--option", "hop_seconds=1,5"], ["hop_seconds='1,5'", "give float"]),
        (["--option", "device=cpu"], ["--option='device'"]),
        (["--cav", "patern"], ["patern", "pattern"]),
        (["--cav-option", "x=1"], ["--cav-option='x'", "it has none"]),
        (["--cav", "lda", "--cav-option", "shrinkage=7"], ["shrinkage"]),
        (["--similarity", "cosinus"], ["cosinus", "cosine"]),
        (["--miner", "heyman"], ["heyman", "heymann"]),
        (
            ["--similarity", "activation"],
            ["spanning_tree", "symmetric", "--similarity correlation or cosine or diffusion or"],
        ),
        (["--miner-option", "x=1"], ["--miner-option='x'", "root_factor"]),
        (["--miner-option", "root_factor=NaN"], ["root_factor='NaN'"]),
        (["--miner", "heymann", "--miner-option", "parents_per_node=1.5"], ["parents_per_node=1.5", "give int"]),
        (["--miner", "heymann", "--miner-option", "parents_per_node=0"], ["parents_per_node"]),
        (["--miner", "heymann", "--miner-option", "centrality=degre"], ["centrality", "degre"]),
        (["--min-groups", "0"], ["--min-groups", "x>=2"]),
        (["--batch-size", "0"], ["--batch-size", "x>=1"]),
        (["--nulls", "3"], ["--nulls", "x>=19"]),
        (["--seed", "-1"], ["--seed"]),
        (["--pool", "tim"], ["--pool", "'time_freq'"]),
        (["--negatives", "named"], ["--negatives", "'rest'"]),
        (["--concepts", "nowhere"], ["--concepts='nowhere'", "no such"]),
        (["--concepts", "nosource:x"], ["nosource"]),
        (["--concepts", f"{HOSTILE}/x"], ["no such file"]),
        (["--concept-column", "pitch"], ["--concept-column", "not a table"]),
        (["--group-column", "pitch"], ["--group-column", "not a table"]),
        (["--concept-separator", ""], ["--concept-separator=''", "not a table"]),
        (["--card", "x.json"], ["'card'", "bands has no such option"]),
        (["--backbone", "carded", "--card", "007"], ["card '007' was given"]),
        (["--clip-group-column", "g"], ["--clip-group-column='g'", "not a table"]),
        (["--clips", "nowhere"], ["--clips='nowhere'", "no such"]),
        (["--reference", "nowhere.json"], ["nowhere.json"]),
        (["--bakcbone", "x"], ["--bakcbone", "--backbone", "explain --help"]),
    ],
)
def test_bad_input_ends_before_any_pass_over_audio(
    more: list[str], texts: list[str], sounds: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The explainer first: it takes extract along when it is imported, which may be here.
    monkeypatch.setattr("captum_concepts.activations.extraction.extract", no_pass_over_audio)
    monkeypatch.setattr("captum_concepts.activations.extraction.extract", no_pass_over_audio)
    monkeypatch.chdir(tmp_path)
    assert_refused(invoke(*explain_arguments(sounds, tmp_path / "out", *more)), *texts)
    assert not (tmp_path / "out").exists()


def test_a_table_without_a_known_column_names_its_columns(sounds: SimpleNamespace, tmp_path: Path) -> None:
    arguments = explain_arguments(sounds, tmp_path / "out", "--concepts", sounds.table)
    assert_refused(invoke(*arguments), "'file', 'pitch'")
    assert_refused(invoke(*arguments, "--concept-column", "pich"), "'pich'", "'file', 'pitch'")
    assert_refused(invoke(*arguments, "--concept-column", "pitch", "--group-column", "of"), "'of'")


@pytest.mark.parametrize("missing", ["--backbone", "--concepts", "--clips", "--out"])
def test_missing_option_is_named(missing: str, sounds: SimpleNamespace, tmp_path: Path) -> None:
    arguments = explain_arguments(sounds, tmp_path / "out")
    place = arguments.index(missing)
    assert_refused(invoke(*arguments[:place], *arguments[place + 2 :]), missing, "captum-concepts explain --help")


def test_folders_that_cannot_be_written_to(
    sounds: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("captum_concepts.activations.extraction.extract", no_pass_over_audio)
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        assert_refused(invoke(*explain_arguments(sounds, folder)), "--out")
        assert_refused(invoke(*explain_arguments(sounds, tmp_path / "o", "--store", str(folder))), "--store")
        assert_refused(invoke("demo", "--out", folder), "--out")
    assert_refused(invoke(*explain_arguments(sounds, tmp_path / "out", "--clips", sounds.empty)), "no audio")


def test_a_broken_plugin_is_named(sounds: SimpleNamespace, tmp_path: Path) -> None:
    class Broken:
        @hookimpl
        def captum_concepts_backbones(self):
            raise RuntimeError("two\nlines")

    class Unknown:
        def captum_concepts_backbone(self):
            return {}

    manager = get_plugin_manager()
    for broken in (Broken(), Unknown()):
        manager.register(broken, name="the-broken-one")
        try:
            assert_refused(invoke("plugins"), "the-broken-one")
            assert_refused(invoke(*explain_arguments(sounds, tmp_path / "out")), "the-broken-one")
        finally:
            manager.unregister(broken)


# ---------------------------------------------------------------------- extract


def test_shards_together_do_all_the_work(sounds: SimpleNamespace, tmp_path: Path) -> None:
    arguments = ["extract", "--backbone", "bands", "--concepts", sounds.concepts, "--clips", sounds.clips, "--json"]
    first, second, again = (json.loads(invoke(*arguments, "--shard", shard).stdout) for shard in ("1/2", "2/2", "1/1"))
    assert first["concepts"]["computed"] + second["concepts"]["computed"] == 24
    assert first["clips"]["computed"] + second["clips"]["computed"] == 6
    assert again == {
        "concepts": {"clips": 24, "computed": 0, "left_out": 0, "skipped": 0},
        "clips": {"clips": 6, "computed": 0, "left_out": 0},
    }


@pytest.mark.parametrize("shard", ["9/8", "0/8", "1", "a/b", "1/0", "-1/2", "²/3", "1/" + "9" * 5000])
def test_invalid_shards(shard: str, sounds: SimpleNamespace) -> None:
    assert_refused(invoke("extract", "--backbone", "bands", "--clips", sounds.clips, "--shard", shard), "--shard")


def test_extract_says_what_it_needs(sounds: SimpleNamespace) -> None:
    assert_refused(invoke("extract", "--backbone", "bands"), "--concepts and --clips")
    assert_refused(invoke("extract", "--backbone", "bands", "--clips", sounds.clips, "--no-store"), "--no-store")
    with_target = ["extract", "--backbone", "bands", "--concepts", sounds.concepts, "--target", "dark"]
    assert_refused(invoke(*with_target), "--clips: missing")


def test_extract_names_what_it_left_out(sounds: SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "bad.wav").write_bytes(b"no sound")
    (tmp_path / "x" / "good.wav").write_bytes((sounds.root / "clips" / "0.wav").read_bytes())
    result = invoke("extract", "--backbone", "bands", "--clips", tmp_path / "x")
    assert result.stdout == "clips: 2 clips, 1 computed now, 1 left out\n"
    assert "bad.wav" in result.stderr


def test_rows_that_name_no_clip_are_counted_and_named(sounds: SimpleNamespace, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    rows = [f"{sounds.root}/concepts/low/0.wav,low", *(f"gone{i}.wav,low" for i in range(7))]
    table.write_text("\n".join(["file,pitch", *rows]))
    arguments = ["extract", "--backbone", "bands", "--concepts", table, "--concept-column", "pitch"]
    result = invoke(*arguments)
    assert result.stdout == "concepts: 1 clips, 1 computed now, 0 left out; 7 rows or files skipped\n"
    lines = [line for line in result.stderr.splitlines() if line.startswith("skipped: ")]
    assert [f"gone{i}.wav': missing (no such file)" in line for i, line in enumerate(lines)] == [True] * 5 + [False]
    assert lines[-1] == "skipped: 2 more; --verbose names them"
    all_named, nothing = invoke(*arguments, "--verbose"), invoke(*arguments, "--quiet", "--json")
    assert all_named.stderr.count("\nskipped: ") + all_named.stderr.startswith("skipped: ") == 7
    assert json.loads(nothing.stdout)["concepts"]["skipped"] == 7
    assert nothing.stderr == ""


def test_explain_names_every_skipped_row_with_verbose(sounds: SimpleNamespace, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    head, *rows = Path(sounds.table).read_text().splitlines()
    table.write_text("\n".join([head, *(f"{sounds.root}/{row}" for row in rows), "gone1.wav,low", "gone2.wav,low"]))
    of_table = ["--concepts", str(table), "--concept-column", "pitch", "--no-report"]
    result = invoke(*explain_arguments(sounds, tmp_path / "out", *of_table))
    assert "note: 2 rows or files skipped, the first " in result.stderr
    assert "gone2.wav" not in result.stderr
    result = invoke(*explain_arguments(sounds, tmp_path / "out", *of_table, "--verbose"))
    assert "gone1.wav': missing" in result.stderr
    assert "gone2.wav': missing" in result.stderr


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ([], {"low", "high"}),
        (["--concept-separator", "|"], {"low", "high"}),
        (["--concept-separator", ""], {"low|high"}),
        (["--concept-separator", "ow|h"], {"l", "igh"}),
    ],
)
def test_separator_of_concepts_in_a_cell(given: list[str], names: set[str], tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"")
    (tmp_path / "table.csv").write_text("file,tag\na.wav,low|high\n")
    command = main.commands["extract"]
    context = command.make_context(
        "extract",
        ["--backbone", "bands", "--concepts", str(tmp_path / "table.csv"), "--concept-column", "tag", *given],
    )
    assert set(cli_options.read_concepts(context.params).names) == names


# ---------------------------------------------------------------------- saved explanations


def test_mine_agrees_with_the_library(saved: Path, tmp_path: Path) -> None:
    explanation = Explanation.load(saved)
    matrix = explanation.similarities["bands"]
    expected = mine(matrix, explanation.concepts, "heymann", threshold=0.1, min_sim=-9.0)
    options = ["--miner", "heymann", "--miner-option", "threshold=0.1", "--miner-option", "min_sim=-9.0"]
    result = invoke("mine", saved, *options, "--json")
    assert json.loads(result.stdout) == {"bands": expected.to_dict()}
    plain = invoke("mine", saved, *options, "--out", tmp_path / "tree.graphml")
    assert expected.to_text() in plain.stdout
    graph = nx.read_graphml(tmp_path / "tree.graphml")
    assert {label for _, label in graph.nodes(data="label")} == set(explanation.concepts)
    assert graph.number_of_edges() == len(expected.edges) > 0
    assert invoke("mine", saved, *options, "--out", tmp_path / "tree.json").exit_code == 0
    assert json.loads((tmp_path / "tree.json").read_text()) == expected.to_dict()
    assert invoke("mine", saved, *options, "--out", tmp_path / "tree.gexf").exit_code == 0
    assert nx.read_gexf(tmp_path / "tree.gexf").number_of_nodes() == 3


def test_mine_computes_similarities_of_the_cavs(saved: Path) -> None:
    explanation = Explanation.load(saved)
    directions = explanation.banks["bands"].directions.double().numpy()
    cosine = directions @ directions.T / np.linalg.norm(directions, axis=1) ** 2
    expected = mine((cosine + cosine.T) / 2, explanation.concepts, "agglomerative", min_sim=-1.0)
    options = ["--similarity", "cosine", "--miner", "agglomerative", "--miner-option", "min_sim=-1.0", "--json"]
    found = json.loads(invoke("mine", saved, *options).stdout)["bands"]["edges"]
    assert [edge[:2] for edge in found] == [edge[:2] for edge in expected.to_dict()["edges"]]
    assert len(found) == 2


def test_mine_leaves_out_untestable_concepts(saved: Path, tmp_path: Path) -> None:
    explanation = Explanation.load(saved)
    explanation.similarities["bands"][1, :] = explanation.similarities["bands"][:, 1] = np.nan
    explanation.save(tmp_path / "less")
    names = json.loads(invoke("mine", tmp_path / "less", "--json").stdout)["bands"]["names"]
    assert names == [explanation.concepts[0], explanation.concepts[2]]


def test_mine_combines_layers_and_gives_further_parents(saved: Path, tmp_path: Path) -> None:
    explanation = Explanation.load(saved)
    options = ["--miner", "branching", "--miner-option", "min_sim=-9.0", "--max-parents", "2", "--json"]
    found = json.loads(invoke("mine", saved, "--combine", *options).stdout)
    expected = explanation.combined(miner="branching", min_sim=-9.0, max_parents=2)
    assert found == {"bands": expected.to_dict()}
    assert_refused(invoke("mine", saved, "--combine", "--similarity", "cosine"), "--combine", "leave out --similarity")


def test_why_prints_the_description_of_the_library(saved: Path) -> None:
    explanation = Explanation.load(saved)
    name = explanation.concepts[1]
    assert invoke("why", saved, name).stdout == explanation.why(name, "bands") + "\n"
    assert_refused(invoke("why", saved, "x"), "no concept 'x'")
    assert_refused(invoke("why", saved, name, "--layer", "x"), "'x' has no hierarchy; choose from bands")


def test_explain_writes_support_and_further_parents(sounds: SimpleNamespace, tmp_path: Path) -> None:
    more = ("--support", "8", "--max-parents", "2", "--no-report", "--no-store")
    assert invoke(*explain_arguments(sounds, tmp_path / "out", *more)).exit_code == 0
    explanation = Explanation.load(tmp_path / "out")
    assert explanation.provenance["options"]["support"] == 8
    assert explanation.provenance["options"]["max_parents"] == 2
    links = explanation.hierarchies["bands"].edges
    assert all(8 * support == round(8 * support) for *_, support in links)
    name = explanation.concepts[0]
    assert (
        f"{explanation.supports['bands'].stability[name]:.0%} of the resamples"
        in invoke("why", tmp_path / "out", name).stdout
    )
    found = json.loads(invoke("mine", tmp_path / "out", "--consensus", "0.9", "--json").stdout)["bands"]
    assert found == explanation.consensus("bands", 0.9).to_dict() == explanation.consensus(least=0.9).to_dict()
    for option in (("--miner", "heymann"), ("--combine",), ("--similarity", "cosine"), ("--max-parents", "2")):
        refused = invoke("mine", tmp_path / "out", "--consensus", "0.9", *option)
        assert_refused(refused, f"--consensus: uses the saved hierarchies; leave out {option[0]}")


def test_a_consensus_needs_support(saved: Path) -> None:
    assert_refused(invoke("mine", saved, "--consensus", "0.5"), "'bands' has no support; explain with support=200")


def test_newick_of_a_saved_explanation(saved: Path, tmp_path: Path) -> None:
    given = ["--miner", "branching", "--miner-option", "min_sim=-9.0"]
    assert invoke("mine", saved, *given, "--out", tmp_path / "tree.nwk").exit_code == 0
    explanation = Explanation.load(saved)
    assert (tmp_path / "tree.nwk").read_text("utf-8") == explanation.combined(
        miner="branching", min_sim=-9.0
    ).to_newick() + "\n"


def test_compare_says_what_moved(saved: Path, tmp_path: Path) -> None:
    explanation = Explanation.load(saved)
    before, after = (
        explanation.hierarchies["bands"],
        ConceptHierarchy.from_edges(explanation.concepts, itertools.pairwise(explanation.concepts)),
    )
    explanation.hierarchies["bands"] = after
    explanation.save(tmp_path / "after")
    found = json.loads(invoke("compare", saved, tmp_path / "after", "--json").stdout)["bands -> bands"]
    assert found["links"] == [before.graph.number_of_edges(), 2]
    assert found["links_in_common"] == len(set(before.graph.edges) & set(after.graph.edges))
    assert found["differences"] == before.diff(after).splitlines() != []
    text = invoke("compare", saved, tmp_path / "after").stdout
    assert text.startswith("bands -> bands: ")
    assert [line[2:] for line in text.splitlines()[1:]] == found["differences"]
    same = invoke("compare", saved, "--layer", "bands", "--layer", "bands").stdout
    assert same.splitlines()[1:] == ["  no differences"]


def test_compare_refuses(saved: Path) -> None:
    assert_refused(invoke("compare", saved), "give a SECOND folder, or --layer twice")
    assert_refused(invoke("compare", saved, saved, *["--layer", "bands"] * 3), "given 3 times")
    assert_refused(invoke("compare", saved, saved, "--layer", "x"), "'x'", "it has bands")


def test_mine_refuses(saved: Path, tmp_path: Path) -> None:
    assert_refused(invoke("mine", saved, "--layer", "x"), "'x'", "it has bands")
    assert_refused(invoke("mine", saved, "--similarity", "overlap"), "labels", "not saved")
    explanation = Explanation.load(saved)
    explanation.similarities["bands"][0, 1] += 1
    explanation.save(tmp_path / "skew")
    assert_refused(invoke("mine", tmp_path / "skew", "--miner", "agglomerative"), "symmetric")
    assert_refused(invoke("mine", saved, "--out", "tree.txt"), "tree.txt", ".graphml, .gexf, .nwk, .json")
    assert_refused(invoke("mine", saved, "--miner-option", "a"), "--miner-option")
    assert_refused(invoke("mine", tmp_path), "explanation.json")
    (tmp_path / "file").write_text("")
    assert_refused(invoke("mine", saved, "--out", tmp_path / "file" / "tree.json"), "--out")


def test_evaluate_agrees_with_the_library(saved: Path, sounds: SimpleNamespace) -> None:
    parents = json.loads(Path(sounds.parents).read_text())
    expected = evaluate_hierarchy(Explanation.load(saved).hierarchies["bands"], parents)
    for given in ([], ["--reference", sounds.parents]):  # the first is what explain kept
        found = json.loads(invoke("evaluate", saved, *given, "--json").stdout)["bands"]
        assert {key: found[key] for key in expected} == {key: None if v != v else v for key, v in expected.items()}
        assert found["same_cluster_chance"] == 1.0  # all three are tones
        assert found["unmatched_reference"] == ["tones"]
    plain = invoke("evaluate", saved)
    assert "ancestor_f1" in plain.stdout
    assert "3 concepts compared; only mined: 0, only in the reference: 1" in plain.stdout


def test_evaluate_refuses(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "parents.json").write_text('{"a": "b", "b": "a"}')
    assert_refused(invoke("evaluate", saved, "--reference", tmp_path / "parents.json"), "its own ancestor")
    (tmp_path / "other.json").write_text('{"a": "b"}')
    assert_refused(invoke("evaluate", saved, "--reference", tmp_path / "other.json"), "share no concept")
    assert_refused(invoke("evaluate", saved, "--reference", tmp_path), "parents")
    explanation = Explanation.load(saved)
    explanation.provenance["reference"] = None
    explanation.save(tmp_path / "none")
    assert_refused(invoke("evaluate", tmp_path / "none"), "--reference: missing")


def test_report_writes_the_page_anew_and_prints_its_path(saved: Path, tmp_path: Path) -> None:
    result = invoke("report", saved, "--out", tmp_path / "page.html")
    assert result.stdout == f"{tmp_path / 'page.html'}\n"
    assert "<html" in (tmp_path / "page.html").read_text()
    assert_refused(invoke("report", saved, "--limit-mb", "0"), "--limit-mb")
    assert_refused(invoke("report", saved, "--out", tmp_path), "--out")


def test_export_writes_what_a_plugin_or_the_package_provides(saved: Path, tmp_path: Path) -> None:
    names = tmp_path / "new" / "names.txt"
    result = invoke("export", saved, "names", names, "--option", "ending=;")
    assert result.stdout == f"{names}\n"
    assert names.read_text() == "".join(f"{name};" for name in Explanation.load(saved).concepts)
    assert invoke("export", saved, "html", tmp_path / "page.html").exit_code == 0
    assert "<html" in (tmp_path / "page.html").read_text()
    assert invoke("export", saved, "folder", tmp_path / "copy").exit_code == 0
    assert (tmp_path / "copy" / "scores.csv").read_bytes() == (saved / "scores.csv").read_bytes()


def test_the_help_of_export_lists_the_formats() -> None:
    formats = invoke("export", "--help").stdout.split("Formats:\n")[1].splitlines()
    listed = dict(line.split(maxsplit=1) for line in formats)
    assert listed.keys() == registered("exporters").keys()
    assert (listed["html"], listed["names"]) == ("built in", "from the plugin bands-by-hand")


def test_export_refuses(saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "x"
    assert_refused(invoke("export", saved, "nams", path), "'nams'", "folder, html, names", "did you mean 'names'")
    assert_refused(invoke("export", saved, "names", path, "--option", "end=;"), "--option='end'", "it has ending")
    assert_refused(invoke("export", saved, "html", path, "--option", "limit_mb=much"), "limit_mb='much'", "float")
    assert_refused(invoke("export", tmp_path / "nowhere", "names", path), "explanation.json")
    (tmp_path / "file").write_text("")
    assert_refused(invoke("export", saved, "names", tmp_path / "file" / "x"), "PATH")
    assert_refused(invoke("export", saved, "names", tmp_path), "directory")
    assert not path.exists()


@pytest.mark.parametrize("name", FILES[:3])
@pytest.mark.parametrize("content", [None, b"", b"\xff\x00damaged", b"[]"])
def test_a_damaged_folder_is_refused(
    name: str, content: bytes | None, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path("here")
    folder.mkdir()
    for file in FILES[:3]:
        (folder / file).write_bytes((saved / file).read_bytes())
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    for command in ("report", "mine", "evaluate"):
        assert_refused(invoke(command, folder), "'here", "explain")


def test_plugins_lists_what_each_provides() -> None:
    rows = {row["name"]: row for row in json.loads(invoke("plugins", "--json").stdout)}
    assert rows["bands-by-hand"]["provides"] == {"backbones": ["bands", "carded", "many"], "exporters": ["names"]}
    assert "generality" in rows["builtin"]["provides"]["miners"]
    assert (
        "bands-by-hand  (registered directly)\n  backbones: bands, carded, many\n  exporters: names\n"
        in invoke("plugins").stdout
    )


# ---------------------------------------------------------------------- options as text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("x=1", 1),
        ("x=1.5", 1.5),
        ("x=true", True),
        ("x=[1, 2]", [1, 2]),
        ("x=a=b", "a=b"),
        ("x=", ""),
        ("x=NaN", "NaN"),
    ],
)
def test_values_of_options(text: str, value: object) -> None:
    assert cli_options.parse_options([text], "--option") == {"x": value}


def test_values_that_are_not_json_are_text() -> None:
    deep, long = "[" * 100_000, "9" * 5000
    assert cli_options.parse_options([f"x={deep}", f"y={long}"], "--option") == {"x": deep, "y": long}


def test_text_stays_text_where_text_is_wanted() -> None:
    found = cli_options.method_options("backbones", "bands", ["title=007", "hop_seconds=1"], "--option")
    assert found == {"title": "007", "hop_seconds": 1}


# ---------------------------------------------------------------------- processes

PROGRAM = """
import sys, time
sys.path[:0] = [{folder!r}, {helpers!r}]
import test_app
from captum_concepts.plugins import get_plugin_manager
from captum_concepts.cli import main
class Slow(test_app.Plugin): pass
original = test_app.TorchBackbone.activations
def slowly(self, *given, **named):
    time.sleep({pause})
    return original(self, *given, **named)
test_app.TorchBackbone.activations = slowly
get_plugin_manager().register(Slow(), name="slow")
main()
"""


def program(pause: float) -> list[str]:
    return [
        sys.executable,
        "-c",
        PROGRAM.format(folder=str(Path(__file__).parent), helpers=str(Path(__file__).parents[1]), pause=pause),
    ]


@pytest.mark.parametrize("module", ["captum_concepts", "captum_concepts.cli"])
def test_the_package_can_be_run_as_a_module(module: str) -> None:
    for arguments, code, text in ((["--version"], 0, "captum-concepts"), (["nothing"], 2, "nothing")):
        done = subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True)
        assert done.returncode == code
        assert text in done.stdout + done.stderr
        assert len((done.stdout + done.stderr).splitlines()) == 1


@pytest.mark.skipif(os.name == "nt", reason="Windows sends no SIGINT to one process")
def test_ctrl_c_keeps_computed_activations(sounds: SimpleNamespace, tmp_path: Path) -> None:
    store = tmp_path / "kept"
    arguments = ["extract", "--backbone", "bands", "--concepts", sounds.concepts, "--store", str(store), "-v"]
    arguments += ["--batch-size", "2", "--device", "cpu"]
    running = subprocess.Popen(
        [*program(0.25), *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ}
    )
    deadline = time.monotonic() + 120  # a busy machine takes long to import torch
    while not store.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.9)  # of a pass of at least three seconds
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=20)
    assert (running.returncode, out) == (130, "")
    assert "Traceback" not in err
    assert err.splitlines()[-1] == (
        f"captum-concepts: stopped; the activations computed so far are kept in '{store}'; "
        "run the command again to continue"
    )
    again = json.loads(invoke(*arguments, "--json").stdout)["concepts"]
    assert 0 < again["computed"] < again["clips"] == 24


@pytest.mark.skipif(os.name == "nt", reason="Windows has no broken pipes of this kind")
def test_closed_pipe_is_not_a_bug() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([*program(0), "plugins"], stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


def test_output_in_ascii_encoding(saved: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([*program(0), "mine", str(saved)], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Hierarchy at layer bands:" in done.stdout
