"""What each intervention and its sham do to real clips and to the tags of MSD-VGG; which stretching has the least sham.

    python benchmarks/validity/interventions.py [--tracks 10]

Hosts are the middle patches of GTZAN tracks, as many of each genre. Printed are, for each intervention at its usual
strength and for its sham, the root mean square change of the log-mel spectrogram in dB (mean over tracks) and of the
logits (root mean square over the tags of the mean over tracks). Then the same for shams by other ways to stretch and
shift: by 0.8 and then by 1.25, and by -2 and then by 2 semitones. Rubber Band and Signalsmith Stretch are compared
where `pedalboard` and `python-stretch` are installed.
"""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import pad

import captum_concepts as cc
from captum_concepts.audio.files import as_clips
from captum_concepts.backbones.inference import middle_patch
from captum_concepts.interventions import INTERVENTIONS, Shift, log_mel_difference
from captum_concepts.interventions.wsola import time_stretch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import DATA, missing, options, parse, row, table

RATE = 16000
GENRES = ("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock")
Change = Callable[[Tensor, float], Tensor]


def to_length(waveforms: Tensor, samples: int) -> Tensor:
    return pad(waveforms, (0, max(0, samples - waveforms.shape[1])))[:, :samples]


def phase_vocoder(size: int) -> Change:
    from torchaudio.functional import phase_vocoder as stretch

    def change(waveforms: Tensor, rate: float) -> Tensor:
        hop, window = size // 4, torch.hann_window(size)
        spectrum = torch.stft(waveforms, size, hop, window=window, return_complex=True)
        advance = torch.linspace(0, math.pi * hop, size // 2 + 1)[:, None]
        changed = stretch(spectrum, rate, advance)
        return torch.istft(changed, size, hop, window=window, length=round(waveforms.shape[1] / rate))

    return change


def rubber_band(waveforms: Tensor, rate: float = 1.0, semitones: float = 0.0) -> Tensor:
    import pedalboard

    rows = [
        pedalboard.time_stretch(each.numpy()[None], RATE, stretch_factor=rate, pitch_shift_in_semitones=semitones)[0]
        for each in waveforms
    ]
    return torch.stack([torch.tensor(each) for each in rows])


def signalsmith(waveforms: Tensor, rate: float) -> Tensor:
    import python_stretch

    rows = []
    for each in waveforms:
        stretch = python_stretch.Signalsmith.Stretch()
        stretch.preset(1, RATE)
        stretch.timeFactor = rate
        rows.append(torch.tensor(stretch.process(each.numpy()[None])[0]))
    return torch.stack(rows)


def alternatives() -> dict[str, tuple[Change, float, float]]:
    """Name -> change of waveforms, its first and its second strength."""
    from torchaudio.functional import pitch_shift

    found: dict[str, tuple[Change, float, float]] = {
        "stretch: this package": (lambda x, rate: time_stretch(x, RATE, rate), 0.8, 1.25),
        "stretch: phase vocoder (torchaudio, 1024)": (phase_vocoder(1024), 0.8, 1.25),
        "stretch: phase vocoder (torchaudio, 2048)": (phase_vocoder(2048), 0.8, 1.25),
        "shift: this package": (lambda x, semitones: Shift(semitones).apply(x, RATE), -2, 2),
        "shift: phase vocoder (torchaudio)": (lambda x, semitones: pitch_shift(x, RATE, semitones), -2, 2),
    }
    if importlib.util.find_spec("pedalboard"):
        found["stretch: Rubber Band"] = (rubber_band, 0.8, 1.25)
        found["shift: Rubber Band"] = (lambda x, semitones: rubber_band(x, 1.0, semitones), -2, 2)
    if importlib.util.find_spec("python_stretch"):
        found["stretch: Signalsmith Stretch"] = (signalsmith, 0.8, 1.25)
    return found


def main() -> None:
    parser = options(__doc__, data=DATA)
    parser.add_argument("--tracks", type=int, default=10, help="hosts, as many of each genre (default: %(default)s)")
    given = parse(parser)
    weights, music = given.data / "models" / "deezer" / "MSD_vgg.h5", given.data / "gtzan_mini" / "genres"
    if missing(weights, music):
        return
    backbone = cc.load_backbone("msd-vgg", weights=str(weights))
    files = [path for genre in GENRES for path in sorted((music / genre).iterdir())[: max(given.tracks // 10, 1)]]
    patches = [middle_patch(backbone, clip) for clip in as_clips([str(path) for path in files])]
    hosts = torch.stack([patch for patch in patches if patch is not None]).float()

    def logits(waveforms: Tensor) -> Tensor:
        return backbone.gradients(waveforms, [backbone.layers[-1]], [], "time").logits

    before = logits(hosts)

    def changes(waveforms: Tensor) -> tuple[str, str]:
        mean = (logits(waveforms) - before).mean(0)
        decibels = float(log_mel_difference(hosts, waveforms, RATE).mean())
        return f"{decibels:.2f}", f"{float(mean.square().mean().sqrt()):.3f}"

    print(f"{len(hosts)} hosts\n")
    print("\n".join(table(("intervention", "effect, dB", "effect, logits", "sham, dB", "sham, logits"))))
    for name, make in INTERVENTIONS.items():
        intervention = make(make.usual, **({"donors": list(hosts)} if name == "add_sound" else {}))
        effect, sham = (changes(one.apply(hosts, RATE)) for one in (intervention, intervention.sham()))
        print(row((intervention.label, *effect, *sham)), flush=True)
    print("\n" + "\n".join(table(("sham by", "dB", "logits"))))
    for name, (change, first, second) in alternatives().items():
        print(row((name, *changes(to_length(change(change(hosts, first), second), hosts.shape[1])))), flush=True)


if __name__ == "__main__":
    main()
