"""One reader of `tests.fuzz` led by its coverage, in a process of its own: `python -m tests.fuzz_guided READER SECONDS`.

atheris (libFuzzer) keeps inputs that reach new lines of the package and goes on from them. `make fuzz` uses it where it is
installed; it is in no extra, as it has wheels for Linux and Python from 3.11 only.
"""

import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["yolov3_trt"]):
    from tests import fuzz
    from yolov3_trt.errors import Yolov3TrtError


def main(name: str, seconds: int) -> None:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        target, seeds = fuzz.targets(folder / "readers", stack)[name]
        corpus = folder / "corpus"
        corpus.mkdir()
        for number, seed in enumerate(seeds):
            (corpus / str(number)).write_bytes(seed)

        def one(content: bytes) -> None:
            try:
                target(content)
            except Yolov3TrtError:
                return

        limits = (f"-max_total_time={seconds}", f"-timeout={fuzz.LIMIT_S}", f"-rss_limit_mb={fuzz.LIMIT_MIB}")
        place = f"-artifact_prefix={fuzz.PLACE}/{name}-guided-"
        atheris.Setup([sys.argv[0], str(corpus), *limits, place, "-max_len=65536", "-print_final_stats=1"], one)
        atheris.Fuzz()  # ends the process


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
