from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import scipy.signal
import torch
from captum_concepts_gtzan.augmentations import (
    Augmentation,
    add_noise,
    butterworth,
    crop,
    delay,
    gain,
    mask,
    stretch,
)
from torch import Tensor

from captum_concepts.errors import InputError
from captum_concepts.seeding import generator

RATE = 22050
CHANGES = ("polarity", "noise", "gain", "filter", "delay", "stretch")


def _wave(samples: int = RATE, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(seed))


def _only(change: str) -> Augmentation:
    return dataclasses.replace(Augmentation.none(), **{change: 1.0})


@pytest.mark.parametrize("snr", [15.0, 35.0])
def test_noise_is_as_far_below_the_signal_as_asked(snr: float) -> None:
    wave, noise = _wave(), 3.0 * _wave(seed=1)
    added = (add_noise(wave, noise, snr) - wave).double()
    found = 10 * math.log10(float(wave.double().square().sum() / added.square().sum()))
    assert found == pytest.approx(snr, abs=0.01)


def test_gain_is_in_decibels_of_amplitude() -> None:
    assert torch.allclose(gain(_wave(), 20.0), 10 * _wave())
    assert torch.allclose(gain(gain(_wave(), 4.0), -4.0), _wave())


@pytest.mark.parametrize(
    ("cutoff", "band"), [(50.0, "highpass"), (1000.0, "highpass"), (2000.0, "lowpass"), (8000.0, "lowpass")]
)
def test_the_filter_is_that_of_scipy(cutoff: float, band: str) -> None:
    wave = _wave()
    b, a = scipy.signal.butter(4, cutoff, band, fs=RATE)
    reference = scipy.signal.lfilter(b, a, wave.double().numpy())
    found = butterworth(wave, RATE, cutoff, band)  # type: ignore[arg-type]
    assert found.dtype == wave.dtype
    np.testing.assert_allclose(found.numpy(), reference, atol=1e-6)


@pytest.mark.parametrize(("seconds", "feedback", "mix"), [(0.05, 0.4, 0.5), (0.2, 0.1, 0.2), (0.123, 0.3, 0.35)])
def test_echoes_follow_their_recursion_sample_by_sample(seconds: float, feedback: float, mix: float) -> None:
    wave = _wave(RATE // 2).double()
    d = round(seconds * RATE)
    echo = np.zeros(len(wave))
    for n in range(d, len(wave)):
        echo[n] = wave[n - d] + feedback * echo[n - d]
    found = delay(wave, RATE, seconds, feedback, mix)
    np.testing.assert_allclose(found.numpy(), (1 - mix) * wave.numpy() + mix * echo, atol=1e-12)


def test_echoes_later_than_the_end_are_not_heard() -> None:
    assert torch.allclose(delay(_wave(100), RATE, 0.2, 0.4, 0.25), 0.75 * _wave(100))


@pytest.mark.parametrize("rate", [0.9, 1.1])
def test_the_stretch_is_a_phase_vocoder(rate: float) -> None:
    time = torch.arange(2 * RATE, dtype=torch.float64) / RATE
    wave = 0.3 * torch.sin(2 * torch.pi * 440 * time) + 0.01 * _wave(2 * RATE).double()  # phases add up: in double
    found = stretch(wave, rate).numpy()
    assert len(found) == round(len(wave) / rate)
    reference = _vocoder(wave.numpy(), rate)
    np.testing.assert_allclose(found[:-1024], reference[:-1024], atol=1e-9)


def _vocoder(wave: np.ndarray, rate: float) -> np.ndarray:
    """Frame after frame: the magnitude between two frames, the phase advanced by what it advances between them."""
    window, hop = scipy.signal.get_window("hann", 2048), 512
    padded = np.pad(wave, 1024)
    starts = range(0, len(padded) - 2047, hop)
    spectrum = [np.fft.rfft(window * padded[start : start + 2048]) for start in starts]
    spectrum.append(np.zeros(1025, dtype=complex))
    sound, weight = np.zeros(2 * len(wave)), np.full(2 * len(wave), 1e-12)
    phase = np.angle(spectrum[0])
    for number, time in enumerate(np.arange(0, len(starts), rate)):
        before, after = spectrum[int(time)], spectrum[int(time) + 1]
        share = time - int(time)
        frame = ((1 - share) * abs(before) + share * abs(after)) * np.exp(1j * phase)
        sound[number * hop : number * hop + 2048] += window * np.fft.irfft(frame)
        weight[number * hop : number * hop + 2048] += window**2
        phase = phase + np.angle(after) - np.angle(before)
    return (sound / weight)[1024 : 1024 + round(len(wave) / rate)]


def test_the_stretch_keeps_the_pitch() -> None:
    time = torch.arange(3 * RATE, dtype=torch.float64) / RATE
    slow = stretch(torch.sin(2 * torch.pi * 440 * time).float(), 0.9)
    spectrum = torch.fft.rfft(slow[: 2 * RATE] * torch.hann_window(2 * RATE)).abs()
    assert float(spectrum.argmax()) / 2 == pytest.approx(440, abs=1)


def test_a_short_wave_is_repeated() -> None:
    wave = torch.arange(5.0)
    assert crop(wave, 3, 1).tolist() == [1, 2, 3]
    assert crop(wave, 12, 4).tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]


def test_the_masks_hide_what_their_box_says_and_nothing_else() -> None:
    log_mel = torch.randn(2, 1, 10, 20, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor([[0.25, 0.5, 0.0, 0.0], [0.0, 0.0, 0.8, 1.0]])
    masked = mask(log_mel, boxes)
    expected = log_mel.clone()
    expected[0, :, :, 5:10] = log_mel[0].mean()
    expected[1, :, 8:10, :] = log_mel[1].mean()
    assert torch.allclose(masked, expected)
    assert torch.equal(mask(log_mel, torch.zeros(2, 4)), log_mel)


def test_without_changes_an_example_is_a_piece_of_the_wave() -> None:
    wave = _wave()
    found, box = Augmentation.none().example(wave, 1000, RATE, generator(0, 1))
    starts = [start for start in range(len(wave) - 999) if torch.equal(found, wave[start : start + 1000])]
    assert len(starts) == 1
    assert box[0] == box[1]
    assert box[2] == box[3]


def test_crops_reach_both_ends_of_the_wave() -> None:
    wave = torch.arange(12.0)
    firsts = {int(Augmentation.none().example(wave, 10, RATE, generator(0, n))[0][0]) for n in range(50)}
    assert firsts == {0, 1, 2}


@pytest.mark.parametrize("change", CHANGES)
def test_each_change_changes_the_wave_and_follows_from_the_generator(change: str) -> None:
    wave, samples = _wave(2 * RATE), RATE
    first, second = (_only(change).example(wave, samples, RATE, generator(0, "a"))[0] for _ in range(2))
    other = _only(change).example(wave, samples, RATE, generator(0, "b"))[0]
    assert first.shape == (samples,)
    assert torch.isfinite(first).all()
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    plain = _changed_by_hand(change, wave, samples)
    assert torch.allclose(first, plain, atol=1e-6)


def _changed_by_hand(change: str, wave: Tensor, samples: int) -> Tensor:
    """The same numbers, drawn in the same order, with the change that is asked for only."""
    draws = generator(0, "a")

    def unit() -> float:
        return float(torch.rand((), generator=draws, dtype=torch.float64))

    unit()
    rate = 0.9 + 0.2 * unit() if change == "stretch" else 1.0
    needed = round(samples * rate)
    start = int(torch.randint(len(wave) - needed + 1, (), generator=draws))
    piece = wave[start : start + needed]
    if change == "stretch":
        piece = stretch(piece, rate)[:samples]
        return torch.cat([piece, piece])[:samples]
    for done in CHANGES[:5]:
        unit()
        if done != change:
            continue
        if change == "polarity":
            return -piece
        if change == "noise":
            noise = torch.randn(samples, generator=draws)
            return add_noise(piece, noise, 15 + 20 * unit())
        if change == "gain":
            return gain(piece, -4 + 8 * unit())
        if change == "filter":
            high = unit() < 0.5
            cutoff = 50 + 950 * unit() if high else 2000 + 6000 * unit()
            return butterworth(piece, RATE, cutoff, "highpass" if high else "lowpass")
        return delay(piece, RATE, 0.05 + 0.15 * unit(), 0.1 + 0.3 * unit(), 0.2 + 0.3 * unit())
    raise AssertionError(change)


def test_changes_come_as_often_as_their_probability_says() -> None:
    """Of 400 examples; six standard deviations of a share of one half are 0.15."""
    wave = _wave(400)
    for change, share in (("polarity", 0.5), ("noise", 0.6), ("gain", 0.4), ("delay", 0.3)):
        augmentation = dataclasses.replace(Augmentation.none(), **{change: getattr(Augmentation(), change)})
        assert getattr(Augmentation(), change) == share
        changed = [
            not torch.equal(augmentation.example(wave, 400, RATE, generator(1, number))[0], wave)
            for number in range(400)
        ]
        assert sum(changed) / 400 == pytest.approx(share, abs=0.15)
    assert (Augmentation().filter, Augmentation().stretch) == (0.5, 0.2)


def test_the_hiss_has_its_standard_deviation() -> None:
    found, _ = Augmentation.none(hiss=0.002).example(torch.zeros(RATE), RATE, RATE, generator(0, 1))
    assert float(found.std()) == pytest.approx(0.002, rel=0.03)


def test_boxes_lie_within_and_are_no_wider_than_asked() -> None:
    boxes = torch.stack([Augmentation().example(_wave(50), 50, RATE, generator(0, n))[1] for n in range(100)])
    widths = torch.stack([boxes[:, 1] - boxes[:, 0], boxes[:, 3] - boxes[:, 2]])
    assert float(boxes.min()) >= 0
    assert float(boxes.max()) <= 1
    assert 0.08 < float(widths.max()) <= 0.1 + 1e-6


@pytest.mark.parametrize("change", [{"noise": 1.5}, {"hiss": -0.1}, {"time_mask": 2}])
def test_a_probability_out_of_range_is_refused(change: dict[str, float]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(change))}=.*between 0 and 1"):
        Augmentation(**change)  # type: ignore[arg-type]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("change", CHANGES)
def test_the_device_makes_no_difference(change: str) -> None:
    wave = _wave(2 * RATE)
    here, box = _only(change).example(wave, RATE, RATE, generator(0, "a"))
    there, same = _only(change).example(wave.cuda(), RATE, RATE, generator(0, "a"))
    assert torch.equal(box, same)
    assert torch.allclose(here, there.cpu(), atol=1e-4)
