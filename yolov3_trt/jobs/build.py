"""Recipe -> engine: exported, calibrated and compiled, or left as it is where all that it is made from is as it was."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from yolov3_trt._version import __version__
from yolov3_trt.arguments import path as path_of
from yolov3_trt.arguments import size_text, text
from yolov3_trt.builder.build import BuiltEngine, CheckedGraph, build_engine, estimated_build_s
from yolov3_trt.builder.resources import memory_bytes_needed, plan_bytes_needed
from yolov3_trt.calibration.table import load_table
from yolov3_trt.certificate import MIN_PROOF_IMAGES, Certificate, Verdict
from yolov3_trt.engine.driver import installed_gpu
from yolov3_trt.engine.flavor import Flavor, open_flavor
from yolov3_trt.errors import BuildError, MetaError, SettingError
from yolov3_trt.files import Written, locked, sha256_of_file
from yolov3_trt.jobs.calibrate import table_for
from yolov3_trt.jobs.export import Exported, artifact_stem, model_meta, write_graph
from yolov3_trt.meta import Batch, EngineMeta, Precision, load_engine_meta, load_model_meta, to_json
from yolov3_trt.models import Model, load_model, load_spec
from yolov3_trt.recipe import BuildRecipe, find_recipe, load_found, recipe_from
from yolov3_trt.reporter import SILENT, Reporter
from yolov3_trt.settings import EngineSettings, GraphSettings, check_engine, settings_from


@dataclass(frozen=True, repr=False)
class Built(Written):
    """An engine that is there now; goes wherever the path of one does.

    Attributes:
        path: of the engine; its sidecar lies beside it.
        meta: the sidecar.
        reason: why it was built, or why the one that was there is still good.
        export: of its graph; None where that was given, or nothing was built.
        engine: what the builder reports; None where nothing was built.
    """

    path: Path
    meta: EngineMeta
    reason: str
    export: Exported | None = None
    engine: BuiltEngine | None = None

    @property
    def reused(self) -> bool:
        """Nothing was built."""
        return self.engine is None

    def to_json(self) -> dict[str, Any]:
        """As `build --json` writes it."""
        return {
            "engine": str(self.path),
            "reused": self.reused,
            "reason": self.reason,
            "bytes": self.meta.plan_bytes,
            "build_s": self.meta.build_s,
            "notes": list(self.engine.notes) if self.engine else [],
            "dla": to_json(self.engine.dla) if self.engine and self.engine.dla else None,
            "export": self.export.to_json() if self.export else None,
            "meta": to_json(self.meta),
        }


def build(
    source: str | os.PathLike[str] | BuildRecipe,
    path: str | os.PathLike[str] | None = None,
    *,
    force: bool = False,
    require_certificate: bool = False,
    reporter: Reporter = SILENT,
    **settings: Any,
) -> Built:
    """Make a TensorRT engine and its sidecar, with the graph it is built from beside it.

    If nothing changed since the last build - model, weights, settings, calibration table, TensorRT and GPU - the engine that is
    there is kept. Of several processes that build the same engine, one builds and the others wait for it.

    Args:
        source: a model (a built-in name or a `.cfg`), a recipe (a `.toml`, the name of a packaged one, or a `BuildRecipe`), or
            a graph made by `export`.
        path: of the engine; by default `engines/MODEL-SIZE-PRECISION.engine`, `engines/RECIPE.engine`, or beside the graph.
        force: build in any case.
        require_certificate: refuse INT8 whose AP drop is not proven to be within its limit, by the sidecar of a graph or
            the table of a model; see `quantize`.
        reporter: told what is done and why, and of TensorRT's own progress.
        settings: of a model: `weights`, `names`, `input_size` as `load_model` takes them, and any of `GraphSettings`,
            `CalibrationSettings`, `DetectSettings` and `EngineSettings` by name, or whole ones as `graph`, `calibration`,
            `detect` and `engine`; without a precision the engine is fp16. Of a recipe: those that differ from place to place,
            `weights`, `names`, `images`, `table`, `flavor`, `timing_cache`. Of a graph: any of `EngineSettings`.

    Raises:
        SettingError: a setting has no such value, or does not go with another or with this source.
        RecipeError: the recipe cannot be read.
        Yolov3TrtError: whatever of the chain failed; the engine that was there still is.

    >>> engine = build("yolov3.cfg", precision="int8", images="photos/")  # doctest: +SKIP
    >>> detector = open_detector(engine)  # doctest: +SKIP
    """
    settings = {name: value for name, value in settings.items() if value is not None}
    if not isinstance(source, BuildRecipe) and os.fspath(source).endswith(".onnx"):
        if require_certificate:
            meta = load_model_meta(Path(source))
            _check_certificate(Path(source), meta.precision, meta.certificate)
        engine_path = Path(source).with_suffix(".engine") if path is None else path_of("path", path)
        return _build_graph(Path(source), engine_path, _engine_only(source, settings), force, reporter)
    recipe = recipe_of(source, **settings)
    if path is not None:
        engine_path = path_of("path", path)
    elif not isinstance(source, BuildRecipe) and (found := find_recipe(os.fspath(source))) is not None:
        engine_path = Path("engines") / f"{found.stem}.engine"
    else:
        engine_path = Path("engines") / f"{_engine_stem(recipe)}.engine"
    return _build_recipe(recipe, engine_path, force, require_certificate, reporter)


def recipe_of(source: str | os.PathLike[str] | BuildRecipe, **settings: Any) -> BuildRecipe:
    """What `build` makes of a model or a recipe and these settings, to be looked at or saved.

    Raises:
        SettingError, RecipeError: see `build`.
    """
    if isinstance(source, BuildRecipe):
        return source.for_this_place("a recipe", **settings)
    found = find_recipe(text("source", source))
    if found is not None:
        return load_found(found).for_this_place(os.fspath(source), **settings)
    return recipe_from(text("model", source), **settings)


def _check_certificate(where: Path, precision: Precision | None, certificate: Certificate | None) -> None:
    """Refuse INT8 whose certificate is missing, or proves nothing."""
    if precision is not Precision.INT8:
        return
    if certificate is None:
        raise BuildError(
            f"{where}: it has no certificate for this graph; make it with `quantize` and about {2 * MIN_PROOF_IMAGES + 20} "
            "labelled pictures"
        )
    if certificate.verdict is not Verdict.PROVEN:
        raise BuildError(f"{where}: {certificate}; expected one that is proven")


def _engine_only(graph: str | os.PathLike[str], settings: dict[str, Any]) -> EngineSettings:
    known = {"engine", *(item.name for item in dataclasses.fields(EngineSettings))}
    for name in settings:
        if name not in known:
            raise SettingError(
                name,
                f"given with {os.fspath(graph)}, which was exported with its own; leave it out, or build from the model",
            )
    engine: EngineSettings
    (engine,) = settings_from(settings, EngineSettings)
    return engine


def _build_recipe(
    recipe: BuildRecipe, engine_path: Path, force: bool, require_certificate: bool, reporter: Reporter
) -> Built:
    flavor = open_flavor(recipe.engine.flavor)
    check_engine(recipe.engine, recipe.graph, flavor.name)
    model = load_model(recipe.model, recipe.weights, recipe.names, recipe.input_size)
    # TensorRT 8.x chooses types by itself and takes float32 scales only.
    graph = recipe.graph.with_precision(
        Precision.FP16, float_precision=Precision.FP16 if flavor.strongly_typed else Precision.FP32
    )
    with locked(engine_path, lambda: reporter.say(f"{engine_path}: another process is building it; waiting")):
        table = None
        if graph.precision is Precision.INT8:
            table = table_for(model, recipe.calibration, recipe.detect, reporter)
            if require_certificate:
                _check_certificate(table, graph.precision, load_table(table).certificate_for(graph.float_layers))
        inputs = {**_model_inputs(model, recipe, graph, table), **_builder_inputs(recipe.engine, flavor)}
        there, reason = (None, "asked to (force)") if force else _still_good(engine_path, inputs)
        if there is not None:
            return Built(engine_path, there, reason)
        on_dla = recipe.engine.dla_core is not None
        onnx_path = engine_path.with_suffix(".onnx")
        report = write_graph(model, onnx_path, graph, recipe.detect, table, leaky_as_prelu=on_dla)
        reporter.say(_estimate(report.path, engine_path, report.meta.precision))
        checked = CheckedGraph(report.path, report.meta)
        engine = build_engine(checked, engine_path, recipe.engine, inputs=inputs, progress=reporter.building)
    return Built(engine_path, engine.meta, reason, report, engine)


def _build_graph(
    onnx_path: Path, engine_path: Path, engine_settings: EngineSettings, force: bool, reporter: Reporter
) -> Built:
    flavor = open_flavor(engine_settings.flavor)
    graph = CheckedGraph(onnx_path, load_model_meta(onnx_path))
    with locked(engine_path, lambda: reporter.say(f"{engine_path}: another process is building it; waiting")):
        graph_sha256 = graph.meta.onnx_sha256 or sha256_of_file(onnx_path)
        inputs = {"graph": graph_sha256, **_builder_inputs(engine_settings, flavor)}
        there, reason = (None, "asked to (force)") if force else _still_good(engine_path, inputs)
        if there is not None:
            return Built(engine_path, there, reason)
        reporter.say(_estimate(onnx_path, engine_path, graph.meta.precision))
        engine = build_engine(graph, engine_path, engine_settings, inputs=inputs, progress=reporter.building)
    return Built(engine_path, engine.meta, reason, None, engine)


def _engine_stem(recipe: BuildRecipe) -> str:
    """A file name, without suffix, that says what the recipe makes; see `artifact_stem`."""
    spec = load_spec(recipe.model)
    return artifact_stem(spec if recipe.input_size is None else spec.with_input_hw(recipe.input_size), recipe.graph)


def _still_good(engine_path: Path, inputs: Mapping[str, str]) -> tuple[EngineMeta | None, str]:
    """The sidecar of the engine at a path where that is the one that `inputs` give, else None; and why."""
    if not engine_path.exists():
        return None, "there was no engine yet"
    try:
        there = load_engine_meta(engine_path)
    except MetaError as exc:
        return None, f"the one there cannot be used: {exc}"
    built_of = there.inputs
    if ("graph" in built_of) != ("graph" in inputs):
        return None, f"the one there was built from {'a graph' if 'graph' in built_of else 'a model'}"
    changed = [name for name in {**built_of, **inputs} if built_of.get(name) != inputs.get(name)]
    if not changed:
        return there, "nothing changed since it was built"
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


def _model_inputs(model: Model, recipe: BuildRecipe, graph: GraphSettings, table: Path | None) -> dict[str, str]:
    """What the graph depends on, by name: hashes of what is large, texts of what is small."""
    meta = model_meta(model, graph, recipe.detect)
    return {
        "yolov3_trt": __version__,
        "layers": model.spec.layers_sha256,
        "weights": model.weights_sha256,
        "class names": hashlib.sha256("\n".join(model.class_names).encode()).hexdigest(),
        "input size": size_text(model.spec.input_hw),
        "calibration table": "none" if table is None or not table.is_file() else sha256_of_file(table),
        "preprocess": _text(meta.preprocess),
        "postprocess": _text(meta.postprocess),
        **_settings(graph),
    }


def _builder_inputs(options: EngineSettings, flavor: Flavor) -> dict[str, str]:
    """What the builder adds to that. A timing cache makes no other plan, only a quicker build."""
    gpu = installed_gpu()
    return {
        **_settings(replace(options, timing_cache=None)),
        "flavor": flavor.name.value,  # what `auto` chose
        "tensorrt version": flavor.version,
        "gpu": "none" if gpu is None or flavor.builds_on_cpu else gpu.name,
    }


def _settings(settings: Any) -> dict[str, str]:
    """Settings as texts, by name."""
    return {item.name.replace("_", " "): _text(getattr(settings, item.name)) for item in dataclasses.fields(settings)}


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
