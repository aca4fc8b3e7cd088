"""The `camera` verb as a service, for a long time, with all that goes wrong: what is lost, and does all that is left play?

    python -m tests.soak_service --minutes 60 --json docs/results/service-soak.json

Two RTSP cameras of GStreamer's server are killed and stopped at random, refuse the login (401) or come back with another size.
The service (events, lines that rotate, a program,
segments with a limit) and its encoders are killed by SIGKILL at random, and started again at once. What it says on stdout,
where each line is sent at once, is what the files are compared with.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from tests.streams import RtspServer, write_pictures
from yolov3_trt.benchmarking.latency import machine
from yolov3_trt.jobs.export import export
from yolov3_trt.models import load_model
from yolov3_trt.shapes import iter_shapes_clip

KEEP_MB = 2.0  # of the segments of one camera
SEGMENT_S = 15

Key = tuple[Any, ...]


def why_not() -> str | None:
    """What is missing here; None where nothing is."""
    missing = [program for program in ("ffmpeg", "ffprobe") if shutil.which(program) is None]
    return f"needs {', '.join(missing)} (Debian's package ffmpeg)" if missing else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--fps", type=int, default=5, help="of each camera")
    parser.add_argument("--runs", type=float, nargs=2, default=(60, 180), metavar="S", help="how long each run is")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, metavar="FOLDER", help="keep what the service writes there")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        content = soak(options.folder or Path(folder), options)
    print(json.dumps({key: value for key, value in content.items() if key not in ("machine", "runs")}, indent=1))
    if options.json is not None:
        options.json.write_text(json.dumps(content, indent=1) + "\n")


def soak(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run it; gives what was lost, and how the files are."""
    rng = random.Random(options.seed)
    export(load_model("shapes"), folder / "shapes.onnx")
    with ExitStack() as stack:
        servers = []
        for number in range(2):
            pictures = [picture.pixels for picture in iter_shapes_clip(number, 60, (240, 320))]
            server = RtspServer(write_pictures(folder / f"clip{number}", pictures), options.fps)
            servers.append(stack.enter_context(server))
        write_pictures(folder / "large", [picture.pixels for picture in iter_shapes_clip(2, 60, (360, 480))])
        command = _service(folder, servers)
        oracle = stack.enter_context((folder / "oracle").open("ab"))
        log = stack.enter_context((folder / "log").open("ab"))
        ends_s = time.monotonic() + options.minutes * 60
        runs, faults = [], Counter[str]()
        while time.monotonic() < ends_s:
            process = subprocess.Popen(command, cwd=folder, stdout=oracle, stderr=log)
            until_s = time.monotonic() + rng.uniform(*options.runs)
            until_s = ends_s if ends_s - until_s < options.runs[0] else until_s  # the last has time to begin, too
            run = _run(process, servers, until_s, rng, faults, folder)
            is_last = until_s >= ends_s
            if is_last:
                process.send_signal(signal.SIGTERM)
            else:
                _kill_with_children(process.pid)
            run["killed_s"] = None if is_last else time.monotonic()
            run["exit_code"] = process.wait(60)
            runs.append(run)
        time.sleep(2)  # the program of `exec:` reads the rest
    return {
        "command": "python -m tests.soak_service " + " ".join(sys.argv[1:]),
        "machine": machine(),
        "minutes": options.minutes,
        "faults_of_cameras": dict(faults),
        "kills_of_the_service": sum(run["killed_s"] is not None for run in runs),
        "last_exit_code": runs[-1]["exit_code"],
        "lines": _compared(folder / "oracle", sorted(folder.glob("found.jsonl*")), runs),
        "program": _compared(folder / "oracle", [folder / "got"], runs),
        "segments": _segments(folder),
        "most_bytes_of_segments": max(run["segment_bytes"] for run in runs),
        "limit_bytes_of_segments": round(2 * KEEP_MB * 1e6),
        "rss_mib_at_ends": [run["rss_mib"] for run in runs],
        "open_files_at_ends": [run["open_files"] for run in runs],
        "log_lines": len((folder / "log").read_text(errors="replace").splitlines()),
        "runs": runs,
    }


def _service(folder: Path, servers: list[RtspServer]) -> list[str]:
    rows = [
        f'[[camera]]\nname = "cam{number}"\nsource = "{server.uri}"\ngive_up_after = inf\ntimeout = 3.0\n'
        f'sink = "{folder}/{{source}}-%Y%m%d-%H%M%S.mp4?segment={SEGMENT_S}s&keep_gb={KEEP_MB / 1000}"\n'
        for number, server in enumerate(servers)
    ]
    (folder / "camera.toml").write_text("\n".join(rows))
    command = [sys.executable, "-m", "yolov3_trt", "camera", str(folder / "shapes.onnx"), "--threads", "1", "--events"]
    sinks = ["jsonl", f"{folder}/found.jsonl?max_mb=1&keep=1000", f"exec:tee -a {folder}/got"]
    return [*command, "--cameras", "camera.toml", *(part for sink in sinks for part in ("--sink", sink))]


def _run(
    process: "subprocess.Popen[bytes]",
    servers: list[RtspServer],
    until_s: float,
    rng: random.Random,
    faults: Counter[str],
    folder: Path,
) -> dict[str, Any]:
    """Until the time: faults of the cameras one after the other; what the process took at the end."""
    next_s = time.monotonic() + rng.uniform(15, 40)
    figures: dict[str, Any] = {"segment_bytes": 0, "rss_mib": 0.0, "open_files": 0}
    while time.monotonic() < until_s and process.poll() is None:
        time.sleep(min(1.0, max(0.0, until_s - time.monotonic())))
        with suppress(OSError):
            status = dict(line.split(":", 1) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines())
            figures["rss_mib"] = round(int(status["VmRSS"].split()[0]) / 1024, 1)
            figures["open_files"] = len(list(Path(f"/proc/{process.pid}/fd").iterdir()))
        now = sum(path.stat().st_size for path in folder.glob("cam?-*.mp4") if path.exists())
        figures["segment_bytes"] = max(figures["segment_bytes"], now)
        if time.monotonic() >= next_s:
            server, seconds = rng.choice(servers), rng.uniform(1, 8)
            fault = rng.choices(("killed", "stalled", "resized", "refused"), (4, 4, 2, 1))[0]
            faults[fault] += 1
            if fault in ("killed", "resized"):
                server.kill()
                time.sleep(seconds)
                server.start(str(folder / "large" / "%05d.jpg") if fault == "resized" else None)
            elif fault == "refused":
                server.kill()
                server.start(password="not told")
                time.sleep(seconds + 5)
                server.kill()
                server.start()
            else:
                assert server._process is not None
                os.kill(server._process.pid, signal.SIGSTOP)
                time.sleep(seconds)
                os.kill(server._process.pid, signal.SIGCONT)
            next_s = time.monotonic() + rng.uniform(15, 40)
    return figures


def _kill_with_children(pid: int) -> None:
    """At once, as a power cut does; `tee` stays, which only writes down what it has read."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    encoders = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / children.name).read_text().split():
            is_encoder = b"ffmpeg" in Path(f"/proc/{child}/cmdline").read_bytes()
            encoders += [int(child)] if is_encoder else []
    for number in (pid, *encoders):
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)


def _keys(path: Path) -> list[Key]:
    names = ("source", "index", "captured_s", "event", "track_id", "zone", "line")
    rows = []
    for line in path.read_text().splitlines():
        with suppress(ValueError):  # the last of a killed run
            row = json.loads(line)
            rows.append(tuple(row.get(name) for name in names))
    return rows


def _compared(oracle: Path, files: list[Path], runs: list[dict[str, Any]]) -> dict[str, Any]:
    """What is missing in files, how long before a kill the oldest of it was captured, and what is twice."""
    said, found = _keys(oracle), Counter(key for path in files for key in _keys(path))
    kills = [run["killed_s"] for run in runs if run["killed_s"] is not None]
    lost = [key for key in said if key not in found]
    before_s = [min((kill - key[2] for kill in kills if kill >= key[2]), default=float("inf")) for key in lost]
    return {
        "said": len(said),
        "events": sum(key[3] is not None for key in said),
        "files": len(files),
        "lost": len(lost),
        "oldest_lost_s_before_a_kill": round(max(before_s, default=0.0), 3),
        "twice": sum(count > 1 for count in found.values()),
    }


def _segments(folder: Path) -> dict[str, Any]:
    """Whether each that is left is decoded without a fault."""
    # One that was killed within its first second holds nothing yet; a later start removes it.
    found = sorted(folder.glob("cam?-*.mp4"))
    paths, bad, frames = [path for path in found if b"moof" in path.read_bytes()], [], 0
    for path in paths:
        count = ["ffprobe", "-v", "error", "-count_frames", "-show_entries", "stream=nb_read_frames", "-of", "csv=p=0"]
        done = subprocess.run([*count, str(path)], capture_output=True, text=True)
        number = done.stdout.strip().rstrip(",")
        frames += int(number) if number.isdigit() else 0
        if done.returncode or done.stderr or not number.isdigit() or not int(number):
            bad.append(f"{path.name}: {done.stderr.strip()[:200] or 'no frame'}")
    return {"left": len(paths), "begun": len(found) - len(paths), "frames": frames, "faulty": bad}


if __name__ == "__main__":
    main()
