"""Streams as a theatre has them: GStreamer's RTSP server on this machine, and what goes wrong with one."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import pytest
from annotating import Annotating

from trocar.video.annotator.renderer import render_clip

PYTHON = "/usr/bin/python3"
NEEDED = "gi.require_version('GstRtspServer', '1.0'); gi.require_version('GstRtsp', '1.0')"
SERVER = Path(__file__).parents[1] / "peers" / "rtsp.py"
SIZE, FPS, FRAMES = (256, 448), 25, 60
PASSWORD = "tr0car-Secret"


@dataclass
class Rtsp:
    process: subprocess.Popen[str]
    port: int

    def address(self, path: str, who: str = "") -> str:
        return f"rtsp://{who}127.0.0.1:{self.port}/{path}"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    with av.open(str(path), "w") as container:
        options = {"preset": "ultrafast", "bf": "0", "g": str(FPS)}
        stream = container.add_stream("libx264", rate=FPS, options=options)
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
        for one in render_clip(3, FRAMES, FPS, SIZE):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(one.scene.image_rgb, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def start_rtsp(clip: Path) -> Iterator[Callable[[], Rtsp]]:
    there = [PYTHON, "-c", f"import gi; {NEEDED}; from gi.repository import GstRtspServer"]
    if not Path(PYTHON).exists() or subprocess.run(there, capture_output=True, check=False).returncode:
        pytest.skip(
            "GStreamer's RTSP server is not installed: apt-get install python3-gi gir1.2-gst-rtsp-server-1.0 "
            "gstreamer1.0-plugins-base gstreamer1.0-plugins-good"
        )
    started: list[subprocess.Popen[str]] = []

    def start() -> Rtsp:
        process = subprocess.Popen(
            [PYTHON, str(SERVER), str(clip)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout is not None
        return Rtsp(process, int(process.stdout.readline()))

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def rtsp(start_rtsp: Callable[[], Rtsp]) -> Rtsp:
    return start_rtsp()


def test_a_stream_is_annotated_live_to_its_end_over_either_transport(rtsp: Rtsp, tmp_path: Path) -> None:
    # Over UDP the word of the end may overtake the last pictures.
    runs = [
        (path, lost, Annotating(rtsp.address(path), tmp_path / path))
        for path, lost in (("tcp", 0), ("udp", 5))
    ]
    for path, lost, run in runs:
        code, document, errors = run.end()
        assert (code, errors) == (0, "")
        assert document["live"]
        assert document["input"] == rtsp.address(path)
        assert document["broke_off"] == ""
        assert FRAMES - lost <= document["frames"]["frames"] <= FRAMES
        assert document["frames"]["annotated"] > 0
        log = run.whole(document)
        # Times are the stream's, to its end, and so is the pace.
        assert log[-1]["pts_s"] == pytest.approx((FRAMES - 1) / FPS, abs=0.01 + lost / FPS)
        assert document["duration_s"] > 0.8 * FRAMES / FPS


def test_a_server_annotates_a_stream(rtsp: Rtsp, server: Any, tmp_path: Path) -> None:
    run = Annotating(rtsp.address("clip"), tmp_path, "--server", server.target)
    code, document, errors = run.end()
    assert (code, errors) == (0, "")
    assert document["live"]
    assert document["frames"]["annotated"] > 0
    run.whole(document)


def test_ctrl_c_ends_a_stream_without_an_end_with_whole_files(rtsp: Rtsp, tmp_path: Path) -> None:
    run = Annotating(rtsp.address("pattern"), tmp_path)
    run.wait_for_frames(10)
    run.interrupt()
    begun_s = time.monotonic()
    code, document, errors = run.end()
    assert time.monotonic() - begun_s < 20
    assert code == 0
    assert errors.splitlines() == ["trocar: ending; what was annotated so far is kept"]
    assert document["broke_off"] == ""
    run.whole(document)


def test_a_server_that_dies_or_hangs_in_mid_stream_is_said_and_what_came_is_kept(
    start_rtsp: Callable[[], Rtsp], tmp_path: Path
) -> None:
    cases = {signal.SIGKILL: "the other side ended it", signal.SIGSTOP: "nothing came for 5 s"}
    runs = []
    for how, said in cases.items():
        rtsp = start_rtsp()
        runs.append((Annotating(rtsp.address("pattern"), tmp_path / how.name), rtsp, how, said))
    for run, rtsp, how, _ in runs:
        run.wait_for_frames(10)
        os.kill(rtsp.process.pid, how)
    for run, _, _, said in runs:
        code, document, errors = run.end()
        assert (code, errors) == (1, "")
        assert document["broke_off"] == said
        run.whole(document)


def test_ctrl_c_ends_a_stream_that_is_silent(start_rtsp: Callable[[], Rtsp], tmp_path: Path) -> None:
    rtsp = start_rtsp()
    run = Annotating(rtsp.address("pattern"), tmp_path)
    run.wait_for_frames(10)
    os.kill(rtsp.process.pid, signal.SIGSTOP)
    time.sleep(0.5)
    run.interrupt()
    code, document, _ = run.end()
    assert code == 0
    assert document["broke_off"] == ""
    run.whole(document)


def test_where_no_udp_comes_through_it_is_tcp(rtsp: Rtsp, tmp_path: Path) -> None:
    """Between the two a peer that has the server's packets sent to another port, as a firewall loses them."""
    asked: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))
    with listener, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        elsewhere = b"client_port=%d-%d" % (port, port)

        def changed(data: bytes) -> bytes:
            asked.extend(re.findall(rb"Transport: (\S+?);", data))
            return re.sub(rb"client_port=\d+-\d+", elsewhere, data)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    near, far = listener.accept()[0], socket.create_connection(("127.0.0.1", rtsp.port))
                    threading.Thread(target=pump, args=(near, far, changed), daemon=True).start()
                    threading.Thread(target=pump, args=(far, near, bytes), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        run = Annotating(f"rtsp://127.0.0.1:{listener.getsockname()[1]}/clip", tmp_path)
        code, document, _ = run.end()
    assert asked[0].startswith(b"RTP/AVP/UDP")
    assert asked[-1].startswith(b"RTP/AVP/TCP")
    assert code == 0
    assert document["frames"]["frames"] > FRAMES // 2
    run.whole(document)


def pump(source: socket.socket, target: socket.socket, changed: Callable[[bytes], bytes]) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(changed(data))
        target.shutdown(socket.SHUT_WR)


def failed(trocar: Any, tmp_path: Path, address: str, limit_s: float) -> str:
    """Annotate what cannot be; return the one line that says so."""
    begun_s = time.monotonic()
    done = trocar("annotate", address, "--jsonl", str(tmp_path / "a.jsonl"), "--json")
    assert time.monotonic() - begun_s < limit_s
    assert (done.returncode, done.stdout) == (2, "")
    assert list(tmp_path.iterdir()) == []
    (line,) = done.stderr.splitlines()
    assert line.startswith("trocar: error: rtsp://")
    return line


@pytest.mark.parametrize(
    ("path", "who", "said"),
    [
        ("nothing", "", "404 Not Found"),
        ("secret", "", "401 Unauthorized"),
        ("secret", "ward:wr0ng-Secret@", "401 Unauthorized"),
    ],
)
def test_what_the_server_refuses_is_one_line(
    trocar: Any, rtsp: Rtsp, tmp_path: Path, path: str, who: str, said: str
) -> None:
    line = failed(trocar, tmp_path, rtsp.address(path, who), 15)
    assert said in line
    assert "ward" not in line
    assert "wr0ng" not in line


def test_where_nobody_listens_it_is_said_at_once(trocar: Any, tmp_path: Path) -> None:
    line = failed(trocar, tmp_path, f"rtsp://ward:{PASSWORD}@127.0.0.1:9/or2", 15)
    assert line.startswith("trocar: error: rtsp://***@127.0.0.1:9/or2: expected a video")
    assert "Connection refused" in line


def test_where_nobody_answers_it_is_said_in_time(trocar: Any, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"rtsp://ward:{PASSWORD}@127.0.0.1:{listener.getsockname()[1]}/or2"
        line = failed(trocar, tmp_path, address, 30)
    assert "no picture within" in line
    assert PASSWORD not in line


def test_no_one_sees_a_camera_s_password(rtsp: Rtsp, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("TROCAR_DEBUG", "1")
    others = {
        "--coco": "c.json",
        "--cvat": "c.xml",
        "--metrics": "m.json",
        "--report": "r.html",
    }
    options = [part for name, file in others.items() for part in (name, str(tmp_path / file))]
    run = Annotating(rtsp.address("secret", f"ward:{PASSWORD}@"), tmp_path / "more", *options)
    code, document, errors = run.end()
    assert code == 0
    run.whole(document)
    assert document["input"] == rtsp.address("secret", "***@")
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) == len(others) + 2
    for text in (json.dumps(document), errors, *(path.read_bytes().decode("latin-1") for path in written)):
        assert PASSWORD not in text
        assert "ward:" not in text
