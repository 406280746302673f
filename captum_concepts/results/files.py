"""Save explanations to a folder and load them."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.numpy import load, save

from captum_concepts.audio.clips import Clip
from captum_concepts.cavs.bank import QUALITY_COLUMNS, ConceptBank
from captum_concepts.errors import InputError
from captum_concepts.hierarchy.concept_hierarchy import ConceptHierarchy
from captum_concepts.hierarchy.support import Support
from captum_concepts.results.csv_tables import read_scores, read_table, write_scores, write_table
from captum_concepts.results.diagnostics import COLUMNS, Diagnostics, typed
from captum_concepts.results.explanation_data import ExplanationData
from captum_concepts.results.tables import SHARE_COLUMNS
from captum_concepts.results.timeline import Timeline
from captum_concepts.text import short_repr

SCHEMA = 2


def layer_files(layers: tuple[str, ...]) -> dict[str, str]:
    """layer -> the stem of its files: letters, digits, ``.``, ``_`` and ``-`` only, all different."""
    stems: dict[str, str] = {}
    for layer in layers:
        stem = re.sub(r"[^A-Za-z0-9._-]", "_", layer)[:80].strip(".") or "layer"
        taken = {other.casefold() for other in stems.values()}
        number, candidate = 2, stem
        while candidate.casefold() in taken:
            candidate, number = f"{stem}-{number}", number + 1
        stems[layer] = candidate
    return stems


def save_explanation(explanation: ExplanationData, folder: Path) -> Path:
    """Write all files of ``explanation`` into ``folder``; see ``Explanation.save``."""
    content, arrays = _content(explanation)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        packed = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
        content["arrays_sha256"] = hashlib.sha256(packed).hexdigest()
        text = json.dumps(content, ensure_ascii=True, indent=1, allow_nan=False) + "\n"
        with tempfile.TemporaryDirectory(dir=folder, prefix=".saving-") as made:
            # Everything is written before files of an earlier explanation are replaced or removed.
            fresh = Path(made)
            (fresh / "arrays.safetensors").write_bytes(packed)
            (fresh / "explanation.json").write_text(text, encoding="utf-8")
            write_scores(explanation.scores, fresh / "scores.csv")
            if len(explanation.shares):
                write_table(explanation.shares, SHARE_COLUMNS, fresh / "shares.csv")
            for layer, stem in layer_files(explanation.layers).items():
                if layer in explanation.hierarchies:
                    explanation.hierarchies[layer].to_graphml(fresh / f"hierarchy-{stem}.graphml")
                    explanation.hierarchies[layer].to_gexf(fresh / f"hierarchy-{stem}.gexf")
            if (folder / "explanation.json").exists():
                for stale in (
                    *folder.glob("hierarchy-*.graphml"),
                    *folder.glob("hierarchy-*.gexf"),
                    folder / "shares.csv",
                    folder / "report.html",
                ):
                    stale.unlink(missing_ok=True)
            for path in sorted(fresh.iterdir()):
                os.replace(path, folder / path.name)
    except OSError as error:
        raise InputError(
            f"{short_repr(str(folder))}: cannot be written ({error.strerror or error}); choose another folder"
        ) from None
    return folder


def _content(explanation: ExplanationData) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What goes into ``explanation.json``, and what into ``arrays.safetensors``."""
    content: dict[str, Any] = {
        "schema": SCHEMA,
        "backbone": explanation.backbone,
        "layers": list(explanation.layers),
        "targets": list(explanation.targets),
        "concepts": list(explanation.concepts),
        "clips": [_clip_out(clip) for clip in explanation.clips],
        "banks": {},
        "supports": {},
        "hierarchies": {layer: hierarchy.to_dict() for layer, hierarchy in explanation.hierarchies.items()},
        "examples": {
            layer: {name: [_clip_out(clip) for clip in clips] for name, clips in found.items()}
            for layer, found in explanation.examples.items()
        },
        "timelines": [],
        "n_scores": len(explanation.scores),
        "n_shares": len(explanation.shares),
        "warnings": explanation.warnings,
        "provenance": explanation.provenance,
        "diagnostics": {
            name: {column: _numbers_out(table[column]) for column in table.columns}
            for name, table in explanation.diagnostics.tables()
        },
    }
    arrays: dict[str, np.ndarray] = {}
    for i, layer in enumerate(explanation.layers):
        if layer in explanation.banks:
            bank = explanation.banks[layer]
            for part in ("directions", "biases", "scales"):
                arrays[f"{i}.{part}"] = getattr(bank, part).cpu().numpy()
            content["banks"][layer] = {
                "names": list(bank.names),
                "method": bank.method,
                "quality": {name: _numbers_out(bank.quality[name]) for name in bank.quality.columns},
            }
        if layer in explanation.supports:
            support = explanation.supports[layer]
            arrays[f"{i}.above"] = np.rint(support.above * support.samples).astype(np.int32)  # counts, as shares round
            same = [round(support.stability[name] * support.samples) for name in support.hierarchy.names]
            content["supports"][layer] = {"samples": support.samples, "same": same}
        if layer in explanation.similarities:
            arrays[f"{i}.similarity"] = explanation.similarities[layer]
        if layer in explanation.sensitivities:
            arrays[f"{i}.sensitivities"] = explanation.sensitivities[layer]
    for number, line in enumerate(explanation.timelines):
        about = {"layer": line.layer, "target": line.target, "clip": _clip_out(line.clip), "close": line.close}
        content["timelines"].append(about)
        for part in ("starts", "ends", "sensitivity"):
            arrays[f"timeline.{number}.{part}"] = getattr(line, part)
        if line.presence is not None:
            arrays[f"timeline.{number}.presence"] = line.presence
    return content, arrays


def load_explanation(folder: Path) -> ExplanationData:
    """Read a saved explanation; see ``Explanation.load``."""
    content = _read_json(folder / "explanation.json")
    if content.get("schema") != SCHEMA:
        raise InputError(
            f"{short_repr(str(folder / 'explanation.json'))}: schema {short_repr(content.get('schema'))}, here "
            f"{SCHEMA}; explain again"
        )
    try:
        packed = (folder / "arrays.safetensors").read_bytes()
        if hashlib.sha256(packed).hexdigest() != content["arrays_sha256"]:
            raise ValueError("arrays.safetensors is not the one that was written with explanation.json")
        arrays = load(packed)
        scores = read_scores(folder / "scores.csv")
        if len(scores) != content["n_scores"]:
            raise ValueError(f"{len(scores)} of {content['n_scores']} rows in scores.csv")
        explanation = _assemble(content, arrays, scores)
        if content.get("n_shares"):
            explanation.shares = read_table(folder / "shares.csv", SHARE_COLUMNS)
            if len(explanation.shares) != content["n_shares"]:
                raise ValueError(f"{len(explanation.shares)} of {content['n_shares']} rows in shares.csv")
        return explanation
    except FileNotFoundError as error:
        raise InputError(
            f"{short_repr(str(folder))}: {Path(error.filename or '').name or 'a file'} is missing; explain again"
        ) from None
    except (SafetensorError, csv.Error, KeyError, IndexError, TypeError, ValueError, AttributeError, OSError) as error:
        raise InputError(f"{short_repr(str(folder))}: damaged ({short_repr(str(error))}); explain again") from None


def _assemble(content: dict[str, Any], arrays: dict[str, np.ndarray], scores: pd.DataFrame) -> ExplanationData:
    layers = tuple(content["layers"])
    number = {layer: i for i, layer in enumerate(layers)}
    banks = {}
    for layer, about in content["banks"].items():
        directions, biases, scales = (
            torch.from_numpy(arrays[f"{number[layer]}.{part}"]) for part in ("directions", "biases", "scales")
        )
        quality = pd.DataFrame({name: _numbers_in(name, values) for name, values in about["quality"].items()})
        banks[layer] = ConceptBank(
            tuple(about["names"]), layer, directions, biases, scales, quality[list(QUALITY_COLUMNS)], about["method"]
        )
    hierarchies = {layer: ConceptHierarchy.from_dict(about) for layer, about in content["hierarchies"].items()}
    supports = {
        layer: _support(hierarchies[layer], arrays[f"{number[layer]}.above"], about)
        for layer, about in content.get("supports", {}).items()
    }
    timelines = []
    for i, about in enumerate(content["timelines"]):
        starts, ends = (arrays[f"timeline.{i}.{part}"] for part in ("starts", "ends"))
        name = f"timeline.{i}.sensitivity"
        sensitivity = arrays[name] if name in arrays else arrays[f"timeline.{i}.push"]  # its name before
        presence = arrays.get(f"timeline.{i}.presence")
        clip, close = Clip(*about["clip"]), bool(about.get("close", False))
        timelines.append(Timeline(about["layer"], about["target"], clip, starts, ends, sensitivity, presence, close))
    return ExplanationData(
        backbone=content["backbone"],
        layers=layers,
        targets=tuple(content["targets"]),
        concepts=tuple(content["concepts"]),
        scores=scores,
        hierarchies=hierarchies,
        supports=supports,
        banks=banks,
        similarities={layer: arrays[f"{i}.similarity"] for layer, i in number.items() if f"{i}.similarity" in arrays},
        sensitivities={
            layer: arrays[f"{i}.sensitivities"] for layer, i in number.items() if f"{i}.sensitivities" in arrays
        },
        clips=tuple(Clip(*about) for about in content["clips"]),
        examples={
            layer: {name: [Clip(*about) for about in clips] for name, clips in found.items()}
            for layer, found in content["examples"].items()
        },
        timelines=timelines,
        warnings=list(content["warnings"]),
        provenance=content["provenance"],
        diagnostics=_diagnostics(content.get("diagnostics", {})),
    )


def _support(hierarchy: ConceptHierarchy, above: np.ndarray, about: dict[str, Any]) -> Support:
    samples, k = about["samples"], len(hierarchy)
    if above.shape != (k, k):
        raise ValueError(f"support of shape {above.shape} for {k} concepts")
    stability = {name: count / samples for name, count in zip(hierarchy.names, about["same"], strict=True)}
    return Support(hierarchy, above / samples, stability, samples)


def _diagnostics(content: dict[str, Any]) -> Diagnostics:
    """Tables that are missing, as in explanations of older versions, are empty."""
    return Diagnostics(**{name: typed(name, content[name]) for name in COLUMNS if name in content})


def _clip_out(clip: Clip) -> list[Any]:
    return [clip.path, clip.start, clip.end, clip.group]


def _numbers_out(values: pd.Series) -> list[Any]:
    return [None if isinstance(value, float) and math.isnan(value) else value for value in values.tolist()]


def _numbers_in(name: str, values: list[Any]) -> pd.Series:
    if name in ("concept", "status"):
        return pd.Series(values, dtype=object)
    return pd.Series(values, dtype=np.int64 if name.startswith("n_") else np.float64)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"{short_repr(str(path), 200)}: no such file; give the folder that explain --out wrote"
        ) from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise InputError(
            f"{short_repr(str(path), 200)}: not readable as JSON ({short_repr(str(error))}); explain again"
        ) from None
    if not isinstance(content, dict):
        raise InputError(
            f"{short_repr(str(path), 200)}: holds no JSON object; give the folder that explain --out wrote"
        )
    return content
