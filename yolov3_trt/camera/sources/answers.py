"""What a network camera answers, asked before OpenCV, which tells "wrong password" and "no such path" apart from nothing."""

import base64
import http.client
import socket
import time
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from yolov3_trt.camera.sources.base import Capture, SourceLost
from yolov3_trt.data.images import decode_image
from yolov3_trt.errors import CameraError, ImageError
from yolov3_trt.geometry import HW
from yolov3_trt.preprocess import Image

_MAX_PICTURE_BYTES = 64 << 20


def http_answer(uri: str, timeout_s: float) -> Any:
    """An open answer to GET, with the user and password of the address, which are tried once: a few tries lock an account.

    Raises:
        OSError, http.client.HTTPException: there is none, or (`urllib.error.HTTPError`, closed) none that is good.
    """
    parts = urlsplit(uri)
    request = urllib.request.Request(urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])))
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        return opener.open(request, timeout=timeout_s)
    except urllib.error.HTTPError as exc:
        exc.close()
        if exc.code != 401 or parts.username is None:
            raise
        login = _login(
            request, exc.headers.get("WWW-Authenticate", ""), unquote(parts.username), unquote(parts.password or "")
        )
    request.add_unredirected_header("Authorization", login)
    try:
        return opener.open(request, timeout=timeout_s)
    except urllib.error.HTTPError as exc:
        exc.close()
        raise


def _login(request: urllib.request.Request, challenge: str, user: str, password: str) -> str:
    """The header that answers a 401."""
    scheme, _, values = challenge.partition(" ")
    if scheme.lower() != "digest":
        return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"
    passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
    passwords.add_password(None, request.full_url, user, password)
    asked = urllib.request.parse_keqv_list(list(filter(None, urllib.request.parse_http_list(values))))
    return f"Digest {urllib.request.AbstractDigestAuthHandler(passwords).get_authorization(request, asked)}"


def rtsp_status(uri: str, host: str, port: int, timeout_s: float) -> int | None:
    """Of a DESCRIBE without a password, which counts as no failed login; None without an answer."""
    parts = urlsplit(uri)
    address = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    request = f"DESCRIBE {address} RTSP/1.0\r\nCSeq: 1\r\nAccept: application/sdp\r\n\r\n"
    try:
        with socket.create_connection((host, port), timeout=timeout_s) as connection:
            connection.sendall(request.encode())
            words = connection.recv(4096).split(maxsplit=2)
        return int(words[1]) if len(words) > 1 and words[0].startswith(b"RTSP/") else None
    except (OSError, ValueError):
        return None


def check_status(name: str, uri: str, status: int) -> None:
    """Whether an answer of RTSP or HTTP says why there is no stream.

    Raises:
        SourceLost: it does, and when to ask again.
    """
    if status in (401, 403):
        has_user = urlsplit(uri).username is not None
        what = "refuses this user or password" if has_user else "wants a user and a password"
        raise SourceLost(f"{name}: the camera {what} ({status})", "refused")
    if status in (404, 410, 454):
        raise SourceLost(f"{name}: the camera knows no such path ({status})", "not found")


class PolledPictures(Capture):
    """An address that gives one picture at each request, asked for again and again."""

    fallbacks = ()
    image_hw: HW | None = None

    def __init__(self, uri: str, name: str, fps: float, timeout_s: float) -> None:
        """Begin; so many pictures a second are asked for."""
        self._uri, self._name, self._timeout_s = uri, name, timeout_s
        self.fps: float | None = fps
        self.pipeline = f"a picture {fps:g} times a second"
        self._due_s = time.monotonic()

    def read(self) -> Image:
        """Wait until it is time, and fetch a picture.

        Raises:
            CameraError: there is none.
        """
        time.sleep(max(0.0, self._due_s - time.monotonic()))
        assert self.fps is not None
        self._due_s = max(time.monotonic(), self._due_s + 1 / self.fps)
        try:
            with http_answer(self._uri, self._timeout_s) as answer:
                return decode_image(answer.read(_MAX_PICTURE_BYTES))
        except urllib.error.HTTPError as exc:
            check_status(self._name, self._uri, exc.code)
            raise CameraError(f"{self._name}: gave no picture (HTTP {exc.code})") from exc
        except (OSError, http.client.HTTPException, ImageError) as exc:
            raise CameraError(f"{self._name}: gave no picture ({exc})") from exc

    def close(self) -> None:
        """Nothing is held between two pictures."""
