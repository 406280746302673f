"""The contract of interventions, checked."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from captum_concepts.errors import InputError
from captum_concepts.interventions.comparison import log_mel_difference
from captum_concepts.interventions.intervention import Intervention
from captum_concepts.seeding import generator

SECONDS = 2.0
SHAM_SHARE = 0.5  # of the effect: a sham at most this far from the sound, both in log-mel dB
SHAM_FLOOR = 0.1  # dB; a sham this near the sound is near enough for any effect
TOLERANCE = 1e-4  # of the largest sample, between a row alone and the row in a batch


def check_intervention(intervention: Intervention, sample_rate: int = 16000, *, sham_share: float = SHAM_SHARE) -> None:
    """Check that an intervention keeps its contract, on generated sounds.

    Checked are: what it says of itself; shape, type and finite values for several lengths, silence and an empty batch;
    the same result for the same seed; a row's result does not depend on the other rows or their order; the input is
    left as it was; the sound changes, and less so by the sham; the opposite is another intervention whose opposite is
    this one; impossible strengths raise `InputError` in one line.

    Args:
        intervention: with the strength to check.
        sample_rate: in Hz.
        sham_share: how far the sham may be from the sound, as a share of the intervention's own effect; both are root
            mean square differences of mel spectrograms in dB.

    Raises:
        AssertionError: the first promise that is not kept, in one line.

    Example:
        >>> from captum_concepts.interventions import Stretch
        >>> check_intervention(Stretch(1.25))
    """
    _check_description(intervention)
    sounds = _sounds(sample_rate)
    _check_output(intervention, sounds, sample_rate)
    _check_rows(intervention, sounds, sample_rate)
    _check_sham(intervention, sounds, sample_rate, sham_share)
    _check_opposite(intervention, sounds, sample_rate)
    _check_strengths(intervention)


def _require(kept: bool, intervention: Intervention, promise: str) -> None:
    if not kept:
        raise AssertionError(f"{intervention.label}: {promise}")


def _sounds(sample_rate: int) -> Tensor:
    """Four sounds (4, samples): a chord with vibrato, clicks, noise, and chord and clicks together."""
    times = torch.arange(int(SECONDS * sample_rate)) / sample_rate
    chord = torch.zeros_like(times)
    for pitch in (220.0, 277.2, 329.6):
        for partial in range(1, 6):
            phase = 2 * math.pi * pitch * partial * (times + 0.0005 * torch.sin(2 * math.pi * 5 * times))
            chord += torch.sin(phase) / partial
    chord = 0.1 * chord * torch.exp(-2 * (times % 0.7))
    noise = 0.1 * torch.randn(len(times), generator=generator(0, "noise"))
    clicks = noise * torch.exp(-60 * (times % 0.25)) * 5
    return torch.stack([chord, clicks, noise, chord + clicks])


def _check_description(intervention: Intervention) -> None:
    for attribute in ("name", "unit", "keeps", "changes"):
        value = getattr(intervention, attribute, None)
        if not isinstance(value, str) or not value.strip():
            raise AssertionError(f"{type(intervention).__name__}: `{attribute}` must be text, not {value!r}")
    if not isinstance(intervention, Intervention):
        raise AssertionError(f"{type(intervention).__name__}: must be a subclass of Intervention")


def _check_output(intervention: Intervention, sounds: Tensor, sample_rate: int) -> None:
    silence = torch.zeros_like(sounds[:1])
    inputs = {
        "sounds": sounds,
        "double precision": sounds.double(),
        "one row": sounds[:1],
        "no row": sounds[:0],
        "silence": silence,
        "1 sample": sounds[:, 100:101],
        "100 samples": sounds[:, 100:200],
        "odd length": sounds[:, : len(sounds[0]) // 2 | 1],
    }
    for one in (intervention, intervention.sham()):
        for name, waveforms in inputs.items():
            before = waveforms.clone()
            result = one.apply(waveforms, sample_rate, 0)
            _require(isinstance(result, Tensor), one, f"{name}: must return a tensor, not {type(result).__name__}")
            _require(
                result.shape == waveforms.shape,
                one,
                f"{name}: must keep the shape {tuple(waveforms.shape)}, but returned {tuple(result.shape)}",
            )
            _require(result.dtype == torch.float32, one, f"{name}: must return float32, not {result.dtype}")
            _require(result.device == waveforms.device, one, f"{name}: must stay on the device {waveforms.device}")
            _require(bool(torch.isfinite(result).all()), one, f"{name}: returned values that are not finite")
            _require(torch.equal(before, waveforms), one, f"{name}: must not change its input")


def _check_rows(intervention: Intervention, sounds: Tensor, sample_rate: int) -> None:
    for one in (intervention, intervention.sham()):
        together = one.apply(sounds, sample_rate, 3)
        _require(
            torch.equal(together, one.apply(sounds.clone(), sample_rate, 3)), one, "the same seed must give the same"
        )
        order = torch.tensor([2, 0, 3, 1])
        reordered = one.apply(sounds[order], sample_rate, 3)
        alone = torch.cat([one.apply(row[None], sample_rate, 3) for row in sounds])
        twice = one.apply(sounds[[0, 0]], sample_rate, 3)
        allowed = TOLERANCE * float(together.abs().max())
        for name, difference in {
            "the order of rows must not matter": reordered - together[order],
            "a row alone must give what it gives in a batch": alone - together,
            "equal rows must give equal results": twice[0] - twice[1],
        }.items():
            _require(float(difference.abs().max()) <= allowed, one, name)


def _check_sham(intervention: Intervention, sounds: Tensor, sample_rate: int, share: float) -> None:
    sham = intervention.sham()
    _require(type(sham) is type(intervention), sham, "the sham must be an intervention of the same type")
    _require(sham.is_sham and not intervention.is_sham, sham, "`is_sham` must be true for the sham and only for it")
    effect = float(log_mel_difference(sounds, intervention.apply(sounds, sample_rate, 0), sample_rate).mean())
    left = float(log_mel_difference(sounds, sham.apply(sounds, sample_rate, 0), sample_rate).mean())
    _require(effect > 0, intervention, "changed nothing")
    _require(
        left <= max(share * effect, SHAM_FLOOR),
        sham,
        f"the sham changes the sound by {left:.2f} dB, the intervention by {effect:.2f} dB; at most {share:g} of that "
        "is allowed",
    )


def _check_opposite(intervention: Intervention, sounds: Tensor, sample_rate: int) -> None:
    opposite = intervention.opposite()
    if opposite is None:
        return
    _require(isinstance(opposite, Intervention), intervention, "the opposite must be an Intervention or None")
    back = opposite.opposite()
    _require(
        back is not None and math.isclose(back.strength, intervention.strength, rel_tol=1e-9),
        intervention,
        "the opposite of the opposite must be the intervention",
    )
    same = torch.equal(intervention.apply(sounds, sample_rate, 0), opposite.apply(sounds, sample_rate, 0))
    _require(not same, intervention, "the opposite must do something else")


def _check_strengths(intervention: Intervention) -> None:
    for wrong in (math.nan, math.inf, "much", None, True, math.nextafter(intervention.high, math.inf)):
        try:
            dataclasses.replace(intervention, strength=wrong)  # type: ignore[arg-type]
        except InputError as error:
            _require("\n" not in str(error), intervention, f"strength={wrong!r} must be refused in one line")
            _require("strength=" in str(error), intervention, f"the message for strength={wrong!r} must name it")
        else:
            _require(False, intervention, f"strength={wrong!r} must raise InputError")
