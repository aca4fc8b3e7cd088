"""The fenced blocks of README and docs, as a reader would type them."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = (  # in the order in which their commands are run: the tutorials make what the other pages take
    "README.md",
    "docs/tutorials/first-boxes.md",
    "engines/README.md",
    "calib/README.md",
    *(f"docs/{p.name}" for p in sorted((ROOT / "docs").glob("*.md"))),
    *(
        f"docs/tutorials/{p.name}"
        for p in sorted((ROOT / "docs" / "tutorials").glob("*.md"))
        if p.name != "first-boxes.md"
    ),
)


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    page: str
    line: int  # of its first fence
    language: str
    text: str

    def commands(self) -> list[str]:
        """Shell commands, continued lines joined, comments gone."""
        lines = self.text.replace("\\\n", " ").splitlines()
        found = [" ".join(shlex.quote(word) for word in shlex.split(line, comments=True)) for line in lines]
        return [command for command in found if command]


def blocks(page: str) -> list[Block]:
    text = (ROOT / page).read_text()
    return [
        Block(page, text.count("\n", 0, match.start()) + 1, match[1], match[2])
        for match in re.finditer(r"^```([a-z]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    ]
