"""`models`: the built-in networks, and the published weights."""

from typing import Any

from yolov3_trt.cli.options import JsonOption
from yolov3_trt.cli.output import table, write_result


def models(json: JsonOption = None) -> None:
    """List the built-in models, where their weights are, and which weights `fetch` can bring."""
    from yolov3_trt.models.architectures import BUILT_IN
    from yolov3_trt.models.published import PUBLISHED

    built_in = [_built_in(name) for name in BUILT_IN]
    others = [_published(name) for name in PUBLISHED if name not in BUILT_IN]
    rows = [
        (
            entry["name"],
            "x".join(map(str, entry["input_hw"])),
            str(entry["num_classes"]),
            f"{entry['num_parameters']:,}",
            entry["weights"] if entry["weights_present"] else entry["fetch"] or f"none at {entry['weights']}",
        )
        for entry in built_in
    ]
    text = table(("model", "input", "classes", "parameters", "weights"), rows)
    text += "\n\nWeights of models that are not built in, to be used with their cfg:\n"
    text += table(
        ("model", "weights", "cfg"),
        [(row["name"], row["weights"] if row["weights_present"] else row["fetch"], row["cfg"]) for row in others],
    )
    write_result(json, {"models": built_in, "published": others}, text)


def _built_in(name: str) -> dict[str, Any]:
    from yolov3_trt.models.architectures import BUILT_IN

    spec = BUILT_IN[name]()
    return {
        "name": name,
        "input_hw": list(spec.input_hw),
        "num_classes": spec.num_classes,
        "heads": len(spec.heads),
        "num_parameters": spec.num_parameters,
        **_weights(name),
    }


def _published(name: str) -> dict[str, Any]:
    from yolov3_trt.models.published import PUBLISHED

    return {"name": name, **_weights(name), "cfg": PUBLISHED[name].cfg}


def _weights(name: str) -> dict[str, Any]:
    """Where they are looked for, whether they are there, and the command that brings them, if any does."""
    from yolov3_trt.models import default_weights_path
    from yolov3_trt.models.published import PUBLISHED

    path = default_weights_path(name)
    fetch = None
    if name in PUBLISHED:
        fetch = f"yolov3_trt fetch {name}" + ("" if PUBLISHED[name].digest else " --sha256 HEX")
    return {"weights": str(path), "weights_present": path.is_file(), "fetch": fetch}
