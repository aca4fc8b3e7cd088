"""What a CPU computes in, as far as it decides how an INT8 graph and half precision run on it."""

import platform
import re
from pathlib import Path

# Flags of /proc/cpuinfo, on x86 and Arm, by what they mean here.
_FLAGS = {
    "AVX2": {"avx2"},
    "AVX-512": {"avx512f"},
    "VNNI": {"avx512_vnni", "avx_vnni"},  # products of 8-bit numbers, added up in 32 bits
    "AMX": {"amx_int8"},
    "bf16": {"avx512_bf16", "amx_bf16", "bf16"},
    "dot product": {"asimddp"},  # Arm's VNNI
}


def cpu_features(cpuinfo: str | None = None) -> tuple[str, ...]:
    """Those of AVX2, AVX-512, VNNI, AMX, bf16 and Arm's dot product that a CPU has.

    Args:
        cpuinfo: content of its /proc/cpuinfo; None: this machine's, where nothing is known if there is no such file.
    """
    if cpuinfo is None:
        path = Path("/proc/cpuinfo")
        cpuinfo = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", cpuinfo, re.MULTILINE)
    flags = set(found[1].split()) if found else set()
    return tuple(name for name, needed in _FLAGS.items() if needed & flags)


def saturates_int8() -> bool:
    """Whether 8-bit products may overflow: on x86 without VNNI two are added in 16 bits, and what is too large is cut off."""
    return platform.machine().lower() in ("x86_64", "amd64") and not {"VNNI", "AMX"} & set(cpu_features())
