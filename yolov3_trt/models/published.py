"""Darknet weights that their makers published: where they lie, and the digest by which a copy is known to be whole.

A digest stands here only where it is published itself; the comments say by whom. Byte counts are those of the network: a
header of 20 bytes and a float32 for each value.
"""

from dataclasses import dataclass

_PJREDDIE = "https://data.pjreddie.com/files"  # pjreddie.com/media/files, which older instructions name, leads here
_ALEXEYAB = "https://github.com/AlexeyAB/darknet/releases/download"
_HANK_AI = "https://github.com/hank-ai/darknet/releases/download/v2.0"
_PJREDDIE_CFG = "https://github.com/pjreddie/darknet/blob/master/cfg"
_ALEXEYAB_CFG = "https://github.com/AlexeyAB/darknet/blob/master/cfg"


@dataclass(frozen=True)
class Published:
    """One published `.weights` file.

    Attributes:
        urls: where it lies; the first that answers is taken.
        cfg: a page with the .cfg that it was trained with.
        digest: `sha256:HEX` or `sha1:HEX`; None where none is published.
        num_bytes: its size; None where it is not known.
    """

    urls: tuple[str, ...]
    cfg: str
    digest: str | None = None
    num_bytes: int | None = None


# SHA-256 of the three of pjreddie: Emgu CV (emgucv/emgucv, Emgu.CV.Models/Dnn/Yolo.cs). Those of yolov3 and yolov3-tiny also
# stand in the Arch Linux package zmeventnotification 6.1.23 (PKGBUILD), as do those of yolov4 and yolov4-tiny. Emgu CV has the
# same for yolov4-tiny; its yolov4 is another file. OpenCV publishes SHA-1 of yolov3 (520878f1…), yolov4 (0143deb6…) and
# yolov4-tiny (451caaab…) in samples/dnn/models.yml. A yolov4-tiny of June 2020 with SHA-256 037676f0… was replaced in December.
PUBLISHED: dict[str, Published] = {
    "yolov3": Published(
        (f"{_PJREDDIE}/yolov3.weights", f"{_HANK_AI}/yolov3.weights"),
        f"{_PJREDDIE_CFG}/yolov3.cfg",
        "sha256:523e4e69e1d015393a1b0a441cef1d9c7659e3eb2d7e15f793f060a21b32f297",
        248_007_048,
    ),
    # The cfg of this page has mask=0,1,2 on its second head; the weights were trained with 1,2,3, which the built-in model has.
    "yolov3-tiny": Published(
        (f"{_PJREDDIE}/yolov3-tiny.weights", f"{_HANK_AI}/yolov3-tiny.weights"),
        f"{_PJREDDIE_CFG}/yolov3-tiny.cfg",
        "sha256:dccea06f59b781ec1234ddf8d1e94b9519a97f4245748a7d4db75d5b7080a42c",
        35_434_956,
    ),
    "yolov3-spp": Published(
        (f"{_PJREDDIE}/yolov3-spp.weights",),
        f"{_PJREDDIE_CFG}/yolov3-spp.cfg",
        "sha256:87a1e8c85c763316f34e428f2295e1db9ed4abcec59dd9544f8052f50de327b4",
        252_209_544,
    ),
    "yolov4": Published(
        (f"{_ALEXEYAB}/darknet_yolo_v3_optimal/yolov4.weights", f"{_ALEXEYAB}/yolov4/yolov4.weights"),
        f"{_ALEXEYAB_CFG}/yolov4.cfg",
        "sha256:e8a4f6c62188738d86dc6898d82724ec0964d0eb9d2ae0f0a9d53d65d108d562",
        257_717_640,
    ),
    "yolov4-tiny": Published(
        (f"{_ALEXEYAB}/yolov4/yolov4-tiny.weights", f"{_HANK_AI}/yolov4-tiny.weights"),
        f"{_ALEXEYAB_CFG}/yolov4-tiny.cfg",
        "sha256:cf9fbfd0f6d4869b35762f56100f50ed05268084078805f0e7989efe5bb8ca87",
        24_251_276,
    ),
    # SHA-1: OpenCV (opencv/opencv_extra, testdata/dnn/download_models.py).
    "yolov4x-mish": Published(
        (f"{_ALEXEYAB}/darknet_yolo_v4_pre/yolov4x-mish.weights",),
        f"{_ALEXEYAB_CFG}/yolov4x-mish.cfg",
        "sha1:a6f2879af2241de2e9730d317a55db6afd0af00b",
    ),
    "yolov7-tiny": Published((f"{_ALEXEYAB}/yolov4/yolov7-tiny.weights",), f"{_ALEXEYAB_CFG}/yolov7-tiny.cfg"),
}
