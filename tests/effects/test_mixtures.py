"""Plans of mixtures, and mixing at a level."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
import torch

from captum_concepts.effects import MixturePlan, mix, plan_mixtures
from captum_concepts.errors import InputError

HOSTS = [f"track {i}" for i in range(11)]
DONORS = {"flute": [f"f{i}" for i in range(7)], "cello": [f"c{i}" for i in range(4)], "drum": ["d0", "d1"]}


def named_pairs(plan: MixturePlan) -> list[tuple[str, str, str, int]]:
    rows = zip(plan.concept.tolist(), plan.host.tolist(), plan.donor.tolist(), plan.fold.tolist(), strict=True)
    return [(plan.concepts[c], plan.hosts[h], plan.donors[d][1], fold) for c, h, d, fold in rows]


def test_no_group_is_in_both_folds() -> None:
    plan = plan_mixtures(HOSTS, DONORS, 20)
    pairs = named_pairs(plan)
    for place in (1, 2):
        in_fold = [{pair[place] for pair in pairs if pair[3] == fold} for fold in range(2)]
        assert in_fold[0] and in_fold[1]
        assert not in_fold[0] & in_fold[1]
    assert plan.host_fold[plan.host].tolist() == plan.fold.tolist()


def test_every_concept_has_the_same_hosts() -> None:
    plan = plan_mixtures(HOSTS, DONORS, 9)
    hosts = {name: Counter(pair[1] for pair in named_pairs(plan) if pair[0] == name) for name in DONORS}
    assert hosts["flute"] == hosts["cello"] == hosts["drum"]
    assert all(sum(count.values()) == 9 for count in hosts.values())


def test_groups_are_used_once_before_any_is_used_again() -> None:
    pairs = named_pairs(plan_mixtures(HOSTS, DONORS, 20))
    for fold in range(2):
        for place in (1, 2):
            counts = Counter(pair[place] for pair in pairs if pair[0] == "flute" and pair[3] == fold)
            assert max(counts.values()) - min(counts.values()) <= 1


def test_no_pair_is_repeated_while_there_are_others() -> None:
    pairs = named_pairs(plan_mixtures(HOSTS[:4], {"a": [f"a{i}" for i in range(4)], "b": ["x", "y"]}, 8))
    assert len({pair for pair in pairs if pair[0] == "a"}) == 8


def test_the_plan_does_not_depend_on_the_order() -> None:
    shuffled = {name: random.Random(1).sample(own, len(own)) for name, own in reversed(DONORS.items())}
    first, second = plan_mixtures(HOSTS, DONORS, 12, 3), plan_mixtures(HOSTS[::-1], shuffled, 12, 3)
    assert named_pairs(first) == named_pairs(second)
    assert named_pairs(first) != named_pairs(plan_mixtures(HOSTS, DONORS, 12, 4))


def test_another_concept_changes_no_pair_of_the_first() -> None:
    with_drum = [pair for pair in named_pairs(plan_mixtures(HOSTS, DONORS, 12)) if pair[0] == "flute"]
    alone = named_pairs(plan_mixtures(HOSTS, {"flute": DONORS["flute"]}, 12))
    assert with_drum == alone


def test_a_group_that_is_host_and_donor_has_one_fold_and_is_not_mixed_with_itself() -> None:
    own = [f"track {i}" for i in range(8)]
    pairs = named_pairs(plan_mixtures(HOSTS, {"a": own, "b": own[2:]}, 30))
    assert all(host != donor for _, host, donor, _ in pairs)
    folds: dict[str, set[int]] = {}
    for _, host, donor, fold in pairs:
        folds.setdefault(host, set()).add(fold)
        folds.setdefault(donor, set()).add(fold)
    assert all(len(found) == 1 for found in folds.values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((HOSTS, {}, 4), "donors="),
        ((["a", "a"], DONORS, 4), "hosts="),
        ((HOSTS, {"flute": ["x", "x"]}, 4), r"donors\['flute'\]="),
        ((HOSTS, DONORS, 1), "n_mixtures=1: "),
        ((["a", "b"], {"flute": ["a", "b"]}, 4), "only the host's own sound"),
    ],
)
def test_bad_plans_are_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan_mixtures(*arguments)


@pytest.mark.parametrize("level", [-10.0, -5.0, 0.0])
def test_the_donor_is_looped_and_brought_to_the_level(level: float) -> None:
    host, donor = torch.randn(1000), torch.randn(300) * 7
    added = mix(host, donor, level) - host
    ratio = added.square().mean().sqrt() / host.square().mean().sqrt()
    assert 20 * float(ratio.log10()) == pytest.approx(level, abs=1e-3)
    torch.testing.assert_close(added[:300], added[300:600])
    torch.testing.assert_close(added[:300] / added[0], donor / donor[0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("host", "donor", "level"),
    [
        (torch.zeros(4), torch.ones(4), 0.0),
        (torch.ones(4), torch.zeros(4), 0.0),
        (torch.ones(4), torch.ones(0), 0.0),
        (torch.ones(2, 4), torch.ones(4), 0.0),
        (torch.ones(4), torch.ones(4), float("nan")),
    ],
)
def test_what_cannot_be_mixed_is_refused(host: torch.Tensor, donor: torch.Tensor, level: float) -> None:
    with pytest.raises(InputError):
        mix(host, donor, level)
