"""The questions that the checks ask a machine. None of them raises: what cannot be answered is None.

Packages are imported in a child process, so that one that crashes, hangs or takes a GPU context does so there.
"""

import glob
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from yolov3_trt.engine.machine import Machine, distribution_version, this_machine
from yolov3_trt.opencv import PIP_PACKAGES

_IMPORT_TIMEOUT_S = 60.0  # the first import from a slow SD card takes long


@dataclass(frozen=True)
class Ran:
    """How a program ended."""

    code: int | None  # None: it gave no answer in time and was ended
    output: str = ""
    errors: str = ""

    @property
    def last_line(self) -> str:
        """What it said last, on stderr if anything: for a failed import the exception."""
        lines = (self.errors.strip() or self.output.strip()).splitlines()
        if self.code is None:
            return "it gave no answer"
        if self.code < 0:
            return f"it was ended by signal {-self.code}"
        return lines[-1].strip() if lines else f"it ended with code {self.code} and said nothing"


class Probe:
    """This machine. Tests answer in its place."""

    @cached_property
    def machine(self) -> Machine:
        """GPU, TensorRT, platform."""
        return this_machine()

    @cached_property
    def is_jetson(self) -> bool:
        """Whether this is a Jetson, or a container on one."""
        return self.machine.platform == "linux-aarch64" and (
            "jetson" in (self.text("/proc/device-tree/model") or "").lower()
            or self.text("/etc/nv_tegra_release") is not None
            or bool(self.matches("/dev/nvhost-gpu", "/dev/nvhost-ctrl-gpu"))
        )

    def run(self, *command: str, timeout_s: float = 10.0) -> Ran | None:
        """Run a program to its end; None where there is no such program."""
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=timeout_s,
            )
        except subprocess.TimeoutExpired:
            return Ran(None)
        except OSError:
            return None
        return Ran(done.returncode, done.stdout, done.stderr)

    def python(self, code: str) -> Ran:
        """Run code in a new interpreter that sees the packages this one does, but not the current folder."""
        ran = self.run(sys.executable, "-c", f"import sys; sys.path.pop(0)\n{code}", timeout_s=_IMPORT_TIMEOUT_S)
        return ran or Ran(127, errors=f"{sys.executable} cannot be started")

    def text(self, path: str) -> str | None:
        """The content of a file."""
        try:
            return Path(path).read_text(encoding="utf-8", errors="replace")
        except (OSError, ValueError):
            return None

    def matches(self, *patterns: str) -> tuple[str, ...]:
        """Files, folders and devices by absolute glob patterns, sorted."""
        return tuple(sorted(path for pattern in patterns for path in glob.glob(pattern)))

    def may_use(self, path: str) -> bool:
        """Whether this user may read and write it."""
        return os.access(path, os.R_OK | os.W_OK)

    def version(self, distribution: str) -> str | None:
        """Of a package that pip knows."""
        return distribution_version(distribution)

    def packages(self) -> dict[str, str]:
        """Versions of what this package needs or can use, by pip name; what is not installed is left out."""
        names = {*requirement_names(), *PIP_PACKAGES}
        return {name: version for name in sorted(names) if (version := self.version(name)) is not None}

    def module_folder(self, module: str) -> str | None:
        """Where a package would be imported from."""
        try:
            spec = importlib.util.find_spec(module)
        except (ImportError, ValueError):
            return None
        return str(Path(spec.origin).parent) if spec and spec.origin else None

    def free_bytes(self, folder: Path) -> int | None:
        """Free space where a folder is, or will be."""
        try:
            existing = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
            return shutil.disk_usage(existing).free
        except (OSError, StopIteration):
            return None


def requirement_names() -> frozenset[str]:
    """Of the packages that this one asks for, in its extras too, less those for working on it."""
    try:
        asked = importlib.metadata.requires("yolov3-trt") or []
    except importlib.metadata.PackageNotFoundError:  # run from its source
        return frozenset({"numpy"})
    names = (re.match(r"[A-Za-z0-9._-]+", text) for text in asked if not re.search(r"extra == ['\"]dev['\"]", text))
    return frozenset(name[0].lower() for name in names if name and name[0] != "yolov3-trt")
