"""What a graph, a detector, a calibration and an engine shall be: each setting exists here, once.

Python's keywords, the keys of a recipe and the options of the command line are these fields; values are coerced and checked
when a settings object is made, so that what comes after need not ask again. A value may be given as the text that people
write: `GraphSettings(precision="fp16", batch="1:4:8", frame_size="1280x720")`.
"""

import dataclasses
import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any, Literal, TypeVar

from yolov3_trt.arguments import flag, integer, number, one_of, path, size, text
from yolov3_trt.errors import SettingError
from yolov3_trt.meta import DEFAULT_OPSET, Batch, InputStage, ModelMeta, OutputStage, Precision
from yolov3_trt.sizes import HW, Resize
from yolov3_trt.spec import Nms

OLDEST_OPSET, NEWEST_OPSET = 14, 25  # the exporter reaches none before, no TensorRT reads one after
DEFAULT_NUM_IMAGES = 64  # to calibrate on
DEFAULT_PERCENTILE = 99.99
MAX_COUNT = 10**9
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


@dataclass(frozen=True)
class GraphSettings:
    """What an ONNX graph shall be.

    Attributes:
        precision: `fp32`, `fp16` or `int8`; None: fp32 for a graph of its own, fp16 for an engine.
        batch: images in a call: a number, or `MIN:OPT:MAX`.
        input_stage: `tensor`, or `pixels` for uint8 BGR.
        output_stage: `heads`, or `detections` for a graph that decodes and suppresses by itself.
        frame_size: with `pixels`: whole frames of this size come in, and the graph itself resizes them; (height, width), or a
            text WIDTHxHEIGHT.
        opset: of ONNX; 17 is the newest that TensorRT 8.6 reads.
        float_layers: with `int8`: layers that stay float, as the cfg counts them.
        float_precision: with `int8`: what all that stays float computes in, `fp16` or `fp32`; None: fp16, but fp32 for an
            engine of TensorRT 8, which takes no other beside Q/DQ.

    Raises:
        SettingError: at construction, a value is out of its range or does not go with another.

    >>> GraphSettings(precision="fp16", batch=4).batch
    Batch(min=4, opt=4, max=4)
    """

    precision: Precision | None = None
    batch: Batch = field(default_factory=Batch)
    input_stage: InputStage = InputStage.TENSOR
    output_stage: OutputStage = OutputStage.HEADS
    frame_size: HW | None = None
    opset: int = DEFAULT_OPSET
    float_layers: frozenset[int] = frozenset()
    float_precision: Precision | None = None

    def __post_init__(self) -> None:
        _convert(self, "precision", lambda name, value: one_of(name, value, Precision))
        _convert(self, "batch", Batch.of)
        _convert(self, "input_stage", lambda name, value: one_of(name, value, InputStage))
        _convert(self, "output_stage", lambda name, value: one_of(name, value, OutputStage))
        _convert(self, "frame_size", size)
        _convert(self, "opset", lambda name, value: integer(name, value, OLDEST_OPSET, NEWEST_OPSET))
        _convert(self, "float_layers", _layers)
        _convert(self, "float_precision", lambda name, value: one_of(name, value, Precision))
        if self.frame_size is not None and self.input_stage is not InputStage.PIXELS:
            raise SettingError(
                "frame_size",
                f"given with input_stage {self.input_stage.value}; expected pixels, only such a graph resizes by itself: set "
                "input_stage to pixels, or leave frame_size out",
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

    def with_precision(self, default: Precision) -> "GraphSettings":
        """The same, with a precision where none was given."""
        return self if self.precision is not None else replace(self, precision=default)


@dataclass(frozen=True)
class DetectSettings:
    """How pictures are fitted and outputs become detections; None: as the model or artifact says.

    Attributes:
        conf: confidence threshold, 0..1; objectness and score must both exceed it.
        iou: threshold of non-maximum suppression, 0..1: a box this similar to a better one of its class is dropped.
        max_detections: per picture at most.
        nms: `cfg`: similarity of boxes as the cfg's nms_kind; `plain`: IoU; or an `Nms`.
        resize: `letterbox` or `stretch`.

    Raises:
        SettingError: at construction, a value is out of its range.

    >>> DetectSettings(conf=0.4, resize="stretch").resize
    <Resize.STRETCH: 'stretch'>
    """

    conf: float | None = None
    iou: float | None = None
    max_detections: int | None = None
    nms: Literal["cfg", "plain"] | Nms = "cfg"
    resize: Resize | None = None

    def __post_init__(self) -> None:
        _convert(self, "conf", lambda name, value: number(name, value, 0, 1))
        _convert(self, "iou", lambda name, value: number(name, value, 0, 1))
        _convert(self, "max_detections", lambda name, value: integer(name, value, 1, 512))
        _convert(self, "resize", lambda name, value: one_of(name, value, Resize))
        if self.nms is None:
            object.__setattr__(self, "nms", "cfg")
        if not isinstance(self.nms, Nms) and self.nms not in ("cfg", "plain"):
            raise SettingError("nms", f"got {self.nms!r}; expected one of cfg, plain")

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


@dataclass(frozen=True)
class CalibrationSettings:
    """Where the ranges of INT8 come from.

    Attributes:
        table: file of the ranges: used if it was made of just this, else made from `images`.
        images: pictures to calibrate on: what `data.PictureSet` takes (a folder, list, video, data set, manifest `.toml`, or
            `shapes` for generated ones); None: the table must be there.
        method: how a range is chosen.
        num_images: how many of `images`; None: 64, or as a manifest says.
        seed: of the choice among them; None: 0, or as a manifest says.
        percentile: with `percentile`: share of the magnitudes that is not clipped, %; None: 99.99.
        equalise: bring the channels of neighbouring layers to like size first; see `graph.equalise`. One more pass.
        correct_biases: undo the mean error that INT8 makes in each channel; see `graph.bias_correction`. One more pass.

    Raises:
        SettingError: at construction, a value is out of its range or does not go with another.
    """

    table: Path | None = None
    images: str | None = None
    method: Method = Method.MSE
    num_images: int | None = None
    seed: int | None = None
    percentile: float | None = None
    equalise: bool = True
    correct_biases: bool = True

    def __post_init__(self) -> None:
        _convert(self, "table", path)
        _convert(self, "images", text)
        _convert(self, "method", lambda name, value: one_of(name, value, Method))
        _convert(self, "num_images", lambda name, value: integer(name, value, 1, MAX_COUNT))
        _convert(self, "seed", lambda name, value: integer(name, value, 0, (1 << 63) - 1))
        _convert(self, "percentile", lambda name, value: number(name, value, 0, 100))
        _convert(self, "equalise", flag)
        _convert(self, "correct_biases", flag)
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


@dataclass(frozen=True)
class EngineSettings:
    """What the builder of an engine is told; None is TensorRT's own default.

    What the TensorRT at hand lacks is refused when building, not left out.

    Attributes:
        flavor: `tensorrt`, `tensorrt_rtx`, or `auto` for what is installed and fits this machine.
        workspace_mib: scratch memory of a layer at most, MiB; None: all of the GPU's.
        optimization_level: 0 (quick build) .. 5 (quick engine).
        timing_cache: folder of timing caches, one file per GPU and version.
        hardware_compatibility: `none`, `ampere_plus` or `same_compute_capability`.
        version_compatible: the plan runs in newer TensorRT of its major version too.
        dla_core: run on this deep learning accelerator of a Jetson, with the GPU for what it cannot do.
        refit: `none`, `all`, `identical` or `individual`.
        strip_weights: leave out weights that a refit brings back.
        compute_capabilities: of TensorRT-RTX, e.g. ("8.6", "8.9"); empty: Ampere and newer.

    Raises:
        SettingError: at construction, a value is out of its range or does not go with another.
    """

    flavor: FlavorName = FlavorName.AUTO
    workspace_mib: int | None = None
    optimization_level: int | None = None
    timing_cache: Path | None = None
    hardware_compatibility: HardwareCompatibility = HardwareCompatibility.NONE
    version_compatible: bool = False
    dla_core: int | None = None
    refit: Refit = Refit.NONE
    strip_weights: bool = False
    compute_capabilities: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _convert(self, "flavor", lambda name, value: one_of(name, value, FlavorName))
        _convert(self, "workspace_mib", lambda name, value: integer(name, value, 1, MAX_MIB))
        _convert(self, "optimization_level", lambda name, value: integer(name, value, 0, 5))
        _convert(self, "timing_cache", path)
        _convert(self, "hardware_compatibility", lambda name, value: one_of(name, value, HardwareCompatibility))
        _convert(self, "version_compatible", flag)
        _convert(self, "dla_core", lambda name, value: integer(name, value, 0, 15))
        _convert(self, "refit", lambda name, value: one_of(name, value, Refit))
        _convert(self, "strip_weights", flag)
        _convert(self, "compute_capabilities", _capabilities)
        if self.strip_weights and self.refit is Refit.NONE:
            raise SettingError(
                "strip_weights",
                "given with refit none: such a plan could never get its weights back; set refit to identical",
            )


SETTINGS = (GraphSettings, DetectSettings, CalibrationSettings, EngineSettings)

_Settings = TypeVar("_Settings")


def settings_from(keywords: dict[str, Any], *kinds: type[Any]) -> tuple[Any, ...]:
    """Keyword arguments of a job, shared out among the kinds of settings that it takes; None keeps a default.

    Raises:
        TypeError: no kind has a setting of that name.
        SettingError: a value is out of its range or does not go with another.

    >>> graph, detect = settings_from({"precision": "fp16", "conf": 0.5}, GraphSettings, DetectSettings)
    >>> detect.conf
    0.5
    """
    home = {item.name: kind for kind in kinds for item in dataclasses.fields(kind)}
    given: dict[type[Any], dict[str, Any]] = {kind: {} for kind in kinds}
    for name, value in keywords.items():
        if name not in home:
            close = difflib.get_close_matches(name, home, 1)
            hint = f"did you mean {close[0]}?" if close else f"expected {', '.join(home)}"
            raise TypeError(f"there is no setting {name!r} here; {hint}")
        if value is not None:
            given[home[name]][name] = value
    return tuple(kind(**given[kind]) for kind in kinds)


def _convert(settings: Any, name: str, convert: Any) -> None:
    value = getattr(settings, name)
    if value is None and settings.__dataclass_fields__[name].default is None:
        return
    object.__setattr__(settings, name, convert(name, value))


def _layers(name: str, value: Any) -> frozenset[int]:
    """Layer numbers: any iterable of them, or a text such as `3,12`."""
    if isinstance(value, str):
        if not re.fullmatch(r"\s*[0-9]{1,5}\s*(,\s*[0-9]{1,5}\s*)*", value):
            raise SettingError(name, f"got {value!r}; expected layer numbers as the cfg counts them, e.g. 3,12")
        value = map(int, value.split(","))
    if not isinstance(value, Iterable):
        raise SettingError(name, f"got {value!r}; expected layer numbers as the cfg counts them, e.g. 3,12")
    return frozenset(integer(name, layer, 0, MAX_LAYERS) for layer in value)


def _capabilities(name: str, value: Any) -> tuple[str, ...]:
    """Compute capabilities: any iterable of texts, or one text such as `8.6,8.9`."""
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, Iterable):
        raise SettingError(name, f'got {value!r}; expected MAJOR.MINOR, e.g. "8.6"')
    found = tuple(item.strip() if isinstance(item, str) else item for item in items)
    for item in found:
        if not isinstance(item, str) or not re.fullmatch(r"[1-9][0-9]?\.[0-9]", item):
            raise SettingError(name, f'got {item!r}; expected MAJOR.MINOR, e.g. "8.6"')
    return found
