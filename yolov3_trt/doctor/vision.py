"""OpenCV and cameras."""

import re
from collections.abc import Iterator

from yolov3_trt.doctor.findings import Finding, error, missing, ok, warning
from yolov3_trt.doctor.probe import Probe, Ran
from yolov3_trt.opencv import INTERLACED_M2V, PIP_PACKAGES, is_built_with

_SYSTEM_OPENCV = ("/usr/lib/python3*/dist-packages/cv2", "/usr/lib/python3*/dist-packages/cv2*.so")
_SPOILT = "interlaced video: spoilt"
_DESCRIBE = f"""import cv2
print(cv2.__version__)
print(cv2.__file__)
print(cv2.getBuildInformation())
import base64, os, tempfile
with tempfile.TemporaryDirectory() as folder:
    name = os.path.join(folder, "interlaced.m2v")
    with open(name, "wb") as file:
        file.write(base64.b64decode("{INTERLACED_M2V}"))
    video = cv2.VideoCapture(name, cv2.CAP_FFMPEG)
    is_read, picture = video.read()
    video.release()
    if is_read and not 112 < picture.min() <= picture.max() < 144:
        print("{_SPOILT}")
"""


def check_opencv(probe: Probe) -> Iterator[Finding]:
    """OpenCV, and what it can read frames with."""
    if probe.module_folder("cv2") is None:
        yield _no_opencv(probe)
        return
    ran = probe.python(_DESCRIBE)
    if ran.code != 0:
        yield error("opencv", f"installed, but does not import: {ran.last_line}", _import_fix(ran))
        return
    version, origin, *lines = [*ran.output.splitlines(), "", ""]
    info = "\n".join(lines)
    of_pip = [name for name in PIP_PACKAGES if probe.version(name)]
    if len(of_pip) > 1:
        fix = f"pip uninstall -y {' '.join(of_pip)}, then pip install {of_pip[0]}"
        yield warning("opencv", f"{version}; {' and '.join(of_pip)} have overwritten each other's files", fix)
    else:
        yield ok("opencv", f"{version} at {origin}")
    if _SPOILT in info:
        detail = f"OpenCV {version} gives black pictures of interlaced files and streams, and says that all is well"
        fix = f"only where you have such video: pip install '{of_pip[0] if of_pip else 'opencv-python'}<4.13'"
        yield warning("interlaced video", detail, fix)
    yield from _gstreamer(probe, is_built_with("GStreamer", info), of_pip)
    if probe.machine.platform.startswith("linux"):
        if is_built_with("v4l/v4l2", info):
            yield ok("v4l2", "OpenCV reads USB cameras")
        else:
            fix = "install another OpenCV: sudo apt install python3-opencv, or pip install 'yolov3-trt[opencv]'"
            yield missing("v4l2", "OpenCV was built without it: no USB cameras", fix)


def check_cameras(probe: Probe) -> Iterator[Finding]:
    """Camera nodes, and whether this user may open them."""
    if not probe.machine.platform.startswith("linux"):
        return
    nodes = probe.matches("/dev/video[0-9]*")
    denied = [node for node in nodes if not probe.may_use(node)]
    if denied:
        fix = "sudo usermod -aG video $USER, then log in again (in a container: --group-add video)"
        yield warning("cameras", f"no permission to open {', '.join(denied)}", fix)
    elif nodes:
        yield ok("cameras", ", ".join(nodes))
    else:
        fix = "plug one in (in a container: --device /dev/video0); files and rtsp:// need none"
        yield missing("cameras", "there is no /dev/video node", fix)


def check_argus(probe: Probe) -> Iterator[Finding]:
    """The service behind a Jetson's CSI cameras."""
    if not probe.is_jetson:
        return
    if probe.matches("/tmp/argus_socket"):
        yield ok("csi cameras", "nvargus-daemon is there")
    else:
        fix = "sudo systemctl restart nvargus-daemon (in a container: --volume /tmp/argus_socket:/tmp/argus_socket)"
        yield warning("csi cameras", "nvargus-daemon cannot be reached: csi:// does not open", fix)


def _no_opencv(probe: Probe) -> Finding:
    of_system = probe.matches(*_SYSTEM_OPENCV)
    if of_system:
        fix = "make the virtual environment with --system-site-packages, of the Python that it is for"
        return missing("opencv", f"the system's is in {of_system[0]}, where this Python does not look", fix)
    if probe.is_jetson:  # pip's would lack GStreamer
        return missing("opencv", "not installed", "sudo apt install python3-opencv")
    return missing("opencv", "not installed", "pip install 'yolov3-trt[opencv]' (without a screen: opencv-headless)")


def _import_fix(ran: Ran) -> str:
    if "libGL" in ran.errors or "libgthread" in ran.errors or "libglib" in ran.errors:
        headless = "pip uninstall -y opencv-python && pip install 'yolov3-trt[opencv-headless]'"
        return f"{headless}, or sudo apt install libgl1 libglib2.0-0"
    if re.search(r"numpy\.core\.multiarray|compiled using NumPy 1|_ARRAY_API", ran.errors):
        return "it was built for NumPy 1: pip install 'numpy<2'"
    return (
        "pip uninstall every opencv package, then pip install 'yolov3-trt[opencv]' or sudo apt install python3-opencv"
    )


def _gstreamer(probe: Probe, built_in: bool, of_pip: list[str]) -> Iterator[Finding]:
    if built_in:
        yield ok("gstreamer", "OpenCV reads csi:// cameras and GStreamer pipelines")
    elif probe.is_jetson and of_pip:
        then = "" if probe.matches(*_SYSTEM_OPENCV) else ", then sudo apt install python3-opencv"
        detail = f"pip's {of_pip[0]} shadows the system's OpenCV and has no GStreamer: csi:// does not open"
        yield warning("gstreamer", detail, f"pip uninstall -y {' '.join(of_pip)}{then}")
    else:
        fix = "only where you need those: sudo apt install python3-opencv, in a venv made with --system-site-packages"
        yield missing("gstreamer", "OpenCV was built without it: no csi:// and no GStreamer pipelines", fix)
