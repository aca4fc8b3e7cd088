"""What README and docs say was measured comes from docs/results; what the notebooks and the questions say is so."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import tables
from tests.docs.blocks import ROOT

_MADE = re.compile(r"<!-- results: \S+ -->\n.*?<!-- end of results -->", re.DOTALL)
_FENCED = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
# AP and scores, times, ratios: what only a measurement gives. A link to a file of docs/results in the paragraph, or
# `<!-- from: NAME -->`, is their source; `<!-- chosen -->` says that its figures were chosen, as thresholds are.
_MEASURED = re.compile(r"(?<![\w.])\.\d{3,4}\b|\b\d+(?:\.\d+)?(?= ms\b)|\b\d+\.\d+(?=x\b)")
_SOURCE = re.compile(r"<!-- from: ([\w.-]+) -->|results/([\w.-]+)\.json")


@pytest.mark.parametrize("page", tables.pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_tables_are_those_of_the_results(page: Path):
    text = page.read_text()
    assert tables.renewed(text) == text, "python -m benchmarks.tables"


@pytest.mark.parametrize("page", tables.pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_a_figure_in_the_text_has_a_source(page: Path):
    text = _FENCED.sub("", _MADE.sub("", page.read_text()))
    # The words before a table say where its figures are from: a comment within would end it.
    for paragraph in re.split(r"\n\s*\n(?!\|)", text):
        figures = _MEASURED.findall(paragraph)
        if not figures or "<!-- chosen -->" in paragraph:
            continue
        named = {comment or link for comment, link in _SOURCE.findall(paragraph)}
        assert named, f"{figures}: `<!-- from: NAME -->` must say where they are from, in\n{paragraph}"
        known = [number for name in named for number in _numbers(tables.result(name))]
        for figure in figures:
            assert any(_is_shown_as(number, figure) for number in known), f"{figure} is not in {named}:\n{paragraph}"


def _numbers(content: Any) -> Iterator[float]:
    if isinstance(content, dict):
        content = list(content.values())
    if isinstance(content, list):
        for item in content:
            yield from _numbers(item)
    elif isinstance(content, int | float) and not isinstance(content, bool):
        yield float(content)


def _is_shown_as(number: float, figure: str) -> bool:
    digits = len(figure.partition(".")[2])
    return abs(abs(number) - float(figure)) <= 0.5 * 10**-digits + 1e-9


def test_a_wrong_figure_and_an_unknown_one_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "speed.json").write_text('{"p50": 12.34, "AP": 0.1827}')
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    page = tmp_path / "page.md"
    for text, right in (
        ("It takes 12.3 ms. <!-- from: speed -->", True),
        ("AP is .1827. <!-- from: speed -->", True),
        ("It takes 12.5 ms. <!-- from: speed -->", False),
        ("It takes 12.3 ms.", False),
    ):
        page.write_text(text)
        if right:
            test_a_figure_in_the_text_has_a_source(page)
        else:
            with pytest.raises(AssertionError):
                test_a_figure_in_the_text_has_a_source(page)


def test_a_question_quotes_what_the_program_says():
    said = "".join(path.read_text() for path in (ROOT / "yolov3_trt").rglob("*.py"))
    said = re.sub(r'"\s*\n?\s*f?"', "", said)
    for quoted in re.findall(r'^## "(.+)"$', (ROOT / "docs" / "faq.md").read_text(), re.MULTILINE):
        assert all(part.strip() in said for part in quoted.split(" ... ")), quoted


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebooks_run(path: Path, tmp_path: Path):
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    shim = "import sys, types; m = types.ModuleType('IPython.display'); m.Image = lambda data: data\n"
    shim += "sys.modules['IPython'] = types.ModuleType('IPython'); sys.modules['IPython.display'] = m\n"
    code = shim + "\n".join("".join(cell["source"]) for cell in cells)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    stored = "".join("".join(out.get("text", "")) for cell in cells for out in cell["outputs"])
    words = re.compile(r"[a-z_]{4,}")
    assert set(words.findall(stored)) <= set(words.findall(done.stdout)), "what the notebook shows is what it gives"


def test_the_readme_is_one_screen_of_words():
    assert len((ROOT / "README.md").read_text().split()) <= 700
