"""The pictures that came out worst in an evaluation, drawn: what is there beside what each artifact finds."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from yolov3_trt.evaluation.accuracy import Evaluated
    from yolov3_trt.evaluation.worst import PictureScore
    from yolov3_trt.preprocess import Image

TRUTH = "truth"


def draw_worst(
    rows: "Sequence[Evaluated]", count: int, folder: Path | None
) -> tuple[list[dict[str, Any]], list[tuple[str, dict[str, bytes]]]]:
    """Draw the worst pictures of all artifacts together, at the confidence that `detect` uses.

    Returns:
        An entry each for `--json`, with the file that was written where there is a `folder`: truth at the left, then what
        each artifact finds. And the gallery of a report.
    """
    from yolov3_trt.data.images import load_image, save_image
    from yolov3_trt.files import make_folder
    from yolov3_trt.report.gallery import small_jpeg

    if folder is not None:
        make_folder(folder)
    entries, gallery = [], []
    for rank, score in enumerate(_worst(rows)[:count], start=1):
        drawn = _drawn(rows, score.image_id, load_image(rows[0].truth.paths[score.image_id]))
        path = None if folder is None else folder / f"{rank:02}-{Path(score.file_name).stem}.jpg"
        if path is not None:
            save_image(_side_by_side(list(drawn.values())), path)
        entries.append({**score.to_json(), "picture": None if path is None else str(path)})
        gallery.append((score.file_name, {label: small_jpeg(picture) for label, picture in drawn.items()}))
    return entries, gallery


def _worst(rows: "Sequence[Evaluated]") -> "list[PictureScore]":
    """Pictures, the worst first, with what all artifacts together found, missed and made up."""
    from yolov3_trt.evaluation.worst import PictureScore, score_pictures, worst_first

    sums: dict[Any, Counter[str]] = {}
    for row in rows:
        for score in score_pictures(row.truth, row.accuracy.found, row.own_conf):
            sums.setdefault(score.image_id, Counter()).update(found=score.found, missed=score.missed, false=score.false)
    names = {image["id"]: str(image["file_name"]) for image in rows[0].truth.images}
    return worst_first(PictureScore(image_id, names[image_id], **counts) for image_id, counts in sums.items())


def _drawn(rows: "Sequence[Evaluated]", image_id: Any, pixels: "Image") -> "dict[str, Image]":
    """Label -> the picture with boxes: the objects first, then each artifact's detections."""
    from yolov3_trt.camera.draw import draw_detections
    from yolov3_trt.evaluation.worst import confident

    found = {row.artifact: confident(row.accuracy.found[image_id], row.own_conf) for row in rows}
    return {
        label: draw_detections(pixels, boxes)
        for label, boxes in {TRUTH: rows[0].truth.truth(image_id), **found}.items()
    }


def _side_by_side(pictures: "list[Image]") -> "Image":
    import numpy as np

    gap = np.full((pictures[0].shape[0], 8, 3), 255, np.uint8)
    return np.hstack([piece for picture in pictures for piece in (picture, gap)][:-1])
