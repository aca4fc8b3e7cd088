"""Calibration pictures: the same choice again, one at a time, and what speaks against a set."""

import hashlib
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yolov3_trt.data import images
from yolov3_trt.data.calibration_set import CalibrationSet, open_set
from yolov3_trt.data.fingerprints import (
    Fingerprint,
    PictureList,
    content_hashes,
    difference_hash,
    near_duplicates,
    overlap,
    repeat_warnings,
    set_warnings,
)
from yolov3_trt.data.images import load_image
from yolov3_trt.data.manifest import load_set
from yolov3_trt.data.pictures import choose
from yolov3_trt.data.sources import Source
from yolov3_trt.errors import CalibrationError, ImageError
from yolov3_trt.shapes import shapes_picture

cv2 = pytest.importorskip("cv2")


def write_pictures(folder: Path, count: int, suffix: str = ".png") -> list[Path]:
    folder.mkdir(parents=True)
    paths = [folder / f"{index:02}{suffix}" for index in range(count)]
    for index, path in enumerate(paths):
        assert cv2.imwrite(str(path), shapes_picture(7, index, (64, 96)).pixels)
    return paths


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("set") / "pictures"
    write_pictures(folder, 10)
    (folder / "notes.txt").write_text("no picture")
    return folder


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (96, 64))
    for index in range(12):
        writer.write(shapes_picture(7, index, (64, 96)).pixels)
    writer.release()
    return path


@settings(max_examples=50)
@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 5))
def test_a_choice_is_the_seeds_and_keeps_the_order(total: int, count: int, seed: int):
    items = [f"{index:02}" for index in range(total)]
    if count > total:
        with pytest.raises(CalibrationError, match=f"{total} pictures; expected {count} or more"):
            choose(items, count, seed)
        return
    chosen = choose(items, count, seed)
    assert chosen == choose(tuple(items), count, seed)
    assert list(chosen) == sorted(set(chosen)) and len(chosen) == count


def test_seeds_choose_differently():
    assert len({choose(range(100), 10, seed) for seed in range(5)}) == 5


def test_a_folder_gives_its_pictures_and_their_hashes(folder: Path):
    wanted = CalibrationSet.of(str(folder), 4, seed=1)
    assert wanted.source is Source.FOLDER
    pictures = open_set(wanted)
    names = [image.name for image in pictures]
    assert len(pictures) == len(names) == 4 and names == sorted(names)
    assert names == [image.name for image in pictures]  # as often as one likes
    assert pictures.hashes == tuple(hashlib.sha256(Path(name).read_bytes()).hexdigest() for name in names)
    assert pictures.hashes == content_hashes(map(Path, names))
    assert pictures.picture_list == PictureList.of(pictures.hashes)
    assert pictures.calibration_set == replace(wanted, sha256=pictures.picture_list.sha256)
    assert open_set(wanted).fingerprints == pictures.fingerprints
    assert [picture.name for picture in pictures.fingerprints] == names


def test_pictures_with_files_are_decoded_once(folder: Path, monkeypatch: pytest.MonkeyPatch):
    read = []
    monkeypatch.setattr(images, "load_image", lambda path: read.append(path) or load_image(path))
    pictures = open_set(CalibrationSet.of(str(folder), 4))
    assert read == []
    hashes = [difference_hash(picture.pixels) for picture in pictures]
    assert pictures.difference_hashes == tuple(hashes) and len(read) == 4
    unread = open_set(CalibrationSet.of(str(folder), 4))
    next(iter(unread))  # not all of them
    assert unread.difference_hashes == tuple(hashes)


def test_a_list_file_names_pictures_relative_to_itself(folder: Path, tmp_path: Path):
    listing = folder.parent / "list.txt"
    listing.write_text(f"pictures/03.png\n\n{folder / '01.png'}\n pictures/02.png \n")
    wanted = CalibrationSet.of(str(listing), 3)
    assert wanted.source is Source.LIST
    assert [Path(image.name).name for image in open_set(wanted)] == ["03.png", "01.png", "02.png"]


def test_a_video_gives_frames(video: Path):
    wanted = CalibrationSet.of(str(video), 5, seed=2)
    assert wanted.source is Source.VIDEO
    pictures = open_set(wanted)
    expected = [f"{video}#{index}" for index in choose(range(12), 5, 2)]
    assert [image.name for image in pictures] == [image.name for image in pictures] == expected
    assert len(set(pictures.hashes)) == 5
    assert all(picture.pixels.shape == (64, 96, 3) for picture in pictures)


def test_made_up_pictures_are_those_of_the_seed():
    pictures = open_set(CalibrationSet.of("shapes", 3, seed=9))
    assert pictures.calibration_set.source is Source.SHAPES
    for index, image in enumerate(pictures):
        assert image.name == f"shapes#{index}"
        np.testing.assert_array_equal(image.pixels, shapes_picture(9, index).pixels)
    assert open_set(CalibrationSet(Source.SHAPES, 3, 9)).hashes == pictures.hashes
    assert set(open_set(CalibrationSet(Source.SHAPES, 3, 10)).hashes).isdisjoint(pictures.hashes)


def test_pictures_are_never_all_in_memory(tmp_path: Path):
    path = tmp_path / "one.png"
    assert cv2.imwrite(str(path), np.full((400, 500, 3), 90, np.uint8))
    listing = tmp_path / "list.txt"
    listing.write_text("one.png\n" * 30)
    tracemalloc.start()
    pictures = open_set(CalibrationSet.of(str(listing), 30))
    for _ in pictures:
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * 400 * 500 * 3


def test_the_pictures_pass_through_a_progress_bar(folder: Path):
    seen = []
    open_set(
        CalibrationSet.of("shapes", 3),
        progress=lambda pictures: (seen.append(image.name) or image for image in pictures),
    )
    assert len(seen) == 3


def test_a_manifest_comes_back_from_any_place(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    manifest = folder.parent / "sets" / "mine.toml"
    wanted = open_set(CalibrationSet.of(str(folder), 4, seed=1)).calibration_set
    manifest.parent.mkdir()
    manifest.write_text(
        'format = "yolov3_trt.calibration-set/1"\nsource = "folder"\npath = "../pictures"\ncount = 4\nseed = 1\n'
        f'sha256 = "{wanted.sha256}"\n'
    )
    monkeypatch.chdir(tmp_path)
    found = load_set(manifest)
    assert open_set(found).hashes == open_set(wanted).hashes


def test_a_manifest_of_made_up_pictures_has_no_path(tmp_path: Path):
    (tmp_path / "set.toml").write_text(
        'format = "yolov3_trt.calibration-set/1"\nsource = "shapes"\ncount = 64\nseed = 3\n'
    )
    assert load_set(tmp_path / "set.toml") == CalibrationSet(Source.SHAPES, 64, 3)


@pytest.mark.parametrize("change", ["changed", "added", "removed"])
def test_other_pictures_than_when_the_manifest_was_written_are_refused(change: str, tmp_path: Path):
    paths = write_pictures(tmp_path / "pictures", 5)
    wanted = open_set(CalibrationSet.of(str(tmp_path / "pictures"), 4)).calibration_set
    if change == "changed":
        for path in paths:
            cv2.imwrite(str(path), shapes_picture(8, 0, (64, 96)).pixels)
    elif change == "added":
        for index in range(5):
            paths[index].with_name(f"{index:02}b.png").write_bytes(paths[index].read_bytes())
    else:
        paths[0].unlink()
        paths[1].write_bytes(paths[2].read_bytes())
    with pytest.raises(
        CalibrationError, match=r"the 4 chosen pictures have SHA-256 .*: a picture was changed, added or"
    ):
        open_set(wanted)


@pytest.mark.parametrize(
    "text, reason",
    [
        ("format = ", "this manifest cannot be read"),
        ('format = "x"', "format 'x'; expected 'yolov3_trt.calibration-set/1'"),
        ("source = 'shapes'", "format None; expected"),
        ("FORMAT\nsource = 'shapes'", "count: Field required"),
        (
            "FORMAT\nsource = 'web'\ncount = 3",
            "source: Input should be 'folder', 'list', 'video', 'shapes', 'files' or 'data'",
        ),
        ("FORMAT\nsource = 'shapes'\ncount = 3\nshuffle = true", "shuffle: Unexpected keyword argument"),
        ("FORMAT\nsource = 'shapes'\ncount = 0", "count=0, seed=0; expected count >= 1 and seed >= 0"),
        ("FORMAT\nsource = 'folder'\ncount = 3", "source 'folder' with path None; expected one unless it is 'shapes'"),
    ],
)
def test_a_manifest_that_says_something_else_is_refused(text: str, reason: str, tmp_path: Path):
    path = tmp_path / "set.toml"
    path.write_text(text.replace("FORMAT", 'format = "yolov3_trt.calibration-set/1"'))
    with pytest.raises(CalibrationError) as caught:
        load_set(path)
    assert str(caught.value).startswith(f"{path}: {reason}")


def test_a_missing_manifest_is_refused(tmp_path: Path):
    with pytest.raises(CalibrationError, match="there is no such manifest of calibration pictures"):
        load_set(tmp_path / "none.toml")


def test_sources_that_give_no_pictures_are_refused(folder: Path, video: Path, tmp_path: Path):
    with pytest.raises(CalibrationError, match=r"pictures: 10 pictures; expected 11 or more \(lower the count"):
        open_set(CalibrationSet.of(str(folder), 11))
    with pytest.raises(CalibrationError, match=r"clip.avi: 12 pictures; expected 13 or more"):
        open_set(CalibrationSet.of(str(video), 13))
    with pytest.raises(
        CalibrationError, match=r"nothing: cannot be read \(No such file or directory\); expected a folder"
    ):
        open_set(CalibrationSet.of(str(tmp_path / "nothing"), 1))
    with pytest.raises(CalibrationError, match="gone: there is no such folder"):
        open_set(CalibrationSet(Source.FOLDER, 1, path=tmp_path / "gone"))
    with pytest.raises(CalibrationError, match=r"00.png: cannot be read \(not a text\)"):
        open_set(CalibrationSet(Source.LIST, 1, path=folder / "00.png"))
    with pytest.raises(CalibrationError, match=r"00.png: 1 pictures; expected 2 or more"):
        open_set(CalibrationSet.of(str(folder / "00.png"), 2))
    (tmp_path / "list.txt").write_text("gone.png\n")
    with pytest.raises(ImageError, match=r"gone.png: cannot be read"):
        open_set(CalibrationSet.of(str(tmp_path / "list.txt"), 1))
    (tmp_path / "list.txt").write_text(f"{video}\n")
    with pytest.raises(CalibrationError, match=r"clip.avi is a video; expected pictures only"):
        open_set(CalibrationSet.of(str(tmp_path / "list.txt"), 1))
    with pytest.raises(ImageError, match=r"gone.png: cannot be read"):
        content_hashes([tmp_path / "gone.png"])


def test_a_difference_hash_is_that_of_the_definition():
    ramp = np.repeat(np.linspace(0, 250, 90).astype(np.uint8)[None], 80, axis=0)
    assert difference_hash(cv2.merge([ramp] * 3)) == 2**64 - 1
    assert difference_hash(cv2.merge([ramp[:, ::-1]] * 3)) == 0
    half = ramp.copy()
    half[40:] = half[40:, ::-1]
    assert difference_hash(cv2.merge([half] * 3)) == (2**32 - 1) << 32


@pytest.mark.parametrize("index", range(4))
def test_a_difference_hash_survives_another_size_quality_and_brightness(index: int):
    picture = shapes_picture(3, index, (240, 320)).pixels
    first = difference_hash(picture)
    small = cv2.resize(picture, (208, 156), interpolation=cv2.INTER_AREA)
    jpeg = cv2.imdecode(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 50])[1], cv2.IMREAD_COLOR)
    brighter = cv2.convertScaleAbs(picture, alpha=0.9, beta=12)
    for other in (small, jpeg, brighter):
        assert (first ^ difference_hash(other)).bit_count() <= 4
    assert (first ^ difference_hash(shapes_picture(3, index + 4).pixels)).bit_count() > 4


@settings(max_examples=50)
@given(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 255), max_size=12))
def test_near_duplicates_are_those_of_a_search_over_all_pairs(hashes: list[int]):
    expected = []
    for index, value in enumerate(hashes):
        earlier = [first for first in range(index) if bin(value ^ hashes[first]).count("1") <= 4]
        expected += [(index, earlier[0])] if earlier else []
    assert near_duplicates(hashes) == tuple(expected)


def prints(count: int) -> list[Fingerprint]:
    hashes = [hashlib.sha256(b"%d" % index) for index in range(count)]
    return [Fingerprint(f"{index:02}.jpg", digest.hexdigest()) for index, digest in enumerate(hashes)]


def test_a_good_set_has_no_warnings():
    assert set_warnings(prints(32), {"another"}) == ()


def test_a_small_set_is_warned_of():
    assert set_warnings(prints(31)) == ("31 calibration pictures; ranges are steadier with 32 or more",)


def test_near_duplicates_are_warned_of():
    hashes = [int(picture.sha256[:16], 16) for picture in prints(40)]
    assert repeat_warnings(prints(40), hashes) == ()
    for index in (7, 9, 30):
        hashes[index] = hashes[2] ^ index
    assert repeat_warnings(prints(40), hashes) == (
        "3 of the 40 calibration pictures nearly repeat an earlier one, e.g. 07.jpg and 02.jpg: they count as 37",
    )


def test_evaluation_pictures_in_the_set_are_refused_unless_allowed():
    pictures = prints(40)
    evaluation = [pictures[5].sha256, pictures[8].sha256, "another"]
    assert overlap(pictures, evaluation) == (pictures[5], pictures[8])
    text = (
        "2 of the 40 calibration pictures are evaluation pictures too, e.g. 05.jpg: "
        "the accuracy measured on those flatters INT8"
    )
    with pytest.raises(CalibrationError) as caught:
        set_warnings(pictures, evaluation)
    assert str(caught.value) == f"{text}; calibrate on others, or allow it with allow_overlap=True"
    assert set_warnings(pictures, evaluation, allow_overlap=True) == (text,)
