"""`compare`: parity of two artifacts."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from yolov3_trt.cli.data_options import DataOption, SkipFaultyOption, SplitOption, pictures_from_options
from yolov3_trt.cli.eval import difference_text, evaluate_artifact, for_evaluation
from yolov3_trt.cli.options import (
    BackendOption,
    ConfOption,
    InputSizeOption,
    JsonOption,
    ModelOptions,
    NamesOption,
    NmsOption,
    ResizeOption,
    TrustOption,
    WeightsOption,
    open_for_verb,
    readable,
)
from yolov3_trt.cli.output import table, track, write_result
from yolov3_trt.settings import DetectSettings

if TYPE_CHECKING:
    from yolov3_trt.comparison import Comparison
    from yolov3_trt.comparison.layers import LayerComparison, LayerProbe
    from yolov3_trt.data.pictures import PictureSet
    from yolov3_trt.detector import Detector
    from yolov3_trt.meta import Precision

_DRAWS = (500, 0)  # of the images for the interval of the AP difference, and their seed
_FEW_MATCHES = (
    0.9  # where there are no heads to compare, a smaller share of matched detections asks for a look into layers
)
_INPUT_ERROR = 1e-3


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="A model, an .onnx or an .engine: what is right.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another one of the same network.")],
    images: Annotated[
        list[str] | None,
        typer.Option(metavar="SOURCE", help="Images, folders, lists, videos or `shapes`; may be repeated."),
    ] = None,
    data: DataOption = None,
    split: SplitOption = None,
    skip_faulty: SkipFaultyOption = False,
    weights: WeightsOption = None,
    names: NamesOption = None,
    input_size: InputSizeOption = None,
    backend: BackendOption = "auto",
    conf: ConfOption = None,
    nms: NmsOption = "cfg",
    resize: ResizeOption = None,
    trust: TrustOption = False,
    annotations: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="COCO instances of the images, one folder: shows the AP difference.",
            callback=readable("--annotations"),
        ),
    ] = None,
    layers: Annotated[
        bool | None,
        typer.Option("--layers/--no-layers", help="Find the first layer that departs; default: where results do."),
    ] = None,
    json: JsonOption = None,
) -> None:
    """Run two artifacts on the same images and show how far they are apart, and from which layer on.

    --weights, --names and --input-size are for whichever of the two is a model.
    """
    from yolov3_trt.comparison import compare as measure
    from yolov3_trt.evaluation.accuracy import METRICS_RESAMPLED, Evaluation

    pictures, labelled = pictures_from_options(images, data, split, annotations, skip_faulty=skip_faulty)
    if pictures is None:
        raise typer.BadParameter("expected pictures (or --data SET)", param_hint="--images")

    model, detect = ModelOptions(weights, names, input_size), DetectSettings(conf, nms=nms, resize=resize)
    with (
        open_for_verb(a, model.for_models_only(a), detect, backend=backend, trust=trust) as detector_a,
        open_for_verb(b, model.for_models_only(b), detect, backend=backend, trust=trust) as detector_b,
    ):
        result = measure(detector_a, detector_b, track(pictures, "comparing", pictures.known_count))
        precision = _coarser(detector_a, detector_b)
        if layers is None:
            layers = _has_departed(result, precision)
        found = _layers((a, b), (detector_a, detector_b), pictures, model) if layers else None
    content: dict[str, Any] = {"a": a, "b": b, **result.to_json(), "layers": _layers_json(found, a, b)}
    text = [_text(result), *_layers_text(found, content["layers"])]
    if labelled is not None:
        rows = []
        for artifact in (a, b):
            options = model.for_models_only(artifact), for_evaluation(DetectSettings(nms=nms, resize=resize))
            with open_for_verb(artifact, *options, backend=backend, trust=trust) as detector:
                rows.append(evaluate_artifact(artifact, detector, labelled, _DRAWS))
        both = Evaluation(tuple(rows), *_DRAWS)
        (difference,) = both.differences
        measured = {
            name: {metric: row.accuracy.metrics[metric] for metric in METRICS_RESAMPLED}
            for name, row in zip("ab", rows, strict=True)
        }
        content["accuracy"] = {**measured, **difference.to_json()}
        text += [difference_text(difference), *(f"note: {note}" for note in rows[0].notes)]
    write_result(json, content, "\n".join(text))


def _coarser(a: "Detector", b: "Detector") -> "Precision":
    from yolov3_trt.meta import Precision

    order = list(Precision)  # from the finest on
    return max(a.meta.precision, b.meta.precision, key=order.index)


def _has_departed(result: "Comparison", precision: "Precision") -> bool:
    """Whether the heads are further apart than the precision explains, or detections are missing."""
    from yolov3_trt.comparison.layers import TOLERANCE

    heads = all(head.relative <= TOLERANCE[precision] for head in result.heads.values())
    return not heads or 2 * result.pairs.matched < _FEW_MATCHES * (
        result.pairs.detections_a + result.pairs.detections_b
    )


def _layers(
    artifacts: tuple[str, str], detectors: "tuple[Detector, Detector]", pictures: "PictureSet", model: ModelOptions
) -> "LayerComparison | str":
    """The layers of both on the first picture; or why they cannot be looked into."""
    from yolov3_trt.backends.host_path import fit_batch
    from yolov3_trt.comparison.layers import compare_layers

    for artifact, detector in zip(artifacts, detectors, strict=True):
        if detector.backend.name.value not in ("torch", "onnxruntime"):
            return f"the layers of {artifact} cannot be looked into; compare the .onnx that it was made from"
    a, b = (_probe(artifact, detector, model) for artifact, detector in zip(artifacts, detectors, strict=True))
    picture = next(iter(pictures)).pixels
    inputs = (fit_batch([picture], detectors[0].meta)[0], fit_batch([picture], detectors[1].meta)[0])
    return compare_layers(a, b, inputs, _coarser(*detectors), lambda groups: track(groups, "looking into layers"))


def _probe(artifact: str, detector: "Detector", model: ModelOptions) -> "LayerProbe":
    from yolov3_trt.comparison.layers import GraphProbe, ModelProbe

    if detector.backend.name.value == "torch":
        return ModelProbe(model.load(artifact))
    return GraphProbe(Path(artifact))


def _layers_json(found: "LayerComparison | str | None", a: str, b: str) -> dict[str, Any] | None:
    """None where nobody looked; a reason where nobody could."""
    if found is None:
        return None
    if isinstance(found, str):
        return {"reason": found}
    content = found.to_json()
    if found.departed is not None:
        content["departed"]["cfg"] = _cfg_line(found.departed.layer, a, b)
    return content


def _cfg_line(layer: int, *artifacts: str) -> str | None:
    """`FILE.cfg:LINE [section]` of a layer, where one of the artifacts is a cfg."""
    for artifact in artifacts:
        if Path(artifact).suffix != ".cfg":
            continue
        lines = Path(artifact).read_text(errors="replace").splitlines()
        sections = [(n, line.strip()) for n, line in enumerate(lines, start=1) if re.match(r"\s*\[", line)]
        line, kind = sections[layer + 1]  # after [net]
        return f"{artifact}:{line} {kind}"
    return None


def _layers_text(found: "LayerComparison | str | None", content: dict[str, Any] | None) -> list[str]:
    if found is None or content is None:
        return []
    if isinstance(found, str):
        return [found]
    lines = []
    if found.input_error is not None and not found.input_error <= _INPUT_ERROR:
        lines.append(
            f"the inputs already differ (relative error {found.input_error:.2g}): the two prepare pictures differently"
        )
    if found.departed is None:
        worst = max(found.errors, key=lambda error: error.error)
        return [
            *lines,
            f"no layer departs: of {len(found.errors)} the largest relative error is {worst.error:.2g}, at layer {worst.layer} "
            f"({found.precision.value}: at most {content['tolerance']:g})",
        ]
    first = found.departed
    where = content["departed"]["cfg"]
    before = "it reads the picture" if first.before is None else f"{first.before:.2g} in what it reads"
    lines.append(
        f"layer {first.layer} is the first to depart: {first.name}{f' ({where})' if where else ''}, relative error "
        f"{first.error:.2g}; {before}"
    )
    return lines


def _text(result: "Comparison") -> str:
    pairs = result.pairs
    rows = [
        (name, f"{h.max_abs:.3g}", f"{h.mean_abs:.3g}", f"{h.relative:.2g}", f"{h.snr_db:.1f}", f"{h.cosine:.8f}")
        for name, h in result.heads.items()
    ]
    lines = [table(("head", "max |a-b|", "mean |a-b|", "relative", "SNR dB", "cosine"), rows)] if rows else []
    lines.append(
        f"{pairs.images} images: {pairs.detections_a} detections in A, {pairs.detections_b} in B, {pairs.matched} matched"
    )
    if pairs.min_iou is not None:
        lines.append(
            f"matched ones differ by at most {pairs.max_score_difference:.3g} in score, IoU at least {pairs.min_iou:.4f}"
        )
    return "\n".join(lines)
