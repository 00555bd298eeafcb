"""Several streams of one model: fair turns, the newest frame of each, one answer a frame."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from stills import double

from trocar.runtime.errors import QueueFull
from trocar.runtime.server.scheduler import Scheduler
from trocar.video.frames import Frame
from trocar.video.pipeline import Rings
from trocar.video.remote import WatchdogSettings, WorkerSpec
from trocar.video.servicer.hub import Answer, Hub, Stream
from trocar.video.tracker import TrackerSettings


def hub_of(worker: WorkerSpec, most: int = 4) -> Hub:
    hub = Hub(worker, WatchdogSettings(stuck_ms=300), TrackerSettings(), most, Scheduler(1))
    hub.remote.wait_ready()
    return hub


@pytest.fixture
def hub() -> Iterator[Hub]:
    one = hub_of(double(ms=5))
    yield one
    one.close()


class Client:
    """Sends frames and keeps what it is told."""

    def __init__(self, hub: Hub) -> None:
        self.stream: Stream = hub.join()
        self._hub = hub
        self._rings = Rings(16)
        self.index = 0
        self.answers: list[Answer] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def send(self) -> None:
        slot = self._rings.slot(20, 30, timeout_s=5.0)
        assert slot is not None
        slot.image_bgr[...] = self.index % 251
        frame = Frame(self.index, self.index / 25, time.monotonic(), slot.image_bgr)
        self.stream.offer(1000 + self.index, frame, slot)
        slot.release()
        self.index += 1

    def send_damaged(self) -> None:
        frame = Frame(self.index, self.index / 25, time.monotonic(), np.empty((0, 0, 3), np.uint8))
        self.stream.refuse(1000 + self.index, frame, "damaged")
        self.index += 1

    def finish(self) -> list[int]:
        self.stream.finish()
        self._thread.join(timeout=20)
        self._hub.leave(self.stream)
        return [one.id for one in self.answers]

    def _read(self) -> None:
        for answer in self.stream.answers(idle_s=10):
            self.answers.append(answer)
            answer.release()


def test_a_client_with_two_frames_under_way_loses_none(hub: Hub) -> None:
    client = Client(hub)
    for sent in range(30):
        while sent - len(client.answers) >= 2:
            time.sleep(0.001)
        client.send()
    assert client.finish() == [1000 + index for index in range(30)]
    assert client.stream.dropped == 0
    assert all(one.annotation is not None for one in client.answers)


def test_of_a_burst_the_newest_wins_and_the_rest_is_counted(hub: Hub) -> None:
    client = Client(hub)
    for _ in range(50):
        client.send()
    found = client.finish()
    assert found[-1] == 1049
    assert found == sorted(found)
    assert len(found) + client.stream.dropped == 50
    assert client.stream.dropped > 0


def test_damaged_frames_are_answered_in_their_turn() -> None:
    hub = hub_of(double(ms=20))
    client = Client(hub)
    for sent in range(30):
        while sent - len(client.answers) >= 2:
            time.sleep(0.001)
        if sent % 3:
            client.send_damaged()
        else:
            client.send()
    found = client.finish()
    hub.close()
    assert found == [1000 + index for index in range(30)]
    assert client.stream.dropped == 0
    reasons = ["damaged" if index % 3 else "" for index in range(30)]
    assert [one.reason for one in client.answers] == reasons


def test_a_flood_of_damaged_frames_takes_no_more_than_a_reader_s_outbox(hub: Hub) -> None:
    stream = hub.join()
    for index in range(1000):
        frame = Frame(index, index / 25, time.monotonic(), np.empty((0, 0, 3), np.uint8))
        stream.refuse(index, frame, "damaged")
    stream.finish()
    ids = [answer.id for answer in stream.answers(idle_s=5)]
    hub.leave(stream)
    assert ids == list(range(992, 1000))
    assert stream.dropped == 992


def test_streams_get_equal_turns_however_fast_one_sends() -> None:
    hub = hub_of(double(ms=10))
    greedy, modest = Client(hub), Client(hub)
    until_s = time.monotonic() + 2.0
    sent_at_s = 0.0
    while (now_s := time.monotonic()) < until_s:
        greedy.send()
        if now_s - sent_at_s > 0.03:
            modest.send()
            sent_at_s = now_s
        time.sleep(0.001)
    greedy.finish()
    modest.finish()
    hub.close()
    # The modest one asks for less than its half and gets nearly all of it.
    assert len(modest.answers) > 0.8 * modest.index
    assert len(greedy.answers) > len(modest.answers)


def test_one_stream_more_than_allowed_is_refused() -> None:
    hub = hub_of(double(), most=2)
    clients = [Client(hub), Client(hub)]
    with pytest.raises(QueueFull, match="at most 2 streams"):
        hub.join()
    clients[0].finish()
    Client(hub).finish()
    clients[1].finish()
    hub.close()


def test_a_client_that_leaves_midway_takes_nothing_with_it(hub: Hub) -> None:
    leaver, stayer = Client(hub), Client(hub)
    for _ in range(10):
        leaver.send()
        stayer.send()
    hub.leave(leaver.stream)
    for _ in range(10):
        stayer.send()
    assert stayer.finish()[-1] == 1019


def test_each_stream_has_tracks_of_its_own(hub: Hub) -> None:
    first, second = Client(hub), Client(hub)
    first.send()
    second.send()
    first.finish()
    second.finish()
    assert [one.track for one in first.answers[0].annotation.instances] == [1]
    assert [one.track for one in second.answers[0].annotation.instances] == [1]


def test_a_model_that_dies_is_said_and_the_streams_go_on(tmp_path: Path) -> None:
    hub = hub_of(double(ms=1, fault="crash", at=5, flag=str(tmp_path / "once")))
    client = Client(hub)
    for sent in range(200):
        client.send()
        while len(client.answers) <= sent:
            time.sleep(0.002)
        if sent > 5 and client.answers[-1].annotation is not None:
            break
        time.sleep(0.01)
    client.finish()
    hub.close()
    reasons = [one.reason for one in client.answers]
    assert reasons[5] == "the model's process ended"
    assert client.answers[-1].annotation is not None


def test_a_slow_reader_loses_replies_that_are_counted(hub: Hub) -> None:
    stream, rings = hub.join(), Rings(16)
    for index in range(40):
        slot = rings.slot(20, 30, timeout_s=5.0)
        assert slot is not None
        stream.offer(index, Frame(index, index / 25, time.monotonic(), slot.image_bgr), slot)
        slot.release()
        time.sleep(0.012)
    stream.finish()
    ids = []
    for answer in stream.answers(idle_s=5):
        ids.append(answer.id)
        answer.slot.release()
    hub.leave(stream)
    assert ids[-1] == 39
    assert len(ids) <= 10
    assert len(ids) + stream.dropped == 40
