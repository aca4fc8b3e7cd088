"""What is done with pictures around a network, and which parts of it the GPU does."""

from dataclasses import dataclass

import numpy as np

from yolov3_trt.meta import ModelMeta, Postprocess, Preprocess
from yolov3_trt.runtime.kernels.detect import detection_shapes

Shapes = dict[str, tuple[tuple[int, ...], "np.dtype[np.generic]"]]  # shape and dtype of an array, by its name


@dataclass(frozen=True)
class Work:
    """What a slot does; the parts that are not the GPU's are its caller's."""

    meta: ModelMeta
    preprocess: Preprocess
    postprocess: Postprocess
    letterbox: bool  # whether the GPU fits pictures into the input
    decode: bool  # whether it finds the detections in the heads
    why_no_graphs: str | None = None  # why it shall not run as CUDA graphs; None where it shall

    def rows(self, num_images: int) -> int:
        """Rows of a batch that holds so many images: just as many where that can vary, and enough for the artifact."""
        batch = self.meta.batch
        return max(num_images, batch.min) if batch.dynamic else batch.max

    def output_shapes(self, rows: int) -> Shapes:
        """The network's outputs."""
        return {name: (shape, np.dtype(dtype)) for name, (dtype, shape) in self.meta.output_shapes(rows).items()}

    def found_shapes(self, rows: int) -> Shapes:
        """What the GPU finds in the heads."""
        shapes = detection_shapes(rows, self.postprocess.max_detections)
        return {name: (shape, np.dtype(dtype)) for name, (shape, dtype) in shapes.items()}
