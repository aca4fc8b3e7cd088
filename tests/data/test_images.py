"""Pictures from files: single ones, folders, globs, videos, and damaged ones."""

import os
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from yolov3_trt.camera.sources.video import VideoSource
from yolov3_trt.data.images import (
    IMAGE_SUFFIXES,
    count_images,
    find_sources,
    iter_images,
    load_image,
    picture_in_subfolder,
    save_image,
)
from yolov3_trt.errors import ImageError, Yolov3TrtError
from yolov3_trt.models.architectures import yolov3_tiny
from yolov3_trt.models.class_names import load_class_names
from yolov3_trt.models.darknet_cfg import spec_from_cfg
from yolov3_trt.models.darknet_weights import weights_from_darknet
from yolov3_trt.opencv import max_pixels


def picture(height: int = 5, width: int = 7, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def encoded(suffix: str, pixels: np.ndarray | None = None) -> bytes:
    good, content = cv2.imencode(suffix, picture() if pixels is None else pixels)
    assert good
    return content.tobytes()


def refusal(path: Path) -> str:
    with pytest.raises(ImageError) as caught:
        load_image(path)
    return str(caught.value)


# --- one picture ---


@pytest.mark.parametrize("given, limit", [("64000000", 64000000), ("64MB", 64 << 20), ("9kb", 9 << 10), ("x", 1 << 30)])
def test_the_limit_of_pictures_is_what_opencv_reads(given: str, limit: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENCV_IO_MAX_IMAGE_PIXELS", given)
    assert max_pixels() == limit


@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_what_is_no_file_is_refused_without_being_read(tmp_path: Path, kind: str):
    path = Path("/dev/zero") if kind == "device" else tmp_path / "a.jpg"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    what = "Is a directory" if kind == "folder" else "it is no file but a pipe, socket or device"
    assert refusal(path) == f"{path}: cannot be read ({what})"


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.PNG", "größe ü.png", "a", "no jpeg.jpg"])
def test_lossless_picture_is_read_as_written(tmp_path: Path, name: str):
    path = tmp_path / name
    path.write_bytes(encoded(".bmp" if name == "a.bmp" else ".png"))
    assert_array_equal(load_image(path), picture())


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_grey_picture_becomes_colour(tmp_path: Path, suffix: str):
    (tmp_path / f"a{suffix}").write_bytes(encoded(suffix, np.full((8, 16), 77, np.uint8)))
    pixels = load_image(tmp_path / f"a{suffix}")
    assert_array_equal(pixels, np.full((8, 16, 3), 77, np.uint8))


def test_grey_jpeg_of_coco_becomes_colour(data: Path):
    pixels = load_image(data / "coco" / "val64" / "images" / "000000007888.jpg")
    assert pixels.shape[2] == 3
    assert_array_equal(pixels[..., 0], pixels[..., 2])


def test_transparency_and_16_bits_are_dropped(tmp_path: Path):
    (tmp_path / "alpha.png").write_bytes(encoded(".png", np.dstack([picture(), np.zeros((5, 7), np.uint8)])))
    (tmp_path / "deep.png").write_bytes(encoded(".png", picture().astype(np.uint16) * 257))
    assert_array_equal(load_image(tmp_path / "alpha.png"), picture())
    assert_array_equal(load_image(tmp_path / "deep.png"), picture())


def test_jpeg_is_turned_upright_by_its_orientation(tmp_path: Path):
    upright = np.zeros((32, 16, 3), np.uint8)
    upright[:16] = 255  # white above
    stored = encoded(".jpg", np.rot90(upright))  # lies on its side, white at the left
    tiff = b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)  # orientation 6: turn clockwise
    exif = b"\xff\xe1" + struct.pack(">H", len(tiff) + 8) + b"Exif\0\0" + tiff
    (tmp_path / "a.jpg").write_bytes(stored[:2] + exif + stored[2:])
    pixels = load_image(tmp_path / "a.jpg")
    assert pixels.shape == (32, 16, 3)
    assert pixels[:12].min() > 200 and pixels[20:].max() < 50


@pytest.mark.parametrize("rest", [bytes(100), b"\xff\xd8\xff\xda video"], ids=["padding", "motion photo"])
def test_jpeg_with_bytes_after_its_end_is_read(tmp_path: Path, rest: bytes):
    (tmp_path / "a.jpg").write_bytes(encoded(".jpg") + rest)
    assert load_image(tmp_path / "a.jpg").shape == (5, 7, 3)


def test_end_of_a_thumbnail_is_not_the_end_of_a_jpeg(tmp_path: Path):
    whole, thumbnail = encoded(".jpg", picture(64, 64)), encoded(".jpg")
    segment = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    path = tmp_path / "a.jpg"
    path.write_bytes(whole[:2] + segment + whole[2:])
    assert load_image(path).shape == (64, 64, 3)
    path.write_bytes(whole[:2] + segment + whole[2:-100])
    assert refusal(path) == f"{path}: this JPEG is cut short; copy the file again"


@pytest.mark.parametrize("cut", [0.001, 0.5, 0.9, 0.999])
def test_truncated_jpeg_is_refused(data: Path, tmp_path: Path, cut: float):
    content = (data / "images" / "dog.jpg").read_bytes()
    path = tmp_path / "dog"
    path.write_bytes(content[: int(cut * len(content))])
    assert refusal(path) == f"{path}: this JPEG is cut short; copy the file again"


@pytest.mark.parametrize(
    "content", [b"\xff\xd9\xff", b"<html>", b"\x89PNG\r\n\x1a\n" + bytes(4) + b"IEND" + bytes(4), bytes(1000)]
)
def test_file_that_is_no_picture_is_refused(tmp_path: Path, content: bytes):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    assert refusal(path) == f"{path}: not a picture that OpenCV can read, or damaged"


def test_picture_beyond_opencvs_limit_is_refused(tmp_path: Path):
    path = tmp_path / "a.bmp"
    path.write_bytes(b"BM" + struct.pack("<IIIIiiHHIIiiII", 54, 0, 54, 40, 2**20, 2**20, 1, 24, 0, 0, 0, 0, 0, 0))
    assert refusal(path).startswith(f"{path}: a picture that is too large; expected at most 64 megapixels: ")
    png = cv2.imencode(".png", np.zeros((8001, 8000), np.uint8))[1].tobytes()  # 62 kB
    path.write_bytes(png)
    assert refusal(path).startswith(f"{path}: a picture that is too large; expected at most 64 megapixels: ")


def test_pipes_and_devices_are_refused_as_models_names_and_videos(tmp_path: Path):
    for suffix, read in (
        (".cfg", spec_from_cfg),
        (".names", lambda path: load_class_names(str(path), 1)),
        (".weights", lambda path: weights_from_darknet(yolov3_tiny(), path)),
        (".mp4", lambda path: list(iter_images([path]))),
        (".avi", VideoSource),
    ):
        path = tmp_path / f"a{suffix}"
        os.mkfifo(path)
        with pytest.raises(Yolov3TrtError, match="it is no file but a pipe, socket or device"):
            read(path)


def test_empty_and_missing_are_refused(tmp_path: Path):
    (tmp_path / "empty.png").write_bytes(b"")
    assert refusal(tmp_path / "empty.png") == f"{tmp_path}/empty.png: the file is empty; expected a picture"
    assert refusal(tmp_path / "no.png") == f"{tmp_path}/no.png: cannot be read (No such file or directory)"


def test_a_saved_picture_is_read_as_it_was(tmp_path: Path):
    save_image(picture(), tmp_path / "deep" / "a.png")
    assert_array_equal(load_image(tmp_path / "deep" / "a.png"), picture())


# --- sources ---


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.png", "a.JPG", "c.txt", "deep/d.png", "video.avi"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(encoded(".png"))
    return tmp_path


@pytest.mark.parametrize(
    "sources, names",
    [
        (["."], ["a.JPG", "b.png"]),
        (["*.png"], ["b.png"]),
        (["*"], ["a.JPG", "b.png", "c.txt", "video.avi"]),  # files only
        (["**/*.png"], ["b.png", "deep/d.png"]),
        (["c.txt", "video.avi", "b.png"], ["c.txt", "video.avi", "b.png"]),  # what is named is taken, in that order
        (["deep", ".", "b.png"], ["deep/d.png", "a.JPG", "b.png", "b.png"]),
    ],
)
def test_sources_name_files(folder: Path, sources: list[str], names: list[str]):
    found = find_sources([f"{folder}/{source}" for source in sources])
    assert [str(path.relative_to(folder)) for path in found] == names


def test_pictures_of_a_folder_are_sorted_by_name(tmp_path: Path):
    names = [f"{i:02}.jpg" for i in range(50)]
    for i in range(50):
        (tmp_path / names[i * 7 % 50]).touch()
    for source in (str(tmp_path), f"{tmp_path}/*"):
        assert [path.name for path in find_sources([source])] == names


def test_file_whose_name_looks_like_a_glob_is_itself(folder: Path):
    (folder / "[b].png").write_bytes(encoded(".png"))
    assert find_sources([f"{folder}/[b].png"]) == (folder / "[b].png",)


@pytest.mark.parametrize(
    "source, text",
    [
        ("none", f"there are no pictures in this folder; expected {', '.join(sorted(IMAGE_SUFFIXES))}"),
        ("*.webp", "no file matches"),
        ("no.png", "there is no such file or folder"),
        ("n" * 300, "cannot be read (File name too long)"),
    ],
)
def test_source_that_names_nothing_is_refused(folder: Path, source: str, text: str):
    (folder / "none").mkdir()
    with pytest.raises(ImageError) as caught:
        find_sources([f"{folder}/{source}"])
    assert str(caught.value) == f"{folder}/{source}: {text}"


def test_pictures_of_sub_folders_are_taken_when_asked_for(folder: Path):
    (folder / "deep" / "er").mkdir()
    (folder / "deep" / "er" / "c.webp").touch()
    found = find_sources([str(folder)], recursive=True)
    assert [str(path.relative_to(folder)) for path in found] == ["a.JPG", "b.png", "deep/d.png", "deep/er/c.webp"]
    assert picture_in_subfolder(folder) == folder / "deep" / "d.png"
    assert picture_in_subfolder(folder / "deep" / "er") is None


def test_a_folder_with_pictures_in_sub_folders_only_is_refused_with_the_glob_that_takes_them(tmp_path: Path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.png").touch()
    with pytest.raises(ImageError) as caught:
        find_sources([str(tmp_path)])
    assert str(caught.value) == (
        f"{tmp_path}: there are no pictures in this folder itself; expected some, as there are in its sub-folders: give "
        f"'{tmp_path}/**/*.png'"
    )
    assert find_sources([f"{tmp_path}/**/*.png"]) == (tmp_path / "deep" / "a.png",)


def test_a_url_is_refused_with_what_to_do():
    with pytest.raises(ImageError) as caught:
        find_sources(["https://host/a.jpg"])
    assert str(caught.value) == (
        "https://host/a.jpg: a URL; expected a file, folder or glob: download it first, or give a stream to `yolov3_trt camera`"
    )


def test_files_of_other_kinds_in_a_folder_are_told(folder: Path, caplog: pytest.LogCaptureFixture):
    (folder / "notes.txt").touch()
    for name in ("p.heic", "q.HEIC", "r.avif", "clip.mp4"):
        (folder / name).touch()
    assert [path.name for path in find_sources([str(folder)])] == ["a.JPG", "b.png"]
    text = "files of other kinds are left out (.avi 1, .avif 1, .heic 2, .mp4 1); name them, or convert them to JPEG"
    assert caplog.messages == [f"{folder}: {text}"]


def test_no_source_is_refused():
    with pytest.raises(ImageError, match=r"^no pictures given; expected files, folders or globs$"):
        find_sources([])


def test_pictures_come_with_their_names(folder: Path):
    paths = [folder / "b.png", folder / "deep" / "d.png"]
    images = list(iter_images(paths))
    assert [image.name for image in images] == [str(path) for path in paths]
    assert_array_equal(images[1].pixels, picture())
    assert list(iter_images([])) == []


def test_damaged_picture_ends_the_iteration_or_is_skipped(folder: Path):
    (folder / "bad.png").write_bytes(b"bad")
    paths = [folder / "b.png", folder / "bad.png", folder / "deep" / "d.png"]
    text = f"{folder}/bad.png: not a picture that OpenCV can read, or damaged"
    images = iter_images(paths)
    assert next(images).name == str(paths[0])
    with pytest.raises(ImageError) as caught:
        next(images)
    assert str(caught.value) == text

    skipped: list[ImageError] = []
    assert [image.name for image in iter_images(paths, skipped.append)] == [str(paths[0]), str(paths[2])]
    assert [str(error) for error in skipped] == [text]


# --- videos ---


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Five frames of 48x32, darker to brighter."""
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (48, 32))
    if not writer.isOpened():
        pytest.skip("this OpenCV writes no MJPG video")
    for level in range(5):
        writer.write(np.full((32, 48, 3), 50 * level, np.uint8))
    writer.release()
    return path


def test_frames_of_a_video_come_in_order_with_their_numbers(video: Path, caplog: pytest.LogCaptureFixture):
    frames = list(iter_images([video]))
    assert [frame.name for frame in frames] == [f"{video}#{i}" for i in range(5)]
    assert {frame.pixels.shape for frame in frames} == {(32, 48, 3)}
    np.testing.assert_allclose([frame.pixels.mean() for frame in frames], [0, 50, 100, 150, 200], atol=3)
    assert len({id(frame.pixels) for frame in frames}) == 5  # each keeps its own pixels
    assert not caplog.messages


def test_frames_and_pictures_are_counted_before_they_are_read(video: Path, tmp_path: Path):
    assert count_images([video, tmp_path / "a.png", video, tmp_path / "not there.jpg"]) == 12
    (tmp_path / "bad.mp4").write_bytes(b"not a video")
    assert count_images([video, tmp_path / "bad.mp4"]) is None


def test_video_cut_short_gives_what_there_is_and_warns(video: Path, caplog: pytest.LogCaptureFixture):
    content = video.read_bytes()
    video.write_bytes(content[: content.index(b"movi") + (content.index(b"idx1") - content.index(b"movi")) // 2])
    frames = list(iter_images([video]))
    assert 1 <= len(frames) < 5
    assert caplog.messages == [f"{video}: {len(frames)} frames read, 5 announced; the video may be cut short"]


def test_damaged_video_is_refused(tmp_path: Path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"not a video")
    with pytest.raises(ImageError) as caught:
        list(iter_images([path]))
    assert (
        str(caught.value)
        == f"{path}: not a video that OpenCV can read, or damaged; copy it again, or convert it to an .mp4 with H.264"
    )
