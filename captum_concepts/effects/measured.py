"""Measured effects: passes over clips with and without an added sound, and what they changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from captum_concepts.audio.clips import AudioError, Clip
from captum_concepts.backbones.inference import middle_patch
from captum_concepts.backbones.protocol import Backbone
from captum_concepts.effects.mixtures import LEVEL_DB, MixturePlan, mix
from captum_concepts.errors import InputError
from captum_concepts.seeding import random_key
from captum_concepts.text import short_repr
from captum_concepts.types import Progress


@dataclass(frozen=True)
class Measurements:
    """What adding the donors' sounds did.

    Attributes:
        plan: which pairs.
        logit_changes: (P, C), logit with the donor minus logit without it.
        shifts: layer -> (P, D), the same difference of pooled activations.
        n_passes: forward passes over a patch.
    """

    plan: MixturePlan
    logit_changes: Tensor
    shifts: dict[str, Tensor]
    n_passes: int


def patches_by_group(
    backbone: Backbone, clips: Iterable[Clip], seed: int = 0, max_groups: int | None = None
) -> dict[str, Tensor]:
    """One patch of each group: the middle patch of the group's first usable clip, in an order drawn from the seed.

    Args:
        backbone: reads the clips.
        clips: in any order; clips of a group are alternatives.
        seed: of the draw.
        max_groups: stop after so many groups; None reads all.

    Returns:
        group -> (samples,); groups that are silent or cannot be read are left out.

    Raises:
        InputError: the backbone's patches are no waveforms, or no group is usable.
    """
    groups: dict[str, list[Clip]] = {}
    for clip in sorted(clips):
        groups.setdefault(clip.group, []).append(clip)
    found: dict[str, Tensor] = {}
    for group in sorted(groups, key=lambda g: random_key(seed, f"patch {g}")):
        if max_groups is not None and len(found) >= max_groups:
            break
        for clip in sorted(groups[group], key=lambda c: random_key(seed, f"clip {c.path} {c.start} {c.end}")):
            try:
                patch = middle_patch(backbone, clip)
            except AudioError:
                continue
            if patch is not None:
                found[group] = patch
                break
    if not found:
        raise InputError(f"clips={len(groups)} groups: none is readable and louder than silence; give other clips")
    return found


def measure(
    backbone: Backbone,
    plan: MixturePlan,
    hosts: Mapping[str, Tensor],
    donors: Mapping[str, Mapping[str, Tensor]],
    layers: Sequence[str],
    *,
    level_db: float = LEVEL_DB,
    pool: str = "time",
    batch_size: int = 32,
    progress: Progress | None = None,
) -> Measurements:
    """Pass every host alone and every mixture of the plan through the model.

    Args:
        backbone: with classes.
        plan: the pairs.
        hosts: group -> (samples,).
        donors: concept -> group -> (samples,).
        layers: whose shifts are kept.
        level_db: level of donors relative to hosts.
        pool: as in `Backbone.activations`.
        batch_size: patches in one pass.
        progress: called as progress("measuring effects", patches done, patches in all).

    Returns:
        logit changes and shifts on the CPU; the passes are those over hosts and mixtures.

    Raises:
        InputError: a group of the plan without a patch, no classes, or a batch size below 1.
    """
    if not backbone.classes:
        raise InputError(
            f"backbone={backbone.name}: it has no classes, so no effect can be measured; give one with some"
        )
    if batch_size < 1:
        raise InputError(f"batch_size={short_repr(batch_size)}: no patch in a batch; give a positive whole number")
    lacking = [host for host in plan.hosts if host not in hosts]
    lacking += [group for name, group in plan.donors if group not in donors.get(name, {})]
    if lacking:
        raise InputError(f"plan={short_repr(lacking[0])}: this group has no patch; plan from the groups that were read")
    total = len(plan.hosts) + len(plan)

    tick = _ticker("measuring effects", total, progress)
    plain, at_hosts = _forward(backbone, (hosts[host] for host in plan.hosts), layers, pool, batch_size, tick)
    pairs = zip(plan.host.tolist(), plan.donor.tolist(), strict=True)
    mixtures = (_mixture(plan, hosts, donors, h, d, level_db) for h, d in pairs)
    mixed, at_mixtures = _forward(backbone, mixtures, layers, pool, batch_size, tick)
    changes = mixed - plain[plan.host]
    shifts = {layer: at_mixtures[layer] - at_hosts[layer][plan.host] for layer in layers}
    return Measurements(plan, changes, shifts, total)


def host_gradients(
    backbone: Backbone,
    patches: Sequence[Tensor],
    layers: Sequence[str],
    targets: Sequence[int],
    *,
    pool: str = "time",
    batch_size: int = 32,
    progress: Progress | None = None,
) -> dict[str, Tensor]:
    """Gradients of the targets' logits at clips without any added sound.

    Args:
        backbone, layers, pool, batch_size, progress: as in `measure`.
        patches: H of (samples,).
        targets: numbers of C classes.

    Returns:
        layer -> (H, C, D) on the CPU.
    """
    found: dict[str, list[Tensor]] = {layer: [] for layer in layers}
    tick = _ticker("gradients", len(patches), progress)
    for batch in _batches(patches, batch_size):
        result = backbone.gradients(batch, layers, targets, pool)
        for layer in layers:
            found[layer].append(result.gradients[layer].float().cpu())
        tick(len(batch))
    return {layer: torch.cat(parts) for layer, parts in found.items()}


def _ticker(stage: str, total: int, progress: Progress | None) -> Callable[[int], None]:
    """A function that adds to the patches done and reports them."""
    done = 0

    def tick(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(stage, done, total)

    return tick


def _forward(
    backbone: Backbone,
    patches: Iterable[Tensor],
    layers: Sequence[str],
    pool: str,
    batch_size: int,
    tick: Callable[[int], None],
) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits (P, C) and activations (P, D) of each layer."""
    logits: list[Tensor] = []
    kept: dict[str, list[Tensor]] = {layer: [] for layer in layers}
    for batch in _batches(patches, batch_size):
        result = backbone.gradients(batch, layers, [], pool)
        logits.append(result.logits.float().cpu())
        for layer in layers:
            kept[layer].append(result.activations[layer].float().cpu())
        tick(len(batch))
    return torch.cat(logits), {layer: torch.cat(parts) for layer, parts in kept.items()}


def _mixture(
    plan: MixturePlan,
    hosts: Mapping[str, Tensor],
    donors: Mapping[str, Mapping[str, Tensor]],
    host: int,
    donor: int,
    level_db: float,
) -> Tensor:
    name, group = plan.donors[donor]
    return mix(hosts[plan.hosts[host]], donors[name][group], level_db)


def _batches(patches: Iterable[Tensor], size: int) -> Iterable[Tensor]:
    """Stacks of at most ``size`` patches of one length."""
    waiting: list[Tensor] = []
    for patch in patches:
        if len(waiting) == size:
            yield torch.stack(waiting)
            waiting = []
        waiting.append(patch)
    if waiting:
        yield torch.stack(waiting)
