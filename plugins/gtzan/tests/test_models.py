"""The networks have the published sizes and compute what the published ones compute."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from captum_concepts_gtzan.checkpoints import load_checkpoint
from captum_concepts_gtzan.dataset import GENRES
from captum_concepts_gtzan.models import MODELS, GenreModel, build_model, fitting_pools

from captum_concepts.errors import InputError

sys.path.insert(0, str(Path(__file__).parent))
import reference_networks as reference

PUBLISHED = [(2, 3), (3, 4), (2, 5), (3, 3), (3, 4)]


def noise(model: GenreModel, count: int = 2) -> torch.Tensor:
    return 0.1 * torch.randn(count, model.patch_samples, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("name", "count"), [("gtzan-cnn", 40124), ("gtzan-vgg16", 134308812), ("gtzan-cnn2", 3914890)])
def test_parameters_are_as_many_as_published(name: str, count: int) -> None:
    with torch.device("meta"):
        model = build_model(name)
    assert sum(parameter.numel() for parameter in model.parameters()) == count


@pytest.mark.parametrize("seconds", [29.1, 3.96])
def test_the_cnn_computes_what_the_published_one_does(tmp_path: Path, seconds: float) -> None:
    pools = PUBLISHED if seconds > 20 else [(f, t) for (f, _), t in zip(PUBLISHED, (3, 3, 3, 3, 2), strict=True)]
    theirs = reference.lively(reference.CNN(pools))
    torch.save(theirs.state_dict(), tmp_path / "cnn.ckpt")
    ours, classes = load_checkpoint(tmp_path / "cnn.ckpt", "gtzan-cnn", seconds=seconds)
    waveforms = noise(ours)
    with torch.no_grad():
        torch.testing.assert_close(ours(waveforms), theirs(waveforms), atol=2e-4, rtol=1e-4)
    assert classes == GENRES


def test_the_vgg_computes_what_torchvisions_does() -> None:
    from torchvision.models import vgg16_bn

    with torch.device("meta"):  # the usual initialisation of 134 million weights takes longer than all else here
        ours = build_model("gtzan-vgg16")
        theirs = vgg16_bn(num_classes=10)
        theirs.features[0] = torch.nn.Conv2d(1, 64, 3, padding=1)
    for child in ours.children():
        if child is not ours.frontend:
            child.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    for parameter in ours.parameters():
        bound = parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 0.1
        parameter.data.uniform_(-bound, bound, generator=generator)
    reference.lively(ours)
    modules = [m for n in range(1, 6) for m in ours.get_submodule(f"block{n}").children()]
    dense = {0: ours.hidden1.dense, 3: ours.hidden2.dense, 6: ours.output}
    state = {f"features.{i}.{k}": v for i, m in enumerate(modules) for k, v in m.state_dict().items()}
    state |= {f"classifier.{i}.{k}": v for i, m in dense.items() for k, v in m.state_dict().items()}
    waveforms = noise(ours, 1)
    with torch.no_grad():
        image = ours.input_norm(reference.mel_decibels(waveforms))
        image = torch.nn.functional.interpolate(image, size=(224, 224), mode="bilinear", align_corners=False)
        expected = torch.func.functional_call(theirs.eval(), state, image)
        torch.testing.assert_close(ours(waveforms), expected, atol=2e-4, rtol=1e-3)


def test_cnn2_gives_the_logits_of_the_published_probabilities(tmp_path: Path) -> None:
    theirs = reference.lively(reference.CNN2())
    torch.save(theirs.state_dict(), tmp_path / "cnn2.pt")
    ours, _ = load_checkpoint(tmp_path / "cnn2.pt", "gtzan-cnn2")
    waveforms = noise(ours)
    with torch.no_grad():
        expected = theirs(reference.mel_decibels(waveforms))
        torch.testing.assert_close(ours(waveforms).softmax(1), expected, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("seconds", [0.5, 1.0, 3.96, 10.0, 29.1, 60.0])
@pytest.mark.parametrize("n_mels", [40, 128])
def test_the_cnn_takes_chunks_of_any_length_with_the_same_weights(seconds: float, n_mels: int) -> None:
    model = build_model("gtzan-cnn", seconds=seconds, n_mels=n_mels)
    assert model(noise(model)).shape == (2, 10)
    model.load_state_dict(build_model("gtzan-cnn").state_dict())


@pytest.mark.parametrize(
    ("size", "pools"), [(1254, [3, 4, 5, 3, 4]), (720, [3, 4, 5, 3, 4]), (171, [3, 3, 3, 3, 2]), (1, [1, 1, 1, 1, 1])]
)
def test_pools_shrink_only_as_far_as_needed(size: int, pools: list[int]) -> None:
    assert fitting_pools(size, [3, 4, 5, 3, 4]) == pools


def test_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    first, second, other = (build_model("gtzan-cnn", seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    for a, b, c in zip(first.parameters(), second.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        assert a.dim() < 2 or not torch.equal(a, c)


def test_options_build_the_same_model_again() -> None:
    model = build_model("gtzan-cnn", channels=4, dropout=0.0, dense_dropout=0.2, n_mels=64, seconds=2.0, n_classes=3)
    again = build_model("gtzan-cnn", **model.options)
    waveforms = noise(model)
    assert torch.equal(model(waveforms), again(waveforms))
    assert [m.p for m in again.modules() if isinstance(m, torch.nn.Dropout)] == [0.0] * 5 + [0.2]


@pytest.mark.parametrize("name", ["gtzan-cnn", "gtzan-cnn2"])
def test_gradients_of_silence_are_finite(name: str) -> None:
    model = build_model(name, seconds=3.96)
    waveforms = torch.zeros(1, model.patch_samples, requires_grad=True)
    model(waveforms).sum().backward()
    assert waveforms.grad is not None and waveforms.grad.isfinite().all()


def test_the_log_mel_stays_in_full_precision() -> None:
    model = build_model("gtzan-cnn", seconds=3.96)
    loud = 30 * noise(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mel = model.log_mel(loud)
    torch.testing.assert_close(mel, reference.mel_decibels(loud), atol=1e-3, rtol=0)


def test_default_layers_are_there() -> None:
    for model in MODELS.values():
        with torch.device("meta"):
            names = dict(build_model(model.name).named_modules())
        assert set(model.default_layers) <= set(names)


@pytest.mark.parametrize(
    "options",
    [
        {"seconds": 0.0},
        {"seconds": float("nan")},
        {"n_classes": 0},
        {"n_mels": -1},
        {"dropout": 1.0},
        {"channels": 2.5},
        {"n_fft": 10**9},
        {"channels": 10**9},
        {"n_mels": 10**9},
        {"seconds": 1e7},
        {"sample_rate": 10**9},
        {"colour": "red"},
    ],
)
def test_impossible_options_are_refused_in_one_line(options: dict[str, object]) -> None:
    with pytest.raises(InputError) as caught:
        build_model("gtzan-cnn", **options)
    assert "\n" not in str(caught.value)


def test_too_short_chunks_for_cnn2_and_unknown_networks_are_refused() -> None:
    with pytest.raises(InputError, match="too small for its pools"):
        build_model("gtzan-cnn2", seconds=1.0)
    with pytest.raises(InputError, match="gtzan-cnn, gtzan-vgg16, gtzan-cnn2"):
        build_model("gtzan-rnn")
    model = build_model("gtzan-cnn")
    with pytest.raises(InputError, match="641655"):
        model(torch.zeros(1, 1000))
