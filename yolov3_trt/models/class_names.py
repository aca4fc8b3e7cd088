"""Names of classes, in class order."""

from pathlib import Path

from yolov3_trt.errors import CfgError
from yolov3_trt.files import check_is_file

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


def load_class_names(source: str, num_classes: int) -> tuple[str, ...]:
    """Read a `.names` file (one name a line), or take the built-in list `coco` or `voc`.

    Raises:
        CfgError: it cannot be read, or does not hold `num_classes` names.
    """
    names = BUILT_IN_NAMES.get(source) or _read(Path(source))
    if len(names) != num_classes:
        raise CfgError(f"{source}: {len(names)} class names; expected {num_classes}, one a line")
    return names


def default_class_names(num_classes: int) -> tuple[str, ...]:
    """COCO's for 80 classes, VOC's for 20, else `class0`, `class1`, ..."""
    for names in BUILT_IN_NAMES.values():
        if len(names) == num_classes:
            return names
    return tuple(f"class{i}" for i in range(num_classes))


def _read(path: Path) -> tuple[str, ...]:
    try:
        check_is_file(path)
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as exc:
        raise CfgError(
            f"{path}: these class names cannot be read ({exc}); expected a text file, one name a line"
        ) from exc
    return tuple(line.strip() for line in text.splitlines() if line.strip())
