"""The PyTorch reference as a backend."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from numpy.typing import NDArray

from yolov3_trt.backends import BackendName, OpenBackend
from yolov3_trt.meta import Batch, meta_from_spec
from yolov3_trt.models import Model
from yolov3_trt.reference import module_from_spec, run_module

ANY_BATCH = Batch(1, 1, 1024)


class TorchBackend(OpenBackend):
    """Runs the module of a model in eval mode, eager, float32, on the CPU or a CUDA device."""

    name = BackendName.TORCH

    def __init__(self, model: Model, *, device: str = "cpu", threads: int | None = None) -> None:
        self.meta = replace(
            meta_from_spec(model.spec, model.class_names), batch=ANY_BATCH, weights_sha256=model.weights_sha256
        )
        self._module = module_from_spec(model.spec, model.weights).to(device)
        if threads is not None:
            torch.set_num_threads(threads)  # PyTorch has one number for the whole process

    def infer(self, images: NDArray[Any]) -> Mapping[str, NDArray[Any]]:
        """(N, 3, H, W) float32 -> one (N, A*(5+C), h, w) float32 per head."""
        self.check_batch(images)
        return dict(zip(self.meta.output_names, run_module(self._module, images), strict=True))
