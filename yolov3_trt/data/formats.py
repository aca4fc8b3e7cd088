"""The formats of data sets, and which of them a path is in."""

from enum import Enum
from pathlib import Path

from yolov3_trt.data.beside import describe_beside, has_labels_beside
from yolov3_trt.data.coco_json import describe_coco, split_files
from yolov3_trt.data.darknet_data import describe_darknet
from yolov3_trt.data.data_yaml import describe_yaml
from yolov3_trt.data.description import Description, Wanted, note_on_both
from yolov3_trt.data.findings import Findings
from yolov3_trt.data.images import has_pictures
from yolov3_trt.data.voc import describe_voc, voc_root
from yolov3_trt.errors import SettingError

EXPECTED_SET = (
    "a data.yaml, a Darknet .data file, a COCO JSON, a folder with one of these, a VOC folder, or a folder or list of pictures "
    "with labels beside them"
)
YAML_SUFFIXES = frozenset({".yaml", ".yml"})
_LIST_SUFFIXES = frozenset({".txt", ".list"})
_COCO_SUFFIX, _DARKNET_SUFFIX = ".json", ".data"


class SetFormat(str, Enum):
    """How a data set is described."""

    YOLO = "yolo"  # a data.yaml
    DARKNET = "darknet"  # obj.data
    COCO = "coco"  # instances JSON
    VOC = "voc"  # XMLs
    BESIDE = "beside"  # label files, and nothing that describes them


def format_of(path: Path) -> tuple[SetFormat, Path] | None:
    """The format of a set and the file or folder that describes it; None where there is no labelled set.

    A file is told by its suffix, a folder by what lies in it: a data.yaml, a Darknet .data file, VOC's XMLs, COCO JSONs,
    labels beside pictures, whichever comes first. Beside pictures the usual names come before all others.
    """
    suffix = path.suffix.lower()
    if not path.is_dir():
        if suffix in YAML_SUFFIXES:
            return SetFormat.YOLO, path
        if suffix in (_COCO_SUFFIX, _DARKNET_SUFFIX):
            return SetFormat.COCO if suffix == _COCO_SUFFIX else SetFormat.DARKNET, path
        return (SetFormat.BESIDE, path) if suffix in _LIST_SUFFIXES and path.is_file() else None
    return (described_in(path, usual_only=True) if has_pictures(path) else None) or described_in(path)


def described_in(folder: Path, *, usual_only: bool = False) -> tuple[SetFormat, Path] | None:
    """`format_of` for a folder.

    Args:
        folder: there is one.
        usual_only: count only what has the usual name: data.yaml, obj.data, Annotations, a COCO JSON called after its split.
    """
    for format_, patterns in ((SetFormat.YOLO, ("*.yaml", "*.yml")), (SetFormat.DARKNET, ("*.data", "data/*.data"))):
        usual = folder / ("data.yaml" if format_ is SetFormat.YOLO else "obj.data")
        others = () if usual_only else patterns
        found = [usual] if usual.is_file() else [path for pattern in others for path in sorted(folder.glob(pattern))]
        if len(found) == 1:
            return format_, found[0]
    root = voc_root(folder)
    if root is not None and (not usual_only or (root / "Annotations").is_dir()):
        return SetFormat.VOC, folder
    if split_files(folder):
        return SetFormat.COCO, folder
    if usual_only:
        return None
    jsons = sorted(folder.glob("*.json"))
    if len(jsons) == 1:
        return SetFormat.COCO, jsons[0]
    return (SetFormat.BESIDE, folder) if has_labels_beside(folder) else None


def describe(path: Path, wanted: Wanted, findings: Findings, images: Path | None = None) -> Description:
    """Read what describes a set, which of COCO's and VOC's are the labels too; pictures are not looked at.

    Args:
        path: absolute; see `format_of`.
        wanted: of its splits.
        findings: get faults and notes.
        images: folder of the images of a COCO JSON.

    Raises:
        DataSetError: nothing can be read from there.
        SettingError: there is no such set, a split of a set that has none, or a folder of images with another format.
    """
    found = format_of(path)
    if found is None and images is not None and path.is_file():
        found = SetFormat.COCO, path
    if found is None:
        what = "a folder without a labelled set" if path.is_dir() else "no labelled set"
        raise SettingError("data", f"got {path}, {what}; expected {EXPECTED_SET}")
    format_, path = found
    if images is not None and format_ is not SetFormat.COCO:
        raise SettingError("images", f"given with {path}, which names its own; leave it out")
    if format_ is SetFormat.COCO:
        description = describe_coco(path, wanted, findings, images)
    else:
        reader = {
            SetFormat.YOLO: describe_yaml,
            SetFormat.DARKNET: describe_darknet,
            SetFormat.VOC: describe_voc,
            SetFormat.BESIDE: describe_beside,
        }[format_]
        description = reader(path, wanted, findings)
    note_on_both(path, description.pictures, findings.notes)
    if wanted.is_asked and not description.has_splits:
        raise SettingError(
            "split", f"got {wanted.splits[0]!r} with {path}, which is one set; leave it out, or give one with parts"
        )
    return description
