"""The servers of a model: which of them takes a request, and which rests after a failure until it is well again.

gRPC could choose by itself: one channel of all addresses with `round_robin` and a `retryPolicy`. Tried with gRPC 1.85 and two
servers, it passes over one that was killed, but not one that hangs (stopped by SIGSTOP): every second request fails after its
whole deadline, or, with the deadline of an attempt that `grpc.experimental.enable_hedging` allows, waits for that one, for as
long as the server hangs, keepalive pings or not. It does not say either which server failed or answered, so one that serves
another model by now could not be left out, and a repeat would be silent. So each server has a channel of its own, which gRPC
keeps connected, and is chosen here.
"""

import logging
import math
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from yolov3_trt.backends.triton.address import TritonAddress
from yolov3_trt.backends.triton.contract import Contract, contract_of
from yolov3_trt.backends.triton.wire import CallError, Connection, tls_credentials
from yolov3_trt.errors import BackendError

_LOG = logging.getLogger(__name__)

OPEN_S = 5.0  # a server has to answer the first question within
QUICK_S = 1.0  # and the same question later
# A failed server rests this long, twice as long after each further failure, up to the longest; times 0.5 to 1.5 by chance,
# so that the clients of a server that comes back do not all come at once.
REST_S, LONGEST_REST_S = 0.2, 5.0


@dataclass(eq=False)
class Server:
    """One of the servers, and how it does."""

    connection: Connection
    in_flight: int = 0
    requests: int = 0  # sent so far, and how many of them failed through its fault
    failures: int = 0
    last_error: str | None = None
    rests: int = 0  # since its last answer
    rests_until_s: float | None = None  # time.monotonic(); None: it takes requests
    is_asked: bool = False  # whether it is well again, at this moment

    @property
    def name(self) -> str:
        """Its host:port."""
        return self.connection.server

    def statistics(self) -> dict[str, Any]:
        """Its counts as JSON values."""
        return {
            "requests": self.requests,
            "failures": self.failures,
            "takes_requests": self.rests_until_s is None,
            "last_error": self.last_error,
        }


class Servers:
    """All servers of an address, which serve the same contract. Any thread may use it."""

    def __init__(self, address: TritonAddress) -> None:
        """Ask each for the model; those that do not answer rest.

        Raises:
            BackendError: none serves it, or two serve different ones; or a certificate cannot be read.
            MissingDependency: tritonclient is not installed.
        """
        credentials = _credentials(address) if address.has_tls else None
        self.all = [Server(Connection(name, address.model, address.version, credentials)) for name in address.servers]
        self.repeats = self.failovers = 0  # requests that were sent again, and to another server
        self._changed = threading.Condition()  # guards all of this
        self._is_closed = False
        self._checks = ThreadPoolExecutor(len(self.all), "triton-check")
        try:
            self.contract = self._first_contract(address)
        except BackendError:
            self.close()
            raise

    def take(self, end_s: float, last: Server | None) -> Server | None:
        """Choose a server for a request, the least busy one of those that take any; waits for one if they all rest.

        Args:
            end_s: when to give up, time.monotonic().
            last: that failed to answer the same request before; None: it is new.

        Returns:
            A server, which counts the request until `give_back`; None: there was none in time, or `close` was called.
        """
        with self._changed:
            while not self._is_closed and time.monotonic() < end_s:
                next_s = self._ask_rested()
                taking = [server for server in self.all if server.rests_until_s is None]
                if not taking:
                    self._changed.wait(min(end_s, next_s) - time.monotonic())
                    continue
                server = min(taking, key=lambda server: (server.in_flight, server.requests))
                server.in_flight += 1
                server.requests += 1
                self.repeats += last is not None
                self.failovers += last is not None and last is not server
                return server
        return None

    def give_back(self, server: Server, error: CallError | None) -> None:
        """Note the end of a request; a server at fault rests."""
        with self._changed:
            server.in_flight -= 1
            if error is None:
                if server.rests:
                    _LOG.warning("%s: takes requests again", server.name)
                server.rests = 0
            elif error.is_worth_repeating and not self._is_closed:
                server.failures += 1
                if server.rests_until_s is None:  # else: another request was there when it failed
                    self._rest(server, str(error))

    def resting(self) -> list[str]:
        """What is wrong with those that take no requests."""
        return [f"{server.name}: {server.last_error}" for server in self.all if server.rests_until_s is not None]

    def close(self) -> None:
        """End all calls and connections."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        for server in self.all:
            server.connection.close()
        self._checks.shutdown(cancel_futures=True)

    def _first_contract(self, address: TritonAddress) -> Contract:
        timeout_s = min(OPEN_S, address.options.deadline_s)
        contracts: dict[str, Contract] = {}
        failures: dict[Server, CallError] = {}
        answers = self._checks.map(lambda server: _contract_or_error(server, timeout_s), self.all)
        for server, answer in zip(self.all, answers, strict=True):
            if isinstance(answer, CallError):
                failures[server] = answer
            else:
                contracts[server.name] = answer
        if not contracts:
            said = "; ".join(f"{server.name}: {error}" for server, error in failures.items())
            how = "expected host:port of Triton's gRPC, mostly 8001"
            if all(error.code == "NOT_FOUND" for error in failures.values()):
                how = "deploy it there, or name one that is"
            raise BackendError(f"{address}: no server serves this model: {said}; {how}")
        for server, error in failures.items():
            self._rest(server, str(error))
        first_name, first = next(iter(contracts.items()))
        for name, contract in contracts.items():
            if different := first.difference(contract):
                raise BackendError(
                    f"{address}: the servers serve different models: {first_name} and {name} differ in {different}; deploy the "
                    "same to both, or name one of them"
                )
        for server in self.all:
            server.connection.limit_answers(first.result_bytes)
        return first

    def _rest(self, server: Server, reason: str) -> None:
        server.last_error = reason
        longest_s = min(REST_S * 2 ** min(server.rests, 10), LONGEST_REST_S)
        if not server.rests:
            _LOG.warning("%s: takes no requests for now: %s", server.name, reason)
        server.rests += 1
        server.rests_until_s = time.monotonic() + longest_s * random.uniform(0.5, 1.5)

    def _ask_rested(self) -> float:
        """Ask the servers that have rested whether they are well; returns when the next one has, time.monotonic()."""
        next_s = math.inf
        for server in self.all:
            if server.rests_until_s is None or server.is_asked:
                continue
            if server.rests_until_s > time.monotonic():
                next_s = min(next_s, server.rests_until_s)
                continue
            server.is_asked = True
            self._checks.submit(self._ask, server)
        return next_s

    def _ask(self, server: Server) -> None:
        """Take a server back if it serves the same as before."""
        try:
            answer = _contract_or_error(server, QUICK_S)
            error = str(answer) if isinstance(answer, CallError) else self.contract.difference(answer)
            if not isinstance(answer, CallError) and error:
                error = f"it serves another model now, different in {error}"
        except BackendError as exc:
            error = str(exc)
        with self._changed:
            server.is_asked = False
            server.rests_until_s = None
            if error:
                self._rest(server, error)
            self._changed.notify_all()


def _credentials(address: TritonAddress) -> Any:
    options = address.options
    try:
        return tls_credentials(options.ca_file, options.certificate_file, options.key_file)
    except OSError as exc:
        files = ("ca_file", "certificate_file", "key_file")
        given = ", ".join(f"{name}={getattr(options, name)}" for name in files if getattr(options, name))
        raise BackendError(
            f"{address}: {given}: {exc.strerror or exc}; give PEM files, the key without a password"
        ) from exc


def _contract_or_error(server: Server, timeout_s: float) -> Contract | CallError:
    try:
        return contract_of(server.connection.config(timeout_s), f"{server.name}/{server.connection.model}")
    except CallError as exc:
        return exc
