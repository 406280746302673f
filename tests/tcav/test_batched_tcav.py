"""``BatchedTCAV`` beside Captum's ``TCAV``: the same numbers where they are right, and right ones where they are not.

A check that Captum fails is run on both: what Captum does there is part of the test.
"""

from __future__ import annotations

import pickle
import random
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import sklearn.linear_model
import sklearn.svm  # noqa: F401 - importing scikit-learn draws from ``random``, so it is done before anything is seeded
import torch
from captum.attr import LayerIntegratedGradients
from captum.concept import TCAV, Classifier, Concept
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils.data import DataLoader, TensorDataset

from captum_concepts import BatchedTCAV, InputError
from captum_concepts.seeding import random_key
from captum_concepts.tcav.layer_activations import input_batches
from captum_concepts.tcav.scores import stacks

LAYERS = ["first", "second"]
pytestmark = pytest.mark.filterwarnings("ignore")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(12, 10)
        self.second = nn.Linear(10, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.second(torch.relu(self.first(x)))))


class Recurrent(nn.Module):
    def __init__(self, batch_first: bool = False) -> None:
        super().__init__()
        self.gru = nn.GRU(4, 5, batch_first=batch_first)
        self.head = nn.Linear(5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        sequence, state = self.gru(x if self.gru.batch_first else x.transpose(0, 1))
        return self.head((sequence[:, -1] if self.gru.batch_first else sequence[-1]) + state[0])


@pytest.fixture
def forwards():
    """Grows by one entry with each forward pass of a ``Net``; a counter in the model would be part of its state."""
    passes: list[int] = []

    class Count(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            if function is torch.nn.functional.linear and tuple(args[1].shape) == (3, 8):  # the head of Net
                passes.append(1)
            return function(*args, **(kwargs or {}))

    with Count():
        yield passes


def net() -> Net:
    torch.manual_seed(0)
    return Net().eval()


def concepts(count: int = 4, *, rows: int = 24, names: str = "c{}", seed: int = 0, shape: tuple[int, ...] = (12,)):
    generator = torch.Generator().manual_seed(seed)
    made = []
    for i in range(count):
        data = torch.randn(rows, *shape, generator=generator) + torch.randn(shape, generator=generator)
        made.append(Concept(i, names.format(i), DataLoader(TensorDataset(data), batch_size=10)))
    return made


INPUTS = torch.randn(30, 12, generator=torch.Generator().manual_seed(5))


def seeded(kind, folder, sets, targets=(0, 1), model=None, layers=LAYERS, inputs=INPUTS, **options):
    random.seed(3)
    np.random.seed(3)
    tcav = kind(model or net(), layers, save_path=str(folder), **options)
    return tcav, [tcav.interpret(inputs, sets, target=target) for target in targets]


def all_sets(made):
    return [[made[1], made[0]], [made[2], made[0], made[1]], [made[3], made[0]]]


# The exact mode ---------------------------------------------------------------------------------------------------


def test_exact_equals_captum(tmp_path):
    targets = (0, 1, [0, 1, 2] * 10)
    theirs, their_scores = seeded(TCAV, tmp_path / "a", all_sets(concepts()), targets)
    ours, our_scores = seeded(BatchedTCAV, tmp_path / "b", all_sets(concepts()), targets, mode="exact")
    for key, layers in theirs.cavs.items():
        for layer, cav in layers.items():
            stats = ours.cavs[key][layer].stats
            assert torch.equal(stats["weights"], cav.stats["weights"])
            assert stats["classes"] == list(cav.stats["classes"])
    for one, other in zip(their_scores, our_scores, strict=True):
        assert one.keys() == other.keys()
        for key in one:
            for layer in LAYERS:
                assert torch.equal(one[key][layer]["sign_count"], other[key][layer]["sign_count"])
                # The mean of numbers of both signs: beside the relative error one of rounding, however small the mean.
                rounding = 1e-7 * sizes_of_products(ours, key, layer, targets)
                torch.testing.assert_close(
                    one[key][layer]["magnitude"], other[key][layer]["magnitude"], rtol=1e-5, atol=rounding
                )
                assert one[key][layer]["magnitude"].abs().max() > 1e-3  # real gradients, not rounding


def sizes_of_products(tcav, key, layer, targets):
    """The largest length of a gradient times that of the longest CAV of a set."""
    blocks = tcav._gradient_blocks(INPUTS, targets, None, {})
    longest = max(float(values[layer].norm(dim=2).max()) for _, values in blocks)
    return longest * float(tcav.cavs[key][layer].stats["weights"].norm(dim=1).max())


def wrong_magnitude(score):
    return score | {"magnitude": torch.zeros_like(score["magnitude"])}


def wrong_sign_count(score):
    return score | {"sign_count": torch.full_like(score["sign_count"], 0.5)}


def flipped(score):
    return {"sign_count": 1 - score["sign_count"], "magnitude": -score["magnitude"]}


@pytest.mark.parametrize("wrong", [wrong_magnitude, wrong_sign_count, flipped])
@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_planted_directions_have_their_scores(tmp_path, wrong, mode):
    """A linear model says what the scores must be; the three wrong results that Captum's own tests pass do not."""
    model = nn.Sequential(nn.Identity(), nn.Linear(6, 2, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[2.0, 0, 0, 0, 0, 0], [-1.0, 0, 0, 0, 0, 0]]))
    generator = torch.Generator().manual_seed(0)
    rows = 0.1 * torch.randn(2, 60, 6, generator=generator)
    rows[0, :, 0] += 1
    made = [Concept(i, f"c{i}", DataLoader(TensorDataset(rows[i]), batch_size=60)) for i in range(2)]
    random.seed(0)
    np.random.seed(0)
    tcav = BatchedTCAV(model, "0", save_path=str(tmp_path), mode=mode)
    inputs = torch.randn(5, 6, generator=generator)

    def holds(change) -> bool:
        found = [change(score["0-1"]["0"]) for score in tcav.interpret_targets(inputs, [made], [0, 1])]
        signs = [score["sign_count"].tolist() for score in found] == [[1.0, 0.0], [0.0, 1.0]]
        first = tcav.cavs["0-1"]["0"].stats["weights"][:, 0]
        sizes = all(
            torch.allclose(score["magnitude"], factor * first, rtol=1e-4)
            for score, factor in zip(found, (2.0, -1.0), strict=True)
        )
        return signs and sizes

    assert holds(lambda score: score)
    assert not holds(wrong)


def test_user_classifiers_are_called_for_each_set_as_in_captum(tmp_path):
    class Ridge(Classifier):
        def __init__(self):
            self.seen = []

        def train_and_eval(self, dataloader, scale=1.0):
            batches = list(dataloader)
            x, y = torch.cat([b[0] for b in batches]), torch.cat([b[1] for b in batches])
            self.seen.append([tuple(b[0].shape) for b in batches])
            self.kinds = y.unique()
            self.w = scale * torch.stack([x[y == kind].mean(0) - x[y != kind].mean(0) for kind in self.kinds])

        def weights(self):
            return self.w.flip(0)

        def classes(self):
            return self.kinds.flip(0).tolist()

    theirs, ours = Ridge(), Ridge()
    _, expected = seeded(TCAV, tmp_path / "a", all_sets(concepts()), classifier=theirs, scale=2.0)
    _, found = seeded(BatchedTCAV, tmp_path / "b", all_sets(concepts()), classifier=ours, scale=2.0)
    assert ours.seen == theirs.seen
    for one, other in zip(expected, found, strict=True):
        for key in one:
            for layer in LAYERS:
                for name, value in one[key][layer].items():
                    torch.testing.assert_close(other[key][layer][name], value, rtol=1e-5, atol=1e-7)


def test_other_attribution_methods_are_asked_per_layer(tmp_path):
    model = net()
    options = {"layer_attr_method": LayerIntegratedGradients(model, None, multiply_by_inputs=False), "model": model}
    random.seed(3)
    _, expected = seeded(TCAV, tmp_path / "a", all_sets(concepts()), **options)
    _, found = seeded(BatchedTCAV, tmp_path / "b", all_sets(concepts()), mode="exact", **options)
    for one, other in zip(expected, found, strict=True):
        for key in one:
            for layer in LAYERS:
                torch.testing.assert_close(other[key][layer], one[key][layer], rtol=1e-4, atol=1e-6)


# What Captum gets wrong ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [TCAV, BatchedTCAV])
def test_each_concept_meets_the_model_once(tmp_path, kind, forwards):
    model, made = net(), concepts(6)
    sets = [[concept, other] for concept in made[:3] for other in made[3:]]
    kind(model, LAYERS, save_path=str(tmp_path)).compute_cavs(sets)
    batches = 3
    if kind is TCAV:
        assert len(forwards) == 2 * len(sets) * batches  # its cache never hits
    else:
        assert len(forwards) == len(made) * batches


def test_one_forward_for_all_targets_and_layers(tmp_path, forwards):
    model, made = net(), concepts()
    tcav = BatchedTCAV(model, LAYERS, save_path=str(tmp_path))
    tcav.compute_cavs(all_sets(made))
    before = len(forwards)
    together = tcav.interpret_targets(INPUTS, all_sets(made), [0, 1, 2])
    assert len(forwards) == before + 1
    for target in range(3):
        torch.testing.assert_close(
            tcav.interpret(INPUTS, all_sets(made), target), together[target], rtol=1e-5, atol=1e-7
        )


@pytest.mark.parametrize(("kind", "options"), [(TCAV, {}), (BatchedTCAV, {"mode": "exact"}), (BatchedTCAV, {})])
def test_accuracy_of_two_concepts(tmp_path, kind, options):
    """Issue 1122."""
    rows = torch.randn(2, 60, 12, generator=torch.Generator().manual_seed(0))
    rows[1] += 6
    made = [Concept(i, f"c{i}", DataLoader(TensorDataset(part), batch_size=20)) for i, part in enumerate(rows)]
    tcav, _ = seeded(
        kind, tmp_path, [made], model=nn.Sequential(nn.Linear(12, 12), nn.Linear(12, 2)), layers="0", **options
    )
    accuracy = float(tcav.cavs["0-1"]["0"].stats["accs"])
    assert (accuracy < 0.8) if kind is TCAV else (accuracy > 0.99)


@pytest.mark.parametrize("kind", [TCAV, BatchedTCAV])
def test_order_of_results(tmp_path, kind):
    """Issue 1285."""
    made = concepts()
    _, (scores,) = seeded(kind, tmp_path, all_sets(made), targets=[0])
    asked = ["1-0", "2-0-1", "3-0"]
    assert list(scores) == asked if kind is BatchedTCAV else list(scores) != asked
    if kind is BatchedTCAV:
        assert list(scores["1-0"]) == LAYERS


@pytest.mark.parametrize("kind", [TCAV, BatchedTCAV])
def test_sets_of_many_concepts(tmp_path, kind):
    made = concepts(100, rows=3)
    if kind is TCAV:
        with pytest.raises((OSError, RuntimeError)):
            seeded(kind, tmp_path, [made], targets=[0])
        return
    _, (scores,) = seeded(kind, tmp_path, [made], targets=[0])
    ((values),) = (scores["-".join(map(str, range(100)))]["first"]["magnitude"],)
    assert values.shape == (100,)


@pytest.mark.parametrize("kind", [TCAV, BatchedTCAV])
def test_names_with_glob_characters(tmp_path, kind):
    made = concepts(2, names="drum[kick{}]*?")
    if kind is TCAV:
        with pytest.raises(Exception):  # noqa: B017, PT011 - whatever scikit-learn or torch say of no data at all
            seeded(kind, tmp_path, [made], targets=[0])
        return
    _, expected = seeded(kind, tmp_path / "a", [concepts(2)], targets=[0])
    _, found = seeded(kind, tmp_path / "b", [made], targets=[0])
    assert found[0]["0-1"].keys() == expected[0]["0-1"].keys()


@pytest.mark.parametrize("kind", [TCAV, BatchedTCAV])
@pytest.mark.parametrize("layer", ["gru", "gru:1"])
def test_layers_with_tuple_outputs(tmp_path, kind, layer):
    torch.manual_seed(0)
    model, made = Recurrent().eval(), concepts(2, shape=(7, 4))
    inputs = torch.randn(6, 7, 4)
    if kind is TCAV:
        with pytest.raises(Exception):  # noqa: B017, PT011
            seeded(kind, tmp_path, [made], targets=[0], model=model, layers=layer, inputs=inputs)
        return
    tcav, (scores,) = seeded(kind, tmp_path, [made], targets=[0], model=model, layers=layer, inputs=inputs)
    assert tcav.cavs["0-1"][layer].stats["weights"].shape == (2, 35 if layer == "gru" else 5)
    # The last state is all that the head sees, so the gradient is its row for every input.
    gradient = model.head.weight[0].detach()
    weights = tcav.cavs["0-1"][layer].stats["weights"]
    if layer == "gru":
        torch.testing.assert_close(scores["0-1"][layer]["magnitude"], weights[:, -5:] @ gradient, rtol=1e-4, atol=1e-6)


class Int64(Classifier):
    def __init__(self):
        pass

    def train_and_eval(self, dataloader):
        self.features = next(iter(dataloader))[0].shape[1]

    def weights(self):
        return torch.stack([torch.ones(self.features), -torch.ones(self.features)])

    def classes(self):
        return np.array([0, 1], dtype=np.int64)


@pytest.mark.parametrize("kind", [TCAV, BatchedTCAV])
def test_int64_classes_can_be_found_again(tmp_path, kind):
    """Issue 1443."""
    made = concepts(2)
    kind(net(), LAYERS, save_path=str(tmp_path), classifier=Int64()).compute_cavs([made])
    again = kind(net(), LAYERS, save_path=str(tmp_path), classifier=Int64())
    if kind is TCAV:
        with pytest.raises(pickle.UnpicklingError):
            again.compute_cavs([made])
        return
    assert again.load_cavs(made) == ([], {})
    assert again.cavs["0-1"]["first"].stats["classes"] == [0, 1]


@pytest.mark.parametrize("kind", [TCAV, BatchedTCAV])
def test_a_new_concept_object_with_a_known_id(tmp_path, kind):
    """Issue 1164."""
    tcav = kind(net(), LAYERS, save_path=str(tmp_path))
    tcav.compute_cavs([concepts(2)])
    if kind is TCAV:
        with pytest.raises(AssertionError):
            tcav.compute_cavs([concepts(2)])
    else:
        assert list(tcav.compute_cavs([concepts(2)])) == ["0-1"]


@pytest.mark.parametrize("change", ["model", "data", "name"])
@pytest.mark.parametrize("kind", [TCAV, BatchedTCAV])
def test_cavs_of_another_model_or_of_other_data_are_not_used(tmp_path, kind, change):
    before, _ = seeded(kind, tmp_path, [concepts(2)])
    model, made = net(), concepts(2)
    if change == "model":
        with torch.no_grad():
            model.first.weight.mul_(-1)
    elif change == "data":
        made = concepts(2, seed=1)
    else:
        made = concepts(2, names="other{}")
    after, _ = seeded(kind, tmp_path, [made], model=model)
    same = torch.equal(before.cavs["0-1"]["first"].stats["weights"], after.cavs["0-1"]["first"].stats["weights"])
    assert same == (kind is TCAV)


def test_weights_that_change_in_the_same_object_are_noticed(tmp_path):
    model, made = net(), concepts(2)
    tcav = BatchedTCAV(model, LAYERS, save_path=str(tmp_path))
    before = tcav.compute_cavs([made])["0-1"]["first"].stats["weights"]
    with torch.no_grad():
        model.first.weight.mul_(-1)
    assert not torch.equal(before, tcav.compute_cavs([made])["0-1"]["first"].stats["weights"])


@pytest.mark.parametrize("kind", [TCAV, BatchedTCAV])
@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_nothing_is_pickled(tmp_path, kind, mode):
    made = concepts(2)
    seeded(kind, tmp_path, [made], **({"mode": mode} if kind is BatchedTCAV else {}))
    kinds = {path.suffix for path in Path(tmp_path).rglob("*") if path.is_file()}
    assert kinds == ({".pkl", ".pt"} if kind is TCAV else {".safetensors", ".json"})


def test_what_is_there_is_used_again(tmp_path, forwards):
    model = net()
    _, first = seeded(BatchedTCAV, tmp_path, all_sets(concepts()), model=model)
    before = len(forwards)
    tcav = BatchedTCAV(model, LAYERS, save_path=str(tmp_path))
    stages = []
    tcav._fit_batched = lambda sets, missing, *_: stages.append(missing)  # type: ignore[method-assign]
    tcav.compute_cavs(all_sets(concepts()))
    assert len(forwards) == before
    assert stages == [{layer: [] for layer in LAYERS}]
    torch.testing.assert_close(tcav.interpret(INPUTS, all_sets(concepts()), 0), first[0], rtol=0, atol=0)


# The fast mode ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["logistic", "pattern", "lda"])
def test_same_seed_same_bytes_and_no_global_random_numbers(tmp_path, method):
    state, numpy_state = random.getstate(), np.random.get_state()[1].copy()
    results = []
    for name in "ab":
        tcav = BatchedTCAV(net(), LAYERS, save_path=str(tmp_path / name), method=method)
        results.append(tcav.interpret(INPUTS, all_sets(concepts()), 0))
    assert random.getstate() == state
    assert np.array_equal(np.random.get_state()[1], numpy_state)
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=0)


def test_order_company_and_batches_change_nothing_but_rounding(tmp_path):
    made = concepts()
    tcav = BatchedTCAV(net(), LAYERS, save_path=str(tmp_path / "a"))
    whole = tcav.interpret(INPUTS, all_sets(made), 0)
    other = BatchedTCAV(net(), LAYERS, save_path=str(tmp_path / "b"), batch_size=7, chunk_bytes=2000)
    turned = other.interpret(INPUTS, all_sets(made)[::-1], 0)
    alone = BatchedTCAV(net(), LAYERS, save_path=str(tmp_path / "c")).interpret(INPUTS, all_sets(made)[1:2], 0)
    for scores in (turned, alone):
        for key in scores:
            for layer in LAYERS:
                bound = 1e-3 * whole[key][layer]["magnitude"].abs().max().item()
                torch.testing.assert_close(
                    scores[key][layer]["magnitude"], whole[key][layer]["magnitude"], rtol=0, atol=bound
                )
    assert list(turned) == list(whole)[::-1]


@pytest.mark.parametrize(("method", "bound"), [("logistic", 1e-3), ("pattern", 1e-5), ("lda", 1e-5)])
def test_batches_chunks_and_order_agree_to_the_bound_that_is_stated(tmp_path, method, bound):
    made = concepts()
    whole = BatchedTCAV(net(), LAYERS, save_path=str(tmp_path / "w"), method=method).interpret(
        INPUTS, all_sets(made), 0
    )
    for batch_size, chunk_bytes in ((1, 2**28), (7, 2000), (30, 1)):
        other = BatchedTCAV(
            net(), LAYERS, save_path=str(tmp_path / f"{batch_size}"), method=method, batch_size=batch_size,
            chunk_bytes=chunk_bytes,
        )  # fmt: skip
        found = other.interpret(INPUTS, all_sets(made)[::-1], 0)
        for key, layers in whole.items():
            for layer, scores in layers.items():
                largest = max(values[layer]["magnitude"].abs().max().item() for values in whole.values())
                torch.testing.assert_close(
                    found[key][layer]["magnitude"], scores["magnitude"], rtol=0, atol=bound * largest
                )


def test_fast_and_exact_agree_on_what_is_clear(tmp_path):
    made = concepts(rows=60)
    scores = []
    for seed in range(3):
        random.seed(seed)
        np.random.seed(seed)
        exact = BatchedTCAV(net(), LAYERS, save_path=str(tmp_path / f"e{seed}"), mode="exact")
        scores.append(exact.interpret(INPUTS, [made], 0)["0-1-2-3"]["second"]["magnitude"])
    fast = BatchedTCAV(net(), LAYERS, save_path=str(tmp_path / "f")).interpret(INPUTS, [made], 0)
    found = fast["0-1-2-3"]["second"]["magnitude"]
    assert torch.corrcoef(torch.stack([torch.stack(scores).mean(0), found]))[0, 1] > 0.8


def test_every_input_has_its_sensitivities(tmp_path):
    made, model = concepts(), net()
    tcav = BatchedTCAV(model, LAYERS, save_path=str(tmp_path), batch_size=8, chunk_bytes=1)
    scores = tcav.interpret_targets(INPUTS, all_sets(made), [0, 2])
    blocks = list(tcav.iter_sensitivities(INPUTS, all_sets(made), [0, 2]))
    assert [(rows.start, rows.stop) for rows, _ in blocks] == [(0, 8), (8, 16), (16, 24), (24, 30)]
    whole = tcav.sensitivities(INPUTS, all_sets(made), [0, 2])
    for key, layers in whole.items():
        for layer, values in layers.items():
            for number in range(2):
                torch.testing.assert_close(
                    values[:, number].mean(0), scores[number][key][layer]["magnitude"], rtol=1e-5, atol=1e-6
                )
    # One input by hand: the gradient of the logit at the layer, times the CAV.
    hidden = torch.relu(model.first(INPUTS[3])).detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(model.head(torch.tanh(model.second(hidden)))[2], hidden)
    gradient = gradient * (model.first(INPUTS[3]) > 0)
    stats = tcav.cavs["1-0"]["first"].stats
    expected = stats["weights"][[stats["classes"].index(1), stats["classes"].index(0)]] @ gradient
    torch.testing.assert_close(whole["1-0"]["first"][3, 1], expected, rtol=1e-4, atol=1e-6)


def test_new_inputs_need_no_new_fit(tmp_path, forwards):
    """Issues 776 and 1131."""
    made, model = concepts(), net()
    tcav = BatchedTCAV(model, LAYERS, save_path=str(tmp_path))
    tcav.compute_cavs(all_sets(made))
    before = len(forwards)
    tcav.sensitivities(torch.randn(3, 12), all_sets(made), [0])
    assert len(forwards) == before + 1


def test_presence_is_high_for_the_concepts_own_examples(tmp_path):
    made = concepts(3, rows=60)
    tcav = BatchedTCAV(net(), LAYERS, save_path=str(tmp_path))
    own = torch.cat([batch[0] for batch in made[2].data_iter])
    found = tcav.presence(own, [[made[2], made[0]], made])
    assert found["2-0"]["first"].shape == (60, 2)
    assert found["2-0"]["first"][:, 0].mean() > 0.7 > 0.3 > found["2-0"]["first"][:, 1].mean()
    assert (found["0-1-2"]["first"].mean(0).argmax() == 2).item()


def test_the_smooth_score_tends_to_the_sign_count(tmp_path):
    made = concepts()
    cold = BatchedTCAV(net(), LAYERS, save_path=str(tmp_path), temperature=1e-7).interpret(INPUTS, [made[:2]], 0)
    warm = BatchedTCAV(net(), LAYERS, save_path=str(tmp_path), temperature=1e7).interpret(INPUTS, [made[:2]], 0)
    for layer in LAYERS:
        torch.testing.assert_close(cold["0-1"][layer]["smooth"], cold["0-1"][layer]["sign_count"], rtol=0, atol=1e-3)
        torch.testing.assert_close(warm["0-1"][layer]["smooth"], torch.full((2,), 0.5), rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "quick"}, "mode='quick' is not known; use fast or exact"),
        ({"method": "svm"}, "method='svm' is not known"),
        ({"temperature": 0}, "temperature=0 must be positive"),
        ({"layers": ["third"]}, "layer='third': is not in Net; layers: "),
    ],
)
def test_bad_arguments(tmp_path, arguments, message):
    with pytest.raises(InputError) as caught:
        BatchedTCAV(net(), **{"layers": LAYERS, "save_path": str(tmp_path), **arguments})
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_bad_calls(tmp_path):
    made = concepts()
    tcav = BatchedTCAV(net(), LAYERS, save_path=str(tmp_path))
    for sets, message in (
        ([], "experimental_sets: empty"),
        ([[made[0]]], "needs at least two concepts"),
        ([[made[0], made[0]]], "needs at least two concepts"),
        ([[made[0], Concept(9, "empty", None)]], "concept 'empty' has no data_iter"),
        ([[made[0], Concept(8, "none", [])]], "concept 'none' gives no examples"),
    ):
        with pytest.raises(InputError, match=message):
            tcav.compute_cavs(sets)
    with pytest.raises(AssertionError, match="two concepts have the id 0"):
        tcav.compute_cavs([[made[0], made[1]], [concepts()[0], made[2]]])
    with pytest.raises(InputError, match="targets: empty"):
        tcav.interpret_targets(INPUTS, [made], [])
    with pytest.raises(InputError, match="n_steps: the default layer_attr_method takes no options"):
        tcav.interpret(INPUTS, [made], 0, n_steps=3)
    with pytest.raises(InputError, match="target: 2 entries for 30 inputs"):
        tcav.interpret(INPUTS, [made], [0, 1])


def test_captums_stages_and_warnings_are_quiet(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        told = []
        tcav = BatchedTCAV(net(), LAYERS, save_path=str(tmp_path), progress=lambda *what: told.append(what))
        tcav.interpret(INPUTS, all_sets(concepts()), 0)
    assert ("listening to concepts", 4, 4) in told
    assert ("fitting CAVs of second", 3, 3) in told


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cpu_and_gpu_agree(tmp_path):
    _, cpu = seeded(BatchedTCAV, tmp_path / "a", [concepts()])
    tcav, gpu = seeded(BatchedTCAV, tmp_path / "b", [concepts()], model=net().cuda(), inputs=INPUTS.cuda())
    for one, other in zip(cpu, gpu, strict=True):
        for layer in LAYERS:
            found, expected = other["0-1-2-3"][layer]["magnitude"], one["0-1-2-3"][layer]["magnitude"]
            assert found.is_cuda
            bound = 1e-3 * expected.abs().max().item()
            torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=bound)
    again = BatchedTCAV(tcav.model, LAYERS, save_path=str(tmp_path / "b"))
    torch.testing.assert_close(again.interpret(INPUTS, [concepts()], 0), gpu[0], rtol=1e-5, atol=1e-6)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(("precision", "bound"), [("float32", 1e-6), ("bfloat16", 1e-3)])
def test_precision_on_the_gpu_is_as_stated(tmp_path, precision, bound):
    made = concepts(2, rows=60)
    exact = BatchedTCAV(net(), LAYERS, save_path=str(tmp_path / "a"), precision="float64")
    tcav = BatchedTCAV(net().cuda(), LAYERS, save_path=str(tmp_path / "b"), precision=precision)
    for layer in LAYERS:
        found, wanted = fitted(tcav, made, layer)[1].double(), fitted(exact, made, layer)[1].double()
        assert torch.cosine_similarity(found, wanted, dim=0) > 1 - bound


def test_blocks_of_any_size_give_the_same_scores(tmp_path):
    made, inputs = concepts(8, shape=(12,)), torch.randn(21, 12, generator=torch.Generator().manual_seed(5))
    sets = [[a, b] for a in made[:4] for b in made[4:]]
    found = [
        BatchedTCAV(
            net(), LAYERS, save_path=str(tmp_path / str(size)), method="pattern", batch_size=10, chunk_bytes=size
        ).interpret(inputs, sets, target=1)
        for size in (2**28, 400, 800, 1200, 1600, 2000, 2400)
    ]
    for other in found[1:]:
        for name, layers in found[0].items():
            for layer, scores in layers.items():
                for kind, values in scores.items():
                    torch.testing.assert_close(other[name][layer][kind], values, rtol=1e-4, atol=1e-6)


def test_additional_arguments_are_cut_only_where_they_go_with_the_inputs():
    table, per_input, number = torch.zeros(100, 3), torch.arange(len(INPUTS)), torch.tensor(2.0)
    batches = list(input_batches(INPUTS, [1], (table, per_input, number, "text"), 7))
    assert all(b.more[0] is table and b.more[2] is number and b.more[3] == "text" for b in batches)
    torch.testing.assert_close(torch.cat([b.more[1] for b in batches]), per_input)
    assert max(len(b.more[1]) for b in batches) == 7


def test_settings_that_are_changed_afterwards_are_not_those_of_older_cavs(tmp_path):
    made = concepts(2)
    tcav = BatchedTCAV(net(), LAYERS, save_path=str(tmp_path), method="logistic")
    first = tcav.compute_cavs([made])["0-1"]["first"].stats["weights"].clone()
    tcav.classifier_kwargs["C"] = 1e-4
    second = tcav.compute_cavs([made])["0-1"]["first"].stats["weights"].clone()
    assert not torch.allclose(first, second)
    fresh = BatchedTCAV(net(), LAYERS, save_path=str(tmp_path), method="logistic").compute_cavs([made])
    torch.testing.assert_close(fresh["0-1"]["first"].stats["weights"], first)


@pytest.mark.parametrize("name", ["../../victim", "a/b", "/etc/x"])
def test_activation_files_are_never_written_outside(tmp_path, name):
    victim = tmp_path / "victim-0" / "first" / "0.pt"
    victim.parent.mkdir(parents=True)
    victim.write_bytes(b"precious")
    tcav = BatchedTCAV(net(), LAYERS, save_path=str(tmp_path / "cav"))
    with pytest.raises(InputError, match="without slashes"):
        tcav.generate_activation("first", concepts(1, names=name)[0])
    assert victim.read_bytes() == b"precious"


# Nothing stale, nothing shared --------------------------------------------------------------------------------------


class Means(Classifier):
    """Differences of means, longer by a factor that may be changed; always the same tensor, as a network's is."""

    def __init__(self, scale=1.0):
        self.scale = scale
        self.found = None

    def train_and_eval(self, dataloader):
        batches = list(dataloader)
        x, y = torch.cat([b[0] for b in batches]), torch.cat([b[1] for b in batches])
        self.kinds = y.unique()
        found = self.scale * torch.stack([x[y == kind].mean(0) - x[y != kind].mean(0) for kind in self.kinds])
        self.found = found if self.found is None or self.found.shape != found.shape else self.found.copy_(found)

    def weights(self):
        return self.found

    def classes(self):
        return self.kinds.tolist()


def fitted(tcav, members, layer="first", **options):
    key = "-".join(str(concept.id) for concept in members)
    return tcav.compute_cavs([members], **options)[key][layer].stats["weights"]


@pytest.mark.parametrize("mode", ["exact", "fast"])
@pytest.mark.parametrize("change", ["before", "after", "swap"])
def test_a_classifier_that_is_changed_or_replaced_later_is_another_one(tmp_path, mode, change):
    made = concepts(2)
    expected = fitted(BatchedTCAV(net(), LAYERS, save_path=str(tmp_path / "a"), classifier=Means(7.0)), made)
    tcav = BatchedTCAV(net(), LAYERS, save_path=str(tmp_path / "b"), mode=mode, classifier=Means())
    if change == "after":
        first = fitted(tcav, made)
        torch.testing.assert_close(7 * first, expected)
    if change == "swap":
        tcav.classifier = Means(7.0)
    else:
        tcav.classifier.scale = 7.0
    torch.testing.assert_close(fitted(tcav, made), expected)
    # What lies in the folder is that of the classifier that made it.
    fresh = BatchedTCAV(net(), LAYERS, save_path=str(tmp_path / "b"), mode=mode, classifier=Means())
    torch.testing.assert_close(7 * fitted(fresh, made), expected)


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_a_classifier_may_take_the_place_of_the_default_one(tmp_path, mode):
    made = concepts(2)
    tcav = BatchedTCAV(net(), LAYERS, save_path=str(tmp_path), mode=mode)
    default = fitted(tcav, made)
    tcav.classifier = Means(7.0)
    own = fitted(tcav, made)
    assert not torch.allclose(own, default)
    again = BatchedTCAV(net(), LAYERS, save_path=str(tmp_path), mode=mode)
    torch.testing.assert_close(fitted(again, made), default, rtol=0, atol=0)


def test_fits_of_a_classifier_that_reuses_its_tensor_stay_apart(tmp_path):
    made = concepts(3)
    tcav = BatchedTCAV(net(), LAYERS, save_path=str(tmp_path / "a"), classifier=Means())
    found = tcav.compute_cavs([made[:2], made[1:]])
    alone = fitted(BatchedTCAV(net(), LAYERS, save_path=str(tmp_path / "b"), classifier=Means()), made[:2])
    torch.testing.assert_close(found["0-1"]["first"].stats["weights"], alone, rtol=0, atol=0)


def test_a_fitted_classifier_finds_its_cavs_again(tmp_path):
    made, classifier = concepts(3), Means()
    tcav = BatchedTCAV(net(), LAYERS, save_path=str(tmp_path), classifier=classifier)
    tcav.compute_cavs([made[:2]])
    classifier.train_and_eval = None  # would be called
    tcav._left = tcav._key_of(classifier)
    tcav.compute_cavs([made[:2]])


class Locked(Net):
    """A model that no fingerprint can be taken of."""

    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()
        self.gain = 1.0

    def forward(self, x):
        return super().forward(self.gain * x)


def test_models_that_cannot_be_read(tmp_path, forwards):
    made = concepts(2)
    torch.manual_seed(0)
    model = Locked().eval()
    tcav = BatchedTCAV(model, LAYERS, save_path=str(tmp_path))
    before = fitted(tcav, made)
    count = len(forwards)
    assert torch.equal(fitted(tcav, made), before)
    assert len(forwards) == count  # within one object they are found again
    BatchedTCAV(model, LAYERS, save_path=str(tmp_path)).compute_cavs([made])
    assert len(forwards) > count  # but never from the folder
    model.gain = -3.0
    changed = fitted(tcav, made)
    assert not torch.allclose(before, changed)
    count = len(forwards)
    tcav.compute_cavs([made], force_train=True)
    assert len(forwards) > count  # what changes inside the part that cannot be read


CHANGES = {
    "in place": lambda concept, data: data.mul_(-3),
    "through numpy": lambda concept, data: data.numpy().__imul__(-3),
    "another loader": lambda concept, data: setattr(
        concept, "data_iter", DataLoader(TensorDataset(-3 * data), batch_size=10)
    ),
}


@pytest.mark.parametrize("kind", [TCAV, BatchedTCAV])
@pytest.mark.parametrize("change", CHANGES)
def test_data_that_change_behind_a_concept_are_noticed(tmp_path, kind, change):
    made = concepts(2)
    tcav = kind(net(), LAYERS, save_path=str(tmp_path))
    before = fitted(tcav, made).clone()
    CHANGES[change](made[0], made[0].data_iter.dataset.tensors[0])
    assert torch.equal(before, fitted(tcav, made)) == (kind is TCAV)


def test_data_in_a_list_that_change_are_noticed(tmp_path):
    rows = torch.randn(2, 20, 12, generator=torch.Generator().manual_seed(0))
    made = [Concept(0, "a", [rows[0]]), Concept(1, "b", [[rows[1]]])]
    tcav = BatchedTCAV(net(), LAYERS, save_path=str(tmp_path))
    first = fitted(tcav, made)
    rows[1] += 1
    assert not torch.equal(first, fitted(tcav, made))


class Gaussian(torch.utils.data.Dataset):
    """Data that nobody can look into without reading them."""

    def __init__(self, seed):
        self.rows = torch.randn(24, 12, generator=torch.Generator().manual_seed(seed))
        self.reads = 0

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        self.reads += 1
        return self.rows[index]


def test_data_are_read_once_and_anew_when_training_is_forced(tmp_path):
    data = [Gaussian(0), Gaussian(1)]
    made = [Concept(i, f"c{i}", DataLoader(rows, batch_size=10)) for i, rows in enumerate(data)]
    tcav = BatchedTCAV(net(), LAYERS, save_path=str(tmp_path))
    first = tcav.interpret(INPUTS, [made], 0)["0-1"]["first"]["magnitude"]
    tcav.interpret(INPUTS, [made], 1)
    assert [rows.reads for rows in data] == [24, 24]
    data[0].rows *= -2
    forced = tcav.interpret(INPUTS, [made], 0, force_train=True)["0-1"]["first"]["magnitude"]
    assert [rows.reads for rows in data] == [48, 48]
    assert not torch.allclose(first, forced)


def test_iterators_that_can_be_read_only_once(tmp_path):
    loaders = [concept.data_iter for concept in concepts(2)]
    made = [Concept(i, f"c{i}", iter([batch[0] for batch in loader])) for i, loader in enumerate(loaders)]
    tcav = BatchedTCAV(net(), LAYERS, save_path=str(tmp_path / "a"))
    tcav.generate_activation("first", made[0])
    found = tcav.interpret(INPUTS, [made], 0)
    expected = BatchedTCAV(net(), LAYERS, save_path=str(tmp_path / "b")).interpret(INPUTS, [concepts(2)], 0)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    with pytest.raises(InputError, match="'c0' gives no examples; its data_iter can be read only once"):
        tcav.compute_cavs([made], force_train=True)


def test_loaders_that_shuffle(tmp_path):
    def shuffled(seed):
        rows = torch.randn(24, 12, generator=torch.Generator().manual_seed(seed))
        return Concept(seed, f"s{seed}", DataLoader(TensorDataset(rows), batch_size=10, shuffle=True))

    made, model = [shuffled(0), shuffled(1)], net()
    tcav = BatchedTCAV(model, ["first"], save_path=str(tmp_path))
    tcav.generate_activation("first", made[0])
    tcav.generate_activation("second", made[0])  # another layer, so the data are read again
    first = fitted(tcav, made)
    with torch.no_grad():
        model.first.weight.mul_(-1)
    tcav.compute_cavs([made])
    with torch.no_grad():
        model.first.weight.mul_(-1)
    assert fitted(tcav, made).shape == first.shape


def test_changing_what_was_handed_out_changes_no_scores(tmp_path):
    made = concepts(2)
    tcav = BatchedTCAV(net(), LAYERS, save_path=str(tmp_path), method="pattern")
    before = tcav.interpret(INPUTS, [made], 0)
    stats = tcav.cavs["0-1"]["first"].stats
    stats["weights"].zero_()
    stats["classes"].reverse()
    assert tcav.cavs["0-1"]["first"].stats["weights"].abs().max() == 0  # the copy is one's own
    torch.testing.assert_close(tcav.interpret(INPUTS, [made], 0), before, rtol=0, atol=0)
    assert tcav.presence(INPUTS, [made])["0-1"]["first"].unique().numel() > 2


def test_sensitivities_are_those_of_the_cavs_at_the_start(tmp_path):
    made = concepts(2)
    tcav = BatchedTCAV(net(), LAYERS, save_path=str(tmp_path), batch_size=5, chunk_bytes=1)
    whole = tcav.sensitivities(INPUTS, [made], [0])["0-1"]["first"]
    blocks = tcav.iter_sensitivities(INPUTS, [made], [0])
    found = [next(blocks)[1]["0-1"]["first"]]
    tcav.compute_cavs([concepts(2, seed=9)])  # takes the place of 0-1
    found += [block["0-1"]["first"] for _, block in blocks]
    assert len(found) == 6
    torch.testing.assert_close(torch.cat(found), whole, rtol=0, atol=0)


def test_later_runs_find_the_cavs_of_the_last_forced_training(tmp_path):
    made = concepts(2)
    for seed in range(6):  # of two versions, chance would find the right one half of the time
        random.seed(seed)
        np.random.seed(seed)
        tcav = BatchedTCAV(net(), LAYERS, save_path=str(tmp_path), mode="exact")
        forced = fitted(tcav, made, force_train=True)
        later = BatchedTCAV(net(), LAYERS, save_path=str(tmp_path), mode="exact")
        assert torch.equal(fitted(later, made), forced)


# Names, layers, types -----------------------------------------------------------------------------------------------


def test_names_of_any_length_and_kind(tmp_path):
    names = ["a" * 300, "../../x", "."]
    plain = concepts(3)
    made = [Concept(i, name, plain[i].data_iter) for i, name in enumerate(names)]
    for classifier in (None, Means()):
        options = {"classifier": classifier, "method": "pattern"}
        found = BatchedTCAV(net(), LAYERS, save_path=str(tmp_path / "a" / "b"), **options).interpret(INPUTS, [made], 0)
        expected = BatchedTCAV(net(), LAYERS, save_path=str(tmp_path / "c"), **options).interpret(INPUTS, [plain], 0)
        if classifier is not None:  # it holds out nothing, and what is held out goes by the names
            torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert {path.name for path in tmp_path.iterdir()} == {"a", "c"}
    tcav = BatchedTCAV(net(), LAYERS, save_path=str(tmp_path / "d"))
    with pytest.raises(InputError, match="of at most 255 bytes"):
        tcav.generate_activation("first", made[0])


@pytest.mark.parametrize("kind", [TCAV, BatchedTCAV])
def test_a_layer_named_twice_is_one_layer(tmp_path, kind):
    _, (scores,) = seeded(kind, tmp_path, [concepts(2)], targets=[0], layers=["first", "second", "first"])
    assert list(scores["0-1"]) == LAYERS


@pytest.mark.parametrize("batch_size", [None, 7])
def test_options_with_an_entry_for_each_input_are_cut_like_the_inputs(tmp_path, batch_size):
    made, model = concepts(2), net()
    baselines = torch.randn(INPUTS.shape, generator=torch.Generator().manual_seed(8))
    method = LayerIntegratedGradients(model, None, multiply_by_inputs=False)
    given = {"layer_attr_method": method, "model": model}

    def scores(kind, folder, **options):
        random.seed(0)
        np.random.seed(0)
        tcav = kind(layers=LAYERS, save_path=str(tmp_path / folder), **given, **options)
        return tcav.interpret(INPUTS, [made], 0, baselines=baselines)["0-1"]

    expected = scores(TCAV, "a")
    exact = scores(BatchedTCAV, "b", mode="exact", batch_size=batch_size)
    fast = scores(BatchedTCAV, "c", batch_size=batch_size)
    for layer in LAYERS:
        torch.testing.assert_close(exact[layer], expected[layer], rtol=1e-4, atol=1e-6)
        assert fast[layer]["magnitude"].abs().max() > 1e-3


@pytest.mark.parametrize("spoil", ["nan", "infinite"])
@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_activations_that_are_no_numbers_are_named(tmp_path, mode, spoil):
    made = concepts(3)
    made[1].data_iter.dataset.tensors[0][3] = float(spoil.removesuffix("inite"))
    tcav = BatchedTCAV(net(), LAYERS, save_path=str(tmp_path), mode=mode)
    with pytest.raises(InputError, match="concept 'c1', layer 'first': NaN or infinite activations in 1 of ") as caught:
        tcav.compute_cavs([made])
    assert "\n" not in str(caught.value)


def test_bfloat16_activations(tmp_path):
    half = [
        Concept(c.id, c.name, DataLoader(TensorDataset(c.data_iter.dataset.tensors[0].bfloat16()), batch_size=10))
        for c in concepts(2)
    ]
    exact = BatchedTCAV(net().bfloat16(), LAYERS, save_path=str(tmp_path / "a"), mode="exact")
    with pytest.raises(InputError, match="concept 'c0', layer 'first': activations in bfloat16"):
        exact.compute_cavs([half])
    fast = BatchedTCAV(net().bfloat16(), LAYERS, save_path=str(tmp_path / "b"))
    found = fast.interpret(INPUTS.bfloat16(), [half], 0)["0-1"]["second"]["magnitude"]
    wanted = BatchedTCAV(net(), LAYERS, save_path=str(tmp_path / "c")).interpret(INPUTS, [concepts(2)], 0)
    torch.testing.assert_close(found, wanted["0-1"]["second"]["magnitude"], rtol=0.05, atol=0)


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_double_precision_is_kept(tmp_path, mode):
    """An output that changes by less than single precision can tell between two inputs."""
    made = [
        Concept(c.id, c.name, DataLoader(TensorDataset(c.data_iter.dataset.tensors[0].double()), batch_size=10))
        for c in concepts(2)
    ]
    model = net().double()
    tcav = BatchedTCAV(model, ["second"], save_path=str(tmp_path), mode=mode, temperature=1.0)
    scores = tcav.interpret(INPUTS.double(), [made], 0)["0-1"]["second"]
    weights = tcav.cavs["0-1"]["second"].stats["weights"].double()
    hidden = model.second(torch.relu(model.first(INPUTS.double()))).detach().requires_grad_(True)
    (gradients,) = torch.autograd.grad(model.head(torch.tanh(hidden))[:, 0].sum(), hidden)
    assert scores["magnitude"].dtype == torch.float64
    torch.testing.assert_close(scores["magnitude"], (gradients @ weights.T).mean(0), rtol=1e-12, atol=0)
    along = gradients @ weights.T / weights.norm(dim=1)
    torch.testing.assert_close(scores["smooth"], torch.sigmoid(along).mean(0), rtol=1e-12, atol=0)
    assert tcav.sensitivities(INPUTS.double(), [made], [0])["0-1"]["second"].dtype == torch.float64


def test_targets_of_numpy(tmp_path):
    made, each = concepts(2), np.arange(len(INPUTS)) % 3
    tcav = BatchedTCAV(net(), LAYERS, save_path=str(tmp_path))
    found = tcav.interpret_targets(INPUTS, [made], [np.int64(1), each, [np.int32(2)] * len(INPUTS), (np.int8(2),)])
    expected = tcav.interpret_targets(INPUTS, [made], [1, each.tolist(), 2, 2])
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    with pytest.raises(InputError, match=r"target 3 does not fit the model's output \(30, 3\): ") as caught:
        tcav.interpret(INPUTS, [made], 3)
    assert "\n" not in str(caught.value)


def test_precision_is_an_option_of_the_fast_mode(tmp_path):
    made = concepts(2, rows=60)
    found = {
        precision: fitted(BatchedTCAV(net(), LAYERS, save_path=str(tmp_path), precision=precision), made)[1].double()
        for precision in ("float64", "float32", "bfloat16")
    }
    cosines = {k: torch.cosine_similarity(v, found["float64"], dim=0).item() for k, v in found.items()}
    assert cosines["float32"] > 1 - 1e-6
    assert 1 - 1e-3 < cosines["bfloat16"] < 1 - 1e-9  # another one, not the one from the folder
    for options, message in (
        ({"precision": "int8"}, "precision='int8' is not known; use float32, float64, bfloat16"),
        ({"precision": "bfloat16", "mode": "exact"}, "an option of mode='fast'"),
        ({"precision": "bfloat16", "classifier": Means()}, "without a classifier of your own"),
    ):
        with pytest.raises(InputError, match=message):
            BatchedTCAV(net(), LAYERS, save_path=str(tmp_path), **options)


# What the numbers are -------------------------------------------------------------------------------------------------


def by_hand(model, layer, members, inputs, target, *, names=None, seed=0, ratio=0.33):
    """Differences of means of the rows that are not held out, and what follows from them, in NumPy."""
    rows, held = [], []
    for concept in members:
        with torch.no_grad():
            data = torch.cat([batch[0] for batch in concept.data_iter])
            hidden = model.first(data)
            rows.append((hidden if layer == "first" else model.second(torch.relu(hidden))).double().numpy())
        order = np.random.default_rng(list(random_key(seed, concept.identifier))).permutation(len(data))
        held.append(np.isin(np.arange(len(data)), order[: int(ratio * len(data))]))
    kept = [part[~out] for part, out in zip(rows, held, strict=True)]
    weights, biases = [], []
    for own in range(len(members)):
        rest = np.concatenate([part for i, part in enumerate(kept) if i != own]).mean(0)
        mean = kept[own].mean(0)
        weights.append(mean - rest)
        biases.append(-(mean - rest) @ (mean + rest) / 2)
    weights, biases = np.array(weights), np.array(biases)
    hidden = model.first(inputs).detach()
    hidden = (hidden if layer == "first" else model.second(torch.relu(hidden)).detach()).requires_grad_(True)
    out = model.head(torch.tanh(hidden if layer == "second" else model.second(torch.relu(hidden))))
    gradients = torch.autograd.grad(out[:, target].sum(), hidden)[0].double().numpy()
    tested = [part[out] @ weights.T + biases for part, out in zip(rows, held, strict=True)]
    right = sum((values.argmax(1) == i).sum() for i, values in enumerate(tested))
    return {
        "weights": weights,
        "accuracy": right / sum(map(len, tested)),
        "presence": 1 / (1 + np.exp(-(hidden.detach().double().numpy() @ weights.T + biases))),
        "along": gradients @ weights.T,
        "lengths": np.linalg.norm(weights, axis=1),
    }


@pytest.mark.parametrize("names", ["c{}", "drum[kick{}]*?", "a/{}" + "x" * 300])
@pytest.mark.parametrize(("count", "seed"), [(2, 0), (3, 5), (100, 0)])
def test_every_number_by_hand(tmp_path, count, seed, names):
    model, made = net(), concepts(count, rows=9 if count > 3 else 24, names=names)
    options = {"method": "pattern", "seed": seed, "temperature": 0.05, "batch_size": 7}
    tcav = BatchedTCAV(model, LAYERS, save_path=str(tmp_path), **options)
    turned = made[::-1]  # the caller's order is not the order of ids
    key = "-".join(str(concept.id) for concept in turned)
    for layer in LAYERS:
        expected = by_hand(model, layer, turned, INPUTS, 1, seed=seed)
        found = tcav.interpret(INPUTS, [turned], 1)[key][layer]
        stats = tcav.cavs[key][layer].stats
        assert stats["classes"] == sorted(concept.id for concept in made)
        close = {"rtol": 1e-4, "atol": 1e-6}
        np.testing.assert_allclose(stats["weights"].flip(0), expected["weights"], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(stats["accs"], expected["accuracy"], rtol=1e-6)
        np.testing.assert_allclose(found["magnitude"], expected["along"].mean(0), **close)
        clear = np.abs(expected["along"]).min(0) > 1e-5
        assert clear.sum() > 0.8 * count
        np.testing.assert_allclose(found["sign_count"][clear], (expected["along"] > 0).mean(0)[clear], rtol=1e-6)
        smooth = 1 / (1 + np.exp(-expected["along"] / (0.05 * expected["lengths"])))
        np.testing.assert_allclose(found["smooth"], smooth.mean(0), rtol=1e-3)
        presence = tcav.presence(INPUTS, [turned])[key][layer]
        np.testing.assert_allclose(presence, expected["presence"], rtol=1e-3, atol=1e-6)


def test_derivatives_of_zero_are_not_positive(tmp_path):
    model = net()
    with torch.no_grad():
        model.head.weight[1].zero_()
    scores = seeded(BatchedTCAV, tmp_path, [concepts(2)], targets=[1], model=model)[1][0]["0-1"]["second"]
    assert scores["sign_count"].tolist() == scores["magnitude"].tolist() == [0, 0]


def test_presence_of_the_exact_mode_is_the_classifiers(tmp_path):
    """Of concepts that are told apart the inputs of each show it, whichever row of the two is its own."""
    made = concepts(2, rows=60)
    for concept, far in zip(made, (3.0, -3.0), strict=True):
        concept.data_iter.dataset.tensors[0].add_(far + 10)
    tcav, _ = seeded(BatchedTCAV, tmp_path, [made], targets=[0], mode="exact")
    own = [concept.data_iter.dataset.tensors[0] for concept in made]
    for layer in LAYERS:
        for number, rows in enumerate(own):
            assert (tcav.presence(rows, [made])["0-1"][layer].argmax(1) == number).double().mean() > 0.9


def test_stacks_stay_within_their_bound():
    stats = [{"weights": torch.randn(2, 50), "classes": [0, 1]}] * 100
    gradients = torch.randn(2, 10, 50)
    sizes = [len(stack.numbers) for stack in stacks(stats, [(0, 1)] * 100, 20, gradients, 10_000)]
    assert sum(sizes) == 100 and len(sizes) > 1
    # The weights, and the derivatives along them as products and in the caller's order.
    assert max(sizes) * 4 * (2 * 50 + 2 * 20 * 2) <= 10_000


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("layer", ["gru", "gru:0", "gru:1"])
def test_values_of_layers_with_tuple_outputs(tmp_path, layer, batch_first):
    torch.manual_seed(0)
    model, made = Recurrent(batch_first).eval(), concepts(2, shape=(7, 4))
    inputs = torch.randn(6, 7, 4)
    tcav = BatchedTCAV(model, layer, save_path=str(tmp_path), method="pattern", test_split_ratio=0.0)
    scores = tcav.interpret_targets(inputs, [made], [0, 1])
    means = []
    for concept in made:
        with torch.no_grad():
            data = concept.data_iter.dataset.tensors[0]
            sequence, state = model.gru(data if batch_first else data.transpose(0, 1))
        sequence = sequence if batch_first else sequence.transpose(0, 1)
        means.append((state[0] if layer == "gru:1" else sequence.flatten(1)).mean(0))
    weights = torch.stack([means[0] - means[1], means[1] - means[0]])
    torch.testing.assert_close(tcav.cavs["0-1"][layer].stats["weights"], weights, rtol=1e-4, atol=1e-6)
    # The output is linear in both: in the last frame of the sequence, and in the state.
    for target, found in enumerate(scores):
        expected = weights[:, -5:] @ model.head.weight[target].detach()
        torch.testing.assert_close(found["0-1"][layer]["magnitude"], expected, rtol=1e-4, atol=1e-6)


def test_the_mode_and_the_side_of_the_layer_may_be_changed(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 12), nn.Dropout(0.9), nn.Linear(12, 2)).train()
    tcav = BatchedTCAV(model, "1", save_path=str(tmp_path / "a"), mode="exact", method="pattern")
    tcav.compute_cavs([concepts(2)])
    tcav.mode = "fast"
    options = {"method": "pattern", "save_path": str(tmp_path / "b")}
    torch.testing.assert_close(
        fitted(tcav, concepts(2), "1"), fitted(BatchedTCAV(model, "1", **options), concepts(2), "1")
    )
    tcav.layers, tcav.attribute_to_layer_input = ["0"], True
    other = BatchedTCAV(model, "0", attribute_to_layer_input=True, **options)
    torch.testing.assert_close(fitted(tcav, concepts(2), "0"), fitted(other, concepts(2), "0"))


def test_dropout_of_a_model_in_training_mode(tmp_path):
    """In training mode a model with dropout gives other activations each time: the exact mode hears each batch once."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 8), nn.Dropout(0.5), nn.Linear(8, 2)).train()
    exact = BatchedTCAV(model, "1", save_path=str(tmp_path / "a"), mode="exact")
    exact.compute_cavs([concepts(2)])
    assert model.training and model[1].training
    first = fitted(BatchedTCAV(model, "1", save_path=str(tmp_path / "b")), concepts(2), "1")
    again = fitted(BatchedTCAV(model, "1", save_path=str(tmp_path / "c")), concepts(2), "1")
    torch.testing.assert_close(first, again, rtol=0, atol=0)  # the fast mode is in evaluation mode
    assert model[1].training
