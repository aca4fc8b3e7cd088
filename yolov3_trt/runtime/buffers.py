"""The memory of a batch under way: pictures, the network's input and outputs, candidates, detections.

On an integrated GPU, as on a Jetson, pictures and detections lie in memory that host and GPU share, and are not copied.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from math import prod
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from yolov3_trt.errors import DeviceError
from yolov3_trt.geometry import Placement
from yolov3_trt.preprocess import Image
from yolov3_trt.runtime.device import Device, DeviceArray, Event, Freeable, HostArray, Stream
from yolov3_trt.runtime.kernels.detect import CandidateBuffers, candidate_shapes
from yolov3_trt.runtime.kernels.letterbox import lines_read, staged_hw
from yolov3_trt.runtime.packed import Packed
from yolov3_trt.runtime.work import Work

Thing = TypeVar("Thing", bound=Freeable)


class Buffers:
    """Memory for batches of up to `meta.batch.max` rows; what only some batches need comes with the first of them.

    Attributes:
        stream: of all the work on it.
        done: an event for the end of that work, for which a thread sleeps.
        done_soon: the same, for which it asks again and again.
        input: of the network.
        outputs: of the network, by name.
    """

    def __init__(self, device: Device, work: Work) -> None:
        """Allocate what every batch needs.

        Raises:
            DeviceError: there is not enough; nothing is held then.
        """
        self._device = device
        self._owned: list[Freeable] = []
        self._host_input: HostArray | None = None
        self._host_outputs: dict[str, HostArray] = {}
        self._frames: HostArray | None = None  # pictures, one after the other
        self._frames_on_device: DeviceArray | None = None
        rows = work.meta.batch.max
        with ExitStack() as undo:
            undo.callback(self.free)
            self.stream: Stream = self._own(device.stream())
            self.done: Event = self._own(device.event(blocking=True))
            self.done_soon: Event = self._own(device.event())
            self.input: DeviceArray = self._array(work.meta.input_shape(rows), np.dtype(work.meta.input_dtype))
            # Rows that hold no picture are computed too: zeros, so that they are finite.
            device.fill(self.input, 0, self.stream)
            self.outputs = {name: self._array(*shape) for name, shape in work.output_shapes(rows).items()}
            if work.decode:
                self._allocate_detection(work, rows)
            undo.pop_all()

    @property
    def host_input(self) -> NDArray[Any]:
        """Pinned memory for an input that the host prepares."""
        if self._host_input is None:
            self._host_input = self._own(self._device.host_array(self.input.shape, self.input.dtype))
            self._host_input.array.fill(0)
        return self._host_input.array

    @property
    def host_outputs(self) -> Mapping[str, NDArray[Any]]:
        """Pinned memory for the network's outputs."""
        for name, array in self.outputs.items():
            if name not in self._host_outputs:
                self._host_outputs[name] = self._own(self._device.host_array(array.shape, array.dtype))
        return {name: host.array for name, host in self._host_outputs.items()}

    @property
    def frames_address(self) -> int:
        """Where the GPU reads the pictures."""
        return _address(self._frames, self._frames_on_device)

    @property
    def found_addresses(self) -> dict[str, int]:
        """Where the GPU writes what it finds in the heads."""
        return self._found.addresses(_address(self._found_on_host, self._found_on_device))

    @property
    def found(self) -> dict[str, NDArray[Any]]:
        """What the GPU found, once it is copied out."""
        return self._found.views(self._found_on_host.array)

    def stage(self, images: Sequence[Image], placements: Sequence[Placement]) -> None:
        """Take over what the letterbox reads of pictures, for which `reserve` has made room."""
        assert self._frames is not None
        start = 0
        for image, placement in zip(images, placements, strict=True):
            lines, shape = lines_read(placement), (*staged_hw(placement), 3)
            memory = self._frames.array[start : start + prod(shape)].reshape(shape)
            if lines is None:
                np.copyto(memory, image)
            else:
                np.take(
                    image, lines, axis=0, out=memory, mode="clip"
                )  # they are within it: others would be copied twice
            start += memory.nbytes

    def has_room(self, nbytes: int) -> bool:
        """Whether pictures of so many bytes in all can be staged."""
        return self._frames is not None and self._frames.array.nbytes >= nbytes

    def reserve(self, nbytes: int) -> None:
        """Make room for pictures of so many bytes in all, elsewhere than before, and for larger ones to come.

        Raises:
            DeviceError: there is not enough; then there is room for none.
        """
        frames, on_device = self._frames, self._frames_on_device
        if frames is not None:  # ever larger pictures shall not pin memory anew, and lose the graphs, with each
            nbytes = max(nbytes, frames.array.nbytes * 3 // 2)
        self._frames = self._frames_on_device = None
        for thing in (frames, on_device):
            if thing is not None:
                self._owned.remove(thing)
                self._device.free(thing)
        is_shared = self._device.is_integrated
        if not is_shared:
            self._frames_on_device = self._array((nbytes,), np.dtype(np.uint8))
        self._frames = self._own(self._device.host_array((nbytes,), np.uint8, mapped=is_shared))

    def copy_frames_in(self, nbytes: int) -> None:
        """Bring the first so many bytes of the pictures to the GPU, where it does not share them."""
        if self._frames_on_device is not None and self._frames is not None:
            self._device.copy_to_device(self._frames.array[:nbytes], self._frames_on_device, self.stream)

    def copy_input_in(self, rows: int) -> None:
        """Bring what the host prepared to the GPU."""
        self._device.copy_to_device(self.host_input[:rows], self.input, self.stream)

    def copy_outputs_out(self, rows: int) -> None:
        """Bring the network's outputs to the host."""
        for name, host in self.host_outputs.items():
            self._device.copy_to_host(self.outputs[name], host[:rows], self.stream)

    def copy_found_out(self) -> None:
        """Bring what the GPU found to the host, where it does not share it."""
        if self._found_on_device is not None:
            self._device.copy_to_host(self._found_on_device, self._found_on_host.array, self.stream)

    def free(self) -> None:
        """Give all of it back; what fails then goes when the device is closed."""
        with suppress(DeviceError):
            while self._owned:
                self._device.free(self._owned.pop())

    def _allocate_detection(self, work: Work, rows: int) -> None:
        lists = {name: self._array(shape, np.dtype(dtype)) for name, (shape, dtype) in candidate_shapes(rows).items()}
        self.counts = lists["counts"]
        self.candidates = CandidateBuffers(**{name: array.address for name, array in lists.items()})
        self._found = Packed(work.found_shapes(rows))
        is_shared, shape = self._device.is_integrated, (self._found.nbytes,)
        self._found_on_host = self._own(self._device.host_array(shape, np.uint8, mapped=is_shared))
        self._found_on_device = None if is_shared else self._array(shape, np.dtype(np.uint8))

    def _array(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> DeviceArray:
        return self._own(self._device.device_array(shape, dtype))

    def _own(self, thing: Thing) -> Thing:
        self._owned.append(thing)
        return thing


def _address(host: HostArray | None, device: DeviceArray | None) -> int:
    """Where the GPU finds memory that is its own, or shared."""
    if device is not None:
        return device.address
    assert host is not None
    assert host.device_address is not None
    return host.device_address
