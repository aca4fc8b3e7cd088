"""The shape of the package: modules import downwards only, heavy packages stay where they belong and load late."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import yolov3_trt

PACKAGE = Path(yolov3_trt.__file__).parent

# From the bottom up; the modules of a line never import each other.
LAYERS = [  # as few as the longest chain of imports has links
    "_version masking packages sizes cpu",
    "errors geometry",
    "files arguments layers detections certificate opencv",
    "spec places tracking matching",
    "meta costs selection events models",
    "settings preprocess postprocess reference",
    "shapes graph engine recipe",
    "data builder runtime doctor",
    "calibration backends reporter",
    "detector sensitivity",
    "evaluation comparison camera deploy",
    "benchmarking training",
    "report",
    "jobs",
    "cli",
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names.split()}

# Third-party packages and the only places that may import them.
HOMES = {
    "filelock": {"files.py"},
    "onnx": {"graph"},
    "tensorrt": {"engine/flavor.py"},
    "tensorrt_rtx_bindings": {"engine/flavor.py"},
    "pycuda": {"runtime/cuda.py"},
    "torch": {"reference.py", "backends/pytorch.py", "benchmarking/machine_roofline.py", "training"},
    "onnxruntime": {"backends/ort.py"},
    "openvino": {"backends/ov.py"},
    "grpc": {"backends/triton/wire.py"},
    "tritonclient": {"backends/triton/wire.py", "backends/triton/model_config.py"},
    "google": {"backends/triton/model_config.py", "graph"},
    "pycocotools": set(),
    "pynvml": {"benchmarking/power.py"},
    "yaml": {"data/data_yaml.py"},
    "triton_python_backend_utils": {"deploy/python_model.py"},
}


def imports_of(path: Path) -> set[str]:
    """Full names of the modules that a file imports, inside functions too, and by `require`.

    A `require(...)` whose result is not used only makes sure that a package is there.
    """
    names: set[str] = set()
    nodes = list(ast.walk(ast.parse(path.read_text())))
    checks = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "require" and id(node) not in checks:
            names |= {str(named.value) for named in node.args[:1] if isinstance(named, ast.Constant)}
    return names


def source_files() -> list[Path]:
    return [path.relative_to(PACKAGE) for path in sorted(PACKAGE.rglob("*.py"))]


def unit_of(path: Path) -> str:
    return path.parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", source_files(), ids=str)
def test_modules_import_only_lower_layers(path: Path):
    unit = unit_of(path)
    if unit in ("__init__", "__main__"):
        return
    for name in imports_of(PACKAGE / path):
        target = name.removeprefix("yolov3_trt.").partition(".")[0]
        if name.startswith("yolov3_trt.") and target in RANK and target != unit:
            assert RANK[target] < RANK[unit], f"{path} imports {name}"


def test_every_module_has_a_layer():
    assert {unit_of(path) for path in source_files()} - {"__init__", "__main__"} == set(RANK)


@pytest.mark.parametrize("path", source_files(), ids=str)
def test_third_party_packages_stay_at_home(path: Path):
    for name in imports_of(PACKAGE / path):
        package = name.partition(".")[0]
        if package in HOMES:
            assert {path.as_posix(), unit_of(path)} & HOMES[package], f"{path} imports {name}"


def loaded_after(code: str) -> set[str]:
    """Top-level modules in a fresh interpreter after running `code`."""
    script = f"{code}\nimport sys; print('LOADED', *{{name.partition('.')[0] for name in sys.modules}})"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(result.stdout.splitlines()[-1].removeprefix("LOADED ").split())


HEAVY = {"torch", "onnx", "onnxruntime", "cv2", "tensorrt", "tensorrt_rtx_bindings", "pycuda", "pycocotools"}


def test_importing_the_package_loads_nothing_heavy():
    assert not loaded_after("import yolov3_trt") & (HEAVY | {"numpy", "pydantic", "typer"})


def test_public_names_load_when_asked_for():
    assert not loaded_after("from yolov3_trt import Detector, load_model, GraphSettings, Detections") & HEAVY
    for name in dir(yolov3_trt):
        assert getattr(yolov3_trt, name) is not None
    with pytest.raises(AttributeError, match="module 'yolov3_trt' has no attribute 'Detectr'"):
        _ = yolov3_trt.Detectr


def test_help_loads_nothing_that_takes_time():
    code = "import sys; sys.argv = ['yolov3_trt', '--help']\nfrom yolov3_trt.cli import entrypoint\n"
    code += "try: entrypoint()\nexcept SystemExit as exc: assert not exc.code"
    assert not loaded_after(code) & (HEAVY | {"numpy", "pydantic"})


@pytest.mark.parametrize(
    "module",
    [
        "detector",
        "jobs.detect",
        "builder.build",
        "backends",
        "evaluation",
        "camera.loop",
        "shapes",
        "data.images",
        "cli",
        "benchmarking.latency",
    ],
)
def test_the_runtime_path_needs_neither_torch_nor_onnx(module: str):
    assert not loaded_after(f"import yolov3_trt.{module}") & {"torch", "onnx", "onnxruntime"}


def test_building_from_an_onnx_file_needs_neither_torch_nor_onnx(tmp_path: Path):
    # Up to the point where TensorRT would be loaded: a missing file is refused by our own code.
    code = (
        "from yolov3_trt.cli import entrypoint\n"
        "try: entrypoint(['build', 'missing.onnx'])\nexcept SystemExit as exc: assert exc.code == 1"
    )
    assert not loaded_after(code) & {"torch", "onnx", "onnxruntime"}


def test_a_missing_package_says_what_to_install():
    code = (
        "import sys; sys.modules['cv2'] = None\n"
        "from yolov3_trt.errors import MissingDependency\nfrom yolov3_trt.data.images import load_image\n"
        "from pathlib import Path\n"
        "try: load_image(Path('x.jpg'))\nexcept MissingDependency as exc: print(exc)"
    )
    environment = {**os.environ, "DISPLAY": ":0"}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert result.stdout.strip() == "cv2 is not installed; run: pip install 'yolov3-trt[opencv]'"
