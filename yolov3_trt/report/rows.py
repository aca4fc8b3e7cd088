"""The rows of a content: an artifact on a backend each, as `bench` and `eval` write them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from yolov3_trt.report.figures import listed, number, part, plain

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """One row and what it is called."""

    label: str
    json: Json

    @property
    def failure(self) -> str | None:
        """Why it did not run; None where it did."""
        reason = self.json.get("failed")
        return None if not reason else str(reason)

    @property
    def passed(self) -> bool | None:
        """Of the parity gate; None where it was not asked, as for the reference itself."""
        found = part(self.json, "parity").get("passed")
        return found if isinstance(found, bool) else None

    @property
    def bad(self) -> bool:
        """Its figures must not be taken for those of the reference's results."""
        return self.passed is False or self.failure is not None

    @property
    def latency(self) -> Json:
        """Percentiles and the like, ms."""
        return part(self.json, "latency_ms")

    @property
    def accuracy(self) -> Json:
        """Average precision: of `bench` in a part of its own, of `eval` in the row itself."""
        found = part(self.json, "accuracy")
        return found or (self.json if number(self.json.get("AP")) is not None else {})

    def stages(self, key: str) -> dict[str, float]:
        """Stage -> ms, of `stages_ms` or `device_stages_ms`."""
        given = {str(name): number(value) for name, value in part(self.json, key).items()}
        return {name: max(value, 0.0) for name, value in given.items() if value is not None}


def rows_of(content: Json) -> tuple[Row, ...]:
    """The rows, also of a content that is a single row itself; each label stands for one row only."""
    found = [row for row in listed(content, "rows") if isinstance(row, Mapping)]
    if not found and ("AP" in content or "latency_ms" in content):
        found = [content]
    rows: list[Row] = []
    taken: set[str] = set()
    for row in found:
        label = _label(row)
        unique, number_of_it = label, 1
        while unique in taken:
            number_of_it += 1
            unique = f"{label} ({number_of_it})"
        taken.add(unique)
        rows.append(Row(unique, row))
    return tuple(rows)


def _label(row: Json) -> str:
    if row.get("label"):
        return str(row["label"])
    return " ".join(plain(row[key]) for key in ("artifact", "backend", "precision") if row.get(key)) or "row"
