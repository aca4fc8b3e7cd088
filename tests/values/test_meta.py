"""Sidecars: what they hold comes back, and nothing else is taken for one."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yolov3_trt.errors import MetaError, SettingError
from yolov3_trt.files import sha256_of_file
from yolov3_trt.geometry import Placement, Resize
from yolov3_trt.layers import Conv, Yolo
from yolov3_trt.meta import (
    Batch,
    EngineMeta,
    InputStage,
    ModelMeta,
    OutputStage,
    Postprocess,
    Precision,
    Preprocess,
    load_engine_meta,
    load_model_meta,
    meta_from_spec,
    save_sidecar,
    sidecar_path,
    to_json,
)
from yolov3_trt.models.architectures import yolov3_tiny
from yolov3_trt.spec import Head, ModelSpec, Nms, NmsKind

HEADS = tuple(Head(f"head{i}", 10 * i, ((1.5, 2.0), (3.0, 4.0)), 2, (i + 1, i + 2), 1.05) for i in range(2))
PLAIN = ModelMeta("m", (64, 96), HEADS, ("cat", "größer"))
FULL = ModelMeta(
    "m",
    (64, 96),
    HEADS,
    ("cat", "dog"),
    batch=Batch(1, 2, 4),
    precision=Precision.INT8,
    input_stage=InputStage.PIXELS,
    output_stage=OutputStage.DETECTIONS,
    preprocess=Preprocess(Resize.STRETCH, 0, 1 / 256),
    postprocess=Postprocess(0.1, 0.2, 30, 20, Nms(NmsKind.DIOU, 0.9)),
    opset=17,
    weights_sha256="1" * 64,
    calibration_sha256="2" * 64,
    versions={"torch": "2.13"},
)
CAMERA = replace(PLAIN, input_stage=InputStage.PIXELS, frame_hw=(72, 128))


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"graph")
    return path


def engine_meta(artifact: Path, model: ModelMeta = FULL) -> EngineMeta:
    return EngineMeta(
        model, sha256_of_file(artifact), 5, "tensorrt", "10.3.0", "linux-x86_64", "RTX", ("8.6", "8.9"), build_s=1.5
    )


def refusal(load, artifact: Path) -> str:
    with pytest.raises(MetaError) as caught:
        load(artifact)
    return str(caught.value)


# --- round trips ---


@pytest.mark.parametrize("meta", [PLAIN, FULL, CAMERA], ids=["plain", "full", "camera"])
def test_model_sidecar_comes_back_equal(artifact: Path, meta: ModelMeta):
    meta = replace(meta, onnx_sha256=sha256_of_file(artifact))
    assert save_sidecar(meta, artifact) == artifact.parent / "net.onnx.json" == sidecar_path(artifact)
    assert load_model_meta(artifact) == meta
    assert sorted(path.name for path in artifact.parent.iterdir()) == ["net.onnx", "net.onnx.json"]


def test_engine_sidecar_comes_back_equal(artifact: Path):
    for meta in (engine_meta(artifact), replace(engine_meta(artifact, PLAIN), gpu=None, compute_capabilities=())):
        save_sidecar(meta, artifact)
        assert load_engine_meta(artifact) == meta


def test_sidecar_begins_with_its_format(artifact: Path):
    content = json.loads(save_sidecar(PLAIN, artifact).read_text())
    assert next(iter(content.items())) == ("format", "yolov3_trt.model/1")
    assert content["postprocess"]["nms"] == {"kind": "default", "beta": 0.6}
    assert to_json(Batch(1, 2, 3)) == {"min": 1, "opt": 2, "max": 3}


# --- refusals ---


def test_missing_artifact_or_sidecar_is_refused(artifact: Path):
    assert refusal(load_model_meta, artifact) == (
        f"{artifact}: its sidecar net.onnx.json is not beside it; copy both files, or export or build it again; "
        "what another program exported has none: `yolov3_trt adopt` makes one from its .cfg and .weights"
    )
    save_sidecar(PLAIN, artifact)
    artifact.unlink()
    assert refusal(load_model_meta, artifact) == f"{artifact}: there is no such file"


@pytest.mark.parametrize("content", [b"graph2", b"grap", b""])
def test_altered_artifact_is_refused(artifact: Path, content: bytes):
    save_sidecar(replace(PLAIN, onnx_sha256=sha256_of_file(artifact)), artifact)
    artifact.write_bytes(content)
    got = sha256_of_file(artifact)[:12]
    text = (
        f"{artifact}: its SHA-256 is {got}…, its sidecar expects eef93e1d1448…: the file was altered, cut short or belongs "
        "to another sidecar; copy both files again, or rebuild"
    )
    assert refusal(load_model_meta, artifact) == text
    save_sidecar(replace(engine_meta(artifact), plan_sha256="eef93e1d1448"), artifact)
    assert refusal(load_engine_meta, artifact) == text


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\xfd", b"[" * 10**5, b"1" * 5000])
def test_sidecar_that_is_not_json_is_refused(artifact: Path, content: bytes):
    sidecar_path(artifact).write_bytes(content)
    text = refusal(load_model_meta, artifact)
    assert text.startswith(f"{artifact}.json: this sidecar cannot be read (")
    assert text.endswith("); export or build the artifact again")


def test_folder_in_the_sidecars_place_is_refused(artifact: Path):
    sidecar_path(artifact).mkdir()
    assert refusal(load_model_meta, artifact) == (
        f"{artifact}.json: this sidecar cannot be read ([Errno 21] Is a directory: '{artifact}.json'); "
        "export or build the artifact again"
    )


@pytest.mark.parametrize(
    "content, found",
    [([], "None"), (None, "None"), ({}, "None"), ({"format": "yolov3_trt.model/2"}, "'yolov3_trt.model/2'")],
)
def test_other_format_is_refused(artifact: Path, content, found: str):
    sidecar_path(artifact).write_text(json.dumps(content))
    for load, expected in ((load_model_meta, "yolov3_trt.model/1"), (load_engine_meta, "yolov3_trt.engine/1")):
        assert refusal(load, artifact) == (
            f"{artifact}.json: format {found}; expected '{expected}' (another version wrote it: build again)"
        )


def test_sidecar_of_a_graph_is_not_one_of_an_engine(artifact: Path):
    save_sidecar(PLAIN, artifact)
    assert refusal(load_engine_meta, artifact) == (
        f"{artifact}.json: format 'yolov3_trt.model/1'; expected 'yolov3_trt.engine/1' (another version wrote it: build again)"
    )


ABSENT = object()


def put(content, path: str, value) -> None:
    """Set, or with ABSENT delete, what lies at a path such as `heads.0.name`."""
    *parents, last = (int(step) if step.isdigit() else step for step in path.split("."))
    for step in parents:
        content = content[step]
    if value is ABSENT:
        del content[last]
    else:
        content[last] = value


@pytest.mark.parametrize(
    "path, value, text",
    [
        ("colour", 1, "colour: Unexpected keyword argument"),
        ("heads.1.colour", 1, "heads.1.colour: Unexpected keyword argument"),
        ("postprocess.nms.colour", 1, "postprocess.nms.colour: Unexpected keyword argument"),
        ("name", ABSENT, "name: Field required"),
        ("heads.0.grid_hw", ABSENT, "heads.0.grid_hw: Field required"),
        ("name", 5, "name: Input should be a valid string"),
        ("input_hw", "416", "input_hw: Input should be a valid tuple"),
        ("input_hw", [416], "input_hw.1: Field required"),
        ("input_hw", [416, 1.5], "input_hw.1: Input should be a valid integer, got a number with a fractional part"),
        ("input_hw", [416, 0], "m: input_hw: got 0; expected 1 to 99999"),
        ("frame_hw", [720], "frame_hw.1: Field required"),
        ("input_hw", [200000, 416], "m: input_hw: got 200000; expected 1 to 99999"),
        ("input_hw", [99999, 99999], "m: a tensor of 1x3x99999x99999 values; expected 2^31 at most"),
        ("heads.0.grid_hw", [0, 0], "m: grid_hw of head0: got 0; expected 1 to 99999"),
        ("heads.0.anchors_wh.0", [1e308, 1], "m: anchors_wh of head0: got 1e+308; expected 0 to 1e+06"),
        ("heads.0.scale_xy", float("nan"), "m: scale_xy of head0: got nan; expected 0 to 1000"),
        ("preprocess.scale", float("nan"), "preprocess.scale: got nan; expected 1e-06 to 1"),
        ("preprocess.scale", 1e300, "preprocess.scale: got 1e+300; expected 1e-06 to 1"),
        ("postprocess.max_candidates", 10**9, "postprocess.max_candidates: got 1000000000; expected 1 to 16384"),
        ("postprocess.nms.beta", float("inf"), "postprocess.beta_nms: got inf; expected -1000 to 1000"),
        (
            "class_names",
            ["cat\nbird", "dog"],
            "'m': the name 'cat\\nbird'; expected one without line ends and control characters",
        ),
        (
            "class_names",
            ["\x1b[31mcat", "dog"],
            "'m': the name '\\x1b[31mcat'; expected one without line ends and control characters",
        ),
        (
            "frame_hw",
            [720, 1280],
            "m: frame_hw=(720, 1280) with the input stage tensor; expected pixels: only such a graph "
            "resizes by itself",
        ),
        ("precision", "fp8", "precision: Input should be 'fp32', 'fp16' or 'int8'"),
        ("heads", [], "m: there are no heads; expected one or more"),
        (
            "heads.1.num_classes",
            3,
            "m: the heads have different numbers of classes; expected one number",
        ),
        ("class_names", ["cat"], "m: 1 class names; expected 2"),
        ("batch.min", 2, "batch: got 2:1:1; expected 1 <= MIN <= OPT <= MAX"),
        ("preprocess.pad_value", 256, "preprocess.pad_value: got 256; expected 0 to 255"),
        ("postprocess.conf", 1.5, "postprocess.conf: got 1.5; expected 0 to 1"),
        ("postprocess.iou", float("nan"), "postprocess.iou: got nan; expected 0 to 1"),
    ],
)  # fmt: skip
def test_sidecar_with_a_wrong_value_is_refused_by_name(artifact: Path, path: str, value, text: str):
    content = json.loads(save_sidecar(PLAIN, artifact).read_text())
    put(content, path, value)
    sidecar_path(artifact).write_text(json.dumps(content))
    assert refusal(load_model_meta, artifact) == f"{artifact}.json: {text}; export or build the artifact again"


# --- values ---


@pytest.mark.parametrize(
    "make, text",
    [
        (lambda: Batch(0, 1, 1), "batch: got 0; expected 1 to 9999"),
        (lambda: Batch(1, 3, 2), "batch: got 1:3:2; expected 1 <= MIN <= OPT <= MAX"),
        (lambda: Preprocess(pad_value=-1), "pad_value: got -1; expected 0 to 255"),
        (lambda: Postprocess().override(conf=-0.1), "conf: got -0.1; expected 0 to 1"),
        (
            lambda: Postprocess().override(max_detections=513),
            "max_detections: got 513; expected at most max_candidates, 512",
        ),
        (lambda: replace(PLAIN, heads=()), "m: there are no heads; expected one or more"),
        (
            lambda: meta_from_spec(ModelSpec("classifier", (Conv(10),), (8, 8))),
            "classifier has no [yolo] layer, so it detects nothing; expected a YOLOv3-family detector",
        ),
        (
            lambda: meta_from_spec(ModelSpec("five", (Conv(6), Yolo(((1, 1),), 1)), (8, 8), channels=5)),
            "five: channels=5; expected 3 for colour or 1 for grey",
        ),
        (lambda: meta_from_spec(yolov3_tiny(2), ("a",)), "yolov3-tiny: 1 class names; expected 2"),
    ],
)
def test_value_out_of_range_is_refused(make, text: str):
    with pytest.raises((MetaError, SettingError)) as caught:
        make()
    assert str(caught.value) == text


def test_overrides_change_what_is_given_and_0_is_given():
    changed = Postprocess().override(conf=0.0, max_detections=1)
    assert changed == Postprocess(conf=0.0, max_detections=1)
    assert Postprocess().override() == Postprocess()
    assert Preprocess(pad_value=3).override(resize=Resize.STRETCH) == Preprocess(Resize.STRETCH, pad_value=3)
    assert Preprocess(Resize.STRETCH).override() == Preprocess(Resize.STRETCH)


def test_meta_of_a_spec_is_the_plainest_form_of_the_model():
    spec = replace(yolov3_tiny(2), resize=Resize.STRETCH, nms=Nms(NmsKind.GREEDY))
    meta = meta_from_spec(spec)
    assert (meta.heads, meta.input_hw, meta.num_classes) == (spec.heads, (416, 416), 2)
    assert meta.class_names == ("class0", "class1")
    assert (meta.preprocess.resize, meta.postprocess.nms) == (Resize.STRETCH, Nms(NmsKind.GREEDY))
    assert (meta.precision, meta.batch) == (Precision.FP32, Batch(1, 1, 1))
    assert meta_from_spec(spec, ("a", "b")).class_names == ("a", "b")


def test_shapes_and_names_follow_the_stages():
    assert (PLAIN.input_shape(2), PLAIN.output_names) == ((2, 3, 64, 96), ("head0", "head1"))
    assert (FULL.input_shape(2), FULL.output_names) == (
        (2, 64, 96, 3),
        ("num_detections", "boxes", "scores", "class_ids"),
    )
    assert [(str(batch), batch.dynamic) for batch in (Batch(4, 4, 4), Batch(1, 2, 4))] == [
        ("4", False),
        ("1:2:4", True),
    ]


def test_a_graph_for_whole_frames_takes_them_at_their_own_size():
    assert (CAMERA.input_shape(2), CAMERA.input_dtype) == ((2, 72, 128, 3), "uint8")
    # 128 px become 96, so 72 become 54; of the 10 rows left 5 are above.
    assert CAMERA.frame_placement == Placement((72, 128), (64, 96), (54, 96), (5, 0))
    stretched = replace(CAMERA, preprocess=Preprocess(Resize.STRETCH))
    assert stretched.frame_placement == Placement((72, 128), (64, 96), (64, 96), (0, 0))
    assert (PLAIN.input_dtype, PLAIN.frame_placement) == ("float32", None)
    assert (FULL.input_dtype, FULL.frame_placement) == ("uint8", None)


# --- arbitrary input ---


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("meta") / "net.onnx"
    path.write_bytes(b"graph")
    return path


def result_or_refusal(artifact: Path, content: bytes) -> None:
    """A usable description, or a MetaError that names the file; any other exception fails the test."""
    sidecar_path(artifact).write_bytes(content)
    for load in (load_model_meta, load_engine_meta):
        try:
            meta = load(artifact)
        except MetaError as exc:
            assert str(exc).startswith(str(artifact))
        else:
            model = meta.model if isinstance(meta, EngineMeta) else meta
            assert min(model.input_shape(model.batch.max)) >= 1
            assert len(model.class_names) == model.num_classes and model.output_names


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(st.characters(codec=None))),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(), inner, max_size=4)),
    max_leaves=10,
)


@settings(deadline=None)
@given(st.binary())
def test_any_bytes_give_a_result_or_a_refusal(scratch: Path, content: bytes):
    result_or_refusal(scratch, content)


@settings(deadline=None)
@given(JSON)
def test_any_json_gives_a_result_or_a_refusal(scratch: Path, content):
    result_or_refusal(scratch, json.dumps(content).encode())


def paths(content, prefix: str = "") -> list[str]:
    """Every place in a JSON value, as `put` takes them."""
    steps = range(len(content)) if isinstance(content, list) else content if isinstance(content, dict) else ()
    return [path for step in steps for path in (f"{prefix}{step}", *paths(content[step], f"{prefix}{step}."))]


GRAPH_SHA256 = hashlib.sha256(b"graph").hexdigest()
MODEL = json.loads(json.dumps(to_json(FULL)))
ENGINE = json.loads(
    json.dumps(to_json(EngineMeta(FULL, GRAPH_SHA256, 5, "tensorrt", "10.3.0", "linux-x86_64", None, (), build_s=1.5)))
)


@settings(deadline=None)
@given(
    base=st.sampled_from([MODEL, ENGINE]),
    choose=st.data(),
    value=st.one_of(JSON, st.just(ABSENT), st.sampled_from(["", -1, 0, 1e400, 10**400, "\ud800", "416", True])),
)
def test_changed_sidecar_gives_a_result_or_a_refusal(scratch: Path, base, choose: st.DataObject, value):
    content = json.loads(json.dumps(base))
    put(content, choose.draw(st.sampled_from(paths(content))), value)
    result_or_refusal(scratch, json.dumps(content).encode())
