"""`demo`: the whole chain, step by step, on a real model and real photographs."""

from pathlib import Path
from typing import Annotated, Any

import typer

from yolov3_trt.cli.output import say, table

MODEL = "yolo-fastest-1.1"


def demo(
    data: Annotated[Path, typer.Option(metavar="DIR", help="Reference data: models/, images/, coco/.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Where the results go.")] = Path(
        "runs/demo"
    ),
) -> None:
    """Run the chain from .weights to boxes, engine, accuracy and latency on a small model pretrained on COCO."""
    import json

    from yolov3_trt.benchmark.latency import machine, measure
    from yolov3_trt.camera.draw import draw_detections
    from yolov3_trt.cli.build import engine_json, engine_text
    from yolov3_trt.cli.detect import save_picture
    from yolov3_trt.detector import open_detector
    from yolov3_trt.engine.build import build_engine
    from yolov3_trt.errors import BuildError, MissingDependency
    from yolov3_trt.evaluate import EVAL_CONF_THRESHOLD, METRICS, evaluate, load_annotations
    from yolov3_trt.files import write_text
    from yolov3_trt.images import find_sources, load_image
    from yolov3_trt.meta import Precision
    from yolov3_trt.models import load_model
    from yolov3_trt.pipeline import ExportOptions, artifact_stem, export_model

    cfg = data / "models" / f"{MODEL}.cfg"
    if not cfg.is_file():
        say(
            f"yolov3_trt: {cfg}: there is no such file. This demo needs the project's reference data: {MODEL}.cfg and .weights "
            "in models/, photographs in images/, COCO images and annotations in coco/. Name their folder with YOLOV3_TRT_DATA "
            "or --data."
        )
        raise typer.Exit(1)
    summary: dict[str, Any] = {"machine": machine(), "model": MODEL}

    say(f"1. {MODEL}: .cfg and .weights -> PyTorch reference")
    model = load_model(cfg, names="coco")
    say(f"   {model.spec.num_parameters:,} parameters, {len(model.spec.layers)} layers, input {model.spec.input_hw}")

    say("2. PyTorch -> ONNX, FP32 and FP16, compared with the reference")
    artifacts = {"pytorch fp32": str(cfg)}
    for precision in (Precision.FP32, Precision.FP16):
        options = ExportOptions(precision)
        report = export_model(model, output / f"{artifact_stem(model, options)}.onnx", options)
        artifacts[f"onnx {precision.value}"] = str(report.path)
        say(
            f"   {report.path}  {report.num_bytes / 1e6:.2f} MB, largest difference {max(report.max_difference.values()):.2g}"
        )

    say("3. ONNX -> TensorRT engine")
    engines = []
    for precision in (Precision.FP32, Precision.FP16):
        onnx_path = Path(artifacts[f"onnx {precision.value}"])
        try:
            engine = build_engine(onnx_path, onnx_path.with_suffix(".engine"))
        except (BuildError, MissingDependency) as exc:
            say(f"   not built: {exc}")
            continue
        path = onnx_path.with_suffix(".engine")
        engines.append(engine_json(path, engine))
        say(f"   {engine_text(path, engine)}")
    summary["engines"] = engines

    say("4. Objects in photographs")
    photographs = find_sources([str(data / "images")])
    pictures = [load_image(path) for path in photographs]
    with open_detector(artifacts["onnx fp32"]) as detector:
        for path, picture in zip(photographs, pictures, strict=True):
            found = detector(picture)
            save_picture(draw_detections(picture, found), output / path.name)
            say(f"   {output / path.name}: {', '.join(f'{row.class_name} {row.score:.2f}' for row in found)}")

    say("5. Accuracy on COCO val64 and latency, against PyTorch")
    rows, detectors = (
        [],
        {
            name: open_detector(artifact, names="coco" if "pytorch" in name else None)
            for name, artifact in artifacts.items()
        },
    )
    timings = measure(detectors, pictures, rounds=30, warmup=3)
    for name, artifact in artifacts.items():
        detectors[name].close()
        with open_detector(artifact, conf=EVAL_CONF_THRESHOLD, names="coco" if "pytorch" in name else None) as detector:
            truth = load_annotations(data / "coco" / "instances_val64.json", detector.meta.class_names)
            accuracy = evaluate(detector, truth, data / "coco" / "val64" / "images")
        rows.append({"artifact": name, **accuracy, **timings[name].to_json(timings["pytorch fp32"])})
    summary["rows"] = rows
    write_text(output / "summary.json", json.dumps(summary, indent=1) + "\n")
    header = ("artifact", *METRICS[:3], "p50 ms", "p99 ms", "speed-up")
    print(
        table(
            header,
            [
                (
                    row["artifact"],
                    *(f"{row[metric]:.4f}" for metric in METRICS[:3]),
                    f"{row['latency_ms']['p50']:.2f}",
                    f"{row['latency_ms']['p99']:.2f}",
                    f"{row['speedup_vs_reference']:.2f}x",
                )
                for row in rows
            ],
        )
    )
    print(f"Results: {output.resolve()} (summary.json, the graphs, the engines, {len(pictures)} pictures with boxes)")
