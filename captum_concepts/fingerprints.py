"""Hash what a model or a function computes: weights, code, settings; or say why that cannot be known.

Two things with one fingerprint compute the same; two that compute the same may well have two fingerprints, as after a
change of code that changes nothing. What cannot be read completely has no fingerprint, as reusing the results of
another model would be worse than computing them again.

Counted are: tensors (type, shape, bytes; not the device), plain values and containers, attributes of modules and
objects, hooks, and the bytecode of functions with their defaults, closures and the globals they name, followed through
everything that is not the standard library or an installed package. Of those, names and versions count. Not counted
are ``training`` flags, gradients, docstrings and loggers. Not seen are things reached only by computed names
(``globals()[name]``), files and environment variables read in ``forward``, and global switches of PyTorch. State that
``forward`` itself changes (a counter) counts, so such a model's results are found again by a new process only.
Bytecode differs between versions of Python.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import logging
import sys
import sysconfig
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
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
    WrapperDescriptorType,
)
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_SCALARS = (type(None), bool, int, float, complex, str, bytes, type(...), type(NotImplemented), range, slice)
_NAMED = (torch.dtype, torch.layout, torch.memory_format, np.dtype, PurePath)
_C_FUNCTIONS = (BuiltinFunctionType, MethodDescriptorType, WrapperDescriptorType, np.ufunc)
_DESCRIPTORS = (GetSetDescriptorType, MemberDescriptorType)
_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
_MODULE_PARTS = ("_parameters", "_buffers", "_modules")
_MODULE_BOOKKEEPING = frozenset(vars(nn.Module())) - set(_MODULE_PARTS)
_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: the class was made at run time, so its objects' state is in attributes
_INSTALLED = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})


class Unhashable(Exception):
    """Why there is no fingerprint."""


def fingerprint(*parts: object) -> str:
    """sha256, hexadecimal, of everything that decides what ``parts`` compute.

    Args:
        parts: modules, callables, values.

    Raises:
        Unhashable: something cannot be read completely; the message names it.
    """
    reader = _Reader()
    try:
        return hashlib.sha256(b"".join(reader.digest(part, _kind(part)) for part in parts)).hexdigest()
    except RecursionError:
        raise Unhashable("its parts are nested too deeply to be read") from None


class _Reader:
    """Digests of objects. That of an object met again is remembered; within itself it is a fixed word."""

    def __init__(self) -> None:
        self._known: dict[int, bytes] = {}
        self._alive: list[object] = []  # an id is unique only among living objects

    def digest(self, value: object, where: str) -> bytes:
        if isinstance(value, _SCALARS):
            return _hash(type(value).__name__, repr(value))
        if id(value) in self._known:
            return self._known[id(value)]
        remembered = not isinstance(value, (tuple, frozenset, CodeType))  # these Python shares as it likes
        if remembered:
            self._alive.append(value)
            self._known[id(value)] = b"itself"
        found = _hash(*self._parts(value, where))
        if remembered:
            self._known[id(value)] = found
        return found

    def _parts(self, value: Any, where: str) -> Iterator[str | bytes]:
        if isinstance(value, Tensor):
            yield from _tensor(value, where)
        elif isinstance(value, (np.ndarray, np.generic)):
            yield from _array(np.asarray(value), where)
        elif isinstance(value, nn.Module):
            yield from self._module(value, where)
        elif isinstance(value, _NAMED):
            yield from ("named", type(value).__name__, str(value))
        elif isinstance(value, (torch.device, logging.Logger)):
            yield type(value).__name__
        elif isinstance(value, enum.Enum):
            yield from ("enum", self.digest(type(value), where), value.name)
        elif isinstance(value, (list, tuple)):
            yield _kind(value)
            yield from (self.digest(item, f"{where}[{i}]") for i, item in enumerate(value))
        elif isinstance(value, (set, frozenset)):
            yield _kind(value)
            yield from sorted(self.digest(item, where) for item in value)
        elif isinstance(value, (dict, MappingProxyType)):
            yield _kind(value)
            yield from self._items(value, where)
        elif isinstance(value, ModuleType):
            yield from ("module", _version(value.__name__))
        elif isinstance(value, weakref.ref):
            yield from ("reference", self.digest(value(), where))
        else:
            yield from self._behaviour(value, where)

    def _items(self, items: Mapping[Any, object], where: str) -> Iterator[bytes]:
        for key, item in items.items():
            yield self.digest(key, where)
            yield self.digest(item, f"{where}.{key}")

    def _behaviour(self, value: Any, where: str) -> Iterator[str | bytes]:
        """Functions, classes, and objects of classes."""
        if isinstance(value, type):
            yield from self._class(value, where)
        elif isinstance(value, FunctionType):
            yield from self._function(value, where)
        elif isinstance(value, (MethodType, functools.partial)):
            inner = value.__func__ if isinstance(value, MethodType) else value.func
            state = value.__self__ if isinstance(value, MethodType) else (value.args, value.keywords)
            yield from ("bound", self.digest(inner, where), self.digest(state, where))
        elif isinstance(value, _C_FUNCTIONS):
            yield from ("built in", getattr(value, "__qualname__", value.__name__), _version(_home(value)))
            owner = getattr(value, "__self__", None)
            if not isinstance(owner, ModuleType):
                yield self.digest(owner, where)
        elif isinstance(value, (staticmethod, classmethod)):
            yield from (_kind(value), self.digest(value.__func__, where))
        elif isinstance(value, (property, functools.cached_property)):
            functions = (value.fget,) if isinstance(value, property) else (value.func,)
            yield from (_kind(value), self.digest(functions, where))
        elif callable(getattr(value, "__wrapped__", None)):
            yield from ("wrapped", self.digest(value.__wrapped__, where))
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
        """A class by the code of its methods, those of its bases included; an installed one by name and version."""
        yield from ("class", kind.__qualname__)
        for base in kind.__mro__:
            if _installed(base.__module__):
                yield from (base.__qualname__, _version(base.__module__))
                continue
            for name, member in vars(base).items():
                if name in ("__doc__", "__module__", "__firstlineno__", "__static_attributes__"):
                    continue
                # The caches of the module abc say nothing about what is computed.
                private = name.startswith(("__", "_abc_")) or isinstance(member, _DESCRIPTORS)
                if not private or isinstance(member, (FunctionType, staticmethod, classmethod, property)):
                    yield from (name, self.digest(member, f"{where}.{name}"))

    def _function(self, function: FunctionType, where: str) -> Iterator[str | bytes]:
        yield from ("function", function.__qualname__.rpartition(".")[2])
        if _installed(function.__module__):
            yield from (function.__qualname__, _version(function.__module__))
        else:
            yield from self._code(function.__code__, function.__doc__, where)
            names = dict.fromkeys(_names(function.__code__))
            for name in names:
                if name in function.__globals__:
                    value = function.__globals__[name]
                    if isinstance(value, ModuleType) and not _installed(value.__name__):
                        yield from self._named_in(value, names, where)
                    else:
                        yield from (name, self.digest(value, f"{where}: {name}"))
        yield self.digest((function.__defaults__, function.__kwdefaults__), f"{where} (defaults)")
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            try:
                value = cell.cell_contents
            except ValueError:
                value = "not yet set"
            yield from (name, self.digest(value, f"{where} ({name})"))

    def _named_in(self, module: ModuleType, names: Mapping[str, object], where: str) -> Iterator[str | bytes]:
        """Of the user's own modules: what the code names of them."""
        for name in names:
            value = vars(module).get(name)
            if isinstance(value, ModuleType) and not _installed(value.__name__):
                yield from self._named_in(value, {k: None for k in names if k != name}, where)
            elif name in vars(module):
                yield from (name, self.digest(value, f"{where}: {module.__name__}.{name}"))

    def _code(self, code: CodeType, doc: str | None, where: str) -> Iterator[str | bytes]:
        yield code.co_code
        yield from (*code.co_names, "|", *code.co_freevars)
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                yield from self._code(constant, None, where)
            elif doc is None or constant != doc:
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
    return tuple(name for name in names if name not in ("__dict__", "__weakref__"))


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _home(function: Any) -> str:
    owner = getattr(function, "__objclass__", None)
    return str(getattr(owner, "__module__", None) or getattr(function, "__module__", None) or "builtins")


@functools.lru_cache(maxsize=4096)
def _installed(module_name: str | None) -> bool:
    """Whether a module is of the standard library or an installed package, not code that its user edits."""
    top = (module_name or "__main__").partition(".")[0]
    if top == "__main__":
        return False
    if top in sys.stdlib_module_names:
        return True
    module = sys.modules.get(top)
    if module is None:
        return False
    places = [module.__file__] if getattr(module, "__file__", None) else list(getattr(module, "__path__", ()))
    return bool(places) and all(_below(str(place)) for place in places)


def _below(place: str) -> bool:
    folders = Path(place).parts
    return "site-packages" in folders or "dist-packages" in folders or place.startswith(_INSTALLED)


def _version(module_name: str) -> str:
    """The module's name and its package's version, without the part that tells builds for CPU and GPU apart."""
    version = getattr(sys.modules.get(module_name.partition(".")[0]), "__version__", "")
    return f"{module_name} {str(version).partition('+')[0]}"
