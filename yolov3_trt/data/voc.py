"""Pascal VOC: an XML for each picture, in `Annotations` for those in `JPEGImages`, or beside them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from yolov3_trt.data.description import SPLITS, Description, Wanted, keys_of
from yolov3_trt.data.findings import Findings
from yolov3_trt.data.labels import Labels, finite, shown, text_lines
from yolov3_trt.data.places import names_beside, pictures_below, without_repeats
from yolov3_trt.geometry import HW

_CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass
class _Object:
    name: str
    corners: tuple[float, float, float, float]
    difficult: bool
    where: str


@dataclass
class _Page:
    """What one XML says."""

    path: Path | None
    image_hw: HW | None = None
    objects: list[_Object] = field(default_factory=list)
    is_fraction: bool = False  # a corner is written with a point, or is 0


def voc_root(folder: Path) -> Path | None:
    """The folder that holds the XMLs of a VOC set; None where there is none."""
    for root in (folder, *sorted(folder.glob("VOC*")), *sorted(folder.glob("VOCdevkit/VOC*"))):
        if (root / "Annotations").is_dir() and next((root / "Annotations").rglob("*.xml"), None) is not None:
            return root
    beside = (folder, *(folder / name for split in SPLITS for name in keys_of(split)))
    return folder if any(next(place.glob("*.xml"), None) for place in beside if place.is_dir()) else None


def describe_voc(path: Path, wanted: Wanted, findings: Findings) -> Description:
    """A folder with XMLs.

    Splits are the lists in `ImageSets/Main`, or folders called `train`, `valid`, ...; a set without them is one part. Corners
    are pixels counted from 1 as in VOC itself, or, where one is 0 or has a point, edges counted from 0.
    """
    root = voc_root(path) or path
    has_splits, pictures = _pictures(root, wanted, findings)
    pages = {picture: _page(picture, root, findings) for part in pictures.values() for picture in part}
    # Decided by all parts of the set, so that a part means the same whichever others are read with it.
    unasked = Findings()
    everything = _pictures(root, Wanted(SPLITS, may_lack=True), unasked)[1]
    others = {picture for part in everything.values() for picture in part} - pages.keys()
    of_set = [*pages.values(), *(_page(picture, root, unasked) for picture in others)]
    class_names, names_from = names_beside(root, findings.faults)
    if not class_names:
        class_names = tuple(sorted({one.name for page in of_set for one in page.objects}))
    class_ids = {name: class_id for class_id, name in enumerate(class_names)}
    from_edges = any(page.is_fraction for page in of_set)
    if any(page.objects for page in pages.values()):
        how = "edges counted from 0, as they have points or zeros" if from_edges else "pixels counted from 1"
        findings.notes.append(f"{path}: the corners of its boxes are taken for {how}")
    difficult = sum(one.difficult for page in pages.values() for one in page.objects)
    if difficult:
        findings.notes.append(f"{path}: difficult objects: {difficult}; they count neither for nor against")

    def labels(picture: Path, faults: list[str]) -> Labels:
        page = pages[picture]
        found = Labels(page.path, is_relative=False, stated_hw=page.image_hw)
        for one in page.objects:
            if one.name not in class_ids:
                faults.append(
                    f"{one.where}: {shown(one.name)}; expected one of the {len(class_ids)} names in {names_from}"
                )
                continue
            x1, y1, x2, y2 = one.corners
            if not from_edges:
                x1, y1 = x1 - 1, y1 - 1
            found.class_ids.append(class_ids[one.name])
            found.boxes.append((x1, y1, round(x2 - x1, 6), round(y2 - y1, 6)))
            found.where.append(one.where)
            found.crowds.append(one.difficult)
        return found

    return Description(
        path, root, class_names, pictures, labels, has_splits=has_splits, expected=str(root / "Annotations")
    )


def _pictures(root: Path, wanted: Wanted, findings: Findings) -> tuple[bool, dict[str, tuple[Path, ...]]]:
    splits: dict[str, tuple[Path, ...]] = {split: () for split in wanted.splits}
    lists = root / "ImageSets" / "Main"
    folders = {split: [root / name for name in keys_of(split) if (root / name).is_dir()] for split in SPLITS}
    by_list = any((lists / f"{name}.txt").is_file() for split in SPLITS for name in keys_of(split))
    if not by_list and not any(folders.values()):
        folder = next((root / name for name in ("JPEGImages", "images") if (root / name).is_dir()), root)
        splits[wanted.splits[0]] = tuple(sorted(pictures_below(folder, findings.faults)))
        if not splits[wanted.splits[0]]:
            findings.faults.append(f"{folder}: there are no pictures in this folder")
        return False, splits
    if not wanted.check(root, findings):
        return True, splits
    by_stem: dict[str, Path] = {}
    if by_list:
        by_stem = {picture.stem: picture for picture in pictures_below(root / "JPEGImages", findings.faults)}
    for split in wanted.splits:
        found = next((lists / f"{n}.txt" for n in keys_of(split) if (lists / f"{n}.txt").is_file()), None)
        if found is not None:
            splits[split] = without_repeats(_of_list(found, by_stem, findings), f"{found}:", findings.notes)
        elif folders[split]:
            splits[split] = tuple(sorted(pictures_below(folders[split][0], findings.faults)))
        if not splits[split] and wanted.must(split):
            findings.faults.append(f"{root}: no pictures for {split}; expected ImageSets/Main/{split}.txt or {split}/")
    return True, splits


def _of_list(path: Path, by_stem: Mapping[str, Path], findings: Findings) -> list[Path]:
    pictures = []
    for number, line in enumerate(text_lines(path, "expected names of pictures", findings.faults), start=1):
        words = line.split()
        if not words or words[1:] == ["-1"]:  # of a list for one class: not in it
            continue
        picture = by_stem.get(words[0]) or by_stem.get(Path(words[0]).stem)
        if picture is None:
            findings.lines.append(
                f"{path}:{number}: {shown(words[0])} is not in JPEGImages; expected a picture of that name"
            )
        else:
            pictures.append(picture)
    return pictures


def _page(picture: Path, root: Path, findings: Findings) -> _Page:
    places = [picture.with_suffix(".xml")]
    for folder in ("JPEGImages", "images"):
        if picture.is_relative_to(root / folder):
            places.insert(0, root / "Annotations" / picture.relative_to(root / folder).with_suffix(".xml"))
            places.insert(1, root / "Annotations" / f"{picture.stem}.xml")
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        return _Page(None)
    page = _Page(path)
    try:
        content = path.read_bytes()
        if b"<!DOCTYPE" in content or b"<!ENTITY" in content:  # VOC has none, and an entity may grow without end
            raise ValueError("it has a document type")
        document = ElementTree.fromstring(content)
    except OSError as exc:
        findings.lines.append(f"{path}: cannot be read ({exc.strerror}); expected VOC annotations (XML)")
        return page
    except (ElementTree.ParseError, ValueError, LookupError, RecursionError) as exc:
        findings.lines.append(f"{path}: not XML ({' '.join(str(exc).split())}); expected VOC annotations")
        return page
    if document.tag != "annotation":
        findings.lines.append(f"{path}: <{shown(document.tag)[1:-1]}>; expected <annotation>, as VOC has")
        return page
    page.image_hw = _stated_hw(document)
    for number, element in enumerate(document.findall("object"), start=1):
        _read_object(element, f"{path}: object {number}", page, findings.lines)
    return page


def _stated_hw(document: Any) -> HW | None:
    """None where it says none, or 0, as some tools do."""
    sides = [finite(document.findtext(f"size/{side}") or "") for side in ("height", "width")]
    height, width = sides
    if height is None or width is None or not (1 <= height < 1e9 and 1 <= width < 1e9):
        return None
    return round(height), round(width)


def _read_object(element: Any, where: str, page: _Page, faults: list[str]) -> None:
    name = (element.findtext("name") or "").strip()
    if not name or not name.isprintable():
        faults.append(f"{where}: its name is {shown(name)}; expected text")
        return
    corners = []
    for key in _CORNERS:
        text = (element.findtext(f"bndbox/{key}") or "").strip()
        value = finite(text)
        if value is None or abs(value) > 1e9:
            faults.append(f"{where}: {key} is {shown(text)}; expected a number of px")
            return
        page.is_fraction = page.is_fraction or "." in text or (value == 0 and key in _CORNERS[:2])
        corners.append(value)
    difficult = (element.findtext("difficult") or "0").strip()
    if difficult not in ("0", "1", "Unspecified", ""):
        faults.append(f"{where}: difficult is {shown(difficult)}; expected 0 or 1")
        return
    x1, y1, x2, y2 = corners
    page.objects.append(_Object(name, (x1, y1, x2, y2), difficult == "1", where))
