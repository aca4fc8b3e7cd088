"""Timing caches: how long kernels took, kept on disk, so that the next build of the same GPU need not measure them again.

A folder holds one plain file per TensorRT version and GPU, which trtexec reads and writes too (--timingCacheFile). A cache only
saves time: whatever is wrong with one is reported and the build goes on without it. TensorRT documents no check of what it is
given there, so a cache that another user could have written is not given to it, as an engine is not.
"""

import re
from pathlib import Path

from yolov3_trt.engine.api import IBuilderConfig, ITimingCache
from yolov3_trt.engine.driver import Gpu
from yolov3_trt.engine.flavor import Flavor
from yolov3_trt.engine.trust import why_suspicious
from yolov3_trt.errors import OutputError
from yolov3_trt.files import write_bytes


def timing_cache_path(folder: Path, flavor: Flavor, gpu: Gpu | None) -> Path:
    """Where the cache of a TensorRT and a GPU lies: `tensorrt-10.3.0-orin-8.7.timing`."""
    capability = "{}.{}".format(*gpu.compute_capability) if gpu else "unknown"
    words = (flavor.name.value, flavor.version, gpu.name if gpu else "gpu", capability)
    return folder / ("-".join(re.sub(r"[^a-z0-9._]+", "-", word.lower()).strip("-") for word in words) + ".timing")


class TimingCacheFile:
    """A timing cache in use by one build, and its file."""

    def __init__(self, path: Path, flavor: Flavor, config: IBuilderConfig) -> None:
        """Give the file's content, or where it is of no use an empty cache, to a build.

        Args:
            path: of the file, which need not exist.
            flavor: what builds.
            config: of the build. The cache must live until the build is done.
        """
        self.path = path
        self.notes: list[str] = []  # what was wrong with the file
        self._flavor = flavor
        self._config = config
        self._content = self._read()
        self._cache = self._load(self._content)

    def save(self) -> None:
        """Write what the build has added, together with what others have written in the meantime."""
        if self._cache is None:
            return
        content = self._read()
        # Two that save at the same instant may lose the one's additions; that costs time at most, as a lost cache does.
        if content not in (b"", self._content):
            self._add(content)
        merged = bytes(self._cache.serialize())
        if merged == content:
            return
        try:
            write_bytes(self.path, merged)
        except OutputError as exc:
            self.notes.append(f"the timing cache was not kept: {exc}")

    def _read(self) -> bytes:
        """The file's bytes; none where it cannot be read, or where others could have put it there."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as exc:
            fault = f"this timing cache cannot be read ({exc.strerror})"
        else:
            reason = why_suspicious(self.path)
            if reason is None:
                return content
            fault = f"this timing cache may be another user's work: {reason}"
        note = f"{self.path}: {fault}; the build starts without it"
        if note not in self.notes:
            self.notes.append(note)
        return b""

    def _load(self, content: bytes) -> ITimingCache | None:
        """The cache that the build now uses; None where TensorRT makes none."""
        with self._flavor.log.recording() as problems:
            cache = self._config.create_timing_cache(content)
            taken = cache is not None and self._config.set_timing_cache(cache, False)
        if content and not taken:
            reason = problems[-1] if problems else "it is damaged or another TensorRT's or GPU's"
            self.notes.append(f"{self.path}: {self._flavor} refuses this timing cache ({reason}); it is replaced")
        elif content and problems:  # some versions take a damaged one for an empty one
            self.notes.append(f"{self.path}: {self._flavor} says of this timing cache: {problems[-1]}")
        if taken:
            return cache
        return self._load(b"") if content else None

    def _add(self, content: bytes) -> None:
        """Take in what another build has written; its damage is no loss of ours."""
        other = self._config.create_timing_cache(content)
        if other is not None and self._cache is not None:
            self._cache.combine(other, False)
