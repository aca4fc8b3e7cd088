"""One file by HTTP, resumed where an earlier attempt broke off."""

import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path

from yolov3_trt._version import __version__
from yolov3_trt.errors import FetchError, OutputError
from yolov3_trt.reporter import Reporter

TIMEOUT_S = 30.0  # without a byte
ATTEMPTS = 4  # without progress
PAUSE_S = 2.0  # before the second attempt; twice as long before each further one
_MIB = 2**20
_PARTIAL, _RANGE_BEYOND_END = 206, 416


class _Broken(Exception):
    """The connection ended early or said nothing for too long; another attempt may go on from there, or from the start."""

    def __init__(self, message: str, *, from_start: bool = False) -> None:
        super().__init__(message)
        self.from_start = from_start


def download(url: str, part: Path, num_bytes: int | None, reporter: Reporter) -> None:
    """Bring the file of a URL to `part`, after the bytes that `part` has already.

    What a break leaves stays in `part`, for the next call. Whether it is the right file is for the caller to see.

    Args:
        url: http or https.
        part: where the bytes go; it need not be there.
        num_bytes: how long the file must be; None where that is not known.
        reporter: is told of breaks and, per MiB, of the progress.

    Raises:
        FetchError: the server has no such file, or offers another one; the connection breaks without end.
        OutputError: `part` cannot be written.
    """
    failures = 0
    while True:
        before = _size(part)
        try:
            _attempt(url, part, num_bytes, reporter)
            return
        except _Broken as exc:
            if exc.from_start:
                part.unlink()
            after = _size(part)
            failures = failures + 1 if after <= before else 0
            if failures >= ATTEMPTS:
                raise FetchError(
                    f"{url}: {exc}, {ATTEMPTS} times in a row; {after:,} bytes are kept: run this again to go on from there"
                ) from exc
            reporter.say(f"{url}: {exc}; going on from byte {after:,} ...")
            time.sleep(PAUSE_S * 2**failures)


def _attempt(url: str, part: Path, num_bytes: int | None, reporter: Reporter) -> None:
    offset = _size(part)
    with _opened(url, offset) as response:
        offer = _offer(url, response, offset)
        expected = num_bytes if num_bytes is not None else offer.num_bytes
        if offer.num_bytes not in (None, expected):
            raise FetchError(f"{url}: the server offers {offer.num_bytes:,} bytes; expected {expected:,}: another file")
        if offset and not offer.offset:
            reporter.say(f"{url}: this server cannot resume; starting again ...")
        total = None if expected is None else -(-(expected - offer.offset) // _MIB)
        for _ in reporter.track(_written(response, part, offer.offset, expected), f"{url} (MiB)", total):
            pass
    got = _size(part)
    if expected is not None and got < expected:
        raise _Broken(f"the connection ended after {got:,} of {expected:,} bytes")


@dataclass(frozen=True)
class _Offer:
    """What a server is about to send."""

    offset: int  # of its first byte in the file
    num_bytes: int | None  # of the whole file


@contextmanager
def _opened(url: str, offset: int) -> Iterator[HTTPResponse]:
    """The response to a request for the file from a byte on; every fault of the connection becomes `_Broken`."""
    headers = {"User-Agent": f"yolov3_trt/{__version__}"}  # pjreddie.com refuses Python's own
    if offset:
        headers["Range"] = f"bytes={offset}-"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S) as response:
            yield response
    except OutputError:
        raise
    except urllib.error.HTTPError as exc:
        exc.close()
        if exc.code == _RANGE_BEYOND_END:
            raise _Broken(f"the file there has no more than the {offset:,} bytes kept here", from_start=True) from exc
        if exc.code >= 500 or exc.code == 429:
            raise _Broken(f"the server answered {exc.code} ({exc.reason})") from exc
        raise FetchError(f"{url}: the server answered {exc.code} ({exc.reason})") from exc
    except TimeoutError as exc:
        raise _Broken(f"nothing came for {TIMEOUT_S:g} s") from exc
    except urllib.error.URLError as exc:
        if isinstance(exc.reason, TimeoutError):
            raise _Broken(f"no answer within {TIMEOUT_S:g} s") from exc
        if offset:  # it answered before
            raise _Broken(f"cannot connect ({exc.reason})") from exc
        raise FetchError(f"{url}: cannot connect ({exc.reason})") from exc
    except (HTTPException, OSError) as exc:
        raise _Broken(f"the connection broke ({exc or type(exc).__name__})") from exc
    except ValueError as exc:
        raise FetchError(f"{url}: not a URL ({exc})") from exc


def _offer(url: str, response: HTTPResponse, offset: int) -> _Offer:
    kind = response.headers.get_content_type()
    if kind == "text/html":
        raise FetchError(f"{url}: the server sent a web page ({response.geturl()}); expected a .weights file")
    length = response.headers.get("Content-Length", "")
    size = int(length) if length.isdecimal() else None
    if response.status != _PARTIAL:
        return _Offer(0, size)
    start, _, whole = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
    if start.partition("-")[0] != str(offset):
        raise FetchError(f"{url}: asked for byte {offset:,} on; the server answered with range {start or 'unknown'}")
    return _Offer(offset, int(whole) if whole.isdecimal() else size and size + offset)


def _written(response: HTTPResponse, part: Path, offset: int, expected: int | None) -> Iterator[None]:
    """Write what comes behind byte `offset` of `part`, as long as the file may be; yields after each MiB."""
    with _named(part):
        file = part.open("ab" if offset else "wb")
    with file:
        room = None if expected is None else expected - offset
        while room != 0 and (piece := response.read(_MIB if room is None else min(_MIB, room))):
            with _named(part):
                file.write(piece)
                file.flush()
            room = None if room is None else room - len(piece)
            yield


@contextmanager
def _named(part: Path) -> Iterator[None]:
    """An error of the disk, told apart from those of the connection."""
    try:
        yield
    except OSError as exc:
        raise OutputError(f"{part}: cannot be written ({exc.strerror or exc})") from exc


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0
