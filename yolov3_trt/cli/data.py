"""`data`: data sets checked, converted, made up, and the anchors that fit them."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from yolov3_trt.cli.data_options import checking, faults_told, tell_notes, there
from yolov3_trt.cli.examples import epilog_of
from yolov3_trt.cli.needs import CheckedVerb
from yolov3_trt.cli.options import JsonOption, writes
from yolov3_trt.cli.output import say, table, track, write_result
from yolov3_trt.cli.shapes import shapes
from yolov3_trt.sizes import Resize

FormatChoice = Literal["yolo", "darknet", "voc", "coco"]
SetArgument = Annotated[
    Path,
    typer.Argument(
        metavar="SET",
        callback=there,
        help="A YOLO data.yaml, a Darknet .data file, a COCO JSON, a VOC folder, or a folder with one.",
    ),
]

app = typer.Typer(help="Check, convert and make data sets, and find the anchors that fit them.", no_args_is_help=True)


@app.command(cls=CheckedVerb, epilog=epilog_of("data check"))
def check(
    data: SetArgument,
    report: Annotated[
        Path | None,
        writes("FILE", "Write a page: .html, .md or .json.", "--report"),
    ] = None,
    json: JsonOption = None,
) -> None:
    """Say all about a data set: what it holds, every fault, pictures that are in two parts.

    Ends with 1 where a label or picture is faulty, or a picture is in two parts.
    """
    from yolov3_trt.data.checking import check_set
    from yolov3_trt.data.findings import shortened
    from yolov3_trt.report import check_report_path, write_data_report

    if report is not None:
        check_report_path(report)
    with faults_told():
        checked = check_set(data, checking)
    for fault in shortened(checked.faults):
        say(fault)
    tell_notes(checked.notes)
    for first, second in checked.leaks[:10]:
        say(f"in two parts: {first} = {second}")
    header = ("part", "pictures", "objects", "without objects", "tiny", "sizes")
    rows = [
        (name, *(str(value) for value in (one.pictures, one.objects, one.without_objects, one.tiny, len(one.sizes_wh))))
        for name, one in checked.splits.items()
    ]
    classes = [
        (name, *(str(one.objects_by_class[number]) for one in checked.splits.values()))
        for number, name in enumerate(checked.class_names)
    ]
    wrong = (
        f"{len(checked.faults)} faults, {len(checked.leaks)} pictures in two parts, {len(checked.duplicates)} repeated"
    )
    text = "\n".join(
        [table(header, rows), table(("class", *(f"in {name}" for name in checked.splits)), classes), wrong]
    )
    if report is not None:
        write_data_report(report, checked)
        say(f"wrote {report}")
    write_result(json, checked.to_json(), text)
    if not checked.is_good:
        raise typer.Exit(1)


@app.command(cls=CheckedVerb, epilog=epilog_of("data convert"))
def convert(
    data: SetArgument,
    output: Annotated[Path, writes("DIR", "A new folder for the set.", "-o", "--output", is_folder=True)],
    to: Annotated[FormatChoice, typer.Option(help="Format to write.")],
    link: Annotated[bool, typer.Option("--link", help="Link to the pictures instead of copying them.")] = False,
    skip_faulty: Annotated[bool, typer.Option("--skip-faulty", help="Leave out faulty labels and pictures.")] = False,
    json: JsonOption = None,
) -> None:
    """Write a data set in another format: the same boxes, to the last digit where the format can hold them."""
    from yolov3_trt.data.conversion import convert_set
    from yolov3_trt.data.reading import load_splits

    with faults_told():
        sets, findings = load_splits(data, checking)
        findings.skip_faulty = skip_faulty
        findings.refuse(data)
    tell_notes(findings.notes)
    for line in findings.skipped:
        say(f"left out: {line}")
    total = sum(map(len, sets.values()))
    written = convert_set(sets, to, output, link=link, progress=lambda files: track(files, "writing", total))
    tell_notes(written.notes)
    counts = ", ".join(f"{count} in {split}" for split, count in written.pictures.items())
    content = {"path": str(written.path), "pictures": dict(written.pictures), "notes": list(written.notes)}
    write_result(json, content, f"{written.path}: {counts}")


@app.command(cls=CheckedVerb, epilog=epilog_of("data anchors"))
def anchors(
    data: SetArgument,
    model: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Compare with its anchors, and take its number and input size.")
    ] = None,
    count: Annotated[int | None, typer.Option(min=1, max=1000, help="How many; default: the model's, or 9.")] = None,
    input_size: Annotated[
        str | None, typer.Option(metavar="N|WIDTHxHEIGHT", help="Default: the model's, or 416.")
    ] = None,
    resize: Annotated[Resize, typer.Option(help="How pictures are fitted; calc_anchors stretches.")] = Resize.LETTERBOX,
    seed: Annotated[int, typer.Option(min=0, help="Of k-means.")] = 0,
    json: JsonOption = None,
) -> None:
    """Find the anchors that fit a data set, by k-means as Darknet's calc_anchors, and whether they would help."""
    from yolov3_trt.arguments import size
    from yolov3_trt.data.anchors import fit_anchors
    from yolov3_trt.data.reading import load_set

    own: tuple[tuple[float, float], ...] = ()
    input_hw = (416, 416)
    if model is not None:
        from yolov3_trt.models import load_spec

        spec = load_spec(model)
        input_hw = spec.input_hw
        own = tuple(dict.fromkeys(wh for head in spec.heads for wh in head.anchors_wh))
    input_hw = input_hw if input_size is None else size("input_size", input_size)
    with faults_told():
        found = load_set(data, default_split="train", progress=checking)
    tell_notes(found.notes)
    result = fit_anchors(found.files, count or len(own) or 9, input_hw, resize, own, seed)
    values = ", ".join(f"{w:g},{h:g}" for w, h in result.anchors_wh)
    lines = [f"anchors = {values}", f"mean IoU with the best anchor: {result.mean_iou:.4f}, of {result.boxes} boxes"]
    if result.own_mean_iou is not None:
        says = (
            "they would help" if result.would_help else "the model's fit about as well: keep them, with their weights"
        )
        lines.append(f"{model}: {result.own_mean_iou:.4f}; {says}")
    write_result(json, result.to_json(), "\n".join(lines))


_SHAPES: Callable[..., Any] = shapes
app.command(name="shapes", cls=CheckedVerb, epilog=epilog_of("data shapes"))(_SHAPES)
