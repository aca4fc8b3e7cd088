"""Verbs that write, killed at random moments and run again; after each, looks at what lies there.

    python -m tests.kill_verbs FOLDER KILLS [VERB ...]

What a verb imports is imported once, and each run is a fork: so a kill hits the work and the writing, not the imports. Every
second run finds the results of a run before it. SIGKILL comes at any moment of the time that a run takes, three times in ten
near its end, where most is written. Then every file under its final name is read (`refused`: an engine or graph whose sidecar
is yet to come, which readers do not take), the same command runs to its end, and no temporary file may be left. Prints a line
of JSON a verb:

    {"verb": "export", "run_s": 1.4, "killed": 10, "ended": 2, "whole": 7, "refused": 1, "left": 9}

`whole` counts kills behind which results lay, `left` those behind which temporary files did.
"""

import importlib
import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import cv2

from tests.cli_runner import call
from yolov3_trt.backends.triton.model_config import config_from_text
from yolov3_trt.data.images import decode_image
from yolov3_trt.errors import MetaError
from yolov3_trt.files import sha256_of_file
from yolov3_trt.meta import load_engine_meta, load_model_meta
from yolov3_trt.models import load_spec
from yolov3_trt.models.darknet_weights import weights_from_darknet
from yolov3_trt.training.checkpoint import load_checkpoint

VERBS = ("export", "calibrate", "quantize", "build", "train", "eval", "detect", "camera", "deploy")


def command(verb: str, given: Path, out: Path) -> list[str]:
    """A verb with as many of its outputs as it has."""
    graph, images = str(given / "fp32.onnx"), str(given / "data/images/val")
    annotations = str(given / "data/val.json")
    match verb:
        case "export":
            return ["shapes", "-o", f"{out}/a.onnx", "--json", f"{out}/said.json"]
        case "calibrate":
            tables = ["-o", f"{out}/t.json", "--tensorrt-cache", f"{out}/t.cache"]
            return [graph, "--images", images, "--num-images", "8", "--force", *tables]
        case "quantize":
            labelled = ["--val-images", images, "--annotations", annotations]
            few = ["--images", str(given / "data/images/train"), "--num-images", "8", "--max-ap-drop", "1"]
            return ["shapes", *few, *labelled, "-o", f"{out}/int8"]
        case "build":
            return [str(given / "fp16.onnx"), "--force", "-o", f"{out}/a.engine"]
        case "train" if (out / "run/checkpoint.pt").exists():
            return ["--data", str(given / "data/data.yaml"), "--resume", f"{out}/run"]
        case "train":
            few = ["--from-scratch", "--epochs", "2", "--batch-size", "8"]
            return ["--data", str(given / "data/data.yaml"), "--model", "shapes", *few, "-o", f"{out}/run"]
        case "eval":
            drawn = ["--worst", "4", "-o", f"{out}/worst", "--report", f"{out}/report.html", "--resamples", "9"]
            return [graph, "--images", images, "--annotations", annotations, *drawn, "--json", f"{out}/ap.json"]
        case "detect":
            return [graph, images, "--save", f"{out}/save", "--json", f"{out}/d.json", "--jsonl", f"{out}/d.jsonl"]
        case "camera":
            sinks = f"{out}/c.jsonl,{out}/c.mp4,{out}/frames/?every=3"
            return [graph, "--source", "shapes://?frames=60", "--sink", sinks, "--json", f"{out}/said.json"]
        case _:
            return ["triton", graph, "-o", f"{out}/repository", "--variant", "python"]


def main(folder: Path, kills: int, verbs: list[str]) -> None:
    given = folder / "given"
    for args in (
        ["data", "shapes", "-o", given / "data", "--train", 24, "--val", 8],
        ["export", "shapes", "-o", given / "fp32.onnx"],
        ["export", "shapes", "--precision", "fp16", "-o", given / "fp16.onnx"],
    ):
        assert in_fork(folder, lambda args=args: call(*args)) == 0, said(folder)
    rng = random.Random(0)
    for verb in verbs or VERBS:
        print(json.dumps({"verb": verb, **killed(verb, folder, given, kills, rng)}), flush=True)


def killed(verb: str, folder: Path, given: Path, kills: int, rng: random.Random) -> dict[str, float]:
    """Kill a verb so often; the counts of the line above.

    Raises:
        AssertionError: a file under its final name is damaged, running again fails, or leaves a temporary file.
    """
    done, out = folder / f"{verb}-done", folder / verb

    def work(place: Path) -> int:
        return call(verb, *command(verb, given, place))

    def work_once() -> int:
        code = work(done)
        (folder / "modules.txt").write_text("\n".join(sys.modules))
        return code

    assert in_fork(folder, work_once) == 0, said(folder)
    for name in (folder / "modules.txt").read_text().splitlines():
        with suppress(Exception):  # some are no modules of their own
            importlib.import_module(name)
    shutil.rmtree(done)
    start = time.perf_counter()
    assert in_fork(folder, lambda: work(done)) == 0, said(folder)
    run_s = time.perf_counter() - start
    known = {path.name: path.read_bytes() for path in done.rglob("*") if path.is_file()}
    check(done, known)
    seen: Counter[str] = Counter()
    while seen["killed"] < kills:
        shutil.rmtree(out, ignore_errors=True)
        if seen["killed"] % 2 and verb != "train":  # which goes on with what is there, and does nothing when it is done
            shutil.copytree(done, out)
            shutil.rmtree(out / "frames", ignore_errors=True)  # which the camera refuses
        at_s = rng.uniform(0.8, 1.02) if rng.random() < 0.3 else rng.uniform(0, 1)
        status = in_fork(folder, lambda: work(out), at_s * run_s)
        if not os.WIFSIGNALED(status):
            assert status == 0, said(folder)
            seen["ended"] += 1
            continue
        seen["killed"] += 1
        left = {path for path in out.rglob(".*") if path.suffix in (".partial", ".lock") or ".partial." in path.name}
        seen["left"] += bool(left)
        names = check(out, known)
        seen["whole"] += "whole" in names
        seen["refused"] += "refused" in names
        for picture in (out / "frames").glob("*.jpg"):
            picture.unlink()
        assert in_fork(folder, lambda: work(out)) == 0, said(folder)
        assert "refused" not in check(out, known)
        still = [str(path) for path in out.rglob(".*")]
        assert not still, f"{verb}: left behind by the run after the kill: {still}"
    shutil.rmtree(out)
    return {"run_s": round(run_s, 2), **seen}


def check(out: Path, known: dict[str, bytes]) -> set[str]:
    """Read each file under its final name; says whether there are whole ones and refused ones."""
    found = set()
    for path in out.rglob("*"):
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(out).parts):
            try:
                assert_whole(path, known)
            except MetaError:
                found.add("refused")
            else:
                found.add("whole")
    return found


def assert_whole(path: Path, known: dict[str, bytes]) -> None:
    """Fails where this is the beginning of a file, or another's."""
    content = path.read_bytes()
    readers: dict[str, Callable[[], object]] = {
        ".json": lambda: json.loads(content),
        ".jsonl": lambda: [json.loads(line) for line in content.splitlines()],
        ".onnx": lambda: load_model_meta(path),
        ".weights": lambda: weights_from_darknet(load_spec("shapes"), path),
        ".pt": lambda: load_checkpoint(path),
        ".jpg": lambda: decode_image(content),
        ".png": lambda: decode_image(content),
        ".pbtxt": lambda: config_from_text(content.decode(), str(path)),
    }
    if path.suffix == ".mp4":
        assert cv2.VideoCapture(str(path)).read()[0], path
    elif path.suffix == ".html":
        assert content.rstrip().endswith(b"</html>"), path
    elif path.suffix == ".engine":
        assert sha256_of_file(path) == load_engine_meta(path).plan_sha256, path
    elif path.suffix in readers:
        readers[path.suffix]()
    else:  # texts that depend on nothing
        assert content == known[path.name], path


def in_fork(folder: Path, work: Callable[[], int], kill_after_s: float | None = None) -> int:
    """The wait status of a process that does this; what it says goes to a file."""
    child = os.fork()
    if child == 0:
        code = 99
        try:
            file = os.open(folder / "said.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(file, 1)
            os.dup2(file, 2)
            code = work()
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    if kill_after_s is not None:
        time.sleep(kill_after_s)
        os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def said(folder: Path) -> str:
    """What the last process said."""
    return (folder / "said.txt").read_text()[-2000:]


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
