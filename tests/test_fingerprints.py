"""Fingerprints: whatever changes a result changes them, nothing else does, and doubt gives none."""

from __future__ import annotations

import copy
import functools
import importlib.util
import logging
import sys
import threading
import types
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from captum_concepts.fingerprints import Unhashable, fingerprint

GAIN = 2.0


def make(scale):
    return lambda x: x * scale


def nested(scale):
    def inner(x):
        return make(scale)(x)

    return inner


def uses_gain(x):
    return x * GAIN


def recursive(n):
    return recursive(n - 1) if n else 0


class Scaled(nn.Module):
    factor = 1.0

    def __init__(self, scale=2.0, **more):
        super().__init__()
        self.scale = scale
        self.linear = nn.Linear(2, 2)
        torch.manual_seed(0)
        nn.init.normal_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        for name, value in more.items():
            setattr(self, name, value)

    def forward(self, x):
        return self.helper(self.linear(x))

    def helper(self, x):
        return x * self.scale * self.factor


@dataclass
class Settings:
    width: int = 1
    names: tuple[str, ...] = ("a",)


class Slotted:
    __slots__ = ("value",)

    def __init__(self, value):
        self.value = value


def test_the_same_made_twice_is_the_same():
    for build in (
        lambda: Scaled(),
        lambda: make(3.0),
        lambda: nested(2),
        lambda: functools.partial(make(1), 2),
        lambda: nn.LSTM(2, 3),
        lambda: Settings(),
        lambda: Slotted(1),
        lambda: recursive,
    ):
        torch.manual_seed(0)
        one = fingerprint(build())
        torch.manual_seed(0)
        assert one == fingerprint(build())
        assert len(one) == 64
    model = Scaled()
    assert fingerprint(model) == fingerprint(copy.deepcopy(model)) == fingerprint(model.train()) == fingerprint(model)


def test_every_value_that_a_function_holds_counts():
    found = [
        *(make(s) for s in (1.0, 2.0, 1, True, np.float32(1), torch.ones(1), torch.ones(1).double(), "1", None)),
        make([1, 2]),
        make((1, 2)),
        make([2, 1]),
        make({"a": 1}),
        make({"b": 1}),
        make(np.arange(3)),
        make(np.arange(3.0)),
        make(Settings(2)),
        make(Slotted(1)),
        make(Slotted(2)),
        nested(1.0),
        nested(2.0),
        lambda x: x * 2.0,
        lambda x: x * 3.0,
        lambda x: x + 3.0,
        lambda x, y=1: x,
        lambda x, y=2: x,
        lambda x, *, y=2: x,
        functools.partial(pow, 2),
        functools.partial(pow, 3),
        functools.partial(pow, exp=3),
        torch.relu,
        torch.tanh,
        nn.functional.relu,
        torch.ones(2).add,
        torch.zeros(2).add,
        Scaled(1.0).helper,
        Scaled(2.0).helper,
        functools.lru_cache(make(1.0)),
        functools.lru_cache(make(2.0)),
    ]
    assert len({fingerprint(function) for function in found}) == len(found)


def test_every_part_of_a_module_counts():
    changed = [
        Scaled(),
        Scaled(3.0),
        Scaled("2.0"),
        Scaled(settings=Settings()),
        Scaled(settings=Settings(names=("b",))),
        Scaled(table=np.zeros(2)),
        Scaled(table=np.ones(2)),
        Scaled(act=torch.relu),
        Scaled(act=torch.tanh),
        Scaled(nested={"a": [1, {"b": (2.0,)}]}),
        Scaled(nested={"a": [1, {"b": (3.0,)}]}),
        nn.Sequential(Scaled()),
        Scaled().double(),
    ]
    hooked = Scaled()
    hooked.register_forward_hook(lambda module, inputs, output: output * 2)
    patched = Scaled()
    patched.forward = types.MethodType(lambda self, x: x, patched)
    for tensor in ("weight", "bias"):
        model = Scaled()
        getattr(model.linear, tensor).data.view(-1)[0] += 1e-6
        changed.append(model)
    buffered = Scaled()
    buffered.register_buffer("b", torch.zeros(1), persistent=False)
    changed += [hooked, patched, buffered, nn.ReLU(), nn.ELU(1.0), nn.ELU(2.0), nn.Conv1d(2, 2, 1, padding=1)]
    assert len({fingerprint(model) for model in changed}) == len(changed)


def subclass(body, **members):
    return type("Model", (nn.Module,), {"forward": body, **members})()


def test_the_code_of_a_module_counts():
    def one(self, x):
        return x + 1

    def two(self, x):
        return x + 2

    def documented(self, x):
        """Words"""
        return x + 1

    def explained(self, x):
        """change nothing."""
        return x + 1

    models = [
        subclass(one),
        subclass(two),
        subclass(one, helper=one),
        subclass(one, helper=two),
        subclass(one, size=1),
        subclass(one, size=2),
        subclass(one, size=property(one)),
        subclass(one, size=staticmethod(one)),
    ]
    assert len({fingerprint(model) for model in models}) == len(models)
    documented.__qualname__ = explained.__qualname__
    assert fingerprint(subclass(documented)) == fingerprint(subclass(explained))


def test_globals_that_are_named_count(monkeypatch):
    old = fingerprint(uses_gain)
    monkeypatch.setitem(uses_gain.__globals__, "GAIN", 3.0)
    assert fingerprint(uses_gain) != old


def load(folder, name, source):
    path = folder / f"{name}.py"
    path.write_text(source)
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("access", ["import {h} as h\ncall = h.helper", "from {h} import helper as call"])
def test_helpers_in_the_users_own_files_count(tmp_path, access, monkeypatch):
    found = set()
    for i, number in enumerate((1, 2, 1)):
        helper = f"fingerprint_helper_{i}"
        load(tmp_path, helper, f"def helper(x):\n    return inner(x)\n\ndef inner(x):\n    return x * {number}\n")
        source = f"{access.format(h=helper)}\n\ndef forward(x):\n    return call(x)\n"
        user = load(tmp_path, f"fingerprint_user_{i}", source)
        found.add(fingerprint(user.forward))
        if "as h" in access:
            direct = load(
                tmp_path, f"fingerprint_direct_{i}", f"import {helper} as h\n\ndef f(x):\n    return h.helper(x)\n"
            )
            found.add(fingerprint(direct.f))
        monkeypatch.delitem(sys.modules, helper)
    assert len(found) == (4 if "as h" in access else 2)


def test_what_changes_nothing_does_not_count():
    model = Scaled(logger=logging.getLogger("a"))
    other = Scaled(logger=logging.getLogger("b"))
    assert fingerprint(model) == fingerprint(other)
    model.linear.weight.requires_grad_(False)
    model.linear.bias.grad = torch.ones(2)
    assert fingerprint(model.eval()) == fingerprint(other)
    assert fingerprint({"a", "b", "c"}) == fingerprint({"c", "b", "a"})
    assert fingerprint(torch.arange(6).view(2, 3).T) == fingerprint(torch.arange(6).view(2, 3).T.contiguous())


def test_loops_end():
    model = Scaled()
    model.__dict__["me"] = model
    ring: list[object] = [1]
    ring.append(ring)
    assert fingerprint(model) != fingerprint(Scaled())
    assert fingerprint(ring) != fingerprint([1, [1]])


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (torch.Generator(), "Generator"),
        (np.random.default_rng(0), "Generator"),
        (threading.Lock(), "lock"),
        ((i for i in range(3)), "generator"),
        (np.array([object()]), "array of objects"),
        (torch.zeros(2, 2).to_sparse(), "sparse"),
        (torch.empty(2, device="meta"), "tensor whose values cannot be read"),
        (nn.LazyLinear(2), "not yet made"),
        (object(), "object"),
    ],
)
def test_what_cannot_be_read_is_named(value, name):
    for holder in (Scaled(held=value), make(value), functools.partial(pow, value)):
        with pytest.raises(Unhashable, match=name):
            fingerprint(holder)


def test_bottomless_nesting_is_refused():
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(Unhashable, match="too deeply"):
        fingerprint(deep)
    while deep:  # taken apart by hand, as freeing it recursively is the interpreter's own trouble
        deep = deep[0]
