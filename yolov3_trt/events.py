"""What happens in the pictures of a camera, of tracked objects: who comes, goes, crosses a line, stays in a zone."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from yolov3_trt.arguments import number
from yolov3_trt.detections import Detection, Detections
from yolov3_trt.places import Line, Places, Zone, feet_of
from yolov3_trt.sizes import HW

Kind = Literal["appeared", "left", "entered", "exited", "stayed", "crossed"]


@dataclass(frozen=True)
class Event:
    """Something that happened to one object.

    `appeared` and `left` are of the whole picture, `entered`, `exited` and `stayed` of a zone, `crossed` of a line.
    """

    kind: Kind
    found: Detection  # the object as it was last seen, with its `track_id`; its class is what it was seen as most
    ago_s: float  # before the picture that made it certain
    place: str | None = None  # the zone or line
    direction: Literal["in", "out"] | None = None  # of a line
    for_s: float | None = None  # how long it was there: of `left`, `exited` and `stayed`

    def to_json(self) -> dict[str, Any]:
        """As a line of `camera --events` has it, besides what it has of its picture."""
        found = self.found
        of_line = self.kind == "crossed"
        return {
            "event": self.kind,
            "ago_s": round(self.ago_s, 3),
            "track_id": found.track_id,
            "class_id": found.class_id,
            "class_name": found.class_name,
            "score": round(found.score, 6),
            "xyxy": [round(value, 3) for value in found.xyxy],
            **({} if self.place is None else {"line" if of_line else "zone": self.place}),
            **({} if self.direction is None else {"direction": self.direction}),
            **({} if self.for_s is None else {"for_s": round(self.for_s, 3)}),
        }


class _Settled:
    """A yes or no that holds once it has held for a while, and since when."""

    def __init__(self, value: bool, now_s: float) -> None:
        self.value, self.since_s = value, now_s
        self._other_since_s: float | None = None

    def see(self, value: bool, now_s: float, settle_s: float) -> bool:
        """Take in what is seen now; whether that changed it."""
        if value == self.value:
            self._other_since_s = None
            return False
        if self._other_since_s is None:
            self._other_since_s = now_s
        if now_s - self._other_since_s < settle_s:
            return False
        self.value, self.since_s, self._other_since_s = value, self._other_since_s, None
        return True

    @property
    def is_settled(self) -> bool:
        return self._other_since_s is None


@dataclass
class _Object:
    found: Detection
    foot: tuple[float, float]
    first_s: float
    last_s: float
    votes: Counter[tuple[int, str]] = field(default_factory=Counter)
    has_appeared: bool = False
    sides: dict[str, _Settled] = field(default_factory=dict)  # by line: whether it is at the right of it
    passed: dict[str, bool] = field(
        default_factory=dict
    )  # by line: whether the last change of sides was between its ends
    inside: dict[str, _Settled] = field(default_factory=dict)  # by zone
    has_stayed: set[str] = field(default_factory=set)
    held: list[tuple[float, Event]] = field(default_factory=list)  # and when they were, until it has appeared

    @property
    def seen_as(self) -> Detection:
        class_id, class_name = max(self.votes, key=self.votes.__getitem__)
        return self.found._replace(class_id=class_id, class_name=class_name)


class EventEngine:
    """Finds events in the tracked detections of one camera, picture after picture, and counts them.

    What is seen for an instant only is none: an object has to be there for a while to have appeared, to be gone for a while to
    have left, and what flickers over a line or the border of a zone has not crossed it.

    Attributes:
        present: by class, how many objects are there.
        appeared: by class, how many have come so far.
        crossed: by line, direction and class, how many so far.
        inside: by zone and class, how many are in it.
        entered: by zone and class, how many so far.

    >>> tracker, engine = yolov3_trt.Tracker(), yolov3_trt.EventEngine(yolov3_trt.Places.read(Path("zones.toml")))
    >>> for at_s, picture in pictures:  # doctest: +SKIP
    ...     for event in engine.update(tracker.update(detect(picture), at_s), picture.shape[:2], at_s):
    ...         print(event.kind, event.place, event.found.class_name)
    """

    def __init__(
        self, places: Places | None = None, *, appear: float = 0.5, leave: float = 2.0, settle: float = 0.3
    ) -> None:
        """Begin with nobody there.

        Args:
            places: zones and lines of this camera; None: none.
            appear: seconds that an object is seen before it has appeared.
            leave: seconds that it is not seen before it has left; as long as its tracker's memory.
            settle: seconds that it is at the other side of a line or border before it has crossed it.

        Raises:
            SettingError: a value is out of its range.
        """
        self._places = places or Places()
        self._appear_s, self._leave_s, self._settle_s = (
            number(name, value, 0, 3600) for name, value in (("appear", appear), ("leave", leave), ("settle", settle))
        )
        self._zones = [zone for zone in self._places.zones if not zone.ignore]
        self._objects: dict[int, _Object] = {}
        self.present, self.appeared = Counter[str](), Counter[str]()
        self.crossed: dict[str, dict[str, Counter[str]]] = {
            line.name: {"in": Counter(), "out": Counter()} for line in self._places.lines
        }
        self.inside: dict[str, Counter[str]] = {zone.name: Counter() for zone in self._zones}
        self.entered: dict[str, Counter[str]] = {zone.name: Counter() for zone in self._zones}

    def update(self, detections: Detections, image_hw: HW, at_s: float) -> tuple[Event, ...]:
        """What happened with the next picture, in order.

        Args:
            detections: of a `Tracker`.
            image_hw: size of the picture, px.
            at_s: time of the picture in seconds, of the tracker's clock.
        """
        events: list[Event] = []
        feet = feet_of(detections, image_hw)
        inside = [zone.holds(feet) for zone in self._zones]
        for row, found in enumerate(detections):
            if found.track_id is not None:
                foot = (float(feet[row, 0]), float(feet[row, 1]))
                events += self._see(found, foot, [bool(mask[row]) for mask in inside], at_s)
        events += self._miss(at_s)
        self._count(events)
        return tuple(events)

    @property
    def crossings(self) -> dict[str, tuple[int, int]]:
        """By line, how many have gone in and out so far."""
        return {name: (both["in"].total(), both["out"].total()) for name, both in self.crossed.items()}

    def to_json(self) -> dict[str, Any]:
        """The counts so far, as `/stats.json` has them."""
        return {
            "present": dict(self.present),
            "appeared": dict(self.appeared),
            "lines": {
                name: {direction: dict(count) for direction, count in both.items()}
                for name, both in self.crossed.items()
            },
            "zones": {
                name: {"present": dict(self.inside[name]), "entered": dict(self.entered[name])} for name in self.inside
            },
        }

    def _see(self, found: Detection, foot: tuple[float, float], inside: list[bool], now_s: float) -> Iterable[Event]:
        assert found.track_id is not None
        seen = self._objects.get(found.track_id)
        if seen is None:
            seen = self._objects[found.track_id] = _Object(found, foot, now_s, now_s)
        before, seen.foot, seen.found, seen.last_s = seen.foot, foot, found, now_s
        seen.votes[found.class_id, found.class_name] += 1
        for line in self._places.lines:
            self._look_at_line(seen, line, before, now_s)
        for zone, is_in in zip(self._zones, inside, strict=True):
            self._look_at_zone(seen, zone, is_in, now_s)
        if not seen.has_appeared:
            if now_s - seen.first_s < self._appear_s:
                return
            seen.has_appeared = True
            yield Event("appeared", seen.seen_as, now_s - seen.first_s)
        for happened_s, event in seen.held:
            yield replace(event, found=seen.seen_as, ago_s=now_s - happened_s)
        seen.held.clear()

    def _look_at_line(self, seen: _Object, line: Line, before: tuple[float, float], now_s: float) -> None:
        is_right = line.is_right(seen.foot)
        side = seen.sides.setdefault(line.name, _Settled(is_right, now_s))
        if is_right != side.value and side.is_settled:
            seen.passed[line.name] = line.is_passed(before, seen.foot)
        if side.see(is_right, now_s, self._settle_s) and seen.passed[line.name]:
            direction: Literal["in", "out"] = "in" if is_right else "out"
            seen.held.append((side.since_s, Event("crossed", seen.found, 0.0, line.name, direction)))

    def _look_at_zone(self, seen: _Object, zone: Zone, is_in: bool, now_s: float) -> None:
        state = seen.inside.setdefault(zone.name, _Settled(False, now_s))
        was_since_s = state.since_s
        if state.see(is_in, now_s, self._settle_s):
            seen.has_stayed.discard(zone.name)
            for_s = None if is_in else state.since_s - was_since_s
            kind: Kind = "entered" if is_in else "exited"
            seen.held.append((state.since_s, Event(kind, seen.found, 0.0, zone.name, for_s=for_s)))
        there_s = now_s - state.since_s
        if state.value and zone.stay_s is not None and there_s >= zone.stay_s and zone.name not in seen.has_stayed:
            seen.has_stayed.add(zone.name)
            stayed = Event("stayed", seen.found, 0.0, zone.name, for_s=there_s)
            seen.held.append((state.since_s + zone.stay_s, stayed))

    def _miss(self, now_s: float) -> Iterable[Event]:
        """Who has not been seen for too long."""
        gone = [(key, seen) for key, seen in self._objects.items() if now_s - seen.last_s > self._leave_s]
        for key, seen in gone:
            del self._objects[key]
            if not seen.has_appeared:
                continue
            ago_s = now_s - seen.last_s
            for name, state in seen.inside.items():
                if state.value:
                    yield Event("exited", seen.seen_as, ago_s, name, for_s=seen.last_s - state.since_s)
            yield Event("left", seen.seen_as, ago_s, for_s=seen.last_s - seen.first_s)

    def _count(self, events: Iterable[Event]) -> None:
        for event in events:
            name = event.found.class_name
            if event.kind == "appeared":
                self.appeared[name] += 1
            elif event.kind == "crossed" and event.place is not None and event.direction is not None:
                self.crossed[event.place][event.direction][name] += 1
            elif event.kind == "entered" and event.place is not None:
                self.entered[event.place][name] += 1
        there = [seen for seen in self._objects.values() if seen.has_appeared]
        self.present = Counter(seen.seen_as.class_name for seen in there)
        for zone in self._zones:
            self.inside[zone.name] = Counter(seen.seen_as.class_name for seen in there if seen.inside[zone.name].value)
