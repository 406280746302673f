"""Sensitivities and scores, by hand and against autograd."""

from __future__ import annotations

import pytest
import torch

from captum_concepts.significance.sensitivity import clip_means, magnitude, sensitivities, tcav_score


def test_sensitivity_is_the_change_of_the_logit_along_the_cav():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)).double()
    activations = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    directions = torch.nn.functional.normalize(torch.randn(4, 6, dtype=torch.float64), dim=1)
    logits = net(activations)
    gradients = torch.stack(
        [torch.autograd.grad(logits[:, t].sum(), activations, retain_graph=True)[0] for t in (2, 0)], 1
    )
    found = sensitivities(gradients, directions)
    step = 1e-6
    with torch.no_grad():
        for k in range(4):
            above, below = net(activations + step * directions[k]), net(activations - step * directions[k])
            torch.testing.assert_close(found[:, :, k], ((above - below) / (2 * step))[:, [2, 0]], rtol=1e-6, atol=1e-8)


def test_clip_means_equal_a_loop():
    values, counts = torch.randn(7, 2, 3), torch.tensor([1, 4, 2])
    wanted = torch.stack([part.mean(0) for part in values.split(counts.tolist())])
    torch.testing.assert_close(clip_means(values, counts), wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_score_is_the_share_of_positive_clips_and_zero_is_not_positive(dtype):
    values = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [3.0, -2.0], [0.5, 1.0]], dtype=dtype)
    assert tcav_score(values).tolist() == [0.75, 0.25]
    assert magnitude(values).tolist() == [0.875, -0.25]
    assert tcav_score(values).dtype == dtype
    assert tcav_score(-values[:, :1]).item() == 1 - tcav_score(values[:, :1]).item()
