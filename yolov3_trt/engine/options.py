"""What a build of an engine may be told. Precision, batch and stages are the graph's own and not told here."""

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar

from yolov3_trt.errors import BuildError

_MAX_MIB = 1 << 20  # a tebibyte: more than any GPU has


class FlavorName(str, Enum):
    """Which TensorRT."""

    AUTO = "auto"
    TENSORRT = "tensorrt"
    TENSORRT_RTX = "tensorrt_rtx"


class HardwareCompatibility(str, Enum):
    """On which GPUs a plan shall run."""

    NONE = "none"  # that of the build only
    AMPERE_PLUS = "ampere_plus"  # Ampere and newer
    SAME_COMPUTE_CAPABILITY = "same_compute_capability"  # all of the build's compute capability


class Refit(str, Enum):
    """Whether the weights of a plan can be exchanged later."""

    NONE = "none"
    ALL = "all"  # by any others
    IDENTICAL = "identical"  # by those of the build only: to bring them back to a stripped plan
    INDIVIDUAL = "individual"  # those that are marked


@dataclass(frozen=True)
class EngineOptions:
    """Options of the builder; None is TensorRT's own default.

    What the TensorRT at hand lacks is refused when building, not left out.
    """

    flavor: FlavorName = FlavorName.AUTO
    workspace_mib: int | None = None  # scratch memory of a layer at most; None: all of the GPU's
    optimization_level: int | None = None  # 0 (quick build) .. 5 (quick engine)
    timing_cache: Path | None = None  # folder of timing caches, one file per GPU and version
    hardware_compatibility: HardwareCompatibility = HardwareCompatibility.NONE
    version_compatible: bool = False  # the plan runs in newer TensorRT of its major version too
    dla_core: int | None = None  # run on this deep learning accelerator, with the GPU for what it cannot do
    refit: Refit = Refit.NONE
    strip_weights: bool = False  # leave out weights that a refit brings back
    compute_capabilities: tuple[str, ...] = ()  # of TensorRT-RTX, e.g. ("8.6", "8.9"); empty: Ampere and newer

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        if self.workspace_mib is not None and not 1 <= self.workspace_mib <= _MAX_MIB:
            raise BuildError(f"workspace_mib={self.workspace_mib}; expected 1 to {_MAX_MIB}")
        if self.optimization_level is not None and not 0 <= self.optimization_level <= 5:
            raise BuildError(f"optimization_level={self.optimization_level}; expected 0..5")
        if self.dla_core is not None and self.dla_core < 0:
            raise BuildError(f"dla_core={self.dla_core}; expected 0 or more")
        if self.strip_weights and self.refit is Refit.NONE:
            raise BuildError(
                "strip_weights=true with refit='none': such a plan could never get its weights back; set refit='identical'"
            )
