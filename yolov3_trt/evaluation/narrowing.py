"""Evaluation of a part of what a detector finds: the truth, narrowed by the same selection."""

from dataclasses import replace
from typing import Any

from yolov3_trt.data.annotations import Annotations
from yolov3_trt.selection import Selection


def narrowed(truth: Annotations, selection: Selection) -> Annotations:
    """The truth to hold selected detections to, with notes that say what its AP means.

    Classes that are not wanted are not scored. Objects that are too small or stand elsewhere become areas that count neither
    for nor against, as crowds do: whoever detects one of them at the border of a zone has made no error.

    Raises:
        SettingError: there is no such class.
    """
    if selection == Selection():
        return truth
    least = selection.confidence_of(truth.class_names)
    kept = [number if class_id in least or not least else None for class_id, number in enumerate(truth.category_ids)]
    content = {
        **truth.content,
        "annotations": [row for row in truth.content["annotations"] if row["category_id"] in kept],
        "categories": [row for row in truth.content["categories"] if row["id"] in kept],
    }
    notes = []
    if least:
        names = ", ".join(truth.class_names[index] for index in sorted(least))
        notes.append(f"only {names} count; AP is the mean over them")
    if any(least.values()):
        notes.append("detections below the confidences of `classes` are left out, so AP is lower than a detector's own")
    if selection.min_size is not None or selection.places.zones:
        rows = _with_areas_that_do_not_count(replace(truth, content=content), selection)
        before, after = (sum(not row["iscrowd"] for row in one) for one in (content["annotations"], rows))
        content["annotations"] = rows
        notes.append(
            f"{after} of {before} objects count; the others are too small or elsewhere, and no error either way"
        )
    return replace(truth, content=content, category_ids=tuple(kept), notes=(*truth.notes, *notes))


def _with_areas_that_do_not_count(truth: Annotations, selection: Selection) -> list[dict[str, Any]]:
    of_any_class = replace(selection, classes=None)
    kept = {
        row["id"]: iter(of_any_class.keeps(truth.truth(row["id"]), (row["height"], row["width"])))
        for row in truth.images
    }
    return [
        dict(row) if row["iscrowd"] else row | {"iscrowd": int(not next(kept[row["image_id"]]))}
        for row in truth.content["annotations"]
    ]
