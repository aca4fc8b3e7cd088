"""Steps of the acceptance: each a process with a log and a time limit of its own, not done again once it is done and whole.

The standard library only.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_GRACE_S = 10.0  # to end when asked to


@dataclass(frozen=True)
class Step:
    """Something to be run."""

    name: str
    command: tuple[str, ...]
    limit_s: float
    makes: tuple[Path, ...] = ()  # without which it is not whole
    results: tuple[
        Path, ...
    ] = ()  # likewise; removed before it is done again, so that no old figure passes for a new one
    after: tuple[str, ...] = ()  # steps that it builds on: done again after any of them was


@dataclass(frozen=True)
class Skipped:
    """Something that cannot be run here."""

    name: str
    reason: str


@dataclass
class Runner:
    """Runs steps, whatever happens to those before."""

    out: Path
    root: Path  # of the checkout, where they run
    environment: Mapping[str, str]
    deadline_s: float | None = None  # by time.monotonic(): none begins after it, and what runs then is ended
    records: list[dict[str, Any]] = field(default_factory=list)
    _changed: set[str] = field(default_factory=set)

    def run(self, step: Step | Skipped, *, again: bool = False) -> None:
        """Do a step, unless it is done already."""
        if isinstance(step, Skipped):
            self._note(step.name, "skipped", 0.0, step.reason)
            return
        record_path = self.out / "steps" / f"{step.name}.json"
        record_path.parent.mkdir(parents=True, exist_ok=True)
        kept = None if again or self._changed.intersection(step.after) else _whole(step, record_path)
        if kept is not None:
            self._note(step.name, "done before", kept["seconds"])
            return
        for path in (record_path, *step.results):
            path.unlink(missing_ok=True)
        self._changed.add(step.name)
        limit_s = step.limit_s if self.deadline_s is None else min(step.limit_s, self.deadline_s - time.monotonic())
        if limit_s <= 0:
            self._note(step.name, "not run", 0.0, "the time is up; the same command goes on from here")
            return
        say(f"{step.name} ...")
        begin_s = time.monotonic()
        log = record_path.with_suffix(".log")
        code = self._process(step, log, limit_s)
        seconds = time.monotonic() - begin_s
        missing = [path.name for path in (*step.makes, *step.results) if not path.exists()]
        if code == 0 and not missing:
            record_path.write_text(json.dumps({"command": step.command, "seconds": seconds}) + "\n")
            self._note(step.name, "done", seconds)
        elif code is None:
            self._note(step.name, "failed", seconds, f"ended after {limit_s:.0f} s; {log} has its output")
        else:
            why = f"did not make {', '.join(missing)}" if code == 0 else last_line(log)
            self._note(step.name, "failed", seconds, f"{why} ({log})")

    @property
    def failed(self) -> list[str]:
        """Steps that are not done."""
        return [record["step"] for record in self.records if record["state"] in ("failed", "not run")]

    def _process(self, step: Step, log: Path, limit_s: float) -> int | None:
        """Run it; its exit code, or None where its time was up."""
        with log.open("wb") as output:
            process = subprocess.Popen(
                step.command,
                cwd=self.root,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                return process.wait(limit_s)
            except subprocess.TimeoutExpired:
                return None
            finally:
                _end(process)

    def _note(self, name: str, state: str, seconds: float, reason: str = "") -> None:
        self.records.append({"step": name, "state": state, "seconds": round(seconds, 1), "reason": reason})
        say(f"{name}: {state}{f' in {seconds:.1f} s' if state == 'done' else ''}{f': {reason}' if reason else ''}")


def _whole(step: Step, record_path: Path) -> dict[str, Any] | None:
    """The record of the very same step, if it is done and what it made is there."""
    try:
        record: dict[str, Any] = json.loads(record_path.read_text())
    except (OSError, ValueError):
        return None
    same = tuple(record["command"]) == step.command
    return record if same and all(path.exists() for path in (*step.makes, *step.results)) else None


def _end(process: "subprocess.Popen[bytes]") -> None:
    """See that a process and what it started are gone, also after Ctrl-C."""
    if process.poll() is not None:
        return
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def last_line(log: Path) -> str:
    """What a process said last."""
    lines: Sequence[str] = log.read_text(errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else "no output"


def say(text: str) -> None:
    """A line for the person at the terminal."""
    print(text, file=sys.stderr, flush=True)
