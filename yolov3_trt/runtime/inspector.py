"""What an engine is made of: the layers TensorRT fused, their precision and kernels."""

import json
from pathlib import Path
from typing import Any

from yolov3_trt.engine.api import ICudaEngine
from yolov3_trt.engine.flavor import open_flavor
from yolov3_trt.engine.plan import load_plan
from yolov3_trt.errors import EngineError
from yolov3_trt.runtime.execution import engine_from_plan
from yolov3_trt.settings import FlavorName


def layer_report(engine_path: Path, *, trust: bool = False) -> list[dict[str, Any]]:
    """The layers of an engine, in the order in which they run, as TensorRT's inspector describes them.

    TensorRT loads the plan for this, so it takes a GPU that runs it. Of TensorRT-RTX, which compiles a network as a whole,
    the report is short.

    Args:
        engine_path: of the `.engine`; its sidecar lies beside it.
        trust: take it whoever owns it or can write to it.

    Returns:
        A mapping per layer. All have `Name`; what else is there differs by version.

    Raises:
        MetaError: the sidecar is missing, damaged, or another plan's.
        EngineError: this machine cannot run the plan, for one because it has no GPU.
        MissingDependency: the TensorRT that built it is not installed.
        BuildError: it does not load.
    """
    plan = load_plan(engine_path, trust=trust)
    flavor = open_flavor(FlavorName(plan.meta.flavor))
    engine: ICudaEngine = engine_from_plan(plan, flavor)
    inspector = engine.create_engine_inspector()
    return layers_from_json(inspector.get_engine_information(flavor.trt.LayerInformationFormat.JSON), engine_path)


def layers_from_json(text: str, engine_path: Path) -> list[dict[str, Any]]:
    """The layers in the inspector's JSON, which gives bare names for engines that were built with little verbosity.

    Raises:
        EngineError: it is not what inspectors write.
    """
    try:
        layers = json.loads(text)["Layers"]
    except (ValueError, KeyError, TypeError) as exc:
        raise EngineError(f"{engine_path}: TensorRT's inspector gave no list of layers but {text[:60]!r}") from exc
    return [layer if isinstance(layer, dict) else {"Name": str(layer)} for layer in layers]
