"""Zones and lines in the pictures of a camera, and the small TOML file that they stand in."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yolov3_trt.errors import SettingError
from yolov3_trt.files import read_toml
from yolov3_trt.sizes import HW

if TYPE_CHECKING:  # `--help` needs the options only, and no NumPy
    import numpy as np
    from numpy.typing import NDArray

    from yolov3_trt.detections import Detections

Points = tuple[tuple[float, float], ...]

_FORM = (
    "[[zone]] with points = [[x, y], ...] of 0 to 1, and if wanted name, source, ignore = true, watch = true and stay_s; "
    "[[line]] with two points, and if wanted name and source"
)


@dataclass(frozen=True)
class Zone:
    """A polygon in the pictures of a source; an object is in it when the middle of its lower edge is."""

    points: Points  # (x, y), parts of the width and height
    name: str
    source: str | None = None  # None: of every source
    ignore: bool = False  # what is in it is left out
    watch: bool = False  # nothing is left out for it, events tell who is in it
    stay_s: float | None = None  # seconds after which an object in it is an event

    def holds(self, feet: "NDArray[np.floating[Any]]") -> "NDArray[np.bool_]":
        """Which of `feet_of` are in it, (N,)."""
        import numpy as np

        x, y = feet.T
        inside = np.zeros(len(feet), bool)
        for (ax, ay), (bx, by) in zip(self.points, (*self.points[1:], self.points[0]), strict=True):
            if ay != by:  # edges that a ray to the right crosses
                inside ^= ((ay > y) != (by > y)) & (x < (bx - ax) * (y - ay) / (by - ay) + ax)
        return inside


@dataclass(frozen=True)
class Line:
    """A line that objects cross with the middle of their lower edge.

    To who looks from its first point to its second, `in` is from the left to the right, and `out` the other way.
    """

    points: Points  # two (x, y), parts of the width and height
    name: str
    source: str | None = None  # None: of every source

    def is_right(self, foot: tuple[float, float]) -> bool:
        """On which side of it, drawn on to both ends, something stands."""
        (ax, ay), (bx, by) = self.points
        return (bx - ax) * (foot[1] - ay) - (by - ay) * (foot[0] - ax) > 0

    def is_passed(self, before: tuple[float, float], after: tuple[float, float]) -> bool:
        """Whether who changes its side by this step does so between its two points."""
        own, step = self.points, Line((before, after), "")
        return step.is_right(own[0]) != step.is_right(own[1])


@dataclass(frozen=True)
class Places:
    """The zones and lines of a file."""

    zones: tuple[Zone, ...] = ()
    lines: tuple[Line, ...] = ()

    @classmethod
    def read(cls, path: Path) -> "Places":
        """Of a file.

        Raises:
            SettingError: it cannot be read, or is not understood.
        """
        try:
            content = read_toml(path)
        except (OSError, ValueError) as exc:
            raise SettingError("zones", f"{path}: cannot be read ({exc}); expected {_FORM}") from exc
        rows = {kind: content.pop(kind, []) for kind in ("zone", "line")}
        if content or not any(rows.values()) or not all(isinstance(some, list) for some in rows.values()):
            raise SettingError("zones", f"{path}: expected {_FORM}")
        places = cls(
            tuple(_zone(path, number, row) for number, row in enumerate(rows["zone"], 1)),
            tuple(_line(path, number, row) for number, row in enumerate(rows["line"], 1)),
        )
        names = [(zone.name, zone.source) for zone in places.zones] + [
            (line.name, line.source) for line in places.lines
        ]
        for (name, _), count in Counter(names).items():
            if count > 1:
                raise SettingError("zones", f"{path}: {name} is there twice; give each a name of its own")
        return places

    def of(self, source: str | None) -> "Places":
        """Those of one source."""
        zones, lines = (tuple(one for one in some if one.source in (None, source)) for some in (self.zones, self.lines))
        return Places(zones, lines)  # type: ignore[arg-type]  # mypy joins the two kinds

    def __bool__(self) -> bool:
        return bool(self.zones or self.lines)


def feet_of(detections: "Detections", image_hw: HW) -> "NDArray[np.floating[Any]]":
    """Where objects stand, (N, 2): the middles of their lower edges, parts of the width and height."""
    import numpy as np

    height, width = image_hw
    x = (detections.xyxy[:, 0] + detections.xyxy[:, 2]) / (2 * width)
    y = np.minimum(detections.xyxy[:, 3] / height, 1 - 1e-6)  # who stands on the lower edge of the picture is in it
    return np.stack([x, y], axis=1)


def _zone(path: Path, at: int, row: Any) -> Zone:
    try:
        given = dict(row)
        stay_s = given.pop("stay_s", None)
        zone = Zone(
            _points(given),
            str(given.pop("name", f"zone {at}")),
            given.pop("source", None),
            given.pop("ignore", False),
            given.pop("watch", False),
            None if stay_s is None else float(stay_s),
        )
        flags_are_right = all(isinstance(flag, bool) for flag in (zone.ignore, zone.watch))
        if given or len(zone.points) < 3 or not isinstance(zone.source, str | None) or not flags_are_right:
            raise ValueError
        if (zone.ignore and (zone.watch or stay_s is not None)) or not 0 < (zone.stay_s or 1) < 1e9:
            raise ValueError
    except (KeyError, TypeError, ValueError, OverflowError):
        raise SettingError("zones", f"{path}: zone {at} is not understood; expected {_FORM}") from None
    return zone


def _line(path: Path, at: int, row: Any) -> Line:
    try:
        given = dict(row)
        line = Line(_points(given), str(given.pop("name", f"line {at}")), given.pop("source", None))
        if given or len(set(line.points)) != 2 or len(line.points) != 2 or not isinstance(line.source, str | None):
            raise ValueError
    except (KeyError, TypeError, ValueError, OverflowError):
        raise SettingError("zones", f"{path}: line {at} is not understood; expected {_FORM}") from None
    return line


def _points(given: dict[str, Any]) -> Points:
    points = tuple((float(x), float(y)) for x, y in given.pop("points"))
    if not all(0 <= value <= 1 for point in points for value in point):
        raise ValueError
    return points
