"""`info`: what an artifact is, and whether this machine can run it."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from yolov3_trt.cli.options import ArtifactArgument, JsonOption, TrustOption, WeightsOption
from yolov3_trt.cli.output import write_result

if TYPE_CHECKING:
    from yolov3_trt.meta import EngineMeta, ModelMeta


def info(
    artifact: ArtifactArgument,
    weights: WeightsOption = None,
    layers: Annotated[
        bool, typer.Option("--layers", help="Of an engine: what TensorRT made of the layers; needs a GPU that runs it.")
    ] = False,
    trust: TrustOption = False,
    json: JsonOption = None,
) -> None:
    """Show the sidecar of an artifact, or the layers of a model, and whether this machine can run it."""
    from yolov3_trt.backends import BackendName, natural_backend
    from yolov3_trt.meta import load_model_meta, to_json

    kind = natural_backend(artifact)
    if kind is BackendName.TORCH:
        content, text = _model(artifact, weights)
    elif kind is BackendName.TRITON:
        content, text = _served(artifact)
    elif kind is BackendName.ONNXRUNTIME:
        model = load_model_meta(Path(artifact))
        answer = _onnx_verdict()
        content, text = {"artifact": artifact, "verdict": answer, "meta": to_json(model)}, _meta_text(model)
        text += f"\nruns here      {answer}"
    else:
        content, text = _engine(artifact)
        if layers:
            from yolov3_trt.runtime.inspector import layer_report

            content["layers"] = layer_report(Path(artifact), trust=trust)
            text += "".join(f"\n{layer['Name']}" for layer in content["layers"])
    write_result(json, content, text)


def _model(artifact: str, weights: str | None) -> tuple[dict[str, Any], str]:
    from yolov3_trt.models import load_model, load_spec

    spec = load_model(artifact, weights).spec if weights else load_spec(artifact)
    content = {
        "artifact": artifact,
        "name": spec.name,
        "input_hw": list(spec.input_hw),
        "num_parameters": spec.num_parameters,
        "num_classes": spec.num_classes,
        "layers": [
            {"index": i, "type": type(layer).__name__, "output_chw": list(spec.shapes[i])}
            for i, layer in enumerate(spec.layers)
        ],
    }
    lines = [f"{spec.name}: {spec.num_parameters:,} parameters, {spec.num_classes} classes"]
    lines += [
        f"{i:4d}  {type(layer).__name__:<14} {'x'.join(map(str, spec.shapes[i]))}"
        for i, layer in enumerate(spec.layers)
    ]
    return content, "\n".join(lines)


def _served(artifact: str) -> tuple[dict[str, Any], str]:
    """What the servers say of their model; they must answer."""
    from yolov3_trt.backends import open_backend
    from yolov3_trt.meta import to_json

    backend = open_backend(artifact)
    try:
        meta, fallbacks = backend.meta, list(backend.fallbacks)
    finally:
        backend.close()
    content = {"artifact": artifact, "verdict": "yes, on its server", "fallbacks": fallbacks, "meta": to_json(meta)}
    return content, "\n".join([_meta_text(meta), "runs here      yes, on its server", *fallbacks])


def _engine(artifact: str) -> tuple[dict[str, Any], str]:
    """From the sidecar alone: the plan is not loaded."""
    from yolov3_trt.engine.machine import this_machine
    from yolov3_trt.engine.plan import graph_beside, why_untrusted
    from yolov3_trt.engine.verdict import verdict
    from yolov3_trt.meta import load_engine_meta, to_json

    path = Path(artifact)
    engine = load_engine_meta(path)
    found, suspicion = verdict(engine, this_machine(), graph_beside(path)), why_untrusted(path)
    content = {
        "artifact": artifact,
        "verdict": str(found),
        "runs": found.runs,
        "reasons": list(found.reasons),
        "fix": found.fix,
        "untrusted": suspicion,
        "meta": to_json(engine),
    }
    lines = {"runs here": str(found), "trusted": f"no: {suspicion}" if suspicion else "yes"}
    return content, "\n".join([_engine_text(engine), _meta_text(engine.model), _lines(lines)])


def _meta_text(meta: "ModelMeta") -> str:
    post = meta.postprocess
    heads = ", ".join(f"{head.name} {head.grid_hw[0]}x{head.grid_hw[1]}" for head in meta.heads)
    lines = {
        "model": f"{meta.name}, {meta.num_classes} classes",
        "precision": meta.precision.value,
        "input": f"{meta.input_stage.value} {meta.input_shape(meta.batch.max)}, batch {meta.batch}",
        "resize": meta.preprocess.resize.value,
        "output": f"{meta.output_stage.value}: {', '.join(meta.output_names)}",
        "heads": heads,
        "thresholds": f"conf {post.conf}, iou {post.iou} ({post.nms.kind.value})",
        **({} if meta.certificate is None else {"certificate": str(meta.certificate)}),
        "opset": str(meta.opset),
        "weights": f"SHA-256 {meta.weights_sha256}",
        **({} if meta.distilled_sha256 is None else {"distilled": f"SHA-256 {meta.distilled_sha256}"}),
        "graph": f"SHA-256 {meta.onnx_sha256}",
        "made by": ", ".join(f"{name} {version}" for name, version in meta.versions.items()),
    }
    return _lines(lines)


def _engine_text(engine: "EngineMeta") -> str:
    target = engine.gpu or "built on the CPU"
    capabilities = ", ".join(engine.compute_capabilities) or "the flavor's portable default"
    lines = {
        "engine": f"{engine.plan_bytes / 1e6:.1f} MB, SHA-256 {engine.plan_sha256}",
        "built with": f"{engine.flavor} {engine.flavor_version} on {engine.platform}, {target}, in {engine.build_s:.1f} s",
        "for GPUs": f"compute capability {capabilities}; hardware compatibility {engine.hardware_compatibility}",
        "for TensorRT": "this version and newer of its major" if engine.version_compatible else "this version only",
    }
    if engine.tf32 is not False:
        lines["float32"] = (
            "rounded to TF32 by the GPU" if engine.tf32 else "rounded to TF32 where the GPU can (an older build)"
        )
    if engine.dla_core is not None:
        lines["for DLA"] = f"core {engine.dla_core}"
    return _lines(lines)


def _lines(values: Mapping[str, str]) -> str:
    return "\n".join(f"{key:<14} {value}" for key, value in values.items())


def _onnx_verdict() -> str:
    from importlib.util import find_spec

    return (
        "yes, on ONNX Runtime"
        if find_spec("onnxruntime")
        else "no: onnxruntime is not installed (pip install 'yolov3-trt[cpu]')"
    )
