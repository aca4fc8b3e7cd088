"""Why two artifacts of one network find different things: each thing that they differ in, put alone into the first.

A is what is right. What stands in sidecars (resize, anchors, suppression, thresholds) is read there. What does not is found
out on a few pictures: whether B reads the channels of colours in the other order, whether its batch norms divide otherwise, and
the first layer that departs once that is allowed for. Then A runs on all pictures with one of B's things at a time.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from enum import Enum
from typing import Any

import numpy as np

from yolov3_trt.comparison.heads import HeadDifference
from yolov3_trt.comparison.layers import (
    ROUNDING,
    TOLERANCE,
    LayerComparison,
    ModelProbe,
    compare_layers,
    relative_error,
)
from yolov3_trt.comparison.networks import Heads, Network, Side
from yolov3_trt.detections import Detections
from yolov3_trt.errors import BackendError
from yolov3_trt.geometry import Placement
from yolov3_trt.matching import MatchedPairs
from yolov3_trt.meta import ModelMeta, OutputStage, Postprocess, Precision, Preprocess
from yolov3_trt.postprocess import detections_from_outputs
from yolov3_trt.preprocess import Image
from yolov3_trt.spec import BatchNorm, Head, Nms, NmsKind

Keyed = Callable[[], Iterator[tuple[Any, Image]]]  # a pass over the pictures, each with its key
Score = Callable[
    [Mapping[Any, Detections], Sequence[str]], float | None
]  # AP of detections by key, for these class names

_SAMPLE = 3  # pictures that what is not in sidecars is found out on
_CLOSER = 0.5  # the channels are in the other order where that brings the networks so much closer
_SAME = 0.1  # and batch norms divide otherwise where that does
_RULES = (BatchNorm(), BatchNorm(1e-6, after_sqrt=True), BatchNorm(1e-3))  # AlexeyAB's, pjreddie's, Keras'


@dataclass(frozen=True)
class Difference:
    """One thing that two artifacts differ in, and what comes of it alone.

    Attributes:
        what: it is, e.g. `resize` or `anchors of head1`.
        a: what A has.
        b: what B has.
        agreement: share of the detections that A and A with B's thing have in common, 0..1.
        ap: average precision of A with B's thing; None without labels.
        cost: how much lower that is than A's; without labels how much agreement is lacking.
    """

    what: str
    a: str
    b: str
    agreement: float
    ap: float | None
    cost: float

    def to_json(self) -> dict[str, Any]:
        """As `compare --explain --json` writes it."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {**{name: value for name, value in values.items() if name != "ap"}, "AP": self.ap}


@dataclass(frozen=True)
class Explanation:
    """What two artifacts differ in.

    Attributes:
        differences: the costliest first.
        ap: of A and of B; None each without labels.
        agreement: share of the detections that A and B have in common, 0..1.
        layers: of both, up to the one where they part, or why nobody could look.
        notes: what could not be tried, and why.
    """

    differences: tuple[Difference, ...]
    ap: tuple[float | None, float | None]
    agreement: float
    layers: LayerComparison | str
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As `compare --explain --json` writes it."""
        return {
            "AP": dict(zip("ab", self.ap, strict=True)),
            "agreement": self.agreement,
            "differences": [difference.to_json() for difference in self.differences],
            "notes": list(self.notes),
        }


@dataclass(frozen=True, eq=False)
class _Trial:
    """A with one thing of B's."""

    what: str
    a: str
    b: str
    network: Network
    meta: ModelMeta


def explain(
    a: Side,
    b: Side,
    pictures: Keyed,
    *,
    why_not: str | None = None,
    score: Score | None = None,
    conf: float | None = None,
    track: Callable[[Iterable[Any], str], Iterable[Any]] = lambda items, what: items,
) -> Explanation:
    """Find what two artifacts of one network differ in, and try each in A alone.

    Args:
        a: what is right.
        b: what is asked.
        pictures: each call is a pass over them.
        why_not: why the layers of the two cannot be looked into; None: they can.
        score: gives AP; None without labels.
        conf: detections above it are what has to agree; None: all.
        track: wraps an iteration: items, what is done to them.

    Raises:
        BackendError: A gives detections only.
    """
    network_a = a.network()
    if network_a is None:
        raise BackendError(
            f"{a.meta.name}: only detections come out of A, so nothing of B's can be tried in it; expected a model, "
            "an .onnx, or an engine that gives heads"
        )
    sample = [pixels for _, (_, pixels) in zip(range(_SAMPLE), pictures(), strict=False)]
    trials, notes = _of_sidecars(network_a, a.meta, b.meta)
    if b.meta.frame_hw is not None or b.network() is None:
        layers: LayerComparison | str = (
            "B's network cannot be run alone: its channels, layers and precision were not tried"
        )
    else:
        found, layers = _of_networks(a, b, sample, why_not, lambda groups: track(groups, "looking into layers"))
        trials += found
    whole = _Trial("A", "", "", network_a, a.meta)
    pairs: list[MatchedPairs] = [MatchedPairs() for _ in (*trials, b)]
    found_by: list[dict[Any, Detections]] = [{} for _ in (whole, *trials, b)]
    for key, pixels in track(pictures(), "explaining"):
        kept: dict[Any, Any] = {}
        rows = [_detect(trial, pixels, kept) for trial in (whole, *trials)] + [b.detector(pixels)]
        for mine, row in zip(pairs, rows[1:], strict=True):
            mine.add(_above(rows[0], conf), _above(row, conf))
        for by_key, row in zip(found_by, rows, strict=True) if score else ():
            by_key[key] = row
    names = [a.meta.class_names, *(trial.meta.class_names for trial in trials), b.meta.class_names]
    aps = [score(by_key, of) for by_key, of in zip(found_by, names, strict=True)] if score else [None] * len(names)
    differences = [
        _difference(trial, pair.agreement, aps[0], ap) for trial, pair, ap in zip(trials, pairs, aps[1:], strict=False)
    ]
    differences.sort(key=lambda difference: -difference.cost)
    return Explanation(tuple(differences), (aps[0], aps[-1]), pairs[-1].agreement, layers, tuple(notes))


def _of_sidecars(network: Network, a: ModelMeta, b: ModelMeta) -> tuple[list[_Trial], list[str]]:
    """What the sidecars of two artifacts say otherwise, each alone in A; and what cannot be put into A."""
    trials, notes = [], []
    for part, kind in (("preprocess", Preprocess), ("postprocess", Postprocess)):
        for item in fields(kind):
            own, other = (getattr(getattr(meta, part), item.name) for meta in (a, b))
            if own == other:
                continue
            if part == "preprocess" and a.frame_hw:
                notes.append(
                    f"{item.name}: {_text(own)} in A, {_text(other)} in B; A resizes in its graph, so it was not tried"
                )
                continue
            changed = replace(a, **{part: replace(getattr(a, part), **{item.name: other})})
            trials.append(_Trial(item.name, _text(own), _text(other), network, changed))
    for number, (head_a, head_b) in enumerate(zip(a.heads, b.heads, strict=True)):
        for name, what in (("anchors_wh", "anchors (mask)"), ("scale_xy", "scale_x_y"), ("kind", "kind")):
            own, other = getattr(head_a, name), getattr(head_b, name)
            if own != other:
                heads: tuple[Head, ...] = tuple(
                    replace(head, **{name: other}) if n == number else head for n, head in enumerate(a.heads)
                )
                trials.append(
                    _Trial(f"{what} of {head_a.name}", _text(own), _text(other), network, replace(a, heads=heads))
                )
    if a.class_names != b.class_names:
        own, other = next(pair for pair in zip(a.class_names, b.class_names, strict=True) if pair[0] != pair[1])
        trials.append(
            _Trial("class names", f"{own}, ...", f"{other}, ...", network, replace(a, class_names=b.class_names))
        )
    return trials, notes


def _of_networks(
    a: Side,
    b: Side,
    sample: Sequence[Image],
    why_not: str | None,
    progress: Callable[[Iterable[Any]], Iterable[Any]],
) -> tuple[list[_Trial], LayerComparison | str]:
    """What two networks do otherwise, each alone in A; and their layers once channels and batch norm are allowed for."""
    meta, trials = a.meta, []
    precision = max(meta.precision, b.meta.precision, key=list(Precision).index)
    other_way = replace(b, turned=True)
    if _distance(a, other_way, sample, precision) < _CLOSER * _distance(a, b, sample, precision):
        trials.append(_Trial("channel order", "RGB", "BGR", _network(replace(a, turned=True)), meta))
        b = other_way
    for side, other in ((a, b), (b, a)):
        rule = _other_batch_norm(side, other, sample, precision)
        if rule is None or side.model is None:
            continue
        model = replace(side.model, spec=replace(side.model.spec, batch_norm=rule))
        changed, rules = replace(side, probe=ModelProbe(model)), (_text(side.model.spec.batch_norm), _text(rule))
        if side is a:
            trials.append(_Trial("batch norm", *rules, _network(changed), meta))
            a = changed
        else:
            trials.append(_Trial("batch norm", *rules[::-1], _network(b), meta))
            b = changed
        break
    layers: LayerComparison | str = why_not or ""
    rest, what = _network(b), "weights"
    if a.probe is not None and b.probe is not None:
        inputs = (a.fit(sample[0], meta.preprocess)[0], b.fit(sample[0], meta.preprocess)[0])
        layers = compare_layers(a.probe, b.probe, inputs, precision, progress)
        if layers.departed is not None:
            at, error = layers.departed.layer, f"{layers.departed.error:.2g} off"
            trials.append(_Trial(f"layer {at}", layers.departed.name, error, a.with_layer_of(b, at), meta))
            rest, what = b.with_layer_of(a, at), "layers after it"
    if meta.precision is not b.meta.precision:
        trials.append(_Trial("precision", meta.precision.value, b.meta.precision.value, rest, meta))
    elif (apart := _error(_network(a), rest, meta.preprocess, sample)) > TOLERANCE[precision]:
        trials.append(_Trial(what, "", f"{apart:.2g} off", rest, meta))
    return trials, layers


def _other_batch_norm(side: Side, other: Side, sample: Sequence[Image], precision: Precision) -> BatchNorm | None:
    """How the batch norms of a model would have to divide for it to be as the other one; None: as they do."""
    if side.model is None or side.probe is None:
        return None
    own, apart = side.model.spec.batch_norm, _distance(side, other, sample, precision)
    if not apart > ROUNDING[precision] / _SAME:
        return None
    distances = {}
    for rule in _RULES:
        if rule != own:
            spec = replace(side.model.spec, batch_norm=rule)
            changed = replace(side, probe=ModelProbe(replace(side.model, spec=spec)))
            distances[rule] = _distance(changed, other, sample, precision)
    rule = min(distances, key=lambda rule: distances[rule])
    return rule if distances[rule] < _SAME * apart else None


def _distance(a: Side, b: Side, sample: Sequence[Image], precision: Precision) -> float:
    """How far the first layers of two are apart, or where nobody can look into them their heads; relative."""
    if a.probe is None or b.probe is None:
        return _error(_network(a), _network(b), a.meta.preprocess, sample)
    first = a.probe.layers[0]
    runs = (a.probe.runner([first]), b.probe.runner([first]))
    errors = []
    for pixels in sample:
        maps = [run(side.fit(pixels, a.meta.preprocess)[0])[first] for side, run in zip((a, b), runs, strict=True)]
        errors.append(relative_error(*maps, equalised=precision is Precision.INT8))
    return float(np.mean(errors))


def _error(a: Network, b: Network, preprocess: Preprocess, sample: Sequence[Image]) -> float:
    """How far the heads of two are apart, relative; of the worst head."""
    heads: dict[str, HeadDifference] = {}
    for pixels in sample:
        found_a, found_b = a(pixels, preprocess)[0], b(pixels, preprocess)[0]
        for name, array in found_a.items():
            heads.setdefault(name, HeadDifference()).add(array, found_b[name])
    return max(head.relative for head in heads.values())


def _network(side: Side) -> Network:
    network = side.network()
    assert network is not None  # the caller has made sure
    return network


def _detect(trial: _Trial, pixels: Image, kept: dict[Any, tuple[Heads, tuple[Placement, ...]]]) -> Detections:
    """What is found in a picture; what a network gives for it is computed once."""
    key = (id(trial.network), trial.meta.preprocess)
    if key not in kept:
        kept[key] = trial.network(pixels, trial.meta.preprocess)
    heads, placements = kept[key]
    meta = replace(trial.meta, output_stage=OutputStage.HEADS)
    return detections_from_outputs(heads, meta, meta.postprocess, placements)[0]


def _above(found: Detections, conf: float | None) -> Detections:
    return found if conf is None else found[found.scores > conf]


def _difference(trial: _Trial, agreement: float, ap_a: float | None, ap: float | None) -> Difference:
    cost = 1 - agreement if ap is None or ap_a is None else ap_a - ap
    return Difference(trial.what, trial.a, trial.b, agreement, ap, cost)


def _text(value: Any) -> str:
    """A value of a sidecar, as users write it."""
    if isinstance(value, Nms):
        return value.kind.value + (f" {value.beta:g}" if value.kind is NmsKind.DIOU else "")
    if isinstance(value, BatchNorm):
        return f"{value.epsilon:g}" + (" after the root" if value.after_sqrt else "")
    if isinstance(value, tuple):
        return " ".join(f"{width:g},{height:g}" for width, height in value)
    return str(value.value) if isinstance(value, Enum) else f"{value:.4g}"
