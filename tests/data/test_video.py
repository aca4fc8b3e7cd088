"""Videos as cameras, phones and recorders leave them, against the frames of the ffmpeg program."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.clips import (
    CLIPS,
    FRAMES,
    NUM_FRAMES,
    SIZE_WH,
    SIZES_WH,
    TURNED,
    damaged,
    make_clip,
    make_clips,
    upright,
    why_no_clips,
)
from yolov3_trt.data import video as module
from yolov3_trt.data.images import iter_images, load_image
from yolov3_trt.data.video import PictureGuard, VideoReader, is_video
from yolov3_trt.errors import ImageError
from yolov3_trt.opencv import spoils_interlaced

PICTURE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    reason = why_no_clips()
    if reason is not None:
        pytest.skip(reason)
    return make_clips(tmp_path_factory.mktemp("clips"))


def frames_of(path: Path) -> Iterator[module.VideoFrame]:
    with VideoReader(path) as video:
        while (frame := video.read()) is not None:
            yield frame


def test_every_kind_gives_the_frames_that_ffmpeg_gives(clips: Path):
    for name in [*CLIPS, *(f"turned-{degrees}.mp4" for degrees in TURNED)]:
        path = clips / name
        assert is_video(path), name
        if spoils_interlaced() and name.startswith(("interlaced", "dv", "black")):
            with pytest.raises(ImageError, match=r"as this OpenCV .* gives them of interlaced video"):
                list(frames_of(path))
            continue
        frames = list(frames_of(path))
        assert len(frames) == FRAMES.get(name, NUM_FRAMES), name
        width, height = SIZES_WH.get(name, SIZE_WH)
        if name in ("turned-90.mp4", "turned-270.mp4"):
            width, height = height, width
        wanted = np.frombuffer(upright(path), np.uint8).reshape(-1, height, width, 3)
        got = np.stack([frame.pixels for frame in frames])
        rows, columns = got.shape[1:3]  # OpenCV makes odd sizes even
        assert height - 1 <= rows <= height and width - 1 <= columns <= width, name
        wanted = wanted[: len(got), :rows, :columns]  # ffmpeg fills in frames where the rate changes
        if name != "variable.mp4":
            assert np.abs(got.astype(int) - wanted).mean() < 6, name  # two ways from chroma to colours
        positions = [frame.position_s for frame in frames]
        assert positions[0] == 0 and all(np.diff(positions) > 0), name


def test_frames_of_a_changing_rate_have_their_true_times(clips: Path):
    positions = [image.position_s for image in iter_images([clips / "variable.mp4"])]
    np.testing.assert_allclose(positions, [0, 0.1, 0.2, 0.3, 0.4, 0.5, 1, 1.5, 2, 2.5], atol=1e-3)


def test_a_damaged_spot_is_passed_over_counted_and_told(clips: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    whole = tmp_path / "whole.mp4"
    video = ("-f", "lavfi", "-i", "testsrc2=size=320x240:rate=25:duration=2", "-c:v", "libx264", "-g", "10")
    make_clip(*video, "-preset", "ultrafast", str(whole))
    path = tmp_path / "hole.mp4"
    path.write_bytes(damaged(whole, 0.3, 0.5))
    skipped: list[ImageError] = []
    names = [image.name for image in iter_images([path], skipped.append)]
    assert 20 <= len(names) < 50 and names[-1] == f"{path}#{len(names) - 1}"
    text = f"{path}: {len(names)} frames read, 50 announced; the video has damaged spots"
    is_much = len(names) < 45
    assert [str(error) for error in skipped] == [text] * is_much and caplog.messages == [text] * (not is_much)
    list(iter_images([path]))
    assert caplog.messages[-1] == text


def test_what_is_no_video_is_not_taken_for_one(clips: Path, tmp_path: Path):
    jpeg = cv2.imencode(".jpg", PICTURE)[1].tobytes()
    contents = {
        "photo": jpeg,
        "motion-photo": jpeg + (clips / "plain.mp4").read_bytes(),
        "two-in-one-photo": jpeg[:2] + b"\xff\xe2\0\x06MPF\0" + jpeg[2:] + jpeg,
        "png": cv2.imencode(".png", PICTURE)[1].tobytes(),
        "list.m3u8": b"#EXTM3U\n#EXTINF:1\n/etc/passwd\n",
        "list.ffconcat": b"ffconcat version 1.0\nfile /etc/passwd\n",
        "text": b"G" + b"text\n" * 400,
        "heic": b"\0\0\0\x18ftypheic",
        "empty": b"",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        assert not is_video(tmp_path / name), name
    assert not is_video(tmp_path / "missing") and not is_video(tmp_path)
    assert load_image(tmp_path / "motion-photo").shape == PICTURE.shape
    no_moov = tmp_path / "no-moov"
    content = (clips / "plain.mp4").read_bytes()
    no_moov.write_bytes(content[: content.index(b"moov") - 4])
    with pytest.raises(ImageError, match="not a video that OpenCV can read, or damaged"):
        list(iter_images([no_moov]))
    (tmp_path / "video.jpg").write_bytes(content)
    with pytest.raises(ImageError, match="a video; expected a picture"):
        load_image(tmp_path / "video.jpg")


def test_oblong_pixels_and_pictures_without_content_are_told(clips: Path, caplog: pytest.LogCaptureFixture):
    for name in ("anamorphic.mp4", "black.mp4", "fades-in.mp4"):
        if not (name == "black.mp4" and spoils_interlaced()):
            list(frames_of(clips / name))
    assert caplog.messages[0] == (
        f"{clips}/anamorphic.mp4: its pixels are not square (4:3) and are taken as they are, so objects look narrower"
    )
    assert caplog.messages[1:] in ([], [f"{clips}/black.mp4: every picture of this video is of the same one colour"])


# --- the guard alone ---


def test_pictures_of_a_decoder_that_spoils_them_are_refused(monkeypatch: pytest.MonkeyPatch):
    black = np.zeros_like(PICTURE)
    for spoils in (True, False):
        monkeypatch.setattr(module, "spoils_interlaced", lambda spoils=spoils: spoils)
        guard = PictureGuard("a.ts")
        for _ in range(99):
            assert guard.check(black) is not None
        stale = PictureGuard("b.ts")  # what lay in memory
        for _ in range(10):
            stale.check(PICTURE)
        if spoils:
            with pytest.raises(
                ImageError, match=r"^a\.ts: the first 100 pictures are of one colour, as this OpenCV \("
            ):
                guard.check(black)
            with pytest.raises(ImageError, match=r"^b\.ts: all 10 pictures are the same, as this OpenCV \("):
                stale.finish()
        else:
            guard.check(black)
            guard.finish()
            stale.finish()


def test_empty_and_grey_pictures():
    guard = PictureGuard("a")
    assert guard.check(None) is None and guard.check(np.zeros((0, 0, 3), np.uint8)) is None
    assert guard.check(PICTURE[..., 0]).shape == guard.check(PICTURE[..., :1]).shape == PICTURE.shape


def test_a_stream_that_repeats_a_picture_faster_than_it_can_be_is_lost(monkeypatch: pytest.MonkeyPatch):
    now_s = 0.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now_s)
    guard = PictureGuard("rtsp://door", live_fps=25)
    for _ in range(1001):  # a still camera
        now_s += 1 / 25
        guard.check(PICTURE)
    with pytest.raises(ImageError, match=r"^rtsp://door: the same picture came 100 times"):
        for _ in range(200):
            now_s += 1e-4
            guard.check(PICTURE)


@pytest.mark.parametrize("bits", [12, 14, 16])
def test_of_16_bits_those_that_are_used_are_taken(tmp_path: Path, bits: int, caplog: pytest.LogCaptureFixture):
    from yolov3_trt.data import images

    images._say_depth.cache_clear()
    deep = PICTURE.astype(np.uint16) << (bits - 8)
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(tmp_path / name), deep)
        np.testing.assert_array_equal(load_image(tmp_path / name), PICTURE)
    assert len(caplog.messages) == (bits < 16)
    cv2.imwrite(str(tmp_path / "float.tif"), PICTURE.astype(np.float32))
    with pytest.raises(ImageError, match="a picture of float32 values; expected 8 or 16 bits a value"):
        load_image(tmp_path / "float.tif")
