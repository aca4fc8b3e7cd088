"""What lies between a grab thread and the loop: the newest frame, or a few that wait."""

import threading
from collections import deque

from yolov3_trt.camera.frames import Frame
from yolov3_trt.camera.statistics import SourceStatistics


class Mailbox:
    """Frames of one source on their way to the loop, counted.

    With `drops`, a frame that was not taken gives way to the next, so that the loop always gets the newest one. Without, the
    grab thread waits until there is room.
    """

    _WAITING = 4  # frames that are read ahead of the loop
    _REFILL_AT = 1  # the reader is woken when so few are left: to wake it for each frame costs the detector time

    def __init__(self, changed: threading.Condition, counts: SourceStatistics, *, drops: bool) -> None:
        """An empty one.

        Args:
            changed: notified when a frame has come or nothing more will; its lock guards `counts`. Several may share it.
            counts: `captured` and `dropped` are counted there.
            drops: see above.
        """
        self.changed, self._counts, self._drops = changed, counts, drops
        self._frames: deque[Frame] = deque()
        self._is_closed = False

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def is_waiting_for_room(self) -> bool:
        """Whether the grab thread may have to wait for the loop."""
        return not self._drops and self._is_full

    @property
    def next_index(self) -> int:
        """How many frames were put in so far."""
        return self._counts.captured + (0 if self._drops else len(self._frames))

    def put(self, frame: Frame) -> bool:
        """Hand over a frame, after waiting for room where frames are not dropped; False when nobody will take it."""
        with self.changed:
            if self._drops:
                self._counts.captured += not self._is_closed
                if self._is_full:
                    self._frames.popleft()
                    self._counts.dropped += 1
            else:
                self.changed.wait_for(lambda: self._is_closed or not self._is_full)
            if self._is_closed:
                return False
            self._frames.append(frame)
            self.changed.notify_all()
            return True

    def take(self) -> Frame | None:
        """The oldest frame that waits, if any."""
        with self.changed:
            if not self._frames:
                return None
            if not self._drops:  # one that was only read ahead was not captured, if the loop ends before
                self._counts.captured += 1
                if len(self._frames) - 1 <= self._REFILL_AT:
                    self.changed.notify_all()
            return self._frames.popleft()

    def close(self) -> None:
        """Nobody will take anything any more; what waits counts as dropped where frames are dropped."""
        with self.changed:
            self._is_closed = True
            if self._drops:
                self._counts.dropped += len(self._frames)
            self._frames.clear()
            self.changed.notify_all()

    @property
    def _is_full(self) -> bool:
        return len(self._frames) >= (1 if self._drops else self._WAITING)
