"""`detect`: pictures and videos to boxes."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from yolov3_trt.cli.options import (
    ArtifactArgument,
    BackendOption,
    ConfOption,
    DetectOptions,
    InputSizeOption,
    IouOption,
    JsonOption,
    MaxDetectionsOption,
    ModelOptions,
    NamesOption,
    NmsOption,
    ResizeOption,
    ThreadsOption,
    TrustOption,
    WeightsOption,
    open_for_verb,
)
from yolov3_trt.cli.output import say, track, write_result

if TYPE_CHECKING:
    from yolov3_trt.data.images import NamedImage
    from yolov3_trt.errors import ImageError
    from yolov3_trt.preprocess import Image


def detect(
    artifact: ArtifactArgument,
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE...", help="Images, folders, globs, videos.")],
    weights: WeightsOption = None,
    names: NamesOption = None,
    input_size: InputSizeOption = None,
    backend: BackendOption = "auto",
    conf: ConfOption = None,
    iou: IouOption = None,
    max_detections: MaxDetectionsOption = None,
    nms: NmsOption = "cfg",
    resize: ResizeOption = None,
    threads: ThreadsOption = None,
    trust: TrustOption = False,
    save: Annotated[Path | None, typer.Option(metavar="DIR", help="Write each picture with its boxes there.")] = None,
    json: JsonOption = None,
) -> None:
    """Find objects in images, folders, globs and videos.

    A file that cannot be read is named and skipped; the exit code is then 1.
    """
    from yolov3_trt.camera.draw import draw_detections
    from yolov3_trt.data.images import find_sources, iter_images
    from yolov3_trt.files import make_folder

    paths = find_sources(sources)
    if save is not None:
        if any(path.resolve().parent == save.resolve() for path in paths):
            raise typer.BadParameter(f"{save} holds pictures to read, which this would overwrite", param_hint="--save")
        make_folder(save)
    skipped: list[str] = []

    def skip(error: "ImageError") -> None:
        skipped.append(str(error))
        say(f"skipped {error}")

    images: list[dict[str, Any]] = []
    lines: list[str] = []
    with open_for_verb(
        artifact,
        ModelOptions(weights, names, input_size),
        DetectOptions(conf, iou, max_detections, nms, resize),
        backend=backend,
        threads=threads,
        trust=trust,
    ) as detector:
        saved: set[Path] = set()
        for image in track(iter_images(paths, skip), "detecting"):
            found = detector(image.pixels)
            height, width = image.pixels.shape[:2]
            images.append({"file": image.name, "width": width, "height": height, "detections": found.to_json()})
            lines.append(f"{image.name}  {width}x{height}  {len(found)} objects")
            lines += [
                f"  {row.class_name:<16} {row.score:.3f}  {' '.join(f'{value:.1f}' for value in row.xyxy)}"
                for row in found
            ]
            if save is not None:
                save_picture(draw_detections(image.pixels, found), _free_path(save, image, saved))
        content: dict[str, Any] = {"artifact": artifact, "backend": detector.backend.name.value, "images": images}
        if detector.backend.fallbacks:
            content["fallbacks"] = list(detector.backend.fallbacks)
    if skipped:
        content["skipped"] = skipped
    write_result(json, content, "\n".join(lines))
    if skipped:
        say(f"yolov3_trt: {len(skipped)} of {len(images) + len(skipped)} files could not be read")
        raise typer.Exit(1)


def _free_path(folder: Path, image: "NamedImage", taken: set[Path]) -> Path:
    """Where a picture is saved; equal names from different folders get a number, so that none overwrites another."""
    from yolov3_trt.data.images import IMAGE_SUFFIXES

    name = Path(image.name).name.replace("#", "-")
    stem, suffix = Path(name).stem, Path(name).suffix
    if suffix.lower() not in IMAGE_SUFFIXES:  # a frame of a video, or a picture that is called otherwise
        stem, suffix = name, ".jpg"
    path, number = folder / f"{stem}{suffix}", 1
    while path in taken:
        number += 1
        path = folder / f"{stem}-{number}{suffix}"
    taken.add(path)
    return path


def save_picture(pixels: "Image", path: Path) -> None:
    """Write a picture in the format of the path's suffix, atomically."""
    from yolov3_trt.errors import OutputError, require
    from yolov3_trt.files import write_bytes

    cv2 = require("cv2", extra="opencv")
    good, encoded = cv2.imencode(path.suffix, pixels)
    if not good:
        raise OutputError(f"{path}: OpenCV cannot write {path.suffix} files")
    write_bytes(path, encoded.tobytes())
