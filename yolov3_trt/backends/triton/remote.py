"""Requests on their way to the servers of a model, repeated elsewhere when a server fails."""

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from queue import Empty
from typing import Any

from numpy.typing import NDArray

from yolov3_trt.backends.triton.address import TritonAddress
from yolov3_trt.backends.triton.connection import (
    Answer,
    CallError,
    Connection,
    ModelName,
    ServedTensor,
    Tensor,
)
from yolov3_trt.backends.triton.memory import Block, BlockPool
from yolov3_trt.backends.triton.servers import Events, Server, Servers
from yolov3_trt.errors import BackendError

_LOG = logging.getLogger(__name__)
Outputs = Mapping[str, NDArray[Any]]
_NUMPY_TYPES = {"FP32": "float32", "INT32": "int32"}
_SMALL_BYTES = 4096  # not worth shared memory
_CLOSE_S = 2.0  # what is under way may take to end


@dataclass(eq=False)
class Flight:
    """A request, from its start to its answer."""

    tensors: tuple[Tensor, ...]
    blocks: tuple[Block, ...]  # that hold them
    deadline_s: float | None = None  # time.monotonic(); set when its result is waited for
    answer: Answer | None = None
    tries: int = 0
    server: Server | None = None  # that has it; the last one that had it where `is_under_way` is not set
    is_under_way: bool = False
    errors: list[str] = field(default_factory=list)  # of its tries, a server's last each

    @property
    def answered_s(self) -> float:
        """When the answer came, time.perf_counter()."""
        assert self.answer is not None
        return self.answer.at_s


class RemoteModel:
    """A model on one or several servers; used on one thread."""

    def __init__(self, address: TritonAddress, connect: Callable[[str], Connection]) -> None:
        """Find the servers; see `Servers`."""
        self._address = address
        self._options = address.options
        self._model = ModelName(address.model, address.version)
        self._events = Events()
        self._servers = Servers(address, connect, self._events)
        self._pool = BlockPool()
        self._flights: list[Flight] = []
        self._failovers = self._repeats = 0
        self.contract = self._servers.contract

    @property
    def statistics(self) -> dict[str, Any]:
        """Counts: `failovers` to another server, `repeats` at all, and per server what became of its requests."""
        servers = {server.name: server.statistics() for server in self._servers.all}
        return {"failovers": self._failovers, "repeats": self._repeats, "servers": servers}

    @property
    def fallbacks(self) -> tuple[str, ...]:
        """See `Backend.fallbacks`."""
        reasons = [
            f"{server.name}: pictures travel over the socket: it cannot map shared memory ({server.why_not_shared})"
            for server in self._servers.all
            if server.why_not_shared is not None
        ]
        if self._pool.why_none is not None:
            reasons.append(f"pictures travel over the socket: shared memory: {self._pool.why_none}")
        reasons += [
            f"{server.name}: takes no requests: {server.last_error}"
            for server in self._servers.all
            if server.rests_until_s is not None
        ]
        if self._repeats:
            last = "; ".join(
                f"{s.name}: {s.failures} failed, the last: {s.last_error}" for s in self._servers.all if s.failures
            )
            reasons.append(f"{self._repeats} requests were repeated, {self._failovers} on another server ({last})")
        return tuple(reasons)

    def begin(self, inputs: Mapping[str, tuple[str, NDArray[Any]] | bytes]) -> Flight:
        """Start a request.

        Args:
            inputs: by name: bytes for one string in a batch of one, or Triton's name of a type and the values; all is copied.
        """
        tensors, blocks = [], []
        for name, given in inputs.items():
            if isinstance(given, bytes):
                tensors.append(Tensor(name, "BYTES", (1, 1), partial(bytes, given), len(given)))
                continue
            dtype, array = given
            block = self._block_of(array)
            if block is None:
                tensors.append(Tensor(name, dtype, array.shape, partial(bytes, array.tobytes()), array.nbytes))
            else:
                tensors.append(Tensor(name, dtype, array.shape, block.data, array.nbytes, block.region))
                blocks.append(block)
        flight = Flight(tuple(tensors), tuple(blocks))
        self._flights.append(flight)
        self._go_on(0)
        return flight

    def wait(self, flight: Flight) -> Outputs:
        """Wait for what a request gives: arrays by their names.

        Raises:
            BackendError: the servers refuse it, or there is none that answers within the deadline.
        """
        flight.deadline_s = time.monotonic() + self._options.deadline_s
        self._go_on(0)
        while flight.answer is None:
            left_s = flight.deadline_s - time.monotonic()
            if left_s <= 0:
                self._finish(flight, None)
                raise BackendError(self._no_answer(flight))
            self._go_on(left_s)
        if isinstance(flight.answer.outputs, CallError):
            raise BackendError(self._no_answer(flight))
        return flight.answer.outputs

    def abandon(self) -> None:
        """Forget all requests. They end by themselves: a server does not notice that nobody waits any more."""
        for flight in list(self._flights):
            self._finish(flight, None)

    def close(self) -> None:
        """End everything; nothing of it stays in shared memory."""
        self.abandon()
        end_s = time.monotonic() + _CLOSE_S
        self._run_events(0)
        while self._servers.in_flight and time.monotonic() < end_s:
            self._run_events(end_s - time.monotonic())
        self._servers.forget(self._pool.close())
        self._servers.close()

    def _block_of(self, array: NDArray[Any]) -> Block | None:
        """A copy in shared memory; None where that is not worth it, or not to be had."""
        if array.nbytes <= _SMALL_BYTES or not any(server.shares_memory for server in self._servers.all):
            return None
        block, gone = self._pool.take(array.nbytes)
        self._servers.forget(gone)
        if block is not None:
            block.put(array)
        return block

    def _go_on(self, wait_s: float) -> None:
        """Start what can be started, and run what comes in within a time, or up to the first that comes."""
        self._run_events(0)
        next_s = self._servers.tend()
        for flight in self._flights:
            if not flight.is_under_way and flight.answer is None:
                self._start(flight)
        if next_s is not None:
            wait_s = min(wait_s, max(next_s - time.monotonic(), 0))
        if wait_s > 0:
            self._run_events(wait_s)

    def _run_events(self, wait_s: float) -> None:
        try:
            event = self._events.get(timeout=wait_s) if wait_s > 0 else self._events.get_nowait()
            while True:
                event()
                event = self._events.get_nowait()
        except Empty:
            pass

    def _start(self, flight: Flight) -> None:
        """Send a request, if the limit of those in flight allows and a server takes it."""
        if self._servers.in_flight >= self._options.in_flight:
            return
        server = self._servers.choose()
        if server is None:
            return
        self._repeats += flight.tries > 0
        self._failovers += flight.tries > 0 and server is not flight.server
        flight.tries += 1
        flight.server, flight.is_under_way = server, True
        tensors = tuple(
            tensor
            if tensor.region is None or self._servers.share(server, tensor.region)
            else replace(tensor, region=None)
            for tensor in flight.tensors
        )
        regions = [tensor.region.name for tensor in tensors if tensor.region is not None]
        self._servers.sent(server, regions)

        def done(answer: Answer) -> None:
            self._events.put(lambda: self._answered(flight, server, regions, answer))

        server.connection.infer(self._model, tensors, self._attempt_s(flight), done)

    def _attempt_s(self, flight: Flight) -> float:
        """How long a server may take; half of what is left where there are others to ask then."""
        now_s = time.monotonic()
        left_s = self._options.deadline_s if flight.deadline_s is None else max(flight.deadline_s - now_s, 0.001)
        return left_s / 2 if len(self._servers.all) > 1 else left_s

    def _answered(self, flight: Flight, server: Server, regions: list[str], answer: Answer) -> None:
        error = answer.outputs if isinstance(answer.outputs, CallError) else None
        self._servers.ended(server, regions, error)
        if flight not in self._flights:
            return  # given up meanwhile
        flight.is_under_way = False
        if error is None:
            self._finish(flight, answer)
            return
        flight.errors = [*(e for e in flight.errors if not e.startswith(f"{server.name}: ")), f"{server.name}: {error}"]
        if error.is_worth_repeating:
            self._servers.failed(server, error)
            if flight.tries <= self._options.retries:
                return
        self._finish(flight, answer)

    def _finish(self, flight: Flight, answer: Answer | None) -> None:
        """Take a request out, with its answer or without one."""
        self._flights.remove(flight)
        flight.answer = answer
        flight.is_under_way = False
        for block in flight.blocks:
            self._pool.give_back(block)

    def _no_answer(self, flight: Flight) -> str:
        resting = [
            f"{server.name}: {server.last_error}" for server in self._servers.all if server.rests_until_s is not None
        ]
        said = "; ".join(flight.errors or resting) or "nothing was said"
        if flight.answer is not None:
            return f"{self._address}: the request failed at try {flight.tries}: {said}"
        return (
            f"{self._address}: no answer within {self._options.deadline_s:g} s, after {flight.tries} tries: {said}; start a "
            "server there, or give it longer with ?deadline_ms="
        )


def array_of(outputs: Outputs, wanted: ServedTensor) -> NDArray[Any]:
    """An output of a response, as an array of that type and shape.

    Raises:
        BackendError: the server gave something else.
    """
    array, dtype = outputs.get(wanted.name), _NUMPY_TYPES[wanted.dtype]
    if array is None or array.dtype != dtype or array.size != math.prod(wanted.dims):
        got = "nothing" if array is None else f"{array.dtype} {array.shape}"
        raise BackendError(
            f"the server gave {got} as {wanted.name!r}; expected {dtype} {wanted.dims}: its model is not what its config says"
        )
    return array.reshape(wanted.dims)
