"""What is asked of a camera. Light, as the command line shows it."""

from dataclasses import dataclass
from enum import Enum
from math import inf
from pathlib import Path
from typing import Any

from yolov3_trt.arguments import Settings, choice, flag, number, path, setting, size, whole, within
from yolov3_trt.sizes import HW

MAX_S = 10 * 365 * 86_400.0


class Transport(str, Enum):
    """Of RTSP."""

    TCP = "tcp"
    UDP = "udp"


def _seconds_or_never(name: str, value: Any) -> float:
    return inf if value == inf else number(name, value, 0, MAX_S)


@dataclass(frozen=True)
class CameraSettings(Settings):
    """What is asked of a camera, stream or file.

    Attributes:
        size: ask cameras for this size, e.g. 1280x720.
        fps: ask cameras for this rate.
        realtime: files at their own pace.
        timeout: how long a camera may take to open, and to give its next frame, seconds.
        give_up_after: a source that gives no frame for so many seconds is given up; inf: never. Default: 60, and at once for a
            camera of this machine that is not there at the start.
        latency: how long streams wait for late packets, ms.
        transport: of RTSP streams: tcp or udp.
        credentials: NAME=value lines for ${NAME} in addresses, mode 600; otherwise the environment's.

    Raises:
        SettingError: at construction, a value is none that its field takes.
    """

    size: HW | None = setting(size, metavar="WIDTHxHEIGHT")
    fps: float | None = setting(within(0.1, 1000))
    realtime: bool = setting(flag, False)
    timeout: float = setting(within(0.5, MAX_S), 10.0, metavar="S")
    give_up_after: float | None = setting(_seconds_or_never, metavar="S")
    latency: int = setting(whole(0), 200, metavar="MS")
    transport: Transport = setting(choice(Transport), Transport.TCP)
    credentials: Path | None = setting(path, metavar="FILE")
