"""Training: learns, stops and goes on as if it had not stopped, writes what Darknet's readers read."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from tests.cli_runner import call
from tests.opencv_versions import needs_darknet_importer
from yolov3_trt.data import labelled_set
from yolov3_trt.data.conversion import FORMATS, convert_set
from yolov3_trt.data.images import load_image
from yolov3_trt.data.labelled import DataSet, LabelledSet
from yolov3_trt.data.reading import load_data_set, load_splits
from yolov3_trt.data.shapes import write_shapes_data_set
from yolov3_trt.detector import open_detector
from yolov3_trt.errors import OutputError, TrainingError
from yolov3_trt.evaluation import evaluate
from yolov3_trt.geometry import iou
from yolov3_trt.layers import Activation, Conv, Layer, Yolo
from yolov3_trt.models import load_model
from yolov3_trt.models.architectures import shapes
from yolov3_trt.models.class_names import SHAPE_NAMES
from yolov3_trt.models.darknet_cfg_text import cfg_from_spec
from yolov3_trt.models.transfer import spec_with_classes, weights_with_classes
from yolov3_trt.reference import module_from_spec
from yolov3_trt.spec import ModelSpec
from yolov3_trt.training.cfg_keys import unused_keys
from yolov3_trt.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from yolov3_trt.training.learner import initial_weights
from yolov3_trt.training.settings import Augmentation, TrainSettings
from yolov3_trt.training.train import TrainingRun
from yolov3_trt.training.watcher import Stopped, Watcher

NONE = Augmentation(0, 0, 0, 0, 0, 0, 0)


def little_spec(input_side: int = 64) -> ModelSpec:
    """One head at stride 8: enough to see a loss fall, small enough for a hundred steps a second."""

    def unit(filters: int, stride: int = 1) -> Conv:
        return Conv(filters, 3, stride, 1, batch_norm=True, bias=False, activation=Activation.LEAKY)

    layers: tuple[Layer, ...] = (unit(8, 2), unit(16, 2), unit(16, 2), Conv(2 * 11), Yolo(((10, 10), (25, 25)), 6))
    return ModelSpec("little", layers, (input_side, input_side))


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    """Twenty-four generated pictures to train on, four to validate."""
    folder = tmp_path_factory.mktemp("shapes")
    return load_data_set(write_shapes_data_set(folder, num_train=24, num_val=4, seed=5))


def start(data: DataSet, output: Path, settings: TrainSettings, spec: ModelSpec | None = None) -> TrainingRun:
    spec = spec or little_spec()
    return TrainingRun.start((spec, initial_weights(spec, settings.seed)), data, settings, output)


def stop_after(steps: int) -> Watcher:
    """Stops the run after so many of its steps."""
    seen: list[object] = []
    return Watcher(on_step=seen.append, stop=lambda: len(seen) >= steps)


def losses(history: list[dict[str, Any]]) -> np.ndarray:
    return np.array([list(entry["loss"].values()) for entry in history])


# --- learning ---


def test_what_a_cfg_says_of_training_is_told_to_be_unused():
    cfg = (
        b"[net]\nlearning_rate=0.001 # x\nmomentum=0.9\ndecay=0.1\nmax_batches = 500200\nwidth=64\n"
        + 2 * b"[yolo]\nrandom=1\n"
    )
    assert list(unused_keys(cfg, TrainSettings(epochs=7))) == [
        "learning_rate=0.001 of the cfg is not used: learning_rate=0.005 is",
        "decay=0.1 of the cfg is not used: 0.0005 is",
        "max_batches=500200 of the cfg is not used: epochs=7 is",
        "random=1 of the cfg is not used: all pictures come at the cfg's width and height",
    ]
    assert not list(unused_keys(b"[yolo]\nrandom=0\n", TrainSettings()))


def test_every_format_trains_the_same_weights(few: DataSet, tmp_path: Path):
    splits, _ = load_splits(few.path)
    settings = TrainSettings(epochs=1, batch_size=8, warmup_epochs=0)
    start(few, tmp_path / "run", settings).run()
    weights = {(tmp_path / "run/little.weights").read_bytes()}
    for name in FORMATS:
        data = load_data_set(convert_set(splits, name, tmp_path / name, link=True).path)
        start(data, tmp_path / f"{name}-run", settings).run()
        weights.add((tmp_path / f"{name}-run/little.weights").read_bytes())
    assert len(weights) == 1


@pytest.mark.slow
def test_one_batch_is_learnt_by_heart(tmp_path: Path):
    folder = tmp_path / "data"
    write_shapes_data_set(folder, num_train=4, num_val=1, seed=3)
    data = load_data_set(folder / "data.yaml")
    often = LabelledSet(data.path, data.train * 25, data.class_names)  # 25 steps an epoch
    data = replace(data, training=often, validation=data.training)  # accuracy on the very pictures
    settings = TrainSettings(
        epochs=8,
        batch_size=4,
        learning_rate=0.003,
        warmup_epochs=0.5,
        val_every=8,
        **asdict(NONE),
        average_decay=0.95,
    )
    history = start(data, tmp_path / "run", settings, shapes(input_hw=(192, 192))).run()
    assert losses(history)[-1].sum() < losses(history)[0].sum() / 10
    assert history[-1]["AP50"] == 1.0


@pytest.mark.parametrize("box_loss", ["ciou", "coordinates"])
def test_the_command_line_trains_and_says_what_it_reached(
    few: DataSet, tmp_path: Path, capsys: pytest.CaptureFixture[str], box_loss: str
):
    cfg = tmp_path / "little.cfg"
    cfg.write_text(cfg_from_spec(little_spec()))
    run = tmp_path / "run"
    args = ("train", "--data", few.path, "--model", cfg, "--from-scratch", "--epochs", "2", "--batch-size", "8")
    assert call(*args, "--box-loss", box_loss, "-o", run, "--json", "-") == 0
    out, err = capsys.readouterr()
    content = json.loads(out)
    assert [entry["epoch"] for entry in content["history"]] == [1, 2]
    assert content["best"]["AP"] is not None
    assert "little: random weights, seed 0" in err
    assert "24 pictures to train on, 4 to validate; 2 epochs of 3 steps on cpu" in err
    assert {path.name for path in run.iterdir()} == {
        *("checkpoint.pt", "history.json", "little.cfg", "little.names", "little.weights", "little-last.weights")
    }
    assert json.loads((run / "history.json").read_text()) == content["history"]
    assert load_model(run / "little.cfg").class_names == SHAPE_NAMES


# --- stopping and going on ---


@pytest.mark.parametrize("steps", [1, 3, 4, 8])
def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(few: DataSet, tmp_path: Path, steps: int):
    settings = TrainSettings(epochs=3, batch_size=8, learning_rate=0.02)  # 3 steps an epoch
    expected = start(few, tmp_path / "whole", settings).run()
    with pytest.raises(Stopped):
        start(few, tmp_path / "parts", settings).run(stop_after(steps))
    resumed = TrainingRun.resume(tmp_path / "parts", few)
    assert resumed.step == steps
    got = resumed.run()
    np.testing.assert_allclose(losses(got), losses(expected), rtol=1e-4)
    assert [entry["AP"] for entry in got] == pytest.approx([entry["AP"] for entry in expected], abs=1e-3)
    same = (tmp_path / "whole/little-last.weights", tmp_path / "parts/little-last.weights")
    whole, parts = (np.frombuffer(path.read_bytes()[20:], "<f4") for path in same)
    np.testing.assert_allclose(parts, whole, rtol=1e-3, atol=1e-5)


def test_a_run_stopped_during_validation_validates_when_it_goes_on(few: DataSet, tmp_path: Path):
    settings = TrainSettings(epochs=1, batch_size=8)
    asked: list[int] = []

    def stop_at_second_picture() -> bool:  # 3 steps, then pictures
        asked.append(1)
        return len(asked) == 5

    with pytest.raises(Stopped):
        start(few, tmp_path, settings).run(Watcher(stop=stop_at_second_picture))
    resumed = TrainingRun.resume(tmp_path, few)
    assert (resumed.step, resumed.history) == (3, [])
    (entry,) = resumed.run()
    assert entry["AP"] is not None and losses([entry]).all()


def test_the_command_line_goes_on_with_a_stopped_run(few: DataSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run = tmp_path / "run"
    with pytest.raises(Stopped):
        start(few, run, TrainSettings(epochs=2, batch_size=8)).run(stop_after(4))
    assert call("train", "--data", few.path, "--resume", run, "--json", "-") == 0
    out, err = capsys.readouterr()
    assert f"resuming {run}: 1 of 2 epochs done, step 4" in err
    assert [entry["step"] for entry in json.loads(out)["history"]] == [3, 6]


def train_in_another_process(few: DataSet, cfg: Path, run: Path) -> "subprocess.Popen[str]":
    args = ("train", "--data", few.path, "--model", cfg, "--from-scratch", "--epochs", "40", "--batch-size", "8")
    # A CI may run tests in the background, where a shell lets children ignore Ctrl-C.
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from yolov3_trt.cli import entrypoint\nentrypoint()"
    )
    command = [sys.executable, "-c", code, *map(str, args), "--val-every", "20", "-o", str(run)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def little_cfg(tmp_path: Path) -> Path:
    path = tmp_path / "little.cfg"
    path.write_text(cfg_from_spec(little_spec()))
    return path


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGTERM,
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),  # the same way, see tests/cli/test_ending.py
        pytest.param(signal.SIGKILL, marks=pytest.mark.slow),  # see tests/test_kills.py too
    ],
    ids=lambda number: number.name,
)
def test_a_signal_leaves_a_checkpoint_to_go_on_from(
    few: DataSet, tmp_path: Path, little_cfg: Path, number: signal.Signals
):
    run = tmp_path / "run"
    process = train_in_another_process(few, little_cfg, run)
    assert process.stderr is not None
    lines = [process.stderr.readline()]
    while not lines[-1].startswith("epoch 2/"):
        lines.append(process.stderr.readline())
    process.send_signal(number)
    _, rest = process.communicate(timeout=60)
    if number == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 128 + number
        assert f"stopped; go on with: yolov3_trt train --data {few.path} --resume {run}" in rest
    resumed = TrainingRun.resume(run, few)
    assert resumed.step >= 6 and len(resumed.history) >= 2
    with pytest.raises(Stopped):
        resumed.run(stop_after(4))
    settings = replace(resumed.settings, epochs=40)
    whole = start(few, tmp_path / "whole", settings)
    with pytest.raises(Stopped):
        whole.run(stop_after(resumed.step))
    np.testing.assert_allclose(losses(resumed.history), losses(whole.history), rtol=1e-3)


def test_a_kill_while_the_checkpoint_is_written_leaves_the_earlier_one(few: DataSet, tmp_path: Path):
    # The writing itself, stopped half-way: what `replacing` promises, seen from here.
    run = start(few, tmp_path, TrainSettings(epochs=2, batch_size=8))
    before = (tmp_path / "checkpoint.pt").read_bytes()
    code = (
        "import os, torch\nfrom pathlib import Path\nfrom yolov3_trt.training import checkpoint\n"
        "real = torch.save\n"
        "def half(content, path):\n    real(content, path)\n    os.truncate(path, 1000)\n    os.kill(os.getpid(), 9)\n"
        "torch.save = half\n"
        f"path = Path({str(tmp_path)!r}) / 'checkpoint.pt'\n"
        "checkpoint.save_checkpoint(checkpoint.load_checkpoint(path), path)"
    )
    killed = subprocess.run([sys.executable, "-c", code], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert TrainingRun.resume(tmp_path, few).step == run.step == 0


# --- refusals ---


def test_a_folder_with_a_run_is_not_begun_again(few: DataSet, tmp_path: Path):
    start(few, tmp_path, TrainSettings(epochs=1))
    with pytest.raises(TrainingError, match=f"{tmp_path}: there is a run here already; go on with resume="):
        start(few, tmp_path, TrainSettings(epochs=1))


def test_a_run_does_not_go_on_with_other_data(few: DataSet, tmp_path: Path):
    start(few, tmp_path, TrainSettings(epochs=1))
    with pytest.raises(TrainingError, match=r"has changed since this run began .* weights='.*little-last\.weights"):
        TrainingRun.resume(tmp_path, replace(few, training=LabelledSet(few.path, few.train[1:], few.class_names)))


@pytest.mark.parametrize(
    "content, reason",
    [(None, "there is no checkpoint"), (b"junk", "not a checkpoint of this program, or damaged")],
    ids=["missing", "junk"],
)
def test_a_checkpoint_that_cannot_be_read(few: DataSet, tmp_path: Path, content: bytes | None, reason: str):
    if content is not None:
        (tmp_path / "checkpoint.pt").write_bytes(content)
    with pytest.raises(TrainingError, match=reason):
        TrainingRun.resume(tmp_path, few)


def test_only_what_reads_the_state_calls_a_checkpoint_damaged(
    few: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    start(few, tmp_path, TrainSettings(epochs=1))

    def fails_with(error: Exception) -> Callable[..., Any]:
        def fail(*args: Any, **kwargs: Any) -> Any:
            raise error

        return fail

    full, other = torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("no threads left")
    for place, error, expected in (
        ("Learner.restore", KeyError("scale"), TrainingError),
        ("Learner.restore", full, torch.OutOfMemoryError),
        ("Batches.__init__", other, RuntimeError),
    ):
        with monkeypatch.context() as patch, pytest.raises(expected) as caught:
            patch.setattr(f"yolov3_trt.training.train.{place}", fails_with(error))
            TrainingRun.resume(tmp_path, few)
        assert ("its checkpoint is damaged (KeyError" in str(caught.value)) == (expected is TrainingError)


def test_a_checkpoint_runs_no_code(tmp_path: Path):
    class Harmful:
        def __reduce__(self) -> tuple[Any, ...]:
            return (os.mkdir, (str(tmp_path / "harm"),))

    torch.save({"format": 2, "settings": Harmful()}, tmp_path / "checkpoint.pt")
    with pytest.raises(TrainingError, match="not a checkpoint of this program, or damaged"):
        load_checkpoint(tmp_path / "checkpoint.pt")
    assert not (tmp_path / "harm").exists()


def test_a_checkpoint_of_another_program_is_refused(tmp_path: Path):
    torch.save({"model": torch.zeros(3)}, tmp_path / "checkpoint.pt")
    with pytest.raises(TrainingError, match="not a checkpoint of this version"):
        load_checkpoint(tmp_path / "checkpoint.pt")


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"name": "../../PWNED"}, "name is '../../PWNED', which names no file"),
        ({"name": "/home/me/yolov3"}, "name is '/home/me/yolov3', which names no file"),
        ({"name": ".bashrc"}, "name is '.bashrc', which names no file"),
        ({"cfg": ["[net]"]}, "cfg is no str"),
        ({"class_names": [1]}, "class_names holds something else"),
        ({"network": {"a": 1.0}}, "network holds something else than tensors"),
        ({"step": True}, "step is no int"),
    ],
)
def test_a_checkpoint_with_another_name_or_type_inside_is_refused(tmp_path: Path, change: dict[str, Any], reason: str):
    fields = {
        "settings": {}, "cfg": "", "name": "m", "class_names": ["a"], "fingerprint": "", "step": 0, "network": {},
        "average": {}, "optimizer": {}, "scaler": {}, "sums": [0.0], "history": [],
    }  # fmt: skip
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(Checkpoint(**fields), path)
    assert load_checkpoint(path).name == "m"
    save_checkpoint(Checkpoint(**{**fields, **change}), path)
    with pytest.raises(TrainingError) as caught:
        load_checkpoint(path)
    assert f"({reason})" in str(caught.value)


def test_a_checkpoint_that_the_disk_does_not_hold_is_an_error_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(content: Any, path: Path) -> None:
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 962368 vs 962256")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OutputError, match="cannot be written"):
        save_checkpoint(Checkpoint({}, "", "m", [], "", 0, {}, {}, {}, {}, [], []), tmp_path / "checkpoint.pt")
    assert not list(tmp_path.iterdir())


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_the_weights(few: DataSet, tmp_path: Path):
    settings = TrainSettings(epochs=5, batch_size=8, learning_rate=1e18, gradient_norm=1e30, warmup_epochs=0)
    with pytest.raises(TrainingError, match=r"the loss is not a number any more at step .* lower learning_rate="):
        start(few, tmp_path, settings).run()
    assert all(torch.isfinite(tensor).all() for tensor in load_checkpoint(tmp_path / "checkpoint.pt").network.values())


def test_classifiers_and_other_class_counts_are_refused(few: DataSet, tmp_path: Path):
    classifier = ModelSpec("classifier", (Conv(6, 3, 2, 1),), (64, 64))
    with pytest.raises(TrainingError, match="classifier: a classifier; only detectors"):
        start(few, tmp_path, TrainSettings(), classifier)
    other = ModelSpec("other", (Conv(2 * 7, 8, 8), Yolo(((10, 10), (25, 25)), 2)), (64, 64))
    with pytest.raises(TrainingError, match=r"other: 2 classes; .* has 6"):
        start(few, tmp_path, TrainSettings(), other)


@pytest.mark.parametrize(
    "args, message",
    [
        (("--resume", ".", "--epochs", "5"), "given with resume, which takes everything from the checkpoint"),
        ((), "expected a built-in model or a .cfg"),
        (("--model", "shapes", "--from-scratch", "--weights", "x.weights"), "given with weights; give one of them"),
    ],
    ids=["resume-and-epochs", "no-model", "scratch-and-weights"],
)
def test_wrong_usage_exits_with_2(
    few: DataSet, capsys: pytest.CaptureFixture[str], args: tuple[str, ...], message: str
):
    assert call("train", "--data", few.path, *args) == 2
    assert message in " ".join(capsys.readouterr().err.replace("│", " ").split())


def test_faults_of_a_data_set_are_all_named_before_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = tmp_path / "data"
    write_shapes_data_set(folder, num_train=3, num_val=1, seed=1)
    (folder / "labels/train/000000.txt").write_text("9 0.5 0.5 0.1 0.1\n")
    (folder / "labels/train/000001.txt").write_text("0 0.5 0.5 0.1 0.1\n1 1.5 0.5 0.1 0.1\n")
    (folder / "labels/train/000002.txt").write_text("")
    run = tmp_path / "run"
    assert call("train", "--data", folder / "data.yaml", "--model", "shapes", "--from-scratch", "-o", run) == 1
    err = capsys.readouterr().err
    assert f"note: {folder}/labels/train/000002.txt:1: is empty; its picture counts as background" in err
    assert f"{folder}/labels/train/000000.txt:1:" in err and f"{folder}/labels/train/000001.txt:2:" in err
    assert err.splitlines()[-1].startswith(f"yolov3_trt: {folder}/data.yaml:")
    assert not run.exists()


# --- what comes out ---


@pytest.fixture(scope="module")
def trained(few: DataSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cfg whose weights have been trained for a moment, from the bundled ones."""
    output = tmp_path_factory.mktemp("trained")
    model = load_model("shapes")
    settings = TrainSettings(epochs=1, batch_size=8, learning_rate=1e-3)
    TrainingRun.start((model.spec, model.weights), few, settings, output).run()
    return output / "shapes.cfg"


def test_a_trained_checkpoint_and_its_darknet_files_detect_the_same(few: DataSet, trained: Path):
    checkpoint = load_checkpoint(trained.with_name("checkpoint.pt"))
    average = {key: value.numpy() for key, value in checkpoint.average.items()}
    network = module_from_spec(shapes(), average)
    loaded = load_model(trained, trained.with_name("shapes-last.weights"))
    for key, value in module_from_spec(loaded.spec, loaded.weights).state_dict().items():
        assert torch.equal(value, network.state_dict()[key]), key
    assert loaded.spec.layers == shapes().layers and loaded.class_names == SHAPE_NAMES


@needs_darknet_importer
def test_opencv_reads_the_trained_network_and_detects_the_same(few: DataSet, trained: Path):
    side = 256
    net = cv2.dnn.readNetFromDarknet(str(trained), str(trained.with_suffix(".weights")))
    with open_detector(trained, conf=0.25) as detector:
        compared = 0
        for file in few.train[:12]:
            picture = cv2.resize(load_image(file.path), (side, side))  # needs no resize in either program
            net.setInput(cv2.dnn.blobFromImage(picture, 1 / 255, (side, side), swapRB=True))
            rows = np.concatenate(net.forward(net.getUnconnectedOutLayersNames()))  # cx, cy, w, h, objectness, scores
            corners = np.concatenate([rows[:, :2] - rows[:, 2:4] / 2, rows[:, :2] + rows[:, 2:4] / 2], axis=1) * side
            for found in detector(picture):
                scores = rows[:, 5 + found.class_id]
                overlap = iou(np.float32([found.xyxy]), corners.clip(0, side).astype(np.float32))
                twin = np.where(np.abs(scores - found.score) <= 0.01, overlap, 0).max()
                assert twin >= 0.95, found
                compared += 1
    assert compared > 20


def test_other_classes_get_new_heads_and_it_is_said(few: DataSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    names = "".join(f"  {class_id}: {name}\n" for class_id, name in enumerate([*SHAPE_NAMES[:5], "torus", "moon"]))
    data = few.path.with_name("seven.yaml")
    data.write_text(f"train: images/train\nval: images/val\nnames:\n{names}")
    args = ("train", "--data", data, "--model", "shapes", "--epochs", "1", "--batch-size", "8", "--input-size", "128")
    assert call(*args, "-o", tmp_path / "run") == 0
    err = capsys.readouterr().err
    assert f"shapes: starts from {load_model('shapes').weights_path}" in err
    assert (
        "shapes: heads made anew for 7 classes instead of 6; boxes and objectness are kept, so are the classes of the same "
        "name: circle, square, triangle, star, cross; new: torus, moon"
    ) in err
    trained = load_model(tmp_path / "run/shapes.cfg")
    assert trained.spec.num_classes == 7 and trained.spec.input_hw == (128, 128)
    assert trained.class_names[5:] == ("torus", "moon")


def test_a_generated_data_set_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert call("shapes", "-o", tmp_path / "made", "--train", "3", "--val", "2", "--seed", "9") == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "made/data.yaml")
    made = load_data_set(tmp_path / "made/data.yaml")
    assert (len(made.train), len(made.val), made.class_names) == (3, 2, SHAPE_NAMES)


# --- the bundled model ---


def test_the_bundled_model_is_small_and_was_trained_as_its_readme_says():
    model = load_model("shapes")
    assert model.weights_path.stat().st_size < 2 * 2**20
    assert model.class_names == SHAPE_NAMES
    assert len(model.spec.heads) == 3 and model.spec.input_hw == (256, 256)


def test_the_bundled_model_finds_shapes_it_has_never_seen(tmp_path: Path):
    # 60 pictures for a test of seconds; `yolov3_trt demo` and docs/training.md have the figures of 500.
    write_shapes_data_set(tmp_path, num_train=1, num_val=60, seed=424242)
    with open_detector("shapes", conf=0.005) as detector:
        metrics = evaluate(detector, labelled_set(tmp_path / "data.yaml").truth_for(SHAPE_NAMES))
    assert metrics["AP50"] > 0.93 and metrics["AP"] > 0.68


# --- real data ---


def two_classes_of_coco(data: Path, folder: Path) -> Path:
    """A data set of COCO val64 with the labels of persons and chairs only: every other picture to train on."""
    keep = {0: 0, 56: 1}
    for position, picture in enumerate(sorted((data / "coco/val64/images").iterdir())):
        part = ("train", "val")[position % 2]
        for kind in ("images", "labels"):
            (folder / kind / part).mkdir(parents=True, exist_ok=True)
        (folder / "images" / part / picture.name).symlink_to(picture)
        source = data / "coco/val64/labels" / f"{picture.stem}.txt"
        rows = [line.split() for line in source.read_text().splitlines()] if source.exists() else []
        text = "".join(f"{' '.join([str(keep[int(row[0])]), *row[1:]])}\n" for row in rows if int(row[0]) in keep)
        (folder / "labels" / part / f"{picture.stem}.txt").write_text(text)
    path = folder / "data.yaml"
    path.write_text("train: images/train\nval: images/val\nnames: [person, chair]\n")
    return path


@pytest.mark.slow
def test_fine_tuning_a_real_model_on_two_classes_lowers_the_loss_and_keeps_the_accuracy(data: Path, tmp_path: Path):
    few = load_data_set(two_classes_of_coco(data, tmp_path / "data"))
    model = load_model(data / "models/MobileNetV2-YOLOv3-Nano-coco.cfg", names="coco")
    spec = spec_with_classes(model.spec, 2)
    transfer = weights_with_classes(model.spec, model.weights, model.class_names, spec, few.class_names, 0)
    assert (transfer.kept_classes, transfer.new_classes) == (("person", "chair"), ())
    settings = TrainSettings(epochs=4, batch_size=8, learning_rate=3e-4, warmup_epochs=1, mosaic=0, scale=0.2)
    run = TrainingRun.start((spec, transfer.weights), few, settings, tmp_path / "run")
    before = run.validate()
    history = run.run()
    print(losses(history).sum(axis=1), before, [(entry["AP"], entry["AP50"]) for entry in history])
    assert losses(history)[-1].sum() < 0.9 * losses(history)[0].sum()
    assert history[-1]["AP50"] > 0.8 * before["AP50"]
