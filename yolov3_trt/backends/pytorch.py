"""The PyTorch reference as a backend, and its faster variants."""

import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from yolov3_trt.backends import ANY_BATCH, BackendName, OpenBackend
from yolov3_trt.backends.torch_options import TorchOptions
from yolov3_trt.errors import BackendError
from yolov3_trt.meta import Precision, meta_from_spec
from yolov3_trt.models import Model
from yolov3_trt.reference import module_from_spec

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def has_cuda() -> bool:
    """Whether this PyTorch has a GPU to run on."""
    return bool(torch.cuda.is_available())


class TorchBackend(OpenBackend):
    """Runs the module of a model in eval mode, a `TensorBackend`; by default eager, float32, on the CPU: the reference.

    On CUDA float32 means float32: TensorFloat-32, which PyTorch otherwise allows in convolutions, is off during a call.
    """

    name = BackendName.TORCH

    def __init__(
        self, model: Model, *, device: str = "cpu", options: TorchOptions | None = None, threads: int | None = None
    ) -> None:
        """Move the module to where it runs; one other than the reference is tried on an empty picture.

        Args:
            model: the network and its weights.
            device: where it runs, unless `options` says that.
            options: a variant.
            threads: of the CPU; PyTorch has one number for the whole process.

        Raises:
            BackendError: the variant does not run here.
        """
        self.options = options or TorchOptions(device)
        self.meta = replace(
            meta_from_spec(model.spec, model.class_names, model.class_names_from),
            batch=ANY_BATCH,
            precision=Precision.FP16 if self.options.dtype == "fp16" else Precision.FP32,
            weights_sha256=model.weights_sha256,
        )
        if threads is not None:
            torch.set_num_threads(threads)
        if self.options.device != "cpu" and not has_cuda():
            raise BackendError(
                f"{model.spec.name}: PyTorch {torch.__version__} has no CUDA device here; expected a GPU and a PyTorch built "
                "for it (yolov3_trt doctor says what is missing)"
            )
        self._dtype = _DTYPES[self.options.dtype]
        self._layout = torch.channels_last if self.options.channels_last else torch.contiguous_format
        module = module_from_spec(model.spec, model.weights)
        self._module: Any = module.to(self.options.device, self._dtype, memory_format=self._layout)
        if self.options != TorchOptions():
            self._try()

    def infer(self, images: NDArray[Any]) -> Mapping[str, NDArray[Any]]:
        """(N, 3, H, W) float32 -> one (N, A*(5+C), h, w) float32 per head, whatever is computed in between."""
        self.check_batch(images)
        with torch.inference_mode(), self._cudnn():
            batch = torch.from_numpy(images).to(self.options.device, self._dtype, memory_format=self._layout)
            outputs = [output.float().cpu().contiguous().numpy() for output in self._module(batch)]
        return dict(zip(self.meta.output_names, outputs, strict=True))

    def _cudnn(self) -> AbstractContextManager[None]:
        """CUDA's convolutions as the reference has them: the fastest of those that keep to float32."""
        if self.options.device == "cpu":
            return nullcontext()
        flags: AbstractContextManager[None] = torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False)
        return flags

    def close(self) -> None:
        """Free the module, and on CUDA what PyTorch has kept of its memory."""
        super().close()
        self._module = None
        if self.options.device != "cpu":
            torch.cuda.empty_cache()

    def _try(self) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # the compiler's, about PyTorch's own modules
                if self.options.compiled:
                    self._module = torch.compile(self._module)
                self.infer(np.zeros(self.meta.input_shape(1), np.float32))
        except RuntimeError as exc:  # no kernel for this type, no compiler, no memory: PyTorch's own are of this type
            reason = " ".join(str(exc).split())[:300]
            raise BackendError(f"{self.meta.name}: PyTorch does not run {self.options} here: {reason}") from exc
