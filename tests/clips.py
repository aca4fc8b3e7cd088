"""Tiny odd clips of what cameras, phones, recorders and broken transfers leave behind, made by the ffmpeg program.

Each is read right, as that program reads it, or refused with a reason. `python clips.py FOLDER` looks at those of a folder
with the package and OpenCV of its interpreter, prints how many came to what, and ends with 1 where one came wrong: the legs
of CI do so.
"""

import shutil
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

LAVFI = ("-f", "lavfi", "-i")
SIZE_WH, NUM_FRAMES, FPS = (64, 48), 10, 10
_SOURCE = (*LAVFI, "testsrc2=size=64x48:rate=10:duration=1")
_PAL = (*LAVFI, "testsrc2=size=64x48:rate=25:duration=0.4")
_SOUND = (*LAVFI, "sine=duration=7")
_MPEG4 = ("-c:v", "mpeg4", "-q:v", "2")
_H264 = ("-c:v", "libx264", "-preset", "ultrafast")
_VP8, _VP9 = (
    ("-c:v", codec, "-deadline", "realtime", "-cpu-used", "8", "-b:v", "500k") for codec in ("libvpx", "libvpx-vp9")
)
_MPEG2 = ("-c:v", "mpeg2video", "-q:v", "2")
_INTERLACED = ("-flags", "+ilme+ildct")
_VARIABLE = ("-vf", "setpts='if(lt(N,5),N,5+(N-5)*5)/10/TB'", "-vsync", "vfr")

# By name of the file: what ffmpeg is told. Each has NUM_FRAMES frames of SIZE_WH unless FRAMES and SIZES say otherwise.
CLIPS: dict[str, tuple[str, ...]] = {
    "plain.mp4": (*_SOURCE, *_MPEG4),
    "plain.mov": (*_SOURCE, *_MPEG4),
    "plain.avi": (*_SOURCE, *_MPEG4),
    "plain.mkv": (*_SOURCE, *_MPEG4),
    "plain.webm": (*_SOURCE, *_VP8),
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
    "plain.apng": (*_SOURCE, "-c:v", "apng"),
    "plain.mjpeg": (*_SOURCE, "-c:v", "mjpeg", "-q:v", "2", "-pix_fmt", "yuvj420p"),
    "of-a-camera.mjpeg": (*_SOURCE, "-c:v", "mjpeg", "-q:v", "2", "-pix_fmt", "yuvj420p", "-f", "mpjpeg"),
    "plain.y4m": (*_SOURCE, "-pix_fmt", "yuv420p"),
    "plain.nut": (*_SOURCE, *_MPEG4),
    "plain.vob": (*_PAL, *_MPEG2),
    "plain.mxf": (*_PAL, *_MPEG2),
    "vp9.mp4": (*_SOURCE, *_VP9),
    "interlaced.mp4": (*_SOURCE, *_H264, *_INTERLACED, "-pix_fmt", "yuv420p"),
    "interlaced.ts": (*_SOURCE, *_H264, *_INTERLACED, "-pix_fmt", "yuv420p"),
    "interlaced.mpg": (*_PAL, *_MPEG2, *_INTERLACED),
    "dv.avi": (*LAVFI, "testsrc2=size=720x576:rate=25:duration=0.2", "-c:v", "dvvideo", "-pix_fmt", "yuv420p"),
    "dv.dv": (*LAVFI, "testsrc2=size=720x576:rate=25:duration=0.2", "-c:v", "dvvideo", "-pix_fmt", "yuv420p"),
    "10-bit.mp4": (*_SOURCE, *_H264, "-pix_fmt", "yuv420p10le"),
    "422.mp4": (*_SOURCE, *_H264, "-pix_fmt", "yuv422p"),
    "444.mp4": (*_SOURCE, *_H264, "-pix_fmt", "yuv444p"),
    "full-range.mp4": (*_SOURCE, *_H264, "-pix_fmt", "yuvj420p"),
    "alpha.mov": (*_SOURCE, "-c:v", "png", "-pix_fmt", "rgba"),
    "alpha.webm": (*_SOURCE, *_VP9, "-pix_fmt", "yuva420p"),
    "grey.mkv": (*_SOURCE, "-c:v", "ffv1", "-pix_fmt", "gray"),
    "grey-of-16-bits.mkv": (*_SOURCE, "-c:v", "ffv1", "-pix_fmt", "gray16le"),
    "odd.mkv": (*LAVFI, "testsrc=size=63x47:rate=10:duration=1", "-c:v", "ffv1", "-pix_fmt", "yuv444p"),
    "narrow.avi": (*LAVFI, "testsrc2=size=320x16:rate=10:duration=1", "-c:v", "mjpeg", "-pix_fmt", "yuvj420p"),
    "anamorphic.mp4": (*_SOURCE, *_MPEG4, "-vf", "setsar=4/3"),
    "one-frame.mp4": (*_SOURCE, *_MPEG4, "-frames:v", "1"),
    "one-frame.ts": (*_SOURCE, *_H264, "-frames:v", "1"),
    "two-pictures.mp4": (*_SOURCE, *LAVFI, "testsrc=size=32x32:rate=10:duration=1", "-map", "0", "-map", "1", *_MPEG4),
    "fragmented.mp4": (*_SOURCE, *_MPEG4, "-movflags", "frag_keyframe+empty_moov"),
    "index-first.mp4": (*_SOURCE, *_MPEG4, "-movflags", "faststart"),
    "b-frames.mp4": (*_SOURCE, *_MPEG4, "-bf", "2"),
    "fast.mp4": (*LAVFI, "testsrc2=size=64x48:rate=240:duration=0.05", *_MPEG4),
    # Five frames a tenth of a second apart, then five of half a second each.
    "variable.mp4": (*_SOURCE, *_VARIABLE, *_MPEG4),
    "variable.ts": (*_SOURCE, *_VARIABLE, *_H264),
    "variable.webm": (*_SOURCE, *_VARIABLE, *_VP8),
    "starts-late.ts": (*_SOURCE, *_H264, "-output_ts_offset", "30"),
    "black.mp4": (*LAVFI, "color=black:size=64x48:rate=10:duration=1", *_MPEG4),
    "fades-in.mp4": (*_SOURCE, "-vf", "fade=in:2:5", *_MPEG4),
    "still.mp4": (*LAVFI, "testsrc2=size=64x48:rate=10:duration=1,loop=loop=9:size=1,trim=end_frame=10", *_MPEG4),
    # Seven seconds of sound, one of pictures.
    "long-sound.mp4": (*_SOURCE, *_SOUND, *_MPEG4),
    "long-sound.ts": (*_SOURCE, *_SOUND, *_H264),
    "long-sound.mkv": (*_SOURCE, *_SOUND, *_MPEG4),
    "long-sound.avi": (*_SOURCE, *_SOUND, *_MPEG4),
    "larger.ts": (*LAVFI, "testsrc2=size=96x64:rate=10:duration=1", *_H264),
    "to-edit.mov": (*LAVFI, "testsrc2=size=64x48:rate=10:duration=2", *_H264, "-g", "10"),
    "to-damage.mp4": (*LAVFI, "testsrc2=size=320x240:rate=25:duration=2", *_H264, "-g", "10"),
    "to-damage.ts": (*LAVFI, "testsrc2=size=320x240:rate=25:duration=2", *_H264, "-g", "10"),
    "sound.mp4": (*_SOUND, "-t", "0.2"),
    "sound.ts": (*_SOUND, "-t", "0.2"),
}  # fmt: skip
# How cameras and phones say that they are turned (degrees) or mirrored: the matrix of an MP4, applied to its pictures.
TURNS: dict[str, tuple[tuple[int, int, int, int], Callable[[np.ndarray], np.ndarray]]] = {
    "0": ((1, 0, 0, 1), lambda pixels: pixels),
    "90": ((0, 1, -1, 0), lambda pixels: np.rot90(pixels, -1)),
    "180": ((-1, 0, 0, -1), lambda pixels: np.rot90(pixels, 2)),
    "270": ((0, -1, 1, 0), lambda pixels: np.rot90(pixels, 1)),
    "mirrored": ((-1, 0, 0, 1), lambda pixels: pixels[:, ::-1]),
    "mirrored-180": ((1, 0, 0, -1), lambda pixels: pixels[::-1]),
    "mirrored-90": ((0, 1, 1, 0), lambda pixels: pixels.swapaxes(0, 1)),
    "mirrored-270": ((0, -1, -1, 0), lambda pixels: np.rot90(pixels, 2).swapaxes(0, 1)),
}
FRAMES = {"dv.avi": 5, "dv.dv": 5, "one-frame.mp4": 1, "one-frame.ts": 1, "fast.mp4": 12, "larger-later.ts": 20}
SIZES_WH = {"dv.avi": (720, 576), "dv.dv": (720, 576), "odd.mkv": (63, 47), "narrow.avi": (320, 16)}
RATES = {"fast.mp4": 240, "interlaced.mpg": 25, "plain.vob": 25, "plain.mxf": 25, "dv.avi": 25, "dv.dv": 25}
_VARIABLE_S = (0, 0.1, 0.2, 0.3, 0.4, 0.5, 1, 1.5, 2, 2.5)
TIMES = {"variable.mp4": _VARIABLE_S, "variable.ts": _VARIABLE_S, "variable.webm": _VARIABLE_S}
UNTIMED = (
    "long-sound.avi",
    ".h264",
    ".hevc",
    ".mjpeg",
    ".apng",
    ".vob",
    ".mpg",
    ".mxf",
)  # raw, or told in other steps on some versions
# What is refused, and how; the rest is right.
REFUSED = {
    "empty.mp4": "not a video that OpenCV can read, or damaged",
    "text.mp4": "not a video that OpenCV can read, or damaged",
    "noise.mkv": "not a video that OpenCV can read, or damaged",
    "sound.mp4": "not a video that OpenCV can read, or damaged",
    "sound.ts": "not a video that OpenCV can read, or damaged",
    "no-moov.mp4": "cut short: it ends before its own end",
    "hole-at-start.ts": "the video has damaged spots",
    "hole-in-the-middle.ts": "the video has damaged spots",
    "lies.jpg": "a video; expected a picture",
    "phone.heic": "a HEIC or AVIF picture",
    "empty.ts": "the file is empty",
    "hole-at-start.mp4": "the video has damaged spots",
    "hole-in-the-middle.mp4": "the video has damaged spots",
    "hole-at-end.mp4": "the video has damaged spots",
    "hole-at-end.ts": "the video has damaged spots",
    "cut-short.mkv": "the video may be cut short",
    "cut-short.avi": "the video may be cut short",
    "cut-short.mov": "the video may be cut short",
}
WITHOUT_PICTURES = tuple(name for name, text in REFUSED.items() if "the video" not in text)
INTERLACED = ("interlaced", "dv.", "black")  # of one colour looks as OpenCV with FFmpeg 8 gives interlaced ones


def why_no_clips() -> str | None:
    """Why they cannot be made here."""
    return None if shutil.which("ffmpeg") else "there is no ffmpeg program (Debian: apt install ffmpeg)"


def run_ffmpeg(*arguments: str | Path) -> None:
    """The program, on one thread."""
    command = ["ffmpeg", "-nostdin", "-v", "fatal", "-y", "-threads", "1", *map(str, arguments)]
    subprocess.run(command, check=True, timeout=120)


def make_clips(folder: Path) -> Path:
    """All of them, those of one source by one run of the program: to start it takes longest."""
    runs: dict[tuple[str, ...], list[str]] = {}
    for name, arguments in CLIPS.items():
        begin = next(n for n, word in enumerate(arguments) if n % 4 == 0 and word != LAVFI[0])
        runs.setdefault(arguments[:begin], []).extend([*arguments[begin:], str(folder / name)])
    for source, outputs in runs.items():
        run_ffmpeg(*source, *outputs)
    run_ffmpeg("-ss", "0.5", "-i", folder / "to-edit.mov", "-t", "1", "-c", "copy", folder / "edit-list.mov")
    _make_others(folder)
    _make_truth(folder)
    return folder


def _make_others(folder: Path) -> None:
    """Those that are made of others."""
    content = {path.name: path.read_bytes() for path in folder.iterdir()}
    for turn, (matrix, _) in TURNS.items():
        content[f"turned-{turn}.mp4"] = _with_matrix(content["plain.mp4"], matrix)
    content["larger-later.ts"] = content["plain.ts"] + content["larger.ts"]
    content["lies.mkv"], content["lies.mp4"] = content["plain.mp4"], content["plain.mkv"]
    content["lies.jpg"] = content["plain.mp4"]
    content["empty.mp4"] = content["empty.ts"] = b""
    content["text.mp4"], content["noise.mkv"] = b"no video\n" * 200, np.random.default_rng(0).bytes(20_000)
    content["phone.heic"] = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200)
    content["no-moov.mp4"] = content["plain.mp4"][: content["plain.mp4"].index(b"moov") - 4]
    for suffix in (".mp4", ".ts"):
        for place, start, end in (("at-start", 0.02, 0.3), ("in-the-middle", 0.3, 0.5), ("at-end", 0.7, 0.95)):
            content[f"hole-{place}{suffix}"] = damaged(content[f"to-damage{suffix}"], start, end)
    for name, of in (
        ("cut-short.mkv", "plain.mkv"),
        ("cut-short.avi", "plain.avi"),
        ("cut-short.mov", "index-first.mp4"),
    ):
        content[name] = content[of][: len(content[of]) * 9 // 10]
    for name in content:
        (folder / name).write_bytes(content[name])


def damaged(content: bytes, start: float, end: float) -> bytes:
    """With a hole: from and to a part of its length."""
    first, last = (int(part * len(content)) for part in (start, end))
    return content[:first] + bytes(last - first) + content[last:]


def _with_matrix(content: bytes, matrix: tuple[int, int, int, int]) -> bytes:
    a, b, c, d = (value << 16 for value in matrix)
    at = content.index(b"tkhd") + 44
    return content[:at] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30) + content[at + 36 :]


def right_names() -> Iterator[str]:
    """The clips that are read as ffmpeg reads them."""
    parts = ("larger.ts", "to-edit.mov", "to-damage.mp4", "to-damage.ts")
    yield from (name for name in CLIPS if name not in (*parts, *REFUSED))
    yield from (f"turned-{turn}.mp4" for turn in TURNS)
    yield from ("larger-later.ts", "lies.mkv", "lies.mp4", "edit-list.mov")


def _make_truth(folder: Path) -> None:
    """The frames of each as ffmpeg reads them, BGR, by one run of the program."""
    (folder / "truth").mkdir()
    names = [name for name in right_names() if not name.startswith("turned-") and name != "larger-later.ts"]
    inputs = [word for name in names for word in ("-i", folder / name)]
    outputs = [
        word
        for number, name in enumerate(names)
        for word in (
            *("-map", f"{number}:v:0", "-vsync", "passthrough", "-pix_fmt", "bgr24", "-f", "rawvideo"),
            folder / "truth" / name,
        )
    ]
    run_ffmpeg(*inputs, *outputs)


def truth(folder: Path, name: str) -> np.ndarray:
    """Frames of a clip, (N, H, W, 3) BGR."""
    width, height = SIZES_WH.get(name, SIZE_WH)
    if name.startswith("turned-"):
        turn = TURNS[name.removeprefix("turned-").removesuffix(".mp4")][1]
        return np.stack([turn(frame) for frame in truth(folder, "plain.mp4")])
    return np.fromfile(folder / "truth" / name, np.uint8).reshape(-1, height, width, 3)


def outcome(folder: Path, name: str) -> str:
    """`right`, `refused: ...` or `wrong: ...`."""
    from yolov3_trt.data.images import iter_images
    from yolov3_trt.errors import ImageError

    errors: list[ImageError] = []
    frames = list(iter_images([folder / name], errors.append))
    if name in WITHOUT_PICTURES and frames:
        return f"wrong: {len(frames)} frames of what is no video"
    if errors:
        return f"refused: {errors[0]}"
    positions = [frame.position_s for frame in frames]
    if name == "larger-later.ts":
        sizes = [frame.pixels.shape[1::-1] for frame in frames]
        return "right" if sizes == [(64, 48)] * 10 + [(96, 64)] * 10 else f"wrong: {sizes}"
    if len(frames) != FRAMES.get(name, NUM_FRAMES):
        return f"wrong: {len(frames)} frames"
    wanted = truth(folder, name)
    got = np.stack([frame.pixels for frame in frames])
    rows, columns = got.shape[1:3]
    if rows not in (wanted.shape[1], wanted.shape[1] - 1) or columns not in (wanted.shape[2], wanted.shape[2] - 1):
        return f"wrong: {columns}x{rows}"  # OpenCV makes odd sizes even
    difference = np.abs(got.astype(int) - wanted[: len(got), :rows, :columns]).mean()
    if difference >= 6:  # two ways from chroma to colours
        return f"wrong: pixels differ by {difference:.1f}"
    if not name.endswith(UNTIMED):
        expected = TIMES.get(name, np.arange(len(frames)) / RATES.get(name, FPS))
        if None in positions or np.abs(np.subtract(positions, expected)).max() > 2e-3:
            return f"wrong: times {positions}"
    return "right"


def expected(name: str, *, spoils_interlaced: bool) -> str:
    """How an outcome begins."""
    if spoils_interlaced and name.startswith(INTERLACED):
        return "refused"
    return "refused" if name in REFUSED else "right"


def look_at_all(folder: Path) -> tuple[dict[str, int], list[str]]:
    """How many clips came to what, and what came wrong."""
    from yolov3_trt.opencv import spoils_interlaced

    counts: Counter[str] = Counter()
    faults = []
    for name in (*right_names(), *REFUSED):
        text = outcome(folder, name)
        kind = text.partition(":")[0]
        counts[kind] += 1
        if kind != expected(name, spoils_interlaced=spoils_interlaced()) or REFUSED.get(name, "") not in text:
            faults.append(f"{name}: {text}")
    return dict(counts), faults


if __name__ == "__main__":
    found, wrong = look_at_all(Path(sys.argv[1]))
    print(", ".join(f"{count} {kind}" for kind, count in sorted(found.items(), reverse=True)))
    sys.exit("\n".join(wrong) or 0)
