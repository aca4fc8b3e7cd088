"""What the speed of this package is measured against, and the inputs for it."""

import importlib.util
import re
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from yolov3_trt.detector import Detector
from yolov3_trt.geometry import Placement, Resize
from yolov3_trt.jobs.export import export
from yolov3_trt.meta import ModelMeta
from yolov3_trt.models import Model, load_model
from yolov3_trt.postprocess import Candidates, candidates_from_heads, suppress

THREADS = 2


@dataclass(frozen=True)
class Subject:
    """A model as files that every peer reads. Without pretrained weights they are fabricated, and the input is 416."""

    name: str
    pretrained: bool

    def files(self, data: Path, folder: Path) -> tuple[Path, Path]:
        """Cfg and weights; what has to be made goes into `folder`."""
        cfg = data / "models" / f"{self.name}.cfg"
        if self.pretrained:
            return cfg, cfg.with_suffix(".weights")
        own_cfg, weights = folder / cfg.name, folder / f"{self.name}.weights"
        own_cfg.write_text(re.sub(r"(?m)^(\s*(?:width|height)\s*=\s*)\d+", r"\g<1>416", cfg.read_text()))
        spec = importlib.util.spec_from_file_location("fabricate_weights", data / "goldens" / "fabricate_weights.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        module.fabricate(own_cfg, weights)
        return own_cfg, weights


SMALL = (
    Subject("yolo-fastest-1.1", True),
    Subject("MobileNetV2-YOLOv3-Nano-coco", True),
    Subject("yolov3-tiny", False),
)
ALL = (*SMALL, Subject("yolov3", False))


def realistic_threshold(subject: Subject, detector: Detector, picture: NDArray[np.uint8]) -> float:
    """0.25; for fabricated weights, to which everything is an object, what leaves 60 pairs of box and class."""
    if subject.pretrained:
        return 0.25
    batch, _ = detector.backend.prepare([picture])
    heads = [head[0] for head in detector.backend.network.infer(batch).values()]
    everything = replace(detector.postprocess, max_candidates=10**9)
    scores = candidates_from_heads(heads, detector.meta.heads, detector.meta.input_hw, everything).scores
    return float(scores[60])


def load_subject(subject: Subject, data: Path, folder: Path) -> tuple[Model, Path, Path]:
    """The model, its cfg, and its ONNX graph exported into `folder`."""
    cfg, weights = subject.files(data, folder)
    model = load_model(cfg, weights, "coco")
    return model, cfg, export(model, folder / f"{subject.name}.onnx").path


def opencv_letterbox_blob(image: NDArray[np.uint8], input_hw: tuple[int, int]) -> NDArray[np.float32]:
    """Resize, border and `blobFromImage`."""
    place = Placement.of((image.shape[0], image.shape[1]), input_hw, Resize.LETTERBOX)
    (top, left), (height, width) = place.offset_hw, place.resized_hw
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    bottom, right = input_hw[0] - top - height, input_hw[1] - left - width
    framed = cv2.copyMakeBorder(small, top, bottom, left, right, cv2.BORDER_CONSTANT, value=(128, 128, 128))
    return cv2.dnn.blobFromImage(framed, 1 / 255, swapRB=True)


def naive_postprocess(outputs: dict[str, NDArray], meta: ModelMeta, detector: Detector) -> Candidates:
    """The textbook way: sigmoid and exp of every logit of every cell, then the threshold; the same NMS."""
    post = detector.postprocess
    boxes, scores = [], []
    for head in meta.heads:
        (grid_h, grid_w), anchors = head.grid_hw, len(head.anchors_wh)
        values = outputs[head.name][0].reshape(anchors, -1, grid_h, grid_w).transpose(0, 2, 3, 1)  # (A, h, w, 5+C)
        stride = np.array([meta.input_hw[1] / grid_w, meta.input_hw[0] / grid_h], np.float32)
        grid = np.stack(np.meshgrid(np.arange(grid_w), np.arange(grid_h)), axis=-1).astype(np.float32)
        probabilities = 1 / (1 + np.exp(-values))
        centres = (
            probabilities[..., :2] * np.float32(head.scale_xy) - np.float32((head.scale_xy - 1) / 2) + grid
        ) * stride
        sizes = np.exp(values[..., 2:4]) * np.array(head.anchors_wh, np.float32)[:, None, None]
        boxes.append(np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=-1).reshape(-1, 4))
        scores.append((probabilities[..., 4:5] * probabilities[..., 5:]).reshape(-1, head.num_classes))
    every_box, every_score = np.concatenate(boxes), np.concatenate(scores)
    box, class_id = np.nonzero(every_score > post.conf)
    score = every_score[box, class_id]
    order = np.argsort(-score, kind="stable")[: post.max_candidates]
    found = Candidates(every_box[box][order], score[order], class_id[order].astype(np.int32))
    return suppress(found, meta.input_hw, post)


def seeded_heads(meta: ModelMeta, objects: int, per_object: int = 5, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Logits (1, A*(5+C), h, w) as a trained network gives them: all but a few cells far below any threshold, and around
    each object some neighbouring cells that find it too."""
    rng = np.random.default_rng(seed)
    heads = {}
    for head in meta.heads:
        shape = (1, len(head.anchors_wh), 5 + head.num_classes, *head.grid_hw)
        logits = rng.normal(0, 1, shape).astype(np.float32)
        logits[:, :, 4] -= 10
        logits[:, :, 5:] -= 9
        heads[head.name] = logits
    for _ in range(objects):
        head = meta.heads[rng.integers(len(meta.heads))]
        row, column = (int(rng.integers(side)) for side in head.grid_hw)
        anchor, class_id = int(rng.integers(len(head.anchors_wh))), int(rng.integers(12))
        for _ in range(per_object):
            y = min(head.grid_hw[0] - 1, max(0, row + int(rng.integers(-1, 2))))
            x = min(head.grid_hw[1] - 1, max(0, column + int(rng.integers(-1, 2))))
            heads[head.name][0, anchor, 4, y, x] = rng.normal(2.5, 1)
            heads[head.name][0, anchor, 5 + class_id, y, x] = rng.normal(2.5, 1)
    return {name: logits.reshape(1, -1, *logits.shape[3:]) for name, logits in heads.items()}
