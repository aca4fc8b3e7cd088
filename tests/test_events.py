"""Events by hand, and equal to the truth of generated clips."""

from collections import Counter
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np
import pytest

from yolov3_trt import Detections, EventEngine, Places, SettingError, Tracker
from yolov3_trt.places import Line, Zone
from yolov3_trt.shapes import SHAPE_NAMES, LabelledPicture, iter_shapes_clip

HW = (100, 100)
GATE = Line(((0.5, 0.2), (0.5, 0.8)), "gate")  # from above: who goes to the left goes in
BAY = Zone(((0.6, 0.0), (1.0, 0.0), (1.0, 1.0), (0.6, 1.0)), "bay", watch=True, stay_s=0.96)


def at(x: float, y: float, track_id: int = 1, class_id: int = 0) -> Detections:
    """One object that stands at a point of a picture of 100x100 px."""
    box = np.array([[x - 5, y - 10, x + 5, y]], np.float32)
    one = np.ones(1, np.float32), np.array([class_id], np.int32), ("person", "dog"), np.array([track_id], np.int32)
    return Detections(box, *one)


NOBODY = Detections.none(("person", "dog"))


def walked(places: Places, path: list[Detections]) -> tuple[EventEngine, list[tuple]]:
    """Ten pictures a second: the events with their times."""
    engine, events = EventEngine(places), []
    for step, detections in enumerate(path):
        for event in engine.update(detections, HW, step / 10):
            for_s = None if event.for_s is None else round(event.for_s, 1)
            happened_s = round(step / 10 - event.ago_s, 1)
            events.append((event.kind, event.place, event.direction, happened_s, for_s))
    return engine, events


def test_who_comes_crosses_stays_and_leaves():
    path = [at(22 + 3 * min(step, 20), 50) for step in range(40)] + [NOBODY] * 25  # past the line at 1 s
    engine, events = walked(Places((BAY,), (GATE,)), path)
    assert events == [
        ("appeared", None, None, 0.0, None),
        ("crossed", "gate", "out", 1.0, None),
        ("entered", "bay", None, 1.3, None),
        ("stayed", "bay", None, 2.3, 1.0),
        ("exited", "bay", None, 3.9, 2.6),
        ("left", None, None, 3.9, 3.9),
    ]
    assert engine.to_json() == {
        "present": {},
        "appeared": {"person": 1},
        "lines": {"gate": {"in": {}, "out": {"person": 1}}},
        "zones": {"bay": {"present": {}, "entered": {"person": 1}}},
    }


def test_what_flickers_or_goes_around_is_no_event():
    there = [at(20, 50)] * 10
    for path in (
        [at(20, 50)] * 3 + [NOBODY] * 30,  # seen for an instant
        there + [at(52, 50), at(48, 50)] * 20,  # trembles on the line
        there + [at(20, 95)] + [at(80, 95)] * 10 + [at(80, 50)] * 10,  # past the end of the line
        [*there, at(70, 50), at(20, 50), *there],  # for an instant in the zone
    ):
        kinds = [event[:2] for event in walked(Places((), (GATE,)), path)[1]]
        assert kinds in ([], [("appeared", None)])
    back = walked(Places((), (GATE,)), there + [at(80, 50)] * 10 + [at(20, 50)] * 10)[0]
    assert back.crossed == {"gate": {"in": {"person": 1}, "out": {"person": 1}}}
    # Its class is what it is seen as most, and untracked detections are nobody.
    mixed = [at(20 + 3 * step, 50, class_id=int(step % 4 == 3)) for step in range(20)] + [at(20, 50, track_id=0)] * 9
    assert walked(Places((), (GATE,)), mixed)[0].crossed["gate"]["out"] == {"person": 1}


def test_what_happens_before_an_object_has_appeared_is_told_then():
    events = walked(Places((BAY,), (GATE,)), [at(49, 50), *[at(70, 50)] * 9])[1]
    assert events == [
        ("appeared", None, None, 0.0, None),
        ("crossed", "gate", "out", 0.1, None),
        ("entered", "bay", None, 0.1, None),
    ]


# --- generated clips, which know their objects ---

CLIP_HW, FPS = (120, 160), 20
CLIP_PLACES = Places(
    (Zone(((0.1, 0.3), (0.5, 0.3), (0.5, 0.9), (0.1, 0.9)), "bay", watch=True),),
    (Line(((0.5, 0), (0.5, 1)), "gate"), Line(((0.2, 0.6), (0.9, 0.6)), "shelf")),
)


def true_events(clip: list[LabelledPicture]) -> Counter[tuple[str, str | None, str]]:
    """From the true boxes alone, with another method: by runs of pictures, all at once."""
    seen: dict[int, list[tuple[float, tuple[float, float], int]]] = {}
    for index, picture in enumerate(clip):
        for box, class_id, track_id in zip(picture.xyxy, picture.class_ids, picture.track_ids, strict=True):
            foot = (float(box[0] + box[2]) / 2 / CLIP_HW[1], float(box[3]) / CLIP_HW[0])
            seen.setdefault(int(track_id), []).append((index / FPS, foot, int(class_id)))
    events: Counter[tuple[str, str | None, str]] = Counter()
    end_s = (len(clip) - 1) / FPS
    for rows in seen.values():
        starts = [0, *(i for i in range(1, len(rows)) if rows[i][0] - rows[i - 1][0] > 2), len(rows)]
        for visit in (rows[a:b] for a, b in pairwise(starts)):
            name = SHAPE_NAMES[visit[0][2]]
            if visit[-1][0] - visit[0][0] < 0.5:
                continue
            events["appeared", None, name] += 1
            events["left", None, name] += end_s - visit[-1][0] > 2
            feet = [foot for _, foot, _ in visit]
            for place, sides in (
                ("gate", [x < 0.5 for x, _ in feet]),
                ("shelf", [y > 0.6 for _, y in feet]),
                ("bay", [0.1 < x < 0.5 and 0.3 < y < 0.9 for x, y in feet]),
            ):
                runs = [(side, list(group)) for side, group in groupby(range(len(sides)), sides.__getitem__)]
                now = False if place == "bay" else sides[0]
                for side, run in runs:
                    if side == now or visit[run[-1]][0] - visit[run[0]][0] < 0.3:
                        continue
                    now = side
                    if place == "bay":
                        events["entered" if side else "exited", place, name] += 1
                    elif place == "gate" or (0.2 < feet[run[0]][0] < 0.9):
                        events["in" if side else "out", place, name] += 1
                if place == "bay" and now and end_s - visit[-1][0] > 2:
                    events["exited", place, name] += 1
    return +events


@pytest.mark.parametrize("seed", [3, 5, 11])
def test_events_of_generated_clips_are_the_truth(seed: int):
    """Through detections that tremble by a pixel, of which one in twenty is missing."""
    clip = list(iter_shapes_clip(seed, 160, CLIP_HW))
    rng, tracker, engine = np.random.default_rng(seed), Tracker(), EventEngine(CLIP_PLACES)
    events: Counter[tuple[str, str | None, str]] = Counter()
    switches, track_of = 0, dict[int, int]()
    for index, picture in enumerate(clip):
        scores = rng.uniform(0.5, 0.95, len(picture.class_ids)).astype(np.float32)
        order = np.argsort(-scores)[rng.random(len(scores)) > 0.05]
        xyxy = picture.xyxy[order] + rng.normal(0, 0.5, (len(order), 4)).astype(np.float32)
        found = Detections(xyxy, scores[order], picture.class_ids[order], SHAPE_NAMES)
        tracked = tracker.update(found, index / FPS)
        for true_id, row in zip(picture.track_ids[order].tolist(), tracked, strict=True):
            if row.track_id is not None:
                switches += track_of.setdefault(true_id, row.track_id) != row.track_id
                track_of[true_id] = row.track_id
        for event in engine.update(tracked, CLIP_HW, index / FPS):
            events[event.direction or event.kind, event.place, event.found.class_name] += 1
    assert events == true_events(clip) and events.total() > 10
    assert switches == 0


@pytest.mark.parametrize(
    "text, fault",
    [
        ("[[line]]\npoints = [[0, 0], [1, 1], [1, 0]]", "line 1 is not understood"),
        ("[[line]]\npoints = [[0, 0], [0, 0]]", "line 1 is not understood"),
        ("[[line]]\npoints = [[0, 0], [1, 1]]\nstay_s = 3", "line 1 is not understood"),
        ("[[zone]]\npoints = [[0, 0], [1, 1], [1, 0]]\nstay_s = -1", "zone 1 is not understood"),
        ("[[zone]]\npoints = [[0, 0], [1, 1], [1, 0]]\nignore = true\nwatch = true", "zone 1 is not understood"),
        (
            "[[zone]]\nname = 'a'\npoints = [[0, 0], [1, 1], [1, 0]]\n[[line]]\nname = 'a'\npoints = [[0, 0], [1, 1]]",
            "a is",
        ),
    ],
)
def test_places_that_are_not_understood_are_refused(tmp_path: Path, text: str, fault: str):
    path = tmp_path / "zones.toml"
    path.write_text(text)
    with pytest.raises(SettingError, match=f"^zones: {path}: {fault}"):
        Places.read(path)
