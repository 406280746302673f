"""Every intervention keeps the contract, and refuses what it cannot do in one line."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from helpers.sounds import RATE, noise

from captum_concepts.errors import InputError
from captum_concepts.interventions import INTERVENTIONS, AddSound, Bandwidth, Level, Noise, Reversal, Stretch, row_key
from captum_concepts.interventions.builtin import INTERVENTIONS as TABLE
from captum_concepts.testing import check_intervention


def make(name: str):
    options = {"donors": [noise(seconds=1, seed=5)[0], noise(seconds=3, seed=6)[0]]} if name == "add_sound" else {}
    return INTERVENTIONS[name](INTERVENTIONS[name].usual, **options)


@pytest.mark.parametrize("name", INTERVENTIONS)
def test_the_contract_is_kept(name):
    intervention = make(name)
    assert intervention.name == name
    check_intervention(intervention)
    if intervention.opposite() is not None:
        check_intervention(intervention.opposite())


def test_there_is_a_line_for_every_intervention():
    assert TABLE is INTERVENTIONS
    assert {name: made.name for name, made in INTERVENTIONS.items()} == {name: name for name in INTERVENTIONS}
    assert all(made.__doc__ and "Example:" in made.__doc__ for made in INTERVENTIONS.values())


@pytest.mark.parametrize("name", ["stretch", "shift", "brightness", "level"])
def test_these_have_an_opposite(name):
    assert make(name).opposite().opposite().strength == pytest.approx(make(name).strength)


@pytest.mark.parametrize("name", sorted(set(INTERVENTIONS) - {"stretch", "shift", "brightness", "level"}))
def test_the_others_have_none(name):
    assert make(name).opposite() is None


@pytest.mark.parametrize(
    ("strength", "message"),
    [
        (3, "strength=3: out of the range of stretch; give 0.7 to 1.43 × tempo, e.g. 1.25"),
        (1.0, "strength=1.0: stretch would change nothing; give 0.7 to 1.43 × tempo, e.g. 1.25"),
        (math.nan, "strength=nan: stretch takes a finite number; give 0.7 to 1.43 × tempo, e.g. 1.25"),
        ("fast", "strength='fast': stretch takes a finite number; give 0.7 to 1.43 × tempo, e.g. 1.25"),
        (True, "strength=True: stretch takes a finite number; give 0.7 to 1.43 × tempo, e.g. 1.25"),
    ],
)
def test_strengths_are_checked(strength, message):
    with pytest.raises(InputError) as caught:
        Stretch(strength)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("waveforms", "rate", "message"),
    [
        (torch.zeros(5), RATE, r"^waveforms=\(5,\): not waveforms; give a floating-point tensor \(batch, samples\)$"),
        (torch.zeros(1, 5, dtype=torch.int16), RATE, r"^waveforms=\(1, 5\): not waveforms"),
        ([[0.0]], RATE, r"^waveforms=\[\[0.0\]\]: not waveforms"),
        (torch.tensor([[math.nan]]), RATE, "^waveforms=nan or inf: samples that are not finite; leave these rows out$"),
        (torch.zeros(1, 5), 0, "^sample_rate=0: not a sample rate; give a positive integer in Hz$"),
        (torch.zeros(1, 5), 16000.0, "^sample_rate=16000.0: not a sample rate"),
    ],
)
def test_what_is_applied_to_is_checked(waveforms, rate, message):
    with pytest.raises(InputError, match=message):
        Level(6).apply(waveforms, rate)


def test_labels_name_strength_unit_and_sham():
    assert Stretch(1.25).label == "stretch 1.25 × tempo"
    assert Stretch(1.25).sham().label == "stretch 1.25 × tempo (sham)"


def test_an_intervention_is_a_value():
    assert Stretch(1.25) == Stretch(1.25) != Stretch(0.8)
    assert Stretch(1.25).sham().sham() == Stretch(1.25).sham()
    with pytest.raises(dataclasses.FrozenInstanceError):
        Stretch(1.25).strength = 2


def test_no_gradient_is_kept():
    sound = noise().requires_grad_()
    assert not Level(6).apply(sound, RATE).requires_grad


def test_results_can_be_used_where_gradients_are_taken():
    weight = torch.ones(1, requires_grad=True)
    (Level(6).apply(noise(), RATE) * weight).sum().backward()
    assert weight.grad is not None


def test_the_row_key_is_of_the_samples():
    rows = noise(2)
    assert row_key(rows[0]) == row_key(rows[0].double()) == row_key(rows[[1, 0]][1])
    assert row_key(rows[0]) != row_key(rows[1])


@pytest.mark.parametrize("name", ["noise", "silence", "reverberation"])
def test_random_parts_follow_the_seed(name):
    intervention, sound = make(name), noise()
    assert not torch.equal(intervention.apply(sound, RATE, 0), intervention.apply(sound, RATE, 1))


def test_the_sham_of_a_cutoff_is_refused_where_the_cutoff_is():
    message = (
        "^strength=9000: a sample rate of 16000 Hz has nothing above this frequency; give a cut-off below 8000 Hz$"
    )
    for one in (Bandwidth(9000), Bandwidth(9000).sham()):
        with pytest.raises(InputError, match=message):
            one.apply(noise(), RATE)


def test_options_are_checked():
    with pytest.raises(InputError, match=r"^colour='brown': unknown; give 'white' or 'pink'$"):
        Noise(-10, colour="brown")
    with pytest.raises(InputError, match=r"^ratio=99: not a level; give -60 to 40 dB, e.g. 0$"):
        INTERVENTIONS["reverberation"](1.5, ratio=99)
    assert Reversal(60).strength == 60
    assert AddSound(-5, [torch.ones(3)]).placement == "loop"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", INTERVENTIONS)
def test_devices_agree(name):
    intervention, sounds = make(name), noise(3)
    there = intervention.apply(sounds.cuda(), RATE, 0)
    assert there.is_cuda
    torch.testing.assert_close(there.cpu(), intervention.apply(sounds, RATE, 0), rtol=0, atol=1e-4)
