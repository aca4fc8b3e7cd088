"""What this machine can run engines with, asked without importing a TensorRT or touching the GPU."""

import importlib.metadata
import importlib.util
import platform
import re
from dataclasses import dataclass
from pathlib import Path

from yolov3_trt.engine.driver import Gpu, installed_gpu
from yolov3_trt.engine.flavor import MODULES, installed_flavors
from yolov3_trt.settings import FlavorName

# What pip calls the packages that bring each module; a Jetson's own TensorRT is `tensorrt`.
_DISTRIBUTIONS = {
    FlavorName.TENSORRT: ("tensorrt", "tensorrt_cu13", "tensorrt_cu12", "tensorrt_cu11"),
    FlavorName.TENSORRT_RTX: ("tensorrt_rtx_cu13_bindings", "tensorrt_rtx_cu12_bindings", "tensorrt_rtx"),
}


@dataclass(frozen=True)
class InstalledFlavor:
    """A TensorRT that can be imported."""

    name: FlavorName
    version: str | None  # None where neither its package nor its source says
    cuda_major: int | None = None  # of the CUDA that it is made for; None where its package does not say


@dataclass(frozen=True)
class Machine:
    """What decides whether an engine runs."""

    platform: str  # operating system and architecture, e.g. "linux-x86_64"
    gpu: Gpu | None = None  # the first one
    flavors: tuple[InstalledFlavor, ...] = ()
    num_dla_cores: int = 0

    def flavor(self, name: str) -> InstalledFlavor | None:
        """The installed TensorRT of this name."""
        return next((flavor for flavor in self.flavors if flavor.name.value == name), None)


def this_machine() -> Machine:
    """The machine that this runs on."""
    flavors = tuple(map(_installed_flavor, installed_flavors()))
    return Machine(this_platform(), installed_gpu(), flavors, _num_dla_cores())


def this_platform() -> str:
    """Operating system and architecture, e.g. `linux-x86_64`."""
    return f"{platform.system()}-{platform.machine()}".lower()


def distribution_version(name: str) -> str | None:
    """The version of an installed package, by its pip name; None where there is none that can be read."""
    try:
        version: str | None = importlib.metadata.version(name)
    except (importlib.metadata.PackageNotFoundError, OSError, ValueError, KeyError):  # the last three: a damaged one
        return None
    return version or None


def source_version(module: str) -> str | None:
    """The `__version__` that a package's source states, read and not run; None where there is none."""
    try:
        found = importlib.util.find_spec(module)
        text = Path(found.origin).read_text(errors="replace") if found and found.origin else ""
    except (OSError, ValueError, ImportError):  # unreadable, or a module put into sys.modules without a spec
        return None
    match = re.search(r"""^__version__\s*=\s*["']([^"']+)["']""", text, re.MULTILINE)
    return match[1] if match else None


def _installed_flavor(name: FlavorName) -> InstalledFlavor:
    distribution = next(filter(distribution_version, _DISTRIBUTIONS[name]), None)
    # The source first: that is what a build writes into the sidecar.
    version = source_version(MODULES[name]) or (distribution_version(distribution) if distribution else None)
    return InstalledFlavor(name, version, _cuda_major(distribution) if distribution else None)


def _cuda_major(distribution: str) -> int | None:
    """From its name or what it requires, `..._cu13`; the CUDA that the package's libraries were linked against."""
    try:
        requirements = importlib.metadata.requires(distribution) or []
    except (importlib.metadata.PackageNotFoundError, OSError, ValueError, KeyError):
        requirements = []
    found = re.search(r"[-_]cu(1\d)(?!\d)", " ".join([distribution, *requirements]))
    return int(found[1]) if found else None


def _num_dla_cores() -> int:
    """Deep learning accelerators that JetPack shows: a node each, named by JetPack 5 and newer or by older ones."""
    try:
        nodes = [path.name for path in Path("/dev").glob("nvhost-*nvdla*")]
    except OSError:
        return 0
    return len({match[0] for match in (re.search(r"\d+$", name) for name in nodes) if match})
