"""Every table of measured figures in README and docs, made anew from docs/results.

    python -m benchmarks.tables

A table stands between `<!-- results: NAME -->` and `<!-- end of results -->`; tests/docs/test_results.py fails where a page has
another than what comes of the files.
"""

import json
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
_TABLE = re.compile(r"(<!-- results: (\S+) -->\n).*?(<!-- end of results -->)", re.DOTALL)
Cells = Iterable[str]


def main() -> None:
    changed = [path for path in pages() if write(path)]
    print("\n".join(str(path.relative_to(ROOT)) for path in changed) or "nothing changed", file=sys.stderr)


def pages() -> list[Path]:
    """The pages that may hold tables."""
    folders = (ROOT, ROOT / "engines", ROOT / "calib", ROOT / "docs", ROOT / "docs" / "tutorials")
    return [path for folder in folders for path in sorted(folder.glob("*.md"))]


def write(path: Path) -> bool:
    """Renew the tables of a page; whether it changed."""
    old = path.read_text()
    new = renewed(old)
    if new != old:
        path.write_text(new)
    return new != old


def renewed(text: str) -> str:
    """A page with its tables made anew.

    Raises:
        KeyError: it asks for a table that there is not.
    """
    return _TABLE.sub(lambda match: match[1] + "\n".join(TABLES[match[2]]()) + "\n" + match[3], text)


def result(name: str) -> Any:
    """What is in docs/results/NAME.json."""
    return json.loads((RESULTS / f"{name}.json").read_text())


# --- cells ---


def fraction(value: float) -> str:
    """AP as it is written: .1827."""
    return f"{value:.4f}".removeprefix("0")


def milliseconds(value: float) -> str:
    """Three digits, at most one of them after the point."""
    return f"{value:.1f} ms" if value < 100 else f"{value:.0f} ms"


def _table(head: Cells, rows: Iterable[Cells]) -> list[str]:
    head = list(head)
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


# --- tables ---


def accuracy() -> list[str]:
    """AP and AP50 of Darknet, FP32 and FP16, for both fits."""
    columns = {"darknet": "Darknet", "fp32": "FP32", "fp16": "FP16"}
    rows = (
        [row["model"], row["resize"], *(f"{fraction(row[c]['AP'])} / {fraction(row[c]['AP50'])}" for c in columns)]
        for row in result("accuracy-coco64")["rows"]
    )
    return _table(["model", "fit", *(f"{name} AP / AP50" for name in columns.values())], rows)


def int8() -> list[str]:
    """AP of every way to INT8."""
    ways = {
        "fp32": "FP32",
        "mse, equalised, biases corrected": "by default",
        "mse, per channel": "mse alone",
        "entropy, per channel": "entropy",
        "minmax, per channel": "min-max",
        "minmax, per tensor": "min-max, per tensor",
        "onnxruntime defaults": "ONNX Runtime's defaults",
    }
    ap = {(row["model"], row["way"]): row["AP"] for row in result("int8-accuracy")["rows"]}
    models = dict.fromkeys(model for model, _ in ap)
    return _table(["model", *ways.values()], ([m, *(fraction(ap[m, way]) for way in ways)] for m in models))


def int8_budget() -> list[str]:
    """What `quantize` left float, and what that cost."""
    rows = (
        [
            row["model"],
            row["evaluated_on"],
            fraction(row["ap_fp32"]),
            fraction(row["ap"]),
            f"{len(row['float_layers'])} of {row['num_layers']}",
            f"{row['int8_share_of_macs']:.1%}",
        ]
        for row in result("int8-budget")["rows"]
    )
    return _table(["model", "measured on", "FP32 AP", "INT8 AP", "layers left float", "multiply-adds in int8"], rows)


def engines() -> list[str]:
    """Size and build time of every recipe's engine."""
    rows = (
        [
            row["recipe"],
            f"{row['plan_mb']:.1f} MB",
            f"{row['tensorrt_s']:.1f} s",
            f"{row['all_s']:.1f} s",
            f"{row['again_s']:.1f} s",
        ]
        for row in result("engines-rtx")["rows"]
    )
    return _table(["recipe", "plan", "TensorRT", "all", "again"], rows)


_SUBJECTS = {
    "yolo-fastest-1.1": "yolo-fastest-1.1, 320",
    "MobileNetV2-YOLOv3-Nano-coco": "MobileNetV2-YOLOv3-Nano, 320",
    "yolov3-tiny": "yolov3-tiny, 416, fabricated weights",
    "yolov3": "yolov3, 416, fabricated weights",
}


def latency() -> list[str]:
    """p50 of a picture to its detections, and the speed-up over PyTorch with its interval."""
    backends = {"torch": "PyTorch", "torch+channels_last": "PyTorch, channels last", "opencv": "OpenCV DNN"}
    backends["onnxruntime"] = "ONNX Runtime"
    lines = []
    for name, words in _SUBJECTS.items():
        rows = {}
        for row in result(f"bench-{name}")["rows"]:
            way = "+channels_last" if "channels_last" in row["label"] else ""
            rows[row["backend"] + way] = row
        lines.append([words, *(_latency_cell(rows[backend]) for backend in backends)])
    return _table(["model", *backends.values()], lines)


def _latency_cell(row: dict[str, Any]) -> str:
    text = milliseconds(row["latency_ms"]["p50"])
    low, high = row["speedup_interval"]
    if low == high:  # the reference itself
        return text
    return f"{text}, {row['speedup_vs_reference']:.2f}x [{low:.2f}, {high:.2f}]"


def headline() -> list[str]:
    """The few figures of the README."""
    accurate = {(row["model"], row["resize"]): row for row in result("accuracy-coco64")["rows"]}
    official = accurate["yolov3-tiny", "letterbox"]
    rows = {r["backend"]: r for r in result("bench-yolov3-tiny")["rows"] if "channels_last" not in r["label"]}
    ours = rows["onnxruntime"]
    low, high = ours["speedup_interval"]
    return _table(
        ["yolov3-tiny, 416", "", ""],
        (
            ["AP on 64 COCO pictures: Darknet", fraction(official["darknet"]["AP"]), "AlexeyAB's own program"],
            [
                "FP32 / FP16 graph",
                f"{fraction(official['fp32']['AP'])} / {fraction(official['fp16']['AP'])}",
                "same pictures",
            ],
            ["PyTorch on two cores", milliseconds(rows["torch"]["latency_ms"]["p50"]), "picture to boxes"],
            [
                "the graph on ONNX Runtime",
                milliseconds(ours["latency_ms"]["p50"]),
                f"{ours['speedup_vs_reference']:.2f} times as fast [{low:.2f}, {high:.2f}]",
            ],
        ),
    )


TABLES: dict[str, Callable[[], list[str]]] = {
    "accuracy": accuracy,
    "engines": engines,
    "headline": headline,
    "int8": int8,
    "int8-budget": int8_budget,
    "latency": latency,
}

if __name__ == "__main__":
    main()
