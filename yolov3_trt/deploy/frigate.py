"""What Frigate needs to run a graph with its `onnx` detector: the graph, the names of its classes, a block of configuration.

Frigate stretches the part of a frame that it looks at to the model's size, takes one picture at a time, and suppresses boxes
by itself: its model type `yolo-generic` reads one tensor (1, 4+C, B).
"""

import shutil
from pathlib import Path

from yolov3_trt.errors import BackendError
from yolov3_trt.files import replacing, write_text
from yolov3_trt.meta import ROWS_OUTPUT, InputStage, ModelMeta, RowsLayout

_FOLDER = "/config/model_cache"  # in Frigate's container


def write_frigate(artifact: Path, meta: ModelMeta, folder: Path) -> tuple[Path, Path, Path]:
    """Write a graph, its labels and the block of Frigate's configuration that names them into a folder.

    Args:
        artifact: an `.onnx`.
        meta: its sidecar.
        folder: what lies in it goes to `model_cache` beside Frigate's configuration.

    Returns:
        The paths of graph, labels and block.

    Raises:
        BackendError: Frigate cannot run the artifact.
        OutputError: a file cannot be written.
    """
    _check(artifact, meta)
    graph, labels, block = (folder / f"{artifact.stem}{suffix}" for suffix in (".onnx", ".labels.txt", ".frigate.yml"))
    with replacing(graph) as partial:
        shutil.copyfile(artifact, partial)
    # With numbers, since Frigate takes a first name such as `2 wheels` for one.
    write_text(labels, "".join(f"{index} {name}\n" for index, name in enumerate(meta.class_names)))
    write_text(block, _block(graph.name, labels.name, meta))
    return graph, labels, block


def _block(graph: str, labels: str, meta: ModelMeta) -> str:
    pixels = meta.input_stage is InputStage.PIXELS
    height, width = meta.input_hw
    return f"""\
# For Frigate's config.yml; {graph} and {labels} go to the folder model_cache beside it.
detectors:
  onnx:
    type: onnx

model:
  model_type: yolo-generic
  path: {_FOLDER}/{graph}
  labelmap_path: {_FOLDER}/{labels}
  width: {width}
  height: {height}
  input_tensor: {"nhwc" if pixels else "nchw"}
  input_dtype: {"int" if pixels else "float"}
  input_pixel_format: {"bgr" if pixels else "rgb"}
"""


def _check(artifact: Path, meta: ModelMeta) -> None:
    again = "export it with --output-stage rows --rows-layout channels_first"
    if meta.rows_layout is not RowsLayout.CHANNELS_FIRST:
        given = meta.output_stage.value if meta.rows_layout is None else f"rows as {meta.rows_layout.value}"
        raise BackendError(f"{artifact}: it gives {given}; expected one tensor of rows, which Frigate reads: {again}")
    if meta.channels == 1 and meta.input_stage is InputStage.TENSOR:
        raise BackendError(
            f"{artifact}: it takes grey planes; expected pixels, Frigate gives colour: {again} --input-stage pixels"
        )
    if str(meta.batch) != "1":
        raise BackendError(f"{artifact}: its batch is {meta.batch}; expected 1, Frigate gives one picture: {again}")
    if meta.frame_hw is not None:
        raise BackendError(f"{artifact}: it takes whole frames; expected the input's size, Frigate scales: {again}")
    _, rows, boxes = meta.output_shapes(1)[ROWS_OUTPUT][1]
    if boxes <= rows:
        raise BackendError(
            f"{artifact}: it has {boxes} boxes of {meta.num_classes} classes; expected more boxes than {rows}, "
            "since Frigate takes the larger side of the tensor for the boxes: export it for a larger input size"
        )
