"""The configuration with which DeepStream's Gst-nvinfer runs an artifact; its comments say what else is needed.

Gst-nvinfer scales frames itself, gives the network float32 RGB planes, and knows no YOLO: what reads the outputs is a library
of the user's, or the user's own pipeline, which finds the four detection tensors in the metadata of each frame.
"""

from dataclasses import dataclass
from pathlib import Path

from yolov3_trt.deploy.deployment import check_no_rows
from yolov3_trt.errors import BackendError
from yolov3_trt.geometry import Resize
from yolov3_trt.layers import HeadKind
from yolov3_trt.meta import EngineMeta, InputStage, ModelMeta, OutputStage, Precision

_NETWORK_MODES = {Precision.FP32: 0, Precision.INT8: 1, Precision.FP16: 2}  # Gst-nvinfer's numbers
_COLOUR_FORMATS = {3: 0, 1: 2}  # RGB, grey
_DETECTOR, _OTHER = 0, 100  # network-type: boxes by a parser, or tensors as they are
_NO_CLUSTERING = 4  # cluster-mode: the boxes are suppressed already
_NMS = 2
# How the planes of a head are read, where that is not YOLOv3's way.
_HOW = {
    HeadKind.SCALED: " of new_coords=1: w, h = (2 sigmoid)^2 anchors",
    HeadKind.REGION: " of YOLOv2: a softmax over the classes",
    HeadKind.GAUSSIAN: ": x, y, w, h each with its uncertainty behind it, scores times 1 - the mean of their sigmoids",
}


@dataclass(frozen=True)
class Parser:
    """A library of the user that turns the outputs into boxes."""

    library: Path
    function: str


def config_from_artifact(
    artifact: Path, meta: ModelMeta | EngineMeta, labels: Path, parser: Parser | None = None
) -> str:
    """Make the text of a `config_infer` file.

    Args:
        artifact: an engine, or an `.onnx` that Gst-nvinfer compiles at its first start.
        meta: its sidecar.
        labels: file of class names, one a line.
        parser: what reads the outputs inside Gst-nvinfer; None: they go with each frame as tensors.

    Raises:
        BackendError: Gst-nvinfer cannot run the artifact.
    """
    model = meta.model if isinstance(meta, EngineMeta) else meta
    _check(artifact, meta, model, parser)
    lines = [*_notes(model, parser), "", "[property]"]
    lines += [f"{key}={value}" for key, value in _properties(artifact, model, labels, parser).items()]
    if parser is not None:
        lines += ["", "[class-attrs-all]"]
        lines += [f"{key}={value}" for key, value in _thresholds(model).items()]
    return "\n".join(lines) + "\n"


def _check(artifact: Path, meta: ModelMeta | EngineMeta, model: ModelMeta, parser: Parser | None) -> None:
    if isinstance(meta, EngineMeta) and meta.flavor != "tensorrt":
        raise BackendError(
            f"{artifact}: built by {meta.flavor}, which DeepStream does not load; build it with --flavor tensorrt"
        )
    if model.input_stage is not InputStage.TENSOR:
        raise BackendError(
            f"{artifact}: it takes uint8 pixels, but Gst-nvinfer gives float32 planes; export it with --input-stage tensor"
        )
    check_no_rows(artifact, model)
    if model.output_stage is OutputStage.HEADS and parser is None:
        raise BackendError(
            f"{artifact}: its outputs are logits, which Gst-nvinfer cannot read; export it with --output-stage detections, or "
            "name what reads them with --parser-library and --parser-function"
        )


def _notes(model: ModelMeta, parser: Parser | None) -> list[str]:
    """The comments at the top of the file, with what its reader must know."""
    outputs = ", ".join(model.output_names)
    notes = [f"Gst-nvinfer for {model.name}, written by `yolov3_trt deploy deepstream`.", ""]
    notes += ["An engine runs only with the TensorRT and the kind of GPU that it was built with."]
    if parser is None:
        notes += [
            f"No parser is needed: each frame carries the tensors {outputs}",
            "(NvDsInferTensorMeta, as in the sample deepstream-infer-tensor-meta-test). boxes are x1, y1, x2, y2 in input px,",
            "rows from num_detections on are zero. The pipeline has to undo the scaling below and add the objects itself.",
        ]
    else:
        notes += [
            f"{parser.function} in {parser.library.name} is yours to provide, after the NvDsInferParseCustomFunc type of",
            f"nvdsinfer_custom_impl.h. It is given {outputs}: {_layout(model)}.",
        ]
    notes += _scaling_notes(model)
    return [f"# {note}".rstrip() for note in notes]


def _layout(model: ModelMeta) -> str:
    if model.output_stage is OutputStage.DETECTIONS:
        return "boxes x1, y1, x2, y2 in input px, suppressed already, rows from num_detections on zero"
    anchors = "; ".join(f"{head.name} {' '.join(f'{w:g}x{h:g}' for w, h in head.anchors_wh)}" for head in model.heads)
    kind = model.heads[0].kind
    return (
        f"logits, A*({kind.box_values + 1}+C) planes in the order x, y, w, h, object, classes{_HOW.get(kind, '')}, with the "
        f"anchors {anchors} in input px"
    )


def _scaling_notes(model: ModelMeta) -> list[str]:
    notes = ["Frames are scaled by DeepStream's own filter, not by this package's: expect slightly other scores."]
    if model.preprocess.resize is Resize.LETTERBOX:
        notes.append(
            f"DeepStream pads with black, this model was made for grey {model.preprocess.pad_value}: objects at the border may "
            "differ."
        )
    return notes


def _properties(artifact: Path, model: ModelMeta, labels: Path, parser: Parser | None) -> dict[str, str | int]:
    height, width = model.input_hw
    # Gst-nvinfer writes what it compiles beside the graph, by this name, and compiles at each start unless it is told so.
    compiled = f"{artifact}_b{model.batch.max}_gpu0_{model.precision.value}.engine"
    is_engine = artifact.suffix != ".onnx"
    files = (
        {"model-engine-file": str(artifact)}
        if is_engine
        else {"onnx-file": str(artifact), "model-engine-file": compiled}
    )
    content: dict[str, str | int] = {
        "gpu-id": 0,
        "process-mode": 1,
        "gie-unique-id": 1,
        "interval": 0,
        **files,
        "labelfile-path": str(labels),
        "batch-size": model.batch.max,
        "network-mode": _NETWORK_MODES[model.precision],
        "infer-dims": f"{model.channels};{height};{width}",
        "net-scale-factor": repr(model.preprocess.scale),
        "model-color-format": _COLOUR_FORMATS[model.channels],
        "maintain-aspect-ratio": int(model.preprocess.resize is Resize.LETTERBOX),
        "symmetric-padding": int(model.preprocess.resize is Resize.LETTERBOX),
        "num-detected-classes": model.num_classes,
    }
    if parser is None:
        return {**content, "network-type": _OTHER, "output-tensor-meta": 1}
    return {
        **content,
        "network-type": _DETECTOR,
        "cluster-mode": _NO_CLUSTERING if model.output_stage is OutputStage.DETECTIONS else _NMS,
        "custom-lib-path": str(parser.library),
        "parse-bbox-func-name": parser.function,
    }


def _thresholds(model: ModelMeta) -> dict[str, str | int]:
    own = model.postprocess
    thresholds: dict[str, str | int] = {"pre-cluster-threshold": str(own.conf), "topk": own.max_detections}
    if model.output_stage is OutputStage.HEADS:
        thresholds["nms-iou-threshold"] = str(own.iou)
    return thresholds
