from __future__ import annotations

import errno
import json
import logging
import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from captum_concepts.errors import InputError
from captum_concepts.storage.activation_store import ActivationStore

Rows = dict[str, dict[str, Tensor]]
HOSTILE = ["../up/*?", "__metadata__", "ü 日本語\n</script>", "x" * 10_000, "", "\ud800"]


def made(keys: list[str], seed: int = 0, names: tuple[str, ...] = ("a", "b")) -> Rows:
    generator = torch.Generator().manual_seed(seed)
    width = {name: 3 + 2 * place for place, name in enumerate(names)}
    return {
        key: {name: torch.randn(place % 4, width[name], generator=generator) for name in names}
        for place, key in enumerate(keys)
    }


def clip_keys(count: int, first: int = 0) -> list[str]:
    return [f"clip {i}:0-" for i in range(first, first + count)]


def shards(folder: Path, namespace: str = "n") -> list[Path]:
    return sorted((folder / namespace).glob("*.safetensors"))


def assert_holds(store: ActivationStore, rows: Rows, name: str, keys: list[str]) -> None:
    values, counts = store.get("n", name, keys)
    assert torch.equal(values, torch.cat([rows[key][name] for key in keys]))
    assert counts.tolist() == [len(rows[key][name]) for key in keys]


@pytest.mark.parametrize("name", ["a", "b"])
def test_what_is_put_is_got_in_any_order(tmp_path: Path, name: str) -> None:
    keys = clip_keys(40)
    rows = made(keys)
    writer = ActivationStore(tmp_path)
    for first in range(0, 40, 8):
        writer.put("n", {key: rows[key] for key in keys[first : first + 8]}, meta={"weights": "w.h5"})
    assert len(shards(tmp_path)) == 5
    for store in (writer, ActivationStore(tmp_path)):
        assert store.missing("n", ["a", "b"], keys) == []
        assert_holds(store, rows, name, keys)
        rng = np.random.default_rng(0)
        for _ in range(5):
            assert_holds(store, rows, name, [keys[i] for i in rng.permutation(40)[: rng.integers(1, 40)]])
        assert_holds(store, rows, name, [keys[7], keys[3], keys[7]])


def test_missing_keeps_the_order_and_looks_at_every_array(tmp_path: Path) -> None:
    store = ActivationStore(tmp_path)
    keys = clip_keys(6)
    assert store.missing("n", ["a"], keys) == keys
    rows = made(keys)
    store.put("n", {key: {"a": rows[key]["a"]} for key in keys[:4]})
    store.put("n", {key: {"b": rows[key]["b"]} for key in keys[2:5]})
    backwards = keys[::-1]
    assert store.missing("n", ["a", "b"], backwards) == [keys[5], keys[4], keys[1], keys[0]]
    assert store.missing("n", ["a"], keys) == keys[4:]
    assert store.missing("other", ["a"], keys) == keys
    assert store.missing("n", ["c"], keys) == keys
    with pytest.raises(LookupError, match=r"no rows of 'a' for 2 of 6 clips, as 'clip 4:0-'"):
        store.get("n", "a", keys)


def test_a_reader_sees_what_another_object_commits_later(tmp_path: Path) -> None:
    reader, writer = ActivationStore(tmp_path), ActivationStore(tmp_path)
    keys = clip_keys(8)
    rows = made(keys)
    writer.put("n", {key: rows[key] for key in keys[:4]})
    assert reader.missing("n", ["a"], keys) == keys[4:]
    writer.put("n", {key: rows[key] for key in keys[4:]})
    assert_holds(reader, rows, "a", keys)


def test_clips_without_rows_are_there(tmp_path: Path) -> None:
    store = ActivationStore(tmp_path)
    store.put("n", {"empty": {"a": torch.zeros(0, 5)}, "full": {"a": torch.ones(2, 5)}})
    assert store.missing("n", ["a"], ["empty", "full"]) == []
    values, counts = store.get("n", "a", ["empty", "full", "empty"])
    assert values.shape == (2, 5)
    assert counts.tolist() == [0, 2, 0]
    assert store.get("n", "a", ["empty"])[0].shape == (0, 5)
    assert len(store.get("n", "a", [])[0]) == 0
    store.put("n", {})
    assert len(shards(tmp_path)) == 1


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_types_are_kept(tmp_path: Path, dtype: torch.dtype) -> None:
    store = ActivationStore(tmp_path)
    rows = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    store.put("n", {"k": {"a": rows}})
    assert torch.equal(ActivationStore(tmp_path).get("n", "a", ["k"])[0], rows)
    assert store.get("n", "a", ["k"])[0].dtype == dtype


def test_numpy_and_tensors_that_are_views(tmp_path: Path) -> None:
    store = ActivationStore(tmp_path)
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    store.put("n", {"k": {"a": array.T, "b": torch.from_numpy(array)[:, ::2].requires_grad_()}})
    assert torch.equal(store.get("n", "a", ["k"])[0], torch.from_numpy(array.T.copy()))
    assert torch.equal(store.get("n", "b", ["k"])[0], torch.from_numpy(array[:, ::2].copy()))


def test_hostile_names_are_data(tmp_path: Path) -> None:
    rows = {
        key: {name: torch.full((1, 2), i * 10.0 + j) for j, name in enumerate(HOSTILE)} for i, key in enumerate(HOSTILE)
    }
    ActivationStore(tmp_path).put("n", rows)
    store = ActivationStore(tmp_path)
    for j, name in enumerate(HOSTILE):
        assert store.get("n", name, HOSTILE)[0][:, 0].tolist() == [i * 10.0 + j for i in range(len(HOSTILE))]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["n"]


@pytest.mark.parametrize("namespace", ["", "..", "a/b", ".hidden", "x" * 201, "a b"])
def test_namespaces_are_plain(tmp_path: Path, namespace: str) -> None:
    with pytest.raises(InputError, match="namespace="):
        ActivationStore(tmp_path).put(namespace, made(["k"]))
    with pytest.raises(InputError, match="namespace="):
        ActivationStore(tmp_path).missing(namespace, ["a"], ["k"])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"k": {"a": torch.zeros(3)}}, r"rows\['a'\]: \(3,\)"),
        ({"k": {"a": torch.zeros(3, 2, dtype=torch.int64)}}, "floating point"),
        ({"k": {"a": torch.zeros(3, 2)}, "l": {"a": torch.zeros(3, 1)}}, "differ in width"),
        ({"k": {"a": torch.zeros(3, 2)}, "l": {"a": torch.zeros(3, 2).half()}}, "differ in width or type"),
    ],
)
def test_rows_refused(tmp_path: Path, rows: Rows, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ActivationStore(tmp_path).put("n", rows)
    assert list(tmp_path.iterdir()) == []


def test_the_same_clip_twice_is_not_doubled_and_the_same_for_all(tmp_path: Path) -> None:
    keys = clip_keys(6)
    written = [made(keys, seed) for seed in range(5)]
    early = ActivationStore(tmp_path)
    for rows in written:
        ActivationStore(tmp_path).put("n", rows)
        early.missing("n", ["a"], keys)
    values, counts = early.get("n", "a", keys)
    again = ActivationStore(tmp_path).get("n", "a", keys)
    assert torch.equal(values, again[0])
    assert counts.tolist() == again[1].tolist() == [0, 1, 2, 3, 0, 1]
    assert sum(torch.equal(values, torch.cat([rows[key]["a"] for key in keys])) for rows in written) == 1


def test_widths_that_differ_between_shards_are_refused(tmp_path: Path) -> None:
    store = ActivationStore(tmp_path)
    store.put("n", {"k": {"a": torch.zeros(1, 2)}})
    store.put("n", {"l": {"a": torch.zeros(1, 3)}})
    with pytest.raises(InputError, match="different widths"):
        store.get("n", "a", ["k", "l"])


# Damage -----------------------------------------------------------------------------------------------------------


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def cut(path: Path, size: int) -> None:
    os.truncate(path, size)


def two_shards(folder: Path) -> tuple[Rows, list[str]]:
    keys = clip_keys(8)
    rows = made(keys)
    for first in (0, 4):
        ActivationStore(folder).put("n", {key: rows[key] for key in keys[first : first + 4]})
    return rows, keys


@pytest.mark.parametrize("part", ["first", "header", "middle", "last", "cut", "cut to nothing", "gone", "longer"])
def test_a_damaged_shard_is_missing_and_never_used(tmp_path: Path, part: str, caplog: pytest.LogCaptureFixture) -> None:
    rows, keys = two_shards(tmp_path)
    bad = shards(tmp_path)[0]
    held = [key for key, _ in json.loads(bad.with_suffix(".json").read_text())["entry"]["arrays"][0]["clips"]]
    size = bad.stat().st_size
    if part in ("cut", "cut to nothing"):
        cut(bad, 0 if part == "cut to nothing" else size - 1)
    elif part == "gone":
        bad.unlink()
    elif part == "longer":
        bad.write_bytes(bad.read_bytes() + b"\0")
    else:
        flip(bad, {"first": 0, "header": 20, "middle": size // 2, "last": size - 1}[part])
    store = ActivationStore(tmp_path)
    with caplog.at_level(logging.WARNING, "captum_concepts"):
        assert store.missing("n", ["a", "b"], keys) == held
    assert [bad.name in record.getMessage() for record in caplog.records] == [True]
    assert (bad.parent / f"{bad.stem}.json.damaged").exists()
    assert not bad.with_suffix(".json").exists()
    assert bad.exists() == (part != "gone")
    with pytest.raises(LookupError):
        store.get("n", "a", keys)
    store.put("n", {key: rows[key] for key in held})
    for reader in (store, ActivationStore(tmp_path)):
        assert_holds(reader, rows, "a", keys)


def test_every_flipped_byte_of_entry_and_shard_is_noticed(tmp_path: Path) -> None:
    ActivationStore(tmp_path).put("n", {"k": {"a": torch.tensor([[1.5, 2.5]])}})
    shard = shards(tmp_path)[0]
    for path in (shard.with_suffix(".json"), shard):
        sound = path.read_bytes()
        for position in range(len(sound)):
            flip(path, position)
            store = ActivationStore(tmp_path)
            if store.missing("n", ["a"], ["k"]) == []:
                # Only white space between the parts of an entry may differ: what it says is unharmed.
                assert path.suffix == ".json"
                assert json.loads(path.read_bytes()) == json.loads(sound)
            aside = path.with_suffix(".json.damaged")
            if aside.exists():
                os.replace(aside, path.with_suffix(".json"))
            path.write_bytes(sound)
    assert ActivationStore(tmp_path).get("n", "a", ["k"])[0].tolist() == [[1.5, 2.5]]


def test_another_shard_stands_in_for_a_damaged_one(tmp_path: Path) -> None:
    keys = clip_keys(4)
    rows = made(keys)
    for _ in range(3):
        ActivationStore(tmp_path).put("n", rows)
    for bad in shards(tmp_path)[:2]:
        flip(bad, 200)
    store = ActivationStore(tmp_path)
    assert store.missing("n", ["a"], keys) == []
    assert_holds(store, rows, "a", keys)


def test_a_broken_entry_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _, keys = two_shards(tmp_path)
    entries = sorted((tmp_path / "n").glob("*.json"))
    cut(entries[0], 30)
    entries[1].write_text("[]")
    with caplog.at_level(logging.WARNING, "captum_concepts"):
        assert ActivationStore(tmp_path).missing("n", ["a"], keys) == keys
    assert len(caplog.records) == 2
    assert sorted(path.name for path in (tmp_path / "n").glob("*.json*")) == [f"{e.name}.damaged" for e in entries]


def test_entries_of_another_namespace_are_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _, keys = two_shards(tmp_path)
    os.rename(tmp_path / "n", tmp_path / "other")
    with caplog.at_level(logging.WARNING, "captum_concepts"):
        assert ActivationStore(tmp_path).missing("other", ["a"], keys) == keys
    assert all("belongs to namespace 'n'" in record.getMessage() for record in caplog.records)
    assert len(caplog.records) == 2
    os.rename(tmp_path / "other", tmp_path / "n")
    assert ActivationStore(tmp_path).missing("n", ["a"], keys) == []


def test_entries_of_a_later_format_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as later:
        later.setattr("captum_concepts.storage.activation_store.FORMAT", 2)
        _, keys = two_shards(tmp_path)
    assert ActivationStore(tmp_path).missing("n", ["a"], keys) == keys
    assert len(list((tmp_path / "n").glob("*.json"))) == 2


# Writers that fail, are killed, or are many -------------------------------------------------------------------------


@pytest.mark.parametrize("call", [1, 2, 3, 4])
def test_a_full_disk_is_one_line_and_leaves_nothing_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    keys = clip_keys(3)
    calls = []

    def full(handle: int) -> None:
        calls.append(handle)
        if len(calls) == call:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    store = ActivationStore(tmp_path)
    with monkeypatch.context() as context:
        context.setattr(os, "fsync", full)
        with pytest.raises(InputError, match="No space left on device") as caught:
            store.put("n", made(keys))
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "n").glob("*.tmp"))
    # The fourth is after the entry's rename, the commit: what is there is whole and may be used.
    assert store.missing("n", ["a"], keys) == ([] if call == 4 else keys)
    if call < 4:
        store.put("n", made(keys))
    assert_holds(store, made(keys), "a", keys)


def test_folders_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="not a folder"):
        ActivationStore(tmp_path / "file")
    with pytest.raises(InputError, match="cannot keep activations"):
        ActivationStore(tmp_path / "file" / "below").put("n", made(["k"]))


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="permissions do not bind this user")
def test_a_read_only_folder_is_read_but_not_written(tmp_path: Path) -> None:
    rows, keys = two_shards(tmp_path)
    flip(shards(tmp_path)[0], 200)
    os.chmod(tmp_path / "n", 0o500)
    try:
        with pytest.raises(InputError, match="Permission denied"):
            ActivationStore(tmp_path).put("n", rows)
        assert len(ActivationStore(tmp_path).missing("n", ["a"], keys)) == 4
    finally:
        os.chmod(tmp_path / "n", 0o700)


def test_old_leftovers_go_and_young_ones_stay(tmp_path: Path) -> None:
    (tmp_path / "n").mkdir()
    old, young = tmp_path / "n" / "old.safetensors.tmp", tmp_path / "n" / "young.json.tmp"
    old.write_bytes(b"x")
    young.write_bytes(b"x")
    os.utime(old, (time.time() - 90_000,) * 2)
    ActivationStore(tmp_path).put("n", made(["k"]))
    assert not old.exists()
    assert young.exists()


def row_of(key: str) -> Tensor:
    return torch.full((int(key) % 3 + 1, 1000), float(key))


def write_what_is_missing(folder: str, keys: list[str], batch: int) -> None:
    store = ActivationStore(folder)
    left = store.missing("n", ["a"], keys)
    for first in range(0, len(left), batch):
        store.put("n", {key: {"a": row_of(key)} for key in left[first : first + batch]})


@pytest.fixture(scope="module")
def workers() -> multiprocessing.context.BaseContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["captum_concepts.storage.activation_store"])
    return context


def assert_all_there_once(folder: Path, keys: list[str]) -> None:
    store = ActivationStore(folder)
    assert store.missing("n", ["a"], keys) == []
    values, counts = store.get("n", "a", keys)
    assert counts.tolist() == [int(key) % 3 + 1 for key in keys]
    assert torch.equal(values, torch.cat([row_of(key) for key in keys]))


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_killed_writers_lose_nothing_committed_and_double_nothing(tmp_path: Path, workers: object) -> None:
    keys = [str(i) for i in range(3000)]
    folder = tmp_path / "n"
    pauses = np.random.default_rng(0).uniform(0, 0.02, 10)
    left = keys
    killed = 0
    for pause in pauses:
        committed = set(folder.glob("*.json"))
        worker = workers.Process(target=write_what_is_missing, args=(str(tmp_path), keys, 5))  # type: ignore[attr-defined]
        worker.start()
        while worker.is_alive() and set(folder.glob("*.json")) == committed:
            time.sleep(0.002)
        time.sleep(pause)
        worker.kill()
        worker.join()
        killed += worker.exitcode == -9
        still = ActivationStore(tmp_path).missing("n", ["a"], keys)
        assert set(still) <= set(left)
        if left:
            assert len(still) < len(left)
        left = still
    assert killed >= 5
    write_what_is_missing(str(tmp_path), keys, 500)
    assert_all_there_once(tmp_path, keys)
    held = [
        key
        for entry in folder.glob("*.json")
        for key, _ in json.loads(entry.read_text())["entry"]["arrays"][0]["clips"]
    ]
    assert sorted(held, key=int) == keys
    assert not list(folder.glob("*.damaged"))


def test_many_writers_at_once(tmp_path: Path, workers: object) -> None:
    keys = [str(i) for i in range(240)]
    started = [
        workers.Process(target=write_what_is_missing, args=(str(tmp_path), keys[40 * i : 40 * i + 120], 8))  # type: ignore[attr-defined]
        for i in range(4)
    ]
    for worker in started:
        worker.start()
    for worker in started:
        worker.join()
    assert [worker.exitcode for worker in started] == [0] * 4
    assert_all_there_once(tmp_path, keys)


def test_reading_everything_is_quick(tmp_path: Path) -> None:
    keys = clip_keys(20_000)
    rows = torch.randn(200_000, 128, generator=torch.Generator().manual_seed(0))
    blocks = rows.split(10)
    writer = ActivationStore(tmp_path)
    for first in range(0, len(keys), 4000):
        writer.put("n", {keys[i]: {"a": blocks[i]} for i in range(first, first + 4000)})
    begin = time.process_time()
    values, _ = ActivationStore(tmp_path).get("n", "a", keys)
    assert time.process_time() - begin < 3
    assert torch.equal(values, rows)
