"""The `camera` verb for a long time: does its memory or its number of threads grow? What do failures do to it?

    python -m tests.soak_camera --minutes 30 --json docs/results/camera-soak.json
    python -m tests.soak_camera --minutes 2 --kills 10 --json docs/results/camera-faults.json
    python -m tests.soak_camera --minutes 66 --fps 3 --kills 24 --attacks --video avi --json FILE  # camera-soak-attacks.json

Sources are an RTSP stream of GStreamer's server (where that is installed) and the generator in real time; the bundled model's
ONNX graph detects; sinks are videos, JSON lines and the HTTP page. (FFmpeg keeps an index of the frames it has written: 87
bytes each for .mp4, 16 for .avi.) Every so often the resident memory, threads and open files of the process are read from
/proc. With `--kills` the RTSP server is killed so many times, each time for a second; with `--attacks` viewers come and go,
some without a good-bye, and requests dribble, are cut off or are no requests. Slopes have the 95 % interval of a straight
line through the means of twelve equal spans, which depend less on each other than samples do.
"""

import argparse
import json
import os
import random
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np

from tests.streams import RtspServer, free_port, why_no_rtsp_server, write_pictures
from yolov3_trt.benchmarking.latency import machine
from yolov3_trt.jobs.export import export
from yolov3_trt.models import load_model
from yolov3_trt.shapes import iter_shapes_clip

_SETTLED = 0.2  # of the run: by then every buffer has been used once
_SPANS, _T_95 = 12, 2.228  # the quantile of Student's t for a line through so many points


def main(args: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--fps", type=int, default=10, help="of each source")
    parser.add_argument("--kills", type=int, default=0, help="how often the RTSP server is killed")
    parser.add_argument("--attacks", action="store_true", help="viewers that come and go, and requests that are none")
    parser.add_argument("--video", choices=("mp4", "avi"), default="mp4", help="the container of the videos")
    parser.add_argument("--every", type=float, default=5, metavar="S", help="between two samples")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    options = parser.parse_args(args)
    given = sys.argv[1:] if args is None else args
    with tempfile.TemporaryDirectory() as folder:
        content = soak(Path(folder), options)
    print(
        json.dumps({key: content[key] for key in ("exit_code", "memory", "threads", "open_files", "kills")}, indent=1)
    )
    if options.json is not None:
        content = {"command": " ".join(("python -m tests.soak_camera", *given)), **content}
        options.json.write_text(json.dumps(content, indent=1) + "\n")


def soak(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run it; gives what was sampled and the verb's own summary."""
    seconds, fps = options.minutes * 60, options.fps
    graph = folder / "shapes.onnx"
    export(load_model("shapes"), graph)
    sources = [f"shapes://?live=1&seed=2&frames=999999999&size=320x240&fps={fps}"]
    server: RtspServer | None = None
    with ExitStack() as stack:
        if why_no_rtsp_server() is None:
            pictures = [picture.pixels for picture in iter_shapes_clip(1, 60, (240, 320))]
            server = stack.enter_context(RtspServer(write_pictures(folder / "clip", pictures), fps))
            sources.append(server.uri)
        summary = folder / "summary.json"
        command = [sys.executable, "-m", "yolov3_trt", "camera", str(graph), "--threads", "1"]
        command += [part for source in sources for part in ("--source", source)]
        port = free_port()
        command += ["--sink", f"{folder}/video.{options.video},{folder}/found.jsonl,http://127.0.0.1:{port}"]
        command += ["--duration", str(seconds), "--json", str(summary)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        if options.attacks:
            threading.Thread(target=_attack, args=(port, process), daemon=True).start()
        while process.poll() is None and not (folder / "found.jsonl").exists():
            time.sleep(0.1)  # until it has begun, which takes long on a busy machine
        try:
            samples = _samples(process, options.every, _Killer(server, options.kills, seconds))
            samples = [row for row in samples if row["s"] < seconds]  # after that it is closing
        finally:
            process.kill()
            process.wait()
        lines = len((folder / "found.jsonl").read_text().splitlines())
        run = json.loads(summary.read_text())
    return {
        "machine": machine(),
        "seconds": seconds,
        "warm_up_s": _SETTLED * seconds,
        "sources": sources,
        "exit_code": process.returncode,
        "kills": options.kills,
        "memory": _trend(samples, "rss_mib"),
        "threads": _trend(samples, "threads"),
        "open_files": _trend(samples, "open_files"),
        "json_lines": lines,
        "summary": {**run, "artifact": graph.name},
        "samples": samples[:: max(1, len(samples) // 30)],
    }


def _attack(port: int, process: "subprocess.Popen[bytes]") -> None:
    """One after another, until the process ends: viewers, dribbled heads, resets, and bytes that are no request."""
    rng = random.Random(0)
    view = b"GET /view/0.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n"
    while process.poll() is None:
        try:
            opened = [socket.create_connection(("127.0.0.1", port), 5) for _ in range(rng.choice((1, 4, 40, 120)))]
        except OSError:
            time.sleep(1)
            continue
        for connection in opened:
            with suppress(OSError):  # the page has hung up: there were too many
                connection.sendall(rng.choice((view, view[:9], b"GET /stats.json HTTP/1.1\r\n\r\n", rng.randbytes(64))))
        time.sleep(rng.uniform(1, 8))
        for connection in opened:
            if rng.random() < 0.5:  # no good-bye: a reset
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()
        time.sleep(rng.uniform(0, 10))


class _Killer:
    """Kills a server now and then, evenly spread over a run."""

    def __init__(self, server: RtspServer | None, kills: int, seconds: float) -> None:
        assert server is not None or not kills, "there is no RTSP server to kill"
        self._server, self._left, self._every_s = server, kills, seconds / (kills + 1)
        self._next_s = time.monotonic() + self._every_s

    def look(self) -> None:
        """Kill it when it is time to, and start it again after a second."""
        if self._server is not None and self._left and time.monotonic() >= self._next_s:
            self._left -= 1
            self._next_s += self._every_s
            self._server.kill()
            time.sleep(1)
            self._server.start()


def _samples(process: "subprocess.Popen[bytes]", every_s: float, killer: _Killer) -> list[dict[str, float]]:
    samples, started_s = [], time.monotonic()
    while process.poll() is None:
        killer.look()
        try:
            status = dict(line.split(":", 1) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines())
            if "VmRSS" in status:
                samples.append(
                    {
                        "s": round(time.monotonic() - started_s, 1),
                        "rss_mib": round(int(status["VmRSS"].split()[0]) / 1024, 2),
                        "threads": int(status["Threads"]),
                        "open_files": len(os.listdir(f"/proc/{process.pid}/fd")),
                    }
                )
        except OSError:
            break  # it has just ended
        time.sleep(every_s)
    process.wait()
    return samples


def _trend(samples: list[dict[str, float]], key: str) -> dict[str, Any]:
    """Of what came after the start: the first and the last fifth, and the slope of a straight line with its interval."""
    settled = samples[int(len(samples) * _SETTLED) :]
    values, hours = np.array([row[key] for row in settled]), np.array([row["s"] for row in settled]) / 3600
    fifth = max(1, len(values) // 5)
    trend = {
        "begin": round(float(np.median(values[:fifth])), 2),
        "end": round(float(np.median(values[-fifth:])), 2),
        "min": float(values.min()),
        "max": float(values.max()),
    }
    if len(values) < 2 * _SPANS:
        return trend
    x, y = ([float(span.mean()) for span in np.array_split(of, _SPANS)] for of in (hours, values))
    (slope, _), covariance = np.polyfit(x, y, 1, cov=True)
    error = _T_95 * float(covariance[0, 0]) ** 0.5
    return {
        **trend,
        "slope_per_hour": round(float(slope), 3),
        "slope_95": [round(slope - error, 3), round(slope + error, 3)],
    }


if __name__ == "__main__":
    main()
