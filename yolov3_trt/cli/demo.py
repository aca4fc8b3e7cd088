"""`demo`: the whole chain, step by step, on a real model and real photographs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from yolov3_trt.cli.output import say, table

if TYPE_CHECKING:
    from yolov3_trt.models import Model

MODEL = "yolo-fastest-1.1"
PRECISIONS = ("fp32", "fp16")


def demo(
    data: Annotated[Path, typer.Option(metavar="DIR", help="Reference data: models/, images/, coco/.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Where the results go.")] = Path(
        "runs/demo"
    ),
) -> None:
    """Run the chain from .weights to boxes, engine, accuracy and latency on a small model pretrained on COCO."""
    import json

    from yolov3_trt.benchmark.latency import machine
    from yolov3_trt.files import write_text
    from yolov3_trt.models import load_model

    cfg = data / "models" / f"{MODEL}.cfg"
    if not cfg.is_file():
        say(
            f"yolov3_trt: {cfg}: there is no such file. This demo needs the project's reference data: {MODEL}.cfg and .weights "
            "in models/, photographs in images/, COCO images and annotations in coco/. Name their folder with YOLOV3_TRT_DATA "
            "or --data."
        )
        raise typer.Exit(1)
    say(f"1. {MODEL}: .cfg and .weights -> PyTorch reference")
    model = load_model(cfg, names="coco")
    say(f"   {model.spec.num_parameters:,} parameters, {len(model.spec.layers)} layers, input {model.spec.input_hw}")
    say("2. PyTorch -> ONNX, FP32 and FP16, compared with the reference")
    graphs = _export(model, output)
    say("3. ONNX -> TensorRT engine")
    engines = _build(graphs)
    say("4. Objects in photographs")
    _detect(graphs["fp32"], data / "images", output)
    say("5. Accuracy on COCO val64 and latency, against PyTorch")
    rows = _measure({"pytorch fp32": cfg, **{f"onnx {name}": path for name, path in graphs.items()}}, data)
    summary = {"machine": machine(), "model": MODEL, "engines": engines, "rows": rows}
    write_text(output / "summary.json", json.dumps(summary, indent=1) + "\n")
    print(_text(rows))
    print(f"Results: {output.resolve()} (summary.json, the graphs, the engines, the photographs with boxes)")


def _export(model: "Model", output: Path) -> dict[str, Path]:
    """ONNX files by precision."""
    from yolov3_trt.cli.export import report_text
    from yolov3_trt.meta import Precision
    from yolov3_trt.pipeline import ExportOptions, artifact_stem, export_model

    graphs = {}
    for name in PRECISIONS:
        options = ExportOptions(Precision(name))
        report = export_model(model, output / f"{artifact_stem(model, options)}.onnx", options)
        graphs[name] = report.path
        say(f"   {report_text(report)}")
    return graphs


def _build(graphs: dict[str, Path]) -> list[dict[str, Any]]:
    """An engine per graph; where there is no TensorRT the demo goes on without."""
    from yolov3_trt.cli.build import engine_json, engine_text
    from yolov3_trt.engine.build import build_engine
    from yolov3_trt.errors import BuildError, MissingDependency

    engines = []
    for graph in graphs.values():
        path = graph.with_suffix(".engine")
        try:
            engine = build_engine(graph, path)
        except (BuildError, MissingDependency) as exc:
            say(f"   not built: {exc}")
            continue
        engines.append(engine_json(path, engine))
        say(f"   {engine_text(path, engine)}")
    return engines


def _detect(graph: Path, photographs: Path, output: Path) -> None:
    """The photographs with their boxes."""
    from yolov3_trt.camera.draw import draw_detections
    from yolov3_trt.cli.detect import save_picture
    from yolov3_trt.detector import open_detector
    from yolov3_trt.images import find_sources, load_image

    with open_detector(graph) as detector:
        for path in find_sources([str(photographs)]):
            picture = load_image(path)
            found = detector(picture)
            save_picture(draw_detections(picture, found), output / path.name)
            say(f"   {output / path.name}: {', '.join(f'{row.class_name} {row.score:.2f}' for row in found)}")


def _measure(artifacts: dict[str, Path], data: Path) -> list[dict[str, Any]]:
    """Accuracy and latency of each; the first is the reference."""
    from contextlib import ExitStack

    from yolov3_trt.benchmark.latency import measure
    from yolov3_trt.detector import open_detector
    from yolov3_trt.evaluate import EVAL_CONF_THRESHOLD, evaluate, load_annotations
    from yolov3_trt.images import find_sources, load_image

    pictures = [load_image(path) for path in find_sources([str(data / "images")])]
    with ExitStack() as stack:
        detectors = {name: stack.enter_context(open_detector(path)) for name, path in artifacts.items()}
        timings = measure(detectors, pictures, rounds=30, warmup=3)
    rows = []
    for name, path in artifacts.items():
        with open_detector(path, conf=EVAL_CONF_THRESHOLD) as detector:
            truth = load_annotations(data / "coco" / "instances_val64.json", detector.meta.class_names)
            accuracy = evaluate(detector, truth, data / "coco" / "val64" / "images")
        rows.append({"artifact": name, **accuracy, **timings[name].to_json(next(iter(timings.values())))})
    return rows


def _text(rows: list[dict[str, Any]]) -> str:
    cells = [
        (
            row["artifact"],
            *(f"{row[metric]:.4f}" for metric in ("AP", "AP50", "AP75")),
            *(f"{row['latency_ms'][percentile]:.2f}" for percentile in ("p50", "p99")),
            f"{row['speedup_vs_reference']:.2f}x",
        )
        for row in rows
    ]
    return table(("artifact", "AP", "AP50", "AP75", "p50 ms", "p99 ms", "speed-up"), cells)
