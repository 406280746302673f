"""Passes with and without an added sound."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor, nn

from captum_concepts.audio import Clip
from captum_concepts.backbones import TorchBackbone
from captum_concepts.effects import (
    host_gradients,
    in_context_effects,
    measure,
    measured_effects,
    mix,
    patches_by_group,
    plan_mixtures,
)
from captum_concepts.errors import InputError

SAMPLES = 400


class Network(nn.Module):
    """Waveform -> 6 activations -> 3 logits, affine behind the layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(SAMPLES, 6)
        self.bent = nn.Tanh()
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.bent(self.layer(x)))


@pytest.fixture
def backbone() -> TorchBackbone:
    torch.manual_seed(0)
    return TorchBackbone(
        Network(), layers=["layer", "bent"], classes=["a", "b", "c"], sample_rate=1000, patch_seconds=SAMPLES / 1000
    )


@pytest.fixture
def sounds() -> tuple[dict[str, Tensor], dict[str, dict[str, Tensor]]]:
    torch.manual_seed(1)
    hosts = {f"h{i}": torch.randn(SAMPLES) for i in range(6)}
    donors = {name: {f"{name}{i}": torch.randn(300) for i in range(4)} for name in ("x", "y", "z")}
    return hosts, donors


def test_changes_are_those_of_single_passes(backbone: TorchBackbone, sounds: Any) -> None:
    hosts, donors = sounds
    plan = plan_mixtures(list(hosts), {name: list(own) for name, own in donors.items()}, 6)
    seen: list[tuple[str, int, int]] = []
    found = measure(
        backbone, plan, hosts, donors, ["bent"], level_db=-3, batch_size=4, progress=lambda *s: seen.append(s)
    )
    assert found.n_passes == len(plan.hosts) + len(plan)
    assert seen[-1] == ("measuring effects", found.n_passes, found.n_passes)
    network = backbone.model
    with torch.no_grad():
        for i in range(len(plan)):
            host = hosts[plan.hosts[int(plan.host[i])]]
            name, group = plan.donors[int(plan.donor[i])]
            mixed = mix(host, donors[name][group], -3)
            torch.testing.assert_close(found.logit_changes[i], network(mixed) - network(host), atol=1e-5, rtol=1e-4)
            shift = network.bent(network.layer(mixed)) - network.bent(network.layer(host))
            torch.testing.assert_close(found.shifts["bent"][i], shift, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("alternative", ["another", "nothing"])
def test_effects_are_measured_ones_behind_which_the_model_is_affine(
    backbone: TorchBackbone, sounds: Any, alternative: Any
) -> None:
    hosts, donors = sounds
    plan = plan_mixtures(list(hosts), {name: list(own) for name, own in donors.items()}, 6)
    found = measure(backbone, plan, hosts, donors, ["layer", "bent"])
    patches = [hosts[host] for host in plan.hosts]
    gradients = host_gradients(backbone, patches, ["layer", "bent"], [0, 1, 2], batch_size=4)
    assert gradients["bent"].shape == (len(patches), 3, 6)
    measured = measured_effects(found.logit_changes, plan, alternative).effect
    exact = in_context_effects(found.shifts["bent"], gradients["bent"], plan, alternative).effect
    torch.testing.assert_close(exact, measured, atol=1e-5, rtol=1e-4)
    before = in_context_effects(found.shifts["layer"], gradients["layer"], plan, alternative).effect
    assert not torch.allclose(before, measured, atol=1e-4)


def test_one_patch_of_each_group_in_any_order(backbone: TorchBackbone, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    clips = []
    for i in range(6):
        path = tmp_path / f"{i}.wav"
        soundfile.write(path, rng.normal(size=900) * 0.1, 1000)
        clips.append(Clip(str(path), group=f"g{i // 2}"))
    soundfile.write(tmp_path / "silent.wav", np.zeros(900), 1000)
    (tmp_path / "broken.wav").write_bytes(b"no audio")
    clips += [Clip(str(tmp_path / "silent.wav")), Clip(str(tmp_path / "broken.wav"))]
    found, again = patches_by_group(backbone, clips), patches_by_group(backbone, clips[::-1])
    assert list(found) == list(again) and sorted(found) == ["g0", "g1", "g2"]
    assert all(torch.equal(found[group], again[group]) for group in found)
    assert len(patches_by_group(backbone, clips, max_groups=2)) == 2
    with pytest.raises(InputError, match="clips=1 groups"):
        patches_by_group(backbone, clips[-1:])


def test_bad_input_is_refused(backbone: TorchBackbone, sounds: Any) -> None:
    hosts, donors = sounds
    plan = plan_mixtures(list(hosts), {name: list(own) for name, own in donors.items()}, 6)
    with pytest.raises(InputError, match="plan="):
        measure(backbone, plan, {}, donors, ["bent"])
    with pytest.raises(InputError, match="plan="):
        measure(backbone, plan, hosts, {"x": donors["x"]}, ["bent"])
    with pytest.raises(InputError, match="batch_size=0"):
        measure(backbone, plan, hosts, donors, ["bent"], batch_size=0)
