"""What a graph, a detector, a calibration and an engine shall be: each setting exists here, once.

Python's keywords, the keys of a recipe and the options of the command line are these fields; values are coerced and checked
when a settings object is made, so that what comes after need not ask again. A value may be given as the text that people
write: `GraphSettings(precision="fp16", batch="1:4:8", frame_size="1280x720")`.
"""

import dataclasses
import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any, Literal

from yolov3_trt.arguments import Settings, choice, flag, integer, path, setting, shown, size, text, whole, within
from yolov3_trt.errors import SettingError
from yolov3_trt.meta import DEFAULT_OPSET, Batch, InputStage, ModelMeta, OutputStage, Precision, RowsLayout
from yolov3_trt.sizes import HW, Resize
from yolov3_trt.spec import Nms

OLDEST_OPSET, NEWEST_OPSET = 14, 25  # the exporter reaches none before, no TensorRT reads one after
DEFAULT_NUM_IMAGES = 64  # to calibrate on
DEFAULT_PERCENTILE = 99.99
DEFAULT_DISTILL_STEPS = 300
MAX_LAYERS = 99_999
MAX_MIB = 1 << 20  # a tebibyte: more than any GPU has


class Method(str, Enum):
    """How the range of an INT8 tensor is chosen."""

    MINMAX = "minmax"  # the largest magnitude: nothing is clipped
    PERCENTILE = "percentile"  # this share of the magnitudes is not clipped
    ENTROPY = "entropy"  # least loss of information (Kullback-Leibler), TensorRT's own
    MSE = "mse"  # least squared error of rounding and clipping


class FlavorName(str, Enum):
    """Which TensorRT."""

    AUTO = "auto"
    TENSORRT = "tensorrt"
    TENSORRT_RTX = "tensorrt_rtx"


class HardwareCompatibility(str, Enum):
    """On which GPUs a plan shall run."""

    NONE = "none"  # that of the build only
    AMPERE_PLUS = "ampere_plus"  # Ampere and newer
    SAME_COMPUTE_CAPABILITY = "same_compute_capability"  # all of the build's compute capability


class Refit(str, Enum):
    """Whether the weights of a plan can be exchanged later."""

    NONE = "none"
    ALL = "all"  # by any others
    IDENTICAL = "identical"  # by those of the build only: to bring them back to a stripped plan
    INDIVIDUAL = "individual"  # those that are marked


def _layers(name: str, value: Any) -> frozenset[int]:
    """Layer numbers: any iterable of them, or a text such as `3,12`."""
    if isinstance(value, str):
        if not re.fullmatch(r"\s*[0-9]{1,5}\s*(,\s*[0-9]{1,5}\s*)*", value):
            raise SettingError(name, f"got {shown(value)}; expected layer numbers as the cfg counts them, e.g. 3,12")
        value = map(int, value.split(","))
    if not isinstance(value, Iterable):
        raise SettingError(name, f"got {shown(value)}; expected layer numbers as the cfg counts them, e.g. 3,12")
    return frozenset(integer(name, layer, 0, MAX_LAYERS) for layer in value)


def _capabilities(name: str, value: Any) -> tuple[str, ...]:
    """Compute capabilities: any iterable of texts, or one text such as `8.6,8.9`."""
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, Iterable):
        raise SettingError(name, f'got {shown(value)}; expected MAJOR.MINOR, e.g. "8.6"')
    found = tuple(item.strip() if isinstance(item, str) else item for item in items)
    for item in found:
        if not isinstance(item, str) or not re.fullmatch(r"[1-9][0-9]?\.[0-9]", item):
            raise SettingError(name, f'got {shown(item)}; expected MAJOR.MINOR, e.g. "8.6"')
    return found


def _nms(name: str, value: Any) -> Any:
    """`cfg`, `plain` or an `Nms`; None is `cfg`."""
    if isinstance(value, Nms) or value in ("cfg", "plain", None):
        return value or "cfg"
    raise SettingError(name, f"got {shown(value)}; expected one of cfg, plain")


@dataclass(frozen=True)
class GraphSettings(Settings):
    """What an ONNX graph shall be; sizes are a text WIDTHxHEIGHT or a pair (height, width).

    Attributes:
        precision: what the graph computes in: `fp32`, `fp16` or `int8`. By default fp32 for a graph, fp16 for an engine.
        batch: pictures a call: one number, or `MIN:OPT:MAX` for a batch that varies. 1 by default.
        input_stage: `tensor` takes float32 RGB 0..1, NCHW; `pixels` takes uint8 BGR, NHWC, as OpenCV reads pictures.
        output_stage: `heads` gives logits; `detections` decodes and suppresses in the graph; `rows` decodes only, for other
            programs.
        frame_size: size of whole camera frames, which the graph itself resizes; goes with `pixels`.
        opset: ONNX opset; TensorRT 8.6 reads none that is newer than the default.
        float_layers: layers that stay float in an INT8 graph, as the cfg counts them, e.g. `3,12`.
        float_precision: precision of what stays float in an INT8 graph, `fp16` or `fp32`. By default fp16, but fp32 for an
            engine of TensorRT 8, which takes no other beside Q/DQ.
        rows_layout: of `rows`: `opencv` as OpenCV's Darknet importer gave them, `opencv_joined` the same as one tensor,
            `channels_first` what Frigate and many others read. By default opencv.

    Raises:
        SettingError: at construction, a value is out of its range or does not go with another.

    >>> GraphSettings(precision="fp16", batch=4).batch
    Batch(min=4, opt=4, max=4)
    """

    precision: Precision | None = setting(choice(Precision))
    batch: Batch = setting(Batch.of, Batch(), metavar="N|MIN:OPT:MAX")
    input_stage: InputStage = setting(choice(InputStage), InputStage.TENSOR)
    output_stage: OutputStage = setting(choice(OutputStage), OutputStage.HEADS)
    frame_size: HW | None = setting(size, metavar="WIDTHxHEIGHT")
    opset: int = setting(whole(OLDEST_OPSET, NEWEST_OPSET), DEFAULT_OPSET)
    float_layers: frozenset[int] = setting(_layers, frozenset(), metavar="N,N,...", panel="INT8")
    float_precision: Precision | None = setting(choice(Precision), panel="INT8")
    rows_layout: RowsLayout | None = setting(choice(RowsLayout))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.frame_size is not None and self.input_stage is not InputStage.PIXELS:
            raise SettingError(
                "frame_size",
                f"given with input_stage {self.input_stage.value}; expected pixels, only such a graph resizes by itself: set "
                "input_stage to pixels, or leave frame_size out",
            )
        if self.output_stage is OutputStage.ROWS:
            object.__setattr__(self, "rows_layout", self.rows_layout or RowsLayout.OPENCV)
        elif self.rows_layout is not None:
            raise SettingError(
                "rows_layout",
                f"given with output_stage {self.output_stage.value}; expected rows, which alone have a layout: set "
                "output_stage to rows, or leave rows_layout out",
            )
        if self.float_precision is Precision.INT8:
            raise SettingError(
                "float_precision", "got int8; expected fp16, or fp32 for TensorRT 8.6: it is for what is not int8"
            )
        for name in ("float_layers", "float_precision"):
            if getattr(self, name) and self.precision is not Precision.INT8:
                given = "no precision" if self.precision is None else f"precision {self.precision.value}"
                raise SettingError(
                    name,
                    f"given with {given}; expected int8, which alone leaves some layers float: set precision to int8, or leave "
                    f"{name} out",
                )

    def with_precision(self, default: Precision, *, float_precision: Precision = Precision.FP16) -> "GraphSettings":
        """The same, with the precisions that were not given: of the graph, and of what stays float in an INT8 one."""
        given = replace(self, precision=self.precision or default)
        if given.precision is not Precision.INT8:
            return given
        return replace(given, float_precision=self.float_precision or float_precision)


@dataclass(frozen=True)
class DetectSettings(Settings):
    """How pictures are fitted and outputs become detections; None: as the model or artifact says. `nms` also takes an `Nms`.

    Attributes:
        conf: confidence threshold, 0..1: objectness and score must both exceed it. By default the artifact's (0.25).
        iou: threshold of non-maximum suppression, 0..1: a box this similar to a better one of its class is dropped. By default
            the artifact's (0.45).
        max_detections: detections a picture at most, up to 512. By default the artifact's (300).
        nms: similarity of boxes in suppression: `cfg` as the cfg's nms_kind, `plain` IoU.
        resize: how pictures are fitted, `letterbox` or `stretch`. By default the artifact's (letterbox).

    Raises:
        SettingError: at construction, a value is out of its range.

    >>> DetectSettings(conf=0.4, resize="stretch").resize
    <Resize.STRETCH: 'stretch'>
    """

    conf: float | None = setting(within(0, 1))
    iou: float | None = setting(within(0, 1))
    max_detections: int | None = setting(whole(1, 512))
    nms: Literal["cfg", "plain"] | Nms = setting(_nms, "cfg")
    resize: Resize | None = setting(choice(Resize))

    def apply(self, meta: ModelMeta) -> ModelMeta:
        """An artifact's sidecar with what these settings change.

        This is the one place where settings of detection become `Preprocess` and `Postprocess`.
        """
        nms = {"cfg": None, "plain": Nms()}[self.nms] if isinstance(self.nms, str) else self.nms
        return replace(
            meta,
            preprocess=meta.preprocess.override(resize=self.resize),
            postprocess=meta.postprocess.override(
                conf=self.conf, iou=self.iou, max_detections=self.max_detections, nms=nms
            ),
        )


class Labels(str, Enum):
    """What stands at a box."""

    FULL = "full"
    NAME = "name"
    NONE = "none"


class ColorBy(str, Enum):
    """What gives a box its colour."""

    CLASS = "class"
    TRACK = "track"


@dataclass(frozen=True)
class DrawSettings(Settings):
    """How what is found is drawn.

    Attributes:
        labels: what stands at a box: `full` is the name and the score, `name`, or `none`.
        line_width: of boxes, px; texts grow with it. By default as the picture is large.
        color_by: what keeps its colour from picture to picture: a `class`, or a tracked object (`track`).
        clock: write the time of day (of a file, the position) into videos and pictures, too.

    Raises:
        SettingError: at construction, a value is out of its range.

    >>> DrawSettings(labels="name").labels
    <Labels.NAME: 'name'>
    """

    labels: Labels = setting(choice(Labels), Labels.FULL)
    line_width: int | None = setting(whole(1, 100), metavar="PX")
    color_by: ColorBy = setting(choice(ColorBy), ColorBy.CLASS)
    clock: bool = setting(flag, False)


@dataclass(frozen=True)
class CalibrationSettings(Settings):
    """Where the ranges of INT8 come from.

    Attributes:
        table: file of the ranges (.json): reused if it was made of just this, else made from `images`.
        images: pictures to find the ranges on: a folder, a list, a video, a manifest (.toml), or `shapes` for generated ones.
            Without them the table must be there.
        method: how a range is chosen.
        num_images: how many of the pictures to use. By default 64, or as a manifest says.
        seed: random seed of the choice among the pictures. By default 0, or as a manifest says.
        percentile: share of the magnitudes that is not clipped, %, with method percentile. By default 99.99.
        equalise: bring the channels of neighbouring layers to like size first, which costs one more pass over the pictures.
        correct_biases: undo the mean error that INT8 makes in each channel, which costs one more pass over the pictures.
        distill: let the weights and ranges of INT8 learn, without labels, to give what FP32 gives on these pictures; it takes
            minutes, for outputs nearer to FP32's. The model's own weights stay as they are.
        distill_steps: how many steps it learns at most, each on four pictures.

    Raises:
        SettingError: at construction, a value is out of its range or does not go with another.
    """

    table: Path | None = setting(path, metavar="FILE")
    images: str | None = setting(text, metavar="SOURCE")
    method: Method = setting(choice(Method), Method.MSE)
    num_images: int | None = setting(whole(1))
    seed: int | None = setting(lambda name, value: integer(name, value, 0, (1 << 63) - 1))
    percentile: float | None = setting(within(0, 100))
    equalise: bool = setting(flag, True)
    correct_biases: bool = setting(flag, True)
    distill: bool = setting(flag, False)
    distill_steps: int = setting(whole(1), DEFAULT_DISTILL_STEPS)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.distill_steps != DEFAULT_DISTILL_STEPS and not self.distill:
            raise SettingError("distill_steps", "given without distill; set that, or leave distill_steps out")
        if self.distill and self.images is None:
            raise SettingError(
                "distill",
                "given without images; expected pictures to learn from: add images, or leave distill out, a table that was "
                "distilled already keeps its weights",
            )
        for name in ("num_images", "seed"):
            if getattr(self, name) is None:
                continue
            if self.images is None:
                raise SettingError(
                    name, f"given without images; expected pictures to choose from: add images, or leave {name} out"
                )
            if self.images.endswith(".toml"):
                raise SettingError(
                    name,
                    f"given with a manifest, {self.images}, which says it itself; expected it in one place: leave {name} out",
                )
        if self.percentile is not None and self.method is not Method.PERCENTILE:
            raise SettingError(
                "percentile",
                f"given with method {self.method.value}; expected percentile: set that, or leave percentile out",
            )
        if self.percentile == 0:
            raise SettingError("percentile", "got 0; expected above 0, up to 100")

    @property
    def steps(self) -> int | None:
        """To distil at most; None where that is not wanted."""
        return self.distill_steps if self.distill else None

    @property
    def kind(self) -> str:
        """What the name of a table says of it: `mse`, `mse-distilled`."""
        return f"{self.method.value}-distilled" if self.distill else self.method.value

    @property
    def share(self) -> float | None:
        """Share of the magnitudes that is not clipped, %; None where the method has none."""
        return (self.percentile or DEFAULT_PERCENTILE) if self.method is Method.PERCENTILE else None


@dataclass(frozen=True)
class EngineSettings(Settings):
    """What the builder of an engine is told; None is TensorRT's own default.

    What the TensorRT at hand lacks is refused when building, not left out.

    Attributes:
        flavor: which TensorRT builds. `auto` takes tensorrt with a GPU, else TensorRT-RTX, which compiles on the CPU.
        workspace_mib: scratch memory of a layer at most, MiB. By default all of the GPU's.
        optimization_level: 0 (quick build) to 5 (quick engine). By default TensorRT's own, 3.
        timing_cache: folder of timing caches to keep and reuse, one file per GPU and version.
        hardware_compatibility: other GPUs that the engine shall run on.
        version_compatible: make an engine that newer TensorRT of its major version runs too.
        dla_core: run on this deep learning accelerator of a Jetson, with the GPU for what it cannot do.
        refit: which weights can be exchanged later.
        strip_weights: leave out weights that a refit brings back.
        tf32: let convolutions in float32 round their inputs to TF32's 10 bits, which GPUs since Ampere do faster. Without it
            FP32 is what PyTorch and ONNX Runtime compute; with it scores move by hundredths.
        compute_capabilities: GPUs that TensorRT-RTX builds for, e.g. `8.6,8.9`. By default Ampere (8.0) and newer.

    Raises:
        SettingError: at construction, a value is out of its range or does not go with another.
    """

    flavor: FlavorName = setting(choice(FlavorName), FlavorName.AUTO)
    workspace_mib: int | None = setting(whole(1, MAX_MIB), metavar="MIB")
    optimization_level: int | None = setting(whole(0, 5))
    timing_cache: Path | None = setting(path, metavar="FOLDER")
    hardware_compatibility: HardwareCompatibility = setting(choice(HardwareCompatibility), HardwareCompatibility.NONE)
    version_compatible: bool = setting(flag, False)
    dla_core: int | None = setting(whole(0, 15), metavar="CORE")
    refit: Refit = setting(choice(Refit), Refit.NONE)
    strip_weights: bool = setting(flag, False)
    tf32: bool = setting(flag, False)
    compute_capabilities: tuple[str, ...] = setting(_capabilities, (), metavar="8.6,8.9,...")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.strip_weights and self.refit is Refit.NONE:
            raise SettingError(
                "strip_weights",
                "given with refit none: such a plan could never get its weights back; set refit to identical",
            )


def check_together(graph: GraphSettings, calibration: CalibrationSettings) -> None:
    """Refuse ranges without INT8, and INT8 without ranges.

    Raises:
        SettingError: says which setting does not go with the precision.
    """
    if graph.precision is Precision.INT8:
        if calibration.table is None and calibration.images is None:
            raise SettingError(
                "images",
                "missing with precision int8; expected pictures to find the ranges on: give images, or as table the file that "
                "`calibrate` made",
            )
        return
    for item in dataclasses.fields(calibration):
        if getattr(calibration, item.name) != item.default:
            given = "no precision" if graph.precision is None else f"precision {graph.precision.value}"
            raise SettingError(
                item.name,
                f"given with {given}; expected int8, which alone has ranges: set precision to int8, or leave {item.name} out",
            )


def check_engine(engine: EngineSettings, graph: GraphSettings | ModelMeta, flavor: FlavorName) -> None:
    """Refuse what no build of this graph by this TensorRT can do.

    Args:
        engine: of the build.
        graph: what is built; its precision, batch and output stage matter.
        flavor: which TensorRT builds; `auto` where that is not known yet.

    Raises:
        SettingError: says which setting, and the way out.
    """
    if flavor is FlavorName.TENSORRT_RTX:
        for name, reason in _NOT_OF_RTX.items():
            if getattr(engine, name) != getattr(EngineSettings(), name):
                raise SettingError(name, f"given with flavor tensorrt_rtx, which {reason}")
    if engine.compute_capabilities and flavor is FlavorName.TENSORRT:
        raise SettingError(
            "compute_capabilities",
            "given with flavor tensorrt, which builds for the GPU that it finds; leave it out and say with "
            "hardware_compatibility on which others the plan shall run, or set flavor to tensorrt_rtx",
        )
    if "7.5" in engine.compute_capabilities and graph.output_stage is OutputStage.DETECTIONS:
        raise SettingError(
            "compute_capabilities",
            "got 7.5 with output_stage detections; expected 8.0 or newer, since TensorRT-RTX has no float32 MatMul on Turing "
            "and suppression needs one: leave 7.5 out, or set output_stage to heads",
        )
    if engine.dla_core is not None and graph.precision is Precision.FP32:
        raise SettingError(
            "dla_core",
            "given with precision fp32; expected fp16 or int8, which a DLA computes in: set one, or leave dla_core out",
        )
    if engine.dla_core is not None and graph.batch.dynamic:
        raise SettingError(
            "dla_core",
            f"given with batch {graph.batch}; expected one size, a DLA takes no other: set batch to {graph.batch.max}, or "
            "leave dla_core out",
        )


# What TensorRT-RTX ignores or fails at, although its API has it (all tried with 1.7.1).
_NOT_OF_RTX = {
    "timing_cache": "times no kernels when it builds; leave it out",
    "hardware_compatibility": "builds for Ampere and newer, or for the GPUs of compute_capabilities; leave it out",
    "version_compatible": "has no plans for other versions than its own; leave it out, and build again for each version",
    "dla_core": "has no deep learning accelerators; leave it out, or set flavor to tensorrt on a Jetson",
}


# By the names under which jobs and recipes take whole settings.
KINDS: dict[str, type[Any]] = {
    "graph": GraphSettings,
    "calibration": CalibrationSettings,
    "detect": DetectSettings,
    "engine": EngineSettings,
}


def settings_from(keywords: dict[str, Any], *kinds: type[Any]) -> tuple[Any, ...]:
    """Keyword arguments of a job, shared out among the kinds of settings that it takes; None keeps a default.

    Settings come by their own names, or whole as `graph`, `calibration`, `detect` and `engine`, or both: a name then replaces
    what the whole says.

    Raises:
        TypeError: no kind has a setting of that name.
        SettingError: a value is out of its range or does not go with another.

    >>> graph, detect = settings_from({"precision": "fp16", "conf": 0.5}, GraphSettings, DetectSettings)
    >>> detect.conf
    0.5
    """
    wholes = {name: kind for name, kind in KINDS.items() if kind in kinds}
    home = {item.name: kind for kind in kinds for item in dataclasses.fields(kind)}
    given: dict[type[Any], dict[str, Any]] = {kind: {} for kind in kinds}
    for name, value in keywords.items():
        if name in wholes:
            if value is not None and not isinstance(value, wholes[name]):
                raise SettingError(name, f"got {shown(value)}; expected {wholes[name].__name__}(...)")
        elif name not in home:
            close = difflib.get_close_matches(name, [*home, *wholes], 1)
            hint = f"did you mean {close[0]}?" if close else f"expected some of {', '.join(home)}"
            raise TypeError(f"there is no setting {name!r} here; {hint}")
        elif value is not None:
            given[home[name]][name] = value
    whole: dict[type[Any], Any] = {kind: keywords.get(name) for name, kind in wholes.items()}
    return tuple(
        kind(**given[kind]) if whole.get(kind) is None else replace(whole[kind], **given[kind]) for kind in kinds
    )
