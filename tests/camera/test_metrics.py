"""What others see of a running loop: Prometheus, health checks, systemd."""

import socket
from pathlib import Path

import pytest

from tests.camera.test_http_sink import ask, result
from tests.fakes import ListSource, fake_detector, grey_pictures
from yolov3_trt.camera.loop import run_loop
from yolov3_trt.camera.metrics import metrics_text
from yolov3_trt.camera.sinks import HttpSink
from yolov3_trt.camera.sources import open_source
from yolov3_trt.cli.service_manager import ServiceManager

ODD = 'the "front" \\ door\n'


def test_metrics_are_what_prometheus_reads():
    parser = pytest.importorskip("prometheus_client.parser")
    statistics = run_loop(fake_detector(), [ListSource(grey_pictures([1, 2, 3]), ODD), ListSource([], "yard")], [])
    families = {
        family.name: family for family in parser.text_string_to_metric_families(metrics_text(statistics.snapshot()))
    }
    captured = {sample.labels["source"]: sample.value for sample in families["yolov3_trt_captured_frames"].samples}
    assert captured == {ODD: 3, "yard": 0} and families["yolov3_trt_captured_frames"].type == "counter"
    ages = families["yolov3_trt_frame_age_seconds"].samples
    assert [sample.labels["quantile"] for sample in ages if sample.labels["source"] == ODD] == ["0.5", "0.95", "0.99"]
    assert all(0 <= sample.value < 60 for sample in ages)
    assert [sample.value for sample in families["yolov3_trt_source_up"].samples] == [0, 0]  # both have ended
    assert all(family.documentation for family in families.values())
    assert list(parser.text_string_to_metric_families(metrics_text({})))  # before the loop


def test_each_source_has_its_health_and_all_have_metrics():
    with HttpSink("127.0.0.1", 0, sources=["a", "b"], stats=dict) as sink:
        for source in ("a", "b"):
            sink.write(result(0, source=source))
        sink.mark_stale("b", 3.0)
        assert [ask(sink, path)[::2] for path in ("/healthz", "/healthz/0")] == [
            (200, b"stale for 3 s: b\n"),
            (200, b"ok\n"),
        ]
        assert ask(sink, "/healthz/1")[::2] == (503, b"stale for 3 s: b\n")
        assert ask(sink, "/healthz/2")[0] == 404
        status, _, content = ask(sink, "/metrics")
        assert status == 200 and b"# TYPE yolov3_trt_fps gauge\n" in content


@pytest.mark.parametrize("uri", ["door=rtsp://a:b@h/x", "door=0", "door=csi://0", "door=shapes://?frames=1"])
def test_a_source_may_have_a_name(uri: str):
    assert open_source(uri).name == "door"
    assert open_source(uri.removeprefix("door=")).name != "door"


def test_systemd_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "30000000")
        manager = ServiceManager()
        manager.ready()
        manager.alive()
        manager.alive()  # not due
        manager.stopping()
        assert [listener.recv(100) for _ in range(3)] == [b"READY=1", b"WATCHDOG=1", b"STOPPING=1"]
    manager.ready()  # nobody listens any more
    monkeypatch.delenv("NOTIFY_SOCKET")
    ServiceManager().ready()
