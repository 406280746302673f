"""Levels of waveforms, and random draws that depend on a row's samples."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from captum_concepts.seeding import generator


def rms(waveforms: Tensor) -> Tensor:
    """Root mean square of each row: (B, samples) -> (B, 1)."""
    return waveforms.square().mean(-1, keepdim=True).sqrt()


def gain(decibels: float) -> float:
    """The factor on amplitudes that a level in dB stands for.

    Example:
        >>> gain(-20.0)
        0.1
    """
    return float(10.0 ** (decibels / 20.0))


def at_level_of(waveforms: Tensor, reference: Tensor) -> Tensor:
    """Waveforms brought to the RMS of the rows of a reference; silent rows stay silent.

    Args:
        waveforms: (B, samples).
        reference: (B, samples of any number).
    """
    own = rms(waveforms)
    return torch.where(own > 0, waveforms / own.clamp_min(torch.finfo(own.dtype).tiny) * rms(reference), waveforms)


def row_key(row: Tensor) -> str:
    """Digest of a row's samples as float32: the same for the same sound, wherever the row is in a batch."""
    return hashlib.sha256(row.detach().float().cpu().contiguous().numpy().tobytes()).hexdigest()


def normal_rows(waveforms: Tensor, seed: int, purpose: str) -> Tensor:
    """Standard normal numbers of the shape of the waveforms, drawn from the seed and each row's samples."""
    rows = [
        torch.randn(waveforms.shape[1], generator=generator(seed, purpose, row_key(row))) for row in waveforms.cpu()
    ]
    return torch.stack(rows).to(waveforms.device)


def uniform_rows(waveforms: Tensor, seed: int, purpose: str) -> Tensor:
    """One number in [0, 1) for each row, (B,), drawn from the seed and the row's samples."""
    rows = [torch.rand(1, generator=generator(seed, purpose, row_key(row))) for row in waveforms.cpu()]
    return torch.cat(rows).to(waveforms.device)
