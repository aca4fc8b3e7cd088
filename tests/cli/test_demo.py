"""The demo: the whole chain in a folder that holds nothing, and what it leaves behind."""

import json
from pathlib import Path

import pytest

from tests.cli_runner import call, files_in
from yolov3_trt.camera.sources import VideoSource
from yolov3_trt.data.images import load_image
from yolov3_trt.meta import load_model_meta


@pytest.mark.slow
def test_the_demo_needs_nothing_and_leaves_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("YOLOV3_TRT_DATA", str(tmp_path / "nothing"))
    assert call("demo", "-o", "out", "--pictures", "8", "--frames", "4") == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == f"Open {tmp_path.resolve() / 'out/picture.jpg'} to see what was found."
    summary = json.loads(Path("out/summary.json").read_text())

    rows = {row["artifact"]: row for row in summary["rows"]}
    assert set(rows) >= {"pytorch fp32", "onnx fp32", "onnx fp16", "onnx int8"}
    assert rows["pytorch fp32"]["speedup_vs_reference"] == 1.0
    for row in rows.values():
        assert row["images"] == 8 and row["AP50"] > 0.8
        assert row["AP"] == pytest.approx(rows["pytorch fp32"]["AP"], abs=0.03 if "int8" in row["artifact"] else 0.01)
        assert row["artifact"] in out and f"{row['AP']:.4f}" in out

    assert summary["clip"]["processed"] == 4 and summary["clip"]["dropped"] == 0
    with VideoSource(Path("out/clip.mp4")) as clip:
        frames = [clip.read() for _ in range(5)]
    assert [frame is not None for frame in frames] == [True] * 4 + [False]
    assert load_image(Path("out/picture.jpg")).shape == (480, 640, 3)
    for name in ("fp32", "fp16", "int8"):
        assert load_model_meta(Path(f"out/shapes-256-{name}.onnx")).class_names[0] == "circle"

    for engine in summary["engines"]:
        assert Path(engine["engine"]).stat().st_size == engine["bytes"] > 100_000
        assert engine["runs_here"] or engine["reason"]
    assert not [name for name in files_in(Path("out")) if "partial" in name]
    assert [line[:2] for line in err.splitlines() if line[:1].isdigit()] == ["1.", "2.", "3.", "4.", "5.", "6."]


def test_a_demo_that_cannot_write_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "file").write_text("")
    assert call("demo", "-o", tmp_path / "file" / "out") == 1
    assert "cannot write here (Not a directory); give a writable folder" in capsys.readouterr().err
