"""Published weights into the cache that `load_model` looks in: downloaded or copied, checked, then renamed into place."""

import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from yolov3_trt.arguments import spelled, text
from yolov3_trt.errors import FetchError, OutputError
from yolov3_trt.files import cache_folder, digest_of_file, locked, replacing
from yolov3_trt.jobs.download import download
from yolov3_trt.models import BUNDLED
from yolov3_trt.models.architectures import BUILT_IN
from yolov3_trt.models.mistaken import did_you_mean
from yolov3_trt.models.published import PUBLISHED, Published
from yolov3_trt.reporter import SILENT, Reporter


@dataclass(frozen=True)
class Fetched:
    """Weights that are in place, whole and checked.

    Attributes:
        name: of the model.
        path: of the file.
        num_bytes: its size.
        digest: what it was checked against, `sha256:HEX` or `sha1:HEX`.
        source: the URL or file that it came from; None where it was there already.
        cfg: a page with its .cfg, where the model is not built in; None where it is.
    """

    name: str
    path: Path
    num_bytes: int
    digest: str
    source: str | None
    cfg: str | None

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {**asdict(self), "path": str(self.path)}


def fetch(
    name: str,
    *,
    url: str | None = None,
    source: Path | None = None,
    destination: Path | None = None,
    sha256: str | None = None,
    reporter: Reporter = SILENT,
) -> Fetched:
    """Bring the published weights of a model to where `load_model` finds them.

    What an interrupted download leaves lies beside the destination, as `.NAME.weights.DIGEST.part`, and the next call goes on
    from there, from whichever server.

    Args:
        name: of the model; see `PUBLISHED`.
        url: a mirror, in place of the places that are known.
        source: a file that is here already, to be copied in place of a download.
        destination: a folder, or a file that ends in `.weights`; by default the cache.
        sha256: hex digest to expect in place of the published one, or where none is published.
        reporter: is told of the progress.

    Raises:
        FetchError: no such model, no digest, no server that has the file, or a file of another digest.
        OutputError: the destination cannot be written.
    """
    published = _expected(text("name", name), url, sha256)
    path = _destination(name, destination)
    with locked(path, lambda: reporter.say(f"{path}: another process is fetching this; waiting ...")):
        came_from = None
        if path.exists():
            _check(
                path,
                published,
                f"{path} is there already, but is another file; move it away, or give another "
                f"{spelled('destination', option='--dest')}",
            )
        else:
            came_from = str(source) if source else None
            if source is not None:
                _copy(source, path, published)
            else:
                came_from = _bring(published, path, reporter)
    cfg = None if name in BUILT_IN else published.cfg
    assert published.digest is not None
    return Fetched(name, path, path.stat().st_size, published.digest, came_from, cfg)


def _expected(name: str, url: str | None, sha256: str | None) -> Published:
    """What the file must be, and where it may lie."""
    if name in BUNDLED:
        raise FetchError(f"{name}: its weights come with the package; there is nothing to fetch")
    if name not in PUBLISHED:
        known = ", ".join(PUBLISHED)
        why = "no weights of it are known to be published" if name in BUILT_IN else "there is no such model"
        raise FetchError(f"{name}: {why};{did_you_mean(name, PUBLISHED)} expected one of {known}")
    published = PUBLISHED[name]
    if sha256 is not None:
        digest = sha256.lower().removeprefix("sha256:")
        if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
            raise FetchError(f"{name}: {spelled('sha256')} is {sha256!r}; expected 64 hexadecimal digits")
        published = replace(published, digest=f"sha256:{digest}", num_bytes=None)
    if published.digest is None:
        raise FetchError(
            f"{name}: no digest of {published.urls[0]} was published; give the one you trust with {spelled('sha256')}"
        )
    if url is None:
        return published
    if urlsplit(url).scheme not in ("http", "https"):
        raise FetchError(
            f"{url}: expected an http:// or https:// address; a file that is here goes with "
            f"{spelled('source', option='--from')}"
        )
    return replace(published, urls=(url,))


def _destination(name: str, given: Path | None) -> Path:
    if given is None:
        return cache_folder() / f"{name}.weights"
    return given if given.suffix == ".weights" and not given.is_dir() else given / f"{name}.weights"


def _bring(published: Published, path: Path, reporter: Reporter) -> str:
    """Download to the part file, and rename that once it is whole; returns the URL that had it."""
    assert published.digest is not None
    part = path.with_name(f".{path.name}.{published.digest.partition(':')[2][:16]}.part")
    kept = part.stat().st_size if part.exists() else 0
    free = shutil.disk_usage(path.parent).free
    if (published.num_bytes or 0) - kept > free:
        raise OutputError(
            f"{path}: needs {published.num_bytes:,} bytes and {free:,} are free there; give another place with "
            f"{spelled('destination', option='--dest')}"
        )
    faults: list[str] = []
    for url in published.urls:
        if faults:
            reporter.say(f"{faults[-1]}; trying {url} ...")
        try:
            _download_and_check(url, part, published, reporter)
        except FetchError as exc:
            faults.append(str(exc))
        else:
            _rename(part, path)
            return url
    raise FetchError(
        f"{'; '.join(faults)} ({spelled('url')} takes a mirror, {spelled('source', option='--from')} a file that you have)"
    )


def _download_and_check(url: str, part: Path, published: Published, reporter: Reporter) -> None:
    """Leaves nothing in `part` that turned out to be another file."""
    whole = published.num_bytes
    if part.exists() and (whole is None or part.stat().st_size >= whole):  # stopped before the check
        if _digest(part, published) == published.digest:
            return
        part.unlink()
    for _ in range(2 if part.exists() else 1):
        download(url, part, whole, reporter)
        if (got := _digest(part, published)) == published.digest:
            return
        part.unlink()
        problem = f"{url}: its digest is {got}; expected {published.digest}: another file, or damaged on the way"
    raise FetchError(problem)


def _rename(part: Path, path: Path) -> None:
    try:
        part.replace(path)
    except OSError as exc:
        raise OutputError(f"{path}: cannot be written ({exc.strerror or exc})") from exc


def _copy(source: Path, path: Path, published: Published) -> None:
    if not source.is_file():
        raise FetchError(f"{source}: there is no such file; expected the weights for {path.name}")
    _check(source, published, f"{source} is another file than the published one")
    with replacing(path) as partial:
        shutil.copyfile(source, partial)


def _check(path: Path, published: Published, problem: str) -> None:
    got = _digest(path, published)
    if got != published.digest:
        raise FetchError(f"{problem} (its digest is {got}; expected {published.digest})")


def _digest(path: Path, published: Published) -> str:
    assert published.digest is not None
    algorithm = published.digest.partition(":")[0]
    try:
        return f"{algorithm}:{digest_of_file(path, algorithm)}"
    except OSError as exc:
        raise FetchError(f"{path}: cannot be read ({exc.strerror or exc})") from exc
