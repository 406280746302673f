"""Do estimated effects predict what a tagger does when an instrument is added to real tracks?

Concepts are 15 orchestral instruments (recorded notes), hosts the middle patches of 100 tracks. Notes and tracks are
split in halves by a hash of their names: one half estimates the effects, the other measures them, so that no note and
no track serves both. Printed for each layer and set of tags: Spearman over instruments, averaged over tags, with a 95 %
bootstrap interval over instruments; the right signs and the contradicted share of rows with q < 0.05.

    python benchmarks/validity/effects.py --backbone msd-vgg
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

import captum_concepts as cc
from captum_concepts.backbones.protocol import Backbone
from captum_concepts.effects import (
    Estimate,
    Measurements,
    agreement,
    by_fold,
    ceiling,
    contradicted,
    contrast_test,
    contrasts,
    host_gradients,
    in_context_effects,
    measure,
    measured_effects,
    observational_effects,
    pair_effects,
    patches_by_group,
    permutation_test,
    plan_mixtures,
)
from captum_concepts.effects.agreement import mean_spearman
from captum_concepts.effects.intervals import concept_means
from captum_concepts.seeding import random_key
from captum_concepts.significance import adjust

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
BACKBONES = {
    "msd-vgg": ("models/deezer/MSD_vgg.h5", ("pool3", "pool4", "pool5")),
}
TAGS = ("jazz", "rock", "metal", "Hip-Hop", "country", "electronic", "folk", "ambient")
ALPHA = 0.05
Patches = dict[str, dict[str, Tensor]]


class Half(NamedTuple):
    """Hosts and donors of one half of the data: group -> patch, and instrument -> group -> patch."""

    hosts: dict[str, Tensor]
    donors: Patches


class Estimates(NamedTuple):
    """Effects of one method at one layer, and q-values of their rows."""

    name: str
    effects: Tensor
    p_values: Tensor | None


def read(backbone: Backbone, data: Path, most: int | None, n_hosts: int, seed: int) -> list[Half]:
    """Both halves of tracks and notes."""
    with (data / "philharmonia/clips.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["family"] in ("strings", "winds")]
    names = sorted({row["instrument"] for row in rows})[:most]
    tracks = sorted((data / "gtzan_mini/genres").rglob("*.flac"))
    halves = [Half({}, {name: {} for name in names}) for _ in range(2)]
    found = patches_by_group(backbone, [cc.Clip(str(path)) for path in tracks], seed, n_hosts)
    for number, group in enumerate(found):  # in an order drawn by hash
        halves[number % 2].hosts[Path(group).name] = found[group]
    for name in names:
        clips = [cc.Clip(str(data / "philharmonia" / row["file"])) for row in rows if row["instrument"] == name]
        notes = patches_by_group(backbone, clips, seed)
        for number, note in enumerate(sorted(notes, key=lambda note: random_key(seed, Path(note).name))):
            halves[number % 2].donors[name][Path(note).name] = notes[note]
    return halves


def passes(
    backbone: Backbone, half: Half, layers: tuple[str, ...], n_mixtures: int, args: argparse.Namespace
) -> Measurements:
    plan = plan_mixtures(
        list(half.hosts), {name: list(own) for name, own in half.donors.items()}, n_mixtures, args.seed
    )
    return measure(backbone, plan, half.hosts, half.donors, layers, level_db=args.level)


def note_activations(
    backbone: Backbone, half: Half, layers: tuple[str, ...], loudness: float | None
) -> tuple[dict[str, Tensor], Tensor]:
    """Activations of isolated notes, as recorded or brought to one level, and bool (notes, instruments)."""
    waves, members = [], []
    for number, own in enumerate(half.donors[name] for name in sorted(half.donors)):
        for note in sorted(own):
            wave = own[note]
            waves.append(wave if loudness is None else wave * (loudness / wave.square().mean().sqrt()))
            members.append(number)
    parts = [backbone.activations(batch, layers, "time") for batch in torch.stack(waves).split(32)]
    activations = {layer: torch.cat([part[layer] for part in parts]).float().cpu() for layer in layers}
    return activations, torch.nn.functional.one_hot(torch.tensor(members)).bool()


def estimates_of(
    layer: str, found: Measurements, gradients: Tensor, notes: dict[str, tuple[dict[str, Tensor], Tensor]]
) -> list[Estimates]:
    """Effects by every method from the estimating half, against "another of these sounds"."""
    shifts = found.shifts[layer]
    in_context = in_context_effects(shifts, gradients, found.plan)
    raw = pair_effects(shifts, gradients, found.plan, "nothing")
    result = [Estimates("in context", in_context.effect, contrast_test(raw, found.plan))]
    for name, (activations, positives) in notes.items():
        here = activations[layer]
        effect = observational_effects(here, positives, ~positives, gradients).effect
        numbers = (here @ gradients.mean(0).T).double()
        result.append(Estimates(f"observational, {name}", effect, permutation_test(numbers, positives)))
        # The magnitude along a unit CAV, which is what is printed today.
        weights = positives.double() / positives.sum(0) - (~positives).double() / (~positives).sum(0)
        length = (weights.T @ here.double()).norm(dim=1, keepdim=True)
        result.append(Estimates(f"pattern CAV magnitude, {name}", effect / length, None))
    return result


def q_values(p_values: Tensor) -> Tensor:
    """Corrected over the concepts of each tag, (K, T)."""
    return torch.stack([torch.as_tensor(adjust(column, "bh")) for column in p_values.T], 1)


def line(estimate: Estimates, truth: Estimate, columns: list[int], seed: int) -> str:
    effects, measured = estimate.effects[:, columns], truth.effect[:, columns]
    if estimate.p_values is None:
        found = agreement(effects, measured, seed=seed)
        return f"| {estimate.name} | {found.spearman:.2f} [{found.low:.2f}, {found.high:.2f}] | | | |"
    rows = q_values(estimate.p_values[:, columns]) < ALPHA
    found = agreement(effects, measured, rows, seed=seed)
    against = contradicted(effects, truth.low[:, columns], truth.high[:, columns], rows)
    interval = f"{found.spearman:.2f} [{found.low:.2f}, {found.high:.2f}]"
    return f"| {estimate.name} | {interval} | {found.n_rows} | {found.signs:.2f} | {against:.2f} |"


def repeated(found: Measurements) -> Estimates:
    """The measurement of the estimating half, as an estimate of the other's: the ceiling."""
    effect = measured_effects(found.logit_changes, found.plan).effect
    return Estimates("measured again (ceiling)", effect, contrast_test(found.logit_changes, found.plan))


def print_within(found: Measurements, gradients: dict[str, Tensor], sets: dict[str, list[int]], seed: int) -> None:
    """Agreement of the estimates with what the same passes measured: fold against fold, and pair with itself."""
    measured = contrasts(found.logit_changes.double(), found.plan)
    folds, count = by_fold(measured, found.plan), len(found.plan.concepts)
    print("\n| within the estimate's own passes | fold against fold | same pairs | ceiling |\n|---|---|---|---|")
    for layer, gradient in gradients.items():
        values = pair_effects(found.shifts[layer], gradient, found.plan).double()
        own = by_fold(values, found.plan)
        for name, columns in sets.items():
            crossed = [agreement(own[i][:, columns], folds[1 - i][:, columns], seed=seed).spearman for i in range(2)]
            whole = [concept_means(part, found.plan.concept, count)[:, columns] for part in (values, measured)]
            best = mean_spearman(folds[0][:, columns].numpy(), folds[1][:, columns].numpy())
            same = agreement(whole[0], whole[1], seed=seed).spearman
            print(f"| {layer}, {name} | {sum(crossed) / 2:.2f} | {same:.2f} | {best:.2f} |")


def joint_coverage(first: Estimate, second: Estimate) -> float:
    """Share of rows in which two independent estimates differ by no more than their intervals allow together."""
    reach = ((first.high - first.effect) ** 2 + (second.high - second.effect) ** 2).sqrt()
    return float(((first.effect - second.effect).abs() <= reach).double().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", choices=sorted(BACKBONES), default="msd-vgg")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--mixtures", type=int, nargs="+", default=[20, 50], help="of each instrument")
    parser.add_argument("--truth-mixtures", type=int, default=50, help="of each instrument, to measure the truth")
    parser.add_argument("--instruments", type=int, help="only the first so many")
    parser.add_argument("--hosts", type=int, default=100, help="tracks, half of them for the truth")
    parser.add_argument("--level", type=float, default=-5.0, help="dB of the donor relative to the host")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    weights, layers = BACKBONES[args.backbone]
    if not (args.data / weights).exists() or not (args.data / "philharmonia/clips.csv").exists():
        print(f"skipped: no {weights} or no philharmonia/clips.csv below {args.data}")
        return
    began = time.monotonic()
    backbone = cc.load_backbone(args.backbone, weights=str(args.data / weights), layers=layers)
    estimating, checking = read(backbone, args.data, args.instruments, args.hosts, args.seed)
    classes = list(backbone.classes)
    sets = {f"{len(TAGS)} tags": [classes.index(tag) for tag in TAGS], f"all {len(classes)}": list(range(len(classes)))}
    check = passes(backbone, checking, layers, args.truth_mixtures, args)
    truth = measured_effects(check.logit_changes, check.plan)
    halves = by_fold(contrasts(check.logit_changes.double(), check.plan), check.plan)
    loudness = float(torch.stack([patch.square().mean().sqrt() for patch in estimating.hosts.values()]).mean())
    notes = {
        "notes as recorded": note_activations(backbone, estimating, layers, None),
        "notes at the tracks' level": note_activations(backbone, estimating, layers, loudness),
    }
    print(f"{args.backbone}, {len(truth.effect)} instruments, donors at {args.level:g} dB, seed {args.seed}")
    print(f"truth: {args.truth_mixtures} mixtures of each instrument, {check.n_passes} passes")
    for name, columns in sets.items():
        best = ceiling(halves[0][:, columns], halves[1][:, columns])
        print(f"ceiling from split halves of the truth, {name}: {best:.2f}")
    for n_mixtures in args.mixtures:
        found = passes(backbone, estimating, layers, n_mixtures, args)
        patches = [estimating.hosts[host] for host in found.plan.hosts]
        gradients = host_gradients(backbone, patches, layers, range(len(classes)))
        print(f"\n## {n_mixtures} mixtures of each instrument, {found.n_passes} passes for the estimate")
        again = repeated(found)
        covered = [f"measured {joint_coverage(measured_effects(found.logit_changes, found.plan), truth):.3f}"]
        for layer in layers:
            estimate = in_context_effects(found.shifts[layer], gradients[layer], found.plan)
            covered.append(f"in context at {layer} {joint_coverage(estimate, truth):.3f}")
        print("within the joint 95 % interval of the truth: " + ", ".join(covered))
        for layer in layers:
            estimates = [*estimates_of(layer, found, gradients[layer], notes), again]
            for name, columns in sets.items():
                print(f"\n| {layer}, {name} | Spearman | rows q < {ALPHA} | right signs | contradicted |")
                print("|---|---|---|---|---|")
                for estimate in estimates:
                    print(line(estimate, truth, columns, args.seed))
        print_within(found, gradients, sets, args.seed)
        sys.stdout.flush()
    print(f"\n{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
