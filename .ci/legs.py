"""The built wheel, installed and put to work in environments that other people have: `python .ci/legs.py [LEG...]`.

Run it by the interpreter of the pinned environment (`make legs`), which makes the wheel and the material of the smoke run. Each
leg is an own virtual environment in /var/tmp or LEGS_ROOT; one whose interpreter or packages cannot be had is skipped with
the reason; one that is over its time is ended, and is a failure unless it is arm64. Ends with a table of versions, also in
runs/ci/versions.md.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

CI = Path(__file__).resolve().parent
TREE = CI.parent
ROOT = Path(tempfile.mkdtemp(prefix="yolov3_trt-legs-", dir=os.environ.get("LEGS_ROOT", "/var/tmp")))  # gone at the end
SKIPPED = 77  # how arm64.sh says so
LIMIT_S = 600  # for one leg: several times what it takes with two cores of its own
ARM64_LIMIT_S = int(os.environ.get("ARM64_LIMIT_S", "900"))  # emulated: four minutes on two quiet cores
CPU_TORCH, CPU_TORCH_PYTHON = "torch==2.13.0", "3.11"  # this very version is a build for the CPU where CI runs


@dataclass(frozen=True)
class Leg:
    """One environment."""

    name: str
    python: str  # a version, or the path of an interpreter
    extras: str
    packages: tuple[str, ...] = ()  # besides
    constraints: str = ""  # a file of the tree
    system: bool = False  # sees the system's packages
    demo: bool = False  # has PyTorch: the demo runs too


@dataclass
class Result:
    """How a leg ended."""

    name: str
    status: str  # ok, skipped, failed, over time
    seconds: float
    text: str
    versions: dict[str, str] = field(default_factory=dict)


NEWEST = "opencv-headless,cpu,rtx"
LEGS = (
    Leg("newest-3.11", CPU_TORCH_PYTHON, f"{NEWEST},export", (CPU_TORCH,), demo=True),
    Leg("newest-3.13", "3.13", f"{NEWEST},onnx,triton,nvml,supervision"),
    Leg("newest-3.12", "3.12", f"{NEWEST},onnx"),
    Leg("lowest-3.10", "3.10", f"{NEWEST},onnx,triton,nvml,supervision", constraints="constraints-lowest.txt"),
    Leg("debian-12", "/usr/bin/python3", "cpu,rtx,onnx", constraints="constraints-jetpack6.txt", system=True),
)
# What the base and each extra alone say of what they lack: the verb, and what its one line must name.
DETECT, CALIBRATE, DEMO = "detect shapes-fp32.onnx .", "calibrate shapes-fp32.onnx --images .", "demo -o demo"
MESSAGES = {
    "": {
        DETECT: ("opencv", "onnxruntime", "[cpu,opencv-headless]"),
        CALIBRATE: ("opencv", "onnx", "onnxruntime"),
        "detect shapes .": ("opencv", "onnx", "onnxruntime", "[cpu,onnx,opencv-headless]"),
        "detect triton://127.0.0.1:1/m .": ("opencv", "tritonclient"),
        "eval shapes-fp32.onnx --images . --annotations shapes-fp32.onnx.json": ("opencv", "onnxruntime"),
        "build shapes-fp32.onnx": ("tensorrt", "[rtx]"),
        "build shapes-256-fp16": ("tensorrt", "onnx", "[onnx,rtx]"),
        "train --data data.yaml -o out": ("opencv", "torch"),
        "shapes -o data": ("opencv", "[opencv-headless]"),
        DEMO: ("opencv", "torch", "onnx", "onnxruntime", "[cpu,export,opencv-headless]"),
    },
    "opencv-headless": {DETECT: ("onnxruntime", "[cpu]")},
    "cpu": {DETECT: ("opencv", "[opencv-headless]"), CALIBRATE: ("opencv", "onnx", "[onnx,opencv-headless]")},
    "onnx": {CALIBRATE: ("opencv", "onnxruntime", "[cpu,opencv-headless]")},
    "rtx": {"build shapes-256-fp16": ("onnx", "[onnx]"), "export shapes": ("onnx", "[onnx]")},
    "triton": {"detect triton://127.0.0.1:1/m .": ("opencv", "[opencv-headless]")},
    "export,train": {
        "detect shapes .": ("needs opencv, which is",),
        "train --data data.yaml -o out": ("needs opencv, which is",),
        DEMO: ("needs opencv and onnxruntime, which are", "[cpu,opencv-headless]"),
    },
}


def main() -> None:
    """Run the legs that are named, by default all, two at a time."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    try:
        results = run_all()
    finally:
        shutil.rmtree(ROOT, ignore_errors=True)
    table = as_table(results)
    (TREE / "runs" / "ci").mkdir(parents=True, exist_ok=True)
    (TREE / "runs" / "ci" / "versions.md").write_text(table)
    print(table)
    over_time = [result.name for result in results if result.status == "over time"]
    sys.exit(any(result.status == "failed" for result in results) or over_time not in ([], ["arm64"]))


def stop(number: int, _: object) -> None:
    """End at a signal, with the programs of every leg, which are in sessions of their own and would go on."""
    for program in list(_running):
        os.killpg(program.pid, signal.SIGKILL)
    shutil.rmtree(ROOT, ignore_errors=True)
    os._exit(128 + number)


def run_all() -> list[Result]:
    """The results of what the command line asks for."""
    wheel, material = make_wheel(), make_material()
    jobs: dict[str, Callable[[], Result]] = {"arm64": lambda: run_arm64(wheel, material)}  # first: it takes longest
    jobs |= {leg.name: partial(run_leg, leg, wheel, material) for leg in LEGS}
    jobs["messages"] = lambda: run_messages(wheel, material)
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda name: timed(name, jobs[name]), sys.argv[1:] or jobs))


def make_wheel() -> Path:
    """Of the tree as it is."""
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", ROOT / "wheel", TREE)
    return next((ROOT / "wheel").glob("*.whl"))


def make_material() -> Path:
    """Pictures, graphs, and what the pinned environment finds: see smoke.py."""
    folder = ROOT / "material"
    folder.mkdir(parents=True)
    verb = (sys.executable, "-m", "yolov3_trt")
    environment = {"PYTHONPATH": str(TREE)}
    run(*verb, "shapes", "-o", "data", "--train", "1", "--val", "24", cwd=folder, environment=environment)
    for precision in ("fp32", "fp16"):
        output = f"shapes-{precision}.onnx"
        run(*verb, "export", "shapes", "--precision", precision, "-o", output, cwd=folder, environment=environment)
    run(
        *verb,
        "detect",
        "shapes-fp32.onnx",
        "data/images/val",
        "--json",
        "found.json",
        cwd=folder,
        environment=environment,
    )
    truth = ("--images", "data/images/val", "--annotations", "data/val.json", "--resamples", "0")
    scores = run(*verb, "eval", "shapes-fp32.onnx", *truth, "--json", "-", cwd=folder, environment=environment)
    shutil.copy(TREE / "tests" / "clips.py", folder)
    if shutil.which("ffmpeg"):
        code = "import clips, pathlib; clips.make_clips(pathlib.Path('clips'))"
        (folder / "clips").mkdir()
        run(sys.executable, "-c", code, cwd=folder)
    images = json.loads((folder / "found.json").read_text())["images"]
    found = {
        Path(image["file"]).name: [[one["class_id"], one["score"], *one["xyxy"]] for one in image["detections"]]
        for image in images
    }
    expected = {"boxes": found, "AP": json.loads(scores)["AP"]}
    (folder / "expected.json").write_text(json.dumps(expected))
    return folder


def run_leg(leg: Leg, wheel: Path, material: Path) -> Result:
    """Install and put to work."""
    folder = ROOT / leg.name
    python = make_environment(leg.python, folder / "venv", system=leg.system)
    constraints = ("--constraint", TREE / leg.constraints) if leg.constraints else ()
    install(python, *constraints, f"{wheel}[{leg.extras}]", *leg.packages)
    (folder / "run").mkdir()
    said = run(python, CI / "smoke.py", material, cwd=folder / "run")
    content = json.loads(said.splitlines()[-1])
    steps = {name: text for name, text in content["steps"].items() if name != "package"}
    if leg.demo:
        run(python, "-m", "yolov3_trt", "demo", "-o", "demo", "--pictures", "10", "--frames", "10", cwd=folder / "run")
        steps["demo"] = ", ".join(sorted(path.name for path in (folder / "run" / "demo").glob("*.[jm]p[g4]")))
        if steps["demo"] != "clip.mp4, picture.jpg":
            raise Failed(f"the demo left {steps['demo']}")
    return Result(leg.name, "ok", 0, "\n".join(f"{name}: {text}" for name, text in steps.items()), versions_of(python))


def run_messages(wheel: Path, material: Path) -> Result:
    """The base and each extra alone: all that is missing is named in one line, and one command brings it."""
    base = ROOT / "messages" / "base" / "venv"
    install(make_environment(CPU_TORCH_PYTHON, base), wheel)
    lines, faults = [], []
    for extra, verbs in MESSAGES.items():
        folder = ROOT / "messages" / (extra or "base")
        python = folder / "venv" / "bin" / "python"
        if extra:
            shutil.copytree(base, folder / "venv", symlinks=True)
            install(python, f"{wheel}[{extra}]", *((CPU_TORCH,) if "export" in extra else ()))
        for suffix in (".onnx", ".onnx.json"):
            shutil.copy(material / f"shapes-fp32{suffix}", folder)
        shutil.copy(material / "data" / "data.yaml", folder)
        for verb, words in verbs.items():
            said = one_line(python, verb, words, folder, faults)
            lines.append(f"{extra or 'base'}: {said}")
        if extra:
            shutil.rmtree(folder)
    if faults:
        raise Failed("\n".join(faults))
    return Result("messages", "ok", 0, "\n".join(lines))


def one_line(python: Path, verb: str, words: tuple[str, ...], folder: Path, faults: list[str]) -> str:
    """What a verb says that lacks something; a fault if that is not one line with these words."""
    environment = {**clean(), "DISPLAY": "", "WAYLAND_DISPLAY": ""}
    command = [python, "-m", "yolov3_trt", *verb.split()]
    done = within_time(command, cwd=folder, environment=environment)
    said = done.stderr.strip()
    if done.returncode != 1 or len(said.splitlines()) != 1 or not all(word in said for word in words):
        faults.append(f"{verb}: exit {done.returncode}; expected one line with {', '.join(words)}; it said:\n{said}")
    return said


def run_arm64(wheel: Path, material: Path) -> Result:
    """See arm64.sh; there the boxes must be the same to the digit."""
    done = within_time([CI / "arm64.sh", wheel, material], environment={**clean(), "PYTHON": sys.executable})
    if done.returncode == SKIPPED:
        raise Skipped(done.stdout.strip().splitlines()[-1].removeprefix("skipped: "))
    if done.returncode:
        raise Failed(f"{done.stdout}{done.stderr}")
    content = json.loads(done.stdout.splitlines()[-1])
    return Result("arm64", "ok", 0, "\n".join(f"{k}: {v}" for k, v in content["steps"].items()), content["versions"])


class Skipped(Exception):
    """This leg cannot be had here."""


class Failed(Exception):
    """This leg found a fault."""


class OverTime(Exception):
    """This leg was ended."""


_leg = threading.local()  # .ends: when the time of this thread's leg is over
_running: set[subprocess.Popen[str]] = set()


def timed(name: str, job: Callable[[], Result]) -> Result:
    """A leg's result, said at once."""
    started = time.monotonic()
    _leg.ends = started + (ARM64_LIMIT_S if name == "arm64" else LIMIT_S)
    try:
        result = job()
    except Skipped as exc:
        result = Result(name, "skipped", 0, str(exc))
    except Failed as exc:
        result = Result(name, "failed", 0, str(exc))
    except OverTime as exc:
        result = Result(name, "over time", 0, str(exc))
    result.seconds = time.monotonic() - started
    print(f"--- {name}: {result.status}, {result.seconds:.0f} s\n{result.text}", flush=True)
    shutil.rmtree(ROOT / name, ignore_errors=True)
    return result


def make_environment(python: str, folder: Path, *, system: bool = False) -> Path:
    """A virtual environment's interpreter."""
    found = find_python(python)
    if found is None:
        raise Skipped(f"there is no Python {python} on this machine")
    options = ["--without-pip", *(["--system-site-packages"] if system else [])]
    done = within_time([found, "-m", "venv", *options, folder])
    if done.returncode:
        raise Skipped(f"{found} makes no virtual environment")
    if system and within_time([found, "-c", "import cv2"]).returncode:
        raise Skipped(f"{found} has no OpenCV (Debian: apt install python3-opencv)")
    return folder / "bin" / "python"


def find_python(version: str) -> str | None:
    """An interpreter of a version: of pyenv, or on PATH; or the path itself."""
    if version.startswith("/"):
        return version if Path(version).exists() else None
    of_pyenv = sorted(Path.home().glob(f".pyenv/versions/{version}*/bin/python{version}"))
    on_path = shutil.which(f"python{version}")
    return str(of_pyenv[-1]) if of_pyenv else on_path


def install(python: Path, *what: str | Path) -> None:
    """With pip, from the package index; what that has not is a reason to skip."""
    pip = [sys.executable, "-m", "pip", "--python", python]  # this one's for all: making a pip in each takes seconds
    done = within_time([*pip, "install", "--quiet", "--no-compile", "--prefer-binary", *what])
    if done.returncode:
        error = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        if "Could not find a version" in done.stderr or "No matching distribution" in done.stderr:
            raise Skipped(f"pip: {error[0]}")
        raise Failed(f"pip: {' '.join(error)}")


def run(*command: str | Path, cwd: Path | None = None, environment: dict[str, str] | None = None) -> str:
    """A program's stdout."""
    done = within_time(command, cwd=cwd, environment={**clean(), **(environment or {})})
    if done.returncode:
        raise Failed(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def within_time(
    command: Sequence[str | Path], cwd: Path | None = None, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program and all that it starts for as long as its leg still has, then end them."""
    words = [str(word) for word in command]
    left_s = getattr(_leg, "ends", time.monotonic() + LIMIT_S) - time.monotonic()
    with subprocess.Popen(
        words,
        cwd=cwd,
        env=environment or clean(),
        text=True,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as program:
        _running.add(program)
        try:
            stdout, stderr = program.communicate(timeout=max(left_s, 0))
        except subprocess.TimeoutExpired:
            os.killpg(program.pid, signal.SIGKILL)
            stdout, stderr = program.communicate()
            raise OverTime(f"while it ran {' '.join(words)}\n{stdout}{stderr}") from None
        finally:
            _running.discard(program)
    return subprocess.CompletedProcess(words, program.returncode, stdout, stderr)


def clean() -> dict[str, str]:
    """The environment without this tree's packages."""
    return {
        name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV", "PYTHONHOME")
    }


SHOWN = ("numpy", "opencv", "onnxruntime", "onnx", "torch", "tensorrt_rtx", "pydantic", "typer")
_ASK = """
import importlib.metadata, json, platform
import cv2
found = {d.metadata["Name"].lower().replace("-", "_"): d.version for d in importlib.metadata.distributions()}
found |= {"python": platform.python_version(), "opencv": cv2.__version__, "tensorrt_rtx": found["tensorrt_rtx_cu13_bindings"]}
print(json.dumps(found))
"""


def versions_of(python: Path) -> dict[str, str]:
    """What a leg really had."""
    found: dict[str, str] = json.loads(run(python, "-c", _ASK))
    return {name: found.get(name, "-") for name in ("python", *SHOWN)}


def as_table(results: list[Result]) -> str:
    """Markdown: a leg a row."""
    rows = ["| leg | result | seconds | python | " + " | ".join(SHOWN) + " |", "|" + " --- |" * (len(SHOWN) + 4)]
    for result in results:
        versions = [result.versions.get(name, "").split(" ")[0].rstrip(",") for name in ("python", *SHOWN)]
        reason = f": {result.text.splitlines()[0]}" if result.status == "skipped" else ""
        rows.append(
            f"| {result.name} | {result.status}{reason} | {result.seconds:.0f} | " + " | ".join(versions) + " |"
        )
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    main()
