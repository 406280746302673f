"""``BatchedTCAV`` beside Captum's ``TCAV``: the same numbers where they are right, and right ones where they are not.

A check that Captum fails is run on both: what Captum does there is part of the test.
"""

from __future__ import annotations

import pickle
import random
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
from captum_concepts.layer_rows import input_batches

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
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(4, 5)
        self.head = nn.Linear(5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        sequence, state = self.gru(x.transpose(0, 1))
        return self.head(sequence[-1] + state[0])


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
    theirs, their_scores = seeded(TCAV, tmp_path / "a", all_sets(concepts()))
    ours, our_scores = seeded(BatchedTCAV, tmp_path / "b", all_sets(concepts()), mode="exact")
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
                torch.testing.assert_close(
                    one[key][layer]["magnitude"], other[key][layer]["magnitude"], rtol=1e-5, atol=0
                )
                assert one[key][layer]["magnitude"].abs().max() > 1e-3  # real gradients, not rounding


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
    tcav._fit_batched = lambda sets, missing, _: stages.append(missing)  # type: ignore[method-assign]
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
        ({"layers": ["third"]}, "layer 'third' is not in Net; its layers are: "),
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
    assert all(more[0] is table and more[2] is number and more[3] == "text" for *_, more in batches)
    torch.testing.assert_close(torch.cat([more[1] for *_, more in batches]), per_input)
    assert max(len(more[1]) for *_, more in batches) == 7


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
