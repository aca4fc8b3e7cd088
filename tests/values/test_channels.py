"""Peaks and means of channels over pictures, by hand."""

import numpy as np
import pytest

from yolov3_trt.calibration.channels import means_of_channels, peaks_of_channels
from yolov3_trt.errors import CalibrationError

INPUTS = [np.array([[1.0, 5.0]], np.float32), np.array([[2.0, -4.0]], np.float32), np.array([[6.0, 2.0]], np.float32)]


def run(values: np.ndarray) -> dict[str, np.ndarray]:
    return {"a": values.reshape(1, 2, 1, 1), "b": values[:, :1].reshape(1, 1, 1, 1) * 10}


def test_peaks_are_the_largest_of_all_pictures():
    found = peaks_of_channels(run, INPUTS)
    assert {name: values.tolist() for name, values in found.items()} == {"a": [6.0, 5.0], "b": [60.0]}


def test_means_are_over_all_pictures():
    found = means_of_channels(run, INPUTS)
    assert {name: values.tolist() for name, values in found.items()} == {"a": [3.0, 1.0], "b": [30.0]}
    assert found["a"].dtype == np.float32


@pytest.mark.parametrize("measure", [peaks_of_channels, means_of_channels])
def test_no_pictures_and_no_numbers_are_refused(measure):
    with pytest.raises(CalibrationError, match="there are no pictures"):
        measure(run, [])
    with pytest.raises(CalibrationError, match="tensor 'a': a value is NaN or infinite"):
        measure(run, [np.array([[np.nan, 1]], np.float32)])
