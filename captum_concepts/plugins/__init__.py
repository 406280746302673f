"""Extension points: what a plugin may provide, and how it is found."""

from captum_concepts.plugins.hookspecs import Factories, hookimpl
from captum_concepts.plugins.registry import (
    CALLS,
    PluginError,
    PluginInfo,
    add_commands,
    get_plugin_manager,
    list_plugins,
    lookup,
    registered,
)

__all__ = [
    "CALLS",
    "Factories",
    "PluginError",
    "PluginInfo",
    "add_commands",
    "get_plugin_manager",
    "hookimpl",
    "list_plugins",
    "lookup",
    "registered",
]
