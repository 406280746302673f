from __future__ import annotations

import numpy as np
import pytest
from captum_concepts_deezer.checkpoints import load_msd_vgg

from captum_concepts.errors import InputError


def refused(path, *words):
    with pytest.raises(InputError) as caught:
        load_msd_vgg(path)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_no_path_says_which_file_and_where(tmp_path):
    refused(None, "MSD_vgg.h5", "github.com/deezer/concept_hierarchy", "not downloaded")
    refused(tmp_path / "none.h5", "none.h5", "no such file")


def test_files_that_are_no_hdf5(tmp_path, arrays, write_h5):
    (tmp_path / "text.h5").write_text("weights\n" * 1000)
    refused(tmp_path / "text.h5", "text.h5", "not a readable HDF5 file")
    (tmp_path / "nothing.h5").write_bytes(b"")
    refused(tmp_path / "nothing.h5", "not a readable HDF5 file")
    refused(tmp_path, "not a readable HDF5 file")
    whole = write_h5(arrays).read_bytes()
    for share in (0.1, 0.5, 0.99):
        (tmp_path / "cut.h5").write_bytes(whole[: int(share * len(whole))])
        refused(tmp_path / "cut.h5", "not a readable HDF5 file", "truncated")


def test_other_architectures(arrays, write_h5):
    other = "another architecture"
    refused(write_h5({"dense/kernel:0": np.zeros((3, 3), np.float32)}), other)
    without = {name: array for name, array in arrays.items() if name != "3CNN/3CNN/bias_1:0"}
    refused(write_h5(without), other, "3CNN/3CNN/bias_1:0")
    refused(write_h5(arrays | {"6CNN/6CNN/bias_1:0": np.zeros(128, np.float32)}), other, "6CNN")
    smaller = np.zeros((3, 3, 128, 64), np.float32)
    refused(write_h5(arrays | {"2CNN/2CNN/kernel_1:0": smaller}), other, "(3, 3, 128, 64)", "(3, 3, 128, 128)")
    refused(write_h5(arrays | {"output/output/bias:0": np.zeros(50, "i4")}), other, "int32")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite(arrays, write_h5, value):
    broken = arrays["4CNN/4CNN/kernel_1:0"].copy()
    broken[0, 0, 5, 7] = value
    refused(write_h5(arrays | {"4CNN/4CNN/kernel_1:0": broken}), "4CNN/4CNN/kernel_1:0", "NaN")


def test_negative_variance(arrays, write_h5):
    name = "bn_conv1/bn_conv1/moving_variance:0"
    refused(write_h5(arrays | {name: -arrays[name]}), name)
