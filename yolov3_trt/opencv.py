"""What the installed OpenCV was built with, and which package brought it."""

import importlib.metadata

PIP_PACKAGES = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)


def is_built_with(name: str, build_information: str) -> bool:
    """What `cv2.getBuildInformation` says, e.g. `    GStreamer:                   YES (1.20.3)`."""
    return any(line.split()[:2] == [f"{name}:", "YES"] for line in build_information.splitlines())


def installed_pip_packages() -> tuple[str, ...]:
    """Those of PIP_PACKAGES that are installed; on a Jetson they shadow its own OpenCV, which has GStreamer."""
    installed = []
    for name in PIP_PACKAGES:
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        installed.append(name)
    return tuple(installed)
