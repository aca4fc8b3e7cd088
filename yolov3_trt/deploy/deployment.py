"""Which artifact becomes which model of a repository, and what runs it there."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from yolov3_trt.backends.triton.contract import Variant
from yolov3_trt.deploy.triton import ServedModel, Serving, config_from_model
from yolov3_trt.errors import BackendError
from yolov3_trt.meta import EngineMeta, ModelMeta, OutputStage, load_engine_meta, load_model_meta

_ENGINE_SUFFIXES = (".engine", ".plan")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True)
class Deployment:
    """An artifact, and the model whose next version it becomes."""

    artifact: Path
    model: ServedModel
    fallbacks: tuple[str, ...] = ()  # what could be done better elsewhere, each with the reason


def plan_deployments(artifacts: Sequence[Path], name: str | None, variant: str, serving: Serving) -> list[Deployment]:
    """Read the sidecars and decide what each artifact becomes; nothing is written.

    Args:
        artifacts: engines and `.onnx` files, oldest version first.
        name: of the one model they become versions of; None: each is named after its file.
        variant: a `Variant`'s value, or `auto`: what the artifact was made for.
        serving: how they are run.

    Raises:
        BackendError: an artifact and the variant or the options do not go together.
        MetaError: a sidecar is missing or damaged.
    """
    planned = [_deployment(artifact, name or artifact.stem, variant, serving) for artifact in artifacts]
    for one in planned:
        config_from_model(one.model)  # refuses what cannot be served, before anything is written
    return planned


def _deployment(artifact: Path, name: str, variant: str, serving: Serving) -> Deployment:
    if not _NAME.fullmatch(name):
        raise BackendError(
            f"{name!r} cannot name a model; expected letters, digits, _, - and . only: give one with --name"
        )
    meta = load_meta(artifact)
    is_engine = isinstance(meta, EngineMeta)
    own = meta.model if isinstance(meta, EngineMeta) else meta
    check_no_rows(artifact, own)
    chosen, fallbacks = _choose(artifact, meta, variant)
    model = ServedModel(name, own, chosen, is_engine, serving)
    return Deployment(artifact, model, fallbacks)


def load_meta(artifact: Path) -> ModelMeta | EngineMeta:
    """Read the sidecar of an engine or an `.onnx`.

    Raises:
        BackendError: the file is neither.
        MetaError: the sidecar is missing or damaged.
    """
    if artifact.suffix == ".onnx":
        return load_model_meta(artifact)
    if artifact.suffix in _ENGINE_SUFFIXES:
        return load_engine_meta(artifact)
    raise BackendError(f"{artifact}: cannot be deployed; expected an .onnx (`export`) or an .engine (`build`)")


def check_no_rows(artifact: Path, model: ModelMeta) -> None:
    """Refuse rows, which no server of these reads.

    Raises:
        BackendError: the artifact gives rows.
    """
    if model.output_stage is OutputStage.ROWS:
        raise BackendError(
            f"{artifact}: it gives rows, which are for programs with a suppression of their own, such as OpenCV's users and "
            "Frigate; export it with --output-stage heads or detections"
        )


def _choose(artifact: Path, meta: ModelMeta | EngineMeta, variant: str) -> tuple[Variant, tuple[str, ...]]:
    """Choose the variant; the texts say why it is not the one that this kind of artifact is for."""
    if isinstance(meta, ModelMeta):
        chosen = Variant.ONNXRUNTIME if variant == "auto" else Variant(variant)
        if chosen is Variant.TENSORRT:
            raise BackendError(
                f"{artifact}: Triton's tensorrt backend takes an engine; make one with: yolov3_trt build"
            )
        return chosen, ()
    is_rtx = meta.flavor != "tensorrt"
    if variant == "auto" and is_rtx:
        reason = f"built by {meta.flavor}, which Triton's tensorrt backend does not load, so the python variant runs it"
        return Variant.PYTHON, (reason,)
    chosen = Variant.TENSORRT if variant == "auto" else Variant(variant)
    if chosen is Variant.ONNXRUNTIME:
        raise BackendError(
            f"{artifact}: onnxruntime runs the .onnx, not an engine; deploy that, or leave --variant out"
        )
    if chosen is Variant.TENSORRT and is_rtx:
        raise BackendError(
            f"{artifact}: built by {meta.flavor}, which Triton's tensorrt backend does not load; build it with --flavor "
            "tensorrt, or give --variant python"
        )
    return chosen, ()
