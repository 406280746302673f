"""The plugin manager: who provides which backbone, concept source, CAV method, similarity, miner, explainer, exporter.

Built-ins and plugins go through the same hooks (:mod:`captum_concepts.plugins.hookspecs`) and the same checks. Whatever
is wrong with a plugin is said when plugins are loaded, in one line that names it: a hook that does not exist, a name
that another plugin already provides, a factory that cannot be called as the hook promises.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import importlib.metadata
import inspect
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pluggy

from captum_concepts._version import __version__
from captum_concepts.errors import InputError
from captum_concepts.plugins import hookspecs
from captum_concepts.text import short_repr

if TYPE_CHECKING:
    import click

GROUP = hookspecs.PROJECT
PREFIX = f"{hookspecs.PROJECT}_"
DISTRIBUTION = "captum-concepts"
BUILTIN = "builtin"
# Named as text: the built-ins import what they provide, and all of that imports this module.
BUILTIN_MODULE = "captum_concepts.builtin_plugins"
DISABLE = "CAPTUM_CONCEPTS_DISABLE_PLUGINS"
# The positional arguments each kind of factory is called with, as the docstrings of the hooks promise.
CALLS: dict[str, tuple[str, ...]] = {
    "backbones": ("weights", "device"),
    "concept_sources": ("argument",),
    "interventions": ("strength",),
    "cav_methods": ("activations", "positives", "negatives", "weights"),
    "similarities": ("bank", "activations", "labels", "weights"),
    "miners": ("similarity", "names"),
    "explainers": ("model", "inputs", "targets"),
    "exporters": ("explanation", "path"),
}
REMEDY = f"repair or uninstall it, or set {DISABLE}=1 to run with the built-ins only"


class PluginError(InputError):
    """A plugin that cannot be used as it is; the message names the plugin and what to change."""


@dataclass(frozen=True)
class Entry:
    """One named factory and who provides it; ``distribution`` is "" for a plugin registered by hand."""

    factory: Callable[..., Any]
    plugin: str
    distribution: str
    version: str


@dataclass(frozen=True)
class PluginInfo:
    """One loaded plugin: the hooks it implements and, per kind, the names it provides."""

    name: str
    distribution: str
    version: str
    hooks: tuple[str, ...]
    provides: dict[str, tuple[str, ...]]


@dataclass
class _Loaded:
    manager: pluggy.PluginManager
    origins: dict[str, tuple[str, str]]  # plugin name -> distribution, version
    checked: frozenset[int] = frozenset()  # the plugins that `tables` was made from
    tables: dict[str, dict[str, Entry]] = field(default_factory=dict)


def get_plugin_manager() -> pluggy.PluginManager:
    """The plugin manager with the built-ins and every installed plugin, all of them checked.

    The same manager is returned every time. A plugin for the running process only goes in by
    ``get_plugin_manager().register(plugin)``; it is checked at the next look-up.

    Raises :class:`PluginError` for a plugin that cannot be imported, implements an unknown hook, provides a name twice
    or a factory that cannot be called as its hook promises. With ``CAPTUM_CONCEPTS_DISABLE_PLUGINS=1`` in the
    environment only the built-ins are loaded.
    """
    loaded = _checked()
    for kind in CALLS:
        _table(loaded, kind)
    return loaded.manager


def registered(kind: str) -> dict[str, Entry]:
    """Name -> :class:`Entry`, sorted by name, of everything of one kind.

    ``kind`` is "backbones", "concept_sources", "interventions", "cav_methods", "similarities", "miners", "explainers"
    or "exporters". Only plugins of this kind are asked, so that nothing is imported in vain. Raises
    :class:`PluginError` as `get_plugin_manager` does.
    """
    if kind not in CALLS:
        raise InputError(f"unknown kind of plugin {short_repr(kind)}; known: {', '.join(CALLS)}")
    return dict(_table(_checked(), kind))


def lookup(kind: str, name: str) -> Entry:
    """What is registered as ``name``; an unknown name raises ``InputError`` with the known ones and a near miss."""
    entries = registered(kind)
    if name in entries:
        return entries[name]
    known = ", ".join(entries) or f"none (install a plugin that provides {_words(kind)})"
    close = difflib.get_close_matches(str(name), entries, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise InputError(f"unknown {_singular(kind)} {short_repr(name)}; known: {known}{hint}")


def list_plugins() -> list[PluginInfo]:
    """Every loaded plugin, built-ins first, then by name."""
    loaded = _checked()
    tables = {kind: _table(loaded, kind) for kind in CALLS}
    infos = []
    for name, plugin in _named(loaded.manager):
        hooks = sorted(caller.name for caller in loaded.manager.get_hookcallers(plugin) or ())
        provides = {
            kind: names
            for kind, entries in tables.items()
            if (names := tuple(key for key, entry in entries.items() if entry.plugin == name))
        }
        infos.append(PluginInfo(name, *loaded.origins.get(name, ("", "")), tuple(hooks), provides))
    return sorted(infos, key=lambda info: (info.name != BUILTIN, info.name))


def add_commands(cli: click.Group) -> None:
    """Let every plugin add its commands to ``cli``.

    Unlike `get_plugin_manager` this asks no plugin for its factories, so that ``captum-concepts --help`` need not
    import torch. A plugin that fails here or replaces a command raises :class:`PluginError`.
    """
    loaded = _checked()
    plugins = _named(loaded.manager)
    for name, plugin in plugins:
        others = [other for _, other in plugins if other is not plugin]
        before = dict(cli.commands)
        try:
            loaded.manager.subset_hook_caller(f"{PREFIX}commands", others)(cli=cli)
        except Exception as error:  # a plugin may raise anything
            raise PluginError(f"{_described(loaded, name)} cannot add its commands: {_reason(error)}") from error
        for command in before:
            if cli.commands.get(command) is not before[command]:
                raise PluginError(
                    f"{_described(loaded, name)} replaces the command {short_repr(command)}; rename its own"
                )


@functools.cache
def _load() -> _Loaded:
    builtin = importlib.import_module(BUILTIN_MODULE)
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    loaded = _Loaded(manager, {BUILTIN: (DISTRIBUTION, __version__)})
    manager.register(builtin, name=BUILTIN)
    if os.environ.get(DISABLE, "") in ("", "0"):
        for entry_point in sorted(importlib.metadata.entry_points(group=GROUP), key=lambda point: point.name):
            _register(loaded, entry_point)
    return loaded


def _register(loaded: _Loaded, entry_point: importlib.metadata.EntryPoint) -> None:
    name = entry_point.name
    distribution = entry_point.dist
    origin = (distribution.name, distribution.version) if distribution is not None else ("", "")
    if name in loaded.origins:
        raise PluginError(
            f"two plugins are called {short_repr(name)}: one of {loaded.origins[name][0]}, one of {origin[0]}; "
            "uninstall one"
        )
    loaded.origins[name] = origin
    try:
        loaded.manager.register(entry_point.load(), name=name)
    except pluggy.PluginValidationError as error:
        raise PluginError(f"{_described(loaded, name)} is not valid: {_one_line(error)}") from error
    except Exception as error:  # a plugin may raise anything while it is imported
        raise PluginError(f"{_described(loaded, name)} cannot be imported: {_reason(error)}; {REMEDY}") from error


def _checked() -> _Loaded:
    """Everything that is loaded; whenever the set of plugins has changed, their hooks are checked anew."""
    loaded = _load()
    plugins = frozenset(id(plugin) for plugin in loaded.manager.get_plugins())
    if plugins != loaded.checked:
        _check_hooks(loaded)
        loaded.tables.clear()
        loaded.checked = plugins
    return loaded


def _check_hooks(loaded: _Loaded) -> None:
    hooks = [name for name in dir(hookspecs) if name.startswith(PREFIX)]
    for name, plugin in _named(loaded.manager):
        implemented = {caller.name for caller in loaded.manager.get_hookcallers(plugin) or ()}
        for attribute in dir(plugin):
            if not attribute.startswith(PREFIX) or attribute in implemented.intersection(hooks):
                continue
            if attribute in hooks:
                problem = "lacks the @hookimpl mark and would never be called"
            else:
                close = difflib.get_close_matches(attribute, hooks, n=1)
                problem = "is not a hook of captum_concepts" + (f"; did you mean {close[0]}?" if close else "")
            raise PluginError(f"{_described(loaded, name)}: {attribute} {problem}")
    try:
        loaded.manager.check_pending()
    except pluggy.PluginValidationError as error:
        name = loaded.manager.get_name(error.plugin) or ""
        raise PluginError(f"{_described(loaded, name)}: {_one_line(error)}") from error


def _table(loaded: _Loaded, kind: str) -> dict[str, Entry]:
    if kind not in loaded.tables:
        loaded.tables[kind] = dict(sorted(_collect(loaded, kind).items()))
    return loaded.tables[kind]


def _collect(loaded: _Loaded, kind: str) -> dict[str, Entry]:
    entries: dict[str, Entry] = {}
    implementations = getattr(loaded.manager.hook, PREFIX + kind).get_hookimpls()
    # Built-ins are asked first, so that the blame for a double name falls on the newcomer.
    for implementation in sorted(implementations, key=lambda each: each.plugin_name != BUILTIN):
        plugin = implementation.plugin_name
        for name, factory in _items(loaded, kind, plugin, implementation.function):
            if name in entries:
                raise PluginError(
                    f"{_described(loaded, plugin)} provides the {_singular(kind)} {short_repr(name)}, but "
                    f"{_described(loaded, entries[name].plugin)} already does; rename it or uninstall one"
                )
            entries[name] = Entry(factory, plugin, *loaded.origins.get(plugin, ("", "")))
    return entries


def _items(
    loaded: _Loaded, kind: str, plugin: str, implementation: Callable[[], Any]
) -> Iterator[tuple[str, Callable[..., Any]]]:
    where = f"{_described(loaded, plugin)}: {PREFIX}{kind}"
    try:
        result = implementation()
    except Exception as error:  # a plugin may raise anything
        raise PluginError(f"{where} failed: {_reason(error)}; {REMEDY}") from error
    if not isinstance(result, dict):
        raise PluginError(f"{where} must return a dict of name -> factory, not {short_repr(result)}")
    for name, factory in result.items():
        if not isinstance(name, str) or not name:
            raise PluginError(f"{where} must use non-empty text as names, not {short_repr(name)}")
        if not callable(factory):
            raise PluginError(f"{where}: {short_repr(name)} must be callable, not {short_repr(factory)}")
        try:
            signature = inspect.signature(factory)
        except ValueError:  # some callables written in C do not tell
            yield name, factory
            continue
        try:
            signature.bind(*CALLS[kind])
        except TypeError as error:
            expected = ", ".join(CALLS[kind])
            raise PluginError(
                f"{where}: {short_repr(name)} must be callable as ({expected}, **options), but has the signature "
                f"{signature} ({error})"
            ) from error
        yield name, factory


def _described(loaded: _Loaded, plugin: str) -> str:
    distribution, version = loaded.origins.get(plugin, ("", ""))
    return f"plugin {plugin!r} ({distribution} {version})" if distribution else f"plugin {plugin!r}"


def _named(manager: pluggy.PluginManager) -> list[tuple[str, Any]]:
    return [(name, plugin) for name, plugin in manager.list_name_plugin() if plugin is not None]  # None: blocked


def _words(kind: str) -> str:
    return kind.replace("_", " ").replace("cav", "CAV")


def _singular(kind: str) -> str:
    words = _words(kind)
    return words[:-3] + "y" if words.endswith("ies") else words[:-1]


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {_one_line(error)}"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or "no message"
