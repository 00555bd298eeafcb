"""A server in the place of a process of this machine: it may go and come back; a frame is looked at once."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from stills import Stills

from trocar.runtime.channel import Access
from trocar.runtime.errors import ModelNotFound, TrocarError, Unavailable
from trocar.video.frames import Quality, Shown
from trocar.video.gate import GateSettings
from trocar.video.pipeline import Summary, VideoSettings, run_live, run_offline
from trocar.video.presenter import LatencySettings
from trocar.video.servicer import client
from trocar.video.servicer.client import connect

# A loaded machine may be slow: how soon an overlay comes is not what is asked here.
SETTINGS = VideoSettings(latency=LatencySettings(soft_ms=900, hard_ms=900), gate=GateSettings(on_after=3))
PATIENCE_S = 90.0


class Screen:
    """What was shown, for other threads to wait on."""

    def __init__(self) -> None:
        self.shown: list[tuple[int, bool, str]] = []
        self._changed = threading.Condition()

    def __call__(self, shown: Shown) -> None:
        with self._changed:
            self.shown.append((shown.frame.index, shown.ai_on, shown.reason))
            self._changed.notify_all()

    def wait_for(self, on: bool, after: int = -1) -> int:
        """Return the first frame after another that was shown with overlays on, or off."""
        with self._changed:
            found = self._changed.wait_for(lambda: self._first(on, after), PATIENCE_S)
        assert found is not None, f"overlays never went {'on' if on else 'off'} after {after}"
        return found[0]

    def _first(self, on: bool, after: int) -> tuple[int, bool, str] | None:
        return next((one for one in self.shown if one[0] > after and one[1] is on), None)


class Inspector:
    """Counts how often a frame was looked at."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, image: Any) -> Quality:
        self.calls += 1
        return Quality(smoke=0.125)


def draw(*_: Any) -> None:
    """Nothing: the screen keeps what was said, not the picture."""


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "silent"])
def test_live_goes_on_without_the_server_and_annotates_again_when_it_is_back(
    start_server: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, fault: signal.Signals
) -> None:
    monkeypatch.setattr(client, "_SILENT_S", 2.0)
    server = start_server()
    screen, inspector, stop = Screen(), Inspector(), threading.Event()
    summaries: list[Summary] = []
    link = connect(Access(server.target), "annotator", SETTINGS.privacy)

    def run() -> None:
        summary = run_live(
            Stills(100_000, fps=25.0, live=False),
            link.open_engine,
            draw=draw,
            display=screen,
            inspect=inspector,
            settings=SETTINGS,
            stop=stop,
        )
        summaries.append(summary)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        lit = screen.wait_for(True)
        server.process.send_signal(fault)
        dark = screen.wait_for(False, after=lit)
        time.sleep(3.0)  # a while without any server
        if fault is signal.SIGKILL:
            server.process.wait(10)
            server = start_server(listen=server.target)
        server.process.send_signal(signal.SIGCONT)
        back = screen.wait_for(True, after=screen.shown[-1][0])
    finally:
        stop.set()
        thread.join(PATIENCE_S)
    server.stop()
    (summary,) = summaries
    # Every picture went out once and in order, but for those that a loaded machine dropped and counted.
    indices = [index for index, _, _ in screen.shown]
    assert indices == sorted(set(indices))
    assert len(indices) == summary.counts.frames - summary.counts.dropped
    assert len(indices) <= inspector.calls <= summary.counts.frames  # each was looked at once
    between = [(on, reason) for index, on, reason in screen.shown if dark <= index < back]
    assert not any(on for on, _ in between)
    assert len(between) > 20
    said = {signal.SIGKILL: f"no server at {server.target}", signal.SIGSTOP: "late"}[fault]
    assert said in {reason for _, reason in between}
    assert all(reason for _, reason in between)
    assert summary.starts >= 2
    assert summary.counts.failed > 0


def test_offline_looks_at_each_frame_once_and_sends_what_it_saw(server: Any) -> None:
    inspector, seen = Inspector(), []
    summary = run_offline(
        Stills(12),
        connect(Access(server.target), "annotator", SETTINGS.privacy).open_engine,
        draw=draw,
        display=lambda shown: seen.append(shown.frame.quality.smoke),
        inspect=inspector,
        settings=SETTINGS,
        stop=threading.Event(),
    )
    assert (summary.counts.annotated, inspector.calls, summary.starts) == (12, 12, 1)
    assert seen == [0.125] * 12


@pytest.mark.parametrize(
    ("address", "model", "error"),
    [("127.0.0.1:9", "annotator", Unavailable), ("", "nothing", ModelNotFound)],
)
def test_offline_does_not_begin_without_a_server_or_its_model(
    server: Any, address: str, model: str, error: type[TrocarError]
) -> None:
    counted: list[Shown] = []

    def run() -> Summary:
        return run_offline(
            Stills(3),
            connect(Access(address or server.target), model, SETTINGS.privacy).open_engine,
            draw=draw,
            display=counted.append,
            inspect=Inspector(),
            settings=SETTINGS,
            stop=threading.Event(),
        )

    with pytest.raises(error):
        run()
    assert not counted
