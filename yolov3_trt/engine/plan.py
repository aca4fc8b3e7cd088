"""The one way from an engine file to bytes that TensorRT may see.

An engine is executable content: TensorRT runs what is in it, and no check of its bytes can tell a harmful one from a harmless
one. What can be checked is checked here, before TensorRT is loaded: that the plan is the one its sidecar describes, that only
its owner could have put it there, and that this machine can run it.
"""

import os
import shlex
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from yolov3_trt.engine.machine import Machine, this_machine
from yolov3_trt.engine.verdict import Verdict, verdict
from yolov3_trt.errors import EngineError
from yolov3_trt.meta import EngineMeta, load_engine_meta


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
    before = _state(path)
    meta = load_engine_meta(path)
    suspicion = None if trust else why_untrusted(path)
    if suspicion:
        raise EngineError(f"{path}: {suspicion}")
    found = verdict(meta, machine or this_machine(), graph_beside(path))
    if not found.runs:
        raise EngineError(f"{path}: cannot run here: {'; '.join(found.reasons)}; {found.fix}")
    content = path.read_bytes()
    # The bytes in hand must be those that were compared with the sidecar; to hash a large plan again would take a second.
    if _state(path) != before:
        raise EngineError(f"{path}: the plan was replaced while it was being read; try again")
    return Plan(path, meta, content, found)


def graph_beside(engine_path: Path) -> Path | None:
    """The `.onnx` that `build` makes an engine of this name from, where it lies beside it."""
    onnx_path = engine_path.with_suffix(".onnx")
    return onnx_path if onnx_path.is_file() else None


def why_untrusted(path: Path) -> str | None:
    """Who besides this user and root could have put a plan there, and what to do; None: nobody. POSIX only.

    The file and its folder must belong to this user or to root, and no other user may be able to write to them. A group may
    that has no member but the owner, as is usual on Ubuntu. A folder that all can write to will do if only owners can replace
    their files, as in /tmp. Of a link, the folder and what it points to must pass. Folders further up are not looked at.
    """
    if os.name != "posix":
        return None
    real = path.resolve()
    for place in dict.fromkeys((real, real.parent, path.parent.absolute())):
        for fault, fix in _suspicions(place):
            return (
                f"{place} {fault}, and an engine is executable content; expected a file and a folder that only you or root can "
                f"write to. If you know that this engine is yours, load it with --trust, or: {fix}"
            )
    return None


def _state(path: Path) -> tuple[int, ...] | None:
    """What changes with every write to a file and every replacement of it; None where there is none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _suspicions(place: Path) -> Iterator[tuple[str, str]]:
    """What is wrong with a file or folder, and the command that rights it."""
    status, quoted = place.stat(), shlex.quote(str(place))
    if status.st_uid not in (os.geteuid(), 0):
        yield (
            f"belongs to {_user_name(status.st_uid)}, neither to you nor to root",
            f"sudo chown {os.geteuid()} {quoted}",
        )
    if stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX:
        return
    if status.st_mode & stat.S_IWOTH:
        yield "can be written by every user", f"chmod o-w {quoted}"
    if status.st_mode & stat.S_IWGRP and not _is_private_group(status.st_gid, status.st_uid):
        yield f"can be written by the group {_group_name(status.st_gid)}", f"chmod g-w {quoted}"


def _is_private_group(gid: int, uid: int) -> bool:
    """Whether a group is its owner's own: the primary one, of nobody else."""
    import grp
    import pwd

    try:
        owner, members = pwd.getpwuid(uid), grp.getgrgid(gid).gr_mem
    except KeyError:  # a number without an entry, as in a container
        return False
    others = (user.pw_name for user in pwd.getpwall() if user.pw_gid == gid and user.pw_uid != uid)
    return owner.pw_gid == gid and not {*members, *others} - {owner.pw_name}


def _user_name(uid: int) -> str:
    import pwd

    try:
        return f"the user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"the user number {uid}"


def _group_name(gid: int) -> str:
    import grp

    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
