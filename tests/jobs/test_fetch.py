"""`fetch` against a server on this machine that breaks off, lies, stalls and answers other things than weights."""

import hashlib
import json
import shutil
import struct
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.cli_runner import call, files_in
from yolov3_trt.errors import FetchError, OutputError, WeightsError, Yolov3TrtError
from yolov3_trt.jobs import download
from yolov3_trt.jobs.fetch import Fetched
from yolov3_trt.jobs.fetch import fetch as fetch_weights
from yolov3_trt.models import load_model, load_spec
from yolov3_trt.models.architectures import BUILT_IN
from yolov3_trt.models.published import PUBLISHED, Published
from yolov3_trt.reporter import Reporter

CONTENT = bytes(range(256)) * 10_000  # 2.4 MiB: three pieces
SHA256 = hashlib.sha256(CONTENT).hexdigest()
NAME = "yolov3-tiny"
PART = f".{NAME}.weights.{SHA256[:16]}.part"

CFG = """[net]
width=32
height=32
channels=3
[convolutional]
filters=21
size=1
[yolo]
classes=2
num=3
mask=0,1,2
anchors=1,1,2,2,3,3
"""

Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Answers each request with the next of the server's answers; the last one again and again."""

    server: "Server"

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("Range"), self.headers.get("User-Agent", "")))
        answers = self.server.answers
        (answers.pop(0) if len(answers) > 1 else answers[0])(self)
        self.close_connection = True

    def head(self, status: int, **headers: object) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Not to stderr."""


class Server(ThreadingHTTPServer):
    daemon_threads = True
    answers: list[Answer]
    asked: list[tuple[str, str | None, str]]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/y.weights"

    @property
    def ranges(self) -> list[str | None]:
        return [asked[1] for asked in self.asked]


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server(("127.0.0.1", 0), Handler)
    server.answers, server.asked = [good], []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(download, "PAUSE_S", 0.001)
    return tmp_path / "cache" / "yolov3_trt"


@pytest.fixture(autouse=True)
def published(monkeypatch: pytest.MonkeyPatch, server: Server) -> Published:
    """The server's file in the place of the real one."""
    entry = Published((server.url,), "https://cfg.example/y.cfg", f"sha256:{SHA256}", len(CONTENT))
    monkeypatch.setitem(PUBLISHED, NAME, entry)
    return entry


def good(handler: Handler, content: bytes = CONTENT, until: int | None = None) -> None:
    """As a good server does, up to byte `until` of the file."""
    asked = handler.headers.get("Range")
    offset = 0 if asked is None else int(asked.removeprefix("bytes=").removesuffix("-"))
    if offset >= len(content):
        handler.head(416, Content_Length=0)
        return
    if asked is None:
        handler.head(200, Content_Length=len(content), Content_Type="application/octet-stream")
    else:
        where = f"bytes {offset}-{len(content) - 1}/{len(content)}"
        handler.head(206, Content_Length=len(content) - offset, Content_Range=where)
    handler.wfile.write(content[offset:until])


def breaks_at(byte: int) -> Answer:
    return lambda handler: good(handler, until=byte)


def ignores_range(handler: Handler) -> None:
    handler.head(200, Content_Length=len(CONTENT))
    handler.wfile.write(CONTENT)


def says(length: int) -> Answer:
    def answer(handler: Handler) -> None:
        handler.head(200, Content_Length=length)
        handler.wfile.write(CONTENT)

    return answer


def status(code: int) -> Answer:
    return lambda handler: handler.head(code, Content_Length=0)


def web_page(handler: Handler) -> None:
    handler.head(200, Content_Type="text/html; charset=utf-8")
    handler.wfile.write(b"<html>log in first</html>")


def without_length(until: int | None) -> Answer:
    def answer(handler: Handler) -> None:
        handler.head(200)
        handler.wfile.write(CONTENT[:until])

    return answer


def redirects(handler: Handler) -> None:
    handler.head(302, Location=handler.server.url + "?moved", Content_Length=0)


def stalls_at(byte: int) -> Answer:
    def answer(handler: Handler) -> None:
        good(handler, until=byte)
        time.sleep(1)

    return answer


def other_content(handler: Handler) -> None:
    good(handler, content=CONTENT[::-1])


def refused(error: type[Yolov3TrtError] = FetchError, **keywords: object) -> str:
    with pytest.raises(error) as caught:
        fetch_weights(NAME, **keywords)
    return str(caught.value)


def assert_whole(fetched: Fetched, cache: Path) -> None:
    assert fetched.path == cache / f"{NAME}.weights"
    assert fetched.path.read_bytes() == CONTENT
    assert files_in(cache) == {f"{NAME}.weights"}  # no part, no lock


def test_a_file_comes_whole_and_a_second_call_finds_it_there(cache: Path, server: Server):
    fetched = fetch_weights(NAME)
    assert_whole(fetched, cache)
    assert fetched == Fetched(NAME, cache / f"{NAME}.weights", len(CONTENT), f"sha256:{SHA256}", server.url, None)
    assert server.asked[0][2].startswith("yolov3_trt/")  # pjreddie.com refuses Python's own name
    again = fetch_weights(NAME)
    assert again.source is None and len(server.asked) == 1


def test_a_connection_that_breaks_is_taken_up_where_it_stopped(cache: Path, server: Server):
    server.answers = [breaks_at(1_000_000), breaks_at(2_000_000), good]
    said: list[str] = []
    assert_whole(fetch_weights(NAME, reporter=Reporter(said.append)), cache)
    assert server.ranges == [None, "bytes=1000000-", "bytes=2000000-"]
    assert said[0] == (
        f"{server.url}: the connection ended after 1,000,000 of 2,560,000 bytes; going on from byte 1,000,000 ..."
    )


def test_a_server_that_breaks_without_end_leaves_the_part_for_the_next_call(cache: Path, server: Server):
    server.answers = [breaks_at(1_500_000)]
    assert refused() == (
        f"{server.url}: the connection ended after 1,500,000 of 2,560,000 bytes, 4 times in a row; 1,500,000 bytes are kept: "
        "run this again to go on from there (url= takes a mirror, source= a file that you have)"
    )
    assert files_in(cache) == {PART} and (cache / PART).read_bytes() == CONTENT[:1_500_000]
    server.answers, server.asked = [good], []
    assert_whole(fetch_weights(NAME), cache)
    assert server.ranges == ["bytes=1500000-"]


@pytest.mark.parametrize("answer", [without_length(None), redirects], ids=["no length", "redirect"])
def test_what_servers_may_do(answer: Answer, cache: Path, server: Server):
    server.answers = [answer, good]
    assert_whole(fetch_weights(NAME), cache)


def test_a_redirect_keeps_the_range(cache: Path, server: Server):
    server.answers = [breaks_at(1_000_000), redirects, good]
    assert_whole(fetch_weights(NAME), cache)
    assert [asked[:2] for asked in server.asked[1:]] == [
        ("/y.weights", "bytes=1000000-"),
        ("/y.weights?moved", "bytes=1000000-"),
    ]


def test_a_server_that_cannot_resume_sends_all_again(cache: Path, server: Server):
    server.answers = [breaks_at(1_000_000), ignores_range]
    said: list[str] = []
    assert_whole(fetch_weights(NAME, reporter=Reporter(said.append)), cache)
    assert f"{server.url}: this server cannot resume; starting again ..." in said


def test_a_body_without_a_length_that_ends_early_is_no_whole_file(cache: Path, server: Server):
    server.answers = [without_length(1_000_000), good]
    assert_whole(fetch_weights(NAME), cache)
    assert server.ranges == [None, "bytes=1000000-"]


def test_a_server_that_stalls_is_asked_again(cache: Path, server: Server, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(download, "TIMEOUT_S", 0.2)
    server.answers = [stalls_at(1_200_000), good]
    said: list[str] = []
    assert_whole(fetch_weights(NAME, reporter=Reporter(said.append)), cache)
    assert "nothing came for 0.2 s" in said[0]


def test_a_busy_server_is_asked_again(cache: Path, server: Server):
    server.answers = [status(503), status(429), good]
    assert_whole(fetch_weights(NAME), cache)


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (status(404), "the server answered 404 (Not Found)"),
        (status(403), "the server answered 403 (Forbidden)"),
        (web_page, "the server sent a web page"),
        (says(len(CONTENT) + 100), "the server offers 2,560,100 bytes; expected 2,560,000: another file"),
        (says(1000), "the server offers 1,000 bytes; expected 2,560,000: another file"),
        (other_content, f"its digest is sha256:{hashlib.sha256(CONTENT[::-1]).hexdigest()}; expected sha256:{SHA256}"),
        (status(500), "the server answered 500 (Internal Server Error), 4 times in a row"),
    ],
)
def test_what_is_not_the_file_is_refused_and_leaves_nothing(answer: Answer, problem: str, cache: Path, server: Server):
    server.answers = [answer]
    assert f"{server.url}: {problem}" in refused()
    assert files_in(cache) == set()


def test_a_range_that_was_not_asked_for_is_refused(cache: Path, server: Server):
    def elsewhere(handler: Handler) -> None:
        handler.head(206, Content_Length=10, Content_Range=f"bytes 0-9/{len(CONTENT)}")
        handler.wfile.write(CONTENT[:10])

    server.answers = [breaks_at(1_000_000), elsewhere]
    assert "asked for byte 1,000,000 on; the server answered with range 0-9" in refused()
    assert (cache / PART).read_bytes() == CONTENT[:1_000_000]


def test_a_length_that_is_a_lie_is_found_where_the_size_is_not_known_either(
    cache: Path, server: Server, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(PUBLISHED, NAME, Published((server.url,), "", f"sha1:{hashlib.sha1(CONTENT).hexdigest()}"))
    server.answers = [says(len(CONTENT) - 1000)]
    assert "its digest is sha1:" in refused()
    assert files_in(cache) == set()
    server.answers = [good]
    assert fetch_weights(NAME).digest == f"sha1:{hashlib.sha1(CONTENT).hexdigest()}"


def test_a_part_of_another_file_is_thrown_away_once_that_shows(cache: Path, server: Server):
    cache.mkdir(parents=True)
    (cache / PART).write_bytes(b"\0" * 1_000_000)
    assert_whole(fetch_weights(NAME), cache)
    assert server.ranges == ["bytes=1000000-", None]


@pytest.mark.parametrize("num_bytes", [len(CONTENT), None])
def test_a_part_that_was_whole_before_its_check_needs_no_server(
    num_bytes: int | None, cache: Path, server: Server, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(PUBLISHED, NAME, Published((server.url,), "", f"sha256:{SHA256}", num_bytes))
    cache.mkdir(parents=True)
    (cache / PART).write_bytes(CONTENT)
    assert_whole(fetch_weights(NAME), cache)
    assert server.asked == []


def test_a_part_longer_than_what_the_server_has_is_thrown_away(
    cache: Path, server: Server, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(PUBLISHED, NAME, Published((server.url,), "", f"sha256:{SHA256}", len(CONTENT) + 1))
    server.answers = [breaks_at(len(CONTENT)), status(416), status(404)]
    refused()
    assert files_in(cache) == set()


def test_the_next_place_is_tried(cache: Path, server: Server, monkeypatch: pytest.MonkeyPatch):
    nobody = "http://127.0.0.1:9/y.weights"
    monkeypatch.setitem(PUBLISHED, NAME, Published((nobody, server.url), "", f"sha256:{SHA256}", len(CONTENT)))
    said: list[str] = []
    fetched = fetch_weights(NAME, reporter=Reporter(said.append))
    assert fetched.source == server.url
    assert said[0].startswith(f"{nobody}: cannot connect") and said[0].endswith(f"; trying {server.url} ...")
    assert_whole(fetched, cache)


def test_a_mirror_must_have_the_published_file(cache: Path, server: Server, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(PUBLISHED, NAME, Published(("http://127.0.0.1:9/no",), "", f"sha256:{SHA256}", len(CONTENT)))
    server.answers = [other_content]
    assert "its digest is" in refused(url=server.url)
    server.answers = [good]
    assert fetch_weights(NAME, url=server.url).source == server.url
    for url, problem in (
        ("file:///etc/passwd", "expected an http:// or https:// address"),
        ("y.weights", "expected an"),
    ):
        assert problem in refused(url=url, destination=cache.parent / "elsewhere")


def test_a_file_that_is_here_is_checked_and_copied(cache: Path, tmp_path: Path, server: Server):
    source = tmp_path / "mine.weights"
    assert refused(source=source) == f"{source}: there is no such file; expected the weights for {NAME}.weights"
    source.write_bytes(CONTENT[:-1])
    assert refused(source=source).startswith(f"{source} is another file than the published one (its digest is sha256:")
    assert files_in(cache) == set()
    source.write_bytes(CONTENT)
    assert_whole(fetch_weights(NAME, source=source), cache)
    assert source.exists() and server.asked == []


def test_another_file_in_its_place_is_never_overwritten(cache: Path, server: Server):
    cache.mkdir(parents=True)
    (cache / f"{NAME}.weights").write_bytes(b"my own training")
    assert refused().startswith(f"{cache / NAME}.weights is there already, but is another file; move it away")
    assert (cache / f"{NAME}.weights").read_bytes() == b"my own training" and server.asked == []


def test_a_destination_may_be_a_folder_or_a_file(tmp_path: Path):
    assert fetch_weights(NAME, destination=tmp_path / "a").path == tmp_path / "a" / f"{NAME}.weights"
    assert fetch_weights(NAME, destination=tmp_path / "b" / "own.weights").path == tmp_path / "b" / "own.weights"


def test_a_destination_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    assert "cannot create this folder" in refused(OutputError, destination=tmp_path / "file" / "x")


def test_a_full_disk_is_found_before_the_download(cache: Path, server: Server, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9 - 1000, 1000))
    text = refused(OutputError)
    assert (
        text
        == f"{cache / NAME}.weights: needs 2,560,000 bytes and 1,000 are free there; give another place with destination="
    )
    assert server.asked == []


def test_without_a_published_digest_one_must_be_given(cache: Path, server: Server, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(PUBLISHED, NAME, Published((server.url,), ""))
    assert refused() == f"{NAME}: no digest of {server.url} was published; give the one you trust with sha256="
    assert "expected 64 hexadecimal digits" in refused(sha256="abc")
    assert_whole(fetch_weights(NAME, sha256=SHA256.upper()), cache)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        (
            "yolov3-tinny",
            "yolov3-tinny: there is no such model; did you mean yolov3-tiny? expected one of yolov3, yolov3-tiny,",
        ),
        ("YOLOv4", "YOLOv4: there is no such model; did you mean yolov4? expected one of"),
        ("yolov3-voc", "yolov3-voc: no weights of it are known to be published;"),
        ("shapes", "shapes: its weights come with the package; there is nothing to fetch"),
    ],
)
def test_names_that_cannot_be_fetched(name: str, problem: str, cache: Path):
    with pytest.raises(FetchError) as caught:
        fetch_weights(name)
    assert str(caught.value).startswith(problem)
    assert not cache.exists()


def test_two_at_once_download_once(cache: Path, server: Server):
    release = threading.Event()

    def slowly(handler: Handler) -> None:
        release.wait(10)
        good(handler)

    server.answers = [slowly]
    results: list[Fetched] = []
    waits: list[str] = []

    def second_waits(text: str) -> None:
        waits.append(text)
        release.set()

    threads = [
        threading.Thread(target=lambda: results.append(fetch_weights(NAME, reporter=Reporter(second_waits))))
        for _ in "ab"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(result.source is None for result in results) == [False, True]
    assert len(server.asked) == 1 and "another process is fetching this; waiting" in waits[0]


def test_ctrl_c_keeps_what_came(cache: Path, server: Server, capsys: pytest.CaptureFixture[str], monkeypatch):
    server.answers = [breaks_at(1_000_000)]

    def stop(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", stop)
    assert call("fetch", NAME) == 130
    assert "stopped; what has come is kept: the same command goes on from there" in capsys.readouterr().err
    assert files_in(cache) == {PART}


def test_the_verb_says_what_came_and_what_to_type_now(
    cache: Path, server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    assert call("fetch", NAME) == 0
    out, err = capsys.readouterr()
    assert out == f"{cache / NAME}.weights  2,560,000 bytes, sha256 {SHA256}\n  from {server.url}\n"
    assert err.splitlines() == [f"{server.url} (MiB): 3 ...", f"now: yolov3_trt detect {NAME} PICTURE --save out/"]
    assert call("fetch", NAME, "--json", "-") == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {
        "name": NAME,
        "path": str(cache / f"{NAME}.weights"),
        "num_bytes": len(CONTENT),
        "digest": f"sha256:{SHA256}",
        "source": None,
        "cfg": None,
    }
    assert err == ""
    monkeypatch.setitem(PUBLISHED, "yolov4x-mish", PUBLISHED[NAME])
    assert call("fetch", "yolov4x-mish", "--dest", cache / "four") == 0
    assert (
        f"yolov4x-mish is not built in: save https://cfg.example/y.cfg as {cache / 'four/yolov4x-mish.cfg'}, then: yolov3_trt"
        in capsys.readouterr().err
    )
    assert call("fetch", NAME, "--url", server.url, "--from", "x.weights") == 2
    assert call("fetch", "yolov9") == 1
    assert "yolov9: there is no such model" in capsys.readouterr().err


def test_models_says_how_to_get_what_is_missing(cache: Path, capsys: pytest.CaptureFixture[str]):
    assert call("models", "--json", "-") == 0
    listed = json.loads(capsys.readouterr().out)
    rows = {row["name"]: row for row in (*listed["models"], *listed["published"])}
    assert set(rows) == {*BUILT_IN, *PUBLISHED}
    assert rows[NAME]["fetch"] == f"yolov3_trt fetch {NAME}" and not rows[NAME]["weights_present"]
    assert rows["yolov7-tiny"]["fetch"] == "yolov3_trt fetch yolov7-tiny --sha256 HEX"
    assert rows["shapes"]["fetch"] is None and rows["shapes"]["weights_present"]
    assert call("models") == 0
    out = capsys.readouterr().out
    assert f"yolov3_trt fetch {NAME}\n" in out and PUBLISHED["yolov4x-mish"].cfg in out
    fetch_weights(NAME)
    assert call("models") == 0
    assert f" {cache / NAME}.weights\n" in capsys.readouterr().out


def test_missing_weights_name_the_command_that_brings_them(cache: Path, tmp_path: Path):
    with pytest.raises(WeightsError) as caught:
        load_model(NAME)
    assert str(caught.value) == (
        f"{NAME}: no weights given and none at {cache / NAME}.weights; run: yolov3_trt fetch {NAME}, or give the "
        "file as weights"
    )
    cfg = tmp_path / "yolov4.cfg"
    cfg.write_text(CFG)
    with pytest.raises(WeightsError, match=f"run: yolov3_trt fetch yolov4 --dest {tmp_path}, or give the file"):
        load_model(cfg)


def test_a_cfg_without_weights_beside_it_takes_those_in_the_cache_and_says_so(
    cache: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    cfg, cached = tmp_path / "yolov4.cfg", cache / "yolov4.weights"
    cfg.write_text(CFG)
    cached.parent.mkdir(parents=True)
    cached.write_bytes(struct.pack("<3iq", 0, 2, 5, 0) + bytes(4 * load_spec(cfg).num_values))
    assert load_model(cfg).weights_path == cached
    assert caplog.messages[0] == f"{cfg}: no weights beside it; taking the published ones, {cached}"
    own = cfg.with_suffix(".weights")
    shutil.copy(cached, own)
    assert load_model(cfg).weights_path == own


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_table_is_of_whole_digests_and_sizes_of_the_networks(name: str, data: Path):
    entry = PUBLISHED[name] if name != NAME else REAL_TINY
    assert all(url.startswith("https://") and url.endswith(f"/{name}.weights") for url in entry.urls)
    assert entry.cfg.endswith(f"/{name}.cfg")
    if entry.digest is not None:
        algorithm, _, value = entry.digest.partition(":")
        assert len(bytes.fromhex(value)) == hashlib.new(algorithm).digest_size
    if entry.num_bytes is not None:
        spec = load_spec(name if name in BUILT_IN else data / "models" / "family" / f"{name}.cfg")
        assert entry.num_bytes == 20 + 4 * spec.num_values


REAL_TINY = PUBLISHED[NAME]


def test_the_official_file_has_the_published_digest(
    data: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    official = data / "models" / "official" / f"{NAME}.weights"
    if not official.is_file():
        pytest.skip(f"no {official}")
    monkeypatch.setitem(PUBLISHED, NAME, REAL_TINY)
    assert fetch_weights(NAME, source=official).num_bytes == 35_434_956
    assert call("detect", NAME, data / "images" / "dog.jpg", "--json", "-") == 0
    (image,) = json.loads(capsys.readouterr().out)["images"]
    assert {row["class_name"] for row in image["detections"]} == {"dog", "bicycle", "car", "truck"}
