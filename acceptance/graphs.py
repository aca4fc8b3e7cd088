"""Graphs of a model, and what ONNX Runtime computes of them: the part of the suite that runs in PyTorch's Python.

    python -m acceptance.graphs --work DIR --group yolov3-416-b1

It needs neither pydantic nor the command line's packages, which that Python may lack: so INT8 is made here from the parts of
the pipeline, and not by `calibrate`, which reads its files through pydantic.
"""

import argparse
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acceptance.cases import Case, load_cases
from acceptance.fabricate import fabricate
from acceptance.frames import NUM_EXPECTED, clip, suite_frames
from yolov3_trt.backends.ort import graph_runner
from yolov3_trt.calibration.ranges import ranges_of_tensors
from yolov3_trt.files import replacing, sha256_of_file, write_bytes
from yolov3_trt.graph.fp16 import fp16_from_onnx
from yolov3_trt.graph.parts import graph_that_gives, load_graph
from yolov3_trt.graph.qdq import QdqPolicy, qdq_from_onnx, quantised_activations
from yolov3_trt.jobs.export import export
from yolov3_trt.meta import INPUT_NAME, ModelMeta, Precision, meta_from_spec, save_sidecar
from yolov3_trt.models import BUNDLED, Model, load_model, load_spec
from yolov3_trt.preprocess import prepare_batch
from yolov3_trt.settings import Method

_LOG = logging.getLogger(__name__)
_NUM_CALIBRATION = 4
_CALIBRATION_HW = (480, 640)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of graphs and engines")
    parser.add_argument("--group", required=True, help="of the cases to make graphs for")
    parser.add_argument("--rest", choices=["fp32", "fp16"], default="fp32", help="of INT8; TensorRT 8.6 wants fp32")
    options = parser.parse_args(arguments)
    cases = [case for case in load_cases(options.work) if case.group == options.group]
    make_graphs(cases, options.work, Precision(options.rest))


def make_graphs(cases: Sequence[Case], work: Path, rest: Precision) -> None:
    """Graphs with sidecars for the cases of one model at one size, and the heads that are expected of each precision."""
    model = suite_model(cases[0], work)
    # By graph, and of one picture at a time as well: for ranges and expectations.
    wanted = {replace(case, precision=case.graph_precision) for case in cases}
    singles = {Case(case.model, case.side, case.precision, 1) for case in wanted}
    metas = {}
    for case in {replace(case, precision="fp32") for case in wanted | singles}:
        metas[case.group] = export(model, case.graph(work), batch=case.batches).meta
    single = replace(next(iter(singles)), precision="fp32")
    images, _ = prepare_batch(list(suite_frames(work)[:NUM_EXPECTED]), metas[single.group])
    amax = _ranges(single.graph(work), metas[single.group]) if any(case.precision == "int8" for case in cases) else {}
    for case in wanted | singles:
        if case.precision != "fp32":
            fp32 = replace(case, precision="fp32").graph(work)
            _write_derived(fp32, case, metas[case.group], work, amax, rest)
    for case in singles:
        _write_expected(case, images, work)


def suite_model(case: Case, work: Path) -> Model:
    """The model of a case; one that comes without weights gets fabricated ones, the same for all its sizes."""
    input_hw = (case.side, case.side)
    if case.model in BUNDLED:
        return load_model(case.model, input_size=input_hw)
    weights = work / f"{case.model}.weights"
    if not weights.exists():
        spec = load_spec(case.model).with_input_hw(input_hw)
        images, _ = prepare_batch(
            list(suite_frames(work)[:NUM_EXPECTED]), meta_from_spec(spec, _numbers(spec.num_classes))
        )
        fabricate(spec, images, weights)
    return load_model(case.model, weights, input_size=input_hw)


def _numbers(count: int) -> tuple[str, ...]:
    return tuple(map(str, range(count)))


def _ranges(path: Path, meta: ModelMeta) -> dict[str, float]:
    """Amax of what INT8 quantises, over some generated pictures."""
    graph = load_graph(path)
    names = [name for name in dict.fromkeys(quantised_activations(graph)) if name != INPUT_NAME]
    run = graph_runner(graph_that_gives(graph, names).SerializeToString())

    def tensors(image: NDArray[Any]) -> dict[str, NDArray[Any]]:
        return {INPUT_NAME: image, **run({INPUT_NAME: image})}

    images, _ = prepare_batch(clip(_NUM_CALIBRATION, _CALIBRATION_HW), meta)
    return ranges_of_tensors(tensors, np.split(images, len(images)), len(images), method=Method.MSE)


def _write_derived(
    fp32: Path, case: Case, meta: ModelMeta, work: Path, amax: dict[str, float], rest: Precision
) -> None:
    graph = load_graph(fp32)
    graph = (
        fp16_from_onnx(graph)
        if case.precision == "fp16"
        else qdq_from_onnx(graph, amax, QdqPolicy(float_precision=rest))
    )
    path = case.graph(work)
    write_bytes(path, graph.SerializeToString())
    save_sidecar(replace(meta, precision=Precision(case.precision), onnx_sha256=sha256_of_file(path)), path)


def _write_expected(case: Case, images: NDArray[Any], work: Path) -> None:
    run = graph_runner(case.graph(work).read_bytes())
    outputs = [run({INPUT_NAME: image}) for image in np.split(images, len(images))]
    heads = {name: np.concatenate([output[name] for output in outputs]) for name in outputs[0]}
    with replacing(case.expected(work)) as partial, partial.open("wb") as file:
        np.savez(file, images=images, **heads)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    main()
