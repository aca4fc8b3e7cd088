"""The real TensorRT 8.6, the oldest that is supported: this package on it, in an interpreter of its own (`make tensorrt86`)."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from yolov3_trt.engine.driver import installed_gpu
from yolov3_trt.files import sha256_of_file
from yolov3_trt.meta import ModelMeta, Precision, save_sidecar
from yolov3_trt.spec import Head

ROOT = Path(__file__).parents[2]

ASK = """
import json, sys
from pathlib import Path
from yolov3_trt.engine import api
from yolov3_trt.builder import build
from yolov3_trt.engine.flavor import open_flavor
from yolov3_trt.settings import EngineSettings, FlavorName, Refit
from yolov3_trt.errors import BuildError

flavor = open_flavor(FlavorName.TENSORRT)
graph = Path(sys.argv[1])


def refusal(**options):
    try:
        build.build_engine(graph, graph.with_suffix(".engine"), EngineSettings(FlavorName.TENSORRT, **options))
    except BuildError as exc:
        return {"text": str(exc), "log": exc.log}


classes = {name: kind for name, kind in vars(api).items() if getattr(kind, "__module__", "") == api.__name__}
wanted = {
    (name, member)
    for name, kind in classes.items()
    for member in (*vars(kind), *kind.__annotations__)
    if not member.startswith("_")
}
json.dump(
    {
        "version": flavor.version,
        "strongly_typed": flavor.strongly_typed,
        "network_flags": build._network_flags(flavor),
        "flags": [name for name in ("FP16", "INT8", "STRIP_PLAN") if flavor.member("BuilderFlag", name) is not None],
        "capabilities": flavor.members("ComputeCapability"),
        "missing": sorted(f"{name}.{member}" for name, member in wanted if not hasattr(getattr(flavor.trt, name), member)),
        "build": refusal(),
        "refit": refusal(refit=Refit.IDENTICAL),
        "heavy": sorted({"torch", "onnx", "onnxruntime", "cv2"} & set(sys.modules)),
    },
    sys.stdout,
)
"""


@pytest.fixture(scope="module")
def python86() -> Path:
    path = Path(os.environ.get("YOLOV3_TRT_TENSORRT86_PYTHON") or ROOT / ".venv-trt86" / "bin" / "python")
    if not path.exists():
        pytest.skip(
            f"no Python with TensorRT 8.6 at {path}; `make tensorrt86`, or name one: YOLOV3_TRT_TENSORRT86_PYTHON"
        )
    return path


@pytest.fixture(scope="module")
def answers(python86: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    graph = tmp_path_factory.mktemp("graph") / "m.onnx"
    graph.write_bytes(b"never read: without a GPU there is no builder")
    heads = (Head("head0", 0, ((8.0, 8.0),), 1, (2, 2)),)
    meta = ModelMeta("m", (64, 64), heads, ("thing",), precision=Precision.FP16, onnx_sha256=sha256_of_file(graph))
    save_sidecar(meta, graph)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [python86, "-W", "error::DeprecationWarning:yolov3_trt", "-c", ASK, graph]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 0, result.stderr
    assert {path.name for path in graph.parent.iterdir()} == {"m.onnx", "m.onnx.json"}
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_it_loads_as_the_full_tensorrt_and_types_weakly(answers: dict[str, Any]):
    assert answers["version"].startswith("8.6.")
    assert not answers["strongly_typed"]
    assert answers["network_flags"] == 1, "EXPLICIT_BATCH is bit 0"
    assert answers["flags"] == ["FP16", "INT8"]
    assert answers["capabilities"] == []
    assert answers["heavy"] == []


def test_it_has_all_that_this_package_takes_for_granted(answers: dict[str, Any]):
    assert answers["missing"] == []


@pytest.mark.skipif(installed_gpu() is not None, reason="this machine has a GPU")
def test_without_a_gpu_its_failure_becomes_ours_with_its_own_words(answers: dict[str, Any]):
    text, log = answers["build"]["text"], answers["build"]["log"]
    assert text.startswith(
        f"tensorrt {answers['version']} cannot build here: CUDA initialization failure with error: 35"
    )
    assert "it needs an NVIDIA GPU and driver. TensorRT-RTX builds without" in text
    assert any("CUDA initialization failure" in message for message in log)


def test_what_it_lacks_is_refused_by_name(answers: dict[str, Any]):
    assert answers["refit"]["text"] == (
        f"refit=identical: tensorrt {answers['version']} does not have BuilderFlag.REFIT_IDENTICAL; set none or all, or "
        "install a newer TensorRT"
    )
