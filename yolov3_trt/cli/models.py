"""`models`: the built-in networks."""

from typing import Any

from yolov3_trt.cli.options import JsonOption
from yolov3_trt.cli.output import table, write_result


def models(json: JsonOption = None) -> None:
    """List the built-in models, their sizes, and where their weights are looked for."""
    from yolov3_trt.models import default_weights_path
    from yolov3_trt.models.architectures import BUILT_IN

    entries: list[dict[str, Any]] = []
    for name, make in BUILT_IN.items():
        spec, weights = make(), default_weights_path(name)
        entries.append(
            {
                "name": name,
                "input_hw": list(spec.input_hw),
                "num_classes": spec.num_classes,
                "heads": len(spec.heads),
                "num_parameters": spec.num_parameters,
                "weights": str(weights),
                "weights_present": weights.is_file(),
            }
        )
    rows = [
        (
            entry["name"],
            "x".join(map(str, entry["input_hw"])),
            str(entry["num_classes"]),
            f"{entry['num_parameters']:,}",
            entry["weights"] if entry["weights_present"] else f"none at {entry['weights']}",
        )
        for entry in entries
    ]
    write_result(json, {"models": entries}, table(("model", "input", "classes", "parameters", "weights"), rows))
