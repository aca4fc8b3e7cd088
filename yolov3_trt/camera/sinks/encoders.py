"""What turns pictures into a video file: the ffmpeg program, or OpenCV where there is none.

The program rather than a library: it is one package of every distribution, brings the encoder of the board where its build has
one, and when it fails or hangs the loop goes on.
"""

import logging
import os
import re
import select
import shutil
import subprocess
import tempfile
import time
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from yolov3_trt.errors import CameraError, require
from yolov3_trt.geometry import HW
from yolov3_trt.preprocess import Image

_LOG = logging.getLogger(__name__)

CONTAINERS = (".mp4", ".mkv", ".avi")

# Of OpenCV, in every build that has FFmpeg.
_FOURCC = {".mp4": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}

# Of ffmpeg, the best first, with what each is told: of a Jetson, a GPU and small boards, then of the CPU. All play in browsers.
_BIT_RATE = "-b:v"  # of the pictures, about a tenth of a bit per pixel
_CODECS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("h264_nvmpi", (_BIT_RATE,)),
    ("h264_nvenc", (_BIT_RATE,)),
    ("h264_v4l2m2m", (_BIT_RATE,)),
    ("libx264", ("-preset", "superfast", "-tune", "zerolatency", "-crf", "26")),
    ("libopenh264", (_BIT_RATE,)),
    ("libvpx-vp9", ("-deadline", "realtime", "-cpu-used", "8", "-row-mt", "1", "-crf", "36", _BIT_RATE)),
)
_KEY_FRAME = ("-force_key_frames", "expr:gte(t,n_forced*2)")  # one every two seconds, where a player can begin
_FRAGMENTS = ("-movflags", "empty_moov+default_base_moof", "-frag_duration", "1000000")  # whole after each second

_PIPE_BYTES = 1 << 20  # what Linux allows everyone
_LONGEST_WRITE_S = 20.0  # of one picture; a program that takes longer hangs
_LONGEST_END_S = 30.0


class Encoder(Protocol):
    """Takes pictures of one size, each with its time."""

    def add(self, picture: Image, at_s: float) -> None:
        """Add a picture, uint8 (H, W, 3) BGR, that is shown from `at_s` after the begin until the next.

        Raises:
            CameraError: the encoder failed.
        """
        ...

    def close(self) -> None:
        """Make the file whole; harmless when repeated.

        Raises:
            CameraError: it could not be.
        """
        ...

    def kill(self) -> None:
        """End at once, whatever becomes of the file; harmless when repeated."""
        ...


def open_encoder(path: Path, named: Path, image_hw: HW, fps: float, *, fragmented: bool = False) -> Encoder:
    """Begin a video; the encoders take even sizes, so the last row or column of odd pictures is cut off.

    Args:
        path: is written; OpenCV and ffmpeg choose the container by its suffix.
        named: what errors call it.
        image_hw: of the pictures, px.
        fps: pictures per second.
        fragmented: what is written can be played at any moment, as far as it is; OpenCV cannot do that.

    Raises:
        CameraError: nothing here can encode that.
    """
    codec = None if path.suffix.lower() == ".avi" else ffmpeg_codec()
    if codec is None:
        return OpenCvEncoder(path, named, image_hw, fps)
    return FfmpegEncoder(codec, path, named, image_hw, fps, fragmented)


@lru_cache(maxsize=1)
def ffmpeg_codec() -> str | None:
    """The best encoder of the ffmpeg program that really works here, of those that browsers play; None without one."""
    program = shutil.which("ffmpeg")
    if program is None:
        return None
    with suppress(OSError, subprocess.SubprocessError):
        listed = subprocess.run(
            [program, "-hide_banner", "-encoders"], capture_output=True, text=True, timeout=30
        ).stdout
        for name, _ in _CODECS:
            if re.search(rf"\b{name}\b", listed) and _works(program, name):
                return name
    return None


def why_no_browser_plays() -> str | None:
    """Why videos written here play in players only; None where they play in browsers too."""
    if ffmpeg_codec() is not None:
        return None
    what = "the ffmpeg program has no encoder of H.264 or VP9 that works"
    if shutil.which("ffmpeg") is None:
        what = "there is no ffmpeg program (apt install ffmpeg)"
    return f"{what}: OpenCV writes the videos, as MPEG-4 part 2, which no browser plays"


def _works(program: str, codec: str) -> bool:
    source = ["-f", "lavfi", "-i", "color=size=256x256:rate=10:duration=0.2"]
    command = [program, "-v", "error", "-nostdin", *source, *_codec_options(codec, (256, 256), 10), "-f", "null", "-"]
    return subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=30).returncode == 0


def _codec_options(codec: str, image_hw: HW, fps: float) -> list[str]:
    options = ["-c:v", codec, "-pix_fmt", "yuv420p"]
    for option in dict(_CODECS)[codec]:
        options += (
            [option, str(max(200_000, round(image_hw[0] * image_hw[1] * fps / 10)))]
            if option == _BIT_RATE
            else [option]
        )
    return options


class FfmpegEncoder:
    """The ffmpeg program, which reads the pictures from its standard input. Pictures keep their times, so none is repeated."""

    def __init__(self, codec: str, path: Path, named: Path, image_hw: HW, fps: float, fragmented: bool) -> None:
        self._named, self._even_hw = named, (image_hw[0] // 2 * 2, image_hw[1] // 2 * 2)
        if 0 in self._even_hw:
            raise CameraError(f"{named}: pictures of {image_hw[1]}x{image_hw[0]} px are too small for a video")
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the program
        self._last_us = -1
        command = ["ffmpeg", "-hide_banner", "-v", "error", "-nostdin", "-y"]
        command += ["-probesize", "32", "-analyzeduration", "0", "-f", "matroska", "-i", "pipe:0", *_variable_rate()]
        command += [*_codec_options(codec, image_hw, fps), *_KEY_FRAME, "-video_track_timescale", "90000"]
        command += _FRAGMENTS if fragmented and path.suffix.lower() == ".mp4" else ()
        # An absolute path, which no name can turn into an option or a protocol.
        command += ["-flush_packets", "1", f"file:{path.absolute()}"]
        # A session of its own: Ctrl-C is for the loop, which then ends the video.
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=self._said, start_new_session=True
        )
        assert self._process.stdin is not None
        self._pipe = self._process.stdin.fileno()
        os.set_blocking(self._pipe, False)
        _widen(self._pipe)
        self._send(_matroska_head(self._even_hw, fps))

    def add(self, picture: Image, at_s: float) -> None:
        """Add a picture, as `Encoder` says."""
        cv2 = require("cv2", extra="opencv")
        height, width = self._even_hw
        self._last_us = max(self._last_us + 1, round(at_s * 1e6))
        planes = cv2.cvtColor(picture[:height, :width], cv2.COLOR_BGR2YUV_I420)
        self._send(_matroska_frame_head(self._last_us, planes.nbytes))
        self._send(planes.data.cast("B"))

    def close(self) -> None:
        """End the program, which makes the file whole."""
        if self._said.closed:
            return
        try:
            self._process.communicate(timeout=_LONGEST_END_S)
        except subprocess.TimeoutExpired:
            self._fail("it does not end")
        if self._process.returncode:
            self._fail("it failed")
        self._said.close()

    def kill(self) -> None:
        """End the program at once."""
        if not self._said.closed:
            self._process.kill()
            self._process.communicate()
            self._said.close()

    def _send(self, content: bytes | memoryview) -> None:
        until_s = time.monotonic() + _LONGEST_WRITE_S
        view = memoryview(content)
        while view:
            try:
                view = view[os.write(self._pipe, view) :]
            except BlockingIOError:
                if not select.select([], [self._pipe], [], max(0.0, until_s - time.monotonic()))[1]:
                    self._fail(f"it took no picture for {_LONGEST_WRITE_S:.0f} s")
            except OSError:
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(5)
                self._fail("it ended")

    def _fail(self, what: str) -> None:
        """Say why, in its own words where it left any."""
        code = self._process.poll()
        self._process.kill()
        with suppress(OSError):
            self._process.communicate()
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").strip().splitlines()
        self._said.close()
        reason = f" ({lines[-1].strip()})" if lines else f" (code {code})" if code else ""
        raise CameraError(f"{self._named}: the video could not be completed: ffmpeg: {what}{reason}; is the disk full?")


class OpenCvEncoder:
    """OpenCV's writer, at a constant rate: pictures are repeated where there is a gap."""

    def __init__(self, path: Path, named: Path, image_hw: HW, fps: float) -> None:
        cv2 = require("cv2", extra="opencv")
        self._path, self._named, self._fps = path, named, fps
        height, width = image_hw
        codec = _FOURCC[path.suffix.lower()]
        self._writer: Any = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), fps, (width, height))
        self._is_open = self._writer.isOpened()
        self._frames = 0
        self._last: Image | None = None
        if not self._is_open:
            raise CameraError(
                f"{named}: this OpenCV cannot write {height}x{width} px at {fps:g} fps as {codec}; try "
                f"{'.mp4' if path.suffix.lower() == '.avi' else '.avi'}, or install an OpenCV with FFmpeg"
            )

    def add(self, picture: Image, at_s: float) -> None:
        """Add a picture, as `Encoder` says."""
        if self._last is not None:
            for _ in range(round(at_s * self._fps) - self._frames):
                self._write(self._last)
        self._write(picture)
        self._last = picture

    def _write(self, picture: Image) -> None:
        self._writer.write(picture)
        self._frames += 1

    def close(self) -> None:
        """Write what the end of a video needs."""
        if not self._is_open:
            return
        is_by_ffmpeg = self._writer.getBackendName() == "FFMPEG"
        self.kill()
        if is_by_ffmpeg and not self._reaches_last_frame():
            raise CameraError(f"{self._named}: the video could not be completed; is the disk full?")

    def kill(self) -> None:
        """Give up the file."""
        if self._is_open:
            self._is_open = False
            self._writer.release()

    def _reaches_last_frame(self) -> bool:
        """Whether all frames are in the video: OpenCV goes on without a word when the disk is full.

        The announced number of frames would not tell; it may be written after frames that were lost.
        """
        cv2 = require("cv2", extra="opencv")
        capture = cv2.VideoCapture(str(self._path), cv2.CAP_FFMPEG)
        capture.set(cv2.CAP_PROP_POS_FRAMES, self._frames - 1)
        capture.grab()
        position = capture.get(cv2.CAP_PROP_POS_FRAMES)
        capture.release()
        return bool(position == self._frames)


def _widen(pipe: int) -> None:
    """So that a picture takes a few writes rather than dozens; where it cannot be, it takes those."""
    with suppress(ImportError, AttributeError, OSError):  # of Linux
        import fcntl

        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


@lru_cache(maxsize=1)
def _variable_rate() -> tuple[str, str]:
    """How ffmpeg is told to keep the times of pictures; the option was renamed in 5.1."""
    said = subprocess.run(["ffmpeg", "-version"], capture_output=True, text=True).stdout
    found = re.match(r"ffmpeg version n?(\d+)\.(\d+)", said)
    is_old = found is not None and (int(found[1]), int(found[2])) < (5, 1)
    return ("-vsync" if is_old else "-fps_mode", "vfr")


# --- Matroska, which carries raw pictures with their times to ffmpeg (RFC 9559, RFC 8794) ---


def _element(number: str, content: bytes | int) -> bytes:
    """An element by its id in hex."""
    payload = content.to_bytes(8, "big") if isinstance(content, int) else content
    return bytes.fromhex(number) + _size(len(payload)) + payload


def _size(num_bytes: int) -> bytes:
    return (num_bytes | 1 << 56).to_bytes(8, "big")


def _matroska_head(image_hw: HW, fps: float) -> bytes:
    """Of a stream without an end: one track of raw pictures, planes of 4:2:0, times in microseconds."""
    video = _element("B0", image_hw[1]) + _element("BA", image_hw[0]) + _element("2EB524", b"I420")
    track = _element("D7", 1) + _element("73C5", 1) + _element("83", 1) + _element("86", b"V_UNCOMPRESSED")
    track += _element("23E383", round(1e9 / fps)) + _element("E0", video)
    head = _element("1A45DFA3", _element("4282", b"matroska") + _element("4287", 4) + _element("4285", 2))
    info = _element("1549A966", _element("2AD7B1", 1000) + _element("4D80", b"y") + _element("5741", b"y"))
    endless = bytes.fromhex("18538067") + b"\x01" + b"\xff" * 7
    return head + endless + info + _element("1654AE6B", _element("AE", track))


def _matroska_frame_head(at_us: int, num_bytes: int) -> bytes:
    """What comes before the planes of a picture: a cluster that holds nothing else."""
    block = bytes.fromhex("A3") + _size(num_bytes + 4) + b"\x81\0\0\x80"
    time_us = _element("E7", at_us)
    return bytes.fromhex("1F43B675") + _size(len(time_us) + len(block) + num_bytes) + time_us + block
