"""Cameras with settings of their own, from a TOML file: its keys are the options of the command line."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from yolov3_trt.arguments import shown
from yolov3_trt.camera.live import ReconnectPolicy
from yolov3_trt.camera.settings import CameraSettings
from yolov3_trt.camera.sources import SourceOptions
from yolov3_trt.camera.sources.credentials import load_credentials
from yolov3_trt.camera.sources.uri import NAME
from yolov3_trt.errors import SettingError
from yolov3_trt.files import read_toml
from yolov3_trt.selection import Selection

_FORM = (
    '[[camera]] with source = "rtsp://..." and, if wanted, name, sink, and options of the command line such as classes'
)
_FILES = ("zones", "credentials")  # relative to the folder of the file
_KINDS = (CameraSettings, Selection)
_HOME = {item.name: kind for kind in _KINDS for item in fields(kind)}


@dataclass(frozen=True)
class Camera:
    """A source with what is asked of it, which of its detections count, and sinks for it alone."""

    source: str
    settings: CameraSettings
    selection: Selection
    sinks: tuple[str, ...] = ()

    @property
    def asked(self) -> SourceOptions:
        """As sources take it."""
        own = self.settings
        credentials = {} if own.credentials is None else load_credentials(own.credentials)
        return SourceOptions(
            own.size, own.fps, own.realtime, own.timeout, own.latency, own.transport.value, credentials
        )

    @property
    def reconnect(self) -> ReconnectPolicy:
        """When it is given up."""
        seconds = self.settings.give_up_after
        return ReconnectPolicy() if seconds is None else ReconnectPolicy(seconds, waits_for_absent=True)


def load_cameras(file: Path, settings: CameraSettings, selection: Selection) -> tuple[Camera, ...]:
    """The cameras of a file; what it does not say of one is as for all.

    Raises:
        SettingError: it cannot be read, has another form, or asks for what cannot be meant; which camera, which key.
    """
    try:
        content = read_toml(file)
    except (OSError, ValueError) as exc:
        reason = getattr(exc, "strerror", None) or exc
        raise SettingError("cameras", f"{file}: cannot be read ({reason}); expected {_FORM}") from exc
    rows = content.get("camera")
    if not isinstance(rows, list) or not rows or len(content) > 1 or not all(isinstance(row, dict) for row in rows):
        other = [key for key in content if key != "camera"]
        found = f"there is no key {shown(other[0])} outside of a camera" if other else "there is no camera in it"
        raise SettingError("cameras", f"{file}: {found}; expected {_FORM}")
    cameras = []
    for number, row in enumerate(rows, 1):
        try:
            cameras.append(_camera(row, settings, selection, file.parent))
        except SettingError as exc:
            name = f" ({row['name']})" if isinstance(row.get("name"), str) and row["name"].isprintable() else ""
            raise SettingError("cameras", f"{file}: camera {number}{name}: {exc}") from exc
    return tuple(cameras)


def _camera(row: dict[str, Any], settings: CameraSettings, selection: Selection, folder: Path) -> Camera:
    given = dict(row)
    source, name, sinks = given.pop("source", None), given.pop("name", None), given.pop("sink", [])
    if isinstance(source, bool) or not isinstance(source, str | int):
        raise SettingError("source", f"got {shown(source)}; expected an address, a file, or the number of a camera")
    if name is not None and (not isinstance(name, str) or not NAME.fullmatch(name)):
        raise SettingError("name", f"got {shown(name)}; expected letters, digits, dots and dashes, 40 at the most")
    sinks = [sinks] if isinstance(sinks, str) else sinks
    if not isinstance(sinks, list) or not all(isinstance(sink, str) for sink in sinks):
        raise SettingError("sink", f'got {shown(sinks)}; expected one text or several, e.g. ["door.jsonl"]')
    kinds: dict[type[Any], dict[str, Any]] = {kind: {} for kind in _KINDS}
    for key, value in given.items():
        if key not in _HOME:
            raise SettingError(
                shown(key)[1:-1], f"there is no such key; expected one of source, name, sink, {', '.join(_HOME)}"
            )
        kinds[_HOME[key]][key] = str(folder / value) if key in _FILES and isinstance(value, str) else value
    return Camera(
        str(source) if name is None else f"{name}={source}",
        replace(settings, **kinds[CameraSettings]),
        replace(selection, **kinds[Selection]),
        tuple(sinks),
    )


def check_selections(cameras: Sequence[Camera], class_names: tuple[str, ...], conf: float) -> None:
    """Whether what counts goes with a detector; see `Selection.check`.

    Raises:
        SettingError: for a camera there is no such class, or one is wanted below that confidence.
    """
    for selection in {id(camera.selection): camera.selection for camera in cameras}.values():
        selection.check(class_names, conf)
