"""`shapes`: a generated data set."""

from pathlib import Path
from typing import Annotated

import typer

from yolov3_trt.cli.ending import name_of_end
from yolov3_trt.cli.options import writes
from yolov3_trt.cli.output import say, show, track


def shapes(
    output: Annotated[Path, writes("DIR", "Where the data set goes.", "-o", "--output", is_folder=True)],
    train: Annotated[int, typer.Option(min=1, help="Pictures to train on.")] = 1000,
    val: Annotated[int, typer.Option(min=1, help="Pictures to validate on.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Of the pictures; validation takes the next one.")] = 0,
) -> None:
    """Write a data set of generated shapes, with labels in YOLO format: to try `train`, `eval` and `calibrate`."""
    from yolov3_trt.data.shapes import write_shapes_data_set

    try:
        path = write_shapes_data_set(
            output, num_train=train, num_val=val, seed=seed, progress=lambda items: track(items, "drawing", train + val)
        )
    except KeyboardInterrupt as end:
        left = f"{output} holds a part of the pictures and no data.yaml, so it is no data set"
        say(f"yolov3_trt: stopped by {name_of_end(end)}; {left}: run the same command again, which begins anew")
        raise
    show(str(path))
