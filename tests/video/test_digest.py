"""A hand-made stream: its digest, its phases, its report."""

from __future__ import annotations

import json

import numpy as np
import pytest

from trocar.video.digest import Digest
from trocar.video.frames import Annotation, Frame, Instance, Quality, Shown
from trocar.video.phases import EXPLORING, OUTSIDE, PAUSING, UNKNOWN, WORKING, PhaseFinder, PhaseSettings
from trocar.video.pipeline import Summary
from trocar.video.presenter import Counts
from trocar.video.report import render

FPS = 25.0
SIZE = (90, 120)


def shown(index: int, tips: dict[int, tuple[float, float]] | None, **quality: float) -> Shown:
    """A frame with instruments of given tips; without annotation where `tips` is None."""
    image = np.full((*SIZE, 3), 80, np.uint8)
    frame = Frame(index, index / FPS, 0.0, image, Quality(**quality))
    annotation = None
    if tips is not None:
        instances = tuple(
            Instance("instrument", (0, 0, 10, 10), 100 - track, 0.9, tip, track)
            for track, tip in tips.items()
        )
        annotation = Annotation(index, index / FPS, np.ones(SIZE, np.uint8), 2, instances)
    return Shown(
        frame, image, annotation, tips is not None, "" if tips is not None else "late", 0.0, {"total": 10.0}
    )


def summary(frames: int) -> Summary:
    return Summary(Counts(frames=frames, annotated=frames), frames / FPS, FPS, 0.0, 1, 0, "", "cpu (<b>)")


def test_a_digest_of_a_tip_that_moves_a_pixel_a_frame() -> None:
    digest = Digest(FPS)
    for index in range(51):
        digest.write(shown(index, {1: (10.0 + index, 40.0)}, smoke=0.01 * index))
    document = json.loads(json.dumps(digest.document(summary(51))))
    track = document["motion"]["tracks"]["1"]
    assert track["path_length"] == pytest.approx(50)
    assert track["mean_speed"] == pytest.approx(25)
    assert document["motion"]["unit"] == "px, uncalibrated"
    assert document["quality"]["smoke"] == {"mean": pytest.approx(0.25), "worst": 0.5}
    assert document["latency_ms"]["total"] == {"p50": 10.0, "p99": 10.0, "max": 10.0}
    assert document["ai_off"] == {}


def test_switches_count_changes_of_the_leading_instrument() -> None:
    digest = Digest(FPS)
    for index, track in enumerate([1, 1, 2, 2, 1, 3]):
        digest.write(shown(index, {track: (10.0, 10.0)}))
    assert digest.document(summary(6))["motion"]["tool_switches"] == 3


def test_frames_without_annotation_are_counted_by_their_reason() -> None:
    digest = Digest(FPS)
    for index in range(4):
        digest.write(shown(index, None))
    document = digest.document(summary(4))
    assert document["ai_off"] == {"late": 4}
    assert document["motion"]["tracks"] == {}


def test_a_dozen_thumbnails_however_long_the_stream() -> None:
    digest = Digest(FPS)
    for index in range(500):
        digest.write(shown(index, {}))
    assert 6 <= len(digest.thumbnails) <= 12
    times_s = [time_s for time_s, _ in digest.thumbnails]
    assert times_s[0] == 0.0
    assert np.ptp(np.diff(times_s)) < 1e-9


def phases(frames: list[Shown]) -> list[tuple[str, float, float]]:
    finder = PhaseFinder(PhaseSettings(least_s=0.4))
    for one in frames:
        finder.add(one)
    found = finder.phases(end_s=len(frames) / FPS)
    return [(one.name, round(one.begin_s, 3), round(one.end_s, 3)) for one in found]


def test_phases_follow_from_what_is_in_view() -> None:
    frames = [shown(index, {}, out_of_body=0.9) for index in range(25)]
    frames += [shown(25 + index, {}) for index in range(25)]
    frames += [shown(50 + index, {1: (10.0 + 2 * index, 40.0)}) for index in range(25)]
    frames += [shown(75 + index, {1: (60.0, 40.0)}) for index in range(100)]
    frames += [shown(175 + index, None) for index in range(25)]
    found = phases(frames)
    assert [name for name, _, _ in found] == [OUTSIDE, EXPLORING, WORKING, PAUSING, UNKNOWN]
    assert found[0][1] == 0.0
    assert found[-1][2] == 8.0
    # Without a gap, and each where it belongs; speed shows a frame late and is remembered for a while.
    assert [end for _, _, end in found[:-1]] == [begin for _, begin, _ in found[1:]]
    assert found[1][1] == 1.0
    assert found[2][1] == pytest.approx(2.0, abs=0.05)
    assert 3.0 < found[3][1] < 5.0


def test_a_short_phase_belongs_to_the_one_before() -> None:
    frames = [shown(index, {}) for index in range(25)]
    frames += [shown(25 + index, None) for index in range(5)]
    frames += [shown(30 + index, {}) for index in range(25)]
    assert [name for name, _, _ in phases(frames)] == [EXPLORING]


def test_no_frames_are_no_phases() -> None:
    assert PhaseFinder(PhaseSettings()).phases(end_s=0.0) == ()


def test_the_report_is_one_page_without_scripts_and_with_names_as_text() -> None:
    digest = Digest(FPS)
    for index in range(60):
        digest.write(shown(index, {1: (10.0 + index, 40.0)} if index % 2 else None))
    document = {
        "input": "<script>alert(1)</script>.mp4",
        "model": "annotator/1",
        "live": False,
        **digest.document(summary(60)),
        "colours": "no <i>colour</i>",
        "blurred_out_of_body": 3,
        "not_recorded": 2,
        "files": [],
    }
    page = render(document, digest)
    assert "<p>no &lt;i&gt;colour&lt;/i&gt;.</p>" in page
    assert "<p>3 frames blurred: " in page
    assert "<p>2 frames were not recorded: " in page
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "cpu (&lt;b&gt;)" in page
    assert "http" not in page.replace("http-equiv", "")
    assert page.count("<img") == 2 + len(digest.thumbnails)
    assert "not checked by a person" in page
