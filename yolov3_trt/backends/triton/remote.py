"""Requests on their way to the servers of a model, repeated elsewhere when a server fails."""

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any

from numpy.typing import NDArray

from yolov3_trt.backends.triton.address import TritonAddress
from yolov3_trt.backends.triton.contract import TensorSpec
from yolov3_trt.backends.triton.servers import Servers
from yolov3_trt.backends.triton.wire import Answer, CallError, Inputs, Outputs, infer_request
from yolov3_trt.errors import BackendError

Flight = Future[Answer]

_NUMPY_TYPES = {"FP32": "float32", "INT32": "int32"}
_GRACE_S = 0.2  # a request ends by itself at its deadline, and says more than that it is late


class RemoteModel:
    """A model on one or several servers."""

    def __init__(self, address: TritonAddress) -> None:
        """Find the servers; see `Servers`."""
        self._address = address
        self._options = address.options
        self._servers = Servers(address)
        self._threads = ThreadPoolExecutor(self._options.in_flight, "triton")
        self.contract = self._servers.contract

    @property
    def statistics(self) -> dict[str, Any]:
        """Counts: `failovers` to another server, `repeats` at all, and per server what became of its requests."""
        servers = {server.name: server.statistics() for server in self._servers.all}
        return {"failovers": self._servers.failovers, "repeats": self._servers.repeats, "servers": servers}

    @property
    def fallbacks(self) -> tuple[str, ...]:
        """See `Backend.fallbacks`."""
        resting = (server for server in self._servers.all if server.rests_until_s is not None)
        reasons = [f"{server.name}: takes no requests: {server.last_error}" for server in resting]
        if self._servers.repeats:
            failed = (server for server in self._servers.all if server.failures)
            last = "; ".join(f"{one.name}: {one.failures} failed, the last: {one.last_error}" for one in failed)
            reasons.append(
                f"{self._servers.repeats} requests were repeated, {self._servers.failovers} on another server ({last})"
            )
        return tuple(reasons)

    def begin(self, inputs: Inputs) -> Flight:
        """Start a request, or let it wait for its turn where as many as allowed are on their way; the inputs are copied."""
        return self._threads.submit(self._ask, infer_request(self._address.model, self._address.version, inputs))

    def wait(self, flights: Sequence[Flight]) -> list[Answer]:
        """Wait for what requests give, all within one deadline.

        Raises:
            BackendError: the servers refuse one, or there is none that answers in time.
        """
        end_s = time.monotonic() + self._options.deadline_s + _GRACE_S
        try:
            return [flight.result(max(end_s - time.monotonic(), 0)) for flight in flights]
        except FutureTimeoutError:
            raise BackendError(
                self._late(self._servers.resting() or ["earlier requests are not answered yet"])
            ) from None

    def close(self) -> None:
        """End everything, what is under way too."""
        self._servers.close()
        self._threads.shutdown(cancel_futures=True)

    def _ask(self, request: Any) -> Answer:
        """Send a request, again and again until there is an answer; on a thread of its own."""
        end_s = time.monotonic() + self._options.deadline_s
        errors: dict[str, str] = {}  # by server, its last each
        tries, last = 0, None
        while (server := self._servers.take(end_s, last)) is not None:
            tries, last = tries + 1, server
            try:
                answer = server.connection.infer(request, self._attempt_s(end_s))
            except CallError as exc:
                self._servers.give_back(server, exc)
                errors.pop(server.name, None)
                errors[server.name] = f"{server.name}: {exc}"
                if not exc.is_worth_repeating or tries > self._options.retries:
                    said = "; ".join(errors.values())
                    raise BackendError(f"{self._address}: the request failed at try {tries}: {said}") from exc
            else:
                self._servers.give_back(server, None)
                return answer
        raise BackendError(self._late(list(errors.values()) or self._servers.resting(), tries))

    def _attempt_s(self, end_s: float) -> float:
        """How long a server may take: half of what is left where there are others to ask then."""
        left_s = max(end_s - time.monotonic(), 0.001)
        return left_s / 2 if len(self._servers.all) > 1 else left_s

    def _late(self, said: list[str], tries: int = 0) -> str:
        return (
            f"{self._address}: no answer within {self._options.deadline_s:g} s, after {tries} tries: {'; '.join(said)}; start "
            "a server there, or give it longer with ?deadline_ms="
        )


def array_of(outputs: Outputs, wanted: TensorSpec) -> NDArray[Any]:
    """An output of a response, as an array of that type and shape.

    Raises:
        BackendError: the server gave something else.
    """
    array, dtype = outputs.get(wanted.name), _NUMPY_TYPES[wanted.dtype]
    # Triton knows no scalars: one number a picture may come with a dimension of its own.
    shapes = (wanted.dims, (*wanted.dims, 1)) if len(wanted.dims) == 1 else (wanted.dims,)
    if array is None or array.dtype != dtype or array.shape not in shapes:
        got = "nothing" if array is None else f"{array.dtype} {array.shape}"
        raise BackendError(
            f"the server gave {got} as {wanted.name!r}; expected {dtype} {wanted.dims}: its model is not what its config says"
        )
    return array.reshape(wanted.dims)
