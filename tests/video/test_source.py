"""Files as they come: whole, cut off, damaged, changing, slow, odd."""

from __future__ import annotations

import socket
import threading
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from trocar.runtime.errors import InvalidInput
from trocar.video.source import open_source, paced


def encode(
    path: Path,
    shades: list[int],
    *,
    size: tuple[int, int] = (48, 64),
    times: list[float] | None = None,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    rate: int = 25,
) -> Path:
    """Write plain frames of given shades."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width, stream.pix_fmt = *size, pix_fmt
        # AVI has no times: its frames are as far apart as its time base says.
        base = Fraction(1, rate) if path.suffix == ".avi" else Fraction(1, 1000)
        stream.codec_context.time_base = base
        for index, shade in enumerate(shades):
            frame = av.VideoFrame.from_ndarray(np.full((*size, 3), shade, np.uint8), format="rgb24")
            frame.pts = round((times[index] if times else index / rate) / base)
            frame.time_base = base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def read(name: str | Path) -> list[tuple[float, np.ndarray]]:
    source = open_source(str(name))
    found = []
    try:
        for picture in source.pictures():
            image = np.empty((picture.height, picture.width, 3), np.uint8)
            picture.write(image)
            found.append((picture.pts_s, image))
    finally:
        source.close()
    return found


SHADES = list(range(20, 220, 10))


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.avi", "mpeg4")])
def test_frames_come_in_order_with_times_and_colours(tmp_path: Path, name: str, codec: str) -> None:
    found = read(encode(tmp_path / name, SHADES, codec=codec))
    assert len(found) == len(SHADES)
    assert [time_s for time_s, _ in found] == pytest.approx([i / 25 for i in range(len(SHADES))], abs=1e-3)
    for (_, image), shade in zip(found, SHADES, strict=True):
        assert abs(float(image.mean()) - shade) < 4


def test_blue_is_the_first_channel(tmp_path: Path) -> None:
    path = tmp_path / "blue.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = 32, 32, "bgr0"
        rgb = np.zeros((32, 32, 3), np.uint8)
        rgb[..., 2] = 200
        container.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
        container.mux(stream.encode(None))
    ((_, image),) = read(path)
    assert image[5, 5].tolist() == [200, 0, 0]


@pytest.mark.parametrize("size", [(2, 2), (50, 34), (90, 1022), (34, 50)])
def test_sizes_whose_rows_are_padded(tmp_path: Path, size: tuple[int, int]) -> None:
    found = read(encode(tmp_path / "a.mkv", [100, 101], size=size, codec="ffv1", pix_fmt="bgr0"))
    assert [image.shape for _, image in found] == [(*size, 3)] * 2
    assert np.unique(found[0][1]).tolist() == [100]


def test_odd_sizes(tmp_path: Path) -> None:
    found = read(encode(tmp_path / "a.mkv", [100], size=(37, 53), codec="ffv1", pix_fmt="bgr0"))
    assert found[0][1].shape == (37, 53, 3)
    assert np.unique(found[0][1]).tolist() == [100]


def test_monochrome_video(tmp_path: Path) -> None:
    found = read(encode(tmp_path / "a.mkv", [77], codec="ffv1", pix_fmt="gray"))
    assert np.ptp(found[0][1]) <= 1
    assert abs(float(found[0][1].mean()) - 77) <= 2


def test_a_variable_frame_rate_keeps_its_times(tmp_path: Path) -> None:
    times = [0.0, 0.04, 0.5, 0.51, 2.0]
    found = read(encode(tmp_path / "a.mkv", SHADES[:5], times=times))
    assert [time_s for time_s, _ in found] == pytest.approx(times, abs=2e-3)


def test_times_start_at_zero(tmp_path: Path) -> None:
    found = read(encode(tmp_path / "a.mkv", SHADES[:3], times=[100.0, 100.04, 100.08]))
    assert found[0][0] == 0.0
    assert found[2][0] == pytest.approx(0.08, abs=2e-3)


def test_a_truncated_file_gives_what_is_there_or_one_error(tmp_path: Path) -> None:
    whole = encode(tmp_path / "a.mkv", SHADES, codec="ffv1", pix_fmt="bgr0").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) * 2 // 3])
    found = read(tmp_path / "cut.mkv")
    assert 5 < len(found) < len(SHADES)
    assert all(np.unique(image).tolist() == [shade] for (_, image), shade in zip(found, SHADES, strict=False))
    movie = encode(tmp_path / "a.mp4", SHADES).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(movie[: len(movie) * 2 // 3])  # the index stood at the end
    with pytest.raises(InvalidInput, match=r"cut\.mp4: expected a video"):
        read(tmp_path / "cut.mp4")


def test_a_stream_that_breaks_off_is_kept_so_far_and_says_so(tmp_path: Path, monkeypatch) -> None:
    source = open_source(str(encode(tmp_path / "a.mkv", SHADES)))
    packets = list(source._container.demux(source._stream))

    def broken(_stream: object):
        yield from packets[: len(packets) // 2]
        raise OSError(104, "Connection reset by peer")

    class Container:
        demux = staticmethod(broken)
        close = staticmethod(lambda: None)

    source._container = Container()
    assert 0 < len(list(source.pictures())) < len(SHADES)
    assert source.broke_off == "Connection reset by peer"


def test_a_damaged_stretch_costs_its_frames_and_no_more(tmp_path: Path) -> None:
    data = bytearray(encode(tmp_path / "a.mkv", SHADES * 5).read_bytes())
    middle = len(data) // 2
    data[middle : middle + 40] = b"\xff" * 40
    (tmp_path / "bad.mkv").write_bytes(data)
    assert len(read(tmp_path / "bad.mkv")) > len(SHADES)


@pytest.mark.parametrize("content", [b"", b"not a video", b"\x00" * 5000, b"RIFF\xff\xff\xff\xffAVI LIST"])
def test_files_that_are_no_video(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.mp4").write_bytes(content)
    with pytest.raises(InvalidInput, match=r"x\.mp4"):
        read(tmp_path / "x.mp4")


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
    with pytest.raises(InvalidInput, match="expected a video stream, found none"):
        read(tmp_path / "a.wav")


def test_a_missing_file_is_named() -> None:
    with pytest.raises(InvalidInput, match=r"nowhere\.mp4: no such file"):
        open_source("nowhere.mp4")


def test_a_camera_that_is_not_there_is_named() -> None:
    with pytest.raises(InvalidInput, match="/dev/video93"):
        open_source("/dev/video93")


def test_a_stream_that_nobody_serves_is_an_error_and_no_hang() -> None:
    begun_s = time.monotonic()
    with pytest.raises(InvalidInput, match="rtsp"):
        open_source("rtsp://127.0.0.1:9/none")
    assert time.monotonic() - begun_s < 30


def test_the_test_pattern_is_a_live_source_that_moves() -> None:
    source = open_source("test:")
    assert source.live
    images = []
    for picture in source.pictures():
        image = np.empty((picture.height, picture.width, 3), np.uint8)
        picture.write(image)
        images.append(image)
        if len(images) == 3:
            break
    source.close()
    assert images[0].shape == (720, 1280, 3)
    assert not np.array_equal(images[0], images[2])


def test_a_stream_over_the_network_is_read_as_it_comes_and_may_end(tmp_path: Path) -> None:
    """MPEG transport stream over TCP on this machine: what a theatre's encoder sends, without one."""
    sent = encode(tmp_path / "a.ts", SHADES).read_bytes()
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listener, listener.accept()[0] as peer:
            peer.sendall(sent)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    source = open_source(f"tcp://127.0.0.1:{listener.getsockname()[1]}")
    assert source.live
    times_s = [picture.pts_s for picture in source.pictures()]
    source.close()
    thread.join(timeout=10)
    assert len(times_s) == len(SHADES)
    assert times_s == sorted(times_s)


@pytest.mark.parametrize("name", ["rendered:", "rendered:x", "rendered:-1", "rendered:1:0", "rendered:1:nan"])
def test_a_rendered_clip_needs_a_seed(name: str) -> None:
    with pytest.raises(InvalidInput, match="rendered:SEED"):
        open_source(name)


def test_paced_pictures_come_when_their_time_has_come(tmp_path: Path) -> None:
    source = open_source(str(encode(tmp_path / "a.mkv", SHADES[:6])))
    begun_s = time.monotonic()
    came_s = [(time.monotonic() - begun_s, one.pts_s) for one in paced(source.pictures(), threading.Event())]
    source.close()
    # None early; how late depends on the machine.
    assert all(came - came_s[0][0] >= pts_s - 0.005 for came, pts_s in came_s)


def test_the_next_picture_is_asked_for_once_the_last_one_is_out_of_work() -> None:
    asked_s: list[float] = []

    class Now:
        height = width = 2

        def __init__(self, pts_s: float) -> None:
            asked_s.append(time.monotonic())
            self.pts_s = pts_s

        def write(self, image_bgr: np.ndarray) -> None:
            raise AssertionError("nobody asks for it")

    pictures = (Now(0.1 * index) for index in range(4))
    given_s = [time.monotonic() for _ in paced(pictures, threading.Event(), fps=10.0)]
    # Not beside the model, and not so late that a slow decoder would delay the picture.
    assert all(asked - given > 0.018 for given, asked in zip(given_s, asked_s[1:], strict=False))
    assert np.median(np.subtract(given_s[1:], asked_s[1:])) > 0.05


def test_stop_ends_the_wait_for_a_picture_of_next_week(tmp_path: Path) -> None:
    class Later:
        height = width = 2

        def __init__(self, pts_s: float) -> None:
            self.pts_s = pts_s

        def write(self, image_bgr: np.ndarray) -> None:
            raise AssertionError("nobody asks for it")

    stop = threading.Event()
    pictures = paced(iter([Later(0.0), Later(600_000.0)]), stop)
    next(pictures)
    threading.Timer(0.05, stop.set).start()
    assert next(pictures).pts_s == 600_000.0
