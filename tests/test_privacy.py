"""Nothing phones home: no host is asked for by name and nothing is left in the home folder, whatever library is loaded."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import pytest

from tests.cli_runner import files_in
from yolov3_trt.jobs.export import export
from yolov3_trt.shapes import shapes_picture

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("cc") is None,
    reason="look-ups are watched with LD_PRELOAD and a C compiler",
)

# Libraries look names up in C, where Python's audit hooks see nothing.
_WATCH = """
#include <fcntl.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static void note(const char *name) {
    int file = open(getenv("ASKED_FOR"), O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (file < 0 || (name && write(file, name, strlen(name)) < 0) || write(file, "\\n", 1) < 0) abort();
    close(file);
}
int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
    note(name);
    return EAI_FAIL;
}
struct hostent *gethostbyname(const char *name) { note(name); return 0; }
"""


@dataclass(frozen=True)
class Watched:
    """Programs that see an empty home folder and no name server."""

    home: Path
    library: Path
    asked_for: Path

    def run(self, *args: str | Path) -> subprocess.CompletedProcess[str]:
        """A Python program; its end must be good."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "ORT_"))}
        watching = {"HOME": str(self.home), "LD_PRELOAD": str(self.library), "ASKED_FOR": str(self.asked_for)}
        command = [sys.executable, *map(str, args)]
        done = subprocess.run(command, env={**kept, **watching}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done

    @property
    def names(self) -> list[str]:
        """The hosts that were asked for."""
        return self.asked_for.read_text().splitlines() if self.asked_for.exists() else []


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    found = Watched(tmp_path / "home", tmp_path / "watch.so", tmp_path / "asked-for")
    found.home.mkdir()
    (tmp_path / "watch.c").write_text(_WATCH)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", found.library, tmp_path / "watch.c"], check=True)
    return found


def test_the_watch_sees_names_and_files(watched: Watched):
    watched.run(
        "-c",
        "import pathlib, socket; pathlib.Path.home().joinpath('id').write_text('1')\n"
        "try: socket.getaddrinfo('telemetry.example', 443)\nexcept socket.gaierror: pass",
    )
    assert watched.names == ["telemetry.example"] and files_in(watched.home) == {"id"}


def test_loading_every_library_asks_for_no_host_and_leaves_nothing_at_home(watched: Watched):
    modules = "onnxruntime torch onnx cv2 pycocotools.coco yaml grpc tritonclient.grpc tensorrt_rtx_bindings"
    watched.run(
        "-c",
        "import importlib.util, sys, yolov3_trt\nfor name in sys.argv[1:]:\n"
        "    if importlib.util.find_spec(name.partition('.')[0]): importlib.import_module(name)",
        *modules.split(),
    )
    assert (watched.names, files_in(watched.home)) == ([], set())


def test_openvino_asks_for_no_host_and_leaves_only_what_it_compiled_in_this_packages_cache(
    watched: Watched, tmp_path: Path
):
    pytest.importorskip("openvino")
    graph = export("shapes", tmp_path / "shapes.onnx").path
    watched.run("-m", "yolov3_trt", "detect", graph, "--sample", "--backend", "openvino")
    assert watched.names == []
    places = {name for name in files_in(watched.home) if not name.startswith(".cache/yolov3_trt/openvino")}
    assert places == {".cache", ".cache/yolov3_trt"}


def test_detecting_asks_for_no_host_and_leaves_nothing_at_home(watched: Watched, tmp_path: Path):
    graph, picture = tmp_path / "shapes.onnx", tmp_path / "a.png"
    export("shapes", graph)
    cv2.imwrite(str(picture), shapes_picture(7, 0).pixels)
    done = watched.run("-m", "yolov3_trt", "detect", graph, picture, "--save", tmp_path / "out")
    assert str(picture) in done.stdout and (tmp_path / "out").is_dir()
    assert (watched.names, files_in(watched.home)) == ([], set())


def test_who_wants_the_events_of_onnx_runtime_may_have_them():
    code = "import os, yolov3_trt; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    for wanted, value in (({}, "1"), ({"ORT_DISABLE_TELEMETRY": "0"}, "0")):
        plain = {name: text for name, text in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
        done = subprocess.run([sys.executable, "-c", code], env={**plain, **wanted}, capture_output=True, text=True)
        assert done.stdout.strip() == value
