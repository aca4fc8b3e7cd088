"""The ranges of a graph's tensors over pictures, one picture at a time."""

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
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

    The tensors of one input are observed while the next one runs. Memory: the tensors of two inputs, and an observer of each,
    however many inputs there are.

    Args:
        run: an input of the graph -> the tensors to observe, float32, of the same shapes each time, which stay as they are.
        inputs: just as at inference.
        num_inputs: how many they are at most.
        method: how a range is chosen.
        percentile: of Method.PERCENTILE; None: `DEFAULT_PERCENTILE`.

    Raises:
        CalibrationError: there are no inputs, or a tensor holds a value that is not finite.
    """
    observers: dict[str, Observer] = {}

    def observe(tensors: Mapping[str, NDArray[Any]]) -> None:
        for name, tensor in tensors.items():
            if name not in observers:
                observers[name] = make_observer(
                    method, tensor.size * num_inputs, DEFAULT_PERCENTILE if percentile is None else percentile
                )
            try:
                observers[name].observe(tensor)
            except CalibrationError as exc:
                raise CalibrationError(f"tensor {name!r}: {exc}") from exc

    with ThreadPoolExecutor(1) as observing:
        before: Future[None] | None = None
        for values in inputs:
            tensors = run(values)
            if before is not None:
                before.result()
            before = observing.submit(observe, tensors)
        if before is not None:
            before.result()
    if not observers:
        raise CalibrationError("there are no pictures to calibrate on; expected one or more")
    return {name: observer.amax() for name, observer in observers.items()}
