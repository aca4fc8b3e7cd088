"""The backend of a server that runs the network alone: the tensorrt and onnxruntime variants."""

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from yolov3_trt.backends import BackendName, OpenBackend
from yolov3_trt.backends.triton.contract import TensorSpec, inputs_of, outputs_of
from yolov3_trt.backends.triton.remote import RemoteModel, array_of
from yolov3_trt.meta import ModelMeta


class TritonBackend(OpenBackend):
    """Sends batches to servers, a `TensorBackend`: fitting pictures and finding detections is left to the host."""

    name = BackendName.TRITON

    def __init__(self, remote: RemoteModel) -> None:
        """Take over a model on servers, of the tensorrt or onnxruntime variant."""
        self.meta: ModelMeta = remote.contract.meta
        self._remote = remote

    @property
    def fallbacks(self) -> tuple[str, ...]:  # type: ignore[override]  # here it comes to light while running
        """What is not done as it could be, each with the reason."""
        return self._remote.fallbacks

    @property
    def statistics(self) -> dict[str, Any]:
        """See `RemoteModel.statistics`."""
        return self._remote.statistics

    def infer(self, images: NDArray[Any]) -> Mapping[str, NDArray[Any]]:
        """See `TensorBackend.infer`."""
        self.check_batch(images)
        variant = self._remote.contract.variant
        (tensor,) = inputs_of(variant, self.meta)
        (answer,) = self._remote.wait([self._remote.begin({tensor.name: (tensor.dtype, images)})])
        return {
            wanted.name: array_of(answer.outputs, TensorSpec(wanted.name, wanted.dtype, (len(images), *wanted.dims)))
            for wanted in outputs_of(variant, self.meta)
        }

    def close(self) -> None:
        """See `Backend.close`."""
        if not self.is_closed:
            super().close()
            self._remote.close()
