"""The published networks, composed here of torch and torchaudio with AudioConcept's module names: references for the
plugin's own, and the source of checkpoints as AudioConcept writes them."""

from __future__ import annotations

import torch
import torchaudio
from torch import Tensor, nn


def mel_decibels(waveforms: Tensor, n_mels: int = 128) -> Tensor:
    """torchaudio's own log-mel (B, 1, n_mels, frames)."""
    return torchaudio.transforms.AmplitudeToDB()(melspec(n_mels)(waveforms))[:, None]


def melspec(n_mels: int = 128) -> nn.Module:
    return torchaudio.transforms.MelSpectrogram(sample_rate=22050, n_fft=1024, f_min=0.0, f_max=11025.0, n_mels=n_mels)


class CNN(nn.Module):
    """The CNN of AudioConcept; pools are given, so that the variant for short chunks can be checked too."""

    def __init__(self, pools: list[tuple[int, int]], n_classes: int = 10, n_mels: int = 128) -> None:
        super().__init__()
        self.melspec = melspec(n_mels)
        self.input_bn = nn.BatchNorm2d(1)
        self.pools = pools
        for number, (incoming, outgoing) in enumerate([(1, 16), (16, 16), (16, 32), (32, 32), (32, 64)], 1):
            layer = nn.Module()
            layer.conv = nn.Conv2d(incoming, outgoing, 3, padding=1)
            layer.bn = nn.BatchNorm2d(outgoing)
            self.add_module(f"layer{number}", layer)
        self.dense1 = nn.Linear(64, 64)
        self.dense_bn = nn.BatchNorm1d(64)
        self.dense2 = nn.Linear(64, n_classes)

    def forward(self, waveforms: Tensor) -> Tensor:
        out = self.input_bn(torchaudio.transforms.AmplitudeToDB()(self.melspec(waveforms))[:, None])
        for layer, pool in zip([getattr(self, f"layer{n}") for n in range(1, 6)], self.pools, strict=True):
            out = nn.functional.max_pool2d(torch.relu(layer.bn(layer.conv(out))), pool)
        out = torch.relu(self.dense_bn(self.dense1(out.reshape(len(out), 64))))
        return self.dense2(out)


class CNN2(nn.Module):
    """CNN2 of AudioConcept; it takes the mel and gives probabilities."""

    def __init__(self) -> None:
        super().__init__()
        widths = (1, 64, 128, 256, 512)
        for number, pool in enumerate((2, 2, 4, 4), 1):
            convolution = nn.Conv2d(widths[number - 1], widths[number], 3, padding=1)
            norm = nn.BatchNorm2d(widths[number])
            self.add_module(f"convBlock{number}", nn.Sequential(convolution, norm, nn.ReLU(), nn.MaxPool2d(pool)))
        self.fcBlock1 = nn.Sequential(nn.Linear(2048, 1024), nn.ReLU(), nn.Dropout(0.5))
        self.fcBlock2 = nn.Sequential(nn.Linear(1024, 256), nn.ReLU(), nn.Dropout(0.5))
        self.output = nn.Sequential(nn.Linear(256, 10), nn.Softmax(dim=1))

    def forward(self, mel: Tensor) -> Tensor:
        for number in range(1, 5):
            mel = getattr(self, f"convBlock{number}")(mel)
        return self.output(self.fcBlock2(self.fcBlock1(mel.flatten(1))))


class VGGish(nn.Module):
    """The VGG16 of AudioConcept: names and shapes only."""

    def __init__(self) -> None:
        super().__init__()
        self.input_bn = nn.BatchNorm2d(1)
        layers: list[nn.Module] = []
        incoming = 1
        for widths in ((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3):
            for width in widths:
                layers += [nn.Conv2d(incoming, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
                incoming = width
            layers.append(nn.MaxPool2d(2))
        self.conv_layers = nn.Sequential(*layers)
        self.fcs = nn.Sequential(
            nn.Linear(512 * 49, 4096),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(4096, 4096),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(4096, 10),
        )


def lively(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model in evaluation mode with running statistics as after training."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                nn.init.normal_(module.running_mean, std=0.3)
                nn.init.uniform_(module.running_var, 0.5, 2.0)
                nn.init.normal_(module.weight, mean=1.0, std=0.2)
                nn.init.normal_(module.bias, std=0.2)
    return model.eval()
