"""What the site has beside the files of docs/: the reference, made from the code, notebooks, and pages from elsewhere here.

`mkdocs` calls `on_files` before it reads the pages, and `on_page_markdown` for each.
"""

import dataclasses
import enum
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from nbconvert import MarkdownExporter

ROOT = Path(__file__).parents[2]
# Of the repository -> page of the site.
ELSEWHERE = {
    "engines/README.md": "recipes.md",
    "calib/README.md": "int8.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "reporting.md",
    "README.md": "index.md",
}
_LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made here."""
    made = {
        "reference/verbs.md": verbs(),
        "reference/python.md": python(),
        "reference/settings.md": settings(),
        **{page: (ROOT / path).read_text() for path, page in ELSEWHERE.items()},
        **notebooks(),
    }
    for name, content in made.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001 - mkdocs gives it
    """Links between files of the repository become links between pages of the site; to what has no page, plain words."""
    origin = next((path for path, name in ELSEWHERE.items() if name == page.file.src_uri), None)
    here = ROOT / (origin if origin else f"docs/{page.file.src_uri}")
    above = "../" * page.file.src_uri.count("/")

    def moved(match: re.Match[str]) -> str:
        anchor = match[2] or ""
        target = (here.parent / match[1]).resolve()
        if not target.is_relative_to(ROOT) or page.file.src_uri.startswith("reference/"):
            return match[0]
        path = target.relative_to(ROOT).as_posix()
        if path in ELSEWHERE:
            return f"]({above}{ELSEWHERE[path]}{anchor})"
        if path.startswith("docs/") and files.get_file_from_path(path.removeprefix("docs/")):
            return f"]({above}{path.removeprefix('docs/')}{anchor})"
        return f'](contributing.md "{path}, in the repository")' if target.exists() else match[0]

    return _LINK.sub(moved, markdown)


def notebooks() -> dict[str, str | bytes]:
    """The notebooks as pages, with the pictures that they show."""
    made: dict[str, str | bytes] = {}
    for path in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        body, resources = MarkdownExporter().from_filename(str(path), {"unique_key": path.stem})
        made[f"notebooks/{path.stem}.md"] = f"{body}\nThe notebook itself: [{path.name}]({path.name})\n"
        made |= {f"notebooks/{name}": content for name, content in resources["outputs"].items()}
    return made


def verbs() -> str:
    """The page of all verbs, from the command line itself."""
    from typer.main import get_command

    from yolov3_trt.cli import app

    return "\n".join(["# Verbs", "", "Each `yolov3_trt VERB --help` says the same.", *_of_group(get_command(app), "")])


def _of_group(group: Any, prefix: str) -> Iterator[str]:
    for name, verb in group.commands.items():
        if verb.hidden:
            continue
        if hasattr(verb, "commands"):
            yield from ["", f"## {name}", "", verb.help or ""]
            yield from _of_group(verb, f"{name} ")
            continue
        context = verb.make_context(name, [], resilient_parsing=True)
        pieces = (piece.strip("{}") for piece in verb.collect_usage_pieces(context))
        usage = " ".join(["yolov3_trt", f"{prefix}{name}", *pieces])
        yield from ["", f"##{'#' if prefix else ''} {prefix}{name}", "", verb.help, "", "```text", usage, "```"]
        panels: dict[str, list[tuple[str, str]]] = {}
        for parameter in verb.params:
            record = parameter.get_help_record(context)
            if record is not None and not parameter.hidden and "--help" not in parameter.opts:
                panels.setdefault(parameter.rich_help_panel or "", []).append(record)
        for panel, records in panels.items():
            yield from ["", f"**{panel}**" if panel else "", "", "| | |", "| --- | --- |"]
            yield from (f"| `{_cell(option)}` | {_cell(help)} |" for option, help in records)
        if verb.epilog:
            yield from ["", "```sh", *_examples(verb.epilog), "```"]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _examples(epilog: str) -> list[str]:
    return [line.strip() for line in epilog.splitlines() if line.strip().startswith("yolov3_trt")]


def python() -> str:
    """The page of the public names, from their docstrings."""
    import yolov3_trt

    lines = [
        "# Python",
        "",
        "Everything that `import yolov3_trt` gives; [Python](../python.md) has it in ten short examples.",
    ]
    for name, home in sorted(yolov3_trt._HOME_OF.items(), key=lambda item: item[0].lower()):
        lines += ["", f"::: yolov3_trt.{home}.{name}"]
    return "\n".join(lines)


def settings() -> str:
    """The table of all settings: in Python and recipes, on the command line, and what holds when it is not given."""
    from yolov3_trt.settings import KINDS

    lines = [
        "# Settings",
        "",
        "A keyword of the jobs in Python, a key of a recipe, an option of the verbs: one name for each.",
    ]
    for table, kind in KINDS.items():
        said = dict(re.findall(r"^        (\w+): (.*?)(?=^        \w+: |^\s*$|\Z)", kind.__doc__ or "", re.M | re.S))
        lines += [
            "",
            f"## {kind.__name__}",
            "",
            f"In a recipe: `[{table}]`.",
            "",
            "| setting | by default | |",
            "| --- | --- | --- |",
        ]
        for item in dataclasses.fields(kind):
            lines.append(f"| `{item.name}` | {_default(item)} | {_cell(said.get(item.name, ''))} |")
    return "\n".join(lines)


def _default(item: "dataclasses.Field[Any]") -> str:
    value = item.default_factory() if item.default_factory is not dataclasses.MISSING else item.default
    if value is None or value is dataclasses.MISSING or value == frozenset() or value == ():
        return ""
    if isinstance(value, enum.Enum):
        value = value.value
    return f"`{value}`"
