"""Who could have put a file there whose content is run: engines, compiled kernels, caches of a GPU's code. POSIX only.

The file, the folders that it lies in up to the root, and the links on the way must belong to this user or to root, and no other
user may be able to write to them. A group may that has no member but the owner, as is usual on Ubuntu. A folder that all can
write to will do if only owners can replace their files, as in /tmp. A digest in or beside the file says nothing: who can write
the one can write the other.
"""

import errno
import os
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path

_MAX_LINKS = 40  # as Linux


def suspicions(path: Path) -> Iterator[tuple[Path, str, str]]:
    """Each unsafe place on the way to a file, the file itself first, what is wrong with it, and the command that rights it.

    What is not there is not looked at.
    """
    if os.name == "posix":
        for place in reversed(_places(path)):
            for fault, fix in _faults(place):
                yield place, fault, fix


def why_suspicious(path: Path) -> str | None:
    """The first of them in words, or why it cannot be known; None where there is none."""
    try:
        place, fault, fix = next(suspicions(path), (None, "", ""))
    except OSError as exc:
        return f"{path} cannot be looked at ({exc.strerror})"
    return None if place is None else f"{place} {fault}; {fix}"


def _places(path: Path) -> list[Path]:
    """Folders from the root to a file, links and the file itself, as the system finds its way."""
    here, todo, links = Path("/"), list(path.absolute().parts[1:]), 0
    found = [here]
    while todo:
        part = todo.pop(0)
        if part == "..":
            here = here.parent
            continue
        place = here / part
        if not os.path.lexists(place):
            break
        found.append(place)
        if not place.is_symlink():
            here = place
            continue
        links += 1
        if links > _MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
        target = place.readlink()
        here, todo = (Path("/") if target.is_absolute() else here), [*target.parts[target.is_absolute() :], *todo]
    return list(dict.fromkeys(found))


def _faults(place: Path) -> Iterator[tuple[str, str]]:
    """What is wrong with a file or folder, and the command that rights it."""
    status, quoted = place.lstat(), shlex.quote(str(place))
    if status.st_uid not in (os.geteuid(), 0):
        yield (
            f"belongs to {_user_name(status.st_uid)}, neither to you nor to root",
            f"sudo chown {os.geteuid()} {quoted}",
        )
    if stat.S_ISLNK(status.st_mode) or (stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX):
        return  # a link's mode says nothing
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
