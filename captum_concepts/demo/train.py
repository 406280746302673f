"""Train the demo's classifier: `python -m captum_concepts.demo.train [--out FILE] [--epochs N] [--seed N]`.

The weights that ship were made by this command without options. Equal seeds give equal pieces; the weights themselves
agree between machines only as far as their arithmetic does.
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from captum_concepts.audio.frontends import frontend
from captum_concepts.demo.model import FRONTEND, WEIGHTS, DemoCNN
from captum_concepts.demo.music import GENERATOR_VERSION, GENRES, MusicGenerator
from captum_concepts.types import Progress

HELD_OUT_SEED_OFFSET = 1_000_000
BATCH = 32
PEAK_LEARNING_RATE = 4e-3
logger = logging.getLogger(__name__)


class GenreSet(NamedTuple):
    """Log-mel of whole pieces, float16 (N, frames, mel), and the number of the genre of each, (N,)."""

    logmel: Tensor
    labels: Tensor


def genre_set(generator: MusicGenerator, per_genre: int, progress: Progress | None = None) -> GenreSet:
    """Render `per_genre` pieces of each genre, taking turns, and extract their front-end features."""
    genres = tuple(generator.genres) * per_genre
    samples = round(generator.duration * generator.sample_rate)
    preset = frontend(FRONTEND)
    left, right = preset.pad
    ear = frontend(FRONTEND, patch_samples=left + samples + right)
    rows = []
    for index, genre in enumerate(genres):
        waveform = torch.from_numpy(generator.clip(index, genre=genre).waveform)
        with torch.no_grad():
            rows.append(ear(nn.functional.pad(waveform, (left, right))[None]).half())
        if progress is not None:
            progress("render", index + 1, len(genres))
    return GenreSet(torch.cat(rows), torch.arange(len(genres)) % len(generator.genres))


def train(data: GenreSet, *, epochs: int, seed: int, progress: Progress | None = None) -> DemoCNN:
    """Fit a new network to random patches of the pieces (one per piece and epoch), with a one-cycle learning rate."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = DemoCNN(int(data.labels.max()) + 1)
    frames = frontend(FRONTEND).patch_frames
    steps = epochs * -(-len(data.labels) // BATCH)
    optimiser = torch.optim.AdamW(model.parameters(), weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, PEAK_LEARNING_RATE, total_steps=steps)
    for epoch in range(epochs):
        order = torch.from_numpy(rng.permutation(len(data.labels)))
        total = 0.0
        for rows in order.split(BATCH):
            starts = rng.integers(0, data.logmel.shape[1] - frames + 1, len(rows))
            patches = torch.stack([data.logmel[row, s : s + frames] for row, s in zip(rows, starts, strict=True)])
            loss = nn.functional.cross_entropy(model(patches.float()), data.labels[rows], label_smoothing=0.05)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item() * len(rows)
        logger.info("epoch %d: loss %.3f", epoch + 1, total / len(order))
        if progress is not None:
            progress("train", epoch + 1, epochs)
    return model.eval()


def accuracy(model: DemoCNN, data: GenreSet) -> float:
    """Share of pieces whose genre has the highest mean logit over the piece's patches, taken without overlap."""
    frames = frontend(FRONTEND).patch_frames
    count = data.logmel.shape[1] // frames
    with torch.no_grad():
        logits = sum(model(data.logmel[:, i * frames : (i + 1) * frames].float()) for i in range(count))
    return float((torch.as_tensor(logits).argmax(1) == data.labels).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--per-genre", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    data = genre_set(MusicGenerator(options.seed), options.per_genre)
    held_out = genre_set(MusicGenerator(options.seed + HELD_OUT_SEED_OFFSET), 50)
    logger.info("rendered %d pieces to train on and %d to test", len(data.labels), len(held_out.labels))
    model = train(data, epochs=options.epochs, seed=options.seed)
    measured = accuracy(model, held_out)
    logger.info("held-out accuracy %.3f", measured)
    metadata = {
        "classes": json.dumps(list(GENRES)),
        "held_out_accuracy": f"{measured:.4f}",
        "held_out_pieces": str(len(held_out.labels)),
        "seed": str(options.seed),
        "epochs": str(options.epochs),
        "pieces": str(len(data.labels)),
        "generator_version": GENERATOR_VERSION,
    }
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(weights, options.out, metadata=metadata)


if __name__ == "__main__":
    main()
