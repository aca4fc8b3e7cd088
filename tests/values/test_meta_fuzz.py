"""Sidecars that a disk, an editor or an attacker damaged: a description or a MetaError, and nothing else."""

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.values.test_meta import FULL
from yolov3_trt.errors import MetaError
from yolov3_trt.meta import EngineMeta, ModelMeta, load_engine_meta, load_model_meta, sidecar_path, to_json

ARTIFACT = b"an artifact"
ENGINE = EngineMeta(
    FULL,
    hashlib.sha256(ARTIFACT).hexdigest(),
    len(ARTIFACT),
    "tensorrt",
    "10.3.0",
    "linux-x86_64",
    "NVIDIA GeForce RTX 3060",
    ("8.6",),
    build_s=1.5,
    dla_core=0,
    inputs={"onnx": "1" * 64},
)
SIDECARS = {load_model_meta: json.dumps(to_json(FULL)).encode(), load_engine_meta: json.dumps(to_json(ENGINE)).encode()}
THOUSANDS = settings(deadline=None, max_examples=300)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fuzz") / "net.bin"
    path.write_bytes(ARTIFACT)
    return path


def read(artifact: Path, content: bytes, load) -> ModelMeta | EngineMeta | None:
    """What a loader makes of a sidecar; None for a refusal that names the file."""
    sidecar_path(artifact).unlink(missing_ok=True)  # to cut a file to zero and write it anew waits for the disk
    sidecar_path(artifact).write_bytes(content)
    try:
        return load(artifact)
    except MetaError as exc:
        assert str(exc).startswith(str(artifact))
        return None


def check(artifact: Path, content: bytes) -> None:
    for load in SIDECARS:
        meta = read(artifact, content, load)
        if meta is not None:
            model = meta.model if isinstance(meta, EngineMeta) else meta
            assert min(model.input_shape(model.batch.max)) >= 1
            assert len(model.class_names) == model.num_classes and model.output_names
            json.dumps(to_json(meta))


def test_an_unharmed_sidecar_is_read(artifact: Path):
    assert read(artifact, SIDECARS[load_model_meta], load_model_meta) == FULL
    assert read(artifact, SIDECARS[load_engine_meta], load_engine_meta) == ENGINE


def test_a_sidecar_cut_short_anywhere_is_refused(artifact: Path):
    for load, content in SIDECARS.items():
        assert not any(read(artifact, content[:end], load) for end in range(0, len(content), 7))


@THOUSANDS
@given(
    content=st.sampled_from(list(SIDECARS.values())),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_changed_bytes_give_a_result_or_a_refusal(artifact: Path, content: bytes, changes: list[tuple[float, int]]):
    damaged = bytearray(content)
    for where, byte in changes:
        damaged[int(where * len(damaged))] = byte
    check(artifact, bytes(damaged))


@THOUSANDS
@given(
    content=st.sampled_from(list(SIDECARS.values())),
    cut=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    piece=st.one_of(
        st.binary(max_size=20), st.sampled_from([b'{"', b"[[", b'":', b"null,", b"1e999", b"NaN", b"\\ud800"])
    ),
)
def test_a_piece_put_in_or_taken_out_gives_a_result_or_a_refusal(
    artifact: Path, content: bytes, cut: tuple[float, float], piece: bytes
):
    start, end = sorted(int(part * len(content)) for part in cut)
    check(artifact, content[:start] + piece + content[min(end, start + 40) :])


@THOUSANDS
@given(
    st.one_of(st.binary(max_size=200), st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
)
def test_random_bytes_give_a_result_or_a_refusal(artifact: Path, content: bytes):
    check(artifact, content)


def leaves(content, path: tuple = ()) -> list[tuple]:
    """The way to every value in a JSON value."""
    steps = range(len(content)) if isinstance(content, list) else content if isinstance(content, dict) else ()
    return [way for step in steps for way in ((*path, step), *leaves(content[step], (*path, step)))]


CONTENTS = [json.loads(content) for content in SIDECARS.values()]
PLACES = [leaves(content) for content in CONTENTS]
VALUE = st.one_of(
    st.sampled_from(
        [None, True, "", "fp16", "8.6", [], {}, 0, -1, 10**400, 1e308, float("inf"), float("nan"), "\ud800"]
    ),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


@THOUSANDS
@given(
    which=st.integers(0, 1), seeds=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), VALUE), min_size=1, max_size=3)
)
def test_changed_values_give_a_result_or_a_refusal(artifact: Path, which: int, seeds: list[tuple[float, object]]):
    content = json.loads(json.dumps(CONTENTS[which]))
    for where, value in seeds:
        *path, last = PLACES[which][int(where * len(PLACES[which]))]
        place = content
        for step in path:
            place = place[step] if isinstance(place, dict | list) and _has(place, step) else None
        if place is not None and _has(place, last):
            place[last] = value
    check(artifact, json.dumps(content).encode())


def _has(place, step) -> bool:
    return (
        step in place
        if isinstance(place, dict)
        else isinstance(place, list) and isinstance(step, int) and step < len(place)
    )
