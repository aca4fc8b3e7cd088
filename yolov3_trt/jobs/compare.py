"""How far two artifacts of one network are apart on the same pictures, and from which layer on."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolov3_trt.arguments import flag, text
from yolov3_trt.backends.host_path import fit_batch
from yolov3_trt.comparison import Comparison, compare_detectors
from yolov3_trt.comparison.layers import (
    TOLERANCE,
    GraphProbe,
    LayerComparison,
    LayerProbe,
    ModelProbe,
    compare_layers,
)
from yolov3_trt.data.labelled import LabelledSet
from yolov3_trt.data.pictures import PictureSet
from yolov3_trt.detector import Detector
from yolov3_trt.errors import SettingError
from yolov3_trt.evaluation.accuracy import METRICS_RESAMPLED, RESAMPLES, Evaluation
from yolov3_trt.jobs.evaluate import evaluated, for_evaluation
from yolov3_trt.jobs.opening import Artifact, Opening, sets_from
from yolov3_trt.meta import Precision
from yolov3_trt.models.darknet_sections import sections_of
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
    """

    a: str
    b: str
    outputs: Comparison
    layers: LayerComparison | str | None
    cfg_line: str | None
    accuracy: Evaluation | None

    def to_json(self) -> dict[str, Any]:
        """As `compare --json` writes it."""
        content: dict[str, Any] = {"a": self.a, "b": self.b, **self.outputs.to_json(), "layers": self._layers_json()}
        if self.accuracy is not None:
            (difference,) = self.accuracy.differences
            for name, row in zip("ab", self.accuracy.rows, strict=True):
                content.setdefault("accuracy", {})[name] = {
                    metric: row.accuracy.metrics[metric] for metric in METRICS_RESAMPLED
                }
            content["accuracy"].update(difference.to_json())
            content["notes"] = list(self.accuracy.notes)
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
    layers: bool | None = None,
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
        layers: find the first layer that departs; None: where results do.
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
    opening = Opening(weights, names, input_size, backend, device, threads, flag("trust", trust))
    (detect,) = settings_from(settings, DetectSettings)
    pictures, labelled = sets_from(images, data, split, annotations, reporter)
    if pictures is None:
        raise SettingError("images", "missing; expected pictures, or data")
    with opening.open(artifacts[0], detect) as detector_a, opening.open(artifacts[1], detect) as detector_b:
        detectors = (detector_a, detector_b)
        outputs = compare_detectors(*detectors, reporter.track(pictures, "comparing", pictures.known_count))
        if layers is None:
            layers = _has_departed(outputs, _coarser(*detectors))
        found = _layers(artifacts, detectors, pictures, opening, reporter) if layers else None
    departed = found.departed if isinstance(found, LayerComparison) else None
    cfg_line = None if departed is None else _cfg_line(departed.layer, artifacts)
    accuracy = None
    if labelled is not None:
        scored = for_evaluation(DetectSettings(nms=detect.nms, resize=detect.resize))
        accuracy = Evaluation(evaluated(artifacts, opening, scored, labelled, _DRAWS, reporter), *_DRAWS)
    return Compared(*artifacts, outputs, found, cfg_line, accuracy)


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
    for artifact, detector in zip(artifacts, detectors, strict=True):
        if detector.backend.name.value not in ("torch", "onnxruntime"):
            return f"the layers of {artifact} cannot be looked into; compare the .onnx that it was made from"
    a, b = (_probe(artifact, detector, opening) for artifact, detector in zip(artifacts, detectors, strict=True))
    picture = next(iter(pictures)).pixels
    inputs = (fit_batch([picture], detectors[0].meta)[0], fit_batch([picture], detectors[1].meta)[0])

    def tracked(groups: Iterable[Any]) -> Iterable[Any]:
        return reporter.track(groups, "looking into layers", None)

    return compare_layers(a, b, inputs, _coarser(*detectors), tracked)


def _probe(artifact: str, detector: Detector, opening: Opening) -> LayerProbe:
    return ModelProbe(opening.load(artifact)) if detector.backend.name.value == "torch" else GraphProbe(Path(artifact))


def _cfg_line(layer: int, artifacts: Iterable[str]) -> str | None:
    """`FILE.cfg:LINE [section]` of a layer, where one of the artifacts is a cfg."""
    for artifact in artifacts:
        if Path(artifact).suffix != ".cfg":
            continue
        section = sections_of(Path(artifact).read_bytes(), artifact)[layer + 1]  # after [net]
        return f"{artifact}:{section.line} [{section.kind}]"
    return None
