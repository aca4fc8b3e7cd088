"""A COCO JSON and the folder of its images as a labelled set."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from yolov3_trt.data.annotations import Annotations, annotations_for, read_instances
from yolov3_trt.data.labelled import LabelledSet
from yolov3_trt.errors import EvaluationError


class CocoSet(LabelledSet):
    """COCO instances."""

    def __init__(self, path: Path, images: Path | None = None) -> None:
        """Read it.

        Args:
            path: of the JSON.
            images: folder that its `file_name`s count from; None: looked for beside the JSON, see `images_folder`.

        Raises:
            EvaluationError: not such a file, or images are missing.
        """
        self._content = read_instances(path)
        folder = images_folder(path, self._content) if images is None else images
        self._paths_by_id = {image["id"]: folder / str(image["file_name"]) for image in self._content["images"]}
        if missing := [picture for picture in self._paths_by_id.values() if not picture.is_file()]:
            raise EvaluationError(
                f"{folder}: {len(missing)} of the {len(self._paths_by_id)} images of {path.name} are not there, e.g. "
                f"{missing[0].name}; give their folder with --images"
            )
        categories = sorted(self._content["categories"], key=lambda category: category["id"])
        names = [str(category["name"]) for category in categories]
        super().__init__(str(path), path, list(self._paths_by_id.values()), names)

    def truth_for(self, class_names: Sequence[str]) -> Annotations:
        """See `LabelledSet`."""
        return annotations_for(self.path, self._content, class_names, self._paths_by_id)


def images_folder(path: Path, content: Mapping[str, Any]) -> Path:
    """Where the images of a COCO JSON are: the first usual place that has the first of them, else the JSON's own folder.

    `instances_val2017.json` is looked for at `./`, `images/`, `val2017/`, `val2017/images/`, `images/val2017/`, and the same
    from the folder above, as COCO itself lies on disk.
    """
    part = path.stem.removeprefix("instances_")
    places = (".", "images", part, f"{part}/images", f"images/{part}")
    first = str(content["images"][0]["file_name"])
    for folder in (path.parent, path.parent / ".."):
        for place in places:
            if (folder / place / first).is_file():
                return folder / place
    return path.parent
