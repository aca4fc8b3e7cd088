"""Lines to a program that ends, hangs, fails and comes back; and to a real MQTT broker that does."""

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.camera.test_sinks import frame, indices_in
from tests.fakes import result_of
from tests.streams import free_port
from yolov3_trt.camera.sinks import ProgramSink, open_sinks, program
from yolov3_trt.camera.sources import split_uris
from yolov3_trt.detections import Detection
from yolov3_trt.errors import CameraError
from yolov3_trt.events import Event


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "_FIRST_WAIT_S", 0.05)
    monkeypatch.setattr(program, "_LONGEST_WAIT_S", 0.2)
    monkeypatch.setattr(program, "_TICK_S", 0.02)


def wait_for(is_so: Callable[[], object], limit_s: float = 30.0) -> None:
    until_s = time.monotonic() + limit_s
    while not is_so():
        assert time.monotonic() < until_s, "in vain"
        time.sleep(0.02)


def write(sink: ProgramSink, *indices: int) -> None:
    for index in indices:
        sink.write(result_of(frame(0, index)))


def test_program_gets_every_line_and_ends_when_all_is_written(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with ProgramSink(f"tee '{tmp_path}/a, b'") as sink:
        write(sink, *range(1000))
    sink.close()
    assert indices_in(tmp_path / "a, b") == list(range(1000)) and not caplog.messages
    assert sink.name == "exec:tee"  # an argument may be a password


def test_lines_that_a_program_left_unread_go_to_the_next_each_once(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """It reads byte by byte and takes three lines each time; the rest lies in the pipe when it ends."""
    script = tmp_path / "three.py"
    script.write_text(
        f"""
import os
with open({str(tmp_path / "got")!r}, "ab") as out:
    for _ in range(3):
        line = b""
        while not line.endswith(b"\\n"):
            line += (byte := os.read(0, 1))
            if not byte:
                raise SystemExit
        out.write(line)
"""
    )
    with ProgramSink(f"{sys.executable} -S {script}") as sink:
        write(sink, *range(10))
        wait_for(lambda: (tmp_path / "got").exists() and len((tmp_path / "got").read_text().splitlines()) >= 9)
    assert indices_in(tmp_path / "got") == list(range(10))
    assert [message.partition("; ")[0] for message in caplog.messages[:3]] == [f"{sink.name}: ended with code 0"] * 3


def test_lines_shortly_before_a_failure_are_given_again_and_none_is_lost(tmp_path: Path):
    got, failed = tmp_path / "got", tmp_path / "failed"
    script = f"if [ -e {failed} ]; then cat >> {got}; else touch {failed}; head -c 1500 > /dev/null; exit 3; fi"
    with ProgramSink(f"sh -c '{script}'") as sink:
        write(sink, *range(300))
        wait_for(lambda: got.exists() and len(got.read_text().splitlines()) == 300)
    assert indices_in(got) == list(range(300))


def test_queue_is_bounded_and_what_it_could_not_hold_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(program, "_LAST_S", 0.2)
    sink = ProgramSink("sleep 1000", queue=5)  # reads nothing: 64 KiB wait in the pipe
    write(sink, *range(2000))
    assert len(sink._waiting) <= 5 and "lines were left out so far, as the program does not take them" in caplog.text
    with pytest.raises(CameraError, match="exec:sleep: 2000 lines were left out, as the program was away for too long"):
        sink.close()
    assert not sink._thread.is_alive()


def test_events_alone_go_where_only_they_are_wanted(tmp_path: Path):
    found = Detection((0.0, 0.0, 9.0, 9.0), 0.5, 0, "dog", track_id=3)
    with ProgramSink(f"tee {tmp_path}/all") as every, ProgramSink(f"tee {tmp_path}/own", only_events=True) as own:
        for index in range(3):
            events = (Event("appeared", found, ago_s=0.2),) if index == 1 else ()
            for sink in (every, own):
                sink.write(replace(result_of(frame(0, index)), events=events))
    assert indices_in(tmp_path / "all") == [0, 1, 1, 2] and indices_in(tmp_path / "own") == [1]
    assert json.loads((tmp_path / "own").read_text())["event"] == "appeared"


def test_uri_names_program_queue_and_events_and_keeps_its_commas(tmp_path: Path):
    uris = split_uris([f"exec?queue=7:tee {tmp_path}/a,b", "jsonl,exec.jsonl"])
    assert uris == [f"exec?queue=7:tee {tmp_path}/a,b", "jsonl", "exec.jsonl"]
    with open_sinks(uris[:1], fps=10, stats=dict, sources=["list"]) as group:
        group.write(result_of(frame(0, 3)))
    assert indices_in(tmp_path / "a,b") == [3]
    for uri, fault in (
        ("exec:", "exec:: there is no such program"),
        ("exec:no-such-program x", "exec:no-such-program: there is no such program; install it, or give its path"),
        ("exec:sh -c 'x", "exec: No closing quotation; expected e.g. exec:mosquitto_pub"),
        ("exec?only=lines:cat", "exec?only=lines: only='lines' is not events"),
    ):
        with pytest.raises(CameraError) as caught:
            open_sinks([uri], fps=10, stats=dict, sources=["list"])
        assert str(caught.value).startswith(fault)


@pytest.mark.skipif(
    None in (shutil.which("mosquitto", path="/usr/sbin:/usr/bin"), shutil.which("mosquitto_pub")),
    reason="needs Debian's packages mosquitto and mosquitto-clients",
)
def test_mqtt_broker_that_is_killed_and_comes_back_has_every_line(tmp_path: Path):
    port, got = free_port(), tmp_path / "got"
    settings = tmp_path / "broker.conf"
    # It remembers who listens, so that what comes before the listener is back waits for it.
    kept = f"persistence true\npersistence_location {tmp_path}/\nautosave_on_changes true\nautosave_interval 1\n"
    settings.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nuser root\n{kept}")

    def broker() -> "subprocess.Popen[bytes]":
        found = shutil.which("mosquitto", path="/usr/sbin:/usr/bin") or ""
        return subprocess.Popen([found, "-c", settings], stderr=subprocess.DEVNULL)

    def listener() -> "subprocess.Popen[bytes]":
        command = ["mosquitto_sub", "-p", str(port), "-t", "cameras", "-q", "1", "-i", "listener", "-c"]
        with got.open("ab") as file:
            return subprocess.Popen(command, stdout=file, stderr=subprocess.DEVNULL)

    def has(*indices: int) -> bool:
        lines = got.read_bytes().splitlines() if got.exists() else []
        return {json.loads(line)["index"] for line in lines} >= set(indices)

    def is_listening() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    programs = [broker()]
    try:
        wait_for(is_listening)
        programs.append(listener())
        with ProgramSink(f"mosquitto_pub -p {port} -t cameras -q 1 -l") as sink:
            wait_for(lambda: write(sink, -1) or has(-1))  # until the listener is there
            write(sink, *range(50))
            wait_for(lambda: has(*range(50)) and (tmp_path / "mosquitto.db").exists())
            programs[0].kill()
            programs[0].wait()
            write(sink, *range(50, 300))
            time.sleep(0.5)
            programs[0] = broker()
            wait_for(lambda: write(sink, -2) or has(-2))
            write(sink, *range(300, 400))
            wait_for(lambda: has(*range(400)))
    finally:
        for running in programs:
            running.kill()
            running.wait()
