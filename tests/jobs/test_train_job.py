"""`train` as a function: its result goes on as a model, and wrong use is refused before anything is read."""

from collections.abc import Callable
from pathlib import Path

import pytest

import yolov3_trt
from tests.training.test_train import little_spec
from yolov3_trt import SettingError
from yolov3_trt.data.shapes import write_shapes_data_set
from yolov3_trt.jobs.train import _best
from yolov3_trt.models.darknet_cfg_text import cfg_from_spec


def test_the_best_epoch_is_the_one_whose_weights_are_kept():
    epochs = [{"epoch": 1, "AP": 0.1}, {"epoch": 2, "AP": 0.3}, {"epoch": 3, "AP": 0.3}, {"epoch": 4, "AP": None}]
    assert _best(epochs)["epoch"] == 3  # of a tie the last is saved
    assert _best([{"epoch": 1, "AP": None}, {"epoch": 2, "AP": None}])["epoch"] == 2  # nothing was validated
    assert _best([]) == {}


def test_what_was_trained_is_a_model(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    data = write_shapes_data_set(tmp_path / "data", num_train=4, num_val=2, seed=5)
    (tmp_path / "little.cfg").write_text(cfg_from_spec(little_spec()))
    told: list[str] = []
    trained = yolov3_trt.train(
        tmp_path / "little.cfg",
        tmp_path / "run",
        data=data,
        split="train",
        from_scratch=True,
        epochs=1,
        batch_size=4,
        reporter=yolov3_trt.Reporter(say=told.append),
    )
    assert trained.finished and trained.best == trained.history[0] == trained.to_json()["best"]
    assert "4 pictures to train on, 4 to validate" in told[-1]  # the part that was asked for
    assert yolov3_trt.load_model(trained).class_names == yolov3_trt.load_model("shapes").class_names
    assert capfd.readouterr() == ("", "")
    with pytest.raises(SettingError, match=r"split: got 'test', of which .*data\.yaml has no pictures"):
        yolov3_trt.train(tmp_path / "little.cfg", tmp_path / "other", data=data, split="test", from_scratch=True)


@pytest.mark.parametrize(
    "call, text",
    [
        (lambda: yolov3_trt.train(data="d"), "model: missing; expected a built-in model or a .cfg, or resume"),
        (lambda: yolov3_trt.train("m", data="d", resume="r"), "model: given with resume, which takes everything"),
        (lambda: yolov3_trt.train(data="d", resume="r", epochs=3), "epochs: given with resume"),
        (lambda: yolov3_trt.train("m", data="d", weights="w", from_scratch=True), "from_scratch: given with weights"),
        (lambda: yolov3_trt.train("m", data="d", epochs=0), "epochs: got 0; expected 1 to "),
        (lambda: yolov3_trt.train("m", data="d", flip=2), "flip: got 2; expected 0 to 1"),
        (lambda: yolov3_trt.train("m", data="d", box_loss="iou"), "box_loss: got 'iou'; expected one of "),
        (lambda: yolov3_trt.train("m", data="d", device="tpu"), "device: got 'tpu'; expected one of auto, cpu, cuda"),
        (lambda: yolov3_trt.train("m", data=3), "data: got 3; expected a path"),
    ],
)
def test_a_wrong_use_is_refused_in_one_line(call: Callable[[], object], text: str):
    with pytest.raises(SettingError) as caught:
        call()
    assert str(caught.value).startswith(text) and "\n" not in str(caught.value)


def test_a_setting_that_there_is_none_of():
    with pytest.raises(TypeError, match="there is no setting 'epoch' here"):
        yolov3_trt.train("m", data="d", epoch=3)
