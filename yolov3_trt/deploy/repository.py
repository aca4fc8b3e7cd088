"""A model repository for Triton: a folder that a server may be reading at any moment.

A version's folder is filled under a name that is no number, which Triton passes over, and renamed when it is whole. What a
new model needs besides comes before its first version, and a known model's new configuration after its new version: whenever
this ends, the server finds a model as it was, or as it shall be, or one without a version, which it does not serve.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from yolov3_trt.backends.triton.contract import Variant, contract_of
from yolov3_trt.backends.triton.model_config import config_from_text, text_from_config
from yolov3_trt.deploy.python_model import MODEL_SOURCE
from yolov3_trt.deploy.triton import (
    LABELS_FILE,
    WARMUP_FILE,
    ServedModel,
    config_from_model,
)
from yolov3_trt.deploy.warmup import warmup_content
from yolov3_trt.errors import BackendError, MetaError, OutputError
from yolov3_trt.files import locked, make_folder, replacing, write_bytes, write_text
from yolov3_trt.meta import load_engine_meta, load_model_meta, sidecar_path

CONFIG_FILE = "config.pbtxt"
_HEADER = "# Written by `yolov3_trt deploy triton`. A new version replaces this file; what clients see of it stays the same.\n"


@dataclass(frozen=True)
class Deployed:
    """A version that was put into a repository."""

    folder: Path  # of the version
    version: int
    replaced_config: bool  # False: the model's configuration was there already, with just this content


def add_version(repository: Path, artifact: Path, model: ServedModel) -> Deployed:
    """Put an artifact into a repository as the next version of a model, which it may or may not hold already.

    Args:
        repository: folder of models; created unless it is there.
        artifact: an `.onnx` or an engine, with its sidecar.
        model: what the server shall run.

    Raises:
        BackendError: the artifact cannot be served like that, or clients of the model would notice a difference, which the
            text names.
        MetaError: a file of the repository or the sidecar cannot be read.
        MissingDependency: tritonclient, which knows the form of a configuration, is not installed.
        OutputError: the repository cannot be written.
    """
    content = _HEADER + text_from_config(config_from_model(model))
    folder = make_folder(repository) / model.name
    with locked(folder):
        is_new = _check_existing(folder, content)
        make_folder(folder)
        _remove_partial(folder)
        if is_new:
            _write_companions(folder, model)
            write_text(folder / CONFIG_FILE, content)
        version = 1 + max((int(path.name) for path in folder.iterdir() if _is_version(path)), default=0)
        with _appearing(folder / str(version)) as partial:
            _copy_artifact(artifact, partial, model)
        replaced = is_new or (folder / CONFIG_FILE).read_text() != content
        if replaced and not is_new:
            _write_companions(folder, model)
            write_text(folder / CONFIG_FILE, content)
    return Deployed(folder / str(version), version, replaced)


def _check_existing(folder: Path, content: str) -> bool:
    """Whether the model is a new one; refuses one that its clients would see changed."""
    path = folder / CONFIG_FILE
    try:
        existing = path.read_text()
    except FileNotFoundError:
        if folder.is_dir() and any(map(_is_version, folder.iterdir())):
            raise MetaError(
                f"{path}: missing, but the model has versions; restore it, or give another --name"
            ) from None
        return True
    except (OSError, UnicodeDecodeError) as exc:
        raise MetaError(f"{path}: cannot be read ({exc}); restore it, or give another --name") from exc
    there, here = (
        contract_of(config_from_text(text, str(path)), str(path), "give this one another --name")
        for text in (existing, content)
    )
    different = there.difference(here)
    if not different and there.max_batch != here.max_batch:
        different = f"max_batch_size: {there.max_batch} and {here.max_batch}"
    if different:
        raise BackendError(
            f"{path}: the versions there and this one differ in {different}; give this one another --name"
        )
    return False


def _write_companions(folder: Path, model: ServedModel) -> None:
    """Write the files that a configuration names."""
    write_text(folder / LABELS_FILE, "".join(f"{name}\n" for name in model.meta.class_names))
    write_bytes(folder / "warmup" / WARMUP_FILE, warmup_content(model))


def _copy_artifact(artifact: Path, folder: Path, model: ServedModel) -> None:
    """Fill the folder of a version, and check the copy."""
    is_engine = artifact.suffix != ".onnx"
    if model.variant is Variant.PYTHON:
        write_text(folder / model.model_file, MODEL_SOURCE)
        copy = folder / ("detector.engine" if is_engine else "detector.onnx")
    else:
        copy = folder / model.model_file
    for source, target in ((artifact, copy), (sidecar_path(artifact), sidecar_path(copy))):
        with replacing(target) as partial:
            shutil.copyfile(source, partial)
    meta = load_engine_meta(copy).model if is_engine else load_model_meta(copy)
    if meta != model.meta:
        raise BackendError(f"{artifact}: it was replaced while it was copied; deploy it again")


@contextmanager
def _appearing(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `folder`; on success it is renamed to that, on failure removed."""
    try:
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".partial", dir=folder.parent))
    except OSError as exc:
        raise OutputError(f"{folder}: cannot be created ({exc.strerror}); give a writable folder with -o") from exc
    try:
        yield partial
        partial.chmod(0o755)  # the server may be another user
        _flush_folder(partial)
        partial.rename(folder)
        _flush_folder(folder.parent)
    except OSError as exc:
        raise OutputError(f"{folder}: cannot be written ({exc.strerror or exc})") from exc
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _remove_partial(folder: Path) -> None:
    """Remove what an earlier run left half-written when it was killed."""
    for left in (*folder.glob(".*.partial"), *(folder / "warmup").glob(".*.partial")):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def _is_version(path: Path) -> bool:
    return path.name.isascii() and path.name.isdigit() and path.is_dir()


def _flush_folder(folder: Path) -> None:
    with suppress(PermissionError):  # of Windows, which opens no folders
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
