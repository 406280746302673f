"""Read the published weights of the tagger, ``MSD_vgg.h5``, without TensorFlow."""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from captum_concepts.errors import InputError
from captum_concepts.text import short_repr
from captum_concepts_deezer.models import CHANNELS, CLASSES, FLATTENED, MSDVGG, POOLS, BlockWeights, VGGWeights

if TYPE_CHECKING:
    import h5py

WEIGHTS_FILE = "MSD_vgg.h5"
WEIGHTS_ORIGIN = "https://github.com/deezer/concept_hierarchy"
BATCH_NORM_EPSILON = 1e-3  # Keras' default, which the published model uses


def load_msd_vgg(path: str | PathLike[str] | None) -> MSDVGG:
    """The tagger with the weights of a user's ``MSD_vgg.h5``, read with h5py (no TensorFlow).

    Args:
        path: the Keras weights file as published.

    Raises:
        InputError: no path, no such file, not an HDF5 file or a damaged one, weights of another architecture (any
            name or shape that differs), weights that are not finite.
    """
    if path is None:
        raise InputError(
            f"weights=None: msd-vgg needs its weights; give the path of {WEIGHTS_FILE}, published in {WEIGHTS_ORIGIN} "
            "(it is not downloaded for you)"
        )
    import h5py

    where = f"weights={short_repr(str(path), 200)}"
    try:
        with h5py.File(path, "r") as file:
            arrays = _read_arrays(file, where)
    except FileNotFoundError:
        raise InputError(f"{where}: no such file; {WEIGHTS_FILE} is in {WEIGHTS_ORIGIN}") from None
    except (OSError, RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(
            f"{where}: not a readable HDF5 file ({reason}); {WEIGHTS_FILE} is in {WEIGHTS_ORIGIN}"
        ) from None
    return MSDVGG(_arrange(arrays))


def expected_shapes() -> dict[str, tuple[int, ...]]:
    """Name and shape of every dataset in the published weights file."""
    norm = ("gamma", "beta", "moving_mean", "moving_variance")
    shapes: dict[str, tuple[int, ...]] = {f"bn_input/bn_input/{name}:0": (1,) for name in norm}
    for number in range(1, len(POOLS) + 1):
        shapes[f"{number}CNN/{number}CNN/kernel_1:0"] = (3, 3, 1 if number == 1 else CHANNELS, CHANNELS)
        shapes[f"{number}CNN/{number}CNN/bias_1:0"] = (CHANNELS,)
        shapes |= {f"bn_conv{number}/bn_conv{number}/{name}:0": (CHANNELS,) for name in norm}
    return shapes | {"output/output/kernel:0": (FLATTENED, len(CLASSES)), "output/output/bias:0": (len(CLASSES),)}


def _read_arrays(file: h5py.File, where: str) -> dict[str, Tensor]:
    import h5py

    found: dict[str, h5py.Dataset] = {}
    file.visititems(lambda name, item: found.update({name: item}) if isinstance(item, h5py.Dataset) else None)
    shapes = expected_shapes()
    other = f"{where}: another architecture than {WEIGHTS_FILE}"
    for name, shape in shapes.items():
        if name not in found:
            raise InputError(f"{other}: it has no {name!r}")
        if found[name].shape != shape or found[name].dtype.kind != "f":
            raise InputError(f"{other}: {name!r} is {found[name].dtype} {found[name].shape}, expected float {shape}")
    if unexpected := sorted(found.keys() - shapes.keys()):
        raise InputError(f"{other}: unexpected {short_repr(unexpected[0])}")
    arrays = {name: torch.from_numpy(found[name][()].astype("float32")) for name in shapes}
    for name, array in arrays.items():
        if not array.isfinite().all() or (name.endswith("moving_variance:0") and (array < 0).any()):
            raise InputError(f"{where}: {name!r} holds NaN, infinite or impossible values; get the file again")
    return arrays


def _arrange(arrays: dict[str, Tensor]) -> VGGWeights:
    """Keras' names and layouts to torch's: kernels HWIO -> OIHW, dense (in, out) -> (out, in), normalisation folded
    to one affine map in double precision."""

    def norm(layer: str) -> tuple[Tensor, Tensor]:
        gamma, beta, mean, variance = (
            arrays[f"{layer}/{layer}/{name}:0"].double() for name in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        gain = gamma / (variance + BATCH_NORM_EPSILON).sqrt()
        return gain.float(), (beta - mean * gain).float()

    blocks = []
    for number in range(1, len(POOLS) + 1):
        kernel, bias = (arrays[f"{number}CNN/{number}CNN/{name}_1:0"] for name in ("kernel", "bias"))
        blocks.append(BlockWeights(kernel.permute(3, 2, 0, 1), bias, *norm(f"bn_conv{number}")))
    return VGGWeights(
        *norm("bn_input"), tuple(blocks), arrays["output/output/kernel:0"].T, arrays["output/output/bias:0"]
    )
