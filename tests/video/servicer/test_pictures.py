"""Pictures as they come: damaged ones are found, and cost nothing but themselves."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest

from trocar.runtime.errors import InvalidInput
from trocar.v1 import video_pb2
from trocar.video.servicer.pictures import DamagedPicture, PictureReader

SIZE = (256, 448)


def scene(shift: int = 0) -> np.ndarray:
    """Patches that an encoder has something to do with."""
    patches = np.random.default_rng(5).integers(0, 255, (16, 28, 3), np.uint8)
    return np.ascontiguousarray(np.roll(np.kron(patches, np.ones((16, 16, 1), np.uint8)), shift, axis=1))


def read(reader: PictureReader, frame: video_pb2.VideoFrame) -> list[tuple[int, np.ndarray]]:
    found = []
    for number, _, (height, width), write in reader.read(frame):
        image = np.zeros((height, width, 3), np.uint8)
        write(image)
        found.append((number, image))
    return found


JPEG = cv2.imencode(".jpg", scene(), [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes()


def zeroed(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes(400) + data[middle + 400 :]


def flipped(data: bytes) -> bytes:
    """A marker in the middle of the scan where there was none: the least that a decoder notices."""
    middle = data.index(b"\xff\x00", len(data) // 2)
    return data[: middle + 1] + b"\x20" + data[middle + 2 :]


def test_a_whole_jpeg_is_what_opencv_makes_of_it() -> None:
    ((number, image),) = read(PictureReader(), video_pb2.VideoFrame(id=3, jpeg=JPEG))
    assert number == 3
    assert np.array_equal(image, cv2.imdecode(np.frombuffer(JPEG, np.uint8), cv2.IMREAD_COLOR))


@pytest.mark.parametrize(
    "damage",
    [
        zeroed,
        flipped,
        lambda data: data[: len(data) // 2],
        lambda data: data[:-2],
        lambda data: data[:100],
        lambda data: b"\xff\xd8\xff not a jpeg",
        lambda data: b"",
    ],
    ids=["zeroed", "flipped", "half", "no end", "header", "none", "empty"],
)
def test_a_damaged_jpeg_is_said_and_nothing_goes_to_stderr(
    damage: Callable[[bytes], bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    reader = PictureReader()
    with pytest.raises(DamagedPicture, match=r"expected a (whole )?JPEG"):
        read(reader, video_pb2.VideoFrame(id=1, jpeg=damage(JPEG)))
    assert len(read(reader, video_pb2.VideoFrame(id=2, jpeg=JPEG))) == 1
    assert capfd.readouterr() == ("", "")


def encoder_with(**options: str) -> av.VideoCodecContext:
    encoder = av.CodecContext.create("libx264", "w")
    encoder.height, encoder.width, encoder.pix_fmt = *SIZE, "yuv420p"
    encoder.time_base = Fraction(1, 25)
    encoder.options = {"preset": "ultrafast", "crf": "10", **options}
    return encoder


def units(count: int) -> list[bytes]:
    encoder, found = encoder_with(tune="zerolatency"), []
    for index in range(count):
        frame = av.VideoFrame.from_ndarray(scene(4 * index), format="bgr24")
        frame.pts = index
        found += [bytes(packet) for packet in encoder.encode(frame)]
    return found + [bytes(packet) for packet in encoder.encode(None)]


@pytest.mark.parametrize(
    "damage",
    [
        lambda unit: b"",
        lambda unit: b"junk",
        lambda unit: unit[: len(unit) // 2],
        lambda unit: unit[: len(unit) * 9 // 10],
    ],
    ids=["empty", "junk", "half", "nearly whole"],
)
def test_a_damaged_access_unit_is_said_and_the_next_ones_are_decoded(
    damage: Callable[[bytes], bytes],
) -> None:
    reader, said = PictureReader(), []
    for index, unit in enumerate(units(8)):
        sent = damage(unit) if index == 5 else unit
        try:
            said.append([number for number, _ in read(reader, video_pb2.VideoFrame(id=index, h264=sent))])
        except DamagedPicture:
            said.append("damaged")
    assert said == [[0], [1], [2], [3], [4], "damaged", [6], [7]]


def test_pictures_that_the_codec_reorders_keep_their_ids() -> None:
    encoder = encoder_with(bf="2", preset="medium")
    packets = []
    for index in range(12):
        frame = av.VideoFrame.from_ndarray(np.full((*SIZE, 3), 20 * index, np.uint8), format="bgr24")
        frame.pts = index
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    order = [packet.pts for packet in packets]
    assert order != sorted(order), "nothing was reordered"
    reader, found = PictureReader(), {}
    for sent, packet in enumerate(packets):
        found |= dict(read(reader, video_pb2.VideoFrame(id=sent, pts_us=packet.pts, h264=bytes(packet))))
    assert len(found) > 6
    for number, image in found.items():
        assert abs(float(image.mean()) - 20 * order[number]) < 5


@pytest.mark.parametrize("pixel_format", [4, 99, -1])
def test_an_unknown_pixel_format_is_refused(pixel_format: int) -> None:
    picture = video_pb2.RawPicture(format=pixel_format, height=2, width=2, data=bytes(12))
    with pytest.raises(InvalidInput, match=f"expected a pixel format .*, got {pixel_format}"):
        read(PictureReader(), video_pb2.VideoFrame(id=1, raw=picture))
    shared = video_pb2.SharedPicture(name="none", format=pixel_format, height=2, width=2)
    with pytest.raises(InvalidInput, match=f"expected a pixel format .*, got {pixel_format}"):
        read(PictureReader(), video_pb2.VideoFrame(id=1, shared=shared))
