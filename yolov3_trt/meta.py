"""Sidecars: the JSON beside an `.onnx` or `.engine` that says all a runtime needs to use it.

An artifact and its sidecar are one thing in two files, `NAME.onnx` and `NAME.onnx.json`; the artifact itself stays plain
so that other tools load it. A sidecar names the SHA-256 of its artifact and is refused beside another.
"""

import dataclasses
import hashlib
import json
import mmap
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from yolov3_trt.arguments import MAX_SIDE, integer, is_plain, number, one_of, shown
from yolov3_trt.certificate import Certificate
from yolov3_trt.errors import MetaError, SettingError, Yolov3TrtError
from yolov3_trt.files import sha256_of_file, write_text
from yolov3_trt.sizes import HW, Resize
from yolov3_trt.spec import Head, ModelSpec, Nms

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError

    from yolov3_trt.geometry import Placement

MODEL_FORMAT = "yolov3_trt.model/1"
ENGINE_FORMAT = "yolov3_trt.engine/1"
DEFAULT_OPSET = 17  # the newest that TensorRT 8.6 reads
MAX_BATCH = 9_999
MAX_CANDIDATES = 1 << 14  # far more than any use; a sidecar must not be able to ask for hours or all of the memory
_MAX_ELEMENTS = 2**31 - 1  # of a tensor, in TensorRT
_MAX_ANCHOR = 1e6  # input px

# Unknown keys are refused: a sidecar that says more than this version understands must not be half understood.
_STRICT: dict[str, Any] = {"extra": "forbid"}


class Precision(str, Enum):
    """What a graph computes in. It is written into the graph's types, not set by a builder flag."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"


class InputStage(str, Enum):
    """What a graph takes, as its one input `images`."""

    TENSOR = "tensor"  # (N, 3, H, W) float32, RGB, 0..1; grey (N, 1, H, W) for a model of one channel
    PIXELS = "pixels"  # (N, H, W, 3) uint8, BGR; of the network's size, or whole frames, see `ModelMeta.frame_hw`


class OutputStage(str, Enum):
    """What a graph gives."""

    HEADS = "heads"  # one (N, A*(5+C), H/s, W/s) float32 of logits per scale
    ROWS = "rows"  # every box decoded, none suppressed; see `RowsLayout`
    DETECTIONS = "detections"  # DETECTION_OUTPUTS, boxes in input px


class RowsLayout(str, Enum):
    """What a ROWS graph gives, float32: for each box centre, size and scores = objectness x class probability."""

    # As OpenCV's Darknet importer: per head (B, 5+C), or (N, B, 5+C) with batches, cell by cell: x, y, w, h in fractions of the
    # input, objectness, scores; scores up to `postprocess.conf` are 0.
    OPENCV = "opencv"
    OPENCV_JOINED = "opencv_joined"  # the same of all heads as one tensor
    CHANNELS_FIRST = "channels_first"  # one (N, 4+C, B): x, y, w, h in input px, scores


ROWS_OUTPUT = "rows"  # of the layouts that are one tensor
# num_detections (N,) int32, boxes (N, K, 4) float32 xyxy input px, scores (N, K) float32, class_ids (N, K) int32; rows
# from num_detections on are zero.
DETECTION_OUTPUTS = ("num_detections", "boxes", "scores", "class_ids")
INPUT_NAME = "images"


@dataclass(frozen=True)
class Preprocess:
    """How a picture becomes an input, for the reference, calibration, the runtime and evaluation alike.

    Sampling is bilinear with half-pixel centres and no antialiasing, as OpenCV's INTER_LINEAR.
    """

    resize: Resize = Resize.LETTERBOX
    pad_value: int = 128  # grey of the letterbox border, 0..255; Darknet pads with 0.5
    scale: float = 1 / 255  # from a pixel's 0..255 to the network's 0..1

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT

    def __post_init__(self) -> None:
        object.__setattr__(self, "resize", one_of("resize", self.resize, Resize))
        object.__setattr__(self, "pad_value", integer("pad_value", self.pad_value, 0, 255))
        object.__setattr__(self, "scale", number("scale", self.scale, 1e-6, 1))

    def override(self, *, resize: Resize | None = None) -> "Preprocess":
        """A copy with what is given; None keeps a value."""
        return self if resize is None else dataclasses.replace(self, resize=resize)


@dataclass(frozen=True)
class Postprocess:
    """How heads become detections, in the graph or on the host."""

    conf: float = 0.25  # objectness and score must both exceed it
    iou: float = 0.45  # a box this similar to a better one of its class is dropped
    max_candidates: int = 512  # best (box, class) pairs that enter non-maximum suppression
    max_detections: int = 300  # best pairs that leave it
    nms: Nms = field(default_factory=Nms)

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT

    def __post_init__(self) -> None:
        for name in ("conf", "iou"):
            object.__setattr__(self, name, number(name, getattr(self, name), 0, 1))
        for name in ("max_candidates", "max_detections"):
            object.__setattr__(self, name, integer(name, getattr(self, name), 1, MAX_CANDIDATES))
        number("beta_nms", self.nms.beta, -1000, 1000)
        if self.max_detections > self.max_candidates:
            raise SettingError(
                "max_detections", f"got {self.max_detections}; expected at most max_candidates, {self.max_candidates}"
            )

    def override(
        self,
        *,
        conf: float | None = None,
        iou: float | None = None,
        max_detections: int | None = None,
        nms: Nms | None = None,
    ) -> "Postprocess":
        """A copy with what is given; None keeps a value.

        Raises:
            SettingError: a value is out of its range.
        """
        changes = {
            "conf": conf,
            "iou": iou,
            "max_detections": max_detections,
            "nms": nms,
        }
        given: dict[str, Any] = {key: value for key, value in changes.items() if value is not None}
        return dataclasses.replace(self, **given)


@dataclass(frozen=True)
class Batch:
    """Images a call may hold; fixed where all three are equal.

    Raises:
        SettingError: at construction, the three are not whole numbers in order.
    """

    min: int = 1
    opt: int = 1
    max: int = 1

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT

    def __post_init__(self) -> None:
        for name in ("min", "opt", "max"):
            object.__setattr__(self, name, integer("batch", getattr(self, name), 1, MAX_BATCH))
        if not self.min <= self.opt <= self.max:
            raise SettingError("batch", f"got {self.min}:{self.opt}:{self.max}; expected 1 <= MIN <= OPT <= MAX")

    @classmethod
    def of(cls, name: str, value: Any) -> "Batch":
        """A batch as callers give it: a number, a text `4` or `1:4:8` (MIN:OPT:MAX), three numbers, or a `Batch`.

        Raises:
            SettingError: it is none of these; the text names the argument `name`.
        """
        if isinstance(value, cls):
            return value
        if isinstance(value, str):
            if not re.fullmatch(r"[0-9]{1,5}(:[0-9]{1,5}:[0-9]{1,5})?", value):
                raise SettingError(name, f"got {shown(value)}; expected a number or MIN:OPT:MAX, e.g. 1 or 1:4:8")
            sizes = [int(part) for part in value.split(":")]
        elif isinstance(value, Mapping) and set(value) == {"min", "opt", "max"}:
            sizes = [value["min"], value["opt"], value["max"]]
        else:
            sizes = list(value) if isinstance(value, Iterable) else [value]
        if len(sizes) not in (1, 3):
            raise SettingError(name, f"got {shown(value)}; expected a number or MIN:OPT:MAX, e.g. 1 or 1:4:8")
        return cls(*(sizes * (1 if len(sizes) == 3 else 3)))

    @property
    def dynamic(self) -> bool:
        """More than one size."""
        return self.min != self.max

    def __str__(self) -> str:
        return f"{self.min}:{self.opt}:{self.max}" if self.dynamic else str(self.max)


@dataclass(frozen=True)
class ModelMeta:
    """What a graph is and how to feed and read it."""

    name: str
    input_hw: HW
    heads: tuple[Head, ...]
    class_names: tuple[str, ...]
    batch: Batch = field(default_factory=Batch)
    precision: Precision = Precision.FP32
    input_stage: InputStage = InputStage.TENSOR
    frame_hw: HW | None = None  # of PIXELS: whole frames of this size come in, and the graph itself resizes them
    output_stage: OutputStage = OutputStage.HEADS
    rows_layout: RowsLayout | None = None  # of ROWS
    preprocess: Preprocess = field(default_factory=Preprocess)
    postprocess: Postprocess = field(default_factory=Postprocess)
    opset: int | None = None  # of the ONNX graph
    layers_sha256: str | None = None  # see `ModelSpec.layers_sha256`
    weights_sha256: str | None = None
    channels: int = 3  # of what the network sees: 3, or 1 for grey, which is made of pictures in colour
    onnx_sha256: str | None = None
    calibration_sha256: str | None = None
    distilled_sha256: str | None = (
        None  # of the weights that an INT8 graph learnt; None: it has those of `weights_sha256`
    )
    class_names_from: str | None = None  # coco, voc, shapes, the name of a file, or none: class0, class1, ...
    certificate: Certificate | None = None  # of an INT8 graph: what is known of the AP it costs
    versions: Mapping[str, str] = field(default_factory=dict)  # of the tools that made it
    format: str = MODEL_FORMAT

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT

    def __post_init__(self) -> None:
        for name, kind in (("precision", Precision), ("input_stage", InputStage), ("output_stage", OutputStage)):
            object.__setattr__(self, name, one_of(name, getattr(self, name), kind))
        if (self.output_stage is OutputStage.ROWS) != (self.rows_layout is not None):
            raise MetaError(
                f"{self.name}: rows_layout={self.rows_layout and self.rows_layout.value} with the output stage "
                f"{self.output_stage.value}; expected a layout with rows, and with nothing else"
            )
        if not self.heads:
            raise MetaError(f"{self.name}: there are no heads; expected one or more")
        for text in (self.name, *self.class_names):
            if not is_plain(text):
                raise MetaError(
                    f"{shown(self.name)}: the name {shown(text)}; expected one without line ends and control characters"
                )
        if self.channels not in (1, 3):
            raise MetaError(f"{self.name}: channels={self.channels}; expected 3 for colour or 1 for grey")
        self._check_frame()
        self._check_sizes()
        if len({head.num_classes for head in self.heads}) > 1:
            raise MetaError(f"{self.name}: the heads have different numbers of classes; expected one number")
        if len(self.class_names) != self.num_classes:
            raise MetaError(f"{self.name}: {len(self.class_names)} class names; expected {self.num_classes}")

    @property
    def num_classes(self) -> int:
        """Of every head."""
        return self.heads[0].num_classes

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the graph's outputs, in order."""
        if self.output_stage is OutputStage.DETECTIONS:
            return DETECTION_OUTPUTS
        if self.rows_layout is RowsLayout.OPENCV:
            return tuple(f"yolo_{head.layer}" for head in self.heads)  # the importer's names
        if self.output_stage is OutputStage.ROWS:
            return (ROWS_OUTPUT,)
        return tuple(head.name for head in self.heads)

    @property
    def input_dtype(self) -> str:
        """Of `images`, as NumPy calls it."""
        return "uint8" if self.input_stage is InputStage.PIXELS else "float32"

    @property
    def frame_placement(self) -> "Placement | None":
        """Where the graph puts a whole frame; None where the host resizes."""
        from yolov3_trt.geometry import Placement  # here: it needs NumPy

        return None if self.frame_hw is None else Placement.of(self.frame_hw, self.input_hw, self.preprocess.resize)

    def input_shape(self, batch: int) -> tuple[int, int, int, int]:
        """Of `images`: NCHW for TENSOR, NHWC for PIXELS."""
        height, width = self.frame_hw or self.input_hw
        is_pixels = self.input_stage is InputStage.PIXELS
        return (batch, height, width, 3) if is_pixels else (batch, self.channels, height, width)

    def output_shapes(self, batch: int) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Type, as NumPy calls it, and shape of each output, by `output_names`."""
        if self.output_stage is OutputStage.HEADS:
            return {head.name: ("float32", (batch, head.channels, *head.grid_hw)) for head in self.heads}
        if self.output_stage is OutputStage.ROWS:
            boxes = [len(head.anchors_wh) * prod(head.grid_hw) for head in self.heads]
            if self.rows_layout is RowsLayout.CHANNELS_FIRST:
                return {ROWS_OUTPUT: ("float32", (batch, 4 + self.num_classes, sum(boxes)))}
            counts = boxes if self.rows_layout is RowsLayout.OPENCV else [sum(boxes)]
            first = () if self.batch.max == 1 else (batch,)
            shapes = [("float32", (*first, count, 5 + self.num_classes)) for count in counts]
            return dict(zip(self.output_names, shapes, strict=True))
        most = self.postprocess.max_detections
        kinds = (
            ("int32", (batch,)),
            ("float32", (batch, most, 4)),
            ("float32", (batch, most)),
            ("int32", (batch, most)),
        )
        return dict(zip(DETECTION_OUTPUTS, kinds, strict=True))

    def _check_sizes(self) -> None:
        """Numbers are within what a graph can have, so that nobody computes with them or asks for memory before."""
        sides = [("input_hw", side) for side in self.input_hw] + [("frame_hw", side) for side in self.frame_hw or ()]
        try:
            for head in self.heads:
                sides += [(f"grid_hw of {head.name}", side) for side in head.grid_hw]
                number(f"scale_xy of {head.name}", head.scale_xy, 0, 1000)
                for side in (side for anchor in head.anchors_wh for side in anchor):
                    number(f"anchors_wh of {head.name}", side, 0, _MAX_ANCHOR)
            for name, value in sides:
                integer(name, value, 1, MAX_SIDE)
        except SettingError as exc:
            raise MetaError(f"{self.name}: {exc}") from None
        rows = self.batch.min
        shapes = [self.input_shape(rows), *(shape for _, shape in self.output_shapes(rows).values())]
        largest = max(shapes, key=prod)
        if prod(largest) > _MAX_ELEMENTS:
            raise MetaError(f"{self.name}: a tensor of {'x'.join(map(str, largest))} values; expected 2^31 at most")

    def _check_frame(self) -> None:
        if self.frame_hw is None:
            return
        if self.input_stage is not InputStage.PIXELS:
            raise MetaError(
                f"{self.name}: frame_hw={self.frame_hw} with the input stage {self.input_stage.value}; expected pixels: only "
                "such a graph resizes by itself"
            )


@dataclass(frozen=True)
class EngineMeta:
    """What an engine is, what built it, and so where it can run."""

    model: ModelMeta
    plan_sha256: str
    plan_bytes: int
    flavor: str  # "tensorrt" or "tensorrt_rtx"
    flavor_version: str
    platform: str  # operating system and architecture, e.g. "linux-x86_64"
    gpu: str | None  # the GPU it was built on; None for a build on the CPU
    compute_capabilities: tuple[str, ...]  # it was built for, e.g. ("8.6",); empty: the flavor's portable default
    build_s: float
    hardware_compatibility: str = "none"  # see `settings.HardwareCompatibility`
    version_compatible: bool = False
    dla_core: int | None = None
    tf32: bool | None = (
        None  # whether float32 is rounded to TF32; None: an older version left it to TensorRT, which does
    )
    inputs: Mapping[str, str] = field(
        default_factory=dict
    )  # all that the plan depends on, by name, to tell when to rebuild
    format: str = ENGINE_FORMAT

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT


def meta_from_spec(
    spec: ModelSpec, class_names: tuple[str, ...] = (), class_names_from: str | None = None
) -> ModelMeta:
    """The FP32, tensor in, heads out, batch 1 description of a detector.

    Raises:
        MetaError: the model has no heads, or the names do not fit its classes.
    """
    if not spec.heads:
        raise MetaError(f"{spec.name} has no [yolo] layer, so it detects nothing; expected a YOLOv3-family detector")
    return ModelMeta(
        name=spec.name,
        input_hw=spec.input_hw,
        heads=spec.heads,
        class_names=class_names or tuple(f"class{i}" for i in range(spec.num_classes)),
        preprocess=Preprocess(resize=spec.resize),
        postprocess=Postprocess(nms=spec.nms),
        channels=spec.channels,
        layers_sha256=spec.layers_sha256,
        class_names_from=class_names_from,
    )


def sidecar_path(artifact: Path) -> Path:
    """Where the sidecar of an artifact lies: `NAME.onnx` -> `NAME.onnx.json`."""
    return artifact.with_name(artifact.name + ".json")


def save_sidecar(meta: ModelMeta | EngineMeta, artifact: Path) -> Path:
    """Write the sidecar of an artifact, atomically; to be called after the artifact is in place."""
    path = sidecar_path(artifact)
    write_text(path, json.dumps(to_json(meta), indent=1) + "\n")
    return path


def to_json(meta: Any) -> dict[str, Any]:
    """A sidecar, or any part of one, as plain JSON values."""
    content: dict[str, Any] = dataclasses.asdict(meta)
    return {"format": content.pop("format"), **content} if "format" in content else content


def load_model_meta(onnx_path: Path) -> ModelMeta:
    """Read the sidecar of an ONNX file.

    Raises:
        MetaError: it is missing, damaged, or of another file.
    """
    meta = _load(ModelMeta, MODEL_FORMAT, onnx_path)
    if meta.onnx_sha256 is not None:
        _check_hash(onnx_path, meta.onnx_sha256)
    if _has_external_data(onnx_path):
        raise MetaError(
            f"{onnx_path}: keeps weights in other files, which no hash covers; expected one file: export it again, or "
            "save it with onnx.save(model, path)"
        )
    return meta


def load_engine_meta(engine_path: Path, content: bytes | None = None) -> EngineMeta:
    """Read the sidecar of an engine.

    Args:
        engine_path: of the plan.
        content: its bytes, where they are at hand: they are compared with the sidecar, not the file.

    Raises:
        MetaError: it is missing, damaged, or of another file.
    """
    meta = _load(EngineMeta, ENGINE_FORMAT, engine_path)
    _check_hash(engine_path, meta.plan_sha256, content)
    return meta


def _has_external_data(onnx_path: Path) -> bool:
    """Whether a graph has weights in other files: `TensorProto.external_data` (field 13) with the key `location`.

    By its bytes: the runtime has no package that reads ONNX, and does not need one.
    """
    key = b"\n\x08location\x12"
    with onnx_path.open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            return False
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            at = content.find(key)
            while at >= 0:
                if 0x6A in content[max(at - 3, 0) : at]:  # the field and its length, one or two bytes
                    return True
                at = content.find(key, at + 1)
    return False


_Meta = TypeVar("_Meta", ModelMeta, EngineMeta)


def model_meta_from_json(text: str | bytes, where: str) -> ModelMeta:
    """Read what `to_json` gives for a model, as JSON text from elsewhere than a sidecar.

    Args:
        text: of a JSON object.
        where: it comes from, for errors.

    Raises:
        MetaError: it is damaged, or another version's.
    """
    return _parse(ModelMeta, MODEL_FORMAT, text, where)


def _load(kind: type[_Meta], expected_format: str, artifact: Path) -> _Meta:
    path = sidecar_path(artifact)
    if not artifact.is_file():
        raise MetaError(f"{artifact}: there is no such file")
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        raise MetaError(
            f"{artifact}: its sidecar {path.name} is not beside it; copy both files, or export or build it again; what another "
            "program exported has none: `yolov3_trt adopt` makes one from its .cfg and .weights"
        ) from None
    except OSError as exc:
        raise MetaError(f"{path}: this sidecar cannot be read ({exc}); export or build the artifact again") from exc
    return _parse(kind, expected_format, text, str(path))


def _parse(kind: type[_Meta], expected_format: str, text: str | bytes, where: str) -> _Meta:  # noqa: ARG001 - a kind to mypy
    from pydantic import ValidationError  # here: it takes longer to import than all of this package

    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise MetaError(f"{where}: this sidecar cannot be read ({exc}); export or build the artifact again") from exc
    found = content.get("format") if isinstance(content, dict) else None
    if found != expected_format:
        raise MetaError(
            f"{where}: format {found!r}; expected {expected_format!r} (another version wrote it: build again)"
        )
    _rename_old_keys(content)
    try:
        meta: _Meta = _adapter(expected_format).validate_python(content)
    except ValidationError as exc:
        raise MetaError(f"{where}: {first_fault(exc)}; export or build the artifact again") from exc
    return meta


def first_fault(exc: "ValidationError") -> str:
    """The first thing that is wrong with a file's content: its key and what, in this package's words where it has some."""
    first = exc.errors(include_url=False)[0]
    keys = [str(part) for part in first["loc"]]
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, SettingError):
        return f"{'.'.join(keys if keys[-1:] == [cause.setting] else [*keys, cause.setting])}: {cause.problem}"
    if isinstance(cause, Yolov3TrtError):
        return str(cause)
    return f"{'.'.join(keys) or 'the whole'}: {first['msg']}"


def _rename_old_keys(content: dict[str, Any]) -> None:
    """Sidecars written before 0.2 call the two thresholds of `Postprocess` otherwise."""
    model = content.get("model", content)
    postprocess = model.get("postprocess") if isinstance(model, dict) else None
    if isinstance(postprocess, dict):
        for old, new in (("conf_threshold", "conf"), ("iou_threshold", "iou")):
            if old in postprocess:
                postprocess.setdefault(new, postprocess.pop(old))


@cache
def _adapter(file_format: str) -> "TypeAdapter[Any]":
    from pydantic import TypeAdapter

    return TypeAdapter({MODEL_FORMAT: ModelMeta, ENGINE_FORMAT: EngineMeta}[file_format])


def _check_hash(artifact: Path, expected: str, content: bytes | None = None) -> None:
    got = sha256_of_file(artifact) if content is None else hashlib.sha256(content).hexdigest()
    if got != expected:
        raise MetaError(
            f"{artifact}: its SHA-256 is {got[:12]}…, its sidecar expects {expected[:12]}…: the file was altered, cut short "
            "or belongs to another sidecar; copy both files again, or rebuild"
        )
