"""Tiny odd clips of what cameras, phones, recorders and broken transfers leave behind, made by the ffmpeg program."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

LAVFI = ("-f", "lavfi", "-i")
SIZE_WH, NUM_FRAMES = (64, 48), 10
_SOURCE = (*LAVFI, "testsrc2=size=64x48:rate=10:duration=1")
_MPEG4 = ("-c:v", "mpeg4", "-q:v", "2")
_H264 = ("-c:v", "libx264", "-preset", "ultrafast")
_INTERLACED = ("-flags", "+ilme+ildct")

# By name of the file: what ffmpeg is told. Each has NUM_FRAMES frames of SIZE_WH unless FRAMES and SIZES say otherwise.
CLIPS: dict[str, tuple[str, ...]] = {
    "plain.mp4": (*_SOURCE, *_MPEG4),
    "plain.mov": (*_SOURCE, *_MPEG4),
    "plain.avi": (*_SOURCE, *_MPEG4),
    "plain.mkv": (*_SOURCE, *_MPEG4),
    "plain.webm": (*_SOURCE, "-c:v", "libvpx", "-deadline", "realtime"),
    "no-suffix-of-its-own": (*_SOURCE, *_MPEG4, "-f", "mp4"),
    "plain.ts": (*_SOURCE, *_H264),
    "plain.mts": (*_SOURCE, *_H264, "-f", "mpegts", "-mpegts_m2ts_mode", "1"),
    "plain.h264": (*_SOURCE, *_H264),
    "plain.hevc": (*_SOURCE, "-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=none"),
    "plain.flv": (*_SOURCE, "-c:v", "flv"),
    "plain.wmv": (*_SOURCE, "-c:v", "wmv2"),
    "plain.3gp": (*_SOURCE, *_MPEG4),
    "plain.ogv": (*_SOURCE, "-c:v", "libtheora"),
    "plain.gif": (*_SOURCE, "-c:v", "gif"),
    "plain.mjpeg": (*_SOURCE, "-c:v", "mjpeg", "-q:v", "2", "-pix_fmt", "yuvj420p"),
    "plain.y4m": (*_SOURCE, "-pix_fmt", "yuv420p"),
    "interlaced.mp4": (*_SOURCE, *_H264, *_INTERLACED, "-pix_fmt", "yuv420p"),
    "interlaced.ts": (*_SOURCE, *_H264, *_INTERLACED, "-pix_fmt", "yuv420p"),
    "interlaced.mpg": (*LAVFI, "testsrc2=size=64x48:rate=25:duration=0.4", "-c:v", "mpeg2video", "-q:v", "2", *_INTERLACED),
    "dv.avi": (*LAVFI, "testsrc2=size=720x576:rate=25:duration=0.2", "-c:v", "dvvideo", "-pix_fmt", "yuv420p"),
    "10-bit.mp4": (*_SOURCE, *_H264, "-pix_fmt", "yuv420p10le"),
    "444.mp4": (*_SOURCE, *_H264, "-pix_fmt", "yuv444p"),
    "grey.mkv": (*_SOURCE, "-c:v", "ffv1", "-pix_fmt", "gray"),
    "odd.mkv": (*LAVFI, "testsrc=size=63x47:rate=10:duration=1", "-c:v", "ffv1", "-pix_fmt", "yuv444p"),
    "narrow.avi": (*LAVFI, "testsrc2=size=320x16:rate=10:duration=1", "-c:v", "mjpeg", "-pix_fmt", "yuvj420p"),
    "anamorphic.mp4": (*_SOURCE, *_MPEG4, "-vf", "setsar=4/3"),
    "one-frame.mp4": (*_SOURCE, *_MPEG4, "-frames:v", "1"),
    "late-sound.mp4": (*LAVFI, "sine=duration=1", *_SOURCE, *_MPEG4, "-c:a", "aac", "-shortest"),
    "two-pictures.mp4": (*_SOURCE, *LAVFI, "testsrc=size=32x32:rate=10:duration=1", "-map", "0", "-map", "1", *_MPEG4),
    "fragmented.mp4": (*_SOURCE, *_MPEG4, "-movflags", "frag_keyframe+empty_moov"),
    "index-first.mp4": (*_SOURCE, *_MPEG4, "-movflags", "faststart"),
    "b-frames.mp4": (*_SOURCE, *_MPEG4, "-bf", "2"),
    "fast.mp4": (*LAVFI, "testsrc2=size=64x48:rate=240:duration=0.05", *_MPEG4),
    # Five frames a tenth of a second apart, then five of half a second each.
    "variable.mp4": (*_SOURCE, "-vf", "setpts='if(lt(N,5),N,5+(N-5)*5)/10/TB'", "-vsync", "vfr", *_MPEG4),
    "starts-late.ts": (*_SOURCE, *_H264, "-output_ts_offset", "30"),
    "black.mp4": (*LAVFI, "color=black:size=64x48:rate=10:duration=1", *_MPEG4),
    "fades-in.mp4": (*_SOURCE, "-vf", "fade=in:2:5", *_MPEG4),
    "still.mp4": (*LAVFI, "testsrc2=size=64x48:rate=10:duration=1,loop=loop=9:size=1,trim=end_frame=10", *_MPEG4),
}  # fmt: skip
TURNED = (0, 90, 180, 270)
FRAMES = {"dv.avi": 5, "one-frame.mp4": 1, "fast.mp4": 12}
SIZES_WH = {"dv.avi": (720, 576), "odd.mkv": (63, 47), "narrow.avi": (320, 16)}


def why_no_clips() -> str | None:
    """Why they cannot be made here."""
    return None if shutil.which("ffmpeg") else "there is no ffmpeg program (Debian: apt install ffmpeg)"


def make_clip(*arguments: str) -> None:
    """By the ffmpeg program."""
    subprocess.run(
        ["ffmpeg", "-v", "error", "-y", "-threads", "1", *arguments], check=True, timeout=60, stdin=subprocess.DEVNULL
    )


def make_clips(folder: Path) -> Path:
    """All of them, those of one source by one run of the program: to start it takes longest."""
    runs: dict[tuple[str, ...], list[str]] = {}
    for name, arguments in CLIPS.items():
        begin = next(n for n, word in enumerate(arguments) if n % 4 == 0 and word != LAVFI[0])
        runs.setdefault(arguments[:begin], []).extend([*arguments[begin:], str(folder / name)])
    for source, outputs in runs.items():
        make_clip(*source, *outputs)
    turned: list[str] = []
    for degrees in TURNED:
        turned += ["-c", "copy", "-metadata:s:v", f"rotate={degrees}", str(folder / f"turned-{degrees}.mp4")]
    make_clip("-i", str(folder / "plain.mp4"), *turned)
    return folder


def upright(path: Path) -> bytes:
    """The frames as ffmpeg turns them, BGR."""
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-f", "rawvideo", "-pix_fmt", "bgr24", "-"]
    return subprocess.run(command, check=True, timeout=60, stdin=subprocess.DEVNULL, capture_output=True).stdout


def damaged(path: Path, start: float, end: float, fill: Callable[[int], bytes] = bytes) -> bytes:
    """A file with a hole: from and to a part of its length."""
    content = path.read_bytes()
    first, last = (int(part * len(content)) for part in (start, end))
    return content[:first] + fill(last - first) + content[last:]
