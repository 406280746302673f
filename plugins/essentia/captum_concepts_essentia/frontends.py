"""The front-ends of Essentia's algorithms: `captum_concepts.frontends.Frontend` with their numbers.

Each agrees with essentia's own ``TensorflowInput*`` (tests/test_frontends.py).
"""

from __future__ import annotations

from torch import Tensor

from captum_concepts.errors import InputError, shown
from captum_concepts.frontends import PRESETS, Frontend, frontend

#: Essentia's algorithm -> (patch frames, frames between patches) by default.
PATCHES = {
    "TensorflowPredictMusiCNN": (187, 93),
    "TensorflowPredictVGGish": (96, 93),
    "TensorflowPredictEffnetDiscogs": (128, 62),
    "TensorflowPredictMAEST": (1876, 1875),
    "TensorflowPredictTempoCNN": (256, 128),
}
#: MAEST's patch frames -> frames between patches, for models of 5, 10, 20 and 30 s.
MAEST_HOPS = {316: 313, 626: 625, 1256: 1250, 1876: 1875}
MAEST_MEAN, MAEST_SPREAD = 2.06755686098554, 2 * 1.268292820667291


class MaestFrontend(Frontend):
    """MusiCNN's log-mel, centred and scaled as MAEST was trained with."""

    def forward(self, waveforms: Tensor) -> Tensor:
        return (super().forward(waveforms) - MAEST_MEAN) / MAEST_SPREAD


class TempoFrontend(Frontend):
    """TempoCNN's mel magnitudes, (B, 40, 256, 1): neither compressed nor in the usual order."""

    def forward(self, waveforms: Tensor) -> Tensor:
        # The parent's last step is ln(x + 0.01).
        return (super().forward(waveforms).exp() - 0.01).transpose(1, 2)[..., None]


def algorithm_frontend(algorithm: str, frames: int | None = None, hop: int | None = None) -> Frontend:
    """The front-end of one of Essentia's algorithms.

    Args:
        algorithm: e.g. "TensorflowPredictMusiCNN", a key of ``PATCHES``.
        frames: frames per patch, where the graph states them.
        hop: frames between patches.

    Raises:
        InputError: no such algorithm.
    """
    if algorithm not in PATCHES:
        raise InputError(f"algorithm {shown(algorithm)} has no front-end here; there are {', '.join(PATCHES)}")
    default, between = PATCHES[algorithm]
    frames = frames or default
    if algorithm == "TensorflowPredictMAEST":
        between = MAEST_HOPS.get(frames, frames)
    between = hop or (between if frames in (default, *MAEST_HOPS) else frames)
    if algorithm == "TensorflowPredictVGGish":
        return frontend("vggish", patch_frames=frames, hop_samples=between * 160)
    if algorithm == "TensorflowPredictTempoCNN":
        return _tempo(frames, between)
    numbers = dict(PRESETS["musicnn"].keywords)  # type: ignore[attr-defined]
    kind = MaestFrontend if algorithm == "TensorflowPredictMAEST" else Frontend
    return kind(**numbers | {"patch_frames": frames, "hop_samples": between * 256})


def _tempo(frames: int, between: int) -> Frontend:
    return TempoFrontend(
        sample_rate=11025,
        n_fft=1024,
        window_samples=1024,
        frame_hop=512,
        n_mels=40,
        f_min=20.0,
        f_max=5000.0,
        mel_scale="slaney",
        mel_norm="slaney",
        power=1,
        periodic=False,
        compression="ln(x+0.01)",
        patch_frames=frames,
        hop_samples=between * 512,
        centre="clip",
    )
