"""`info`: what an artifact is, and whether this machine can run it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from yolov3_trt.cli.options import ArtifactArgument, JsonOption, WeightsOption
from yolov3_trt.cli.output import write_result

if TYPE_CHECKING:
    from yolov3_trt.meta import EngineMeta, ModelMeta


def info(artifact: ArtifactArgument, weights: WeightsOption = None, json: JsonOption = None) -> None:
    """Show the sidecar of an artifact, or the layers of a model, and whether this machine can run it."""
    from yolov3_trt.meta import load_engine_meta, load_model_meta, to_json
    from yolov3_trt.models import is_model

    if is_model(artifact):
        content, text = _model(artifact, weights)
    elif Path(artifact).suffix == ".onnx":
        model = load_model_meta(Path(artifact))
        verdict = _onnx_verdict()
        content, text = {"artifact": artifact, "verdict": verdict, "meta": to_json(model)}, _meta_text(model)
        text += f"\nruns here      {verdict}"
    else:
        engine = load_engine_meta(Path(artifact))
        verdict = _engine_verdict(engine)
        content = {"artifact": artifact, "verdict": verdict, "meta": to_json(engine)}
        text = f"{_engine_text(engine)}\n{_meta_text(engine.model)}\nruns here      {verdict}"
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
        "thresholds": f"conf {post.conf_threshold}, iou {post.iou_threshold} ({post.nms.kind.value})",
        "opset": str(meta.opset),
        "weights": f"SHA-256 {meta.weights_sha256}",
        "graph": f"SHA-256 {meta.onnx_sha256}",
        "made by": ", ".join(f"{name} {version}" for name, version in meta.versions.items()),
    }
    return "\n".join(f"{key:<14} {value}" for key, value in lines.items())


def _engine_text(engine: "EngineMeta") -> str:
    target = engine.gpu or "built on the CPU"
    capabilities = ", ".join(engine.compute_capabilities) or "the flavour's portable default"
    lines = {
        "engine": f"{engine.plan_bytes / 1e6:.1f} MB, SHA-256 {engine.plan_sha256}",
        "built with": f"{engine.flavor} {engine.flavor_version} on {engine.platform}, {target}, in {engine.build_s:.1f} s",
        "for GPUs": f"compute capability {capabilities}",
    }
    return "\n".join(f"{key:<14} {value}" for key, value in lines.items())


def _onnx_verdict() -> str:
    from importlib.util import find_spec

    return (
        "yes, on ONNX Runtime"
        if find_spec("onnxruntime")
        else "no: onnxruntime is not installed (pip install 'yolov3-trt[cpu]')"
    )


def _engine_verdict(engine: "EngineMeta") -> str:
    """Compared from the sidecar alone: the plan is not loaded."""
    from yolov3_trt.engine.driver import installed_gpu
    from yolov3_trt.engine.flavor import installed_flavors
    from yolov3_trt.engine.options import FlavorName

    gpu = installed_gpu()
    if gpu is None:
        return "no: this machine shows no NVIDIA GPU and driver"
    if FlavorName(engine.flavor) not in installed_flavors():
        return f"no: {engine.flavor} is not installed"
    if engine.gpu is not None and engine.gpu != gpu.name:
        return f"no: built on {engine.gpu}, this is {gpu.name}; build it again here"
    return f"perhaps: {gpu.name} is there, {engine.flavor} must be {engine.flavor_version}"
