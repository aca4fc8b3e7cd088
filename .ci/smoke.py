"""The whole job with an installed package, and whether each step gave what it should: `python smoke.py MATERIAL [--exact]`.

Run it from an empty folder by the interpreter that has the package. MATERIAL is what `legs.py` makes with the pinned
environment: pictures with their boxes, FP32 and FP16 graphs of the bundled model, and what was found there (`expected.json`).
Graphs are exported here, and the same to the byte; without PyTorch they are not compared with it, which `export` says. Stdout
is one line of JSON.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path

SCORE, PIXELS, AP = 2e-3, 0.5, 0.02  # what another OpenCV's decoder and another ONNX Runtime's rounding may change
FRAMES = 12


def main() -> None:
    """Run every step; the first that fails ends the run with its output."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("material", type=Path)
    arguments.add_argument(
        "--exact", action="store_true", help="boxes must be those of MATERIAL to the digits that `detect` prints"
    )
    arguments.add_argument("--only", metavar="STEP,...", help="these steps alone")
    options = arguments.parse_args()
    wanted = None if options.only is None else options.only.split(",")
    smoke = Smoke(options.material, exact=options.exact)
    for step in (
        smoke.package,
        smoke.models,
        smoke.graphs,
        smoke.calibrate,
        smoke.build,
        smoke.detect,
        smoke.evaluate,
        smoke.compare,
        smoke.bench,
        smoke.camera,
        smoke.clips,
        smoke.doctor,
    ):
        if wanted is not None and step.__name__ not in wanted:
            continue
        started = time.monotonic()
        smoke.facts[step.__name__] = step()
        print(
            f"  {step.__name__:<10} {time.monotonic() - started:5.1f} s  {smoke.facts[step.__name__]}", file=sys.stderr
        )
    print(json.dumps({"steps": smoke.facts, "versions": smoke.versions}))


class Smoke:
    """The steps, in an order in which each finds what it needs."""

    def __init__(self, material: Path, *, exact: bool) -> None:
        self.pictures = material / "data" / "images" / "val"
        self.annotations = material / "data" / "val.json"
        self.material = material
        self.expected = json.loads((material / "expected.json").read_text())
        self.exact = exact
        self.facts: dict[str, str] = {}
        self.versions: dict[str, str] = {}

    def package(self) -> str:
        """It is the installed one that is imported, typed and with its recipes."""
        code = "import yolov3_trt; print(yolov3_trt.__version__); print(yolov3_trt.__file__)"
        version, file = run(sys.executable, "-c", code).split()
        check("site-packages" in file, f"imported from {file}, not from an installed package")
        check((Path(file).parent / "py.typed").is_file(), "no py.typed")
        check(verb("--version") == f"yolov3_trt {version}", "--version says something else")
        check(verb("-V") == f"yolov3_trt {version}", "-V says something else")
        return version

    def models(self) -> str:
        """The bundled model is there with its weights."""
        found = {entry["name"]: entry for entry in json_of("models")["models"]}
        check(found["shapes"]["weights_present"], "the weights of `shapes` are not there")
        return f"{len(found)} models"

    def graphs(self) -> str:
        """FP32 and FP16 from `.weights`, as the pinned environment writes them."""
        has_torch = importlib.util.find_spec("torch") is not None
        for precision in ("fp32", "fp16"):
            name = f"shapes-{precision}.onnx"
            said = json_of("export", "shapes", "--precision", precision, "-o", name)
            check(said["verified"] is has_torch and (said["not_compared"] is None) is has_torch, f"{name}: {said}")
            check(Path(name).read_bytes() == (self.material / name).read_bytes(), f"{name} is not that of MATERIAL")
        return f"FP32 and FP16, to the byte, {'compared with' if has_torch else 'without'} PyTorch"

    def calibrate(self) -> str:
        """A table of ranges."""
        if importlib.util.find_spec("onnx") is None:
            return "skipped: no onnx in this leg"
        verb("calibrate", "shapes-fp32.onnx", "--images", self.pictures, "--num-images", "4", "-o", "table.json")
        present("table.json", 1000)
        return "table.json"

    def build(self) -> str:
        """An INT8 engine from `.weights` by TensorRT-RTX, its sidecar, and the same again without building."""
        if importlib.util.find_spec("tensorrt_rtx_bindings") is None:
            return "skipped: no TensorRT-RTX in this leg"
        pictures = ("--images", self.pictures, "--num-images", "4", "--table", "build.json")
        command = ("build", "shapes", "--precision", "int8", *pictures, "-o", "shapes.engine")
        built = json_of(*command)
        check(not built["reused"] and present("shapes.engine", 500_000) == built["bytes"], f"built {built}")
        present("shapes.engine.json", 500)
        check(json_of(*command)["reused"], "the same engine was built again")
        check("shapes" in verb("info", "shapes.engine", codes=(0, 1)), "info does not name the model")
        return f"{built['bytes']:,} bytes of int8 by TensorRT-RTX {built['meta']['flavor_version']}"

    def detect(self) -> str:
        """The boxes of the pinned environment, and each picture with its boxes drawn."""
        verb("detect", "shapes-fp32.onnx", self.pictures, "--save", "drawn", "--json", "found.json")
        found = boxes(Path("found.json"))
        check(found.keys() == self.expected["boxes"].keys(), f"pictures {sorted(found)}")
        for name, objects in self.expected["boxes"].items():
            check(same_boxes(found[name], objects, exact=self.exact), f"{name}: got {found[name]}; expected {objects}")
            drawn = Path("drawn") / name
            check(present(drawn, 1000) and drawn.read_bytes() != (self.pictures / name).read_bytes(), f"{drawn}")
        return f"{sum(map(len, found.values()))} boxes as pinned{', to the digit' if self.exact else ''}"

    def evaluate(self) -> str:
        """AP."""
        options = ("--images", self.pictures, "--annotations", self.annotations, "--resamples", "50")
        found = json_of("eval", "shapes-fp32.onnx", *options)["AP"]
        check(abs(found - self.expected["AP"]) < AP, f"AP {found}; expected {self.expected['AP']}")
        return f"AP {found:.4f}"

    def compare(self) -> str:
        """FP16 finds what FP32 does."""
        return (
            verb("compare", "shapes-fp32.onnx", "shapes-fp16.onnx", "--images", self.pictures).splitlines()[-1].strip()
        )

    def bench(self) -> str:
        """A row for each artifact; a peer that cannot take part is a row with its reason."""
        result = json_of(
            *("bench", "shapes-fp32.onnx", "shapes-fp16.onnx", "--images", self.pictures, "--reference", "none"),
            *("--frames", "3", "--warmup", "1", "--no-roofline", "--report", "report.html"),
        )
        rows = [row for row in result["rows"] if row.get("latency_ms")]
        check(len(rows) == 2 and all(row["latency_ms"]["p50"] > 0 for row in rows), f"rows {result['rows']}")
        present("report.html", 5000)
        return "2 rows, report.html"

    def camera(self) -> str:
        """Generated frames to a clip; the clip to a film and to lines."""
        detector = ("camera", "shapes-fp32.onnx", "--drop", "none", "--max-frames", str(FRAMES))
        verb(*detector, "--source", "shapes://", "--sink", "clip.mp4")
        present("clip.mp4", 5000)
        verb(*detector, "--source", "clip.mp4", "--sink", "film.mp4,lines.jsonl")
        present("film.mp4", 5000)
        lines = [json.loads(line) for line in Path("lines.jsonl").read_text().splitlines()]
        seen = sum(len(line["detections"]) for line in lines if "detections" in line)
        check(
            sum("detections" in line for line in lines) == FRAMES and seen > FRAMES, f"{len(lines)} lines, {seen} boxes"
        )
        return f"film.mp4, {FRAMES} lines, {seen} boxes"

    def clips(self) -> str:
        """Odd videos are read right, or refused: what is left of them on this OpenCV."""
        folder = self.material / "clips"
        if not folder.is_dir():
            return "skipped: no ffmpeg program makes clips here"
        return run(sys.executable, self.material / "clips.py", folder)

    def doctor(self) -> str:
        """Nothing that is installed is broken; what it lists goes into the table of versions."""
        found = json_of("doctor")["findings"]
        check(found[0]["name"] == "yolov3_trt" and found[0]["status"] == "ok", f"begins with {found[0]}")
        self.versions = {finding["name"]: finding["detail"] for finding in found if finding["status"] == "ok"}
        check("numpy==" in verb("doctor", "--report"), "the bug report has no versions")
        return f"{len(found)} findings, none broken"


def verb(*arguments: str | Path, codes: tuple[int, ...] = (0,)) -> str:
    """Run the console script beside this interpreter."""
    return run(Path(sys.executable).with_name("yolov3_trt"), *arguments, codes=codes)


def json_of(*arguments: str | Path) -> dict:
    """The same, its `--json`."""
    return json.loads(verb(*arguments, "--json", "-"))


def run(*command: str | Path, codes: tuple[int, ...] = (0,)) -> str:
    """A program's stdout; ends everything where it fails."""
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"})
    check(done.returncode in codes, f"{' '.join(words)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    check("Traceback" not in done.stderr, f"{' '.join(words)}: a traceback\n{done.stderr}")
    return done.stdout.strip()


def boxes(path: Path) -> dict:
    """By picture: class, score and corners of each detection, best first."""
    return {
        Path(image["file"]).name: [[one["class_id"], one["score"], *one["xyxy"]] for one in image["detections"]]
        for image in json.loads(path.read_text())["images"]
    }


def same_boxes(found: list, expected: list, *, exact: bool) -> bool:
    """Whether two lists of boxes are the same: in order to the digits that are printed, or in any order within tolerances.

    `detect` prints scores in thousandths and boxes in tenths of a pixel; another order of sums changes the sixth digit.
    """
    if exact:
        return len(found) == len(expected) and all(
            one[0] == other[0]
            and abs(one[1] - other[1]) < 1e-5
            and all(abs(a - b) < 0.005 for a, b in zip(one[2:], other[2:], strict=True))
            for one, other in zip(found, expected, strict=True)
        )
    return len(found) == len(expected) and all(any(alike(one, other) for other in found) for one in expected)


def alike(one: list, other: list) -> bool:
    """Whether two boxes are the same object."""
    return (
        one[0] == other[0]
        and abs(one[1] - other[1]) < SCORE
        and all(abs(a - b) < PIXELS for a, b in zip(one[2:], other[2:], strict=True))
    )


def present(path: str | Path, least: int) -> int:
    """The size of a file, which must be there and not smaller than this."""
    size = Path(path).stat().st_size if Path(path).is_file() else 0
    check(size >= least, f"{path}: {size} bytes; expected {least} or more")
    return size


def check(condition: bool, text: str) -> None:
    """End with 1 and the reason unless this holds."""
    if not condition:
        sys.exit(f"smoke: {text}")


if __name__ == "__main__":
    main()
