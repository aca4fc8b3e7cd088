"""Whether what is here is a published model and computes what that computes: weights, network, heads, detections, AP."""

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from yolov3_trt.arguments import path as path_of
from yolov3_trt.arguments import text
from yolov3_trt.backends.host_path import fit_batch, network_of
from yolov3_trt.benchmarking.parity import TOLERANCES, Parity
from yolov3_trt.data.images import load_image
from yolov3_trt.data.labelled import LabelledSet
from yolov3_trt.detector import Detector, open_detector
from yolov3_trt.errors import SettingError, Yolov3TrtError
from yolov3_trt.evaluation import EVAL_CONF_THRESHOLD, evaluate
from yolov3_trt.files import sha256_of_file
from yolov3_trt.jobs.opening import sets_from
from yolov3_trt.meta import ModelMeta, OutputStage, Precision, Preprocess
from yolov3_trt.models import Model
from yolov3_trt.models.architectures import BUILT_IN
from yolov3_trt.models.goldens import DOG_SHA256, Golden, goldens, small_picture
from yolov3_trt.models.published import PUBLISHED
from yolov3_trt.reporter import SILENT, Reporter

# Relative error of the sampled values of a head; yolov3-tiny has 5e-6 in FP32, 4e-4 in FP16 and .046 in INT8.
_HEAD_ERROR = {"fp32": 1e-3, "tf32": 5e-3, "fp16": 5e-3, "int8": 0.2}
# AP that may be lost on 64 pictures.
_AP_LOSS = {Precision.FP32: 0.003, Precision.FP16: 0.003, Precision.INT8: 0.03}
# Scores in dog.jpg differ from Darknet's by its way of resizing: by .03 at most where that was measured.
_PRINTOUT = {Precision.FP32: 0.04, Precision.FP16: 0.05, Precision.INT8: 0.2}
_CONF = 0.25  # of the goldens


@dataclass(frozen=True)
class Check:
    """One thing that was looked at; `passed` is None where it could not be, and `text` says why."""

    name: str
    passed: bool | None
    text: str


@dataclass(frozen=True)
class Certificate:
    """What `certify` found.

    Attributes:
        artifact: what was looked at.
        model: which published model its weights are; None where they are none.
        precision: of what computes.
        checks: in the order of looking.
    """

    artifact: str
    model: str | None
    precision: Precision
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return all(check.passed is not False for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        """As `certify --json` writes it."""
        return {**asdict(self), "precision": self.precision.value, "passed": self.passed}


def certify(
    artifact: str | os.PathLike[str] | Model,
    *,
    picture: str | os.PathLike[str] | None = None,
    data: str | os.PathLike[str] | LabelledSet | None = None,
    split: str | None = None,
    images: str | os.PathLike[str] | None = None,
    weights: str | os.PathLike[str] | None = None,
    backend: str = "auto",
    trust: bool = False,
    reporter: Reporter = SILENT,
) -> Certificate:
    """Check that an artifact is a published model, whole, and that it finds what that model finds.

    Args:
        artifact: a built-in model, a `.cfg`, an `.onnx` or an `.engine` in any precision, or an address of one.
        picture: Darknet's dog.jpg, for which its makers published what is found.
        data: labelled pictures of COCO: AP is compared with that of the PyTorch reference; see `data.labelled_set`.
        split: of a data.yaml; None: `val`.
        images: folder of the images of a COCO JSON.
        weights: of a model; see `load_model`.
        backend: see `open_backend`, as for the next.
        trust: load an engine whoever owns it.
        reporter: told of the progress.

    Raises:
        Yolov3TrtError: the artifact or a file cannot be read. What is read and is wrong is in the result.

    >>> certify("yolov3-tiny").passed  # doctest: +SKIP
    True
    """
    shown = artifact.spec.name if isinstance(artifact, Model) else text("artifact", artifact)
    if data is None and images is not None:
        raise SettingError("images", "given without data; leave it out")
    labelled = sets_from(images, data, split, None, reporter)[1]
    with open_detector(artifact, weights=weights, backend=backend, trust=trust) as detector:
        meta = detector.meta
        model, digest = _weights(meta)
        golden = goldens().get(model or meta.name)
        checks = [digest, *_network(meta, model or meta.name), _heads(detector, golden), _picture(detector, golden)]
        if picture is not None:
            checks.append(_printout(detector, golden, path_of("picture", picture)))
    if labelled is not None:
        checks.append(_accuracy(artifact, weights, labelled, meta, model, reporter, backend=backend, trust=trust))
    return Certificate(shown, model, meta.precision, tuple(checks))


def _weights(meta: ModelMeta) -> tuple[str | None, Check]:
    """Which published model the weights are, by their digest alone."""
    got = meta.weights_sha256
    for name, published in PUBLISHED.items():
        if got is not None and published.digest == f"sha256:{got}":
            return name, Check("weights", True, f"those published of {name}, SHA-256 {got}")
    known = PUBLISHED.get(meta.name)
    if got is None:
        return None, Check("weights", False, "the artifact does not say which weights it has; export it again")
    if known is None or known.digest is None or not known.digest.startswith("sha256:"):
        return None, Check("weights", False, f"SHA-256 {got} is that of no published weights that this package knows")
    return None, Check(
        "weights",
        False,
        f"SHA-256 {got}; published of {meta.name} are {known.digest.partition(':')[2]}: other or damaged",
    )


def _network(meta: ModelMeta, name: str) -> Iterator[Check]:
    """Layers, anchors and input as the weights were trained with."""
    if name not in BUILT_IN:
        yield Check("network", None, f"{name} is not built in, so there is nothing to compare the network with")
        return
    spec = BUILT_IN[name]().with_input_hw(meta.input_hw)
    for got, expected in zip(meta.heads, spec.heads, strict=False):
        if got.anchors_wh != expected.anchors_wh:
            yield Check(
                "network",
                False,
                f"{got.name} has the anchors {_anchors(got.anchors_wh)}; the weights were trained with "
                f"{_anchors(expected.anchors_wh)}: another mask",
            )
            return
    same = meta.layers_sha256 in (spec.layers_sha256, spec.former_layers_sha256) and meta.heads == spec.heads
    text = f"layers, anchors and masks are those of {name}"
    yield Check("network", same, text if same else f"layers or heads are not those of {name}")
    wanted = Preprocess(resize=spec.resize)
    text = f"{wanted.resize.value}, padded with {wanted.pad_value}"
    if meta.preprocess != wanted:
        text = f"{meta.preprocess}; the published figures are of {wanted}"
    yield Check("input", meta.preprocess == wanted, text)


def _anchors(anchors_wh: tuple[tuple[float, float], ...]) -> str:
    return " ".join(f"{width:g},{height:g}" for width, height in anchors_wh)


def _missing_golden(detector: Detector, golden: Golden | None) -> str | None:
    """Why the small picture cannot be used."""
    meta = detector.meta
    if golden is None:
        return f"no goldens of {meta.name} come with this package; `compare` holds it to the PyTorch reference"
    if meta.input_hw != golden.input_hw:
        return "the goldens are of {1}x{0} px, this is {3}x{2}".format(*golden.input_hw, *meta.input_hw)
    if meta.frame_hw is not None:
        return "it takes whole frames only"
    return None


def _heads(detector: Detector, golden: Golden | None) -> Check:
    network, meta = network_of(detector.backend), detector.meta
    if (why := _missing_golden(detector, golden)) or golden is None:
        return Check("heads", None, why or "")
    if network is None or meta.output_stage is not OutputStage.HEADS:
        return Check("heads", None, "it gives detections only")
    batch, _ = fit_batch([load_image(small_picture())], meta)
    outputs, limit = network.infer(batch), _HEAD_ERROR[detector.arithmetic]
    errors = {}
    for name, (index, expected) in golden.heads.items():
        got = outputs[name][0].reshape(-1)[index]
        errors[name] = float(np.linalg.norm(got - expected) / np.linalg.norm(expected))
    worst = max(errors, key=lambda name: (np.isnan(errors[name]), errors[name]))
    text = f"largest relative error {errors[worst]:.2g}, of {worst}; expected at most {limit:g}"
    return Check("heads", bool(errors[worst] <= limit), text)


def _picture(detector: Detector, golden: Golden | None) -> Check:
    if (why := _missing_golden(detector, golden)) or golden is None:
        return Check("picture", None, why or "")
    conf = max(_CONF, detector.meta.postprocess.conf)
    found = detector(load_image(small_picture()))
    parity = Parity("golden", TOLERANCES[detector.arithmetic])
    parity.add(golden.found[golden.found.scores > conf], found[found.scores > conf], conf)
    text = (
        f"{parity.pairs.matched} of {len(golden.found)} objects, scores within {parity.pairs.max_score_difference:.2g}"
    )
    return Check("picture", parity.passed, "; ".join((text, *parity.faults)))


def _printout(detector: Detector, golden: Golden | None, picture: Path) -> Check:
    if golden is None or not golden.printout:
        return Check("printout", None, f"no printout of {detector.meta.name} is known")
    image = load_image(picture)
    if sha256_of_file(picture) != DOG_SHA256:
        return Check("printout", False, f"{picture} is not Darknet's dog.jpg (SHA-256 {DOG_SHA256})")
    if detector.meta.frame_hw not in (None, image.shape[:2]):
        return Check("printout", None, "it takes whole frames only")
    best: dict[str, float] = {}
    for row in detector(image):
        best.setdefault(row.class_name, row.score)
    limit, faults, lines = _PRINTOUT[detector.meta.precision], [], []
    for name, percent in golden.printout:
        score = best.get(name, 0.0)
        lines.append(f"{name} {score:.0%} ({percent}%)")
        if abs(score - percent / 100) > limit:
            faults.append(name)
    text = f"{', '.join(lines)}; published in brackets, expected within {limit:.0%}"
    return Check("printout", not faults, text)


def _accuracy(
    artifact: str | os.PathLike[str] | Model,
    weights: str | os.PathLike[str] | None,
    labelled: LabelledSet,
    meta: ModelMeta,
    model: str | None,
    reporter: Reporter,
    **opening: Any,
) -> Check:
    """AP beside that of the PyTorch reference of the published model, on the same pictures."""
    if model not in BUILT_IN:
        return Check("AP", None, "there is no built-in network to compare with")
    from yolov3_trt.models import default_weights_path

    at_hand = [default_weights_path(model)]
    if isinstance(artifact, Model):
        at_hand.insert(0, artifact.weights_path)
    elif weights is not None or os.fspath(artifact) not in BUILT_IN:
        at_hand.insert(0, Path(weights) if weights is not None else Path(artifact).with_suffix(".weights"))
    own = next((path for path in at_hand if path.is_file() and sha256_of_file(path) == meta.weights_sha256), None)
    if own is None:
        return Check(
            "AP", None, f"the weights of {model} are not at hand, so there is no PyTorch reference to compare with"
        )
    conf = EVAL_CONF_THRESHOLD if meta.output_stage is OutputStage.HEADS else meta.postprocess.conf
    truth = labelled.truth_for(meta.class_names)
    for note in truth.notes:
        reporter.say(f"note: {note}")

    def ap_of(detector: Detector, what: str) -> float:
        return float(evaluate(detector, truth, lambda items: reporter.track(items, what, len(truth.images)))["AP"] or 0)

    try:
        reference = open_detector(model, weights=own, input_size=meta.input_hw, conf=conf)
    except Yolov3TrtError as exc:
        return Check("AP", None, f"there is no PyTorch reference to compare with: {exc}")
    with reference:
        expected = ap_of(reference, "AP of the reference")
    with open_detector(artifact, weights=weights, conf=conf, **opening) as detector:
        got = ap_of(detector, "AP")
    limit = _AP_LOSS[meta.precision]
    text = f"{got:.4f}; the PyTorch reference: {expected:.4f} on these {len(truth.images)} pictures; expected within {limit:g}"
    return Check("AP", got >= expected - limit, text)
