"""What pycuda has no calls for, through the driver's own library: capturing streams, launching graphs, popping a context."""

import ctypes
from collections.abc import Callable
from contextlib import ExitStack
from ctypes import POINTER, byref, c_char_p, c_int, c_uint, c_ulonglong, c_void_p
from typing import Any

from yolov3_trt.errors import DeviceError, DeviceLostError

_HANDLE = POINTER(c_void_p)
# By cuda.h of CUDA 11.4 to 13.0; all return a CUresult.
_ARGUMENTS: dict[str, list[Any]] = {
    "cuStreamBeginCapture_v2": [c_void_p, c_int],  # stream, CUstreamCaptureMode
    "cuStreamEndCapture": [c_void_p, _HANDLE],  # stream, the graph
    "cuGraphInstantiateWithFlags": [_HANDLE, c_void_p, c_ulonglong],  # the executable graph, graph, flags
    "cuGraphLaunch": [c_void_p, c_void_p],  # executable graph, stream
    "cuGraphExecDestroy": [c_void_p],
    "cuGraphDestroy": [c_void_p],
    "cuCtxPopCurrent_v2": [_HANDLE],
    "cuDevicePrimaryCtxSetFlags_v2": [c_int, c_uint],  # device, CUctx_flags
    "cuGetErrorString": [c_int, POINTER(c_char_p)],
}
# What other threads do, such as a camera's decoder, neither breaks a capture nor is refused meanwhile.
_THREAD_LOCAL = 1
_SCHED_SPIN = 1
# What cuGetErrorString says of the errors after which, by cuda.h, "the process must be terminated and relaunched".
_STICKY = (
    "illegal memory access",  # 700
    "launch timed out",  # 702
    "device-side assert",  # 710
    "hardware stack error",  # 714
    "illegal instruction",  # 715
    "misaligned address",  # 716
    "operation not supported on global/shared address space",  # 717
    "invalid program counter",  # 718
    "unspecified launch failure",  # 719
)


def driver_error(text: str) -> DeviceError:
    """The error for what the driver said: DeviceLostError after what breaks the GPU for this process."""
    if any(words in text for words in _STICKY):
        return DeviceLostError(f"{text}; this process can no longer use the GPU: start it again")
    return DeviceError(text)


class LibCuda:
    """Calls of libcuda; a context must be current for each."""

    def __init__(self, library: Any = None) -> None:
        """Find the calls.

        Args:
            library: has them as attributes; the driver's own library when it is None.

        Raises:
            DeviceError: there is no such library, or the driver is older than CUDA 11.4.
        """
        try:
            self._library = ctypes.CDLL("libcuda.so.1") if library is None else library
            for name, arguments in _ARGUMENTS.items():
                function = getattr(self._library, name)
                function.argtypes, function.restype = arguments, c_int
        except (OSError, AttributeError) as exc:
            raise DeviceError(f"libcuda.so.1: {exc}; expected an NVIDIA driver for CUDA 11.4 or newer") from exc

    def capture(self, stream: int, body: Callable[[], None]) -> int:
        """The handle of an executable graph of what `body` puts into a stream; whatever fails, capturing ends.

        Raises:
            DeviceError: a call failed. What `body` raises passes through.
        """
        graph = c_void_p()
        self._call("cuStreamBeginCapture_v2", stream, _THREAD_LOCAL)
        with ExitStack() as undo:
            undo.callback(self._abandon, stream)
            body()
            undo.pop_all()
        with ExitStack() as undo:
            # An invalid capture gives an error and no graph; it has ended all the same.
            undo.callback(self._destroy_graph, graph)
            self._call("cuStreamEndCapture", stream, byref(graph))
            executable = c_void_p()
            self._call("cuGraphInstantiateWithFlags", byref(executable), graph, 0)
        if not executable.value:
            raise DeviceError("cuGraphInstantiateWithFlags gave no graph; expected the work of a stream")
        return executable.value

    def launch(self, executable: int, stream: int) -> None:
        """Put a graph into a stream.

        Raises:
            DeviceError: the driver refuses.
        """
        self._call("cuGraphLaunch", executable, stream)

    def destroy(self, executable: int) -> None:
        """Free a graph.

        Raises:
            DeviceError: the driver refuses.
        """
        self._call("cuGraphExecDestroy", executable)

    def let_waits_spin(self, ordinal: int) -> None:
        """Let a thread that waits for a GPU ask again and again, unless for a blocking event.

        Left to itself the driver of a Jetson may let it sleep. One that does not take this leaves all as it is.
        """
        self._library.cuDevicePrimaryCtxSetFlags_v2(ordinal, _SCHED_SPIN)

    def pop_context(self) -> None:
        """Make the context that was current before this thread's current one so, if there is any."""
        self._library.cuCtxPopCurrent_v2(byref(c_void_p()))

    def _abandon(self, stream: int) -> None:
        """End a capture whose error is already known: that of ending it would hide the cause."""
        graph = c_void_p()
        self._library.cuStreamEndCapture(stream, byref(graph))
        self._destroy_graph(graph)

    def _destroy_graph(self, graph: c_void_p) -> None:
        if graph.value:
            self._library.cuGraphDestroy(graph)

    def _call(self, name: str, *args: Any) -> None:
        code = getattr(self._library, name)(*args)
        if code:
            text = c_char_p()
            self._library.cuGetErrorString(code, byref(text))
            words = text.value.decode(errors="replace") if text.value else "unknown error"
            raise driver_error(f"{name} failed: {words} (CUresult {code})")
