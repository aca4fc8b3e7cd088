"""Damaged input for every reader: `python -m tests.fuzz MINUTES [READER ...]`. What is no error of ours is a finding.

Where atheris is installed, each reader has half of its time led by coverage (`tests.fuzz_guided`). Seeds are small and made
here. A finding's input is written to `runs/fuzz/`, and becomes a test of its reader. An input that takes more than 10 s, or
the process above 2 GiB, is a finding as a traceback is; one that a library never gives back ends the run, and is
`runs/fuzz/now.bin`.
"""

import faulthandler
import http.client
import importlib.util
import json
import random
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from tests.fakes import FakeBackend, grey_pictures
from tests.values.test_meta_fuzz import SIDECARS
from yolov3_trt.backends.triton.contract import contract_of, outputs_of
from yolov3_trt.backends.triton.model_config import config_from_text, text_from_config
from yolov3_trt.calibration.table import load_table
from yolov3_trt.camera.frames import Frame, FrameStatus, Result
from yolov3_trt.camera.sinks import HttpSink
from yolov3_trt.camera.sinks.json_lines import JsonLinesSink
from yolov3_trt.camera.sources.credentials import load_credentials
from yolov3_trt.data import labelled_set
from yolov3_trt.data.images import decode_image
from yolov3_trt.data.labels import read_labels
from yolov3_trt.data.manifest import load_set
from yolov3_trt.deploy import triton as deploy
from yolov3_trt.deploy.pictures import decode_picture
from yolov3_trt.detections import Detections
from yolov3_trt.errors import Yolov3TrtError
from yolov3_trt.meta import model_meta_from_json, to_json
from yolov3_trt.models.architectures import yolov3_tiny
from yolov3_trt.models.class_names import load_class_names
from yolov3_trt.models.darknet_cfg import parse_cfg
from yolov3_trt.models.darknet_cfg_text import cfg_from_spec
from yolov3_trt.models.darknet_weights import save_darknet_weights, weights_from_darknet
from yolov3_trt.places import Places
from yolov3_trt.postprocess import checked_detections
from yolov3_trt.recipe import load_recipe
from yolov3_trt.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint

LIMIT_S, LIMIT_MIB = 10, 2048  # of one input, and of the process
PLACE = Path("runs/fuzz")
WORDS = [
    b"nan",
    b"-1",
    b"1e999",
    b"99999999999999999999",
    b"[]",
    b"{}",
    b"null",
    b'"',
    b"\0",
    b"\n",
    b"../",
    b"\x1b[31m",
]
WORDS.append(b"[" * 2000)
Target = Callable[[bytes], None]
FRAME = Frame(grey_pictures([7])[0], "a", 0, time.monotonic())
SMALL = parse_cfg(
    b"[net]\nwidth=32\nheight=32\nchannels=3\n[convolutional]\nbatch_normalize=1\nfilters=18\nsize=3\nstride=1\npad=1\n"
    b"[convolutional]\nfilters=18\nsize=1\nstride=1\nactivation=linear\n[yolo]\nmask=0,1,2\nclasses=1\nnum=3\nanchors=1,2,3,4,5,6\n"
)


class Hang(BaseException):
    """An input took too long."""


class TooLarge(Exception):
    """An input took too much memory."""


def mutated(rng: random.Random, seed: bytes) -> bytes:
    """A seed with a few changes of bytes, words and pieces."""
    content = bytearray(seed)
    for _ in range(rng.randint(1, 4)):
        at, length = rng.randrange(len(content) + 1), min(rng.choice((1, 2, 8, 64)), len(content))
        kind = rng.randrange(5)
        if kind == 0:
            content[at : at + 1] = bytes([rng.randrange(256)])
        elif kind == 1:
            content[at:at] = rng.choice(WORDS)
        elif kind == 2:
            content[at : at + length] = rng.choice(WORDS)
        elif kind == 3:
            del content[at : at + length]
        else:
            start = rng.randrange(len(content) + 1)
            content[at:at] = content[start : start + length]
    return bytes(content)


def from_file(path: Path, read: Callable[[Path], Any]) -> Target:
    def target(content: bytes) -> None:
        path.write_bytes(content)
        read(path)

    return target


def answer(content: bytes) -> None:
    """Detections of a server or graph: whatever is taken is finite, 0..1, and of a class."""
    meta = FakeBackend.meta
    shapes = {tensor.name: tensor for tensor in outputs_of(deploy.Variant.PYTHON, meta)}
    content = content.ljust(28 * 300 + 4, b"\0")
    outputs: dict[str, Any] = {"num_detections": np.frombuffer(content, np.int32, 1)[0]}
    outputs["boxes"] = np.frombuffer(content, np.float32, 1200, 4).reshape(shapes["boxes"].dims)
    outputs["scores"] = np.frombuffer(content, np.float32, 300, 4804)
    outputs["class_ids"] = np.frombuffer(content, np.int32, 300, 6004)
    xyxy, scores, class_ids = checked_detections(outputs, meta)
    assert not np.isnan(xyxy).any() and ((scores >= 0) & (scores <= 1)).all() and (class_ids < meta.num_classes).all()


def sidecar(content: bytes) -> None:
    meta = model_meta_from_json(content, "it")
    assert np.isfinite([*np.ravel([head.anchors_wh for head in meta.heads]), meta.preprocess.scale]).all()
    assert all(name.isprintable() or not any(ord(c) < 32 for c in name) for name in meta.class_names)
    json.dumps(to_json(meta), allow_nan=False)


def weights(content: bytes, path: Path) -> None:
    """Weights that are taken are numbers."""
    path.write_bytes(content)
    arrays = weights_from_darknet(SMALL, path).arrays
    assert all(np.isfinite(array).all() for array in arrays.values())


def labelled(path: Path) -> None:
    """Boxes that are taken lie in their pictures, and are of a class."""
    found = labelled_set(path, split="val" if path.suffix == ".yaml" else None)
    for file in found.files:
        size = np.array(file.image_hw[::-1])
        begin, end = file.xywh[:, :2], file.xywh[:, :2] + file.xywh[:, 2:]
        assert np.isfinite(file.xywh).all() and (begin < end).all()
        assert (begin > -2).all() and (end < size + 2).all(), "annotations are rounded to a pixel at the most"
        assert ((file.class_ids >= 0) & (file.class_ids < len(found.class_names))).all()
        assert file.areas is None or (np.isfinite(file.areas) & (file.areas >= 0)).all()


def places(path: Path) -> None:
    """Points of zones and lines that are taken lie in the picture."""
    found = Places.read(path)
    points = np.array([point for place in (*found.zones, *found.lines) for point in place.points])
    assert ((points >= 0) & (points <= 1)).all()
    found.of("a")


def continued_lines(path: Path) -> None:
    """A file of lines that was taken up again ends with the new one, and with no half one before it."""
    sink = JsonLinesSink(path)
    sink.write(Result(FRAME, Detections.none(), FrameStatus(None, 5.0, 0, 1)))
    sink.close()
    content = path.read_bytes()
    assert content.endswith(b"}\n") and json.loads(content.splitlines()[-1])["source"] == "a"


def page(sink: HttpSink) -> Target:
    port = int(sink.address.rpartition(":")[2])

    def target(content: bytes) -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(content)
            connection.shutdown(socket.SHUT_WR)
            connection.recv(1 << 16)
        good = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        good.request("GET", "/healthz")
        assert good.getresponse().status == 200
        good.close()

    return target


def targets(folder: Path, stack: ExitStack) -> dict[str, tuple[Target, list[bytes]]]:
    """The readers by name, each with its seeds."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (24, 24, 3), np.uint8)
    pictures = [cv2.imencode(suffix, small)[1].tobytes() for suffix in (".jpg", ".png", ".bmp", ".webp", ".tiff")]
    config = deploy.config_from_model(deploy.ServedModel("m", FakeBackend.meta, deploy.Variant.PYTHON, on_gpu=False))
    pbtxt = text_from_config(config).encode()
    sink = stack.enter_context(HttpSink("127.0.0.1", 0, sources=["a"], stats=dict))
    sink.write(Result(FRAME, Detections.none(), FrameStatus(None, 5.0, 0, 1)))
    request = b"GET /stats.json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    checkpoint = folder / "checkpoint.pt"
    tensor = {"a": torch.zeros(2)}
    save_checkpoint(Checkpoint({}, "", "m", ["a"], "", 0, tensor, tensor, {}, {}, [0.0], []), checkpoint)
    kept = checkpoint.read_bytes()
    recipes = [path.read_bytes() for path in sorted(Path("engines").glob("*.toml"))[:3]]
    manifests = [path.read_bytes() for path in sorted(Path("calib").glob("*.toml"))[:2]]
    tables = [path.read_bytes()[:20_000] for path in sorted(Path("calib").glob("*.json"))[:1]]
    detections = np.int32(3).tobytes() + np.full(1500, 0.5, np.float32).tobytes() + np.zeros(300, np.int32).tobytes()
    rng32 = {name: rng.normal(0, 1, shape).astype(np.float32) ** 2 for name, shape in SMALL.weight_shapes.items()}
    save_darknet_weights(SMALL, rng32, folder / "small.weights")
    zones = (
        b'[[zone]]\nname = "door"\npoints = [[0.1, 0.1], [0.5, 0.1], [0.3, 0.9]]\nstay_s = 2\n'
        b"[[line]]\npoints = [[0, 0.5], [1, 0.5]]\n"
    )
    secrets = folder / "credentials"
    secrets.touch(mode=0o600)
    (folder / "images/val").mkdir(parents=True)
    for name in ("a", "b"):
        cv2.imwrite(str(folder / f"images/val/{name}.png"), small)
    (folder / "labels/val").mkdir(parents=True)
    (folder / "labels/val/a.txt").write_text("0 0.5 0.5 0.2 0.2\n1 0.2 0.2 0.1 0.1\n")
    (folder / "labels/val/b.txt").write_text("")
    boxes = [
        {"id": n, "image_id": n % 2 + 1, "category_id": 7, "bbox": [2 * n, 3, 8, 9.5], "area": 76, "iscrowd": 0}
        for n in (1, 2)
    ]
    pictures_of = [{"id": n + 1, "file_name": f"{name}.png", "width": 24, "height": 24} for n, name in enumerate("ab")]
    coco = {"images": pictures_of, "annotations": boxes, "categories": [{"id": 7, "name": "cat"}]}
    found: dict[str, tuple[Target, list[bytes]]] = {
        "weights": (lambda content: weights(content, folder / "it.weights"), [(folder / "small.weights").read_bytes()]),
        "coco": (from_file(folder / "val.json", labelled), [json.dumps(coco).encode()]),
        "data.yaml": (
            from_file(folder / "data.yaml", labelled),
            [
                b"path: .\ntrain: images/val\nval: images/val\nnc: 2\nnames: [cat, dog]\n",
                b"val: images/val\nnames:\n  0: cat\n  1: dog\n",
            ],
        ),
        "cfg": (lambda content: void(parse_cfg(content)), [cfg_from_spec(yolov3_tiny()).encode()]),
        "names": (from_file(folder / "a.names", lambda path: load_class_names(str(path), 2)), [b"cat\ndog\n"]),
        "sidecar": (sidecar, [SIDECARS[next(iter(SIDECARS))]]),
        "picture": (lambda content: void(decode_image(content)), pictures),
        "service picture": (lambda content: void(decode_picture(content)), pictures[:2]),
        "recipe": (from_file(folder / "a.toml", load_recipe), recipes or [b""]),
        "manifest": (from_file(folder / "m.toml", load_set), manifests or [b"x = 1\n"]),
        "table": (from_file(folder / "t.json", load_table), tables or [b'{"format": "yolov3_trt.calibration/1"}']),
        "labels": (
            from_file(folder / "a.txt", lambda path: read_labels(path.with_suffix(".jpg"), ("a", "b", "c"), "it", [])),
            [b"0 0.5 0.5 0.2 0.2\n2 0.1 0.1 0.1 0.1\n"],
        ),
        "zones": (from_file(folder / "zones.toml", places), [zones]),
        "credentials": (from_file(secrets, load_credentials), [b"# of the door\nCAM_USER=me\nCAM_PASSWORD=a=b c\n"]),
        "lines": (
            from_file(folder / "found.jsonl", continued_lines),
            [b'{"a": 1}\n{"b": [2, 3]}\n', b'{"a": 1}\n{"b": [2,'],
        ),
        "checkpoint": (from_file(checkpoint, load_checkpoint), [kept]),
        "pbtxt": (lambda content: void(contract_of(config_from_text(content.decode("latin-1"), "it"), "it")), [pbtxt]),
        "answer": (answer, [detections]),
        "http": (page(sink), [request, request.replace(b"stats.json", b"view/0.mjpg").replace(b"GET", b"HEAD")]),
    }
    return found


def void(_value: object) -> None:
    """A reader's result is not looked at."""


def run(minutes: float, wanted: list[str], seed: int = 0) -> dict[str, tuple[int, int, int]]:
    """Work for so long; by reader the inputs, those that were refused, and the findings."""

    def on_alarm(_number: int, _frame: object) -> None:
        raise Hang

    signal.signal(signal.SIGALRM, on_alarm)
    counts: dict[str, tuple[int, int, int]] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        readers = {name: one for name, one in targets(folder, stack).items() if not wanted or name in wanted}
        is_led = importlib.util.find_spec("atheris") is not None
        each_s = 60 * minutes / len(readers) / (2 if is_led else 1)
        for name, (target, seeds) in readers.items():
            counts[name] = _fuzz(name, target, seeds, time.monotonic() + each_s, random.Random(seed))
            if is_led:
                inputs, findings = _led(name, round(each_s))
                print(f"{name:16} {inputs:7} inputs by coverage {findings:15} findings", flush=True)
                counts[name] = counts[name][0] + inputs, counts[name][1], counts[name][2] + findings
            print(
                f"{name:16} {counts[name][0]:7} inputs {counts[name][1]:7} refused {counts[name][2]:3} findings",
                flush=True,
            )
    print(f"{sum(one[0] for one in counts.values())} inputs, peak {peak_mib():.0f} MiB")
    assert peak_mib() < LIMIT_MIB
    return counts


def _led(name: str, seconds: int) -> tuple[int, int]:
    """Inputs and findings of `tests.fuzz_guided`, which ends at the first."""
    command = [sys.executable, "-m", "tests.fuzz_guided", name, str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    told = re.search(r"number_of_executed_units: (\d+)", done.stderr)
    if done.returncode or told is None:
        print(f"{name}: {done.stderr[-3000:]}", file=sys.stderr)
    return int(told[1]) if told else 0, int(bool(done.returncode) or told is None)


def peak_mib() -> float:
    """The most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _fuzz(name: str, target: Target, seeds: list[bytes], end_s: float, rng: random.Random) -> tuple[int, int, int]:
    inputs, refused, kinds = 0, 0, set()
    PLACE.mkdir(parents=True, exist_ok=True)
    for content in seeds:
        try:
            target(content)
        except Yolov3TrtError as exc:
            print(f"{name}: a seed is refused: {exc}", file=sys.stderr)
    while time.monotonic() < end_s:
        content = mutated(rng, rng.choice(seeds))
        inputs += 1
        (PLACE / "now.bin").write_bytes(content)
        signal.alarm(LIMIT_S)
        faulthandler.dump_traceback_later(
            6 * LIMIT_S, exit=True
        )  # no Python handler runs while a library does not return
        before_mib = peak_mib()
        try:
            target(content)
            if peak_mib() > max(before_mib, LIMIT_MIB):
                raise TooLarge(f"{peak_mib():.0f} MiB")
        except Yolov3TrtError as exc:
            refused += 1
            assert str(exc)
        except (Exception, Hang) as exc:
            where = traceback.extract_tb(exc.__traceback__)[-1]
            if (kind := (type(exc).__name__, where.filename, where.lineno)) not in kinds:
                kinds.add(kind)
                (PLACE / f"{name}-{len(kinds)}.bin").write_bytes(content)
                print(f"{name}: {kind}: {str(exc)[:200]}", file=sys.stderr)
        finally:
            signal.alarm(0)
            faulthandler.cancel_dump_traceback_later()
    return inputs, refused, len(kinds)


if __name__ == "__main__":
    found = run(float(sys.argv[1]), sys.argv[2:])
    sys.exit(any(findings for _, _, findings in found.values()))
