"""Names of classes, in class order."""

import logging
from dataclasses import dataclass
from pathlib import Path

from yolov3_trt.errors import CfgError
from yolov3_trt.files import check_is_file

_LOG = logging.getLogger(__name__)

# As Darknet's data/coco.names and data/voc.names spell them, so that results compare word for word.
COCO_NAMES = tuple(
    "person|bicycle|car|motorbike|aeroplane|bus|train|truck|boat|traffic light|fire hydrant|stop sign|parking meter|bench|"
    "bird|cat|dog|horse|sheep|cow|elephant|bear|zebra|giraffe|backpack|umbrella|handbag|tie|suitcase|frisbee|skis|snowboard|"
    "sports ball|kite|baseball bat|baseball glove|skateboard|surfboard|tennis racket|bottle|wine glass|cup|fork|knife|spoon|"
    "bowl|banana|apple|sandwich|orange|broccoli|carrot|hot dog|pizza|donut|cake|chair|sofa|pottedplant|bed|diningtable|"
    "toilet|tvmonitor|laptop|mouse|remote|keyboard|cell phone|microwave|oven|toaster|sink|refrigerator|book|clock|vase|"
    "scissors|teddy bear|hair drier|toothbrush".split("|")
)
VOC_NAMES = tuple(
    "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person pottedplant sheep sofa "
    "train tvmonitor".split()
)
# What yolov3_trt.shapes draws and the bundled model of that name finds.
SHAPE_NAMES = ("circle", "square", "triangle", "star", "cross", "ring")
BUILT_IN_NAMES = {"coco": COCO_NAMES, "voc": VOC_NAMES}


@dataclass(frozen=True)
class ClassNames:
    """Names in class order, and who says so: `coco`, `voc`, `shapes`, the name of a file, or `none` for class0, class1, ..."""

    names: tuple[str, ...]
    source: str


def load_class_names(source: str, num_classes: int) -> tuple[str, ...]:
    """Read a `.names` file (one name a line), or take the built-in list `coco` or `voc`.

    Raises:
        CfgError: it cannot be read, or does not hold `num_classes` names.
    """
    names = BUILT_IN_NAMES.get(source) or _read(Path(source))
    if len(names) != num_classes:
        raise CfgError(f"{source}: {len(names)} class names; expected {num_classes}, one a line")
    return names


def numbered(num_classes: int) -> ClassNames:
    """`class0`, `class1`, ..., where nobody knows better."""
    return ClassNames(tuple(f"class{i}" for i in range(num_classes)), "none")


def names_beside(cfg: Path, num_classes: int) -> ClassNames:
    """Names for a cfg whose weights do not tell: of a file in its folder, which is said, else numbers, which is said too.

    That file is the `.names` with the cfg's stem, which must fit; else `obj.names`, else the only `*.names` there is.
    """
    own = cfg.with_suffix(".names")
    if own.is_file():
        return ClassNames(load_class_names(str(own), num_classes), own.name)
    there = sorted(path for path in cfg.parent.glob("*.names") if path.is_file())
    likely = [path for path in there if path.name == "obj.names"] or there
    why = (
        "there is no .names file beside it" if not there else f"beside it lie {', '.join(path.name for path in there)}"
    )
    if len(likely) == 1:
        names = _read(likely[0])
        if len(names) == num_classes:
            _LOG.warning("%s: its classes are called as in %s, which lies beside it", cfg, likely[0].name)
            return ClassNames(names, likely[0].name)
        why = f"{likely[0].name} beside it has {len(names)} names, not {num_classes}"
    _LOG.warning("%s: its classes are called %s: %s; give a file, coco or voc as names", cfg, _range(num_classes), why)
    return numbered(num_classes)


def _range(num_classes: int) -> str:
    return "class0" if num_classes == 1 else f"class0 to class{num_classes - 1}"


def _read(path: Path) -> tuple[str, ...]:
    try:
        check_is_file(path)
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as exc:
        raise CfgError(
            f"{path}: these class names are not UTF-8 text; save the file as UTF-8, one name a line"
        ) from exc
    except OSError as exc:
        raise CfgError(f"{path}: these class names cannot be read ({exc}); expected a file, one name a line") from exc
    return tuple(line.strip() for line in text.splitlines() if line.strip())
