"""LeakyRelu -> PRelu with a constant slope: the same function, in the one form that a deep learning accelerator runs.

NVIDIA's table of what a DLA supports has no LeakyReLU, so that each would send its network back to the GPU and again to the
DLA, but a parametric ReLU whose slope is a constant of the same rank as its input.
"""

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from yolov3_trt.errors import ExportError

_DEFAULT_SLOPE = 0.01  # of ONNX's LeakyRelu
_RANK = 4  # of the maps between layers, (N, C, H, W)


def prelu_from_leaky(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of an FP32 graph with a PRelu in place of every LeakyRelu; names of nodes and values stay.

    `fp16_from_onnx` and `qdq_from_onnx` come after it: they see to the type of the slopes and to Q/DQ.

    Raises:
        ExportError: the graph is not FP32.
    """
    if any(initializer.data_type == TensorProto.FLOAT16 for initializer in model.graph.initializer):
        raise ExportError("this graph has float16 weights; expected an FP32 graph: PRelu comes before fp16 and int8")
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    slopes: dict[np.float32, str] = {}  # names of their initialisers
    for node in copied.graph.node:
        if node.op_type != "LeakyRelu":
            continue
        alpha = next((attribute.f for attribute in node.attribute if attribute.name == "alpha"), _DEFAULT_SLOPE)
        slope = np.float32(alpha)
        slopes.setdefault(slope, f"slope.{slope!s}")
        node.op_type = "PRelu"
        node.input.append(slopes[slope])
        del node.attribute[:]
    for slope, name in slopes.items():
        copied.graph.initializer.append(numpy_helper.from_array(np.full((1,) * _RANK, slope, np.float32), name))
    onnx.checker.check_model(copied)
    return copied
