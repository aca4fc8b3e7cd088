"""What a server is asked and what it answers, whatever carries it; `wire.py` does, and tests have one of their own."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

# A server that says so may be at fault or away, and not the request: another one, or the same one later, may do it.
_ELSEWHERE = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "NOT_FOUND"})


class CallError(Exception):
    """A call that a server did not do.

    Attributes:
        code: gRPC's name of the status.
        text: what the server said, or gRPC where there was none.
    """

    def __init__(self, code: str, text: str) -> None:
        self.code = code
        self.text = " ".join(text.split())[:500]
        super().__init__(f"{self.code}: {self.text}")

    @property
    def is_memory_lost(self) -> bool:
        """Whether the server does not know the shared memory: it was started anew since."""
        return "Unable to find shared memory region" in self.text

    @property
    def is_worth_repeating(self) -> bool:
        """Whether it may go well on another server, or on this one later."""
        # The process that ran a python model died. The server says that the model is ready, but it never is again.
        return self.code in _ELSEWHERE or self.is_memory_lost or "Stub process" in self.text


@dataclass(frozen=True)
class ServedTensor:
    """An input or output by the server's config."""

    name: str
    dtype: str  # e.g. "FP32", the config's TYPE_FP32
    dims: tuple[int, ...]  # without the batch where the model has one; -1 is any


@dataclass(frozen=True)
class ServedModel:
    """A model by the server's config."""

    parameters: Mapping[str, str]
    inputs: tuple[ServedTensor, ...]
    outputs: tuple[ServedTensor, ...]
    max_batch: int  # 0: the dims have the batch


@dataclass(frozen=True)
class Region:
    """System shared memory that a server may have mapped."""

    name: str  # under which it is registered
    key: str  # by which the server opens it
    num_bytes: int


@dataclass(frozen=True, eq=False)
class Tensor:
    """An input of a request."""

    name: str
    dtype: str  # as `ServedTensor`'s; BYTES holds one value
    shape: tuple[int, ...]
    data: Callable[[], bytes]  # gives its bytes; asked only when they travel
    num_bytes: int
    region: Region | None = None  # where it lies too, from the start


@dataclass(frozen=True)
class ModelName:
    """A model, and a version of it or an empty string."""

    name: str
    version: str = ""

    def __str__(self) -> str:
        return f"{self.name}:{self.version}" if self.version else self.name


@dataclass(frozen=True, eq=False)
class Answer:
    """How a request ended."""

    outputs: Mapping[str, NDArray[Any]] | CallError
    at_s: float  # time.perf_counter()


class Connection(Protocol):
    """A way to one server. Calls that are told `done` return at once, and `done` is called on a thread of the connection."""

    server: str  # host:port

    def served(self, model: ModelName, timeout_s: float) -> ServedModel:
        """What the server's config says of a model that is ready.

        Raises:
            CallError: the server is not reached, or the model is not there or not ready.
        """
        ...

    def probe(self, model: ModelName, timeout_s: float, done: Callable[[CallError | None], None]) -> None:
        """Ask whether a model is ready; None: it is."""
        ...

    def infer(
        self, model: ModelName, tensors: tuple[Tensor, ...], timeout_s: float, done: Callable[[Answer], None]
    ) -> None:
        """Begin a request, tensors that have a region by reference to it."""
        ...

    def register(self, region: Region, timeout_s: float) -> None:
        """Let the server map shared memory.

        Raises:
            CallError: it does not.
        """
        ...

    def unregister(self, region: Region, timeout_s: float) -> None:
        """Let the server give it up.

        Raises:
            CallError: it does not.
        """
        ...

    def registered(self, timeout_s: float) -> frozenset[str]:
        """Names of the regions that the server has mapped, of all clients.

        Raises:
            CallError: it does not say.
        """
        ...

    def close(self) -> None:
        """End all calls."""
        ...
