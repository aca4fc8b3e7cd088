"""The acceptance on a GPU, in one command: graphs, engines, parity, figures, and a report of them.

    python -m acceptance.acceptance --python PY --torch-python PY -o OUT

PY has TensorRT and pycuda, and may be another Python than the one with PyTorch. Run again, it goes on where it stopped: what is
done and whole is kept. It ends with 1 if a step failed; a target that is missed is only reported. See docs/gpu.md.
"""

import argparse
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from acceptance import report
from acceptance.cases import ACCEPTANCE, PRECISIONS, SIMULATED, SOONEST, WORK, Case, load_cases, make_cases, save_cases
from acceptance.steps import Runner, Skipped, Step, say

ROOT = Path(__file__).parents[1]
_LONGEST_S = 590.0  # of a step: a lent machine may allow ten minutes a command
_MODELS = "yolov3-tiny:416,yolov3:416,yolov3:608"  # what is soonest done comes first
# Of --quick: the bundled model, each kind of thing once.
_QUICK_CASES = (
    Case("shapes", 128, "fp16", 1),
    Case("shapes", 128, "tf32", 1),
    Case("shapes", 128, "fp16", 4, dynamic=True),
    Case("shapes", 128, "int8", 2),
)
_QUICK_SECONDS = 0.1
_QUICK_VARIANTS = "fp32"


@dataclass(frozen=True)
class Wanted:
    """What the command line asks for."""

    python: str
    torch_python: str
    out: Path
    cases: tuple[Case, ...]
    seconds: float  # of each measurement
    quick: bool = False

    @property
    def work(self) -> Path:
        """Folder of graphs and engines."""
        return self.out / "work"

    def module(self, python: str, name: str, *arguments: str) -> tuple[str, ...]:
        """A command that runs a module of this folder."""
        return (python, "-m", f"acceptance.{name}", *arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    if options.commit_results and SIMULATED:
        say("--commit-results: what the simulated device gives is no result of a GPU; run on one")
        return 2
    if options.commit_results and options.quick:
        say("--commit-results with --quick: a moment each is no result; leave one of them out")
        return 2
    wanted = _wanted(options)
    wanted.work.mkdir(parents=True, exist_ok=True)
    if not (wanted.work / "cases.json").exists() or tuple(load_cases(wanted.work)) != wanted.cases:
        save_cases(wanted.cases, wanted.work)
    deadline_s = None if options.stop_after is None else time.monotonic() + options.stop_after
    runner = Runner(wanted.out, ROOT, _environment(wanted.work), deadline_s)
    for step in steps(wanted):
        if options.only is None or step.name.startswith(tuple(options.only)):
            runner.run(step, again=options.again)
    paths = report.write(wanted.out, runner.records, wanted.cases)
    say(report.table(("step", "state", "s", "reason"), [tuple(map(str, row.values())) for row in runner.records]))
    say(f"report: {', '.join(map(str, paths))}")
    if options.commit_results:
        for path in paths:
            shutil.copy(path, ROOT / "docs" / "results")
            say(f"{ROOT / 'docs' / 'results' / path.name}: written")
    return 1 if runner.failed else 0


def steps(wanted: Wanted) -> Iterator[Step | Skipped]:
    """All of them in order; later ones are made of what earlier ones found out.

    What proves most in the least time comes first, as a lent GPU may be gone soon: the kernels, which need no TensorRT; then
    the smallest model from its graph to its figures, one engine after the other; a batch that varies, larger ones; PyTorch;
    the other models; and the sanitizer.
    """
    out, python = wanted.out, wanted.python
    for role, path in (("runtime", python), ("torch", wanted.torch_python)):
        found = out / f"python-{role}.json"
        yield Step(f"check-{role}", wanted.module(path, "check", role, "--json", str(found)), 180, (), (found,))
    yield _tests(wanted, "parity-kernels", ("test_gpu_kernels.py", "test_gpu_device.py"))
    soonest = list(dict.fromkeys(case.subject for case in wanted.cases))[:SOONEST]
    groups = list(_groups(wanted).items())
    for is_soon in (True, False):
        wave = [(group, cases) for group, cases in groups if (cases[0].subject in soonest) is is_soon]
        for group, cases in wave:
            yield from _engines(wanted, group, cases, is_first=group == groups[0][0])
        for group, cases in wave:
            if not cases[0].dynamic and cases[0].flavor == "tensorrt":
                yield _timed(wanted, "torch", group, (f"graphs-{group}",))
    for tool in report.SANITIZERS:
        yield _sanitizer(wanted, tool)


def _engines(wanted: Wanted, group: str, cases: list[Case], is_first: bool) -> Iterator[Step]:
    """The engines of a group, each from its build to its parity, and their figures."""
    out, work, python = wanted.out, wanted.work, wanted.python
    graphs = f"graphs-{group}"
    yield _graphs(wanted, group, cases, report.tensorrt_major(out))
    if is_first:
        figures = out / "kernels.json"
        command = wanted.module(python, "kernels", "--work", str(work), "--group", group, "--json", str(figures))
        yield Step("kernels", command, _LONGEST_S, (), (figures,), (graphs,))
    builds = []
    for case in cases:
        builds.append(f"build-{case.name}")
        told = out / "builds" / f"{case.name}.json"
        told.parent.mkdir(parents=True, exist_ok=True)
        command = _build(wanted, case, told)
        yield Step(builds[-1], command, _LONGEST_S, (case.engine(work),), (told,), (graphs,))
        tests = _tests(wanted, f"parity-{case.name}", ("test_gpu_runtime.py",), "-k", case.name)
        yield replace(tests, after=(builds[-1],))
    yield _timed(wanted, "engines", group, tuple(builds))


def _timed(wanted: Wanted, kind: str, group: str, after: tuple[str, ...]) -> Step:
    """Engines or PyTorch, measured."""
    figures = wanted.out / f"{kind}-{group}.json"
    options = [
        "--work",
        str(wanted.work),
        "--group",
        group,
        "--json",
        str(figures),
        "--seconds",
        str(wanted.seconds),
    ]
    if kind == "torch" and wanted.quick:
        options += ["--variants", _QUICK_VARIANTS]
    python, name = (wanted.torch_python, "torch_reference") if kind == "torch" else (wanted.python, "engines")
    return Step(figures.stem, wanted.module(python, name, *options), _LONGEST_S, (), (figures,), after)


def _graphs(wanted: Wanted, group: str, cases: list[Case], tensorrt_major: int | None) -> Step:
    rest = "fp32" if tensorrt_major == 8 else "fp16"  # of INT8: TensorRT 8 takes float32 scales only
    made = [path for case in cases for path in (case.graph(wanted.work), case.expected(wanted.work))]
    options = ("--work", str(wanted.work), "--group", group, "--rest", rest)
    command = wanted.module(wanted.torch_python, "graphs", *options)
    return Step(f"graphs-{group}", command, _LONGEST_S, tuple(dict.fromkeys(made)))


def _groups(wanted: Wanted) -> dict[str, list[Case]]:
    groups: dict[str, list[Case]] = {}
    for case in wanted.cases:
        groups.setdefault(case.group, []).append(case)
    return groups


def _build(wanted: Wanted, case: Case, json_path: Path) -> tuple[str, ...]:
    graph, files = str(case.graph(wanted.work)), ("-o", str(case.engine(wanted.work)), "--json", str(json_path))
    if SIMULATED:
        return wanted.module(wanted.python, "stand_in", graph, *files)
    how = ["--flavor", case.flavor, *(["--tf32", "true"] if case.precision == "tf32" else [])]
    if case.flavor == "tensorrt":
        how += ["--timing-cache", str(wanted.work / "timing-cache")]
    return (wanted.python, "-m", "yolov3_trt", "build", graph, *files, *how)


def _tests(wanted: Wanted, name: str, files: tuple[str, ...], *chosen: str) -> Step:
    result = wanted.out / f"{name}.xml"
    # The project's own options want plugins that a Python with TensorRT may lack; Hypothesis only takes seconds to import.
    options = (
        "-ra -q -o addopts=--strict-markers -o junit_family=xunit1 -p no:cacheprovider -p no:hypothesispytest".split()
    )
    paths = [f"acceptance/{file}" for file in files]
    command = (wanted.python, "-m", "pytest", "-m", "gpu", *options, f"--junitxml={result}", *chosen, *paths)
    return Step(name, command, _LONGEST_S, (), (result,))


def _sanitizer(wanted: Wanted, name: str) -> Step | Skipped:
    tool = shutil.which("compute-sanitizer") or shutil.which("/usr/local/cuda/bin/compute-sanitizer")
    if SIMULATED or tool is None:
        reason = "the simulated device is no GPU" if SIMULATED else "compute-sanitizer is not installed or not on PATH"
        return Skipped(f"sanitizer-{name}", reason)
    check = (tool, "--tool", name, "--target-processes", "all", "--error-exitcode", "9")
    # 210 sizes of frames take too long under it, and the others go the same ways.
    tests = _tests(wanted, f"sanitizer-{name}", ("test_gpu_kernels.py",), "-k", "not any_size")
    return replace(tests, command=(*check, *tests.command))


def _environment(work: Path) -> dict[str, str]:
    """Of the steps: this checkout's modules, from whatever Python."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {ACCEPTANCE: "1", WORK: str(work), "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}


def _wanted(options: argparse.Namespace) -> Wanted:
    models = [(name, int(side)) for name, _, side in (text.partition(":") for text in options.models.split(","))]
    batches = [int(batch) for batch in options.batches.split(",")]
    cases = _QUICK_CASES if options.quick else tuple(make_cases(models, options.precisions.split(","), batches))
    if options.rtx:  # as it runs on the first case, in a plan of its own
        cases = (cases[0], replace(cases[0], flavor="tensorrt_rtx"), *cases[1:])
    seconds = _QUICK_SECONDS if options.quick else options.seconds
    python, torch_python = (_program(name) for name in (options.python, options.torch_python or options.python))
    return Wanted(python, torch_python, options.output.absolute(), cases, seconds, options.quick)


def _program(name: str) -> str:
    """A program as the steps find it, which do not run where the command was given; a venv's is a link, and stays one."""
    return str(Path(name).absolute()) if os.sep in name else name


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable, help="has TensorRT, pycuda and pytest")
    parser.add_argument("--torch-python", help="has PyTorch, onnx and ONNX Runtime; default: the same")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/gpu"), help="folder of all that is made")
    parser.add_argument("--models", metavar="NAME:SIDE,...", default=_MODELS, help=f"default: {_MODELS}")
    parser.add_argument("--batches", metavar="N,...", default="1,8", help="default: 1,8")
    parser.add_argument("--precisions", default=",".join(PRECISIONS), help=f"default: {','.join(PRECISIONS)}")
    parser.add_argument(
        "--rtx", action="store_true", help="also the first engine by TensorRT-RTX, on a GPU that it knows"
    )
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement; default: 3")
    parser.add_argument("--quick", action="store_true", help="whether it all runs: a small model, a moment each")
    parser.add_argument("--only", action="append", metavar="STEP", help="steps whose name begins so; repeatable")
    parser.add_argument("--again", action="store_true", help="do them again, also where they are done")
    parser.add_argument(
        "--stop-after", type=float, metavar="S", help="leave what is not done by then for the next call"
    )
    parser.add_argument("--commit-results", action="store_true", help="copy the report to docs/results")
    return parser


def run() -> None:
    """The command; ends the process."""
    try:
        raise SystemExit(main())
    except KeyboardInterrupt:
        say("interrupted; the same command goes on from here")
        raise SystemExit(130) from None


if __name__ == "__main__":
    run()
