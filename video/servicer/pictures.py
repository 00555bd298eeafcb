"""Pictures as clients send them, into a slot's memory: checked before a byte is decoded."""

from __future__ import annotations

import io
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import av.error
import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image, UnidentifiedImageError

from trocar.runtime.errors import InvalidInput
from trocar.v1 import video_pb2
from trocar.video.frames import UInt8Array
from trocar.video.ring import MAX_SIDE_PX

SHARED_FOLDER = Path("/dev/shm")
SHARED_PREFIX = "trocar-video-"
_SHARED_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
# Bytes a pixel of each format.
_SAMPLES = {
    video_pb2.PIXEL_FORMAT_BGR: 3.0,
    video_pb2.PIXEL_FORMAT_RGB: 3.0,
    video_pb2.PIXEL_FORMAT_GREY: 1.0,
    video_pb2.PIXEL_FORMAT_NV12: 1.5,
}
_CONVERSIONS = {
    video_pb2.PIXEL_FORMAT_RGB: cv2.COLOR_RGB2BGR,
    video_pb2.PIXEL_FORMAT_GREY: cv2.COLOR_GRAY2BGR,
    video_pb2.PIXEL_FORMAT_NV12: cv2.COLOR_YUV2BGR_NV12,
}

# A picture: the client's id, its time, its size, and what writes it as BGR or says that it is damaged.
Decoded = tuple[int, int, tuple[int, int], Callable[[UInt8Array], None]]


class DamagedPicture(InvalidInput):
    """What a client sent as a JPEG or an access unit cannot be decoded: the frame is lost, not the stream."""


class PictureReader:
    """Decodes one stream's frames; H.264 needs the ones before."""

    def __init__(self) -> None:
        self._h264: av.VideoCodecContext | None = None

    def read(self, frame: video_pb2.VideoFrame) -> list[Decoded]:
        """Return the pictures that a frame completes: one, or with H.264 none or several.

        Raises
        ------
        DamagedPicture
            The frame's JPEG or access unit cannot be decoded; the next one may be.
        InvalidInput
            The frame holds no picture, or one that is not what it says.
        """
        kind = frame.WhichOneof("picture")
        if kind == "h264":
            return self._access_unit(frame)
        if kind == "jpeg":
            size, write = _jpeg(frame.jpeg)
        elif kind == "raw":
            raw = frame.raw
            size, write = _pixels(np.frombuffer(raw.data, np.uint8), raw.format, raw.height, raw.width)
        elif kind == "shared":
            size, write = _shared(frame.shared)
        else:
            raise InvalidInput("expected a frame with a picture (jpeg, raw, h264 or shared), got none")
        return [(frame.id, frame.pts_us, size, write)]

    def _access_unit(self, frame: video_pb2.VideoFrame) -> list[Decoded]:
        if self._h264 is None:
            self._h264 = av.CodecContext.create("h264", "r")
            self._h264.options = {"flags": "low_delay+copy_opaque"}
            # With threads, FFmpeg forgets the damage that all but the first of them find.
            self._h264.thread_count = 1
        if not frame.h264:
            # FFmpeg takes an empty packet for the end, and nothing after it.
            raise DamagedPicture("expected an H.264 access unit, got none")
        packet = av.Packet(frame.h264)
        # The codec orders pictures by time and hands the packet's opaque back with each.
        packet.pts = frame.pts_us
        packet.opaque = frame.id
        try:
            pictures = self._h264.decode(packet)
        except av.error.FFmpegError as error:
            raise DamagedPicture(
                f"expected an H.264 access unit that can be decoded: {error.strerror}"
            ) from error
        found: list[Decoded] = []
        for picture in pictures:
            _check_size(picture.height, picture.width)
            number: Any = frame.id if picture.opaque is None else picture.opaque
            time_us = frame.pts_us if picture.pts is None else picture.pts
            found.append((number, time_us, (picture.height, picture.width), _drawn(picture)))
        return found


def _drawn(picture: av.VideoFrame) -> Callable[[UInt8Array], None]:
    def write(image_bgr: UInt8Array) -> None:
        # The decoder has filled in what it missed: nobody should mark instruments in that.
        if picture.is_corrupt:
            raise DamagedPicture("expected a whole H.264 access unit, got a damaged one")
        np.copyto(image_bgr, picture.to_ndarray(format="bgr24"))

    return write


def _jpeg(data: bytes) -> tuple[tuple[int, int], Callable[[UInt8Array], None]]:
    try:
        # Only the header is read here: a small file may claim any number of pixels.
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            width, height = image.size
    except Image.DecompressionBombError as error:
        raise InvalidInput(
            f"expected frames of 1 to {MAX_SIDE_PX} pixels a side, got more: {error}"
        ) from error
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise DamagedPicture(f"expected a JPEG, got {len(data)} bytes that are none") from error
    _check_size(height, width)

    def write(image_bgr: UInt8Array) -> None:
        try:
            # Not by OpenCV: what libjpeg finds damaged it tells stderr, and fills up with grey.
            simplejpeg.decode_jpeg(data, "BGR", buffer=image_bgr)
        except ValueError as error:
            raise DamagedPicture(f"expected a whole JPEG of {width} x {height}: {error}") from error

    return (height, width), write


def _pixels(
    data: npt.NDArray[np.uint8], pixel_format: int, height: int, width: int
) -> tuple[tuple[int, int], Callable[[UInt8Array], None]]:
    _check_size(height, width)
    _samples(pixel_format)
    if pixel_format == video_pb2.PIXEL_FORMAT_NV12:
        if height % 2 or width % 2:
            raise InvalidInput(f"NV12: expected an even height and width, got {width} x {height}")
        shape: tuple[int, ...] = (height * 3 // 2, width)
    elif pixel_format == video_pb2.PIXEL_FORMAT_GREY:
        shape = (height, width)
    else:
        shape = (height, width, 3)
    needed = int(np.prod(shape))
    if data.size != needed:
        raise InvalidInput(f"expected {needed} bytes for a picture of {width} x {height}, got {data.size}")
    image = data.reshape(shape)
    if pixel_format not in _CONVERSIONS:
        return (height, width), _copier(image)
    code = _CONVERSIONS[pixel_format]  # type: ignore[index]

    def convert(image_bgr: UInt8Array) -> None:
        cv2.cvtColor(image, code, dst=image_bgr)

    return (height, width), convert


def _shared(shared: video_pb2.SharedPicture) -> tuple[tuple[int, int], Callable[[UInt8Array], None]]:
    if not _SHARED_NAME.fullmatch(shared.name) or shared.name.startswith("."):
        raise InvalidInput(f"expected a name of letters, digits, '_', '.' and '-', got {shared.name!r:.80}")
    _check_size(shared.height, shared.width)
    path = SHARED_FOLDER / f"{SHARED_PREFIX}{shared.name}"
    needed = int(shared.height * shared.width * _samples(shared.format))
    data = _read_shared(path, shared.offset, needed)
    return _pixels(data, shared.format, shared.height, shared.width)


def _read_shared(path: Path, offset: int, needed: int) -> npt.NDArray[np.uint8]:
    """Copy the bytes: the client may write over them, or shrink the object, while they are read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise InvalidInput(f"shared memory {path.name}: {error.strerror}") from error
    try:
        held = os.fstat(descriptor)
        if not stat.S_ISREG(held.st_mode) or held.st_uid != os.geteuid():
            raise InvalidInput(f"shared memory {path.name}: expected an object of this server's user")
        if offset + needed > held.st_size:
            raise InvalidInput(
                f"shared memory {path.name}: expected {offset + needed} bytes, got {held.st_size}"
            )
        # Read and not mapped: a mapping of an object that shrinks ends the process that touches it.
        data = os.pread(descriptor, needed, offset)
    finally:
        os.close(descriptor)
    if len(data) != needed:
        raise InvalidInput(f"shared memory {path.name}: expected {needed} bytes, got {len(data)}")
    return np.frombuffer(data, np.uint8)


def _samples(pixel_format: int) -> float:
    """Bytes a pixel; protobuf lets any number through as an enumeration's value."""
    if pixel_format not in _SAMPLES:
        names = ", ".join(video_pb2.PixelFormat.keys())
        raise InvalidInput(f"expected a pixel format of {names}, got {pixel_format}")
    return _SAMPLES[pixel_format]  # type: ignore[index]


def _copier(image: npt.NDArray[np.uint8]) -> Callable[[UInt8Array], None]:
    def write(image_bgr: UInt8Array) -> None:
        np.copyto(image_bgr, image)

    return write


def _check_size(height: int, width: int) -> None:
    if not (0 < height <= MAX_SIDE_PX and 0 < width <= MAX_SIDE_PX):
        raise InvalidInput(f"expected frames of 1 to {MAX_SIDE_PX} pixels a side, got {width} x {height}")
