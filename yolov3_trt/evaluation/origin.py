"""A warning about pictures that a model may have been trained on."""

import re

from yolov3_trt.data.annotations import Annotations
from yolov3_trt.meta import ModelMeta

# SHA-256 of the .weights files that the authors of YOLOv3 published.
ORIGINAL_WEIGHTS = {
    "523e4e69e1d015393a1b0a441cef1d9c7659e3eb2d7e15f793f060a21b32f297": "yolov3",
    "87a1e8c85c763316f34e428f2295e1db9ed4abcec59dd9544f8052f50de327b4": "yolov3-spp",
    "dccea06f59b781ec1234ddf8d1e94b9519a97f4245748a7d4db75d5b7080a42c": "yolov3-tiny",
}
_COCO_CLASSES = 80
# COCO calls its pictures by their ids: 000000000139.jpg in 2017, COCO_val2014_000000000139.jpg before.
_COCO_NAME = re.compile(r"(COCO_(train|val)2014_)?\d{12}\.jpg")


def training_overlap_note(meta: ModelMeta, annotations: Annotations) -> str | None:
    """What to know of the original YOLOv3 weights on pictures of COCO; None for other weights or pictures.

    The weights are known by their hash. A model of that name with COCO's classes, but weights that are unknown or other ones,
    may still come from them (fine-tuned, or exported without the hash), so the note is made with an "if".
    """
    if not _are_cocos(annotations):
        return None
    original = ORIGINAL_WEIGHTS.get(meta.weights_sha256 or "")
    if original is not None:
        subject = f"{meta.name} has the original weights of {original}, which"
    elif meta.name.startswith("yolov3") and meta.num_classes == _COCO_CLASSES:
        subject = (
            f"this does not concern you if you trained {meta.name} from scratch or on pictures of your own; the published "
            "weights of YOLOv3, from which it may come (the SHA-256 of its weights is none of theirs, which proves nothing),"
        )
    else:
        return None
    return (
        f"{subject} were trained on COCO's trainvalno5k, which holds most of val2014 and so pictures of val2017: AP comes out "
        "too high on them (AP50 of .66 was published there, of .55 to .58 on pictures held out). Compare such figures with "
        "each other only, or evaluate on the pictures of Darknet's 5k.txt"
    )


def _are_cocos(annotations: Annotations) -> bool:
    """Whether most pictures are called as COCO's are, with the number that is their id where they have one."""
    images = annotations.images
    named = sum(
        bool(_COCO_NAME.fullmatch(name := str(image["file_name"]).rpartition("/")[2]))
        and image.get("own_id", int(name[-16:-4])) == int(name[-16:-4])
        for image in images
    )
    return bool(2 * named > len(images))
