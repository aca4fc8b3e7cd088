"""Compiles the kernels for every GPU that they are shipped for: `make kernels`; needs no GPU and no C++ compiler.

Each release of NVRTC comes as a wheel into a folder of its own, and what it makes is the same bytes each time. A GPU's code is
made by the oldest release that knows the GPU: drivers load what their own CUDA or an older one made. From 12.8 on for new GPUs,
and in 13.0 for all, cubins are of another ABI, which the driver of JetPack 6 does not know.

Usage: kernels.py FOLDER
"""

import io
import lzma
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from yolov3_trt.runtime.kernels.cubin import PTX  # noqa: E402
from yolov3_trt.runtime.kernels.shipped import ARCHIVE, KEY  # noqa: E402
from yolov3_trt.runtime.kernels.source import source_sha256  # noqa: E402

# What each release makes, all that nvcc 13.0 knows but 8.8, which no stated platform has: that takes the PTX, as older ones do.
MADE_BY = {
    "nvidia-cuda-nvrtc-cu12==12.2.140": (PTX, "sm_75", "sm_80", "sm_86", "sm_87", "sm_89", "sm_90"),
    "nvidia-cuda-nvrtc-cu12==12.8.93": ("sm_100", "sm_120"),
    "nvidia-cuda-nvrtc-cu12==12.9.86": ("sm_103", "sm_121"),
    "nvidia-cuda-nvrtc==13.0.88": ("sm_110",),
}
# In a process of its own: two releases do not go together. NVRTC looks for its own parts among what is loaded.
_MAKE = """
import ctypes, sys
from pathlib import Path
from yolov3_trt.runtime.kernels.compilers import compiled
folder, arch = sys.argv[1:]
for library in Path(folder).glob("nvidia/*/lib/libnvrtc-builtins.so.*"):
    ctypes.CDLL(str(library))
(library,) = Path(folder).glob("nvidia/*/lib/libnvrtc.so.*")
sys.stdout.buffer.write(compiled(ctypes.CDLL(str(library)), arch))
"""


def compile_with(package: str, arch: str, folder: Path) -> bytes:
    """What a release of NVRTC makes for `sm_87` or the like; the wheel is fetched where it is not there."""
    there = folder / package.replace("==", "-")
    if not there.is_dir():
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(there), package]
        subprocess.run(install, check=True)
    return subprocess.run([sys.executable, "-c", _MAKE, there, arch], cwd=ROOT, check=True, capture_output=True).stdout


def main(folder: Path) -> None:
    """Make the archive; the same sources give the same bytes."""
    members = {KEY: source_sha256().encode()}
    for package, archs in MADE_BY.items():
        for arch in archs:
            members[arch] = compile_with(package, arch, folder)
            print(f"{arch}: {len(members[arch]) >> 10} KiB by {package}")
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, code in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(code)
            archive.addfile(member, io.BytesIO(code))
    ARCHIVE.write_bytes(lzma.compress(content.getvalue(), preset=9 | lzma.PRESET_EXTREME))
    print(f"{ARCHIVE.relative_to(ROOT)}: {ARCHIVE.stat().st_size >> 10} KiB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
