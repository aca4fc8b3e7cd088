"""Which engines the suite is about, and where what belongs to them lies. The standard library only."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

WORK = "YOLOV3_TRT_GPU_WORK"  # names the folder of graphs and engines
ACCEPTANCE = "YOLOV3_TRT_GPU_ACCEPTANCE"  # set for the steps of the acceptance
SIMULATED = os.environ.get("YOLOV3_TRT_SIMULATED_GPU") == "1"  # in place of a GPU
SIMULATED_GPU = {"name": "simulated GPU"}
PRECISIONS = ("fp16", "int8", "fp32")
_CASES = "cases.json"


@dataclass(frozen=True)
class Case:
    """An engine: a model at an input size, in a precision, for a batch size."""

    model: str
    side: int  # of its square input, px
    precision: str  # of PRECISIONS
    batch: int

    @property
    def subject(self) -> str:
        """What is run: `yolov3-416`."""
        return f"{self.model}-{self.side}"

    @property
    def form(self) -> str:
        """All but the batch, which changes no result: `yolov3-416-fp16`."""
        return f"{self.subject}-{self.precision}"

    @property
    def name(self) -> str:
        """Of its files: `yolov3-416-fp16-b8`."""
        return f"{self.form}-b{self.batch}"

    def graph(self, work: Path) -> Path:
        """The ONNX file."""
        return work / f"{self.name}.onnx"

    def engine(self, work: Path) -> Path:
        """The plan."""
        return work / f"{self.name}.engine"

    def expected(self, work: Path) -> Path:
        """What ONNX Runtime computed: `images` (2, 3, H, W) and the heads by their names, as .npz."""
        return work / f"{self.form}.expected.npz"


def make_cases(models: Sequence[tuple[str, int]], precisions: Sequence[str], batches: Sequence[int]) -> Iterator[Case]:
    """Every model in every precision and batch, by model and then batch."""
    for model, side in models:
        for batch in batches:
            for precision in precisions:
                yield Case(model, side, precision, batch)


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
