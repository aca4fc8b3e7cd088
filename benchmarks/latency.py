"""`bench` on models of the reference data: PyTorch, ONNX Runtime and OpenCV on one photograph, as docs/results keeps them.

    python -m benchmarks.latency --data ../shared/data --output docs/results

Of a model without pretrained weights they are fabricated, and the threshold is one that leaves as many objects as a photograph
has: to such weights everything is an object.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers import ALL, THREADS, Subject, load_subject, realistic_threshold
from yolov3_trt.cli import entrypoint
from yolov3_trt.data.images import load_image
from yolov3_trt.detector import open_detector


def main(args: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="the reference data")
    parser.add_argument("--frames", type=int, default=60, help="rounds; of a yolov3 a quarter of them, 20 at least")
    parser.add_argument("--only", nargs="*", default=[subject.name for subject in ALL], help="models by name")
    parser.add_argument("--output", type=Path, metavar="DIR", help="write bench-MODEL.json there")
    options = parser.parse_args(args)
    for subject in ALL:
        if subject.name in options.only:
            frames = max(20, options.frames // 4) if subject.name == "yolov3" else options.frames
            with tempfile.TemporaryDirectory() as folder:
                bench(subject, options.data, Path(folder), frames, options.output)


def bench(subject: Subject, data: Path, folder: Path, frames: int, output: Path | None) -> None:
    """Run the command line on one model; says what it ran."""
    picture = data / "images" / "dog.jpg"
    model, cfg, onnx = load_subject(subject, data, folder)
    with open_detector(onnx) as detector:
        conf = realistic_threshold(subject, detector, load_image(picture))
    command = ["bench", str(cfg), str(onnx), "--weights", str(model.weights_path), "--names", "coco"]
    command += ["--baselines", "opencv", "--nms", "plain", "--images", str(picture), "--conf", f"{conf:.6f}"]
    command += ["--frames", str(frames), "--threads", str(THREADS), "--torch-variants", "channels_last"]
    result = folder / "bench.json"
    print("yolov3_trt", *command, file=sys.stderr)
    # The command that is kept is this one, whichever program calls it.
    sys.argv = ["yolov3_trt", *command]
    try:
        entrypoint([*command, "--json", str(result)])
    except SystemExit as exc:
        if exc.code:
            raise
    if output is not None:
        content = json.loads(result.read_text())
        content |= {"model": subject.name, "weights": "pretrained" if subject.pretrained else "fabricated"}
        del content["layers"]  # the same on every machine
        (output / f"bench-{subject.name}.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
