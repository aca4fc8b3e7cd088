"""What a Darknet cfg says of training and this trainer does otherwise: nothing of it is passed over without a word."""

from collections.abc import Iterator

from yolov3_trt.arguments import spelled
from yolov3_trt.training.settings import TrainSettings

_SAME_SIZE = "all pictures come at the cfg's width and height"


def unused_keys(content: bytes, settings: TrainSettings) -> Iterator[str]:
    """A line for each key about training that is not used, with what is instead.

    Args:
        content: of a cfg that was read already.
        settings: of the run.
    """
    instead = _instead(settings)
    seen: set[str] = set()
    for raw in content.decode("utf-8-sig", "replace").splitlines():
        key, equals, value = (part.strip() for part in raw.partition("#")[0].partition(";")[0].partition("="))
        if not equals or key in seen or key not in instead:
            continue
        seen.add(key)
        if key == "random" and value == "0":  # the same
            continue
        used = instead[key]
        if isinstance(used, float):
            try:
                if float(value) == used:  # the same
                    continue
            except ValueError:
                pass
            used = f"{used:g} is"
        yield f"{key}={value} of the cfg is not used: {used}"


def _instead(settings: TrainSettings) -> dict[str, str | float]:
    """By key: words, or the number that is used in its place."""

    def given(name: str) -> str:
        return f"{spelled(name, getattr(settings, name))} is"

    schedule = "the learning rate falls by half a cosine"
    return {
        "batch": given("batch_size"),
        "subdivisions": "each batch is one step",
        "learning_rate": given("learning_rate"),
        "burn_in": given("warmup_epochs"),
        "max_batches": given("epochs"),
        "policy": schedule,
        "steps": schedule,
        "scales": schedule,
        "momentum": settings.momentum,
        "decay": settings.weight_decay,
        "angle": 0.0,
        "saturation": given("saturation"),
        "exposure": given("value"),
        "hue": given("hue"),
        "jitter": f"{spelled('scale', settings.scale)} and {spelled('translate', settings.translate)} are",
        "random": _SAME_SIZE,
        "mosaic": given("mosaic"),
        "flip": given("flip"),
        "mixup": 0.0,
        "cutmix": 0.0,
        "iou_thresh": given("prior_iou"),
        "iou_loss": f"{spelled('box_loss', settings.box_loss.value)} is",
        "label_smooth_eps": 0.0,
        "ema_alpha": settings.average_decay,
    }
