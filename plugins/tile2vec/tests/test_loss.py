from __future__ import annotations

import pytest
import torch
from captum_concepts_tile2vec.loss import l2_penalty, triplet_loss
from torch import nn

from captum_concepts.errors import InputError

ANCHORS = torch.tensor([[0.0, 0], [0, 0], [0, 0]])
NEIGHBOURS = torch.tensor([[1.0, 0], [0, 0], [0, 2]])
OPPOSITES = torch.tensor([[0.0, 1], [2, 0], [1, 0]])
# near² = 1, 0, 4; far² = 1, 4, 1; margin 1: losses 1, 0, 4.


@pytest.mark.parametrize(("strategy", "expected"), [("all", 5 / 3), ("active", 5 / 2)])
def test_by_hand(strategy, expected):
    result = triplet_loss(ANCHORS, NEIGHBOURS, OPPOSITES, 1.0, strategy)
    assert result.loss.item() == pytest.approx(expected)
    assert result.near.item() == pytest.approx(5 / 3)
    assert result.far.item() == pytest.approx(2)
    assert result.active.item() == pytest.approx(2 / 3)


@pytest.mark.parametrize(("margin", "expected"), [(0.5, 0.5 + 3.5), (4.0, 4 + 0 + 7), (5.0, 5 + 1 + 8)])
def test_margins(margin, expected):
    assert triplet_loss(ANCHORS, NEIGHBOURS, OPPOSITES, margin, "all").loss.item() * 3 == pytest.approx(expected)


def test_no_active_triplet_is_no_loss():
    anchors = torch.zeros(2, 2, requires_grad=True)
    result = triplet_loss(anchors, torch.zeros(2, 2), torch.full((2, 2), 5.0))
    result.loss.backward()
    assert result.loss.item() == 0
    assert result.active.item() == 0
    assert torch.equal(anchors.grad, torch.zeros(2, 2))


def test_active_only_gradients_are_those_of_the_active_triplets():
    def gradient(rows, strategy):
        anchors = ANCHORS[rows].clone().requires_grad_()
        triplet_loss(anchors, NEIGHBOURS[rows], OPPOSITES[rows], 1.0, strategy).loss.backward()
        return anchors.grad

    both = gradient([0, 2], "all")
    torch.testing.assert_close(gradient([0, 1, 2], "active")[[0, 2]], both)


def test_semi_hard_by_hand():
    anchors = torch.tensor([[0.0], [10.0], [0.0]])
    neighbours = torch.tensor([[1.0], [12.0], [5.0]])  # near² = 1, 4, 25
    opposites = torch.tensor([[4.0], [2.0], [0.5]])
    # Row 0: far² 16, 4, 0.25; the nearest beyond 1 is 4, but it is of the anchor's own group, so 16.
    # Row 1: far² 36, 64, 90.25; nearest beyond 4 is 36. Row 2: none is beyond 25, so the furthest, 16.
    groups = torch.tensor([[7, 1], [2, 7], [3, 4]])
    result = triplet_loss(anchors, neighbours, opposites, 1.0, "all", "semi-hard", groups)
    assert result.far.item() == pytest.approx((16 + 36 + 16) / 3)
    assert result.loss.item() == pytest.approx((25 - 16 + 1) / 3)
    free = torch.tensor([[7, 1], [2, 8], [3, 4]])
    assert triplet_loss(anchors, neighbours, opposites, 1.0, "all", "semi-hard", free).far.item() == pytest.approx(
        (4 + 36 + 16) / 3
    )


def test_all_opposites_by_hand():
    anchors, neighbours = torch.tensor([[0.0], [10.0]]), torch.tensor([[1.0], [12.0]])  # near² = 1, 4
    opposites = torch.tensor([[0.5], [9.0]])  # far² = 0.25, 81 and 90.25, 1
    result = triplet_loss(anchors, neighbours, opposites, 1.0, "all", "all", torch.tensor([[7, 1], [2, 8]]))
    assert result.loss.item() == pytest.approx(((1 - 0.25 + 1) + (4 - 1 + 1)) / 4)
    assert result.near.item() == pytest.approx((1 + 1 + 4 + 4) / 4)
    assert result.active.item() == pytest.approx(2 / 4)
    # The second anchor's group is that of the first opposite: one triplet less, and it was not active.
    own = torch.tensor([[7, 2], [2, 8]])
    assert triplet_loss(anchors, neighbours, opposites, 1.0, "all", "all", own).loss.item() == pytest.approx(5.75 / 3)
    assert triplet_loss(anchors, neighbours, opposites, 1.0, "active", "all", own).loss.item() == pytest.approx(2.875)


def test_all_opposites_have_the_gradient_of_their_triplets_one_by_one():
    torch.manual_seed(0)
    anchors, neighbours, opposites = (torch.randn(6, 3, requires_grad=True) for _ in range(3))
    groups = torch.tensor([[0, 1], [0, 2], [1, 2], [1, 0], [2, 0], [2, 1]])
    triplet_loss(anchors, neighbours, opposites, 1.0, "active", "all", groups).loss.backward()
    found = [these.grad.clone() for these in (anchors, neighbours, opposites)]
    for these in (anchors, neighbours, opposites):
        these.grad = None
    pairs = [(i, j) for i in range(6) for j in range(6) if groups[i, 0] != groups[j, 1]]
    one_by_one = torch.stack(
        [((anchors[i] - neighbours[i]) ** 2).sum() - ((anchors[i] - opposites[j]) ** 2).sum() + 1.0 for i, j in pairs]
    ).clamp_min(0)
    (one_by_one.sum() / (one_by_one > 0).sum()).backward()
    for these, gradient in zip((anchors, neighbours, opposites), found, strict=True):
        torch.testing.assert_close(these.grad, gradient)


def test_mistakes():
    for options, words in (
        ({"strategy": "some"}, "strategy='some'"),
        ({"mining": "hard"}, "mining='hard'"),
        ({"mining": "semi-hard"}, "needs groups"),
        ({"mining": "all"}, "mining='all': needs groups"),
    ):
        with pytest.raises(InputError, match=words):
            triplet_loss(ANCHORS, NEIGHBOURS, OPPOSITES, **options)


def test_l2_takes_kernels_and_biases_and_leaves_normalisations():
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1), nn.Linear(1, 1, bias=False))
    with torch.no_grad():
        model[0].weight.fill_(2.0)
        model[0].bias.fill_(3.0)
        model[1].weight.fill_(100.0)
        model[2].weight.fill_(5.0)
    assert l2_penalty(model).item() == 4 + 9 + 25
