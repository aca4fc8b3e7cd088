"""Sources by URI: files as they are, pipelines as text, cameras with what they were asked for, and every refusal."""

import logging
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from tests.fakes import FRAME_HW, ListSource, fake_detector, grey_pictures
from yolov3_trt.camera.loop import run_loop
from yolov3_trt.camera.sinks import VideoSink
from yolov3_trt.camera.sources import (
    LiveSource,
    PicturesSource,
    ShapesSource,
    SourceOptions,
    VideoSource,
    capture,
    device,
    open_source,
    split_uris,
    stream,
)
from yolov3_trt.camera.sources.pipelines import csi_pipeline, http_pipeline, rtsp_pipeline
from yolov3_trt.errors import CameraError
from yolov3_trt.opencv import is_built_with

FORM = "shapes://?seed=1&frames=100&size=640x480&fps=30&live=0"
WITH_GSTREAMER = "  Video I/O:\n    FFMPEG:                      YES\n    GStreamer:                   YES (1.20.3)\n"
WITHOUT = "    FFMPEG:         YES\n    GStreamer:      NO\n    v4l/v4l2:       YES (linux/videodev2.h)\n"


# --- what a URI names ---


@pytest.mark.parametrize(
    "texts, uris",
    [
        (["0"], ["0"]),
        (["0,csi://1", "rtsp://host/a"], ["0", "csi://1", "rtsp://host/a"]),
        (["0, 1"], ["0", "1"]),
        (["http://host/v?a=1%2C2,0"], ["http://host/v?a=1%2C2", "0"]),
    ],
)
def test_commas_separate_sources(texts: list[str], uris: list[str]):
    assert split_uris(texts) == uris


def test_file_whose_name_has_a_comma_is_one_source(tmp_path: Path):
    path = tmp_path / "a,b.mp4"
    path.touch()
    assert split_uris([str(path)]) == [str(path)]


@pytest.mark.parametrize(
    "uri", ["0", "/dev/video7", "csi://0", "rtsp://host/live", "http://host:8080/video", "https://host/v"]
)
def test_cameras_and_streams_are_opened_by_the_loop_only(uri: str):
    source = open_source(uri, SourceOptions(timeout_s=3))
    assert isinstance(source, LiveSource)
    assert (source.name, source.timeout_s, source.is_remote) == (uri, 3, "host" in uri)


@pytest.mark.parametrize("uri", ["", "ftp://host/a", "nothing.here", "shapes", "-1"])
def test_what_names_no_source_is_refused(uri: str):
    with pytest.raises(CameraError) as caught:
        open_source(uri)
    text = str(caught.value)
    assert text.startswith(f"{uri!r}: ") and "rtsp://" in text and FORM in text


# --- generated frames ---


def test_every_part_of_a_shapes_uri_has_a_default():
    source = open_source("shapes://")
    assert source.name == "shapes://?seed=0&frames=100&size=640x480"
    assert (source.fps, source.live, source.is_paced) == (30.0, False, False)
    assert open_source("shapes://?fps=12").fps == 12.0
    again = open_source(source.name)
    assert_array_equal(again.read().pixels, source.read().pixels)


def test_live_shapes_come_in_real_time_and_may_be_lost():
    source = open_source("shapes://?live=1")
    assert isinstance(source, ShapesSource) and source.live and source.is_paced
    source = open_source("shapes://", SourceOptions(realtime=True))
    assert not source.live and source.is_paced


@pytest.mark.parametrize(
    "uri, fault",
    [
        ("shapes://clip", "only parameters may follow shapes://"),
        ("shapes:///?seed=1", "only parameters may follow shapes://"),
        ("shapes://[", "Invalid IPv6 URL"),
        ("shapes://?sed=1", "there is no parameter 'sed'"),
        ("shapes://?seed", "seed='' has no meaning"),
        ("shapes://?seed=-1", "seed='-1' has no meaning"),
        ("shapes://?frames=0", "frames='0' has no meaning"),
        ("shapes://?size=480", "size='480' has no meaning"),
        ("shapes://?size=480x640x3", "size='480x640x3' has no meaning"),
        ("shapes://?fps=nan", "fps='nan' has no meaning"),
        ("shapes://?live=2", "live='2' has no meaning"),
        ("shapes://?seed=1&seed=2", "a parameter is given twice"),
    ],
)
def test_shapes_uri_that_is_not_understood_is_refused(uri: str, fault: str):
    with pytest.raises(CameraError) as caught:
        open_source(uri)
    assert str(caught.value) == f"{uri}: {fault}; expected {FORM} or a part of it, with the size as WIDTHxHEIGHT"


def test_shapes_too_small_to_draw_are_refused():
    with pytest.raises(CameraError, match=r"^shapes of 63x480 px; expected 64 or more each way$"):
        open_source("shapes://?size=63x480")


# --- files ---


def write_film(path: Path, count: int = 6) -> None:
    with VideoSink(path, 10) as video:
        run_loop(fake_detector(), [ListSource(grey_pictures(range(40, 40 + count)))], [video])


def test_video_that_cannot_be_read_is_refused(tmp_path: Path):
    (tmp_path / "folder.mp4").mkdir()
    for name, reason in (("no.mp4", "No such file or directory"), ("folder.mp4", "Is a directory")):
        with pytest.raises(CameraError) as caught:
            open_source(f"{tmp_path}/{name}")
        assert str(caught.value) == f"{tmp_path}/{name}: cannot be read ({reason}); expected a video file"


@pytest.mark.parametrize("content", [b"", b"not a video"])
@pytest.mark.parametrize("name", ["clip.mp4", "clip.AVI"])
def test_file_that_is_no_video_is_refused(tmp_path: Path, name: str, content: bytes):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CameraError) as caught:
        open_source(f"{tmp_path}/{name}")
    assert str(caught.value) == (
        f"{tmp_path}/{name}: not a video that OpenCV can read, or damaged; "
        "copy it again, or convert it to an .mp4 with H.264"
    )


def test_video_cut_short_gives_what_there_is_and_fails_at_the_end(tmp_path: Path):
    path = tmp_path / "clip.avi"
    write_film(path)
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"movi") + (content.index(b"idx1") - content.index(b"movi")) // 2])
    frames = []
    with VideoSource(path) as source, pytest.raises(CameraError) as caught:
        while True:
            frames.append(source.read())
    assert 1 <= len(frames) < 6
    assert str(caught.value) == f"{path}: {len(frames)} frames read, 6 announced; the video may be cut short"


def test_folder_and_glob_give_their_pictures_in_order(tmp_path: Path):
    for index, pixels in enumerate(grey_pictures([30, 10, 20])):
        cv2.imwrite(str(tmp_path / f"{index}.png"), pixels)
    (tmp_path / "notes.txt").write_text("none of them")
    for uri in (str(tmp_path), f"{tmp_path}/*.png"):
        with open_source(uri) as source:
            assert isinstance(source, PicturesSource) and not source.live
            frames = list(iter(source.read, None))
        assert [(frame.index, frame.source, frame.pixels[0, 0, 0]) for frame in frames] == [
            (0, uri, 30),
            (1, uri, 10),
            (2, uri, 20),
        ]


def test_picture_that_cannot_be_read_is_left_out_and_told_at_the_end(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    cv2.imwrite(str(tmp_path / "1.png"), grey_pictures([7])[0])
    (tmp_path / "0.png").write_bytes(b"no picture")
    source = open_source(str(tmp_path))
    assert source.read().pixels[0, 0, 0] == 7
    with pytest.raises(CameraError) as caught:
        source.read()
    assert str(caught.value).startswith(
        f"{tmp_path}: 1 of 2 files could not be read; the first: {tmp_path}/0.png: not a"
    )
    assert len(caplog.messages) == 1 and caplog.messages[0].startswith("left out: ")


def test_empty_folder_and_pictures_in_real_time_without_a_pace_are_refused(tmp_path: Path):
    with pytest.raises(CameraError, match="there are no pictures in this folder"):
        open_source(str(tmp_path))
    cv2.imwrite(str(tmp_path / "1.png"), grey_pictures([7])[0])
    with pytest.raises(CameraError) as caught:
        open_source(str(tmp_path), SourceOptions(realtime=True))
    assert str(caught.value) == f"{tmp_path}: pictures have no pace of their own; give fps= with realtime=True"
    source = open_source(str(tmp_path), SourceOptions(realtime=True, fps=5))
    assert (source.is_paced, source.fps) == (True, 5)


# --- pipelines ---


def test_csi_pipeline_asks_for_what_was_asked():
    assert csi_pipeline(1, (1080, 1920), 29.97, flip=2) == (
        "nvarguscamerasrc sensor-id=1 ! video/x-raw(memory:NVMM), width=1920, height=1080, framerate=2997/100, format=NV12 ! "
        "nvvidconv flip-method=2 ! video/x-raw, format=BGRx ! videoconvert ! video/x-raw, format=BGR ! "
        "appsink drop=true max-buffers=1 sync=false"
    )


def test_stream_pipelines_decode_by_hardware_and_quote_the_address():
    text = rtsp_pipeline('rtsp://host/a"b\\c ! d', "tcp", 100, 5)
    assert text.startswith(
        r'rtspsrc location="rtsp://host/a\"b\\c ! d" protocols=tcp latency=100 drop-on-latency=true timeout=5000000 '
        "tcp-timeout=5000000 ! application/x-rtp, media=video ! parsebin ! nvv4l2decoder ! nvvidconv ! "
    )
    assert http_pipeline("http://host/v", 0.5).startswith(
        'souphttpsrc location="http://host/v" is-live=true do-timestamp=true timeout=1 ! '
        "multipartdemux single-stream=true ! image/jpeg ! nvv4l2decoder mjpeg=1 ! nvvidconv ! "
    )


def test_build_information_is_read_line_by_line():
    assert is_built_with("GStreamer", WITH_GSTREAMER) and is_built_with("FFMPEG", WITHOUT)
    assert not is_built_with("GStreamer", WITHOUT) and not is_built_with("v4l/v4l2", WITH_GSTREAMER)


# --- cameras, with a stand-in for OpenCV ---


class FakeOpenCv(ModuleType):
    """`cv2` whose captures open or not, and give a mode of their own."""

    def __init__(
        self, opens: set[str], info: str, mode: tuple[str, int, int, float] = ("YUYV", 640, 480, 30.0)
    ) -> None:
        super().__init__("cv2")
        self.opens, self.info, self.mode = opens, info, mode
        self.tried: list[tuple[Any, str, list[int]]] = []
        self.error, self.__version__, self.__file__ = cv2.error, "4.8.0", "/usr/lib/cv2.so"
        for name in dir(cv2):
            if name.startswith("CAP_"):
                setattr(self, name, getattr(cv2, name))
        self.VideoWriter_fourcc = cv2.VideoWriter_fourcc

    def getBuildInformation(self) -> str:
        return self.info

    def VideoCapture(self, target: Any, backend: int, parameters: list[int]) -> "FakeCapture":
        names = {self.CAP_V4L2: "V4L2", self.CAP_GSTREAMER: "GSTREAMER", self.CAP_FFMPEG: "FFMPEG"}
        self.tried.append((target, names[backend], parameters))
        return FakeCapture(self, names[backend] in self.opens)


class FakeCapture:
    def __init__(self, opencv: FakeOpenCv, is_open: bool) -> None:
        self._is_open, self.released = is_open, False
        fourcc, width, height, fps = opencv.mode
        self._values = {
            cv2.CAP_PROP_FOURCC: float(cv2.VideoWriter_fourcc(*fourcc)),
            cv2.CAP_PROP_FRAME_WIDTH: float(width),
            cv2.CAP_PROP_FRAME_HEIGHT: float(height),
            cv2.CAP_PROP_FPS: fps,
        }

    def isOpened(self) -> bool:
        return self._is_open

    def get(self, key: int) -> float:
        return self._values[key]

    def set(self, key: int, value: float) -> bool:
        return False  # as a camera that has one mode only

    def read(self) -> tuple[bool, np.ndarray | None]:
        return True, np.zeros((*FRAME_HW, 3), np.uint8)

    def release(self) -> None:
        self.released = True


@pytest.fixture
def opencv(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts a `FakeOpenCv` in place of the real one."""

    def install(opens: set[str], info: str = WITHOUT, **more: Any) -> FakeOpenCv:
        fake = FakeOpenCv(opens, info, **more)
        monkeypatch.setitem(sys.modules, "cv2", fake)
        return fake

    return install


@pytest.fixture
def node(tmp_path: Path) -> str:
    """A device node, as far as files can tell."""
    path = tmp_path / "video0"
    path.touch()
    return str(path)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="V4L2 is Linux's")
def test_usb_camera_reports_the_mode_that_it_got(opencv: Any, node: str, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    fake = opencv({"V4L2"})
    camera = device.UsbCamera(node, SourceOptions(image_hw=(720, 1280), fps=60))
    opened = camera.open()
    assert fake.tried == [(node, "V4L2", [])]
    assert (opened.image_hw, opened.fps, opened.pipeline) == ((480, 640), 30.0, f"OpenCV V4L2 {node} YUYV")
    fix = "v4l2-ctl --list-formats-ext lists what the camera can"
    assert opened.fallbacks == (
        f"{node}: asked for fourcc MJPG, got YUYV; {fix}",
        f"{node}: asked for size 1280x720, got 640x480; {fix}",
        f"{node}: asked for fps 60, got 30.0; {fix}",
    )
    assert caplog.messages == list(opened.fallbacks)
    assert opened.read().shape == (*FRAME_HW, 3)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="V4L2 is Linux's")
def test_usb_camera_that_cannot_be_opened_says_why(opencv: Any, node: str, monkeypatch: pytest.MonkeyPatch):
    opencv(set())
    with pytest.raises(CameraError, match=rf"^{node}: OpenCV cannot open {node}; another program may hold it \(fuser"):
        device.UsbCamera(node, SourceOptions()).open()
    opencv({"V4L2"}, WITH_GSTREAMER)
    with pytest.raises(CameraError, match=rf"^{node}: this OpenCV was built without V4L2; run: sudo apt install"):
        device.UsbCamera(node, SourceOptions()).open()
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(CameraError, match=rf"^{node}: no permission to use {node}; run: sudo usermod -aG video"):
        device.UsbCamera(node, SourceOptions()).open()
    with pytest.raises(CameraError, match=r"^/dev/video987: there is no /dev/video987; there is "):
        device.UsbCamera("/dev/video987", SourceOptions()).open()


def test_csi_camera_takes_its_parameters_from_the_uri_then_from_the_options(opencv: Any):
    fake = opencv({"GSTREAMER"}, WITH_GSTREAMER)
    asked = SourceOptions(image_hw=(1080, 1920), fps=60)
    open_source("csi://1?flip=2&fps=15", asked).open()
    open_source("csi://0").open()
    assert [(target, backend) for target, backend, _ in fake.tried] == [
        (csi_pipeline(1, (1080, 1920), 15, 2), "GSTREAMER"),
        (csi_pipeline(0, (720, 1280), 30, 0), "GSTREAMER"),
    ]


def test_csi_camera_without_gstreamer_names_the_opencv_at_fault(opencv: Any, monkeypatch: pytest.MonkeyPatch):
    opencv({"GSTREAMER"})
    monkeypatch.setattr(capture, "installed_pip_packages", lambda: ("opencv-python",))
    monkeypatch.setattr(capture, "is_jetson", lambda: True)
    with pytest.raises(CameraError) as caught:
        open_source("csi://0").open()
    assert str(caught.value) == (
        "csi://0: CSI cameras need GStreamer, but this OpenCV (4.8.0, /usr/lib/cv2.so) was built without GStreamer: it is "
        "pip's opencv-python and shadows the Jetson's own; run: pip uninstall -y opencv-python, then sudo apt install "
        "python3-opencv"
    )
    monkeypatch.setattr(capture, "installed_pip_packages", lambda: ())
    with pytest.raises(
        CameraError, match="run: sudo apt install python3-opencv, and use a venv made with --system-site-pack"
    ):
        open_source("csi://0").open()


def test_csi_camera_that_does_not_open_hints_at_the_daemon_and_a_missing_element_is_known_before_opencv_hangs(
    opencv: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    fake = opencv(set(), WITH_GSTREAMER)
    inspect = tmp_path / "gst-inspect-1.0"
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    inspect.write_text("#!/bin/sh\nexit 1\n")
    inspect.chmod(0o755)
    with pytest.raises(
        CameraError, match=r"^csi://0: GStreamer has no nvarguscamerasrc here; expected a Jetson, and of a"
    ):
        open_source("csi://0").open()
    assert fake.tried == []
    inspect.write_text("#!/bin/sh\nexit 0\n")
    with pytest.raises(
        CameraError, match=r"^csi://0: GStreamer cannot open nvarguscamerasrc .*; nvargus-daemon cannot be"
    ):
        open_source("csi://0").open()


@pytest.mark.parametrize("uri", ["csi://", "csi://a", "csi://100", "csi://0?flip=8", "csi://0?colour=red"])
def test_csi_uri_that_is_not_understood_is_refused(uri: str):
    with pytest.raises(CameraError, match=f"^{uri.replace('?', '[?]')}: .*csi://0"):
        open_source(uri)


# --- streams, with a stand-in for OpenCV ---


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every address answers, and FFmpeg's options are not set yet."""
    monkeypatch.setattr(stream.NetworkStream, "_check_answer", lambda self: None)
    monkeypatch.delenv("OPENCV_FFMPEG_CAPTURE_OPTIONS", raising=False)


@pytest.mark.usefixtures("answering")
def test_rtsp_goes_by_tcp_with_timeouts_through_ffmpeg(opencv: Any, monkeypatch: pytest.MonkeyPatch):
    fake = opencv({"FFMPEG"})
    opened = open_source("rtsp://user:secret@host/live", SourceOptions(timeout_s=4, latency_ms=50)).open()
    timeouts = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, 4000, cv2.CAP_PROP_READ_TIMEOUT_MSEC, 4000]
    one_thread = [cv2.CAP_PROP_N_THREADS, 1]  # more would each hold a frame back
    assert fake.tried == [("rtsp://user:secret@host/live", "FFMPEG", timeouts + one_thread)]
    options = "rtsp_transport;tcp|max_delay;50000|fpsprobesize;0"
    assert os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] == options
    assert opened.pipeline == f"OpenCV FFMPEG rtsp://user:***@host/live ({options})" and opened.fallbacks == ()
    monkeypatch.setenv("OPENCV_FFMPEG_CAPTURE_OPTIONS", "rtsp_transport;udp")  # the user's own
    assert open_source("rtsp://host/live").open().pipeline == "OpenCV FFMPEG rtsp://host/live (rtsp_transport;udp)"


@pytest.mark.usefixtures("answering")
def test_jetson_decodes_by_hardware(opencv: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stream, "is_jetson", lambda: True)
    fake = opencv({"GSTREAMER"}, WITH_GSTREAMER)
    opened = open_source("rtsp://user:secret@host/live", SourceOptions(transport="udp", latency_ms=50)).open()
    assert fake.tried == [(rtsp_pipeline("rtsp://user:secret@host/live", "udp", 50, 10.0), "GSTREAMER", [])]
    assert "nvv4l2decoder" in opened.pipeline and "secret" not in opened.pipeline and opened.fallbacks == ()


@pytest.mark.usefixtures("answering")
def test_jetson_falls_back_to_ffmpeg_and_says_why(
    opencv: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(stream, "is_jetson", lambda: True)
    fake = opencv({"FFMPEG"}, WITH_GSTREAMER)
    (reason,) = open_source("http://host/video").open().fallbacks
    assert [backend for _, backend, _ in fake.tried] == ["GSTREAMER", "FFMPEG"]
    assert reason == (
        "http://host/video: decoded by FFmpeg on the CPU, not by the Jetson's decoder: GStreamer could not open the stream "
        "(GST_DEBUG=3 shows more)"
    )
    assert caplog.messages == [reason]
    opencv({"FFMPEG"}, WITHOUT)
    (reason,) = open_source("http://host/video").open().fallbacks
    assert "was built without GStreamer" in reason


@pytest.mark.usefixtures("answering")
def test_stream_that_ffmpeg_cannot_read_is_an_error(opencv: Any):
    opencv(set())
    with pytest.raises(
        CameraError, match=r"^rtsp://h/x: h answers, but gave no stream that FFmpeg can read within 10 s; are"
    ):
        open_source("rtsp://h/x").open()
    opencv(set(), "")
    with pytest.raises(CameraError, match=r"^rtsp://h/x: this OpenCV was built without FFmpeg; run: pip install"):
        open_source("rtsp://h/x").open()


@pytest.mark.parametrize("uri", ["rtsp://", "http:///video", "rtsp://host:port/x", "rtsp://[/x"])
def test_stream_without_an_address_is_refused(uri: str):
    with pytest.raises(
        CameraError, match=r"expected e\.g\. rtsp://\$\{CAM_USER\}:\$\{CAM_PASSWORD\}@192.168.1.64:554/stream1$"
    ):
        open_source(uri)
