"""The one way from an engine file to bytes that TensorRT may see.

An engine is executable content: TensorRT runs what is in it, and no check of its bytes can tell a harmful one from a harmless
one. What can be checked is checked here, before TensorRT is loaded: that the plan is the one its sidecar describes, that only
its owner could have put it there, and that this machine can run it.
"""

from dataclasses import dataclass
from pathlib import Path

from yolov3_trt.arguments import spelled
from yolov3_trt.engine.machine import Machine, this_machine
from yolov3_trt.engine.trust import suspicions
from yolov3_trt.engine.verdict import Verdict, verdict
from yolov3_trt.errors import EngineError
from yolov3_trt.meta import EngineMeta, load_engine_meta, sidecar_path


@dataclass(frozen=True)
class Plan:
    """A plan that this machine can run, and whose origin was checked."""

    path: Path
    meta: EngineMeta
    content: bytes  # what TensorRT deserialises
    verdict: Verdict  # with what speaks against it, if anything


def load_plan(path: Path, *, trust: bool = False, machine: Machine | None = None) -> Plan:
    """Read an engine, or refuse it.

    Args:
        path: of the `.engine`; its sidecar lies beside it.
        trust: take it whoever owns it or can write to it.
        machine: where it shall run; by default here.

    Raises:
        MetaError: its sidecar is missing, damaged, or another plan's, or the plan was altered or cut short.
        EngineError: others could have put it there, or this machine cannot run it; the text says what to do.
    """
    content = path.read_bytes() if path.is_file() else b""
    meta = load_engine_meta(path, content)  # the bytes in hand are those that are compared with the sidecar
    suspicion = None if trust else why_untrusted(path)
    if suspicion:
        raise EngineError(f"{path}: {suspicion}")
    found = verdict(meta, machine or this_machine(), graph_beside(path))
    if not found.runs:
        raise EngineError(f"{path}: cannot run here: {'; '.join(found.reasons)}; {found.fix}")
    return Plan(path, meta, content, found)


def graph_beside(engine_path: Path) -> Path | None:
    """The `.onnx` that `build` makes an engine of this name from, where it lies beside it."""
    onnx_path = engine_path.with_suffix(".onnx")
    return onnx_path if onnx_path.is_file() else None


def why_untrusted(path: Path) -> str | None:
    """Who besides this user and root could have put a plan or its sidecar there, and what to do; None: nobody. See `trust`."""
    for file in (path, sidecar_path(path)):
        for place, fault, fix in suspicions(file):
            return (
                f"{place} {fault}, and an engine is executable content; expected a file and a folder that only you or root can "
                f"write to. If you know that this engine is yours, load it with {spelled('trust', True)}, or: {fix}"
            )
    return None
