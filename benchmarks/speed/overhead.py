"""Time of a whole explanation, compared with the bare model on the same patches in one run.

    python benchmarks/speed/overhead.py                     # the main job, on ../shared/data
    python benchmarks/speed/overhead.py --repeat 3

The job: 15 orchestral instruments and percussion (960 clips) as concepts, 100 tracks of ten genres explained for four
tags of the MSD VGG at two layers. The floor is what any TCAV must do: front-end and model forward over the concept
patches, forward and one backward per target over the explained patches, on waveforms already decoded. Both are timed
from a warm interpreter, with nothing cached and the page written; each figure is the median over the repeats, and
floor and whole alternate. The warm run is the same explanation again with its activations kept.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

import captum_concepts as cc
from captum_concepts.audio.files import as_clips

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import DATA, missing, options, parse, peak_memory

TARGETS = ["jazz", "rock", "metal", "Hip-Hop"]
LAYERS = ["pool4", "pool5"]
BATCH = 32


def decoded(backbone: cc.TorchBackbone, clips: list[cc.Clip]) -> torch.Tensor:
    """All patches of all clips: (patches, samples)."""
    return torch.cat([block.inputs for clip in clips for block in backbone.read(clip)])


def floor(backbone: cc.TorchBackbone, concepts: torch.Tensor, explained: torch.Tensor) -> tuple[float, float]:
    """Seconds of the bare passes: (with the front-end, the model alone)."""
    targets = [backbone.classes.index(name) for name in TARGETS]
    model, frontend = backbone.model, backbone.frontend
    front = net = 0.0
    for patches, wanted in ((concepts, []), (explained, targets)):
        for batch in patches.split(BATCH):
            start = time.perf_counter()
            with torch.no_grad():
                inputs = frontend(batch)
            front += time.perf_counter() - start
            start = time.perf_counter()
            bare_pass(model, inputs, wanted)
            net += time.perf_counter() - start
    return front + net, net


def bare_pass(model: torch.nn.Module, inputs: torch.Tensor, targets: list[int]) -> None:
    """One forward and, for each target, one backward to the earliest layer, with nothing else around it."""
    if not targets:
        with torch.no_grad():
            model(inputs)
        return
    kept: dict[str, torch.Tensor] = {}

    def keep(name: str):
        def hook(_module: torch.nn.Module, _inputs: object, output: torch.Tensor) -> torch.Tensor:
            kept[name] = output if output.requires_grad else output.detach().requires_grad_(True)
            return kept[name]

        return hook

    handles = [model.get_submodule(name).register_forward_hook(keep(name)) for name in LAYERS]
    logits = model(inputs)
    for handle in handles:
        handle.remove()
    for target in targets:
        torch.autograd.grad(logits[:, target].sum(), [kept[name] for name in LAYERS], retain_graph=True)


def whole(backbone: cc.TorchBackbone, data: Path, store: Path, out: Path) -> float:
    """Seconds of the whole job, from file names to the page."""
    start = time.perf_counter()
    concepts = cc.ConceptSet.from_table(data / "philharmonia" / "clips.csv", column="instrument")
    explainer = cc.ConceptHierarchyExplainer(backbone, LAYERS, store=store, batch_size=BATCH)
    explanation = explainer.explain(data / "gtzan_mini" / "genres", concepts, TARGETS)
    explanation.save(out)
    explanation.to_html(out / "report.html")
    return time.perf_counter() - start


def main() -> None:
    parser = options(__doc__, quick="one repeat", data=DATA)
    parser.add_argument("--repeat", type=int, default=3)
    given = parse(parser, {"repeat": 1})
    weights = given.data / "models" / "deezer" / "MSD_vgg.h5"
    table = given.data / "philharmonia" / "clips.csv"
    if missing(weights, table):
        return
    backbone = cc.load_backbone("msd-vgg", weights=str(weights), device="cpu")
    # A floor that nobody would beat by hand: no gradients of weights, evaluation mode.
    backbone.model.eval().requires_grad_(False)
    concepts = cc.ConceptSet.from_table(table, column="instrument")
    one = decoded(backbone, list(concepts.clips))
    two = decoded(backbone, as_clips(given.data / "gtzan_mini" / "genres"))
    print(
        f"{len(one)} concept patches, {len(two)} explained patches, {len(TARGETS)} targets, layers {', '.join(LAYERS)}"
    )
    floor(backbone, one[:BATCH], two[:BATCH])
    floors, models, cold, warm = [], [], [], []
    for _ in range(given.repeat):
        with tempfile.TemporaryDirectory() as folder:
            cold.append(whole(backbone, given.data, Path(folder) / "store", Path(folder) / "out"))
            warm.append(whole(backbone, given.data, Path(folder) / "store", Path(folder) / "out"))
        bare, net = floor(backbone, one, two)
        floors.append(bare)
        models.append(net)
    bare, net = statistics.median(floors), statistics.median(models)
    print(f"floor (front-end + model)  {bare:7.2f} s   (model alone {net:.2f} s)")
    for name, seconds in (("whole explanation, cold", cold), ("whole explanation, warm", warm)):
        middle = statistics.median(seconds)
        print(f"{name}    {middle:7.2f} s   {middle / bare:5.2f} x the floor, {middle / net:5.2f} x the model alone")
    print(f"peak memory {peak_memory():.2f} GB")


if __name__ == "__main__":
    main()
