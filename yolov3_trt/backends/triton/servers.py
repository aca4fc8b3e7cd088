"""The servers of a model: which of them take requests, and which rest after a failure until a probe says that they are back.

All of it runs on the thread of the backend; what a connection's thread has to say is left as an event for that thread.
"""

import ipaddress
import logging
import random
import socket
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

from yolov3_trt.backends.triton.address import TritonAddress
from yolov3_trt.backends.triton.connection import CallError, Connection, ModelName, Region
from yolov3_trt.backends.triton.contract import Contract, contract_of
from yolov3_trt.errors import BackendError

_LOG = logging.getLogger(__name__)
Events = SimpleQueue[Callable[[], None]]

OPEN_S = 5.0  # a server has to answer the first question within
QUICK_S = 1.0  # and small questions later
# A failed server rests this long, twice as long after each further failure, up to the longest; times 0.5 to 1.5 by chance,
# so that the clients of a server that comes back do not all come at once.
REST_S, LONGEST_REST_S = 0.2, 5.0


@dataclass(eq=False)
class Server:
    """One of the servers, and how it does."""

    connection: Connection
    shares_memory: bool  # it can map ours, as far as known
    why_not_shared: str | None = None  # on this machine, yet it does not
    regions: set[str] = field(default_factory=set)  # it has mapped, by name
    reading: Counter[str] = field(default_factory=Counter)  # regions of the requests in flight
    held: set[str] = field(default_factory=set)  # regions of requests that ended unanswered: it may still be reading
    leaving: dict[str, Region] = field(default_factory=dict)  # regions that exist no longer here, but there
    in_flight: int = 0
    requests: int = 0  # sent so far, and how many of them failed
    failures: int = 0
    last_error: str | None = None
    rests_until_s: float | None = None  # time.monotonic(); None: it takes requests
    rests: int = 0  # since the last answer
    is_probed: bool = False

    @property
    def name(self) -> str:
        """Its host:port."""
        return self.connection.server

    def statistics(self) -> dict[str, Any]:
        """Its counts, for `--json`."""
        return {
            "requests": self.requests,
            "failures": self.failures,
            "takes_requests": self.rests_until_s is None,
            "shared_memory": bool(self.regions),
            "last_error": self.last_error,
        }


class Servers:
    """All servers of an address; they serve the same contract."""

    def __init__(self, address: TritonAddress, connect: Callable[[str], Connection], events: Events) -> None:
        """Ask each for the model; those that do not answer rest.

        Raises:
            BackendError: none serves it, or one serves it with another contract; connections are closed then.
        """
        self._model = ModelName(address.model, address.version)
        self._events = events
        share = address.options.shared_memory
        self.all = [Server(connect(server), share and is_local(server)) for server in address.servers]
        try:
            self.contract = self._first_contract(address)
        except BackendError:
            self.close()
            raise

    @property
    def in_flight(self) -> int:
        """Requests on their way, those that nobody waits for any more among them."""
        return sum(server.in_flight for server in self.all)

    def choose(self) -> Server | None:
        """One that takes requests: with the fewest in flight, of these with the fewest so far; None: there is none."""
        taking = [server for server in self.all if server.rests_until_s is None]
        return min(taking, key=lambda server: (server.in_flight, server.requests), default=None)

    def sent(self, server: Server, regions: list[str]) -> None:
        """Note a request, and what it lets the server read."""
        server.in_flight += 1
        server.requests += 1
        server.reading.update(regions)

    def ended(self, server: Server, regions: list[str], error: CallError | None) -> None:
        """Note the end of a request, also of one that nobody waits for."""
        server.in_flight -= 1
        server.reading.subtract(regions)
        if error is None:
            if server.rests:
                _LOG.warning("%s: takes requests again", server.name)
            server.rests = 0
        elif error.code in ("DEADLINE_EXCEEDED", "CANCELLED"):
            server.held.update(regions)
        self._unregister(server)

    def failed(self, server: Server, error: CallError) -> None:
        """Note a request that failed through the server's fault, and let it rest."""
        server.failures += 1
        if server.rests_until_s is None:  # else: another request that was there when it failed
            self._rest(server, str(error))

    def tend(self) -> float | None:
        """Probe servers that have rested; returns when the next one has (time.monotonic()), None if none rests."""
        waiting = []
        for server in self.all:
            if server.rests_until_s is None or server.is_probed:
                continue
            if server.rests_until_s > time.monotonic():
                waiting.append(server.rests_until_s)
                continue
            server.is_probed = True
            server.connection.probe(self._model, QUICK_S, self._probe_event(server))
        return min(waiting, default=None)

    def share(self, server: Server, region: Region) -> bool:
        """Whether a server can read a region; lets it map the region if it has not yet."""
        if region.name in server.regions:
            return True
        if not server.shares_memory:
            return False
        try:
            server.connection.register(region, QUICK_S)
        except CallError as exc:
            # Asked before, it answered too late: the names are random, so what is registered is this region.
            if exc.code != "ALREADY_EXISTS":
                if not exc.is_worth_repeating:
                    server.shares_memory, server.why_not_shared = False, str(exc)
                    _LOG.warning(
                        "%s: pictures travel over the socket: it cannot map shared memory (%s)", server.name, exc
                    )
                return False
        server.regions.add(region.name)
        return True

    def forget(self, regions: list[Region]) -> None:
        """Let the servers give up regions that exist no longer."""
        for server in self.all:
            server.leaving |= {region.name: region for region in regions if region.name in server.regions}
            server.regions -= set(server.leaving)
            self._unregister(server)

    def close(self) -> None:
        """End all connections."""
        for server in self.all:
            server.connection.close()

    def _unregister(self, server: Server) -> None:
        """Let a server give up what it reads no more.

        What it may still read is left to it: taking that away has crashed servers (triton-inference-server/server issue 3207).
        """
        for name, region in list(server.leaving.items()):
            if server.reading[name] > 0:
                continue
            del server.leaving[name]
            if name in server.held:
                _LOG.debug("%s: region %s stays registered: a request with it was not answered", server.name, name)
                continue
            try:
                server.connection.unregister(region, QUICK_S)
            except CallError as exc:
                _LOG.debug("%s: region %s may stay registered: %s", server.name, name, exc)
                server.leaving.clear()  # it is away: each further one would take as long
                return

    def _first_contract(self, address: TritonAddress) -> Contract:
        contracts: dict[str, Contract] = {}
        failures: dict[Server, CallError] = {}
        for server in self.all:
            try:
                served = server.connection.served(self._model, min(OPEN_S, address.options.deadline_s))
            except CallError as exc:
                failures[server] = exc
            else:
                contracts[server.name] = contract_of(served, f"{server.name}/{self._model}")
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
            if different := first.differences(contract):
                raise BackendError(
                    f"{address}: the servers serve different models: {first_name} and {name} differ in {different}; deploy the "
                    "same to both, or name one of them"
                )
        return first

    def _rest(self, server: Server, reason: str) -> None:
        server.last_error = reason
        server.is_probed = False
        longest_s = min(REST_S * 2 ** min(server.rests, 10), LONGEST_REST_S)
        if not server.rests:
            _LOG.warning("%s: takes no requests for now: %s", server.name, reason)
        server.rests += 1
        server.rests_until_s = time.monotonic() + longest_s * random.uniform(0.5, 1.5)

    def _probe_event(self, server: Server) -> Callable[[CallError | None], None]:
        return lambda error: self._events.put(lambda: self._probed(server, error))

    def _probed(self, server: Server, error: CallError | None) -> None:
        """Take a server back if it serves the same as before; one that was started anew has nothing mapped."""
        if error is not None:
            self._rest(server, str(error))
            return
        try:
            contract = contract_of(server.connection.served(self._model, QUICK_S), f"{server.name}/{self._model}")
            if different := self.contract.differences(contract):
                raise BackendError(f"it serves another model now, which differs in {different}")
            if server.regions:
                server.regions &= server.connection.registered(QUICK_S)
        except (CallError, BackendError) as exc:
            self._rest(server, str(exc))
            return
        server.held.clear()
        server.rests_until_s, server.is_probed = None, False


def is_local(server: str) -> bool:
    """Whether host:port is this machine, by a loopback address."""
    host, _, port = server.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except OSError:
        return False
    return all(ipaddress.ip_address(address[4][0]).is_loopback for address in found)
