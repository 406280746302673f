"""Tracks per second of the imported MusiCNN, compared with Essentia's own, and peak memory for a long file.

    python benchmarks/speed/essentia_throughput.py --threads 2
    python benchmarks/speed/essentia_throughput.py --device cuda
    python benchmarks/speed/essentia_throughput.py --minutes 60        # the memory of one hour

    taskset -c 0 python benchmarks/speed/essentia_throughput.py --threads 1

Both get the same samples at 16 kHz, with patches 93 frames apart, and give the same tags and embeddings: Essentia by
TensorflowPredictMusiCNN, the import by the backbone's front-end and graph. The two take turns, so that a busy machine
slows both; figures are the least and the median over the tracks. On a machine that others use, compare processor
time on one core, as in the last line above: waiting for others does not count in it. Nothing is kept between tracks.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import soundfile
import torch

import captum_concepts as cc
from captum_concepts.audio._torchaudio import load

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import DATA, Times, median_ratio, missing, options, parse, peak_memory, time_in_turn

EMBEDDING = "model/dense/BiasAdd"


def waveforms(folder: Path, count: int) -> list[torch.Tensor]:
    """Tracks at 16 kHz, one genre after the other."""
    files = [file for genre in sorted(folder.iterdir()) for file in sorted(genre.iterdir())]
    found = []
    for file in files[:: max(1, len(files) // count)][:count]:
        samples, rate = soundfile.read(file, dtype="float32")
        found.append(load()[0].resample(torch.from_numpy(samples), rate, 16000))
    return found


def by_torch(backbone: cc.TorchBackbone, wave: torch.Tensor, batch: int) -> np.ndarray:
    """Tags of every patch, and on the way the embedding, which costs nothing more."""
    padded = torch.nn.functional.pad(wave, backbone.pad)
    patches = padded.unfold(0, backbone.patch_samples, backbone.hop_samples)
    with torch.inference_mode():
        parts = [backbone.model(backbone.frontend(part.to(backbone.device))) for part in patches.split(batch)]
    return torch.cat(parts).cpu().numpy()


def side_by_side(backbone: cc.TorchBackbone, weights: str, waves: list[torch.Tensor], batch: int) -> None:
    from captum_concepts_essentia.runtime.session import load_essentia

    essentia = load_essentia().TensorflowPredictMusiCNN(graphFilename=weights, output="model/Sigmoid")
    runs = {
        "Essentia": lambda wave: np.asarray(essentia(wave.numpy())),
        "captum_concepts": lambda wave: by_torch(backbone, wave, batch),
    }
    times = {name: Times() for name in runs}
    difference = 0.0
    for number, wave in enumerate(waves):
        tracks = {name: partial(run, wave) for name, run in runs.items()}
        for name, one in time_in_turn(tracks, 1, warm_up=1 if number == 0 else 0).items():
            times[name].extend(one)
        tags = [found.result for found in times.values()]
        rows = min(map(len, tags))
        difference = max(difference, float(np.abs(tags[0][:rows] - tags[1][:rows]).max()))
    for name, found in times.items():
        print(
            f"  {name:<16} least {found.least:.3f} s   median {found.median:.3f} s per track   "
            f"{1 / found.median:.2f} tracks/s   processor median {statistics.median(found.processor):.3f} s"
        )
    essentia_times, own = times.values()
    for what, ratio in (
        ("time", median_ratio(essentia_times.wall, own.wall)),
        ("processor time", median_ratio(essentia_times.processor, own.processor)),
    ):
        print(f"  {what} of Essentia / captum_concepts = {ratio:.2f} (median)")
    print(f"  largest difference of a tag {difference:.1e}")


def long_file(backbone: cc.TorchBackbone, minutes: int, batch: int, seed: int) -> None:
    """Peak memory while all of one file is extracted, and before."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "long.wav")
        random = np.random.default_rng(seed)
        with soundfile.SoundFile(path, "w", 22050, 1) as file:
            for _ in range(minutes):
                file.write(0.1 * random.normal(size=22050 * 60).astype(np.float32))
        backbone.activations(next(iter(backbone.read(cc.Clip(path)))).inputs[:batch], [EMBEDDING])
        before = peak_memory() * 1024
        start, count = time.perf_counter(), 0
        for block in backbone.read(cc.Clip(path)):
            for part in block.inputs.split(batch):
                count += len(backbone.activations(part, [EMBEDDING])[EMBEDDING])
        after = peak_memory() * 1024
        took = time.perf_counter() - start
    print(
        f"  {minutes} min, {count} patches: {took:.0f} s, peak {after:.0f} MB, {after - before:.0f} MB over one batch"
    )


def main() -> None:
    parser = options(__doc__, quick="two tracks", data=DATA, seed=0)
    parser.add_argument("--weights", help="default: DATA/models/essentia/msd-musicnn-1.pb")
    parser.add_argument("--gtzan", type=Path, help="default: DATA/gtzan_mini/genres")
    parser.add_argument("--tracks", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--minutes", type=int, help="measure memory with a file this long instead")
    args = parse(parser, {"tracks": 2})
    weights = Path(args.weights or args.data / "models" / "essentia" / "msd-musicnn-1.pb")
    gtzan = args.gtzan or args.data / "gtzan_mini" / "genres"
    if missing(weights, *(() if args.minutes else (gtzan,))):
        return
    torch.set_num_threads(args.threads)
    backbone = cc.load_backbone("essentia-musicnn", str(weights), args.device)
    print(f"MusiCNN, {args.device}, {args.threads} threads, batches of {args.batch_size}")
    if args.minutes:
        long_file(backbone, args.minutes, args.batch_size, args.seed)
    else:
        side_by_side(backbone, str(weights), waveforms(gtzan, args.tracks), args.batch_size)


if __name__ == "__main__":
    main()
