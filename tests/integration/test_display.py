"""The window of `--display`, on a screen that Xvfb makes; and what is said where there can be none."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from annotating import Annotating

SIZE = (640, 480)
HEADLESS = "GUI:                           NONE" in cv2.getBuildInformation()


@pytest.mark.skipif(not HEADLESS, reason="this OpenCV has windows")
def test_an_opencv_without_windows_is_one_line(trocar: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("DISPLAY", ":0")
    done = trocar("annotate", "rendered:3", "--display")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.endswith("pip install --no-deps --force-reinstall opencv-python")


@pytest.mark.skipif(HEADLESS, reason="this OpenCV has no windows: pip install opencv-python")
def test_a_screen_that_is_not_there_is_one_line(trocar: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("DISPLAY", ":7654")
    monkeypatch.delenv("TROCAR_DEBUG", raising=False)
    done = trocar("annotate", "rendered:3", "--display")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "expected to open a window on :7654" in line


class Screen:
    """An X server with a window manager, which fullscreen needs."""

    def __init__(self, name: str) -> None:
        self.name = name

    def do(self, *words: str) -> str:
        done = subprocess.run(
            words, env=self.environment, capture_output=True, text=True, timeout=20, check=False
        )
        return done.stdout

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "DISPLAY": self.name}

    def window(self, limit_s: float = 60.0) -> str:
        """Wait for the fullscreen window."""
        until_s = time.monotonic() + limit_s
        wanted = "Geometry: {}x{}".format(*SIZE)
        while time.monotonic() < until_s:
            found = self.do("xdotool", "search", "--name", "^trocar$").split()
            if found and wanted in self.do("xdotool", "getwindowgeometry", found[-1]):
                return found[-1]
            time.sleep(0.1)
        raise AssertionError("no fullscreen window")

    def picture(self, path: Path) -> np.ndarray:
        self.do("import", "-window", "root", str(path))
        return cv2.imread(str(path)).astype(int)


@pytest.fixture(scope="module")
def screen() -> Iterator[Screen]:
    if HEADLESS:
        pytest.skip("this OpenCV has no windows: pip install opencv-python")
    for tool, package in {"Xvfb": "xvfb", "openbox": "", "xdotool": "", "import": "imagemagick"}.items():
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} (Debian {package or tool}) is not installed")
    read, write = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(write), "-screen", "0", "{}x{}x24".format(*SIZE)],
        pass_fds=[write],
        stderr=subprocess.DEVNULL,
    )
    os.close(write)
    with os.fdopen(read) as said:
        made = Screen(f":{said.readline().strip()}")
    manager = subprocess.Popen(["openbox"], env=made.environment, stderr=subprocess.DEVNULL)
    yield made
    for process in (manager, server):
        process.terminate()
        process.wait(20)


@pytest.fixture
def start(screen: Screen, tmp_path: Path, monkeypatch: Any) -> Iterator[Callable[..., Annotating]]:
    monkeypatch.setenv("DISPLAY", screen.name)
    started: list[Annotating] = []

    def begin(*options: str) -> Annotating:
        started.append(Annotating("test:", tmp_path / "files", "--display", *options))
        return started[-1]

    yield begin
    for one in started:
        one.process.kill()


@pytest.mark.parametrize("how", ["q", "Escape", "close", "interrupt"])
def test_the_window_is_fullscreen_and_ends_the_run(
    screen: Screen, start: Callable[..., Annotating], how: str
) -> None:
    run = start()
    window = screen.window()
    run.wait_for_frames(10)
    if how == "interrupt":
        run.interrupt()
    elif how == "close":
        # As a window manager asks for it.
        screen.do("xdotool", "key", "alt+F4")
    else:
        screen.do("xdotool", "key", "--window", window, how)
    code, document, errors = run.end()
    assert code == 0
    said = ["trocar: ending; what was annotated so far is kept"] if how == "interrupt" else []
    assert errors.splitlines() == said
    run.whole(document)


def test_the_clean_picture_goes_on_while_the_model_is_stuck(
    screen: Screen, start: Callable[..., Annotating], start_server: Any, tmp_path: Path
) -> None:
    server = start_server()
    run = start("--server", server.target)
    screen.window()
    run.wait_for_frames(10)
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        time.sleep(2)
        pictures = []
        for number in range(3):
            pictures.append(screen.picture(tmp_path / f"{number}.png"))
            time.sleep(0.3)
        screen.do("xdotool", "key", "q")
        code, document, _ = run.end()
    finally:
        os.kill(server.process.pid, signal.SIGCONT)
    for one, other in pairwise(pictures):
        assert np.mean(np.abs(one - other) > 20) > 0.001
    assert code in (0, 1)
    log = run.whole(document)
    assert not any(line["ai_on"] for line in log[-20:])
    # It never froze: no gap in what was shown.
    assert document["frames"]["dropped"] < 10
