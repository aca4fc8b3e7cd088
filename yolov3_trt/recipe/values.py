"""What a recipe says, checked when it is made.

The dataclasses are the file: a table each, a field a key. What cannot be built is refused here as far as a recipe alone can
tell; what the TensorRT at hand lacks is refused when building. Every refusal names the key as it stands in the file.
"""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from yolov3_trt.errors import MetaError, RecipeError
from yolov3_trt.geometry import HW, Resize
from yolov3_trt.meta import DEFAULT_OPSET, Batch, InputStage, OutputStage, Postprocess, Precision
from yolov3_trt.recipe.paths import absolute_path
from yolov3_trt.settings import EngineSettings, FlavorName, Method

RECIPE_FORMAT = "yolov3_trt.recipe/1"
DEFAULT_NUM_IMAGES = 64  # to calibrate on
_OLDEST_OPSET, _NEWEST_OPSET = 14, 25  # the exporter reaches none before, no TensorRT reads one after
_MAX_SIDE = 99_999  # px; this and the next as the command line takes them
_MAX_BATCH = 9_999
_STRIDE = 32  # px of input per cell of the coarsest head

# Unknown keys are refused: a recipe that says more than this version understands must not be half followed.
_STRICT: dict[str, Any] = {"extra": "forbid"}


@dataclass(frozen=True)
class GraphRecipe:
    """What the ONNX graph shall be."""

    precision: Precision
    batch: Batch = field(default_factory=Batch)
    input_stage: InputStage = InputStage.TENSOR
    output_stage: OutputStage = OutputStage.HEADS
    frame_size: HW | None = None  # of PIXELS: whole frames of this size come in, and the graph itself resizes them
    opset: int = DEFAULT_OPSET
    skip_layers: frozenset[int] = frozenset()  # of INT8: layers that stay in `rest`, as the cfg counts them
    rest: Precision | None = None  # of INT8: what all else computes in; None: FP16, for TensorRT 8.x FP32

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT

    def __post_init__(self) -> None:
        _need(self.batch.max <= _MAX_BATCH, f"graph.batch: got {self.batch}; expected {_MAX_BATCH} images at most")
        _need(
            _OLDEST_OPSET <= self.opset <= _NEWEST_OPSET,
            f"graph.opset: got {self.opset}; expected {_OLDEST_OPSET} to {_NEWEST_OPSET} ({DEFAULT_OPSET} is the newest that "
            "TensorRT 8.6 reads)",
        )
        if self.frame_size is not None:
            _check_sides("graph.frame_size", self.frame_size)
            _need(
                self.input_stage is InputStage.PIXELS,
                f'graph.frame_size: given with input_stage = "{self.input_stage.value}"; expected "pixels", only such a graph '
                'resizes by itself: set input_stage = "pixels", or leave frame_size out',
            )
        self._check_what_stays_float()

    def _check_what_stays_float(self) -> None:
        for name in ("skip_layers", "rest"):
            _need(
                self.precision is Precision.INT8 or not getattr(self, name),
                f'graph.{name}: given with precision = "{self.precision.value}"; expected "int8", which alone leaves a rest '
                f'in float: set precision = "int8", or leave {name} out',
            )
        _need(
            self.rest is not Precision.INT8,
            'graph.rest: got "int8"; expected "fp16", or "fp32" for TensorRT 8.6: it is for what is not int8',
        )
        first = min(self.skip_layers, default=0)
        _need(first >= 0, f"graph.skip_layers: got {first}; expected 0 or more, layers as the cfg counts them")


@dataclass(frozen=True)
class CalibrationRecipe:
    """Where the ranges of INT8 come from."""

    table: Path  # where it lies, or will be made
    images: str | None = None  # `shapes`, a folder, list, video or manifest (.toml); None: the table must be there
    method: Method = Method.MSE
    num_images: int | None = None  # None: DEFAULT_NUM_IMAGES, or as the manifest says
    seed: int | None = None  # of the choice; None: 0, or as the manifest says
    percentile: float | None = None  # of Method.PERCENTILE; None: the observers' own

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT

    def __post_init__(self) -> None:
        object.__setattr__(self, "table", Path(absolute_path("calibration.table", str(self.table))))
        if self.images is not None:
            object.__setattr__(self, "images", absolute_path("calibration.images", self.images))
        self._check_choice("num_images", 1)
        self._check_choice("seed", 0)
        if self.percentile is not None:
            _need(
                self.method is Method.PERCENTILE,
                f'calibration.percentile: given with method = "{self.method.value}"; expected "percentile": set that, or '
                "leave percentile out",
            )
            _need(
                0 < self.percentile <= 100,
                f"calibration.percentile: got {self.percentile}; expected above 0, up to 100",
            )

    def _check_choice(self, name: str, least: int) -> None:
        value = getattr(self, name)
        if value is None:
            return
        _need(value >= least, f"calibration.{name}: got {value}; expected {least} or more")
        _need(
            self.images is not None,
            f"calibration.{name}: given without images; expected pictures to choose from: add images, or leave {name} out",
        )
        _need(
            Path(self.images or "").suffix != ".toml",
            f"calibration.{name}: given with a manifest, {self.images}, which says it itself; expected it in one place: "
            f"leave {name} out",
        )


@dataclass(frozen=True)
class DetectRecipe:
    """How pictures are fitted and heads become detections; None: as the model says."""

    conf: float | None = None
    iou: float | None = None
    max_detections: int | None = None
    nms: Literal["cfg", "plain"] = "cfg"  # similarity of boxes: as the cfg's nms_kind, or IoU
    resize: Resize | None = None

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT

    def __post_init__(self) -> None:
        meant = {"conf": "conf", "iou": "iou", "max_detections": "max_detections"}
        for name, keyword in meant.items():
            try:
                Postprocess().override(**{keyword: getattr(self, name)})
            except MetaError as exc:
                raise RecipeError(f"detect.{name}: {exc}") from exc


@dataclass(frozen=True)
class BuildRecipe:
    """All that an engine is made from.

    Paths are absolute; a relative one counts from the working folder, in a file from the recipe's own.

    Raises:
        RecipeError: at construction, when this cannot be built.
    """

    model: str  # a built-in name, or the path of a .cfg
    graph: GraphRecipe
    weights: Path | None = None  # None: beside the .cfg, or in the cache
    names: str | None = None  # a .names file, `coco` or `voc`; None: as `load_model` finds them
    input_size: HW | None = None  # None: the model's own
    calibration: CalibrationRecipe | None = None  # of INT8
    detect: DetectRecipe = field(default_factory=DetectRecipe)
    engine: EngineSettings = field(default_factory=EngineSettings)
    format: str = RECIPE_FORMAT

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", absolute_path("model", self.model))
        if self.names is not None:
            object.__setattr__(self, "names", absolute_path("names", self.names))
        if self.weights is not None:
            object.__setattr__(self, "weights", Path(absolute_path("weights", str(self.weights))))
        if self.engine.timing_cache is not None:
            folder = Path(absolute_path("engine.timing_cache", str(self.engine.timing_cache)))
            object.__setattr__(self, "engine", replace(self.engine, timing_cache=folder))
        if self.input_size is not None:
            _check_sides("input_size", self.input_size, multiple=_STRIDE)
        self._check_calibration()
        self._check_flavor()
        self._check_dla()

    def _check_calibration(self) -> None:
        int8 = self.graph.precision is Precision.INT8
        _need(
            self.calibration is not None or not int8,
            'calibration: missing with graph.precision = "int8"; expected a table of ranges: add [calibration] with '
            'table = "../calib/NAME.json", and with images = "FOLDER" to have it made',
        )
        _need(
            self.calibration is None or int8,
            f'calibration: given with graph.precision = "{self.graph.precision.value}"; expected "int8", which alone has '
            'ranges: set precision = "int8", or leave [calibration] out',
        )

    def _check_flavor(self) -> None:
        engine = self.engine
        if engine.flavor is FlavorName.TENSORRT_RTX:
            for name in ("dla_core", "timing_cache", "hardware_compatibility", "version_compatible"):
                _need(
                    getattr(engine, name) == getattr(EngineSettings(), name),
                    f'engine.{name}: given with flavor = "tensorrt_rtx", which has no such thing; expected "tensorrt": set '
                    f"that, or leave {name} out",
                )
        for capability in engine.compute_capabilities:
            _need(
                re.fullmatch(r"[1-9][0-9]?\.[0-9]", capability) is not None,
                f'engine.compute_capabilities: got {capability!r}; expected MAJOR.MINOR, e.g. "8.6"',
            )
        _need(
            not engine.compute_capabilities or engine.flavor is not FlavorName.TENSORRT,
            'engine.compute_capabilities: given with flavor = "tensorrt", which builds for the GPU at hand; expected '
            '"tensorrt_rtx": set that, or leave compute_capabilities out',
        )
        _need(
            "7.5" not in engine.compute_capabilities or self.graph.output_stage is OutputStage.HEADS,
            'engine.compute_capabilities: got "7.5" with graph.output_stage = "detections"; expected "8.0" or newer, since '
            'TensorRT-RTX has no float32 MatMul on Turing and suppression needs one: leave "7.5" out, or set output_stage = '
            '"heads"',
        )

    def _check_dla(self) -> None:
        graph = self.graph
        if self.engine.dla_core is None:
            return
        _need(
            graph.precision is not Precision.FP32,
            'engine.dla_core: given with graph.precision = "fp32"; expected "fp16" or "int8", which a DLA computes in: set '
            "one, or leave dla_core out",
        )
        _need(
            not graph.batch.dynamic,
            f"engine.dla_core: given with graph.batch = {graph.batch}; expected one size, a DLA takes no other: set batch = "
            f"{graph.batch.max}, or leave dla_core out",
        )


def _check_sides(key: str, hw: HW, multiple: int = 1) -> None:
    _need(
        all(multiple <= side <= _MAX_SIDE and side % multiple == 0 for side in hw),
        f"{key}: got height {hw[0]}, width {hw[1]}; expected {multiple} to {_MAX_SIDE // multiple * multiple} px"
        + (f" in steps of {multiple}, e.g. 416" if multiple > 1 else ""),
    )


def _need(condition: bool, text: str) -> None:
    if not condition:
        raise RecipeError(text)
