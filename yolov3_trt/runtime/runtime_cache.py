"""What TensorRT-RTX compiles when an engine runs, kept for the next start; the full TensorRT has nothing of the kind."""

import logging
from pathlib import Path
from typing import Any

from yolov3_trt.engine.flavor import Flavor
from yolov3_trt.engine.plan import Plan
from yolov3_trt.engine.trust import why_suspicious
from yolov3_trt.errors import OutputError
from yolov3_trt.files import write_bytes
from yolov3_trt.runtime.device import Device
from yolov3_trt.runtime.kernels.cubin import default_cache

_LOG = logging.getLogger(__name__)


class RuntimeCache:
    """A runtime cache of TensorRT-RTX and its file."""

    def __init__(self, engine: Any, strategy: Any, path: Path) -> None:
        """Prepare what execution contexts are made with; a cache of another machine counts as missing.

        Args:
            engine: an ICudaEngine of TensorRT-RTX.
            strategy: a CudaGraphStrategy.
            path: of the file.
        """
        self.path = path
        self.config = engine.create_runtime_config()
        self.config.cuda_graph_strategy = strategy
        self._cache = self.config.create_runtime_cache()
        self._saved = self._load()
        if self._saved and not self._cache.deserialize(self._saved):
            _LOG.info("%s: of another driver or machine; compiling anew", self.path)
        self.config.set_runtime_cache(self._cache)

    def _load(self) -> bytes:
        """What was kept; nothing where others could have put it there, as it is code, or where it cannot be read."""
        if not self.path.is_file():
            return b""
        if (reason := why_suspicious(self.path)) is not None:
            _LOG.warning("%s: this cache holds code and is not loaded: %s", self.path, reason)
            return b""
        try:
            return self.path.read_bytes()
        except OSError as exc:
            _LOG.warning("%s: this cache cannot be read (%s); compiling anew", self.path, exc.strerror)
            return b""

    def save(self) -> None:
        """Keep it, if there is anything new; a folder that cannot be written is only a note."""
        content = bytes(self._cache.serialize())
        if content == self._saved:
            return
        try:
            write_bytes(self.path, content)
        except OutputError as exc:
            _LOG.warning("what TensorRT-RTX compiled is not kept, so the next start compiles again: %s", exc)


def cache_path(plan: Plan, flavor: Flavor, device: Device) -> Path:
    """Where the runtime cache of a plan lies, in the user's own cache: it is executable content."""
    major, minor = device.compute_capability
    name = f"{plan.meta.plan_sha256[:16]}-sm_{major}{minor}-{flavor.version}.cache"
    return default_cache().with_name("tensorrt-rtx") / name
