"""Every hook through the plugin manager, and everything that can be wrong with a plugin."""

from __future__ import annotations

import importlib.metadata
import inspect
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from helpers.paths import ROOT

import captum_concepts as cc
from captum_concepts import builtin_plugins as builtin
from captum_concepts import hookimpl
from captum_concepts.interventions import Intervention
from captum_concepts.plugins import hookspecs
from captum_concepts.plugins import registry as plugins


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """No plugin but the built-ins and the distributions that ``installed(...)`` puts on a path of their own."""

    def only_here(group: str) -> list[importlib.metadata.EntryPoint]:
        found = importlib.metadata.distributions(path=[str(tmp_path)])
        return [point for distribution in found for point in distribution.entry_points if point.group == group]

    def install(distribution: str, source: str, name: str = "", version: str = "1.2") -> str:
        module = distribution.replace("-", "_")
        (tmp_path / f"{module}.py").write_text(f"from captum_concepts import hookimpl\n{source}\n")
        info = tmp_path / f"{module}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[captum_concepts]\n{name or distribution} = {module}\n")
        modules.append(module)
        return module

    modules: list[str] = []
    monkeypatch.delenv(plugins.DISABLE, raising=False)
    monkeypatch.setattr(importlib.metadata, "entry_points", only_here)
    monkeypatch.syspath_prepend(tmp_path)
    plugins._load.cache_clear()
    yield install
    plugins._load.cache_clear()
    for module in modules:
        sys.modules.pop(module, None)


@pytest.fixture
def register(installed):
    """Register functions under the names of hooks, as one plugin of the running process."""

    def register(name: str = "toy", **hooks) -> ModuleType:
        plugin = ModuleType(name)
        for hook, function in hooks.items():
            setattr(plugin, hook, hookimpl(function))
        plugins.get_plugin_manager().register(plugin, name=name)
        return plugin

    return register


def provide(factory, name: str = "toy"):
    return lambda: {name: factory}


def refusal(call, *arguments) -> str:
    with pytest.raises(plugins.PluginError) as caught:
        call(*arguments)
    assert isinstance(caught.value, cc.InputError)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# A test for every hook


def test_plugin_hooks_have_tests():
    hooks = [name for name in dir(hookspecs) if name.startswith("captum_concepts_")]
    tested = [name for name, value in globals().items() if name.startswith("test_hook_") and callable(value)]
    assert [hook for hook in hooks if not any(name == f"test_hook_{hook}" for name in tested)] == []


def test_hook_captum_concepts_backbones(register):
    calls = []

    def load(weights, device, **options):
        calls.append((weights, device, options))
        return SimpleNamespace(name="toy")

    register(captum_concepts_backbones=provide(load))
    assert cc.load_backbone("toy", weights="w.h5", device="cpu", width=3).name == "toy"
    assert calls == [("w.h5", "cpu", {"width": 3})]


def test_hook_captum_concepts_concept_sources(register):
    register(captum_concepts_concept_sources=provide(lambda argument, **options: (argument, options)))
    assert plugins.lookup("concept_sources", "toy").factory("folder", strict=True) == ("folder", {"strict": True})


def test_hook_captum_concepts_interventions(register):
    @dataclass(frozen=True)
    class Invert(Intervention):
        name, unit, keeps, changes = "toy", "times", "everything else", "the sign"
        low, high, usual = 1, 3, 1

        def _change(self, waveforms, sample_rate, seed):
            return waveforms if self.is_sham else waveforms * (-1) ** self.strength

    register(captum_concepts_interventions=provide(Invert))
    invert = plugins.lookup("interventions", "toy").factory(1)
    assert invert.apply(torch.ones(1, 2), 16000).tolist() == [[-1, -1]]
    assert invert.sham().apply(torch.ones(1, 2), 16000).tolist() == [[1, 1]]


def test_hook_captum_concepts_cav_methods(register):
    seen = []

    def fit(activations, positives, negatives, weights):
        seen.append((activations.shape, positives.dtype, negatives.shape, weights.shape))
        directions = torch.zeros(positives.shape[1], activations.shape[1])
        directions[:, 0] = 2.0
        return directions, torch.zeros(positives.shape[1])

    register(captum_concepts_cav_methods=provide(fit))
    activations = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    labels = activations[:, :2] > 0
    bank = cc.fit_cavs(activations, labels, method="toy", folds=0)
    assert seen == [((40, 4), torch.bool, (40, 2), (40,))]
    torch.testing.assert_close(bank.directions.cpu(), torch.eye(4)[[0, 0]], rtol=0, atol=0)


def test_hook_captum_concepts_similarities(register):
    def measure(bank, activations, labels, weights):
        return bank @ bank.T

    measure.symmetric = True
    register(captum_concepts_similarities=provide(measure))
    found = plugins.lookup("similarities", "toy").factory
    assert found.symmetric
    assert found(torch.eye(2), None, None, None).tolist() == [[1, 0], [0, 1]]


def test_hook_captum_concepts_miners(register):
    def chain(similarity, names, **options):
        return cc.ConceptHierarchy.from_parents({names[0]: None} | dict(zip(names[1:], names, strict=False)))

    register(captum_concepts_miners=provide(chain))
    hierarchy = plugins.lookup("miners", "toy").factory(torch.eye(3), ("a", "b", "c"))
    assert hierarchy.ancestors("c") == ["a", "b"]


def test_hook_captum_concepts_explainers(register):
    def explain(model, inputs, targets):
        inputs = inputs.clone().requires_grad_()
        model(inputs).gather(1, targets[:, None]).sum().backward()
        return inputs.grad.numpy()

    register(captum_concepts_explainers=provide(explain))
    model = torch.nn.Linear(3, 2)
    attributions = plugins.lookup("explainers", "toy").factory(model, torch.ones(2, 3), torch.tensor([1, 0]))
    np.testing.assert_array_equal(attributions, model.weight.detach().numpy()[[1, 0]])


def test_hook_captum_concepts_exporters(register, tmp_path):
    register(captum_concepts_exporters=provide(lambda explanation, path: Path(path).write_text(explanation)))
    plugins.lookup("exporters", "toy").factory("hello", tmp_path / "out.txt")
    assert (tmp_path / "out.txt").read_text() == "hello"


def test_hook_captum_concepts_commands(register):
    def commands(cli):
        @cli.command()
        def hello():
            click.echo("hello")

    register(captum_concepts_commands=commands)
    cli = click.Group()
    plugins.add_commands(cli)
    result = CliRunner().invoke(cli, ["hello"])
    assert (result.exit_code, result.output) == (0, "hello\n")


def test_hook_captum_concepts_hierarchy_mined(register):
    seen = []
    register("first", captum_concepts_hierarchy_mined=lambda hierarchy: seen.append(hierarchy.names))
    register("second", captum_concepts_hierarchy_mined=lambda: seen.append("told"))
    hierarchy = cc.ConceptHierarchy.from_parents({"a": None, "b": "a"})
    plugins.get_plugin_manager().hook.captum_concepts_hierarchy_mined(hierarchy=hierarchy)
    assert seen == ["told", ("a", "b")]


def test_hook_captum_concepts_explanation_ready(register):
    seen = []
    register(captum_concepts_explanation_ready=lambda explanation: seen.append(explanation))
    plugins.get_plugin_manager().hook.captum_concepts_explanation_ready(explanation="an explanation")
    assert seen == ["an explanation"]


# The built-ins


def test_builtins_come_through_the_hooks(installed):
    from captum_concepts.cavs.builtin import CAV_METHODS
    from captum_concepts.cavs.sgd import fit_sgd
    from captum_concepts.interventions import INTERVENTIONS
    from captum_concepts.miners.builtin import MINERS
    from captum_concepts.similarities.builtin import SIMILARITIES

    tables = {
        "cav_methods": CAV_METHODS | {"sgd": fit_sgd},
        "interventions": INTERVENTIONS,
        "miners": MINERS,
        "similarities": SIMILARITIES,
    }
    assert {"pattern", "lda", "logistic"} <= set(CAV_METHODS)
    assert {"activation", "cosine"} <= set(SIMILARITIES)
    assert "heymann" in MINERS
    for kind, table in tables.items():
        entries = plugins.registered(kind)
        assert {name: entry.factory for name, entry in entries.items()} == dict(sorted(table.items()))
        assert {(entry.plugin, entry.distribution, entry.version) for entry in entries.values()} == {
            ("builtin", "captum-concepts", cc.__version__)
        }


def test_builtin_exporters_are_what_an_explanation_can_do_itself(installed):
    exporters = {name: entry.factory for name, entry in plugins.registered("exporters").items()}
    assert exporters == {"folder": cc.Explanation.save, "html": cc.Explanation.to_html}


def test_builtin_has_a_hook_for_every_table(installed):
    (info,) = plugins.list_plugins()
    assert (info.name, info.distribution, info.version) == ("builtin", "captum-concepts", cc.__version__)
    marked = [name for name, value in vars(builtin).items() if hasattr(value, "captum_concepts_impl")]
    assert info.hooks == tuple(sorted(marked))
    assert {f"captum_concepts_{kind}" for kind in info.provides} == set(marked) & {
        f"captum_concepts_{kind}" for kind in plugins.CALLS
    }


# Look-up


def test_unknown_name_lists_the_known_ones_and_a_near_miss(register):
    register(captum_concepts_exporters=lambda: {"dot": print, "newick": print})
    with pytest.raises(
        cc.InputError, match=r"^unknown exporter 'newik'; known: .*dot.*newick.*; did you mean 'newick'\?$"
    ):
        plugins.lookup("exporters", "newik")


def test_unknown_name_where_nothing_is_known(installed):
    with pytest.raises(cc.InputError, match=r"^unknown concept source 'x'; known: none \(install a plugin"):
        plugins.lookup("concept_sources", "x")


def test_unknown_name_of_any_length_stays_short(installed):
    with pytest.raises(cc.InputError) as caught:
        plugins.lookup("cav_methods", "x\n" * 10_000)
    assert str(caught.value).startswith("unknown CAV method 'x\\n")
    assert len(str(caught.value)) < 200


def test_unknown_kind(installed):
    with pytest.raises(cc.InputError, match="unknown kind of plugin 'layers'; known: backbones, "):
        plugins.registered("layers")


def test_registry_cannot_be_changed_from_outside(installed):
    plugins.registered("miners").clear()
    assert plugins.registered("miners")


def test_unregistering_takes_the_names_away(register):
    plugin = register(captum_concepts_exporters=provide(print))
    assert "toy" in plugins.registered("exporters")
    plugins.get_plugin_manager().unregister(plugin)
    assert "toy" not in plugins.registered("exporters")


# Installed plugins

EXPORTER = """
@hookimpl
def captum_concepts_exporters():
    return {"%s": lambda explanation, path: None}
"""


def test_installed_plugin_is_listed_with_its_distribution(installed):
    installed("captum-concepts-dot", EXPORTER % "dot", name="dot")
    _, info = plugins.list_plugins()
    assert info == plugins.PluginInfo(
        "dot", "captum-concepts-dot", "1.2", ("captum_concepts_exporters",), {"exporters": ("dot",)}
    )
    entry = plugins.lookup("exporters", "dot")
    assert (entry.plugin, entry.distribution, entry.version) == ("dot", "captum-concepts-dot", "1.2")


def test_installed_plugin_that_does_not_import(installed):
    installed("broken-plugin", "import no_such_library", name="broken")
    message = refusal(plugins.get_plugin_manager)
    assert message.startswith(
        "plugin 'broken' (broken-plugin 1.2) cannot be imported: ModuleNotFoundError: No module named 'no_such_library'"
    )
    assert "CAPTUM_CONCEPTS_DISABLE_PLUGINS=1" in message


@pytest.mark.parametrize(("value", "loaded"), [("1", False), ("yes", False), ("0", True), ("", True)])
def test_plugins_can_be_disabled(installed, monkeypatch, value, loaded):
    installed("captum-concepts-dot", EXPORTER % "dot", name="dot")
    monkeypatch.setenv(plugins.DISABLE, value)
    assert [info.name for info in plugins.list_plugins()] == (["builtin", "dot"] if loaded else ["builtin"])


def test_two_plugins_of_one_name(installed):
    installed("one-dot", EXPORTER % "a", name="dot")
    installed("other-dot", EXPORTER % "b", name="dot")
    message = refusal(plugins.get_plugin_manager)
    assert "two plugins are called 'dot'" in message
    assert "one-dot" in message
    assert "other-dot" in message


def test_two_plugins_that_provide_one_name(installed):
    installed("one-plugin", EXPORTER % "dot", name="one")
    installed("other-plugin", EXPORTER % "dot", name="other")
    assert refusal(plugins.get_plugin_manager) == (
        "plugin 'other' (other-plugin 1.2) provides the exporter 'dot', but plugin 'one' (one-plugin 1.2) already "
        "does; rename it or uninstall one"
    )


def test_a_builtin_name_cannot_be_taken_even_by_a_plugin_that_wants_to_come_first(installed):
    installed("usurper", "@hookimpl(trylast=True)\ndef captum_concepts_miners():\n    return {'heymann': print}")
    assert refusal(plugins.get_plugin_manager).startswith(
        "plugin 'usurper' (usurper 1.2) provides the miner 'heymann', but plugin 'builtin' (captum-concepts "
    )


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        (
            "@hookimpl\ndef captum_concepts_minors():\n    return {}",
            "captum_concepts_minors is not a hook of captum_concepts; did you mean captum_concepts_miners?",
        ),
        (
            "@hookimpl(specname='captum_concepts_nothing')\ndef something():\n    return {}",
            "unknown hook 'captum_concepts_nothing'",
        ),
        (
            "def captum_concepts_miners():\n    return {}",
            "captum_concepts_miners lacks the @hookimpl mark and would never be called",
        ),
        (
            "@hookimpl\ndef captum_concepts_hierarchy_mined(tree): ...",
            "Argument(s) {'tree'} are declared in the hookimpl but can not be found in the hookspec",
        ),
    ],
)
def test_wrong_hooks(installed, source, problem):
    installed("wrong-plugin", source, name="wrong")
    message = refusal(plugins.get_plugin_manager)
    assert problem in message
    assert "'wrong'" in message


@pytest.mark.parametrize(
    ("result", "problem"),
    [
        ("None", "captum_concepts_miners must return a dict of name -> factory, not None"),
        ("[('a', print)]", "captum_concepts_miners must return a dict of name -> factory, not [('a', <built-in"),
        ("{1: print}", "captum_concepts_miners must use non-empty text as names, not 1"),
        ("{'': print}", "captum_concepts_miners must use non-empty text as names, not ''"),
        ("{'a': 3}", "captum_concepts_miners: 'a' must be callable, not 3"),
        (
            "{'a': lambda similarity: None}",
            "captum_concepts_miners: 'a' must be callable as (similarity, names, **options), but has the signature "
            "(similarity) (too many positional arguments)",
        ),
        (
            "{'a': lambda similarity, names, depth: None}",
            "but has the signature (similarity, names, depth) (missing a required argument: 'depth')",
        ),
        ("1 / 0", "captum_concepts_miners failed: ZeroDivisionError: division by zero"),
    ],
)
def test_wrong_factories(installed, result, problem):
    installed("wrong-plugin", f"@hookimpl\ndef captum_concepts_miners():\n    return {result}", name="wrong")
    message = refusal(plugins.get_plugin_manager)
    assert message.startswith("plugin 'wrong' (wrong-plugin 1.2): ")
    assert problem in message


def test_a_plugin_registered_by_hand_is_checked_too(register):
    register("mine", captum_concepts_miners=provide(lambda: None))
    assert refusal(plugins.lookup, "miners", "heymann").startswith("plugin 'mine': captum_concepts_miners: 'toy' must")


@pytest.mark.parametrize("kind", plugins.CALLS)
def test_every_kind_checks_its_own_call(register, kind):
    arguments = plugins.CALLS[kind]
    namespace: dict[str, object] = {}
    exec(f"def right({', '.join(arguments)}, *, option=1): ...\ndef wrong({', '.join(arguments[1:])}): ...", namespace)
    right = register("right", **{f"captum_concepts_{kind}": provide(namespace["right"])})
    assert plugins.lookup(kind, "toy").factory is namespace["right"]
    plugins.get_plugin_manager().unregister(right)
    register("wrong", **{f"captum_concepts_{kind}": provide(namespace["wrong"])})
    assert f"must be callable as ({', '.join(arguments)}, **options)" in refusal(plugins.registered, kind)


def test_a_callable_without_a_signature_is_taken(register):
    with pytest.raises(ValueError, match="no signature"):
        inspect.signature(dict.fromkeys.__self__)
    register(captum_concepts_miners=provide(dict))
    assert plugins.lookup("miners", "toy").factory is dict


# Commands


def test_a_plugin_cannot_replace_a_command(register):
    register("pushy", captum_concepts_commands=lambda cli: cli.add_command(click.Command("explain")))
    cli = click.Group(commands={"explain": click.Command("explain")})
    assert refusal(plugins.add_commands, cli) == "plugin 'pushy' replaces the command 'explain'; rename its own"


def test_a_plugin_that_fails_to_add_its_commands(register):
    register("faulty", captum_concepts_commands=lambda cli: cli.nothing)
    message = refusal(plugins.add_commands, click.Group())
    assert message.startswith("plugin 'faulty' cannot add its commands: AttributeError: ")


def test_commands_are_added_without_importing_torch(tmp_path):
    """In an interpreter of its own, with a plugin found by the ordinary means of Python."""
    (tmp_path / "slow_plugin.py").write_text(
        "import click\nfrom captum_concepts import hookimpl\n"
        "@hookimpl\ndef captum_concepts_commands(cli):\n    cli.add_command(click.Command('slow'))\n"
        "@hookimpl\ndef captum_concepts_miners():\n    import torch\n    return {'slow': torch.nn.Module}\n"
    )
    info = tmp_path / "slow_plugin-3.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: slow-plugin\nVersion: 3\n")
    (info / "entry_points.txt").write_text("[captum_concepts]\nslow = slow_plugin\n")
    script = (
        "import sys, click\nfrom captum_concepts import plugins\ncli = click.Group()\nplugins.add_commands(cli)\n"
        "print('slow' in cli.commands, 'torch' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    environment.pop(plugins.DISABLE, None)
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "True False\n"
