"""Whose code a function is, and what it reads by name: what a fingerprint has to know before it can hash behaviour.

``functools.wraps`` copies ``__module__`` and ``__qualname__`` from what it wraps, and a method may be put into a class
of another package while the program runs. Whose a function is, is therefore read from its code: the file it was
compiled from and the globals it runs in.
"""

from __future__ import annotations

import dis
import functools
import importlib.util
import os
import sys
import sysconfig
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from types import CellType, CodeType, FunctionType, MethodType
from typing import NamedTuple

_FOLDERS = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
_INSTALLED = tuple({folder.rstrip(os.sep) + os.sep for folder in (*_FOLDERS, os.path.dirname(os.__file__))})
CACHED_FUNCTION = type(functools.lru_cache(len))
_GLOBAL_READS = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
_ATTRIBUTE_READS = ("LOAD_ATTR", "LOAD_METHOD")


class CodeReads(NamedTuple):
    """What a function reads by name, the functions and classes made inside it included.

    Attributes:
        names: global names, each followed by the attributes that are read from it at once: ("F", "relu").
        imports: modules imported when it runs, with leading dots where relative, and the names taken from each;
            without names the module as a whole.
    """

    names: tuple[tuple[str, ...], ...]
    imports: tuple[tuple[str, tuple[str, ...]], ...]


@functools.lru_cache(maxsize=16384)
def code_reads(code: CodeType) -> CodeReads:
    """The names that ``code`` reads; attributes of anything but global names are not among them."""
    names: dict[tuple[str, ...], None] = {}
    imports: dict[tuple[str, tuple[str, ...]], None] = {}
    steps = [step for step in dis.get_instructions(code) if step.opname != "EXTENDED_ARG"]
    for i, step in enumerate(steps):
        if step.opname in _GLOBAL_READS:
            end = i + 1
            while end < len(steps) and steps[end].opname in _ATTRIBUTE_READS:
                end += 1
            names[tuple(str(part.argval) for part in steps[i:end])] = None
        elif step.opname == "IMPORT_NAME":
            level, taken = steps[i - 2].argval, steps[i - 1].argval
            imports["." * level + step.argval, tuple(taken or ())] = None
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            inner = code_reads(constant)
            names.update(dict.fromkeys(inner.names))
            imports.update(dict.fromkeys(inner.imports))
    return CodeReads(tuple(names), tuple(imports))


def installed_function(function: FunctionType) -> bool:
    """Whether a function's code is of the standard library or of an installed package."""
    file = function.__code__.co_filename
    # "<string>": made at run time by what runs in these globals, as the methods of dataclasses are.
    return installed(function.__globals__.get("__name__")) and (file.startswith("<") or _below(file))


def parts_of(member: object) -> Iterator[object]:
    """What a member of a class runs when used: itself, the functions that it wraps, and what they close over."""
    seen: set[int] = set()
    waiting = [member]
    while waiting:
        part = waiting.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        yield part
        if isinstance(part, FunctionType):
            waiting += [cell.cell_contents for cell in part.__closure__ or () if not _empty(cell)]
        elif isinstance(part, property):
            waiting += [part.fget, part.fset, part.fdel]
        elif isinstance(part, (staticmethod, classmethod, MethodType)):
            waiting.append(part.__func__)
        elif isinstance(part, (functools.partial, functools.partialmethod, functools.cached_property)):
            waiting.append(part.func)
        elif isinstance(part, CACHED_FUNCTION):
            waiting.append(part.__wrapped__)


def from_outside(part: object) -> bool:
    """Whether a function, a class or an object's class is its user's own code."""
    if isinstance(part, FunctionType):
        return not installed_function(part)
    return not installed((part if isinstance(part, type) else type(part)).__module__)


def _empty(cell: CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return True
    return False


def installed(module_name: object) -> bool:
    """Whether a module is of the standard library or an installed package of known version, not its user's own code."""
    top = str(module_name or "__main__").partition(".")[0]
    return top != "__main__" and _installed_top(top, top in sys.modules)


@functools.lru_cache(maxsize=4096)
def _installed_top(top: str, loaded: bool) -> bool:
    places = _places(top, loaded)
    if top in sys.stdlib_module_names:
        # A user's own file may have the name of a module of the standard library. What has no file is built in.
        return all(_below(place) for place in places)
    return bool(places) and all(_below(place) for place in places) and bool(_package_version(top))


def _places(top: str, loaded: bool) -> list[str]:
    if loaded:
        module = sys.modules[top]
        file, folders = getattr(module, "__file__", None), getattr(module, "__path__", ())
    else:
        try:
            spec = importlib.util.find_spec(top)
        except (ImportError, ValueError):
            return []
        file, folders = (spec.origin, spec.submodule_search_locations) if spec else (None, None)
        if spec is not None and not spec.has_location:
            file = None
    return [str(file)] if file else [str(folder) for folder in folders or ()]


@functools.lru_cache(maxsize=4096)
def _below(place: str) -> bool:
    folders = Path(place).parts
    return "site-packages" in folders or "dist-packages" in folders or place.startswith(_INSTALLED)


def module_version(module_name: str) -> str:
    """The module's name and its package's version, without the part that tells builds for CPU and GPU apart."""
    top = module_name.partition(".")[0]
    version = "" if top in sys.stdlib_module_names else _package_version(top)
    return f"{module_name} {version.partition('+')[0]}"


@functools.lru_cache(maxsize=4096)
def _package_version(top: str) -> str:
    """Of the distribution where there is one, as that is known before the package is imported too."""
    try:
        return metadata.version(top)
    except (metadata.PackageNotFoundError, ValueError):
        stated = getattr(sys.modules.get(top), "__version__", None)
    if stated is not None:
        return str(stated)
    names = sorted(set(metadata.packages_distributions().get(top, ())))
    try:
        return " ".join(f"{name} {metadata.version(name)}" for name in names)
    except metadata.PackageNotFoundError:  # a folder of metadata under another name than the one it states
        return ""
