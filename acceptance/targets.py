"""What the engines shall reach, and what they reached. The standard library only."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Target:
    """A bound on a figure."""

    what: str
    bound: float
    at_least: bool
    unit: str

    def judge(self, subject: str, value: float | None) -> dict[str, Any]:
        """What came of it; `met` is None where it was not measured."""
        met = None if value is None else (value >= self.bound if self.at_least else value < self.bound)
        sign = ">=" if self.at_least else "<"
        return {
            "subject": subject,
            "target": f"{self.what} {sign} {self.bound:g}{self.unit}",
            "value": value,
            "unit": self.unit,
            "met": met,
        }


_EAGER_FP32 = ("cuda", "fp32")  # as TorchOptions calls it on a GPU, and on the CPU
EAGER = Target("FP16 end to end against eager PyTorch FP32", 3.0, True, "x")
BEST = Target("FP16 end to end against the best PyTorch", 1.3, True, "x")
STAGES = Target("pre- and postprocessing of a 1080p frame on the GPU", 100.0, False, " µs")
STEADY = Target("p99 over p50, FP16 end to end", 1.2, False, "")
CPU = Target("CPU at full throughput, FP16", 30.0, False, " % of a core")


def judge(engines: Sequence[Row], torch: Sequence[Row]) -> Iterator[dict[str, Any]]:
    """Every target, for the FP16 engine of each subject at batch 1."""
    for row in engines:
        if row["precision"] != "fp16" or row["batch"] != 1 or row.get("flavor", "tensorrt") != "tensorrt":
            continue
        subject = f"{row['model']}-{row['side']}"
        ours, peers = row.get("with_graph"), [peer for peer in torch if _is_of(peer, subject)]
        eager = next((peer for peer in peers if peer["variant"] in _EAGER_FP32), None)
        best = min(peers, key=_p50, default=None)
        yield EAGER.judge(subject, _over(eager, ours))
        yield BEST.judge(subject, _over(best, ours))
        yield STAGES.judge(subject, _of(ours, _stages_us))
        yield STEADY.judge(subject, _of(ours, lambda found: found["latency_ms"]["p99"] / _p50(found)))
        yield CPU.judge(subject, _of(ours, lambda found: 100 * found["cpu_share_of_a_core"]))


def _is_of(peer: Row, subject: str) -> bool:
    return peer["subject"] == subject and peer["batch"] == 1 and "failed" not in peer


def _p50(row: Row) -> float:
    return float(row["latency_ms"]["p50"])


def _stages_us(row: Row) -> float:
    stages_ms = row["device_stages_ms"]
    return 1e3 * float(stages_ms["preprocess"] + stages_ms["postprocess"])


def _over(peer: Row | None, ours: Row | None) -> float | None:
    """How many times as long the peer takes."""
    return None if peer is None or ours is None else _p50(peer) / _p50(ours)


def _of(row: Row | None, figure: Callable[[Row], float]) -> float | None:
    return None if row is None else figure(row)
