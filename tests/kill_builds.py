"""Builds an engine again and again, killed at random moments; after each, looks at what is left.

    python -m tests.kill_builds FOLDER KILLS

The graph is exported once, everything is imported once, and each build runs in a fork: so a kill hits TensorRT's build and
the writing of what it gave, and neither imports nor the export. Prints a line of
JSON: how many builds were killed and how many ended, and what was left: `whole` engines, and `refused` ones (a plan whose
sidecar was yet to come, which the reader does not take). Fails where a reader would take a damaged engine.
"""

import json
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path

from yolov3_trt.engine.flavor import open_flavor
from yolov3_trt.errors import MetaError
from yolov3_trt.files import sha256_of_file
from yolov3_trt.jobs.build import build
from yolov3_trt.jobs.export import export
from yolov3_trt.meta import load_engine_meta
from yolov3_trt.models import load_model
from yolov3_trt.settings import EngineSettings, FlavorName

RTX = EngineSettings(FlavorName.TENSORRT_RTX)


def main(folder: Path, count: int) -> dict[str, float]:
    export(load_model("shapes"), folder / "shapes.onnx", precision="fp16")
    open_flavor(FlavorName.TENSORRT_RTX)
    engine = folder / "shapes.engine"
    start = time.perf_counter()
    assert build_in_fork(engine, None) == 0
    build_s = time.perf_counter() - start
    whole = sha256_of_file(engine)
    rng = random.Random(0)
    seen: Counter[str] = Counter()
    while seen["killed"] < count and sum(seen.values()) < 8 * count:  # two counts each time
        delay_s = rng.uniform(0, 1.1 * build_s)
        if rng.random() < 0.3:  # the moments that matter most are those of writing, at the end
            delay_s = rng.uniform(0.85, 1.02) * build_s
        status = build_in_fork(engine, delay_s)
        seen["killed" if os.WIFSIGNALED(status) else "ended"] += 1
        try:
            meta = load_engine_meta(engine)
        except MetaError:
            seen["refused"] += 1
        else:
            assert sha256_of_file(engine) == meta.plan_sha256
            assert meta.plan_sha256 == whole, "a rebuild gives the same plan"
            seen["whole"] += 1
    assert build_in_fork(engine, None) == 0
    assert load_engine_meta(engine).plan_sha256 == whole
    return {"build_s": round(build_s, 2), **seen}


def build_in_fork(engine: Path, kill_after_s: float | None) -> int:
    """The wait status of a process that builds."""
    child = os.fork()
    if child == 0:
        try:
            build(engine.with_suffix(".onnx"), engine, engine=RTX, force=True)
        finally:
            os._exit(0 if sys.exc_info()[0] is None else 1)
    if kill_after_s is not None:
        time.sleep(kill_after_s)
        os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]))))
