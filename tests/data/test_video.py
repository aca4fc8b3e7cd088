"""Videos as cameras, phones and recorders leave them, against the frames of the ffmpeg program."""

import random
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.clips import REFUSED, TURNS, look_at_all, make_clips, right_names, why_no_clips
from yolov3_trt.data import video as module
from yolov3_trt.data.containers import Container, read_container
from yolov3_trt.data.images import iter_images, load_image
from yolov3_trt.data.video import PictureGuard, is_video
from yolov3_trt.errors import ImageError
from yolov3_trt.opencv import spoils_interlaced

PICTURE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    reason = why_no_clips()
    if reason is not None:
        pytest.skip(reason)
    return make_clips(tmp_path_factory.mktemp("clips"))


def test_each_clip_is_read_as_ffmpeg_reads_it_or_refused_with_the_reason(clips: Path):
    counts, faults = look_at_all(clips)
    assert faults == []
    assert sum(counts.values()) == len(list(right_names())) + len(REFUSED) >= 80 and len(TURNS) == 8
    assert counts["right"] >= 60  # those that OpenCV with FFmpeg 8 cannot read are refused


def test_what_is_wrong_with_a_video_is_told(clips: Path, caplog: pytest.LogCaptureFixture):
    def told(name: str) -> list[str]:
        caplog.clear()
        list(iter_images([clips / name]))
        return [message.removeprefix(f"{clips / name}: ") for message in caplog.messages]

    assert told("plain.ts") == told("edit-list.mov") == told("variable.ts") == told("long-sound.mp4") == []
    assert told("anamorphic.mp4") == [
        "its pixels are not square (4:3) and are taken as they are, so objects look narrower"
    ]
    assert told("long-sound.ts") == ["its pictures take 1.0 of its 7.0 s; the rest is sound, or missing"]
    assert told("larger-later.ts") == [
        "its pictures are 96x64 from frame 10 on; OpenCV squashed them into the size before, so detail is lost"
    ]
    if not spoils_interlaced():
        assert told("fades-in.mp4") == [] != told("black.mp4")
    skipped: list[ImageError] = []
    frames = list(iter_images([clips / "hole-in-the-middle.mp4"], skipped.append))
    assert frames[-1].name.endswith(f"#{len(frames) - 1}") and 30 < len(frames) < 45
    text = f"{clips}/hole-in-the-middle.mp4: {len(frames)} frames read, 50 announced; the video has damaged spots"
    assert [str(error) for error in skipped] == [text]
    assert told("hole-in-the-middle.mp4") == [text.partition(": ")[2]]


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
    with pytest.raises(ImageError, match="not a video that OpenCV can read, or cut short: it ends before its own end"):
        list(iter_images([no_moov]))
    (tmp_path / "video.jpg").write_bytes(content)
    with pytest.raises(ImageError, match="a video; expected a picture"):
        load_image(tmp_path / "video.jpg")


def test_damaged_containers_give_no_facts_or_some_but_no_error(clips: Path, tmp_path: Path):
    path, draw = tmp_path / "mutated", random.Random(0)
    for name in ("edit-list.mov", "turned-90.mp4", "fragmented.mp4", "plain.mkv", "plain.avi"):
        whole = (clips / name).read_bytes()
        begin = max(0, whole.find(b"moov") - 8)
        for _ in range(100):
            content = bytearray(whole)
            for _ in range(draw.randint(1, 6)):
                content[draw.choice((draw.randrange(100), draw.randrange(begin, len(whole))))] = draw.choice(
                    (0, 255, 127, 128)
                )
            path.write_bytes(content[: draw.choice((len(whole), draw.randrange(len(whole))))])
            assert (read_container(path).num_frames or 0) < 1 << 32
    assert read_container(clips / "edit-list.mov") == Container(10, (1, 0, 0, 1))
    assert read_container(clips / "turned-90.mp4") == Container(10, (0, 1, -1, 0))
    assert read_container(clips / "cut-short.mkv").is_cut_short and read_container(clips / "cut-short.avi").is_cut_short


def test_a_name_like_an_address_is_a_file(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for name in ("http:clip.mp4", "concat:a|b.mp4", "frame%03d.mp4"):
        (tmp_path / name).write_bytes((clips / "plain.mp4").read_bytes())
        assert len(list(iter_images([Path(name)]))) == 10


def test_of_several_pictures_in_a_file_the_first_is_read_and_that_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    pages = tmp_path / "pages.tif"
    cv2.imwritemulti(str(pages), [PICTURE, PICTURE])
    np.testing.assert_array_equal(load_image(pages), PICTURE)
    assert caplog.messages == [f"{pages}: holds several pictures, of which only the first is read"]
    cv2.imwrite(str(pages), PICTURE)
    load_image(pages)
    assert len(caplog.messages) == 1


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
        single = PictureGuard("c.ts")
        single.check(black)
        if spoils:
            with pytest.raises(ImageError, match=r"^c\.ts: its only picture is of one colour, as this OpenCV \("):
                single.finish()
            with pytest.raises(
                ImageError, match=r"^a\.ts: the first 100 pictures are of one colour, as this OpenCV \("
            ):
                guard.check(black)
            with pytest.raises(ImageError, match=r"^b\.ts: all 10 pictures are the same, as this OpenCV \("):
                stale.finish()
        else:
            guard.check(black)
            for one in (guard, stale, single):
                one.finish()


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
    for pixels in (PICTURE, PICTURE[..., 0]):  # thermal cameras write grey ones
        cv2.imwrite(str(tmp_path / "float.tif"), pixels.astype(np.float32))
        with pytest.raises(ImageError, match="a picture of float32 values; expected 8 or 16 bits a value"):
            load_image(tmp_path / "float.tif")
