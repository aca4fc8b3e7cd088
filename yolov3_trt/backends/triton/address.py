"""What a `triton://` or `tritons://` artifact names: servers, a model, and how to call it."""

import re
from dataclasses import dataclass, fields
from enum import Enum
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from yolov3_trt.arguments import integer, one_of
from yolov3_trt.backends import TRITON_SCHEMES
from yolov3_trt.errors import BackendError, SettingError

GRPC_PORT = 8001  # Triton's own; its HTTP is at 8000
_FORM = "triton[s]://host:port[,host:port]/model[:version][?option=value&...]"
_WHOLE = re.compile(r"[0-9]{1,9}")


class Encoding(str, Enum):
    """How pictures travel to a server that takes pictures."""

    RAW = "raw"  # the pixels as they are: what is found equals what is found locally
    PNG = "png"  # the same pixels in fewer bytes, for the time of packing them
    JPEG = "jpeg"  # fewer bytes still; lossy, so what is found may differ


@dataclass(frozen=True)
class CallOptions:
    """How a model is called; the options of the address."""

    deadline_ms: int = 10_000  # longest time of a request, other servers and repeats included
    retries: int = 8  # of a request, on other servers or on one that comes back
    in_flight: int = 4  # requests on their way at a time, and calls of `submit`
    encoding: Encoding = Encoding.RAW
    # Of tritons://, PEM files. Who the server may be signed by, by default the authorities that gRPC knows; who this client is.
    ca_file: str = ""
    certificate_file: str = ""
    key_file: str = ""

    def __post_init__(self) -> None:
        for name, least, most in (("deadline_ms", 1, 3_600_000), ("retries", 0, 1000), ("in_flight", 1, 1024)):
            object.__setattr__(self, name, integer(name, getattr(self, name), least, most))
        object.__setattr__(self, "encoding", one_of("encoding", self.encoding, Encoding))
        if bool(self.certificate_file) is not bool(self.key_file):
            raise SettingError("certificate_file", "it goes with its key, and the key with its certificate; give both")

    @property
    def deadline_s(self) -> float:
        """The same in seconds."""
        return self.deadline_ms / 1e3


@dataclass(frozen=True)
class TritonAddress:
    """A model on one or several servers that serve the same."""

    servers: tuple[str, ...]  # host:port of their gRPC
    model: str
    version: str = ""  # empty: the one that the server's policy prefers
    options: CallOptions = CallOptions()
    has_tls: bool = False

    def __str__(self) -> str:
        return f"{TRITON_SCHEMES[self.has_tls]}{','.join(self.servers)}/{self.model}{':' * bool(self.version)}{self.version}"


def parse_address(text: str) -> TritonAddress:
    """Read `triton[s]://host:port[,host:port]/model[:version]`; its options are those of `CallOptions`.

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
    has_tls = text.startswith(TRITON_SCHEMES[1])
    try:
        if not has_tls and (files := {"ca_file", "certificate_file", "key_file"} & dict(options).keys()):
            raise SettingError(min(files), "triton:// is not encrypted; write tritons://")
        return TritonAddress(servers, model, version, _call_options(dict(options)), has_tls)
    except SettingError as exc:
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
    known = [field.name for field in fields(CallOptions)]
    if unknown := [name for name in given if name not in known]:
        raise SettingError(unknown[0], f"there is no such option; expected {', '.join(known)}")
    values: dict[str, Any] = {name: int(value) if _WHOLE.fullmatch(value) else value for name, value in given.items()}
    return CallOptions(**values)
