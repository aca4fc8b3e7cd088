"""INT8 within an accuracy budget: calibrate, find the layers that have to stay float, export."""

import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from yolov3_trt.arguments import integer, number
from yolov3_trt.arguments import path as path_of
from yolov3_trt.calibration.distilled import load_weights
from yolov3_trt.calibration.table import save_table
from yolov3_trt.certificate import MIN_PROOF_IMAGES, Certificate
from yolov3_trt.data import labelled_set
from yolov3_trt.data.fingerprints import PictureList, hashes_of
from yolov3_trt.data.labelled import LabelledSet
from yolov3_trt.detector import open_detector
from yolov3_trt.errors import SettingError
from yolov3_trt.evaluation import EVAL_CONF_THRESHOLD, detect_all, evaluate, score_detections
from yolov3_trt.evaluation.proof import agreement_scores, certificate
from yolov3_trt.files import Written, sha256_of_file
from yolov3_trt.jobs.calibrate import calibrated_at, open_pictures
from yolov3_trt.jobs.export import Exported, artifact_stem, model_from, write_graph
from yolov3_trt.meta import Precision, save_sidecar
from yolov3_trt.models import Model
from yolov3_trt.preprocess import prepare_batch
from yolov3_trt.reporter import SILENT, Reporter
from yolov3_trt.sensitivity import (
    QuantizedVariants,
    Sensitivity,
    int8_share,
    quantisable_layers,
    search_float_layers,
    sensitivities,
    with_ap,
)
from yolov3_trt.settings import CalibrationSettings, DetectSettings, GraphSettings, settings_from

WORST_LAYERS = 10  # of which AP is measured as well
_SENSITIVITY_IMAGES = 8


@dataclass(frozen=True, repr=False)
class Quantized(Written):
    """An INT8 graph within its accuracy budget; goes wherever the path of a graph does.

    Attributes:
        export: the graph.
        table: file of its ranges.
        ap_fp32: average precision of the FP32 graph, 0..1.
        ap_int8_throughout: with every layer in int8.
        ap: of this graph.
        max_ap_drop: the budget.
        float_layers: that stay float, noisiest first.
        num_layers: that could be int8.
        int8_share_of_macs: share of the convolutions' multiply-adds that are done in int8.
        ap_by_count: what was tried: AP by the number of the noisiest layers left float.
        sensitivities: of all layers, noisiest first.
        certificate: what the drop is on pictures that the search did not see; None where there are too few for both.
    """

    export: Exported
    table: Path
    ap_fp32: float
    ap_int8_throughout: float
    ap: float
    max_ap_drop: float
    float_layers: tuple[int, ...]
    num_layers: int
    int8_share_of_macs: float
    ap_by_count: dict[int, float]
    sensitivities: tuple[Sensitivity, ...]
    certificate: Certificate | None = None

    @property
    def path(self) -> Path:  # type: ignore[override]  # that of frozen classes is read-only too
        """Of the graph."""
        return self.export.path

    def to_json(self) -> dict[str, Any]:
        """As `quantize --json` writes it."""
        return {
            "ap_fp32": self.ap_fp32,
            "ap_int8_throughout": self.ap_int8_throughout,
            "ap": self.ap,
            "max_ap_drop": self.max_ap_drop,
            "float_layers": list(self.float_layers),
            "int8_share_of_macs": self.int8_share_of_macs,
            "ap_by_count": dict(self.ap_by_count),
            "certificate": None if self.certificate is None else self.certificate.to_json(),
            "sensitivities": [asdict(row) for row in self.sensitivities],
            "export": self.export.to_json(),
        }


def quantize(
    model: str | os.PathLike[str] | Model,
    folder: str | os.PathLike[str] = "engines",
    *,
    data: str | os.PathLike[str] | LabelledSet | None = None,
    split: str | None = None,
    val_images: str | os.PathLike[str] | None = None,
    annotations: str | os.PathLike[str] | None = None,
    max_ap_drop: float = 0.005,
    layer_ap: int = WORST_LAYERS,
    weights: str | os.PathLike[str] | None = None,
    names: str | os.PathLike[str] | None = None,
    input_size: Any = None,
    reporter: Reporter = SILENT,
    **settings: Any,
) -> Quantized:
    """Calibrate, quantise, and leave as few layers float as the accuracy budget allows; then prove it on other pictures.

    Half of the labelled pictures, by the hash of their contents, are kept from the search; the certificate is of those. Where
    that leaves fewer than `MIN_PROOF_IMAGES` to either, all are searched on and there is no certificate. It stands in the
    graph's sidecar and in the table, from where graphs of the same ranges and float layers take it.

    Args:
        model: a built-in name, a `.cfg`, or what `load_model` gave.
        folder: for the FP32 graph, the table and the INT8 graph.
        data: labelled pictures that accuracy is measured on: a YOLO data.yaml, a COCO JSON, or a set; see `data.labelled_set`.
            With a data.yaml and no `images`, its train part is calibrated on.
        split: of a data.yaml; None: `val`.
        val_images: folder of the images of a COCO JSON.
        annotations: COCO instances (JSON), the same as `data`.
        max_ap_drop: how much average precision INT8 may cost, 0..1.
        layer_ap: of how many of the noisiest layers to measure AP on their own as well.
        weights: Darknet `.weights`; see `load_model`, as for the next two.
        names: of the classes.
        input_size: px.
        reporter: told of what is tried, and of the progress.
        settings: any of `GraphSettings`, `CalibrationSettings` (`images` is needed) and `DetectSettings`, as for `export`;
            `precision` and `float_layers` are found here.

    Raises:
        SettingError: a setting has no such value, or does not go with another.
        CalibrationError: the budget is smaller than what FP16 costs, or see `calibrate`.
        EvaluationError: the annotations are not of this model or these pictures.
        Yolov3TrtError: whatever of the chain failed.

    >>> quantize("yolov3.cfg", images="photos/", val_images="val/", annotations="val.json").float_layers  # doctest: +SKIP
    (81, 93)
    """
    for name in ("precision", "float_layers"):
        if settings.get(name) is not None:
            raise SettingError(name, "given to quantize, which finds it; leave it out")
    max_ap_drop, layer_ap = number("max_ap_drop", max_ap_drop, 0, 1), integer("layer_ap", layer_ap, 0, 10**6)
    if (data is None) == (annotations is None):
        raise SettingError(
            "data", "expected labelled pictures to measure accuracy on, either as data or as annotations"
        )
    labelled = labelled_set(data or annotations or "", split=split, images=val_images)
    if settings.get("images") is None and settings.get("calibration") is None and labelled.has_splits:
        settings["images"] = labelled.path
    settings["precision"] = Precision.INT8
    graph, ranges, detect = settings_from(settings, GraphSettings, CalibrationSettings, DetectSettings)
    graph = graph.with_precision(Precision.INT8)
    folder = path_of("folder", folder)
    pictures = open_pictures(ranges, reporter, labelled)  # too few of them are refused before a model is opened
    loaded = model_from(model, weights, names, input_size)
    plain = GraphSettings(opset=graph.opset)
    fp32 = write_graph(loaded, folder / f"{artifact_stem(loaded.spec, plain)}.onnx", plain, detect)
    reporter.say(f"{fp32.path}: written")
    table = ranges.table or folder / f"{fp32.path.stem}-{ranges.kind}.json"
    calibrated = calibrated_at(fp32.path, table, pictures, ranges, reporter)
    searched, proof = search_and_proof(labelled, reporter)
    truth = searched.truth_for(fp32.meta.class_names)
    for note in (*labelled.notes, *truth.notes):
        reporter.say(f"note: {note}")

    def ap_of(path: Path) -> float:
        with open_detector(path, conf=EVAL_CONF_THRESHOLD) as detector:
            return float(evaluate(detector, truth)["AP"] or 0.0)

    from yolov3_trt.graph.parts import load_graph

    learnt = load_weights(calibrated.table.distilled, calibrated.path)
    variants = QuantizedVariants(load_graph(fp32.path), fp32.meta, calibrated.table, learnt, graph.float_precision)
    reference_ap, everything = ap_of(fp32.path), frozenset(quantisable_layers(loaded.spec))
    with tempfile.TemporaryDirectory() as scratch:

        def ap_without(float_layers: frozenset[int]) -> float:
            path = Path(scratch) / "variant.onnx"
            variants.save(path, float_layers)
            return ap_of(path)

        def ap_tried(float_layers: frozenset[int]) -> float:
            ap = ap_without(float_layers)
            reporter.say(f"AP {ap:.4f} with {len(float_layers)} layers float")
            return ap

        inputs = [
            prepare_batch([picture.pixels], fp32.meta)[0]
            for picture in islice(calibrated.pictures, _SENSITIVITY_IMAGES)
        ]
        ranking = _ranking(loaded, variants, inputs, layer_ap, lambda layer: ap_without(everything - {layer}), reporter)
        found = search_float_layers([row.layer for row in ranking], ap_tried, reference_ap - max_ap_drop)
    final = replace(graph, float_layers=frozenset(found.float_layers))
    exported = write_graph(loaded, folder / f"{artifact_stem(loaded.spec, final)}.onnx", final, detect, table)
    proven = None
    if proof is not None:
        proven = proven_on(proof, fp32.path, exported.path, max_ap_drop, reporter)
        save_table(calibrated.table.proven(proven, found.float_layers), table)
        sha256 = sha256_of_file(table)
        exported = replace(exported, meta=replace(exported.meta, certificate=proven, calibration_sha256=sha256))
        save_sidecar(exported.meta, exported.path)
    return Quantized(
        certificate=proven,
        export=exported,
        table=table,
        ap_fp32=reference_ap,
        ap_int8_throughout=found.ap_by_count[0],
        ap=found.ap,
        max_ap_drop=max_ap_drop,
        float_layers=found.float_layers,
        num_layers=len(everything),
        int8_share_of_macs=int8_share(loaded.spec, found.float_layers),
        ap_by_count=dict(found.ap_by_count),
        sensitivities=ranking,
    )


def search_and_proof(labelled: LabelledSet, reporter: Reporter) -> tuple[LabelledSet, LabelledSet | None]:
    """What to search on, and what to prove on: disjoint in content, and the same of a picture in whichever set it is."""
    to_search = [int(sha256[:8], 16) % 2 == 0 for sha256 in hashes_of(labelled)]
    fewest = min(sum(to_search), len(to_search) - sum(to_search))
    if fewest < MIN_PROOF_IMAGES:
        reporter.say(
            f"note: no certificate: {len(to_search)} labelled pictures are too few to search and to prove on; expected about "
            f"{2 * MIN_PROOF_IMAGES + 20} or more"
        )
        return labelled, None
    reporter.say(f"searching on {sum(to_search)} pictures, proving on the other {len(to_search) - sum(to_search)}")
    return labelled.part(to_search), labelled.part([not one for one in to_search])


def proven_on(
    proof: LabelledSet, fp32: Path, int8: Path, max_ap_drop: float, reporter: Reporter = SILENT
) -> Certificate:
    """The certificate of an INT8 graph on labelled pictures that neither its ranges nor its layers were chosen on.

    Raises:
        EvaluationError: the labels are not of this model, or no object is in the pictures.
        Yolov3TrtError: a graph or a picture cannot be read.
    """
    found, scores = [], []
    for graph in (fp32, int8):
        with open_detector(graph, conf=EVAL_CONF_THRESHOLD) as detector:
            truth = proof.truth_for(detector.meta.class_names)
            found.append(detect_all(detector, truth, lambda items: reporter.track(items, "proving", len(proof.files))))
            scores.append(score_detections(truth, found[-1]))
    return certificate(
        scores[0],
        scores[1],
        max_ap_drop,
        len(proof.files),
        images_sha256=PictureList.of(hashes_of(proof)).sha256,
        agreement=agreement_scores(found[0], found[1], truth.class_names),
    )


def _ranking(
    model: Model,
    variants: QuantizedVariants,
    inputs: list[Any],
    layer_ap: int,
    ap_with_only: Callable[[int], float],
    reporter: Reporter,
) -> tuple[Sensitivity, ...]:
    """The layers, noisiest first: noise measured on a few calibration pictures, AP on the validation pictures."""
    layers = frozenset(quantisable_layers(model.spec))
    ranking = sensitivities(
        model.spec,
        variants.heads(inputs, None),
        lambda layer: variants.heads(inputs, layers - {layer}),
        lambda items: reporter.track(items, "noise of each layer", len(layers)),
    )
    return with_ap(
        ranking,
        layer_ap,
        ap_with_only,
        lambda items: reporter.track(items, "AP of the noisiest", min(layer_ap, len(layers))),
    )
