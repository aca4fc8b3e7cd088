"""Made-up pictures as a data set on disk."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path

from yolov3_trt.data.coco import TruePicture, coco_instances
from yolov3_trt.errors import OutputError, require
from yolov3_trt.files import make_folder, write_text
from yolov3_trt.geometry import xyxy_to_xywh
from yolov3_trt.models.class_names import SHAPE_NAMES
from yolov3_trt.shapes.scenes import LabelledPicture, shapes_picture


def write_shapes_data_set(
    folder: Path,
    *,
    num_train: int,
    num_val: int,
    seed: int,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> Path:
    """Write a data set in YOLO's text format, and the validation part as COCO instances too.

    Training pictures are those of `seed`, validation ones those of `seed + 1`. Numbered pictures and labels of an earlier
    set in the folder are removed; `data.yaml` is written last, so it is there only beside a whole set.

    Args:
        folder: gets `images/` and `labels/`, each with `train/` and `val/`, `val.json` and `data.yaml`.
        num_train: training pictures.
        num_val: validation pictures.
        seed: 0 or more.
        progress: wraps the iteration over all pictures, training ones first.

    Returns:
        The path of `data.yaml`.

    Raises:
        OutputError: something cannot be written.
    """
    description, val = folder / "data.yaml", list[TruePicture]()
    parts = [make_folder(folder / kind / name) for kind in ("images", "labels") for name in ("train", "val")]
    try:
        description.unlink(missing_ok=True)
        for earlier in (path for part in parts for path in part.glob("[0-9]" * 6 + ".*")):
            earlier.unlink()
        for n in progress(range(num_train + num_val)):
            name, index = ("train", n) if n < num_train else ("val", n - num_train)
            picture = shapes_picture(seed + (name == "val"), index)
            _write_picture(folder, f"{name}/{index:06}", picture)
            if name == "val":
                height, width = picture.pixels.shape[:2]
                val.append(TruePicture(f"{index:06}.jpg", (height, width), picture.xyxy, picture.class_ids))
    except OSError as exc:
        raise OutputError(f"{folder}: cannot write here ({exc.strerror or exc}); give a writable folder") from exc
    write_text(folder / "val.json", json.dumps(coco_instances(val, SHAPE_NAMES)))
    names = "".join(f"  {class_id}: {name}\n" for class_id, name in enumerate(SHAPE_NAMES))
    write_text(description, f"train: images/train\nval: images/val\nnames:\n{names}")
    return description


def _write_picture(folder: Path, name: str, picture: LabelledPicture) -> None:
    cv2 = require("cv2", extra="opencv")
    _, encoded = cv2.imencode(".jpg", picture.pixels, [cv2.IMWRITE_JPEG_QUALITY, 95])
    (folder / "images" / f"{name}.jpg").write_bytes(encoded.tobytes())
    height, width = picture.pixels.shape[:2]
    xywh = xyxy_to_xywh(picture.xyxy.astype(float))
    lines = (
        f"{class_id} {(x + w / 2) / width:.6f} {(y + h / 2) / height:.6f} {w / width:.6f} {h / height:.6f}\n"
        for class_id, (x, y, w, h) in zip(picture.class_ids, xywh, strict=True)
    )
    (folder / "labels" / f"{name}.txt").write_text("".join(lines))
