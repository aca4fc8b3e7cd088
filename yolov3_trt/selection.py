"""Which of the detections are wanted: by class, confidence, size and place."""

import difflib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from yolov3_trt.arguments import Settings, number, path, setting, shown, size, text
from yolov3_trt.errors import SettingError
from yolov3_trt.places import Places, feet_of
from yolov3_trt.sizes import HW

if TYPE_CHECKING:  # `--help` needs the options only, and no NumPy
    import numpy as np
    from numpy.typing import NDArray

    from yolov3_trt.detections import Detections


@dataclass(frozen=True)
class Selection(Settings):
    """Which of the detections are wanted; those that are not are neither shown nor written.

    Attributes:
        classes: only these, e.g. `dog,person:0.6`: names or numbers, each with the confidence that it needs, if any.
        min_size: only boxes as wide and as high as this, WIDTHxHEIGHT or one number, px of the picture.
        zones: only what stands in the polygons of this file (.toml), which may have lines to count at, too.

    Raises:
        SettingError: at construction, a value is not understood, or the file is not.

    >>> Selection(classes="person:0.6").of(found, image_hw=(480, 640))  # doctest: +SKIP
    """

    classes: str | None = setting(text, metavar="NAME[:CONF],...")
    min_size: HW | None = setting(size, metavar="WIDTHxHEIGHT")
    zones: Path | None = setting(path, metavar="FILE")

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self._confidences, self.places

    def of(self, detections: "Detections", image_hw: HW, source: str | None = None) -> "Detections":
        """Those of a picture that are wanted.

        Args:
            detections: of the picture.
            image_hw: its size, px.
            source: its camera, for zones of one camera.

        Raises:
            SettingError: there is no such class.
        """
        kept = self.keeps(detections, image_hw, source)
        return detections if kept.all() else detections[kept]

    def keeps(self, detections: "Detections", image_hw: HW, source: str | None = None) -> "NDArray[np.bool_]":
        """Which of the detections are wanted, (N,); see `of`."""
        import numpy as np

        kept = np.ones(len(detections), bool)
        if self._confidences:
            least = self.confidence_of(detections.class_names)
            kept &= detections.scores >= np.array(
                [least.get(number, np.inf) for number in detections.class_ids.tolist()]
            )
        if self.min_size is not None:
            sides = detections.xyxy[:, 2:] - detections.xyxy[:, :2]
            kept &= (sides >= self.min_size[::-1]).all(axis=1)
        own = self.places.of(source).zones
        feet = feet_of(detections, image_hw)
        for zone in own:
            if zone.ignore:
                kept &= ~zone.holds(feet)
        if wanted := [zone.holds(feet) for zone in own if not zone.ignore and not zone.watch]:
            kept &= np.any(wanted, axis=0)
        return kept

    def check(self, class_names: tuple[str, ...], conf: float) -> None:
        """Whether it goes with a detector.

        Args:
            class_names: that it knows.
            conf: below which it gives nothing.

        Raises:
            SettingError: there is no such class, or one is wanted below that confidence.
        """
        for index, least in self.confidence_of(class_names).items():
            if 0 < least < conf:
                name = class_names[index] if class_names else index
                raise SettingError(
                    "classes", f"{name}:{least:g} is below the confidence of the detector, {conf:g}; lower `conf` too"
                )

    def confidence_of(self, class_names: tuple[str, ...]) -> dict[int, float]:
        """The least confidence of each wanted class, by its number.

        Raises:
            SettingError: there is no such class.
        """
        numbers = {name: index for index, name in enumerate(class_names)}
        least = {}
        for name, conf in self._confidences.items():
            index = numbers.get(name, int(name) if name.isascii() and name.isdigit() else -1)
            if index < 0 or (class_names and index >= len(class_names)):
                near = difflib.get_close_matches(name, class_names, 1)
                hint = (
                    f"; did you mean {near[0]}?"
                    if near
                    else f", e.g. {', '.join(class_names[:3])}"
                    if class_names
                    else ""
                )
                raise SettingError("classes", f"there is no class {shown(name)} among {len(class_names)}{hint}")
            least[index] = conf
        return least

    @cached_property
    def _confidences(self) -> dict[str, float]:
        """What each class needs, by what it is called."""
        found: dict[str, float] = {}
        for part in (self.classes or "").split(",") if self.classes is not None else ():
            name, is_given, conf = part.strip().rpartition(":")
            name = name if is_given else conf
            try:
                least = float(conf) if is_given else 0.0
            except ValueError:
                raise SettingError("classes", f"got {shown(part)}; expected e.g. dog,person:0.6") from None
            if not name or name in found:
                raise SettingError(
                    "classes", f"got {shown(self.classes)}; expected classes once each, e.g. dog,person:0.6"
                )
            found[name] = number("classes", least, 0, 1)
        return found

    @cached_property
    def places(self) -> Places:
        """The zones and lines of the file."""
        return Places() if self.zones is None else Places.read(self.zones)
