"""The NVIDIA side: driver, TensorRT, CUDA's compiler, pycuda; and what runs a model without them."""

import re
from collections.abc import Iterator

from yolov3_trt.doctor.findings import Finding, error, missing, ok, warning
from yolov3_trt.doctor.probe import Probe
from yolov3_trt.engine.machine import InstalledFlavor
from yolov3_trt.settings import FlavorName

_SYSTEM_TENSORRT = "/usr/lib/python3*/dist-packages/tensorrt"
_CONTAINER = "in a container, start it with --gpus all (on a Jetson --runtime nvidia)"

# What shows that a TensorRT's libraries load. TensorRT-RTX's package hides a library that does not until it is used.
_TRIALS = {
    FlavorName.TENSORRT: "import tensorrt as trt\ntrt.Logger(trt.Logger.ERROR)",
    FlavorName.TENSORRT_RTX: "import tensorrt_rtx_bindings as trt\ntrt.Builder(trt.Logger(trt.Logger.ERROR))",
}


def check_gpu(probe: Probe) -> Iterator[Finding]:
    """The first GPU as the driver shows it."""
    gpu = probe.machine.gpu
    if gpu is not None:
        capability, cuda = ("{}.{}".format(*pair) for pair in (gpu.compute_capability, gpu.driver_cuda))
        yield ok("gpu", f"{gpu.name}, compute capability {capability}, driver for CUDA {cuda}")
    elif probe.is_jetson or probe.text("/proc/driver/nvidia/version") is not None:
        detail = "the kernel has an NVIDIA driver, but no GPU can be reached through it"
        yield missing("gpu", detail, f"{_CONTAINER}; otherwise restart the machine, or reinstall the driver")
    else:
        detail = "no NVIDIA GPU and driver: engines do not run here, .onnx files and TensorRT-RTX builds do"
        yield missing("gpu", detail, f"install the driver of your GPU; {_CONTAINER}")


def check_tensorrt(probe: Probe) -> Iterator[Finding]:
    """Each TensorRT that is installed; one will do."""
    flavors = probe.machine.flavors
    listed = probe.version("tensorrt")
    if listed is not None and probe.machine.flavor("tensorrt") is None:
        detail = (
            f"pip lists tensorrt {listed}, but there is no such module: the package is a stub whose download failed"
        )
        yield error(
            "tensorrt", detail, "pip uninstall -y tensorrt, then pip install --no-cache-dir 'yolov3-trt[tensorrt]'"
        )
    elif not flavors:
        yield _no_tensorrt(probe)
    for flavor in flavors:
        yield _tensorrt(probe, flavor)


def check_nvcc(probe: Probe) -> Iterator[Finding]:
    """CUDA's compiler, which pip needs to install pycuda."""
    ran = probe.run("nvcc", "--version")
    if ran is None:
        elsewhere = probe.matches("/usr/local/cuda/bin/nvcc", "/usr/local/cuda-*/bin/nvcc")
        if elsewhere:
            folder = elsewhere[0].rpartition("/")[0]
            yield warning("nvcc", f"{elsewhere[0]} is not on PATH", f"export PATH={folder}:$PATH")
        else:
            fix = "install the CUDA toolkit (on a Jetson: sudo apt install nvidia-jetpack)"
            yield missing("nvcc", "not installed; pip needs it to install pycuda", fix)
        return
    release = re.search(r"\brelease (\d{1,3})\.(\d{1,3})", ran.output)
    if ran.code != 0 or release is None:
        yield error("nvcc", f"nvcc --version does not work: {ran.last_line}", "reinstall the CUDA toolkit")
        return
    gpu, version = probe.machine.gpu, f"{release[1]}.{release[2]}"
    if gpu is not None and int(release[1]) > gpu.driver_cuda[0]:
        driver = "{}.{}".format(*gpu.driver_cuda)
        fix = f"update the driver, or install the CUDA {gpu.driver_cuda[0]} toolkit and reinstall pycuda with it"
        yield warning("nvcc", f"compiles for CUDA {version}, the driver supports {driver} at most", fix)
    else:
        yield ok("nvcc", f"CUDA {version}")


def check_pycuda(probe: Probe) -> Iterator[Finding]:
    """What runs engines."""
    version = probe.version("pycuda")
    if version is None and probe.module_folder("pycuda") is None:
        fix = "pip install 'yolov3-trt[pycuda]' (it is compiled then: nvcc must be on PATH)"
        yield missing("pycuda", "not installed; engines are run through it", fix)
        return
    ran = probe.python("import pycuda.driver")
    if ran.code == 0:
        yield ok("pycuda", version or "of the system")
    elif "libcuda.so" in ran.errors and probe.machine.gpu is None:
        detail = f"{version or 'installed'}, but cannot be imported without an NVIDIA driver"
        yield warning("pycuda", detail, f"see gpu: {_CONTAINER}")
    else:
        fix = "compile it again for this CUDA: pip install --force-reinstall --no-cache-dir --no-deps --no-binary pycuda pycuda"
        yield error("pycuda", f"{version or 'installed'}, but does not import: {ran.last_line}", fix)


def check_torch(probe: Probe) -> Iterator[Finding]:
    """PyTorch, read from its files: importing it takes seconds."""
    folder = probe.module_folder("torch")
    if folder is None:
        elsewhere = "compare and train on a PC: no wheel of torch fits a Jetson's GPU"
        fix = elsewhere if probe.is_jetson else "pip install 'yolov3-trt[export]'"
        yield missing("torch", "not installed; the PyTorch reference needs it, `export` and engines do not", fix)
        return
    text = probe.text(f"{folder}/version.py") or ""
    version = re.search(r"^__version__\s*=\s*['\"]([^'\"\n]+)", text, re.MULTILINE)
    cuda = re.search(r"^cuda\b[^=\n]*=\s*['\"]([^'\"\n]+)", text, re.MULTILINE)
    name = (version[1] if version else probe.version("torch")) or "of unknown version"
    if cuda is None and probe.machine.gpu is not None:
        where = "NVIDIA's wheel for your JetPack" if probe.is_jetson else "a wheel for your CUDA"
        detail = f"{name} was built without CUDA: the reference runs and trains on the CPU"
        yield warning("torch", detail, f"pip uninstall -y torch, then install {where}")
    else:
        yield ok("torch", f"{name}, {f'CUDA {cuda[1]}' if cuda else 'for the CPU'}")


def check_onnxruntime(probe: Probe) -> Iterator[Finding]:
    """What runs `.onnx` files."""
    version = probe.version("onnxruntime") or probe.version("onnxruntime-gpu")
    if version is None:
        yield missing("onnxruntime", "not installed; .onnx files run on it", "pip install 'yolov3-trt[cpu]'")
    else:
        yield ok("onnxruntime", version)


def check_openvino(probe: Probe) -> Iterator[Finding]:
    """What runs `.onnx` files faster on CPUs that have INT8 or bf16; nobody has to have it."""
    if (version := probe.version("openvino")) is not None:
        yield ok("openvino", f"{version}, by --backend openvino")


def _no_tensorrt(probe: Probe) -> Finding:
    of_system = probe.matches(_SYSTEM_TENSORRT)
    if of_system:
        fix = f"make the virtual environment with --system-site-packages, of the Python that {of_system[0]} is for"
        return missing("tensorrt", f"JetPack's is in {of_system[0]}, where this Python does not look", fix)
    if probe.is_jetson:
        return missing("tensorrt", "not installed", "sudo apt install tensorrt python3-libnvinfer")
    rtx, full = "pip install 'yolov3-trt[rtx]'", "pip install 'yolov3-trt[tensorrt]'"
    fix = f"{rtx}, which builds on any CPU; {full} on a machine with a GPU"
    if probe.machine.platform == "linux-aarch64":  # a container may hide that it is on a Jetson
        fix = f"{rtx}, which builds on any CPU; if this is a Jetson: sudo apt install tensorrt python3-libnvinfer"
    return missing("tensorrt", "not installed; engines are built with it", fix)


def _tensorrt(probe: Probe, flavor: InstalledFlavor) -> Finding:
    name, gpu = flavor.name.value, probe.machine.gpu
    version = flavor.version or "of unknown version"
    ran = probe.python(_TRIALS[flavor.name])
    if ran.code != 0:
        extra = "rtx" if flavor.name is FlavorName.TENSORRT_RTX else "tensorrt"
        fix = f"reinstall it: pip install --force-reinstall --no-cache-dir 'yolov3-trt[{extra}]'"
        if probe.is_jetson:
            fix = "sudo apt install --reinstall tensorrt python3-libnvinfer, and pip uninstall any tensorrt of pip's"
        return error(name, f"{version} is installed, but does not load: {ran.last_line}", fix)
    if gpu is not None and flavor.cuda_major is not None and flavor.cuda_major > gpu.driver_cuda[0]:
        driver = "{}.{}".format(*gpu.driver_cuda)
        detail = f"{version} is made for CUDA {flavor.cuda_major}, the driver supports {driver} at most"
        return error(name, detail, f"update the driver, or install a {name} for CUDA {gpu.driver_cuda[0]}")
    return ok(name, f"{version}{f', for CUDA {flavor.cuda_major}' if flavor.cuda_major else ''}")
