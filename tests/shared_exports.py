"""PyTorch's exports, each made once in a run of the tests: hundreds of tests want the same few graphs, and one takes seconds.

Only `torch.onnx.export` is spared, and only where the network, its weights and all that a graph depends on are equal; what
this package makes of the exporter's graph, and the comparison with the reference, are done each time.
"""

import functools
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import onnx
import torch

from yolov3_trt.files import locked, write_bytes
from yolov3_trt.graph import export
from yolov3_trt.meta import ModelMeta, Precision
from yolov3_trt.reference import YoloNetwork

Export = Callable[[torch.nn.Module, ModelMeta, int], onnx.ModelProto]


@contextmanager
def exports_kept_in(folder: Path) -> Iterator[None]:
    """Within it, equal exports of this process and of others that name the same folder are one."""
    own = export._export
    export._export = _kept(own, folder)
    try:
        yield
    finally:
        export._export = own


@contextmanager
def nothing_kept() -> Iterator[None]:
    """Within it, each export is PyTorch's own."""
    kept = export._export
    export._export = getattr(kept, "__wrapped__", kept)
    try:
        yield
    finally:
        export._export = kept


def _kept(own: Export, folder: Path) -> Export:
    @functools.wraps(own)
    def kept(module: torch.nn.Module, meta: ModelMeta, opset: int) -> onnx.ModelProto:
        if not isinstance(module.network, YoloNetwork):  # of others there is no spec that says all
            return own(module, meta, opset)
        path = folder / f"{_digest(module, module.network, meta, opset)}.onnx"
        with locked(path):
            if not path.exists():
                write_bytes(path, own(module, meta, opset).SerializeToString())
        return onnx.load(path)

    return kept


def _digest(module: torch.nn.Module, network: YoloNetwork, meta: ModelMeta, opset: int) -> str:
    # The exporter's graph is float32 whatever is made of it, and knows no hashes.
    same = replace(meta, precision=Precision.FP32, opset=opset, weights_sha256=None, versions={})
    digest = hashlib.sha256(f"{same!r} {network.spec!r} {module!r}".encode())
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tensor.dtype}".encode())
        digest.update(tensor.detach().contiguous().numpy())
    return digest.hexdigest()
