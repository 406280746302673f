"""The check of interventions finds each broken promise."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from captum_concepts.interventions import Level, Stretch
from captum_concepts.testing import check_intervention


@dataclass(frozen=True)
class Good(Level):
    pass


class ChangesShape(Good):
    def _change(self, waveforms, sample_rate, seed):
        return waveforms[:, :-1]


class NotFinite(Good):
    def _change(self, waveforms, sample_rate, seed):
        return waveforms / waveforms.abs().amax(1, keepdim=True)


class InPlace(Good):
    def _change(self, waveforms, sample_rate, seed):
        return waveforms.mul_(1.0 if self.is_sham else 2.0)


class Random(Good):
    def _change(self, waveforms, sample_rate, seed):
        return waveforms + torch.randn_like(waveforms)


class ByPlace(Good):
    def _change(self, waveforms, sample_rate, seed):
        return waveforms * torch.arange(1.0, len(waveforms) + 1)[:, None]


class ByCompany(Good):
    def _change(self, waveforms, sample_rate, seed):
        return waveforms - waveforms.mean(0) * (0 if self.is_sham else 1)


class LoudSham(Good):
    def _change(self, waveforms, sample_rate, seed):
        return waveforms * 2


class NoChange(Good):
    def _change(self, waveforms, sample_rate, seed):
        return waveforms.clone()


class OneWay(Good):
    def opposite(self):
        return Stretch(1.25)


class TakesAll(Good):
    def __post_init__(self):
        pass


class Nameless(Good):
    keeps = ""


def test_a_good_one_passes():
    check_intervention(Good(6))


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (ChangesShape, r"must keep the shape \(4, 32000\), but returned \(4, 31999\)"),
        (NotFinite, "silence: returned values that are not finite"),
        (InPlace, "sounds: must not change its input"),
        (Random, "the same seed must give the same"),
        (ByPlace, "the order of rows must not matter"),
        (ByCompany, "a row alone must give what it gives in a batch"),
        (LoudSham, r"the sham changes the sound by 5.34 dB, the intervention by 5.34 dB; at most 0.5"),
        (NoChange, "changed nothing"),
        (OneWay, "the opposite of the opposite must be the intervention"),
        (TakesAll, "strength=nan must raise InputError"),
        (Nameless, "`keeps` must be text"),
    ],
)
def test_a_broken_one_is_named(broken, message):
    with pytest.raises(AssertionError, match=message) as caught:
        check_intervention(broken(6))
    assert "\n" not in str(caught.value)
