"""Recipe -> engine: exported, calibrated and compiled, or left as it is where all that it is made from is as it was."""

import dataclasses
import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from yolov3_trt._version import __version__
from yolov3_trt.builder.build import BuiltEngine, CheckedGraph, build_engine, estimated_build_s
from yolov3_trt.builder.progress import BuildProgress
from yolov3_trt.builder.resources import memory_bytes_needed, plan_bytes_needed
from yolov3_trt.data.calibration_set import CalibrationSet
from yolov3_trt.data.manifest import load_set
from yolov3_trt.engine.driver import installed_gpu
from yolov3_trt.engine.flavor import Flavor, open_flavor
from yolov3_trt.errors import MetaError
from yolov3_trt.files import locked, sha256_of_file
from yolov3_trt.jobs.calibrate import Calibration, fitting_table, make_table, open_pictures
from yolov3_trt.jobs.export import ExportOptions, ExportReport, artifact_stem, export_model, model_meta
from yolov3_trt.jobs.reporter import SILENT, Reporter
from yolov3_trt.meta import Batch, EngineMeta, Precision, load_engine_meta, load_model_meta
from yolov3_trt.models import Model, load_model, load_spec
from yolov3_trt.recipe import DEFAULT_NUM_IMAGES, BuildRecipe, CalibrationRecipe
from yolov3_trt.settings import EngineSettings
from yolov3_trt.spec import Nms


@dataclass(frozen=True)
class Built:
    """An engine that is there now.

    Attributes:
        path: of the engine.
        meta: its sidecar.
        reason: why it was built, or why the one that was there is still good.
        export: of its graph; None where that was given, or nothing was built.
        engine: what the builder reports; None where nothing was built.
    """

    path: Path
    meta: EngineMeta
    reason: str
    export: ExportReport | None = None
    engine: BuiltEngine | None = None

    @property
    def reused(self) -> bool:
        """Nothing was built."""
        return self.engine is None


def build_from_recipe(
    recipe: BuildRecipe,
    engine_path: Path,
    *,
    force: bool = False,
    reporter: Reporter = SILENT,
    progress: BuildProgress | None = None,
) -> Built:
    """Make the engine that a recipe describes, with the graph it is built from beside it.

    It is left alone where it was built of just this: model, weights, settings, calibration table, TensorRT and GPU. Of
    several processes that build the same engine, one builds and the others wait for it.

    Args:
        recipe: what to build.
        engine_path: where the plan goes; its graph gets the suffix `.onnx`.
        force: build in any case.
        reporter: told what is done and why.
        progress: told of TensorRT's own progress, where it tells.

    Raises:
        Yolov3TrtError: whatever of the chain failed; the engine that was there still is.
    """
    flavor = open_flavor(recipe.engine.flavor)
    model = load_model(recipe.model, recipe.weights, recipe.names, recipe.input_size)
    options = export_options(recipe, model, flavor)
    with locked(engine_path, lambda: reporter.say(f"{engine_path}: another process is building it; waiting")):
        if recipe.calibration is not None and recipe.calibration.images is not None:
            _make_table(recipe.calibration, recipe.calibration.images, model, options, reporter)
        inputs = {**_model_inputs(model, options), **_builder_inputs(recipe.engine, flavor)}
        there, reason = (None, "asked to") if force else _still_good(engine_path, inputs)
        if there is not None:
            return Built(engine_path, there, reason)
        report = export_model(model, engine_path.with_suffix(".onnx"), options)
        reporter.say(_estimate(report.path, engine_path, report.meta.precision))
        graph = CheckedGraph(report.path, report.meta)
        engine = build_engine(graph, engine_path, recipe.engine, inputs=inputs, progress=progress)
    return Built(engine_path, engine.meta, reason, report, engine)


def build_from_graph(
    onnx_path: Path,
    engine_path: Path,
    options: EngineSettings,
    *,
    force: bool = False,
    reporter: Reporter = SILENT,
    progress: BuildProgress | None = None,
) -> Built:
    """Make the engine of an exported graph; see `build_from_recipe`."""
    flavor = open_flavor(options.flavor)
    graph = CheckedGraph(onnx_path, load_model_meta(onnx_path))
    with locked(engine_path, lambda: reporter.say(f"{engine_path}: another process is building it; waiting")):
        inputs = {"graph": graph.meta.onnx_sha256 or sha256_of_file(onnx_path), **_builder_inputs(options, flavor)}
        there, reason = (None, "asked to") if force else _still_good(engine_path, inputs)
        if there is not None:
            return Built(engine_path, there, reason)
        reporter.say(_estimate(onnx_path, engine_path, graph.meta.precision))
        engine = build_engine(graph, engine_path, options, inputs=inputs, progress=progress)
    return Built(engine_path, engine.meta, reason, None, engine)


def engine_stem(recipe: BuildRecipe) -> str:
    """A file name, without suffix, that says what the recipe makes; see `artifact_stem`."""
    spec, graph = load_spec(recipe.model), recipe.graph
    options = ExportOptions(
        graph.precision, graph.batch, graph.input_stage, graph.output_stage, frame_hw=graph.frame_size
    )
    return artifact_stem(spec if recipe.input_size is None else spec.with_input_hw(recipe.input_size), options)


def export_options(recipe: BuildRecipe, model: Model, flavor: Flavor) -> ExportOptions:
    """What a recipe says of the graph, with the model's own values where it says nothing."""
    graph, detect = recipe.graph, recipe.detect
    preprocess, postprocess = (
        model_meta(model, ExportOptions()).preprocess,
        model_meta(model, ExportOptions()).postprocess,
    )
    # TensorRT 8.x chooses types by itself and takes float32 scales only.
    rest = graph.rest or (Precision.FP16 if flavor.strongly_typed else Precision.FP32)
    return ExportOptions(
        precision=graph.precision,
        batch=graph.batch,
        input_stage=graph.input_stage,
        frame_hw=graph.frame_size,
        output_stage=graph.output_stage,
        opset=graph.opset,
        preprocess=preprocess.override(resize=detect.resize),
        postprocess=postprocess.override(
            conf=detect.conf,
            iou=detect.iou,
            max_detections=detect.max_detections,
            nms=Nms() if detect.nms == "plain" else None,
        ),
        calibration=None if recipe.calibration is None else recipe.calibration.table,
        skip_layers=graph.skip_layers,
        rest=rest,
        leaky_as_prelu=recipe.engine.dla_core is not None,
    )


def _still_good(engine_path: Path, inputs: Mapping[str, str]) -> tuple[EngineMeta | None, str]:
    """The sidecar of the engine at a path where that is the one that `inputs` give, else None; and why."""
    if not engine_path.exists():
        return None, "there was none"
    try:
        there = load_engine_meta(engine_path)
    except MetaError as exc:
        return None, f"the one there cannot be used: {exc}"
    built_of = there.inputs
    if ("graph" in built_of) != ("graph" in inputs):
        return None, f"the one there was built from {'a graph' if 'graph' in built_of else 'a model'}"
    changed = [name for name in {**built_of, **inputs} if built_of.get(name) != inputs.get(name)]
    if not changed:
        return there, "it was built of just this"
    return None, "; ".join(
        f"{name} was {_shown(built_of.get(name))}, is {_shown(inputs.get(name))}" for name in changed
    )


def _estimate(onnx_path: Path, engine_path: Path, precision: Precision) -> str:
    onnx_bytes, last_s = onnx_path.stat().st_size, estimated_build_s(engine_path)
    disk, memory = plan_bytes_needed(onnx_bytes, precision), memory_bytes_needed(onnx_bytes, precision)
    last_time = "" if last_s is None else f"; it took {last_s:.1f} s the last time"
    return (
        f"{engine_path}: TensorRT may need {disk / 1e6:.0f} MB of disk, {memory / 1e6:.0f} MB of memory{last_time} ..."
    )


def _make_table(
    recipe: CalibrationRecipe, images: str, model: Model, options: ExportOptions, reporter: Reporter
) -> None:
    """See that the calibration table is there and of just this model and these pictures."""
    wanted = Calibration(_calibration_set(recipe, images), recipe.method, recipe.percentile)
    as_float = ExportOptions(preprocess=options.preprocess)
    pictures = open_pictures(wanted, reporter)
    if fitting_table(recipe.table, model_meta(model, as_float), pictures, wanted, reporter) is None:
        with tempfile.TemporaryDirectory() as folder:
            graph = export_model(model, Path(folder) / f"{model.spec.name}.onnx", as_float).path
            make_table(graph, recipe.table, pictures, wanted, reporter)


def _calibration_set(recipe: CalibrationRecipe, images: str) -> CalibrationSet:
    if images.endswith(".toml"):
        return load_set(Path(images))
    return CalibrationSet.of(images, recipe.num_images or DEFAULT_NUM_IMAGES, recipe.seed or 0)


def _model_inputs(model: Model, options: ExportOptions) -> dict[str, str]:
    """What the graph depends on, by name: hashes of what is large, texts of what is small."""
    height, width = model.spec.input_hw
    table = options.calibration
    return {
        "yolov3_trt": __version__,
        "layers": model.spec.layers_sha256,
        "weights": model.weights_sha256,
        "class names": hashlib.sha256("\n".join(model.class_names).encode()).hexdigest(),
        "input size": f"{height}x{width}",
        "calibration table": "none" if table is None or not table.is_file() else sha256_of_file(table),
        **_settings(options, without="calibration"),
    }


def _builder_inputs(options: EngineSettings, flavor: Flavor) -> dict[str, str]:
    """What the builder adds to that. A timing cache makes no other plan, only a quicker build."""
    gpu = installed_gpu()
    return {
        **_settings(options, without="timing_cache"),
        "flavor": flavor.name.value,  # what `auto` chose
        "tensorrt version": flavor.version,
        "gpu": "none" if gpu is None or flavor.builds_on_cpu else gpu.name,
    }


def _settings(options: Any, without: str) -> dict[str, str]:
    """The fields of a dataclass as texts, less one."""
    names = [field.name for field in dataclasses.fields(options) if field.name != without]
    return {name.replace("_", " "): _text(getattr(options, name)) for name in names}


def _text(value: Any) -> str:
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, Batch):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return json.dumps(dataclasses.asdict(value), default=str)
    if isinstance(value, frozenset | tuple):
        return ",".join(map(str, sorted(value))) or "none"
    return "none" if value is None else str(value)


def _shown(text: str | None) -> str:
    if text is None:
        return "not known"
    return f"{text[:12]}…" if len(text) == 64 else text
