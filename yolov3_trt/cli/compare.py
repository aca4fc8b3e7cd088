"""`compare`: parity of two artifacts."""

from typing import Annotated

import typer

from yolov3_trt.cli.options import (
    BackendOption,
    ConfOption,
    DetectOptions,
    InputSizeOption,
    JsonOption,
    ModelOptions,
    NamesOption,
    NmsOption,
    ResizeOption,
    TrustOption,
    WeightsOption,
    open_for_verb,
)
from yolov3_trt.cli.output import table, track, write_result


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="A model, an .onnx or an .engine.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another one of the same network.")],
    images: Annotated[list[str], typer.Option(metavar="SOURCE", help="Images, folders or globs; may be repeated.")],
    weights: WeightsOption = None,
    names: NamesOption = None,
    input_size: InputSizeOption = None,
    backend: BackendOption = "auto",
    conf: ConfOption = None,
    nms: NmsOption = "cfg",
    resize: ResizeOption = None,
    trust: TrustOption = False,
    json: JsonOption = None,
) -> None:
    """Run two artifacts on the same images and show how far they are apart.

    --weights, --names and --input-size are for whichever of the two is a model.
    """
    from yolov3_trt.compare import compare as measure
    from yolov3_trt.images import find_sources, iter_images

    paths = find_sources(images)

    model, detect = ModelOptions(weights, names, input_size), DetectOptions(conf, nms=nms, resize=resize)
    with (
        open_for_verb(a, model.for_models_only(a), detect, backend=backend, trust=trust) as detector_a,
        open_for_verb(b, model.for_models_only(b), detect, backend=backend, trust=trust) as detector_b,
    ):
        result = measure(detector_a, detector_b, track(iter_images(paths), "comparing", len(paths)))
    rows = [(name, f"{h.max_abs:.3g}", f"{h.mean_abs:.3g}", f"{h.cosine:.8f}") for name, h in result.heads.items()]
    lines = [table(("head", "max |a-b|", "mean |a-b|", "cosine"), rows)] if rows else []
    lines.append(
        f"{result.images} images: {result.detections_a} detections in A, {result.detections_b} in B, {result.matched} matched"
    )
    if result.min_iou is not None:
        lines.append(
            f"matched ones differ by at most {result.max_score_difference:.3g} in score, IoU at least {result.min_iou:.4f}"
        )
    write_result(json, {"a": a, "b": b, **result.to_json()}, "\n".join(lines))
