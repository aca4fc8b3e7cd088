"""The ranges of a graph's tensors over pictures, one picture at a time."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from numpy.typing import NDArray

from yolov3_trt.calibration.observers import Observer, make_observer
from yolov3_trt.errors import CalibrationError
from yolov3_trt.settings import DEFAULT_PERCENTILE, Method

Run = Callable[[NDArray[Any]], Mapping[str, NDArray[Any]]]


def ranges_of_tensors(
    run: Run,
    inputs: Iterable[NDArray[Any]],
    num_inputs: int,
    *,
    method: Method,
    percentile: float | None = None,
) -> dict[str, float]:
    """Amax of every tensor that `run` gives, by name.

    Memory: the tensors of one input, and an observer of each, however many inputs there are.

    Args:
        run: an input of the graph -> the tensors to observe, float32, of the same shapes each time.
        inputs: just as at inference.
        num_inputs: how many they are at most.
        method: how a range is chosen.
        percentile: of Method.PERCENTILE; None: `DEFAULT_PERCENTILE`.

    Raises:
        CalibrationError: there are no inputs, or a tensor holds a value that is not finite.
    """
    observers: dict[str, Observer] = {}
    for values in inputs:
        for name, tensor in run(values).items():
            if name not in observers:
                observers[name] = make_observer(
                    method, tensor.size * num_inputs, DEFAULT_PERCENTILE if percentile is None else percentile
                )
            try:
                observers[name].observe(tensor)
            except CalibrationError as exc:
                raise CalibrationError(f"tensor {name!r}: {exc}") from exc
    if not observers:
        raise CalibrationError("there are no pictures to calibrate on; expected one or more")
    return {name: observer.amax() for name, observer in observers.items()}
