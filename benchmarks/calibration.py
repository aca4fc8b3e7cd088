"""INT8 calibration beside ONNX Runtime's: AP of either on COCO val64, time and memory to calibrate.

    python -m benchmarks.calibration accuracy --data ../shared/data --json accuracy.json
    python -m benchmarks.calibration time --data ../shared/data --json time.json

Calibrated on train64, evaluated on val64, neither of which shares a picture with the other. Each timing runs in a process of
its own, whose peak memory is what is reported.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, create_calibrator, quantize_static

from benchmarks.peers import ALL, load_subject
from tests.conftest import COCO_MODELS
from yolov3_trt.benchmarking.latency import machine
from yolov3_trt.calibration.table import CalibrationTable
from yolov3_trt.data import labelled_set
from yolov3_trt.data.images import find_sources, load_image
from yolov3_trt.detector import open_detector
from yolov3_trt.evaluation import EVAL_CONF_THRESHOLD, evaluate
from yolov3_trt.files import sha256_of_file
from yolov3_trt.graph.equalise import equalised
from yolov3_trt.graph.qdq import QdqPolicy, qdq_from_onnx
from yolov3_trt.jobs.calibrate import calibrate_graph, open_pictures
from yolov3_trt.jobs.export import export
from yolov3_trt.meta import Precision, load_model_meta, save_sidecar
from yolov3_trt.models import load_model
from yolov3_trt.preprocess import prepare_batch
from yolov3_trt.settings import CalibrationSettings, Method

ADDRESS_SPACE_BYTES = 20 << 30


def main(args: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["accuracy", "time", "once"])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="the reference data")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--graph", type=Path, help="of `once`")
    parser.add_argument("--who", help="of `once`: ours-METHOD or onnxruntime-METHOD")
    parser.add_argument("--num-images", type=int, default=64)
    options = parser.parse_args(args)
    if options.what == "once":
        print(json.dumps(calibrate_once(options.graph, options.who, options.data, options.num_images)))
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = (accuracy if options.what == "accuracy" else timing)(options.data, Path(folder))
    content = {"command": f"python -m benchmarks.calibration {options.what}", "machine": machine(), "rows": rows}
    if options.json is not None:
        options.json.write_text(json.dumps(content, indent=1) + "\n")


# --- accuracy ---


def accuracy(data: Path, folder: Path) -> list[dict[str, Any]]:
    """AP of every way to INT8, all layers quantised."""
    rows = []
    for name in COCO_MODELS:
        model = load_model(data / "models" / f"{name}.cfg", names="coco")
        graph_path = export(model, folder / f"{name}.onnx", resize="letterbox").path
        for way, make in {"fp32": None, **_ways(graph_path, data)}.items():
            path = graph_path
            if make is not None:
                path = graph_path.with_name(f"{name}-{way}.onnx")
                make(path)
                meta = replace(load_model_meta(graph_path), precision=Precision.INT8)
                save_sidecar(replace(meta, onnx_sha256=sha256_of_file(path)), path)
            row = {"model": name, "way": way, **_average_precision(path, data)}
            rows.append(row)
            print(f"{name:32} {way:28} AP {row['AP']:.4f} AP50 {row['AP50']:.4f}", file=sys.stderr)
    return rows


def _ways(graph_path: Path, data: Path) -> dict[str, Callable[[Path], object]]:
    def ours(method: Method, per_channel: bool, prepare: bool = False) -> Callable[[Path], object]:
        def make(path: Path) -> None:
            table = _table(graph_path, data, 64, method, prepare)
            graph = equalised(onnx.load(graph_path), table.doublings)
            policy = QdqPolicy(per_channel=per_channel)
            path.write_bytes(qdq_from_onnx(graph, table.amax, policy, table.bias_shifts).SerializeToString())

        return make

    def theirs(path: Path) -> None:
        quantize_static(graph_path, path, _Reader(graph_path, data, 64))

    return {
        "mse, equalised, biases corrected": ours(Method.MSE, True, prepare=True),
        **{f"{method.value}, per channel": ours(method, True) for method in Method if method is not Method.PERCENTILE},
        "minmax, per tensor": ours(Method.MINMAX, False),
        "onnxruntime defaults": theirs,
    }


def _average_precision(path: Path, data: Path) -> dict[str, Any]:
    with open_detector(path, conf=EVAL_CONF_THRESHOLD) as detector:
        truth = labelled_set(data / "coco/instances_val64.json").truth_for(detector.meta.class_names)
        metrics = evaluate(detector, truth)
    return {name: metrics[name] for name in ("AP", "AP50")}


# --- time ---


def timing(data: Path, folder: Path) -> list[dict[str, Any]]:
    """Seconds and peak memory to calibrate; the process and its imports included in the memory."""
    rows = []
    for subject in (subject for subject in ALL if subject.name in ("yolov3-tiny", "yolov3")):
        _, _, graph_path = load_subject(subject, data, folder)
        for who in ("ours-minmax", "ours-mse", "ours-entropy", "onnxruntime-MinMax", "onnxruntime-Entropy"):
            for count in (16, 64, 256) if who == "ours-minmax" else (16, 64):
                row = {"model": subject.name, "who": who, "images": count, **_in_process(graph_path, who, data, count)}
                rows.append(row)
                print(row, file=sys.stderr)
    return rows


def _in_process(graph_path: Path, who: str, data: Path, count: int) -> dict[str, Any]:
    """`calibrate_once` in a process of its own."""
    # ONNX Runtime's entropy calibrator keeps all activations of all pictures; it must not take the machine down.
    command = ["prlimit", f"--as={ADDRESS_SPACE_BYTES}", sys.executable, "-m", "benchmarks.calibration", "once"]
    command += ["--graph", str(graph_path), "--who", who, "--data", str(data), "--num-images", str(count)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    if result.returncode != 0:
        return {"failed": result.stderr.strip().splitlines()[-1] if result.stderr else f"status {result.returncode}"}
    figures: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])  # ONNX Runtime prints as well
    return figures


def calibrate_once(graph_path: Path, who: str, data: Path, count: int) -> dict[str, float]:
    """Calibrate in this process."""
    start = time.perf_counter()
    side, _, method = who.partition("-")
    if side == "ours":
        _table(graph_path, data, count, Method(method))
    else:
        with tempfile.TemporaryDirectory() as folder:
            calibrator = create_calibrator(
                graph_path,
                ["Conv", "Add", "Resize"],
                f"{folder}/augmented.onnx",
                getattr(CalibrationMethod, method),
                extra_options={"symmetric": True},
            )
            calibrator.collect_data(_Reader(graph_path, data, count))
            calibrator.compute_data()
    return {"seconds": round(time.perf_counter() - start, 2), "peak_mib": _peak_mib()}


def _peak_mib() -> float:
    # Not getrusage: its maximum begins with that of the process that started this one.
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def _table(graph_path: Path, data: Path, count: int, method: Method, prepare: bool = False) -> CalibrationTable:
    """A table; with `prepare` of the equalised graph and with corrected biases, as `calibrate` makes it by default."""
    with tempfile.TemporaryDirectory() as folder:
        listing = Path(folder) / "pictures.txt"
        listing.write_text("".join(f"{path}\n" for path in _paths(data, count)))
        wanted = CalibrationSettings(
            images=listing, num_images=count, method=method, equalise=prepare, correct_biases=prepare
        )
        return calibrate_graph(graph_path, open_pictures(wanted), wanted)


def _paths(data: Path, count: int) -> list[Path]:
    """Pictures of train64, from the first one again when there are no more."""
    return list(islice(cycle(path.resolve() for path in find_sources([str(data / "coco/train64")])), count))


class _Reader(CalibrationDataReader):
    """The same pictures, prepared the same, for ONNX Runtime's tools."""

    def __init__(self, graph_path: Path, data: Path, count: int) -> None:
        meta = load_model_meta(graph_path)
        self._batches: Iterator[dict[str, np.ndarray]] = (
            {"images": prepare_batch([load_image(path)], meta)[0]} for path in _paths(data, count)
        )

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._batches, None)


if __name__ == "__main__":
    main()
