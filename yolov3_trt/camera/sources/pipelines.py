"""GStreamer pipelines for OpenCV, as text. Each ends in BGR frames, of which only the newest waits to be read."""

from fractions import Fraction

from yolov3_trt.geometry import HW

# `drop` with one buffer: what OpenCV has not fetched is replaced. `sync=false`: a frame is given when it is there.
_APPSINK = "video/x-raw, format=BGR ! appsink drop=true max-buffers=1 sync=false"
# The converter of the Jetson knows no BGR; its BGRx loses the fourth channel on the CPU.
_BGR_ON_JETSON = f"video/x-raw, format=BGRx ! videoconvert ! {_APPSINK}"


def csi_pipeline(sensor_id: int, image_hw: HW, fps: float, flip: int = 0) -> str:
    """A Jetson's CSI camera.

    Args:
        sensor_id: which one, from 0.
        image_hw: px; the driver takes the sensor's mode that is nearest above.
        fps: frames per second.
        flip: `flip-method` of nvvidconv: 0 none, 2 turns upside down, 4 mirrors, ...
    """
    rate = Fraction(fps).limit_denominator(1001)
    return (
        f"nvarguscamerasrc sensor-id={sensor_id} ! "
        f"video/x-raw(memory:NVMM), width={image_hw[1]}, height={image_hw[0]}, "
        f"framerate={rate.numerator}/{rate.denominator}, format=NV12 ! "
        f"nvvidconv flip-method={flip} ! {_BGR_ON_JETSON}"
    )


def rtsp_pipeline(uri: str, transport: str, latency_ms: int, timeout_s: float) -> str:
    """An RTSP stream of H.264 or H.265, decoded by a Jetson's hardware. Sound is left alone."""
    return (
        f"rtspsrc location={_quoted(uri)} protocols={transport} latency={latency_ms} drop-on-latency=true "
        f"timeout={round(timeout_s * 1e6)} tcp-timeout={round(timeout_s * 1e6)} ! "
        f"application/x-rtp, media=video ! parsebin ! nvv4l2decoder ! nvvidconv ! {_BGR_ON_JETSON}"
    )


def http_pipeline(uri: str, timeout_s: float) -> str:
    """Motion JPEG by HTTP, decoded by a Jetson's hardware. Other formats do not open."""
    # `single-stream`: the demuxer would wait for further streams, ten seconds long, and hold back the frames.
    return (
        f"souphttpsrc location={_quoted(uri)} is-live=true do-timestamp=true timeout={max(1, round(timeout_s))} ! "
        f"multipartdemux single-stream=true ! image/jpeg ! nvv4l2decoder mjpeg=1 ! nvvidconv ! {_BGR_ON_JETSON}"
    )


def _quoted(value: str) -> str:
    """A value that may hold what GStreamer would take for its own."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
