"""The acceptance on a GPU, run on the simulated device with the bundled model: that it works, and claims nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

from acceptance import targets
from acceptance.cases import ACCEPTANCE, Case, make_cases
from acceptance.fabricate import fabricate
from acceptance.report import SANITIZERS
from acceptance.steps import Runner, Skipped, Step
from tests.conftest import WORKER
from tests.sim.device import has_compiler
from yolov3_trt.engine.driver import installed_gpu
from yolov3_trt.files import sha256_of_file
from yolov3_trt.models import load_spec
from yolov3_trt.models.darknet_weights import weights_from_darknet

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Run:
    """An acceptance that ended, and its report as it was then."""

    out: str
    code: int
    said: str
    report: dict[str, Any]
    text: str  # the report for people


def acceptance(out: Path, *options: str, python: str = sys.executable) -> Run:
    environment = {**os.environ, "YOLOV3_TRT_SIMULATED_GPU": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "acceptance.acceptance", "--quick", "--python", python, "-o", str(out), *options]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    report, text = out / "simulated-gpu.json", out / "simulated-gpu.md"
    if not report.exists():
        return Run(str(out), result.returncode, result.stderr, {}, "")
    return Run(str(out), result.returncode, result.stderr, json.loads(report.read_text()), text.read_text())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of all steps; processes that share the tests share it too."""
    if not has_compiler():
        pytest.skip("g++ is not installed: nothing compiles the simulation")
    folder = tmp_path_factory.getbasetemp()
    shared = folder if WORKER is None else folder.parent
    ended = shared / "gpu-acceptance.json"
    with FileLock(shared / "gpu-acceptance.lock"):
        if not ended.exists():
            ended.write_text(json.dumps(vars(acceptance(shared / "gpu-acceptance"))))
    return Run(**json.loads(ended.read_text()))


@pytest.mark.slow
def test_every_step_runs_on_the_simulated_device(whole: Run):
    assert whole.code == 0, whole.said
    states = {step["step"]: step["state"] for step in whole.report["steps"]}
    assert {states.pop(f"sanitizer-{tool}") for tool in SANITIZERS} == {"skipped"}
    assert set(states.values()) == {"done"}
    expected = ["check-runtime", "check-torch", "parity-kernels"]
    for group, precisions in (("b1", ("fp16", "tf32")), ("d4", ("fp16",)), ("b2", ("int8",))):
        expected += [f"graphs-shapes-128-{group}", *(["kernels"] if group == "b1" else [])]
        expected += [
            f"{what}-shapes-128-{precision}-{group}" for precision in precisions for what in ("build", "parity")
        ]
        expected += [f"engines-shapes-128-{group}"]
    assert list(states) == [*expected, "torch-shapes-128-b1", "torch-shapes-128-b2"]


@pytest.mark.slow
def test_the_report_has_what_both_pythons_found(whole: Run):
    report = whole.report
    for run, least in (("parity-kernels", 30), ("parity-shapes-128-fp16-b1", 6), ("parity-shapes-128-int8-b2", 6)):
        assert report["parity"][run]["passed"] > least and report["parity"][run]["failed"] == []
    errors = report["parity"]["parity-shapes-128-int8-b2"]["recorded"]
    assert {name.split()[0] for name in errors} == {"shapes-128-int8-b2"}
    assert [row["name"] for row in report["engines"]["rows"]] == report["cases"]
    for row in report["engines"]["rows"]:
        assert row["with_graph"]["fallbacks"] == []
        assert row["without_graph"]["fallbacks"] == ["no CUDA graph: switched off"]
    assert {row["kernel"] for row in report["kernels"]["rows"]} == {"letterbox_f32", "decode_f32", "nms"}
    assert [(row["batch"], row["variant"]) for row in report["torch"]["rows"]] == [(1, "fp32"), (2, "fp32")]
    assert len(report["targets"]) == 5 and all(target["value"] > 0 for target in report["targets"])


@pytest.mark.slow
def test_the_report_says_everywhere_that_it_is_simulated(whole: Run):
    report = whole.report
    parts = [report, report["engines"], report["torch"], report["kernels"], *report["builds"].values()]
    assert all(part["simulated"] is True for part in parts)
    assert report["machine"]["gpu"] == {"name": "simulated GPU"}
    headings = [line for line in whole.text.splitlines() if line.startswith("#")]
    assert len(headings) == 7 and all(line.endswith("(simulated: no figure of a GPU)") for line in headings)
    assert "| met" not in whole.text and "missed" not in whole.text


@pytest.mark.slow
def test_what_is_done_is_kept_and_what_is_missing_is_made_again(whole: Run):
    (Path(whole.out) / "kernels.json").unlink()
    again = acceptance(Path(whole.out))
    states = {step["step"]: step["state"] for step in again.report["steps"]}
    assert again.code == 0
    assert {name for name, state in states.items() if state == "done"} == {"kernels"}
    assert {name for name, state in states.items() if state == "done before"} == {
        name for name in states if name != "kernels" and not name.startswith("sanitizer")
    }


def test_results_of_the_simulated_device_are_not_committed(tmp_path: Path):
    refused = acceptance(tmp_path / "gpu", "--commit-results")
    assert refused.code == 2 and "no result of a GPU" in refused.said
    assert not (tmp_path / "gpu").exists()


def test_a_python_that_lacks_something_says_what_to_bring(tmp_path: Path):
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    bare.chmod(0o755)
    failed = acceptance(tmp_path / "gpu", "--only", "check-runtime", "--only", "build", python=str(bare))
    assert failed.code == 1
    steps = {step["step"]: step for step in failed.report["steps"]}
    assert steps["check-runtime"]["state"] == "failed"
    assert "lacks numpy, cv2, " in steps["check-runtime"]["reason"]
    log = (tmp_path / "gpu" / "steps" / "check-runtime.log").read_text()
    assert "pip download them elsewhere" in log
    assert steps["build-shapes-128-fp16-b1"]["state"] == "failed"  # it went on
    assert "there is no such graph" in steps["build-shapes-128-fp16-b1"]["reason"]


def test_without_a_gpu_its_tests_are_skipped_with_the_reason_and_fail_in_the_acceptance():
    if installed_gpu() is not None:
        pytest.skip("this machine has a GPU")
    test = "acceptance/test_gpu_device.py::test_closing_twice_does_nothing_and_use_after_that_is_refused"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-m",
        "gpu",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:hypothesispytest",
        test,
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("YOLOV3_TRT_")}
    for is_acceptance, code, text in ((False, 0, "SKIPPED"), (True, 1, "ERROR")):
        own = {ACCEPTANCE: "1"} if is_acceptance else {}
        result = subprocess.run(command, cwd=ROOT, env={**environment, **own}, capture_output=True, text=True)
        assert result.returncode == code
        assert text in result.stdout and "this machine shows no NVIDIA GPU and driver" in result.stdout


def test_ctrl_c_ends_it_and_what_runs(tmp_path: Path):
    pid_file = tmp_path / "pid"
    environment = {**os.environ, "YOLOV3_TRT_SIMULATED_GPU": "1", "PYTHONPATH": str(ROOT), "PID_FILE": str(pid_file)}
    script = (
        "import sys\nfrom pathlib import Path\nfrom acceptance import acceptance\nfrom acceptance.steps import Step\n"
        'code = \'import os, time; open(os.environ["PID_FILE"], "w").write(str(os.getpid())); time.sleep(60)\'\n'
        "acceptance.steps = lambda wanted: [Step('long', (sys.executable, '-c', code), 60)]\n"
        "acceptance.run()"
    )
    command = [sys.executable, "-c", script, "-o", str(tmp_path)]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
    while not (pid_file.exists() and pid_file.read_text()):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert (process.returncode, said.splitlines()[-1]) == (130, "interrupted; the same command goes on from here")
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)
    assert not (tmp_path / "steps" / "long.json").exists()


# --- steps ---


def runner(out: Path, **options: Any) -> Runner:
    return Runner(out, ROOT, {}, **options)


def python_step(code: str, *made: Path, name: str = "step", limit_s: float = 30, after: tuple[str, ...] = ()) -> Step:
    return Step(name, (sys.executable, "-c", code), limit_s, made, (), after)


def test_a_step_that_fails_or_takes_too_long_does_not_stop_the_next(tmp_path: Path):
    run = runner(tmp_path)
    run.run(python_step("raise SystemExit('no such file')", name="a"))
    run.run(python_step("import time; print('busy', flush=True); time.sleep(60)", name="b", limit_s=1))
    run.run(python_step("pass", tmp_path / "missing", name="c"))
    run.run(python_step("pass", name="d"))
    run.run(Skipped("e", "no such tool"))
    assert [(record["step"], record["state"]) for record in run.records] == [
        *(("a", "failed"), ("b", "failed"), ("c", "failed"), ("d", "done"), ("e", "skipped"))
    ]
    reasons = [record["reason"] for record in run.records]
    assert reasons[0].startswith("no such file") and reasons[1].startswith("ended after 1 s")
    assert reasons[2].startswith("did not make missing") and run.failed == ["a", "b", "c"]
    assert (tmp_path / "steps" / "b.log").read_text() == "busy\n"


def test_a_step_is_done_again_after_one_that_it_builds_on(tmp_path: Path):
    first, second = python_step("1", name="a"), python_step("2", name="b", after=("a",))
    for _ in range(2):
        run = runner(tmp_path)
        for step in (first, second):
            run.run(step)
    assert [record["state"] for record in run.records] == ["done before", "done before"]
    run = runner(tmp_path)
    for step in (python_step("3", name="a"), second):  # another command
        run.run(step)
    assert [record["state"] for record in run.records] == ["done", "done"]


def test_when_the_time_is_up_nothing_begins_and_old_figures_are_gone(tmp_path: Path):
    figures = tmp_path / "figures.json"
    figures.write_text("{}")
    run = runner(tmp_path, deadline_s=0.0)
    run.run(Step("a", (sys.executable, "-c", "pass"), 30, (), (figures,)))
    assert run.records[0]["state"] == "not run" and run.failed == ["a"]
    assert not figures.exists()


def test_what_proves_most_comes_first():
    models = [("yolov3-tiny", 416), ("yolov3", 416), ("yolov3", 608)]
    names = [case.name for case in make_cases(models, ["fp16", "tf32"], [1, 8])]
    assert names == [
        *("yolov3-tiny-416-fp16-b1", "yolov3-tiny-416-tf32-b1", "yolov3-416-fp16-b1", "yolov3-416-tf32-b1"),
        "yolov3-tiny-416-fp16-d8",
        *("yolov3-tiny-416-fp16-b8", "yolov3-tiny-416-tf32-b8", "yolov3-416-fp16-b8", "yolov3-416-tf32-b8"),
        *("yolov3-608-fp16-b1", "yolov3-608-tf32-b1", "yolov3-608-fp16-b8", "yolov3-608-tf32-b8"),
    ]
    rtx = Case("shapes", 128, "fp16", 1, flavor="tensorrt_rtx")
    assert (rtx.name, rtx.group) == ("shapes-128-fp16-rtx-b1", "shapes-128-rtx-b1")
    work = Path("work")
    assert Case("shapes", 128, "tf32", 1).graph(work) == Case("shapes", 128, "fp32", 1).graph(work)


# --- weights ---


def test_fabricated_weights_find_a_few_objects_as_a_trained_network_does(tmp_path: Path):
    from yolov3_trt.reference import module_from_spec, run_module

    spec = load_spec("yolov3-tiny").with_input_hw((192, 192))
    images = np.random.default_rng(0).random((2, 3, 192, 192), np.float32)
    contents = set()
    for name in ("a", "b"):
        fabricate(spec, images, tmp_path / name)
        contents.add(sha256_of_file(tmp_path / name))
    assert len(contents) == 1  # seeded
    heads = run_module(module_from_spec(spec, weights_from_darknet(spec, tmp_path / "a").arrays), images)
    for head, values in zip(spec.heads, heads, strict=True):
        logits = np.asarray(values).reshape(2, len(head.anchors_wh), 85, -1)
        assert abs((logits[:, :, 4] > 0).sum() / 2 - 6) <= 3  # a few boxes of a picture are objects
        assert 0.2 <= (logits[:, :, 5:] > 0).sum(axis=2).mean() <= 1.5
        np.testing.assert_allclose(logits[:, :, 4].std(axis=(0, 2)), 2.0, rtol=0.01)


# --- targets ---


def engine_row(**changes: Any) -> dict[str, Any]:
    figures = {
        "latency_ms": {"p50": 2.0, "p99": 2.2},
        "cpu_share_of_a_core": 0.35,
        "device_stages_ms": {"preprocess": 0.03, "network": 1.5, "postprocess": 0.04},
    }
    return {"model": "m", "side": 416, "precision": "fp16", "batch": 1, "with_graph": figures, **changes}


def torch_row(variant: str, p50: float) -> dict[str, Any]:
    return {"subject": "m-416", "batch": 1, "variant": variant, "latency_ms": {"p50": p50}}


def test_targets_are_judged_for_the_fp16_engine_at_batch_1():
    peers = [
        torch_row("cuda", 7.0),
        torch_row("cuda+fp16+compile", 2.4),
        {**torch_row("cuda+fp16", 1.0), "failed": "no"},
    ]
    judged = list(targets.judge([engine_row(), engine_row(batch=8), engine_row(precision="int8")], peers))
    # 7 / 2, 2.4 / 2, (0.03 + 0.04) ms, 2.2 / 2, 0.35
    assert [round(row["value"], 6) for row in judged] == [3.5, 1.2, 70.0, 1.1, 35.0]
    assert [row["met"] for row in judged] == [True, False, True, True, False]
    assert judged[1]["target"] == "FP16 end to end against the best PyTorch >= 1.3x"


def test_what_was_not_measured_is_neither_met_nor_missed():
    (*against_torch, stages, _, _) = targets.judge([engine_row()], [])
    assert [row["met"] for row in against_torch] == [None, None] and stages["met"] is True
    assert all(row["met"] is None for row in targets.judge([{**engine_row(), "with_graph": None}], []))
