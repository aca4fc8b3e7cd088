"""Reports: the figures are where a reader looks for them, whatever is missing, and whatever the labels hold."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from yolov3_trt.benchmarking.machine_roofline import MachineRoofline
from yolov3_trt.benchmarking.parity import TOLERANCES, Parity
from yolov3_trt.benchmarking.results import BenchmarkResult, RowResult
from yolov3_trt.benchmarking.roofline import LayerFigures, NetworkFigures, RowRoofline
from yolov3_trt.benchmarking.timings import TimingFigures
from yolov3_trt.data.annotations import Annotations
from yolov3_trt.data.images import NamedImage
from yolov3_trt.detections import Detections
from yolov3_trt.errors import OutputError
from yolov3_trt.evaluation import METRICS, ClassScore, Scores, score
from yolov3_trt.evaluation.accuracy import Accuracy, Evaluated, Evaluation
from yolov3_trt.report import write_benchmark_report, write_evaluation_report
from yolov3_trt.report.charts import chart_html, ticks
from yolov3_trt.report.content import benchmark_report, evaluation_report
from yolov3_trt.report.figures import ms, size
from yolov3_trt.report.gallery import benchmark_gallery
from yolov3_trt.report.markdown import markdown_from_report
from yolov3_trt.report.page import html_from_report
from yolov3_trt.report.parts import Bar, Chart

HOSTILE = '<script>document.title="owned"</script> & "x" | `y`'
VOID = {"meta", "link", "img", "br", "hr", "input"}


def detections(*scores: float) -> Detections:
    boxes = np.array([[0, 0, 10, 10 + n] for n in range(len(scores))], np.float32).reshape(-1, 4)
    return Detections(boxes, np.array(scores, np.float32), np.zeros(len(scores), np.int32), ("cat",))


def parity(passed: bool) -> Parity:
    """Of two objects that the reference finds; the row finds the same, or one of them with another score."""
    found = Parity("torch fp32", TOLERANCES["fp32"])
    found.add(detections(0.9), detections(0.9 if passed else 0.5), 0.25)
    return found


def accuracy(ap: float | None = 0.18, draws: Any = ((0.15, 0.3), (0.21, 0.4))) -> Accuracy:
    metrics = {**dict.fromkeys(METRICS), "AP": ap, "AP50": 0.36}
    classes = (ClassScore("cat", 7, 0.5, 0.75), ClassScore("dog", 0, None, None))
    nothing = dict.fromkeys(range(64), Detections.none())
    return Accuracy(
        Scores(metrics, classes, (), NOTHING.pairs, NOTHING.precision), nothing, np.array(draws, float).reshape(-1, 2)
    )


def timings(p50: float) -> TimingFigures:
    latency = {"mean": p50 + 1, "p50": p50, "p90": p50 + 2, "p95": p50 + 3, "p99": p50 * 2, "min": 1.0, "max": 99.0}
    stages = {"preprocess": 1.5, "inference": p50 - 2.5, "postprocess": 1.0}
    return TimingFigures(stages, latency, p50, 1000 / p50, 1.5, 40 / p50, (1.9, 2.1))


def row(label: str, p50: float, passed: bool | None = True) -> RowResult:
    return RowResult(
        label,
        "m.onnx",
        "onnxruntime",
        "fp32",
        "cpu",
        1,
        (320, 320),
        1_400_000,
        timings=timings(p50),
        device_stages_ms={"inference": p50 - 3},
        parity=None if passed is None else parity(passed),
        accuracy=accuracy(),
        roofline=RowRoofline(5.6, 0.1, 56, 100, 400, 0.25),
        memory_mib=512,
        gpu={"power_w": 12.5},
        fallbacks=("no CUDA graph: the shapes vary",),
        found=(detections(0.9),),
    )


NOTHING = score({"images": [], "annotations": [], "categories": [{"id": 1, "name": "cat"}]}, [])
MACHINE = {
    "date": "2026-01-02 03:04 UTC",
    "cpu": "Test CPU",
    "cores": 2,
    "gpu": None,
    "versions": {"numpy": "2.0"},
    "load_average": [0.5, 1.0],
}
COMMAND = ("yolov3_trt", "bench", "a b.onnx")


def full(**changes: Any) -> BenchmarkResult:
    """A benchmark that measured everything; the last row fails the gate."""
    result = BenchmarkResult(
        rows=(row("torch fp32", 40.0, None), row("ort fp32", 20.0), row(HOSTILE, 10.0, passed=False)),
        reference="torch fp32",
        faults=("it differs",),
        layers=(
            NetworkFigures("tiny", (320, 320), (LayerFigures(0, "Conv", (8, 4, 4), 0.5, 2.0, 250, "memory", 0.6),)),
        ),
        machine=MACHINE,
        rooflines=(MachineRoofline(400.0, 11.0, "cpu", "fp32", "torch 2"),),
        source="val64",
        num_pictures=20,
        rounds=50,
        warmup=5,
        threads=2,
        timer_overhead_us=0.08,
        decode_ms=3.25,
        draw_ms=1.5,
        peak_rss_mib=700.0,
    )
    return replace(result, **changes)


def evaluation(*aps: float) -> Evaluation:
    truth = Annotations(Path("instances.json"), {"images": [], "annotations": [], "categories": []}, (1,), ("cat",))
    rows = tuple(
        Evaluated(
            f"m{number}.onnx", "torch", "fp32", "letterbox", "default", 0.005, 1000,
            accuracy(ap, [(ap - 0.02, 0.3), (ap + 0.01, 0.4)]), truth, 0.25, notes=("mind the pictures",),
        )
        for number, ap in enumerate(aps)
    )  # fmt: skip
    return Evaluation(rows, 500, 0, machine=MACHINE)


def jpeg() -> bytes:
    encoded = cv2.imencode(".jpg", np.full((24, 32, 3), 90, np.uint8))[1]
    return encoded.tobytes()


class Balanced(HTMLParser):
    """Notes what a browser would have to mend, and everything that a page refers to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.faults: list[str] = []
        self.tags: set[str] = set()
        self.references: list[str] = []
        self.shown: list[str] = []
        self.feed(text)
        self.close()
        self.faults += [f"<{tag}> is never closed" for tag in self.open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.references += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        self.faults += [f"{name}= on <{tag}>" for name, _ in attrs if name.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> closes something else")

    def handle_data(self, data: str) -> None:
        self.shown.append(data)


def html_of(result: BenchmarkResult, gallery: Any = ()) -> str:
    return html_from_report(benchmark_report(result, gallery, COMMAND))


def markdown_of(result: BenchmarkResult) -> str:
    return markdown_from_report(benchmark_report(result, command=COMMAND))


def test_a_page_is_well_formed_and_refers_to_nothing_outside_itself():
    page = Balanced(html_of(full(), [(HOSTILE, {"torch fp32": jpeg(), HOSTILE: jpeg()})]))
    assert page.faults == []
    assert "script" not in page.tags and {"svg", "img", "table", "details"} <= page.tags
    assert all(reference.startswith("data:") for reference in page.references)
    assert sum(reference.startswith("data:image/jpeg;base64,") for reference in page.references) == 2
    assert HOSTILE in "".join(page.shown)


def test_a_page_and_its_markdown_show_the_figures():
    page = "".join(Balanced(html_of(full())).shown)
    for text in (page, markdown_of(full()).replace("\\", "")):
        for figure in (
            "measured on 2026-01-02 03:04 UTC",
            "20.00",
            "2.00× [1.90, 2.10]",
            "0.1800 [0.15",
            "1.3 MiB",
            "25.0%",
            "0.08 µs",
            "400 GFLOP/s",
            "3.25 ms",
            "memory",
        ):
            assert figure in text, figure
        assert "Test CPU" in text and "yolov3_trt bench 'a b.onnx'" in text and "no CUDA graph: the shapes vary" in text


def test_a_row_that_fails_parity_is_marked_loudly():
    text = html_of(full())
    page = "".join(Balanced(text).shown)
    assert f"{HOSTILE} FAILED the parity gate" in page and "max score difference 0.4000; expected at most" in page
    assert text.count('<tr class="bad">') >= 4 and text.count('class="bar bad"') >= 4
    assert "FAILED the parity gate" in markdown_of(full()) and "| **✗ " in markdown_of(full())
    passing = full(rows=full().rows[:2])
    assert "FAILED" not in html_of(passing) and '<tr class="bad">' not in html_of(passing)


def test_a_row_that_did_not_run_says_why_and_has_no_bar():
    engine = RowResult("engine", "m.engine", "tensorrt", None, "cuda", 1, None, None, failed="no NVIDIA GPU here")
    result = full(rows=(*full().rows, engine))
    assert "engine did not run: no NVIDIA GPU here" in "".join(Balanced(html_of(result)).shown)
    latency = benchmark_report(result).sections[0]
    assert latency.chart is not None and [bar.label for bar in latency.chart.bars][:2] == ["torch fp32", "ort fp32"]
    assert len(latency.chart.bars) == 3


OPTIONAL = (
    "device_stages_ms",
    "parity",
    "accuracy",
    "roofline",
    "memory_mib",
    "gpu",
    "size_bytes",
    "input_hw",
    "precision",
)


@pytest.mark.parametrize("name", OPTIONAL)
def test_what_was_not_measured_of_a_row_is_left_out(name: str):
    for number in (slice(0, 1), slice(0, 3)):  # of one row, and of all
        rows = tuple(replace(one, **{name: None}) for one in full().rows[number]) + full().rows[number.stop :]
        report = benchmark_report(full(rows=rows))
        assert Balanced(html_from_report(report)).faults == []
        assert_tables_are_whole(markdown_from_report(report))


@pytest.mark.parametrize(
    "changes",
    [{"rooflines": ()}, {"layers": ()}, {"reference": None}, {"decode_ms": None}, {"threads": None}],
    ids=lambda changes: next(iter(changes)),
)
def test_what_was_not_measured_at_all_is_left_out(changes: dict[str, Any]):
    report = benchmark_report(full(**changes))
    assert Balanced(html_from_report(report)).faults == []
    assert_tables_are_whole(markdown_from_report(report))


def assert_tables_are_whole(markdown: str) -> None:
    for block in markdown.split("\n\n"):
        if block.startswith("| "):
            columns = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
            assert len(columns) == 1, block


def test_what_a_row_is_made_of_cannot_be_markup_in_markdown():
    assert "\n| **✗ \\<script\\>" in markdown_of(full())
    assert_tables_are_whole(markdown_of(full()))


def test_an_evaluation_of_one_artifact_is_a_report_too():
    text = html_from_report(evaluation_report(evaluation(0.25), command=COMMAND))
    page = "".join(Balanced(text).shown)
    assert "m0.onnx" in page and "0.2500 [0.23" in page and "cat" in page and "dog" not in page.split("Every figure")[0]
    assert (
        "instances.json" in page
        and "mind the pictures" in page
        and "instances.json: 64 images with 7 objects of 1 classes; 1 row; Test CPU" in page
    )
    for part in ("Errors", "Precision and recall", "By size of objects", "What is taken for what: m0.onnx"):
        assert part in page, part
    assert Balanced(text).faults == [] and text.count("<polyline") == 1


def test_differences_of_an_evaluation_are_signed():
    markdown = markdown_from_report(evaluation_report(evaluation(0.3, 0.29))).replace("\\", "")
    assert "| m1.onnx | -0.0100 [-0.0100, -0.0100] | +0.0000 [+0.0000, +0.0000] |" in markdown


def test_bars_are_as_long_as_their_values():
    bars = (
        Bar("a", "30", (("x", 10.0), ("y", 20.0)), whisker=(30.0, 40.0), marks=(("p95", 35.0),)),
        Bar("b", "5", (("x", 5.0),)),
    )
    drawn = chart_html(Chart("ms", bars))
    rects = re.findall(r'<rect class="c(\d)" x="([\d.]+)%" width="([\d.]+)%"', drawn)
    assert rects == [("0", "0.000", "25.000"), ("1", "25.000", "50.000"), ("0", "0.000", "12.500")]
    assert 'x1="75.000%" x2="100.000%"' in drawn and "p95: 35" in drawn
    assert drawn.count("<li>") == 2  # the legend


@pytest.mark.parametrize(
    ("end", "expected"), [(40.0, [0, 10, 20, 30, 40]), (68.17, [0, 20, 40, 60]), (0.21, [0, 0.1, 0.2]), (0.0, [0])]
)
def test_the_scale_has_round_numbers(end: float, expected: list[float]):
    assert ticks(end) == pytest.approx(expected)


def test_a_bar_beyond_the_scale_ends_with_it():
    drawn = chart_html(Chart("%", (Bar("a", "-", (("x", 50.0),), whisker=(-5.0, 150.0)),), end=100.0))
    assert 'x1="0.000%" x2="100.000%"' in drawn


def test_figures_have_about_three_digits():
    assert [ms(value) for value in (0.1234, 12.345, 123.45, None)] == ["0.123", "12.35", "123", "–"]
    assert [size(value) for value in (500, 1536, 5 * 2**20, 3 * 2**30)] == ["500 B", "1.5 KiB", "5.0 MiB", "3.00 GiB"]


def test_the_suffix_decides_and_others_are_refused(tmp_path: Path):
    write_benchmark_report(tmp_path / "report.json", full(), COMMAND)
    content = json.loads((tmp_path / "report.json").read_text())
    assert content == json.loads(json.dumps({"command": COMMAND, **full().to_json()}))
    write_benchmark_report(tmp_path / "report.md", full(), COMMAND)
    assert (tmp_path / "report.md").read_text().startswith("# Latency and accuracy\n")
    write_evaluation_report(tmp_path / "eval.html", evaluation(0.3))
    assert "<title>Accuracy</title>" in (tmp_path / "eval.html").read_text()
    with pytest.raises(OutputError, match=r"report\.pdf: a report is one of \.html, \.md, \.json"):
        write_benchmark_report(tmp_path / "report.pdf", full())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["eval.html", "report.json", "report.md"]


def test_pictures_show_each_way_once_with_what_it_found():
    picture = NamedImage("folder/dog.jpg", np.full((24, 900, 3), 90, np.uint8))
    one = row("one", 10.0)
    rows = (one, replace(one, label="one batch 4", batch=4), replace(one, label="other", backend="torch"))
    ((name, drawn),) = benchmark_gallery(full(rows=rows, shown=(picture,)))
    assert name == "dog.jpg" and list(drawn) == ["one", "other"]
    assert cv2.imdecode(np.frombuffer(drawn["one"], np.uint8), cv2.IMREAD_COLOR).shape == (17, 640, 3)


def chromium(folder: Path, page: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Load a page without a screen; console and network are logged."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium here (Debian package chromium)")
    quiet = ("--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync")
    return subprocess.run(
        [
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            *quiet,
            f"--user-data-dir={folder / 'profile'}",
            "--enable-logging=stderr",
            f"--log-net-log={folder / 'net.json'}",
            *options,
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )


def requests_by_kind(log: Path) -> dict[str, set[str]]:
    """URLs that were asked for, by the number under which Chromium accounts for such traffic."""
    kinds: dict[str, set[str]] = {}
    for kind, url in re.findall(r'"traffic_annotation":(\d+),"url":"([^"]*)"', log.read_text()):
        kinds.setdefault(kind, set()).add(url)
    return kinds


def test_a_browser_renders_it_without_errors_scripts_or_requests(tmp_path: Path):
    (tmp_path / "report.html").write_text(html_of(full(), [("dog.jpg", {"torch fp32": jpeg()})]))
    shot = tmp_path / "phone.png"
    options = ("--dump-dom", f"--screenshot={shot}", "--window-size=360,2000")
    loaded = chromium(tmp_path, tmp_path / "report.html", *options)
    assert "<title>Latency and accuracy</title>" in loaded.stdout  # and not "owned"
    assert "CONSOLE" not in loaded.stderr, loaded.stderr
    assert shot.exists() and cv2.imread(str(shot)).shape[:2] == (2000, 360)
    of_report = requests_by_kind(tmp_path / "net.json")

    # A page that does ask for something says under which number the requests of pages are; the browser has its own.
    wanted = "http://127.0.0.1:9/canary.png"
    (tmp_path / "canary.html").write_text(f'<img src="{wanted}"><script>console.log("canary")</script>')
    canary = chromium(tmp_path, tmp_path / "canary.html", "--dump-dom")
    assert "CONSOLE" in canary.stderr
    (kind,) = [kind for kind, urls in requests_by_kind(tmp_path / "net.json").items() if wanted in urls]
    assert kind not in of_report
