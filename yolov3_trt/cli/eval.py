"""`eval`: COCO average precision."""

from pathlib import Path
from typing import Annotated

import typer

from yolov3_trt.cli.options import (
    ArtifactArgument,
    BackendOption,
    DetectOptions,
    InputSizeOption,
    IouOption,
    JsonOption,
    ModelOptions,
    NamesOption,
    NmsOption,
    ResizeOption,
    ThreadsOption,
    TrustOption,
    WeightsOption,
    open_for_verb,
)
from yolov3_trt.cli.output import table, track, write_result


def evaluate(
    artifact: ArtifactArgument,
    images: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the images.")],
    annotations: Annotated[Path, typer.Option(metavar="FILE", help="COCO instances (JSON).")],
    weights: WeightsOption = None,
    names: NamesOption = None,
    input_size: InputSizeOption = None,
    backend: BackendOption = "auto",
    conf: Annotated[
        float | None, typer.Option(min=0, max=1, help="Confidence threshold; default: 0.005, as Darknet evaluates.")
    ] = None,
    iou: IouOption = None,
    nms: NmsOption = "cfg",
    resize: ResizeOption = None,
    threads: ThreadsOption = None,
    trust: TrustOption = False,
    json: JsonOption = None,
) -> None:
    """Measure COCO average precision of an artifact."""
    from yolov3_trt.evaluate import EVAL_CONF_THRESHOLD, METRICS, load_annotations
    from yolov3_trt.evaluate import evaluate as measure

    with open_for_verb(
        artifact,
        ModelOptions(weights, names, input_size),
        DetectOptions(EVAL_CONF_THRESHOLD if conf is None else conf, iou, None, nms, resize),
        backend=backend,
        threads=threads,
        trust=trust,
    ) as detector:
        truth = load_annotations(annotations, detector.meta.class_names)
        total = len(truth.images)
        metrics = measure(detector, truth, images, lambda items: track(items, "evaluating", total))
        content = {
            "artifact": artifact,
            "backend": detector.backend.name.value,
            "precision": detector.meta.precision.value,
            "resize": detector.meta.preprocess.resize.value,
            "nms": detector.postprocess.nms.kind.value,
            "conf_threshold": detector.postprocess.conf_threshold,
            **metrics,
        }
    row = [artifact, *("-" if metrics[name] is None else f"{metrics[name]:.4f}" for name in METRICS)]
    write_result(json, content, f"{metrics['images']} images\n" + table(("artifact", *METRICS), [row]))
