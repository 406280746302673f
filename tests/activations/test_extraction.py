"""The one pass against a loop clip by clip; what is kept, reused, refused and survives."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from helpers import paths as helper_paths
from torch import nn

from captum_concepts.activations import extraction as module
from captum_concepts.activations.extraction import extract, shard_of
from captum_concepts.audio.clips import Clip
from captum_concepts.audio.patches import Patches
from captum_concepts.backbones.embedding_backbone import EmbeddingBackbone
from captum_concepts.backbones.torch_backbone import TorchBackbone
from captum_concepts.errors import InputError
from captum_concepts.storage.activation_store import ActivationStore

RATE, PATCH = 8000, 0.25
ROOT = str(helper_paths.ROOT)


def write(path, seconds, seed=0, rate=RATE):
    noise = np.random.default_rng(seed).normal(size=round(seconds * rate)) * 0.1
    soundfile.write(path, noise, rate, subtype="FLOAT")
    return Clip(str(path))


@pytest.fixture
def clips(tmp_path):
    lengths = (0.3, 1.1, 0.1, 2.6, 0.25, 0.9, 1.7)
    return [write(tmp_path / f"{i}.wav", seconds, i) for i, seconds in enumerate(lengths)]


class Net(nn.Module):
    def __init__(self, seed=0, scale=1.0):
        super().__init__()
        torch.manual_seed(seed)
        self.scale = scale
        self.conv = nn.Conv1d(1, 6, 64, stride=32)
        self.act = nn.ReLU(inplace=True)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.act(self.conv(x[:, None]) * self.scale).mean(2))


def net(seed=0, scale=1.0, **options):
    options = {"patch_seconds": PATCH} | options
    return TorchBackbone(Net(seed, scale), ["conv", "act"], None, ("a", "b", "c"), RATE, **options)


class Counting:
    """A backbone and how many patches it has been given."""

    def __init__(self, backbone):
        self._backbone = backbone
        self.extracted = 0

    def __getattr__(self, name):
        return getattr(self._backbone, name)

    def activations(self, inputs, layers, pool):
        self.extracted += len(inputs)
        return self._backbone.activations(inputs, layers, pool)

    def gradients(self, inputs, layers, targets, pool):
        self.extracted += len(inputs)
        return self._backbone.gradients(inputs, layers, targets, pool)


def same(one, two, tolerance=0.0):
    assert one.clips == two.clips
    np.testing.assert_array_equal(one.counts, two.counts)
    np.testing.assert_array_equal(one.spans, two.spans)
    pairs = [(one.activations, two.activations), (one.gradients, two.gradients)]
    if one.logits is not None or two.logits is not None:
        pairs.append(({"logits": one.logits}, {"logits": two.logits}))
    for left, right in pairs:
        assert left.keys() == right.keys()
        for key in left:
            torch.testing.assert_close(left[key], right[key], rtol=tolerance, atol=tolerance)


LAYERS = ["conv", "act"]


def naive(backbone, clips, layers, targets, pool="time"):
    """Clip by clip, block by block, straight from the backbone."""
    found = {"a": {x: [] for x in layers}, "g": {x: [] for x in layers}, "logits": [], "spans": [], "counts": []}
    for clip in clips:
        blocks = list(backbone.read(clip))
        found["counts"].append(sum(len(b.inputs) for b in blocks))
        for block in blocks:
            result = backbone.gradients(block.inputs, layers, targets, pool)
            found["logits"].append(result.logits)
            found["spans"].append(np.stack([block.starts, block.ends], 1))
            for layer in layers:
                found["a"][layer].append(result.activations[layer])
                found["g"][layer].append(result.gradients[layer])
    return found


@pytest.mark.parametrize("batch_size", [1, 3, 7, 1000])
@pytest.mark.parametrize("pool", ["time", "none"])
def test_extraction_equals_a_loop_over_clips(clips, batch_size, pool):
    order = np.random.default_rng(batch_size).permutation(len(clips))
    shuffled = [clips[i] for i in order]
    expected = naive(net(), shuffled, LAYERS, [2, 0], pool)
    found = extract(net(), shuffled, LAYERS, targets=[2, 0], pool=pool, batch_size=batch_size)
    assert found.clips == tuple(shuffled)
    assert list(found.counts) == expected["counts"]
    np.testing.assert_array_equal(found.spans, np.concatenate(expected["spans"]))
    torch.testing.assert_close(found.logits, torch.cat(expected["logits"]), rtol=1e-5, atol=1e-5)
    for layer in LAYERS:
        for values, parts in ((found.activations, expected["a"]), (found.gradients, expected["g"])):
            torch.testing.assert_close(values[layer], torch.cat(parts[layer]), rtol=1e-5, atol=1e-5)
    assert found.rows.tolist() == [i for i, n in enumerate(expected["counts"]) for _ in range(n)]
    assert found.short == 1
    assert found.computed == len(clips)


def test_the_order_of_patches_is_that_of_paths_and_time_however_clips_are_ordered(clips):
    parts = [Clip(clips[3].path, start, start + 0.6) for start in (1.8, 0.0, 0.9)] + [clips[1]]
    one = extract(net(), parts, ["act"])
    other = extract(net(), parts[::-1], ["act"])
    sorted_rows = [found.activations["act"][np.argsort(found.order)] for found in (one, other)]
    assert torch.equal(*sorted_rows)
    named = [(one.clips[row].path, start) for row, (start, _) in zip(one.rows, one.spans, strict=True)]
    assert [named[row] for row in np.argsort(one.order)] == sorted(named)


def test_what_is_kept_is_found_again_bit_by_bit(clips, tmp_path):
    store = tmp_path / "store"
    first = extract(net(), clips[:5], LAYERS, targets=[1], store=ActivationStore(store), batch_size=4)
    backbone = Counting(net())
    second = extract(backbone, clips[:5], LAYERS, targets=[1], store=ActivationStore(store), batch_size=2)
    assert backbone.extracted == second.computed == 0
    same(first, second)
    same(first, extract(net(), clips[:5], LAYERS, targets=[1]), 1e-5)
    third = extract(backbone, clips, LAYERS, targets=[1], store=ActivationStore(store))
    assert third.computed == 2
    assert backbone.extracted == third.counts[5:].sum()
    torch.testing.assert_close(third.logits[: len(first.logits)], first.logits, rtol=0, atol=0)


def test_any_change_is_computed_anew_and_a_moved_file_is_not(clips, tmp_path):
    store = ActivationStore(tmp_path / "store")

    def computed(backbone, clip=clips[1], layers=("conv",), **options):
        return extract(backbone, [clip], list(layers), store=store, **options).computed

    assert computed(net()) == 1
    assert computed(net()) == 0
    for backbone in (net(seed=1), net(scale=2.0), net(hop_seconds=0.1), net(patch_seconds=0.5)):
        assert computed(backbone) == 1
        assert computed(backbone) == 0
    assert computed(net(), layers=["act"]) == 1
    assert computed(net(), pool="none") == 1
    assert computed(net(), targets=[0]) == 1
    assert computed(net(), targets=[1]) == 1
    assert computed(net(), Clip(clips[1].path, 0.0, 0.5)) == 1
    assert computed(net(), Clip(clips[1].path, 0, np.float64(0.5))) == 0
    copy = tmp_path / "copy.wav"
    shutil.copy(clips[1].path, copy)
    assert computed(net(), Clip(str(copy))) == 0
    write(copy, 1.1, seed=99)
    assert computed(net(), Clip(str(copy))) == 1


def scaled(scale):
    return lambda x: x * scale


def test_front_ends_with_different_closures_never_share(clips, tmp_path):
    store = ActivationStore(tmp_path / "store")
    found = {}
    for scale in (1.0, 3.0, 1.0):
        backbone = TorchBackbone(Net(), ["conv"], scaled(scale), (), RATE, patch_seconds=PATCH)
        result = extract(backbone, clips[:2], ["conv"], store=store)
        fresh = extract(backbone, clips[:2], ["conv"])
        same(result, fresh, 1e-6)
        assert result.computed == (0 if scale in found else 2)
        found[scale] = result
    assert not torch.equal(found[1.0].activations["conv"], found[3.0].activations["conv"])


def test_without_a_fingerprint_nothing_is_kept(clips, tmp_path):
    backbone = EmbeddingBackbone(lambda x: x[:, :3], RATE, PATCH)
    for _ in range(2):
        store = ActivationStore(tmp_path / "store")
        assert extract(backbone, clips, ["embedding"], store=store).computed == len(clips)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("kept", [False, True])
def test_files_of_the_same_content_are_heard_once(clips, tmp_path, kept):
    copy = tmp_path / "copy.wav"
    shutil.copy(clips[1].path, copy)
    backbone = Counting(net())
    store = ActivationStore(tmp_path / "store") if kept else None
    twice = [clips[1], clips[0], Clip(str(copy)), clips[1]]
    found = extract(backbone, twice, LAYERS, store=store)
    assert backbone.extracted == found.counts[:2].sum()
    same(found, extract(net(), twice, LAYERS), 1e-5)
    assert list(found.counts) == [4, 1, 4, 4]


def bad_files(folder):
    """Path -> status of every kind of bad audio."""
    write(folder / "nan.wav", 1.0)
    samples, _ = soundfile.read(folder / "nan.wav", dtype="float32")
    samples[100] = np.nan
    soundfile.write(folder / "nan.wav", samples, RATE, subtype="FLOAT")
    soundfile.write(folder / "silent.wav", np.zeros(RATE), RATE)
    soundfile.write(folder / "empty.wav", np.zeros(0), RATE)
    (folder / "nothing.wav").write_bytes(b"")
    (folder / "text.wav").write_text("this is no sound\n" * 100)
    soundfile.write(folder / "click.wav", np.ones(80) * 0.5, RATE)
    whole = Path(write(folder / "whole.wav", 3.0).path).read_bytes()
    (folder / "truncated.wav").write_bytes(whole[: len(whole) // 2])
    (folder / "whole.wav").unlink()
    return {
        "nan.wav": "nan",
        "silent.wav": "silent",
        "empty.wav": "empty",
        "nothing.wav": "empty",
        "text.wav": "unreadable",
        "click.wav": "too short",
        "truncated.wav": "truncated",
        "missing.wav": "unreadable",
    }


@pytest.mark.parametrize("kept", [False, True])
def test_bad_files_are_reported_and_spoil_nothing(clips, tmp_path, kept):
    folder = tmp_path / "bad"
    folder.mkdir()
    expected = bad_files(folder)
    mixed = list(clips)
    for i, name in enumerate(expected):
        mixed.insert(2 * i % (len(mixed) + 1), Clip(str(folder / name)))
    store = ActivationStore(tmp_path / "store") if kept else None
    found = extract(net(), mixed, LAYERS, targets=[0], store=store, batch_size=3)
    assert {Path(p.path).name: p.status for p in found.problems} == expected
    assert all(p.path in p.message and "\n" not in p.message for p in found.problems)
    good = [c for c in mixed if c in clips]
    assert [mixed[i] for i in found.kept] == list(found.clips) == good
    same(found, extract(net(), good, LAYERS, targets=[0]), 1e-5)
    if kept:
        assert extract(net(), mixed, LAYERS, targets=[0], store=store).computed == 0
    for name in expected:
        with pytest.raises(InputError, match=name):
            extract(net(), [clips[0], Clip(str(folder / name))], LAYERS, on_error="refuse")
        with pytest.raises(InputError, match="none of 1 could be used; the first: "):
            extract(net(), [Clip(str(folder / name))], LAYERS)


class Scripted:
    """A black box that reads what a script says: numbers are patches of that value, exceptions are raised."""

    name, layers, classes, device, patch_seconds = "scripted", ("x",), (), torch.device("cpu"), 1.0

    def __init__(self, script, pause=0.0):
        self.script = script
        self.pause = pause
        self.batches = []

    def fingerprint(self):
        return "scripted"

    def check_layers(self, layers):
        pass

    def read(self, clip):
        for block in self.script[Path(clip.path).name]:
            if isinstance(block, BaseException):
                raise block
            time.sleep(self.pause)
            values = torch.tensor(block, dtype=torch.float32)[:, None]
            yield Patches(values, np.arange(len(block)), np.arange(len(block)) + 1.0)

    def activations(self, inputs, layers, pool):
        self.batches.append(len(inputs))
        return dict.fromkeys(layers, inputs / (inputs - 13))


def scripted_clips(tmp_path, script):
    for name in script:
        (tmp_path / name).write_text(name)
    return [Clip(str(tmp_path / name)) for name in script]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 5, 100])
def test_a_clip_that_turns_bad_later_loses_all_its_rows(tmp_path, batch_size):
    script = {"a": [[1, 2], [3]], "b": [[4, 5, 6], InputError("b: broken")], "c": [[7]], "d": [[], []], "e": [[8, 9]]}
    clips = scripted_clips(tmp_path, script)
    backbone = Scripted(script)
    found = extract(backbone, clips, ["x"], batch_size=batch_size)
    assert [Path(c.path).name for c in found.clips] == ["a", "c", "e"]
    values = torch.tensor([1, 2, 3, 7, 8, 9.0])[:, None]
    torch.testing.assert_close(found.activations["x"], values / (values - 13))
    assert [(Path(p.path).name, p.status) for p in found.problems] == [("b", "refused"), ("d", "too short")]
    assert max(backbone.batches) <= batch_size


def test_values_that_are_not_finite_are_a_problem_of_the_clip(tmp_path):
    script = {"a": [[1, 2]], "b": [[12, 13, 14]], "c": [[3]]}
    store = ActivationStore(tmp_path / "store")
    found = extract(Scripted(script), scripted_clips(tmp_path, script), ["x"], batch_size=2, store=store)
    assert [(Path(p.path).name, p.status) for p in found.problems] == [("b", "not finite")]
    assert len(found.activations["x"]) == 3


def decoders():
    return [t for t in threading.enumerate() if t.name == "captum_concepts decoder"]


def test_an_error_of_the_decoder_is_raised_here(tmp_path):
    script = {"a": [[1]], "b": [[2], ZeroDivisionError("in the decoder")]}
    with pytest.raises(ZeroDivisionError, match="in the decoder"):
        extract(Scripted(script), scripted_clips(tmp_path, script), ["x"])
    assert not decoders()


def test_an_interrupted_run_keeps_what_it_had_and_leaves_no_thread(tmp_path):
    script = {f"{i:03}": [[i / 10]] * 3 for i in range(60)}
    clips = scripted_clips(tmp_path, script)
    store = ActivationStore(tmp_path / "store")

    def interrupt(stage, done, total):
        if done >= 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        extract(Scripted(script), clips, ["x"], store=store, batch_size=1, progress=interrupt)
    assert not decoders()
    del caught
    assert extract(Scripted(script), clips, ["x"], store=ActivationStore(tmp_path / "store")).computed == 40


def test_an_endless_clip_does_not_hold_up_an_interrupted_run(tmp_path):
    class Endless(Scripted):
        def read(self, clip):
            while True:
                time.sleep(0.001)
                yield Patches(torch.ones(1, 1), np.zeros(1), np.ones(1))

        def activations(self, inputs, layers, pool):
            raise RuntimeError("model")

    with pytest.raises(RuntimeError, match="model"):
        extract(Endless({}), scripted_clips(tmp_path, {"a": []}), ["x"], batch_size=2)
    assert not decoders()


def test_progress_counts_every_clip(tmp_path, clips):
    calls = []
    store = ActivationStore(tmp_path / "store")
    extract(net(), clips[:3], LAYERS, store=store)
    extract(net(), clips, LAYERS, store=store, progress=lambda *call: calls.append(call), stage="hearing")
    assert calls == [("hearing", done, 7) for done in range(3, 8)]


def test_options_are_checked(clips):
    for options, message in (
        ({"on_error": "ignore"}, "use skip or refuse"),
        ({"batch_size": 0}, "at least 1"),
        ({"pool": "max"}, "not a pooling"),
        ({"layers": ["fc"]}, "layers: "),
        ({"clips": []}, "none given"),
        ({"targets": [7]}, "out of range"),
    ):
        arguments = {"clips": clips, "layers": LAYERS} | options
        with pytest.raises(InputError, match=message):
            extract(net(), arguments.pop("clips"), arguments.pop("layers"), **arguments)


def test_damaged_shards_are_computed_again(clips, tmp_path):
    store = tmp_path / "store"
    first = extract(net(), clips, LAYERS, store=ActivationStore(store))
    (shard,) = store.glob("*/*.safetensors")
    data = bytearray(shard.read_bytes())
    data[-5] ^= 1
    shard.write_bytes(data)
    second = extract(net(), clips, LAYERS, store=ActivationStore(store))
    assert second.computed == len(clips)
    same(first, second, 1e-6)


def test_shards_are_disjoint_and_complete(clips):
    many = [Clip(c.path, start, end, g) for c in clips for start, end in ((0, None), (0, 0.1)) for g in "ab"]
    for total in (1, 2, 3, 5, 40):
        shuffled = [many[i] for i in np.random.default_rng(total).permutation(len(many))]
        shards = [shard_of(shuffled if i % 2 else many, i, total) for i in range(1, total + 1)]
        flat = [clip for shard in shards for clip in shard]
        assert len(flat) == len(many)
        assert set(flat) == set(many)
        assert max(map(len, shards)) - min(map(len, shards)) <= 1
    for number, total in ((0, 2), (3, 2), (1, 0)):
        with pytest.raises(InputError, match="shard="):
            shard_of(many, number, total)


WORKER = """
import sys, time, glob
sys.path[:0] = [{tests!r}, {helpers!r}]
from test_extraction import LAYERS, net
from captum_concepts.activations import extraction
from captum_concepts.activations import extract, shard_of
from captum_concepts.audio import Clip
from captum_concepts.storage import ActivationStore
folder, number, total, pause = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
extraction.COMMIT_CLIPS = 2
clips = shard_of([Clip(p) for p in glob.glob(folder + "/*.wav")], number, total)
def progress(stage, done, of):
    print(done, flush=True)
    time.sleep(pause)
store = ActivationStore(folder + "/store")
found = extract(net(), clips, LAYERS, targets=[0], store=store, batch_size=1, progress=progress)
print("computed", found.computed)
"""


def worker(folder, number=1, total=1, pause=0.0):
    code = textwrap.dedent(WORKER).format(tests=str(Path(__file__).parent), helpers=str(Path(__file__).parents[1]))
    return subprocess.Popen(
        [sys.executable, "-c", code, str(folder), str(number), str(total), str(pause)],
        env={**os.environ, "PYTHONPATH": ROOT},
        stdout=subprocess.PIPE,
        text=True,
    )


def computed_anew(folder):
    """How many clips a further process has to compute; a process of its own, as each of those before it."""
    output = worker(folder).communicate()[0]
    return int(output.split("computed ")[1])


def kept(folder):
    return sum(1 for _ in Path(folder, "store").glob("*/*.json"))


def test_a_killed_run_goes_on_where_it_was(clips, tmp_path):
    process = worker(tmp_path, pause=0.2)
    for line in process.stdout:
        if int(line) == 5:
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert kept(tmp_path) == 2  # two commits of two clips
    assert computed_anew(tmp_path) == len(clips) - 4
    found = extract(net(), clips, LAYERS, targets=[0], store=ActivationStore(tmp_path / "store"))
    same(found, extract(net(), clips, LAYERS, targets=[0]), 1e-5)


def test_two_processes_share_the_work(clips, tmp_path):
    processes = [worker(tmp_path, number, 2) for number in (1, 2)]
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    assert computed_anew(tmp_path) == 0
    found = extract(net(), clips, LAYERS, targets=[0], store=ActivationStore(tmp_path / "store"))
    same(found, extract(net(), clips, LAYERS, targets=[0]), 1e-5)


MEMORY = """
import resource, sys
from captum_concepts.activations import extract
from captum_concepts.audio import Clip
from captum_concepts.backbones import EmbeddingBackbone
backbone = EmbeddingBackbone(lambda x: x.mean(1, keepdims=True), 8000, 1.0, hop_seconds=0.25)
sizes = []
for path in sys.argv[1:]:
    rows = len(extract(backbone, [Clip(path)], ["embedding"]).activations["embedding"])
    sizes += [rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024]
print(*sizes)
"""


def test_a_long_file_does_not_fill_the_memory(tmp_path):
    minutes = 30
    noise = np.random.default_rng(0).normal(size=RATE * 60).astype(np.float32) * 0.1
    with soundfile.SoundFile(tmp_path / "long.wav", "w", RATE, 1, "PCM_16") as file:
        for _ in range(minutes):
            file.write(noise)
    soundfile.write(tmp_path / "short.wav", noise, RATE, subtype="PCM_16")  # what every run needs
    command = [sys.executable, "-c", MEMORY, str(tmp_path / "short.wav"), str(tmp_path / "long.wav")]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": ROOT}, capture_output=True, check=True, text=True)
    short, before, long, after = map(int, done.stdout.split())
    assert (short, long) == (1 + 59 * 4, 1 + (60 * minutes - 1) * 4)
    patches = 4 * RATE * long  # bytes: 230 MB
    assert after - before < patches / 2


def test_commits_happen_along_the_way(clips, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "COMMIT_CLIPS", 3)
    extract(net(), clips, LAYERS, store=ActivationStore(tmp_path / "store"))
    assert kept(tmp_path) == 3


@pytest.mark.gpu
def test_gpu_gives_what_the_cpu_gives(clips):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    found = extract(net(device="cuda"), clips, LAYERS, targets=[0, 1])
    assert found.logits.device.type == "cpu"
    same(found, extract(net(), clips, LAYERS, targets=[0, 1]), 1e-4)


def test_a_mislabelled_copy_is_refused_whatever_the_store_holds(clips, tmp_path):
    good = Path(clips[0].path)
    wrong = tmp_path / f"{good.stem}.mp3"
    wrong.write_bytes(good.read_bytes())
    store = ActivationStore(tmp_path / "store")
    both = [clips[0], Clip(str(wrong))]
    first = extract(net(), both, LAYERS, store=store)
    again = extract(net(), both, LAYERS, store=store)
    assert [problem.status for problem in first.problems] == ["mislabelled"]
    assert first.problems == again.problems


def test_what_was_heard_is_kept_after_some_seconds_too(clips, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "COMMIT_SECONDS", 0.0)
    extract(net(), clips[:3], LAYERS, store=ActivationStore(tmp_path / "store"))
    assert len(list((tmp_path / "store").rglob("*.safetensors"))) == 3
