"""How far two artifacts of one network are apart on the same pictures, and from which layer on."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolov3_trt.arguments import flag, text
from yolov3_trt.backends.host_path import fit_batch
from yolov3_trt.comparison import Comparison, compare_detectors
from yolov3_trt.comparison.explain import Explanation
from yolov3_trt.comparison.explain import explain as explain_sides
from yolov3_trt.comparison.layers import TOLERANCE, GraphProbe, LayerComparison, ModelProbe, compare_layers
from yolov3_trt.comparison.networks import Side
from yolov3_trt.data.images import load_image
from yolov3_trt.data.labelled import LabelledSet
from yolov3_trt.data.pictures import PictureSet
from yolov3_trt.detections import Detections
from yolov3_trt.detector import Detector
from yolov3_trt.errors import SettingError, require
from yolov3_trt.evaluation import EVAL_CONF_THRESHOLD, score_detections
from yolov3_trt.evaluation.accuracy import METRICS_RESAMPLED, RESAMPLES, Evaluation
from yolov3_trt.evaluation.bootstrap import draw_images
from yolov3_trt.evaluation.proof import agreement_scores, with_interval
from yolov3_trt.jobs.evaluate import evaluated, for_evaluation
from yolov3_trt.jobs.opening import Artifact, Opening, sets_from
from yolov3_trt.meta import Precision
from yolov3_trt.models import is_model
from yolov3_trt.models.darknet_sections import sections_of
from yolov3_trt.preprocess import Image
from yolov3_trt.reporter import SILENT, Reporter
from yolov3_trt.settings import DetectSettings, settings_from

_DRAWS = (RESAMPLES, 0)  # of the pictures for the interval of the AP difference, and their seed
_FEW_MATCHES = 0.9  # where there are no heads, a smaller share of matched detections asks for a look into the layers


@dataclass(frozen=True, eq=False)
class Compared:
    """Two artifacts on the same pictures.

    Attributes:
        a: the first, which is taken for right.
        b: the second.
        outputs: how far heads and detections are apart.
        layers: their layers up to the one where they part, or why nobody could look; None: nobody did.
        cfg_line: `FILE.cfg:LINE [section]` of that layer, where one of the two is a cfg.
        accuracy: average precision of both, where there were labels.
        explanation: what the two differ in and what each of that costs, where it was asked for.
        agreement: AP of B with what A finds from a confidence of 0.25 on as the truth, 0..1, which needs no labels; None where
            A finds nothing there, or one of the two gives no heads.
        agreement_interval: of that, 95 %.
    """

    a: str
    b: str
    outputs: Comparison
    layers: LayerComparison | str | None
    cfg_line: str | None
    accuracy: Evaluation | None
    explanation: Explanation | None = None
    agreement: float | None = None
    agreement_interval: tuple[float, float] | None = None

    def to_json(self) -> dict[str, Any]:
        """As `compare --json` writes it."""
        content: dict[str, Any] = {"a": self.a, "b": self.b, **self.outputs.to_json(), "layers": self._layers_json()}
        content |= {"agreement": self.agreement, "agreement_interval": self.agreement_interval}
        if self.accuracy is not None:
            (difference,) = self.accuracy.differences
            for name, row in zip("ab", self.accuracy.rows, strict=True):
                content.setdefault("accuracy", {})[name] = {
                    metric: row.accuracy.metrics[metric] for metric in METRICS_RESAMPLED
                }
            content["accuracy"].update(difference.to_json())
            content["notes"] = list(self.accuracy.notes)
        if self.explanation is not None:
            content["explanation"] = self.explanation.to_json()
        return content

    def _layers_json(self) -> dict[str, Any] | None:
        if self.layers is None:
            return None
        if isinstance(self.layers, str):
            return {"reason": self.layers}
        content = self.layers.to_json()
        if self.layers.departed is not None:
            content["departed"]["cfg"] = self.cfg_line
        return content


def compare(
    a: Artifact,
    b: Artifact,
    *,
    images: Artifact | Sequence[Artifact] | PictureSet | None = None,
    data: Artifact | LabelledSet | None = None,
    split: str | None = None,
    annotations: Artifact | None = None,
    skip_faulty: bool = False,
    layers: bool | None = None,
    explain: bool = False,
    weights: Artifact | None = None,
    names: str | None = None,
    input_size: Any = None,
    backend: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    trust: bool = False,
    reporter: Reporter = SILENT,
    **settings: Any,
) -> Compared:
    """Run two artifacts of one network on the same pictures and say how far they are apart.

    Args:
        a: what `open_detector` opens; taken for right.
        b: the other one.
        images: pictures, see `data.picture_set`; None: those of `data`.
        data: labelled pictures, see `data.labelled_set`: shows the difference in average precision. With a COCO JSON
            `images` may be the folder of its images.
        split: of a data.yaml; None: `val`.
        annotations: COCO instances of `images`, which is one folder then; the same as `data`.
        skip_faulty: leave out faulty labels and pictures, which is said, instead of refusing the set.
        layers: find the first layer that departs; None: where results do.
        explain: find what the two differ in (how pictures are fitted, anchors, suppression, order of channels, batch norm,
            layers, precision), and what each costs alone: in AP with `data`, else in detections that they share.
        weights: of whichever is a model; so are the next two. See `open_detector`.
        names: class names of a model.
        input_size: of a model, px.
        backend: what must run both, and so on for the next three; see `open_detector`.
        device: `cpu`, `cuda` or `auto`.
        threads: CPU threads of the backend.
        trust: of engines.
        reporter: is told how it gets on.
        settings: any of `DetectSettings`.

    Raises:
        SettingError: an argument has no such value, or no pictures are named.
        BackendError: the two are of different networks.
        Yolov3TrtError: an artifact or a picture cannot be read.

    >>> compare("yolov3-fp32.onnx", "yolov3-int8.onnx", images="photos/").outputs.pairs.matched  # doctest: +SKIP
    """
    artifacts = (text("a", a), text("b", b))
    if backend == "auto" and any(map(is_model, artifacts)):  # not its graph on ONNX Runtime, which is what is compared
        require("torch", extra="export")
    opening = Opening(weights, names, input_size, backend, device, threads, flag("trust", trust))
    (detect,) = settings_from(settings, DetectSettings)
    pictures, labelled = sets_from(
        images, data, split, annotations, reporter, skip_faulty=flag("skip_faulty", skip_faulty)
    )
    if pictures is None:
        raise SettingError("images", "missing; expected pictures, or data")
    with opening.open(artifacts[0], detect) as detector_a, opening.open(artifacts[1], detect) as detector_b:
        detectors = (detector_a, detector_b)
        tracked = reporter.track(pictures, "comparing", pictures.known_count)
        outputs = compare_detectors(*detectors, tracked, EVAL_CONF_THRESHOLD)
        agreement = _agreement(outputs, detector_a.meta.class_names)
        if layers is None:
            layers = not explain and _has_departed(outputs, _coarser(*detectors))
        found = _layers(artifacts, detectors, pictures, opening, reporter) if layers else None
    explanation = None
    if flag("explain", explain):
        explanation = _explained(artifacts, opening, detect, pictures, labelled, reporter)
        found = explanation.layers
    departed = found.departed if isinstance(found, LayerComparison) else None
    cfg_line = None if departed is None else _cfg_line(departed.layer, artifacts)
    accuracy = None
    if labelled is not None:
        scored = _for_scores(detect)
        accuracy = Evaluation(evaluated(artifacts, opening, scored, labelled, _DRAWS, reporter), *_DRAWS)
    return Compared(*artifacts, outputs, found, cfg_line, accuracy, explanation, *agreement)


def _agreement(
    found: Comparison, class_names: Sequence[str]
) -> tuple[float, tuple[float, float] | None] | tuple[None, None]:
    """AP of B against A, and its interval."""
    low_a, low_b = (dict(enumerate(each)) for each in found.low)
    if not low_a:
        return None, None
    return with_interval(agreement_scores(low_a, low_b, class_names), draw_images(len(low_a), *_DRAWS))


def _coarser(a: Detector, b: Detector) -> Precision:
    order = list(Precision)  # from the finest on
    return max(a.meta.precision, b.meta.precision, key=order.index)


def _has_departed(found: Comparison, precision: Precision) -> bool:
    """Whether the heads are further apart than the precision explains, or detections are missing."""
    heads = all(head.relative <= TOLERANCE[precision] for head in found.heads.values())
    pairs = found.pairs
    return not heads or 2 * pairs.matched < _FEW_MATCHES * (pairs.detections_a + pairs.detections_b)


def _layers(
    artifacts: tuple[str, str],
    detectors: tuple[Detector, Detector],
    pictures: PictureSet,
    opening: Opening,
    reporter: Reporter,
) -> LayerComparison | str:
    """The layers of both on the first picture; or why they cannot be looked into."""
    sides = tuple(_side(*pair, opening) for pair in zip(artifacts, detectors, strict=True))
    if (why_not := _closed(artifacts, sides)) is not None:
        return why_not
    picture = next(iter(pictures)).pixels
    inputs = (fit_batch([picture], detectors[0].meta)[0], fit_batch([picture], detectors[1].meta)[0])
    probe_a, probe_b = (side.probe for side in sides)
    assert probe_a is not None and probe_b is not None
    return compare_layers(probe_a, probe_b, inputs, _coarser(*detectors), _tracked_layers(reporter))


def _explained(
    artifacts: tuple[str, str],
    opening: Opening,
    detect: DetectSettings,
    pictures: PictureSet,
    labelled: LabelledSet | None,
    reporter: Reporter,
) -> Explanation:
    """What the two differ in; with labels at the threshold of an evaluation."""
    settings = detect if labelled is None else _for_scores(detect)
    with opening.open(artifacts[0], settings) as detector_a, opening.open(artifacts[1], settings) as detector_b:
        sides = (_side(artifacts[0], detector_a, opening), _side(artifacts[1], detector_b, opening))
        own_conf = detector_a.backend.meta.postprocess.conf if detect.conf is None else detect.conf
        truth = None if labelled is None else labelled.truth_for(detector_a.meta.class_names)

        def keyed() -> Iterator[tuple[Any, Image]]:
            if truth is None:
                return ((number, image.pixels) for number, image in enumerate(pictures))
            return ((key, load_image(path)) for key, path in truth.paths.items())

        def score(found: Mapping[Any, Detections], class_names: Sequence[str]) -> float | None:
            assert labelled is not None
            return score_detections(labelled.truth_for(class_names), found).metrics["AP"]

        def tracked(items: Iterable[Any], what: str) -> Iterable[Any]:
            return reporter.track(items, what, pictures.known_count if what == "explaining" else None)

        of_labels: dict[str, Any] = {} if truth is None else {"score": score, "conf": own_conf}
        return explain_sides(*sides, keyed, why_not=_closed(artifacts, sides), track=tracked, **of_labels)


def _for_scores(detect: DetectSettings) -> DetectSettings:
    return for_evaluation(DetectSettings(nms=detect.nms, resize=detect.resize))


def _tracked_layers(reporter: Reporter) -> Callable[[Iterable[Any]], Iterable[Any]]:
    return lambda groups: reporter.track(groups, "looking into layers", None)


def _side(artifact: str, detector: Detector, opening: Opening) -> Side:
    """An artifact with its layers, where one can look into them: of models, and of graphs that this package exported."""
    kind = detector.backend.name.value
    if kind == "torch":
        model = opening.load(artifact)
        return Side(detector, ModelProbe(model), model)
    probe = GraphProbe(Path(artifact)) if kind == "onnxruntime" else None
    there = probe is not None and {head.layer - 1 for head in detector.meta.heads} <= set(probe.layers)
    return Side(detector, probe if there else None)


def _closed(artifacts: Sequence[str], sides: Sequence[Side]) -> str | None:
    """Why the layers of the two cannot be looked into; None: they can."""
    for artifact, side in zip(artifacts, sides, strict=True):
        if side.probe is None:
            other = "another program named them" if side.detector.backend.name.value == "onnxruntime" else None
            return (
                f"the layers of {artifact} cannot be looked into; {other or 'compare the .onnx that it was made from'}"
            )
    return None


def _cfg_line(layer: int, artifacts: Iterable[str]) -> str | None:
    """`FILE.cfg:LINE [section]` of a layer, where one of the artifacts is a cfg."""
    for artifact in artifacts:
        if Path(artifact).suffix != ".cfg":
            continue
        section = sections_of(Path(artifact).read_bytes(), artifact)[layer + 1]  # after [net]
        return f"{artifact}:{section.line} [{section.kind}]"
    return None
