"""Fingerprints: whatever changes a result changes them, nothing else does, and doubt gives none."""

from __future__ import annotations

import copy
import copyreg
import enum
import functools
import importlib.util
import logging
import math
import subprocess
import sys
import threading
import time
import types
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from captum_concepts.backbones._bytecode import code_reads
from captum_concepts.backbones.fingerprint import Unhashable, fingerprint

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
    # A docstring may be the very constant that the code uses, so it counts.
    assert fingerprint(subclass(documented)) != fingerprint(subclass(explained))


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


def made(source, name="__main__", **names):
    """A function ``f`` from source, as in a user's script."""
    space = {"__name__": name, "functools": functools, "torch": torch, "nn": nn, "F": nn.functional, **names}
    exec(compile(source, "/home/user/script.py", "exec"), space)
    return space["f"]


def distinct(*things):
    return len({fingerprint(thing) for thing in things}) == len(things)


def test_a_function_that_wraps_an_installed_one_is_read_itself():
    wrapping = "@functools.wraps(F.relu)\ndef f(x):\n    return x * {body}\n"
    one, two = made(wrapping.format(body=2)), made(wrapping.format(body=3))
    assert one.__module__ == "torch.nn.functional"
    assert distinct(one, two, nn.functional.relu)
    assert distinct(*(made(wrapping.format(body="SCALE"), SCALE=scale) for scale in (1.0, 4.0)))


def test_an_installed_wrapper_of_the_users_function_is_followed():
    guarded = "@torch.no_grad()\ndef f(x):\n    return x * {body}\n"
    assert distinct(*(made(guarded.format(body=body)) for body in (2, 3)))
    class_made = "class Fixed:\n    def __init__(self, inner, k):\n        functools.update_wrapper(self, inner)\n"
    class_made += (
        "        self.k = k\n    def __call__(self, x):\n        return self.__wrapped__(x) * self.k\nf = Fixed\n"
    )
    kind = made(class_made)
    assert distinct(kind(nn.functional.relu, 1), kind(nn.functional.relu, 2))


@pytest.mark.parametrize(
    "patch",
    [
        lambda self, x: x * 5,
        nn.ReLU.forward,
        torch.no_grad()(lambda self, x: x * 5),
        functools.partialmethod(lambda self, k, x: x * k, 5),
        staticmethod(lambda x: x * 5),
        functools.lru_cache(lambda self, x: x * 5),
        Slotted(5),
    ],
    ids=["lambda", "other installed", "guarded", "partial", "static", "cached", "object"],
)
def test_what_is_put_into_an_installed_class_counts(monkeypatch, patch):
    before, other = fingerprint(nn.Identity()), fingerprint(nn.Dropout())
    with monkeypatch.context() as changed:
        changed.setattr(nn.Identity, "forward", patch)
        assert fingerprint(nn.Identity()) not in (before, other)
        assert fingerprint(nn.Dropout()) == other
        after = fingerprint(nn.Identity())
        if isinstance(patch, Slotted):
            patch.value = 6
            assert fingerprint(nn.Identity()) != after
    assert fingerprint(nn.Identity()) == before


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Makes packages in a folder called site-packages."""
    folder = tmp_path / "site-packages"
    monkeypatch.syspath_prepend(str(folder))

    def make(name, source, distribution=None):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(source)
        if distribution:
            info = folder / f"{distribution}-1.5.dist-info"
            info.mkdir()
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.5\n")
            (info / "top_level.txt").write_text(f"{name}\n")
        importlib.invalidate_caches()
        monkeypatch.delitem(sys.modules, name, raising=False)
        return importlib.import_module(name)

    return make


SCALED = "import torch\nSCALE = {scale}\nK = 1\nclass Scaled(torch.nn.Module):\n    k = 1\n"
SCALED += "    def forward(self, x):\n        return x * SCALE\ndef scaled(x):\n    return x * SCALE\n"


def test_an_installed_package_without_a_version_is_read(package, monkeypatch):
    bare = package("fingerprint_bare", SCALED.format(scale=1.0))
    before = fingerprint(bare.Scaled()), fingerprint(bare.scaled)
    monkeypatch.setattr(bare, "SCALE", 3.0)
    assert fingerprint(bare.Scaled()) != before[0]
    assert fingerprint(bare.scaled) != before[1]


@pytest.mark.parametrize("stated", [True, False])
def test_an_installed_package_with_a_version_counts_by_it(package, monkeypatch, stated):
    name = f"fingerprint_known_{stated}".lower()
    source = SCALED.format(scale=1.0) + ("__version__ = '1.5'\n" if stated else "")
    known = package(name, source, None if stated else "fingerprint_distribution")
    before = fingerprint(known.Scaled()), fingerprint(known.scaled)
    reads = made(f"import {name} as p\ndef f(x):\n    return p.scaled(x) * p.K\n")
    read = fingerprint(reads)
    monkeypatch.setattr(known, "K", 2)  # what the user's own code names is looked at
    assert fingerprint(reads) != read
    monkeypatch.setattr(known.Scaled, "k", 2)
    assert fingerprint(known.Scaled()) != before[0]
    monkeypatch.setattr(known.Scaled, "k", 1)
    assert (fingerprint(known.Scaled()), fingerprint(known.scaled)) == before
    monkeypatch.setattr(known.Scaled, "forward", lambda self, x: x * 7)
    assert fingerprint(known.Scaled()) != before[0]
    monkeypatch.setattr(known, "scaled", lambda x: x * 7)
    assert fingerprint(reads) != read


def test_a_users_file_named_like_a_standard_module_is_read(tmp_path, monkeypatch):
    found = set()
    for number in (1, 2):
        monkeypatch.delitem(sys.modules, "statistics", raising=False)
        monkeypatch.setitem(sys.modules, "statistics", None)
        (tmp_path / str(number)).mkdir()
        module = load(tmp_path / str(number), "statistics", f"def f(x):\n    return x * {number}\n")
        found.add(fingerprint(module.f))
    assert len(found) == 2


def test_what_a_package_wraps_itself_stays_the_same(monkeypatch):
    reads = made("def f(x):\n    torch.manual_seed(0)\n    return F.relu(x)\n")
    before, model = fingerprint(reads), fingerprint(nn.Identity())
    with monkeypatch.context() as changed:
        changed.setattr(torch, "manual_seed", torch.no_grad()(torch.manual_seed))
        changed.setattr(nn.Identity, "forward", torch.no_grad()(nn.Identity.forward))
        assert (fingerprint(reads), fingerprint(nn.Identity())) == (before, model)
    for other in (nn.functional.tanh, lambda x: x):
        monkeypatch.setattr(nn.functional, "relu", other)
        assert fingerprint(reads) != before


def test_docstrings_count():
    same_name = "def f(x):\n    {doc!r}\n    return getattr(x, {name!r})(x)\n"
    assert distinct(*(made(same_name.format(doc=name, name=name)) for name in ("mul", "add")))


def test_an_attribute_named_like_a_function_is_not_that_function():
    source = "def bands(x, held=HELD):\n    return x\ndef f(self, x):\n    return x * self.bands\n"
    one = fingerprint(made(source, HELD=threading.Lock()))
    assert one == fingerprint(made(source, HELD=2))
    uses = source.replace("self.bands", "bands(x)")
    with pytest.raises(Unhashable, match="lock"):
        fingerprint(made(uses, HELD=threading.Lock()))


def test_of_a_users_module_only_what_is_read_counts(tmp_path, monkeypatch):
    helper = "import threading\nLOCK = threading.Lock()\nBANDS = {bands}\ndef helper(x):\n    return x * {body}\n"

    def loaded(using, **values):
        load(tmp_path, "fingerprint_part", helper.format(**({"bands": 1, "body": 1} | values)))
        monkeypatch.delitem(sys.modules, "fingerprint_part_user", raising=False)
        return load(tmp_path, "fingerprint_part_user", using).f

    direct = "import fingerprint_part as h\ndef f(self, x):\n    return h.helper(x) * self.BANDS * self.LOCK\n"
    late = "def f(self, x):\n    from fingerprint_part import helper\n    return helper(x)\n"
    for using in (direct, late):
        one = fingerprint(loaded(using))
        assert one == fingerprint(loaded(using, bands=2))
        assert one != fingerprint(loaded(using, body=2))
    whole = "import fingerprint_part as h\ndef f(x):\n    return getattr(h, 'helper')(x)\n"
    with pytest.raises(Unhashable, match=r"fingerprint_part\.LOCK is a lock"):
        fingerprint(loaded(whole))
    helper = "BANDS = {bands}\ndef helper(x):\n    return x * {body}\n"
    assert distinct(*(loaded(whole, body=body) for body in (1, 2)))
    held = Scaled(held=sys.modules["fingerprint_part"])
    before = fingerprint(held)
    monkeypatch.setattr(sys.modules["fingerprint_part"], "BANDS", 9)
    assert fingerprint(held) != before


def test_imports_inside_functions():
    assert fingerprint(made("def f(x):\n    import math\n    from json import dumps\n    return math.pi * x\n"))
    with pytest.raises(Unhashable, match="imports no_such_module_of_mine only when it runs: import it at the top"):
        fingerprint(made("def f(x):\n    import no_such_module_of_mine as m\n    return m.g(x)\n"))


def test_parts_of_a_function_that_its_bytecode_does_not_show():
    ordered = "def f({}):\n    return {} - {}\n"
    assert distinct(made(ordered.format("a, b", "a", "b")), made(ordered.format("b, a", "b", "a")))
    assert distinct(made("def f(a, b=1):\n    return a"), made("def f(a, *, b=1):\n    return a"))
    short = "def f(x):\n    try:\n        x = x.one()\n    except ValueError:\n        return x\n    {}\n    return x\n"
    long = (
        "def f(x):\n    try:\n        x = x.one()\n        {}\n    except ValueError:\n        return x\n    return x\n"
    )
    assert distinct(made(short.format("x = x.two()")), made(long.format("x = x.two()")))
    by_keyword = made("def f(x, *, k=1.0):\n    return x * k\n")
    many = (
        "def f(x):\n    "
        + "".join(f"x.a{i}; " for i in range(300))
        + "import json.decoder as m\n    return F.relu(x)\n"
    )
    assert code_reads(made(many).__code__) == ((("F", "relu"),), (("json.decoder", ()),))
    before = fingerprint(by_keyword)
    by_keyword.__kwdefaults__["k"] = 3.0
    assert fingerprint(by_keyword) != before


class Pair(NamedTuple):
    first: int = 1
    second: int = 2


class Words(dict):
    def __missing__(self, key):
        return key * 2


class Half(float):
    def __mul__(self, other):
        return float(self) * other / 2


class Mode(enum.IntEnum):
    SOFT = 1
    HARD = 2


class Hidden:
    __slots__ = ("__value",)

    def __init__(self, value):
        self.__value = value


def test_subclasses_of_plain_kinds_count_by_their_code(monkeypatch):
    from collections import OrderedDict, defaultdict

    marked = torch.ones(1)
    marked.gain = 2
    assert distinct(
        *(Pair(), Pair(2), (1, 2), Words(a=1), Words(a=2), {"a": 1}, Half(1.0), Half(2.0), 1.0, Mode.SOFT, Mode.HARD),
        *(1, Hidden(1), Hidden(2), defaultdict(list), defaultdict(int), OrderedDict(), marked, torch.ones(1)),
        np.float64(1.0),
    )
    words, half, mode = fingerprint(Words()), fingerprint(Half(1.0)), fingerprint(Mode.SOFT)
    monkeypatch.setattr(Words, "__missing__", lambda self, key: key * 3)
    monkeypatch.setattr(Half, "__mul__", lambda self, other: 0.0)
    monkeypatch.setattr(Mode, "gain", 5, raising=False)
    assert fingerprint(Words()) != words
    assert fingerprint(Half(1.0)) != half
    assert fingerprint(Mode.SOFT) != mode


def test_a_reference_outwards_says_to_whom():
    def nest(inner_refers_to_root):
        root: list[object] = [1]
        middle: list[object] = [1, root]
        middle.append([root if inner_refers_to_root else middle])
        root.append(middle)
        return root

    assert distinct(nest(True), nest(False))
    assert fingerprint(nest(True)) == fingerprint(nest(True))


class Constants(torch.autograd.Function):
    gain = 1.0

    @staticmethod
    def forward(ctx, x):
        return x * Constants.gain

    @staticmethod
    def backward(ctx, grad):
        return grad * Constants.gain


class Applies(nn.Module):
    class Settings:
        gain = 1.0

    def forward(self, x):
        return Constants.apply(x) * self.Settings.gain


class Reparametrised(nn.Module):
    gain = 1.0

    def forward(self, weight):
        return weight * self.gain


class CallableFront:
    def __init__(self, gain):
        self.gain = gain

    def __call__(self, x):
        return x * self.gain


def hooked(gain):
    model = Scaled()
    model.linear.register_forward_hook(lambda module, inputs, output: output * gain)
    return model


def test_constants_behind_calls_count(monkeypatch):
    assert distinct(hooked(1.0), hooked(2.0))
    assert distinct(CallableFront(1.0), CallableFront(2.0))
    assert distinct(*(Scaled(settings=types.SimpleNamespace(gain=gain)) for gain in (1.0, 2.0)))

    def parametrised():
        model = Scaled()
        nn.utils.parametrize.register_parametrization(model.linear, "weight", Reparametrised())
        return model

    assert distinct(Scaled(), parametrised())
    assert fingerprint(parametrised()) == fingerprint(parametrised())
    for build, owner in ((Applies, Constants), (Applies, Applies.Settings), (parametrised, Reparametrised)):
        before = fingerprint(build())
        monkeypatch.setattr(owner, "gain", 2.0)
        assert fingerprint(build()) != before


def test_hooks_of_all_modules_count():
    before = fingerprint(Scaled())
    handles = [
        nn.modules.module.register_module_forward_hook(lambda module, inputs, output: output * 2),
        nn.modules.module.register_module_forward_pre_hook(lambda module, inputs: (inputs[0] * 2,)),
    ]
    found = [before]
    for handle in handles:
        found.append(fingerprint(Scaled()))
        handle.remove()
    assert len(set(found)) == 3
    assert fingerprint(Scaled()) == before


@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")
def test_compiled_models_whose_code_is_out_of_sight_have_none():
    scripted = torch.jit.script(nn.Linear(2, 2))
    with pytest.raises(Unhashable, match="ScriptModule, whose state cannot be read"):
        fingerprint(nn.Sequential(scripted))


def test_a_network_of_many_parts_is_read_quickly():
    blocks = [nn.Sequential(nn.Conv1d(8, 8, 3), nn.BatchNorm1d(8), nn.ReLU(), Scaled()) for _ in range(50)]
    model = nn.Sequential(*blocks)
    fingerprint(model)
    best = math.inf
    for _ in range(3):
        start = time.process_time()
        fingerprint(model)
        best = min(best, time.process_time() - start)
    assert best < 0.2


def test_compiling_some_other_model_changes_nothing():
    code = (
        "import torch; from torch import nn; from captum_concepts.backbones.fingerprint import fingerprint;"
        "torch.manual_seed(0); net = nn.Sequential(nn.Linear(2, 2), nn.ReLU()); before = fingerprint(net);"
        "torch.compile(nn.Linear(2, 2), backend='eager')(torch.zeros(1, 2));"
        "torch.manual_seed(0); again = nn.Sequential(nn.Linear(2, 2), nn.ReLU());"
        "print(fingerprint(net) == before == fingerprint(again))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["True"]


def test_what_copying_leaves_in_a_class_does_not_count():
    """``copyreg`` remembers the slots of a class in the class when an object of it is first copied or pickled."""
    if "__slotnames__" in vars(torch.Tensor):
        del torch.Tensor.__slotnames__
    before = fingerprint(Scaled())
    copyreg._slotnames(torch.Tensor)
    assert "__slotnames__" in vars(torch.Tensor)
    assert fingerprint(Scaled()) == before


def test_functions_of_numpy_are_told_apart():
    assert fingerprint(Scaled(reduce=np.max)) == fingerprint(Scaled(reduce=np.max))
    assert fingerprint(Scaled(reduce=np.max)) != fingerprint(Scaled(reduce=np.min))


def test_a_stand_in_counts_for_what_cannot_be_read_and_all_else_counts_still():
    lock = threading.Lock()
    with pytest.raises(Unhashable):
        fingerprint(Scaled(lock=lock))
    met = []

    def stand_in(value):
        met.append(value)
        return "a lock"

    found = fingerprint(Scaled(lock=lock), stand_in=stand_in)
    assert met == [lock]
    assert fingerprint(Scaled(lock=threading.Lock()), stand_in=stand_in) == found
    assert fingerprint(Scaled(lock=lock), stand_in=lambda value: "another") != found
    assert fingerprint(Scaled(3.0, lock=lock), stand_in=stand_in) != found
