"""AP of FP32 and FP16 graphs on COCO val64, beside Darknet's own on the same pictures, for both ways to fit a picture.

    python -m benchmarks.accuracy --data ../shared/data --json docs/results/accuracy-coco64.json

On ONNX Runtime's CPU provider. Darknet's figures are goldens of the reference data: AlexeyAB's program ran there, not here.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yolov3_trt
from tests.conftest import COCO_MODELS
from yolov3_trt.benchmarking.latency import machine

METRICS = ("AP", "AP50")


def main(args: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="the reference data")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    options = parser.parse_args(args)
    rows = list(measured(options.data))
    content = {"command": "python -m benchmarks.accuracy", "machine": machine(), "rows": rows}
    if options.json is not None:
        options.json.write_text(json.dumps(content, indent=1) + "\n")


def measured(data: Path) -> Iterator[dict[str, Any]]:
    """A row for each model and fit: AP and AP50 of Darknet, FP32 and FP16."""
    models = [(name, data / "models", data / "goldens") for name in COCO_MODELS]
    models.append(("yolov3-tiny", data / "models" / "official", data / "goldens" / "official"))
    for name, folder, goldens in models:
        scores = json.loads((goldens / "val64.scores.json").read_text())
        golden = next(ways for key, ways in scores.items() if key.split()[0] == name)
        with tempfile.TemporaryDirectory() as scratch:
            graphs = {
                precision: yolov3_trt.export(
                    folder / f"{name}.cfg", Path(scratch) / f"{precision}.onnx", precision=precision, names="coco"
                )
                for precision in ("fp32", "fp16")
            }
            for resize in ("letterbox", "stretch"):
                row: dict[str, Any] = {"model": name, "resize": resize}
                darknet = golden[f"darknet-{resize}"]
                row["darknet"] = {metric: darknet.get("val64", darknet)[metric] for metric in METRICS}
                found = yolov3_trt.evaluate(
                    list(graphs.values()),
                    images=data / "coco" / "val64" / "images",
                    annotations=data / "coco" / "instances_val64.json",
                    resize=resize,
                    nms="plain",
                    resamples=0,
                )
                for precision, evaluated in zip(graphs, found.rows, strict=True):
                    row[precision] = {metric: evaluated.accuracy.metrics[metric] for metric in METRICS}
                print(row, file=sys.stderr)
                yield row


if __name__ == "__main__":
    main()
