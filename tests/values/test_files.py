"""Files are whole or absent."""

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from yolov3_trt import files
from yolov3_trt.errors import OutputError
from yolov3_trt.files import check_writable, locked, make_folder, replacing, sha256_of_file, write_bytes, write_text


@pytest.mark.parametrize(
    "content, digest",
    [
        (b"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        (b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (b"a" * 1_000_000 * 2, "bcf7f9d1b4311c3352e60502255ce09a6744df84e8f2c89f79c4b5d74933a95a"),
    ],
    ids=["empty", "abc", "longer than one piece"],
)
def test_sha256_is_that_of_the_standard(tmp_path: Path, content: bytes, digest: str):
    (tmp_path / "f").write_bytes(content)
    assert sha256_of_file(tmp_path / "f") == digest


def test_written_file_is_whole_and_alone_in_a_folder_made_for_it(tmp_path: Path):
    path = tmp_path / "a" / "b" / "result.bin"
    write_bytes(path, b"12")
    assert path.read_bytes() == b"12"
    write_text(path, "größer")
    assert path.read_bytes() == b"gr\xc3\xb6\xc3\x9fer"
    assert list(path.parent.iterdir()) == [path]


def test_written_file_has_the_permissions_of_any_new_file(tmp_path: Path):
    mask = os.umask(0o027)
    try:
        write_bytes(tmp_path / "f", b"")
        assert os.umask(0o027) == 0o027  # as it was
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o640


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_exception_keeps_the_old_file_and_leaves_nothing_behind(tmp_path: Path, failure: type[BaseException]):
    path = tmp_path / "f"
    path.write_bytes(b"old")
    with pytest.raises(failure), replacing(path) as partial:
        partial.write_bytes(b"ne")
        assert partial.parent == path.parent and partial.suffix == ".partial"
        raise failure
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_full_disk_is_an_output_error_that_keeps_the_old_file(tmp_path: Path):
    path = tmp_path / "f"
    path.write_bytes(b"old")
    with pytest.raises(OutputError) as caught, replacing(path):
        raise OSError(28, "No space left on device")
    assert str(caught.value) == f"{path}: cannot be written (No space left on device)"
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"old"]


@pytest.mark.parametrize(
    "failure",
    [
        FileNotFoundError(2, "No such file or directory", "picture.jpg"),
        OSError(28, "No space left on device", "/other/disk/file"),
        ConnectionResetError(104, "Connection reset by peer"),
        TimeoutError("timed out"),
    ],
    ids=lambda failure: type(failure).__name__,
)
def test_what_fails_meanwhile_and_is_not_about_the_file_is_not_called_a_failed_write(tmp_path: Path, failure: OSError):
    with pytest.raises(type(failure)) as caught, replacing(tmp_path / "f"):
        raise failure
    assert caught.value is failure
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_in_the_body_names_the_file_and_not_the_temporary_one(tmp_path: Path):
    path = tmp_path / "f"
    with pytest.raises(OutputError) as caught, replacing(path) as partial:
        partial.unlink()
        partial.mkdir()
        try:
            partial.write_bytes(b"1")
        finally:
            partial.rmdir()
    assert str(caught.value) == f"{path}: cannot be written (Is a directory)"
    assert list(tmp_path.iterdir()) == []


def test_numpys_error_of_a_write_cut_short_is_about_the_file(tmp_path: Path):
    with pytest.raises(OutputError, match=r"f: cannot be written \(100 requested and 7 "), replacing(tmp_path / "f"):
        raise OSError("100 requested and 7 written")


def test_place_below_a_regular_file_is_an_output_error(tmp_path: Path):
    (tmp_path / "f").write_bytes(b"")
    with pytest.raises(OutputError) as caught:
        write_bytes(tmp_path / "f" / "sub" / "out", b"1")
    assert str(caught.value) == (f"{tmp_path}/f/sub: cannot create this folder (Not a directory); give a writable one")
    with pytest.raises(OutputError) as caught:
        make_folder(tmp_path / "f")
    assert str(caught.value) == f"{tmp_path}/f: cannot create this folder (File exists); give a writable one"


def test_folder_in_the_files_place_is_an_output_error(tmp_path: Path):
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputError) as caught:
        write_bytes(tmp_path / "out", b"1")
    assert str(caught.value) == f"{tmp_path}/out: cannot be written (Is a directory)"
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


def test_name_too_long_is_an_output_error(tmp_path: Path):
    path = tmp_path / ("n" * 300)
    with pytest.raises(OutputError) as caught:
        write_bytes(path, b"1")
    assert str(caught.value) == f"{path}: cannot write here (File name too long); give a writable folder"


def test_a_place_is_checked_without_creating_anything(tmp_path: Path):
    (tmp_path / "f").write_bytes(b"old")
    for good in ("new", "f", "deeper/still/new", "."):
        check_writable(tmp_path / good)
    for bad, why in (("f/new", "Not a directory"), ("n" * 300, "File name too long")):
        with pytest.raises(OutputError) as caught:
            check_writable(tmp_path / bad)
        assert str(caught.value) == f"{tmp_path / bad}: cannot write here ({why}); give a writable folder"
    assert [path.name for path in tmp_path.iterdir()] == ["f"] and (tmp_path / "f").read_bytes() == b"old"


@pytest.mark.skipif(os.name != "posix", reason="devices are POSIX files")
def test_a_device_is_not_replaced_by_a_file():
    with pytest.raises(OutputError, match=r"^/dev/null: a device or pipe; expected a place for files"):
        check_writable(Path("/dev/null"))


# --- locks ---

HOLD = """
import sys, time
from pathlib import Path
from yolov3_trt.files import locked
count = Path(sys.argv[2])
for _ in range(int(sys.argv[3])):
    with locked(Path(sys.argv[1])):
        before = int(count.read_text())
        time.sleep(0.001)
        count.write_text(str(before + 1))
"""


def test_processes_that_make_the_same_file_take_turns(tmp_path: Path):
    count = tmp_path / "count"
    count.write_text("0")
    command = [sys.executable, "-c", HOLD, str(tmp_path / "file"), str(count), "20"]
    running = [subprocess.Popen(command) for _ in range(4)]
    assert [process.wait(timeout=60) for process in running] == [0] * 4
    assert count.read_text() == "80"
    assert [path.name for path in tmp_path.iterdir()] == ["count"]


def test_who_has_to_wait_is_told(tmp_path: Path):
    told = []
    with locked(tmp_path / "file", lambda: told.append("first")):
        waiter = threading.Thread(target=lambda: locked(tmp_path / "file", lambda: told.append("second")).__enter__())
        waiter.start()
        waiter.join(0.3)
        assert told == ["second"] and waiter.is_alive()
    waiter.join(10)
    assert not waiter.is_alive()


def test_a_lock_removes_what_was_left_half_written(tmp_path: Path):
    for name in (".a.engine.abcdefgh.partial", ".b.engine.abcdefgh.partial", "a.engine"):
        (tmp_path / name).touch()
    with locked(tmp_path / "a.engine"):
        assert not (tmp_path / ".a.engine.abcdefgh.partial").exists()
    assert {path.name for path in tmp_path.iterdir()} == {".b.engine.abcdefgh.partial", "a.engine"}


def test_a_temporary_file_that_another_writer_took_for_left_over_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    hold, taken = files._hold, list[Path]()

    def late(handle: int) -> bool:
        if not taken:  # before the first is held
            (left,) = tmp_path.glob("*.partial")
            left.unlink()
            taken.append(left)
        return hold(handle)

    monkeypatch.setattr(files, "_hold", late)
    with replacing(tmp_path / "a") as partial:
        partial.write_bytes(b"new")
        assert partial not in taken
    assert (tmp_path / "a").read_bytes() == b"new" and list(tmp_path.iterdir()) == [tmp_path / "a"]


def test_a_lock_in_a_file_that_is_no_folder_says_so(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot create this folder"), locked(tmp_path / "file" / "a"):
        pass


def test_what_a_killed_run_left_is_removed_by_the_next_and_what_another_still_writes_is_not(tmp_path: Path):
    path = tmp_path / "net.onnx"
    left, video = tmp_path / ".net.onnx.abcdefgh.partial", tmp_path / ".net.onnx.abcdefgh.partial.mp4"
    left.write_bytes(b"half")
    video.write_bytes(b"half")
    (tmp_path / ".other.onnx.abcdefgh.partial").write_bytes(b"not of this file")
    with replacing(path, ".mp4") as outer:
        assert not left.exists() and not video.exists() and outer.name.endswith(".partial.mp4")
        write_bytes(path, b"whole")
        assert outer.exists()
        outer.write_bytes(b"newer")
    assert path.read_bytes() == b"newer"
    assert sorted(found.name for found in tmp_path.iterdir()) == [".other.onnx.abcdefgh.partial", "net.onnx"]
