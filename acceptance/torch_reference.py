"""How fast PyTorch is on the same GPU, with the same weights and frames: the part that runs in PyTorch's Python.

    python -m acceptance.torch_reference --work DIR --group yolov3-416-b1 --json FILE [--variants fp32,fp16+channels_last]

End to end with the package's own stages on the host; the network alone by the GPU's clock, its input already there.
"""

import argparse
import gc
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from acceptance.cases import SIMULATED, Case, load_cases
from acceptance.frames import suite_frames
from acceptance.graphs import suite_model
from yolov3_trt.backends.pytorch import TorchBackend
from yolov3_trt.backends.torch_options import TorchOptions
from yolov3_trt.benchmarking.latency import measure, rounds_for
from yolov3_trt.benchmarking.machine import machine
from yolov3_trt.detector import Detector
from yolov3_trt.errors import BackendError

VARIANTS = ("fp32", "fp32+compile", "fp16+channels_last", "fp16+channels_last+compile")
_WARMUP, _NETWORK_CALLS = (1, 3) if SIMULATED else (20, 100)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--group", required=True, help="of the cases")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--variants", default=",".join(VARIANTS), help="of PyTorch")
    options = parser.parse_args(arguments)
    variants = [TorchOptions.parse(text, "cpu" if SIMULATED else "cuda") for text in options.variants.split(",")]
    # An engine's precision is nothing to PyTorch, whose own are the variants.
    batches = {case.batch: case for case in load_cases(options.work) if case.group == options.group}
    rows = [
        measure_variant(case, variant, options.work, options.seconds)
        for case in batches.values()
        for variant in variants
    ]
    content = {"simulated": SIMULATED, "machine": _machine(), "seconds": options.seconds, "rows": rows}
    options.json.write_text(json.dumps(content, indent=1) + "\n")


def measure_variant(case: Case, variant: TorchOptions, work: Path, seconds: float) -> dict[str, Any]:
    """All figures of a variant, or why it does not run here."""
    images = suite_frames(work)
    frames = [images[k % len(images)] for k in range(max(case.batch, len(images)))]
    row: dict[str, Any] = {"subject": case.subject, "batch": case.batch, "variant": str(variant)}
    try:
        backend = TorchBackend(suite_model(case, work), options=variant)
    except BackendError as exc:
        return {**row, "failed": " ".join(str(exc).split())}
    with Detector(backend) as detector:
        timings = measure(
            {"torch": detector}, frames, rounds=rounds_for(seconds), warmup=_WARMUP, batches={"torch": case.batch}
        )["torch"]
        figures = timings.figures(None).to_json()
        row |= {
            "calls": len(timings.wall_s),
            "latency_ms": figures["latency_ms"],
            "host_stages_ms": figures["stages_ms"],
        }
        row["network_ms"] = _network_ms(backend, case.batch, variant)
    gc.collect()
    return row


def _network_ms(backend: TorchBackend, batch: int, variant: TorchOptions) -> dict[str, float]:
    """Of the module alone, percentiles."""
    # The backend's own module, whatever it is compiled to; its `infer` also copies in and out.
    module, form = backend._module, torch.channels_last if variant.channels_last else torch.contiguous_format
    dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[variant.dtype]
    images = torch.zeros(backend.meta.input_shape(batch)).to(variant.device, dtype, memory_format=form)
    with torch.inference_mode(), torch.backends.cudnn.flags(allow_tf32=False):
        times_ms = [_timed_ms(module, images) for _ in range(_WARMUP + _NETWORK_CALLS)]
    values = np.percentile(times_ms[_WARMUP:], [50, 99])
    return {"p50": float(values[0]), "p99": float(values[1])}


def _timed_ms(module: Any, images: torch.Tensor) -> float:
    if not images.is_cuda:
        begin_s = time.perf_counter()
        module(images)
        return (time.perf_counter() - begin_s) * 1e3
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    module(images)
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end))


def _machine() -> dict[str, Any]:
    cuda = {"device": torch.cuda.get_device_name(), "cuda": torch.version.cuda} if torch.cuda.is_available() else {}
    return {**machine(), **cuda, "torch": torch.__version__}


if __name__ == "__main__":
    main()
