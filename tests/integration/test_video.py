"""A real server and real clients: frames in every form, several streams, bad pictures."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import grpc
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from trocar.v1 import video_pb2, video_pb2_grpc
from trocar.video.quality import inspect

SIZE = (256, 448)


@pytest.fixture
def channel(server: Any) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.target, options=[("grpc.max_receive_message_length", -1)]) as channel:
        yield channel


def annotate(
    channel: grpc.Channel,
    *frames: video_pb2.VideoFrame,
    masks: int = video_pb2.MASK_FORMAT_LABELS_PNG,
    model: str = "",
    timeout: float = 60,
) -> list[video_pb2.AnnotateReply]:
    """Send frames one after the other, each when the one before is answered."""
    import queue

    requests: queue.SimpleQueue[video_pb2.AnnotateRequest | None] = queue.SimpleQueue()
    settings = video_pb2.StreamSettings(model=model, masks=masks)
    requests.put(video_pb2.AnnotateRequest(settings=settings))
    call = video_pb2_grpc.VideoServiceStub(channel).Annotate(iter(requests.get, None), timeout=timeout)
    replies = []
    for frame in frames:
        requests.put(video_pb2.AnnotateRequest(frame=frame))
        replies.append(next(call))
    requests.put(None)
    assert list(call) == []
    return replies


def raw(image: np.ndarray, pixel_format: int = video_pb2.PIXEL_FORMAT_BGR, number: int = 1) -> Any:
    height, width = SIZE
    picture = video_pb2.RawPicture(format=pixel_format, height=height, width=width, data=image.tobytes())
    return video_pb2.VideoFrame(id=number, pts_us=40_000 * number, raw=picture)


def labels_of(reply: video_pb2.AnnotateReply) -> np.ndarray:
    assert reply.error == ""
    return cv2.imdecode(np.frombuffer(reply.labels_png, np.uint8), cv2.IMREAD_GRAYSCALE)


def test_a_frame_is_answered_with_classes_masks_and_times(channel: grpc.Channel, image_bgr: Any) -> None:
    (reply,) = annotate(channel, raw(image_bgr, number=77))
    assert (reply.id, reply.pts_us) == (77, 77 * 40_000)
    assert list(reply.classes) == ["background", "tissue", "shaft", "wrist", "clasper"]
    assert reply.object_from == 2
    assert reply.device.startswith(("cpu", "cuda"))
    labels = labels_of(reply)
    assert labels.shape == SIZE
    assert set(np.unique(labels)) <= set(range(5))
    assert {"queue", "preprocess", "model", "postprocess", "total"} <= set(reply.stage_ms)
    for one in reply.instances:
        inside = labels[one.top : one.bottom, one.left : one.right] >= 2
        assert inside.any()
        assert one.label == "instrument"
        assert 0 <= one.confidence <= 1


def test_one_picture_in_every_form_gets_one_answer(channel: grpc.Channel, image_bgr: Any) -> None:
    name = f"test-{uuid.uuid4().hex}"
    path = Path("/dev/shm") / f"trocar-video-{name}"
    path.write_bytes(b"header--" + image_bgr.tobytes())
    shared = video_pb2.SharedPicture(
        name=name, offset=8, format=video_pb2.PIXEL_FORMAT_BGR, height=SIZE[0], width=SIZE[1]
    )
    try:
        replies = annotate(
            channel,
            raw(image_bgr),
            raw(np.ascontiguousarray(image_bgr[..., ::-1]), video_pb2.PIXEL_FORMAT_RGB, 2),
            video_pb2.VideoFrame(id=3, shared=shared),
            raw(nv12(image_bgr), video_pb2.PIXEL_FORMAT_NV12, 4),
            video_pb2.VideoFrame(id=5, jpeg=cv2.imencode(".jpg", image_bgr, [1, 95])[1].tobytes()),
            raw(cv2.cvtColor(image_bgr, cv2.COLOR_BGR2GRAY), video_pb2.PIXEL_FORMAT_GREY, 6),
        )
    finally:
        path.unlink()
    exact, rgb, memory, chroma, jpeg, _ = map(labels_of, replies)
    assert np.array_equal(exact, rgb)
    assert np.array_equal(exact, memory)
    # Chroma at half size and JPEG change pixels a little, and masks with them.
    assert np.mean(exact == chroma) > 0.9
    assert np.mean(exact == jpeg) > 0.9


def nv12(image_bgr: np.ndarray) -> np.ndarray:
    height, width = SIZE
    planar = cv2.cvtColor(image_bgr, cv2.COLOR_BGR2YUV_I420).ravel()
    pixels = height * width
    u, v = planar[pixels : pixels * 5 // 4], planar[pixels * 5 // 4 :]
    return np.concatenate([planar[:pixels], np.stack([u, v], axis=1).ravel()])


def test_h264_access_units(channel: grpc.Channel, image_bgr: Any) -> None:
    encoder = av.CodecContext.create("libx264", "w")
    encoder.height, encoder.width, encoder.pix_fmt = *SIZE, "yuv420p"
    encoder.time_base = Fraction(1, 25)
    encoder.options = {"tune": "zerolatency", "preset": "ultrafast", "crf": "10"}
    units = []
    for index in range(6):
        frame = av.VideoFrame.from_ndarray(np.roll(image_bgr, 4 * index, axis=1), format="bgr24")
        frame.pts = index
        units += [bytes(packet) for packet in encoder.encode(frame)]
    units += [bytes(packet) for packet in encoder.encode(None)]
    replies = annotate(
        channel,
        *(video_pb2.VideoFrame(id=100 + n, pts_us=40_000 * n, h264=unit) for n, unit in enumerate(units)),
    )
    assert [reply.id for reply in replies] == [100 + n for n in range(len(units))]
    (exact,) = annotate(channel, raw(image_bgr))
    assert np.mean(labels_of(replies[0]) == labels_of(exact)) > 0.85


def test_masks_as_runs_and_as_polygons_are_the_label_map_s(channel: grpc.Channel, image_bgr: Any) -> None:
    (labels,) = map(labels_of, annotate(channel, raw(image_bgr)))
    (runs,) = annotate(channel, raw(image_bgr), masks=video_pb2.MASK_FORMAT_RLE)
    (polygons,) = annotate(channel, raw(image_bgr), masks=video_pb2.MASK_FORMAT_POLYGONS)
    assert len(runs.instances) == len(polygons.instances) > 0
    for one, other in zip(runs.instances, polygons.instances, strict=True):
        expected = np.zeros(SIZE, bool)
        window = np.s_[one.top : one.bottom, one.left : one.right]
        expected[window] = labels[window] >= runs.object_from
        size = [one.rle.height, one.rle.width]
        decoded = coco_mask.decode({"size": size, "counts": one.rle.counts.encode()}).astype(bool)
        assert np.array_equal(decoded, expected)
        filled = np.zeros(SIZE, np.uint8)
        for polygon in other.polygons:
            cv2.fillPoly(filled, [np.array(polygon.xy, np.int32).reshape(-1, 2)], 1)
        assert np.mean(filled.astype(bool) == expected) > 0.99


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (video_pb2.VideoFrame(id=1), "expected a frame with a picture"),
        (
            video_pb2.VideoFrame(id=1, raw=video_pb2.RawPicture(height=10, width=10, data=b"123")),
            "expected 300 bytes for a picture of 10 x 10, got 3",
        ),
        (
            video_pb2.VideoFrame(id=1, raw=video_pb2.RawPicture(height=1 << 20, width=1 << 20, data=b"")),
            "expected frames of 1 to 8192 pixels a side",
        ),
        (
            video_pb2.VideoFrame(
                id=1,
                raw=video_pb2.RawPicture(
                    format=video_pb2.PIXEL_FORMAT_NV12, height=3, width=4, data=b"\x00" * 18
                ),
            ),
            "NV12: expected an even height and width",
        ),
        (
            video_pb2.VideoFrame(
                id=1, raw=video_pb2.RawPicture(format=99, height=2, width=2, data=bytes(12))
            ),
            "expected a pixel format of",
        ),
        (
            video_pb2.VideoFrame(
                id=1, shared=video_pb2.SharedPicture(name="../../etc/passwd", height=2, width=2)
            ),
            "expected a name of letters",
        ),
        (
            video_pb2.VideoFrame(id=1, shared=video_pb2.SharedPicture(name="none", height=2, width=2)),
            "No such file",
        ),
    ],
)
def test_a_bad_picture_ends_its_stream_with_one_line(
    channel: grpc.Channel, image_bgr: Any, frame: video_pb2.VideoFrame, said: str
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        annotate(channel, frame)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert said in caught.value.details()
    assert labels_of(annotate(channel, raw(image_bgr))[0]).shape == SIZE  # the server goes on


def test_a_damaged_frame_is_answered_with_why_and_its_stream_goes_on(
    server: Any, channel: grpc.Channel, image_bgr: Any
) -> None:
    whole = cv2.imencode(".jpg", image_bgr, [1, 95])[1].tobytes()
    middle = len(whole) // 2
    damaged = (
        whole[:middle] + bytes(400) + whole[middle + 400 :],
        whole[:middle],
        whole[:50],
        b"\xff\xd8\xff not a jpeg",
        b"",
    )
    sent = [video_pb2.VideoFrame(id=10, pts_us=7, jpeg=whole)]
    for number, data in enumerate(damaged):
        sent.append(video_pb2.VideoFrame(id=20 + number, pts_us=8 + number, jpeg=data))
    sent += [video_pb2.VideoFrame(id=30, h264=b""), video_pb2.VideoFrame(id=31, h264=b"junk")]
    sent.append(video_pb2.VideoFrame(id=40, jpeg=whole))
    said_before = server.log.stat().st_size
    replies = annotate(channel, *sent)
    assert [reply.id for reply in replies] == [frame.id for frame in sent]
    assert [reply.pts_us for reply in replies] == [frame.pts_us for frame in sent]
    assert np.array_equal(labels_of(replies[0]), labels_of(replies[-1]))
    for reply in replies[1:-1]:
        assert reply.error.startswith("expected a")
        assert not reply.instances
        assert not reply.labels_png
        assert not reply.HasField("quality")
    assert replies[-1].dropped == 0
    with server.log.open("rb") as log:
        log.seek(said_before)
        assert b"Corrupt JPEG" not in log.read()


def test_shared_memory_that_is_a_link_or_too_short_is_refused(channel: grpc.Channel, tmp_path: Path) -> None:
    name = f"test-{uuid.uuid4().hex}"
    path = Path("/dev/shm") / f"trocar-video-{name}"
    shared = video_pb2.VideoFrame(id=1, shared=video_pb2.SharedPicture(name=name, height=4, width=4))
    try:
        path.write_bytes(b"123")
        with pytest.raises(grpc.RpcError, match="expected 48 bytes, got 3"):
            annotate(channel, shared)
        path.unlink()
        (tmp_path / "secret").write_bytes(bytes(48))
        path.symlink_to(tmp_path / "secret")
        with pytest.raises(grpc.RpcError, match="Too many levels of symbolic links"):
            annotate(channel, shared)
    finally:
        path.unlink(missing_ok=True)


def test_a_jpeg_that_claims_more_than_it_holds_is_refused_before_it_is_decoded(channel: Any) -> None:
    data = bytearray(cv2.imencode(".jpg", np.zeros((16, 16, 3), np.uint8))[1].tobytes())
    start = data.index(b"\xff\xc0")
    data[start + 5 : start + 9] = b"\xff\xff\xff\xff"  # 65535 x 65535
    with pytest.raises(grpc.RpcError, match="1 to 8192 pixels a side, got"):
        annotate(channel, video_pb2.VideoFrame(id=1, jpeg=bytes(data)))


def test_the_settings_come_first(channel: grpc.Channel, image_bgr: Any) -> None:
    stub = video_pb2_grpc.VideoServiceStub(channel)
    for requests in ([], [video_pb2.AnnotateRequest(frame=raw(image_bgr))], [video_pb2.AnnotateRequest()]):
        with pytest.raises(grpc.RpcError, match="settings as its first message"):
            list(stub.Annotate(iter(requests), timeout=20))


def test_an_unknown_model_is_named(channel: grpc.Channel, image_bgr: Any) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        annotate(channel, raw(image_bgr), model="nothing")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_a_client_s_own_measure_of_quality_is_taken_and_absent_it_is_made(
    channel: grpc.Channel, image_bgr: Any
) -> None:
    own = raw(image_bgr)
    own.quality.CopyFrom(video_pb2.PictureQuality(smoke=0.625, out_of_body=0.25))
    told, measured = annotate(channel, own, raw(image_bgr, number=2))
    assert (told.quality.smoke, told.quality.out_of_body, told.quality.exposure) == (0.625, 0.25, 0.0)
    found = inspect(image_bgr)
    assert measured.quality.smoke == pytest.approx(found.smoke)
    assert measured.quality.exposure == pytest.approx(found.exposure) != 0


def test_several_clients_at_once_get_their_own_answers(channel: grpc.Channel, image_bgr: Any) -> None:
    def client(number: int) -> list[int]:
        frames = [raw(np.roll(image_bgr, 10 * number, axis=1), number=1000 * number + n) for n in range(8)]
        return [reply.id for reply in annotate(channel, *frames)]

    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(client, range(3)))
    assert found == [[1000 * number + n for n in range(8)] for number in range(3)]


def test_a_client_that_vanishes_leaves_room_for_the_next(server: Any, image_bgr: Any) -> None:
    for _ in range(6):  # more than there are streams
        with grpc.insecure_channel(server.target) as gone:
            settings = video_pb2.AnnotateRequest(settings=video_pb2.StreamSettings())
            requests = iter([settings, video_pb2.AnnotateRequest(frame=raw(image_bgr))])
            call = video_pb2_grpc.VideoServiceStub(gone).Annotate(requests, timeout=60)
            next(call)
    with grpc.insecure_channel(server.target, options=[("grpc.max_receive_message_length", -1)]) as channel:
        assert len(annotate(channel, raw(image_bgr))) == 1
