"""Sets of pictures with labels: what is really in each picture, for training and for evaluation, whatever its format."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolov3_trt.data.annotations import Annotations
from yolov3_trt.data.classes import match_classes
from yolov3_trt.data.pictures import FilePictures
from yolov3_trt.geometry import HW, FloatArray


def _none() -> NDArray[np.bool_]:
    return np.zeros(0, bool)


@dataclass(frozen=True, eq=False)
class LabelledFile:
    """A picture and the objects in it."""

    path: Path  # of the picture
    image_hw: HW  # image px, upright
    xywh: NDArray[np.float64]  # (N, 4) image px
    class_ids: NDArray[np.int32]  # (N,)
    crowds: NDArray[np.bool_] = field(default_factory=_none)  # (N,), or (0,) for none: count neither for nor against
    areas: NDArray[np.float64] | None = None  # (N,) px, where they are others than the boxes'
    name: str = ""  # as its set calls it
    own_id: Any = None  # of the picture in a COCO JSON

    @cached_property
    def counts(self) -> NDArray[np.bool_]:
        """(N,) Which objects are to be found and learnt: all but crowds."""
        return ~self.crowds if len(self.crowds) else np.ones(len(self.class_ids), bool)

    @cached_property
    def cxcywh(self) -> FloatArray:
        """(N, 4) Relative to the picture, 0..1."""
        height, width = self.image_hw
        xywh = self.xywh / np.array((width, height, width, height), np.float64)
        return np.concatenate([xywh[:, :2] + xywh[:, 2:] / 2, xywh[:, 2:]], axis=1).astype(np.float32)

    def without_crowds(self) -> "LabelledFile":
        """The same, as training takes it."""
        if self.counts.all():
            return self
        return LabelledFile(
            self.path, self.image_hw, self.xywh[self.counts], self.class_ids[self.counts], name=self.name
        )


class LabelledSet(FilePictures):
    """Pictures with labels: a `PictureSet` that also knows what is in each.

    Attributes:
        path: of the file or folder that describes it.
        files: sorted by path.
        class_names: in the order of its own class ids.
        notes: what is odd about it but allowed, one line each.
        skipped: the faulty labels and pictures that were left out, one line each.
        has_splits: whether its description has other parts too.
        named: whether something names its classes; else the names are made up.
    """

    def __init__(
        self,
        path: Path,
        files: Sequence[LabelledFile],
        class_names: Sequence[str],
        *,
        notes: Sequence[str] = (),
        skipped: Sequence[str] = (),
        has_splits: bool = False,
        named: bool = True,
    ) -> None:
        super().__init__(str(path), [file.path for file in files])
        self.path, self.files, self.class_names = path, tuple(files), tuple(class_names)
        self.notes, self.skipped, self.has_splits, self.named = tuple(notes), tuple(skipped), has_splits, named

    def part(self, keep: Sequence[bool]) -> "LabelledSet":
        """The pictures of which this holds, with all that is known of the set."""
        files = [file for file, kept in zip(self.files, keep, strict=True) if kept]
        return LabelledSet(self.path, files, self.class_names, has_splits=self.has_splits, named=self.named)

    @cached_property
    def objects(self) -> tuple[int, ...]:
        """How many there are, by class id."""
        counts = np.zeros(len(self.class_names), np.int64)
        for file in self.files:
            counts += np.bincount(file.class_ids[file.counts], minlength=len(counts))
        return tuple(counts.tolist())

    def truth_for(self, class_names: Sequence[str]) -> Annotations:
        """The labels with the class ids of a model that has these classes.

        Raises:
            EvaluationError: the classes of the two do not go together.
        """
        match = match_classes(self.path, self.class_names, self.objects, class_names, named=self.named)
        model_ids = {own: class_id for class_id, own in enumerate(match.set_ids) if own is not None}
        content = instances(self.files, class_names, model_ids)
        category_ids = tuple(None if own is None else class_id + 1 for class_id, own in enumerate(match.set_ids))
        paths = {image_id: file.path for image_id, file in enumerate(self.files, start=1)}
        return Annotations(self.path, content, category_ids, tuple(class_names), paths, match.notes)


@dataclass(frozen=True, eq=False)
class DataSet:
    """A data set to train on, read and checked."""

    path: Path  # of what describes it
    training: LabelledSet
    validation: LabelledSet  # without pictures where there are none for it
    notes: tuple[str, ...]  # what is odd but allowed, one line each

    @property
    def class_names(self) -> tuple[str, ...]:
        """In class order."""
        return self.training.class_names

    @cached_property
    def train(self) -> tuple[LabelledFile, ...]:
        """The pictures to learn from, sorted by path; without crowds."""
        return tuple(file.without_crowds() for file in self.training.files)

    @property
    def val(self) -> tuple[LabelledFile, ...]:
        """The pictures to validate on, sorted by path."""
        return self.validation.files

    @property
    def skipped(self) -> tuple[str, ...]:
        """The faulty labels and pictures that were left out, one line each."""
        return tuple(dict.fromkeys(self.training.skipped + self.validation.skipped))

    @cached_property
    def fingerprint(self) -> str:
        """Hex SHA-256 over class names, names of files and labels: another one is another data set.

        File names count from the set's folder, so a data set may move; those outside of it count in full.
        """
        digest = hashlib.sha256(json.dumps(self.class_names).encode())
        for split, files in (("train", self.train), ("val", self.val)):
            for file in files:
                digest.update(json.dumps([split, file.name, len(file.class_ids)]).encode())
                digest.update(file.class_ids.astype("<i4").tobytes() + file.cxcywh.astype("<f4").tobytes())
        return digest.hexdigest()


def instances(
    files: Sequence[LabelledFile], class_names: Sequence[str], new_ids: Mapping[int, int] | None = None
) -> dict[str, Any]:
    """COCO instances of these pictures.

    Args:
        files: the pictures; image and annotation ids count from 1.
        class_names: a class's category is its id plus 1.
        new_ids: class id of the files -> in `class_names`; objects and categories of others are left out; None: the same.
    """
    if new_ids is None:
        new_ids = {class_id: class_id for class_id in range(len(class_names))}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, file in enumerate(files, start=1):
        height, width = file.image_hw
        own = {} if file.own_id is None else {"own_id": file.own_id}
        images.append(
            {"id": image_id, "file_name": file.name or file.path.name, "width": width, "height": height} | own
        )
        areas = file.xywh[:, 2] * file.xywh[:, 3] if file.areas is None else file.areas
        rows = zip(file.class_ids.tolist(), file.xywh.tolist(), areas.tolist(), file.counts.tolist(), strict=True)
        for class_id, xywh, area, counts in rows:
            if class_id in new_ids:
                found = {"id": len(annotations) + 1, "image_id": image_id, "category_id": new_ids[class_id] + 1}
                annotations.append(found | {"bbox": xywh, "area": area, "iscrowd": int(not counts)})
    ids = sorted(new_ids.values())
    categories = [{"id": class_id + 1, "name": class_names[class_id]} for class_id in ids]
    return {"images": images, "annotations": annotations, "categories": categories}
