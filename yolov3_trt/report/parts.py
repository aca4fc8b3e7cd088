"""What a report is made of before it is HTML or Markdown."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """Texts in columns; the first column names the row."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    bad: frozenset[int] = frozenset()  # rows that are marked loudly
    prose: bool = False  # words rather than figures: they wrap


@dataclass(frozen=True)
class Bar:
    """One bar of a chart, in the chart's unit."""

    label: str
    figure: str  # what it stands for, in words: `12.3 ms`
    segments: tuple[tuple[str, float], ...]  # (name, length), end to end from 0
    whisker: tuple[float, float] | None = None  # a line from here to there
    marks: tuple[tuple[str, float], ...] = ()  # (name, place) on that line
    bad: bool = False

    @property
    def end(self) -> float:
        """How far it reaches, whisker included."""
        length = sum(length for _, length in self.segments)
        return max(length, *(self.whisker or (0.0,)), *(place for _, place in self.marks), 0.0)


@dataclass(frozen=True)
class Chart:
    """Horizontal bars on a common scale that begins at 0."""

    unit: str
    bars: tuple[Bar, ...]
    end: float | None = None  # of the scale; by default that of the longest bar

    @property
    def legend(self) -> tuple[str, ...]:
        """Names of the segments, in the order in which they first appear."""
        return tuple(dict.fromkeys(name for bar in self.bars for name, _ in bar.segments))


@dataclass(frozen=True)
class Plot:
    """Lines over a square from (0, 0) to (1, 1)."""

    title: str
    axes: tuple[str, str]  # names: across, up
    lines: tuple[tuple[str, tuple[tuple[float, float], ...]], ...]  # (label, its points)


@dataclass(frozen=True)
class Picture:
    """One picture as several rows see it."""

    name: str
    by_row: tuple[tuple[str, bytes], ...]  # (label, JPEG)


@dataclass(frozen=True)
class Section:
    """A part of the report under a heading of its own."""

    title: str
    text: tuple[str, ...] = ()  # paragraphs
    chart: Chart | None = None
    table: Table | None = None
    pictures: tuple[Picture, ...] = ()
    code: str | None = None  # shown as it is
    plots: tuple[Plot, ...] = ()


@dataclass(frozen=True)
class Report:
    """A whole report."""

    title: str
    subtitle: str
    alarms: tuple[str, ...]  # what a reader must not miss
    sections: tuple[Section, ...]
