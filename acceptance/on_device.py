"""Arrays and launches on a device, one after the other: what tests and timings of kernels need."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from yolov3_trt.meta import ModelMeta
from yolov3_trt.runtime.device import Device, DeviceArray
from yolov3_trt.runtime.kernels import detect
from yolov3_trt.runtime.kernels.detect import CAPACITY, CandidateBuffers, candidate_shapes, detection_shapes
from yolov3_trt.runtime.kernels.source import Launch


class OnDevice:
    """A device with one stream; each call returns when its work is done."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.stream = device.stream()

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> DeviceArray:
        """Memory of the device."""
        return self.device.device_array(shape, dtype)

    def put(self, array: NDArray[Any]) -> DeviceArray:
        """A copy of an array in the memory of the device."""
        target = self.empty(array.shape, array.dtype)
        host = self.device.host_array(array.shape, array.dtype)
        host.array[...] = array
        self.device.copy_to_device(host.array, target, self.stream)
        self.stream.synchronize()
        self.device.free(host)
        return target

    def get(self, source: DeviceArray) -> NDArray[Any]:
        """A copy of an array of the device."""
        host = self.device.host_array(source.shape, source.dtype)
        self.device.copy_to_host(source, host.array, self.stream)
        self.stream.synchronize()
        copied = host.array.copy()
        self.device.free(host)
        return copied

    def run(self, *launches: Launch) -> None:
        """Launch kernels and wait for them."""
        for launch in launches:
            self.device.launch(launch, self.stream)
        self.stream.synchronize()


class Detection:
    """The kernels from heads to detections, with their memory."""

    def __init__(self, on: OnDevice, meta: ModelMeta, rows: int, capacity: int = CAPACITY) -> None:
        self.on, self.meta, self.rows = on, meta, rows
        shapes = {name: (shape, np.dtype(dtype)) for name, (shape, dtype) in candidate_shapes(rows, capacity).items()}
        self._lists = {name: on.put(np.zeros(shape, dtype)) for name, (shape, dtype) in shapes.items()}
        addresses = {name: array.address for name, array in self._lists.items()}
        self.candidates = CandidateBuffers(**addresses, capacity=capacity)
        found = detection_shapes(rows, meta.postprocess.max_detections)
        self._found = {name: on.empty(shape, dtype) for name, (shape, dtype) in found.items()}

    @property
    def counts(self) -> DeviceArray:
        """Candidates of each image, which `nms` leaves at zero."""
        return self._lists["counts"]

    def launches(self, heads: Sequence[DeviceArray]) -> tuple[Launch, Launch]:
        """`decode` and `nms` of heads that lie on the device."""
        addresses = [array.address for array in heads]
        found = {name: array.address for name, array in self._found.items()}
        postprocess = self.meta.postprocess
        return (
            detect.decode(self.meta, postprocess, self.rows, addresses, heads[0].dtype, self.candidates),
            detect.nms(self.meta, postprocess, self.rows, self.candidates, found),
        )

    def __call__(self, heads: Sequence[NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        """What the kernels find in heads of the host, by name."""
        arrays = [self.on.put(array) for array in heads]
        self.on.run(*self.launches(arrays))
        self.on.device.free(*arrays)
        return {name: self.on.get(array) for name, array in self._found.items()}

    def place(self, boxes: NDArray[np.float32], keys: NDArray[np.uint64]) -> Callable[[], None]:
        """Put candidates of the first picture there; what comes back says again how many they are, which `nms` clears."""
        device, stream = self.on.device, self.on.stream
        for name, values in (("boxes", boxes), ("keys", keys)):
            host = device.host_array(values.shape, values.dtype)
            host.array[...] = values
            device.copy_to_device(host.array, self._lists[name], stream)
        count = device.host_array((1,), np.int32)  # goes with the device: a graph may hold it
        count.array[0] = len(boxes)
        stream.synchronize()
        return lambda: device.copy_to_device(count.array, self.counts, stream)

    def close(self) -> None:
        """Free the memory."""
        self.on.device.free(*self._lists.values(), *self._found.values())
