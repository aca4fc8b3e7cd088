"""Which class of a data set is which class of a model."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from yolov3_trt.data.labels import first_few, shown
from yolov3_trt.errors import EvaluationError

# COCO's words where Darknet's names, and VOC's, have others.
_SAME = {"motorbike": "motorcycle", "aeroplane": "airplane", "sofa": "couch", "tvmonitor": "tv"}


@dataclass(frozen=True)
class ClassMatch:
    """How the classes of a set and of a model go together.

    Attributes:
        set_ids: by class id of the model, the class id of the set; None where the set has no such class.
        notes: what is to be known of it, one line each.
    """

    set_ids: tuple[int | None, ...]
    notes: tuple[str, ...] = ()


def folded(name: str) -> str:
    """A name without what differs from tool to tool: case, spaces, `_`, `-`, and COCO's words for Darknet's."""
    plain = "".join(unicodedata.normalize("NFKC", name).casefold().split()).replace("_", "").replace("-", "")
    return _SAME.get(plain, plain)


def match_classes(
    path: Path, set_names: Sequence[str], objects: Sequence[int], class_names: Sequence[str], *, named: bool = True
) -> ClassMatch:
    """Match by name; by order only where no name says otherwise.

    Args:
        path: of the set, for texts.
        set_names: by class id of the set.
        objects: of each of them, how many there are.
        class_names: the model's.
        named: whether the set's names are its own; else they were made up, as nothing names its classes.

    Raises:
        EvaluationError: the classes do not go together, or one of as many is called otherwise.
    """
    found = _by_name(set_names, class_names)
    others = [number for number in range(len(set_names)) if number not in found]
    without = [name for name, number in zip(class_names, found, strict=True) if number is None]
    if not without:
        return ClassMatch(tuple(found), tuple(_left_out(path, set_names, objects, others)))
    in_place = all(number in (None, class_id) for class_id, number in enumerate(found))
    if in_place and len(set_names) == len(class_names):
        pairs = [f"{mine}={theirs}" for mine, theirs in zip(class_names, set_names, strict=True) if mine != theirs]
        how = "by order" if len(without) == len(class_names) else "by name, and these by order"
        note = f"{path}: classes are matched {how} (the model's = the set's): {', '.join(pairs)}"
        return ClassMatch(tuple(range(len(class_names))), (note,))
    if not named and len(set_names) <= len(class_names):
        note = f"{path}: nothing names its classes; they are taken for the model's, by order"
        return ClassMatch(tuple(n if n < len(set_names) else None for n in range(len(class_names))), (note,))
    if all(number is None for number in found):
        raise EvaluationError(
            f"{path}: none of its {len(set_names)} classes ({_quoted(set_names)}) is one of the model's {len(class_names)} "
            f"({_quoted(class_names)}); expected the same names, or as many in the model's order"
        )
    if len(set_names) == len(class_names) and any(objects[number] for number in others):
        unmatched = [set_names[number] for number in others]
        raise EvaluationError(
            f"{path}: it has as many classes as the model, {len(class_names)}, in another order, and {_quoted(unmatched)} is "
            f"none of the model's, which has {_quoted(without)}; expected the same name: rename it on one side"
        )
    notes = list(_left_out(path, set_names, objects, others))
    classes = "1 class of the model is" if len(without) == 1 else f"{len(without)} classes of the model are"
    notes.append(f"{path}: {classes} not in this set ({first_few(without)}); what is found of them is left out")
    return ClassMatch(tuple(found), tuple(notes))


def _by_name(set_names: Sequence[str], class_names: Sequence[str]) -> list[int | None]:
    """By class id of the model: the class of the set of the same name, else the only one of the same folded name."""
    exact = {name: number for number, name in enumerate(set_names)}
    by_fold: dict[str, list[int]] = {}
    for number, name in enumerate(set_names):
        if name not in class_names:
            by_fold.setdefault(folded(name), []).append(number)
    found = []
    for name in class_names:
        alike = by_fold.get(folded(name), ())
        found.append(exact[name] if name in exact else alike[0] if len(alike) == 1 else None)
    taken = [number for number in found if number is not None]
    return [None if number is not None and taken.count(number) > 1 and set_names[number] != name else number
            for number, name in zip(found, class_names, strict=True)]  # fmt: skip


def _left_out(path: Path, set_names: Sequence[str], objects: Sequence[int], others: Sequence[int]) -> list[str]:
    """A note on classes of the set that the model lacks, where there are objects of them."""
    with_objects = [number for number in others if objects[number]]
    if not with_objects:
        return []
    names = first_few([set_names[number] for number in with_objects])
    count = sum(objects[number] for number in with_objects)
    classes = "1 class" if len(with_objects) == 1 else f"{len(with_objects)} classes"
    objects_text = "1 object" if count == 1 else f"{count} objects"
    return [f"{path}: {classes} of this set ({names}; {objects_text}) the model does not have; left out"]


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(map(shown, names[:3])) + (", ..." if len(names) > 3 else "")
