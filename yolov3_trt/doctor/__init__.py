"""What this machine has for the edge, what is missing or broken, and the command that rights each."""

from yolov3_trt.doctor.findings import Finding, Status
from yolov3_trt.doctor.gpu import (
    check_gpu,
    check_nvcc,
    check_onnxruntime,
    check_openvino,
    check_pycuda,
    check_tensorrt,
    check_torch,
)
from yolov3_trt.doctor.probe import Probe
from yolov3_trt.doctor.report import bug_report
from yolov3_trt.doctor.system import (
    check_clocks,
    check_cpu,
    check_disk,
    check_memory,
    check_numpy,
    check_package,
    check_power_mode,
    check_python,
)
from yolov3_trt.doctor.vision import check_argus, check_cameras, check_opencv

__all__ = ["Finding", "Probe", "Status", "bug_report", "findings"]

_CHECKS = (
    check_package,
    check_python,
    check_cpu,
    check_numpy,
    check_gpu,
    check_tensorrt,
    check_nvcc,
    check_pycuda,
    check_torch,
    check_onnxruntime,
    check_openvino,
    check_opencv,
    check_cameras,
    check_argus,
    check_memory,
    check_disk,
    check_power_mode,
    check_clocks,
)


def findings(probe: Probe | None = None) -> tuple[Finding, ...]:
    """Look at everything, in a few seconds; nothing is changed and no GPU memory is taken.

    Args:
        probe: the machine to look at; by default this one.
    """
    machine = probe or Probe()
    return tuple(finding for check in _CHECKS for finding in check(machine))
