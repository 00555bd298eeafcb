import threading
import time

from trocar.runtime.server.alarm import Alarm


def test_goes_off_once() -> None:
    alarm = Alarm(0.02)
    assert not alarm.wait(0.05)  # nobody set it
    began = time.monotonic()
    alarm.set()
    assert alarm.wait(20)
    assert time.monotonic() - began >= 0.02
    assert not alarm.wait(0.05)


def test_cleared_it_does_not_go_off() -> None:
    alarm = Alarm(0.02)
    alarm.set()
    alarm.clear()
    assert not alarm.wait(0.1)
    alarm.set()
    time.sleep(0.05)
    alarm.clear()  # it went off, and nobody took notice
    assert not alarm.wait(0.05)


def test_set_again_its_time_begins_anew() -> None:
    alarm = Alarm(0.2)
    alarm.set()
    time.sleep(0.1)
    began = time.monotonic()
    alarm.set()
    assert alarm.wait(20)
    assert time.monotonic() - began >= 0.2


def test_another_thread_waits_for_it() -> None:
    alarm = Alarm(0.01)
    heard = threading.Event()
    threading.Thread(target=lambda: alarm.wait(20) and heard.set(), daemon=True).start()
    alarm.set()
    assert heard.wait(20)
