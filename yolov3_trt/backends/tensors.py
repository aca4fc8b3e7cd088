"""Whether a graph that a runtime has loaded is the one that its sidecar describes."""

from collections.abc import Sequence
from pathlib import Path

from yolov3_trt.errors import BackendError
from yolov3_trt.meta import INPUT_NAME, ModelMeta

Tensor = tuple[str, str, Sequence[int | None]]  # name, type as NumPy calls it, sizes; None for one that varies


def check_tensors(inputs: Sequence[Tensor], outputs: Sequence[Tensor], meta: ModelMeta, path: Path | str) -> None:
    """Whether a graph has the inputs and outputs that its sidecar says.

    Raises:
        BackendError: it has others.
    """
    expected_inputs = {INPUT_NAME: (meta.input_dtype, meta.input_shape(meta.batch.max))}
    for kind, tensors, expected in (
        ("inputs", inputs, expected_inputs),
        ("outputs", outputs, meta.output_shapes(meta.batch.max)),
    ):
        names = [name for name, _, _ in tensors]
        if names != list(expected):
            raise BackendError(
                f"{path}: the graph's {kind} are {names}; its sidecar says {list(expected)}; export it again"
            )
        for name, got_dtype, sizes in tensors:
            dtype, shape = expected[name]
            wanted = [None if meta.batch.dynamic else shape[0], *shape[1:]]
            fits = len(sizes) == len(wanted) and all(a in (b, None) for a, b in zip(sizes, wanted, strict=True))
            if got_dtype != dtype or not fits or (meta.batch.dynamic and sizes[0] is not None):
                raise BackendError(
                    f"{path}: the graph's {name!r} is {got_dtype} {[size or 'N' for size in sizes]}; its sidecar says "
                    f"{dtype} {[size or 'N' for size in wanted]}; export it again"
                )
