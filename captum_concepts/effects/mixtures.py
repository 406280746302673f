"""Plan which sound is added to which clip, cross-fitted by group, and mix the two at a stated level."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import lcm

import torch
from torch import Tensor

from captum_concepts.errors import InputError
from captum_concepts.interventions import add_at_level
from captum_concepts.seeding import random_key
from captum_concepts.text import short_repr

N_FOLDS = 2
LEVEL_DB = -5.0


@dataclass(frozen=True)
class MixturePlan:
    """Pairs of a host and a donor.

    Attributes:
        concepts: (K,) names, sorted.
        hosts: (H,) groups of the hosts that are used.
        donors: (G,) concept and group of the donors that are used.
        host_fold: int (H,), fold 0 or 1 of each host.
        concept: int (P,), the concept of each pair.
        host: int (P,), the host of each pair.
        donor: int (P,), the donor of each pair.
        fold: int (P,), fold of each pair: that of its host and of its donor.
        slot: int (P,), which mixture of its concept a pair is: every concept has one in each slot, all on one host.
    """

    concepts: tuple[str, ...]
    hosts: tuple[str, ...]
    donors: tuple[tuple[str, str], ...]
    host_fold: Tensor
    concept: Tensor
    host: Tensor
    donor: Tensor
    fold: Tensor
    slot: Tensor

    def __len__(self) -> int:
        return len(self.concept)


def plan_mixtures(
    hosts: Sequence[str], donors: Mapping[str, Sequence[str]], n_mixtures: int = 20, seed: int = 0
) -> MixturePlan:
    """Which donor group is added to which host group.

    Groups of hosts and of donors are split into two folds, and a pair consists of a host and a donor of the same fold:
    a shift of the activation measured in one fold meets gradients of the other, and no group serves both. The n-th
    mixture of every concept has the same host, so that concepts can be compared on the same hosts. Each host and donor
    is used once before any is used again, and a clip is never mixed with a sound of its own group.

    The plan depends on the seed and on names only, not on the order in which they are given.

    Args:
        hosts: groups of the explained clips, at least 2.
        donors: concept -> groups of its examples, at least 2 of each concept.
        n_mixtures: mixtures of each concept, at least 2: half of them in each fold.
        seed: of the split and of the pairing.

    Returns:
        the plan, with n_mixtures pairs of each concept.

    Raises:
        InputError: too few groups or mixtures; a concept whose only donor in a fold is of the host's own group.

    Example:
        >>> plan = plan_mixtures(["track 1", "track 2"], {"flute": ["note 1", "note 2"]}, n_mixtures=2)
        >>> len(plan), sorted(plan.host.tolist())
        (2, [0, 1])
    """
    _check(hosts, donors, n_mixtures)
    names = tuple(sorted(donors))
    strata = {"host": sorted(set(hosts))} | {f"donor {name}": sorted(set(donors[name])) for name in names}
    folds = _split(strata, seed)
    host_names: list[str] = []
    donor_names: list[tuple[str, str]] = []
    host_number: dict[str, int] = {}
    donor_number: dict[tuple[str, str], int] = {}
    rows: list[tuple[int, int, int, int, int]] = []
    for fold in range(N_FOLDS):
        count = (n_mixtures + 1 - fold) // N_FOLDS
        these = _ordered(strata["host"], folds, fold, "host", seed)
        for k, name in enumerate(names):
            own = _ordered(strata[f"donor {name}"], folds, fold, f"donor {name}", seed)
            for number, (host, donor) in enumerate(_pairs(these, own, count, name)):
                if host not in host_number:
                    host_number[host] = len(host_names)
                    host_names.append(host)
                if (name, donor) not in donor_number:
                    donor_number[name, donor] = len(donor_names)
                    donor_names.append((name, donor))
                rows.append((k, host_number[host], donor_number[name, donor], fold, N_FOLDS * number + fold))
    host_fold = torch.tensor([folds[host] for host in host_names])
    return MixturePlan(names, tuple(host_names), tuple(donor_names), host_fold, *torch.tensor(rows).T.contiguous())


def mix(host: Tensor, donor: Tensor, level_db: float = LEVEL_DB) -> Tensor:
    """Host plus donor, the donor looped to the host's length and brought to a level below or above the host's.

    Args:
        host: (samples,) waveform.
        donor: (samples,) waveform of any length.
        level_db: level of the donor (root mean square) relative to the host's, in dB.

    Returns:
        (samples,) of the host's length; the sum is not normalised, so the host in it is as it was.

    Raises:
        InputError: an empty or silent waveform, or a level that is not finite.

    Example:
        >>> mixture = mix(torch.ones(4), torch.tensor([1.0, -1.0]), level_db=0.0)
        >>> mixture.tolist()
        [2.0, 0.0, 2.0, 0.0]
    """
    if not abs(level_db) < 200:
        raise InputError(f"level_db={short_repr(level_db)}: not a level; give dB relative to the host, such as -5")
    for name, wave in (("host", host), ("donor", donor)):
        if wave.dim() != 1 or not len(wave):
            raise InputError(f"{name}={tuple(wave.shape)}: not a waveform; give (samples,), at least one")
    looped = donor.repeat(-(-len(host) // len(donor)))[: len(host)]
    for name, wave in (("host", host), ("donor", looped)):
        if not bool(wave.any()):
            raise InputError(f"{name}=silence: its level cannot be matched; leave it out")
    return add_at_level(host[None], looped[None], level_db)[0]


def _check(hosts: Sequence[str], donors: Mapping[str, Sequence[str]], n_mixtures: int) -> None:
    if n_mixtures < N_FOLDS:
        raise InputError(f"n_mixtures={short_repr(n_mixtures)}: one for each fold is needed; give at least {N_FOLDS}")
    if not donors:
        raise InputError("donors={}: no concept; give examples of at least one")
    if len(set(hosts)) < N_FOLDS:
        raise InputError(f"hosts={short_repr(list(hosts))}: too few groups to cross-fit; give at least {N_FOLDS}")
    for name in sorted(donors):
        if len(set(donors[name])) < N_FOLDS:
            raise InputError(
                f"donors[{short_repr(name)}]={short_repr(list(donors[name]))}: too few groups to cross-fit; "
                f"give at least {N_FOLDS}"
            )


def _split(strata: Mapping[str, Sequence[str]], seed: int) -> dict[str, int]:
    """Fold of each group: each stratum is halved, and a group of several strata is in one fold in all of them.

    Groups of many strata come first; each goes where its strata have fewer, and by chance where they have as many.
    """
    member: defaultdict[str, list[str]] = defaultdict(list)
    for stratum, groups in strata.items():
        for group in groups:
            member[group].append(stratum)
    keys = {group: random_key(seed, f"fold {group}") for group in member}
    counts: Counter[tuple[str, int]] = Counter()
    folds: dict[str, int] = {}
    for group in sorted(member, key=lambda g: (-len(member[g]), keys[g])):
        sizes = [sum(counts[stratum, fold] for stratum in member[group]) for fold in range(N_FOLDS)]
        chosen = keys[group][0] % N_FOLDS if sizes[0] == sizes[1] else int(sizes[1] < sizes[0])
        folds[group] = chosen
        counts.update((stratum, chosen) for stratum in member[group])
    for stratum, groups in strata.items():
        if len({folds[group] for group in groups}) < N_FOLDS:
            raise InputError(
                f"{stratum}={short_repr(list(groups))}: all in one fold, as other concepts share them; give more groups"
            )
    return folds


def _ordered(groups: Sequence[str], folds: Mapping[str, int], fold: int, purpose: str, seed: int) -> list[str]:
    return sorted((g for g in groups if folds[g] == fold), key=lambda g: random_key(seed, f"{purpose} {g}"))


def _pairs(hosts: Sequence[str], donors: Sequence[str], count: int, concept: str) -> list[tuple[str, str]]:
    """The n-th pair has the n-th host; donors take turns, one further each time that pairs would repeat."""
    found = []
    period = lcm(len(hosts), len(donors))
    for number in range(count):
        host = hosts[number % len(hosts)]
        first = number + number // period
        turn = (donors[(first + step) % len(donors)] for step in range(len(donors)))
        donor = next((donor for donor in turn if donor != host), None)
        if donor is None:
            raise InputError(
                f"donors[{short_repr(concept)}]={short_repr(list(donors))}: only the host's own sound; give more groups"
            )
        found.append((host, donor))
    return found
