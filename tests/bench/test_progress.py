import os
import signal

import pytest

from trocar.bench.progress import stop_was_asked, stoppable, track
from trocar.bench.timing import interleave


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


def test_without_ctrl_c_every_item_comes():
    with stoppable() as stop:
        assert list(track(range(5), "items")) == [0, 1, 2, 3, 4]
        assert list(track(iter("ab"), "items", total=2)) == ["a", "b"]
    assert not stop.asked


def test_the_first_ctrl_c_ends_the_loop_after_its_item(capsys):
    seen = []
    with stoppable() as stop:
        for item in track(range(100), "items"):
            seen.append(item)
            if item == 2:
                interrupt()
        assert stop_was_asked()
        assert list(track("xyz", "later")) == ["x"]  # the first always: a mean of nothing is no figure
    assert (seen, stop.asked) == ([0, 1, 2], True)
    assert "keeping what was measured" in capsys.readouterr().err
    assert not stop_was_asked()


def test_the_second_ctrl_c_raises():
    with stoppable():
        interrupt()
        with pytest.raises(KeyboardInterrupt):
            interrupt()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_interleaving_keeps_its_rounds_and_every_case():
    calls = []

    def fast():
        calls.append("f")
        if calls.count("f") == 4:
            interrupt()

    with stoppable():
        found = interleave({"fast": fast, "slow": lambda: None}, 1000, fewer={"slow": 1})
    assert len(found["fast"].samples_ms) == 3
    assert len(found["slow"].samples_ms) == 1
