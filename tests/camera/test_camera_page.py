"""The page of the HTTP sink in a real browser: Chromium without a screen, driven by the WebDriver protocol."""

import base64
import json
import re
import shutil
import subprocess
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from yolov3_trt.camera.frames import Frame, FrameStatus, Look, Result
from yolov3_trt.camera.sinks import HttpSink, Limits, SegmentsSink, encoders
from yolov3_trt.detections import Detections
from yolov3_trt.places import Line, Places, Zone
from yolov3_trt.shapes import shapes_picture

# Kept for people to look at; runs/ is not in git.
SCREENSHOTS = Path(__file__).parents[2] / "runs" / "camera-page"
SOURCES = ("csi://0", "rtsp://192.168.1.20:8554/front-door/main-stream?profile=high")
CLASS_NAMES = ("circle", "square", "triangle", "star", "cross", "ring")

DRIVER, CHROMIUM = shutil.which("chromedriver"), shutil.which("chromium")
pytestmark = pytest.mark.skipif(
    not (DRIVER and CHROMIUM), reason="needs Debian's packages chromium and chromium-driver"
)


class Browser:
    """A session of ChromeDriver, spoken to in plain HTTP."""

    def __init__(self, driver_url: str, profile: Path) -> None:
        self._url = f"{driver_url}/session"
        arguments = [
            *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
            *("--disable-background-networking", "--disable-component-update", f"--user-data-dir={profile}"),
        ]
        options = {
            "pageLoadStrategy": "none",
            "goog:chromeOptions": {"args": arguments, "binary": CHROMIUM},
            "goog:loggingPrefs": {"browser": "ALL"},
        }
        session = self._send("", {"capabilities": {"alwaysMatch": options}})["sessionId"]
        self._url += f"/{session}"

    def _send(self, path: str, content: dict[str, Any] | None = None, method: str = "POST") -> Any:
        body = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(self._url + path, body, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def open(self, url: str) -> None:
        self._send("/url", {"url": url})

    def run(self, script: str) -> Any:
        return self._send("/execute/sync", {"script": script, "args": []})

    def devtools(self, command: str, **parameters: Any) -> None:
        self._send("/goog/cdp/execute", {"cmd": command, "params": parameters})

    def look_as(self, width: int, height: int, *, dark: bool, phone: bool) -> None:
        scale = 2 if phone else 1
        self.devtools(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=phone
        )
        scheme = "dark" if dark else "light"
        self.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def screenshot(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(self._send("/screenshot", method="GET")))

    def complaints(self) -> list[str]:
        return [entry["message"] for entry in self._send("/se/log", {"type": "browser"})]

    def close(self) -> None:
        self._send("", method="DELETE")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    command = [str(DRIVER), "--port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as driver:
        try:
            assert driver.stdout is not None
            started = next(line for line in driver.stdout if "started successfully on port" in line)
            port = re.findall("[0-9]+", started)[-1]
            browser = Browser(f"http://127.0.0.1:{port}", tmp_path_factory.mktemp("chromium"))
            yield browser
            browser.close()
        finally:
            driver.terminate()


class Loop:
    """What a loop would do: results for both sources, and their statistics."""

    def __init__(self, port: int = 0) -> None:
        self.sink = HttpSink("127.0.0.1", port, sources=SOURCES, stats=self.stats)
        self.index = 0
        self.seen: dict[str, list[int]] = {}
        bay = Zone(((0.55, 0.5), (0.95, 0.5), (0.95, 0.95), (0.55, 0.95)), "bay", watch=True)
        self.look = Look(places=Places((bay,), (Line(((0.3, 0.3), (0.35, 0.9)), "gate"),)))

    def stats(self) -> dict[str, Any]:
        rows = [
            {"source": SOURCES[1], "dropped": 0, "reconnects": 2, "frame_age_ms": {"p95": 131.4}, "error": None},
            {"source": SOURCES[0], "dropped": 1312, "reconnects": 0, "frame_age_ms": {"p95": 48.6}, "error": None},
        ]
        rows[1]["objects"] = {
            "present": {"star": 1},
            "appeared": {"circle": 2, "star": 17},
            "lines": {"gate": {"in": {"star": 3, "ring": 4}, "out": {}}},
            "zones": {"bay": {"present": {}, "entered": {"star": 2}}},
        }
        return {"backend": "onnxruntime", "precision": "int8", "sources": rows}

    def step(self) -> None:
        for source, image_hw, fps in ((SOURCES[0], (720, 1280), 29.97), (SOURCES[1], (480, 640), 12.5)):
            picture = shapes_picture(5, self.index, image_hw)
            scores = np.linspace(0.98, 0.6, len(picture.class_ids), dtype=np.float32)
            found = Detections(picture.xyxy.astype(np.float32), scores, picture.class_ids.astype(np.int32), CLASS_NAMES)
            frame = Frame(picture.pixels, source, self.index, time.monotonic())
            status = FrameStatus(fps, 41.0, 1312, 2)
            self.sink.write(Result(frame, found, status, look=self.look, crossings={"gate": (7, 0)}))
            self.seen[source] = sorted(picture.class_ids.tolist())
        self.index += 1


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    with loop.sink:
        yield loop


def wait_for(condition: Callable[[], Any], loop: Loop | None = None, limit_s: float = 20.0) -> None:
    deadline_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline_s, "in vain"
        if loop is not None:
            loop.step()
        time.sleep(0.05)


def shown_of(browser: Browser) -> list[dict[str, str]]:
    return browser.run(
        "return [...document.querySelectorAll('figure')].map(f => Object.fromEntries("
        "['h2', '.fps', '.age', '.dropped', '.reconnects'].map(s => [s, f.querySelector(s).textContent])))"
    )


def picture_widths(browser: Browser) -> list[int]:
    return browser.run("return [...document.images].map(image => image.naturalWidth)")


# Of the pixel in the upper left corner, where a stale view has its banner.
CORNERS = """
return [...document.images].map(image => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d");
  canvas.drawImage(image, 0, 0);
  return [...canvas.getImageData(0, 0, 1, 1).data.slice(0, 3)];
});
"""
COLOUR_SUMS = """
return [...document.images].map(image => {
  const canvas = new OffscreenCanvas(64, 36).getContext("2d");
  canvas.drawImage(image, 0, 0, 64, 36);
  return canvas.getImageData(0, 0, 64, 36).data.reduce((sum, value) => sum + value, 0);
});
"""


def test_page_shows_every_source_live_with_its_figures(browser: Browser, loop: Loop):
    browser.complaints()
    loop.step()
    browser.open(loop.sink.address)
    wait_for(lambda: picture_widths(browser) == [1280, 640] and shown_of(browser)[0][".age"] == "49 ms", loop)
    assert shown_of(browser) == [
        {"h2": SOURCES[0], ".fps": "30.0", ".age": "49 ms", ".dropped": "1312", ".reconnects": "0"},
        {"h2": SOURCES[1], ".fps": "12.5", ".age": "131 ms", ".dropped": "0", ".reconnects": "2"},
    ]
    assert browser.run("return document.querySelector('#loop').textContent") == "onnxruntime, int8"
    before = browser.run(COLOUR_SUMS)
    wait_for(lambda: all(a != b for a, b in zip(before, browser.run(COLOUR_SUMS), strict=True)), loop)
    texts = "return [...document.querySelectorAll('%s')].map(e => e.textContent)"

    def seen() -> list[list[str]]:  # now, the most first
        return [sorted(text.split(", ")) for text in browser.run(texts % ".seen")]

    names = [Counter(CLASS_NAMES[class_id] for class_id in loop.seen[source]) for source in SOURCES]
    expected = [sorted(f"{count} {name}" for name, count in one.items()) or ["nothing to be seen"] for one in names]
    wait_for(lambda: seen() == expected)
    assert browser.run(texts % ".counts li") == [
        "appeared 17 star, 2 circle",
        "gate in 4 ring, 3 star; out 0",
        "bay now nobody; entered 2 star",
    ]
    times = browser.run("return [...document.querySelectorAll('time')].map(e => [e.dateTime, e.textContent])")
    assert all(
        abs(datetime.fromisoformat(when) - datetime.now(timezone.utc)).seconds < 60 and text for when, text in times
    )
    assert browser.run("return document.querySelectorAll('button.full:not([hidden])').length") == 2
    assert browser.complaints() == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("name, width, height", [("desktop", 1280, 800), ("phone", 390, 844)])
def test_page_fits_its_screen(browser: Browser, loop: Loop, name: str, width: int, height: int, dark: bool):
    browser.look_as(width, height, dark=dark, phone=name == "phone")
    loop.step()
    browser.open(loop.sink.address)
    wait_for(lambda: picture_widths(browser) == [1280, 640], loop)
    if dark:
        loop.sink.mark_stale(SOURCES[1], 7.2)
        wait_for(lambda: browser.run("return document.querySelectorAll('.stale:not([hidden])').length") == 1)
    scroll_width, luma = browser.run(
        "const paper = getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g);"
        "return [document.documentElement.scrollWidth, Math.max(...paper)]"
    )
    assert scroll_width <= width  # nothing has to be scrolled sideways
    assert luma < 64 if dark else luma > 192
    in_row = browser.run("return new Set([...document.querySelectorAll('figure')].map(f => f.offsetTop)).size == 1")
    assert in_row == (name == "desktop")
    browser.screenshot(SCREENSHOTS / f"{name}{'-dark' if dark else ''}.png")


def test_page_tells_of_a_lost_source_until_it_is_back(browser: Browser, loop: Loop):
    banner = "return [...document.querySelectorAll('.stale:not([hidden])')].map(e => e.textContent)"
    loop.step()
    browser.open(loop.sink.address)
    wait_for(lambda: picture_widths(browser) == [1280, 640])
    loop.sink.mark_stale(SOURCES[0], 65.3)
    # Drawn into the picture as well, and shown at once: nothing comes after it.
    wait_for(lambda: np.allclose(browser.run(CORNERS)[0], (200, 40, 40), atol=24), limit_s=6)  # JPEG: letters lie near
    wait_for(lambda: browser.run(banner) == ["no frame for 65 s"])
    loop.step()
    wait_for(lambda: browser.run(banner) == [])


def test_page_says_that_the_program_has_ended_and_goes_on_with_the_next(browser: Browser):
    trouble = "const e = document.querySelector('#trouble'); return e.hidden ? '' : e.textContent"
    first = Loop()
    with first.sink:
        first.step()
        browser.open(first.sink.address)
        wait_for(lambda: picture_widths(browser) == [1280, 640])
    # It goes on with the page that it has, so a restart of the program is enough.
    wait_for(lambda: browser.run(trouble).startswith("The camera program does not answer; what you see is old."))
    second = Loop(int(first.sink.address.rpartition(":")[2]))
    with second.sink:
        wait_for(lambda: browser.run(trouble) == "", second)
        before = browser.run(COLOUR_SUMS)
        wait_for(lambda: all(a != b for a, b in zip(before, browser.run(COLOUR_SUMS), strict=True)), second)


def test_hidden_page_lets_go_of_its_views_until_it_is_seen_again(browser: Browser, loop: Loop):
    def num_viewers() -> int:
        return sum(view._num_viewers for view in loop.sink._views.values())

    def hide(hidden: str) -> None:
        browser.run(f"Object.defineProperty(document, 'hidden', {{value: {hidden}, configurable: true}})")
        browser.run("document.dispatchEvent(new Event('visibilitychange'))")

    browser.open(loop.sink.address)
    wait_for(lambda: num_viewers() == 2, loop)
    hide("true")
    wait_for(lambda: num_viewers() == 0, loop)
    hide("false")
    wait_for(lambda: num_viewers() == 2 and picture_widths(browser) == [1280, 640], loop)


def test_page_with_more_sources_than_a_browser_has_connections_shows_them_all(browser: Browser):
    sources = [f"csi://{number}" for number in range(8)]
    with HttpSink("127.0.0.1", 0, sources=sources, stats=dict) as sink:

        def step() -> None:
            for number, source in enumerate(sources):
                frame = Frame(np.full((48, 64 + number, 3), 90, np.uint8), source, 0, 0.0)
                sink.write(Result(frame, Detections.none(), FrameStatus(10.0 + number, 41.0, 0, 8)))

        step()
        browser.open(sink.address)
        wait_for(lambda: picture_widths(browser) == [64, 65, 66, 67, 68, 69, 70, 71])
        assert [row[".fps"] for row in shown_of(browser)] == [f"{10 + number}.0" for number in range(8)]


def test_page_with_a_password_is_shown_to_who_gives_it(browser: Browser):
    with HttpSink("127.0.0.1", 0, sources=["a"], stats=dict, password="open sesame") as sink:
        status = FrameStatus(10.0, 41.0, 0, 8)
        sink.write(Result(Frame(np.full((48, 64, 3), 90, np.uint8), "a", 0, 0.0), Detections.none(), status))
        browser.open(sink.address.replace("//", "//me:open%20sesame@"))
        wait_for(lambda: picture_widths(browser) == [64] and [row[".fps"] for row in shown_of(browser)] == ["10.0"])


@pytest.mark.skipif(encoders.ffmpeg_codec() is None, reason="needs Debian's package ffmpeg")
def test_segment_plays_in_the_browser(browser: Browser, tmp_path: Path):
    pattern = tmp_path / "door-%Y%m%d-%H%M%S.mp4"
    with SegmentsSink(pattern, lambda: 10.0, lambda: False, segment_s=60, limits=Limits()) as sink:
        for index in range(25):
            pixels = np.full((48, 64, 3), (0, 10 * index, 0), np.uint8)
            sink.write(Result(Frame(pixels, "a", index, 0.0), Detections.none(), FrameStatus(None, 0.0, 0, 1)))
    (path,) = tmp_path.iterdir()
    browser.open(path.as_uri())
    video = "const video = document.querySelector('video'); return video && "
    wait_for(lambda: browser.run(f"{video}(video.readyState >= 2 || video.error)"))
    assert browser.run(f"{video}[video.videoWidth, video.videoHeight, video.error, video.duration]") == [
        64,
        48,
        None,
        2.5,
    ]
    browser.run(
        "const video = document.querySelector('video'); video.pause(); video.currentTime = 2"
    )  # it began by itself
    wait_for(lambda: browser.run(f"{video}video.currentTime === 2 && !video.seeking && video.readyState >= 2"))
