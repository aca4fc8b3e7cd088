"""Label files that chance has damaged: a result or one of our errors, never a traceback, never a number that is none."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from yolov3_trt.data.conversion import convert_set
from yolov3_trt.data.labelled import LabelledFile, LabelledSet
from yolov3_trt.data.reading import load_set
from yolov3_trt.errors import Yolov3TrtError

ODD: list[Any] = [
    None, True, False, 0, -1, 2, 10**400, 1e308, float("nan"), float("inf"), "", "1", "nan", "x", [], [1], {}, {"id": 1},
    "../a.png", "a\0b", 2**63, -(2**70), 0.5, "１", "\ud800",
]  # fmt: skip
WORDS = [
    b"nan",
    b"inf",
    b"-1",
    b"1e400",
    b"0",
    b"",
    b"\0",
    b"\xff",
    b"&",
    b"<",
    b"\n",
    b"=",
    b":",
    b"[",
    b"{",
    b"99999999999999999999",
]


def some_set(folder: Path) -> dict[str, LabelledSet]:
    files = []
    for number in range(3):
        path = folder / f"{number}.png"
        assert cv2.imwrite(str(path), np.zeros((40, 50, 3), np.uint8))
        xywh = np.array([[1, 2, 10 + number, 12], [20, 8, 9, 9.5 + number]])
        files.append(LabelledFile(path, (40, 50), xywh, np.array([0, 1], np.int32), name=path.name))
    return {"val": LabelledSet(folder, files, ("cat", "dog"))}


def mutated_bytes(content: bytes, rng: random.Random) -> bytes:
    """Some bytes or words of it changed, dropped or doubled."""
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(content) + 1)
        end = min(len(content), at + rng.randint(0, 12))
        kind = rng.randrange(4)
        middle = (rng.choice(WORDS), b"", content[at:end] * 2, bytes([rng.randrange(256)]))[kind]
        content = content[:at] + middle + content[end:]
    return content


def mutated_json(content: bytes, rng: random.Random) -> bytes:
    """A value anywhere in it replaced, dropped or doubled."""
    root = json.loads(content)
    for _ in range(rng.randint(1, 2)):
        places: list[tuple[Any, Any]] = []
        todo = [root]
        while todo:
            node = todo.pop()
            for key in node if isinstance(node, dict) else range(len(node)):
                places.append((node, key))
                if isinstance(node[key], dict | list):
                    todo.append(node[key])
        node, key = rng.choice(places)
        kind = rng.randrange(3)
        if kind == 0 and isinstance(node, dict):
            del node[key]
        elif kind == 1 and isinstance(node, list):
            node.append(node[key])
        else:
            node[key] = rng.choice(ODD)
    return json.dumps(root).encode()


KINDS: dict[str, tuple[str, str, Callable[[bytes, random.Random], bytes]]] = {
    "coco": ("coco", "annotations/instances_val.json", mutated_json),
    "coco bytes": ("coco", "annotations/instances_val.json", mutated_bytes),
    "yolo": ("yolo", "labels/val/1.txt", mutated_bytes),
    "yaml": ("yolo", "data.yaml", mutated_bytes),
    "voc": ("voc", "Annotations/1.xml", mutated_bytes),
    "darknet": ("darknet", "obj.data", mutated_bytes),
    "darknet labels": ("darknet", "obj/val/1.txt", mutated_bytes),
    "darknet list": ("darknet", "valid.txt", mutated_bytes),
}


def check(kind: str, count: int, folder: Path) -> tuple[int, int]:
    """How many were read, and how many refused."""
    format_, name, mutate = KINDS[kind]
    path = Path(convert_set(some_set(folder), format_, folder / "set"))
    victim = folder / "set" / name
    good, rng = victim.read_bytes(), random.Random(kind)
    read = 0
    for number in range(count):
        victim.write_bytes(mutate(good, rng))
        try:
            found = load_set(path, skip_faulty=number % 4 == 0)
            truth = found.truth_for(("cat", "dog"))
        except Yolov3TrtError as exc:
            assert "\n" not in str(exc)
            continue
        for row in truth.content["annotations"]:
            x, y, w, h = row["bbox"]
            assert 0 <= x < x + w <= 50.001 and 0 <= y < y + h <= 40.001 and 0 < row["area"] < 1e17
        read += 1
    return read, count - read


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_labels_are_read_or_refused(kind: str, tmp_path: Path):
    read, refused = check(kind, 40, tmp_path)
    assert refused and (read or kind == "coco bytes")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_thousands_of_damaged_labels_are_read_or_refused(kind: str, tmp_path: Path):
    check(kind, 1250, tmp_path)
