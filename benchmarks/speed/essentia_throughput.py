"""Tracks per second of the imported MusiCNN beside Essentia's own, and peak memory for a long file.

    python benchmarks/speed/essentia_throughput.py --threads 2
    python benchmarks/speed/essentia_throughput.py --device cuda
    python benchmarks/speed/essentia_throughput.py --minutes 60        # the memory of one hour

    taskset -c 0 python benchmarks/speed/essentia_throughput.py --threads 1

Both hear the same samples at 16 kHz, with patches 93 frames apart, and give the same tags and embeddings: Essentia by
TensorflowPredictMusiCNN, the import by the backbone's front-end and graph. The two take turns, so that a busy machine
slows both; figures are the least and the median over the tracks. On a machine that others use, compare processor
time on one core, as in the last line above: waiting for others does not count in it. Nothing is kept between tracks.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
import torch

import captum_concepts as cc
from captum_concepts.audio._torchaudio import load

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
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    busy: dict[str, list[float]] = {name: [] for name in runs}
    difference = 0.0
    for wave in [waves[0], *waves]:  # the first once more, to warm up
        tags = {}
        for name, run in runs.items():
            start, used = time.perf_counter(), time.process_time()
            tags[name] = run(wave)
            seconds[name].append(time.perf_counter() - start)
            busy[name].append(time.process_time() - used)
        rows = min(map(len, tags.values()))
        difference = max(difference, float(np.abs(tags["Essentia"][:rows] - tags["captum_concepts"][:rows]).max()))
    for name, times in seconds.items():
        per = times[1:]
        print(
            f"  {name:<16} least {min(per):.3f} s   median {statistics.median(per):.3f} s per track   "
            f"{1 / statistics.median(per):.2f} tracks/s   processor median {statistics.median(busy[name][1:]):.3f} s"
        )
    for what, times in (("time", seconds), ("processor time", busy)):
        ratios = [a / b for a, b in zip(times["Essentia"][1:], times["captum_concepts"][1:], strict=True)]
        print(f"  {what} of Essentia / captum_concepts = {statistics.median(ratios):.2f} (median)")
    print(f"  largest difference of a tag {difference:.1e}")


def long_file(backbone: cc.TorchBackbone, minutes: int, batch: int) -> None:
    """Peak memory while all of one file is heard, and before."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "long.wav")
        random = np.random.default_rng(0)
        with soundfile.SoundFile(path, "w", 22050, 1) as file:
            for _ in range(minutes):
                file.write(0.1 * random.normal(size=22050 * 60).astype(np.float32))
        backbone.activations(next(iter(backbone.read(cc.Clip(path)))).inputs[:batch], [EMBEDDING])
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        start, count = time.perf_counter(), 0
        for block in backbone.read(cc.Clip(path)):
            for part in block.inputs.split(batch):
                count += len(backbone.activations(part, [EMBEDDING])[EMBEDDING])
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        took = time.perf_counter() - start
    print(
        f"  {minutes} min, {count} patches: {took:.0f} s, peak {after:.0f} MB, {after - before:.0f} MB over one batch"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = Path(__file__).resolve().parents[2] / "shared" / "data"
    parser.add_argument("--weights", default=str(data / "models" / "essentia" / "msd-musicnn-1.pb"))
    parser.add_argument("--gtzan", type=Path, default=data / "gtzan_mini" / "genres")
    parser.add_argument("--tracks", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--minutes", type=int, help="measure memory with a file this long instead")
    args = parser.parse_args()
    if not Path(args.weights).is_file() or not (args.minutes or args.gtzan.is_dir()):
        print(f"{args.weights} or {args.gtzan} is not at hand: give --weights and --gtzan")
        return
    torch.set_num_threads(args.threads)
    backbone = cc.load_backbone("essentia-musicnn", args.weights, args.device)
    print(f"MusiCNN, {args.device}, {args.threads} threads, batches of {args.batch_size}")
    if args.minutes:
        long_file(backbone, args.minutes, args.batch_size)
    else:
        side_by_side(backbone, args.weights, waveforms(args.gtzan, args.tracks), args.batch_size)


if __name__ == "__main__":
    main()
