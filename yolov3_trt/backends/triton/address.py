"""What a `triton://` artifact names: servers, a model, and how to call it."""

from dataclasses import dataclass
from enum import Enum
from urllib.parse import parse_qsl, urlsplit

from yolov3_trt.backends import TRITON_SCHEME
from yolov3_trt.errors import BackendError

GRPC_PORT = 8001  # Triton's own; its HTTP is at 8000
_FORM = "triton://host:port[,host:port]/model[:version][?option=value&...]"
_SWITCH = {"on": True, "off": False}


class Encoding(str, Enum):
    """How pictures travel to a server that takes pictures."""

    RAW = "raw"  # the pixels as they are: what is found equals what is found locally
    PNG = "png"  # the same pixels in fewer bytes, for the time of packing them
    JPEG = "jpeg"  # fewer bytes still; lossy, so what is found may differ


@dataclass(frozen=True)
class CallOptions:
    """How a model is called; the options of the address."""

    deadline_s: float = 10.0  # the longest wait for a result, other servers and repeats included
    retries: int = 8  # of a request, on other servers or on one that comes back
    in_flight: int = 4  # requests on their way at a time, and calls of `submit`
    encoding: Encoding = Encoding.RAW
    shared_memory: bool = True  # with servers on this machine

    def __post_init__(self) -> None:
        if not 0 < self.deadline_s <= 3600:
            raise BackendError(f"deadline_ms={self.deadline_s * 1e3:g}; expected more than 0 and at most an hour")
        if not 0 <= self.retries <= 1000 or not 1 <= self.in_flight <= 1024:
            raise BackendError(
                f"retries={self.retries}, in_flight={self.in_flight}; expected 0 to 1000 retries, 1 to 1024 in flight"
            )


@dataclass(frozen=True)
class TritonAddress:
    """A model on one or several servers that serve the same."""

    servers: tuple[str, ...]  # host:port of their gRPC
    model: str
    version: str = ""  # empty: the one that the server's policy prefers
    options: CallOptions = CallOptions()

    def __str__(self) -> str:
        return f"{TRITON_SCHEME}{','.join(self.servers)}/{self.model}{':' * bool(self.version)}{self.version}"


def parse_address(text: str) -> TritonAddress:
    """Read `triton://host:port[,host:port]/model[:version]`; its options are those of `CallOptions`, times as `_ms`.

    Raises:
        BackendError: it is of another form, or an option is unknown or out of its range.
    """
    try:
        parts = urlsplit(text)
        options = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError as exc:
        raise BackendError(f"{text}: {exc}; expected {_FORM}") from exc
    servers = tuple(dict.fromkeys(_server(text, server) for server in parts.netloc.split(",")))
    model, _, version = parts.path.removeprefix("/").partition(":")
    if not model or "/" in model or parts.fragment or (":" in parts.path and not version.isdecimal()):
        raise BackendError(f"{text}: {parts.path!r} names no model or version; expected {_FORM}, the version a number")
    try:
        return TritonAddress(servers, model, version, _call_options(dict(options)))
    except BackendError as exc:
        raise BackendError(f"{text}: {exc}") from exc


def _server(text: str, server: str) -> str:
    try:
        parts = urlsplit(f"//{server}")
        host, port = parts.hostname, parts.port
    except ValueError as exc:
        raise BackendError(f"{text}: {server!r}: {exc}; expected host:port") from exc
    if not host or "@" in server:
        raise BackendError(f"{text}: {server!r} names no server; expected {_FORM}")
    return f"{f'[{host}]' if ':' in host else host}:{port or GRPC_PORT}"


def _call_options(given: dict[str, str]) -> CallOptions:
    default = CallOptions()
    known = ("deadline_ms", "retries", "in_flight", "encoding", "shared_memory")
    if unknown := [name for name in given if name not in known]:
        raise BackendError(f"there is no option {unknown[0]!r}; expected {', '.join(known)}")
    for name in ("deadline_ms", "retries", "in_flight"):
        if not given.get(name, "1").isdecimal():
            raise BackendError(f"{name}={given[name]!r}; expected a whole number")
    encoding, shared = given.get("encoding", default.encoding.value), given.get("shared_memory", "on")
    if encoding not in [one.value for one in Encoding] or shared not in _SWITCH:
        raise BackendError(f"encoding={encoding!r}, shared_memory={shared!r}; expected raw, png or jpeg, and on or off")
    return CallOptions(
        deadline_s=int(given.get("deadline_ms", default.deadline_s * 1e3)) / 1e3,
        retries=int(given.get("retries", default.retries)),
        in_flight=int(given.get("in_flight", default.in_flight)),
        encoding=Encoding(encoding),
        shared_memory=_SWITCH[shared],
    )
