"""What a bug report needs, to be pasted as it is."""

import os
import platform
import re
from collections.abc import Iterable
from pathlib import Path

from yolov3_trt import __version__
from yolov3_trt.doctor.findings import Finding, Status
from yolov3_trt.doctor.probe import Probe

_VARIABLE = re.compile(r"XDG_CACHE_HOME|CUDA_.*|OPENCV_.*|OMP_NUM_THREADS|LD_LIBRARY_PATH|LD_PRELOAD|YOLOV3_TRT_.*")


def bug_report(found: Iterable[Finding], probe: Probe | None = None) -> str:
    """Markdown with the versions, the findings and the settings of the environment; the home folder is written `~`.

    Args:
        found: what `findings` gave.
        probe: the machine to ask for versions; by default this one.
    """
    versions = (probe or Probe()).packages()
    lines = [
        f"yolov3_trt {__version__}, Python {platform.python_version()}, {platform.platform()}",
        "",
        *(_finding_line(finding) for finding in found),
        "",
        *(f"{name}=={version}" for name, version in versions.items()),
    ]
    settings = [f"{name}={value}" for name, value in sorted(os.environ.items()) if _VARIABLE.fullmatch(name)]
    text = "\n".join([*lines, *(["", *settings] if settings else [])])
    return f"```text\n{_without_home(text)}\n```"


def _finding_line(finding: Finding) -> str:
    line = f"{finding.status.value:<8} {finding.name}: {finding.detail}"
    return line if finding.status is Status.OK else f"{line} (fix: {finding.fix})"


def _without_home(text: str) -> str:
    home = str(Path.home())
    return text if home == os.sep else re.sub(rf"{re.escape(home)}(?=[/\\]|$)", "~", text, flags=re.MULTILINE)
