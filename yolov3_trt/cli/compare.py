"""`compare`: parity of two artifacts."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from yolov3_trt.cli.data_options import (
    AnnotationsOption,
    DataOption,
    SkipFaultyOption,
    SplitOption,
    sets_from_options,
)
from yolov3_trt.cli.eval import difference_text
from yolov3_trt.cli.groups import ModelOptions, RunOptions, takes
from yolov3_trt.cli.options import JsonOption
from yolov3_trt.cli.output import reporter, table, write_result
from yolov3_trt.settings import DetectSettings

if TYPE_CHECKING:
    from yolov3_trt.comparison import Comparison
    from yolov3_trt.comparison.explain import Explanation
    from yolov3_trt.jobs.compare import Compared

_INPUT_ERROR = 1e-3


@takes(ModelOptions, RunOptions, DetectSettings, without={"iou", "max_detections", "precision", "wait"})
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
    annotations: AnnotationsOption = None,
    layers: Annotated[
        bool | None,
        typer.Option("--layers/--no-layers", help="Find the first layer that departs; default: where results do."),
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Find what the two differ in, and what each of that costs alone.")
    ] = False,
    json: JsonOption = None,
    **settings: Any,
) -> None:
    """Run two artifacts on the same images and show how far they are apart, from which layer on, and why.

    --weights, --names and --input-size are for whichever of the two is a model.
    """
    from yolov3_trt.jobs.compare import compare as job

    pictures, labelled = sets_from_options(images, data, split, annotations, skip_faulty=skip_faulty)
    if pictures is None:
        raise typer.BadParameter("expected pictures (or --data SET)", param_hint="--images")
    result = job(
        a,
        b,
        images=pictures,
        data=labelled,
        layers=layers,
        explain=explain,
        reporter=reporter(),
        **settings,
    )
    text = [_text(result.outputs), *_agreement_text(result), *_layers_text(result)]
    if result.accuracy is not None:
        text += [difference_text(*result.accuracy.differences)]
        text += [f"note: {note}" for note in result.accuracy.notes]
    if result.explanation is not None:
        text += _explanation_text(result.explanation)
    write_result(json, result.to_json(), "\n".join(text))


def _explanation_text(found: "Explanation") -> list[str]:
    """A row for A, one for A with each thing of B's, and one for B."""
    labelled = found.ap[0] is not None

    def row(what: str, a: str, b: str, figures: tuple[float | None, float, float | None]) -> tuple[str, ...]:
        ap, agreement, cost = ("" if figure is None else f"{figure:.4f}" for figure in figures)
        return (what, a, b, *([ap] if labelled else []), agreement, cost)

    rows = [row("A", "", "", (found.ap[0], 1.0, None))]
    rows += [row(f"A with B's {d.what}", d.a, d.b, (d.ap, d.agreement, d.cost)) for d in found.differences]
    rows += [row("B", "", "", (found.ap[1], found.agreement, None))]
    header = ("", "in A", "in B", *(["AP"] if labelled else []), "agrees with A", "costs")
    lines = [table(header, rows), *(f"note: {note}" for note in found.notes)]
    return lines if found.differences else [*lines, "nothing was found in which the two differ"]


def _agreement_text(result: "Compared") -> list[str]:
    if result.agreement is None:
        return []
    low_high = result.agreement_interval
    within = "" if low_high is None else " [{:.4f}, {:.4f}]".format(*low_high)
    return [f"agreement: AP of B is {result.agreement:.4f}{within} where what A finds from 0.25 on is the truth"]


def _layers_text(result: "Compared") -> list[str]:
    from yolov3_trt.comparison.layers import TOLERANCE

    found = result.layers
    if found is None:
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
            f"({found.precision.value}: at most {TOLERANCE[found.precision]:g})",
        ]
    first = found.departed
    where = result.cfg_line
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
