"""Several arrays in one piece of memory, so that one copy takes them all."""

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

_ALIGNMENT = 256  # bytes


class Packed:
    """Where each of some arrays lies, one after the other."""

    def __init__(self, shapes: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]]) -> None:
        """Lay arrays out.

        Args:
            shapes: shape and dtype of each, by name.
        """
        self._places: dict[str, tuple[int, tuple[int, ...], np.dtype[Any]]] = {}
        self.nbytes = 0
        for name, (shape, dtype) in shapes.items():
            self._places[name] = (self.nbytes, shape, dtype)
            end = self.nbytes + prod(shape) * dtype.itemsize
            self.nbytes = -(-end // _ALIGNMENT) * _ALIGNMENT

    def addresses(self, start: int) -> dict[str, int]:
        """Where each lies in memory that starts there."""
        return {name: start + offset for name, (offset, _, _) in self._places.items()}

    def views(self, memory: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """The arrays in memory of `nbytes`."""
        return {
            name: memory[offset : offset + prod(shape) * dtype.itemsize].view(dtype).reshape(shape)
            for name, (offset, shape, dtype) in self._places.items()
        }
