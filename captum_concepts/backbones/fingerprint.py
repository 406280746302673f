"""Hash what a model or a function computes (weights, code, settings), or say why that cannot be known.

Two things with one fingerprint compute the same; two that compute the same may well have two fingerprints, as after a
change of code that changes nothing. What cannot be read completely has no fingerprint, as reusing the results of
another model would be worse than computing them again.

Counted are: tensors (type, shape, bytes; not the device), plain values and containers, attributes of modules and
objects, hooks, and the bytecode of functions with their defaults, closures and the globals they name, followed through
everything that is not the standard library or an installed package of known version. Of those, names and versions
count, and what was put into their classes or modules from elsewhere. Not counted are ``training`` flags, gradients and
loggers. Not seen are things reached only by computed names (``globals()[name]``), files and environment variables read
in ``forward``, what the code of an installed package finds changed in its own module, and global switches of PyTorch.
State that ``forward`` itself changes (a counter) counts, so such a model's results are found again by a new process
only. Bytecode differs between versions of Python.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import logging
import sys
import weakref
from collections import defaultdict, namedtuple
from collections.abc import Callable, Iterator, Mapping
from importlib.util import resolve_name
from pathlib import PurePath
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MappingProxyType,
    MemberDescriptorType,
    MethodDescriptorType,
    MethodType,
    ModuleType,
    SimpleNamespace,
    WrapperDescriptorType,
)
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from captum_concepts.backbones._bytecode import (
    CACHED_FUNCTION,
    code_reads,
    from_outside,
    installed,
    installed_function,
    module_version,
    parts_of,
)

_SCALARS = (type(None), bool, int, float, complex, str, bytes, type(...), type(NotImplemented), range, slice)
_NAMED = (torch.dtype, torch.layout, torch.memory_format, np.dtype, PurePath)
# type(np.max): what NumPy wraps those of its functions in that other kinds of array can take over.
_C_FUNCTIONS = (BuiltinFunctionType, MethodDescriptorType, WrapperDescriptorType, np.ufunc, type(np.max))
_DESCRIPTORS = (GetSetDescriptorType, MemberDescriptorType, type(vars(namedtuple("_Pair", "first"))["first"]))
_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
_HOOKS_OF_ALL = (nn.modules.module._global_forward_pre_hooks, nn.modules.module._global_forward_hooks)
_MODULE_PARTS = ("_parameters", "_buffers", "_modules")
_MODULE_BOOKKEEPING = frozenset(vars(nn.Module())) - set(_MODULE_PARTS)
# What torch.compile puts into nn.Module when it is first used in a process, for its own counts.
_COMPILER_BOOKKEEPING = frozenset({"__init__", "__setstate__", "___needs_generation_tag_patch"})
_CONTAINERS = (list, tuple, set, frozenset, dict, MappingProxyType)
_MEMBERS = (FunctionType, staticmethod, classmethod, property)
_CLASS_BOOKKEEPING = frozenset(
    ("__doc__", "__module__", "__qualname__", "__dict__", "__weakref__", "__firstlineno__", "__static_attributes__")
) | {"__annotate__", "__annotate_func__", "__annotations_cache__", "__slotnames__"}  # the last by the first copy.copy
_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: the class was made at run time, so its objects' state is in attributes


class Unhashable(Exception):
    """Something cannot be read completely, so there is no fingerprint; the message says what."""


def fingerprint(*parts: object, stand_in: Callable[[object], str] | None = None) -> str:
    """sha256, hexadecimal, of everything that decides what ``parts`` compute.

    Args:
        parts: modules, callables, values.
        stand_in: gives the text that is hashed for an object that cannot be read; None refuses such objects.

    Returns:
        64 hexadecimal digits.

    Raises:
        Unhashable: something cannot be read completely; the message names it.

    Example:
        >>> fingerprint("version 1", [1, 2]) == fingerprint("version 1", [1, 2]) != fingerprint("version 2", [1, 2])
        True
    """
    reader = _Reader(stand_in)
    # Of all modules of the process; without any, nothing is added.
    everywhere = [hook for hooks in _HOOKS_OF_ALL for hook in hooks.values()]
    parts = (*parts, everywhere) if everywhere else parts
    try:
        return hashlib.sha256(b"".join(reader.digest(part, _kind(part)) for part in parts)).hexdigest()
    except RecursionError:
        raise Unhashable("its parts are nested too deeply to be read") from None


class _Reader:
    """Digests of objects. That of an object met again is remembered; within itself it says how far out that is."""

    def __init__(self, stand_in: Callable[[object], str] | None = None) -> None:
        self._stand_in = stand_in
        self._known: dict[int, bytes] = {}
        self._bodies: dict[int, bytes] = {}  # of classes, without their bases
        self._depth = 0
        self._alive: list[object] = []  # an id is unique only among living objects

    def digest(self, value: object, where: str) -> bytes:
        if type(value) in _SCALARS:
            return _hash(type(value).__name__, repr(value))
        if id(value) in self._known:
            return self._known[id(value)]
        remembered = not isinstance(value, (tuple, frozenset, CodeType))  # these Python shares as it likes
        if remembered:
            self._alive.append(value)
            self._known[id(value)] = b"itself %d" % self._depth
        self._depth += 1
        try:
            found = _hash(*self._parts(value, where))
        except Unhashable:
            if self._stand_in is None:
                raise
            found = _hash("stand-in", self._stand_in(value))
        finally:
            self._depth -= 1
        if remembered:
            self._known[id(value)] = found
        return found

    def _parts(self, value: Any, where: str) -> Iterator[str | bytes]:
        if isinstance(value, Tensor):
            yield from _tensor(value, where)
            yield from self._beyond(value, where)
        elif isinstance(value, (np.ndarray, np.generic)):
            yield from _array(np.asarray(value), where)
            yield from self._beyond(value, where)
        elif isinstance(value, nn.Module):
            yield from self._module(value, where)
        elif isinstance(value, _NAMED):
            yield from ("named", type(value).__name__, str(value))
        elif isinstance(value, (torch.device, logging.Logger)):
            yield type(value).__name__
        elif isinstance(value, enum.Enum):
            yield from ("enum", self.digest(type(value), where), value.name)
        elif isinstance(value, _SCALARS):
            base: Any = next(kind for kind in _SCALARS if isinstance(value, kind))
            yield from ("scalar", base.__repr__(value))
            yield from self._beyond(value, where)
        elif isinstance(value, _CONTAINERS):
            yield _kind(value)
            yield from self._contents(value, where)
            yield from self._beyond(value, where)
        elif isinstance(value, ModuleType):
            yield from self._namespace(value, where)
        elif isinstance(value, SimpleNamespace):
            yield from ("namespace", self.digest(vars(value), where), self.digest(type(value), where))
        elif isinstance(value, weakref.ref):
            yield from ("reference", self.digest(value(), where))
        else:
            yield from self._behaviour(value, where)

    def _contents(self, value: Any, where: str) -> Iterator[bytes]:
        if isinstance(value, (list, tuple)):
            yield from (self.digest(item, f"{where}[{i}]") for i, item in enumerate(value))
        elif isinstance(value, (set, frozenset)):
            yield from sorted(self.digest(item, where) for item in value)
        else:
            yield from self._items(value, where)

    def _items(self, items: Mapping[Any, object], where: str) -> Iterator[bytes]:
        for key, item in items.items():
            yield self.digest(key, where)
            yield self.digest(item, f"{where}.{key}")

    def _beyond(self, value: Any, where: str) -> Iterator[str | bytes]:
        """What a user's subclass of a tensor, number or container adds to it, and attributes set on it."""
        if type(value).__module__ not in ("builtins", "torch", "numpy"):
            yield from ("of class", self.digest(type(value), where))
            slots = [name for kind in type(value).__mro__ for name in _slots(kind) if hasattr(value, name)]
            yield from self._items({name: getattr(value, name) for name in slots}, where)
        if isinstance(value, defaultdict):
            yield self.digest(value.default_factory, where)
        if getattr(value, "__dict__", None):
            yield from self._items(dict(sorted(value.__dict__.items())), where)

    def _namespace(self, module: ModuleType, where: str) -> Iterator[str | bytes]:
        """A module handed round as a value: of a user's own one, anything may be used."""
        if installed(module.__name__):
            yield from ("module", module_version(module.__name__))
        else:
            yield "own module"
            members = {k: v for k, v in vars(module).items() if not k.startswith("__") or k == "__getattr__"}
            yield from self._items(members, f"{where}: {module.__name__}")

    def _behaviour(self, value: Any, where: str) -> Iterator[str | bytes]:
        """Functions, classes, and objects of classes."""
        if isinstance(value, type):
            yield from self._class(value, where)
        elif isinstance(value, FunctionType):
            yield from self._function(value, where)
        elif isinstance(value, (MethodType, functools.partial)):
            inner = value.__func__ if isinstance(value, MethodType) else value.func
            state = value.__self__ if isinstance(value, MethodType) else (value.args, value.keywords)
            yield from ("bound", _kind(value), self.digest(inner, where), self.digest(state, where))
        elif isinstance(value, _C_FUNCTIONS):
            yield from ("built in", getattr(value, "__qualname__", value.__name__), module_version(_home(value)))
            owner = getattr(value, "__self__", None)
            if not isinstance(owner, ModuleType):
                yield self.digest(owner, where)
        elif isinstance(value, (staticmethod, classmethod)):
            yield from (_kind(value), self.digest(value.__func__, where))
        elif isinstance(value, property):
            yield from (_kind(value), self.digest((value.fget, value.fset, value.fdel), where))
        elif isinstance(value, functools.cached_property):
            yield from (_kind(value), self.digest(value.func, where))
        elif isinstance(value, CACHED_FUNCTION):
            yield from ("cached", self.digest(value.__wrapped__, where))
        else:
            yield from self._object(value, where)

    def _object(self, value: Any, where: str) -> Iterator[str | bytes]:
        slots = [name for kind in type(value).__mro__ for name in _slots(kind) if hasattr(value, name)]
        plain = all(kind is object or kind.__flags__ & _HEAP_TYPE for kind in type(value).__mro__)
        if not plain or not (hasattr(value, "__dict__") or slots):
            raise Unhashable(f"{where} is a {type(value).__name__}, whose state cannot be read")
        yield from ("object", self.digest(type(value), where))
        yield from self._items({name: getattr(value, name) for name in slots}, where)
        yield from self._items(dict(sorted(getattr(value, "__dict__", {}).items())), where)

    def _module(self, module: nn.Module, where: str) -> Iterator[str | bytes]:
        yield from ("nn.Module", self.digest(type(module), where))
        state = vars(module)
        for name in _MODULE_PARTS:
            yield name
            yield from self._items(state[name], where)
        for name in _HOOKS:
            hooks = state[name]
            if hooks:
                yield name
                yield from (self.digest(hook, f"{where}.{name}") for hook in hooks.values())
        others = {name: state[name] for name in sorted(state) if name not in _MODULE_BOOKKEEPING}
        yield from self._items({k: v for k, v in others.items() if k not in _MODULE_PARTS}, where)

    def _class(self, kind: type, where: str) -> Iterator[str | bytes]:
        """A class by its members, those of its bases included; an installed one by name, version and what is not its
        own."""
        yield from ("class", kind.__qualname__)
        if type(kind) is not type:
            yield self.digest(type(kind), f"{where} (metaclass)")
        for base in kind.__mro__:
            if id(base) not in self._bodies:
                read = self._installed_members if installed(base.__module__) else self._own_members
                self._bodies[id(base)] = _hash("itself", base.__qualname__)
                self._bodies[id(base)] = _hash(*read(base, where))
            yield self._bodies[id(base)]

    def _own_members(self, kind: type, where: str) -> Iterator[str | bytes]:
        for name, member in vars(kind).items():
            # The caches of the module abc say nothing about what is computed.
            private = name.startswith(("__", "_abc_")) or isinstance(member, _DESCRIPTORS)
            if name not in _CLASS_BOOKKEEPING and (not private or isinstance(member, _MEMBERS) or callable(member)):
                yield from (name, self.digest(member, f"{where}.{name}"))

    def _installed_members(self, kind: type, where: str) -> Iterator[str | bytes]:
        """Name and version; plain values; which function stands where; and in full what was put there from outside."""
        yield from (kind.__qualname__, module_version(kind.__module__))
        # A class may say that it is of a module that it is not in, as one made by a call (types.new_class) does.
        values = _SCALARS if _found_in_its_module(kind) else (*_SCALARS, *_CONTAINERS, Tensor, np.ndarray)
        for name, member in vars(kind).items():
            if name in _CLASS_BOOKKEEPING:
                continue
            parts = list(parts_of(member))
            outside = any(map(from_outside, parts))
            if kind is nn.Module and name in _COMPILER_BOOKKEEPING and not outside:
                continue
            if outside or (isinstance(member, values) and not name.startswith("__")):
                yield from (name, self.digest(member, f"{where}.{name}"))
            else:
                yield from (name, *(_called(part) for part in parts[:1] if isinstance(part, FunctionType)))

    def _function(self, function: FunctionType, where: str) -> Iterator[str | bytes]:
        yield "function"
        if installed_function(function):
            yield _place(function)
        else:
            yield from self._globals(function, where)
        yield from self._code(function.__code__, where)
        yield self.digest((function.__defaults__, function.__kwdefaults__), f"{where} (defaults)")
        attributes = {
            k: v for k, v in vars(function).items() if k != "__wrapped__" and not installed_function(function)
        }
        yield from self._items(attributes, where)
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            try:
                value = cell.cell_contents
            except ValueError:
                value = "not yet set"
            yield from (name, self.digest(value, f"{where} ({name})"))

    def _globals(self, function: FunctionType, where: str) -> Iterator[str | bytes]:
        reads = code_reads(function.__code__)
        for name, *path in reads.names:
            if name in function.__globals__:
                yield from self._reached(function.__globals__[name], [name, *path], where)
        for name, taken in reads.imports:
            yield from self._imported(name, taken, function, where)

    def _reached(self, value: object, path: list[str], where: str) -> Iterator[str | bytes]:
        """What a chain of names leads to, through as many modules as it goes."""
        end = 1
        while isinstance(value, ModuleType) and end < len(path) and path[end] in vars(value):
            owner, value = value, vars(value)[path[end]]
            # Of an installed module: what stands under the name now, if it tells what it is.
            if installed(owner.__name__) and isinstance(value, FunctionType):
                if not any(map(from_outside, parts_of(value))):
                    yield _called(value)
                    value = owner
            elif installed(owner.__name__) and not isinstance(value, (ModuleType, type, *_SCALARS)):
                value = owner
            if value is owner:
                break
            end += 1
        name = ".".join(path[:end])
        yield from (name, self.digest(value, f"{where}: {name}"))

    def _imported(self, name: str, taken: tuple[str, ...], function: FunctionType, where: str) -> Iterator[str | bytes]:
        """An import that runs only when the function does."""
        package = function.__globals__.get("__package__") or ""
        full = resolve_name(name, package) if name.startswith(".") and package else name
        yield from ("import", full, *taken)
        if installed(full):
            yield module_version(full)
            return
        modules = [full] if taken else [full.partition(".")[0], full]
        for module_name in dict.fromkeys(modules):
            module = sys.modules.get(module_name)
            if module is None:
                raise Unhashable(f"{where} imports {module_name} only when it runs: import it at the top of its file")
            for part in taken or ("",):
                found = vars(module).get(part) or sys.modules.get(f"{module_name}.{part}") if part else module
                yield from (part, self.digest(found, f"{where}: {module_name}.{part}"))

    def _code(self, code: CodeType, where: str) -> Iterator[str | bytes]:
        yield code.co_code
        yield getattr(code, "co_exceptiontable", b"")  # which lines a try holds: no bytecode since Python 3.11
        arguments = code.co_argcount + code.co_kwonlyargcount
        yield str((code.co_flags, code.co_argcount, code.co_posonlyargcount, code.co_varnames[:arguments]))
        yield from (*code.co_names, "|", *code.co_freevars, "|", *code.co_cellvars)
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                yield from self._code(constant, where)
            else:
                yield self.digest(constant, where)


def _hash(*parts: str | bytes) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        digest.update(b"%d:" % len(data))
        digest.update(data)
    return digest.digest()


def _tensor(tensor: Tensor, where: str) -> Iterator[str | bytes]:
    made = not isinstance(tensor, (nn.UninitializedParameter, nn.UninitializedBuffer))
    if not made or tensor.layout is not torch.strided or tensor.is_quantized or tensor.device.type == "meta":
        raise Unhashable(f"{where} is a tensor whose values cannot be read (sparse, quantised or not yet made)")
    values = tensor.detach()
    flat = values.cpu().resolve_conj().resolve_neg().contiguous().flatten()
    yield from ("tensor", str(values.dtype), str(tuple(values.shape)), flat.view(torch.uint8).numpy().data)  # type: ignore[misc]


def _array(array: np.ndarray, where: str) -> Iterator[str | bytes]:
    if array.dtype.hasobject:
        raise Unhashable(f"{where} is an array of objects")
    yield from ("array", str(array.dtype.descr), str(array.shape), array.tobytes())


def _kind(value: object) -> str:
    return type(value).__qualname__


def _slots(kind: type) -> tuple[str, ...]:
    slots = vars(kind).get("__slots__", ())
    names = (slots,) if isinstance(slots, str) else tuple(slots)
    own = f"_{kind.__name__.lstrip('_')}"
    mangled = [own + name if name.startswith("__") and not name.endswith("__") else name for name in names]
    return tuple(name for name in mangled if name not in ("__dict__", "__weakref__"))


def _home(function: Any) -> str:
    owner = getattr(function, "__objclass__", None)
    return str(getattr(owner, "__module__", None) or getattr(function, "__module__", None) or "builtins")


def _place(function: FunctionType) -> str:
    """An installed function, told from its like: two lambdas of a module have one name."""
    code, home = function.__code__, function.__globals__.get("__name__")
    return f"{module_version(str(home))} {code.co_name} {code.co_firstlineno}"


def _called(function: FunctionType) -> str:
    """What an installed function goes by, which stays when its package wraps it anew (as torch._dynamo does)."""
    return _place(function) if "<lambda>" in function.__qualname__ else f"{function.__module__} {function.__qualname__}"


def _found_in_its_module(kind: type) -> bool:
    found: object = sys.modules.get(kind.__module__)
    for name in kind.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is kind or not kind.__flags__ & _HEAP_TYPE
