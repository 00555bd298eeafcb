"""A camera: Linux's virtual one (vivid), where it is loaded. `make camera` boots a machine that has it.

    modprobe vivid n_devs=1

Other cameras are left alone: what stands before them is nobody's business.
"""

from __future__ import annotations

import fcntl
import struct
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import pytest
from annotating import Annotating

# linux/videodev2.h
QUERYCAP, S_FMT, S_PARM = 0x80685600, 0xC0D05605, 0xC0CC5616
QUERYCTRL, S_CTRL = 0xC0445624, 0xC008561C
CAPTURE, NEXT = 1, 0x80000000
SIZE, RATE = (320, 180), 5
# An emulated machine needs minutes where another needs seconds.
LIMIT_S = 900.0
SLOW = """
[services.video.watchdog]
stuck_ms = 60000
start_s = 600
[services.video.latency]
soft_ms = 1000
hard_ms = 1000
"""


class Vivid:
    """Its node, and the controls by which it misbehaves."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def captures(self) -> bool:
        found = self._ask(QUERYCAP, bytes(104))
        return bool(struct.unpack_from("<I", found, 88)[0] & CAPTURE)

    def set(self, width: int, height: int, pixels: bytes, rate: int) -> None:
        wanted = struct.pack("<IIII4s", CAPTURE, 0, width, height, pixels).ljust(208, b"\0")
        assert struct.unpack_from("<II", self._ask(S_FMT, wanted), 8) == (width, height)
        wanted = struct.pack("<IIIII", CAPTURE, 0, 0, 1, rate).ljust(204, b"\0")
        assert struct.unpack_from("<II", self._ask(S_PARM, wanted), 12) == (1, rate)

    def control(self, name: str, value: int) -> None:
        number = 0
        while True:
            found = self._ask(QUERYCTRL, struct.pack("<I", number | NEXT).ljust(68, b"\0"))
            number = struct.unpack_from("<I", found)[0]
            if bytes(found[8:40]).rstrip(b"\0").decode() == name:
                self._ask(S_CTRL, struct.pack("<Ii", number, value))
                return

    def _ask(self, request: int, argument: bytes) -> bytearray:
        data = bytearray(argument)
        with self.path.open("rb", buffering=0) as node:
            fcntl.ioctl(node, request, data)
        return data


@pytest.fixture(scope="module")
def vivid() -> Vivid:
    for name in sorted(Path("/sys/class/video4linux").glob("video*/name")):
        found = Vivid(Path("/dev") / name.parent.name)
        if name.read_text().startswith("vivid") and found.captures():
            return found
    pytest.skip("no virtual camera here (modprobe vivid): make camera")


@pytest.fixture
def options(tmp_path: Path) -> tuple[str, str]:
    path = tmp_path / "trocar.toml"
    path.write_text(SLOW)
    return "--config", str(path)


def test_a_camera_is_annotated_in_the_size_and_at_the_rate_that_are_set(
    vivid: Vivid, tmp_path: Path, options: tuple[str, str]
) -> None:
    vivid.set(*SIZE, b"YUYV", RATE)
    run = Annotating(str(vivid.path), tmp_path / "files", *options)
    run.wait_for_frames(10, with_model=True, limit_s=LIMIT_S)
    run.interrupt()
    code, document, errors = run.end(limit_s=LIMIT_S)
    assert code == 0
    assert errors.splitlines() == ["trocar: ending; what was annotated so far is kept"]
    assert document["live"]
    assert document["broke_off"] == ""
    assert document["frames"]["annotated"] > 0
    log = run.whole(document)
    assert log[0]["pts_s"] == 0.0
    steps_s = [after["pts_s"] - before["pts_s"] for before, after in pairwise(log)]
    assert sorted(steps_s)[len(steps_s) // 2] == pytest.approx(1 / RATE, abs=0.05)
    with av.open(str(run.overlay)) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height) == SIZE


def test_a_camera_that_somebody_else_has_is_one_line(vivid: Vivid, trocar: Any) -> None:
    vivid.set(*SIZE, b"YUYV", RATE)
    with av.open(str(vivid.path), format="v4l2") as theirs:
        next(theirs.decode(video=0))
        done = trocar("annotate", str(vivid.path), timeout_s=LIMIT_S)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert f"{vivid.path}: expected a video" in line
    assert "Device or resource busy" in line


def test_a_camera_that_gives_no_picture_is_one_line(vivid: Vivid, trocar: Any) -> None:
    vivid.control("Percentage of Dropped Buffers", 100)
    try:
        done = trocar("annotate", str(vivid.path), timeout_s=LIMIT_S)
    finally:
        vivid.control("Percentage of Dropped Buffers", 0)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "no picture within 10 s" in line


@pytest.mark.parametrize(
    ("control", "value", "said"),
    [
        ("Percentage of Dropped Buffers", 100, "nothing came for 5 s"),
        ("Inject Fatal Streaming Error", 1, "Input/output error"),
        ("Disconnect", 1, "No such device"),  # last: it stays away
    ],
)
def test_a_camera_that_stops_in_mid_stream_is_said_and_what_came_is_kept(
    vivid: Vivid, tmp_path: Path, options: tuple[str, str], control: str, value: int, said: str
) -> None:
    run = Annotating(str(vivid.path), tmp_path / "files", *options)
    run.wait_for_frames(10, limit_s=LIMIT_S)
    vivid.control(control, value)
    code, document, errors = run.end(limit_s=LIMIT_S)
    if control != "Disconnect":
        vivid.control(control, 0)
    assert (code, errors) == (1, "")
    assert document["broke_off"] == said
    run.whole(document)
