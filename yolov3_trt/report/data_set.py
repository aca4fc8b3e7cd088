"""What a check of a data set found -> a page with counts, faults and pictures."""

from collections.abc import Mapping, Sequence

from yolov3_trt.data.checking import CheckedSet
from yolov3_trt.report.parts import Bar, Chart, Picture, Report, Section, Table

_LINES = 200  # of faults and pairs on the page; all are in the JSON


def data_set_report(checked: CheckedSet, gallery: Sequence[tuple[str, Mapping[str, bytes]]] = ()) -> Report:
    """All that was found; what there is none of is left out."""
    splits = checked.splits
    pictures, objects = (sum(getattr(one, name) for one in splits.values()) for name in ("pictures", "objects"))
    subtitle = f"{checked.path}: {pictures} pictures, {objects} objects, {len(checked.class_names)} classes"
    alarms = []
    if checked.faults:
        alarms.append(f"{len(checked.faults)} faulty labels or pictures")
    if checked.leaks:
        alarms.append(f"{len(checked.leaks)} pictures are in two parts: what is measured on them says little")
    sections: list[Section | None] = [_counts(checked), _classes(checked), _sizes(checked)]
    sections += [_lines("Faults", checked.faults), _lines("Notes", checked.notes)]
    for title, pairs in (
        ("Pictures in two parts", checked.leaks),
        ("Pictures that repeat another", checked.duplicates),
    ):
        sections.append(_lines(title, [f"{a} = {b}" for a, b in pairs]))
    if gallery:
        shown = tuple(Picture(name, tuple(by_row.items())) for name, by_row in gallery)
        sections.append(Section("Pictures", pictures=shown))
    return Report("Data set", subtitle, tuple(alarms), tuple(section for section in sections if section))


def _counts(checked: CheckedSet) -> Section:
    header = (
        "part",
        "pictures",
        "objects",
        "without objects",
        "crowds",
        "tiny objects",
        "side of objects, px (5 %, 50 %, 95 %)",
    )
    rows = tuple(
        (
            name,
            *(str(value) for value in (one.pictures, one.objects, one.without_objects, one.crowds, one.tiny)),
            ", ".join(f"{side:g}" for side in one.sides_px),
        )
        for name, one in checked.splits.items()
    )
    return Section("What there is", table=Table(header, rows))


def _classes(checked: CheckedSet) -> Section:
    bars = tuple(
        Bar(
            name,
            ", ".join(f"{one.objects_by_class[number]} in {split}" for split, one in checked.splits.items()),
            tuple((split, float(one.objects_by_class[number])) for split, one in checked.splits.items()),
        )
        for number, name in enumerate(checked.class_names)
    )
    missing = [name for name, bar in zip(checked.class_names, bars, strict=True) if not bar.end]
    text = (f"No object of: {', '.join(missing)}.",) if missing else ()
    return Section("Objects by class", text=text, chart=Chart("objects", bars))


def _sizes(checked: CheckedSet) -> Section:
    rows = tuple(
        (f"{width}x{height}", split, str(count))
        for split, one in checked.splits.items()
        for (width, height), count in one.sizes_wh[:20]
    )
    return Section("Sizes of pictures", table=Table(("width x height, px", "part", "pictures"), rows))


def _lines(title: str, lines: Sequence[str]) -> Section | None:
    if not lines:
        return None
    more = [f"... {len(lines)} in all"] if len(lines) > _LINES else []
    return Section(title, table=Table(("what",), tuple((line,) for line in [*lines[:_LINES], *more]), prose=True))
