"""What a recipe says, checked when it is made.

A recipe is a model and the four settings. What cannot be built is refused here as far as a recipe alone can tell; what the
TensorRT at hand lacks is refused when building.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from yolov3_trt.arguments import path, size, text
from yolov3_trt.errors import SettingError
from yolov3_trt.meta import Precision
from yolov3_trt.recipe.paths import absolute_path
from yolov3_trt.settings import (
    CalibrationSettings,
    DetectSettings,
    EngineSettings,
    GraphSettings,
    check_engine,
    check_together,
    settings_from,
)
from yolov3_trt.sizes import HW

_STRIDE = 32  # px of input per cell of the coarsest head

# What may be said beside a recipe: files, and the TensorRT at hand, which differ from place to place.
_LOCAL = frozenset({"weights", "names", "images", "table", "flavor", "timing_cache"})


@dataclass(frozen=True)
class BuildRecipe:
    """All that an engine is made from.

    Attributes:
        model: a built-in name, or the path of a `.cfg`.
        graph: what the ONNX graph shall be; without a precision it is fp16.
        weights: Darknet `.weights`; None: beside the `.cfg`, or in the cache.
        names: a `.names` file, `coco` or `voc`; None: as `load_model` finds them.
        input_size: (height, width) px, multiples of 32; None: the model's own.
        calibration: where the ranges of INT8 come from.
        detect: what the graph and its sidecar say of detection.
        engine: what TensorRT is told.

    Paths are absolute; a relative one counts from the working folder, in a file from the recipe's own.

    Raises:
        SettingError: at construction, when this cannot be built.

    >>> BuildRecipe("shapes", GraphSettings(precision="fp32"), input_size="608x416").input_size
    (416, 608)
    """

    model: str
    graph: GraphSettings = field(default_factory=GraphSettings)
    weights: Path | None = None
    names: str | None = None
    input_size: HW | None = None
    calibration: CalibrationSettings = field(default_factory=CalibrationSettings)
    detect: DetectSettings = field(default_factory=DetectSettings)
    engine: EngineSettings = field(default_factory=EngineSettings)

    def __post_init__(self) -> None:
        self._set("model", absolute_path("model", text("model", self.model)))
        self._set("graph", self.graph.with_precision(Precision.FP16) if self.graph.precision is None else self.graph)
        if self.names is not None:
            self._set("names", absolute_path("names", text("names", self.names)))
        if self.weights is not None:
            self._set("weights", _absolute("weights", self.weights))
        if self.input_size is not None:
            self._set("input_size", size("input_size", self.input_size, multiple=_STRIDE))
        if self.engine.timing_cache is not None:
            folder = _absolute("timing_cache", self.engine.timing_cache)
            self._set("engine", replace(self.engine, timing_cache=folder))
        if self.calibration.table is not None:
            table = _absolute("table", self.calibration.table)
            self._set("calibration", replace(self.calibration, table=table))
        if self.calibration.images is not None:
            images = absolute_path("images", self.calibration.images)
            self._set("calibration", replace(self.calibration, images=images))
        check_together(self.graph, self.calibration)
        check_engine(self.engine, self.graph, self.engine.flavor)

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def for_this_place(self, where: str, **said: Any) -> "BuildRecipe":
        """The same with what differs from place to place: files, and the TensorRT at hand.

        Args:
            where: the recipe comes from, for errors.
            said: by the names of settings; None leaves one as it is.

        Raises:
            SettingError: a setting that a recipe is there to say.
        """
        changes = {name: value for name, value in said.items() if value is not None}
        for name in changes:
            if name not in _LOCAL:
                raise SettingError(
                    name, f"given with {where}, which says it itself; leave it out, or change the recipe"
                )
        parts = {name: changes.pop(name) for name in ("weights", "names") if name in changes}
        calibration, engine = settings_from(
            {"calibration": self.calibration, "engine": self.engine, **changes}, CalibrationSettings, EngineSettings
        )
        return replace(self, calibration=calibration, engine=engine, **parts)


def recipe_from(
    model: str | Path,
    *,
    weights: str | Path | None = None,
    names: str | Path | None = None,
    input_size: Any = None,
    **settings: Any,
) -> BuildRecipe:
    """The recipe of a model and settings by name, e.g. `recipe_from("yolov3", precision="fp16", input_size=320)`.

    Raises:
        SettingError: a value is out of its range, or this cannot be built.
    """
    graph, calibration, detect, engine = settings_from(
        settings, GraphSettings, CalibrationSettings, DetectSettings, EngineSettings
    )
    names = None if names is None else text("names", names)
    where = None if weights is None else path("weights", weights)
    return BuildRecipe(text("model", model), graph, where, names, input_size, calibration, detect, engine)


def _absolute(name: str, value: Any) -> Path:
    return Path(absolute_path(name, str(path(name, value))))
