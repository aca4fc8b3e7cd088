"""OpenVINO as a backend: the same graphs as ONNX Runtime's, by kernels that are made for the CPU's own INT8 and bf16."""

import logging
import sys
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from yolov3_trt.arguments import spelled
from yolov3_trt.backends import BackendName, OpenBackend, RunPrecision
from yolov3_trt.backends.tensors import check_tensors
from yolov3_trt.cpu import cpu_features, saturates_int8
from yolov3_trt.engine.trust import why_suspicious
from yolov3_trt.errors import BackendError, OutputError, require
from yolov3_trt.files import cache_folder, make_folder
from yolov3_trt.meta import INPUT_NAME, Precision, load_model_meta

_LOG = logging.getLogger(__name__)
_HINTS = {RunPrecision.FP32: "f32", RunPrecision.BF16: "bf16", RunPrecision.FP16: "f16"}
_TYPES = {"f32": "float32", "i32": "int32", "u8": "uint8"}  # NumPy's, by OpenVINO's
_AS_WRITTEN = {"LP_TRANSFORMS_MODE": False}  # of the CPU plugin, not in its documents: no integer kernels


class OpenVinoBackend(OpenBackend):
    """Runs an ONNX file on the CPU, an `OverlappingBackend`: a batch is prepared while the one before runs.

    Left to itself, OpenVINO computes a float32 graph in bf16 where the CPU has it. Here that is only done when it is asked for.
    """

    name = BackendName.OPENVINO
    num_slots = 2

    def __init__(self, path: Path, *, precision: RunPrecision = RunPrecision.FP32, threads: int | None = None) -> None:
        """Load the file and its sidecar.

        Args:
            path: of the graph.
            precision: what it computes in wherever the graph is not INT8.
            threads: of the CPU.

        Raises:
            MetaError: the sidecar is missing or not this file's.
            BackendError: OpenVINO does not load the graph, the CPU does not compute in `precision`, or the graph is not what
                the sidecar says.
        """
        self.meta = load_model_meta(path)
        core = _openvino().Core()
        config: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,  # one batch at a time, by all threads; the other slot waits
            **({} if threads is None else {"INFERENCE_NUM_THREADS": threads}),
            **_cache_config(),
        }
        exact = self.meta.precision is Precision.INT8 and saturates_int8()
        try:
            model = core.read_model(path)
            check_tensors(
                [(_name(port), *_form(port)) for port in model.inputs],
                [(_name(port, self.meta.output_names), *_form(port)) for port in model.outputs],
                self.meta,
                path,
            )
            compiled, as_written = _compiled(core, model, config, exact)
        except RuntimeError as exc:
            raise BackendError(f"{path}: OpenVINO does not load it: {_one_line(exc)}") from exc
        got = str(compiled.get_property("INFERENCE_PRECISION_HINT"))
        if precision is not RunPrecision.FP32 and "float32" in got:
            has = ", ".join(cpu_features()) or "none of its extensions known"
            raise BackendError(
                f"{path}: precision={precision.value} was asked for, but OpenVINO does not compute in it on this CPU ({has}); "
                "leave it out"
            )
        self.fallbacks = _fallbacks(precision, exact, as_written)
        self._requests = [compiled.create_infer_request() for _ in range(self.num_slots)]
        self._outputs = [compiled.output(name) for name in self.meta.output_names]
        self._free: deque[Any] = deque(self._requests)
        self._running: deque[Any] = deque()

    def start(self, images: NDArray[Any]) -> None:
        """See `OverlappingBackend.start`."""
        self.check_batch(images)
        if not self._free:
            raise BackendError(f"{self.meta.name}: {self.num_slots} batches are under way; take a result first")
        request = self._free.popleft()
        request.set_tensor(INPUT_NAME, _openvino().Tensor(images, shared_memory=True))
        request.start_async()
        self._running.append(request)

    def finish(self) -> Mapping[str, NDArray[Any]]:
        """See `OverlappingBackend.finish`."""
        self.check_open()
        if not self._running:
            raise BackendError(f"{self.meta.name}: no batch is under way; start one first")
        request = self._running.popleft()
        self._free.append(request)
        try:
            request.wait()
        except RuntimeError as exc:
            raise BackendError(f"{self.meta.name}: OpenVINO fails while it runs it: {_one_line(exc)}") from exc
        return {
            name: request.get_tensor(port).data
            for name, port in zip(self.meta.output_names, self._outputs, strict=True)
        }

    def infer(self, images: NDArray[Any]) -> Mapping[str, NDArray[Any]]:
        """See `TensorBackend.infer`."""
        self.start(images)
        return self.finish()

    def close(self) -> None:
        """Wait for what is under way, and free everything."""
        super().close()
        for request in self._running:
            request.wait()
        self._running.clear()
        self._free.clear()
        self._requests.clear()
        self._outputs.clear()


def _openvino() -> Any:
    """The package, without the events that its import otherwise sends to its makers."""
    if "openvino" not in sys.modules:
        before = sys.modules.get("openvino_telemetry")
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # "not installed"
        try:
            return require("openvino", extra="openvino")
        finally:
            sys.modules.pop("openvino_telemetry")
            if before is not None:
                sys.modules["openvino_telemetry"] = before
    return require("openvino", extra="openvino")


def _cache_config() -> dict[str, str]:
    """What is compiled is kept for the next start, in the user's own cache; not where others could have put something."""
    folder = cache_folder() / "openvino"
    try:
        make_folder(folder)
        kept = [folder, *folder.iterdir()]
    except (OutputError, OSError) as exc:
        _LOG.warning("what OpenVINO compiles is not kept, so the next start compiles again: %s", exc)
        return {}
    for path in kept:
        if (reason := why_suspicious(path)) is not None:
            _LOG.warning("%s: this cache is not used: %s", folder, reason)
            return {}
    return {"CACHE_DIR": str(folder)}


def _compiled(core: Any, model: Any, config: Mapping[str, Any], exact: bool) -> tuple[Any, bool]:
    """A model for the CPU, and whether its INT8 parts are computed in float because that was asked for."""
    if exact:
        try:
            return core.compile_model(model, "CPU", {**config, **_AS_WRITTEN}), True
        except RuntimeError as exc:
            _LOG.info("this OpenVINO cannot do without integer kernels: %s", _one_line(exc))
    return core.compile_model(model, "CPU", dict(config)), False


def _fallbacks(precision: RunPrecision, exact: bool, as_written: bool) -> tuple[str, ...]:
    """What a reader of its figures must know."""
    found = []
    if precision is not RunPrecision.FP32:
        found.append(f"computes in {precision.value}, as asked for, wherever the graph is not INT8")
    elif "bf16" in cpu_features():
        found.append(
            "computes in fp32 wherever the graph is not INT8; this CPU also has bf16: "
            f"{spelled('precision', 'bf16')} is faster"
        )
    if exact and as_written:
        found.append("this CPU has no VNNI, so INT8 is computed in float as the graph is written: right, but no faster")
    elif exact:
        found.append("this CPU has no VNNI: sums of INT8 products may be cut off, and accuracy with them")
    return tuple(found)


def _name(port: Any, expected: tuple[str, ...] = (INPUT_NAME,)) -> str:
    """A tensor may have several names, where only its type is changed."""
    names = port.get_names()
    return next((name for name in expected if name in names), min(names, default=""))


def _form(port: Any) -> tuple[str, list[int | None]]:
    kind = port.get_element_type().get_type_name()
    sizes = [None if size.is_dynamic else size.get_length() for size in port.get_partial_shape()]
    return _TYPES.get(kind, kind), sizes


def _one_line(exc: Exception) -> str:
    return " ".join(str(exc).split())[-300:]
