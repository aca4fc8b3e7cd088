"""Which engines the suite is about, and where what belongs to them lies. The standard library only."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

WORK = "YOLOV3_TRT_GPU_WORK"  # names the folder of graphs and engines
ACCEPTANCE = "YOLOV3_TRT_GPU_ACCEPTANCE"  # set for the steps of the acceptance
SIMULATED = os.environ.get("YOLOV3_TRT_SIMULATED_GPU") == "1"  # in place of a GPU
SIMULATED_GPU = {"name": "simulated GPU"}
PRECISIONS = ("fp16", "int8", "fp32", "tf32")  # the last is an FP32 graph, built to round to TF32
_CASES = "cases.json"
_DYNAMIC = 8  # pictures at most
SOONEST = 2  # models that come before the others


@dataclass(frozen=True)
class Case:
    """An engine: a model at an input size, in a precision, for a batch size."""

    model: str
    side: int  # of its square input, px
    precision: str  # of PRECISIONS
    batch: int  # at most, where it is dynamic
    dynamic: bool = False  # whether it takes any number of pictures from one
    flavor: str = "tensorrt"  # or tensorrt_rtx

    @property
    def batches(self) -> str:
        """As `--batch` takes it."""
        return f"1:{max(1, self.batch // 2)}:{self.batch}" if self.dynamic else str(self.batch)

    @property
    def group(self) -> str:
        """Cases whose graphs are made and which are timed together: `yolov3-416-b8`, with `d8` for a batch that varies."""
        return f"{self.subject}{'-rtx' * (self.flavor == 'tensorrt_rtx')}-{'d' if self.dynamic else 'b'}{self.batch}"

    @property
    def graph_precision(self) -> str:
        """Of the graph: of PRECISIONS but tf32."""
        return "fp32" if self.precision == "tf32" else self.precision

    @property
    def subject(self) -> str:
        """What is run: `yolov3-416`."""
        return f"{self.model}-{self.side}"

    @property
    def name(self) -> str:
        """Of its files: `yolov3-416-fp16-b8`."""
        return f"{self.subject}-{self.precision}{self.group.removeprefix(self.subject)}"

    def graph(self, work: Path) -> Path:
        """The ONNX file."""
        return work / f"{replace(self, precision=self.graph_precision).name}.onnx"

    def engine(self, work: Path) -> Path:
        """The plan."""
        return work / f"{self.name}.engine"

    def expected(self, work: Path) -> Path:
        """What ONNX Runtime computed: `images` (2, 3, H, W) and the heads by their names, as .npz."""
        return work / f"{self.subject}-{self.graph_precision}.expected.npz"


def make_cases(models: Sequence[tuple[str, int]], precisions: Sequence[str], batches: Sequence[int]) -> Iterator[Case]:
    """Every model in every precision and batch, in the order in which they prove most.

    The first two models come a picture at a time, then the first with a batch that varies, then both with the other batches,
    and only then the other models.
    """
    for begin, some in ((0, models[:SOONEST]), (SOONEST, models[SOONEST:])):
        for index, batch in enumerate(batches):
            for model, side in some:
                for precision in precisions:
                    yield Case(model, side, precision, batch)
            if begin == index == 0:
                yield Case(*some[0], precisions[0], _DYNAMIC, dynamic=True)


def save_cases(cases: Sequence[Case], work: Path) -> None:
    """Say in a work folder what it is for."""
    (work / _CASES).write_text(json.dumps([asdict(case) for case in cases], indent=1) + "\n")


def load_cases(work: Path) -> list[Case]:
    """What a work folder is for."""
    return [Case(**row) for row in json.loads((work / _CASES).read_text())]


def work_folder() -> Path | None:
    """The folder that the environment names; None without one."""
    named = os.environ.get(WORK)
    return Path(named) if named else None
