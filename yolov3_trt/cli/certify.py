"""`certify`: whether this is a published model and finds what that finds."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from yolov3_trt.cli.data_options import CocoImagesOption, DataOption, SplitOption, faults_told
from yolov3_trt.cli.options import ArtifactArgument, BackendOption, JsonOption, TrustOption, WeightsOption, reads
from yolov3_trt.cli.output import reporter, write_result

if TYPE_CHECKING:
    from yolov3_trt.jobs.certify import Certificate


def certify(
    artifact: ArtifactArgument,
    picture: Annotated[
        Path | None,
        reads("FILE", "Darknet's dog.jpg: what is found is compared with what was published.", "--picture"),
    ] = None,
    data: DataOption = None,
    split: SplitOption = None,
    images: CocoImagesOption = None,
    weights: WeightsOption = None,
    backend: BackendOption = "auto",
    trust: TrustOption = False,
    json: JsonOption = None,
) -> None:
    """Check that a model, graph or engine is a published one and finds what that finds; needs no network.

    Its weights by their SHA-256, layers and anchors, the values of its heads and the objects in a picture that comes with this
    package; with --data AP beside the PyTorch reference's. The exit code is 1 where a check fails.
    """
    from yolov3_trt.jobs.certify import certify as job

    with faults_told():
        result = job(
            artifact,
            picture=picture,
            data=data,
            split=split,
            images=images,
            weights=weights,
            backend=backend,
            trust=trust,
            reporter=reporter(),
        )
    write_result(json, result.to_json(), _text(result))
    if not result.passed:
        raise typer.Exit(1)


def _text(result: "Certificate") -> str:
    words = {True: "pass", False: "FAIL", None: "-"}
    width = max(len(check.name) for check in result.checks)
    lines = [f"{check.name:{width}}  {words[check.passed]:4}  {check.text}" for check in result.checks]
    verdict = f"{result.artifact}: {'is' if result.passed else 'is NOT'} {result.model or 'a published model'}"
    return "\n".join([*lines, f"{verdict}, in {result.precision.value}" if result.passed else verdict])
