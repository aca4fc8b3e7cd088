"""`bench`: latency against the PyTorch reference on the same frames."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from yolov3_trt.cli.options import (
    InputSizeOption,
    JsonOption,
    ModelOptions,
    NamesOption,
    ThreadsOption,
    TrustOption,
    WeightsOption,
    open_for_verb,
)
from yolov3_trt.cli.output import table, track, write_result

if TYPE_CHECKING:
    from yolov3_trt.detector import Detector
    from yolov3_trt.preprocess import Image


def bench(
    artifacts: Annotated[list[str], typer.Argument(metavar="ARTIFACT...", help="Models, .onnx or .engine files.")],
    images: Annotated[
        list[str] | None, typer.Option(metavar="SOURCE", help="Frames; default: seeded noise, 1280x720.")
    ] = None,
    reference: Annotated[str | None, typer.Option(help="Which artifact is 1.0; default: the first on torch.")] = None,
    weights: WeightsOption = None,
    names: NamesOption = None,
    input_size: InputSizeOption = None,
    frames: Annotated[int, typer.Option(min=1, help="Timed frames per artifact.")] = 50,
    warmup: Annotated[int, typer.Option(min=0, help="Frames before that are not timed.")] = 5,
    threads: ThreadsOption = None,
    trust: TrustOption = False,
    json: JsonOption = None,
) -> None:
    """Time artifacts on the same frames, one frame at a time, taking turns.

    --weights, --names and --input-size are for the artifacts that are models.
    """
    from contextlib import ExitStack

    from yolov3_trt.benchmark.latency import machine, measure

    if reference is not None and reference not in artifacts:
        raise typer.BadParameter(f"{reference} is not among the artifacts", param_hint="--reference")
    pictures, source = _frames(images, max(frames, warmup))
    model = ModelOptions(weights, names, input_size)
    with ExitStack() as stack:
        detectors = {}
        for artifact in dict.fromkeys(artifacts):
            detectors[artifact] = stack.enter_context(
                open_for_verb(artifact, model.for_models_only(artifact), threads=threads, trust=trust)
            )
        timings = measure(
            detectors, pictures, rounds=frames, warmup=warmup, progress=lambda items: track(items, "timing", frames)
        )
        reference = reference or next((a for a, d in detectors.items() if d.backend.name.value == "torch"), None)
        base = None if reference is None else timings[reference]
        rows: list[dict[str, Any]] = [
            {
                "artifact": artifact,
                "backend": detector.backend.name.value,
                "precision": detector.meta.precision.value,
                "batch": 1,
                **timings[artifact].to_json(base),
                "parity": _parity(detectors, artifact, reference, pictures),
            }
            for artifact, detector in detectors.items()
        ]
    content = {
        "machine": machine(),
        "threads": threads,
        "source": source,
        "frames": frames,
        "reference": reference,
        "rows": rows,
    }
    write_result(json, content, _text(content))


def _parity(
    detectors: "dict[str, Detector]", artifact: str, reference: str | None, pictures: "list[Image]"
) -> dict[str, Any] | None:
    """Whether the reference finds the same in the same frames; None for itself and where there is no reference."""
    from yolov3_trt.compare import compare
    from yolov3_trt.images import NamedImage

    if reference in (None, artifact):
        return None
    frames = (NamedImage(f"frame {n}", picture) for n, picture in enumerate(pictures))
    detections: dict[str, Any] = compare(detectors[reference], detectors[artifact], frames).to_json()["detections"]
    return detections


def _frames(sources: list[str] | None, most: int) -> "tuple[list[Image], str]":
    """Pictures to run on, `most` at most, and what they are."""
    if sources:
        from itertools import islice

        from yolov3_trt.images import find_sources, iter_images

        return [image.pixels for image in islice(iter_images(find_sources(sources)), most)], " ".join(sources)
    import numpy as np

    return [np.random.default_rng(0).integers(0, 256, (720, 1280, 3), np.uint8)], "seeded noise 1280x720"


def _text(content: dict[str, Any]) -> str:
    header = (
        "artifact",
        "backend",
        "precision",
        "pre ms",
        "net ms",
        "post ms",
        "p50 ms",
        "p95 ms",
        "p99 ms",
        "fps",
        "speed-up",
    )
    rows = []
    for row in content["rows"]:
        speedup = row["speedup_vs_reference"]
        figures = [*row["stages_ms"].values(), *(row["latency_ms"][p] for p in ("p50", "p95", "p99"))]
        rows.append(
            (
                row["artifact"],
                row["backend"],
                row["precision"],
                *(f"{value:.2f}" for value in figures),
                f"{row['fps']:.1f}",
                "-" if speedup is None else f"{speedup:.2f}x",
            )
        )
    where = content["machine"]
    hardware = f"{where['cpu']}, {where['cores']} cores, GPU: {where['gpu'] or 'none'}"
    return f"{table(header, rows)}\n{hardware}; {content['frames']} frames of {content['source']}"
