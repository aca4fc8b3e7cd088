"""Files that are whole or absent: atomic writes and content hashes."""

import errno
import glob
import hashlib
import os
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import Any, TextIO

from yolov3_trt.errors import CameraError, OutputError

_LARGEST_SECRET = 1 << 20  # bytes

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

# What writing ends with where the file's name is not at fault; such an error does not say which file it was.
_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS}


class Written:
    """A result that goes wherever the path of what was written does.

    Attributes:
        path: of it.
    """

    path: Path

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        """Short, whatever the result holds besides."""
        return f"<{type(self).__name__} {self.path}>"


def sha256_of_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes, read in pieces."""
    return digest_of_file(path, "sha256")


def digest_of_file(path: Path, algorithm: str) -> str:
    """Hex digest of a file's bytes by an algorithm that `hashlib` knows, read in pieces."""
    digest = hashlib.new(algorithm)
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def read_toml(path: Path) -> dict[str, Any]:
    """What a TOML file holds.

    Raises:
        OSError: it cannot be read, or is no file.
        ValueError: it is no TOML in UTF-8.
    """
    check_is_file(path)
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except RecursionError as exc:
        raise ValueError("nested too deeply") from exc


def check_is_file(path: Path) -> None:
    """Refuse what has no end, or waits for a writer for ever; folders and missing files are told by opening them.

    Raises:
        OSError: a pipe, socket or device, or it cannot be looked at.
    """
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "it is no file but a pipe, socket or device", str(path))


def read_secret(path: Path) -> str:
    """The text of a small file of passwords.

    Raises:
        CameraError: others than its owner may read it.
        OSError: it cannot be read.
        ValueError: it is no text in UTF-8, or a large one.
    """
    with path.open("rb") as file:
        if os.name == "posix" and stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
            raise CameraError(f"{path}: others than its owner may use this file of passwords; run: chmod 600 {path}")
        content = file.read(_LARGEST_SECRET + 1)
    if len(content) > _LARGEST_SECRET:
        raise ValueError("too large for a file of passwords")
    return content.decode()


def open_to_add(path: Path) -> FileIO:
    """A file that is read, and added to at its end; made where there is none.

    Raises:
        OSError: it cannot be opened; it is a pipe or device; or a link in a folder that others can write to, which could lead
            to any file of this user.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    if path.parent.stat().st_mode & stat.S_IWOTH:
        flags |= getattr(os, "O_NOFOLLOW", 0)
    try:
        handle = os.open(path, flags, 0o666)
    except OSError as exc:
        if exc.errno == errno.ELOOP and path.is_symlink():
            exc.strerror = "it is a link, in a folder that others can write to"
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "it is no file but a pipe, socket or device", str(path))
    return FileIO(handle, "r+")


def cache_folder() -> Path:
    """Where fetched weights and compiled kernels are kept, in the user's cache (`XDG_CACHE_HOME`); it need not be there."""
    given = os.environ.get("XDG_CACHE_HOME")
    try:
        return Path(given or Path.home() / ".cache") / "yolov3_trt"
    except RuntimeError:  # a user without a home, as in a container: what others could have put there is not loaded
        return Path(tempfile.gettempdir(), f"yolov3_trt-{os.getuid()}")


def make_folder(path: Path) -> Path:
    """Create a folder for results, and its parents, unless it is there.

    Raises:
        OutputError: it cannot be created.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise OutputError(f"{path}: cannot create this folder ({exc.strerror}); give a writable one") from exc
    return path


def check_writable(path: Path) -> None:
    """See before the work that a file can be written there, or files into a folder; nothing is created.

    Raises:
        OutputError: it cannot.
    """
    try:
        place = next(place for place in (path, *path.parents) if place.exists())
        is_special = place == path and not (path.is_file() or path.is_dir())
        if not is_special:
            tempfile.TemporaryFile(dir=path.parent if path.is_file() else place).close()
    except OSError as exc:
        raise OutputError(f"{path}: cannot write here ({exc.strerror}); give a writable folder") from exc
    if is_special:
        raise OutputError(
            f"{path}: a device or pipe; expected a place for files, which are put there when they are whole"
        )


@contextmanager
def replacing(path: Path, suffix: str = "") -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success flush it to disk and rename it to `path`.

    Whatever happens inside, `path` is either its old self or complete, and no temporary file stays behind. (A SIGKILL may
    leave one; its name begins with a dot and ends in `.partial`, which no reader takes for a result, and who writes `path`
    next removes it.) Errors of the body that are about something else come out as they are.

    Args:
        path: of the file.
        suffix: what the temporary name ends in behind `.partial`, for libraries that go by it: `.mp4`.

    Raises:
        OutputError: the folder or the file cannot be written, by the body or here.
    """
    make_folder(path.parent)
    try:
        handle, partial = _partial(path, suffix)
    except OSError as exc:
        raise OutputError(f"{path}: cannot write here ({exc.strerror}); give a writable folder") from exc
    body_is_over = False
    _remove_left_over(path)
    try:
        yield partial
        body_is_over = True
        _flush(partial)
        partial.chmod(0o666 & ~_umask())
        partial.replace(path)
    except OSError as exc:
        if not (body_is_over or _is_about(partial, exc)):
            raise
        raise OutputError(f"{path}: cannot be written ({exc.strerror or exc})") from exc
    finally:
        if handle is not None:
            os.close(handle)
        partial.unlink(missing_ok=True)


def _partial(path: Path, suffix: str) -> tuple[int | None, Path]:
    """A new temporary file beside a file, and the handle that holds it where there are locks."""
    while True:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=f".partial{suffix}", dir=path.parent)
        if fcntl is None:
            os.close(handle)
            return None, Path(name)
        _hold(handle)
        if os.fstat(handle).st_nlink:  # else another writer has taken it for left over before it was held
            return handle, Path(name)
        os.close(handle)


def _hold(handle: int) -> bool:
    """Show by a lock, which ends with the process, that a temporary file is in use; whether nobody else does."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # of others, or a file system without locks
        return False
    return True


def _remove_left_over(path: Path) -> None:
    """Remove the temporary files of killed processes that wrote `path`."""
    if fcntl is None:
        return
    for left in path.parent.glob(f".{glob.escape(path.name)}.????????.partial*"):
        with suppress(OSError):  # somebody else's, or gone
            handle = os.open(left, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                if _hold(handle):
                    left.unlink()
            finally:
                os.close(handle)


@contextmanager
def locked(path: Path, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Keep other processes that do the same out while this one makes the file `path`.

    The lock is a file of its own, `.NAME.lock`, which the operating system frees with the process, however that ends. What
    earlier makers of `path` left half-written when they were killed is removed.

    Args:
        path: what is being made.
        on_wait: called once where another process has to be waited for.

    Raises:
        OutputError: the folder cannot be written.
    """
    from filelock import FileLock, Timeout  # here: few need it

    make_folder(path.parent)
    lock_path = path.with_name(f".{path.name}.lock")
    lock = FileLock(lock_path)
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            on_wait()
            lock.acquire()
    except OSError as exc:
        raise OutputError(f"{path}: cannot write here ({exc.strerror or exc}); give a writable folder") from exc
    try:
        _remove_left_over(path)
        yield
    finally:
        # Removed while it is held: who waits for it sees that this file is gone, and makes a new one (filelock 4.1).
        with suppress(PermissionError):  # of Windows, which removes it by itself
            lock_path.unlink(missing_ok=True)
        lock.release()


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Write a whole file atomically; see `replacing`."""
    with replacing(path) as partial:
        partial.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write a whole UTF-8 text file atomically; see `replacing`."""
    write_bytes(path, text.encode())


def silence(stream: TextIO) -> None:
    """Send what is still buffered in a stream nowhere, or Python would complain as it ends that nobody reads it."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _is_about(partial: Path, exc: OSError) -> bool:
    """Whether an error is a failed write of this file."""
    if exc.filename is not None:
        return str(exc.filename) == str(partial)
    # NumPy's, of a file that it could not write to its end, has no number.
    return exc.errno in _DISK_ERRORS or (type(exc) is OSError and exc.errno is None)


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
