"""`quantize`: INT8 within an accuracy budget."""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from yolov3_trt.cli.calibrate import ImagesOption, MethodOption, NumImagesOption, SeedOption, calibration_set
from yolov3_trt.cli.export import RestOption, report_json, report_text
from yolov3_trt.cli.options import InputSizeOption, JsonOption, ModelArgument, ModelOptions, NamesOption, WeightsOption
from yolov3_trt.cli.output import say, table, track, write_result

if TYPE_CHECKING:
    from yolov3_trt.data.calibration_set import ChosenPictures
    from yolov3_trt.quantize import Sensitivity, Variants
    from yolov3_trt.spec import ModelSpec

WORST_SHOWN = 10
SENSITIVITY_IMAGES = 8


def quantize(
    model: ModelArgument,
    images: ImagesOption,
    val_images: Annotated[Path, typer.Option(metavar="DIR", help="Pictures that accuracy is measured on.")],
    annotations: Annotated[Path, typer.Option(metavar="FILE", help="COCO instances (JSON) of those.")],
    max_ap_drop: Annotated[float, typer.Option(min=0, max=1, help="How much AP INT8 may cost.")] = 0.005,
    weights: WeightsOption = None,
    names: NamesOption = None,
    input_size: InputSizeOption = None,
    method: MethodOption = "mse",
    num_images: NumImagesOption = 64,
    seed: SeedOption = 0,
    rest: RestOption = "fp16",
    layer_ap: Annotated[
        int, typer.Option(min=0, metavar="N", help="Of how many of the noisiest layers to measure AP as well.")
    ] = WORST_SHOWN,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="For graphs and table.")] = Path(
        "engines"
    ),
    json: JsonOption = None,
) -> None:
    """Calibrate, quantise, and leave as few layers float as the accuracy budget allows."""
    from yolov3_trt.data.images import find_sources
    from yolov3_trt.detector import open_detector
    from yolov3_trt.evaluate import EVAL_CONF_THRESHOLD, load_annotations
    from yolov3_trt.evaluate import evaluate as measure
    from yolov3_trt.graph.parts import load_graph
    from yolov3_trt.jobs import Calibration, ExportOptions, Reporter, artifact_stem, calibrated_table, export_model
    from yolov3_trt.meta import Precision
    from yolov3_trt.quantize import Variants, int8_share, quantisable_layers, search_skipped
    from yolov3_trt.settings import Method

    loaded = ModelOptions(weights, names, input_size).load(model)
    options = ExportOptions(rest=Precision(rest))
    fp32 = export_model(loaded, output / f"{artifact_stem(loaded.spec, options)}.onnx", options)
    say(report_text(fp32))
    table_path = output / f"{fp32.path.stem}-{method}.json"
    wanted = Calibration(
        calibration_set(images, num_images, seed), Method(method), evaluation=find_sources([str(val_images)])
    )
    calibrated = calibrated_table(fp32.path, table_path, wanted, reporter=Reporter(say, track))
    truth = load_annotations(annotations, fp32.meta.class_names)

    def ap_of(path: Path) -> float:
        with open_detector(path, conf=EVAL_CONF_THRESHOLD) as detector:
            return float(measure(detector, truth, val_images)["AP"] or 0.0)

    variants = Variants(load_graph(fp32.path), fp32.meta, calibrated.table, Precision(rest))
    reference_ap = ap_of(fp32.path)
    everything = frozenset(quantisable_layers(loaded.spec))
    with tempfile.TemporaryDirectory() as folder:

        def ap_without(skip_layers: frozenset[int]) -> float:
            path = Path(folder) / "variant.onnx"
            variants.save(path, skip_layers)
            return ap_of(path)

        def ap_tried(skip_layers: frozenset[int]) -> float:
            ap = ap_without(skip_layers)
            say(f"AP {ap:.4f} with {len(skip_layers)} layers float")
            return ap

        ranking = _ranking(
            loaded.spec, variants, calibrated.pictures, layer_ap, lambda layer: ap_without(everything - {layer})
        )
        found = search_skipped([row.layer for row in ranking], ap_tried, reference_ap - max_ap_drop)
    final = replace(options, precision=Precision.INT8, calibration=table_path, skip_layers=frozenset(found.skip_layers))
    report = export_model(loaded, output / f"{artifact_stem(loaded.spec, final)}.onnx", final)
    share = int8_share(loaded.spec, found.skip_layers)
    content = {
        "ap_fp32": reference_ap,
        "ap_int8_throughout": found.ap_by_skipped[0],
        "ap": found.ap,
        "max_ap_drop": max_ap_drop,
        "skip_layers": list(found.skip_layers),
        "int8_share_of_macs": share,
        "ap_by_skipped": dict(found.ap_by_skipped),
        "sensitivities": [vars(row) for row in ranking],
        "export": report_json(report),
    }
    text = (
        f"{report_text(report)}\nAP {reference_ap:.4f} fp32, {found.ap_by_skipped[0]:.4f} int8 throughout, {found.ap:.4f} with "
        f"{len(found.skip_layers)} of {len(everything)} layers float; {share:.1%} of the multiply-adds are int8\n"
        f"{_worst(ranking, found.skip_layers)}"
    )
    write_result(json, content, text)


def _ranking(
    spec: "ModelSpec",
    variants: "Variants",
    pictures: "ChosenPictures",
    layer_ap: int,
    ap_with_only: Callable[[int], float],
) -> "tuple[Sensitivity, ...]":
    """The layers, noisiest first: noise measured on a few calibration pictures, AP on the validation pictures."""
    from yolov3_trt.preprocess import prepare_batch
    from yolov3_trt.quantize import quantisable_layers, sensitivities, with_ap

    some = islice(pictures, SENSITIVITY_IMAGES)
    inputs = [prepare_batch([picture.pixels], variants.meta)[0] for picture in some]
    layers = frozenset(quantisable_layers(spec))
    ranking = sensitivities(
        spec,
        variants.heads(inputs, None),
        lambda layer: variants.heads(inputs, layers - {layer}),
        lambda items: track(items, "noise of each layer", len(layers)),
    )
    return with_ap(
        ranking, layer_ap, ap_with_only, lambda items: track(items, "AP of the noisiest", min(layer_ap, len(layers)))
    )


def _worst(ranking: "tuple[Sensitivity, ...]", skipped: tuple[int, ...]) -> str:
    rows = [
        (
            f"{row.layer} {row.kind}",
            f"{row.snr_db:.1f}",
            "" if row.ap is None else f"{row.ap:.4f}",
            f"{row.macs / 1e6:.1f}",
            "float" if row.layer in skipped else "int8",
        )
        for row in ranking[:WORST_SHOWN]
    ]
    return table(("layer", "snr dB", "AP alone", "MMACs", "computes in"), rows)
