from __future__ import annotations

import json
import os
import time
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.paths import SHARED

from captum_concepts.audio.clips import Clip
from captum_concepts.concepts.concept_set import ConceptSet
from captum_concepts.concepts.reference import read_parents
from captum_concepts.errors import InputError

HOSTILE = ["</script><script>alert(1)</script>", "two\nlines", "ü 日本語 🎻", "x" * 10_000, '"; DROP', "a,b"]


def touch(path: Path, data: bytes | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(str(path).encode() if data is None else data)
    return path


def random_set(seed: int = 0, n: int = 300, k: int = 7, groups: int = 60, pool: bool = True) -> ConceptSet:
    rng = np.random.default_rng(seed)
    of_group = rng.random((groups, k)) < rng.uniform(0.05, 0.5, k)
    of_group[: groups // 4] = False
    group = rng.integers(0, groups, n)
    labels = of_group[group] & (rng.random((n, k)) < 0.8)
    clips = tuple(Clip(f"d/{i}.wav", group=f"d/artist {g}") for i, g in enumerate(group))
    return ConceptSet(tuple(f"c{j}" for j in range(k)), clips, labels, ~labels.any(1) if pool else None)


def write_table(folder: Path, rows: list[dict[str, object]], name: str = "clips.csv", **options: object) -> Path:
    for row in rows:
        if row["file"] and not str(row["file"]).startswith("gone"):
            touch(folder / str(row["file"]))
    pd.DataFrame(rows).to_csv(folder / name, index=False, **options)
    return folder / name


def shown_by(concepts: ConceptSet) -> dict[str, set[str]]:
    names = np.array([os.path.basename(clip.path) for clip in concepts.clips])
    return {name: set(names[concepts.labels[:, column]]) for column, name in enumerate(concepts.names)}


# The set itself ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("negatives", ["random", "rest", {"c1": ["c2", "c3"], "c4": ["c0"]}])
@pytest.mark.parametrize("seed", range(3))
def test_negatives_equal_their_definition(seed: int, negatives: object) -> None:
    concepts = random_set(seed).with_negatives(negatives)
    mask, dropped = concepts.negative_mask(), concepts.dropped_negatives()
    for k, name in enumerate(concepts.names):
        lost = 0
        positive_groups = {
            clip.group for clip, shows in zip(concepts.clips, concepts.labels[:, k], strict=True) if shows
        }
        for i, clip in enumerate(concepts.clips):
            if isinstance(negatives, dict) and name in negatives:
                candidate = any(concepts.labels[i, concepts.names.index(other)] for other in negatives[name])
            else:
                candidate = True if negatives == "rest" else bool(concepts.pool[i])
            assert mask[i, k] == (candidate and clip.group not in positive_groups)
            lost += candidate and clip.group in positive_groups and not concepts.labels[i, k]
        assert dropped[k] == lost
        groups = min(len(positive_groups), len(set(concepts.groups[mask[:, k]])))
        assert [name in concepts.check(least) for least in range(1, 60)] == [groups < least for least in range(1, 60)]
    assert dropped.any()
    assert any("left out" in line for line in concepts.warnings())


def test_default_negatives_are_the_pool_where_there_is_one() -> None:
    assert random_set().negatives == "random"
    assert random_set(pool=False).negatives == "rest"


def test_groups_and_their_counts() -> None:
    concepts = random_set()
    for k in range(len(concepts)):
        assert concepts.n_groups()[k] == len(set(concepts.groups[concepts.labels[:, k]]))
    assert [concepts.group_names[g] for g in concepts.group_index] == concepts.groups.tolist()


def test_a_clip_that_shows_a_concept_is_not_of_the_pool() -> None:
    concepts = ConceptSet(("a",), (Clip("1"), Clip("2")), np.array([[True], [False]]), np.array([True, True]))
    assert concepts.pool.tolist() == [False, True]


def test_overlap_equals_set_arithmetic_and_is_warned_of() -> None:
    concepts = random_set(1)
    overlap = concepts.overlap()
    for i in range(len(concepts)):
        for j in range(len(concepts)):
            a, b = np.flatnonzero(concepts.labels[:, i]), np.flatnonzero(concepts.labels[:, j])
            ga, gb = set(concepts.groups[a]), set(concepts.groups[b])
            assert overlap.clips[i, j] == len(set(a) & set(b))
            assert overlap.groups[i, j] == len(ga & gb)
            assert overlap.group_jaccard[i, j] == pytest.approx(len(ga & gb) / len(ga | gb))
            assert overlap.clip_jaccard[i, j] == pytest.approx(len(set(a) & set(b)) / len(set(a) | set(b)))
    largest = np.triu(overlap.group_jaccard, 1).max()
    lines = [line for line in concepts.warnings(share=largest) if "share" in line]
    assert len(lines) == 1
    assert "'c" in lines[0]
    assert not [line for line in concepts.warnings(share=largest + 0.01) if "share" in line]


@pytest.mark.parametrize("parts", ["folds", "split"])
def test_parts_keep_groups_whole_and_spread_concepts(parts: str) -> None:
    concepts = random_set(2, n=600, groups=200)
    if parts == "folds":
        part, shares = concepts.folds(5, seed=3), [0.2] * 5
    else:
        part, shares = 1 - concepts.split(0.7, seed=3).astype(int), [0.7, 0.3]
    of_group = {}
    for group, value in zip(concepts.groups, part, strict=True):
        assert of_group.setdefault(group, value) == value
    for f, share in enumerate(shares):
        inside = np.array([of_group[group] == f for group in concepts.group_names])
        assert abs(inside.sum() - share * len(inside)) <= 5
        assert (np.abs(concepts.group_labels[inside].sum(0) - share * concepts.n_groups()) <= 3).all()


def test_folds_are_exact_when_every_clip_shows_one_concept() -> None:
    labels = np.repeat(np.eye(10, dtype=bool), 10, axis=0)
    concepts = ConceptSet(tuple("abcdefghij"), tuple(Clip(str(i)) for i in range(100)), labels)
    fold = concepts.folds(5, seed=9)
    assert all((concepts.labels[fold == f].sum(0) == 2).all() for f in range(5))
    half = concepts.split(0.5, seed=9)
    assert (concepts.labels[half].sum(0) == 5).all()


def test_folds_depend_on_seed_and_groups_only() -> None:
    concepts = random_set(4)
    fold = concepts.folds(4, seed=1)
    assert (fold == random_set(4).folds(4, seed=1)).all()
    assert (fold != concepts.folds(4, seed=2)).any()
    rng = np.random.default_rng(0)
    rows, columns = rng.permutation(len(concepts.clips)), rng.permutation(len(concepts))
    shuffled = ConceptSet(
        tuple(concepts.names[c] for c in columns),
        tuple(concepts.clips[r] for r in rows),
        concepts.labels[rows][:, columns],
        concepts.pool[rows],
    )
    assert (shuffled.folds(4, seed=1) == fold[rows]).all()
    moved = tuple(Clip("/else/where/" + clip.path, group="/else/where/" + clip.group) for clip in concepts.clips)
    assert (ConceptSet(concepts.names, moved, concepts.labels, concepts.pool).folds(4, seed=1) == fold).all()


@pytest.mark.parametrize("negatives", ["random", "rest", {"c5": ["c1"]}])
def test_subset_keeps_positives_and_negatives(negatives: object) -> None:
    concepts = random_set(5).with_negatives(negatives)
    part = concepts.subset(["c5", "c1"])
    assert part.names == ("c5", "c1")
    row = {clip: i for i, clip in enumerate(concepts.clips)}
    rows = [row[clip] for clip in part.clips]
    for mask in ("positives", "negative_mask"):
        whole = getattr(concepts, mask)()[:, [5, 1]]
        assert (getattr(part, mask)() == whole[rows]).all()
        assert not np.delete(whole, rows, axis=0).any()


def test_subset_refuses_to_lose_the_negatives() -> None:
    concepts = random_set(5).with_negatives({"c5": ["c1"]})
    with pytest.raises(InputError, match="'c5' is compared with 'c1'"):
        concepts.subset(["c5", "c2"])
    with pytest.raises(InputError, match="no concept 'nothing'; concepts: c0, "):
        concepts.subset(["nothing"])


def test_check_names_what_cannot_be_judged() -> None:
    labels = np.zeros((10, 3), dtype=bool)
    labels[:2, 0] = labels[:5, 1] = labels[:9, 2] = True
    concepts = ConceptSet(("few", "good", "all"), tuple(Clip(str(i)) for i in range(10)), labels)
    assert concepts.check(3) == {
        "few": "positives in 2 groups, 3 needed",
        "all": "negatives in 1 group, 3 needed",
    }
    assert concepts.check(1) == {}


def test_hostile_names_are_data() -> None:
    clips = tuple(Clip(str(i)) for i in range(len(HOSTILE)))
    concepts = ConceptSet(tuple(HOSTILE), clips, np.eye(len(HOSTILE), dtype=bool))
    assert list(concepts.names) == HOSTILE
    assert len(repr(concepts)) < 500
    assert "\n" not in repr(concepts)
    assert concepts.subset(HOSTILE[:2]).names == tuple(HOSTILE[:2])
    lines = [*concepts.warnings(share=0.0), *concepts.check(9).values()]
    assert lines
    assert all("\n" not in line and len(line) < 500 for line in lines)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": ()}, "no concepts"),
        ({"names": ("a", " ")}, "empty name"),
        ({"names": ("a", " a")}, "'a' is given twice"),
        ({"clips": ()}, "no clips"),
        ({"clips": (Clip("1"), Clip("1", group="x"))}, "same clip is given twice"),
        ({"labels": np.ones((2, 3), bool)}, r"labels: shape \(2, 3\), but 2 clips x 2 concepts"),
        ({"pool": np.ones(3, bool)}, "pool: shape"),
        ({"negatives": "other"}, "negatives='other'"),
        ({"negatives": 3}, "negatives=3"),
        ({"negatives": "random"}, "no random pool"),
        ({"negatives": {"a": ["z"]}}, "negatives: no concept 'z'; concepts: a, b"),
    ],
)
def test_bad_sets_are_refused_in_one_line(change: dict[str, object], message: str) -> None:
    good = {"names": ("a", "b"), "clips": (Clip("1"), Clip("2")), "labels": np.eye(2, dtype=bool)}
    with pytest.raises(InputError, match=message) as caught:
        ConceptSet(**{**good, **change})  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_a_concept_without_negatives_is_an_error() -> None:
    labels = np.array([[True, True], [True, False]])
    concepts = ConceptSet(("all", "some"), (Clip("1"), Clip("2")), labels)
    with pytest.raises(InputError, match=r"1 of 2 concepts have none \('all'\)"):
        concepts.negative_mask()


@pytest.mark.parametrize(("method", "value"), [("folds", 1), ("folds", 61), ("split", 0), ("split", 1.0)])
def test_impossible_parts(method: str, value: float) -> None:
    with pytest.raises(InputError, match=method):
        getattr(random_set(n=2000), method)(value)


def test_thousands_of_concepts_over_a_hundred_thousand_clips() -> None:
    rng = np.random.default_rng(0)
    n, k = 100_000, 1000
    labels = np.zeros((n, k), dtype=bool)
    labels[np.repeat(np.arange(n), 3), rng.integers(0, k, 3 * n)] = True
    clips = tuple(Clip(f"{i}", group=f"{i // 5}") for i in range(n))
    begin = time.process_time()
    concepts = ConceptSet(tuple(map(str, range(k))), clips, labels)
    concepts.negative_mask()
    concepts.overlap()
    concepts.folds(5)
    assert time.process_time() - begin < 15


# Folders ----------------------------------------------------------------------------------------------------------


def test_folders(tmp_path: Path) -> None:
    for name in ("violin/a.wav", "violin/deep/er/b.flac", "flute/c.mp3", "random/r.ogg", "other/d.wav"):
        touch(tmp_path / name)
    touch(tmp_path / "violin/notes.txt")
    touch(tmp_path / "loose.wav")
    (tmp_path / "hollow").mkdir()
    concepts = ConceptSet.from_folders(tmp_path)
    assert shown_by(concepts) == {"flute": {"c.mp3"}, "other": {"d.wav"}, "violin": {"a.wav", "b.flac"}}
    assert [clip.path for clip, pool in zip(concepts.clips, concepts.pool, strict=True) if pool] == [
        str(tmp_path / "random/r.ogg")
    ]
    assert concepts.negatives == "random"
    assert [(os.path.basename(path), status) for path, status, _ in concepts.skipped] == [
        ("loose.wav", "no concept"),
        ("hollow", "empty"),
    ]
    assert ConceptSet.from_folders(tmp_path, pool="other").pool.sum() == 2
    assert ConceptSet.from_folders(tmp_path, negatives="rest").negatives == "rest"


def test_folders_pool_from_elsewhere_and_groups(tmp_path: Path) -> None:
    for name in ("c/x/album 1/1.wav", "c/x/album 1/2.wav", "c/x/album 2/1.wav", "elsewhere/1.wav"):
        touch(tmp_path / name)
    concepts = ConceptSet.from_folders(tmp_path / "c", pool=tmp_path / "elsewhere", group="folder")
    assert concepts.n_groups().tolist() == [2]
    assert concepts.pool.sum() == 1
    named = ConceptSet.from_folders(tmp_path / "c", group=lambda path: path[-5])
    assert set(named.groups) == {"1", "2"}
    with pytest.raises(InputError, match="group='artist'"):
        ConceptSet.from_folders(tmp_path / "c", group="artist")
    with pytest.raises(InputError, match=r"pool='nowhere'.*which has 'x'"):
        ConceptSet.from_folders(tmp_path / "c", pool="nowhere")


def test_links_and_copies_are_one_clip(tmp_path: Path) -> None:
    touch(tmp_path / "a/1.wav", b"same")
    touch(tmp_path / "b/1.wav", b"same")
    touch(tmp_path / "c/1.wav", b"else")
    touch(tmp_path / "d/1.wav", b"")
    touch(tmp_path / "e/1.wav", b"")
    (tmp_path / "c/link.wav").symlink_to(tmp_path / "a/1.wav")
    (tmp_path / "c/broken.wav").symlink_to(tmp_path / "a/none.wav")
    concepts = ConceptSet.from_folders(tmp_path)
    assert concepts.overlap().clips.tolist() == [
        [1, 1, 1, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 2, 0, 0],
        [0, 0, 0, 1, 0],
        [0, 0, 0, 0, 1],
    ]
    assert [status for _, status, _ in concepts.skipped] == ["missing"]


def test_folders_that_are_not(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        ConceptSet.from_folders(tmp_path / "none")
    (tmp_path / "x").mkdir()
    with pytest.raises(InputError, match="no clip has a concept; 1 rows or files skipped"):
        ConceptSet.from_folders(tmp_path)


# Tables -----------------------------------------------------------------------------------------------------------

ROWS = [
    {"file": "s/1.wav", "genre": "rock", "mood": "sad|slow", "artist": "A", "start": "", "end": ""},
    {"file": "s/1.wav", "genre": "rock", "mood": "", "artist": "A", "start": 1.5, "end": 3},
    {"file": "s/2.wav", "genre": "Rock ", "mood": "", "artist": "A", "start": "", "end": ""},
    {"file": "s/2.wav", "genre": "NA", "mood": " sad | ", "artist": "A", "start": 0, "end": ""},
    {"file": "s/3.wav", "genre": "", "mood": " ", "artist": "", "start": "", "end": ""},
    {"file": "gone.wav", "genre": "rock", "mood": "", "artist": "", "start": "", "end": ""},
    {"file": "s/3.wav", "genre": "rock", "mood": "", "artist": "", "start": 4, "end": 3},
    {"file": "s/3.wav", "genre": "rock", "mood": "", "artist": "", "start": "soon", "end": ""},
]


@pytest.mark.parametrize("kind", ["csv", "semicolon", "tsv", "bom", "parquet"])
def test_tables_of_every_kind(tmp_path: Path, kind: str) -> None:
    path = write_table(tmp_path, ROWS)
    if kind == "parquet":
        pytest.importorskip("pyarrow")
        table = pd.read_csv(path, keep_default_na=False, na_values=[""], dtype={"genre": str, "start": str})
        path = tmp_path / "clips.parquet"
        table.to_parquet(path)
    elif kind != "csv":
        sep, encoding = {"semicolon": (";", "utf-8"), "tsv": ("\t", "utf-8"), "bom": (",", "utf-8-sig")}[kind]
        path = write_table(tmp_path, ROWS, "other.txt", sep=sep, encoding=encoding)
    concepts = ConceptSet.from_table(path, column=["genre", "mood"], group="artist")
    assert concepts.names == ("NA", "Rock", "rock", "sad", "slow")
    folder = str(tmp_path)
    assert [(c.path.removeprefix(folder), c.start, c.end, c.group.removeprefix(folder)) for c in concepts.clips] == [
        ("/s/1.wav", 0.0, None, "A"),
        ("/s/1.wav", 1.5, 3.0, "A"),
        ("/s/2.wav", 0.0, None, "A"),
        ("/s/3.wav", 0.0, None, "/s/3.wav"),
    ]
    assert concepts.labels.astype(int).tolist() == [[0, 0, 1, 1, 1], [0, 0, 1, 0, 0], [1, 1, 0, 1, 0], [0, 0, 0, 0, 0]]
    assert concepts.pool.tolist() == [False, False, False, True]
    assert [status for _, status, _ in concepts.skipped] == ["missing", "bad time", "bad time"]
    assert any("3 rows or files skipped" in line for line in concepts.warnings())


def test_one_column_only(tmp_path: Path) -> None:
    concepts = ConceptSet.from_table(write_table(tmp_path, ROWS), column="mood", separator=None)
    assert concepts.names == ("sad |", "sad|slow")


def test_the_same_value_in_several_columns(tmp_path: Path) -> None:
    rows = [
        {"file": "1.wav", "instrument": "harp", "family": "harp", "vocals": "yes", "solo": "no"},
        {"file": "2.wav", "instrument": "cello", "family": "strings", "vocals": "no", "solo": "no"},
        {"file": "3.wav", "instrument": "strings", "family": "", "vocals": "no", "solo": "yes"},
    ]
    path = write_table(tmp_path, rows)
    both = ConceptSet.from_table(path, column=["instrument", "family"])
    assert shown_by(both) == {
        "cello": {"2.wav"},
        "harp": {"1.wav"},
        "instrument=strings": {"3.wav"},
        "family=strings": {"2.wav"},
    }
    answers = ConceptSet.from_table(path, column=["vocals", "solo"])
    assert answers.names == ("vocals=no", "vocals=yes", "solo=no", "solo=yes")


def test_names_that_look_the_same_are_one(tmp_path: Path) -> None:
    rows = [
        {"file": "1.wav", "tag": unicodedata.normalize("NFC", "café")},
        {"file": "2.wav", "tag": unicodedata.normalize("NFD", " café")},
    ]
    assert shown_by(ConceptSet.from_table(write_table(tmp_path, rows), column="tag")) == {"café": {"1.wav", "2.wav"}}


def test_hostile_cells_are_data(tmp_path: Path) -> None:
    rows = [{"file": f"{i}.wav", "tag": tag} for i, tag in enumerate(HOSTILE)]
    assert set(ConceptSet.from_table(write_table(tmp_path, rows), column="tag").names) == set(HOSTILE)


def test_parquet_lists(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    for name in ("1.wav", "2.wav"):
        touch(tmp_path / name)
    pd.DataFrame({"path": ["1.wav", "2.wav"], "tag": [["a|b", "c"], []]}).to_parquet(tmp_path / "t.parquet")
    concepts = ConceptSet.from_table(tmp_path / "t.parquet", column="tag")
    assert concepts.names == ("a|b", "c")
    assert concepts.pool.tolist() == [False, True]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"column": "nope"}, "no column 'nope'; there are 'file', 'genre', 'mood'"),
        ({"column": "genre", "group": "nope"}, "no column 'nope'"),
        ({"column": "genre", "file": "nope"}, "no column 'nope'"),
        ({"column": "genre", "start": "nope"}, "no column 'nope'"),
        ({"column": []}, "say which column"),
        ({"column": "genre", "group": "mood"}, "in group 'rock' and in group 'jazz'"),
    ],
)
def test_tables_refused(tmp_path: Path, options: dict[str, str], message: str) -> None:
    rows = [{"file": "1.wav", "genre": "x", "mood": "rock"}, {"file": "1.wav", "genre": "y", "mood": "jazz"}]
    with pytest.raises(InputError, match=message):
        ConceptSet.from_table(write_table(tmp_path, rows), **options)  # type: ignore[arg-type]


def test_group_file_is_the_file_itself_whatever_its_column_is_called(tmp_path: Path) -> None:
    touch(tmp_path / "1.wav")
    (tmp_path / "t.csv").write_text("path,tag\n1.wav,x\n")
    assert ConceptSet.from_table(tmp_path / "t.csv", column="tag", group="file").groups[0] == str(tmp_path / "1.wav")
    (tmp_path / "t.csv").write_text("file,tag\n1.wav,x\n")
    assert ConceptSet.from_table(tmp_path / "t.csv", column="tag", group="file").groups[0] == str(tmp_path / "1.wav")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"file,tag\n", "no clip has a concept"),
        (b"file,tag\ngone.wav,x\n", "1 rows or files skipped .*no such file"),
        (b"file,tag\n1.wav,\xff\xfe\n", "not UTF-8"),
        (b'file,tag\n1.wav,"x\n', "cannot read the table"),
    ],
)
def test_tables_that_are_broken(tmp_path: Path, data: bytes, message: str) -> None:
    touch(tmp_path / "t.csv", data)
    with pytest.raises(InputError, match=message) as caught:
        ConceptSet.from_table(tmp_path / "t.csv", column="tag")
    assert "\n" not in str(caught.value)


def test_broken_parquet_and_no_table(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    with pytest.raises(InputError, match="cannot read the table"):
        ConceptSet.from_table(touch(tmp_path / "t.parquet"), column="tag")
    with pytest.raises(InputError, match="no such table"):
        ConceptSet.from_table(tmp_path / "none.csv", column="tag")


# Playlists, specs, parents ----------------------------------------------------------------------------------------


def test_playlists(tmp_path: Path) -> None:
    one, two = touch(tmp_path / "1.tensor"), touch(tmp_path / "2.tensor")
    concepts = ConceptSet.from_playlists(
        {"jazz": [one, str(two), tmp_path / "none"], "jazz ": [Clip("not a file", group="g")], "void": []},
        pool=[Clip("p")],
    )
    assert concepts.names == ("jazz",)
    assert concepts.labels[:, 0].tolist() == [True, True, True, False]
    assert concepts.pool[3]
    assert [status for _, status, _ in concepts.skipped] == ["missing", "empty"]
    with pytest.raises(InputError, match="one track"):
        ConceptSet.from_playlists({"jazz": "1.wav"})
    with pytest.raises(InputError, match="no clip has"):
        ConceptSet.from_playlists({})


def test_spec_is_a_folder_or_a_table(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    path = write_table(tmp_path / "x", ROWS)
    assert ConceptSet.from_spec(str(path), column="genre", group=None).names == ("NA", "Rock", "rock")
    assert ConceptSet.from_spec(tmp_path).names == ("x",)
    with pytest.raises(InputError, match="say which column holds concepts; there are 'file', 'genre'"):
        ConceptSet.from_spec(str(path))
    with pytest.raises(InputError, match="neither a folder nor a table"):
        ConceptSet.from_spec("msd-tags:jazz")


def test_parents_in_every_form(tmp_path: Path) -> None:
    expected = {"violin": "bowed", "cello": "bowed", "bowed": "strings", "harp": "strings"}
    nested = {"strings": {"bowed": ["violin", "cello"], "harp": None}}
    for given in (expected, {"parent": expected}, nested, {**expected, "strings": None}):
        assert read_parents(given) == expected
        (tmp_path / "p.json").write_text(json.dumps(given))
        assert read_parents(tmp_path / "p.json") == expected
    roots = {"violin": "strings", "strings": "", "winds": " "}  # blank: a root
    assert read_parents(roots) == {"violin": "strings", "winds": None}
    for alone in ({**expected, "winds": None}, {**nested, "winds": None}, {**nested, "winds": []}):
        assert read_parents(alone) == {**expected, "winds": None} == read_parents(read_parents(alone))
    concepts = ConceptSet.from_playlists({"violin": [Clip("1")], "harp": [Clip("2")]}, parents=nested)
    assert concepts.parents == expected == concepts.subset(["harp"]).parents


@pytest.mark.parametrize(
    ("parents", "message"),
    [
        ({"a": "b", "b": "a"}, "is its own ancestor"),
        ({"a": "a"}, "is its own ancestor"),
        ({"x": ["a"], "y": ["a"]}, "'a' has two parents, "),
        ({"x": [1]}, r"\[1\] under 'x'"),
        ([1], "not a map"),
        ("none.json", "cannot read"),
    ],
)
def test_parents_refused(parents: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_parents(parents)


def test_a_name_twice_in_a_file_of_parents(tmp_path: Path) -> None:
    """A JSON reader keeps the last one and says nothing."""
    for text in ('{"oboe": "reeds", "oboe": "brass"}', '{"strings": {"bowed": ["cello"], "bowed": ["viola"]}}'):
        (tmp_path / "p.json").write_text(text)
        with pytest.raises(InputError, match="stands in it twice; give each name once") as caught:
            read_parents(tmp_path / "p.json")
        assert "\n" not in str(caught.value)


# Real data --------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not (SHARED / "philharmonia").is_dir(), reason="the Philharmonia samples are not here")
def test_philharmonia() -> None:
    table, parents = SHARED / "philharmonia" / "clips.csv", SHARED / "philharmonia" / "hierarchy.json"
    truth = pd.read_csv(table)
    concepts = ConceptSet.from_table(table, column="instrument", group="file", parents=parents)
    assert len(concepts) == 46
    assert len(concepts.clips) == 960
    assert not concepts.skipped
    counts = truth.instrument.value_counts()
    assert concepts.n_groups().tolist() == [counts[name] for name in concepts.names]
    assert concepts.parents is not None
    assert concepts.parents["banjo"] == "plucked"
    families = ConceptSet.from_table(table, column=["instrument", "family"], parents=parents)
    assert len(families) == 49
    fold = families.folds(5)
    for k, name in enumerate(families.names):
        spread = [families.labels[fold == f, k].sum() for f in range(5)]
        assert max(spread) - min(spread) <= 1, name


@pytest.mark.skipif(not (SHARED / "gtzan_mini").is_dir(), reason="gtzan_mini is not here")
def test_gtzan_mini() -> None:
    concepts = ConceptSet.from_folders(SHARED / "gtzan_mini" / "genres")
    assert len(concepts) == 10
    assert concepts.n_groups().tolist() == [10] * 10
    assert (concepts.labels[concepts.split(0.5)].sum(0) == 5).all()
