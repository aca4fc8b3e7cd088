"""What a training begins with: the network with the data's classes, and weights that are whole, partial or random."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from yolov3_trt.errors import WeightsError
from yolov3_trt.geometry import HW
from yolov3_trt.layers import Conv
from yolov3_trt.models import Model, load_model, load_spec
from yolov3_trt.models.class_names import COCO_NAMES, load_class_names, numbered
from yolov3_trt.models.darknet_weights import (
    Weights,
    classes_of_file,
    partial_weights_from_darknet,
    weights_from_darknet,
)
from yolov3_trt.models.transfer import spec_with_classes, weights_with_classes
from yolov3_trt.spec import ModelSpec
from yolov3_trt.training.learner import initial_weights


@dataclass(frozen=True)
class Start:
    """The network, complete weights for it, and where they come from, in sentences."""

    spec: ModelSpec
    weights: Weights
    notes: tuple[str, ...]


def random_start(model: str, class_names: Sequence[str], seed: int, input_size: HW | None = None) -> Start:
    """Random weights."""
    spec = _sized(spec_with_classes(load_spec(model), len(class_names)), input_size)
    return Start(spec, initial_weights(spec, seed), (f"{spec.name}: random weights, seed {seed}",))


def starting_point(
    model: str,
    class_names: Sequence[str],
    seed: int,
    *,
    weights: str | Path | None = None,
    names: str | None = None,
    input_size: HW | None = None,
) -> Start:
    """Weights of the model, of the same network with other classes, or of its first layers.

    Args:
        model: a built-in name or a `.cfg`, which may have the data's number of classes already.
        class_names: of the data set.
        seed: of what starts anew.
        weights: Darknet weights; by default those of the model. A file that ends behind a layer, as `darknet partial` writes it
            (`darknet53.conv.74`), gives its layers; one of the same network with other classes gives all but the classes.
        names: of the classes that the weights are of; see `load_model`.
        input_size: px.

    Raises:
        WeightsError: the file is none of these.
        Yolov3TrtError: the model cannot be read.
    """
    if weights is not None:
        path, spec = Path(weights), _sized(load_spec(model), input_size)
        if (num_classes := classes_of_file(spec, path)) is not None and num_classes != spec.num_classes:
            return _of_other_classes(spec, path, _own_names(names, num_classes), class_names, seed)
        if (partial := partial_weights_from_darknet(spec, path)) is not None:
            return _of_first_layers(spec, path, partial, class_names, seed)
    return _carried_over(load_model(model, weights, names, input_size), class_names, seed)


def _own_names(names: str | None, num_classes: int) -> tuple[str, ...]:
    if names is not None:
        return load_class_names(names, num_classes)
    return COCO_NAMES if num_classes == len(COCO_NAMES) else numbered(num_classes).names


def _of_other_classes(
    spec: ModelSpec, path: Path, own_names: tuple[str, ...], class_names: Sequence[str], seed: int
) -> Start:
    trained = spec_with_classes(spec, len(own_names))
    arrays = weights_from_darknet(trained, path).arrays
    return _carried_over(Model(trained, arrays, own_names, path), class_names, seed)


def _of_first_layers(spec: ModelSpec, path: Path, partial: Weights, class_names: Sequence[str], seed: int) -> Start:
    spec = spec_with_classes(spec, len(class_names))
    fits = {key: array for key, array in partial.items() if spec.weight_shapes[key] == array.shape}
    if not fits:
        raise WeightsError(f"{path}: none of its layers is one of {spec.name}")
    loaded = len({key.split(".")[1] for key in fits})
    total = sum(isinstance(layer, Conv) and layer.shares is None for layer in spec.layers)
    note = f"{spec.name}: the first {loaded} of {total} convolutions from {path}; the others start anew, seed {seed}"
    return Start(spec, {**initial_weights(spec, seed), **fits}, (note,))


def _carried_over(model: Model, class_names: Sequence[str], seed: int) -> Start:
    spec = spec_with_classes(model.spec, len(class_names))
    transfer = weights_with_classes(model.spec, model.weights, model.class_names, spec, class_names, seed)
    notes = [f"{spec.name}: starts from {model.weights_path}"]
    if tuple(class_names) != model.class_names:
        kept, new = ", ".join(transfer.kept_classes) or "none", ", ".join(transfer.new_classes) or "none"
        notes.append(
            f"{spec.name}: heads made anew for {spec.num_classes} classes instead of {model.spec.num_classes}; boxes and "
            f"objectness are kept, so are the classes of the same name: {kept}; new: {new}"
        )
    return Start(spec, transfer.weights, tuple(notes))


def _sized(spec: ModelSpec, input_size: HW | None) -> ModelSpec:
    return spec if input_size is None else spec.with_input_hw(input_size)
