"""What a source of frames is: one that is read in turn, or one that is there now and may be gone in a moment."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Protocol, TypeVar, runtime_checkable

from yolov3_trt.camera.frames import Frame
from yolov3_trt.errors import CameraError
from yolov3_trt.geometry import HW
from yolov3_trt.preprocess import Image

_Self = TypeVar("_Self", bound="Source")


@dataclass(frozen=True)
class SourceOptions:
    """What sources are asked for. Each kind takes what concerns it."""

    image_hw: HW | None = None  # of cameras, px; None: the camera's choice
    fps: float | None = None  # of cameras, and of pictures that are shown in real time; None: the camera's choice
    realtime: bool = False  # files at their own pace rather than as fast as they are read
    timeout_s: float = 10.0  # for a camera or stream to open, and to give its next frame
    latency_ms: int = 200  # how long a stream may be held back to put late packets in order
    transport: Literal["tcp", "udp"] = "tcp"  # of RTSP
    credentials: Mapping[str, str] = field(default_factory=dict, repr=False)  # for `${NAME}` in addresses


class SourceLost(CameraError):
    """A camera that gives nothing, and asking again soon would change nothing or do harm.

    Attributes:
        why: `refused` (user and password: accounts are locked after a few tries) or `not found`.
    """

    def __init__(self, message: str, why: Literal["refused", "not found"]) -> None:
        super().__init__(message)
        self.why = why


class Source(Protocol):
    """Gives frames one after the other, to one thread. A context manager, which closes it."""

    name: str  # stands in the results
    fps: float | None  # nominal; None where the source does not say
    live: bool  # frames that nobody reads in time are lost; otherwise they wait
    is_paced: bool = False  # each frame is due at its time by `fps`, not as soon as it is read
    pipeline: str = ""  # how it is read, for people

    def read(self) -> Frame | None:
        """The next frame, or None after the last.

        Raises:
            CameraError: the source failed.
        """
        ...

    def close(self) -> None:
        """Give up what it holds; harmless when repeated."""
        ...

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Capture(Protocol):
    """An open camera or stream, used by one thread."""

    pipeline: str  # how it is read, for people; without passwords
    image_hw: HW | None  # px; None where it does not say before the first frame
    fps: float | None  # nominal; None where it does not say
    fallbacks: tuple[str, ...]  # what is done in a lesser way than was asked for, each with the reason

    def read(self) -> Image:
        """Wait for the next picture, uint8 (H, W, 3) BGR in memory of its own.

        Raises:
            CameraError: there is none; the camera or the connection is lost.
        """
        ...

    def close(self) -> None:
        """Give it up."""
        ...


@runtime_checkable
class LiveSource(Protocol):
    """A camera or stream that can be opened again and again. Constructing one opens nothing."""

    name: str  # stands in the results; without a password
    timeout_s: float  # to open, and to give the next frame
    is_remote: bool  # it may be away at the start and come later; one that is here is there or not

    def open(self) -> Capture:
        """Open it, on the thread that will read it.

        Raises:
            CameraError: it cannot be opened; why, and what to do.
        """
        ...
