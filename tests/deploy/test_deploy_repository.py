"""A model repository on disk: what `deploy triton` writes, refuses and leaves when it is killed. No server needed."""

import json
import multiprocessing
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
import pytest

from tests.cli_runner import call, files_in
from yolov3_trt.backends.triton.contract import META_KEY, Variant
from yolov3_trt.backends.triton.model_config import ModelConfig, config_from_text, parameters_of
from yolov3_trt.cli.deploy import VariantChoice
from yolov3_trt.deploy import repository
from yolov3_trt.deploy.deployment import plan_deployments
from yolov3_trt.deploy.repository import add_version
from yolov3_trt.deploy.triton import ServedModel, Serving
from yolov3_trt.errors import BackendError, MetaError
from yolov3_trt.files import sha256_of_file
from yolov3_trt.meta import (
    Batch,
    EngineMeta,
    InputStage,
    ModelMeta,
    load_engine_meta,
    load_model_meta,
    meta_from_spec,
    save_sidecar,
)
from yolov3_trt.models import load_spec

pytest.importorskip("tritonclient.grpc", reason="tritonclient is not installed (extra triton)")

META = replace(meta_from_spec(load_spec("shapes"), ("circle", "square", "triangle", "star", "cross", "ring")))
DYNAMIC = replace(META, batch=Batch(1, 4, 8))


def onnx_file(path: Path, meta: ModelMeta = DYNAMIC, content: bytes = b"a graph") -> Path:
    """A file that is called an ONNX graph, with its sidecar: a repository only copies it."""
    path.write_bytes(content)
    save_sidecar(replace(meta, onnx_sha256=sha256_of_file(path)), path)
    return path


def engine_file(path: Path, flavor: str = "tensorrt", meta: ModelMeta = DYNAMIC) -> Path:
    path.write_bytes(b"a plan")
    content = EngineMeta(meta, sha256_of_file(path), 6, flavor, "10.13.3", "linux-x86_64", None, (), 1.0)
    save_sidecar(content, path)
    return path


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    return onnx_file(tmp_path / "shapes.onnx")


def served(artifact: Path, variant: Variant = Variant.PYTHON, **serving: Any) -> ServedModel:
    return ServedModel("m", load_model_meta(artifact), variant, on_gpu=False, serving=Serving(**serving))


def config_in(folder: Path) -> ModelConfig:
    return config_from_text((folder / "config.pbtxt").read_text(), "config.pbtxt")


# --- what lies where ---


def test_a_model_has_all_that_its_configuration_names(artifact: Path, tmp_path: Path):
    deployed = add_version(tmp_path / "r", artifact, served(artifact))
    assert (deployed.version, deployed.replaced_config) == (1, True)
    assert files_in(tmp_path / "r") == {
        "m",
        "m/config.pbtxt",
        "m/labels.txt",
        "m/warmup",
        "m/warmup/frame",
        "m/1",
        "m/1/model.py",
        "m/1/detector.onnx",
        "m/1/detector.onnx.json",
    }
    assert (tmp_path / "r" / "m" / "labels.txt").read_text() == "circle\nsquare\ntriangle\nstar\ncross\nring\n"
    assert load_model_meta(tmp_path / "r" / "m" / "1" / "detector.onnx") == load_model_meta(artifact)
    assert stat.S_IMODE(deployed.folder.stat().st_mode) == 0o755, "the server may be another user"


@pytest.mark.parametrize("variant, name", [(Variant.ONNXRUNTIME, "model.onnx"), (Variant.TENSORRT, "model.plan")])
def test_a_graph_or_plan_is_copied_as_it_is_with_its_sidecar(tmp_path: Path, variant: Variant, name: str):
    is_engine = variant is Variant.TENSORRT
    artifact = engine_file(tmp_path / "a.engine") if is_engine else onnx_file(tmp_path / "a.onnx")
    (deployment,) = plan_deployments([artifact], None, "auto", Serving())
    assert deployment.model.variant is variant and deployment.fallbacks == ()
    copy = add_version(tmp_path / "r", artifact, deployment.model).folder / name
    assert copy.read_bytes() == artifact.read_bytes()
    assert load_engine_meta(copy) == load_engine_meta(artifact) if is_engine else load_model_meta(artifact)


def test_the_warm_up_picture_has_something_on_it(artifact: Path, tmp_path: Path):
    folder = add_version(tmp_path / "r", artifact, served(artifact)).folder.parent
    content = (folder / "warmup" / "frame").read_bytes()
    assert int.from_bytes(content[:4], "little") == len(content) - 4, "a string as Triton writes one down"
    picture = cv2.imdecode(np.frombuffer(content[4:], np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (480, 640, 3) and picture.std() > 10


@pytest.mark.parametrize(
    "meta, num_bytes",
    [
        (DYNAMIC, 3 * 256 * 256 * 4),
        (replace(META, batch=Batch(2, 2, 2)), 2 * 3 * 256 * 256 * 4),
        (replace(DYNAMIC, input_stage=InputStage.PIXELS), 256 * 256 * 3),
        (replace(DYNAMIC, input_stage=InputStage.PIXELS, frame_hw=(48, 96)), 48 * 96 * 3),
    ],
)
def test_the_warm_up_tensor_has_the_size_of_the_input(tmp_path: Path, meta: ModelMeta, num_bytes: int):
    artifact = onnx_file(tmp_path / "a.onnx", meta)
    folder = add_version(tmp_path / "r", artifact, served(artifact, Variant.ONNXRUNTIME)).folder.parent
    content = np.fromfile(folder / "warmup" / "frame", np.uint8)
    assert content.size == num_bytes and content.std() > 10


# --- more versions ---


def test_a_new_version_keeps_the_old_one_and_takes_the_new_options(artifact: Path, tmp_path: Path):
    add_version(tmp_path / "r", artifact, served(artifact))
    other = onnx_file(tmp_path / "other.onnx", content=b"retrained")
    deployed = add_version(tmp_path / "r", other, served(other, instances=3))
    assert (deployed.version, deployed.replaced_config) == (2, True)
    folder = tmp_path / "r" / "m"
    assert (folder / "1" / "detector.onnx").read_bytes() == b"a graph"
    assert (folder / "2" / "detector.onnx").read_bytes() == b"retrained"
    config = config_in(folder)
    assert config["instance_group"][0]["count"] == 3
    assert json.loads(parameters_of(config)[META_KEY])["onnx_sha256"] == sha256_of_file(other)


def test_the_same_again_leaves_the_configuration_alone(artifact: Path, tmp_path: Path):
    add_version(tmp_path / "r", artifact, served(artifact))
    before = (tmp_path / "r" / "m" / "config.pbtxt").stat()
    assert not add_version(tmp_path / "r", artifact, served(artifact)).replaced_config
    assert (tmp_path / "r" / "m" / "config.pbtxt").stat().st_mtime_ns == before.st_mtime_ns


def test_a_model_whose_sidecar_has_the_keys_of_an_earlier_version_takes_a_new_one(artifact: Path, tmp_path: Path):
    config = add_version(tmp_path / "r", artifact, served(artifact)).folder.parent / "config.pbtxt"
    text = config.read_text()
    earlier = text.replace('\\"conf\\"', '\\"conf_threshold\\"').replace('\\"iou\\"', '\\"iou_threshold\\"')
    assert earlier != text
    config.write_text(earlier)
    assert add_version(tmp_path / "r", artifact, served(artifact)).version == 2
    assert config.read_text() == text


def test_versions_go_on_after_the_highest(artifact: Path, tmp_path: Path):
    add_version(tmp_path / "r", artifact, served(artifact))
    (tmp_path / "r" / "m" / "1").rename(tmp_path / "r" / "m" / "41")
    assert add_version(tmp_path / "r", artifact, served(artifact)).version == 42


def test_a_version_that_clients_would_notice_is_refused(artifact: Path, tmp_path: Path):
    add_version(tmp_path / "r", artifact, served(artifact))
    before = files_in(tmp_path / "r")
    other = onnx_file(tmp_path / "other.onnx", replace(DYNAMIC, class_names=("a", "b", "c", "d", "e", "f")))
    with pytest.raises(BackendError) as caught:
        add_version(tmp_path / "r", other, served(other))
    assert str(caught.value) == (
        f'{tmp_path}/r/m/config.pbtxt: the versions there and this one differ in class_names: ["circle", "square", "triangle", '
        '"star", "cross", "ring"] and ["a", "b", "c", "d", "e", "f"]; give this one another --name'
    )
    assert files_in(tmp_path / "r") == before


def test_a_version_that_takes_fewer_pictures_a_request_is_refused(artifact: Path, tmp_path: Path):
    add_version(tmp_path / "r", artifact, served(artifact))
    with pytest.raises(BackendError, match="this one differ in max_batch_size: 8 and 4; give this one another --name"):
        add_version(tmp_path / "r", artifact, served(artifact, max_batch=4))


@pytest.mark.parametrize(
    "config, text",
    [
        ('name: "m" backend: "python"', "yolov3_trt_contract: there is none: the model is not this package's"),
        ("name: [", "config.pbtxt:1:7: "),
        (None, "config.pbtxt: missing, but the model has versions; restore it"),
    ],
)
def test_a_model_of_others_is_left_alone(artifact: Path, tmp_path: Path, config: str | None, text: str):
    folder = tmp_path / "r" / "m"
    (folder / "1").mkdir(parents=True)
    if config is not None:
        (folder / "config.pbtxt").write_text(config)
    with pytest.raises((BackendError, MetaError)) as caught:
        add_version(tmp_path / "r", artifact, served(artifact))
    assert text in str(caught.value)
    assert not list((folder / "1").iterdir()) and not (folder / "2").exists()


# --- cut off ---


def test_a_failing_copy_leaves_no_version(artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    add_version(tmp_path / "r", artifact, served(artifact))
    before = files_in(tmp_path / "r")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(OSError, match="No space left on device"):
        add_version(tmp_path / "r", artifact, served(artifact))
    assert files_in(tmp_path / "r") == before


def test_an_artifact_that_changes_meanwhile_is_not_deployed(artifact: Path, tmp_path: Path):
    model = served(artifact)
    onnx_file(artifact, content=b"another graph")
    with pytest.raises(BackendError, match="it was replaced while it was copied; deploy it again"):
        add_version(tmp_path / "r", artifact, model)
    assert not (tmp_path / "r" / "m" / "1").exists()


def is_whole(folder: Path) -> bool:
    """Whether a server finds a model there that it can serve, or none; nothing in between."""
    versions = [path for path in folder.glob("*") if path.name.isdigit()]
    files = {"model.py", "detector.onnx", "detector.onnx.json"}
    complete = all({path.name for path in version.iterdir()} == files for version in versions)
    has_config = (folder / "config.pbtxt").is_file() and bool(parameters_of(config_in(folder)))
    return complete and (has_config or not versions)


@pytest.mark.slow
def test_killed_at_any_step_it_leaves_what_can_be_served(artifact: Path, tmp_path: Path):
    """A process that forks: each child dies one step later, at an audited call that touches the file system."""
    code = f"""
import itertools, os, shutil, sys
from pathlib import Path
from tests.deploy.test_deploy_repository import add_version, files_in, is_whole, repository, served

STEPS = {{"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.chmod", "shutil.copyfile", "shutil.rmtree"}}
artifact, target = Path({str(artifact)!r}), Path({str(tmp_path / "r")!r})
os.fsync = lambda _: None  # against a power cut, not a kill; and slow
repository.warmup_content = lambda _: b"a picture"

def add(instances, dying_at=None):
    left = [dying_at]
    def step(event, _):
        if event in STEPS and left[0] is not None:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), 9)
    sys.addaudithook(step)
    return add_version(target, artifact, served(artifact, instances=instances)).version

last = add(1)  # imports all that it needs
for is_new in (True, False):  # a new model, or a new version with another configuration
    for dying_at in itertools.count(1):
        if is_new:
            shutil.rmtree(target)
            last = 0
        if not (child := os.fork()):
            add(2, dying_at)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert is_whole(target / "m"), (is_new, dying_at, files_in(target))
        version = add(3)
        assert version in (last + 1, last + 2), "numbers are used up only by whole versions"
        assert is_whole(target / "m") and not list(target.rglob("*.partial")), "what the killed one left is cleared away"
        last = version
        if not status:
            break
    print(dying_at)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert min(map(int, done.stdout.split())) > 20


def _add_some(repository_path: Path, artifact: Path) -> None:
    for _ in range(3):
        add_version(repository_path, artifact, served(artifact))


def test_two_at_the_same_time_take_turns(artifact: Path, tmp_path: Path):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_add_some, args=(tmp_path / "r", artifact)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    names = {path.name for path in (tmp_path / "r" / "m").iterdir() if path.is_dir()} - {"warmup"}
    assert names == {"1", "2", "3", "4", "5", "6"}


# --- the verb ---


def test_the_choices_are_the_variants():
    assert get_args(VariantChoice) == ("auto", *(variant.value for variant in Variant))


def test_several_artifacts_become_models_named_after_their_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    paths = [onnx_file(tmp_path / "a.onnx"), engine_file(tmp_path / "b.engine")]
    assert call("deploy", "triton", *paths, "-o", tmp_path / "r", "--json", "-") == 0
    rows = json.loads(capsys.readouterr().out)["versions"]
    assert [(row["model"], row["variant"], row["version"]) for row in rows] == [
        ("a", "onnxruntime", 1),
        ("b", "tensorrt", 1),
    ]
    assert [Path(row["folder"]) for row in rows] == [tmp_path / "r" / "a" / "1", tmp_path / "r" / "b" / "1"]


def test_with_a_name_they_become_its_versions(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    paths = [onnx_file(tmp_path / "a.onnx"), onnx_file(tmp_path / "b.onnx", content=b"later")]
    assert call("deploy", "triton", *paths, "-o", tmp_path / "r", "--name", "m", "--versions", "2") == 0
    assert (tmp_path / "r" / "m" / "2" / "model.onnx").read_bytes() == b"later"
    assert config_in(tmp_path / "r" / "m")["version_policy"] == {"latest": {"num_versions": 2}}
    assert f"serve with: tritonserver --model-repository={tmp_path}/r" in capsys.readouterr().out


def test_an_engine_that_triton_cannot_load_goes_to_the_python_variant_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = engine_file(tmp_path / "a.engine", flavor="tensorrt_rtx")
    assert call("deploy", "triton", path, "-o", tmp_path / "r", "--json", "-") == 0
    out, err = capsys.readouterr()
    (row,) = json.loads(out)["versions"]
    reason = "built by tensorrt_rtx, which Triton's tensorrt backend does not load, so the python variant runs it"
    assert (row["variant"], row["fallbacks"]) == ("python", [reason]) and reason in err
    assert config_in(tmp_path / "r" / "a")["instance_group"] == [{"count": 1, "kind": "KIND_GPU", "gpus": [0]}]


@pytest.mark.parametrize(
    "name, options, text",
    [
        (
            "a.onnx",
            ("--variant", "tensorrt"),
            "Triton's tensorrt backend takes an engine; make one with: yolov3_trt build",
        ),
        ("a.engine", ("--variant", "onnxruntime"), "onnxruntime runs the .onnx, not an engine"),
        ("a.plan", ("--variant", "tensorrt"), "build it with --flavor tensorrt, or give --variant python"),
        ("a.onnx", ("--name", "../m"), "'../m' cannot name a model; expected letters, digits, _, - and . only"),
        ("a.onnx", ("--max-batch", "9"), "--max-batch 9, but it takes 1:4:8; expected at most 8"),
        ("a.txt", (), "cannot be deployed; expected an .onnx (`export`) or an .engine (`build`)"),
        ("missing.onnx", (), "there is no such file"),
    ],
)
def test_what_cannot_be_served_is_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, options: tuple[str, ...], text: str
):
    onnx_file(tmp_path / "a.onnx")
    engine_file(tmp_path / "a.engine")
    engine_file(tmp_path / "a.plan", flavor="tensorrt_rtx")
    assert call("deploy", "triton", tmp_path / name, "-o", tmp_path / "r", *options) == 1
    assert text in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


def test_without_tritonclient_it_says_what_to_install_and_writes_nothing(artifact: Path, tmp_path: Path):
    code = "import sys; sys.modules['grpc'] = None\nfrom yolov3_trt.cli import entrypoint\nentrypoint(sys.argv[1:])"
    arguments = ("deploy", "triton", artifact, "-o", tmp_path / "r")
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "grpc is not installed; run: pip install 'yolov3-trt[triton]'" in done.stderr
    assert not (tmp_path / "r").exists()


def test_ctrl_c_ends_it_cleanly(artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupted(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)

    monkeypatch.setattr(repository.shutil, "copyfile", interrupted)
    assert call("deploy", "triton", artifact, "-o", tmp_path / "r", "--variant", "python") == 130
    assert is_whole(tmp_path / "r" / "shapes") and not list(tmp_path.rglob("*.partial"))
