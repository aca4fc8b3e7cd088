"""`export`: PyTorch -> ONNX + sidecar."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from yolov3_trt.cli.groups import ModelOptions, takes
from yolov3_trt.cli.options import JsonOption, ModelArgument, check_output_suffix, writes
from yolov3_trt.cli.output import reporter, write_result
from yolov3_trt.settings import CalibrationSettings, DetectSettings, GraphSettings

if TYPE_CHECKING:
    from yolov3_trt.jobs.export import Exported


@takes(ModelOptions, GraphSettings, CalibrationSettings, DetectSettings)
def export(
    model: ModelArgument,
    output: Annotated[
        Path | None,
        writes("FILE", "By default engines/MODEL-SIZE-PRECISION.onnx.", "-o", "--output"),
    ] = None,
    json: JsonOption = None,
    **settings: Any,
) -> None:
    """Export a model to ONNX, compared with the PyTorch reference before it is written, where PyTorch is installed."""
    from yolov3_trt.jobs.export import export as job

    check_output_suffix(output, ".onnx")
    result = job(model, output, reporter=reporter(), **settings)
    write_result(json, result.to_json(), report_text(result))


def report_text(report: "Exported") -> str:
    """An export in two lines."""
    compared = report.not_compared or (
        f"largest difference to PyTorch: {max(report.max_difference.values()):.2g} in a logit, "
        f"{max(report.relative_error.values()):.2g} relative"
    )
    return f"{report.path}  {report.num_bytes / 1e6:.1f} MB\n  {compared}"
