"""`demo`: the whole chain on the bundled model and generated pictures: no network, no data, no GPU needed."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from yolov3_trt.cli.options import writes
from yolov3_trt.cli.output import reporter, say, table, track, write_result

if TYPE_CHECKING:
    from yolov3_trt.certificate import Certificate
    from yolov3_trt.data.coco import TruePicture
    from yolov3_trt.models import Model
    from yolov3_trt.preprocess import Image

MODEL = "shapes"
PRECISIONS = ("fp32", "fp16", "int8")
CALIBRATION_PICTURES = 64
CALIBRATION_SEED = 8_000_000
SEED = 7_000_000  # of pictures and clip; the bundled model was trained on another
CLIP_FPS = 30.0
MAX_AP_DROP = 0.005


def demo(
    output: Annotated[Path, writes("DIR", "Where the results go.", "-o", "--output", is_folder=True)] = Path(
        "runs/demo"
    ),
    pictures: Annotated[int, typer.Option(min=1, help="Generated pictures to measure accuracy on.")] = 200,
    frames: Annotated[int, typer.Option(min=1, help="Frames of the generated clip.")] = 150,
) -> None:
    """Run the whole chain on the bundled model and generated pictures, offline, in about a minute."""
    from yolov3_trt.benchmarking.latency import machine
    from yolov3_trt.files import make_folder
    from yolov3_trt.models import load_model

    make_folder(output)
    say(f"1. {MODEL}: .weights -> PyTorch reference")
    model = load_model(MODEL)
    say(f"   {model.spec.num_parameters:,} parameters, {len(model.spec.heads)} heads, input {model.spec.input_hw}")
    say(f"2. PyTorch -> ONNX, FP32, FP16 and INT8 (calibrated on {CALIBRATION_PICTURES} generated pictures)")
    graphs = _export(model, output)
    say("3. ONNX -> TensorRT engine")
    engines = _build(graphs)
    say(f"4. A clip of {frames} generated frames through the capture loop")
    clip = _video(graphs["fp32"], frames, output)
    _draw_one(graphs["fp32"], output / "picture.jpg")
    artifacts = {"pytorch fp32": Path(MODEL), **{f"onnx {name}": path for name, path in graphs.items()}}
    artifacts |= {f"engine {engine['precision']}": Path(engine["engine"]) for engine in engines if engine["runs_here"]}
    say(f"5. Accuracy on {pictures} generated pictures that the model has never seen")
    accuracy, proof = _evaluate(artifacts, pictures)
    say(f"   INT8 against FP32: {proof}")
    say("6. Latency, all on the same frames in turn")
    rows = _time(artifacts, accuracy)
    summary = {
        "machine": machine(),
        "model": MODEL,
        "engines": engines,
        "clip": clip,
        "certificate": proof.to_json(),
        "rows": rows,
    }
    write_result(str(output / "summary.json"), summary, _text(rows))
    print(f"Results: {output.resolve()} (summary.json, graphs, engines, picture.jpg and clip.mp4 with boxes)")
    print(f"Open {output.resolve() / 'picture.jpg'} to see what was found.")


def _export(model: "Model", output: Path) -> dict[str, Path]:
    """ONNX files by precision."""
    from yolov3_trt.arguments import size_text
    from yolov3_trt.cli.export import report_text
    from yolov3_trt.jobs.export import export

    graphs: dict[str, Path] = {}
    for name in PRECISIONS:
        table = _calibrate(graphs["fp32"], output) if name == "int8" else None
        path = output / f"{MODEL}-{size_text(model.spec.input_hw)}-{name}.onnx"
        report = export(model, path, precision=name, table=table)
        graphs[name] = report.path
        say(f"   {report_text(report)}")
    return graphs


def _calibrate(graph: Path, output: Path) -> Path:
    """The table of the FP32 graph; reused when the demo runs again."""
    from yolov3_trt.jobs.calibrate import calibrate

    table = output / "calibration.json"
    count, seed = CALIBRATION_PICTURES, CALIBRATION_SEED
    return calibrate(graph, images="shapes", num_images=count, seed=seed, table=table, reporter=reporter()).path


def _build(graphs: dict[str, Path]) -> list[dict[str, Any]]:
    """An engine per graph; where there is no TensorRT, or nothing to run it on, the demo goes on without."""
    from yolov3_trt.backends import open_backend
    from yolov3_trt.cli.build import engine_text
    from yolov3_trt.errors import BuildError, EngineError, MissingDependency
    from yolov3_trt.jobs.build import build

    engines = []
    for precision, graph in graphs.items():
        path = graph.with_suffix(".engine")
        try:
            built = build(graph, path)
        except (BuildError, MissingDependency) as exc:
            say(f"   not built: {exc}")
            continue
        say(f"   {engine_text(path, built.meta)}{' (reused)' if built.reused else ''}")
        try:
            open_backend(path).close()
            reason = None
        except (EngineError, MissingDependency) as exc:
            reason = str(exc)
            say(f"   not run: {exc}")
        verdict = {"precision": precision, "runs_here": reason is None, "reason": reason}
        engines.append(built.to_json() | verdict)
    return engines


def _video(graph: Path, frames: int, output: Path) -> dict[str, Any]:
    """The clip with boxes, and how the loop kept up."""
    from yolov3_trt.camera.loop import run_loop
    from yolov3_trt.camera.sinks import VideoSink
    from yolov3_trt.camera.sources import ShapesSource
    from yolov3_trt.detector import open_detector

    with (
        open_detector(graph) as detector,
        ShapesSource(seed=SEED, num_frames=frames, fps=CLIP_FPS) as source,
        VideoSink(output / "clip.mp4", CLIP_FPS) as video,
    ):
        summary = run_loop(detector, [source], [video]).summary()
    latency, age = summary["latency_ms"], summary["frame_age_ms"]
    say(
        f"   {output / 'clip.mp4'}: {summary['processed']} frames, {summary['dropped']} dropped, {summary['fps']:.0f} fps; "
        f"latency p50 {latency['p50']:.1f} ms, p95 {latency['p95']:.1f} ms; frame age p95 {age['p95']:.1f} ms"
    )
    return summary


def _labelled(count: int) -> "Iterator[tuple[Image, TruePicture]]":
    from yolov3_trt.data.coco import TruePicture
    from yolov3_trt.shapes import shapes_picture

    for index in track(range(count), "   pictures", count):
        picture = shapes_picture(SEED, index)
        height, width = picture.pixels.shape[:2]
        yield picture.pixels, TruePicture(f"{index:06}", (height, width), picture.xyxy, picture.class_ids)


def _evaluate(artifacts: dict[str, Path], count: int) -> "tuple[dict[str, dict[str, Any]], Certificate]":
    """AP of each, and what is proven of INT8's; the pictures are drawn once."""
    from yolov3_trt.detector import open_detector
    from yolov3_trt.evaluation import EVAL_CONF_THRESHOLD, score_labelled
    from yolov3_trt.evaluation.proof import certificate

    labelled = list(_labelled(count))
    scores = {}
    for name, path in artifacts.items():
        with open_detector(path, conf=EVAL_CONF_THRESHOLD) as detector:
            scores[name] = score_labelled(detector, labelled, detector.meta.class_names)[1]
    proof = certificate(scores["onnx fp32"], scores["onnx int8"], MAX_AP_DROP, count)
    return {name: {"images": count, **found.metrics} for name, found in scores.items()}, proof


def _time(artifacts: dict[str, Path], accuracy: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """A row per artifact; the first is the reference."""
    from contextlib import ExitStack

    from yolov3_trt.benchmarking.latency import measure
    from yolov3_trt.detector import open_detector
    from yolov3_trt.shapes import iter_shapes_clip

    frames = [picture.pixels for picture in iter_shapes_clip(SEED, 20)]
    with ExitStack() as stack:
        detectors = {name: stack.enter_context(open_detector(path)) for name, path in artifacts.items()}
        timings = measure(detectors, frames, rounds=100, warmup=5)
    reference = timings[next(iter(artifacts))]
    return [{"artifact": name, **accuracy[name], **timings[name].figures(reference).to_json()} for name in artifacts]


def _draw_one(graph: Path, path: Path) -> None:
    """A picture with its boxes."""
    from yolov3_trt.camera.draw import draw_detections
    from yolov3_trt.data.images import save_image
    from yolov3_trt.detector import open_detector
    from yolov3_trt.shapes import iter_shapes_clip

    (picture,) = iter_shapes_clip(SEED + 1, 1)
    with open_detector(graph) as detector:
        found = detector(picture.pixels)
    save_image(draw_detections(picture.pixels, found), path)
    say(f"   {path}: {', '.join(f'{row.class_name} {row.score:.2f}' for row in found)}")


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
