"""Explain a black box: embeddings from anywhere, and a scikit-learn classifier on top.

    python examples/black_box.py training/ instruments/ music/ out/

``training/`` has one folder of audio per class. The embedding below (mean and spread of 40 mel bands) stands for any
function from waveforms to vectors: a remote service, an ONNX session, an Essentia algorithm. Where the head has no
gradients, sensitivities come from central differences.
"""

from __future__ import annotations

import itertools
import sys

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import captum_concepts as cc

SAMPLE_RATE, PATCH_SECONDS = 16_000, 3.0


def embed(waveforms: np.ndarray) -> np.ndarray:
    """(B, samples) -> (B, 80)."""
    frames = np.lib.stride_tricks.sliding_window_view(waveforms, 512, axis=1)[:, ::256] * np.hanning(512)
    power = np.abs(np.fft.rfft(frames)) ** 2
    edges = np.geomspace(4, power.shape[2] - 1, 41).astype(int)
    bands = np.stack([power[:, :, a : b + 1].mean(2) for a, b in itertools.pairwise(edges)], 2)
    levels = np.log10(1 + 1e4 * bands)
    return np.concatenate([levels.mean(1), levels.std(1)], 1).astype(np.float32)


def main(training: str, instruments: str, music: str, out: str) -> cc.Explanation:
    classes = cc.ConceptSet.from_folders(training)
    extracted = cc.EmbeddingBackbone(embed, SAMPLE_RATE, PATCH_SECONDS)
    patches = [torch.cat([block.inputs for block in extracted.read(clip)]) for clip in classes.clips]
    rows = np.concatenate([embed(part.numpy()) for part in patches])
    labels = np.repeat(classes.labels.argmax(1), [len(part) for part in patches])
    head = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(rows, labels)

    backbone = cc.EmbeddingBackbone(
        embed,
        SAMPLE_RATE,
        PATCH_SECONDS,
        head.predict_proba,
        classes.names,
        head_output="probabilities",
        version="mel statistics 1",
    )
    explanation = cc.ConceptHierarchyExplainer(backbone, seed=0).explain(music, cc.ConceptSet.from_folders(instruments))
    explanation.save(out)
    print(explanation.top(n=3).to_string())
    return explanation


if __name__ == "__main__":
    main(*sys.argv[1:])
