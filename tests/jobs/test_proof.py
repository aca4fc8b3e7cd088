"""Certificates of INT8: what they claim holds for other pictures too, bad ranges are refuted, and `build` asks for one."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.cli_runner import call
from yolov3_trt.calibration.table import load_table, save_table
from yolov3_trt.certificate import Certificate, Verdict
from yolov3_trt.data import labelled_set
from yolov3_trt.data.fingerprints import content_hashes, hashes_of
from yolov3_trt.data.labelled import LabelledSet
from yolov3_trt.data.shapes import write_shapes_data_set
from yolov3_trt.detections import Detections
from yolov3_trt.errors import BuildError, EvaluationError
from yolov3_trt.evaluation import proof as module
from yolov3_trt.evaluation.bootstrap import ClassMatches, resampled_ap
from yolov3_trt.jobs import build as build_job
from yolov3_trt.jobs import quantize as quantize_job
from yolov3_trt.jobs.build import build
from yolov3_trt.jobs.evaluate import _certificate_notes
from yolov3_trt.jobs.export import export
from yolov3_trt.jobs.quantize import proven_on, search_and_proof
from yolov3_trt.meta import load_model_meta, save_sidecar
from yolov3_trt.reporter import Reporter

TABLE = Path(__file__).parents[2] / "calib" / "shapes-256-mse.json"
GOOD = Certificate(0.005, 0.001, (-0.002, 0.004), 100)


def test_the_verdict_is_that_of_the_whole_interval_and_says_how_many_images_would_decide():
    assert str(GOOD) == ("AP drop below 0.005 with 95 %: proven (drop +0.0010 [-0.0020, +0.0040] on 100 images)")
    assert replace(GOOD, interval=(0.006, 0.009), drop=0.007).verdict is Verdict.REFUTED
    open_ = replace(
        GOOD, interval=(-0.01, 0.013)
    )  # reaches .012 up from .001, and has .004 room: a third, 9 times the images
    assert (open_.verdict, open_.more_images) == (Verdict.UNDECIDED, 800)
    assert "undecided, about 800 more images would decide (drop" in str(open_)
    worse = replace(GOOD, drop=0.007, interval=(0.001, 0.014))  # reaches .006 down, over .002: 9 times again
    assert worse.more_images == 800
    assert replace(open_, drop=0.005).more_images is None and "no number" in str(replace(open_, drop=0.005))
    few = replace(GOOD, num_images=20)  # an interval of so few is not to be trusted
    assert (few.verdict, few.more_images) == (Verdict.UNDECIDED, 30)
    with pytest.raises(EvaluationError, match="expected finite numbers, an interval that ascends"):
        replace(GOOD, interval=(0.2, 0.1))


def scores_of(image: np.ndarray, score: np.ndarray, hit: np.ndarray, objects: np.ndarray) -> SimpleNamespace:
    """Of one class at one IoU, as `score_detections` gives them."""
    order = np.argsort(-score, kind="stable")
    matches = ClassMatches(image[order], hit[None, order], np.zeros((1, len(order)), bool), objects)
    ap = resampled_ap([matches], np.ones((1, len(objects)), int))[0, 0]
    return SimpleNamespace(matches=(matches,), metrics={"AP": float(ap)})


def test_a_drop_above_the_limit_is_proven_below_it_in_at_most_one_of_twenty_repetitions(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(module, "DRAWS", 500)
    rng = np.random.default_rng(5)
    num, each = 4000, 4  # pictures of all the world, with two objects and four detections each
    hit = rng.random((num, each)) < np.array([0.8, 0.7, 0.2, 0.1])
    score = rng.beta(2 + 3 * hit, 3)
    lost = rng.random((num, each)) < 0.04  # INT8 misses some, in some pictures together, and shifts all scores
    lost |= (rng.random((num, 1)) < 0.02) & hit
    shifted = score + rng.normal(0, 0.03, score.shape)

    def pair(chosen: np.ndarray) -> tuple[SimpleNamespace, SimpleNamespace]:
        image, objects = np.repeat(np.arange(len(chosen)), each), np.full(len(chosen), 2)
        plain = scores_of(image, score[chosen].ravel(), hit[chosen].ravel(), objects)
        return plain, scores_of(image, shifted[chosen].ravel(), (hit & ~lost)[chosen].ravel(), objects)

    everything = pair(np.arange(num))
    true_drop = everything[0].metrics["AP"] - everything[1].metrics["AP"]
    assert 0.02 < true_drop < 0.1
    verdicts = {limit: [] for limit in (0.99 * true_drop, 2.5 * true_drop, 0.2 * true_drop)}
    for _ in range(200):
        fp32, int8 = pair(rng.integers(0, num, 100))
        for limit, found in verdicts.items():
            found.append(module.certificate(fp32, int8, limit, 100).verdict)
    shares = [[found.count(verdict) / 200 for verdict in Verdict] for found in verdicts.values()]
    assert shares[0][0] <= 0.05 and shares[2][0] == 0, shares
    assert shares[1][0] > 0.5 and shares[2][1] > 0.2, shares  # and it is not silent either


def test_agreement_needs_no_labels_and_counts_what_fp32_is_certain_of():
    box = np.array([[0, 0, 10, 10], [20, 20, 40, 40], [50, 50, 60, 60]], np.float32)
    found = Detections(box, np.array([0.9, 0.6, 0.1], np.float32), np.array([0, 1, 1], np.int32), ("a", "b"))
    same = module.agreement_scores({1: found}, {1: found}, ("a", "b"))
    assert same.metrics["AP"] == pytest.approx(1, abs=1e-9)
    half = module.agreement_scores(
        {1: found}, {1: Detections(box[:1], found.scores[:1], found.class_ids[:1], ("a", "b"))}, ("a", "b")
    )
    assert half.metrics["AP"] == pytest.approx(0.5, abs=1e-9)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> LabelledSet:
    data = write_shapes_data_set(tmp_path_factory.mktemp("proof"), num_train=1, num_val=60, seed=31)
    return labelled_set(data, split="val")


def test_search_and_proof_share_no_content_whatever_the_files_are_called(
    labelled: LabelledSet, monkeypatch: pytest.MonkeyPatch
):
    said: list[str] = []
    assert search_and_proof(labelled, Reporter(say=said.append)) == (labelled, None)
    assert said[0].startswith("note: no certificate: 60 labelled pictures are too few to search and to prove on")
    monkeypatch.setattr(quantize_job, "MIN_PROOF_IMAGES", 10)
    search, proof = search_and_proof(labelled, Reporter())
    assert proof is not None and len(search.files) + len(proof.files) == 60
    assert not set(hashes_of(search)) & set(hashes_of(proof))
    # The same picture under another name, alone or among others, falls on the same side.
    twice = labelled.part([True] * 30 + [False] * 30)
    again, other = search_and_proof(twice, Reporter())
    assert set(content_hashes(again.paths)) <= set(hashes_of(search))
    assert other is None or set(hashes_of(other)) <= set(hashes_of(proof))


def test_a_build_that_wants_a_certificate_takes_a_proven_one_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    graph = export("shapes", tmp_path / "a.onnx", precision="int8", table=TABLE).path
    with pytest.raises(
        BuildError,
        match="it has no certificate for this graph; make it with `quantize` and about 120 labelled pictures",
    ):
        build(graph, require_certificate=True)
    meta = load_model_meta(graph)
    save_sidecar(replace(meta, certificate=replace(GOOD, interval=(0.006, 0.009), drop=0.007)), graph)
    with pytest.raises(BuildError, match=r"AP drop below 0.005 with 95 %: refuted .*; expected one that is proven"):
        build(graph, require_certificate=True)
    save_sidecar(replace(meta, certificate=GOOD), graph)
    assert load_model_meta(graph).certificate == GOOD
    assert _certificate_notes("a.onnx", load_model_meta(graph)) == (f"a.onnx: {GOOD}, when it was quantised",)
    assert call("info", graph) == 0
    assert f"certificate    {GOOD}" in capsys.readouterr().out


def test_the_table_keeps_the_certificate_for_graphs_of_its_ranges_and_float_layers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    table, other = tmp_path / "table.json", tmp_path / "other.json"
    proven = load_table(TABLE).proven(GOOD, {5, 2})
    save_table(proven, table)
    assert load_table(table) == proven and "proof" not in TABLE.read_text()
    assert proven.certificate_for([2, 5]) == GOOD and proven.certificate_for([2]) is None
    halved = replace(proven, amax=proven.amax | {"images": 0.5})  # by whoever edits the file
    save_table(halved, other)
    assert halved.certificate_for([2, 5]) is None

    int8 = {"precision": "int8", "float_layers": "2,5"}
    assert load_model_meta(export("shapes", tmp_path / "a.onnx", table=table, **int8).path).certificate == GOOD
    built: list[Path] = []
    monkeypatch.setattr(
        build_job, "build_engine", lambda graph, path, *_, **__: built.append(path) or SimpleNamespace(meta=None)
    )
    build("shapes", tmp_path / "a.engine", table=table, require_certificate=True, **int8)
    build("shapes", tmp_path / "b.engine", require_certificate=True)  # fp16 has nothing to prove
    assert built == [tmp_path / "a.engine", tmp_path / "b.engine"]
    for wrong in ({"table": other, **int8}, {"table": table, "precision": "int8"}, {"table": TABLE, **int8}):
        with pytest.raises(BuildError, match="it has no certificate for this graph; make it with `quantize`"):
            build("shapes", tmp_path / "c.engine", require_certificate=True, **wrong)
    assert not (tmp_path / "c.engine").exists() and not (tmp_path / "c.onnx").exists()


@pytest.mark.slow
def test_eval_says_of_any_two_whether_ap_holds(
    labelled: LabelledSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    graphs = [export("shapes", tmp_path / name).path for name in ("a.onnx", "b.onnx")]
    wanted = ("--data", labelled.path, "--max-ap-drop", "0.005", "--resamples", "0", "--json", tmp_path / "out.json")
    assert call("eval", *graphs, *wanted) == 0
    said = "AP drop below 0.005 with 95 %: proven (drop +0.0000 [+0.0000, +0.0000] on 60 images; agreement with FP32 1.0000"
    assert f"{graphs[1]}: {said}" in capsys.readouterr().out
    found = json.loads((tmp_path / "out.json").read_text())["certificates"][str(graphs[1])]
    assert (found["verdict"], found["more_images"]) == ("proven", None)


@pytest.mark.slow
def test_good_ranges_are_not_refuted_and_planted_bad_ones_are(labelled: LabelledSet, tmp_path: Path):
    fp32 = export("shapes", tmp_path / "fp32.onnx").path
    good = load_table(TABLE)
    names = list(good.amax)
    bad = {
        "another model's": dict(zip(names, list(good.amax.values())[::-1], strict=True)),
        "a scale halved": good.amax | {"images": good.amax["images"] / 2},  # of a layer within, shapes hardly suffers
        "min-max with an outlier": {name: 16 * value for name, value in good.amax.items()},
    }

    def verdict(name: str, amax: dict[str, float]) -> Certificate:
        table = tmp_path / f"{name}.json"
        save_table(replace(good, amax=amax), table)
        graph = export("shapes", tmp_path / f"{name}.onnx", precision="int8", table=table).path
        return proven_on(labelled, fp32, graph, 0.005)

    found = {name: verdict(name, amax) for name, amax in {"good": dict(good.amax), **bad}.items()}
    assert found.pop("good").verdict is not Verdict.REFUTED
    assert {one.verdict for one in found.values()} == {Verdict.REFUTED}, found


@pytest.mark.slow
def test_quantize_proves_on_pictures_that_it_did_not_search_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, labelled: LabelledSet
):
    monkeypatch.setattr(quantize_job, "MIN_PROOF_IMAGES", 10)
    found = quantize_job.quantize(
        "shapes", tmp_path, data=labelled, images="shapes", num_images=32, layer_ap=0, max_ap_drop=0.05
    )
    proof = search_and_proof(labelled, Reporter())[1]
    assert found.certificate is not None and proof is not None
    assert found.certificate.num_images == len(proof.files) and found.certificate.agreement > 0.8
    assert load_model_meta(found.path).certificate == found.certificate
    assert load_table(found.table).certificate_for(found.float_layers) == found.certificate
    again = export(
        "shapes", tmp_path / "again.onnx", precision="int8", table=found.table, float_layers=found.float_layers
    )
    assert again.meta == load_model_meta(found.path)  # as others make it of the table
    json.dumps(found.to_json(), allow_nan=False)
