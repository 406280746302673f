"""The classifier that the demo explains: a small CNN on log-mel patches, trained by `captum_concepts.demo.train`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch
from safetensors import safe_open
from torch import Tensor, nn

if TYPE_CHECKING:
    from captum_concepts.backbones.torch_backbone import TorchBackbone

WEIGHTS: Final = Path(__file__).with_name("demo-cnn.safetensors")
FRONTEND: Final = "musicnn"
LAYERS: Final = ("pool3", "pool4")
CHANNELS: Final = (8, 16, 32, 48)
MEL_BANDS: Final = 96


class DemoCNN(nn.Module):
    """Four blocks of convolution, batch normalisation, ReLU and pooling by two, a mean over time, and two dense layers.

    Submodules `conv1` ... `conv4`, `norm1` ..., `relu1` ..., `pool1` ... (outputs (B, channels, time, mel)), `dense`,
    `dense_relu` and `logits` can be explained by name.

    :param classes: number of classes.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        before = 1
        for block, channels in enumerate(CHANNELS, start=1):
            self.add_module(f"conv{block}", nn.Conv2d(before, channels, 3, padding=1, bias=False))
            self.add_module(f"norm{block}", nn.BatchNorm2d(channels))
            self.add_module(f"relu{block}", nn.ReLU())
            self.add_module(f"pool{block}", nn.MaxPool2d(2))
            before = channels
        self.dropout = nn.Dropout(0.3)
        self.dense = nn.Linear(before * (MEL_BANDS >> len(CHANNELS)), 64)
        self.dense_relu = nn.ReLU()
        self.logits = nn.Linear(64, classes)
        for parameter in self.parameters():  # convolutions are twice as fast on a CPU where channels are few
            if parameter.dim() == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)

    def forward(self, logmel: Tensor) -> Tensor:
        """Logits (B, classes) of log-mel patches (B, frames, 96), at least 16 frames."""
        maps = logmel[:, None]
        for block in range(1, len(CHANNELS) + 1):
            for kind in ("conv", "norm", "relu", "pool"):
                maps = self.get_submodule(f"{kind}{block}")(maps)
        features = self.dropout(maps.mean(2).flatten(1))
        return self.logits(self.dense_relu(self.dense(features)))


def demo_model() -> tuple[DemoCNN, list[str]]:
    """The trained network in evaluation mode, on the CPU, and the names of its classes."""
    with safe_open(WEIGHTS, framework="pt") as file:
        classes = json.loads(file.metadata()["classes"])
        model = DemoCNN(len(classes))
        model.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    return model.eval(), classes


def demo_training() -> dict[str, str]:
    """Metadata of the training: held-out accuracy, seed, epochs, version of the generator, ... as trained."""
    with safe_open(WEIGHTS, framework="pt") as file:
        return dict(file.metadata())


def demo_backbone(device: str | torch.device = "cpu") -> TorchBackbone:
    """The trained network as a backbone; default layers pool3 and pool4."""
    from captum_concepts.backbones.torch_backbone import TorchBackbone

    model, classes = demo_model()
    return TorchBackbone(model, layers=list(LAYERS), frontend=FRONTEND, classes=classes, name="demo-cnn", device=device)
