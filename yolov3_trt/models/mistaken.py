"""What people give in the place of a model or an artifact, and what to give instead."""

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

from yolov3_trt.arguments import spelled
from yolov3_trt.models.architectures import BUILT_IN
from yolov3_trt.models.published import PUBLISHED

_ARTIFACTS = f"a built-in model ({', '.join(BUILT_IN)}), a .cfg, an .onnx, an .engine or triton://…"
_DATA_SET = "this describes a data set; the model comes first"
_CHECKPOINT = (
    "this is a checkpoint of PyTorch; this package reads Darknet's .cfg and .weights, and what it made from them"
)
_KERAS = "this is a model of Keras or TensorFlow; give the .cfg and .weights of Darknet that it was converted from"
_PICTURE = f"this is a picture or a video; the model comes first: {_ARTIFACTS}"
_KINDS = {
    ".names": "these are names of classes: give the model, and these with {names}",
    ".conv": "these are weights of the first layers only, to train from: give `train` a model, and these with {weights}",
    ".toml": "this is a recipe: `yolov3_trt build` takes it, and what that makes goes here",
    **dict.fromkeys((".yaml", ".yml", ".data"), _DATA_SET),
    **dict.fromkeys((".pt", ".pth"), _CHECKPOINT),
    **dict.fromkeys((".h5", ".keras", ".pb", ".tflite"), _KERAS),
    ".trt": "engines of this package end in .engine and have a sidecar; `yolov3_trt build` makes them",
    **dict.fromkeys((".jpg", ".jpeg", ".png", ".bmp", ".heic", ".mp4", ".avi", ".mkv", ".mov"), _PICTURE),
}


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """` did you mean NAME?` where one of the known names is close, else nothing."""
    by_lower = {name.lower(): name for name in known}
    close = get_close_matches(given.lower(), by_lower, n=1)
    return f" did you mean {by_lower[close[0]]}?" if close else ""


def not_an_artifact(given: str | Path) -> str:
    """Why this cannot be run, for an error."""
    return _problem(given, "not an artifact", _ARTIFACTS)


def not_a_model(given: str | Path) -> str:
    """Why no network can be read from this, for an error."""
    if Path(given).suffix in (".onnx", ".engine", ".plan"):
        return f"{given}: this was made from a model; expected the model itself: a built-in one or its .cfg"
    return _problem(given, "there is no such model", f"one of {', '.join(BUILT_IN)} or a path to a .cfg")


def _problem(given: str | Path, what: str, expected: str) -> str:
    path = Path(given)
    if path.is_dir():
        return f"{given}: {_folder(path)}"
    if path.suffix == ".weights":
        return f"{given}: these are Darknet weights: {_cfg_of(path)}"
    if path.suffix == ".json" and Path(path.stem).suffix in (".onnx", ".engine", ".plan"):
        return f"{given}: this is a sidecar: give {path.with_suffix('')}, which it belongs to"
    suffix = ".conv" if Path(path.stem).suffix == ".conv" else path.suffix.lower()
    if suffix in _KINDS:
        return f"{given}: {_KINDS[suffix].format(names=spelled('names'), weights=spelled('weights'))}"
    if str(given) in PUBLISHED:
        return (
            f"{given}: this model is not built in: give its .cfg ({PUBLISHED[str(given)].cfg}); "
            f"`yolov3_trt fetch {given}` brings the weights"
        )
    return f"{given}: {what};{did_you_mean(str(given), BUILT_IN)} expected {expected}"


def _cfg_of(weights: Path) -> str:
    beside = weights.with_suffix(".cfg")
    if beside.is_file():
        return f"give the .cfg; {beside} lies beside it"
    if weights.stem in BUILT_IN:
        return f"give the model {weights.stem}, and these with {spelled('weights')}"
    return f"give the .cfg that they were trained with, and these with {spelled('weights')}"


def _folder(path: Path) -> str:
    cfgs = sorted(path.glob("*.cfg"))
    if len(cfgs) == 1:
        return f"this is a folder; give the model in it: {cfgs[0]}"
    made = sorted(p for suffix in ("onnx", "engine") for p in path.glob(f"*.{suffix}"))
    inside = ", ".join(p.name for p in (*cfgs, *made)[:4])
    return f"this is a folder; give a file of it: {inside}" if inside else f"this is a folder; expected {_ARTIFACTS}"
