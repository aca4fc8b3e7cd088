"""`tritons://`: who is answered and who answers, with certificates made here; and what a deadline holds for."""

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from tests.fake_triton import FakeServer, grpc, running
from tests.fakes import grey_pictures
from yolov3_trt.backends.triton import open_triton, servers
from yolov3_trt.detector import Detector
from yolov3_trt.errors import BackendError

(PICTURE,) = grey_pictures([60])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates for 127.0.0.1 and a client, by an authority of its own; and another authority."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("certificates")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1")
    new = ["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    for name in ("ca", "other"):
        made = ["-x509", "-days", "2", "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem"]
        subprocess.run([*new, *made], cwd=folder, check=True, capture_output=True)
    for name in ("server", "client"):
        made = ["-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr"]
        subprocess.run([*new, *made], cwd=folder, check=True, capture_output=True)
        signed = ["-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2"]
        signed += ["-extfile", "names", "-out", f"{name}.pem"]
        subprocess.run(["openssl", "x509", "-req", *signed], cwd=folder, check=True, capture_output=True)
    return folder


def test_an_encrypted_server_is_known_by_its_authority_and_knows_the_client(
    made: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(servers, "OPEN_S", 2.0)
    content = {name: (made / name).read_bytes() for name in ("server.key", "server.pem", "ca.pem")}
    pair = [(content["server.key"], content["server.pem"])]
    open_to_all = FakeServer(credentials=grpc.ssl_server_credentials(pair))
    asking = FakeServer(credentials=grpc.ssl_server_credentials(pair, content["ca.pem"], require_client_auth=True))
    client = f"certificate_file={made}/client.pem&key_file={made}/client.key"
    with running(open_to_all, asking):
        for fake, options in ((open_to_all, f"ca_file={made}/ca.pem"), (asking, f"ca_file={made}/ca.pem&{client}")):
            with open_triton(f"tritons://{fake.name}/fake?{options}") as backend:
                assert len(Detector(backend)(PICTURE)) > 0
        for scheme, fake, options in (
            ("tritons", open_to_all, f"ca_file={made}/other.pem"),  # of another authority
            ("tritons", open_to_all, "retries=8"),  # which gRPC does not know
            ("tritons", asking, f"ca_file={made}/ca.pem"),  # without a certificate of the client
            ("triton", open_to_all, "retries=8"),  # unencrypted
        ):
            with pytest.raises(BackendError, match=f"^{scheme}://{fake.name}/fake: no server serves this model: "):
                open_triton(f"{scheme}://{fake.name}/fake?{options}&deadline_ms=900")
        assert not any(fake.inputs[1:] for fake in (open_to_all, asking))
    capfd.readouterr()  # gRPC's own log of the handshakes


@pytest.mark.parametrize(
    "options, fault",
    [
        ("ca_file={0}/none.pem", "No such file or directory"),
        ("ca_file={0}/names", "NO_CERTIFICATE_OR_CRL_FOUND"),
        ("certificate_file={0}/client.pem&key_file={0}/server.key", "KEY_VALUES_MISMATCH"),
    ],
)
def test_files_that_are_no_certificates_are_named(made: Path, options: str, fault: str):
    files = options.format(made)
    with pytest.raises(
        BackendError, match=f"^tritons://127.0.0.1:1/m: {files.replace('&', ', ')}: .*{fault}.*PEM files"
    ):
        open_triton(f"tritons://127.0.0.1:1/m?{files}")


@contextmanager
def slow_way_to(port: int) -> Iterator[tuple[str, threading.Event]]:
    """A relay to a port of this machine: its host:port, and what makes answers drip a byte at a time once it is set."""
    drips = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))
    opened = [listener]

    def pass_on(source: socket.socket, target: socket.socket, is_answer: bool) -> None:
        with suppress(OSError):
            while content := source.recv(1 << 16):
                step = 1 if is_answer and drips.is_set() else len(content)
                for start in range(0, len(content), step):
                    target.sendall(content[start : start + step])
                    if step == 1:
                        time.sleep(0.05)

    def accept() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.create_connection(("127.0.0.1", port))
                opened.extend((client, server))
                for way in ((client, server, False), (server, client, True)):
                    threading.Thread(target=pass_on, args=way, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}", drips
    finally:
        for one in opened:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


def test_a_deadline_holds_for_an_answer_that_drips():
    fake = FakeServer()
    port = int(fake.name.rpartition(":")[2])
    with ExitStack() as stack:
        stack.enter_context(running(fake))
        relay, drips = stack.enter_context(slow_way_to(port))
        detect = Detector(stack.enter_context(open_triton(f"triton://{relay}/fake?deadline_ms=2000&retries=0")))
        assert len(detect(PICTURE)) > 0
        drips.set()  # the answer would take minutes
        started_s = time.monotonic()
        with pytest.raises(BackendError, match=r"DEADLINE_EXCEEDED|no answer within 2 s"):
            detect(PICTURE)
        assert time.monotonic() - started_s < 15 and len(fake.inputs) == 2
