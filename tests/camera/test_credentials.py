"""Passwords of cameras: no way of writing one, right or wrong, shows it anywhere."""

import json
import logging
import math
import threading
import urllib.error
import urllib.request
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest

from tests.cli_runner import Run
from tests.fakes import fake_detector
from tests.streams import free_port
from yolov3_trt import watch
from yolov3_trt.camera.sources import open_source, split_uris
from yolov3_trt.camera.sources.base import SourceOptions
from yolov3_trt.camera.sources.credentials import load_credentials
from yolov3_trt.camera.sources.stream import NetworkStream
from yolov3_trt.errors import CameraError, ImageError, SettingError, Yolov3TrtError
from yolov3_trt.masking import masked, masked_address

# Each holds S3CRET, or T0P where it has two parts.
FORMS = [
    "rtsp://admin:S3CRET@127.0.0.1:1/x",
    "RTSP://admin:S3CRET@127.0.0.1:1/x",
    "  rtsp://admin:S3CRET@127.0.0.1:1/x",
    "rtsp://:S3CRET@127.0.0.1:1/x",
    "rtsps://admin:S3CRET@127.0.0.1:1/x",
    "http://admin:S3CRET@127.0.0.1:1/x",
    "rtmp://admin:S3CRET@127.0.0.1/x",
    "ftp://admin:S3CRET@127.0.0.1/x",
    "rtsp:/admin:S3CRET@127.0.0.1/x",
    "rtsp//admin:S3CRET@127.0.0.1/x",
    "rtsp://admin:S3CRET#T0P@127.0.0.1/x",
    "rtsp://admin:S3CRET/T0P@127.0.0.1/x",
    "rtsp://admin:S3CRET?T0P@127.0.0.1/x",
    "rtsp://admin:S3CRET,T0P@127.0.0.1/x",
    "rtsp://admin:S3CRET,T0P,T0P@127.0.0.1/x",
    "rtsp://admin:[S3CRET]@127.0.0.1/x",
    "rtsp://admin:S3CRET[T0P@127.0.0.1/x",
    "rtsp://admin:S3CRET@T0P@127.0.0.1:1/x",
    "rtsp://admin:S3CRET:T0P@127.0.0.1:1/x",
    "rtsp://admin:S3CRET@T0P/T0P@127.0.0.1:1/x",
    "rtsp://admin:S3CRET%40T0P@127.0.0.1:1/x",
    "rtsp://admin:S3CRET'T0P@127.0.0.1:1/x",
    'rtsp://admin:S3CRET"T0P@127.0.0.1:1/x',
    "rtsp://admin:S3CRET&T0P@127.0.0.1:1/x",
    "rtsp://admin:S3CRET$T0P@127.0.0.1:1/x",
    "rtsp://admin:S3CRET@127.0.0.1:port/x",
    "rtsp://admin:S3CRET@/x",
    "rtsp://127.0.0.1:1/user=admin&password=S3CRET&channel=1&stream=0.sdp",
    "rtsp://127.0.0.1:1/user=admin_password=S3CRET_channel=1",
    "http://127.0.0.1:1/cgi-bin/snap?user=admin&password=S3CRET",
    "http://127.0.0.1:1/snap?usr=admin&PWD=S3CRET",
    "http://127.0.0.1:1/live?token=S3CRET",
    "http://127.0.0.1:1/live?api_key=S3CRET#T0P",
    "rtsp://admin:p S3CRET@127.0.0.1/x",
    "rtsp://admin:p\nS3CRET@127.0.0.1/x",
    "rtsp://admin:\u00fcS3CRET\u00df@127.0.0.1:1/x",
    "rtsp://admin:S3CRET@[::1]:1/x",
    "rtsp://ad@min:S3CRET@127.0.0.1:1/x",
    "rtsp://us/er:S3CRET@127.0.0.1:1/x",
    "rtsp://admin%3AS3CRET@127.0.0.1:1/x",
    "rtsp://admin:S3CRET%40127.0.0.1/x",
    "rtsp://admin:S3CRET",
    "rtsp:admin:S3CRET@127.0.0.1/x",
    "rtsp;//admin:S3CRET@127.0.0.1/x",
    "rtsp:\\\\admin:S3CRET@127.0.0.1\\x",
    "admin:S3CRET@127.0.0.1/x",
    "rtsp://127.0.0.1:1/password/S3CRET/x",
    *(f"http://127.0.0.1:1/x?{key}=S3CRET" for key in (
        "passwd", "pw", "loginpas", "accessToken", "access_token", "X-Amz-Signature", "auth", "client_secret", "apikey",
        "session", "sid", "jwt", "p%61ssword", "pwd[]", "a=1&amp;token",
    )),
    "http://127.0.0.1:1/x?pwd%3DS3CRET",
    "http://127.0.0.1:1/x?password=p&qS3CRET",
    "http://127.0.0.1:1/x;password=S3CRET",
    "rtspsrc location=rtsp://127.0.0.1:1/x user-id=admin user-pw=S3CRET ! decodebin",
    'rtspsrc location="rtsp://admin:S3CRET@127.0.0.1:1/x" user-pw="a S3CRET" ! decodebin',
]  # fmt: skip


def assert_hidden(text: str) -> None:
    assert "S3C" not in text and "T0P" not in text, text


@pytest.mark.parametrize("uri", FORMS)
def test_no_form_of_a_password_is_shown(uri: str, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG, "yolov3_trt")
    texts = [masked(f"before {uri}: after"), masked_address(uri)]
    for part in split_uris([uri, f"0,{uri}"]):
        with suppress(ValueError):
            texts.append(str(SettingError("sources", f"got {part!r}")))
        try:
            source = open_source(part, SourceOptions(timeout_s=0.5))
            texts.append(source.name)
            if isinstance(source, NetworkStream):
                source._check_answer()
        except Yolov3TrtError as exc:
            texts.append(str(exc))
            assert exc.__cause__ is None or "S3C" not in str(exc.__cause__)
    texts.append(str(ImageError(f"{uri}: a URL; expected a file")))
    assert_hidden("\n".join([*texts, caplog.text]))


def test_no_exit_of_a_running_loop_shows_one(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("yolov3_trt.jobs.watch.open_detector", lambda *_, **__: nullcontext(fake_detector()))
    caplog.set_level(logging.DEBUG, "yolov3_trt")
    opened: list[str] = []
    for uri in FORMS:
        with suppress(CameraError):
            source = open_source(uri)
            if source.name not in [open_source(other).name for other in opened]:
                opened.append(uri)
    opened = opened[::3]
    url = f"http://127.0.0.1:{free_port()}"
    sinks = [f"{url}/", tmp_path / "a.jsonl", f"{tmp_path}/f/", "exec:cat --password S3CRET -u a:S3CRET"]
    pages = []
    clip = "shapes://?live=1&fps=20&size=64x64"
    with watch("shapes", clip, *opened, sinks=sinks, give_up_after=math.inf, timeout=1) as watching:
        next(watching)
        for path in ("/", "/stats.json", "/metrics", "/healthz", "/healthz/0", "/healthz/1", "/nothing"):
            with suppress(urllib.error.HTTPError), urllib.request.urlopen(url + path, timeout=10) as answer:
                pages.append(f"{answer.headers}{answer.read().decode()}")
        assert "127.0.0.1:1" in pages[1]
        pages.append(repr(watching) + json.dumps(watching.to_json()))
        pages += [thread.name for thread in threading.enumerate()]
    out, err = capfd.readouterr()
    files = [f"{path}{path.read_bytes()!r}" for path in tmp_path.rglob("*") if path.is_file()]
    assert len(pages) > 8 and len(files) > 1 and "S3C" not in err
    assert_hidden("\n".join([*pages, *files, json.dumps(watching.to_json()), caplog.text, out, err]))


def test_the_command_line_and_its_summary_show_none(run: Run, tmp_path: Path):
    sources = ["--source", FORMS[0], "--source", FORMS[32], "--source", "shapes://?frames=2&size=64x64"]
    sinks = ["--sink", f"{tmp_path}/found.jsonl", "--json", f"{tmp_path}/a.json"]
    outcome = run("camera", "shapes", *sources, *sinks, "--give-up-after", "0")
    assert outcome.code == 1 and "rtsp://admin:***@127.0.0.1:1/x" in outcome.stderr
    assert len(json.loads((tmp_path / "a.json").read_text())["errors"]) == 2
    files = "".join(path.name + path.read_text() for path in tmp_path.iterdir())
    assert_hidden(outcome.stdout + outcome.stderr + files)
    assert_hidden(run("camera", "shapes", "--source", FORMS[10]).stderr)
    assert_hidden(run("camera", "shapes", "--source", FORMS[8], "--sink", FORMS[5]).stderr)
    assert_hidden(run("detect", "shapes", FORMS[0]).stderr)


@pytest.mark.parametrize(
    "uri, shown",
    [
        ("rtsp://user:pass@host:554/a?b=c", "rtsp://user:***@host:554/a?b=c"),
        ("rtsp://user:p@ss@host/a", "rtsp://user:***@host/a"),
        ("rtsp://user@host/a", "rtsp://user@host/a"),
        ("http://host/a?pwd=x&b=1", "http://host/a?pwd=***&b=1"),
        ("rtsp://${U}:${P}@host/a", "rtsp://${U}:${P}@host/a"),
        ("shapes://?seed=1", "shapes://?seed=1"),
        ("http://h:1/?password_file=FILE&name=h", "http://h:1/?password_file=FILE&name=h"),
        ("http://[::1]:8080/view/0.mjpg", "http://[::1]:8080/view/0.mjpg"),
        ("http://[ADDRESS]:PORT/?name=HOST", "http://[ADDRESS]:PORT/?name=HOST"),
        ("rtsp://host:554/user/clip?fps=3&monkeys=2", "rtsp://host:554/user/clip?fps=3&monkeys=2"),
        ("/home/me/token/passwords.mp4", "/home/me/token/passwords.mp4"),
    ],
)
def test_what_is_no_password_stays(uri: str, shown: str):
    assert masked_address(uri) == masked(uri) == shown
    assert masked(f"{uri}: refused; key='a' has no meaning") == f"{shown}: refused; key='a' has no meaning"


def test_how_to_write_a_password_is_said():
    for uri in ("rtsp://a:b#c@h/x", "rtsp://a:b/c@h/x", "rtsp://a:b?c@h/x", "rtsp://a:[b]@h/x"):
        with pytest.raises(CameraError, match=r"^rtsp://a:\*\*\*@h/x: .*in a password write # / \? , \[ \] % as %23 "):
            open_source(uri)


def test_passwords_come_from_the_environment_or_a_file_of_its_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CAM_USER", "me")
    monkeypatch.setenv("CAM_PASSWORD", "of the environment")
    path = tmp_path / "camera.env"
    path.write_text("# of the door\n\nCAM_PASSWORD=a b/c#d=e?,[@%\n")
    path.chmod(0o640)
    with pytest.raises(CameraError, match=rf"^{path}: others than its owner may use this file .* chmod 600 {path}$"):
        load_credentials(path)
    path.chmod(0o600)
    uri = "rtsp://${CAM_USER}:${CAM_PASSWORD}@h/x"
    for given, password in (
        (load_credentials(path), "a%20b%2Fc%23d%3De%3F%2C%5B%40%25"),
        ({}, "of%20the%20environment"),
    ):
        source = open_source(uri, SourceOptions(credentials=given))
        assert isinstance(source, NetworkStream)
        assert (source._uri, source.name) == (f"rtsp://me:{password}@h/x", "rtsp://me:***@h/x")
        assert password not in repr(SourceOptions(credentials=given))
    with pytest.raises(CameraError, match=r"^rtsp://\$\{NOBODY\}@h/x: there is no NOBODY; set it in the environment"):
        open_source("rtsp://${NOBODY}@h/x")
    path.write_text("what\n")
    with pytest.raises(CameraError, match=rf"^{path}:1: expected NAME=value"):
        load_credentials(path)
