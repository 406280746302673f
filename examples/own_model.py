"""Explain a classifier of your own: any torch module, here one made with torchvision.

    python examples/own_model.py genres.pt instruments/ music/ out/

``genres.pt`` is a state dict of the network below, ``instruments/`` has one folder of clips per concept, ``music/``
holds what to explain. Without a checkpoint of your own, try it with random weights: give ``-`` for the first argument.
"""

from __future__ import annotations

import sys

import torch
from torchvision.models import resnet18

import captum_concepts as cc

CLASSES = ["jazz", "metal", "rock"]


def network() -> torch.nn.Module:
    """A ResNet-18 on spectrograms: one channel in, three genres out."""
    model = resnet18(num_classes=len(CLASSES))
    model.conv1 = torch.nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    return model


def main(checkpoint: str, instruments: str, music: str, out: str) -> cc.Explanation:
    model = network()
    if checkpoint != "-":
        model.load_state_dict(torch.load(checkpoint, weights_only=True))
    # The front-end must be the one the model was trained with; here 128 frames of 128 mel bands in dB.
    frontend = cc.frontend("gtzan", patch_frames=128, layout="BCFT")
    backbone = cc.TorchBackbone(model, ["layer3", "layer4"], frontend, classes=CLASSES)
    concepts = cc.ConceptSet.from_folders(instruments)
    explanation = cc.ConceptHierarchyExplainer(backbone, seed=0).explain(music, concepts)
    explanation.save(out)
    explanation.to_html(f"{out}/report.html")
    print(explanation.top("layer4", 3).to_string())
    print(explanation.hierarchies["layer4"].to_text())
    return explanation


if __name__ == "__main__":
    main(*sys.argv[1:])
