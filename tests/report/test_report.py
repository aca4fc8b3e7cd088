"""Reports: the figures are where a reader looks for them, whatever is missing, and whatever the labels hold."""

import copy
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from yolov3_trt.errors import OutputError
from yolov3_trt.report import write_report
from yolov3_trt.report.charts import chart_html, ticks
from yolov3_trt.report.content import report_from_content
from yolov3_trt.report.figures import ms, size
from yolov3_trt.report.markdown import markdown_from_report
from yolov3_trt.report.parts import Bar, Chart

HOSTILE = '<script>document.title="owned"</script> & "x" | `y`'
VOID = {"meta", "link", "img", "br", "hr", "input"}


def row(label: str, p50: float, passed: bool | None = True) -> dict[str, Any]:
    parity = {"reference": "torch fp32", "images": 20, "matched": 118, "missing": 0, "extra": 0}
    parity |= {
        "max_score_difference": 1e-6,
        "min_iou": 0.9999,
        "tolerance": {"score": 0.01},
        "passed": passed,
        "faults": ["20 % matched"],
    }
    return {
        "label": label,
        "artifact": "m.onnx",
        "backend": "onnxruntime",
        "precision": "fp32",
        "batch": 1,
        "input_hw": [320, 320],
        "size_bytes": 1_400_000,
        "stages_ms": {"preprocess": 1.5, "inference": p50 - 2.5, "postprocess": 1.0},
        "device_stages_ms": {"inference": p50 - 3},
        "latency_ms": {
            "mean": p50 + 1,
            "p50": p50,
            "p90": p50 + 2,
            "p95": p50 + 3,
            "p99": p50 * 2,
            "min": 1,
            "max": 99,
        },
        "fps": 1000 / p50,
        "speedup_vs_reference": 40 / p50,
        "speedup_interval": [1.9, 2.1],
        "parity": None if passed is None else parity,
        "accuracy": {"images": 64, "AP": 0.18, "AP50": 0.36, "AP75": None, "AP_interval": [0.15, 0.21]},
        "roofline": {
            "gflop": 5.6,
            "gbyte": 0.1,
            "intensity": 56,
            "achieved_gflops": 100,
            "ceiling_gflops": 400,
            "share": 0.25,
        },
        "memory_mib": 512,
        "power_w": 12.5,
        "fallbacks": ["no CUDA graph: the shapes vary"],
        "failed": None,
    }


def full_content() -> dict[str, Any]:
    layer = {
        "index": 0,
        "type": "Conv",
        "gflop": 0.5,
        "mbyte": 2.0,
        "intensity": 250,
        "bound": "memory",
        "floor_ms": 0.6,
    }
    return {
        "layers": [{"model": "tiny", "layers": [layer]}],
        "host_ms": {"decode": 3.25, "draw": 1.5},
        "machine": {"cpu": "Test CPU", "cores": 2, "gpu": None, "versions": {"numpy": "2.0"}},
        "command": ["yolov3_trt", "bench", "a b.onnx"],
        "threads": 2,
        "source": "val64",
        "frames": 50,
        "rounds": 50,
        "warmup": 5,
        "reference": "torch fp32",
        "timer_overhead_us": 0.08,
        "ceiling": {"gflops": 400.0, "copy_gb_s": 11.0, "measured_on": "cpu"},
        "rows": [row("torch fp32", 40.0, None), row("ort fp32", 20.0), row(HOSTILE, 10.0, passed=False)],
    }


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


def html_of(content: dict[str, Any], folder: Path, gallery: Any = ()) -> str:
    write_report(folder / "report.html", content, gallery)
    return (folder / "report.html").read_text()


def test_a_page_is_well_formed_and_refers_to_nothing_outside_itself(tmp_path: Path):
    page = Balanced(html_of(full_content(), tmp_path, [(HOSTILE, {"torch fp32": jpeg(), HOSTILE: jpeg()})]))
    assert page.faults == []
    assert "script" not in page.tags and {"svg", "img", "table", "details"} <= page.tags
    assert all(reference.startswith("data:") for reference in page.references)
    assert sum(reference.startswith("data:image/jpeg;base64,") for reference in page.references) == 2
    assert HOSTILE in "".join(page.shown)


def test_a_page_and_its_markdown_show_the_figures(tmp_path: Path):
    page = "".join(Balanced(html_of(full_content(), tmp_path)).shown)
    markdown = markdown_from_report(report_from_content(full_content()))
    for text in (page, markdown.replace("\\", "")):
        for figure in (
            "20.00",
            "2.00× [1.90, 2.10]",
            "0.1800 [0.1500, 0.2100]",
            "1.3 MiB",
            "25.0%",
            "0.08 µs",
        ):
            assert figure in text, figure
        assert "Test CPU" in text and "yolov3_trt bench 'a b.onnx'" in text and "no CUDA graph: the shapes vary" in text


def test_a_row_that_fails_parity_is_marked_loudly(tmp_path: Path):
    text = html_of(full_content(), tmp_path)
    page = "".join(Balanced(text).shown)
    assert f"{HOSTILE} FAILED the parity gate" in page and "(20 % matched)" in page
    assert text.count('<tr class="bad">') >= 4 and text.count('class="bar bad"') >= 4
    markdown = markdown_from_report(report_from_content(full_content()))
    assert "FAILED the parity gate" in markdown and "| **✗ " in markdown
    passing = {**full_content(), "rows": full_content()["rows"][:2]}
    assert "FAILED" not in html_of(passing, tmp_path) and '<tr class="bad">' not in html_of(passing, tmp_path)


def test_a_row_that_did_not_run_says_why_and_has_no_bar(tmp_path: Path):
    content = full_content()
    content["rows"].append({"label": "engine", "artifact": "m.engine", "failed": "no NVIDIA GPU here", "parity": None})
    assert "engine did not run: no NVIDIA GPU here" in "".join(Balanced(html_of(content, tmp_path)).shown)
    latency = report_from_content(content).sections[0]
    assert latency.chart is not None and [bar.label for bar in latency.chart.bars][:2] == ["torch fp32", "ort fp32"]
    assert len(latency.chart.bars) == 3


def holes() -> Iterator[dict[str, Any]]:
    """The content with each part in turn missing, null, empty or of another kind."""
    for key in full_content():
        for hole in (None, {}, [], "text", 0):
            yield {**full_content(), key: hole}
        yield {name: value for name, value in full_content().items() if name != key}
    for key in full_content()["rows"][1]:
        for hole in (None, {}, [], "text", float("nan")):
            content = full_content()
            content["rows"][1][key] = hole
            yield content
        content = full_content()
        del content["rows"][1][key]
        yield content


def test_whatever_is_missing_is_left_out():
    from yolov3_trt.report.page import html_from_report

    for content in holes():
        report = report_from_content(content)
        assert Balanced(html_from_report(report)).faults == [], content
        assert_tables_are_whole(markdown_from_report(report))


def assert_tables_are_whole(markdown: str) -> None:
    for block in markdown.split("\n\n"):
        if block.startswith("| "):
            columns = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
            assert len(columns) == 1, block


def test_what_a_row_is_made_of_cannot_be_markup_in_markdown():
    markdown = markdown_from_report(report_from_content(full_content()))
    assert "\n| **✗ \\<script\\>" in markdown
    assert_tables_are_whole(markdown)


def test_an_eval_of_one_artifact_is_a_report_too(tmp_path: Path):
    alone = {"artifact": "m.onnx", "backend": "torch", "precision": "fp32", "images": 64, "AP": 0.25, "AP50": 0.5}
    alone["per_class"] = [{"class_name": "cat", "objects": 7, "AP": 0.5, "AP50": 0.75}]
    page = "".join(Balanced(html_of(alone, tmp_path)).shown)
    assert "m.onnx torch fp32" in page and "0.2500" in page and "cat" in page


def test_differences_of_an_eval_are_signed(tmp_path: Path):
    difference = {
        "label": "int8",
        "reference": "fp32",
        "AP_difference": -0.0123,
        "AP_difference_interval": [-0.02, 0.001],
    }
    content = {"rows": [{"label": "fp32", "AP": 0.3}, {"label": "int8", "AP": 0.29}], "differences": [difference]}
    assert "-0.0123 [-0.0200, +0.0010]" in html_of(content, tmp_path)


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
    assert [ms(value) for value in (0.1234, 12.345, 123.45, None, float("nan"))] == ["0.123", "12.35", "123", "–", "–"]
    assert [size(value) for value in (500, 1536, 5 * 2**20, 3 * 2**30)] == ["500 B", "1.5 KiB", "5.0 MiB", "3.00 GiB"]


def test_rows_of_one_label_are_told_apart():
    content = {"rows": [row("same", 10.0), row("same", 20.0)]}
    table = report_from_content(content).sections[0].table
    assert table is not None and [line[0] for line in table.rows] == ["same", "same (2)"]


def test_the_suffix_decides_and_others_are_refused(tmp_path: Path):
    write_report(tmp_path / "report.json", full_content())
    assert json.loads((tmp_path / "report.json").read_text()) == full_content()
    write_report(tmp_path / "report.md", full_content())
    assert (tmp_path / "report.md").read_text().startswith("# Latency and accuracy\n")
    with pytest.raises(OutputError, match=r"report\.pdf: a report is one of \.html, \.md, \.json"):
        write_report(tmp_path / "report.pdf", full_content())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.json", "report.md"]


def test_content_is_not_changed():
    content = full_content()
    before = copy.deepcopy(content)
    report_from_content(content)
    assert content == before


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
    html_of(full_content(), tmp_path, [("dog.jpg", {"torch fp32": jpeg()})])
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
