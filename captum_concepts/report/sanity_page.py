"""One page of the sanity battery that can be attached to a paper: HTML in the report's style, and Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jinja2
from markupsafe import Markup

from captum_concepts.report.page import ASSETS

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
ABOUT = {
    "randomised weights": "All weights of a copy of the model are randomised. Effects of concepts on classes must "
    "change: scores that stay the same do not depend on the model (Adebayo et al., NeurIPS 2018). Many effects remain "
    "significant, and their share is given: concepts differ in sound, so activations of a random network differ too, "
    "and a valid test detects that.",
    "randomised head": "The same with random weights in the last layer only; the explained layers stay the same.",
    "permuted labels": "The labels of groups are permuted at random. Such concepts have no meaning, so their p-values "
    "must be uniform.",
    "added sound": "The concept's sound is mixed into the explained clips, and other sound of the same loudness for "
    "comparison. Concepts with a positive effect on a class must raise it.",
    "second negative pool": "The negatives are split into two halves. Both must give similar ranks of the concepts.",
}


def _number(value: float) -> str:
    return "–" if not math.isfinite(value) else f"{value:.3g}"


def _figure(value: float, low: float, high: float) -> str:
    interval = f" [{_number(low)}, {_number(high)}]" if math.isfinite(low) and math.isfinite(high) else ""
    return _number(value) + interval


def _details(details: dict[str, Any]) -> list[tuple[str, str]]:
    rows = []
    for key, value in details.items():
        if isinstance(value, dict):
            rows.append((key, ", ".join(f"{name} {_number(float(number))}" for name, number in value.items())))
        else:
            rows.append((key, _number(value) if isinstance(value, float) else str(value)))
    return rows


def _head(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    settings = report["provenance"].get("settings", {})
    rows = [
        ("model", f"{report['backbone']} (fingerprint {str(report['provenance'].get('fingerprint'))[:16]})"),
        ("layers", ", ".join(report["layers"])),
        ("classes", ", ".join(report["targets"])),
        ("concepts", f"{len(report['concepts'])} checked, {len(report['left_out'])} left out with too few groups"),
        ("settings", ", ".join(f"{key} {value}" for key, value in settings.items())),
        ("negatives", str(report["provenance"].get("negatives"))),
        ("groups of concept clips", str(report["provenance"].get("groups of concept clips"))),
        ("explained clips", str(report["provenance"].get("explained clips"))),
        (
            "cost",
            f"{sum(report['seconds'].values()):.0f} s, {report['provenance'].get('patches through the model')} patches "
            "through the model: "
            + ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in report["seconds"].items()),
        ),
        ("versions", ", ".join(f"{k} {v}" for k, v in report["provenance"].get("versions", {}).items())),
    ]
    return rows


def _checks(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The checks by name, each with its layers."""
    found = []
    for name in dict.fromkeys(check["check"] for check in report["checks"]):
        layers = [
            {
                "layer": c["layer"],
                "verdict": c["verdict"],
                "figure": _figure(c["value"], c["low"], c["high"]),
                "bound": c["bound"] or "–",
                "sentence": c["sentence"],
                "details": _details(c["details"]),
            }
            for c in report["checks"]
            if c["check"] == name
        ]
        measured = next((c["measured"] for c in report["checks"] if c["check"] == name and c["measured"]), "")
        found.append({"name": name, "about": ABOUT.get(name, ""), "measured": measured, "layers": layers})
    return found


def check_html(report: Mapping[str, Any]) -> str:
    """The page as one self-contained HTML text without scripts; labels are only ever text.

    Args:
        report: fields of a ``sanity.SanityReport`` with ``passed`` and ``verdict``, see ``SanityReport.as_page``.
    """
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string((ASSETS / "check.html.j2").read_text(encoding="utf-8"))
    style = (ASSETS / "page.css").read_text(encoding="utf-8") + (ASSETS / "check.css").read_text(encoding="utf-8")
    text = template.render(
        policy=Markup(POLICY),  # noqa: S704 - a constant
        style=Markup(style),  # noqa: S704 - our own files
        model=report["backbone"],
        passed=report["passed"],
        verdict=report["verdict"],
        head=_head(report),
        checks=_checks(report),
    )
    return text.encode("utf-8", "replace").decode("utf-8")  # no lone surrogates


def check_markdown(report: Mapping[str, Any]) -> str:
    """The same as Markdown."""
    lines = [f"# Sanity checks of {_cell(report['backbone'])}: {report['verdict']}", ""]
    lines += [f"- {key}: {_cell(value)}" for key, value in _head(report)]
    for check in _checks(report):
        lines += ["", f"## {check['name'].capitalize()}", "", check["about"], ""]
        lines += [f"| layer | verdict | {check['measured'] or 'figure'} | bound |", "|---|---|---|---|"]
        for row in check["layers"]:
            lines.append(f"| {_cell(row['layer'])} | {row['verdict']} | {row['figure']} | {row['bound']} |")
        for row in check["layers"]:
            lines += ["", f"{_cell(row['layer'])}: {_cell(row['sentence'])}"]
            lines += [f"- {_cell(key)}: {_cell(value)}" for key, value in row["details"]]
    return "\n".join(lines).encode("utf-8", "replace").decode("utf-8") + "\n"


def _cell(text: str) -> str:
    """Untrusted text on one line, with special characters of Markdown and HTML escaped."""
    flat = " ".join(str(text).split())
    return "".join(f"\\{letter}" if letter in "|<>[]*_`#\\" else letter for letter in flat)
